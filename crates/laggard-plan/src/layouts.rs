//! The layouts that a number of equal accelerators can train a model with, and the fastest of them.
//!
//! Every combination of degrees is judged, and nothing is cut off by a rule of thumb: the fastest
//! is the fastest of the space. Most are judged by a bound on their time, in the order of which the
//! others are predicted. Degrees are powers of two; pipelines also have as many stages as divide
//! the layers evenly, or the layers with the embedding and the head counted as one each, and as
//! many pieces of a stage. Of what backward may compute again, only as much counts as memory asks
//! for: more takes longer.

mod search;
mod space;

use laggard_simulate::{Constants, Degrees, ForecastClass, Machine, Precision, Software, StepTime};
use laggard_specs::{MemoryLayout, Model, SpecsError, memory_per_rank};
use laggard_types::format_bytes;
use search::Search;
pub(crate) use space::powers;
use thiserror::Error;

/// Share of a device's memory that a job may plan with. An assumption, not a measurement: the rest
/// is for the driver, buffers of communication and what the allocator cannot use.
pub(crate) const USABLE_MEMORY: f64 = 0.92;

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
    let slowest = machines().min_by(|a, b| a.paced_peak().total_cmp(&b.paced_peak()))?;
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
#[derive(Debug, Clone, PartialEq, Default)]
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
    let need = memory_per_rank(demand.model, &demand.memory_layout(degrees))?;
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

impl Demand<'_> {
    /// A layout as the count of memory takes it.
    pub(crate) fn memory_layout(&self, degrees: &Degrees) -> MemoryLayout {
        MemoryLayout {
            keeps_scores: self.software.attention.keeps_scores(),
            ..degrees.memory_layout(self.sequence_length)
        }
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
    let mut search = Search::new(demand, (machine, available), constants, count);
    let mut bounded = Vec::new();
    space::for_each(demand, space, &mut |degrees| {
        bounded.push((search.bound(&degrees), degrees));
    });
    // The most promising first, so that of most nothing but the bound need be known.
    bounded.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (bound, degrees) in bounded {
        if !search.may_be_fast(bound) {
            break;
        }
        search.consider(degrees, space.ranks);
    }
    let (found, smallest) = search.finish();
    if !found.best.is_empty() {
        return Ok(found);
    }
    let (model, ranks) = (demand.model.id.clone(), space.ranks);
    Err(match smallest {
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

#[cfg(test)]
mod tests;
