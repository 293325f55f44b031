//! Fewest moves against enumeration, and at the size of a site.

use proptest::prelude::*;

use super::super::tests::{a_problem, a_site, for_each_allocation};
use super::*;

/// The fewest devices that any allocation of at least some value moves.
fn by_enumeration(problem: &PoolProblem, before: &[Vec<u64>], near: &Near<'_>, least: f64) -> u64 {
    let mut fewest = u64::MAX;
    for_each_allocation(problem, |domains, value| {
        if value >= least {
            fewest = fewest.min(moved_devices(problem, before, domains, near.devices));
        }
    });
    fewest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_as_good_moves_fewer(
        problem in a_problem(),
        counts in prop::collection::vec(0_u64..4, 12),
        devices in prop::collection::vec(1_u64..9, 4),
        tolerance in prop_oneof![Just(0.0), 0.0_f64..0.5],
    ) {
        let mut counts = counts.into_iter();
        let mut of_use = |it: &super::super::Use| {
            it.members.iter().map(|_| counts.next().unwrap_or(0)).collect::<Vec<u64>>()
        };
        let before: Vec<Vec<u64>> = problem.uses.iter().map(&mut of_use).collect();
        let near = Near {
            devices: &devices[..problem.classes.len()],
            tolerance,
            effort: Effort::exact(),
        };
        let Ok(found) = replan(&problem, &before, &near) else {
            return Ok(());
        };
        prop_assert!(found.is_proven(), "{found:?}");
        let least = found.best_value - tolerance * found.best_value.abs();
        let rounding = 1e-6 * found.best_value.abs().max(1.0);
        prop_assert!(found.value >= least - rounding, "{found:?}");
        let moved = moved_devices(&problem, &before, &found.domains, near.devices);
        prop_assert_eq!(moved, found.moved_devices);
        // Values on the edge of the tolerance may be taken or left.
        let strict = by_enumeration(&problem, &before, &near, least + rounding);
        let loose = by_enumeration(&problem, &before, &near, least - rounding);
        prop_assert!(loose <= moved && moved <= strict, "{moved}: {loose} to {strict}");
        prop_assert!(found.moved_devices <= found.moved_by_best);
    }

    #[test]
    fn what_is_lost_is_lost_in_proportion(
        counts in prop::collection::vec(0_u64..1000, 1..6),
        lost in 0_u64..3000,
    ) {
        let mut left = counts.clone();
        let mut places: Vec<&mut u64> = left.iter_mut().collect();
        take_away(&mut places, lost);
        let all: u64 = counts.iter().sum();
        let lost = lost.min(all);
        prop_assert_eq!(left.iter().sum::<u64>(), all - lost);
        for (before, after) in counts.iter().zip(&left) {
            let share = *before as f64 * (1.0 - lost as f64 / all.max(1) as f64);
            prop_assert!((share - *after as f64).abs() < 1.0);
        }
    }
}

#[test]
fn a_site_that_loses_hosts_is_planned_again_with_few_moves() {
    let problem = a_site(5, 5500);
    let devices = [8; 5];
    let near = Near {
        devices: &devices,
        tolerance: 0.001,
        effort: Effort::default(),
    };
    let before = allocate(&problem, near.effort).expect("feasible");
    // Nothing changed: nothing moves.
    let same = replan(&problem, &before.domains, &near).expect("feasible");
    assert_eq!((same.moved_devices, same.is_proven()), (0, true));
    assert_eq!(same.domains, before.domains);
    // A tenth of a class fails.
    let mut smaller = problem.clone();
    smaller.classes[2].domains -= 550;
    let left = before.without(&problem, 2, 550);
    let found = replan(&smaller, &left.domains, &near).expect("feasible");
    assert!(found.value >= 0.998_999 * found.best_value, "{found:?}");
    assert!(found.moved_devices <= found.moved_by_best);
    let unproven = found.moved_devices - found.fewest;
    assert!(unproven < 440, "two thousandths of all devices: {found:?}");
    // Power is lost: what was is not possible any more.
    let mut darker = problem.clone();
    darker.sites[0].watts = Some(2.5e8);
    let before = allocate(&problem, near.effort).expect("feasible");
    let found = replan(&darker, &before.domains, &near).expect("feasible");
    assert_eq!(found.staying, None);
    assert!(found.moved_devices > 0 && found.moved_devices <= found.moved_by_best);
}

#[test]
fn refuses() {
    let problem = a_site(2, 100);
    let devices = [8; 2];
    let near = |tolerance| Near {
        devices: &devices,
        tolerance,
        effort: Effort::default(),
    };
    let before = allocate(&problem, Effort::default())
        .expect("feasible")
        .domains;
    for tolerance in [-0.1, 1.1, f64::NAN] {
        assert!(replan(&problem, &before, &near(tolerance)).is_err());
    }
    assert!(replan(&problem, &before[1..], &near(0.1)).is_err());
}
