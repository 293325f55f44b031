//! Sketches of simulated worlds: the split of the penalty, and who is named, against the truth.

mod refusals;
mod world;

use laggard_analyze::{Cause, Charged, Culprit, Level, Options, compare};
use laggard_simulate::{Jitter, Pauses, ScaleWorkload};
use laggard_types::CaveatCode;
use world::{World, jittery, lognormal, manifest, rows, share, slow, written};

/// Times of a sketch are whole nanoseconds.
const ROUNDING: f64 = 1e-8;

/// What holds for every sketch: terms and charges sum up, and they are what the simulation says.
fn check(name: &str, workload: &ScaleWorkload, culprits: &[Culprit]) -> World {
    let world = World::of(workload);
    let (run, analysis) = (&world.run, &world.analysis);
    let count = run.steps.len() as f64;
    let mean = |time: &dyn Fn(&laggard_simulate::StepOutcome) -> f64| {
        run.steps.iter().map(time).sum::<f64>() / count
    };
    let (wall, unpaused) = (mean(&|step| step.wall_s), mean(&|step| step.unpaused_s));
    let base = &run.baseline;
    let expected = [
        (Level::HostPauses, wall - unpaused),
        (Level::Transient, unpaused - base.lasting_s),
        (Level::Rank, base.lasting_s - base.classes_s),
        (Level::Generation, base.classes_s - base.even_s),
        (Level::EvenStep, base.even_s),
    ];
    for (level, seconds) in expected {
        let found = share(analysis, level);
        assert!(
            (found - seconds / wall).abs() < ROUNDING,
            "{name}: {level:?} {found}"
        );
    }
    let all: f64 = analysis.waterfall.iter().map(|term| term.share.value).sum();
    assert!((all - 1.0).abs() < 1e-14, "{name}: the shares sum to {all}");
    let stragglers = analysis
        .waterfall
        .iter()
        .filter(|term| term.level.is_straggler());
    let sum: f64 = stragglers.map(|term| term.share.value).sum();
    let penalty = analysis.penalty;
    assert!(
        (sum - penalty.value).abs() < 1e-14,
        "{name}: {sum} of {penalty:?}"
    );
    assert!(
        (penalty.value - (1.0 - base.even_s / wall)).abs() < ROUNDING,
        "{name}"
    );
    assert!(
        penalty.low <= penalty.value && penalty.value <= penalty.high,
        "{name}"
    );
    let blame: f64 = analysis.blame.iter().map(|entry| entry.share).sum();
    assert!((blame - analysis.loss).abs() < 1e-12, "{name}: {blame}");
    let charged = analysis.blame.iter().map(|entry| entry.share);
    assert!(
        charged.fold(0.0, f64::min) > -1e-12,
        "{name}: nobody is charged less than nothing"
    );
    let named: Vec<Culprit> = (analysis.findings.iter())
        .map(|finding| finding.culprit.clone())
        .filter(|culprit| *culprit != Culprit::Nobody)
        .collect();
    assert_eq!(named, culprits, "{name}: {:#?}", analysis.findings);
    world
}

fn charge(world: &World, charged: &Charged) -> f64 {
    let entries = world.analysis.blame.iter();
    let found = entries.filter(|entry| entry.charged == *charged);
    found.map(|entry| entry.share).sum()
}

#[test]
fn jitter_alone_names_nobody() {
    for layout in ["dp64", "dp16,tp4", "dp8,tp2,pp4", "dp12,pp2,zero1"] {
        for seed in 0..4 {
            let workload = ScaleWorkload {
                seed,
                ..jittery(layout, 100)
            };
            check(layout, &workload, &[]);
        }
    }
    // So few steps and so much jitter that means differ by far more than is named.
    for seed in 0..8 {
        let wild = ScaleWorkload {
            jitter: lognormal(0.3),
            seed,
            ..jittery("dp32", 8)
        };
        check("wild", &wild, &[]);
    }
    // So few peers that they do not tell how much equal ranks differ.
    for seed in 0..10 {
        let sticky = ScaleWorkload {
            jitter: Jitter {
                autocorrelation: 0.9,
                ..lognormal(0.1)
            },
            seed,
            ..jittery("dp4", 60)
        };
        check("sticky", &sticky, &[]);
    }
}

#[test]
fn one_slow_rank_is_named_and_only_it() {
    for layout in ["dp64", "dp16,tp4", "dp8,tp2,pp4", "dp12,pp2,zero1"] {
        let workload = ScaleWorkload {
            slow: slow(13..14, 1.3),
            ..jittery(layout, 100)
        };
        let world = check(layout, &workload, &[Culprit::Rank(13)]);
        let finding = &world.analysis.findings[0];
        assert_eq!(finding.cause, Cause::SlowRank);
        // All of its own time is kernels but for the input.
        let excess = finding.excess.expect("an excess");
        assert!((excess.value - 0.3).abs() < 0.01, "{layout}: {excess:?}");
        assert!(
            excess.low <= 0.3 && 0.299 <= excess.high,
            "{layout}: {excess:?}"
        );
        let lasting = share(&world.analysis, Level::Rank);
        let loss = finding.loss;
        assert!(
            (loss.value / lasting - 1.0).abs() < 0.15,
            "{layout}: {loss:?} of {lasting}"
        );
        assert!(
            loss.low <= loss.value && loss.value <= loss.high,
            "{layout}"
        );
        assert!(
            (charge(&world, &Charged::Rank(13)) - loss.value).abs() < 1e-12,
            "{layout}"
        );
    }
}

#[test]
fn a_slow_rank_that_nobody_waits_for_is_not_named() {
    // It has half of the others' work.
    let mut workload = ScaleWorkload {
        slow: slow(5..6, 1.3),
        ..jittery("dp32", 60)
    };
    workload.layout.micro_batches[5] = 2;
    check("idle", &workload, &[]);
}

/// A class is never a culprit.
#[test]
fn no_rank_is_blamed_for_its_class() {
    let mixed = |layout: &str| {
        let equal = jittery(layout, 100);
        let ranks = equal.class_of_rank.len();
        ScaleWorkload {
            class_factors: vec![2.2, 1.0, 1.1],
            class_of_rank: (0..ranks).map(|rank| (rank * 3 / ranks) as u16).collect(),
            ..equal
        }
    };
    for layout in ["dp63", "dp12,tp4", "dp9,tp2,pp3"] {
        let world = check(layout, &mixed(layout), &[]);
        let first = &world.analysis.findings[0];
        assert_eq!(first.cause, Cause::MixedGenerations);
        let mix = share(&world.analysis, Level::Generation);
        assert!(
            mix > 0.1 && (first.loss.value - mix).abs() < 1e-12,
            "{layout}: {mix}"
        );
        assert!(
            (charge(&world, &Charged::ClassMix) - mix).abs() < 1e-12,
            "{layout}"
        );
        assert_eq!(world.analysis.classes.len(), 3);
    }
    // Nor does its class hide a slow rank, or take the blame for it.
    let workload = ScaleWorkload {
        slow: slow(3..4, 1.3),
        ..mixed("dp63")
    };
    let world = check("slow in its class", &workload, &[Culprit::Rank(3)]);
    let lasting = share(&world.analysis, Level::Rank);
    let charged = charge(&world, &Charged::Rank(3));
    assert!(
        (charged / lasting - 1.0).abs() < 0.15,
        "{charged} of {lasting}"
    );
    // The fast class has time to wait for its slow rank.
    let workload = ScaleWorkload {
        slow: slow(30..31, 1.3),
        ..mixed("dp63")
    };
    check("slow among the fast", &workload, &[]);
}

#[test]
fn ranks_of_a_host_are_named_as_the_host() {
    let workload = ScaleWorkload {
        slow: slow(24..32, 1.15),
        ..jittery("dp16,tp8", 100)
    };
    let world = check("a slow host", &workload, &[Culprit::Host(3)]);
    let finding = &world.analysis.findings[0];
    assert_eq!(finding.cause, Cause::SlowNode);
    assert!((finding.excess.expect("an excess").value - 0.15).abs() < 0.01);
}

/// Where arrivals do not tell who costs what, those who stand out answer together.
#[test]
fn slow_ranks_are_named_together_where_none_can_be_charged() {
    let lock_step = ScaleWorkload {
        slow: slow(13..14, 1.3),
        ..jittery("dp32,zero3", 100)
    };
    check("one unit", &lock_step, &[Culprit::Rank(13)]);
    let many = ScaleWorkload {
        slow: (0..200)
            .flat_map(|at| slow(at * 5..at * 5 + 1, 1.1))
            .collect(),
        ..jittery("dp1000", 60)
    };
    let all = (0..200).map(|at| at * 5).collect();
    check("many", &many, &[Culprit::Ranks(all)]);
}

#[test]
fn stops_are_told_from_jitter() {
    let workload = ScaleWorkload {
        pauses: Some(Pauses {
            probability: 0.002,
            seconds: 0.8,
        }),
        ..jittery("dp64", 200)
    };
    let world = check("stops", &workload, &[]);
    let causes: Vec<Cause> = world.analysis.findings.iter().map(|it| it.cause).collect();
    assert_eq!(causes, [Cause::HostPauses]);
}

#[test]
fn utilisation_is_flop_over_peaks() {
    let world = check("utilisation", &jittery("dp8,tp2", 60), &[]);
    let mfu = world.analysis.mfu.as_ref().expect("a peak is known");
    // Two layers of 1e13 FLOP forward, three times that with backward, 4 micro-batches, 8 replicas;
    // 16 ranks of 1e15 FLOP/s.
    let flop = 2.0 * 3.0 * 1e13 * 4.0 * 8.0;
    let expected = flop / (world.analysis.step_time.mean.value * 16.0 * 1e15);
    assert!((mfu.value.value / expected - 1.0).abs() < 1e-9, "{mfu:?}");
    let tokens = world.analysis.subject.tokens_per_step;
    assert!((tokens / (4096.0 * 32.0) - 1.0).abs() < 1e-12, "{tokens}");
    assert_eq!(world.analysis.subject.origin, "predicted");
}

#[test]
fn what_a_sketch_cannot_say_is_empty_and_said() {
    let analysis = check("caveats", &jittery("dp16", 20), &[]).analysis;
    assert!(analysis.exposed_communication.is_empty() && analysis.what_if.units.is_empty());
    assert!(analysis.heat_map.excess.is_empty() && analysis.null_tests.is_empty());
    let says = |code, words: &str| {
        let mut caveats = analysis.caveats.iter();
        assert!(
            caveats.any(|it| it.code == code && it.message.contains(words)),
            "{words}: {:?}",
            analysis.caveats
        );
    };
    says(CaveatCode::IncompleteTrace, "no what-if");
    says(CaveatCode::SyntheticJob, "was predicted");
    says(CaveatCode::TooFewSteps, "only 20 steps");
}

#[test]
fn of_many_ranks_the_most_charged_are_listed() {
    let workload = ScaleWorkload {
        slow: slow(2_345..2_346, 1.2),
        ..jittery("dp3000", 40)
    };
    let world = check("many", &workload, &[Culprit::Rank(2_345)]);
    let analysis = &world.analysis;
    assert_eq!(analysis.ranks.len(), 1000);
    assert!(analysis.ranks.iter().any(|rank| rank.rank == 2_345));
    assert_eq!(analysis.blame[0].charged, Charged::Rank(2_345));
    assert!(charge(&world, &Charged::OtherRanks(2_000)) > 0.0);
    let is_said = |it: &laggard_types::Caveat| it.message.contains("1000 are listed");
    assert!(analysis.caveats.iter().any(is_said));
}

#[test]
fn distributions_are_those_of_the_ranks() {
    let analysis = check("distribution", &jittery("dp400", 200), &[]).analysis;
    let class = &analysis.classes[0];
    // Forward and backward of 0.4 and 0.8 s, each with factors of 2 %; update and input.
    let own = 4.0 * 0.3 + 0.02 + 0.001;
    let deviation = 0.02 * 0.4_f64.hypot(0.8);
    for (found, deviations) in [
        (class.own_time_p5, -1.645),
        (class.own_time_median, 0.0),
        (class.own_time_p95, 1.645),
    ] {
        let expected = own + deviations * deviation;
        assert!(
            (found - expected).abs() < 0.1 * deviation,
            "{found} for {expected}"
        );
    }
    assert_eq!(class.histogram.iter().sum::<u32>(), 400 * 30);
}

#[test]
fn sketches_are_compared() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let record = |name: &str, workload: &ScaleWorkload| {
        let run = laggard_simulate::simulate_ranks(workload).expect("a workload");
        written(
            &dir.path().join(name),
            &manifest(workload, &run),
            rows(&run),
        )
    };
    let equal = jittery("dp64", 100);
    let with_slow = ScaleWorkload {
        slow: slow(1..2, 1.3),
        ..equal.clone()
    };
    let (a, b) = (record("a", &equal), record("b", &with_slow));
    let found = compare(&a, &b, &Options::default(), 0.02).expect("a comparison");
    assert!(found.regression, "{}", found.verdict);
}
