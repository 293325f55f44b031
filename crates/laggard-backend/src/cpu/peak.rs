//! Register-only arithmetic: the peak that a core can reach, and work that touches no memory.

use super::clock::cpu_ns;
use crate::BackendError;
use laggard_types::{Flop, FlopPerSecond, Seconds};
use pulp::{Arch, Simd, WithSimd};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Independent chains of multiply-adds. Enough to cover latency times pipelines of the cores that
/// laggard meets (4 cycles x 2 on x86 server cores, 4 x 4 on Neoverse V), few enough that chains
/// and the two constants stay in the registers of AVX2 (16) and NEON (32).
const CHAINS: usize = if cfg!(target_arch = "aarch64") {
    24
} else {
    12
};

/// FLOP of one multiply-add on one lane.
const FLOP_PER_LANE: u64 = 2;

/// FLOP of one timed run when looking for the peak: some hundred microseconds, short enough that
/// the best run is undisturbed, long enough that reading the clock does not matter.
const FLOP_PER_RUN: u64 = 20_000_000;

/// The highest arithmetic rate that the calling thread reaches in `f32`: multiply-adds on registers
/// alone, over independent chains, with the widest vector instructions that the processor has
/// (AVX-512, AVX2 with FMA, NEON, else scalar). A multiply-add counts two FLOP. It is the best of
/// many short runs within `duration`, by the thread's CPU time, so other processes do not lower it;
/// it is the peak of one core at the clock frequency of that moment, and no datasheet figure.
///
/// # Errors
/// [`BackendError::System`] if the thread's clock cannot be read.
pub fn measure_peak(duration: Duration) -> Result<FlopPerSecond, BackendError> {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut flop = 0;
    while best.is_infinite() || begin.elapsed() < duration {
        let start = cpu_ns()?;
        flop = burn(FLOP_PER_RUN);
        let spent = cpu_ns()? - start;
        if spent > 0 {
            best = best.min(spent as f64 * 1e-9);
        }
    }
    Ok(Flop(flop as f64) / Seconds(best))
}

/// Does at least `flop` FLOP of arithmetic on registers, at about the rate of [`measure_peak`], on
/// the calling thread; says how many it did.
pub fn burn(flop: u64) -> u64 {
    if flop == 0 {
        return 0;
    }
    Arch::new().dispatch(MultiplyAdd { flop })
}

struct MultiplyAdd {
    flop: u64,
}

impl WithSimd for MultiplyAdd {
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> u64 {
        let per_pass = (S::F32_LANES * CHAINS) as u64 * FLOP_PER_LANE;
        let passes = self.flop.div_ceil(per_pass);
        // x -> x / 2 + 1 / 2 stays near 1 whatever the count: no overflow, no denormals.
        let half = simd.splat_f32s(black_box(0.5));
        let mut chains = [simd.splat_f32s(black_box(1.5)); CHAINS];
        for _ in 0..passes {
            for chain in &mut chains {
                *chain = simd.mul_add_e_f32s(*chain, half, half);
            }
        }
        for chain in chains {
            black_box(simd.reduce_sum_f32s(chain));
        }
        passes * per_pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burns_what_was_asked_for_and_little_more() {
        assert_eq!(burn(0), 0);
        let once = burn(1);
        for flop in [1, 1000, 123_457] {
            let done = burn(flop);
            assert!(done >= flop && done < flop + once, "{flop}: {done}");
        }
    }

    #[test]
    fn peak_is_a_rate_of_this_century() {
        let peak = measure_peak(Duration::from_millis(5)).unwrap();
        assert!(peak.0.is_finite() && peak.0 > 1e7, "{peak:?}");
    }
}
