//! What is put into runs: worlds, kinds of faults, and the ranges that sizes are drawn from.

use crate::busy;
use anyhow::{Context, Result};
use laggard_analyze::{Cause, Culprit};
use laggard_measure::{ClassShare, Fault};
use laggard_specs::{RateBasis, Tables};
use laggard_stats::Rng;
use std::ops::RangeInclusive;

/// Steps of every run.
pub(crate) const STEPS: u32 = 160;
/// Sequences of a micro-batch: so many that a step takes some milliseconds.
pub(crate) const SEQUENCES: u32 = 3;

/// Ranks on emulated hosts. Times are of the wall clock where each rank has a processor of its own,
/// else of the virtual clock; the record says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct World {
    pub ranks: u32,
    pub hosts: u32,
}

impl World {
    const TWO: Self = Self { ranks: 2, hosts: 1 };
    const FOUR: Self = Self { ranks: 4, hosts: 2 };
    const SIX: Self = Self { ranks: 6, hosts: 3 };
    pub(crate) const ALL: [Self; 3] = [Self::TWO, Self::FOUR, Self::SIX];
    /// Worlds with peers on the same host, and other hosts to compare with.
    const OF_HOSTS: [Self; 2] = [Self::FOUR, Self::SIX];

    pub(crate) fn name(self) -> String {
        format!("{}x{}", self.hosts, self.ranks / self.hosts)
    }
}

/// What is wrong with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    SlowRank,
    SlowRankFrom,
    SlowHost,
    SlowBackward,
    JitterOfOne,
    JitterOfAll,
    Pause,
    Ragged,
    Mixed,
    MixedAndSlow,
    BusyNeighbour,
}

/// One kind with what is drawn for it.
#[derive(Debug)]
pub(crate) struct Row {
    pub kind: Kind,
    pub name: &'static str,
    pub worlds: &'static [World],
    /// Factor, sigma, milliseconds or coefficient of variation; unused where nothing is injected.
    size: RangeInclusive<f64>,
}

/// Sizes are meant to be three times the A/A noise of a quiet machine or more; how many times they
/// really were, the campaign prints.
pub(crate) const KINDS: [Row; 11] = [
    row(Kind::SlowRank, "slow-rank", &World::ALL, 1.10..=1.50),
    row(
        Kind::SlowRankFrom,
        "slow-rank-from",
        &World::ALL,
        1.15..=1.50,
    ),
    row(Kind::SlowHost, "slow-host", &World::OF_HOSTS, 1.10..=1.50),
    row(
        Kind::SlowBackward,
        "slow-backward",
        &World::ALL,
        1.15..=1.60,
    ),
    row(Kind::JitterOfOne, "jitter-of-one", &World::ALL, 0.15..=0.50),
    row(Kind::JitterOfAll, "jitter-of-all", &World::ALL, 0.20..=0.50),
    row(Kind::Pause, "pause", &World::ALL, 10.0..=30.0),
    row(Kind::Ragged, "ragged", &World::ALL, 0.20..=0.60),
    row(Kind::Mixed, "mixed", &World::ALL, 1.0..=1.0),
    row(
        Kind::MixedAndSlow,
        "mixed-and-slow",
        &World::OF_HOSTS,
        1.15..=1.50,
    ),
    // Processes: with one of them the rank has half of its processor.
    row(
        Kind::BusyNeighbour,
        "busy-neighbour",
        &[World::TWO],
        1.0..=1.0,
    ),
];
/// Steps in one of which a host pauses.
const PAUSE_EVERY: RangeInclusive<u32> = 10..=25;
/// First step of a fault that begins in the middle of the run.
const FROM: RangeInclusive<u32> = STEPS * 2 / 5..=STEPS * 3 / 5;
/// Pairs of generations, the slower first.
const MIXES: [(&str, &str); 3] = [("h100", "gb200"), ("h200", "gb200"), ("h100", "h200")];
/// Backward has two of the three parts of a step's arithmetic: the products for the gradients of
/// weights and of inputs, against one in forward.
const BACKWARD_SHARE: f64 = 2.0 / 3.0;
/// Mean of the absolute value of a standard normal number: sqrt(2 / pi).
const MEAN_ABS_NORMAL: f64 = 0.797_884_560_802_865_4;

const fn row(
    kind: Kind,
    name: &'static str,
    worlds: &'static [World],
    size: RangeInclusive<f64>,
) -> Row {
    Row {
        kind,
        name,
        worlds,
        size,
    }
}

impl Row {
    /// Whether this machine can make such runs: a rank that shares its processor with ranks of its
    /// own run anyway has no busy neighbour.
    pub(crate) fn is_possible(&self) -> bool {
        let ranks = self.worlds.iter().map(|world| world.ranks).max();
        self.kind != Kind::BusyNeighbour || ranks.is_some_and(|ranks| busy::processors() >= ranks)
    }

    fn draw_size(&self, rng: &mut Rng) -> f64 {
        self.size.start() + rng.uniform() * (self.size.end() - self.size.start())
    }

    /// A slow rank of the faster class hides behind the slower class: it costs nothing, and nobody
    /// must find it. The slower class has the first half of the ranks.
    fn draw_rank(&self, ranks: u32, rng: &mut Rng) -> u32 {
        let choice = match self.kind {
            Kind::MixedAndSlow => ranks / 2,
            _ => ranks,
        };
        rng.below(choice as usize) as u32
    }
}

/// One run to make, with what is true of it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub kind: &'static str,
    pub world: World,
    pub seed: u64,
    pub faults: Vec<Fault>,
    pub classes: Vec<ClassShare>,
    /// The rank on whose processor another process is busy: the one slowdown that the run itself
    /// does not make and knows nothing of.
    pub busy_neighbour_of: Option<u32>,
    /// Faults, classes and disturbances in words.
    pub spec: String,
    /// What must be found.
    pub expected: Vec<(Cause, Culprit)>,
    /// Step at which a fault begins, if not the first.
    pub from_step: Option<u32>,
    pub effect: Effect,
}

/// By how much the affected ranks' own time grows in the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Effect {
    /// Share of the undisturbed own time.
    Relative(f64),
    /// Milliseconds a step.
    Milliseconds(f64),
}

impl Plan {
    /// An undisturbed run. Every one has a seed of its own.
    pub(crate) fn clean(number: u32, seed: u64) -> Self {
        let mut rng = Rng::for_stream(seed, u64::from(number));
        Self {
            kind: "clean",
            world: World::ALL[number as usize % World::ALL.len()],
            seed: rng.next_u64() >> 1,
            faults: Vec::new(),
            classes: Vec::new(),
            busy_neighbour_of: None,
            spec: String::new(),
            expected: Vec::new(),
            from_step: None,
            effect: Effect::Relative(0.0),
        }
    }

    /// Draws trial `number` of a kind: the same for the same seed, whatever else is run.
    pub(crate) fn draw(row: &Row, number: u32, seed: u64, tables: &Tables) -> Result<Self> {
        let stream = (row.kind as u64 + 1) << 32 | u64::from(number);
        let mut rng = Rng::for_stream(seed, stream);
        let mut plan = Self::clean(0, rng.next_u64());
        plan.kind = row.name;
        plan.world = row.worlds[number as usize % row.worlds.len()];
        let (ranks, hosts) = (plan.world.ranks, plan.world.hosts);
        let drawn = Drawn {
            size: row.draw_size(&mut rng),
            rank: row.draw_rank(ranks, &mut rng),
            host: rng.below(hosts as usize) as u32,
            every: between(&PAUSE_EVERY, &mut rng),
            from: between(&FROM, &mut rng),
        };
        let mix = MIXES[rng.below(MIXES.len())];
        let (fault, cause, culprit, effect) = drawn.truth(row.kind);
        plan.effect = effect;
        match row.kind {
            Kind::Mixed => plan.effect = plan.mix(mix, tables)?,
            Kind::MixedAndSlow => _ = plan.mix(mix, tables)?,
            Kind::SlowRankFrom => plan.from_step = Some(drawn.from),
            Kind::BusyNeighbour => {
                plan.busy_neighbour_of = Some(drawn.rank);
                plan.spec = format!("a busy process on the processor of rank {}", drawn.rank);
            }
            _ => {}
        }
        plan.inject(&fault)?;
        plan.expected.push((cause, culprit));
        Ok(plan)
    }

    fn inject(&mut self, fault: &str) -> Result<()> {
        if !fault.is_empty() {
            self.faults
                .push(fault.parse().context("a fault of the table")?);
            self.spec = format!("{fault} {}", self.spec).trim_end().to_owned();
        }
        Ok(())
    }

    /// Makes half of the ranks of each class. The effect is that on the slower class.
    fn mix(&mut self, (one, other): (&str, &str), tables: &Tables) -> Result<Effect> {
        let half = self.world.ranks / 2;
        let text = format!("{one}:{half},{other}:{half}");
        self.classes = ClassShare::parse_list(&text, tables, RateBasis::Measured)?;
        self.spec = format!("classes {text}");
        let rates = self.classes.iter().map(|class| class.relative_rate);
        Ok(Effect::Relative(1.0 / rates.fold(1.0, f64::min) - 1.0))
    }
}

/// What is drawn for a trial, of which each kind uses some.
struct Drawn {
    size: f64,
    rank: u32,
    host: u32,
    every: u32,
    from: u32,
}

impl Drawn {
    /// The fault to inject (nothing where classes or other processes are the disturbance), what
    /// must be found, and by how much it slows.
    fn truth(&self, kind: Kind) -> (String, Cause, Culprit, Effect) {
        let Self { size, rank, .. } = *self;
        let (one, nobody) = (Culprit::Rank(rank), Culprit::Nobody);
        let slow = Effect::Relative(size - 1.0);
        let varying = Effect::Relative(size * MEAN_ABS_NORMAL);
        match kind {
            Kind::SlowRank | Kind::MixedAndSlow => {
                let fault = format!("slow-rank:{rank}:{size:.3}");
                (fault, Cause::SlowRank, one, slow)
            }
            Kind::SlowRankFrom => {
                let fault = format!("slow-rank:{rank}:{size:.3}+from={}", self.from);
                (fault, Cause::SlowRank, one, slow)
            }
            Kind::SlowHost => {
                let fault = format!("slow-host:{}:{size:.3}", self.host);
                (fault, Cause::SlowNode, Culprit::Host(self.host), slow)
            }
            Kind::SlowBackward => {
                let fault = format!("slow-backward:{rank}:{size:.3}");
                let effect = Effect::Relative((size - 1.0) * BACKWARD_SHARE);
                (fault, Cause::SlowBackward, one, effect)
            }
            Kind::JitterOfOne => {
                let fault = format!("jitter:{size:.3}@{rank}");
                (fault, Cause::StepJitter, one, varying)
            }
            Kind::JitterOfAll => {
                let fault = format!("jitter:{size:.3}");
                (fault, Cause::StepJitter, nobody, varying)
            }
            Kind::Pause => {
                let fault = format!("pause:{}:{size:.1}@{rank}", self.every);
                let effect = Effect::Milliseconds(size / f64::from(self.every));
                (fault, Cause::HostPauses, one, effect)
            }
            Kind::Ragged => {
                let fault = format!("ragged:{size:.3}");
                let effect = Effect::Relative(size);
                (fault, Cause::SequenceLengths, nobody, effect)
            }
            Kind::Mixed => (String::new(), Cause::MixedGenerations, nobody, slow),
            Kind::BusyNeighbour => {
                let effect = Effect::Relative(size);
                (String::new(), Cause::OutsideContention, one, effect)
            }
        }
    }
}

fn between(range: &RangeInclusive<u32>, rng: &mut Rng) -> u32 {
    range.start() + rng.below((range.end() - range.start() + 1) as usize) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_fit_their_worlds_and_change_with_the_seed() {
        let tables = Tables::builtin().unwrap();
        for row in &KINDS {
            for number in 0..20 {
                let draw = |seed| Plan::draw(row, number, seed, &tables).unwrap();
                let (plan, again, other) = (draw(1), draw(1), draw(2));
                assert_eq!((plan.seed, &plan.spec), (again.seed, &again.spec));
                assert_ne!(plan.seed, other.seed);
                for (_, culprit) in &plan.expected {
                    match culprit {
                        Culprit::Rank(rank) => assert!(*rank < plan.world.ranks),
                        Culprit::Host(host) => assert!(*host < plan.world.hosts),
                        _ => {}
                    }
                }
                assert!(!plan.spec.is_empty() && plan.expected.len() == 1);
                assert!(plan.from_step.is_none_or(|step| step < STEPS));
                let of_classes: u32 = plan.classes.iter().map(|class| class.ranks).sum();
                assert!(plan.classes.is_empty() || of_classes == plan.world.ranks);
                let rates = plan.classes.iter().map(|class| class.relative_rate);
                assert!(rates.is_sorted(), "the slower class comes first");
            }
        }
    }
}
