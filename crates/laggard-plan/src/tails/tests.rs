//! Cuts against enumeration, and speeds of hosts that were never seen.

use proptest::prelude::*;

use super::*;
use laggard_stats::Rng;

fn crowd(seconds: &[f64]) -> Crowd {
    Crowd {
        seconds: seconds.to_vec(),
        work: 1.0,
        elsewhere: 0.0,
        together: 1,
    }
}

/// The most that any set of hosts is worth.
fn by_enumeration(crowds: &[Crowd], worth: f64) -> f64 {
    let hosts: Vec<(usize, f64)> = crowds
        .iter()
        .enumerate()
        .flat_map(|(at, crowd)| crowd.seconds.iter().map(move |&seconds| (at, seconds)))
        .collect();
    let mut best = f64::NEG_INFINITY;
    for set in 0..1_u32 << hosts.len() {
        let is_in = |bit: usize| set & (1 << bit) != 0;
        let (mut work, mut elsewhere, mut seconds) = (0.0, 0.0, 0.0_f64);
        let mut counts = vec![0; crowds.len()];
        for (bit, &(at, own)) in hosts.iter().enumerate() {
            if is_in(bit) {
                work += crowds[at].work;
                seconds = seconds.max(own);
                counts[at] += 1;
            } else {
                elsewhere += crowds[at].elsewhere;
            }
        }
        let mut sizes = crowds.iter().zip(&counts);
        if sizes.any(|(crowd, count)| count % crowd.together != 0) {
            continue;
        }
        let rate = if work > 0.0 { work / seconds } else { 0.0 };
        best = best.max(worth * rate + elsewhere);
    }
    best
}

prop_compose! {
    fn a_crowd()(
        seconds in prop::collection::vec(1_u32..40, 0..6),
        work in 1_u32..20,
        elsewhere in prop_oneof![Just(0_u32), 0_u32..30],
        together in 1_usize..4,
    ) -> Crowd {
        Crowd {
            seconds: seconds.iter().map(|&it| f64::from(it) / 8.0).collect(),
            work: f64::from(work) / 4.0,
            elsewhere: f64::from(elsewhere) / 8.0,
            together,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_set_of_hosts_is_worth_more(
        crowds in prop::collection::vec(a_crowd(), 1..3),
        worth in 0_u32..20,
    ) {
        let worth = f64::from(worth) / 4.0;
        let cut = best_cut(&crowds, worth).expect("a cut");
        let best = by_enumeration(&crowds, worth);
        prop_assert!((cut.value - best).abs() <= 1e-9 * best.max(1.0), "{} {best}", cut.value);
        prop_assert!(cut.value >= cut.of_all.value);
        let again = evaluated(&sorted(&crowds).expect("crowds"), worth, cut.kept.clone());
        prop_assert_eq!((again.rate, again.value), (cut.rate, cut.value));
    }
}

/// A class of 150,000 whose speeds vary by 3 %: leaving out the slowest 1 % wins about 4.6 %, since
/// the slowest is then 2.3 deviations behind instead of 4.3.
#[test]
fn a_long_tail_is_cut_and_what_it_wins_is_known() {
    let speeds = Speeds {
        hosts: Vec::new(),
        unseen: 150_000,
        host_devices: 1,
        spread: 0.03,
        unusual: Vec::new(),
        devices: 1000,
    };
    let hosts = speeds.of_hosts().expect("speeds");
    let seconds: Vec<f64> = hosts.iter().map(|speed| 1.0 / speed).collect();
    let percent = crowd(&seconds[..148_500]);
    let one_percent = best_cut(&[percent], 1.0).expect("a cut").of_all.rate;
    let cut = best_cut(&[crowd(&seconds)], 1.0).expect("a cut");
    let won = one_percent / cut.of_all.rate;
    assert!((won - 1.05).abs() < 0.01, "{won}");
    assert!(cut.rate >= one_percent);
    let left = 1.0 - cut.kept[0] as f64 / 150_000.0;
    assert!((0.001..0.05).contains(&left), "{left}");
}

#[test]
fn equal_hosts_all_stay_and_one_that_drags_all_goes() {
    let check = |seconds: &[f64], elsewhere: f64, together: usize, expect: usize| {
        let crowd = Crowd {
            elsewhere,
            together,
            ..crowd(seconds)
        };
        let cut = best_cut(&[crowd], 1.0).expect("a cut");
        assert_eq!(cut.kept, [expect], "{seconds:?}");
    };
    check(&[1.0; 8], 0.0, 1, 8);
    check(&[1.0; 8], 0.9, 1, 8);
    check(&[1.0; 8], 1.1, 1, 0);
    check(&[1.0, 1.0, 1.0, 1.5], 0.0, 1, 3);
    // One of eight is not worth a twelfth of the pace.
    check(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.1], 0.0, 1, 8);
    // But with what it earns outside it is.
    check(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.1], 0.8, 1, 7);
    check(&[1.0, 1.0, 1.0, 1.5], 0.0, 2, 4);
    check(&[1.0, 1.0, 1.5, 3.0], 0.0, 2, 2);
    check(&[], 0.0, 1, 0);
}

/// The slowest of the devices of each host that was never seen, against drawing them.
#[test]
fn hosts_never_seen_are_where_draws_of_them_are() {
    let speeds = Speeds {
        hosts: vec![0.95, 1.01],
        unseen: 2000,
        host_devices: 8,
        spread: 0.02,
        unusual: vec![0.8, 0.9],
        devices: 200,
    };
    let found = speeds.of_hosts().expect("speeds");
    assert_eq!(found.len(), 2002);
    assert!(found.is_sorted_by(|a, b| a >= b));
    let mut rng = Rng::new(3);
    let mut slowest = || {
        let device = |rng: &mut Rng| match rng.below(200) {
            0 => 0.8,
            1 => 0.9,
            _ => (-0.02 * rng.normal()).exp(),
        };
        (0..8).map(|_| device(&mut rng)).fold(f64::MAX, f64::min)
    };
    let mut drawn: Vec<f64> = (0..200_000).map(|_| slowest()).collect();
    drawn.sort_unstable_by(|a, b| b.total_cmp(a));
    for share in [0.1, 0.5, 0.9, 0.93, 0.95, 0.99] {
        let (a, b) = (
            found[(share * 2002.0) as usize],
            drawn[(share * 2e5) as usize],
        );
        assert!((a - b).abs() < 0.003, "{share}: {a} {b}");
    }
}

#[test]
fn impossible_numbers_are_refused() {
    for bad in [
        crowd(&[0.0]),
        crowd(&[f64::NAN]),
        Crowd {
            together: 0,
            ..crowd(&[1.0])
        },
        Crowd {
            work: -1.0,
            ..crowd(&[1.0])
        },
    ] {
        assert!(best_cut(&[bad], 1.0).is_err());
    }
    assert!(best_cut(&[crowd(&[1.0])], f64::INFINITY).is_err());
}
