//! A model as the generators of schedules take it.

use crate::layer::{LayerPart, LayerParts, PartFlop, layer_parts};
use crate::{Attention, Model};
use laggard_schedule::{LayerWork, ModelWork, Part, PartWork};

/// The work of a model on micro-batches of so many sequences of a length, in elements of
/// `element_bytes`, with the FLOP that a causal mask leaves. The input embedding is looked up, and
/// is no work.
#[must_use]
pub fn model_work(
    model: &Model,
    (sequences, sequence_length): (u32, u32),
    element_bytes: u64,
) -> ModelWork {
    let layers = layer_parts(model, Attention::Causal);
    let rows = u64::from(sequences) * u64::from(sequence_length);
    ModelWork {
        layers: layers
            .into_iter()
            .map(|layer| layer_work(layer, sequences, sequence_length))
            .collect(),
        element_bytes,
        stream_elements: rows * model.hidden,
        key_value_elements: rows * model.key_value_width(),
        experts_per_token: model.experts.as_ref().map_or(1, |it| it.active as u32),
    }
}

fn layer_work(layer: LayerParts, sequences: u32, sequence_length: u32) -> LayerWork {
    let tokens = f64::from(sequences) * f64::from(sequence_length);
    let attention = |part: &PartFlop| part.attention_flop(u64::from(sequence_length));
    let part = |part: &PartFlop| PartWork {
        part: match part.part {
            LayerPart::Qkv => Part::Qkv,
            LayerPart::Attention => Part::Attention,
            LayerPart::FeedForward | LayerPart::Projection => Part::FeedForward,
            LayerPart::Router => Part::Dispatch,
            LayerPart::Experts | LayerPart::SharedExperts => Part::Experts,
            LayerPart::Head => Part::Head,
        },
        forward_flop: part.forward_flop_per_token * tokens,
        forward_attention_flop: attention(part) * f64::from(sequences),
        parameters: part.matrix_elements,
    };
    let mut parts: Vec<PartWork> = layer.parts.iter().map(part).collect();
    if parts.iter().any(|work| work.part == Part::Experts) {
        parts.push(PartWork {
            part: Part::Combine,
            forward_flop: 0.0,
            forward_attention_flop: 0.0,
            parameters: 0,
        });
    }
    LayerWork {
        name: layer.name,
        parts,
    }
}
