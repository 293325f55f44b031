//! What the fake device does when a kernel is launched: its twin's work, on memory that is checked.
#![expect(unsafe_code, reason = "reads arguments and memory at addresses")]

use crate::faults::settings;
use crate::{clock, memory};
use half::{bf16, f16};
use laggard_backend::squares::segment_len;
use laggard_backend::{Element, Transpose};
use laggard_cuda::GemmArguments;
use laggard_cuda::twin::{self, AdamState, Factor, Operand};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A module, as the fake compiler made it.
pub(crate) struct Image {
    element: &'static str,
    file: String,
}

/// A kernel of a module.
#[derive(Clone)]
pub(crate) struct Function {
    name: String,
    element: &'static str,
    file: String,
}

/// `CUDA_ERROR_ILLEGAL_ADDRESS` of cuda.h.
const ILLEGAL_ADDRESS: i32 = 700;
/// `CUDA_ERROR_MISALIGNED_ADDRESS` of cuda.h.
const MISALIGNED_ADDRESS: i32 = 716;
/// `CUDA_ERROR_INVALID_VALUE` of cuda.h.
const INVALID_VALUE: i32 = 1;

/// Arguments by kernel: `p` an address, `q` 64 bits, `i` 32 bits, `f` a float, `g` a product.
const SIGNATURES: &[(&str, &str)] = &[
    ("copy", "ppq"),
    ("triad", "pppfq"),
    ("add", "ppq"),
    ("fill", "pfq"),
    ("fill_exact", "pqqq"),
    ("verify_exact", "pqqqip"),
    ("layer_norm", "ppppif"),
    ("square_sums", "ppiq"),
    ("sum_squares", "ppqi"),
    ("adam", "ppppfq"),
    ("stamp", "p"),
    ("spin", "qp"),
    ("meet_others", "piiiq"),
    ("gemm_nn", "g"),
    ("gemm_nt", "g"),
    ("gemm_tn", "g"),
    ("gemm_tt", "g"),
    ("copy_plain", "ppq"),
    ("widen", "ppq"),
    ("narrow", "ppq"),
    ("add_plain", "ppq"),
    ("fill_plain", "pfq"),
    ("adam_plain", "ppppfq"),
    ("gemm_plain", "g"),
];
/// Files whose kernels take more than this fake understands, as a generation may.
const NOT_UNDERSTOOD: &[&str] = &["gemm_wgmma.cu", "gemm_tcgen05.cu"];

impl Image {
    pub(crate) fn of(text: &str) -> Self {
        let of_option = |option: &str| match option {
            "-DELEMENT_F16" => Some("f16"),
            "-DELEMENT_BF16" => Some("bf16"),
            _ => None,
        };
        Self {
            element: text.lines().find_map(of_option).unwrap_or("f32"),
            file: text.lines().next().unwrap_or_default().to_owned(),
        }
    }

    pub(crate) fn function(&self, name: &str) -> Option<Function> {
        SIGNATURES
            .iter()
            .any(|(known, _)| *known == name)
            .then(|| Function {
                name: name.to_owned(),
                element: self.element,
                file: self.file.clone(),
            })
    }
}

#[derive(Clone, Copy)]
enum Value {
    U64(u64),
    U32(u32),
    F32(f32),
    Product(GemmArguments),
}

/// A launch with its arguments, which callers may change once it is enqueued.
pub(crate) struct Launch {
    function: Function,
    values: Vec<Value>,
    stream: u64,
}

impl Launch {
    /// # Safety
    /// There are as many addresses of arguments as the kernel of this name has.
    pub(crate) unsafe fn new(
        function: Function,
        arguments: *const *const c_void,
        stream: u64,
    ) -> Result<Self, i32> {
        if NOT_UNDERSTOOD.contains(&function.file.as_str()) {
            return Err(INVALID_VALUE);
        }
        let known = SIGNATURES.iter().find(|(name, _)| *name == function.name);
        let (_, signature) = known.ok_or(INVALID_VALUE)?;
        let read = |(at, kind): (usize, char)| {
            // SAFETY: the caller says that there is an argument of this type.
            unsafe {
                let argument = *arguments.add(at);
                match kind {
                    'p' | 'q' => Value::U64(argument.cast::<u64>().read_unaligned()),
                    'i' => Value::U32(argument.cast::<u32>().read_unaligned()),
                    'f' => Value::F32(argument.cast::<f32>().read_unaligned()),
                    _ => Value::Product(argument.cast::<GemmArguments>().read_unaligned()),
                }
            }
        };
        Ok(Self {
            values: signature.chars().enumerate().map(read).collect(),
            function,
            stream,
        })
    }

    /// Executes it; a code that is not zero is how the device dies of it.
    pub(crate) fn execute(&self) -> i32 {
        let outcome = match self.function.element {
            "f16" => self.on::<f16>(),
            "bf16" => self.on::<bf16>(),
            _ => self.on::<f32>(),
        };
        outcome.err().unwrap_or(0)
    }

    fn number(&self, at: usize) -> u64 {
        match self.values[at] {
            Value::U64(value) => value,
            Value::U32(value) => u64::from(value),
            _ => 0,
        }
    }

    fn float(&self, at: usize) -> f32 {
        match self.values[at] {
            Value::F32(value) => value,
            _ => 0.0,
        }
    }

    /// The elements at the address that an argument gives.
    fn slice<T: Element>(&self, at: usize, count: u64) -> Result<&'static mut [T], i32> {
        slice(self.number(at), count)
    }

    fn on<T: Element + Factor>(&self) -> Result<(), i32> {
        let name = self.function.name.as_str();
        let last = self.values.len() - 1;
        match name {
            "copy" | "copy_plain" => {
                let count = self.number(last);
                let from = self.slice::<T>(1, count)?;
                self.slice::<T>(0, count)?.copy_from_slice(from);
            }
            "widen" => convert(
                self.slice::<f32>(0, self.number(2))?,
                self.slice::<T>(1, self.number(2))?,
            ),
            "narrow" => convert(
                self.slice::<T>(0, self.number(2))?,
                self.slice::<f32>(1, self.number(2))?,
            ),
            "add" | "add_plain" => {
                let count = self.number(last);
                twin::add(self.slice::<T>(0, count)?, self.slice::<T>(1, count)?);
            }
            "triad" => {
                let count = self.number(last);
                let (a, b) = (self.slice::<T>(1, count)?, self.slice::<T>(2, count)?);
                twin::triad(self.slice::<T>(0, count)?, a, b, self.float(3));
            }
            "fill" | "fill_plain" => {
                let value = T::from_f64(f64::from(self.float(1)));
                self.slice::<T>(0, self.number(last))?.fill(value);
            }
            "adam" => self.adam::<f32>()?,
            "adam_plain" => self.adam::<T>()?,
            "stamp" => self.slice::<i64>(0, 1)?[0] = clock::stamp(self.stream),
            "spin" => {
                std::thread::sleep(cycles(self.number(0)));
                self.slice::<i64>(1, 1)?[0] = self.number(0) as i64;
            }
            "meet_others" => self.meet()?,
            "layer_norm" => self.layer_norm::<T>()?,
            "square_sums" => {
                let (skip, count) = (self.number(2), self.number(3));
                let from = &self.slice::<T>(1, skip + count)?[skip as usize..];
                let segments = count.div_ceil(segment_len::<T>() as u64);
                twin::square_sums(self.slice::<f64>(0, segments)?, from);
            }
            "sum_squares" => {
                let sums = self.slice::<f64>(1, self.number(2))?;
                let to = &mut self.slice::<f32>(0, 1)?[0];
                twin::sum_squares(to, sums, self.number(3) != 0);
            }
            "fill_exact" => {
                let to = self.slice::<T>(0, self.number(1))?;
                twin::fill_exact(to, self.number(2), self.number(3));
            }
            "verify_exact" => self.verify_exact::<T>()?,
            _ => self.product::<T>()?,
        }
        self.err()
    }

    /// Its first block.
    fn meet(&self) -> Result<(), i32> {
        const WORDS: u64 = 4;
        let [own, members, rounds] = [1, 2, 3].map(|at| self.number(at));
        let word = |member: u64, at: u64| -> Result<&AtomicU64, i32> {
            let address = self.number(0) + (member * WORDS + at) * size_of::<u64>() as u64;
            let word = memory::reach(address, size_of::<u64>()).ok_or(ILLEGAL_ADDRESS)?;
            // SAFETY: it is within an allocation, aligned, and others reach it as atomics too.
            Ok(unsafe { &*word.cast::<AtomicU64>() })
        };
        let begin = Instant::now();
        let limit = cycles(self.number(4));
        let stamp = || clock::stamp(self.stream).cast_unsigned();
        word(own, 1)?.store(stamp(), Ordering::SeqCst);
        let mut completed = 0;
        'rounds: while completed < rounds {
            word(own, 0)?.store(completed + 1, Ordering::SeqCst);
            for other in 0..members {
                while word(other, 0)?.load(Ordering::SeqCst) <= completed {
                    if begin.elapsed() >= limit {
                        break 'rounds;
                    }
                    std::thread::yield_now();
                }
            }
            completed += 1;
        }
        word(own, 3)?.store(completed, Ordering::SeqCst);
        word(own, 2)?.store(stamp(), Ordering::SeqCst);
        Ok(())
    }

    /// Makes the first result wrong where a test asked for it.
    fn err(&self) -> Result<(), i32> {
        if settings().kernel_that_errs.as_deref() == Some(self.function.name.as_str()) {
            let address = match self.values[0] {
                Value::Product(product) => product.c,
                _ => self.number(0),
            };
            let byte = memory::reach(address, 1).ok_or(ILLEGAL_ADDRESS)?;
            // SAFETY: the byte is within an allocation.
            unsafe { *byte ^= 1 };
        }
        Ok(())
    }

    fn adam<G: Element>(&self) -> Result<(), i32> {
        let count = self.number(5);
        let gradients: Vec<f32> = self
            .slice::<G>(1, count)?
            .iter()
            .map(|element| element.to_f64() as f32)
            .collect();
        let mut state = AdamState {
            parameters: self.slice(0, count)?,
            first_moments: self.slice(2, count)?,
            second_moments: self.slice(3, count)?,
        };
        twin::adam(&mut state, &gradients, self.float(4));
        Ok(())
    }

    fn layer_norm<T: Element>(&self) -> Result<(), i32> {
        // How many rows there are is in the number of blocks, which only the self-check gives; it
        // launches five.
        let columns = self.number(4);
        let (gain, bias) = (self.slice::<T>(2, columns)?, self.slice::<T>(3, columns)?);
        let from = self.slice::<T>(1, 5 * columns)?;
        twin::layer_norm(
            self.slice::<T>(0, 5 * columns)?,
            from,
            (gain, bias),
            self.float(5),
        );
        Ok(())
    }

    fn verify_exact<T: Element>(&self) -> Result<(), i32> {
        let from = self.slice::<T>(0, self.number(1))?;
        let found = self.slice::<i64>(5, 2)?;
        let (seed, offset) = (self.number(2), self.number(3));
        for (at, element) in from.iter().enumerate() {
            let members = 0..self.number(4);
            let of = |member| twin::integer_at(seed.wrapping_add(member), offset + at as u64);
            let sum: i32 = members.map(of).sum();
            if element.to_f64().partial_cmp(&f64::from(sum)) != Some(std::cmp::Ordering::Equal) {
                found[0] += 1;
                found[1] = (found[1] as u64).min(at as u64) as i64;
            }
        }
        Ok(())
    }

    fn product<T: Element + Factor>(&self) -> Result<(), i32> {
        let Value::Product(product) = self.values[0] else {
            return Err(INVALID_VALUE);
        };
        let name = self.function.name.as_str();
        let is_plain = name == "gemm_plain";
        let uses = |letter: usize, flag: u32| {
            let by_name = name.as_bytes().get(letter) == Some(&b't');
            match if is_plain {
                product.flags & flag != 0
            } else {
                by_name
            } {
                true => Transpose::Yes,
                false => Transpose::No,
            }
        };
        let (transpose_a, transpose_b) = (uses(5, 4), uses(6, 8));
        if !is_plain && (product.a | product.b | product.c) % 16 != 0 {
            return Err(MISALIGNED_ADDRESS);
        }
        let operand = |address, stride: u32, transpose, (rows, columns): (u32, u32)| {
            let (rows, columns) = match transpose {
                Transpose::No => (rows, columns),
                Transpose::Yes => (columns, rows),
            };
            Ok::<_, i32>(Operand::<T> {
                elements: slice(address, span(rows, columns, stride))?,
                row_stride: stride as usize,
                transpose,
            })
        };
        let GemmArguments {
            rows,
            columns,
            depth,
            ..
        } = product;
        let a = operand(product.a, product.stride_a, transpose_a, (rows, depth))?;
        let b = operand(product.b, product.stride_b, transpose_b, (depth, columns))?;
        if product.flags & 2 != 0 {
            multiply::<T, f32>(&a, &b, &product)
        } else {
            multiply::<T, T>(&a, &b, &product)
        }
    }
}

/// How long so many cycles take.
fn cycles(count: u64) -> Duration {
    Duration::from_nanos(count.saturating_mul(settings().cycle_ns))
}

fn span(rows: u32, columns: u32, stride: u32) -> u64 {
    match rows {
        0 => 0,
        rows => u64::from(rows - 1) * u64::from(stride) + u64::from(columns),
    }
}

fn slice<T: Element>(address: u64, count: u64) -> Result<&'static mut [T], i32> {
    let count = usize::try_from(count).map_err(|_| ILLEGAL_ADDRESS)?;
    if count == 0 {
        return Ok(&mut []);
    }
    let bytes = count.checked_mul(size_of::<T>()).ok_or(ILLEGAL_ADDRESS)?;
    let pointer = memory::reach(address, bytes)
        .ok_or(ILLEGAL_ADDRESS)?
        .cast::<T>();
    if !pointer.is_aligned() {
        return Err(MISALIGNED_ADDRESS);
    }
    // SAFETY: that many bytes are within one allocation, which is never given back to the system.
    // What else is in it at the same time is for the caller's tokens to order, as on hardware.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, count) })
}

fn convert<T: Element, U: Element>(to: &mut [T], from: &[U]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = T::from_f64(from.to_f64());
    }
}

fn multiply<T: Element + twin::Factor, C: Element>(
    a: &Operand<'_, T>,
    b: &Operand<'_, T>,
    product: &GemmArguments,
) -> Result<(), i32> {
    let stride = product.stride_c as usize;
    let to = slice::<C>(
        product.c,
        span(product.rows, product.columns, product.stride_c),
    )?;
    for row in 0..product.rows as usize {
        for column in 0..product.columns as usize {
            let to = &mut to[row * stride + column];
            let before = if product.flags & 1 != 0 {
                to.to_f64()
            } else {
                0.0
            };
            let depth = product.depth as usize;
            *to = C::from_f64(twin::gemm(
                (a, b),
                (row, column),
                depth,
                product.scale,
                before,
            ));
        }
    }
    Ok(())
}
