//! One rank's program, translated from the schedule: for every operation the queue, the kernels or
//! the call, and what it comes after. There is no other description of the step.

use crate::MeasureError;
use crate::network::{Batch, Network, next, previous};
use laggard_backend::{BackendError, Call, Device, Kernel, QueueId};
use laggard_schedule::{Operation, OperationKind, Part, Payload, Phase, Schedule, Stream};
use laggard_types::{Collective, Rank};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One operation, ready to be issued.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Its id in the schedule.
    pub operation: u32,
    /// The part of the step.
    pub phase: Phase,
    /// Items of this program that it comes after, beside those before it on its queue.
    pub after: Vec<usize>,
    /// The micro-batch whose lengths it depends on.
    pub micro_batch: Option<usize>,
    /// What it does.
    pub action: Action,
}

/// What an operation does.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// The host prepares the micro-batches.
    Input,
    /// Arithmetic.
    Compute {
        queue: QueueId,
        work: Work,
        /// Its kernels at nominal lengths.
        kernels: Arc<[Kernel]>,
    },
    /// A meeting with the ranks of a group.
    Meet {
        queue: QueueId,
        axis: u32,
        exchange: Exchange,
        /// The call at nominal lengths.
        call: Call,
    },
}

/// Arithmetic of one operation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    /// A pass of parts of a layer.
    Layer {
        phase: Phase,
        layer: usize,
        parts: Vec<Part>,
    },
    /// Adding a bucket's gradients to those of earlier micro-batches.
    Accumulate { bucket: usize },
    /// The squared norm of the gradients.
    Norm,
    /// The update.
    Optimizer,
}

/// What is exchanged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Exchange {
    /// Something of a part of a layer.
    Layer {
        layer: usize,
        part: Part,
        payload: Payload,
    },
    /// A bucket's gradients.
    Reduce { bucket: usize, micro_batch: usize },
    /// A bucket's parameters.
    Gather { bucket: usize },
    /// The squared norm.
    Norm,
    /// Activations or their gradients, to or from a neighbour in the pipeline.
    Transfer {
        stream: Stream,
        layer: usize,
        peer: Rank,
    },
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
    /// Translates a rank's program, and makes its queues on the device. `nominal` are the
    /// micro-batches at nominal lengths.
    ///
    /// # Errors
    /// [`MeasureError::Unsupported`] for an operation that there is no translation of;
    /// [`MeasureError::Start`] if the device refuses a queue, or memory does not fit.
    pub(crate) fn new(
        schedule: &Schedule,
        rank: Rank,
        network: &Network,
        device: &dyn Device,
        nominal: &[Batch],
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
            let after: Result<_, _> = operation.after.iter().map(position).collect();
            let unknown = || MeasureError::unsupported(operation, "it has no kernels");
            let micro_batch = operation.micro_batch.map(|index| index as usize);
            let batch = &nominal[micro_batch.unwrap_or(0)];
            let action = match operation.kind {
                OperationKind::Host => Action::Input,
                OperationKind::Compute => {
                    let work = work(operation).ok_or_else(unknown)?;
                    Action::Compute {
                        queue: queues.get(operation.stream).map_err(start)?,
                        kernels: work.kernels(network, batch).map_err(start)?,
                        work,
                    }
                }
                _ => {
                    let exchange = exchange(schedule, operation, rank).ok_or_else(unknown)?;
                    Action::Meet {
                        queue: queues.get(operation.stream).map_err(start)?,
                        axis: operation.axis.ok_or_else(unknown)?,
                        call: exchange.call(network, batch).map_err(start)?,
                        exchange,
                    }
                }
            };
            position_of.insert(id, items.len());
            items.push(Item {
                operation: id,
                phase: operation.phase,
                after: after?,
                micro_batch,
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
            Stream::Host => "host",
            Stream::Compute => "compute",
            Stream::Communication => "communication",
            Stream::Gather => "gather",
            Stream::ModelCommunication => "model",
            Stream::SendForward => "send-fwd",
            Stream::ReceiveForward => "recv-fwd",
            Stream::SendBackward => "send-bwd",
            Stream::ReceiveBackward => "recv-bwd",
        };
        let queue = self.device.create_queue(name)?;
        self.by_stream.insert(stream, queue);
        Ok(queue)
    }
}

/// The arithmetic of an operation; `None` where there is none.
fn work(operation: &Operation) -> Option<Work> {
    match operation.phase {
        phase @ (Phase::Forward | Phase::Backward | Phase::Recompute) => Some(Work::Layer {
            phase,
            layer: operation.layer? as usize,
            parts: operation.parts.clone(),
        }),
        Phase::GradientReduce => Some(Work::Accumulate {
            bucket: operation.bucket? as usize,
        }),
        Phase::GradientNorm => Some(Work::Norm),
        Phase::Optimizer => Some(Work::Optimizer),
        _ => None,
    }
}

/// What a meeting exchanges; `None` where that is not known.
fn exchange(schedule: &Schedule, operation: &Operation, rank: Rank) -> Option<Exchange> {
    let bucket = operation.bucket.map(|bucket| bucket as usize);
    let micro_batch = operation.micro_batch.unwrap_or(0) as usize;
    match (operation.kind, operation.phase) {
        (OperationKind::Collective(_), Phase::Forward | Phase::Backward | Phase::Recompute) => {
            Some(Exchange::Layer {
                layer: operation.layer? as usize,
                part: *operation.parts.first()?,
                payload: operation.payload?,
            })
        }
        (OperationKind::Collective(_), Phase::GradientReduce) => Some(Exchange::Reduce {
            bucket: bucket?,
            micro_batch,
        }),
        (OperationKind::Collective(_), Phase::ParameterGather) => {
            Some(Exchange::Gather { bucket: bucket? })
        }
        (OperationKind::Collective(Collective::AllReduce), Phase::GradientNorm) => {
            Some(Exchange::Norm)
        }
        (OperationKind::Send | OperationKind::Receive, Phase::PipelineTransfer) => {
            let group = schedule.group(operation.axis?, rank)?;
            let size = group.len() as u32;
            let own = group.iter().position(|member| *member == rank)? as Rank;
            Some(Exchange::Transfer {
                stream: operation.stream,
                layer: operation.layer? as usize,
                peer: match operation.kind {
                    OperationKind::Send => next(own, size),
                    _ => previous(own, size),
                },
            })
        }
        _ => None,
    }
}

impl Work {
    /// Kernels for a micro-batch. Those of the optimizer depend on the step, and are made in it.
    ///
    /// # Errors
    /// If the micro-batch does not fit the network's memory.
    pub(crate) fn kernels(
        &self,
        network: &Network,
        batch: &Batch,
    ) -> Result<Arc<[Kernel]>, BackendError> {
        let kernels = match self {
            Self::Layer {
                phase,
                layer,
                parts,
            } => network.kernels(*phase, *layer, parts, batch)?,
            Self::Accumulate { bucket } => network.accumulate(*bucket)?,
            Self::Norm => network.norm()?,
            Self::Optimizer => Vec::new(),
        };
        Ok(kernels.into())
    }
}

impl Exchange {
    /// The call for a micro-batch.
    ///
    /// # Errors
    /// If the micro-batch does not fit the network's memory.
    pub(crate) fn call(&self, network: &Network, batch: &Batch) -> Result<Call, BackendError> {
        match *self {
            Self::Layer {
                layer,
                part,
                payload,
            } => network.exchange(layer, (part, payload), batch),
            Self::Reduce {
                bucket,
                micro_batch,
            } => network.reduce(bucket, micro_batch),
            Self::Gather { bucket } => network.gather(bucket),
            Self::Norm => network.sum_norms(),
            Self::Transfer {
                stream,
                layer,
                peer,
            } => Ok(match stream {
                Stream::SendForward => Call::Send {
                    buffer: network.activations(layer + 1, batch)?,
                    to: peer,
                },
                Stream::ReceiveForward => Call::Receive {
                    buffer: network.activations(layer, batch)?,
                    from: peer,
                },
                Stream::SendBackward => Call::Send {
                    buffer: network.activation_gradients(layer, batch)?,
                    to: peer,
                },
                _ => Call::Receive {
                    buffer: network.activation_gradients(layer, batch)?,
                    from: peer,
                },
            }),
        }
    }
}
