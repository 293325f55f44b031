//! One pass of one layer.

use super::segments::{Meet, Segment, backward, forward};
use super::step::Step;
use crate::graph::{Operation, OperationKind, Phase, Stream};
use crate::{LayerWork, Part, PartWork};
use laggard_types::Collective;

/// Backward computes the gradients of inputs and of weights: twice the forward FLOP.
/// Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1.
const BACKWARD_OVER_FORWARD: f64 = 2.0;

impl Step<'_> {
    /// Emits a pass of a layer that begins after `ready`; gives its last operation.
    pub(super) fn layer(
        &mut self,
        (phase, layer, micro_batch): (Phase, u32, u32),
        ready: &[Option<u32>],
    ) -> Option<u32> {
        let work = self.work;
        let work = &work.layers[layer as usize];
        let segments = match phase {
            Phase::Backward => backward(self.layout, work),
            _ => forward(self.layout, work),
        };
        let whole = segments.len() == 1;
        let mut ready = ready.to_vec();
        for segment in segments {
            let mut operation = match segment {
                Segment::Compute(parts) => self.compute(work, &parts, phase, whole),
                Segment::Meet(meet) => match self.meet(work, meet, phase) {
                    Some(operation) => operation,
                    None => continue,
                },
            };
            operation.layer = Some(layer);
            operation.micro_batch = Some(micro_batch);
            // Ranks that share a layer exchange through memory that the next pass uses again.
            ready.push(self.emit.last_on(Stream::Compute));
            ready.push(self.emit.last_on(Stream::ModelCommunication));
            let id = self.emit.push(operation, &ready);
            ready = vec![Some(id)];
        }
        ready.into_iter().flatten().max()
    }

    fn compute(
        &self,
        layer: &LayerWork,
        parts: &[PartWork],
        phase: Phase,
        whole: bool,
    ) -> Operation {
        let factor = match phase {
            Phase::Backward => BACKWARD_OVER_FORWARD,
            _ => 1.0,
        };
        let ranks = self.layout.tensor_parallel * self.layout.context_parallel;
        let share = factor / f64::from(ranks);
        let name = match whole {
            true => format!("{} {}", layer.name, phase.name()),
            false => format!("{} {} {}", layer.name, name_of(parts), phase.name()),
        };
        let sum = |flop: fn(&PartWork) -> f64| parts.iter().map(flop).sum::<f64>();
        Operation {
            parts: match whole {
                true => Vec::new(),
                false => parts.iter().map(|work| work.part).collect(),
            },
            flop: share * sum(|work| work.forward_flop),
            attention_flop: share * sum(|work| work.forward_attention_flop),
            ..Operation::new(name, OperationKind::Compute, phase, Stream::Compute)
        }
    }

    /// `None` where nobody is met.
    fn meet(&mut self, layer: &LayerWork, meet: Meet, phase: Phase) -> Option<Operation> {
        let axis = self.axes.of(meet.dimension)?;
        let kind = OperationKind::Collective(meet.collective);
        let name = format!(
            "{} {} {} {}",
            layer.name,
            name_of_part(meet.part),
            phase.name(),
            meet.collective.name()
        );
        let layout = self.layout;
        let stream = self.work.stream_elements / u64::from(layout.context_parallel);
        let elements = match (meet.collective, meet.part) {
            (Collective::AllToAll, _) => stream * u64::from(self.work.experts_per_token),
            (_, Part::Attention) if meet.dimension == super::axes::Dimension::Context => {
                self.work.key_value_elements / u64::from(layout.tensor_parallel)
            }
            _ => stream,
        };
        Some(Operation {
            parts: vec![meet.part],
            payload: Some(meet.payload),
            axis: Some(axis),
            sequence: Some(self.emit.next_sequence(axis)),
            bytes: elements * self.work.element_bytes,
            ..Operation::new(name, kind, phase, Stream::ModelCommunication)
        })
    }
}

fn name_of(parts: &[PartWork]) -> &'static str {
    let has = |part| parts.iter().any(|work| work.part == part);
    match parts {
        [only] => name_of_part(only.part),
        _ if has(Part::Experts) => name_of_part(Part::Experts),
        _ if has(Part::Attention) => name_of_part(Part::Attention),
        _ => "parts",
    }
}

fn name_of_part(part: Part) -> &'static str {
    match part {
        Part::Qkv => "qkv",
        Part::Attention => "attention",
        Part::FeedForward => "feed-forward",
        Part::Dispatch => "dispatch",
        Part::Experts => "experts",
        Part::Combine => "combine",
        Part::Head => "output",
    }
}
