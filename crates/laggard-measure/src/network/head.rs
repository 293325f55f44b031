//! The output head with the loss.

use super::gemm::{No, Yes, product, scaled};
use super::{Batch, Kernels, Network};
use crate::memory::Region;
use crate::shape::Weight;
use laggard_backend::Kernel;

impl Network {
    pub(super) fn head_forward(&self, layer: usize, batch: &Batch) -> Kernels {
        let input = self.block_input(self.stream(layer, batch)?, batch)?;
        let logits = self.logits(batch)?;
        Ok(vec![product(
            input,
            self.parameter(layer, Weight::Head)?,
            logits,
        )])
    }

    pub(super) fn head_backward(&self, layer: usize, batch: &Batch) -> Kernels {
        let input = self.block_input(self.stream(layer, batch)?, batch)?;
        let error = self.logits(batch)?;
        let width = self.portion.own.vocabulary;
        let scale = batch.weight / batch.tokens.length as f32;
        // Every sequence has the same target, whichever rank works on it.
        let positions = batch.tokens.positions();
        let target = positions.start * width..positions.end * width;
        let target = self.flat(Region::NegativeTargets, target)?;
        let mut kernels = Vec::new();
        for sequence in (0..batch.tokens.sequences).filter(|_| target.len > 0) {
            let start = sequence * target.len;
            kernels.push(Kernel::Add {
                from: target.clone(),
                to: error.slice.part(start..start + target.len)?,
            });
        }
        kernels.push(self.gradient((layer, Weight::Head), batch, (&input, &error), scale)?);
        let to = match self.portion.tensor.of {
            1 => self.stream_gradient(layer, batch)?,
            _ => self.tokens_of(Region::PartialGradient, batch)?,
        };
        let head = (self.parameter(layer, Weight::Head)?, Yes);
        kernels.push(scaled((error, No), head, to, scale));
        Ok(kernels)
    }
}
