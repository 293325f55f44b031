#![expect(clippy::float_cmp, reason = "factors are given, not computed")]

use super::*;
use std::str::FromStr;

fn world() -> World {
    World {
        host_of_rank: vec![0, 0, 1, 1],
        stage_of_rank: vec![0, 1, 0, 1],
        steps: 200,
        length: 128,
        micro_batches: vec![2, 2, 1, 3],
        seed: 11,
    }
}

fn injector(specs: &[&str]) -> Injector {
    let faults: Vec<Fault> = specs
        .iter()
        .map(|spec| Fault::from_str(spec).unwrap())
        .collect();
    Injector::new(&faults, world()).unwrap()
}

fn factors(specs: &[&str], rank: Rank, step: u32) -> (f64, f64, f64) {
    let slowness = injector(specs).slowness(rank, step);
    let [forward, backward, optimizer] =
        [Phase::Forward, Phase::Backward, Phase::Optimizer].map(|phase| slowness.factor(phase));
    (forward, backward, optimizer)
}

#[test]
fn factors_reach_who_they_are_for_and_when() {
    let check = |spec: &str, slow: &[Rank], expect: (f64, f64, f64)| {
        for rank in 0..4 {
            let normal = (1.0, 1.0, 1.0);
            let late = if slow.contains(&rank) { expect } else { normal };
            assert_eq!(factors(&[spec], rank, 9), normal, "{spec} on {rank} before");
            assert_eq!(factors(&[spec], rank, 10), late, "{spec} on {rank} after");
        }
    };
    check("slow-rank:2:1.5+from=10", &[2], (1.5, 1.5, 1.5));
    check("slow-host:1:2+from=10", &[2, 3], (2.0, 2.0, 2.0));
    check("slow-stage:1:2+from=10", &[1, 3], (2.0, 2.0, 2.0));
    check("slow-backward:0:3+from=10", &[0], (1.0, 3.0, 1.0));
    let both = ["slow-rank:3:1.5", "slow-backward:3:2"];
    assert_eq!(factors(&both, 3, 0), (1.5, 3.0, 1.5));
}

#[test]
fn jitter_and_pauses_have_the_asked_size() {
    let draws = 200;
    let jitter = injector(&["jitter:0.2@1"]);
    assert_eq!(jitter.slowness(0, 5).factor(Phase::Forward), 1.0);
    let extra: f64 = (0..draws)
        .map(|step| jitter.slowness(1, step).factor(Phase::Forward) - 1.0)
        .sum();
    // The mean of |normal| is sqrt(2 / pi) = 0.798, its deviation 0.603: five standard errors.
    let mean = extra / f64::from(draws) / 0.2;
    assert!(
        (mean - 0.798).abs() < 5.0 * 0.603 / f64::from(draws).sqrt(),
        "{mean}"
    );

    let pause = injector(&["pause:10:40"]);
    let pauses = (0..draws)
        .filter(|step| pause.slowness(2, *step).pause_s > 0.0)
        .count();
    // Binomial with mean 20 and deviation 4.2: five of them.
    assert!(pauses.abs_diff(20) <= 21 && pauses > 0, "{pauses}");
    let longest = (0..draws)
        .map(|step| pause.slowness(2, step).pause_s)
        .fold(0.0, f64::max);
    assert_eq!(longest, 0.04);
}

#[test]
fn ragged_lengths_keep_their_mean_and_limits() {
    let ragged = injector(&["ragged:0.4"]);
    let mut all = Vec::new();
    let mut lengths = Vec::new();
    for step in 0..200 {
        for rank in 0..4 {
            ragged.lengths(rank, step, &mut lengths);
            assert_eq!(lengths.len(), world().micro_batches[rank as usize] as usize);
            all.extend(lengths.iter().map(|length| f64::from(*length)));
        }
    }
    let count = all.len() as f64;
    let mean = all.iter().sum::<f64>() / count;
    let deviation = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
    // Five standard errors of 1,600 draws; clipping at four times the nominal takes nothing here.
    assert!((mean / 128.0 - 1.0).abs() < 5.0 * 0.4 / 40.0, "{mean}");
    assert!((deviation / mean - 0.4).abs() < 0.06, "{deviation}");

    let wild = injector(&["ragged:3"]);
    wild.lengths(3, 7, &mut lengths);
    assert!(wild.longest() == 512 && lengths.iter().all(|length| (8..=512).contains(length)));
}

#[test]
fn the_truth_says_what_was_injected() {
    let truth = injector(&[
        "slow-host:1:1.25+from=3",
        "pause:50:200@2",
        "slow-stage:0:2",
    ])
    .truth();
    assert_eq!(truth[0].ranks, [2, 3]);
    assert_eq!(
        (truth[0].kind.as_str(), truth[0].size, truth[0].from_step),
        ("slow_host", 1.25, 3)
    );
    assert_eq!(
        (truth[1].spec.as_str(), truth[1].ranks.as_slice()),
        ("pause:50:200@2", &[2][..])
    );
    assert_eq!(
        (truth[2].kind.as_str(), truth[2].ranks.as_slice()),
        ("slow_stage", &[0, 2][..])
    );
}

#[test]
fn faults_that_cannot_be_say_why() {
    let check = |spec: &str, expect: &str| {
        let error = Fault::from_str(spec)
            .and_then(|fault| Injector::new(&[fault], world()).map(|_| ()))
            .expect_err(spec)
            .to_string();
        assert!(
            error.contains(expect) && error.contains("\nhint: "),
            "{spec}: {error}"
        );
    };
    check("slow-rank:4:1.5", "no rank 4");
    check("slow-rank:4:1.5", "ranks are 0 to 3");
    check("slow-host:2:1.5", "no host 2");
    check("slow-stage:2:1.5", "no stage 2");
    check("slow-stage:2:1.5", "stages are 0 to 1");
    check("slow-stage:x:1.5", "the stage `x` is not a whole number");
    check("jitter:0.1@9", "no rank 9");
    check("slow-rank:1:1.5+from=200", "step 200 never comes");
    check("slow-rank:1:0.5", "below 1");
    check("slow-rank:1", "a part is missing");
    check("slow-rank:x:2", "the rank `x` is not a whole number");
    check("slow-host:-1:2", "the host `-1` is not a whole number");
    check("slow-rank:1:inf", "not a positive number");
    check("jitter:nan", "not a positive number");
    check("ragged:0", "not a positive number");
    check("pause:0:20", "the number of steps is 0");
    check("pause:20", "a part is missing");
    check("slow-rank:1:2+until=3", "cannot read what follows `+`");
    check("nap:3", "unknown fault `nap`");
    check("", "unknown fault ``");
}
