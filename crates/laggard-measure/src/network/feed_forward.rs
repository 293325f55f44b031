//! The dense feed-forward part.

use super::gemm::{Gemm, No, Yes, added, gemm, product, scaled};
use super::{Batch, Kernels, Network};
use crate::memory::Region;
use crate::shape::Weight;

impl Network {
    pub(super) fn feed_forward(&self, layer: usize, batch: &Batch) -> Kernels {
        let residual = self.kept_rows(Region::Residual, layer, batch)?;
        let input = self.block_input(residual.clone(), batch)?;
        let ffn = self.wide(Region::FeedForward, layer, batch)?;
        let weight = |weight| self.parameter(layer, weight);
        let mut kernels = vec![product(input.clone(), weight(Weight::Up)?, ffn.clone())];
        if self.portion.own.gated {
            kernels.push(added((input, No), (weight(Weight::Gate)?, No), ffn.clone()));
        }
        let output = self.stream(layer + 1, batch)?;
        let addend = (ffn, weight(Weight::Down)?);
        kernels.extend(self.join((residual, output), batch, |to, accumulate| {
            vec![gemm(Gemm {
                a: (addend.0.clone(), No),
                b: (addend.1.clone(), No),
                c: to,
                scale: 1.0,
                accumulate,
            })]
        })?);
        Ok(kernels)
    }

    pub(super) fn feed_forward_backward(&self, layer: usize, batch: &Batch) -> Kernels {
        let residual = self.kept_rows(Region::Residual, layer, batch)?;
        let input = self.block_input(residual, batch)?;
        let ffn = self.wide(Region::FeedForward, layer, batch)?;
        let d_ffn = self.wide(Region::FeedForwardGradient, layer, batch)?;
        let d_output = self.output_gradient(layer, batch)?;
        let down = (self.parameter(layer, Weight::Down)?, Yes);
        let mut kernels = vec![
            self.gradient((layer, Weight::Down), batch, (&ffn, &d_output), 1.0)?,
            scaled((d_output, No), down, d_ffn.clone(), 1.0),
        ];
        let mut back = Vec::new();
        for name in [Weight::Up, Weight::Gate] {
            if self.portion.weight(layer, name).is_some() {
                kernels.push(self.gradient((layer, name), batch, (&input, &d_ffn), 1.0)?);
                back.push((d_ffn.clone(), self.parameter(layer, name)?));
            }
        }
        kernels.extend(self.back(layer, batch, back)?);
        Ok(kernels)
    }
}
