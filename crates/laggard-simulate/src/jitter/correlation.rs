//! How the correlation of ranks' times from one wait to the next passes to groups of them.

use laggard_stats::normal_cdf;

/// Grid of the double integral over a pair of normal maxima, in deviations.
const LOWEST: f64 = -5.0;
const STEP: f64 = 0.125;
const NODES: usize = 97;
/// Points of the table of [`OfMaxima`], in the square root of one less the correlation.
const TABLE: usize = 12;

/// Correlations of one series at the lags 0, 1, 2 and so on, up to the end of a step.
#[derive(Debug, Clone)]
pub(super) struct Lags(Vec<f64>);

impl Lags {
    /// An autoregression of first order.
    pub(super) fn first_order(autocorrelation: f64, length: u32) -> Self {
        let lags = (0..length.max(1)).map(|lag| autocorrelation.powf(f64::from(lag)));
        Self(lags.collect())
    }

    /// Of the maxima over `count` independent series.
    pub(super) fn of_maxima(&self, count: u64) -> Self {
        if count == 1 || self.0.iter().skip(1).all(|r| *r <= 0.0) {
            return self.clone();
        }
        let map = OfMaxima::new(count);
        Self(self.0.iter().map(|r| map.at(*r)).collect())
    }

    /// Of the means of blocks of `length`, and the deviation of such a mean over that of one value.
    pub(super) fn of_means(&self, length: usize) -> (Self, f64) {
        let at = |lag: isize| self.0.get(lag.unsigned_abs()).copied().unwrap_or(0.0);
        let reach = length as isize;
        let sum = |block: usize| -> f64 {
            (1 - reach..reach)
                .map(|d| (reach - d.abs()) as f64 * at((block * length) as isize + d))
                .sum()
        };
        let own = sum(0).max(0.0);
        let blocks = (self.0.len() / length).max(1);
        let lags = (0..blocks).map(|block| if own > 0.0 { sum(block) / own } else { 0.0 });
        (Self(lags.collect()), own.sqrt() / length as f64)
    }
}

/// The correlation of the maxima of n pairs of normal variables as a function of that of the
/// pairs, tabulated.
///
/// By Hoeffding's formula: the covariance is the double integral of `F(a, b)^n - F(a)^n F(b)^n`.
struct OfMaxima {
    table: [f64; TABLE + 1],
}

impl OfMaxima {
    fn new(count: u64) -> Self {
        let n = count as f64;
        let z: Vec<f64> = (0..NODES).map(|i| LOWEST + STEP * i as f64).collect();
        let single: Vec<f64> = z.iter().map(|z| normal_cdf(*z)).collect();
        let alone: Vec<f64> = single.iter().map(|p| p.powf(n)).collect();
        let mut whole = 0.0;
        for (i, a) in alone.iter().enumerate() {
            for (j, b) in alone.iter().enumerate() {
                whole += alone[i.min(j)] - a * b;
            }
        }
        let mut table = [0.0; TABLE + 1];
        table[0] = 1.0;
        for (at, entry) in table.iter_mut().enumerate().take(TABLE).skip(1) {
            let root = at as f64 / TABLE as f64;
            *entry = covariance(1.0 - root * root, n, &z, &alone) / whole;
        }
        Self { table }
    }

    fn at(&self, correlation: f64) -> f64 {
        let at = (1.0 - correlation).clamp(0.0, 1.0).sqrt() * TABLE as f64;
        let below = (at as usize).min(TABLE - 1);
        let (low, high) = (self.table[below], self.table[below + 1]);
        low + (high - low) * (at - below as f64)
    }
}

/// Sum over the grid of Hoeffding's integrand.
fn covariance(correlation: f64, n: f64, z: &[f64], alone: &[f64]) -> f64 {
    let spread = (1.0 - correlation * correlation).sqrt();
    let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let mut sum = 0.0;
    for (b, alone_b) in z.iter().zip(alone) {
        // The joint probability, integrated over the first variable up to each node by Simpson's
        // rule.
        let integrand = |x: f64| density(x) * normal_cdf((b - correlation * x) / spread);
        let mut joint = 0.0;
        let mut before = integrand(LOWEST - STEP);
        for (a, alone_a) in z.iter().zip(alone) {
            let here = integrand(*a);
            joint += STEP / 6.0 * (before + 4.0 * integrand(a - 0.5 * STEP) + here);
            before = here;
            sum += joint.powf(n) - alone_a * alone_b;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use laggard_stats::Rng;

    use super::*;

    /// For two pairs the maxima's correlation is known by simulation to three digits; ends exactly.
    #[test]
    fn maxima_correlate_as_simulated() {
        let mut rng = Rng::new(9);
        for (count, correlation) in [(2_u64, 0.5_f64), (8, 0.7), (8, 0.95), (512, 0.9)] {
            let trials = 20_000_u32;
            let mut sums = [0.0; 5];
            for _ in 0..trials {
                let (mut a, mut b) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
                for _ in 0..count {
                    let x = rng.normal();
                    let other = (1.0 - correlation * correlation).sqrt() * rng.normal();
                    a = a.max(x);
                    b = b.max(correlation * x + other);
                }
                for (sum, value) in sums.iter_mut().zip([a, b, a * a, b * b, a * b]) {
                    *sum += value / f64::from(trials);
                }
            }
            let [a, b, aa, bb, ab] = sums;
            let simulated = (ab - a * b) / ((aa - a * a) * (bb - b * b)).sqrt();
            let got = OfMaxima::new(count).at(correlation);
            // Four standard errors of a correlation of 20,000 pairs, and the table's steps.
            assert!(
                (got - simulated).abs() < 0.02,
                "{count}: {got}, not {simulated}"
            );
        }
        let map = OfMaxima::new(64);
        assert!(map.at(0.0).abs() < 1e-12 && (map.at(1.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn means_by_hand() {
        let (means, shrink) = Lags(vec![1.0, 0.5, 0.25, 0.125]).of_means(2);
        // Variance (2 + 2 * 0.5) / 4; covariance (0.5 + 2 * 0.25 + 0.125) / 4.
        assert!((shrink - 0.75_f64.sqrt()).abs() < 1e-15);
        assert!((means.0[1] - 1.125 / 3.0).abs() < 1e-15, "{means:?}");
        assert_eq!(means.0.len(), 2);
    }
}
