//! Models that are small enough for many runs, and deep enough for pipelines.

use laggard_specs::{Model, SpecsError};

/// Elements of each layer of [`layered`].
pub const LAYER_ELEMENTS: u32 = 196_608;
/// Elements of its head for each output.
pub const OUTPUT_ELEMENTS: u32 = 128;

/// A dense model of some equal layers and a head of some outputs.
///
/// # Errors
/// If no model can be like that.
pub fn layered(layers: u32, outputs: u32) -> Result<Model, SpecsError> {
    Model::from_toml_str(&format!(
        "id = 'layered-{layers}-{outputs}'\nname = '{layers} layers, {outputs} outputs'\n\
         layers = {layers}\nhidden = 128\nheads = 4\nkv_heads = 4\nhead_dim = 32\n\
         ffn_hidden = 512\nffn_matrices = 2\nvocab = {outputs}\ntied_embeddings = false\n\
         norm = 'rms'\ncontext = 64\nconfidence = 'high'\nsources = ['for benchmarks']\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_specs::{Attention, layer_parts};

    #[test]
    fn layers_and_head_are_as_large_as_is_said() {
        let model = layered(4, 2304).expect("a model");
        let elements: Vec<u64> = layer_parts(&model, Attention::Causal)
            .iter()
            .map(|layer| layer.parts.iter().map(|part| part.matrix_elements).sum())
            .collect();
        let layer = u64::from(LAYER_ELEMENTS);
        let head = u64::from(2304 * OUTPUT_ELEMENTS);
        assert_eq!(elements, [layer, layer, layer, layer, head]);
    }
}
