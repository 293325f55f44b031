//! What is put into runs: kinds of faults, and the ranges that sizes are drawn from.

use crate::busy;
use crate::world::{PLAIN, STEPS, WORLDS, World, groups};
use anyhow::{Context, Result};
use laggard_analyze::{Cause, Culprit};
use laggard_measure::{ClassShare, Fault};
use laggard_specs::{RateBasis, Tables};
use laggard_stats::Rng;
use std::ops::RangeInclusive;

/// What is wrong with a run. Their order numbers the streams of random numbers: new ones come last.
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
    SlowStage,
    LargeHead,
}

/// One kind with what is drawn for it.
#[derive(Debug)]
pub(crate) struct Row {
    pub kind: Kind,
    pub name: &'static str,
    /// The worlds in which it can be found.
    fits: fn(&World) -> bool,
    /// Factor, sigma, milliseconds or coefficient of variation; unused where nothing is injected.
    size: RangeInclusive<f64>,
}

/// Sizes are meant to be three times the A/A noise of a quiet machine or more; how many times they
/// really were, the campaign prints.
pub(crate) const KINDS: [Row; 13] = [
    row(Kind::SlowRank, "slow-rank", any, 1.10..=1.50),
    row(Kind::SlowRankFrom, "slow-rank-from", plain, 1.15..=1.50),
    row(Kind::SlowHost, "slow-host", hosts, 1.10..=1.50),
    row(Kind::SlowBackward, "slow-backward", plain, 1.15..=1.60),
    row(Kind::JitterOfOne, "jitter-of-one", any, 0.15..=0.50),
    row(Kind::JitterOfAll, "jitter-of-all", plain, 0.20..=0.50),
    row(Kind::Pause, "pause", plain, 10.0..=30.0),
    row(Kind::Ragged, "ragged", plain, 0.20..=0.60),
    row(Kind::Mixed, "mixed", even, 1.0..=1.0),
    row(
        Kind::MixedAndSlow,
        "mixed-and-slow",
        plain_hosts,
        1.15..=1.50,
    ),
    // Processes: with one of them the rank has half of its processor.
    row(Kind::BusyNeighbour, "busy-neighbour", plain_pair, 1.0..=1.0),
    row(Kind::SlowStage, "slow-stage", pipeline, 1.15..=1.50),
    row(Kind::LargeHead, "large-head", large_head, 1.0..=1.0),
];

fn any(_: &World) -> bool {
    true
}

/// A large head makes stages differ by more than classes do.
fn even(world: &World) -> bool {
    !world.has_large_head()
}

fn plain(world: &World) -> bool {
    world.group == PLAIN
}

fn hosts(world: &World) -> bool {
    world.compares_hosts()
}

fn plain_hosts(world: &World) -> bool {
    plain(world) && hosts(world)
}

fn plain_pair(world: &World) -> bool {
    plain(world) && world.ranks().is_ok_and(|ranks| ranks == 2)
}

fn pipeline(world: &World) -> bool {
    world.is_pipeline()
}

fn large_head(world: &World) -> bool {
    world.has_large_head()
}

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
    fits: fn(&World) -> bool,
    size: RangeInclusive<f64>,
) -> Row {
    Row {
        kind,
        name,
        fits,
        size,
    }
}

impl Row {
    /// Whether this machine can make such runs: a rank that shares its processor with ranks of its
    /// own run anyway has no busy neighbour.
    pub(crate) fn is_possible(&self) -> bool {
        self.kind != Kind::BusyNeighbour || busy::processors() >= 2
    }

    /// The worlds of a group in which it can be found.
    fn worlds(&self, group: &str) -> Vec<World> {
        let mut worlds = WORLDS.to_vec();
        worlds.retain(|world| world.group == group && (self.fits)(world));
        worlds
    }

    fn draw_size(&self, rng: &mut Rng) -> f64 {
        self.size.start() + rng.uniform() * (self.size.end() - self.size.start())
    }

    /// A slow rank of the faster class hides behind the slower class, and one of a short stage
    /// behind the longest: it costs nothing, and nobody must find it. The slower class has the
    /// first half of the ranks, the last stage the last ones.
    fn draw_rank(&self, world: &World, rng: &mut Rng) -> Result<u32> {
        let (ranks, stages) = (world.ranks()?, world.stages()?);
        let choice = match self.kind {
            Kind::MixedAndSlow => 0..ranks / 2,
            _ if world.has_large_head() => ranks - ranks / stages..ranks,
            _ => 0..ranks,
        };
        Ok(choice.start + rng.below(choice.len()) as u32)
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
    /// Undisturbed run `number` of a group. Every one has a seed of its own.
    pub(crate) fn clean(group: &str, number: u32, seed: u64) -> Result<Self> {
        let mut rng = Rng::for_stream(seed, stream(group, 0, number));
        let mut worlds = WORLDS.to_vec();
        worlds.retain(|world| world.group == group && even(world));
        Ok(Self {
            kind: "clean",
            world: *turn(&worlds, number).context("a group without worlds")?,
            seed: rng.next_u64() >> 1,
            faults: Vec::new(),
            classes: Vec::new(),
            busy_neighbour_of: None,
            spec: String::new(),
            expected: Vec::new(),
            from_step: None,
            effect: Effect::Relative(0.0),
        })
    }

    /// Draws trial `number` of a kind in a group: the same for the same seed, whatever else is run.
    /// None where the group has no world for the kind.
    pub(crate) fn draw(
        row: &Row,
        group: &str,
        (number, seed): (u32, u64),
        tables: &Tables,
    ) -> Result<Option<Self>> {
        let Some(world) = turn(&row.worlds(group), number).copied() else {
            return Ok(None);
        };
        let mut rng = Rng::for_stream(seed, stream(group, row.kind as u64 + 1, number));
        let mut plan = Self::clean(PLAIN, 0, rng.next_u64())?;
        plan.kind = row.name;
        plan.world = world;
        let drawn = Drawn {
            size: row.draw_size(&mut rng),
            rank: row.draw_rank(&world, &mut rng)?,
            host: rng.below(world.hosts as usize) as u32,
            every: between(&PAUSE_EVERY, &mut rng),
            from: between(&FROM, &mut rng),
            mix: MIXES[rng.below(MIXES.len())],
            stage: draw_stage(&world, &mut rng)?,
        };
        let (fault, cause, culprit, effect) = drawn.truth(row.kind);
        plan.effect = effect;
        match row.kind {
            Kind::Mixed => plan.effect = plan.mix(drawn.mix, tables)?,
            Kind::MixedAndSlow => _ = plan.mix(drawn.mix, tables)?,
            Kind::SlowRankFrom => plan.from_step = Some(drawn.from),
            Kind::LargeHead => plan.spec = "a large head".to_owned(),
            Kind::BusyNeighbour => {
                plan.busy_neighbour_of = Some(drawn.rank);
                plan.spec = format!("a busy process on the processor of rank {}", drawn.rank);
            }
            _ => {}
        }
        plan.inject(&fault)?;
        plan.expected.push((cause, culprit));
        Ok(Some(plan))
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
        let half = self.world.ranks()? / 2;
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
    mix: (&'static str, &'static str),
    stage: u32,
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
            Kind::SlowStage => {
                let fault = format!("slow-stage:{}:{size:.3}", self.stage);
                (fault, Cause::SlowStage, Culprit::Stage(self.stage), slow)
            }
            Kind::LargeHead => {
                let last = Culprit::Stage(self.stage);
                (String::new(), Cause::LastStage, last, slow)
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

/// A world's turn among those of its group.
fn turn(worlds: &[World], number: u32) -> Option<&World> {
    worlds.get(number as usize % worlds.len().max(1))
}

/// A stream of random numbers for each trial of each kind in each group.
fn stream(group: &str, kind: u64, number: u32) -> u64 {
    let names = groups();
    let group = names.iter().position(|name| *name == group).unwrap_or(0) as u64;
    group << 48 | kind << 32 | u64::from(number)
}

/// A large head hides what is slow in other stages.
fn draw_stage(world: &World, rng: &mut Rng) -> Result<u32> {
    let stages = world.stages()?;
    let any = rng.below(stages as usize) as u32;
    Ok(match world.has_large_head() {
        true => stages - 1,
        false => any,
    })
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
        for (row, group) in KINDS
            .iter()
            .flat_map(|row| groups().into_iter().map(move |g| (row, g)))
        {
            for number in 0..20 {
                let draw = |seed| Plan::draw(row, group, (number, seed), &tables).unwrap();
                let (Some(plan), Some(again), Some(other)) = (draw(1), draw(1), draw(2)) else {
                    assert!(row.worlds(group).is_empty());
                    continue;
                };
                assert_eq!((plan.seed, &plan.spec), (again.seed, &again.spec));
                assert_ne!(plan.seed, other.seed);
                let (ranks, stages) = (plan.world.ranks().unwrap(), plan.world.stages().unwrap());
                for (_, culprit) in &plan.expected {
                    match culprit {
                        Culprit::Rank(rank) => assert!(*rank < ranks),
                        Culprit::Host(host) => assert!(*host < plan.world.hosts),
                        Culprit::Stage(stage) => assert!(*stage < stages && stages > 1),
                        _ => {}
                    }
                }
                assert!(!plan.spec.is_empty() && plan.expected.len() == 1);
                assert!(plan.from_step.is_none_or(|step| step < STEPS));
                let of_classes: u32 = plan.classes.iter().map(|class| class.ranks).sum();
                assert!(plan.classes.is_empty() || of_classes == ranks);
                let rates = plan.classes.iter().map(|class| class.relative_rate);
                assert!(rates.is_sorted(), "the slower class comes first");
            }
        }
    }

    /// The campaign of plain data parallelism can be repeated from its published seeds.
    #[test]
    fn draws_of_plain_layouts_stay_as_they_were() {
        let tables = Tables::builtin().unwrap();
        let draw = |row| Plan::draw(row, PLAIN, (0, 7071), &tables).unwrap().unwrap();
        let specs = KINDS[..3].iter().map(|row| draw(row).spec);
        let specs: Vec<String> = specs.collect();
        // benches/runs/2026-11-21-amd-epyc-zen5/recall/trials_7071.csv
        assert_eq!(
            specs,
            [
                "slow-rank:0:1.222",
                "slow-rank:0:1.289+from=84",
                "slow-host:0:1.425"
            ]
        );
    }
}
