//! Random factors of durations: one draw per rank, phase and step, each a function of seed, rank,
//! phase and step alone, so that neither threads nor the order of evaluation change them.

use crate::error::SimulateError;
use laggard_stats::{normal_quantile, splitmix64_at};
use laggard_types::Rank;

/// How durations of one rank vary from step to step. Factors have mean 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Jitter {
    /// The distribution of the factor.
    pub distribution: JitterDistribution,
    /// Correlation of the underlying normal variable between a step and the next, on one rank and
    /// phase: at least 0, below 1.
    pub autocorrelation: f64,
}

/// The distribution of a factor.
#[derive(Debug, Clone, PartialEq)]
pub enum JitterDistribution {
    /// Always 1.
    None,
    /// `exp(sigma z - sigma^2/2)` of a standard normal `z`.
    Lognormal {
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Measured: quantiles at the probabilities `(i + 1/2)/n`, ascending, in any unit; they are
    /// divided by their mean. Nothing beyond the first and the last is ever drawn, so that the
    /// longest of many more ranks than were measured comes out too short.
    Quantiles(Vec<f64>),
}

impl Jitter {
    /// No jitter.
    pub const NONE: Self = Self {
        distribution: JitterDistribution::None,
        autocorrelation: 0.0,
    };

    pub(super) fn check(&self) -> Result<(), SimulateError> {
        let refuse = |what: &'static str, why: String| Err(SimulateError::Jitter { what, why });
        if !(0.0..1.0).contains(&self.autocorrelation) {
            let why = format!("is {}, not at least 0 and below 1", self.autocorrelation);
            return refuse("autocorrelation", why);
        }
        match &self.distribution {
            JitterDistribution::None => Ok(()),
            JitterDistribution::Lognormal { sigma } if (0.0..=2.0).contains(sigma) => Ok(()),
            JitterDistribution::Lognormal { sigma } => {
                refuse("sigma", format!("is {sigma}, not from 0 to 2"))
            }
            JitterDistribution::Quantiles(list) => {
                let fits = |value: &f64| value.is_finite() && *value > 0.0;
                if list.is_empty() || !list.iter().all(fits) {
                    let why = "must be finite and positive, at least one".to_owned();
                    return refuse("quantiles", why);
                }
                if !list.is_sorted() {
                    return refuse("quantiles", "must ascend".to_owned());
                }
                Ok(())
            }
        }
    }
}

/// What a draw is for. Its number is part of the key of the draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrawPhase {
    /// Forward passes of the step.
    Forward = 0,
    /// Backward passes of the step.
    Backward = 1,
    /// The update that the step begins with: that of the gradients of the step before.
    Optimizer = 2,
    /// Whether the rank pauses in the step.
    Pause = 3,
}

const PHASES: u64 = 4;

/// Cells of the normal table in each halving of the tail.
const CELLS: usize = 128;
/// Halvings; beyond them the tail ends (at 8.3 deviations, probability 2^-49 a side).
const OCTAVES: usize = 48;
/// The factor is tabulated for deviations up to this.
const REACH: f64 = 9.0;
/// Cells of the factor's table for each deviation.
const FACTOR_CELLS: f64 = 128.0;

/// A straight piece of a function: value at its begin, and what it grows by to its end.
type Piece = (f64, f64);

/// Tables that turn random bits into factors.
#[derive(Debug)]
pub struct Noise {
    seed: u64,
    normal: Vec<Piece>,
    factor: Vec<Piece>,
    autocorrelation: f64,
    /// Weight of what is new in each step.
    innovation: f64,
    constant: bool,
    /// Standard deviation of the factor.
    pub(super) deviation: f64,
}

/// Where a rank's draws of one phase stand.
#[derive(Debug, Clone, Copy)]
pub struct NoiseState {
    deviation: f64,
}

impl NoiseState {
    /// Before step 0.
    pub const START: Self = Self { deviation: 0.0 };
}

impl Noise {
    /// Makes the tables.
    ///
    /// # Errors
    /// If the jitter is none that can be drawn.
    pub fn new(jitter: &Jitter, seed: u64) -> Result<Self, SimulateError> {
        jitter.check()?;
        let autocorrelation = jitter.autocorrelation;
        let factor = factor_table(&jitter.distribution);
        Ok(Self {
            seed: splitmix64_at(seed, 0),
            normal: normal_table(),
            deviation: deviation_of(&factor),
            factor,
            autocorrelation,
            innovation: (1.0 - autocorrelation * autocorrelation).sqrt(),
            constant: jitter.distribution == JitterDistribution::None,
        })
    }

    /// The smallest factor that can be drawn.
    pub(super) fn least(&self) -> f64 {
        let ends = self
            .factor
            .iter()
            .flat_map(|piece| [piece.0, piece.0 + piece.1]);
        ends.fold(f64::INFINITY, f64::min)
    }

    /// The key of a rank's draws of one phase.
    pub(super) fn key(&self, rank: Rank, phase: DrawPhase) -> u64 {
        splitmix64_at(self.seed, u64::from(rank) * PHASES + phase as u64)
    }

    /// Factors of a rank's steps from `first` on. They must be drawn in order from step 0, with
    /// the same `state`.
    pub fn fill(
        &self,
        (rank, phase): (Rank, DrawPhase),
        first: u32,
        state: &mut NoiseState,
        factors: &mut [f64],
    ) {
        if self.constant {
            factors.fill(1.0);
            return;
        }
        let key = self.key(rank, phase);
        let draw = |step: u32| self.deviate(splitmix64_at(key, u64::from(step)));
        if self.autocorrelation == 0.0 {
            for (step, factor) in (first..).zip(factors) {
                *factor = self.factor_of(draw(step));
            }
            return;
        }
        let mut deviation = state.deviation;
        for (step, factor) in (first..).zip(factors) {
            let fresh = draw(step);
            deviation = match step {
                0 => fresh,
                _ => self.autocorrelation * deviation + self.innovation * fresh,
            };
            *factor = self.factor_of(deviation);
        }
        state.deviation = deviation;
    }

    /// A standard normal deviate of 64 random bits: one for the sign, the leading zeros of the
    /// others for the halving of the tail, the rest for the place in it. The quantile function is
    /// straight within each of the table's cells, where it is wrong by less than 1e-5.
    #[inline]
    fn deviate(&self, bits: u64) -> f64 {
        let tail = (bits >> 1) | 1;
        let octave = (tail.leading_zeros() - 1).min(OCTAVES as u32 - 1);
        let rest = tail << (octave + 2);
        let cell = octave as usize * CELLS + (rest >> 57) as usize;
        let within = (rest << 7 >> 11) as f64 * (1.0 / (1_u64 << 53) as f64);
        let (value, growth) = self.normal[cell];
        let magnitude = value + growth * within;
        f64::from_bits(magnitude.to_bits() ^ (bits << 63))
    }

    #[inline]
    fn factor_of(&self, deviation: f64) -> f64 {
        let at = (deviation.clamp(-REACH, REACH - 1e-9) + REACH) * FACTOR_CELLS;
        let cell = at as usize;
        let (value, growth) = self.factor[cell];
        value + growth * (at - cell as f64)
    }
}

fn pieces(points: &[f64]) -> Vec<Piece> {
    points
        .windows(2)
        .map(|pair| (pair[0], pair[1] - pair[0]))
        .collect()
}

/// Magnitudes of deviates by halvings of the two tails' probability, from 1 down.
fn normal_table() -> Vec<Piece> {
    let magnitude = |tail: f64| normal_quantile(0.5 * tail).map_or(0.0, |z| -z);
    let mut table = Vec::with_capacity(OCTAVES * CELLS);
    for octave in 0..OCTAVES {
        let low = 0.5_f64.powi(octave as i32 + 1);
        let point = |cell: usize| magnitude(low * (1.0 + cell as f64 / CELLS as f64));
        let points: Vec<f64> = (0..=CELLS).map(point).collect();
        table.extend(pieces(&points));
    }
    table
}

fn factor_table(distribution: &JitterDistribution) -> Vec<Piece> {
    let count = (2.0 * REACH * FACTOR_CELLS) as usize;
    let deviations: Vec<f64> = (0..=count)
        .map(|at| at as f64 / FACTOR_CELLS - REACH)
        .collect();
    let mut points: Vec<f64> = match distribution {
        JitterDistribution::None => vec![1.0; deviations.len()],
        JitterDistribution::Lognormal { sigma } => {
            let of = |z: &f64| (sigma * z - 0.5 * sigma * sigma).exp();
            deviations.iter().map(of).collect()
        }
        JitterDistribution::Quantiles(list) => {
            let of = |z: &f64| quantile_at(list, laggard_stats::normal_cdf(*z));
            deviations.iter().map(of).collect()
        }
    };
    // What is drawn has mean 1, ends and straight pieces included.
    let mean = normal_mean(points.iter().copied());
    points.iter_mut().for_each(|point| *point /= mean);
    pieces(&points)
}

/// Mean over a standard normal variable of a function given at the table's points.
fn normal_mean(values: impl Iterator<Item = f64>) -> f64 {
    let weight = |at: usize| {
        let z = at as f64 / FACTOR_CELLS - REACH;
        (-0.5 * z * z).exp()
    };
    let add = |(sum, weights): (f64, f64), (at, value): (usize, f64)| {
        (sum + weight(at) * value, weights + weight(at))
    };
    let (sum, weights) = values.enumerate().fold((0.0, 0.0), add);
    sum / weights
}

fn deviation_of(factor: &[Piece]) -> f64 {
    normal_mean(factor.iter().map(|piece| (piece.0 - 1.0).powi(2))).sqrt()
}

/// The value at a probability, of ascending quantiles at `(i + 1/2) / n`, at least one: straight
/// between their probabilities, constant beyond them.
pub(crate) fn quantile_at(list: &[f64], probability: f64) -> f64 {
    let at = (probability * list.len() as f64 - 0.5).clamp(0.0, (list.len() - 1) as f64);
    let below = at as usize;
    let above = (below + 1).min(list.len() - 1);
    list[below] + (list[above] - list[below]) * (at - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_stats::{normal_cdf, quantile};

    fn draws(jitter: &Jitter, ranks: u32, steps: usize) -> Vec<Vec<f64>> {
        let noise = Noise::new(jitter, 7).expect("a jitter");
        let of_rank = |rank| {
            let (mut state, mut factors) = (NoiseState::START, vec![0.0; steps]);
            noise.fill((rank, DrawPhase::Forward), 0, &mut state, &mut factors);
            factors
        };
        (0..ranks).map(of_rank).collect()
    }

    #[test]
    fn deviates_are_normal() {
        let noise = Noise::new(&Jitter::NONE, 1).expect("no jitter");
        // The whole of the table against the quantile function, tails included.
        for shift in 0..46 {
            for top in [0b100_u64, 0b101, 0b110, 0b111] {
                let bits = top << 61 >> shift;
                let tail = (bits >> 1 | 1) as f64 / (1_u64 << 63) as f64;
                let exact = -normal_quantile(0.5 * tail).expect("a probability");
                for sign in [0, 1] {
                    let got = noise.deviate(bits & !1 | sign);
                    let expect = if sign == 1 { -exact } else { exact };
                    assert!((got - expect).abs() < 1e-5, "{bits:x}: {got}, not {expect}");
                }
            }
        }
        let n = 400_000;
        let list: Vec<f64> = (0..n)
            .map(|at| noise.deviate(splitmix64_at(3, at)))
            .collect();
        // Kolmogorov's distance at the 0.1 % point is 1.95/sqrt(n).
        let mut sorted = list;
        sorted.sort_by(f64::total_cmp);
        let distance = sorted
            .iter()
            .enumerate()
            .map(|(at, z)| (normal_cdf(*z) - (at as f64 + 0.5) / n as f64).abs());
        assert!(distance.fold(0.0, f64::max) < 1.95 / (n as f64).sqrt());
    }

    #[test]
    fn factors_have_mean_one_and_the_stated_correlation() {
        let lognormal = JitterDistribution::Lognormal { sigma: 0.2 };
        for autocorrelation in [0.0, 0.9] {
            let jitter = Jitter {
                distribution: lognormal.clone(),
                autocorrelation,
            };
            let all = draws(&jitter, 20_000, 20);
            let logs: Vec<Vec<f64>> = all
                .iter()
                .map(|rank| rank.iter().map(|f| (f.ln() + 0.02) / 0.2).collect())
                .collect();
            let count = (all.len() * 20) as f64;
            let mean = all.iter().flatten().sum::<f64>() / count;
            // Five standard errors, of 20,000 independent ranks.
            assert!((mean - 1.0).abs() < 5.0 * 0.2 / 20_000_f64.sqrt(), "{mean}");
            for lag in [1, 5] {
                let products = logs.iter().map(|z| z[10] * z[10 + lag]);
                let got = products.sum::<f64>() / 20_000.0;
                let expect = autocorrelation.powi(lag as i32);
                assert!(
                    (got - expect).abs() < 5.0 / 20_000_f64.sqrt() * 1.5,
                    "{lag}: {got}"
                );
            }
        }
    }

    #[test]
    fn measured_quantiles_come_back() {
        let list: Vec<f64> = (1..=200).map(|i| 3.0 + f64::from(i * i) * 1e-3).collect();
        let jitter = Jitter {
            distribution: JitterDistribution::Quantiles(list.clone()),
            autocorrelation: 0.5,
        };
        let drawn: Vec<f64> = draws(&jitter, 2_000, 50).concat();
        let mean = list.iter().sum::<f64>() / 200.0;
        for p in [0.05, 0.5, 0.95] {
            let got = quantile(&drawn, p).expect("draws") * mean;
            let expect = quantile(&list, p).expect("a list");
            assert!(
                (got / expect - 1.0).abs() < 0.01,
                "{p}: {got}, not {expect}"
            );
        }
        let longest = drawn.iter().copied().fold(0.0, f64::max);
        assert!(longest * mean <= list[199] * 1.001);
    }

    #[test]
    fn draws_do_not_depend_on_how_they_are_batched() {
        let jitter = Jitter {
            distribution: JitterDistribution::Lognormal { sigma: 0.1 },
            autocorrelation: 0.7,
        };
        let noise = Noise::new(&jitter, 11).expect("a jitter");
        let key = (5, DrawPhase::Backward);
        let (mut whole, mut parts) = ([0.0; 30], [0.0; 30]);
        let (mut once, mut state) = (NoiseState::START, NoiseState::START);
        noise.fill(key, 0, &mut once, &mut whole);
        noise.fill(key, 0, &mut state, &mut parts[..7]);
        noise.fill(key, 7, &mut state, &mut parts[7..]);
        assert!(
            whole
                .iter()
                .zip(&parts)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let lognormal = |sigma| JitterDistribution::Lognormal { sigma };
        let cases = [
            (lognormal(f64::NAN), 0.0, "sigma"),
            (lognormal(-0.1), 0.0, "sigma"),
            (lognormal(0.1), 1.0, "autocorrelation"),
            (lognormal(0.1), f64::NAN, "autocorrelation"),
            (JitterDistribution::Quantiles(vec![]), 0.0, "quantiles"),
            (JitterDistribution::Quantiles(vec![2.0, 1.0]), 0.0, "ascend"),
        ];
        for (distribution, autocorrelation, word) in cases {
            let jitter = Jitter {
                distribution,
                autocorrelation,
            };
            let message = Noise::new(&jitter, 0).expect_err(word).to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
