//! Allocations against enumeration, and the sizes that the solver is made for.

use proptest::prelude::*;

use super::*;

/// Looks at every allocation of a small problem that is allowed, with its value.
pub(super) fn for_each_allocation(problem: &PoolProblem, mut see: impl FnMut(&[Vec<u64>], f64)) {
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
    loop {
        if let Ok(worth) = value(problem, &counts) {
            see(&counts, worth.value);
        }
        let next = members.iter().find(|(of_use, member)| {
            let class = problem.uses[*of_use].members[*member].class;
            counts[*of_use][*member] < problem.classes[class].domains
        });
        let Some(&(of_use, member)) = next else {
            return;
        };
        for &(earlier, of) in members.iter().take_while(|it| **it != (of_use, member)) {
            counts[earlier][of] = 0;
        }
        counts[of_use][member] += 1;
    }
}

/// The most that any allocation of a small problem is worth, by looking at all of them.
fn by_enumeration(problem: &PoolProblem) -> Option<f64> {
    let mut best: Option<f64> = None;
    for_each_allocation(problem, |_, value| {
        best = Some(best.map_or(value, |best| best.max(value)));
    });
    best
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
    pub(super) fn a_problem()(
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

/// The same problem in other units: of rate, of power and of value.
fn in_other_units(mut problem: PoolProblem) -> PoolProblem {
    let (rate, watts, value) = (3.7e5, 1.3e4, 2.1e-4);
    for class in &mut problem.classes {
        class.reserve_watts *= watts;
    }
    for site in &mut problem.sites {
        site.watts = site.watts.map(|limit| limit * watts);
    }
    for of_use in &mut problem.uses {
        let pieces = of_use.curve.pieces().iter().map(|piece| Piece {
            capacity: piece.capacity * rate,
            ..*piece
        });
        of_use.curve = Curve::of_pieces(pieces.collect()).expect("as concave as before");
        of_use.value *= value / rate;
        of_use.fixed_cost *= value;
        of_use.least_rate *= rate;
        of_use.most_rate = of_use.most_rate.map(|most| most * rate);
        for member in &mut of_use.members {
            member.capacity *= rate;
            member.cost *= value;
            member.watts *= watts;
        }
    }
    problem
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
    fn units_make_no_difference(problem in a_problem()) {
        let found = allocate(&problem, Effort::exact());
        let other = allocate(&in_other_units(problem), Effort::exact());
        match (found, other) {
            (Ok(found), Ok(other)) => {
                let near = 1e-6 * found.worth.value.abs().max(1.0);
                prop_assert!((other.worth.value / 2.1e-4 - found.worth.value).abs() < near);
            }
            (found, other) => prop_assert_eq!(found.is_err(), other.is_err()),
        }
    }

    #[test]
    fn what_stops_early_is_no_further_off_than_it_says(
        problem in a_problem(),
        nodes in 0_u64..4,
    ) {
        let effort = Effort { nodes, gap: 0.05 };
        let best = by_enumeration(&problem);
        if let (Ok(found), Some(best)) = (allocate(&problem, effort), best) {
            prop_assert!(found.worth.value <= best + 1e-6);
            prop_assert!(found.bound >= best - 1e-6 * best.abs().max(1.0));
        }
    }

    #[test]
    fn a_hull_lies_on_or_above_its_points_and_touches_some(
        points in prop::collection::vec((1_u32..100, 0_u32..100), 1..8),
    ) {
        let points: Vec<(f64, f64)> = points
            .iter()
            .map(|&(at, rate)| (f64::from(at), f64::from(rate)))
            .collect();
        let curve = Curve::hull(&points).expect("positive points");
        let above = |&(at, rate): &(f64, f64)| curve.rate(at) - rate;
        prop_assert!(points.iter().all(|point| above(point) > -1e-9));
        let highest = points.iter().map(|point| point.1).fold(0.0, f64::max);
        prop_assert!(points.iter().any(|point| above(point).abs() < 1e-9));
        prop_assert!((curve.rate(1e9) - highest).abs() < 1e-9);
    }
}

/// A site of `classes` classes at about the rates of Hopper and Blackwell, with pools for three
/// jobs and a lease, whose power does not suffice for all.
pub(super) fn a_site(classes: usize, domains: u64) -> PoolProblem {
    let rate = |class: usize, of_use: usize| {
        let spread = 0.013 * ((class * 7919 + of_use) % 97) as f64 / 97.0;
        8.0 * [1.0, 1.1, 2.22, 2.4, 0.5][class % 5] * (1.0 + spread)
    };
    let member = |class: usize, of_use: usize| Member {
        class,
        capacity: rate(class, of_use),
        cost: 0.31,
        watts: 12_240.0 * (1.0 + (class % 5) as f64 * 0.09),
        most: None,
    };
    let all = domains as f64 * classes as f64 * 8.0;
    let pieces = [(0.05, 1.0), (0.1, 0.968), (0.2, 0.93), (0.4, 0.88)];
    let pieces = pieces.map(|(share, slope)| Piece {
        capacity: all * share,
        slope,
    });
    let pool = |of_use: usize| Use {
        name: format!("job {of_use}"),
        members: (0..classes)
            .filter(|class| !(class + of_use).is_multiple_of(3))
            .map(|class| member(class, of_use))
            .collect(),
        curve: Curve::of_pieces(pieces.to_vec()).expect("a concave curve"),
        value: 2.5 + 0.1 * of_use as f64,
        fixed_cost: 1000.0,
        least: 64,
        most: None,
        least_rate: if of_use == 0 { all * 0.02 } else { 0.0 },
        most_rate: None,
    };
    let lease = (0..classes).map(|class| Member {
        capacity: 8.0,
        most: Some(domains / 2),
        ..member(class, 3)
    });
    let mut uses: Vec<Use> = (0..3).map(pool).collect();
    uses.push(Use::each("lease", lease.collect(), 2.6));
    PoolProblem {
        classes: (0..classes)
            .map(|class| Stock {
                domains: domains + (class as u64 * 37) % 101,
                reserve: 10,
                reserve_watts: 10_000.0,
                site: 0,
            })
            .collect(),
        sites: vec![PowerLimit { watts: Some(3e8) }],
        uses,
    }
}

#[test]
fn a_site_of_220_000_devices_is_shared_out_to_the_gap_asked_for() {
    let problem = a_site(5, 5500);
    let found = allocate(&problem, Effort::default()).expect("feasible");
    assert!(found.gap() <= Effort::default().gap, "{}", found.gap());
    assert!(found.worth.watts[0] > 0.999 * 3e8, "power binds");
    assert!(found.off.iter().sum::<u64>() > 0);
    let again = allocate(&problem, Effort::default()).expect("feasible");
    assert_eq!(found, again, "the same problem gives the same answer");
}

#[test]
fn a_thousand_classes_are_shared_out_within_a_ten_thousandth() {
    let problem = a_site(1000, 27);
    let found = allocate(&problem, Effort::default()).expect("feasible");
    assert!(found.gap() < 1e-4, "{}", found.gap());
}

/// One class of 10 domains of 100 W, and one pool that wants a rate of 30 of it.
fn one_pool(limit: f64, capacity: f64) -> PoolProblem {
    let member = Member {
        class: 0,
        capacity,
        cost: 0.0,
        watts: 100.0,
        most: None,
    };
    let mut pool = Use::each("training", vec![member], 1.0);
    pool.least_rate = 30.0;
    PoolProblem {
        classes: vec![Stock {
            domains: 12,
            reserve: 2,
            reserve_watts: 50.0,
            site: 0,
        }],
        sites: vec![PowerLimit { watts: Some(limit) }],
        uses: vec![pool],
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_could() {
    let found = allocate(&one_pool(700.0, 5.0), Effort::default()).expect("just enough");
    assert_eq!(found.domains, [[6]]);
    assert_eq!(found.off, [4]);
    let refused = |problem: &PoolProblem| {
        let refused = allocate(problem, Effort::default());
        refused.expect_err("must be refused").to_string()
    };
    // 6 domains of 5 are needed, at 100 W each, beside a reserve of 100 W.
    let message = refused(&one_pool(650.0, 5.0));
    assert!(
        message.contains("need at least 0.001 MW at site 0"),
        "{message}"
    );
    let error = allocate(&one_pool(650.0, 5.0), Effort::default()).expect_err("power");
    let PoolsError::Power { needed, .. } = error else {
        panic!("{error}");
    };
    assert!((needed - 700.0).abs() < 1e-3, "{needed}");
    let message = refused(&one_pool(1e6, 2.0));
    assert!(message.contains("at most 66.7 % of each"), "{message}");
    let message = refused(&one_pool(50.0, 5.0));
    assert!(message.contains("the reserve draws 100 W"), "{message}");
    let mut problem = one_pool(700.0, 5.0);
    problem.uses[0].value = f64::NAN;
    assert!(refused(&problem).starts_with("the value of training is NaN"));
    problem = one_pool(700.0, 5.0);
    problem.uses[0].members[0].class = 1;
    assert_eq!(refused(&problem), "training names class 1, but there are 1");
    problem = one_pool(700.0, 5.0);
    problem.classes[0].reserve = 13;
    assert!(refused(&problem).starts_with("class 0 has 12 domains, but 13"));
}

#[test]
fn an_allocation_that_breaks_a_limit_has_no_value() {
    let problem = one_pool(700.0, 5.0);
    assert!(value(&problem, &[vec![6]]).is_ok());
    for wrong in [vec![vec![5]], vec![vec![7]], vec![vec![6, 0]], vec![]] {
        let refused = value(&problem, &wrong);
        assert!(
            matches!(refused, Err(PoolsError::NotAllowed { .. })),
            "{wrong:?}"
        );
    }
}
