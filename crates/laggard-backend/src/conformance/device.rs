//! What every device must do, without a communicator: memory, kernels, order, stamps, refusals. All
//! numbers are small integers, so that results are exact in every type and order of summation.

mod course;
mod products;

use super::Violation;
use crate::{BackendError, Device, Kernel, Launch, Matrix, QueueId, Slice, Task, Token, Transpose};
use course::{abort, handles, invalid, much_work, order, stamps};
use laggard_types::{DataType, Rank};
use products::products;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// One part of the suite, to be run on a fresh device.
#[derive(Clone, Copy)]
pub struct DeviceCheck {
    /// What it is about.
    pub name: &'static str,
    /// The check itself.
    pub body: fn(&Bench<'_>) -> Result<(), Violation>,
}

/// Every check.
pub const DEVICE_CHECKS: &[DeviceCheck] = &[
    DeviceCheck {
        name: "memory",
        body: memory,
    },
    DeviceCheck {
        name: "element by element",
        body: elementwise,
    },
    DeviceCheck {
        name: "triads",
        body: triads,
    },
    DeviceCheck {
        name: "squared norms",
        body: squared_norms,
    },
    DeviceCheck {
        name: "conversions",
        body: conversions,
    },
    DeviceCheck {
        name: "products",
        body: products,
    },
    DeviceCheck {
        name: "updates",
        body: updates,
    },
    DeviceCheck {
        name: "scaled work",
        body: scaled_work,
    },
    DeviceCheck {
        name: "order by tokens",
        body: order,
    },
    DeviceCheck {
        name: "stamps",
        body: stamps,
    },
    DeviceCheck {
        name: "much work from several threads",
        body: much_work,
    },
    DeviceCheck {
        name: "handles of others",
        body: handles,
    },
    DeviceCheck {
        name: "invalid tasks",
        body: invalid,
    },
    DeviceCheck {
        name: "abort of a device",
        body: abort,
    },
];

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(120);
/// Elements around every slice that must stay as they are; odd, so that slices are not aligned.
const GUARD: usize = 3;
/// The same, where slices are to be aligned.
const WIDE_GUARD: usize = 64;
/// What guards hold.
const GUARD_VALUE: f64 = 77.0;
/// Lengths below and above what kernels take at once.
const LENGTHS: [usize; 5] = [0, 1, 7, 130, 5003];

/// A device that is checked.
pub struct Bench<'a> {
    /// The device.
    pub device: &'a dyn Device,
    /// The rank that its errors name.
    pub rank: Rank,
}

/// Runs every check, each on a device of its own.
///
/// # Errors
/// The first violation, with the name of its check.
pub fn check_device(
    rank: Rank,
    mut open: impl FnMut() -> Result<Box<dyn Device>, BackendError>,
) -> Result<(), Violation> {
    for check in DEVICE_CHECKS {
        let named = |why: String| Violation {
            rank,
            case: check.name.to_owned(),
            why,
        };
        let device = open().map_err(|error| named(error.to_string()))?;
        let bench = Bench {
            device: &*device,
            rank,
        };
        (check.body)(&bench).map_err(|violation| Violation {
            case: format!("{}: {}", check.name, violation.case),
            ..violation
        })?;
    }
    Ok(())
}

fn element(seed: usize, index: usize) -> f64 {
    ((index * 3 + seed * 5 + index / 11) % 11) as f64 - 5.0
}

fn elements(seed: usize, len: usize) -> Vec<f64> {
    (0..len).map(|index| element(seed, index)).collect()
}

impl Bench<'_> {
    fn violation(&self, case: impl Display, why: impl Display) -> Violation {
        Violation {
            rank: self.rank,
            case: case.to_string(),
            why: why.to_string(),
        }
    }

    fn must<T>(&self, case: impl Display, result: Result<T, BackendError>) -> Result<T, Violation> {
        result.map_err(|error| self.violation(case, error))
    }

    fn expect(&self, case: impl Display, holds: bool, why: impl Display) -> Result<(), Violation> {
        match holds {
            true => Ok(()),
            false => Err(self.violation(case, why)),
        }
    }

    fn types(&self) -> Vec<DataType> {
        self.device.description().computes_in
    }

    fn queue(&self) -> Result<QueueId, Violation> {
        self.must("creating a queue", self.device.create_queue("check"))
    }

    /// A slice with these contents, between guards that leave it unaligned.
    fn slice(&self, data_type: DataType, values: &[f64]) -> Result<Slice, Violation> {
        self.between(GUARD, data_type, values)
    }

    /// A slice with these contents, between guards of so many elements.
    fn between(
        &self,
        guard: usize,
        data_type: DataType,
        values: &[f64],
    ) -> Result<Slice, Violation> {
        let len = values.len() + 2 * guard;
        let buffer = self.must("allocating", self.device.allocate(data_type, len))?;
        let whole = Slice::whole(&buffer);
        self.must("filling", whole.write_numbers(&vec![GUARD_VALUE; len]))?;
        let slice = self.must("slicing", whole.part(guard..guard + values.len()))?;
        self.must("filling", slice.write_numbers(values))?;
        Ok(slice)
    }

    /// Compares a slice exactly, and the guards around it.
    fn holds(&self, case: impl Display, slice: &Slice, want: &[f64]) -> Result<(), Violation> {
        let all = self.must(&case, Slice::whole(&slice.buffer).read_numbers())?;
        let (before, rest) = all.split_at(slice.offset);
        let (inside, after) = rest.split_at(slice.len);
        let mut outside = before.iter().chain(after);
        let differs = |a: f64, b: f64| a.partial_cmp(&b) != Some(std::cmp::Ordering::Equal);
        let wrong = (0..want.len()).find(|at| differs(inside[*at], want[*at]));
        if let Some(at) = wrong {
            let (len, found, want) = (want.len(), inside[at], want[at]);
            let why = format!("element {at} of {len} is {found}, not {want}");
            return Err(self.violation(case, why));
        }
        let is_kept = !outside.any(|x| differs(*x, GUARD_VALUE));
        self.expect(case, is_kept, "elements beside the slice were changed")
    }

    fn enqueue(
        &self,
        (queue, after): (QueueId, &[Token]),
        kernels: Vec<Kernel>,
    ) -> Result<Token, BackendError> {
        let launch = Launch {
            queue,
            after,
            tag: 0,
        };
        self.device.enqueue(&task(kernels, 1.0), launch)
    }

    /// Executes kernels and waits.
    fn run(&self, case: impl Display, kernels: Vec<Kernel>) -> Result<(), Violation> {
        let queue = self.queue()?;
        let done = self.enqueue((queue, &[]), kernels);
        let done = done.and_then(|token| self.device.wait(token, LONG));
        self.must(case, done)
    }
}

fn task(kernels: Vec<Kernel>, work_scale: f64) -> Task {
    Task {
        kernels: Arc::from(kernels),
        work_scale,
        extra_flop: 0,
    }
}

fn memory(b: &Bench<'_>) -> Result<(), Violation> {
    for data_type in DataType::ALL {
        for len in LENGTHS {
            let case = format!("{len} {data_type:?}");
            let fresh = b.must(&case, b.device.allocate(data_type, len))?;
            let zeros = b.must(&case, Slice::whole(&fresh).read_numbers())?;
            let is_zero = zeros.len() == len && zeros.iter().all(|x| x.abs() < f64::MIN_POSITIVE);
            b.expect(&case, is_zero, "fresh memory is not zero")?;
            let slice = b.slice(data_type, &elements(1, len))?;
            b.holds(&case, &slice, &elements(1, len))?;
            let read = b.must(&case, slice.read_numbers())?;
            b.expect(&case, read == elements(1, len), "it reads something else")?;
        }
    }
    let absurd = b.device.allocate(DataType::F64, usize::MAX / 4).map(|_| ());
    b.expect(
        "a buffer beyond all memory",
        absurd.is_err(),
        "it was given",
    )
}

fn elementwise(b: &Bench<'_>) -> Result<(), Violation> {
    for data_type in b.types() {
        for len in LENGTHS {
            let case = |name: &str| format!("{name} of {len} {data_type:?}");
            let guard = if len == 130 { WIDE_GUARD } else { GUARD };
            let from = b.between(guard, data_type, &elements(1, len))?;
            let to = b.between(guard, data_type, &elements(2, len))?;
            let operands = || (from.clone(), to.clone());
            let (source, target) = operands();
            let add = Kernel::Add {
                from: source,
                to: target,
            };
            b.run(case("add"), vec![add])?;
            let sum: Vec<f64> = (0..len).map(|i| element(1, i) + element(2, i)).collect();
            b.holds(case("add"), &to, &sum)?;
            let (source, target) = operands();
            let copy = Kernel::Copy {
                from: source,
                to: target,
            };
            b.run(case("copy"), vec![copy])?;
            b.holds(case("copy"), &to, &elements(1, len))?;
            b.holds(case("source of a copy"), &from, &elements(1, len))?;
            let fill = Kernel::Fill {
                to: to.clone(),
                value: -4.0,
            };
            b.run(case("fill"), vec![fill])?;
            b.holds(case("fill"), &to, &vec![-4.0; len])?;
        }
    }
    Ok(())
}

/// Of memory that is aligned, for which alone GPUs have a kernel.
fn triads(b: &Bench<'_>) -> Result<(), Violation> {
    for (data_type, len) in b.types().into_iter().flat_map(|it| [(it, 1), (it, 1027)]) {
        let case = format!("triad of {len} {data_type:?}");
        let slice = |seed| b.between(WIDE_GUARD, data_type, &elements(seed, len));
        let (first, second, to) = (slice(1)?, slice(2)?, slice(3)?);
        let triad = Kernel::Triad {
            a: first.clone(),
            b: second.clone(),
            scale: -2.0,
            to: to.clone(),
        };
        b.run(&case, vec![triad])?;
        let sum = |i| element(1, i) - 2.0 * element(2, i);
        b.holds(&case, &to, &(0..len).map(sum).collect::<Vec<f64>>())?;
        b.holds(&case, &first, &elements(1, len))?;
        b.holds(&case, &second, &elements(2, len))?;
    }
    Ok(())
}

/// Of memory that begins anywhere, and of no memory.
fn squared_norms(b: &Bench<'_>) -> Result<(), Violation> {
    for data_type in b.types() {
        for (len, guard) in [(0, GUARD), (1, GUARD), (1027, WIDE_GUARD), (40_001, GUARD)] {
            for accumulate in [false, true] {
                let case = format!("squared norm of {len} {data_type:?}, {accumulate}");
                let from = b.between(guard, data_type, &elements(1, len))?;
                let to = b.between(GUARD, DataType::F32, &elements(2, 1))?;
                let norm = Kernel::SquaredNorm {
                    from: from.clone(),
                    to: to.clone(),
                    accumulate,
                };
                b.run(&case, vec![norm])?;
                let squares = (0..len).map(|i| element(1, i).powi(2));
                let before = if accumulate { element(2, 0) } else { 0.0 };
                b.holds(&case, &to, &[before + squares.sum::<f64>()])?;
                b.holds(&case, &from, &elements(1, len))?;
            }
        }
    }
    Ok(())
}

/// Copies from a wide type round to a narrow one, and back is exact.
fn conversions(b: &Bench<'_>) -> Result<(), Violation> {
    let wide = DataType::F32;
    for narrow in b.types().into_iter().filter(|it| *it != wide) {
        let values = elements(3, 1001);
        let from = b.slice(wide, &values)?;
        let (there, back) = (
            b.slice(narrow, &vec![0.0; 1001])?,
            b.slice(wide, &vec![0.0; 1001])?,
        );
        let copy = |from: &Slice, to: &Slice| Kernel::Copy {
            from: from.clone(),
            to: to.clone(),
        };
        let case = format!("to {narrow:?} and back");
        b.run(&case, vec![copy(&from, &there), copy(&there, &back)])?;
        b.holds(&case, &there, &values)?;
        b.holds(&case, &back, &values)?;
        // A number between two neighbours, of which the even one is to come.
        let odd = b.slice(wide, &[4097.0, 4099.0])?;
        let rounded = b.slice(narrow, &[0.0, 0.0])?;
        b.run(&case, vec![copy(&odd, &rounded)])?;
        let want = match narrow {
            DataType::F16 => [4096.0, 4100.0],
            _ => [4096.0, 4096.0],
        };
        b.holds(&case, &rounded, &want)?;
    }
    Ok(())
}

/// Against the same update in f64; results are rounded a few times in f32.
fn updates(b: &Bench<'_>) -> Result<(), Violation> {
    let cases = b
        .types()
        .into_iter()
        .flat_map(|it| [(it, GUARD), (it, WIDE_GUARD)]);
    for (data_type, guard) in cases {
        let len = 1003;
        let case = format!("Adam with gradients of {data_type:?} behind {guard}");
        let gradients = b.between(guard, data_type, &elements(1, len))?;
        let state = [2, 3, 4].map(|seed| {
            let values = elements(seed, len).into_iter();
            // Second moments are never negative.
            let values: Vec<f64> = values
                .map(|x| if seed == 4 { x.abs() } else { x })
                .collect();
            b.between(guard, DataType::F32, &values)
        });
        let [p, m, v] = state;
        let (p, m, v) = (p?, m?, v?);
        let adam = Kernel::Adam {
            parameters: p.clone(),
            gradients: gradients.clone(),
            first_moments: m.clone(),
            second_moments: v.clone(),
            learning_rate: 0.01,
        };
        b.run(&case, vec![adam])?;
        let read = |slice: &Slice| b.must(&case, slice.read_numbers());
        let (found_p, found_m, found_v) = (read(&p)?, read(&m)?, read(&v)?);
        for i in 0..len {
            let g = element(1, i);
            let m = 0.9 * element(3, i) + 0.1 * g;
            let v = 0.999 * element(4, i).abs() + 0.001 * g * g;
            let p = element(2, i) - 0.01 * m / (v.sqrt() + 1e-8);
            let is_close =
                |found: f64, want: f64| (found - want).abs() <= 2e-6 * want.abs().max(1.0);
            let is_right =
                is_close(found_p[i], p) && is_close(found_m[i], m) && is_close(found_v[i], v);
            let why = format!("element {i} is {}, not {p}", found_p[i]);
            b.expect(&case, is_right, why)?;
        }
        b.holds(&case, &gradients, &elements(1, len))?;
    }
    Ok(())
}

/// Repetitions leave results as they are.
fn scaled_work(b: &Bench<'_>) -> Result<(), Violation> {
    let len = 1000;
    for work_scale in [1.0, 1.5, 3.25] {
        let case = format!("scale {work_scale}");
        let (from, to) = (
            b.slice(DataType::F32, &elements(1, len))?,
            b.slice(DataType::F32, &elements(2, len))?,
        );
        let square = |slice: &Slice| Matrix {
            slice: slice.clone(),
            rows: 20,
            columns: 50,
            row_stride: 50,
        };
        let result = b.slice(DataType::F32, &[1.0; 400])?;
        let kernels = vec![
            Kernel::Add {
                from: from.clone(),
                to: to.clone(),
            },
            Kernel::Gemm {
                a: square(&from),
                transpose_a: Transpose::No,
                b: square(&from),
                transpose_b: Transpose::Yes,
                c: Matrix {
                    slice: result.clone(),
                    rows: 20,
                    columns: 20,
                    row_stride: 20,
                },
                scale: 1.0,
                accumulate: true,
            },
        ];
        let queue = b.queue()?;
        let launch = Launch {
            queue,
            after: &[],
            tag: 0,
        };
        let token = b.must(&case, b.device.enqueue(&task(kernels, work_scale), launch))?;
        b.must(&case, b.device.wait(token, LONG))?;
        let sum: Vec<f64> = (0..len).map(|i| element(1, i) + element(2, i)).collect();
        b.holds(&case, &to, &sum)?;
        let row = |row: usize, i: usize| element(1, row * 50 + i);
        let product =
            |at: usize| -> f64 { (0..50).map(|i| row(at / 20, i) * row(at % 20, i)).sum() };
        let want: Vec<f64> = (0..400).map(|at| 1.0 + product(at)).collect();
        b.holds(&case, &result, &want)?;
    }
    Ok(())
}
