//! Jobs of every layout: each term of the waterfall against the truth, and the culprit in all seeds.

use super::{analyzed, check_sums, share};
use laggard_analyze::{Analysis, Cause, Culprit, Level};
use laggard_benches::known_layout::{KnownLayout, Truth};

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

/// Narayanan et al. 2021, section 2.2: equal stages idle for p - 1 of m + p - 1 micro-batches, with v
/// pieces each for (p - 1) / v of m + (p - 1) / v.
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
