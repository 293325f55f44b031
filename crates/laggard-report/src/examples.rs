//! Analyses to report on in tests: a clean run, a mixed one with a slow rank, a large one with a
//! slow node, a sketch. Figures are made up but agree where reports rely on it: terms of waterfalls
//! sum to 1, blame to the loss.

mod findings;
mod replays;
mod sketch;

use findings::{jitter, mixed_classes, slow_node, slow_rank};
use laggard_analyze::{
    Analysis, BlameEntry, Charged, ClassFigures, Comparison, ComparisonRow, Estimate, Finding,
    HeatMap, Level, NullTest, RankFigures, StepTimes, Subject, Utilisation, WaterfallTerm, WhatIf,
};
use laggard_types::{Caveat, CaveatCode};
pub(crate) use sketch::sketch;

/// Every example.
pub(crate) fn all() -> [Analysis; 4] {
    [clean(), mixed(), large(), sketch()]
}

/// Two ranks, nothing found.
pub(crate) fn clean() -> Analysis {
    let shape = Shape {
        ranks: 2,
        hosts: 1,
        steps: 400,
        columns: 40,
        step_s: 0.1023,
    };
    let mut analysis = shape.analysis("llama-160m", "dp2");
    analysis.mfu = Some(utilisation(0.382));
    analysis.waterfall = waterfall(&[
        (Level::Rest, 0.002),
        (Level::UnevenWork, 0.0),
        (Level::Transient, 0.006),
        (Level::Rank, 0.0001),
        (Level::ExposedCommunication, 0.021),
        (Level::Host, 0.004),
        (Level::Optimizer, 0.032),
        (Level::KernelEfficiency, 0.5529),
        (Level::Utilisation, 0.382),
    ]);
    analysis.penalty = around(0.0061, 0.0012);
    analysis.slowdown = around(1.0061, 0.0012);
    analysis.verdict = "No rank, host or class holds this job back: stragglers cost 0.6 % of \
                        the time, and no persistent difference is beyond chance."
        .to_owned();
    shape.blame(&mut analysis, &[(0, 0.0031), (1, 0.003)], &[]);
    analysis
}

/// Eight ranks of three emulated classes in a synthetic step on virtual time; rank 5 is slow from
/// step 420 on.
pub(crate) fn mixed() -> Analysis {
    let shape = Shape {
        ranks: 8,
        hosts: 2,
        steps: 1000,
        columns: 100,
        step_s: 0.0547,
    };
    let mut analysis = shape.analysis("tiny-gpt", "dp8");
    analysis.subject.synthetic = true;
    analysis.subject.time_basis = "virtual".to_owned();
    analysis.share_of_measured_peak = Some(Utilisation {
        convention: "causal, dense fp32".to_owned(),
        peak_source: "measured by gemm on this machine".to_owned(),
        peak_flop_per_s: 412e9,
        ..utilisation(0.431)
    });
    mix_classes(&mut analysis);
    analysis.waterfall = waterfall(&[
        (Level::Rest, 0.011),
        (Level::HostPauses, 0.004),
        (Level::Transient, 0.018),
        (Level::Rank, 0.074),
        (Level::Node, 0.0),
        (Level::Generation, 0.152),
        (Level::ExposedCommunication, 0.043),
        (Level::Host, 0.006),
        (Level::Optimizer, 0.021),
        (Level::KernelEfficiency, 0.24),
        (Level::Utilisation, 0.431),
    ]);
    analysis.penalty = around(0.248, 0.009);
    analysis.slowdown = around(1.33, 0.016);
    analysis.verdict = "Stragglers cost 24.8 % of the time: equal shares for unequal classes \
                        (15.2 %), and rank 5 on host-1, slow since step 420 (7.4 %)."
        .to_owned();
    analysis.findings = vec![mixed_classes(), slow_rank(), jitter()];
    let extra = [(Charged::ClassMix, 0.152), (Charged::EveryRank, 0.003)];
    shape.blame(
        &mut analysis,
        &[(5, 0.074), (1, 0.006), (3, 0.005), (7, 0.004)],
        &extra,
    );
    replays::fill(&mut analysis);
    tests_and_caveats(&mut analysis);
    analysis
}

/// Gives the ranks of [`mixed`] their classes, and rank 5 its excess.
fn mix_classes(analysis: &mut Analysis) {
    let classes = [
        "GB200-like",
        "H100-like",
        "H100-like",
        "H100-like",
        "H200-like",
    ];
    for rank in &mut analysis.ranks {
        let class = classes[(rank.rank as usize * 5) / 8];
        let median = match class {
            "GB200-like" => 0.021,
            "H100-like" => 0.046,
            _ => 0.041,
        };
        rank.class = class.to_owned();
        rank.own_time = median * (1.0 + rank.excess);
        rank.wait_share = (1.0 - rank.own_time / analysis.step_time.median).max(0.0);
        rank.descheduled_share = Some(0.01 + 0.002 * f64::from(rank.rank));
    }
    analysis.ranks[5].excess = 0.181;
    analysis.ranks[5].own_time = 0.046 * 1.181;
    analysis.ranks[5].wait_share = 0.006;
    analysis.classes = ["GB200-like", "H100-like", "H200-like"]
        .into_iter()
        .zip([(2, 0.021), (5, 0.046), (1, 0.041)])
        .map(|(name, (ranks, median))| class(name, true, ranks, median))
        .collect();
    for (at, cell) in analysis.heat_map.excess.iter_mut().enumerate() {
        let (row, column) = (at / 100, at % 100);
        *cell += if row == 5 && column >= 42 { 0.18 } else { 0.0 };
    }
}

fn tests_and_caveats(analysis: &mut Analysis) {
    analysis.null_tests = vec![
        NullTest {
            level: Level::Rank,
            observed: 0.181,
            null_mean: 0.004,
            p_value: 0.0005,
        },
        NullTest {
            level: Level::Node,
            observed: 0.006,
            null_mean: 0.005,
            p_value: 0.31,
        },
    ];
    let caveat = Caveat::new(
        CaveatCode::VirtualClock,
        "8 ranks shared 2 cores: times are on a virtual clock driven by CPU time, so memory \
         bandwidth and caches are shared in ways that a cluster does not share them",
    );
    analysis.caveats = vec![
        caveat.clone(),
        Caveat::new(
            CaveatCode::EmulatedClass,
            "classes are emulated by scaled work",
        ),
        Caveat::new(
            CaveatCode::SyntheticJob,
            "the step is laggard's own, not your job's",
        ),
        caveat,
    ];
}

/// 64 ranks on eight hosts; host-3 is slow; every level of the waterfall, many of them tiny.
pub(crate) fn large() -> Analysis {
    let shape = Shape {
        ranks: 64,
        hosts: 8,
        steps: 2400,
        columns: 240,
        step_s: 2.317,
    };
    let mut analysis = shape.analysis("llama-3-70b", "tp4 pp2 dp8");
    analysis.mfu = Some(utilisation(0.402));
    for rank in &mut analysis.ranks {
        rank.stage = rank.rank / 32;
        if rank.host == "host-3" {
            rank.excess += 0.061;
            rank.own_time *= 1.061;
        }
    }
    for (at, cell) in analysis.heat_map.excess.iter_mut().enumerate() {
        let (row, column) = (at / 240, at % 240);
        *cell += if row / 8 == 3 { 0.061 } else { 0.0 };
        *cell += if column % 60 == 17 { 0.09 } else { 0.0 };
    }
    analysis.waterfall = waterfall(&[
        (Level::Rest, -0.004),
        (Level::UnevenWork, 0.0012),
        (Level::HostPauses, 0.0006),
        (Level::Transient, 0.0171),
        (Level::Rank, 0.0009),
        (Level::Node, 0.0442),
        (Level::Generation, 0.0),
        (Level::Stage, 0.0121),
        (Level::ExposedCommunication, 0.0413),
        (Level::Bubble, 0.0608),
        (Level::Host, 0.0007),
        (Level::Optimizer, 0.0098),
        (Level::KernelEfficiency, 0.4133),
        (Level::Utilisation, 0.402),
    ]);
    analysis.penalty = around(0.076, 0.004);
    analysis.slowdown = around(1.082, 0.005);
    analysis.verdict = "host-3 is slow: its 8 ranks take 6.1 % longer than their peers, which \
                        costs 4.4 % of the time."
        .to_owned();
    analysis.findings = vec![slow_node()];
    let charged: Vec<(u32, f64)> = (0..64)
        .map(|r| {
            (
                r,
                if (24..32).contains(&r) {
                    0.0055
                } else {
                    0.0002 + 0.00001 * f64::from(r)
                },
            )
        })
        .collect();
    shape.blame(&mut analysis, &charged, &[(Charged::StageSplit, 0.0121)]);
    analysis.null_tests = vec![NullTest {
        level: Level::Node,
        observed: 0.061,
        null_mean: 0.003,
        p_value: 0.002,
    }];
    analysis.caveats = vec![Caveat::new(
        CaveatCode::WarmUpUnclear,
        "no change of regime marks the end of warm-up: the first 10 % of steps were left out",
    )];
    analysis
}

/// [`clean`], where a host is called like an attack.
pub(crate) fn hostile() -> Analysis {
    let mut analysis = clean();
    let name = "<script>alert('1')</script>|`x`\u{1b}[31m\n# not a heading";
    analysis.ranks[0].host = name.to_owned();
    analysis.ranks[1].class = name.to_owned();
    analysis.classes[0].name = name.to_owned();
    analysis.subject.model = name.to_owned();
    analysis.verdict = format!("{name} is slow");
    analysis.findings = vec![Finding {
        summary: name.to_owned(),
        ..slow_rank()
    }];
    analysis.caveats = vec![Caveat::new(CaveatCode::IncompleteTrace, name)];
    analysis
}

/// [`mixed`] with every number that can be NaN or infinite so.
pub(crate) fn not_finite() -> Analysis {
    let mut analysis = mixed();
    let bad = Estimate {
        value: f64::NAN,
        low: f64::NEG_INFINITY,
        high: f64::INFINITY,
    };
    (analysis.penalty, analysis.slowdown, analysis.step_time.mean) = (bad, bad, bad);
    (analysis.step_time.median, analysis.step_time.p5) = (f64::NAN, f64::INFINITY);
    analysis
        .waterfall
        .iter_mut()
        .for_each(|term| term.share = bad);
    analysis
        .blame
        .iter_mut()
        .for_each(|entry| entry.share = f64::NAN);
    analysis
        .heat_map
        .excess
        .iter_mut()
        .step_by(3)
        .for_each(|cell| *cell = f64::NAN);
    for class in &mut analysis.classes {
        class.histogram_edges[2] = f64::NAN;
        class.own_time_median = f64::NAN;
    }
    for rank in &mut analysis.ranks {
        (rank.own_time, rank.excess) = (f64::NAN, f64::NAN);
    }
    analysis
}

/// Two figures that differ and one that does not.
pub(crate) fn comparison() -> Comparison {
    let row = |name: &str, a: f64, b: f64, ratio: Estimate| ComparisonRow {
        name: name.to_owned(),
        a,
        b,
        ratio,
        significant: ratio.low > 1.0 || ratio.high < 1.0,
    };
    Comparison {
        schema_version: 1,
        rows: vec![
            row("step time, median [ms]", 102.3, 118.9, around(1.162, 0.011)),
            row(
                "tokens per second",
                160_156.0,
                137_796.0,
                around(0.860, 0.008),
            ),
            row("straggler penalty [%]", 0.61, 0.64, around(1.05, 0.3)),
        ],
        regression: true,
        verdict: "B is slower than A: its median step takes 16.2 % longer.".to_owned(),
        caveats: vec![Caveat::new(
            CaveatCode::TooFewSteps,
            "B has 24 steps that count",
        )],
    }
}

/// The size of an example.
struct Shape {
    ranks: u32,
    hosts: u32,
    steps: u32,
    columns: u32,
    step_s: f64,
}

impl Shape {
    /// An analysis of this size in which every rank is alike.
    fn analysis(&self, model: &str, layout: &str) -> Analysis {
        let warm_up = self.steps / 20;
        let used = self.steps - warm_up;
        let tokens = 4096.0 * f64::from(self.ranks);
        Analysis {
            schema_version: 1,
            subject: Subject {
                model: model.to_owned(),
                synthetic: false,
                layout: layout.to_owned(),
                ranks: self.ranks,
                hosts: self.hosts,
                steps_recorded: self.steps,
                steps_warm_up: warm_up,
                steps_used: used,
                time_basis: "wall".to_owned(),
                origin: "measured".to_owned(),
                tokens_per_step: tokens,
                tokens_per_s: tokens / self.step_s,
            },
            step_time: StepTimes {
                n: used,
                mean: around(self.step_s * 1.004, self.step_s * 0.002),
                p5: self.step_s * 0.981,
                median: self.step_s,
                p95: self.step_s * 1.062,
                p99: self.step_s * 1.114,
                max: self.step_s * 1.402,
            },
            mfu: None,
            share_of_measured_peak: None,
            penalty: around(0.0, 0.0),
            slowdown: around(1.0, 0.0),
            penalty_reference: "the mean over ranks of compute and the mean of transfers"
                .to_owned(),
            waterfall: Vec::new(),
            exposed_communication: Vec::new(),
            what_if: WhatIf::default(),
            blame: Vec::new(),
            loss: 0.0,
            null_tests: Vec::new(),
            findings: Vec::new(),
            verdict: String::new(),
            classes: vec![class("H100 SXM", false, self.ranks, self.step_s * 0.9)],
            ranks: (0..self.ranks).map(|rank| self.rank(rank)).collect(),
            heat_map: self.heat_map(),
            caveats: Vec::new(),
        }
    }

    fn rank(&self, rank: u32) -> RankFigures {
        let excess = 0.01 * (noise(rank) - 0.5);
        RankFigures {
            rank,
            host: format!("host-{}", rank * self.hosts / self.ranks),
            class: "H100 SXM".to_owned(),
            stage: 0,
            own_time: self.step_s * 0.9 * (1.0 + excess),
            excess,
            wait_share: 0.02 + 0.01 * noise(rank + 7),
            descheduled_share: None,
        }
    }

    fn heat_map(&self) -> HeatMap {
        let width = self.steps / self.columns;
        HeatMap {
            first_rank: (0..self.ranks).collect(),
            first_step: (0..self.columns).map(|column| column * width).collect(),
            excess: (0..self.ranks * self.columns)
                .map(|at| 0.03 * noise(at).powi(3))
                .collect(),
        }
    }

    fn blame(&self, analysis: &mut Analysis, ranks: &[(u32, f64)], rest: &[(Charged, f64)]) {
        let of_rank = |&(rank, share): &(u32, f64)| BlameEntry {
            charged: Charged::Rank(rank),
            share,
            last_in_steps: Some((share * 10.0).min(0.97)),
            leave_one_out: Some(share * 0.8),
        };
        let of_rest = |(charged, share): &(Charged, f64)| BlameEntry {
            charged: charged.clone(),
            share: *share,
            last_in_steps: None,
            leave_one_out: None,
        };
        analysis.blame = ranks
            .iter()
            .map(of_rank)
            .chain(rest.iter().map(of_rest))
            .collect();
        analysis.loss = analysis.blame.iter().map(|entry| entry.share).sum();
    }
}

/// A number in 0..1 that looks random and never changes.
pub(crate) fn noise(seed: u32) -> f64 {
    let mut x = seed.wrapping_mul(0x9E37_79B9) ^ 0x85EB_CA6B;
    x = (x ^ (x >> 15)).wrapping_mul(0x2C1B_3C6D);
    x = (x ^ (x >> 12)).wrapping_mul(0x297A_2D39);
    f64::from(x ^ (x >> 15)) / f64::from(u32::MAX)
}

fn around(value: f64, half_width: f64) -> Estimate {
    Estimate {
        value,
        low: value - half_width,
        high: value + half_width,
    }
}

fn utilisation(value: f64) -> Utilisation {
    Utilisation {
        value: around(value, 0.01),
        convention: "causal, dense bf16".to_owned(),
        full_attention: value * 1.03,
        hfu: value,
        peak_flop_per_s: 1.978e15,
        peak_source: "datasheet".to_owned(),
    }
}

fn waterfall(terms: &[(Level, f64)]) -> Vec<WaterfallTerm> {
    let sum: f64 = terms.iter().map(|(_, share)| share).sum();
    assert!((sum - 1.0).abs() < 1e-9, "the terms sum to {sum}");
    let term = |&(level, share): &(Level, f64)| WaterfallTerm {
        level,
        share: around(share, 0.1 * share.abs().min(0.1)),
    };
    terms.iter().map(term).collect()
}

fn class(name: &str, emulated: bool, ranks: u32, median: f64) -> ClassFigures {
    let edges: Vec<f64> = (0..=60)
        .map(|bin| median.max(0.02) * 0.03 * f64::from(bin))
        .collect();
    let common = if emulated {
        (0..=60).map(|b| 0.001 * f64::from(b)).collect()
    } else {
        edges
    };
    let height = |bin: f64| {
        let z = (bin - median) / (median * 0.04);
        (f64::from(ranks) * 400.0 * (-0.5 * z * z).exp()) as u32
    };
    ClassFigures {
        name: name.to_owned(),
        emulated,
        ranks,
        own_time_p5: median * 0.95,
        own_time_median: median,
        own_time_p95: median * 1.08,
        wait_share: if emulated {
            1.0 - median / 0.0547
        } else {
            0.04
        },
        histogram: common
            .windows(2)
            .map(|edge| height(0.5 * (edge[0] + edge[1])))
            .collect(),
        histogram_edges: common,
    }
}
