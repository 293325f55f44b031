//! The matrices of the synthetic transformer and where their gradients lie. Knows sizes, no memory.

use crate::MeasureError;
use laggard_schedule::{OperationKind, Phase, Schedule};
use laggard_types::Rank;
use std::ops::Range;

/// Bytes of an element: the job computes in `f32`.
pub(crate) const ELEMENT_BYTES: u64 = 4;

/// Sizes of a decoder-only transformer without biases, norms and activation functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Transformer layers; the output head comes on top.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the feed-forward part.
    pub ffn_hidden: usize,
    /// Whether the feed-forward part has a gate matrix beside up and down.
    pub gated: bool,
    /// Outputs of the head.
    pub vocabulary: usize,
}

/// A weight matrix of one layer, `y = x W` with `W` of `rows x columns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Query, key and value projections side by side.
    Qkv,
    /// Output projection of attention.
    Output,
    /// First feed-forward matrix.
    Up,
    /// Gate of the feed-forward part.
    Gate,
    /// Second feed-forward matrix.
    Down,
    /// The output head.
    Head,
}

impl Shape {
    /// Width of all query heads together.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together; values are as wide.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Width of query, key and value together.
    pub(crate) fn qkv_width(&self) -> usize {
        self.query_width() + 2 * self.kv_width()
    }

    /// Weights of a layer in the order in which they lie in memory; layer `layers` is the head.
    pub(crate) fn weights(&self, layer: usize) -> &'static [Weight] {
        match (layer == self.layers, self.gated) {
            (true, _) => &[Weight::Head],
            (false, true) => &[
                Weight::Qkv,
                Weight::Output,
                Weight::Up,
                Weight::Gate,
                Weight::Down,
            ],
            (false, false) => &[Weight::Qkv, Weight::Output, Weight::Up, Weight::Down],
        }
    }

    /// Rows and columns of a weight.
    pub(crate) fn size(&self, weight: Weight) -> (usize, usize) {
        match weight {
            Weight::Qkv => (self.hidden, self.qkv_width()),
            Weight::Output => (self.query_width(), self.hidden),
            Weight::Up | Weight::Gate => (self.hidden, self.ffn_hidden),
            Weight::Down => (self.ffn_hidden, self.hidden),
            Weight::Head => (self.hidden, self.vocabulary),
        }
    }

    /// Parameters of a layer; layer `layers` is the head.
    pub(crate) fn parameters(&self, layer: usize) -> usize {
        self.weights(layer)
            .iter()
            .map(|weight| self.elements(*weight))
            .sum()
    }

    fn elements(&self, weight: Weight) -> usize {
        let (rows, columns) = self.size(weight);
        rows * columns
    }
}

/// Where each layer's parameters lie in one flat range, and which part of it each gradient bucket
/// is. Read out of the schedule: buckets hold layers in the order in which backward finishes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placement {
    shape: Shape,
    /// First element of each layer.
    first: Vec<usize>,
    /// Range of each bucket.
    buckets: Vec<Range<usize>>,
}

impl Placement {
    /// Places layers along the buckets of a rank's program.
    ///
    /// # Errors
    /// [`MeasureError::Unsupported`] if the buckets do not hold whole layers of this model.
    pub(crate) fn new(shape: Shape, schedule: &Schedule, rank: Rank) -> Result<Self, MeasureError> {
        let operations = || {
            schedule
                .program(rank)
                .iter()
                .map(|id| &schedule.operations[*id as usize])
        };
        let mut first = vec![None; shape.layers + 1];
        let mut end = 0;
        for operation in operations().filter(|o| o.phase == Phase::Backward) {
            let layer = operation.layer.map_or(usize::MAX, |layer| layer as usize);
            let slot = first.get_mut(layer).ok_or_else(|| {
                MeasureError::unsupported(operation, "the model does not have its layer")
            })?;
            if slot.is_none() {
                *slot = Some(end);
                end += shape.parameters(layer);
            }
        }
        let mut buckets: Vec<Range<usize>> = Vec::new();
        for operation in operations().filter(|o| matches!(o.kind, OperationKind::Collective(_))) {
            let start = buckets.last().map_or(0, |last| last.end);
            let len = (operation.bytes / ELEMENT_BYTES) as usize;
            if operation.bucket.map(|bucket| bucket as usize) != Some(buckets.len()) {
                return Err(MeasureError::unsupported(
                    operation,
                    "its bucket is out of order",
                ));
            }
            buckets.push(start..start + len);
        }
        let covered = buckets.last().map_or(0, |last| last.end);
        let first: Option<Vec<usize>> = first.into_iter().collect();
        match first {
            Some(first) if covered == end => Ok(Self {
                shape,
                first,
                buckets,
            }),
            _ => Err(MeasureError::WrongBuckets {
                reduced: covered,
                parameters: end,
            }),
        }
    }

    /// The model's sizes.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Elements of a bucket.
    pub(crate) fn bucket(&self, bucket: usize) -> Option<Range<usize>> {
        self.buckets.get(bucket).cloned()
    }

    /// Elements of a weight; `None` where the layer has no such weight.
    pub(crate) fn weight(&self, layer: usize, weight: Weight) -> Option<Range<usize>> {
        let mut start = *self.first.get(layer)?;
        for other in self.shape.weights(layer) {
            let end = start + self.shape.elements(*other);
            if *other == weight {
                return Some(start..end);
            }
            start = end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use laggard_schedule::Layout;

    #[test]
    fn every_parameter_lies_in_one_bucket() {
        for overlap in [true, false] {
            let layout = Layout {
                bucket_bytes: 3000,
                overlap,
                ..Layout::data_parallel(2, 2)
            };
            let (shape, schedule) = testing::tiny_job(&layout);
            let placement = Placement::new(shape, &schedule, 1).unwrap();
            let total = (0..=shape.layers)
                .map(|layer| shape.parameters(layer))
                .sum();
            let mut covered = vec![0; total];
            for layer in 0..=shape.layers {
                for weight in shape.weights(layer) {
                    let range = placement.weight(layer, *weight).unwrap();
                    covered[range].iter_mut().for_each(|times| *times += 1);
                }
            }
            assert!(covered.iter().all(|times| *times == 1));
            assert!(
                placement.bucket(1).is_some(),
                "the test needs more than one bucket"
            );
            let head = placement.weight(shape.layers, Weight::Head).unwrap();
            assert_eq!(head.start, 0, "backward begins at the head");
            assert_eq!(placement.weight(0, Weight::Head), None);
        }
    }
}
