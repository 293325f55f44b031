//! Known answers of mixed clusters, and identities that must hold exactly.

use laggard_specs::{RateBasis, Tables};
use proptest::prelude::*;

use super::*;

const H100: FlopPerSecond = FlopPerSecond(989.4e12);
const GB200: FlopPerSecond = FlopPerSecond(2500e12);

/// A class that reaches a given MFU by itself: with the same MFU for all classes, the identity by
/// the ratio of peaks.
fn at_mfu(name: &str, count: u32, peak: FlopPerSecond, mfu: f64) -> FleetClass {
    FleetClass {
        name: name.to_owned(),
        count,
        peak,
        alone: peak * mfu,
    }
}

fn by_peak(gb200: u32) -> Lockstep {
    lockstep(&[
        at_mfu("h100", 150_000, H100, 0.4),
        at_mfu("h200", 50_000, H100, 0.4),
        at_mfu("gb200", gb200, GB200, 0.4),
    ])
    .unwrap()
}

/// 40 % on Hopper becomes 35.1 % with 20,000 GB200 and 33.4 % with 30,000, by the ratio of the
/// peaks alone.
#[test]
fn colossus_by_peaks() {
    for (gb200, count, percent) in [(20_000, 220_000.0, 35.1), (30_000, 230_000.0, 33.4)] {
        let result = by_peak(gb200);
        let exact = 0.4 * count * 989.4 / (200_000.0 * 989.4 + f64::from(gb200) * 2500.0);
        assert!((result.mfu - exact).abs() < 1e-15, "{}", result.mfu);
        assert!(((1000.0 * result.mfu).round() / 10.0 - percent).abs() < 1e-9);
        assert!((result.mfu_divided - 0.4).abs() < 1e-15);
        assert!((result.by_class[2].mfu - 0.4 * 989.4 / 2500.0).abs() < 1e-15);
        assert_eq!(result.slowest, "h100");
    }
}

/// With measured rates of one workload (GB200 2.22 and H200 1.10 of H100) equal shares lose 11.8 %
/// with 20,000 GB200 and 15.4 % with 30,000.
#[test]
fn colossus_by_measured_rates() {
    let tables = Tables::from_toml_strs(None, Some(""), None).unwrap();
    let names = ["h100-sxm5-80gb", "h200-sxm-141gb", "gb200"];
    let rates = tables.class_rates(&names, RateBasis::Measured).unwrap();
    let h100 = tables.accelerator(names[0]).unwrap();
    let pace = h100.dense_half_peak().unwrap() * 0.4;
    for (gb200, loss, mfu) in [(20_000, 0.118, 0.351), (30_000, 0.154, 0.334)] {
        let classes: Vec<FleetClass> = rates
            .iter()
            .zip([150_000, 50_000, gb200])
            .map(|(rate, count)| FleetClass {
                name: rate.accelerator.clone(),
                count,
                peak: tables
                    .accelerator(&rate.accelerator)
                    .unwrap()
                    .dense_half_peak()
                    .unwrap(),
                alone: pace * (rate.relative / rates[0].relative),
            })
            .collect();
        let result = lockstep(&classes).unwrap();
        assert!((result.loss - loss).abs() < 5e-4, "{}", result.loss);
        // The pace is that of H100 either way.
        assert!((result.mfu - mfu).abs() < 5e-4, "{}", result.mfu);
        // Measured, GB200 reaches less of its peak than H100 does.
        let alone = &result.by_class[2];
        assert!(
            alone.mfu_alone < 0.4 && alone.mfu < alone.mfu_alone,
            "{alone:?}"
        );
    }
}

fn assumptions() -> FleetAssumptions {
    let peak = |name: &str, factor: f64| Peak {
        name: name.to_owned(),
        rate: H100 * factor,
    };
    FleetAssumptions {
        job_mfu: Range::new(0.25, 0.5),
        goodput: Range::new(0.7, 0.97),
        allocated_share: Range::new(0.1, 1.0),
        reference: peak("dense bf16", 1.0),
        peaks: vec![
            peak("dense bf16", 1.0),
            peak("dense fp8", 2.0),
            peak("sparse fp8", 4.0),
        ],
        conventions: vec![
            ("causal".to_owned(), 1.0),
            ("full square".to_owned(), 1.12),
            ("with recomputation".to_owned(), 4.0 / 3.0),
        ],
    }
}

/// The figure of the press: possible under every denominator and convention, and 11 % of the sparse
/// fp8 peak is 44 % of dense bf16.
#[test]
fn eleven_percent_is_not_identifiable() {
    let assumptions = assumptions();
    let result = identify_mfu(0.11, &assumptions).unwrap();
    assert_eq!(result.statement, "not identifiable from public data");
    assert_eq!(result.combinations.len(), 9);
    let sparse = &result.combinations[6];
    assert_eq!(
        (sparse.peak.as_str(), sparse.convention.as_str()),
        ("sparse fp8", "causal")
    );
    // 0.44 is 0.97 of at least 0.4536.
    assert!(
        (sparse.job_mfu.low - 0.44 / 0.97).abs() < 1e-12,
        "{sparse:?}"
    );
    assert!(
        (sparse.allocated_share.low - 0.44 / 0.5 / 0.97).abs() < 1e-12,
        "{sparse:?}"
    );
    let plain = &result.combinations[0];
    assert!(
        (plain.allocated_share.low - 0.11 / 0.5 / 0.97).abs() < 1e-12,
        "{plain:?}"
    );
    assert!(
        (plain.allocated_share.high - 0.11 / 0.25 / 0.7).abs() < 1e-12,
        "{plain:?}"
    );
    assert_eq!((plain.job_mfu.low, plain.job_mfu.high), (0.25, 0.5));
    // Three examples that differ, each giving the figure exactly from within the ranges.
    assert_eq!(result.examples.len(), 3);
    for example in &result.examples {
        let combination = result
            .combinations
            .iter()
            .find(|c| c.peak == example.peak && c.convention == example.convention)
            .unwrap();
        let product = example.job_mfu * example.goodput * example.allocated_share;
        let figure = product * assumptions_factor(&assumptions, combination);
        assert!((figure - 0.11).abs() < 1e-12, "{example:?} gives {figure}");
        for (value, range) in [
            (example.job_mfu, combination.job_mfu),
            (example.goodput, combination.goodput),
            (example.allocated_share, combination.allocated_share),
        ] {
            let inside = value >= range.low - 1e-12 && value <= range.high + 1e-12;
            assert!(inside, "{example:?} outside {range:?}");
        }
    }
    let shares: Vec<f64> = result.examples.iter().map(|e| e.allocated_share).collect();
    assert!(
        shares[0] > 0.9 && shares[1] < 0.25 && shares[2] > 0.6,
        "{shares:?}"
    );
    // Nothing within the ranges gives 90 %.
    assert!(
        identify_mfu(0.9, &assumptions)
            .unwrap()
            .combinations
            .is_empty()
    );
}

fn assumptions_factor(assumptions: &FleetAssumptions, combination: &Combination) -> f64 {
    let peak = assumptions
        .peaks
        .iter()
        .find(|peak| peak.name == combination.peak)
        .unwrap();
    let counted = assumptions
        .conventions
        .iter()
        .find(|(name, _)| *name == combination.convention);
    counted.unwrap().1 * assumptions.reference.rate.0 / peak.rate.0
}

#[test]
fn refuses() {
    assert_eq!(
        lockstep(&[]).unwrap_err().to_string(),
        "no accelerator classes"
    );
    assert!(lockstep(&[at_mfu("none", 0, H100, 0.4)]).is_err());
    assert!(lockstep(&[at_mfu("nan", 1, H100, f64::NAN)]).is_err());
    assert!(identify_mfu(0.0, &assumptions()).is_err());
    let upside_down = FleetAssumptions {
        goodput: Range::new(0.9, 0.7),
        ..assumptions()
    };
    assert_eq!(
        identify_mfu(0.1, &upside_down).unwrap_err().to_string(),
        "goodput is 0.9, but must be no more than the end of its range"
    );
    assert!(FleetWaterfall::new(1.2, &[]).is_err());
    assert!(FleetWaterfall::new(0.4, &[(Cause::Jitter, 0.0)]).is_err());
    let twice = [(Cause::Jitter, 0.9), (Cause::Jitter, 0.8)];
    assert_eq!(
        FleetWaterfall::new(0.4, &twice).unwrap_err().to_string(),
        "jitter is given twice in a waterfall"
    );
}

/// Classes that are equally fast by themselves lose nothing, however sums are rounded.
#[test]
fn equally_fast_classes_do_not_gain_by_rounding() {
    for count in 1..2_000_u32 {
        let alone = FlopPerSecond(f64::from(count).sqrt() * 1e14);
        let class = |count| FleetClass {
            name: "c".to_owned(),
            count,
            peak: H100,
            alone,
        };
        let result = lockstep(&[class(count), class(7 * count + 1), class(3)]).unwrap();
        assert!(
            result.mfu <= result.mfu_divided && result.loss >= 0.0,
            "{result:?}"
        );
    }
}

proptest! {
    /// Factors multiply and points add up to the whole, whatever is given in whatever order.
    #[test]
    fn waterfalls_add_up(
        start in 0.01..1.0_f64,
        factors in proptest::array::uniform6(0.01..1.0_f64),
        order in Just([
            Cause::Failures,
            Cause::Communication,
            Cause::Allocation,
            Cause::Jitter,
            Cause::FastClassesWait,
            Cause::Bubble,
        ]).prop_shuffle(),
        given in 0..=6_usize,
    ) {
        let factors: Vec<(Cause, f64)> = order.into_iter().zip(factors).take(given).collect();
        let waterfall = FleetWaterfall::new(start, &factors).unwrap();
        prop_assert_eq!(waterfall.terms.len(), given);
        let points: f64 = waterfall.terms.iter().map(|term| term.points).sum();
        prop_assert!((waterfall.fleet_mfu + points - start).abs() < 1e-14);
        let product: f64 = waterfall.terms.iter().map(|term| term.factor).product();
        prop_assert!((start * product - waterfall.fleet_mfu).abs() < 1e-14);
        let kept = waterfall.job_mfu * waterfall.goodput * waterfall.allocated_share;
        prop_assert!((kept - waterfall.fleet_mfu).abs() < 1e-14);
        prop_assert!(waterfall.terms.is_sorted_by_key(|term| term.cause));
    }

    /// Equal shares never beat divided ones, and no class exceeds what it reaches alone.
    #[test]
    fn mixing_never_gains(
        classes in proptest::collection::vec(
            (1..100_000_u32, 1e13..5e15_f64, 0.05..0.8_f64),
            1..6,
        ),
    ) {
        let classes: Vec<FleetClass> = classes
            .into_iter()
            .map(|(count, peak, mfu)| at_mfu("c", count, FlopPerSecond(peak), mfu))
            .collect();
        let result = lockstep(&classes).unwrap();
        prop_assert!(result.mfu <= result.mfu_divided * (1.0 + 1e-12));
        prop_assert!(result.loss >= -1e-12 && result.loss < 1.0);
        for class in &result.by_class {
            prop_assert!(class.mfu <= class.mfu_alone * (1.0 + 1e-12));
        }
    }
}
