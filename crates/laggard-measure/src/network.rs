//! The synthetic transformer as kernels on one rank's memory. All layers are linear: no softmax, no
//! activation function, no norm. What remains is the arithmetic that a training step is made of:
//! forward, and a backward that computes the true gradients of the loss.
//!
//! Per layer, with residual stream `x` (one row per token):
//!
//! ```text
//! q k v   = x Wqkv
//! s       = q k^T / (length sqrt(head_dim))       per sequence and head, the full square
//! r       = x + (s v) Wo
//! u       = r Wup (+ r Wgate)
//! x'      = r + u Wdown
//! ```
//!
//! and after the last layer `loss = |x Whead - target|^2 / (2 length)` per sequence. In a mixture
//! of experts, `u` and what becomes of it are the mean over a token's experts, and the router's
//! outputs add `|r Wrouter|^2 / (2 length)` to the loss.
//!
//! Ranks that share a layer hold parts of its matrices, of its tokens or of its experts; what they
//! exchange is in `exchange.rs`. Where several ranks' addends make the residual stream, each adds
//! the stream's old value for its own share of the rows, so that the sum has it once.
//!
//! Knows matrices and kernels; nothing of queues, schedules or time.

mod attention;
mod exchange;
mod experts;
mod feed_forward;
mod gemm;
mod head;

use crate::memory::{Index, Memory, Region, updated};
use crate::portion::Portion;
use crate::shape::Weight;
use crate::tokens::{Tokens, share};
pub(crate) use exchange::{next, previous};
use gemm::{Gemm, No, Yes, added, gemm};
use laggard_backend::{BackendError, Kernel, Matrix, Slice};
use laggard_schedule::{Part, Phase};
use laggard_types::DataType;
use std::ops::Range;

/// Kernels, or why a matrix does not fit its memory.
type Kernels = Result<Vec<Kernel>, BackendError>;

/// One micro-batch as far as kernels depend on it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Batch {
    /// Position within the step.
    pub micro_batch: usize,
    /// This rank's tokens.
    pub tokens: Tokens,
    /// Tokens of the ranks that share the experts, this one included.
    pub peers: Vec<Tokens>,
    /// Weight of each of its sequences in the gradient.
    pub weight: f32,
}

/// The model on one rank's memory.
#[derive(Debug)]
pub(crate) struct Network {
    portion: Portion,
    memory: Memory,
}

impl Network {
    /// A network on memory that fits it.
    pub(crate) fn new(portion: Portion, memory: Memory) -> Self {
        Self { portion, memory }
    }

    /// The rank's memory.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What the rank holds.
    pub(crate) fn portion(&self) -> &Portion {
        &self.portion
    }

    /// The arithmetic of some parts of a layer, given in the order of forward; none means all.
    /// Layer `layers` is the head. Backward comes after that of the layer above: it turns the
    /// gradient of the layer's output into that of its input, and adds to the gradients of weights.
    pub(crate) fn kernels(
        &self,
        phase: Phase,
        layer: usize,
        parts: &[Part],
        batch: &Batch,
    ) -> Kernels {
        let all;
        let parts = match parts.is_empty() {
            true => {
                all = self.parts(layer);
                &all
            }
            false => parts,
        };
        let mut kernels = Vec::new();
        match phase {
            Phase::Backward => {
                for part in parts.iter().rev() {
                    kernels.extend(self.backward(*part, layer, batch)?);
                }
            }
            _ => {
                for part in parts {
                    kernels.extend(self.forward(*part, layer, batch)?);
                }
            }
        }
        Ok(kernels)
    }

    /// The parts of a layer, in the order of forward.
    pub(crate) fn parts(&self, layer: usize) -> Vec<Part> {
        let model = &self.portion.model;
        if layer == model.layers {
            return vec![Part::Head];
        }
        let (qkv, attention) = (Part::Qkv, Part::Attention);
        match model.experts {
            None => vec![qkv, attention, Part::FeedForward],
            Some(_) => vec![qkv, attention, Part::Dispatch, Part::Experts, Part::Combine],
        }
    }

    fn forward(&self, part: Part, layer: usize, batch: &Batch) -> Kernels {
        match part {
            Part::Qkv => self.qkv_forward(layer, batch),
            Part::Attention => self.attention_forward(layer, batch),
            Part::FeedForward => self.feed_forward(layer, batch),
            Part::Dispatch => self.dispatch_forward(layer, batch),
            Part::Experts => self.experts_forward(layer, batch),
            Part::Combine => self.combine_forward(layer, batch),
            Part::Head => self.head_forward(layer, batch),
        }
    }

    fn backward(&self, part: Part, layer: usize, batch: &Batch) -> Kernels {
        match part {
            Part::Qkv => self.qkv_backward(layer, batch),
            Part::Attention => self.attention_backward(layer, batch),
            Part::FeedForward => self.feed_forward_backward(layer, batch),
            Part::Dispatch => self.dispatch_backward(layer, batch),
            Part::Experts => self.experts_backward(layer, batch),
            Part::Combine => self.combine_backward(layer, batch),
            Part::Head => self.head_backward(layer, batch),
        }
    }

    /// One update of all parameters that this rank updates.
    pub(crate) fn optimizer(&self, learning_rate: f32) -> Kernels {
        let mut kernels = Vec::new();
        for bucket in &self.portion.buckets {
            let (parameters, gradients, range) = updated(bucket);
            let parameters = self.flat(parameters, range.clone())?;
            let is_main = parameters.data_type() == DataType::F32;
            let main = match is_main {
                true => parameters.clone(),
                false => self.flat(Region::MainParameters, bucket.moments.clone())?,
            };
            kernels.push(Kernel::Adam {
                parameters: main.clone(),
                gradients: self.flat(gradients, range)?,
                first_moments: self.flat(Region::FirstMoments, bucket.moments.clone())?,
                second_moments: self.flat(Region::SecondMoments, bucket.moments.clone())?,
                learning_rate,
            });
            if !is_main {
                kernels.push(Kernel::Copy {
                    from: main,
                    to: parameters,
                });
            }
        }
        Ok(kernels)
    }

    /// The squared norm of the gradients that this rank updates with.
    pub(crate) fn norm(&self) -> Kernels {
        let norm = self.flat(Region::Norm, 0..1)?;
        let mut kernels = Vec::new();
        for (index, bucket) in self.portion.buckets.iter().enumerate() {
            let (_, gradients, range) = updated(bucket);
            kernels.push(Kernel::SquaredNorm {
                from: self.flat(gradients, range)?,
                to: norm.clone(),
                accumulate: index > 0,
            });
        }
        Ok(kernels)
    }

    /// Adds the shard of a later micro-batch's gradients to that of earlier ones.
    pub(crate) fn accumulate(&self, bucket: usize) -> Kernels {
        let range = || self.portion.buckets[bucket].sharded.clone();
        Ok(vec![Kernel::Add {
            from: self.flat(Region::GradientArrivals, range())?,
            to: self.flat(Region::GradientShards, range())?,
        }])
    }

    /// `output = input + addends`, where `addends` are kernels that write to, or add to, a matrix
    /// of all tokens. Where ranks share the layer, this makes this rank's addend of the sum.
    fn join(
        &self,
        (input, output): (Matrix, Matrix),
        batch: &Batch,
        addends: impl FnOnce(Matrix, bool) -> Vec<Kernel>,
    ) -> Kernels {
        if self.portion.tensor.of == 1 {
            let mut kernels = vec![Kernel::Copy {
                from: input.slice,
                to: output.slice.clone(),
            }];
            kernels.extend(addends(output, true));
            return Ok(kernels);
        }
        let (own, to) = (
            self.own_rows(batch),
            match self.portion.sequence_parallel {
                true => self.tokens_of(Region::Partial, batch)?,
                false => output,
            },
        );
        let mut kernels = addends(to.clone(), false);
        kernels.extend(self.add_own_rows(input, to, own)?);
        Ok(kernels)
    }

    /// The gradient of a block's input: that of its output, and addends `a b^T`.
    fn back(&self, layer: usize, batch: &Batch, addends: Vec<(Matrix, Matrix)>) -> Kernels {
        let d_stream = self.stream_gradient(layer, batch)?;
        if self.portion.tensor.of == 1 {
            let add = |(a, b)| added((a, No), (b, Yes), d_stream.clone());
            return Ok(addends.into_iter().map(add).collect());
        }
        let to = self.tokens_of(Region::PartialGradient, batch)?;
        let mut kernels = Vec::new();
        for (index, (a, b)) in addends.into_iter().enumerate() {
            kernels.push(gemm(Gemm {
                a: (a, No),
                b: (b, Yes),
                c: to.clone(),
                scale: 1.0,
                accumulate: index > 0,
            }));
        }
        kernels.extend(self.add_own_rows(d_stream, to, self.own_rows(batch))?);
        Ok(kernels)
    }

    /// Adds this rank's share of the residual stream's rows to a matrix of all tokens.
    fn add_own_rows(&self, from: Matrix, to: Matrix, own: Range<usize>) -> Kernels {
        if own.is_empty() {
            return Ok(Vec::new());
        }
        let width = self.portion.model.hidden;
        let elements = own.start * width..own.end * width;
        Ok(vec![Kernel::Add {
            from: match self.portion.sequence_parallel {
                true => from.slice,
                false => from.slice.part(elements.clone())?,
            },
            to: to.slice.part(elements)?,
        }])
    }

    /// Rows of all tokens that are this rank's among those that share each matrix.
    fn own_rows(&self, batch: &Batch) -> Range<usize> {
        let tensor = self.portion.tensor;
        share(batch.tokens.count(), tensor.of, tensor.index)
    }

    /// `dW (+)= scale * input^T output`.
    fn gradient(
        &self,
        (layer, weight): (usize, Weight),
        batch: &Batch,
        (input, output): (&Matrix, &Matrix),
        scale: f32,
    ) -> Result<Kernel, BackendError> {
        Ok(gemm(Gemm {
            a: (input.clone(), Yes),
            b: (output.clone(), No),
            c: self.weight_in(Region::Gradients, layer, weight)?,
            scale,
            accumulate: self.adds_up((layer, weight), batch),
        }))
    }

    /// Whether a micro-batch's gradients are added to what is there.
    fn adds_up(&self, (layer, weight): (usize, Weight), batch: &Batch) -> bool {
        batch.micro_batch > 0 && self.portion.accumulates(layer, weight)
    }

    fn parameter(&self, layer: usize, weight: Weight) -> Result<Matrix, BackendError> {
        self.weight_in(Region::Parameters, layer, weight)
    }

    fn weight_in(
        &self,
        region: Region,
        layer: usize,
        weight: Weight,
    ) -> Result<Matrix, BackendError> {
        let unknown = || BackendError::Unknown {
            what: format!("{weight:?} of layer {layer}"),
        };
        let range = self.portion.weight(layer, weight).ok_or_else(unknown)?;
        let (rows, columns) = self.portion.own.size(weight);
        Ok(Matrix {
            slice: self.flat(region, range)?,
            rows,
            columns,
            row_stride: columns,
        })
    }

    /// What a block computes on: the stream, of all tokens.
    fn block_input(&self, stream: Matrix, batch: &Batch) -> Result<Matrix, BackendError> {
        match self.portion.sequence_parallel {
            true => self.tokens_of(Region::Gathered, batch),
            false => Ok(stream),
        }
    }

    /// Gradient of what a block puts out, of all tokens.
    fn output_gradient(&self, layer: usize, batch: &Batch) -> Result<Matrix, BackendError> {
        match self.portion.sequence_parallel {
            true => self.tokens_of(Region::GatheredGradient, batch),
            false => self.stream_gradient(layer, batch),
        }
    }

    /// The residual stream that enters a layer.
    fn stream(&self, layer: usize, batch: &Batch) -> Result<Matrix, BackendError> {
        let (region, index) = match layer {
            0 => (Region::Input, (batch.micro_batch, 0)),
            // A piece's output is in the slots of the layer below.
            _ => (Region::Stream, (layer, self.slot_below(layer, batch))),
        };
        let rows = self.stream_range(batch).len();
        self.matrix(region, index, rows, self.portion.model.hidden)
    }

    fn stream_gradient(&self, layer: usize, batch: &Batch) -> Result<Matrix, BackendError> {
        let chunk = self.portion.chunk_of(layer);
        let index = (chunk, batch.micro_batch % self.portion.slots[chunk]);
        let rows = self.stream_range(batch).len();
        self.matrix(
            Region::StreamGradient,
            index,
            rows,
            self.portion.model.hidden,
        )
    }

    /// Which of this rank's tokens are rows of its residual stream.
    pub(crate) fn stream_range(&self, batch: &Batch) -> Range<usize> {
        match self.portion.sequence_parallel {
            true => self.own_rows(batch),
            false => 0..batch.tokens.count(),
        }
    }

    /// A matrix of residual rows that backward needs.
    fn kept_rows(
        &self,
        region: Region,
        layer: usize,
        batch: &Batch,
    ) -> Result<Matrix, BackendError> {
        let rows = self.stream_range(batch).len();
        let index = self.kept(layer, batch);
        self.matrix(region, index, rows, self.portion.model.hidden)
    }

    fn wide(&self, region: Region, layer: usize, batch: &Batch) -> Result<Matrix, BackendError> {
        let index = match region {
            Region::FeedForward => self.kept(layer, batch),
            _ => (0, 0),
        };
        let rows = batch.tokens.count();
        self.matrix(region, index, rows, self.portion.own.ffn_hidden)
    }

    fn logits(&self, batch: &Batch) -> Result<Matrix, BackendError> {
        let (rows, columns) = (batch.tokens.count(), self.portion.own.vocabulary);
        self.matrix(Region::Logits, (0, 0), rows, columns)
    }

    /// A matrix of one row of the stream's width per token.
    fn tokens_of(&self, region: Region, batch: &Batch) -> Result<Matrix, BackendError> {
        let rows = batch.tokens.count();
        self.matrix(region, (0, 0), rows, self.portion.model.hidden)
    }

    /// Where activations that backward needs are kept.
    fn kept(&self, layer: usize, batch: &Batch) -> Index {
        match self.portion.recomputed.contains(&layer) {
            true => (0, 0),
            false => {
                let chunk = self.portion.chunk_of(layer);
                (layer, batch.micro_batch % self.portion.slots[chunk])
            }
        }
    }

    /// The slot of what enters a layer: also the layer above a piece has one.
    fn slot_below(&self, layer: usize, batch: &Batch) -> usize {
        let chunks = &self.portion.chunks;
        let chunk = chunks
            .iter()
            .position(|range| (range.start..=range.end).contains(&layer));
        batch.micro_batch % self.portion.slots[chunk.unwrap_or(0)]
    }

    /// The first rows of a dense matrix.
    fn matrix(
        &self,
        region: Region,
        index: Index,
        rows: usize,
        columns: usize,
    ) -> Result<Matrix, BackendError> {
        let slice = Slice::new(self.memory.buffer(region, index)?, 0..rows * columns)?;
        Ok(Matrix {
            slice,
            rows,
            columns,
            row_stride: columns,
        })
    }

    /// A range of a region that has one buffer.
    fn flat(&self, region: Region, range: Range<usize>) -> Result<Slice, BackendError> {
        Slice::new(self.memory.buffer(region, (0, 0))?, range)
    }
}

#[cfg(test)]
mod tests;
