//! Attention: every query with all keys of its sequence. Keys and values may be of several ranks,
//! each with some positions of each sequence; their memory is one range per rank.

use super::gemm::{Gemm, No, Yes, gemm, product, scaled};
use super::{Batch, Kernels, Network};
use crate::memory::{Index, Region};
use crate::shape::Weight;
use laggard_backend::{BackendError, Kernel, Matrix, Slice};
use std::ops::Range;

/// One head of one sequence with the keys and values of one rank.
struct Head {
    query: Matrix,
    key: Matrix,
    value: Matrix,
    scores: Matrix,
    context: Matrix,
    /// Whether these are the first keys and values that the head sees.
    first_block: bool,
    /// Whether this is the first head that sees these keys and values.
    first_user: bool,
}

/// Which matrices the heads are parts of.
struct Of {
    query: (Region, Index),
    key_value: (Region, Index),
    scores: (Region, Index),
    context: (Region, Index),
    /// Whether scores have a place for each head, or only one.
    all_scores: bool,
}

impl Network {
    pub(super) fn qkv_forward(&self, layer: usize, batch: &Batch) -> Kernels {
        let input = self.block_input(self.stream(layer, batch)?, batch)?;
        let [queries, keys_values] = self.qkv_weights(Region::Parameters, layer)?;
        let index = self.kept(layer, batch);
        let query = self.queries((Region::Query, index), batch)?;
        let key_value = match self.portion.context.of {
            1 => self.own_keys((Region::KeyValue, index), batch)?,
            _ => self.own_keys((Region::KeyValueOwn, (0, 0)), batch)?,
        };
        Ok(vec![
            product(input.clone(), queries, query),
            product(input, keys_values, key_value),
        ])
    }

    pub(super) fn attention_forward(&self, layer: usize, batch: &Batch) -> Kernels {
        let scale = self.score_scale(batch);
        let mut kernels = Vec::new();
        for head in self.heads(&self.forward_matrices(layer, batch), batch)? {
            let (query, key) = ((head.query, No), (head.key, Yes));
            kernels.push(scaled(query, key, head.scores.clone(), scale));
            kernels.push(gemm(Gemm {
                a: (head.scores, No),
                b: (head.value, No),
                c: head.context,
                scale: 1.0,
                accumulate: !head.first_block,
            }));
        }
        let context = self.queries((Region::Context, self.kept(layer, batch)), batch)?;
        let output = self.parameter(layer, Weight::Output)?;
        let ends = (
            self.stream(layer, batch)?,
            self.kept_rows(Region::Residual, layer, batch)?,
        );
        kernels.extend(self.join(ends, batch, |to, accumulate| {
            vec![gemm(Gemm {
                a: (context, No),
                b: (output, No),
                c: to,
                scale: 1.0,
                accumulate,
            })]
        })?);
        Ok(kernels)
    }

    /// From the gradient of the block's output to those of queries, keys and values.
    pub(super) fn attention_backward(&self, layer: usize, batch: &Batch) -> Kernels {
        let d_output = self.output_gradient(layer, batch)?;
        let context = self.queries((Region::Context, self.kept(layer, batch)), batch)?;
        let d_context = self.queries((Region::ContextGradient, (0, 0)), batch)?;
        let output = (self.parameter(layer, Weight::Output)?, Yes);
        let mut kernels = vec![
            self.gradient((layer, Weight::Output), batch, (&context, &d_output), 1.0)?,
            scaled((d_output, No), output, d_context, 1.0),
        ];
        let gradients = Of {
            query: (Region::QueryGradient, (0, 0)),
            key_value: (Region::KeyValueGradient, (0, 0)),
            scores: (Region::ScoreGradient, (0, 0)),
            context: (Region::ContextGradient, (0, 0)),
            all_scores: false,
        };
        let scale = self.score_scale(batch);
        let values = self.heads(&self.forward_matrices(layer, batch), batch)?;
        let gradients = self.heads(&gradients, batch)?;
        for (value, gradient) in values.into_iter().zip(gradients) {
            kernels.extend(head_backward(value, gradient, scale));
        }
        Ok(kernels)
    }

    pub(super) fn qkv_backward(&self, layer: usize, batch: &Batch) -> Kernels {
        let input = self.block_input(self.stream(layer, batch)?, batch)?;
        let d_query = self.queries((Region::QueryGradient, (0, 0)), batch)?;
        let d_key_value = match self.portion.context.of {
            1 => self.own_keys((Region::KeyValueGradient, (0, 0)), batch)?,
            _ => self.own_keys((Region::KeyValueGradientOwn, (0, 0)), batch)?,
        };
        let accumulate = self.adds_up((layer, Weight::Qkv), batch);
        let outputs = [d_query, d_key_value];
        let gradients = self.qkv_weights(Region::Gradients, layer)?;
        let weights = self.qkv_weights(Region::Parameters, layer)?;
        let mut kernels = Vec::new();
        for (output, gradient) in outputs.iter().zip(gradients) {
            kernels.push(gemm(Gemm {
                a: (input.clone(), Yes),
                b: (output.clone(), No),
                c: gradient,
                scale: 1.0,
                accumulate,
            }));
        }
        let addends = outputs.into_iter().zip(weights).collect();
        kernels.extend(self.back(layer, batch, addends)?);
        Ok(kernels)
    }

    fn forward_matrices(&self, layer: usize, batch: &Batch) -> Of {
        let index = self.kept(layer, batch);
        Of {
            query: (Region::Query, index),
            key_value: (Region::KeyValue, index),
            scores: (Region::Scores, index),
            context: (Region::Context, index),
            all_scores: true,
        }
    }

    /// Scores of unit queries and keys are so small that the sum over a sequence, which no softmax
    /// normalizes here, stays bounded.
    fn score_scale(&self, batch: &Batch) -> f32 {
        1.0 / (batch.tokens.length as f32 * (self.portion.model.head_dim as f32).sqrt())
    }

    /// The columns for queries, and those for keys and values, of the projections.
    fn qkv_weights(&self, region: Region, layer: usize) -> Result<[Matrix; 2], BackendError> {
        let whole = self.weight_in(region, layer, Weight::Qkv)?;
        let queries = self.portion.own.query_width();
        let columns = |range: Range<usize>| {
            let end = (whole.rows - 1) * whole.columns + range.end;
            Ok::<_, BackendError>(Matrix {
                slice: whole.slice.part(range.start..end)?,
                rows: whole.rows,
                columns: range.len(),
                row_stride: whole.columns,
            })
        };
        Ok([columns(0..queries)?, columns(queries..whole.columns)?])
    }

    fn queries(
        &self,
        (region, index): (Region, Index),
        batch: &Batch,
    ) -> Result<Matrix, BackendError> {
        let rows = batch.tokens.count();
        self.matrix(region, index, rows, self.portion.own.query_width())
    }

    /// Keys and values of this rank's tokens.
    pub(super) fn own_keys(
        &self,
        (region, index): (Region, Index),
        batch: &Batch,
    ) -> Result<Matrix, BackendError> {
        let rows = batch.tokens.count();
        self.matrix(region, index, rows, 2 * self.portion.own.kv_width())
    }

    /// All heads of all sequences with all blocks of keys.
    fn heads(&self, of: &Of, batch: &Batch) -> Result<Vec<Head>, BackendError> {
        let own = &self.portion.own;
        let tokens = &batch.tokens;
        let mut heads = Vec::new();
        for sequence in (0..tokens.sequences).filter(|_| tokens.count() > 0) {
            for head in 0..own.heads {
                let mut first_block = true;
                for part in 0..tokens.parts {
                    if tokens.positions_of(part).is_empty() {
                        continue;
                    }
                    heads.push(Head {
                        first_block,
                        ..self.head(of, batch, (sequence, head, part))?
                    });
                    first_block = false;
                }
            }
        }
        Ok(heads)
    }

    fn head(
        &self,
        of: &Of,
        batch: &Batch,
        (sequence, head, part): (usize, usize, usize),
    ) -> Result<Head, BackendError> {
        let own = &self.portion.own;
        let tokens = &batch.tokens;
        let rows = tokens.positions().len();
        let keys = tokens.positions_of(part);
        let heads_per_kv = own.heads / own.kv_heads;
        let kv_width = 2 * own.kv_width();
        let before: usize = (0..part).map(|part| tokens.count_of(part)).sum();
        let key_rows = before + sequence * keys.len()..before + (sequence + 1) * keys.len();
        let key = head / heads_per_kv * own.head_dim;
        let width = own.query_width();
        let query_rows = sequence * rows..(sequence + 1) * rows;
        let column = head * own.head_dim;
        let scores = match of.all_scores {
            true => (sequence * own.heads + head) * rows,
            false => 0,
        };
        let dim = |column: usize| column..column + own.head_dim;
        let part_of = |of, rows, width, columns| self.part_of(of, rows, width, columns);
        Ok(Head {
            query: part_of(of.query, query_rows.clone(), width, dim(column))?,
            key: part_of(of.key_value, key_rows.clone(), kv_width, dim(key))?,
            value: part_of(of.key_value, key_rows, kv_width, dim(own.kv_width() + key))?,
            scores: part_of(of.scores, scores..scores + rows, tokens.length, keys)?,
            context: part_of(of.context, query_rows, width, dim(column))?,
            first_block: false,
            first_user: head.is_multiple_of(heads_per_kv),
        })
    }

    /// Some rows and columns of a dense matrix of this width.
    fn part_of(
        &self,
        (region, index): (Region, Index),
        rows: Range<usize>,
        width: usize,
        columns: Range<usize>,
    ) -> Result<Matrix, BackendError> {
        let start = rows.start * width + columns.start;
        let end = (rows.end - 1) * width + columns.end;
        Ok(Matrix {
            slice: Slice::new(self.memory.buffer(region, index)?, start..end)?,
            rows: rows.len(),
            columns: columns.len(),
            row_stride: width,
        })
    }
}

/// Query heads that share a key head add up in its gradient, and blocks of keys in that of the
/// query.
fn head_backward(value: Head, gradient: Head, scale: f32) -> [Kernel; 4] {
    let (context, d_score) = (gradient.context, gradient.scores);
    let accumulate = !gradient.first_user;
    [
        scaled(
            (context.clone(), No),
            (value.value, Yes),
            d_score.clone(),
            1.0,
        ),
        gemm(Gemm {
            a: (value.scores, Yes),
            b: (context, No),
            c: gradient.value,
            scale: 1.0,
            accumulate,
        }),
        gemm(Gemm {
            a: (d_score.clone(), No),
            b: (value.key, No),
            c: gradient.query,
            scale,
            accumulate: !gradient.first_block,
        }),
        gemm(Gemm {
            a: (d_score, Yes),
            b: (value.query, No),
            c: gradient.key,
            scale,
            accumulate,
        }),
    ]
}
