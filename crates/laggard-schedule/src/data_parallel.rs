//! The generator of plain data parallelism: every replica does forward and backward of its
//! micro-batches; gradients are reduced in buckets, each as soon as its layers are done; then every
//! replica updates all parameters.

use crate::graph::{
    Axis, Operation, OperationKind, Phase, Program, Schedule, ScheduleOrigin, Stream,
};
use crate::{Layout, LayoutError};
use laggard_types::Collective;

/// What one layer costs for one nominal micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerWork {
    /// The layer's name, such as `layer 3` or `head`.
    pub name: String,
    /// Forward FLOP of the layer's weights, which grow with the number of tokens. Backward costs
    /// twice as much.
    pub forward_flop: f64,
    /// Forward FLOP of attention, which grow with the sum of squared sequence lengths.
    pub forward_attention_flop: f64,
    /// Bytes of the layer's gradients.
    pub gradient_bytes: u64,
}

/// Backward computes the gradients of inputs and of weights: twice the forward FLOP.
/// Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1.
const BACKWARD_OVER_FORWARD: f64 = 2.0;

/// The step of a data-parallel job.
///
/// # Errors
/// If the layout cannot be executed by as many ranks as it has replicas.
pub fn data_parallel(layout: &Layout, layers: &[LayerWork]) -> Result<Schedule, LayoutError> {
    let ranks = layout.data_parallel;
    layout.check(ranks)?;
    let buckets = buckets(layers, layout.bucket_bytes);
    let mut operations = Vec::new();
    let mut programs: Vec<Program> = Vec::new();
    let mut program_of_share: Vec<(u32, u32)> = Vec::new();
    let mut program_of_rank = Vec::new();
    for &share in &layout.micro_batches {
        let known = program_of_share.iter().find(|(other, _)| *other == share);
        let program = if let Some(&(_, program)) = known {
            program
        } else {
            let first = operations.len() as u32;
            let step = Step {
                first,
                layout,
                layers,
                buckets: &buckets,
                share,
            };
            operations.extend(step.operations());
            programs.push(Program {
                operations: (first..operations.len() as u32).collect(),
            });
            program_of_share.push((share, programs.len() as u32 - 1));
            programs.len() as u32 - 1
        };
        program_of_rank.push(program);
    }
    Ok(Schedule {
        origin: ScheduleOrigin::Generated(layout.clone()),
        operations,
        programs,
        program_of_rank,
        stage_of_rank: vec![0; ranks as usize],
        axes: vec![Axis {
            name: "dp".to_owned(),
            groups: vec![(0..ranks).collect()],
        }],
    })
}

/// Layers of each gradient bucket, in the order in which backward finishes them: last layer first.
fn buckets(layers: &[LayerWork], bucket_bytes: u64) -> Vec<Vec<usize>> {
    let mut buckets = vec![Vec::new()];
    let mut bytes = 0;
    for layer in (0..layers.len()).rev() {
        if bytes >= bucket_bytes {
            buckets.push(Vec::new());
            bytes = 0;
        }
        if let Some(bucket) = buckets.last_mut() {
            bucket.push(layer);
        }
        bytes += layers[layer].gradient_bytes;
    }
    buckets
}

/// One replica's step, being written down.
struct Step<'a> {
    first: u32,
    layout: &'a Layout,
    layers: &'a [LayerWork],
    buckets: &'a [Vec<usize>],
    share: u32,
}

impl Step<'_> {
    fn operations(&self) -> Vec<Operation> {
        let mut list = vec![blank(
            "input",
            OperationKind::Host,
            Phase::Input,
            Stream::Host,
        )];
        let mut reductions = Vec::new();
        for micro_batch in 0..self.share {
            for (index, layer) in self.layers.iter().enumerate() {
                let mut forward = self.compute(layer, index, micro_batch, Phase::Forward);
                if list.len() == 1 {
                    forward.after.push(self.first);
                }
                list.push(forward);
            }
            for (index, layer) in self.layers.iter().enumerate().rev() {
                list.push(self.compute(layer, index, micro_batch, Phase::Backward));
                let last = micro_batch + 1 == self.share;
                let ready = self
                    .buckets
                    .iter()
                    .position(|layers| layers.last() == Some(&index));
                if let Some(bucket) = ready.filter(|_| last && self.layout.overlap) {
                    self.reduce(bucket, &mut list, &mut reductions);
                }
            }
        }
        if !self.layout.overlap {
            for bucket in 0..self.buckets.len() {
                self.reduce(bucket, &mut list, &mut reductions);
            }
        }
        let mut optimizer = blank(
            "optimizer",
            OperationKind::Compute,
            Phase::Optimizer,
            Stream::Compute,
        );
        optimizer.after = reductions;
        list.push(optimizer);
        list
    }

    fn compute(
        &self,
        layer: &LayerWork,
        index: usize,
        micro_batch: u32,
        phase: Phase,
    ) -> Operation {
        let name = format!("{} {}", layer.name, phase.name());
        let factor = if phase == Phase::Backward {
            BACKWARD_OVER_FORWARD
        } else {
            1.0
        };
        Operation {
            layer: Some(index as u32),
            micro_batch: Some(micro_batch),
            flop: factor * layer.forward_flop,
            attention_flop: factor * layer.forward_attention_flop,
            ..blank(&name, OperationKind::Compute, phase, Stream::Compute)
        }
    }

    /// Appends the reduction of a bucket, which needs the operation before it.
    fn reduce(&self, bucket: usize, list: &mut Vec<Operation>, reductions: &mut Vec<u32>) {
        let kind = OperationKind::Collective(Collective::AllReduce);
        let name = format!("bucket {bucket} all_reduce");
        let bytes = self.buckets[bucket]
            .iter()
            .map(|&layer| self.layers[layer].gradient_bytes);
        let last_compute = list
            .iter()
            .rposition(|operation| operation.kind == OperationKind::Compute);
        reductions.push(self.first + list.len() as u32);
        list.push(Operation {
            after: last_compute
                .map(|index| self.first + index as u32)
                .into_iter()
                .collect(),
            bucket: Some(bucket as u32),
            axis: Some(0),
            sequence: Some(bucket as u32),
            bytes: bytes.sum(),
            ..blank(&name, kind, Phase::GradientReduce, Stream::Communication)
        });
    }
}

fn blank(name: &str, kind: OperationKind, phase: Phase, stream: Stream) -> Operation {
    Operation {
        name: name.to_owned(),
        kind,
        phase,
        stream,
        after: Vec::new(),
        layer: None,
        micro_batch: None,
        bucket: None,
        axis: None,
        sequence: None,
        bytes: 0,
        flop: 0.0,
        attention_flop: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(count: usize) -> Vec<LayerWork> {
        (0..count)
            .map(|index| LayerWork {
                name: format!("layer {index}"),
                forward_flop: 10.0,
                forward_attention_flop: 1.0,
                gradient_bytes: 1 << 20,
            })
            .collect()
    }

    #[test]
    fn every_layer_is_reduced_once_and_as_early_as_it_can_be() {
        let layout = Layout {
            bucket_bytes: 2 << 20,
            ..Layout::data_parallel(2, 3)
        };
        let schedule = data_parallel(&layout, &layers(5)).expect("a possible layout");
        assert_eq!(schedule.programs.len(), 1, "equal ranks share a program");
        let reduced: u64 = schedule
            .operations
            .iter()
            .map(|operation| operation.bytes)
            .sum();
        assert_eq!(reduced, 5 << 20);
        let names: Vec<_> = schedule
            .operations
            .iter()
            .map(|o| o.name.as_str())
            .collect();
        let at = |name: &str| names.iter().rposition(|n| *n == name).expect(name);
        assert_eq!(at("bucket 0 all_reduce"), at("layer 3 backward") + 1);
        assert_eq!(at("bucket 2 all_reduce"), at("layer 0 backward") + 1);
        assert_eq!(schedule.operations.last().map(|o| o.after.len()), Some(3));
        let compute = schedule.operations.iter().filter(|o| o.flop > 0.0);
        let total: f64 = compute.map(|o| o.flop).sum();
        assert!((total - 3.0 * 5.0 * 30.0).abs() < 1e-9);
    }

    #[test]
    fn without_overlap_all_reductions_follow_the_last_backward() {
        let layout = Layout {
            overlap: false,
            ..Layout::data_parallel(2, 1)
        };
        let schedule = data_parallel(&layout, &layers(3)).expect("a possible layout");
        let kinds: Vec<_> = schedule.operations.iter().map(|o| o.phase).collect();
        let first_reduce = kinds.iter().position(|p| *p == Phase::GradientReduce);
        let last_backward = kinds.iter().rposition(|p| *p == Phase::Backward);
        assert!(first_reduce > last_backward);
    }

    #[test]
    fn uneven_shares_get_programs_of_their_own() {
        let layout = Layout {
            micro_batches: vec![1, 3, 1],
            ..Layout::data_parallel(3, 1)
        };
        let schedule = data_parallel(&layout, &layers(2)).expect("a possible layout");
        assert_eq!(schedule.program_of_rank, [0, 1, 0]);
        assert!(schedule.program(1).len() > schedule.program(0).len());
    }
}
