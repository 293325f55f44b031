//! The buffers of one rank: parameters with gradients and moments, and the activations of the
//! micro-batches under way. Knows sizes and first values, no arithmetic.

mod needs;

use crate::portion::{PlacedBucket, Portion};
use crate::shape::Weight;
use crate::stream::{Purpose, generator};
use laggard_backend::{BackendError, Buffer, Device, Slice};
use laggard_stats::Rng;
use laggard_types::DataType;
use needs::{Need, needs};
use std::collections::BTreeMap;
use std::ops::Range;

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Region {
    /// All weights, bucket by bucket.
    Parameters,
    /// Their gradients.
    Gradients,
    /// This rank's shards of the parameters.
    ParameterShards,
    /// This rank's shards of the gradients.
    GradientShards,
    /// Shards of the gradients of a later micro-batch, before they are added.
    GradientArrivals,
    /// What this rank updates, in `f32`, where parameters are kept in something narrower; there
    /// they are rounded from here.
    MainParameters,
    /// Adam's first moments.
    FirstMoments,
    /// Adam's second moments.
    SecondMoments,
    /// The squared norm of the gradients.
    Norm,
    /// Activations that enter layer 0, per micro-batch.
    Input,
    /// Activations that enter a layer (from layer 1) or the head.
    Stream,
    /// Queries.
    Query,
    /// Keys and values, of all ranks that share the sequences.
    KeyValue,
    /// Attention scores, per sequence and head.
    Scores,
    /// Scores times values.
    Context,
    /// The residual stream after attention.
    Residual,
    /// The wide activations of the feed-forward part.
    FeedForward,
    /// The router's outputs.
    RouterLogits,
    /// Tokens that came to this rank's experts.
    ExpertInput,
    /// The wide activations of the experts.
    ExpertHidden,
    /// The head's outputs, and then their error.
    Logits,
    /// What the head should put out, negated, for one sequence.
    NegativeTargets,
    /// All tokens of activations that ranks share.
    Gathered,
    /// All tokens of their gradient.
    GatheredGradient,
    /// This rank's addend of activations.
    Partial,
    /// This rank's addend of their gradient.
    PartialGradient,
    /// Keys and values of this rank's tokens.
    KeyValueOwn,
    /// Tokens sorted by expert, on their way there, or their gradients back.
    Dispatched,
    /// What experts made of them, or its gradient.
    ExpertOutput,
    /// The same, back where the tokens came from.
    Combined,
    /// Gradient of the residual stream.
    StreamGradient,
    /// Gradient of the wide activations.
    FeedForwardGradient,
    /// Gradient of the context.
    ContextGradient,
    /// Gradient of the queries.
    QueryGradient,
    /// Gradient of all keys and values.
    KeyValueGradient,
    /// Gradient of those of this rank's tokens.
    KeyValueGradientOwn,
    /// Gradient of the scores of one head.
    ScoreGradient,
    /// Gradient of the experts' wide activations.
    ExpertHiddenGradient,
    /// Gradient of the tokens that came to experts.
    ExpertInputGradient,
}

/// The largest micro-batch that memory is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Micro-batches of one step of this rank.
    pub micro_batches: usize,
    /// Sequences of a micro-batch.
    pub sequences: usize,
    /// Tokens of the longest sequence.
    pub length: usize,
}

/// Which of a region's buffers: a layer (or piece, or micro-batch), and the slot of the
/// micro-batch.
pub(crate) type Index = (usize, usize);

/// One rank's buffers.
#[derive(Debug)]
pub(crate) struct Memory {
    buffers: BTreeMap<(Region, Index), Buffer>,
}

impl Memory {
    /// Zeroed buffers on a device.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub(crate) fn allocate(
        device: &dyn Device,
        portion: &Portion,
        capacity: Capacity,
    ) -> Result<Self, BackendError> {
        let mut buffers = BTreeMap::new();
        for need in needs(portion, capacity) {
            for index in need.indices {
                let buffer = device.allocate(need.data_type, need.elements)?;
                buffers.insert((need.region, index), buffer);
            }
        }
        Ok(Self { buffers })
    }

    /// Bytes that [`Memory::allocate`] takes.
    pub(crate) fn bytes(portion: &Portion, capacity: Capacity) -> u64 {
        let bytes = |need: Need| {
            let elements = (need.indices.len() as u64).saturating_mul(need.elements as u64);
            elements.saturating_mul(need.data_type.size_bytes() as u64)
        };
        let all = needs(portion, capacity).into_iter().map(bytes);
        all.fold(0, u64::saturating_add)
    }

    /// A buffer.
    ///
    /// # Errors
    /// [`BackendError::Unknown`] if there is none.
    pub(crate) fn buffer(&self, region: Region, index: Index) -> Result<&Buffer, BackendError> {
        self.buffers
            .get(&(region, index))
            .ok_or_else(|| BackendError::Unknown {
                what: format!("buffer {region:?} {index:?}"),
            })
    }

    /// All buffers.
    #[cfg(test)]
    pub(crate) fn buffers(&self) -> &BTreeMap<(Region, Index), Buffer> {
        &self.buffers
    }

    /// Gives parameters and targets their first values: numbers of the whole model, of which each
    /// rank takes its part, so that they are the same in every layout. They are uniform, so wide
    /// that activations keep about the size of the inputs (variance 1 / fan-in; where a branch
    /// joins the residual stream also divided by the number of branches, as GPT-2 does: Radford et
    /// al. 2019, section 2.3).
    ///
    /// # Errors
    /// If work is using the buffers.
    pub(crate) fn initialize(&self, portion: &Portion, seed: u64) -> Result<(), BackendError> {
        let parameters = self.buffer(Region::Parameters, (0, 0))?;
        for (layer, weight, range) in portion.weights() {
            let values = first_values(portion, (layer, weight), seed);
            write(&Slice::new(parameters, range)?, &values)?;
        }
        for bucket in &portion.buckets {
            if let Some(shard) = bucket.shard {
                let len = bucket.sharded.len();
                let start = bucket.range.start + shard.index * len;
                let own = Slice::new(parameters, start..start + len)?;
                let shards = self.buffer(Region::ParameterShards, (0, 0))?;
                let shard = Slice::new(shards, bucket.sharded.clone())?;
                shard.write_numbers(&own.read_numbers()?)?;
            }
            if let Ok(main) = self.buffer(Region::MainParameters, (0, 0)) {
                let (parameters, _, range) = updated(bucket);
                let updated = Slice::new(self.buffer(parameters, (0, 0))?, range)?;
                let main = Slice::new(main, bucket.moments.clone())?;
                main.write_numbers(&updated.read_numbers()?)?;
            }
        }
        let Ok(targets) = self.buffer(Region::NegativeTargets, (0, 0)) else {
            return Ok(());
        };
        let mut rng = generator(seed, Purpose::Targets, 0, 0);
        let (whole, own) = (portion.model.vocabulary, portion.own.vocabulary);
        let columns = portion.tensor.index * own..(portion.tensor.index + 1) * own;
        let rows = targets.len() / own;
        let values = cut(
            0..rows,
            (rows, whole),
            std::slice::from_ref(&columns),
            || uniform(1.0, &mut rng),
        );
        write(&Slice::whole(targets), &values)
    }
}

/// What the optimizer updates of a bucket: where the parameters and their gradients are, and which
/// elements of either.
pub(crate) fn updated(bucket: &PlacedBucket) -> (Region, Region, Range<usize>) {
    match bucket.shard {
        Some(_) => (
            Region::ParameterShards,
            Region::GradientShards,
            bucket.sharded.clone(),
        ),
        None => (Region::Parameters, Region::Gradients, bucket.range.clone()),
    }
}

/// Writes numbers, rounded to what the memory holds.
///
/// # Errors
/// As [`Slice::write`].
pub(crate) fn write(to: &Slice, values: &[f32]) -> Result<(), BackendError> {
    match to.data_type() {
        DataType::F32 => to.write_f32(values),
        _ => to.write_numbers(&values.iter().copied().map(f64::from).collect::<Vec<_>>()),
    }
}

/// First values of this rank's part of a weight.
fn first_values(portion: &Portion, (layer, weight): (usize, Weight), seed: u64) -> Vec<f32> {
    let model = &portion.model;
    let branches = match weight {
        Weight::Output | Weight::Down | Weight::ExpertDown(_) => 2 * model.layers,
        _ => 1,
    };
    let (rows, columns) = model.size(weight);
    let variance = 1.0 / (rows * branches) as f64;
    let mut rng = generator(
        seed,
        Purpose::Weights,
        layer as u32,
        number(portion, weight),
    );
    let (own_rows, own_columns) = portion.place_in_model(weight);
    cut(own_rows, (rows, columns), &own_columns, || {
        uniform(variance, &mut rng)
    })
}

/// The number of a weight within its layer, the same on every rank.
fn number(portion: &Portion, weight: Weight) -> u32 {
    let expert = |own: usize, which: u32| {
        let expert = portion.experts_of(portion.expert.index).start + own;
        16 + 4 * expert as u32 + which
    };
    match weight {
        Weight::Qkv => 0,
        Weight::Output => 1,
        Weight::Up => 2,
        Weight::Gate => 3,
        Weight::Down => 4,
        Weight::Router => 5,
        Weight::Head => 6,
        Weight::ExpertUp(own) => expert(own, 0),
        Weight::ExpertGate(own) => expert(own, 1),
        Weight::ExpertDown(own) => expert(own, 2),
    }
}

/// Draws a matrix row by row, and keeps some rows and columns of it.
fn cut(
    rows: std::ops::Range<usize>,
    size: (usize, usize),
    columns: &[std::ops::Range<usize>],
    mut draw: impl FnMut() -> f32,
) -> Vec<f32> {
    let mut kept = Vec::new();
    let mut line = vec![0.0; size.1];
    for row in 0..size.0 {
        line.iter_mut().for_each(|value| *value = draw());
        if rows.contains(&row) {
            columns
                .iter()
                .for_each(|range| kept.extend_from_slice(&line[range.clone()]));
        }
    }
    kept
}

/// A uniform number of mean 0.
pub(crate) fn uniform(variance: f64, rng: &mut Rng) -> f32 {
    ((2.0 * rng.uniform() - 1.0) * (3.0 * variance).sqrt()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Job;
    use crate::testing;

    #[test]
    fn narrow_parameters_are_rounded_from_those_that_are_updated() {
        let device = testing::gpu("NVIDIA H200");
        for zero in [false, true] {
            let mut settings = testing::settings(2, 1);
            settings.data_type = DataType::Bf16;
            if zero {
                settings.layout.zero = laggard_schedule::Zero::Gradients;
            }
            let job = Job::on(&settings, &[device.clone(), device.clone()], &[]).unwrap();
            let portion = job.portion(1).unwrap();
            // Processors hold any type, though they do not compute in it.
            let world = laggard_backend::threads::worlds(1, &Default::default()).unwrap();
            let memory = Memory::allocate(&*world[0].device, &portion, job.capacity(1)).unwrap();
            memory.initialize(&portion, 1).unwrap();
            let numbers = |region| {
                let buffer = memory.buffer(region, (0, 0)).unwrap();
                (
                    buffer.data_type(),
                    Slice::whole(buffer).read_numbers().unwrap(),
                )
            };
            let (main_type, main) = numbers(Region::MainParameters);
            assert_eq!(main_type, DataType::F32);
            assert_eq!(numbers(Region::FirstMoments).0, DataType::F32);
            assert_eq!(numbers(Region::Gradients).0, DataType::Bf16);
            let (_, parameters) = numbers(Region::Parameters);
            assert!(parameters.iter().any(|value| *value != 0.0));
            if !zero {
                assert_eq!(main, parameters);
            }
            for bucket in &portion.buckets {
                let (region, _, range) = updated(bucket);
                assert_eq!(main[bucket.moments.clone()], numbers(region).1[range]);
            }
            let held = memory.buffers().values();
            let bytes = held.map(|it| it.len() as u64 * it.data_type().size_bytes() as u64);
            assert_eq!(Memory::bytes(&portion, job.capacity(1)), bytes.sum::<u64>());
        }
    }
}
