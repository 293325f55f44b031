//! The buffers of one rank: parameters with gradients and moments, and the activations of one
//! micro-batch. Knows sizes and first values, no arithmetic.

use crate::shape::{ELEMENT_BYTES, Placement, Shape, Weight};
use laggard_backend::{BackendError, Buffer, Device, Slice};
use laggard_stats::Rng;
use laggard_types::DataType;
use std::collections::BTreeMap;

/// What a buffer is for. Most regions have one buffer per layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Region {
    /// All weights, bucket by bucket.
    Parameters,
    /// Their gradients.
    Gradients,
    /// Adam's first moments.
    FirstMoments,
    /// Adam's second moments.
    SecondMoments,
    /// Activations that enter layer 0, per micro-batch.
    Input,
    /// Activations that enter a layer (from layer 1) or the head.
    Stream,
    /// Queries, keys and values.
    Qkv,
    /// Attention scores, per sequence and head.
    Scores,
    /// Scores times values.
    Context,
    /// The residual stream after attention.
    Residual,
    /// The wide activations of the feed-forward part.
    FeedForward,
    /// The head's outputs, and then their error.
    Logits,
    /// What the head should put out, negated, for one sequence.
    NegativeTargets,
    /// Gradient of the residual stream.
    StreamGradient,
    /// Gradient of the wide activations.
    FeedForwardGradient,
    /// Gradient of the context.
    ContextGradient,
    /// Gradient of queries, keys and values.
    QkvGradient,
    /// Gradient of the scores of one head.
    ScoreGradient,
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

/// One rank's buffers.
#[derive(Debug)]
pub(crate) struct Memory {
    buffers: BTreeMap<(Region, usize), Buffer>,
}

/// Region, first index, number of buffers, elements of each.
type Need = (Region, usize, usize, usize);

impl Memory {
    /// Zeroed buffers on a device.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub(crate) fn allocate(
        device: &dyn Device,
        shape: &Shape,
        capacity: Capacity,
    ) -> Result<Self, BackendError> {
        let mut buffers = BTreeMap::new();
        for (region, first, count, len) in needs(shape, capacity) {
            for index in first..first + count {
                buffers.insert((region, index), device.allocate(DataType::F32, len)?);
            }
        }
        Ok(Self { buffers })
    }

    /// Bytes that [`Memory::allocate`] takes.
    pub(crate) fn bytes(shape: &Shape, capacity: Capacity) -> u64 {
        let elements = |(_, _, count, len): Need| (count as u64).saturating_mul(len as u64);
        let total = needs(shape, capacity)
            .into_iter()
            .map(elements)
            .fold(0, u64::saturating_add);
        total.saturating_mul(ELEMENT_BYTES)
    }

    /// A buffer.
    ///
    /// # Errors
    /// [`BackendError::Unknown`] if there is none.
    pub(crate) fn buffer(&self, region: Region, index: usize) -> Result<&Buffer, BackendError> {
        self.buffers
            .get(&(region, index))
            .ok_or_else(|| BackendError::Unknown {
                what: format!("buffer {region:?} {index}"),
            })
    }

    /// All buffers.
    #[cfg(test)]
    pub(crate) fn buffers(&self) -> &BTreeMap<(Region, usize), Buffer> {
        &self.buffers
    }

    /// Gives parameters and targets their first values, the same for the same seed on every rank:
    /// uniform, so wide that activations keep about the size of the inputs (variance 1 / fan-in;
    /// where a branch joins the residual stream also divided by the number of branches, as GPT-2
    /// does: Radford et al. 2019, section 2.3).
    ///
    /// # Errors
    /// If work is using the buffers.
    pub(crate) fn initialize(&self, placement: &Placement, seed: u64) -> Result<(), BackendError> {
        let shape = placement.shape();
        let mut rng = Rng::new(seed);
        let parameters = self.buffer(Region::Parameters, 0)?;
        for layer in 0..=shape.layers {
            for weight in shape.weights(layer) {
                let range = placement.weight(layer, *weight).unwrap_or_default();
                let branches = match weight {
                    Weight::Output | Weight::Down => 2 * shape.layers,
                    _ => 1,
                };
                let variance = 1.0 / (shape.size(*weight).0 * branches) as f64;
                fill(&Slice::new(parameters, range)?, variance, &mut rng)?;
            }
        }
        fill(
            &Slice::whole(self.buffer(Region::NegativeTargets, 0)?),
            1.0,
            &mut rng,
        )
    }
}

/// Fills with uniform numbers of mean 0.
fn fill(slice: &Slice, variance: f64, rng: &mut Rng) -> Result<(), BackendError> {
    let values: Vec<f32> = (0..slice.len).map(|_| uniform(variance, rng)).collect();
    slice.write_f32(&values)
}

/// A uniform number of mean 0.
pub(crate) fn uniform(variance: f64, rng: &mut Rng) -> f32 {
    ((2.0 * rng.uniform() - 1.0) * (3.0 * variance).sqrt()) as f32
}

/// What a shape and capacity need; what cannot be counted saturates, and cannot be had.
fn needs(shape: &Shape, capacity: Capacity) -> Vec<Need> {
    let Capacity {
        micro_batches,
        sequences,
        length,
    } = capacity;
    let layers = shape.layers;
    let square = length.saturating_mul(length);
    let rows = |width: usize| sequences.saturating_mul(length).saturating_mul(width);
    let parameters = (0..=layers).map(|layer| shape.parameters(layer)).sum();
    vec![
        (Region::Parameters, 0, 1, parameters),
        (Region::Gradients, 0, 1, parameters),
        (Region::FirstMoments, 0, 1, parameters),
        (Region::SecondMoments, 0, 1, parameters),
        (Region::Input, 0, micro_batches, rows(shape.hidden)),
        (Region::Stream, 1, layers, rows(shape.hidden)),
        (Region::Qkv, 0, layers, rows(shape.qkv_width())),
        (
            Region::Scores,
            0,
            layers,
            square.saturating_mul(sequences).saturating_mul(shape.heads),
        ),
        (Region::Context, 0, layers, rows(shape.query_width())),
        (Region::Residual, 0, layers, rows(shape.hidden)),
        (Region::FeedForward, 0, layers, rows(shape.ffn_hidden)),
        (Region::Logits, 0, 1, rows(shape.vocabulary)),
        (
            Region::NegativeTargets,
            0,
            1,
            length.saturating_mul(shape.vocabulary),
        ),
        (Region::StreamGradient, 0, 1, rows(shape.hidden)),
        (Region::FeedForwardGradient, 0, 1, rows(shape.ffn_hidden)),
        (Region::ContextGradient, 0, 1, rows(shape.query_width())),
        (Region::QkvGradient, 0, 1, rows(shape.qkv_width())),
        (Region::ScoreGradient, 0, 1, square),
    ]
}
