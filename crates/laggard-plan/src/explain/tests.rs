use super::contest::factors;
use super::*;
use crate::compare::{order, rank};
use crate::figures::{figures, figures_of};
use crate::options::options;
use crate::options::tests::Fixture;
use crate::problem::Terms;

#[test]
fn differences_sum_to_what_one_option_trains_more() {
    let fixture = Fixture::new();
    let cluster = fixture.preset("small-lab");
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture.problem(&cluster, training, &Terms::default());
    let found = options(&problem.expect("a problem")).expect("options");
    let (a, b) = (&found.list[0].figures, &found.list[1].figures);
    let sum: f64 = differences(a, b).iter().map(|it| it.share).sum();
    let trained = b.peak_use.trained - a.peak_use.trained;
    assert!((sum - trained).abs() < 1e-9, "{sum} {trained}");
    let most = binding(a).expect("something is lost");
    assert_eq!(most.term, "waiting for slower");
}

/// Where a knob is said to flip the answer, it does: on one side the old answer is best, on the
/// other the new one.
#[test]
fn the_answer_changes_at_the_factor_that_is_given() {
    let fixture = Fixture::new();
    let cluster = fixture.preset("colossus-1");
    let training = fixture.training("llama3-70b", 16 << 20);
    let problem = fixture.problem(&cluster, training, &Terms::default());
    let problem = problem.expect("a problem");
    let found = options(&problem).expect("options");
    let mut count = 0;
    for objective in [Objective::Time, Objective::DollarsPerToken] {
        let now = rank(&found.list, objective).expect("a ranking").order[0];
        for flip in flips(&problem, &found.list, objective).expect("flips") {
            let best = |nudge: f64| {
                let factor = flip.factor.powf(nudge);
                let contest = Contest::new(&problem, &found.list, objective);
                contest.best(flip.knob, factor).expect("a prediction")
            };
            assert_eq!(best(1.0 - 1e-6), Some(now), "{flip:?}");
            assert_eq!(best(1.0 + 1e-6), Some(flip.becomes), "{flip:?}");
            assert_ne!(flip.becomes, now);
            count += 1;
        }
    }
    assert!(count > 0);
}

/// What jobs do does not depend on prices: a turned price and a stated one give the same figures.
#[test]
fn a_turned_price_is_a_stated_price() {
    let fixture = Fixture::new();
    let cluster = fixture.preset("colossus-1");
    let of = |price: f64| {
        let training = fixture.training("llama3-70b", 16 << 20);
        let terms = Terms {
            lease_dollars_per_hour: [("gb200".to_owned(), price)].into(),
            ..Terms::default()
        };
        let problem = fixture
            .problem(&cluster, training, &terms)
            .expect("a problem");
        let found = options(&problem).expect("options");
        (problem, found)
    };
    let (problem, found) = of(4.0);
    let stated = of(10.0).1;
    let gb200 = problem
        .classes
        .iter()
        .position(|class| class.of.name == "gb200");
    let factors = factors(&problem, Knob::Price(gb200.expect("a class")), 2.5);
    for (option, stated) in found.list.iter().zip(&stated.list) {
        let outcomes = option.figures.outcomes.clone();
        assert_eq!(
            figures_of(&problem, option, &factors, outcomes),
            stated.figures
        );
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// With any knob turned by any factor, going through options by what they cannot pass finds the
    /// one that predicting all of them anew does.
    #[test]
    fn the_best_with_a_knob_turned_is_that_of_all_predicted_anew(
        knob in 0_usize..8,
        power in -3.0..3.0_f64,
        by in 0_usize..Objective::ALL.len(),
    ) {
        let fixture = Fixture::new();
        let cluster = fixture.preset("small-lab");
        let mut terms = Terms::default();
        for pool in &cluster.pools {
            terms.lease_dollars_per_hour.insert(pool.id.clone(), 1.0 + pool.id.len() as f64);
        }
        let training = fixture.training("qwen3-0.6b", 1 << 20);
        let problem = fixture.problem(&cluster, training, &terms).expect("a problem");
        let found = options(&problem).expect("options");
        let (objective, factor) = (Objective::ALL[by], power.exp2());
        let classes = problem.classes.len();
        let knobs: Vec<Knob> = (0..classes)
            .flat_map(|class| [Knob::Speed(class), Knob::Price(class)])
            .chain([Knob::Failures, Knob::Jitter])
            .collect();
        let knob = knobs[knob % knobs.len()];
        let factors = factors(&problem, knob, factor);
        let figures: Vec<_> = found
            .list
            .iter()
            .map(|it| it.can_win.then(|| figures(&problem, it, &factors).expect("figures")))
            .collect();
        let expect = order(figures.iter().map(Option::as_ref), objective).first().copied();
        let contest = Contest::new(&problem, &found.list, objective);
        proptest::prop_assert_eq!(contest.best(knob, factor).expect("a prediction"), expect);
    }
}
