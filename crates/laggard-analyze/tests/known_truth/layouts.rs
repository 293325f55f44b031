//! Jobs of every layout: each term of the waterfall against the truth, and the culprit in all
//! seeds.

use super::{analyzed, check_sums, share};
use laggard_analyze::{Analysis, Cause, Charged, Culprit, Level, Unit};
use laggard_benches::known_layout::{KnownLayout, Truth};
use laggard_types::CaveatCode;

/// Layouts, with micro-batches of a replica: every kind of parallelism alone, and products.
const LAYOUTS: [(&str, u32); 14] = [
    ("dp4,zero1", 2),
    ("dp4,zero2", 2),
    ("dp4,zero3", 2),
    ("dp2,tp4", 1),
    ("dp2,tp2,sp", 2),
    ("dp2,cp2", 2),
    ("dp4,ep2", 2),
    ("dp1,pp4", 6),
    ("dp2,pp2", 4),
    ("dp2,pp2,vp2", 4),
    ("dp2,tp2,pp2", 4),
    ("dp2,pp2,zero1,recompute", 4),
    ("dp2,cp2,pp2,zero1", 3),
    ("dp2,tp2,cp2,pp2,vp2,sp,zero1", 4),
];

fn by_level(truth: &Truth) -> [(Level, f64); 11] {
    [
        (Level::Transient, truth.transient),
        (Level::Rank, truth.rank),
        (Level::Node, truth.node),
        (Level::Generation, truth.generation),
        (Level::Stage, truth.stage),
        (Level::ExposedCommunication, truth.exposed),
        (Level::Bubble, truth.bubble),
        (Level::Host, truth.host),
        (Level::Optimizer, truth.optimizer),
        (Level::KernelEfficiency, truth.kernels),
        (Level::Utilisation, truth.utilisation),
    ]
}

fn run(job: &KnownLayout) -> Analysis {
    analyzed(|path| job.write(path))
}

/// How often each level's interval missed the truth.
#[derive(Default)]
struct Misses {
    intervals: u32,
    of_level: [u32; 11],
}

impl Misses {
    fn count(&mut self, analysis: &Analysis, truth: &Truth) {
        self.intervals += 1;
        for (misses, (level, of_level)) in self.of_level.iter_mut().zip(by_level(truth)) {
            let estimate = share(analysis, level);
            let (low, high) = (estimate.low - truth.error, estimate.high + truth.error);
            *misses += u32::from(of_level < low || high < of_level);
        }
    }

    /// Intervals of 95 % miss their truth more than three times as often as they should with a
    /// probability below 0.001, for the numbers of intervals here.
    fn check(&self, name: &str, truth: &Truth) {
        let allowed = (0.15 * f64::from(self.intervals)).ceil() as u32;
        for (misses, (level, _)) in self.of_level.iter().zip(by_level(truth)) {
            let n = self.intervals;
            assert!(
                *misses <= allowed,
                "{name}: {level:?} missed in {misses} of {n} intervals"
            );
        }
    }
}

type Named = (Cause, Culprit);

fn named(analysis: &Analysis) -> Vec<Named> {
    let findings = analysis.findings.iter();
    findings
        .map(|finding| (finding.cause, finding.culprit.clone()))
        .collect()
}

/// One fault under every layout and several seeds: the truth is within the intervals, and the most
/// costly finding is the one expected, in every seed. `put` puts the fault in and says who must be
/// named first; it may leave a layout out.
fn check(name: &str, put: impl Fn(&mut KnownLayout) -> Option<Named>) {
    const SEEDS: u64 = 4;
    let mut misses = Misses::default();
    let mut last = None;
    for (layout, micro_batches) in LAYOUTS {
        let mut job = KnownLayout::clean(layout, micro_batches, 1);
        let Some(expect) = put(&mut job) else {
            continue;
        };
        let truth = job.truth();
        for seed in 0..SEEDS {
            job.seed = seed;
            let analysis = run(&job);
            let name = format!("{name} {layout} seed {seed}");
            check_sums(&name, &analysis);
            misses.count(&analysis, &truth);
            let named = named(&analysis);
            assert_eq!(named.first(), Some(&expect), "{name}: {named:?}");
            if let Culprit::Rank(rank) = expect.1 {
                assert_eq!(analysis.blame[0].charged, Charged::Rank(rank), "{name}");
            }
        }
        last = Some(truth);
    }
    misses.check(name, &last.expect("a layout with this fault"));
}

#[test]
fn clean_jobs_name_nobody() {
    let (mut misses, mut last) = (Misses::default(), None);
    for (layout, micro_batches) in LAYOUTS {
        let mut job = KnownLayout::clean(layout, micro_batches, 1);
        let truth = job.truth();
        for seed in 0..4 {
            job.seed = seed;
            let analysis = run(&job);
            check_sums(layout, &analysis);
            misses.count(&analysis, &truth);
            assert_eq!(named(&analysis), [], "{layout} seed {seed}");
        }
        last = Some(truth);
    }
    misses.check("clean", &last.expect("a layout"));
}

#[test]
fn a_slow_rank() {
    check("slow rank", |job| {
        job.rank_excess[1] = 0.2;
        Some((Cause::SlowRank, Culprit::Rank(1)))
    });
}

/// Nobody else does the same work at a stage of one rank, so it is compared with other stages.
#[test]
fn a_slow_stage() {
    check("slow stage", |job| {
        let stages = job.layout.pipeline_parallel;
        let stage = stages.checked_sub(2)?;
        let ranks = job.stage(stage);
        // Hosts that have a part of every stage.
        job.host = (0..job.ranks() as u32).map(|rank| rank % 2).collect();
        job.host_excess.truncate(2);
        ranks.iter().for_each(|rank| job.rank_excess[*rank] = 0.15);
        Some(match ranks[..] {
            [rank] => (Cause::SlowRank, Culprit::Rank(rank as u32)),
            _ => (Cause::SlowStage, Culprit::Stage(stage)),
        })
    });
}

#[test]
fn a_slow_node() {
    check("slow node", |job| {
        job.host_excess[1] = 0.15;
        Some((Cause::SlowNode, Culprit::Host(1)))
    });
}

#[test]
fn a_slow_class() {
    check("slow class", |job| {
        let ranks = job.ranks();
        job.rate[ranks / 2..].fill(0.6);
        Some((Cause::MixedGenerations, Culprit::Nobody))
    });
}

#[test]
fn a_slow_link() {
    check("slow link", |job| {
        if job.host_excess.len() < 3 {
            job.host = (0..job.ranks() as u32).collect();
            job.host_excess = vec![0.0; job.ranks()];
        }
        job.slow_link = Some((2, 8.0));
        Some((Cause::SlowLink, Culprit::Host(2)))
    });
}

#[test]
fn jitter_of_one_rank() {
    check("jitter", |job| {
        job.jitter[2] = 0.2;
        Some((Cause::StepJitter, Culprit::Rank(2)))
    });
}

/// More layers, or the output head, are the split of the model: nobody is slow.
#[test]
fn more_work_is_not_slowness() {
    check("head", |job| {
        let last = job.layout.pipeline_parallel - 1;
        (last > 0).then(|| {
            job.head = 1.5;
            (Cause::LastStage, Culprit::Stage(last))
        })
    });
    check("layers", |job| {
        let pieces = job.layout.pieces();
        (pieces > 1 && job.layout.virtual_stages == 1).then(|| {
            job.layers = 2 * pieces + 2;
            job.layout.stage_layers = vec![2; pieces as usize];
            job.layout.stage_layers[0] = 4;
            (Cause::StageSplit, Culprit::Stage(0))
        })
    });
}

/// A stage that is slow beyond its work is told from the one that has more to do.
#[test]
fn a_slow_stage_beside_a_head() {
    check("slow stage and head", |job| {
        let ranks = job.stage(0);
        (job.layout.pipeline_parallel > 1).then(|| {
            job.host = vec![0; job.ranks()];
            job.host_excess.truncate(1);
            job.head = 0.2;
            ranks.iter().for_each(|rank| job.rank_excess[*rank] = 0.6);
            match ranks[..] {
                [rank] => (Cause::SlowRank, Culprit::Rank(rank as u32)),
                _ => (Cause::SlowStage, Culprit::Stage(0)),
            }
        })
    });
}

/// Narayanan et al. 2021, section 2.2: equal stages idle for p - 1 of m + p - 1 micro-batches, with
/// v pieces each for (p - 1) / v of m + (p - 1) / v.
#[test]
fn the_bubble_is_that_of_the_paper() {
    let shapes = [
        (2, 1, 4),
        (4, 1, 4),
        (4, 1, 9),
        (8, 1, 3),
        (2, 2, 4),
        (4, 2, 8),
        (4, 3, 4),
    ];
    for (stages, pieces, micro_batches) in shapes {
        for data in [1, 2] {
            let layout = match pieces {
                1 => format!("dp{data},pp{stages}"),
                _ => format!("dp{data},pp{stages},vp{pieces}"),
            };
            let mut job = KnownLayout::clean(&layout, micro_batches, 2);
            job.steps = 40;
            job.jitter.fill(0.0);
            (job.input, job.optimizer, job.bandwidth) = (0.0, 0.0, 1e30);
            let analysis = run(&job);
            let idle = f64::from(stages - 1) / f64::from(pieces);
            let want = idle / (f64::from(micro_batches) + idle);
            let bubble = share(&analysis, Level::Bubble);
            assert!(
                (bubble.value - want).abs() < 1e-6,
                "{layout}: {bubble:?}, not {want}"
            );
            assert!(bubble.high - bubble.low < 1e-6, "{layout}: {bubble:?}");
            let others = [
                Level::Stage,
                Level::Rank,
                Level::ExposedCommunication,
                Level::Rest,
            ];
            for level in others {
                let term = share(&analysis, level).value;
                assert!(term.abs() < 1e-6, "{layout}: {level:?} {term}");
            }
        }
    }
}

/// A job in which nothing varies, so that its figures are exact.
fn still(layout: &str, micro_batches: u32) -> KnownLayout {
    let mut job = KnownLayout::clean(layout, micro_batches, 1);
    job.steps = 40;
    job.jitter.fill(0.0);
    job
}

fn saved(analysis: &Analysis, unit: Unit) -> f64 {
    let mut units = analysis.what_if.units.iter();
    let row = units
        .find(|row| row.unit == unit)
        .expect("the unit is reported");
    row.saved.value * analysis.step_time.mean.value
}

/// One rank, host, stage or class at its ideal, against steps laid out with just that changed.
#[test]
fn what_if_is_what_would_be() {
    for (layout, micro_batches) in LAYOUTS {
        let mut job = still(layout, micro_batches);
        let ranks = job.ranks();
        job.rank_excess[1] = 0.3;
        job.rank_excess[ranks - 1] = 0.1;
        let analysis = run(&job);
        let factor = |rank: usize| 1.0 + job.rank_excess[rank];
        let mean = (0..ranks).map(factor).sum::<f64>() / ranks as f64;
        // In a pipeline the typical rank is the measure, elsewhere the mean.
        let stages = job.layout.pipeline_parallel;
        let ideal = if stages > 1 { 1.0 } else { mean };
        let now = job.step_with(&factor);
        let close = |unit: Unit, then: f64| {
            let (saved, want) = (saved(&analysis, unit), now - then);
            assert!(
                (saved - want).abs() < 1e-7,
                "{layout} {unit:?}: {saved}, not {want}"
            );
        };
        let with = |is_in: &dyn Fn(usize) -> bool, ideal: f64| {
            job.step_with(&|rank| if is_in(rank) { ideal } else { factor(rank) })
        };
        close(Unit::Rank(1), with(&|rank| rank == 1, ideal));
        close(Unit::Host(0), with(&|rank| job.host[rank] == 0, ideal));
        for stage in 0..if stages > 1 { stages } else { 0 } {
            let members = job.stage(stage);
            let of_stage = members.iter().map(|&r| factor(r)).sum::<f64>() / members.len() as f64;
            let then = job.step_with(&|rank| match members.contains(&rank) {
                true => factor(rank) * mean / of_stage,
                false => factor(rank),
            });
            close(Unit::Stage(stage), then);
        }
    }
}

#[test]
fn what_if_a_class_were_as_all() {
    for (layout, micro_batches) in LAYOUTS {
        let mut job = still(layout, micro_batches);
        let ranks = job.ranks();
        job.rate[ranks / 2..].fill(0.5);
        (job.input, job.optimizer) = (0.0, 0.0);
        let analysis = run(&job);
        // Half of the ranks take twice as long.
        let (slow, mean) = (2.0, 1.5);
        let then = job.step_with(&|rank| {
            if job.rate[rank] < 1.0 {
                mean / slow
            } else {
                1.0
            }
        });
        let (saved, want) = (
            saved(&analysis, Unit::Class(0)),
            job.step_with(&|_| 1.0) - then,
        );
        assert!((saved - want).abs() < 1e-7, "{layout}: {saved}, not {want}");
    }
}

/// Parts of exposed communication, against steps laid out without one axis after the other.
#[test]
fn each_axis_is_exposed_as_far_as_it_costs() {
    for (layout, micro_batches) in LAYOUTS {
        let job = still(layout, micro_batches);
        let analysis = run(&job);
        let axes = analysis.exposed_communication.iter();
        let found: Vec<(&str, f64)> = axes
            .map(|axis| {
                (
                    axis.axis.as_str(),
                    axis.share.value * analysis.step_time.mean.value,
                )
            })
            .collect();
        let adds_up = layout.contains("zero2") || layout.contains("zero3");
        for ((axis, found), (name, want)) in found.iter().zip(job.exposed_by_axis()) {
            assert_eq!(*axis, name, "{layout}");
            // Adding up what was reduced counts with the reduction.
            let slack = if adds_up && name.starts_with("dp") {
                2e-5
            } else {
                1e-7
            };
            assert!(
                (found - want).abs() < slack,
                "{layout} {axis}: {found}, not {want}"
            );
        }
        assert_eq!(found.len(), job.exposed_by_axis().len(), "{layout}");
    }
}

/// Every rank of a replica records the replica's tokens; what is computed again is no model FLOP.
#[test]
fn tokens_and_flop_are_counted_once() {
    for (layout, micro_batches) in LAYOUTS {
        let job = still(layout, micro_batches);
        let analysis = run(&job);
        let replicas = f64::from(job.layout.data_parallel);
        let tokens = replicas * f64::from(micro_batches) * 128.0;
        assert!(
            (analysis.subject.tokens_per_step - tokens).abs() < 1e-6,
            "{layout}"
        );
        assert_eq!(analysis.subject.layout, job.layout.to_string());
        let mfu = analysis.mfu.as_ref().expect("a datasheet peak");
        // Half of the peak while computing; every rank computes its share of all layers.
        let stages = f64::from(job.layout.pipeline_parallel);
        let flop = f64::from(micro_batches) * f64::from(job.layers) * 3e-3 * 0.5e12;
        let want = flop / stages / 1e12 / analysis.step_time.mean.value;
        assert!(
            (mfu.value.value - want).abs() < 1e-6,
            "{layout}: {mfu:?}, not {want}"
        );
        let again = if layout.contains("recompute") {
            4.0 / 3.0
        } else {
            1.0
        };
        assert!((mfu.hfu / mfu.value.value - again).abs() < 1e-9, "{layout}");
    }
}

#[test]
fn replicas_with_more_micro_batches_are_not_slow() {
    for layout in ["dp2,tp2", "dp2,pp2", "dp2,cp2,zero1"] {
        let mut job = KnownLayout::clean(layout, 2, 1);
        job.layout.micro_batches = vec![2, 6];
        let analysis = run(&job);
        check_sums(layout, &analysis);
        let want = [(Cause::UnevenMicroBatches, Culprit::Nobody)];
        assert_eq!(named(&analysis), want, "{layout}");
    }
}

/// Where not every rank can be replayed by itself, those that matter are, and the analysis says so.
#[test]
fn a_large_record_is_blamed_right_and_says_what_is_a_bound() {
    let mut job = KnownLayout::clean("dp16,pp8", 16, 1);
    job.steps = 400;
    job.rank_excess[9] = 0.2;
    let analysis = run(&job);
    check_sums("large", &analysis);
    let bounds = analysis
        .caveats
        .iter()
        .filter(|it| it.code == CaveatCode::Bound);
    assert_eq!(bounds.count(), 1, "{:?}", analysis.caveats);
    assert_eq!(named(&analysis), [(Cause::SlowRank, Culprit::Rank(9))]);
    assert_eq!(analysis.blame[0].charged, Charged::Rank(9));
    let truth = job.truth();
    let charged = analysis.blame[0].share;
    assert!(
        (charged - truth.rank).abs() < 0.003,
        "{charged}, not {}",
        truth.rank
    );
}
