//! What is kept of each rank: sums and a histogram of its own time.

/// Bins of a rank's histogram.
const BINS: usize = 64;
/// Deviations of the jitter that the histogram reaches to either side of the rank's nominal time.
const REACH: f64 = 4.0;

/// How a rank's own time is binned: by its ratio to what it would take without jitter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binning {
    low: f64,
    per_unit: f64,
}

impl Binning {
    /// Bins for ratios of this standard deviation.
    pub(super) fn new(deviation: f64) -> Self {
        let reach = (REACH * deviation).max(1e-6);
        Self {
            low: 1.0 - reach,
            per_unit: BINS as f64 / (2.0 * reach),
        }
    }

    #[inline]
    fn bin(&self, ratio: f64) -> usize {
        // A negative number becomes 0.
        (((ratio - self.low) * self.per_unit) as usize).min(BINS - 1)
    }

    fn edge(&self, bin: usize) -> f64 {
        self.low + bin as f64 / self.per_unit
    }
}

/// One rank so far.
#[derive(Debug, Clone)]
pub(super) struct RankTally {
    sum_s: f64,
    pub(super) shortest_s: f64,
    pub(super) longest_s: f64,
    /// Seconds of waiting that it is blamed for.
    pub(super) blamed_s: f64,
    /// Steps in which everybody waited for it.
    pub(super) last: u32,
    steps: u32,
    bins: [u32; BINS],
}

impl RankTally {
    pub(super) const EMPTY: Self = Self {
        sum_s: 0.0,
        shortest_s: f64::INFINITY,
        longest_s: 0.0,
        blamed_s: 0.0,
        last: 0,
        steps: 0,
        bins: [0; BINS],
    };

    /// Adds own times; `nominal_s` is what they would be without jitter.
    #[inline]
    pub(super) fn add(&mut self, binning: &Binning, nominal_s: f64, own: &[f64]) {
        let inverse = 1.0 / nominal_s.max(f64::MIN_POSITIVE);
        for &seconds in own {
            self.sum_s += seconds;
            self.shortest_s = self.shortest_s.min(seconds);
            self.longest_s = self.longest_s.max(seconds);
            self.bins[binning.bin(seconds * inverse)] += 1;
        }
        self.steps += own.len() as u32;
    }

    pub(super) fn mean_s(&self) -> f64 {
        self.sum_s / f64::from(self.steps.max(1))
    }

    /// A quantile of the own time, straight within bins; the ends are the shortest and longest.
    pub(super) fn quantile_s(&self, binning: &Binning, nominal_s: f64, probability: f64) -> f64 {
        let target = probability * f64::from(self.steps);
        let mut below = 0.0;
        for (bin, &count) in self.bins.iter().enumerate() {
            let count = f64::from(count);
            if count > 0.0 && below + count >= target {
                let low = match bin {
                    0 => self.shortest_s,
                    _ => binning.edge(bin) * nominal_s,
                };
                let high = match bin {
                    _ if bin == BINS - 1 => self.longest_s,
                    _ => binning.edge(bin + 1) * nominal_s,
                };
                let at = low + (high - low) * (target - below) / count;
                return at.clamp(self.shortest_s, self.longest_s);
            }
            below += count;
        }
        self.longest_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_stats::{Rng, quantile};

    #[test]
    fn quantiles_are_close_to_exact_ones() {
        let mut rng = Rng::new(5);
        let own: Vec<f64> = (0..4_000)
            .map(|_| 3.0 * (1.0 + 0.02 * rng.normal()))
            .collect();
        let binning = Binning::new(0.02);
        let mut tally = RankTally::EMPTY;
        own.chunks(33)
            .for_each(|part| tally.add(&binning, 3.0, part));
        for probability in [0.01, 0.5, 0.95, 0.99] {
            let got = tally.quantile_s(&binning, 3.0, probability);
            let exact = quantile(&own, probability).expect("values");
            // A bin is an eighth of a deviation.
            assert!(
                (got - exact).abs() < 3.0 * 0.02 / 8.0,
                "{probability}: {got}, not {exact}"
            );
        }
        assert!((tally.mean_s() - own.iter().sum::<f64>() / 4_000.0).abs() < 1e-12);
        let longest = own.iter().copied().fold(0.0, f64::max);
        assert!(tally.quantile_s(&binning, 3.0, 1.0) <= longest);
        assert!((tally.longest_s - longest).abs() < 1e-15);
    }
}
