//! The mapping against clocks whose offset, drift and resolution are known.

use super::*;

/// A device's clock as seen from the host's.
struct Truth {
    offset_ns: i64,
    drift_ppm: f64,
    resolution_ns: i64,
}

impl Truth {
    /// What the device shows at a time of the host.
    fn device_ns(&self, host_ns: i64) -> i64 {
        let gained = (host_ns as f64 * self.drift_ppm * 1e-6) as i64;
        let exact = host_ns + self.offset_ns + gained;
        exact - exact.rem_euclid(self.resolution_ns)
    }

    /// A comparison that took so long, with the reading somewhere within it.
    fn sample(&self, host_ns: i64, width_ns: i64, part: f64) -> ClockSample {
        let before_ns = host_ns - (width_ns as f64 * part) as i64;
        ClockSample {
            device_ns: self.device_ns(host_ns),
            before_ns,
            after_ns: before_ns + width_ns,
        }
    }
}

/// Numbers between 0 and 1 that look random: the finaliser of splitmix64.
fn fraction(index: u64) -> f64 {
    let mut x = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x >> 11) as f64 / (1u64 << 53) as f64
}

const MS: i64 = 1_000_000;

#[test]
fn every_time_is_within_its_bound_whatever_the_offset_and_drift() {
    for case in 0..200u64 {
        let at = |index: u64| fraction(case * 1000 + index);
        let truth = Truth {
            offset_ns: ((at(1) - 0.5) * 4e18) as i64,
            drift_ppm: (at(2) - 0.5) * 300.0,
            resolution_ns: [1, 32, 1024][case as usize % 3],
        };
        let start_ns = (at(3) * 1e15) as i64;
        let width = |index: u64| 3_000 + (at(index) * 20_000.0) as i64;
        let first = truth.sample(start_ns, width(4), at(5));
        let mut map = ClockMap::new(first, truth.resolution_ns);
        for step in 1..20i64 {
            let index = 10 + step as u64 * 10;
            let host_ns = start_ns + step * 50 * MS;
            map.add(truth.sample(host_ns, width(index), at(index + 1)));
            for part in 0..5i64 {
                let asked_ns = host_ns - part * 10 * MS;
                let found = map.host(truth.device_ns(asked_ns));
                let off = (found.ns - asked_ns).abs();
                assert!(off <= found.error_ns, "{case}: off by {off} of {found:?}");
                // No more than half a comparison and the roundings of two stamps.
                assert!(
                    found.error_ns <= 11_500 + truth.resolution_ns + 2,
                    "{found:?}"
                );
            }
        }
        let report = map.report();
        assert_eq!((report.comparisons, report.contradictions), (20, 0));
        // 950 ms apart, and each end is known to 23 us.
        let drift = -truth.drift_ppm / (1.0 + truth.drift_ppm * 1e-6);
        let found = report.drift_ppm.expect("two comparisons give a drift");
        assert!((found - drift).abs() < 30.0, "{found} is not {drift}");
    }
}

#[test]
fn a_wide_comparison_takes_nothing_away() {
    let truth = Truth {
        offset_ns: 123_000_000_000,
        drift_ppm: 40.0,
        resolution_ns: 32,
    };
    let mut map = ClockMap::new(truth.sample(0, 4_000, 0.5), 32);
    map.add(truth.sample(MS, 4_000, 0.3));
    map.add(truth.sample(2 * MS, 50 * MS, 0.9));
    let found = map.host(truth.device_ns(2 * MS - 1000));
    assert!((found.ns - (2 * MS - 1000)).abs() <= found.error_ns);
    assert!(found.error_ns < 3_000, "{found:?}");
}

#[test]
fn beyond_all_comparisons_bounds_grow_by_what_clocks_can_drift() {
    let truth = Truth {
        offset_ns: -5,
        drift_ppm: 100.0,
        resolution_ns: 1,
    };
    let mut map = ClockMap::new(truth.sample(0, 2_000, 0.5), 1);
    for asked_ns in [-1_000 * MS, 1_000 * MS] {
        let found = map.host(truth.device_ns(asked_ns));
        assert!((found.ns - asked_ns).abs() <= found.error_ns);
        assert!(found.error_ns > 200_000, "{found:?}");
    }
    assert!(map.report().worst_error_ns > 200_000);
}

#[test]
fn a_clock_that_was_set_contradicts_itself() {
    let mut truth = Truth {
        offset_ns: 0,
        drift_ppm: 0.0,
        resolution_ns: 1,
    };
    let mut map = ClockMap::new(truth.sample(0, 2_000, 0.5), 1);
    truth.offset_ns = MS;
    map.add(truth.sample(10 * MS, 2_000, 0.5));
    assert_eq!(map.report().contradictions, 1);
}

#[test]
fn what_is_kept_is_bounded() {
    let truth = Truth {
        offset_ns: 7,
        drift_ppm: 10.0,
        resolution_ns: 1,
    };
    let mut map = ClockMap::new(truth.sample(0, 2_000, 0.5), 1);
    for step in 1..5_000 {
        map.add(truth.sample(step * MS, 2_000, 0.5));
    }
    assert!(map.kept.len() <= KEPT);
    assert_eq!(map.report().comparisons, 5_000);
    let drift = map.report().drift_ppm.expect("many comparisons");
    assert!((drift + 10.0).abs() < 1.0, "{drift}");
}

#[test]
fn steps_are_what_all_differences_are_multiples_of() {
    assert_eq!(resolution_ns(&[64, 96, 224, 352]), 32);
    assert_eq!(resolution_ns(&[5, 5, 5]), 1);
    assert_eq!(resolution_ns(&[1_024, 4_096, 3_072]), 1_024);
    assert_eq!(resolution_ns(&[]), 1);
}
