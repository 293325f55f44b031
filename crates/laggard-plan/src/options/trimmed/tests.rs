use super::*;
use crate::options::tests::{Fixture, MIXED};
use crate::options::{Options, options};
use crate::problem::Terms;

/// The mixed cluster with so many hosts of each class, and what its hosts' speeds make of it.
fn planned(hosts: u64, speeds: &[Vec<f64>], see: impl Fn(&Problem<'_>, &Options)) {
    let fixture = Fixture::new();
    let text = MIXED.replace("count = 64", &format!("count = {}", 8 * hosts));
    let cluster = fixture.cluster(&text);
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture.problem(&cluster, training, &Terms::default());
    let mut problem = problem.expect("a problem");
    problem.slow_down(speeds);
    let found = options(&problem).expect("options");
    see(&problem, &found);
}

fn of_kind(found: &Options, kind: Kind) -> &PlanOption {
    let mut list = found.list.iter();
    list.find(|option| option.kind == kind).expect("an option")
}

fn paces(problem: &Problem<'_>) -> Vec<f64> {
    problem.classes.iter().map(|class| class.pace).collect()
}

/// So many hosts of speed 1, and then some others.
fn hosts(equal: usize, others: &[f64]) -> Vec<f64> {
    let equal = std::iter::repeat_n(1.0, equal);
    equal.chain(others.iter().copied()).collect()
}

const KINDS: [Kind; 3] = [Kind::EqualShares, Kind::UnevenShares, Kind::Pools];

#[test]
fn equal_hosts_all_stay() {
    let speeds = [hosts(8, &[]), hosts(8, &[])];
    planned(8, &speeds, |problem, found| {
        for kind in KINDS {
            let option = of_kind(found, kind);
            assert_eq!(trimmed(problem, option, &speeds).expect("figures"), None);
        }
    });
}

/// One host of sixteen at seven tenths of the speed: its job waits for it, unless it is left out.
#[test]
fn one_host_that_drags_all_is_left_out() {
    let speeds = [hosts(15, &[0.7]), hosts(16, &[])];
    planned(16, &speeds, |problem, found| {
        assert_eq!(paces(problem), [0.7, 1.0]);
        let option = of_kind(found, Kind::Pools);
        let without = trimmed(problem, option, &speeds).expect("figures");
        let without = without.expect("an option");
        assert_eq!(without.left_out, [1, 0]);
        assert_eq!(without.option.uses[0].lease, 8);
        assert_eq!(
            without.option.uses[0].train + without.option.uses[0].idle,
            120
        );
        let (with, won) = (without.with_all, without.option.figures.tokens_per_s);
        assert!(
            with < 0.95 * without.of_equal,
            "{with} {}",
            without.of_equal
        );
        assert!(won > 1.03 * with, "{won} {with}");
        // No more is won back than was lost, but for a layout that fits 15 hosts better.
        let recovered = without.recovered().expect("a loss");
        assert!((0.5..1.05).contains(&recovered), "{recovered}");
        // Whoever asks again with other prices or speeds gets the option's own pace.
        let none = Factors::none(2);
        let again = figures(problem, &without.option, &none).expect("figures");
        assert_eq!(again, without.option.figures);
    });
}

/// The class without slow hosts keeps all of its own where each class has a job of its own.
#[test]
fn classes_apart_are_cut_apart() {
    let speeds = [hosts(14, &[0.8, 0.6]), hosts(16, &[])];
    planned(16, &speeds, |problem, found| {
        let option = of_kind(found, Kind::Pools);
        let without = trimmed(problem, option, &speeds).expect("figures");
        let without = without.expect("an option");
        assert_eq!(without.left_out, [2, 0]);
        let paces = without.option.paces.as_deref();
        assert_eq!(paces, Some(&[1.0, 1.0][..]));
        assert!(
            without
                .option
                .name
                .ends_with("without the slowest 2 slow hosts")
        );
    });
}

/// Hosts that the power does not let run are the slowest.
#[test]
fn the_slowest_hosts_are_the_first_to_be_off() {
    let fixture = Fixture::new();
    let cluster = fixture.cluster(MIXED);
    let training = fixture.training("llama3-8b", 4 << 20);
    let terms = Terms {
        // All but one host of the class with least peak per watt.
        power_limit_watts: Some((56.0 * 800.0 + 64.0 * 1275.0) * 1.2),
        ..Terms::default()
    };
    let mut problem = fixture
        .problem(&cluster, training, &terms)
        .expect("a problem");
    problem.slow_down(&[hosts(6, &[0.9, 0.5]), Vec::new()]);
    assert_eq!(paces(&problem), [0.9, 1.0]);
}
