//! Published tables, exact cases, and direct simulation.

use laggard_stats::Rng;
use proptest::prelude::*;

use super::*;

/// The largest of normal values about 1.
fn normal(deviation: f64, ranks: u64) -> Maximum {
    integrate(ranks, |z| 1.0 + deviation * z)
}

fn maximum(noise: StepNoise, ranks: u64) -> Maximum {
    expected_maximum(&noise, ranks).unwrap()
}

/// Expected maxima of standard normal variables: Harter, "Expected values of normal order
/// statistics", Biometrika 48, 1961, to 8; beyond by numeric integration elsewhere.
#[test]
fn normal_table() {
    for (ranks, expect) in [
        (1, 0.0),
        (2, 0.564),
        (3, 0.846),
        (8, 1.424),
        (64, 2.344),
        (72, 2.388),
        (512, 3.044),
        (4096, 3.626),
        (16_384, 3.971),
        (65_536, 4.291),
        (100_000, 4.384),
        (200_000, 4.533),
        (1_000_000, 4.863),
    ] {
        let got = normal(1.0, ranks).mean - 1.0;
        assert!((got - expect).abs() < 6e-4, "{ranks}: {got}, not {expect}");
    }
    // Of two: mean 1/sqrt(pi), variance 1 - 1/pi.
    let two = normal(1.0, 2);
    let pi = std::f64::consts::PI;
    assert!((two.mean - 1.0 - 1.0 / pi.sqrt()).abs() < 1e-9, "{two:?}");
    assert!(
        (two.deviation - (1.0 - 1.0 / pi).sqrt()).abs() < 1e-9,
        "{two:?}"
    );
    // A deviation of 3 % on 220,000 ranks costs 13.6 %, one of 10 % costs 45.5 %.
    for (deviation, expect) in [(0.03, 1.1366), (0.1, 1.4553)] {
        let got = normal(deviation, 220_000).mean;
        assert!((got - expect).abs() < 5e-4, "{got}, not {expect}");
    }
}

/// Of 1, 2, 3, 4 (mean 2.5), the largest of two is 2, 3, 4 with 1, 2, 3 of 6 pairs.
#[test]
fn samples_by_hand() {
    let noise = StepNoise::Sample(vec![3.0, 1.0, 4.0, 2.0]);
    let two = maximum(noise.clone(), 2);
    assert!((two.mean - 20.0 / 6.0 / 2.5).abs() < 1e-12, "{two:?}");
    let all = maximum(noise.clone(), 4);
    assert!(
        (all.mean - 1.6).abs() < 1e-12 && all.deviation < 1e-7,
        "{all:?}"
    );
    let one = maximum(noise.clone(), 1);
    assert!(
        (one.mean - 1.0).abs() < 1e-12 && (one.high - 1.6).abs() < 1e-12,
        "{one:?}"
    );
    assert_eq!(
        expected_maximum(&noise, 5).unwrap_err().to_string(),
        "4 times say nothing of the longest of 5 ranks\n\
         hint: measure more steps, or state a lognormal deviation"
    );
}

/// Mean and standard error of the longest time of simulated steps.
fn simulate(levels: &[SyncLevel], sigma: f64, rho: f64, steps: u32) -> (f64, f64) {
    let mut rng = Rng::new(5);
    let mut totals = Vec::new();
    for _ in 0..steps {
        totals.push(group(levels, sigma, rho, &mut rng)[0]);
    }
    let n = f64::from(steps);
    let mean = totals.iter().sum::<f64>() / n;
    let variance = totals.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / n;
    (mean, (variance / n).sqrt())
}

/// Times between the waits of one group of the outermost level, each relative to its mean.
fn group(levels: &[SyncLevel], sigma: f64, rho: f64, rng: &mut Rng) -> Vec<f64> {
    let Some((level, within)) = levels.split_last() else {
        unreachable!("levels are counted down to ranks");
    };
    let mut longest = vec![0.0_f64; level.syncs_per_step as usize];
    for _ in 0..level.members {
        let times = if within.is_empty() {
            rank(level.syncs_per_step, sigma, rho, rng)
        } else {
            group(within, sigma, rho, rng)
        };
        let share = times.len() / longest.len();
        for (longest, part) in longest.iter_mut().zip(times.chunks(share)) {
            *longest = longest.max(part.iter().sum::<f64>() / share as f64);
        }
    }
    longest
}

fn rank(times: u32, sigma: f64, rho: f64, rng: &mut Rng) -> Vec<f64> {
    let mut z = rng.normal();
    (0..times)
        .map(|_| {
            let time = (sigma * z - 0.5 * sigma * sigma).exp();
            z = rho * z + (1.0 - rho * rho).sqrt() * rng.normal();
            time
        })
        .collect()
}

fn level(members: u32, syncs_per_step: u32) -> SyncLevel {
    SyncLevel {
        members,
        syncs_per_step,
    }
}

/// Exact cases within four standard errors; sums of times within 2 % of the penalty, those of
/// autocorrelated times within 4 %, beyond the simulation's error.
#[test]
fn agrees_with_direct_simulation() {
    for (levels, sigma, rho, slack) in [
        (vec![level(8, 1), level(16, 1)], 0.1, 0.0, 0.0),
        (vec![level(512, 1)], 0.05, 0.0, 0.0),
        (vec![level(8, 16), level(64, 1)], 0.1, 0.0, 0.02),
        (vec![level(8, 8), level(4, 2), level(32, 1)], 0.1, 0.0, 0.02),
        (vec![level(8, 16), level(64, 1)], 0.1, 0.7, 0.04),
        (vec![level(8, 8), level(4, 2), level(32, 1)], 0.1, 0.9, 0.04),
    ] {
        let (mean, error) = simulate(&levels, sigma, rho, 3000);
        let noise = StepNoise::Lognormal { sigma };
        let predicted = nested_penalties(&noise, rho, &levels).unwrap();
        let allowed = 4.0 * error + slack * (mean - 1.0);
        let off = predicted.step.mean - mean;
        assert!(
            off.abs() < allowed,
            "{levels:?}: off by {off}, {error}: {predicted:?}"
        );
        let sum: f64 = predicted.by_level.iter().sum();
        assert!(
            (sum - (predicted.step.mean - 1.0)).abs() < 1e-9,
            "{predicted:?}"
        );
    }
}

/// Intervals of the mean over 50 steps hold it in 90 % of trials, without autocorrelation.
#[test]
fn intervals_cover() {
    let noise = StepNoise::Lognormal { sigma: 0.1 };
    let predicted = maximum(noise, 64).interval_of_mean(50, 0.0).unwrap();
    let mut rng = Rng::new(3);
    let mut hits = 0_u32;
    let trials = 600_u32;
    for _ in 0..trials {
        let sum: f64 = (0..50)
            .map(|_| group(&[level(64, 1)], 0.1, 0.0, &mut rng)[0])
            .sum();
        hits += u32::from(predicted.contains(sum / 50.0));
    }
    let share = f64::from(hits) / f64::from(trials);
    // Four binomial standard errors of 600 trials.
    assert!((share - 0.9).abs() < 0.05, "{share}");
}

#[test]
fn refuses() {
    let none = StepNoise::Lognormal { sigma: 0.1 };
    assert!(expected_maximum(&none, 0).is_err());
    assert!(expected_maximum(&StepNoise::Lognormal { sigma: -1.0 }, 2).is_err());
    assert!(expected_maximum(&StepNoise::Lognormal { sigma: f64::NAN }, 2).is_err());
    assert!(expected_maximum(&StepNoise::Sample(vec![1.0, 0.0]), 1).is_err());
    assert!(expected_maximum(&StepNoise::Sample(Vec::new()), 1).is_err());
    assert!(nested_penalties(&none, 1.0, &[level(2, 1)]).is_err());
    assert!(nested_penalties(&none, 0.0, &[level(2, 1), level(2, 2)]).is_err());
    assert!(nested_penalties(&none, 0.0, &[level(0, 1)]).is_err());
    assert!(maximum(none, 2).interval_of_mean(0, 0.0).is_err());
}

/// Mean, deviation and skewness of a shifted lognormal variable are those asked for.
#[test]
fn moments_are_matched() {
    for (deviation, skewness) in [(0.1, 0.0), (0.05, 0.3), (0.3, 1.5), (0.2, 4.0)] {
        let got = integrate(1, |z| ShiftedLognormal::new(1.2, deviation, skewness).at(z));
        assert!((got.mean - 1.2).abs() < 1e-9, "{got:?}");
        assert!((got.deviation - deviation).abs() < 1e-9, "{got:?}");
        assert!((got.skewness - skewness).abs() < 1e-6, "{got:?}");
    }
}

proptest! {
    #[test]
    fn more_ranks_wait_longer(
        sigma in 0.0..0.5_f64,
        ranks in 1..300_000_u64,
        more in 1..100_000_u64,
        wider in 1.0..2.0_f64,
    ) {
        let at = |sigma: f64, ranks: u64| maximum(StepNoise::Lognormal { sigma }, ranks).mean;
        let base = at(sigma, ranks);
        prop_assert!(base >= 1.0 - 1e-9);
        prop_assert!(at(sigma, ranks + more) >= base - 1e-9);
        prop_assert!(at(sigma * wider, ranks) >= base - 1e-9);
    }

    #[test]
    fn mean_of_correlated_times(count in 1..40_u32, rho in 0.0..0.99_f64) {
        let n = f64::from(count);
        let pairs: f64 = (1..count).map(|j| (n - f64::from(j)) * rho.powi(j as i32)).sum();
        let expect = (n + 2.0 * pairs).sqrt() / n;
        prop_assert!((deviation_of_mean(n, rho) - expect).abs() < 1e-9);
    }
}
