//! How fast a GPU is at the same work in several ways: products by each engine, copies by the
//! stream kernel and by the driver. All take turns, so that clocks and temperature are the same for
//! all; the operands are random numbers, as zeros draw less power and run faster; sets of them
//! rotate, so that none is in the cache from the turn before. Times are the device's own, between
//! two stamps on the stream, and nobody waits before the last turn.
//!
//! Never run on hardware yet.

use crate::device::ProductEngine;
use crate::{
    Argument, CudaError, DeviceMatrix, ElementType, Gpu, HalfType, KernelLaunch, Module, Product,
    ResultType,
};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DriverError};
use half::{bf16, f16};
use laggard_backend::Transpose;
use std::sync::Arc;

/// One way to compute a product.
#[derive(Clone)]
pub enum Contender {
    /// A kernel of this crate, from a module with products.
    Kernel(Module),
    /// An engine.
    Engine(Arc<dyn ProductEngine>),
}

impl Contender {
    /// Its name, as results say it.
    pub fn name(&self) -> String {
        match self {
            Self::Kernel(module) => module.to_string(),
            Self::Engine(engine) => engine.name().to_owned(),
        }
    }
}

/// A product of halves, with a result of the same type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaceProduct {
    /// What the operands are.
    pub operands: HalfType,
    /// Rows of the result.
    pub rows: u32,
    /// Columns of the result.
    pub columns: u32,
    /// What is summed over.
    pub depth: u32,
    /// Use of the left and the right operand.
    pub transposes: [Transpose; 2],
}

/// The times of one contender.
#[derive(Debug, Clone, PartialEq)]
pub struct RaceTimes {
    /// Its name.
    pub name: String,
    /// Seconds of each turn, in the order in which they ran; none if it cannot do the work.
    pub seconds: Vec<f64>,
}

impl RaceTimes {
    /// The middle time; `None` if there are none.
    pub fn median_seconds(&self) -> Option<f64> {
        let mut sorted = self.seconds.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
        Some(f64::midpoint(sorted[low], sorted[high]))
    }
}

/// Turns of each contender that are not timed: modules are loaded, algorithms chosen, clocks
/// raised.
const WARM_UP: u32 = 3;
/// What the sets of operands have together at least: several times the largest cache of a GPU
/// (B200: 126 MB of L2, NVIDIA's Blackwell tuning guide).
const ROTATING_BYTES: u64 = 1 << 29;
/// Random numbers, repeated until a matrix is full.
const PATTERN_ELEMENTS: usize = 1 << 20;
/// The product by which engines are compared before a job, large enough for every tile to be full.
const USUAL_EDGE: u32 = 4096;
const USUAL_ROUNDS: u32 = 10;

/// Bytes of a stamp.
const STAMP_BYTES: u64 = 8;

/// Which work a turn does, on which set of operands, and whether it did any.
type Turn<'a> = Box<dyn Fn(usize) -> Result<bool, CudaError> + 'a>;

impl Gpu {
    /// Times a product by every contender, in turns.
    ///
    /// # Errors
    /// [`CudaError::Product`] if no product is like that, and what driver and engines fail with.
    pub fn race_products(
        &self,
        product: &RaceProduct,
        contenders: &[Contender],
        rounds: u32,
    ) -> Result<Vec<RaceTimes>, CudaError> {
        let stream = self.new_stream(None).map_err(failed("making a stream"))?;
        let sets = operand_sets(product, &stream)?;
        let turns = contenders.iter().map(|contender| {
            let (sets, stream) = (&sets, &stream);
            let turn: Turn<'_> = Box::new(move |set| {
                let product = &sets[set % sets.len()].product;
                match contender {
                    Contender::Kernel(module) => {
                        let launch = product.launch(*module, self.place())?;
                        self.enqueue(&launch, stream).map(|()| true)
                    }
                    Contender::Engine(engine) => {
                        engine.issue(product, product_element(sets), stream)
                    }
                }
            });
            (contender.name(), turn)
        });
        let turns: Vec<_> = turns.collect();
        race(self, &stream, &turns, rounds)
    }

    /// Times copies of so many bytes, a multiple of 16, by the stream kernel and by the driver. A
    /// copy reads and writes as many.
    ///
    /// # Errors
    /// What the driver fails with.
    pub fn race_copies(&self, bytes: usize, rounds: u32) -> Result<Vec<RaceTimes>, CudaError> {
        let stream = self.new_stream(None).map_err(failed("making a stream"))?;
        let from = random_bytes(bytes, 1, &stream)?;
        let to = std::sync::Mutex::new(random_bytes(bytes, 2, &stream)?);
        let target = || to.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let by_kernel: Turn<'_> = Box::new(|_| {
            let to = target().device_ptr_mut(&stream).0;
            let launch = KernelLaunch {
                module: Module::Stream(ElementType::F32),
                entry: "copy",
                blocks: self.place().multiprocessors * COPY_BLOCKS,
                threads: COPY_THREADS,
                shared_bytes: 0,
                arguments: vec![
                    Argument::U64(to),
                    Argument::U64(from.device_ptr(&stream).0),
                    Argument::U64((bytes / 4) as u64),
                ],
            };
            self.enqueue(&launch, &stream).map(|()| true)
        });
        let by_driver: Turn<'_> = Box::new(|_| {
            let copied = stream.memcpy_dtod(&from, &mut *target());
            copied.map(|()| true).map_err(failed("copying"))
        });
        let turns = [
            ("stream kernel".to_owned(), by_kernel),
            ("driver".to_owned(), by_driver),
        ];
        race(self, &stream, &turns, rounds)
    }

    /// Whether an engine is to compute this device's products: it does if its median time of one
    /// large product is below that of each of these modules, which are those that the device has
    /// checked.
    ///
    /// # Errors
    /// As [`Gpu::race_products`].
    pub fn prefers(
        &self,
        engine: &Arc<dyn ProductEngine>,
        operands: HalfType,
        modules: &[Module],
    ) -> Result<bool, CudaError> {
        let product = RaceProduct {
            operands,
            rows: USUAL_EDGE,
            columns: USUAL_EDGE,
            depth: USUAL_EDGE,
            transposes: [Transpose::No, Transpose::Yes],
        };
        let own = modules.iter().map(|module| Contender::Kernel(*module));
        let contenders: Vec<Contender> = [Contender::Engine(Arc::clone(engine))]
            .into_iter()
            .chain(own)
            .collect();
        let times = self.race_products(&product, &contenders, USUAL_ROUNDS)?;
        Ok(first_is_fastest(&times))
    }
}

/// Blocks of the stream kernel for each multiprocessor, and threads of each: as many threads as one
/// holds (2048; CUDA C++ programming guide, "Technical specifications per compute capability").
const COPY_BLOCKS: u32 = 4;
const COPY_THREADS: u32 = 512;

/// One that has no times did not compute it.
fn first_is_fastest(times: &[RaceTimes]) -> bool {
    let mut medians = times.iter().map(RaceTimes::median_seconds);
    match medians.next().flatten() {
        Some(first) => medians.flatten().all(|other| first < other),
        None => false,
    }
}

/// The operands and the result of one product, kept as long as it is computed.
struct OperandSet {
    product: Product,
    element: ElementType,
    _memory: [CudaSlice<u8>; 3],
}

fn product_element(sets: &[OperandSet]) -> ElementType {
    sets.first().map_or(ElementType::Bf16, |set| set.element)
}

/// As many sets as keep each from being in the cache when it comes round again.
fn operand_sets(
    product: &RaceProduct,
    stream: &Arc<CudaStream>,
) -> Result<Vec<OperandSet>, CudaError> {
    let RaceProduct {
        rows,
        columns,
        depth,
        ..
    } = *product;
    let stored = |sides: (u32, u32), transpose| match transpose {
        Transpose::No => sides,
        Transpose::Yes => (sides.1, sides.0),
    };
    let [transpose_a, transpose_b] = product.transposes;
    let sides = [
        stored((rows, depth), transpose_a),
        stored((depth, columns), transpose_b),
        (rows, columns),
    ];
    let bytes = sides.map(|(rows, columns)| u64::from(rows) * u64::from(stride(columns)) * 2);
    let count = sets_that_rotate(bytes.iter().sum());
    let mut sets = Vec::new();
    for set in 0..count {
        let memory = |index: usize| {
            let bytes = usize::try_from(bytes[index]).unwrap_or(usize::MAX);
            random_halves(bytes, (product.operands, set * 3 + index as u64), stream)
        };
        let memory = [memory(0)?, memory(1)?, memory(2)?];
        let matrix = |index: usize| DeviceMatrix {
            address: memory[index].device_ptr(stream).0,
            rows: sides[index].0,
            columns: sides[index].1,
            row_stride: stride(sides[index].1),
        };
        sets.push(OperandSet {
            product: Product {
                a: matrix(0),
                transpose_a,
                b: matrix(1),
                transpose_b,
                c: matrix(2),
                result: ResultType::Half,
                scale: 1.0,
                accumulate: false,
            },
            element: product.operands.element_type(),
            _memory: memory,
        });
    }
    Ok(sets)
}

/// Elements from one row to the next.
fn stride(columns: u32) -> u32 {
    columns.next_multiple_of(8)
}

fn sets_that_rotate(bytes: u64) -> u64 {
    ROTATING_BYTES.div_ceil(bytes.max(1)).clamp(2, 64)
}

/// Memory of uniform random numbers between -1 and 1.
fn random_halves(
    bytes: usize,
    (operands, seed): (HalfType, u64),
    stream: &Arc<CudaStream>,
) -> Result<CudaSlice<u8>, CudaError> {
    let mut state = seed;
    let pattern: Vec<u8> = (0..PATTERN_ELEMENTS.min(bytes.div_ceil(2)))
        .flat_map(|_| {
            let number = (next_random(&mut state) >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
            match operands {
                HalfType::F16 => f16::from_f32(number).to_le_bytes(),
                HalfType::Bf16 => bf16::from_f32(number).to_le_bytes(),
            }
        })
        .collect();
    filled(bytes, &pattern, stream)
}

fn random_bytes(
    bytes: usize,
    seed: u64,
    stream: &Arc<CudaStream>,
) -> Result<CudaSlice<u8>, CudaError> {
    let mut state = seed;
    let pattern: Vec<u8> = (0..(PATTERN_ELEMENTS / 4).min(bytes.div_ceil(8)))
        .flat_map(|_| next_random(&mut state).to_le_bytes())
        .collect();
    filled(bytes, &pattern, stream)
}

/// Splitmix64 (Steele, Lea and Flood 2014).
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    crate::twin::mixed(*state)
}

fn filled(
    bytes: usize,
    pattern: &[u8],
    stream: &Arc<CudaStream>,
) -> Result<CudaSlice<u8>, CudaError> {
    let memory = stream.alloc_zeros::<u8>(bytes.max(1));
    let mut memory = memory.map_err(failed("allocating operands"))?;
    for begin in (0..bytes).step_by(pattern.len().max(1)) {
        let len = pattern.len().min(bytes - begin);
        let mut part = memory.slice_mut(begin..begin + len);
        let copied = stream.memcpy_htod(&pattern[..len], &mut part);
        copied.map_err(failed("copying operands"))?;
    }
    // What is copied from is gone when this returns.
    stream.synchronize().map_err(failed("copying operands"))?;
    Ok(memory)
}

/// Lets all take turns, the first of a round changing, and times each turn on the stream.
fn race(
    gpu: &Gpu,
    stream: &Arc<CudaStream>,
    turns: &[(String, Turn<'_>)],
    rounds: u32,
) -> Result<Vec<RaceTimes>, CudaError> {
    let all = (WARM_UP + rounds) as usize * turns.len();
    let stamps = stream.alloc_zeros::<u64>(2 * all);
    let stamps = stamps.map_err(failed("allocating stamps"))?;
    let address = stamps.device_ptr(stream).0;
    let mut ran = Vec::new();
    for turn in 0..all {
        let (round, place) = (turn / turns.len(), turn % turns.len());
        let which = (place + round) % turns.len();
        let at = address + turn as u64 * STAMP_BYTES * 2;
        gpu.stamp(at, stream)?;
        let did = turns[which].1(turn)?;
        gpu.stamp(at + STAMP_BYTES, stream)?;
        if did && round >= WARM_UP as usize {
            ran.push((which, turn));
        }
    }
    let stamps = stream.clone_dtoh(&stamps);
    let stamps = stamps.map_err(failed("waiting for timed work"))?;
    stream
        .synchronize()
        .map_err(failed("waiting for timed work"))?;
    let mut times: Vec<RaceTimes> = turns
        .iter()
        .map(|(name, _)| RaceTimes {
            name: name.clone(),
            seconds: Vec::new(),
        })
        .collect();
    for (which, turn) in ran {
        let nanoseconds = stamps[2 * turn + 1].saturating_sub(stamps[2 * turn]);
        times[which].seconds.push(nanoseconds as f64 * 1e-9);
    }
    Ok(times)
}

fn failed(doing: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Driver {
        doing,
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(name: &str, seconds: &[f64]) -> RaceTimes {
        RaceTimes {
            name: name.to_owned(),
            seconds: seconds.to_vec(),
        }
    }

    #[test]
    fn medians() {
        let check = |seconds: &[f64], expect| {
            assert_eq!(times("", seconds).median_seconds(), expect, "{seconds:?}");
        };
        check(&[], None);
        check(&[3.0], Some(3.0));
        check(&[3.0, 1.0], Some(2.0));
        check(&[9.0, 1.0, 2.0], Some(2.0));
    }

    #[test]
    fn the_engine_has_to_beat_all_that_ran() {
        let check = |all: &[&[f64]], expect| {
            let all: Vec<RaceTimes> = all.iter().map(|seconds| times("", seconds)).collect();
            assert_eq!(first_is_fastest(&all), expect, "{all:?}");
        };
        check(&[&[1.0, 1.0, 9.0], &[2.0, 2.0, 2.0]], true);
        check(&[&[2.0], &[2.0]], false);
        check(&[&[2.0], &[3.0], &[1.0]], false);
        check(&[&[2.0], &[]], true);
        check(&[&[], &[1.0]], false);
    }

    #[test]
    fn sets_are_larger_than_caches_together() {
        let check = |bytes, expect| assert_eq!(sets_that_rotate(bytes), expect, "{bytes}");
        check(3 * 8192 * 8192 * 2, 2);
        check(1 << 27, 4);
        check(1, 64);
    }
}
