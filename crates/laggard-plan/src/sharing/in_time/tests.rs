use super::super::tests::cluster;
use super::super::{SECONDS_PER_DAY, in_turn};
use super::*;
use crate::options::tests::Fixture;
use crate::options::{Search, on};
use crate::problem::Terms;

#[test]
fn a_job_that_must_end_in_time_leaves_the_dearest_devices() {
    let fixture = Fixture::new();
    let cluster = cluster(&fixture, &[16, 16], 1e6);
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let wanted = Wanted {
        name: "one",
        problem: &problem,
        weight: 1.0,
        deadline_days: None,
        fewest_devices: 0,
    };
    let fastest = in_turn(&[wanted]).done_days[0].expect("it fits");
    let early = in_time(&problem, fastest * 2.0).expect("it can");
    let late = in_time(&problem, fastest * 8.0).expect("it can");
    let earns = |it: &InTime| {
        it.option
            .figures
            .lease_dollars_per_hour
            .expect("rents are known")
    };
    for (it, days) in [(&early, fastest * 2.0), (&late, fastest * 8.0)] {
        assert!(it.option.figures.days <= Some(days), "{it:?}");
        assert!(it.gap < 0.1, "{}", it.gap);
    }
    assert!(earns(&late) > earns(&early));
    assert!(in_time(&problem, fastest / 100.0).is_err());
    assert!(in_time(&problem, f64::NAN).is_err());
    // So late that next to nothing would do: one host does.
    let whenever = in_time(&problem, 1e300).expect("it can");
    let devices: u64 = whenever
        .option
        .uses
        .iter()
        .map(|it| it.train + it.idle)
        .sum();
    assert_eq!(devices, 8);
    let found = crate::options::options(&problem).expect("options");
    let mut held = found.clone();
    let gap = held.hold_to(&problem, fastest * 8.0).expect("it can");
    assert_eq!(gap, Some(late.gap));
    let late = |it: &&crate::options::PlanOption| it.figures.days > Some(fastest * 8.0);
    assert!(held.list.iter().filter(late).all(|it| !it.can_win));
    let just_enough = |it: &crate::options::PlanOption| it.kind == crate::options::Kind::InTime;
    assert!(held.list.iter().any(|it| just_enough(it) && it.can_win));
    // What it takes at best is enough.
    let refused = found.clone().hold_to(&problem, fastest / 100.0);
    let Err(PlanError::TooSoon { needed, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(found.clone().hold_to(&problem, needed).is_ok());
    let refused = found.clone().hold_to(&problem, needed * 0.999);
    assert!(refused.is_err());
    assert!(found.clone().hold_to(&problem, f64::NAN).is_err());
}

/// Against every number of hosts of two classes: what is left earns as much as is claimed.
#[test]
fn no_choice_of_devices_that_ends_in_time_leaves_more_than_the_gap_says() {
    let fixture = Fixture::new();
    let hosts = [5, 4];
    let cluster = cluster(&fixture, &hosts, 1e6);
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let mut search = Search::of(&problem);
    let all = search.either(&on(&problem)).expect("a job");
    let fastest = problem.training.tokens / search.rate(&all) / SECONDS_PER_DAY;
    let mut left = |devices: &[u64], days: f64| {
        let job = search.either(devices)?;
        let is_late = search.rate(&job) * days * SECONDS_PER_DAY < problem.training.tokens;
        let classes = problem.classes.iter().zip(devices);
        let rents = classes.map(|(class, taken)| {
            class.dollars_per_hour.expect("a rent") * (class.of.count - taken) as f64
        });
        (!is_late).then(|| rents.sum::<f64>())
    };
    for later in [1.1, 1.7, 3.0, 7.0, 40.0] {
        let days = fastest * later;
        let found = in_time(&problem, days).expect("it can");
        let earned = found.option.figures.lease_dollars_per_hour.expect("rents");
        let mut most = 0.0_f64;
        for first in 0..=hosts[0] {
            for second in 0..=hosts[1] {
                most = most.max(left(&[8 * first, 8 * second], days).unwrap_or(0.0));
            }
        }
        assert!(earned <= most * (1.0 + 1e-9), "{later}: {earned} of {most}");
        let least = most * (1.0 - found.gap - 1e-9);
        assert!(
            earned >= least,
            "{later}: {earned} of {most}, {}",
            found.gap
        );
    }
}

#[test]
fn a_job_with_time_gets_no_host_more_than_its_model_fits_on() {
    let fixture = Fixture::new();
    let cluster = cluster(&fixture, &[100], 1e6);
    let training = fixture.training("llama3-405b", 4 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let mut search = Search::of(&problem);
    let fewest = (1..=100).find(|hosts| search.equal(&[8 * hosts]).is_some());
    let fewest = fewest.expect("it fits");
    assert!(
        ![25, 50, 100].contains(&fewest),
        "{fewest} is a half anyway"
    );
    let whenever = in_time(&problem, 1e300).expect("it can");
    let uses = &whenever.option.uses[0];
    assert_eq!(uses.train + uses.idle, 8 * fewest);
    assert!(whenever.gap < 1e-6, "{}", whenever.gap);
}

/// Two classes that hold the model only together, in one pipeline.
#[test]
fn what_only_an_option_of_the_list_keeps_is_no_refusal() {
    let fixture = Fixture::new();
    let pool = |kind: &str| {
        format!(
            "[[pool]]\nid = \"{kind}\"\nsite = \"here\"\naccelerator = \"{kind}\"\n\
             count = 16\ndevices_per_node = 8\n"
        )
    };
    let text = "id = \"some\"\n[[site]]\nid = \"here\"\n".to_owned();
    let text = text + &pool("h100-sxm5-80gb") + &pool("a100-sxm4-80gb");
    let cluster = fixture.cluster(&text);
    let training = fixture.training("llama3-70b", 4 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let mut found = crate::options::options(&problem).expect("options");
    let can_win = found.list.iter().filter(|option| option.can_win);
    let all = can_win.filter_map(|option| option.figures.days);
    let fastest = all.reduce(f64::min).expect("something trains");
    let days = fastest * 1.0001;
    assert!(in_time(&problem, days).is_err(), "nothing is tested");
    assert_eq!(found.hold_to(&problem, days).expect("an option"), None);
    let winner = found.list.iter().find(|option| option.can_win);
    assert!(winner.expect("an option").figures.days <= Some(days));
    let mut reasons = found.left_out.iter();
    assert!(reasons.any(|(kind, _)| *kind == crate::options::Kind::InTime));
}
