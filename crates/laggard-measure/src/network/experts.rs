//! A mixture of experts: tokens are sorted by expert, go to the ranks that hold them, come back and
//! are summed. See [`crate::tokens::Routing`] for which goes where.
//!
//! Sorted tokens lie expert by expert; what comes to a rank lies sender by sender, and so on
//! within.

use super::gemm::{Gemm, No, Yes, added, gemm, product, scaled};
use super::{Batch, Kernels, Network};
use crate::memory::{Index, Region};
use crate::shape::Weight;
use crate::tokens::{Routing, Tokens};
use laggard_backend::{BackendError, Kernel, Matrix, Slice};
use std::ops::Range;

/// Rows of one expert, all from one sender.
struct Block {
    /// The expert, among this rank's.
    expert: usize,
    rows: Range<usize>,
}

impl Network {
    pub(super) fn dispatch_forward(&self, layer: usize, batch: &Batch) -> Kernels {
        let residual = self.kept_rows(Region::Residual, layer, batch)?;
        let input = self.block_input(residual, batch)?;
        let logits = self.router_logits(layer, batch)?;
        let router = self.parameter(layer, Weight::Router)?;
        let mut kernels = vec![product(input.clone(), router, logits)];
        let to = match self.portion.expert.of {
            1 => (Region::ExpertInput, self.kept(layer, batch)),
            _ => (Region::Dispatched, (0, 0)),
        };
        for (from, to) in self.sorted(layer, batch, &input, to)? {
            kernels.push(Kernel::Copy { from, to });
        }
        Ok(kernels)
    }

    pub(super) fn experts_forward(&self, layer: usize, batch: &Batch) -> Kernels {
        let (input, wide) = self.expert_activations(layer, batch);
        let mut kernels = Vec::new();
        for block in self.blocks(layer, batch)? {
            let expert = block.expert;
            let input = self.block_rows(input, &block, false)?;
            let wide = self.block_rows(wide, &block, true)?;
            let output = self.block_rows((Region::ExpertOutput, (0, 0)), &block, false)?;
            let up = self.parameter(layer, Weight::ExpertUp(expert))?;
            kernels.push(product(input.clone(), up, wide.clone()));
            if self.portion.own.gated {
                let gate = self.parameter(layer, Weight::ExpertGate(expert))?;
                kernels.push(added((input, No), (gate, No), wide.clone()));
            }
            let down = self.parameter(layer, Weight::ExpertDown(expert))?;
            kernels.push(scaled(
                (wide, No),
                (down, No),
                output,
                self.share_of_expert(layer)?,
            ));
        }
        Ok(kernels)
    }

    pub(super) fn combine_forward(&self, layer: usize, batch: &Batch) -> Kernels {
        let ends = (
            self.kept_rows(Region::Residual, layer, batch)?,
            self.stream(layer + 1, batch)?,
        );
        let from = match self.portion.expert.of {
            1 => Region::ExpertOutput,
            _ => Region::Combined,
        };
        let all = match (self.portion.tensor.of, self.portion.sequence_parallel) {
            (1, _) | (_, false) => ends.1.clone(),
            (_, true) => self.tokens_of(Region::Partial, batch)?,
        };
        let sorted = self.sorted(layer, batch, &all, (from, (0, 0)))?;
        self.join(ends, batch, |to, accumulate| {
            let clear = (!accumulate).then(|| Kernel::Fill {
                to: to.slice.clone(),
                value: 0.0,
            });
            let add = |(to, from)| Kernel::Add { from, to };
            clear
                .into_iter()
                .chain(sorted.into_iter().map(add))
                .collect()
        })
    }

    pub(super) fn combine_backward(&self, layer: usize, batch: &Batch) -> Kernels {
        let d_output = self.output_gradient(layer, batch)?;
        let to = match self.portion.expert.of {
            1 => Region::ExpertOutput,
            _ => Region::Combined,
        };
        let sorted = self
            .sorted(layer, batch, &d_output, (to, (0, 0)))?
            .into_iter();
        Ok(sorted.map(|(from, to)| Kernel::Copy { from, to }).collect())
    }

    pub(super) fn experts_backward(&self, layer: usize, batch: &Batch) -> Kernels {
        let (input, wide) = self.expert_activations(layer, batch);
        let scale = self.share_of_expert(layer)?;
        let own = self.portion.own.experts.map_or(0, |own| own.count);
        let mut seen = vec![false; own];
        let mut kernels = Vec::new();
        for block in self.blocks(layer, batch)? {
            let expert = block.expert;
            let first = !std::mem::replace(&mut seen[expert], true);
            let rows = |of, wide| self.block_rows(of, &block, wide);
            let (input, hidden) = (rows(input, false)?, rows(wide, true)?);
            let d_output = rows((Region::ExpertOutput, (0, 0)), false)?;
            let d_hidden = rows((Region::ExpertHiddenGradient, (0, 0)), true)?;
            let d_input = rows((Region::ExpertInputGradient, (0, 0)), false)?;
            let gradient = |weight, a: &Matrix, b: &Matrix, scale| {
                Ok::<_, BackendError>(gemm(Gemm {
                    a: (a.clone(), Yes),
                    b: (b.clone(), No),
                    c: self.weight_in(Region::Gradients, layer, weight)?,
                    scale,
                    accumulate: !first || self.adds_up((layer, weight), batch),
                }))
            };
            let down = Weight::ExpertDown(expert);
            kernels.push(gradient(down, &hidden, &d_output, scale)?);
            let down = (self.parameter(layer, down)?, Yes);
            kernels.push(scaled((d_output, No), down, d_hidden.clone(), scale));
            let weights = [Weight::ExpertUp(expert), Weight::ExpertGate(expert)];
            for (at, weight) in weights.into_iter().enumerate() {
                if self.portion.weight(layer, weight).is_none() {
                    continue;
                }
                kernels.push(gradient(weight, &input, &d_hidden, 1.0)?);
                kernels.push(gemm(Gemm {
                    a: (d_hidden.clone(), No),
                    b: (self.parameter(layer, weight)?, Yes),
                    c: d_input.clone(),
                    scale: 1.0,
                    accumulate: at > 0,
                }));
            }
        }
        // An expert that nobody chose has no gradient, rather than the last step's.
        for expert in (0..own).filter(|expert| !seen[*expert]) {
            kernels.extend(self.clear_expert(layer, batch, expert)?);
        }
        Ok(kernels)
    }

    pub(super) fn dispatch_backward(&self, layer: usize, batch: &Batch) -> Kernels {
        let residual = self.kept_rows(Region::Residual, layer, batch)?;
        let input = self.block_input(residual, batch)?;
        let logits = self.router_logits(layer, batch)?;
        let scale = batch.weight / batch.tokens.length as f32;
        let router = (layer, Weight::Router);
        let mut kernels = vec![self.gradient(router, batch, (&input, &logits), scale)?];
        let weight = (self.parameter(layer, Weight::Router)?, Yes);
        let single = self.portion.tensor.of == 1;
        let to = match single {
            true => self.stream_gradient(layer, batch)?,
            false => self.tokens_of(Region::PartialGradient, batch)?,
        };
        kernels.push(gemm(Gemm {
            a: (logits, No),
            b: weight,
            c: to.clone(),
            scale,
            accumulate: single,
        }));
        let from = match self.portion.expert.of {
            1 => Region::ExpertInputGradient,
            _ => Region::Dispatched,
        };
        for (to, from) in self.sorted(layer, batch, &to, (from, (0, 0)))? {
            kernels.push(Kernel::Add { from, to });
        }
        if !single {
            let own = self.own_rows(batch);
            kernels.extend(self.add_own_rows(self.stream_gradient(layer, batch)?, to, own)?);
        }
        Ok(kernels)
    }

    /// Elements that this rank's tokens have when sorted, by the rank that they go to.
    pub(super) fn sent(&self, layer: usize, batch: &Batch) -> Result<Vec<usize>, BackendError> {
        let (routing, hidden) = (self.routing(layer)?, self.portion.model.hidden);
        let to = |rank| rows(&batch.tokens, routing, self.portion.experts_of(rank)) * hidden;
        Ok((0..self.portion.expert.of).map(to).collect())
    }

    /// Elements that come to this rank's experts, by the rank that they come from.
    pub(super) fn received(&self, layer: usize, batch: &Batch) -> Result<Vec<usize>, BackendError> {
        let (routing, hidden) = (self.routing(layer)?, self.portion.model.hidden);
        let own = self.portion.experts_of(self.portion.expert.index);
        let from = |peer: &Tokens| rows(peer, routing, own.clone()) * hidden;
        Ok(batch.peers.iter().map(from).collect())
    }

    /// Pairs of rows of all tokens and rows among the sorted ones.
    fn sorted(
        &self,
        layer: usize,
        batch: &Batch,
        tokens: &Matrix,
        (region, index): (Region, Index),
    ) -> Result<Vec<(Slice, Slice)>, BackendError> {
        let (routing, hidden) = (self.routing(layer)?, self.portion.model.hidden);
        let sorted = self.memory.buffer(region, index)?;
        let mut pairs = Vec::new();
        let mut at = 0;
        for expert in 0..routing.experts {
            for rows in batch.tokens.rows_for(routing, expert) {
                let len = rows.len() * hidden;
                pairs.push((
                    tokens.slice.part(rows.start * hidden..rows.end * hidden)?,
                    Slice::new(sorted, at..at + len)?,
                ));
                at += len;
            }
        }
        Ok(pairs)
    }

    /// The rows that came, by sender and expert.
    fn blocks(&self, layer: usize, batch: &Batch) -> Result<Vec<Block>, BackendError> {
        let routing = self.routing(layer)?;
        let own = self.portion.experts_of(self.portion.expert.index);
        let mut blocks = Vec::new();
        let mut at = 0;
        for peer in &batch.peers {
            for (expert, which) in own.clone().enumerate() {
                let count = peer.count_for(routing, which);
                if count > 0 {
                    let rows = at..at + count;
                    blocks.push(Block { expert, rows });
                }
                at += count;
            }
        }
        Ok(blocks)
    }

    fn block_rows(
        &self,
        (region, index): (Region, Index),
        block: &Block,
        wide: bool,
    ) -> Result<Matrix, BackendError> {
        let columns = match wide {
            true => self.portion.own.ffn_hidden,
            false => self.portion.model.hidden,
        };
        let range = block.rows.start * columns..block.rows.end * columns;
        Ok(Matrix {
            slice: Slice::new(self.memory.buffer(region, index)?, range)?,
            rows: block.rows.len(),
            columns,
            row_stride: columns,
        })
    }

    /// Where the experts' inputs and wide activations are kept.
    fn expert_activations(
        &self,
        layer: usize,
        batch: &Batch,
    ) -> ((Region, Index), (Region, Index)) {
        let index = self.kept(layer, batch);
        ((Region::ExpertInput, index), (Region::ExpertHidden, index))
    }

    fn clear_expert(&self, layer: usize, batch: &Batch, expert: usize) -> Kernels {
        let weights = [
            Weight::ExpertUp(expert),
            Weight::ExpertGate(expert),
            Weight::ExpertDown(expert),
        ];
        let mut kernels = Vec::new();
        for weight in weights {
            let held = self.portion.weight(layer, weight).is_some();
            if held && !self.adds_up((layer, weight), batch) {
                let to = self.weight_in(Region::Gradients, layer, weight)?.slice;
                kernels.push(Kernel::Fill { to, value: 0.0 });
            }
        }
        Ok(kernels)
    }

    fn router_logits(&self, layer: usize, batch: &Batch) -> Result<Matrix, BackendError> {
        let columns = self.portion.own.experts.map_or(0, |own| own.router);
        let index = self.kept(layer, batch);
        self.matrix(Region::RouterLogits, index, batch.tokens.count(), columns)
    }

    fn routing(&self, layer: usize) -> Result<Routing, BackendError> {
        let unknown = || BackendError::Unknown {
            what: format!("the experts of layer {layer}"),
        };
        self.portion.routing(layer).ok_or_else(unknown)
    }

    /// Each of a token's experts counts the same.
    fn share_of_expert(&self, layer: usize) -> Result<f32, BackendError> {
        Ok(1.0 / self.routing(layer)?.per_token as f32)
    }
}

fn rows(tokens: &Tokens, routing: Routing, experts: Range<usize>) -> usize {
    experts
        .map(|expert| tokens.count_for(routing, expert))
        .sum()
}
