//! Tests of the CPU device through its public interface.

use super::*;
use crate::{Kernel, Matrix, Slice, Transpose};

const LONG: Duration = Duration::from_secs(60);
/// CPU time that is long against the ticks of any clock.
const ENOUGH_NS: i64 = 50_000_000;

struct Bench {
    device: CpuDevice,
    queue: QueueId,
}

impl Bench {
    fn new() -> Self {
        let device = CpuDevice::new(CpuOptions::default());
        let queue = device.create_queue("test").unwrap();
        Self { device, queue }
    }

    fn launch(&self) -> Launch<'static> {
        Launch {
            queue: self.queue,
            after: &[],
            tag: 1,
        }
    }

    fn slice(&self, values: &[f32]) -> Slice {
        let slice = Slice::whole(&self.device.allocate(DataType::F32, values.len()).unwrap());
        slice.write_f32(values).unwrap();
        slice
    }

    fn run(&self, kernels: Vec<Kernel>, work_scale: f64) -> Result<(), BackendError> {
        let task = Task {
            kernels: Arc::from(kernels),
            work_scale,
            extra_flop: 1000,
        };
        let token = self.device.enqueue(&task, self.launch())?;
        self.device.wait(token, LONG)
    }
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7) % 11) as f32 - 5.0).collect()
}

fn matrix(slice: &Slice, rows: usize, columns: usize, row_stride: usize) -> Matrix {
    Matrix {
        slice: slice.clone(),
        rows,
        columns,
        row_stride,
    }
}

/// Element `(i, j)` of a factor as it is used.
fn at(values: &[f32], stride: usize, transpose: Transpose, (i, j): (usize, usize)) -> f32 {
    match transpose {
        Transpose::No => values[i * stride + j],
        Transpose::Yes => values[j * stride + i],
    }
}

#[test]
fn gemm_is_the_triple_loop_in_every_form() {
    let bench = Bench::new();
    let check =
        |(m, n, k): (usize, usize, usize), pad: usize, form: (Transpose, Transpose, bool)| {
            let (ta, tb, accumulate) = form;
            let stored = |t, rows, columns| match t {
                Transpose::No => (rows, columns),
                Transpose::Yes => (columns, rows),
            };
            let ((ar, ac), (br, bc)) = (stored(ta, m, k), stored(tb, k, n));
            let (sa, sb, sc) = (ac + pad, bc + pad, n + pad);
            let (a, b, c) = (numbers(ar * sa), numbers(br * sb), numbers(m * sc));
            let (slice_a, slice_b, slice_c) = (bench.slice(&a), bench.slice(&b), bench.slice(&c));
            let kernel = Kernel::Gemm {
                a: matrix(&slice_a, ar, ac, sa),
                transpose_a: ta,
                b: matrix(&slice_b, br, bc, sb),
                transpose_b: tb,
                c: matrix(&slice_c, m, n, sc),
                scale: 2.0,
                accumulate,
            };
            bench.run(vec![kernel], 1.0).unwrap();
            let mut want = c.clone();
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let product: f32 = (0..k)
                    .map(|l| at(&a, sa, ta, (i, l)) * at(&b, sb, tb, (l, j)))
                    .sum();
                let before = if accumulate { c[i * sc + j] } else { 0.0 };
                want[i * sc + j] = before + 2.0 * product;
            }
            // Small whole numbers: exact in any order of summation.
            assert_eq!(
                slice_c.read_f32().unwrap(),
                want,
                "{m} x {n} x {k}, pad {pad}, {form:?}"
            );
        };
    for (ta, tb) in [Transpose::No, Transpose::Yes]
        .into_iter()
        .flat_map(|a| [Transpose::No, Transpose::Yes].map(|b| (a, b)))
    {
        for shape in [
            (1, 1, 1),
            (5, 3, 4),
            (33, 17, 65),
            (64, 64, 64),
            (3, 4, 0),
            (0, 4, 3),
        ] {
            for (pad, accumulate) in [(0, false), (3, true)] {
                check(shape, pad, (ta, tb, accumulate));
            }
        }
    }
}

#[test]
fn work_scale_leaves_results_unchanged() {
    let results = |work_scale: f64| {
        let bench = Bench::new();
        let n = 37;
        let slices: Vec<Slice> = (0..6).map(|_| bench.slice(&numbers(n * n))).collect();
        let whole = |at: usize| matrix(&slices[at], n, n, n);
        let kernels = vec![
            Kernel::Gemm {
                a: whole(0),
                transpose_a: Transpose::Yes,
                b: whole(1),
                transpose_b: Transpose::No,
                c: whole(2),
                scale: 0.25,
                accumulate: true,
            },
            Kernel::Add {
                from: slices[2].clone(),
                to: slices[3].clone(),
            },
            Kernel::Copy {
                from: slices[3].clone(),
                to: slices[1].clone(),
            },
            Kernel::Fill {
                to: slices[4].part(0..100).unwrap(),
                value: 3.0,
            },
            Kernel::Fill {
                to: slices[5].clone(),
                value: 0.5,
            },
            Kernel::Adam {
                parameters: slices[0].clone(),
                gradients: slices[3].clone(),
                first_moments: slices[4].clone(),
                second_moments: slices[5].clone(),
                learning_rate: 0.01,
            },
        ];
        bench.run(kernels, work_scale).unwrap();
        slices
            .iter()
            .map(|slice| slice.read_f32().unwrap())
            .collect::<Vec<_>>()
    };
    let once = results(1.0);
    for work_scale in [1.01, 1.5, 2.0, 3.75] {
        assert_eq!(results(work_scale), once, "{work_scale}");
    }
}

#[test]
fn work_scale_and_extra_work_take_cpu_time() {
    let bench = Bench::new();
    let n = 128;
    let slices: Vec<Slice> = (0..3).map(|_| bench.slice(&numbers(n * n))).collect();
    let whole = |at: usize| matrix(&slices[at], n, n, n);
    let kernel = Kernel::Gemm {
        a: whole(0),
        transpose_a: Transpose::No,
        b: whole(1),
        transpose_b: Transpose::No,
        c: whole(2),
        scale: 1.0,
        accumulate: false,
    };
    // In turns, so that what else the machine does hits all alike, until clocks of coarse ticks
    // tell them apart.
    let mut sums_ns = [0; 3];
    while sums_ns[0] < ENOUGH_NS {
        for (work_scale, extra_flop) in [(1.0, 0), (4.0, 0), (1.0, 100_000_000)] {
            let task = Task {
                kernels: Arc::from([kernel.clone()]),
                work_scale,
                extra_flop,
            };
            let token = bench.device.enqueue(&task, bench.launch()).unwrap();
            bench.device.wait(token, LONG).unwrap();
        }
        let mut stamps = Vec::new();
        bench.device.drain(bench.queue, &mut stamps).unwrap();
        assert_eq!(stamps.len(), sums_ns.len());
        for (sum, TaggedStamp { tag, stamp }) in sums_ns.iter_mut().zip(&stamps) {
            assert!(*tag == 1 && stamp.start_ns <= stamp.end_ns);
            *sum += stamp.cpu_end_ns - stamp.cpu_start_ns;
        }
        let follows = |pair: &[TaggedStamp]| pair[0].stamp.end_ns <= pair[1].stamp.start_ns;
        assert!(stamps.windows(2).all(follows));
    }
    let [once, four_times, with_extra] = sums_ns;
    assert!(four_times > 2 * once, "{sums_ns:?}");
    assert!(with_extra > 2 * once, "{sums_ns:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let bench = Bench::new();
    let slice = bench.slice(&[0.0; 12]);
    let other = bench.slice(&[0.0; 12]);
    let gemm = |a: Matrix, b: Matrix, c: Matrix| Kernel::Gemm {
        a,
        transpose_a: Transpose::No,
        b,
        transpose_b: Transpose::No,
        c,
        scale: 1.0,
        accumulate: false,
    };
    let m = |slice, rows, columns, stride| matrix(slice, rows, columns, stride);
    let ints = Slice::whole(&bench.device.allocate(DataType::I32, 12).unwrap());
    let wild = Slice {
        offset: usize::MAX,
        ..slice.clone()
    };
    let check = |kernel: Kernel, hint: &str| match bench.run(vec![kernel], 1.0) {
        Err(BackendError::Invalid { why, .. }) => assert!(why.contains(hint), "{why}"),
        other => panic!("{hint}: {other:?}"),
    };
    check(
        gemm(m(&slice, 3, 4, 4), m(&slice, 3, 4, 4), m(&other, 3, 4, 4)),
        "op(a) is 3 x 4",
    );
    check(
        gemm(m(&slice, 3, 4, 5), m(&slice, 4, 3, 3), m(&other, 3, 3, 3)),
        "needs more",
    );
    check(
        gemm(m(&slice, 3, 4, 3), m(&slice, 4, 3, 3), m(&other, 3, 3, 3)),
        "rows of 4 every 3",
    );
    check(
        gemm(m(&slice, 2, 2, 2), m(&other, 2, 2, 2), m(&slice, 2, 2, 2)),
        "overlaps",
    );
    check(
        gemm(
            m(&slice, usize::MAX, 2, 2),
            m(&other, 2, 2, 2),
            m(&slice, 2, 2, 2),
        ),
        "needs",
    );
    check(
        Kernel::Fill {
            to: ints,
            value: 1.0,
        },
        "compute in f32",
    );
    check(
        Kernel::Fill {
            to: wild,
            value: 1.0,
        },
        "of a buffer of 12",
    );
    check(
        Kernel::Add {
            from: slice.part(0..5).unwrap(),
            to: other.clone(),
        },
        "5 elements",
    );
    for work_scale in [0.5, f64::NAN, f64::INFINITY, -1.0] {
        assert!(bench.run(vec![], work_scale).is_err(), "{work_scale}");
    }
}

#[test]
fn handles_of_others_are_refused() {
    let bench = Bench::new();
    let unknown = |result: Result<(), BackendError>| {
        assert!(
            matches!(result, Err(BackendError::Unknown { .. })),
            "{result:?}"
        );
    };
    let never = Token {
        queue: bench.queue,
        position: 1,
    };
    unknown(bench.device.wait(never, LONG));
    unknown(bench.device.poll(never).map(|_| ()));
    unknown(bench.device.drain(QueueId(9), &mut Vec::new()));
    let task = Task {
        kernels: Arc::from([]),
        work_scale: 1.0,
        extra_flop: 0,
    };
    let launch = Launch {
        after: &[never],
        ..bench.launch()
    };
    unknown(bench.device.enqueue(&task, launch).map(|_| ()));
    assert!(bench.run(vec![], 1.0).is_ok());
}

/// Work that finds its memory in use is refused, and the refusal stops its queue and what comes
/// after it elsewhere.
#[test]
fn a_missing_token_is_an_error_and_errors_follow_tokens() {
    let bench = Bench::new();
    let slice = bench.slice(&[0.0; 8]);
    let held = slice.claim_read().unwrap();
    let fill = Kernel::Fill {
        to: slice.clone(),
        value: 1.0,
    };
    let task = Task {
        kernels: Arc::from([fill]),
        work_scale: 1.0,
        extra_flop: 0,
    };
    let failed = bench.device.enqueue(&task, bench.launch()).unwrap();
    let is_conflict =
        |result: Result<(), BackendError>| matches!(result, Err(BackendError::Conflict { .. }));
    assert!(is_conflict(bench.device.wait(failed, LONG)));
    drop(held);
    assert!(is_conflict(bench.run(vec![], 1.0)), "the queue has stopped");
    let second = bench.device.create_queue("second").unwrap();
    let launch = |after| Launch {
        queue: second,
        after,
        tag: 0,
    };
    let good = bench.device.enqueue(&task, launch(&[])).unwrap();
    assert!(bench.device.wait(good, LONG).is_ok());
    let bad = bench.device.enqueue(&task, launch(&[failed])).unwrap();
    assert!(is_conflict(bench.device.wait(bad, LONG)));
    assert!(
        bench.device.poll(good).unwrap(),
        "what was complete stays complete"
    );
    assert_eq!(slice.read_f32().unwrap(), [1.0; 8]);
}

struct Panics;

impl Work for Panics {
    fn run(
        &mut self,
        _: &mut crate::memory::Scratch,
    ) -> Result<laggard_types::Stamp, BackendError> {
        panic!("as the test wants")
    }
}

#[test]
fn a_panic_becomes_the_error_of_its_token() {
    let bench = Bench::new();
    let token = bench
        .device
        .submit(Box::new(Panics), bench.launch(), None)
        .unwrap();
    let want = BackendError::Panicked {
        queue: 0,
        message: "as the test wants".to_owned(),
    };
    assert_eq!(bench.device.wait(token, LONG), Err(want));
}

#[cfg(target_os = "linux")]
#[test]
fn queues_bind_to_the_processor_asked_for() {
    let free = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let cpu = (0..1024)
        .find(|cpu| free.is_set(*cpu).unwrap_or(false))
        .unwrap();
    let options = CpuOptions {
        bind_cpu: Some(cpu as u32),
        ..CpuOptions::default()
    };
    let device = CpuDevice::new(options);
    assert!(device.create_queue("bound").is_ok());
    assert_eq!(device.description().bound_cpu, Some(cpu as u32));
    let peak = device.measure_peak(Duration::from_millis(1)).unwrap();
    assert_eq!(device.description().measured_peak, Some(peak));
    let nowhere = CpuDevice::new(CpuOptions {
        bind_cpu: Some(100_000),
        ..CpuOptions::default()
    });
    assert!(matches!(
        nowhere.create_queue("lost"),
        Err(BackendError::System { .. })
    ));
}

#[test]
fn it_does_what_every_device_must() {
    let open = || -> Result<Box<dyn Device>, BackendError> {
        let options = CpuOptions {
            rank: 5,
            ..CpuOptions::default()
        };
        Ok(Box::new(CpuDevice::new(options)))
    };
    crate::conformance::check_device(5, open).unwrap();
}
