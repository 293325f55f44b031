//! The layouts that a number of equal accelerators can train a model with, and the fastest of them.
//!
//! Every combination of degrees is evaluated, some thousands at microseconds each, and nothing is
//! cut off by a rule of thumb: the fastest is the fastest of the space. Degrees are powers of two;
//! pipelines also have as many stages as divide the layers evenly, or the layers with the embedding
//! and the head counted as one each. Contexts are not shared out.

use laggard_schedule::Zero;
use laggard_simulate::{
    Constants, Degrees, ForecastClass, Job, Machine, Precision, Shape, Software, StepTime, predict,
};
use laggard_specs::{MemoryLayout, Model, Recompute, SpecsError, memory_of_stage, memory_per_rank};
use laggard_types::format_bytes;
use std::collections::BTreeMap;
use thiserror::Error;

/// Share of a device's memory that a job may plan with. An assumption, not a measurement: the rest
/// is for the driver, buffers of communication and what the allocator cannot use.
pub(crate) const USABLE_MEMORY: f64 = 0.92;
/// Widest pipeline that is tried.
const MOST_STAGES: u32 = 64;
/// Largest micro-batch that is tried, in sequences.
const MOST_SEQUENCES: u32 = 16;

/// By how much a layout may miss the batch. An assumption: replicas rarely divide it.
pub const BATCH_TOLERANCE: f64 = 0.05;
/// Widest tensor parallelism that is tried: wider than a box of eight is not in use.
const MOST_TENSOR: u32 = 8;
/// Devices of a host where nobody says.
const USUAL_NODE: u32 = 8;

/// What a job asks for.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The model.
    pub model: &'a Model,
    /// Tokens of a sequence.
    pub sequence_length: u32,
    /// Sequences of a step.
    pub global_batch: u64,
    /// By which share of them a layout may have more.
    pub batch_excess: f64,
    /// By which share of them a layout may have fewer; 1 where they are a limit.
    pub batch_shortfall: f64,
    /// Arithmetic of the products.
    pub precision: Precision,
    /// What the framework does.
    pub software: Software,
}

/// Which layouts are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Ranks of the job. Layouts that leave some of them without work are tried too.
    pub ranks: u64,
    /// Widest tensor parallelism: the devices that the fabric of a box or rack joins.
    pub most_tensor: u32,
}

impl Space {
    /// The layouts of so many ranks on devices of some classes: tensor parallelism stays within the
    /// fabric of a box or rack, or within a host.
    #[must_use]
    pub fn of<'c>(ranks: u64, classes: impl Iterator<Item = &'c ForecastClass>) -> Self {
        let widths = classes.map(|class| {
            let node = class.devices_per_node.map(u32::try_from);
            let node = node.and_then(Result::ok).unwrap_or(USUAL_NODE);
            class.machine.fabric.domain_ranks().max(node)
        });
        Self {
            ranks,
            most_tensor: widths.fold(MOST_TENSOR, u32::min).max(1),
        }
    }
}

/// The slowest machine of some classes with the least memory of all: what fits there fits on each.
pub fn weakest<'c>(classes: impl Iterator<Item = &'c ForecastClass> + Clone) -> Option<Machine> {
    let machines = || classes.clone().map(|class| &class.machine);
    let slowest = machines().min_by(|a, b| a.half_peak.total_cmp(&b.half_peak))?;
    let memory = machines().map(|it| it.memory_bytes);
    Some(Machine {
        memory_bytes: memory.fold(f64::MAX, f64::min),
        ..slowest.clone()
    })
}

/// A layout with what it is predicted to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The layout.
    pub degrees: Degrees,
    /// Its step.
    pub step: StepTime,
    /// Memory of the rank that needs most, bytes.
    pub memory_bytes: u64,
    /// Ranks that have no work, because no product of degrees is the number of ranks.
    pub idle: u64,
}

/// The best layouts, and what there was to choose from.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The fastest, in tokens per second; at most as many as asked for.
    pub best: Vec<Candidate>,
    /// Layouts whose step was predicted.
    pub evaluated: u64,
    /// Layouts that do not fit in memory.
    pub too_large: u64,
}

/// Why there is no layout.
#[derive(Debug, Error)]
pub enum NoLayout {
    /// Memory does not suffice.
    #[error(
        "no layout of {model} on {ranks} devices fits in memory: the smallest needs {} of {} on \
         each\nhint: use more devices, or devices with more memory",
        format_bytes(*needed),
        format_bytes(*available)
    )]
    Memory {
        /// The model.
        model: String,
        /// Ranks of the job.
        ranks: u64,
        /// What the layout that needs least needs.
        needed: u64,
        /// What may be planned with.
        available: u64,
    },
    /// No degrees divide.
    #[error(
        "no layout of {model} on {ranks} devices with a batch of {batch} sequences\nhint: the \
         batch must be a multiple of the replicas"
    )]
    Shape {
        /// The model.
        model: String,
        /// Ranks of the job.
        ranks: u64,
        /// Sequences of a step.
        batch: u64,
    },
    /// The layout that was asked for does not fit in memory.
    #[error(
        "the layout does not fit in memory: the rank that needs most needs {} of {}, {} of it for \
         {what}\nhint: `recompute`, `zero1` or more stages need less",
        format_bytes(*needed),
        format_bytes(*available),
        format_bytes(*largest)
    )]
    TooLarge {
        /// What it needs.
        needed: u64,
        /// What may be planned with.
        available: u64,
        /// What most of it is for.
        what: &'static str,
        /// How much that is.
        largest: u64,
    },
    /// The layout that was asked for does not fit the model.
    #[error(transparent)]
    Specs(#[from] SpecsError),
}

/// Memory of the rank that needs most under a given layout, bytes.
///
/// # Errors
/// A layout that does not fit the model or the machine's memory.
pub fn memory_of_layout(
    demand: &Demand<'_>,
    degrees: &Degrees,
    machine: &Machine,
) -> Result<u64, NoLayout> {
    let layout = degrees.memory_layout(demand.sequence_length);
    let need = memory_per_rank(&padded(demand.model, degrees), &layout)?;
    let (needed, available) = (need.total().0, usable(machine));
    let (what, largest) = need.largest();
    match needed <= available {
        true => Ok(needed),
        false => Err(NoLayout::TooLarge {
            needed,
            available,
            what,
            largest: largest.0,
        }),
    }
}

/// The model with more layers, as many as fill all pieces of a pipeline.
fn padded(model: &Model, degrees: &Degrees) -> Model {
    let pieces = u64::from(degrees.pipeline) * u64::from(degrees.virtual_stages);
    Model {
        layers: model.layers.next_multiple_of(pieces),
        ..model.clone()
    }
}

fn usable(machine: &Machine) -> u64 {
    (machine.memory_bytes * USABLE_MEMORY) as u64
}

/// Evaluates every layout of a space, and gives the `count` fastest that fit in memory.
///
/// # Errors
/// Where none fits, or none divides the batch.
pub fn fastest_layouts(
    demand: &Demand<'_>,
    space: Space,
    machine: &Machine,
    constants: &Constants,
    count: usize,
) -> Result<Found, NoLayout> {
    let available = usable(machine);
    let mut search = Search {
        demand,
        machine,
        constants,
        shape: Shape::of(demand.model),
        available,
        smallest: u64::MAX,
        found: Found {
            best: Vec::new(),
            evaluated: 0,
            too_large: 0,
        },
        count,
        padded: BTreeMap::new(),
        limit: None,
    };
    for_each(demand, space, &mut |degrees| {
        search.consider(degrees, space.ranks)
    });
    search.keep_best();
    if !search.found.best.is_empty() {
        return Ok(search.found);
    }
    let (model, ranks) = (demand.model.id.clone(), space.ranks);
    Err(match search.smallest {
        u64::MAX => NoLayout::Shape {
            model,
            ranks,
            batch: demand.global_batch,
        },
        needed => NoLayout::Memory {
            model,
            ranks,
            needed,
            available,
        },
    })
}

struct Search<'a> {
    demand: &'a Demand<'a>,
    machine: &'a Machine,
    constants: &'a Constants,
    shape: Shape,
    available: u64,
    /// Least memory that a layout needs.
    smallest: u64,
    found: Found,
    count: usize,
    /// Models with so many layers.
    padded: BTreeMap<u64, Model>,
    /// Seconds of a sequence that a layout must beat.
    limit: Option<f64>,
}

impl Search<'_> {
    fn consider(&mut self, degrees: Degrees, ranks: u64) {
        let layout = degrees.memory_layout(self.demand.sequence_length);
        let pieces = u64::from(degrees.pipeline) * u64::from(degrees.virtual_stages);
        let model = self.demand.model;
        let padded = self
            .padded
            .entry(model.layers.next_multiple_of(pieces))
            .or_insert_with(|| padded(model, &degrees));
        let Ok(memory_bytes) = most_memory(padded, &layout) else {
            return;
        };
        self.smallest = self.smallest.min(memory_bytes);
        if memory_bytes > self.available {
            self.found.too_large += 1;
            return;
        }
        let job = Job {
            shape: self.shape,
            degrees,
            sequence_length: self.demand.sequence_length,
            precision: self.demand.precision,
            software: self.demand.software,
        };
        self.found.evaluated += 1;
        let candidate = Candidate {
            degrees,
            step: predict(&job, self.machine, self.constants),
            memory_bytes,
            idle: ranks - degrees.ranks(),
        };
        if self
            .limit
            .is_some_and(|limit| per_sequence(&candidate) >= limit)
        {
            return;
        }
        self.found.best.push(candidate);
        if self.found.best.len() > 2 * self.count {
            self.keep_best();
        }
    }

    /// Keeps the fastest of those found so far, the first of equals first.
    fn keep_best(&mut self) {
        let best = &mut self.found.best;
        best.sort_by(|a, b| per_sequence(a).total_cmp(&per_sequence(b)));
        best.truncate(self.count);
        if best.len() == self.count {
            self.limit = best.last().map(per_sequence);
        }
    }
}

/// Memory of the rank that needs most, where all pieces have equally many layers. Where these are
/// alike too, the first stage keeps the most activations and has the embedding, and of the others
/// only the last has more than layers.
fn most_memory(model: &Model, layout: &MemoryLayout) -> Result<u64, SpecsError> {
    let experts = model.experts.as_ref();
    if experts.is_some_and(|it| it.dense_layers > 0 || it.every > 1) {
        return memory_per_rank(model, layout).map(|need| need.total().0);
    }
    let of = |stage| memory_of_stage(model, layout, stage).map(|need| need.total().0);
    Ok(of(0)?.max(of(layout.pipeline_parallel - 1)?))
}

/// Seconds of a sequence: what layouts are compared by.
fn per_sequence(candidate: &Candidate) -> f64 {
    candidate.step.total_s / candidate.degrees.global_batch() as f64
}

/// Calls `each` with every layout of a space, in a fixed order: simple ones first.
fn for_each(demand: &Demand<'_>, space: Space, each: &mut dyn FnMut(Degrees)) {
    let model = demand.model;
    let divides = |all: u64, part: u32| all.is_multiple_of(part.into());
    let tensors = powers(space.most_tensor).filter(|&tensor| divides(model.heads, tensor));
    for tensor in tensors {
        let is_even =
            |pieces: u32| divides(model.layers, pieces) || divides(model.layers + 2, pieces);
        let stages = (1..=MOST_STAGES).filter(|&stages| {
            u64::from(stages) <= model.layers && (stages.is_power_of_two() || is_even(stages))
        });
        for pipeline in stages {
            for virtual_stages in [1, 2, 4] {
                let pieces = pipeline * virtual_stages;
                if virtual_stages > 1 && (pipeline == 1 || !is_even(pieces)) {
                    continue;
                }
                for expert in experts(model) {
                    let ends = (tensor, pipeline, virtual_stages, expert);
                    replicas(demand, space, ends, each);
                }
            }
        }
    }
}

/// The number of replicas, micro-batches, sharding and recomputation for given degrees of the rest.
fn replicas(
    demand: &Demand<'_>,
    space: Space,
    (tensor, pipeline, virtual_stages, expert): (u32, u32, u32, u32),
    each: &mut dyn FnMut(Degrees),
) {
    let wide = u64::from(tensor) * u64::from(pipeline);
    for micro_batch in powers(MOST_SEQUENCES) {
        let batches = demand.global_batch / u64::from(micro_batch);
        // Interleaved pipelines take rounds of as many micro-batches as they have stages.
        let round = if virtual_stages > 1 { pipeline } else { 1 };
        let most = space.ranks / wide;
        let Some((data, micro_batches)) = batches_of(most, batches, (expert, round), demand) else {
            continue;
        };
        for zero in [Zero::None, Zero::Optimizer, Zero::Parameters] {
            if zero == Zero::Parameters && (pipeline > 1 || tensor > 1) {
                continue;
            }
            for recompute in [Recompute::None, Recompute::Attention, Recompute::Layers] {
                each(Degrees {
                    tensor,
                    context: 1,
                    pipeline,
                    data: data as u32,
                    expert,
                    virtual_stages,
                    micro_batch,
                    micro_batches: micro_batches as u32,
                    sequence_parallel: tensor > 1,
                    zero,
                    shard_ranks: None,
                    recompute,
                });
            }
        }
    }
}

/// Replicas and micro-batches of each, for `batches` in all: as many replicas as there can be, or
/// where that misses the batch by too much, as many as divide it. Replicas come in groups that
/// share experts, micro-batches in rounds.
fn batches_of(
    most: u64,
    batches: u64,
    (expert, round): (u32, u32),
    demand: &Demand<'_>,
) -> Option<(u64, u64)> {
    let (expert, round) = (u64::from(expert), u64::from(round));
    let all = most.min(batches / round) / expert * expert;
    if all > 0 {
        let rounds = batches as f64 / (all * round) as f64;
        let fits = |each: u64| {
            let off = (all * each) as f64 / batches as f64 - 1.0;
            each > 0 && off <= demand.batch_excess && -off <= demand.batch_shortfall
        };
        let each = [rounds.round(), rounds.floor()].map(|rounds| rounds as u64 * round);
        if let Some(each) = each.into_iter().find(|&each| fits(each)) {
            return Some((all, each));
        }
    }
    let divides =
        |replicas: u64| replicas.is_multiple_of(expert) && batches.is_multiple_of(replicas * round);
    let data = (1..=most.min(batches)).rev().find(|&it| divides(it))?;
    Some((data, batches / data))
}

pub(crate) fn powers(most: u32) -> impl Iterator<Item = u32> {
    (0..32)
        .map(|power| 1_u32 << power)
        .take_while(move |it| *it <= most)
}

fn experts(model: &Model) -> Vec<u32> {
    match &model.experts {
        None => vec![1],
        Some(experts) => powers(64)
            .filter(|&it| experts.count.is_multiple_of(it.into()))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
