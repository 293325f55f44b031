use super::super::program::Goal;
use super::super::tests::cluster;
use super::super::{Sharer, Wanted};
use super::*;
use crate::compare::Objective;
use crate::options::tests::Fixture;
use crate::problem::{Terms, Training};
use crate::sharing::share;

#[test]
fn jobs_in_turn_end_one_after_the_other_in_the_order_of_deadlines() {
    let fixture = Fixture::new();
    let cluster = cluster(&fixture, &[4], 1e6);
    let training = fixture.training("qwen3-0.6b", 1 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let wanted = |name, deadline_days| Wanted {
        name,
        problem: &problem,
        weight: 1.0,
        deadline_days,
        fewest_devices: 0,
    };
    let turn = in_turn(&[wanted("later", None), wanted("first", Some(3.0))]);
    let [Some(later), Some(first)] = turn.done_days[..] else {
        panic!("{turn:?}")
    };
    assert!((later / first - 2.0).abs() < 1e-9);
    let rate = 2.0 * problem.training.tokens * problem.flop_per_token() / (later * 86_400.0);
    assert!((turn.value / rate - 1.0).abs() < 1e-9);
    // A job that failures leave nothing never ends, and keeps nobody from ending.
    let mut failing = problem.clone();
    failing.classes[0].of.failures_per_device_year = Some(1e12);
    let mut hopeless = wanted("hopeless", Some(1.0));
    hopeless.problem = &failing;
    let with = in_turn(&[wanted("later", None), hopeless, wanted("first", Some(3.0))]);
    assert_eq!(with.done_days, [Some(later), None, Some(first)]);
    assert!((with.value / turn.value - 1.0).abs() < 1e-12);
}

#[test]
fn what_a_job_leaves_is_given_to_those_that_go_on() {
    let fixture = Fixture::new();
    let cluster = cluster(&fixture, &[8], 1e6);
    let problem = |tokens: f64| {
        let training = Training {
            tokens,
            ..fixture.training("llama3-8b", 4 << 20)
        };
        let problem = fixture.problem(&cluster, training, &Terms::default());
        problem.expect("a problem")
    };
    let problems = [problem(1e11), problem(1e12)];
    let wanted = [("short", &problems[0]), ("long", &problems[1])].map(|(name, problem)| Wanted {
        name,
        problem,
        weight: 1.0,
        deadline_days: None,
        fewest_devices: 8,
    });
    // So that both have some from the beginning.
    let half = Sharer::new(&wanted, Goal::Trained).jobs(&vec![vec![4], vec![4]]);
    let mut sharing = share(&wanted, Objective::Tokens).expect("a sharing");
    sharing.jobs = half;
    let held = sharing.held(&wanted);
    let given_on = sharing.given_on(&wanted);
    assert_eq!(held.done_days[0], given_on.done_days[0]);
    let [Some(first), Some(last)] = given_on.done_days[..] else {
        panic!("{given_on:?}")
    };
    let mut search = Search::of(&problems[1]);
    let alone = search.equal(&[64]).expect("a job");
    let left = 1e12 - sharing.jobs[1].tokens_per_s * first * SECONDS_PER_DAY;
    let expected = first + left / search.rate(&alone) / SECONDS_PER_DAY;
    assert!((last / expected - 1.0).abs() < 1e-9, "{last} {expected}");
    assert!(given_on.last_day() < held.last_day());
    assert!(given_on.value > held.value);
    // A job that has nothing is done once the other makes room, and never where nothing is given.
    sharing.jobs[1].tokens_per_s = 0.0;
    sharing.jobs[1].days = None;
    assert_eq!(sharing.held(&wanted).last_day(), None);
    let later = sharing.given_on(&wanted).last_day().expect("both are done");
    assert!(later > last, "{later} {last}");
}
