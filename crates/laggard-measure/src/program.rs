//! One rank's program, translated from the schedule: for every operation the queue, the kernels or
//! the call, and what it comes after. There is no other description of the step.

use crate::MeasureError;
use crate::network::{Batch, Network};
use laggard_backend::{BackendError, Call, Device, Kernel, QueueId, Slice};
use laggard_schedule::{Operation, OperationKind, Phase, Schedule, Stream};
use laggard_types::{Collective, Rank, ReduceOp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One operation, ready to be issued.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Its id in the schedule.
    pub operation: u32,
    /// Items of this program that it comes after, beside those before it on its queue.
    pub after: Vec<usize>,
    /// What it does.
    pub action: Action,
}

/// What an operation does.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// The host prepares the micro-batches.
    Input,
    /// A pass of one layer over one micro-batch.
    Layer {
        queue: QueueId,
        phase: Phase,
        layer: usize,
        micro_batch: usize,
        /// Kernels at nominal shapes.
        kernels: Arc<[Kernel]>,
    },
    /// The update of all parameters.
    Optimizer { queue: QueueId },
    /// A reduction of gradients over all ranks.
    Reduce { queue: QueueId, gradients: Slice },
}

/// One rank's program.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// In issue order.
    pub items: Vec<Item>,
    /// The queues that it uses.
    pub queues: Vec<QueueId>,
}

/// Queues by the stream that they stand for, made when first asked for.
struct Queues<'a> {
    device: &'a dyn Device,
    by_stream: BTreeMap<Stream, QueueId>,
}

impl Program {
    /// Translates a rank's program, and makes its queues on the device.
    ///
    /// # Errors
    /// [`MeasureError::Unsupported`] for an operation that there is no translation of;
    /// [`MeasureError::Start`] if the device refuses a queue.
    pub(crate) fn new(
        schedule: &Schedule,
        rank: Rank,
        network: &Network,
        device: &dyn Device,
        nominal: Batch,
    ) -> Result<Self, MeasureError> {
        let mut queues = Queues {
            device,
            by_stream: BTreeMap::new(),
        };
        let start = |source| MeasureError::Start { rank, source };
        let mut position_of = BTreeMap::new();
        let mut items = Vec::new();
        for &id in schedule.program(rank) {
            let operation = &schedule.operations[id as usize];
            let missing =
                || MeasureError::unsupported(operation, "it comes after what comes later");
            let position = |id: &u32| position_of.get(id).copied().ok_or_else(missing);
            let after = operation
                .after
                .iter()
                .map(position)
                .collect::<Result<_, _>>()?;
            let action = translate(operation, network, nominal, |stream| queues.get(stream))
                .map_err(start)?
                .ok_or_else(|| MeasureError::unsupported(operation, "it has no kernels"))?;
            if let Some(axis) = operation.axis {
                let size = schedule.group(axis, rank).map_or(0, <[Rank]>::len);
                if size != schedule.world_size() {
                    return Err(MeasureError::unsupported(
                        operation,
                        "its group is not the world",
                    ));
                }
            }
            position_of.insert(id, items.len());
            items.push(Item {
                operation: id,
                after,
                action,
            });
        }
        Ok(Self {
            items,
            queues: queues.by_stream.into_values().collect(),
        })
    }
}

impl Queues<'_> {
    fn get(&mut self, stream: Stream) -> Result<QueueId, BackendError> {
        if let Some(queue) = self.by_stream.get(&stream) {
            return Ok(*queue);
        }
        let name = match stream {
            Stream::Compute => "compute",
            Stream::Communication => "communication",
            _ => "other",
        };
        let queue = self.device.create_queue(name)?;
        self.by_stream.insert(stream, queue);
        Ok(queue)
    }
}

/// The action of an operation; `None` where there is none.
fn translate(
    operation: &Operation,
    network: &Network,
    nominal: Batch,
    mut queue: impl FnMut(Stream) -> Result<QueueId, BackendError>,
) -> Result<Option<Action>, BackendError> {
    let stream = operation.stream;
    let action = match (operation.kind, operation.phase) {
        (OperationKind::Host, Phase::Input) => Action::Input,
        (OperationKind::Compute, Phase::Optimizer) => Action::Optimizer {
            queue: queue(stream)?,
        },
        (OperationKind::Compute, phase @ (Phase::Forward | Phase::Backward)) => {
            let (Some(layer), Some(micro_batch)) = (operation.layer, operation.micro_batch) else {
                return Ok(None);
            };
            let (layer, micro_batch) = (layer as usize, micro_batch as usize);
            let batch = Batch {
                micro_batch,
                ..nominal
            };
            let kernels = layer_kernels(network, phase, layer, batch)?;
            Action::Layer {
                queue: queue(stream)?,
                phase,
                layer,
                micro_batch,
                kernels,
            }
        }
        (OperationKind::Collective(Collective::AllReduce), Phase::GradientReduce) => {
            let bucket = operation
                .bucket
                .and_then(|it| network.placement().bucket(it as usize));
            let Some(range) = bucket else { return Ok(None) };
            Action::Reduce {
                queue: queue(stream)?,
                gradients: network.gradients(range)?,
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(action))
}

/// Kernels of a pass of one layer.
///
/// # Errors
/// If the micro-batch does not fit the network's memory.
pub(crate) fn layer_kernels(
    network: &Network,
    phase: Phase,
    layer: usize,
    batch: Batch,
) -> Result<Arc<[Kernel]>, BackendError> {
    let kernels = match phase {
        Phase::Backward => network.backward(layer, batch)?,
        _ => network.forward(layer, batch)?,
    };
    Ok(kernels.into())
}

/// The call that averages gradients in place.
pub(crate) fn average(gradients: &Slice) -> Call {
    Call::AllReduce {
        send: gradients.clone(),
        recv: gradients.clone(),
        op: ReduceOp::Avg,
    }
}
