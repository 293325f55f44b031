//! How long kernels take on one accelerator: matrix products, attention, and what is bound by
//! memory. Knows shapes, and nothing of layers, ranks or steps.

mod constants;

pub use constants::{Constant, ConstantEntry, Constants};

use crate::job::{AttentionKernel, Family, Machine, Precision};

/// Tiles of a product: rows, columns, and the time per FLOP relative to the best.
/// Sources: NVIDIA, "Matrix Multiplication Background User's Guide", section "Tile Quantization";
/// the smaller tile's cost as in its figure of tile efficiencies.
const TILES: [(f64, f64, f64); 2] = [(128.0, 256.0, 1.0), (128.0, 128.0, 1.07)];
/// Channels of a head from which on attention kernels reach their best.
/// Source: <https://arxiv.org/abs/2205.14135> and <https://arxiv.org/abs/2307.08691>, which give
/// rates at 64 and 128.
const BEST_HEAD_DIM: f64 = 128.0;
/// Channels that the two batched products of attention lose at their ends: they fill a tile only
/// partly.
const BATCHED_HEAD_LOSS: f64 = 32.0;
/// Elements of half precision that tensor cores take at once: other leading dimensions fall back
/// to slower kernels. Source: NVIDIA, "Matrix Multiplication Background User's Guide",
/// section "Requirements for Tensor Cores".
const ALIGNED_ELEMENTS: f64 = 8.0;

/// A matrix product: `m` x `k` by `k` x `n`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Gemm {
    pub(crate) m: f64,
    pub(crate) n: f64,
    pub(crate) k: f64,
}

/// The attention of a layer on one rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AttentionWork {
    /// Queries.
    pub(crate) queries: f64,
    /// Keys in the rows of the scores.
    pub(crate) keys: f64,
    /// Keys that a query attends to, on average.
    pub(crate) attended: f64,
    /// Heads.
    pub(crate) heads: f64,
    /// Channels per head.
    pub(crate) head_dim: f64,
}

/// One accelerator and the constants of its kernels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernelry<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) constants: &'a Constants,
    pub(crate) precision: Precision,
}

impl Kernelry<'_> {
    fn constant(&self, constant: Constant) -> f64 {
        self.constants.get(constant)
    }

    /// Seconds of a kernel that does nothing but move so many bytes through memory.
    pub(crate) fn memory(&self, bytes: f64) -> f64 {
        self.machine.memory_bound_factor * self.moving(bytes)
    }

    fn moving(&self, bytes: f64) -> f64 {
        bytes / (self.machine.memory_bandwidth * self.constant(Constant::MemoryShare))
    }

    /// Seconds of a product in the job's precision.
    pub(crate) fn gemm(&self, gemm: Gemm) -> f64 {
        let Gemm { m, n, k } = gemm;
        let machine = self.machine;
        let share = match self.precision {
            Precision::Half => 1.0,
            Precision::Fp8 => self.constant(Constant::Fp8Share),
            Precision::Fp4 => self.constant(Constant::Fp4Share),
        };
        let rate = machine.peak(self.precision) * self.half_share() * share;
        let depth = 1.0 + self.constant(Constant::ProductDepth) / k;
        let computing = 2.0 * m * n * k / rate * self.quantisation(m, n) * depth;
        let moving = self.moving(2.0 * (m * k + k * n + m * n));
        // The two overlap within a kernel, but not wholly: between their larger and their sum.
        machine.products_factor * computing.hypot(moving)
    }

    /// Share of the peak that large products reach in half precision.
    fn half_share(&self) -> f64 {
        let share = self.constant(match self.machine.family {
            Family::Ampere => Constant::ProductShareAmpere,
            Family::Hopper => Constant::ProductShareHopper,
            Family::Blackwell => Constant::ProductShareBlackwell,
            Family::Tpu => Constant::ProductShareTpu,
            Family::Other => Constant::ProductShareOther,
        });
        share
            * self
                .machine
                .power_share
                .powf(self.constant(Constant::PowerExponent))
    }

    /// How much longer a product takes because its tiles do not fill the last wave.
    fn quantisation(&self, m: f64, n: f64) -> f64 {
        let multiprocessors = self.machine.multiprocessors;
        if multiprocessors == 0.0 {
            return 1.0;
        }
        let weight = self.constant(Constant::WaveQuantisation);
        let of_tile = |(rows, columns, cost): (f64, f64, f64)| {
            let waves = (m / rows).ceil() * (n / columns).ceil() / multiprocessors;
            let ideal = m * n / (rows * columns * multiprocessors);
            cost * (1.0 + weight * (waves.ceil() / ideal - 1.0))
        };
        TILES.into_iter().map(of_tile).fold(f64::MAX, f64::min)
    }

    /// Seconds of attention between its projections, forward and backward.
    pub(crate) fn attention(&self, kernel: AttentionKernel, work: &AttentionWork) -> [f64; 2] {
        match kernel {
            AttentionKernel::Flash => self.flash(work),
            AttentionKernel::FusedSoftmax => self.batched(work, Constant::SoftmaxBytes),
            AttentionKernel::Eager => self.batched(work, Constant::EagerSoftmaxBytes),
        }
    }

    fn flash(&self, work: &AttentionWork) -> [f64; 2] {
        let share = self.constant(match self.machine.family {
            Family::Ampere => Constant::FlashShareAmpere,
            Family::Hopper => Constant::FlashShareHopper,
            _ => Constant::FlashShareOther,
        });
        let narrow = (work.head_dim / BEST_HEAD_DIM).min(1.0).sqrt();
        let flop = 4.0 * work.queries * work.attended * work.heads * work.head_dim;
        let forward =
            self.machine.products_factor * flop / (self.machine.half_peak * share * narrow);
        // Backward computes the scores again: five products where forward has two.
        [
            forward,
            2.5 * forward / self.constant(Constant::FlashBackward),
        ]
    }

    fn batched(&self, work: &AttentionWork, bytes: Constant) -> [f64; 2] {
        let aligned = match (work.head_dim % ALIGNED_ELEMENTS) == 0.0 {
            true => 1.0,
            false => self.constant(Constant::MisalignedHead),
        };
        let share = self.half_share()
            * self.constant(Constant::BatchedProductShare)
            * aligned
            * work.head_dim
            / (work.head_dim + BATCHED_HEAD_LOSS);
        let scores = work.queries * work.keys * work.heads;
        let flop = 4.0 * scores * work.head_dim;
        let products = self.machine.products_factor * flop / (self.machine.half_peak * share);
        let softmax = self.memory(scores * self.constant(bytes));
        // Softmax backward reads its output and the gradient, and its dropout's mask.
        [products + softmax, 2.0 * products + 1.3 * softmax]
    }
}
