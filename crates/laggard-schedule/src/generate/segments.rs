//! What happens within one layer: computing, and meeting the ranks that share the layer.

use super::axes::Dimension;
use crate::graph::Payload;
use crate::{LayerWork, Layout, Part, PartWork};
use laggard_types::Collective;

/// A stretch of a layer's pass.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Segment {
    /// Parts that are computed back to back, in the order of forward.
    Compute(Vec<PartWork>),
    /// A collective between ranks that share the layer.
    Meet(Meet),
}

/// A collective between ranks that share a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Meet {
    pub(super) dimension: Dimension,
    pub(super) collective: Collective,
    pub(super) part: Part,
    pub(super) payload: Payload,
}

/// The forward pass of a layer.
///
/// Tensor parallelism is that of Shoeybi et al. 2019 (Megatron-LM), section 3: the first matrices
/// of a block are split by columns, the last by rows, so that one all-reduce per block is needed;
/// with sequence parallelism (Korthikanti et al. 2022, section 4.2.2) an all-gather before the
/// block and a reduce-scatter after it. Context parallelism gathers keys and values (Llama 3,
/// section 3.3.2).
pub(super) fn forward(layout: &Layout, layer: &LayerWork) -> Vec<Segment> {
    let mut list = Vec::new();
    for work in &layer.parts {
        let part = work.part;
        if opens(part) && layout.sequence_parallel {
            meet(
                &mut list,
                Dimension::Tensor,
                Collective::AllGather,
                part,
                Payload::Input,
            );
        }
        if part == Part::Attention && layout.context_parallel > 1 {
            meet(
                &mut list,
                Dimension::Context,
                Collective::AllGather,
                part,
                Payload::Input,
            );
        }
        if layout.expert_parallel > 1 {
            match part {
                Part::Experts => exchange(&mut list, Payload::Input),
                Part::Combine => exchange(&mut list, Payload::Output),
                _ => {}
            }
        }
        compute(&mut list, *work);
        if closes(part) && layout.tensor_parallel > 1 {
            meet(
                &mut list,
                Dimension::Tensor,
                reduction(layout),
                part,
                Payload::Output,
            );
        }
    }
    list
}

/// The backward pass of a layer. Under sequence parallelism inputs are gathered again rather than
/// kept (Korthikanti et al. 2022, section 4.2.2).
pub(super) fn backward(layout: &Layout, layer: &LayerWork) -> Vec<Segment> {
    let mut list = Vec::new();
    for work in layer.parts.iter().rev() {
        let part = work.part;
        if layout.sequence_parallel {
            let gather = Collective::AllGather;
            if closes(part) {
                meet(
                    &mut list,
                    Dimension::Tensor,
                    gather,
                    part,
                    Payload::OutputGradient,
                );
            }
            let input_of = match part {
                Part::Attention => Some(Part::Qkv),
                Part::FeedForward | Part::Dispatch | Part::Head => Some(part),
                _ => None,
            };
            if let Some(part) = input_of {
                meet(&mut list, Dimension::Tensor, gather, part, Payload::Input);
            }
        }
        if layout.expert_parallel > 1 {
            match part {
                Part::Experts => exchange(&mut list, Payload::OutputGradient),
                Part::Dispatch => exchange(&mut list, Payload::InputGradient),
                _ => {}
            }
        }
        if part == Part::Qkv && layout.context_parallel > 1 {
            let (scatter, of) = (Collective::ReduceScatter, Part::Attention);
            meet(
                &mut list,
                Dimension::Context,
                scatter,
                of,
                Payload::InputGradient,
            );
        }
        compute(&mut list, *work);
        if opens(part) && layout.tensor_parallel > 1 {
            meet(
                &mut list,
                Dimension::Tensor,
                reduction(layout),
                part,
                Payload::InputGradient,
            );
        }
    }
    for segment in &mut list {
        if let Segment::Compute(parts) = segment {
            parts.reverse();
        }
    }
    list
}

/// Whether a part begins a block whose matrices are split over tensor-parallel ranks.
fn opens(part: Part) -> bool {
    matches!(
        part,
        Part::Qkv | Part::FeedForward | Part::Dispatch | Part::Head
    )
}

/// Whether a part ends such a block. The head's outputs stay split.
fn closes(part: Part) -> bool {
    matches!(part, Part::Attention | Part::FeedForward | Part::Combine)
}

fn reduction(layout: &Layout) -> Collective {
    match layout.sequence_parallel {
        true => Collective::ReduceScatter,
        false => Collective::AllReduce,
    }
}

fn compute(list: &mut Vec<Segment>, work: PartWork) {
    match list.last_mut() {
        Some(Segment::Compute(parts)) => parts.push(work),
        _ => list.push(Segment::Compute(vec![work])),
    }
}

fn exchange(list: &mut Vec<Segment>, payload: Payload) {
    meet(
        list,
        Dimension::Expert,
        Collective::AllToAll,
        Part::Experts,
        payload,
    );
}

fn meet(
    list: &mut Vec<Segment>,
    dimension: Dimension,
    collective: Collective,
    part: Part,
    payload: Payload,
) {
    list.push(Segment::Meet(Meet {
        dimension,
        collective,
        part,
        payload,
    }));
}
