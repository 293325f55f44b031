//! Determinism, order statistics, blame, known answers and refusals.

mod against_graph;

use super::*;
use laggard_schedule::Layout;

const TIMES: StageTimes = StageTimes {
    forward_s: 1.0,
    backward_s: 2.0,
    forward_exposed_s: 0.0,
    backward_exposed_s: 0.0,
    reduce_exposed_s: 0.5,
    optimizer_s: 0.3,
    gather_exposed_s: 0.0,
};

fn lognormal(sigma: f64, autocorrelation: f64) -> Jitter {
    Jitter {
        distribution: JitterDistribution::Lognormal { sigma },
        autocorrelation,
    }
}

/// A job of equal ranks.
pub(super) fn workload(layout: Layout, steps: u32) -> ScaleWorkload {
    let ranks = layout.world_size() as usize;
    ScaleWorkload {
        stages: vec![TIMES; layout.pipeline_parallel as usize],
        transfer_s: 0.0,
        input_s: 0.1,
        norm_s: 0.0,
        class_factors: vec![1.0],
        class_of_rank: vec![0; ranks],
        slow: Vec::new(),
        jitter: Jitter::NONE,
        pauses: None,
        delays: Vec::new(),
        steps,
        seed: 1,
        layout,
    }
}

#[test]
fn threads_and_batches_change_nothing() {
    let layout = Layout {
        tensor_parallel: 2,
        pipeline_parallel: 2,
        zero: Zero::Optimizer,
        ..Layout::data_parallel(300, 3)
    };
    let workload = ScaleWorkload {
        jitter: lognormal(0.05, 0.6),
        pauses: Some(Pauses {
            probability: 0.001,
            seconds: 1.0,
        }),
        ..workload(layout, 50)
    };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads")
            .install(|| simulate_ranks(&workload).expect("a workload"))
    };
    assert_eq!(with(1), with(3));
    // A prefix of more steps is the same run.
    let longer = ScaleWorkload {
        steps: 61,
        ..workload.clone()
    };
    let longer = simulate_ranks(&longer).expect("a workload");
    assert_eq!(with(1).steps[..], longer.steps[..50]);
    let other = ScaleWorkload {
        seed: 2,
        ..workload.clone()
    };
    assert_ne!(
        simulate_ranks(&other).expect("a workload").steps[0],
        longer.steps[0]
    );
}

/// Ranks that wait for each other once a step: the step's mean is the mean of the largest of so
/// many lognormal factors, `integral of 1 - F(x)^n`.
#[test]
fn the_penalty_is_what_order_statistics_say() {
    for (ranks, sigma) in [(64, 0.1), (4_096, 0.05), (20_000, 0.02)] {
        let layout = Layout::data_parallel(ranks, 1);
        let times = StageTimes {
            forward_s: 1.0,
            backward_s: 0.0,
            optimizer_s: 0.0,
            reduce_exposed_s: 0.0,
            ..TIMES
        };
        let workload = ScaleWorkload {
            stages: vec![times],
            input_s: 0.0,
            jitter: lognormal(sigma, 0.0),
            ..workload(layout, 400)
        };
        let run = simulate_ranks(&workload).expect("a workload");
        let walls: Vec<f64> = run.steps.iter().map(|step| step.wall_s).collect();
        let mean = walls.iter().sum::<f64>() / 400.0;
        let spread = walls.iter().map(|wall| (wall - mean).powi(2)).sum::<f64>() / 399.0;
        let below = |x: f64| {
            let z = (x.ln() + 0.5 * sigma * sigma) / sigma;
            laggard_stats::normal_cdf(z).powi(ranks as i32)
        };
        let width = sigma * 1e-3;
        let cells = ((1.0 + 10.0 * sigma) / width) as u32;
        let expect = (0..cells).map(|at| (f64::from(at) + 0.5) * width);
        let expect: f64 = expect.map(|x| width * (1.0 - below(x))).sum();
        // Four standard errors of the mean of 400 independent steps.
        let slack = 4.0 * (spread / 400.0).sqrt();
        assert!(
            (mean - expect).abs() < slack,
            "{ranks}: {mean}, not {expect} +- {slack}"
        );
        // A law of its own: a penalty that the mean of ranks does not show.
        assert!(expect > 1.0 + 2.0 * sigma);
    }
}

/// At the sizes of nested groups too: the mean penalty of many steps lies where order statistics
/// have it, to within four deviations of such a mean and the difference between their two passes.
#[test]
fn nested_groups_wait_as_long_as_order_statistics_say() {
    for text in ["dp256", "dp64,tp4", "dp16,tp8,cp2", "dp64,zero3"] {
        let layout = Layout::parse(text).expect("a layout");
        let times = StageTimes {
            optimizer_s: 0.0,
            reduce_exposed_s: 0.0,
            ..TIMES
        };
        let workload = ScaleWorkload {
            stages: vec![times],
            input_s: 0.0,
            jitter: lognormal(0.05, 0.0),
            ..workload(layout, 400)
        };
        let run = simulate_ranks(&workload).expect("a workload");
        let walls = run.steps.iter().map(|step| step.wall_s);
        let penalty = walls.sum::<f64>() / 400.0 / run.baseline.even_s - 1.0;
        let expected = workload
            .expected_penalty()
            .expect("a jitter")
            .expect("levels");
        let interval = expected.step.interval_of_mean(400, 0.0).expect("steps");
        // 90 % are 1.645 deviations.
        let slack = 4.0 / 1.645 * (interval.high - expected.step.mean);
        let penalty_expected = expected.step.mean - 1.0;
        assert!(
            (penalty - penalty_expected).abs() < slack + 0.03 * penalty_expected,
            "{text}: {penalty}, not {penalty_expected} +- {slack}"
        );
        assert!(penalty > 0.05, "{text}: {penalty}");
    }
}

#[test]
fn blame_sums_to_what_was_waited_for_and_finds_the_slow() {
    let layout = Layout {
        tensor_parallel: 2,
        pipeline_parallel: 2,
        ..Layout::data_parallel(50, 4)
    };
    let ranks = layout.world_size() as u32;
    let workload = ScaleWorkload {
        jitter: lognormal(0.01, 0.5),
        slow: vec![SlowRanks {
            ranks: 21..22,
            factor: 1.2,
        }],
        ..workload(layout, 40)
    };
    let run = simulate_ranks(&workload).expect("a workload");
    let waited: f64 = run
        .steps
        .iter()
        .map(|step| step.arrival_s - step.first_s)
        .sum();
    let blamed: f64 = run.ranks.iter().map(|rank| rank.blamed_s).sum();
    assert!(
        (waited - blamed).abs() < 1e-9 * waited,
        "{waited} s, blamed {blamed} s"
    );
    assert_eq!(run.ranks[21].last_steps, 40);
    assert!(run.ranks[21].blamed_s > 0.5 * waited);
    assert!(run.steps.iter().all(|step| step.last_rank == 21));
    let lasts: u32 = run.ranks.iter().map(|rank| rank.last_steps).sum();
    assert_eq!((lasts, run.ranks.len() as u32), (40, ranks));
    let (even, lasting) = (run.baseline.even_s, run.baseline.lasting_s);
    assert!((run.baseline.classes_s - even).abs() < 1e-12 && lasting > 1.1 * even);
}

/// With jitter on one rank of a data-parallel world, the step is the larger of its time and the
/// others'.
#[test]
fn jitter_of_one_rank_costs_its_excess() {
    let layout = Layout::data_parallel(3, 2);
    let workload = ScaleWorkload {
        delays: vec![Delay {
            ranks: 1..2,
            steps: 2..3,
            seconds: 0.7,
        }],
        ..workload(layout, 4)
    };
    let run = simulate_ranks(&workload).expect("a workload");
    // Update 0.3, input 0.1, two micro-batches of 3, reduction 0.5.
    for (step, extra) in [(0, 0.0), (1, 0.0), (2, 0.7), (3, 0.0)] {
        let outcome = &run.steps[step];
        assert!((outcome.wall_s - 6.9 - extra).abs() < 1e-12, "{outcome:?}");
        assert!((outcome.unpaused_s - 6.9).abs() < 1e-12);
        assert!((outcome.second_s - 6.9).abs() < 1e-12);
    }
    assert_eq!(run.steps[2].last_rank, 1);
}

/// Under ZeRO-3 the slowest forward and the slowest backward set every pass of all replicas.
#[test]
fn sharded_parameters_couple_all_replicas() {
    let layout = Layout {
        zero: Zero::Parameters,
        ..Layout::data_parallel(3, 2)
    };
    let slow = SlowRanks {
        ranks: 1..2,
        factor: 1.5,
    };
    let even = workload(layout, 1);
    let run = |workload: &ScaleWorkload| simulate_ranks(workload).expect("a workload");
    let slowed = ScaleWorkload {
        slow: vec![slow],
        ..even.clone()
    };
    // Update 0.45, input 0.1, two micro-batches of 4.5, reduction 0.5.
    assert!((run(&slowed).steps[0].wall_s - 10.05).abs() < 1e-12);
    let jitter = lognormal(0.1, 0.0);
    let (sharded, replicated) = (
        ScaleWorkload {
            jitter: jitter.clone(),
            ..even.clone()
        },
        ScaleWorkload {
            jitter,
            layout: Layout::data_parallel(3, 2),
            ..even
        },
    );
    assert!(run(&sharded).steps[0].wall_s >= run(&replicated).steps[0].wall_s);
}

#[test]
fn what_cannot_be_is_refused() {
    let good = || workload(Layout::data_parallel(4, 2), 2);
    let refused = |workload: ScaleWorkload, word: &str| {
        let message = simulate_ranks(&workload).expect_err(word).to_string();
        assert!(message.contains(word), "{message}");
    };
    let times = StageTimes {
        forward_s: f64::NAN,
        ..TIMES
    };
    refused(
        ScaleWorkload {
            stages: vec![times],
            ..good()
        },
        "forward time of stage 0",
    );
    refused(
        ScaleWorkload {
            stages: Vec::new(),
            ..good()
        },
        "0 stage times for 1",
    );
    refused(
        ScaleWorkload {
            class_of_rank: vec![0; 3],
            ..good()
        },
        "3 classes for 4 ranks",
    );
    refused(
        ScaleWorkload {
            class_of_rank: vec![0, 1, 0, 0],
            ..good()
        },
        "class 1",
    );
    refused(
        ScaleWorkload {
            class_factors: vec![0.0],
            ..good()
        },
        "factor of a class",
    );
    let slow = SlowRanks {
        ranks: 3..5,
        factor: 1.1,
    };
    refused(
        ScaleWorkload {
            slow: vec![slow],
            ..good()
        },
        "rank 4",
    );
    let pauses = Some(Pauses {
        probability: 1.5,
        seconds: 1.0,
    });
    refused(ScaleWorkload { pauses, ..good() }, "probability");
    refused(
        ScaleWorkload {
            transfer_s: -1.0,
            ..good()
        },
        "transfer time",
    );
    let layout = Layout::data_parallel(1 << 23, 1);
    refused(ScaleWorkload { layout, ..good() }, "ranks");
}
