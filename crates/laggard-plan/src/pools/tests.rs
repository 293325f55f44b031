//! Allocations against enumeration, and the sizes that the solver is made for.

use proptest::prelude::*;

use super::*;

/// The most that any allocation of a small problem is worth, by looking at all of them.
fn by_enumeration(problem: &PoolProblem) -> Option<f64> {
    let members: Vec<(usize, usize)> = problem
        .uses
        .iter()
        .enumerate()
        .flat_map(|(of_use, it)| (0..it.members.len()).map(move |member| (of_use, member)))
        .collect();
    let mut counts: Vec<Vec<u64>> = problem
        .uses
        .iter()
        .map(|it| vec![0; it.members.len()])
        .collect();
    let mut best = None;
    loop {
        if let Ok(worth) = value(problem, &counts) {
            best = Some(best.map_or(worth.value, |best: f64| best.max(worth.value)));
        }
        let next = members.iter().find(|(of_use, member)| {
            let class = problem.uses[*of_use].members[*member].class;
            counts[*of_use][*member] < problem.classes[class].domains
        });
        let Some(&(of_use, member)) = next else {
            return best;
        };
        for &(earlier, of) in members.iter().take_while(|it| **it != (of_use, member)) {
            counts[earlier][of] = 0;
        }
        counts[of_use][member] += 1;
    }
}

fn number(most: u32) -> impl Strategy<Value = f64> {
    (0..=most).prop_map(|tenths| f64::from(tenths) / 10.0)
}

fn a_curve() -> impl Strategy<Value = Curve> {
    let points = prop::collection::vec((1_u32..80, 1_u32..60), 1..4);
    points.prop_map(|points| {
        let points = points
            .iter()
            .map(|&(at, rate)| (f64::from(at) / 4.0, f64::from(rate) / 4.0));
        Curve::hull(&points.collect::<Vec<_>>()).expect("positive points")
    })
}

prop_compose! {
    fn a_use(classes: usize)(
        members in prop::collection::vec(
            (prop::bool::ANY, number(50), number(20), number(40), prop::option::of(0_u64..3)),
            classes,
        ),
        curve in prop_oneof![Just(Curve::straight()), a_curve()],
        value in number(30),
        fixed_cost in prop_oneof![Just(0.0), number(40)],
        least in 0_u64..3,
        most in prop::option::of(1_u64..5),
        least_rate in prop_oneof![4 => Just(0.0), 1 => number(60)],
        most_rate in prop::option::of(number(100)),
    ) -> Use {
        let members = members.iter().enumerate().filter(|(_, it)| it.0);
        Use {
            name: "use".to_owned(),
            members: members
                .map(|(class, it)| Member {
                    class,
                    capacity: it.1,
                    cost: it.2 - 0.5,
                    watts: it.3,
                    most: it.4,
                })
                .collect(),
            curve,
            value,
            fixed_cost,
            least,
            most,
            least_rate,
            most_rate,
        }
    }
}

prop_compose! {
    fn a_problem()(
        classes in prop::collection::vec((1_u64..4, 0_u64..2, 0_usize..2, number(10)), 1..4),
        limits in prop::collection::vec(prop::option::of(number(300)), 2),
    )(
        uses in prop::collection::vec(a_use(classes.len()), 1..3),
        classes in Just(classes),
        limits in Just(limits),
    ) -> PoolProblem {
        PoolProblem {
            classes: classes
                .iter()
                .map(|&(domains, reserve, site, reserve_watts)| Stock {
                    domains,
                    reserve: reserve.min(domains),
                    reserve_watts,
                    site,
                })
                .collect(),
            sites: limits.iter().map(|&watts| PowerLimit { watts }).collect(),
            uses,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_optimum_of_small_problems_is_found(problem in a_problem()) {
        let best = by_enumeration(&problem);
        match (allocate(&problem, Effort::exact()), best) {
            (Ok(found), Some(best)) => {
                let near = 1e-6 * best.abs().max(1.0);
                prop_assert!((found.worth.value - best).abs() < near, "{found:?}, but {best}");
                prop_assert!(found.bound > best - near, "{found:?}, but {best}");
            }
            (Err(_), None) => {}
            (found, best) => prop_assert!(false, "{found:?}, but {best:?}"),
        }
    }

    #[test]
    fn what_stops_early_is_no_further_off_than_it_says(problem in a_problem()) {
        let effort = Effort { nodes: 3, gap: 0.05 };
        let best = by_enumeration(&problem);
        if let (Ok(found), Some(best)) = (allocate(&problem, effort), best) {
            prop_assert!(found.worth.value <= best + 1e-6);
            prop_assert!(found.bound >= best - 1e-6 * best.abs().max(1.0));
        }
    }
}
