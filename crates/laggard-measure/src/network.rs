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
//! and after the last layer `loss = |x Whead - target|^2 / (2 length)` per sequence. Knows matrices
//! and kernels; nothing of queues, schedules or time.

use crate::memory::{Memory, Region};
use crate::shape::{Placement, Shape, Weight};
use laggard_backend::{BackendError, Kernel, Matrix, Slice, Transpose};
use std::ops::Range;

/// Kernels, or why a matrix does not fit its memory.
type Kernels = Result<Vec<Kernel>, BackendError>;

/// One micro-batch as far as kernels depend on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Batch {
    /// Position within the step.
    pub micro_batch: usize,
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each sequence.
    pub length: usize,
    /// Weight of each of its sequences in the gradient.
    pub weight: f32,
}

impl Batch {
    fn tokens(&self) -> usize {
        self.sequences * self.length
    }
}

/// The model on one rank's memory.
#[derive(Debug)]
pub(crate) struct Network {
    placement: Placement,
    memory: Memory,
}

/// `c = scale * op(a) * op(b)`, or `c += ...`.
struct Gemm {
    a: (Matrix, Transpose),
    b: (Matrix, Transpose),
    c: Matrix,
    scale: f32,
    accumulate: bool,
}

/// The matrices of one head of one sequence.
struct Head {
    query: Matrix,
    key: Matrix,
    value: Matrix,
    scores: Matrix,
    context: Matrix,
}

use Transpose::{No, Yes};

impl Network {
    /// A network on memory that fits it.
    pub(crate) fn new(placement: Placement, memory: Memory) -> Self {
        Self { placement, memory }
    }

    /// The rank's memory.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where parameters lie.
    pub(crate) fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Forward of one layer; layer `layers` is the head.
    pub(crate) fn forward(&self, layer: usize, batch: Batch) -> Kernels {
        let (tokens, shape) = (batch.tokens(), self.shape());
        let stream = self.stream(layer, batch)?;
        if layer == shape.layers {
            let logits = self.rows(Region::Logits, 0, tokens, shape.vocabulary)?;
            return Ok(vec![product(
                stream,
                self.parameter(layer, Weight::Head)?,
                logits,
            )]);
        }
        let qkv = self.rows(Region::Qkv, layer, tokens, shape.qkv_width())?;
        let context = self.rows(Region::Context, layer, tokens, shape.query_width())?;
        let residual = self.rows(Region::Residual, layer, tokens, shape.hidden)?;
        let ffn = self.rows(Region::FeedForward, layer, tokens, shape.ffn_hidden)?;
        let next = self.rows(Region::Stream, layer + 1, tokens, shape.hidden)?;
        let weight = |weight| self.parameter(layer, weight);

        let mut kernels = vec![product(stream.clone(), weight(Weight::Qkv)?, qkv)];
        let scale = score_scale(shape, batch);
        for head in self.heads(layer, batch, (Region::Qkv, Region::Context))? {
            let Head {
                query,
                key,
                value,
                scores,
                context,
            } = head;
            kernels.push(scaled((query, No), (key, Yes), scores.clone(), scale));
            kernels.push(product(scores, value, context));
        }
        kernels.push(Kernel::Copy {
            from: stream.slice,
            to: residual.slice.clone(),
        });
        kernels.push(added(
            (context, No),
            (weight(Weight::Output)?, No),
            residual.clone(),
        ));
        kernels.push(product(residual.clone(), weight(Weight::Up)?, ffn.clone()));
        if shape.gated {
            let gate = weight(Weight::Gate)?;
            kernels.push(added((residual.clone(), No), (gate, No), ffn.clone()));
        }
        kernels.push(Kernel::Copy {
            from: residual.slice,
            to: next.slice.clone(),
        });
        kernels.push(added((ffn, No), (weight(Weight::Down)?, No), next));
        Ok(kernels)
    }

    /// Backward of one layer, after that of the layer above: turns the gradient of the layer's
    /// output into that of its input, and adds to the gradients of its weights.
    pub(crate) fn backward(&self, layer: usize, batch: Batch) -> Kernels {
        if layer == self.shape().layers {
            return self.head_backward(batch);
        }
        let (tokens, shape) = (batch.tokens(), self.shape());
        let stream = self.stream(layer, batch)?;
        let residual = self.rows(Region::Residual, layer, tokens, shape.hidden)?;
        let context = self.rows(Region::Context, layer, tokens, shape.query_width())?;
        let ffn = self.rows(Region::FeedForward, layer, tokens, shape.ffn_hidden)?;
        let d_stream = self.rows(Region::StreamGradient, 0, tokens, shape.hidden)?;
        let d_ffn = self.rows(Region::FeedForwardGradient, 0, tokens, shape.ffn_hidden)?;
        let d_context = self.rows(Region::ContextGradient, 0, tokens, shape.query_width())?;
        let d_qkv = self.rows(Region::QkvGradient, 0, tokens, shape.qkv_width())?;
        let weight = |weight| self.parameter(layer, weight);
        let gradient = |weight, input: &Matrix, output: &Matrix| {
            self.gradient((layer, weight), batch, (input, output), 1.0)
        };

        let mut kernels = vec![gradient(Weight::Down, &ffn, &d_stream)?];
        let down = weight(Weight::Down)?;
        kernels.push(scaled(
            (d_stream.clone(), No),
            (down, Yes),
            d_ffn.clone(),
            1.0,
        ));
        for name in shape.weights(layer) {
            if matches!(name, Weight::Up | Weight::Gate) {
                kernels.push(gradient(*name, &residual, &d_ffn)?);
                let back = (weight(*name)?, Yes);
                kernels.push(added((d_ffn.clone(), No), back, d_stream.clone()));
            }
        }
        kernels.push(gradient(Weight::Output, &context, &d_stream)?);
        let output = weight(Weight::Output)?;
        kernels.push(scaled(
            (d_stream.clone(), No),
            (output, Yes),
            d_context,
            1.0,
        ));
        kernels.extend(self.attention_backward(layer, batch)?);
        kernels.push(gradient(Weight::Qkv, &stream, &d_qkv)?);
        kernels.push(added((d_qkv, No), (weight(Weight::Qkv)?, Yes), d_stream));
        Ok(kernels)
    }

    /// One update of all parameters.
    pub(crate) fn optimizer(&self, learning_rate: f32) -> Kernels {
        let whole = |region| Ok(Slice::whole(self.memory.buffer(region, 0)?));
        Ok(vec![Kernel::Adam {
            parameters: whole(Region::Parameters)?,
            gradients: whole(Region::Gradients)?,
            first_moments: whole(Region::FirstMoments)?,
            second_moments: whole(Region::SecondMoments)?,
            learning_rate,
        }])
    }

    /// A range of the gradients, such as a bucket.
    ///
    /// # Errors
    /// If the range is not within the gradients.
    pub(crate) fn gradients(&self, range: Range<usize>) -> Result<Slice, BackendError> {
        Slice::new(self.memory.buffer(Region::Gradients, 0)?, range)
    }

    fn shape(&self) -> &Shape {
        self.placement.shape()
    }

    fn head_backward(&self, batch: Batch) -> Kernels {
        let (tokens, shape) = (batch.tokens(), self.shape());
        let layer = shape.layers;
        let stream = self.stream(layer, batch)?;
        let error = self.rows(Region::Logits, 0, tokens, shape.vocabulary)?;
        let d_stream = self.rows(Region::StreamGradient, 0, tokens, shape.hidden)?;
        let scale = batch.weight / batch.length as f32;
        // Every sequence has the same target, whichever rank works on it.
        let sequence = batch.length * shape.vocabulary;
        let target = self.memory.buffer(Region::NegativeTargets, 0)?;
        let target = Slice::new(target, 0..sequence)?;
        let mut kernels = Vec::new();
        for first in (0..batch.sequences).map(|index| index * sequence) {
            let to = error.slice.part(first..first + sequence)?;
            kernels.push(Kernel::Add {
                from: target.clone(),
                to,
            });
        }
        kernels.push(self.gradient((layer, Weight::Head), batch, (&stream, &error), scale)?);
        let head = self.parameter(layer, Weight::Head)?;
        kernels.push(scaled((error, No), (head, Yes), d_stream, scale));
        Ok(kernels)
    }

    fn attention_backward(&self, layer: usize, batch: Batch) -> Kernels {
        let shape = self.shape();
        let scale = score_scale(shape, batch);
        let of_output = (Region::QkvGradient, Region::ContextGradient);
        let gradients = self.heads_of(layer, 0, batch, of_output)?;
        let values = self.heads(layer, batch, (Region::Qkv, Region::Context))?;
        let d_scores = self.rows(Region::ScoreGradient, 0, batch.length, batch.length)?;
        let heads_per_kv = shape.heads / shape.kv_heads;
        let mut kernels = Vec::new();
        for (index, (value, gradient)) in values.into_iter().zip(gradients).enumerate() {
            // Query heads that share a key head add up in its gradient.
            let accumulate = !index.is_multiple_of(heads_per_kv);
            let context = gradient.context;
            let d_score = || d_scores.clone();
            kernels.push(scaled(
                (context.clone(), No),
                (value.value, Yes),
                d_score(),
                1.0,
            ));
            kernels.push(gemm(Gemm {
                a: (value.scores, Yes),
                b: (context, No),
                c: gradient.value,
                scale: 1.0,
                accumulate,
            }));
            kernels.push(scaled(
                (d_score(), No),
                (value.key, No),
                gradient.query,
                scale,
            ));
            kernels.push(gemm(Gemm {
                a: (d_score(), Yes),
                b: (value.query, No),
                c: gradient.key,
                scale,
                accumulate,
            }));
        }
        Ok(kernels)
    }

    /// `dW (+)= scale * input^T output`: the first micro-batch replaces, later ones add.
    fn gradient(
        &self,
        of: (usize, Weight),
        batch: Batch,
        (input, output): (&Matrix, &Matrix),
        scale: f32,
    ) -> Result<Kernel, BackendError> {
        Ok(gemm(Gemm {
            a: (input.clone(), Yes),
            b: (output.clone(), No),
            c: self.weight_in(Region::Gradients, of.0, of.1)?,
            scale,
            accumulate: batch.micro_batch > 0,
        }))
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
        let range = self.placement.weight(layer, weight).unwrap_or_default();
        let (rows, columns) = self.shape().size(weight);
        let slice = Slice::new(self.memory.buffer(region, 0)?, range)?;
        Ok(Matrix {
            slice,
            rows,
            columns,
            row_stride: columns,
        })
    }

    /// The residual stream that enters a layer.
    fn stream(&self, layer: usize, batch: Batch) -> Result<Matrix, BackendError> {
        let (tokens, hidden) = (batch.tokens(), self.shape().hidden);
        match layer {
            0 => self.rows(Region::Input, batch.micro_batch, tokens, hidden),
            _ => self.rows(Region::Stream, layer, tokens, hidden),
        }
    }

    /// The first rows of a dense matrix.
    fn rows(
        &self,
        region: Region,
        index: usize,
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

    fn heads(
        &self,
        layer: usize,
        batch: Batch,
        regions: (Region, Region),
    ) -> Result<Vec<Head>, BackendError> {
        self.heads_of(layer, layer, batch, regions)
    }

    /// All heads of all sequences, with `layer`'s scores and entry `index` of the regions.
    fn heads_of(
        &self,
        layer: usize,
        index: usize,
        batch: Batch,
        (qkv, context): (Region, Region),
    ) -> Result<Vec<Head>, BackendError> {
        let (shape, length) = (self.shape(), batch.length);
        let heads_per_kv = shape.heads / shape.kv_heads;
        let part = |region, index, width: usize, sequence: usize, column: usize| {
            let start = sequence * length * width + column;
            let end = start + (length - 1) * width + shape.head_dim;
            let slice = Slice::new(self.memory.buffer(region, index)?, start..end)?;
            Ok::<_, BackendError>(Matrix {
                slice,
                rows: length,
                columns: shape.head_dim,
                row_stride: width,
            })
        };
        let mut heads = Vec::with_capacity(batch.sequences * shape.heads);
        for sequence in 0..batch.sequences {
            for head in 0..shape.heads {
                let width = shape.qkv_width();
                let key = shape.query_width() + head / heads_per_kv * shape.head_dim;
                let value = key + shape.kv_width();
                let square = (sequence * shape.heads + head) * length * length;
                let scores = self.memory.buffer(Region::Scores, layer)?;
                let column = head * shape.head_dim;
                heads.push(Head {
                    query: part(qkv, index, width, sequence, column)?,
                    key: part(qkv, index, width, sequence, key)?,
                    value: part(qkv, index, width, sequence, value)?,
                    scores: Matrix {
                        slice: Slice::new(scores, square..square + length * length)?,
                        rows: length,
                        columns: length,
                        row_stride: length,
                    },
                    context: part(context, index, shape.query_width(), sequence, column)?,
                });
            }
        }
        Ok(heads)
    }
}

/// Scores of unit queries and keys are so small that the sum over a sequence, which no softmax
/// normalizes here, stays bounded.
fn score_scale(shape: &Shape, batch: Batch) -> f32 {
    1.0 / (batch.length as f32 * (shape.head_dim as f32).sqrt())
}

fn product(a: Matrix, b: Matrix, c: Matrix) -> Kernel {
    scaled((a, No), (b, No), c, 1.0)
}

fn scaled(a: (Matrix, Transpose), b: (Matrix, Transpose), c: Matrix, scale: f32) -> Kernel {
    gemm(Gemm {
        a,
        b,
        c,
        scale,
        accumulate: false,
    })
}

fn added(a: (Matrix, Transpose), b: (Matrix, Transpose), c: Matrix) -> Kernel {
    gemm(Gemm {
        a,
        b,
        c,
        scale: 1.0,
        accumulate: true,
    })
}

fn gemm(gemm: Gemm) -> Kernel {
    let Gemm {
        a: (a, transpose_a),
        b: (b, transpose_b),
        c,
        scale,
        accumulate,
    } = gemm;
    Kernel::Gemm {
        a,
        transpose_a,
        b,
        transpose_b,
        c,
        scale,
        accumulate,
    }
}

#[cfg(test)]
mod tests;
