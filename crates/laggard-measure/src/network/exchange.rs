//! What ranks exchange, as calls on this rank's memory: the other half of `kernels`.

use super::{Batch, Network};
use crate::memory::Region;
use crate::portion::Seat;
use crate::tokens::share;
use laggard_backend::{BackendError, Call, Matrix, Slice};
use laggard_schedule::{Part, Payload};
use laggard_types::{Rank, ReduceOp};

/// A call, or why it does not fit the memory.
type Made = Result<Call, BackendError>;

impl Network {
    /// A collective between ranks that share a layer.
    pub(crate) fn exchange(
        &self,
        layer: usize,
        (part, payload): (Part, Payload),
        batch: &Batch,
    ) -> Made {
        match (part, payload) {
            (Part::Attention, Payload::Input) => self.gather_keys(layer, batch),
            (Part::Attention, Payload::InputGradient) => self.scatter_key_gradients(batch),
            (Part::Experts, _) => self.exchange_tokens(layer, payload, batch),
            (_, Payload::Input) => {
                let stream = match part {
                    Part::Qkv | Part::Head => self.stream(layer, batch)?,
                    _ => self.kept_rows(Region::Residual, layer, batch)?,
                };
                let all = self.tokens_of(Region::Gathered, batch)?;
                Ok(self.gather_tokens(stream, all, batch))
            }
            (_, Payload::Output) => {
                let stream = match part {
                    Part::Attention => self.kept_rows(Region::Residual, layer, batch)?,
                    _ => self.stream(layer + 1, batch)?,
                };
                self.sum_tokens(stream, Region::Partial, batch)
            }
            (_, Payload::OutputGradient) => {
                let stream = self.stream_gradient(layer, batch)?;
                let all = self.tokens_of(Region::GatheredGradient, batch)?;
                Ok(self.gather_tokens(stream, all, batch))
            }
            (_, Payload::InputGradient) => {
                let stream = self.stream_gradient(layer, batch)?;
                match self.portion.sequence_parallel {
                    true => self.sum_tokens(stream, Region::PartialGradient, batch),
                    false => Ok(Call::AllReduce {
                        send: self.tokens_of(Region::PartialGradient, batch)?.slice,
                        recv: stream.slice,
                        op: ReduceOp::Sum,
                    }),
                }
            }
        }
    }

    /// What a pipeline piece sends on or receives: the activations that enter `layer`.
    pub(crate) fn activations(&self, layer: usize, batch: &Batch) -> Result<Slice, BackendError> {
        Ok(self.stream(layer, batch)?.slice)
    }

    /// The gradient of what enters, or leaves, the piece that holds `layer`.
    pub(crate) fn activation_gradients(
        &self,
        layer: usize,
        batch: &Batch,
    ) -> Result<Slice, BackendError> {
        Ok(self.stream_gradient(layer, batch)?.slice)
    }

    /// Sums a bucket's gradients over the ranks that hold its parameters: all of them, or each
    /// rank's shard.
    pub(crate) fn reduce(&self, bucket: usize, micro_batch: usize) -> Made {
        let placed = &self.portion.buckets[bucket];
        let send = self.flat(Region::Gradients, placed.range.clone())?;
        let op = ReduceOp::Sum;
        let Some(Seat { of, .. }) = placed.shard else {
            let recv = send.clone();
            return Ok(Call::AllReduce { send, recv, op });
        };
        let later = self.portion.reduces_each_micro_batch && micro_batch > 0;
        let region = match later {
            true => Region::GradientArrivals,
            false => Region::GradientShards,
        };
        let counts = vec![placed.sharded.len(); of];
        let recv = self.flat(region, placed.sharded.clone())?;
        Ok(Call::ReduceScatter {
            send,
            recv,
            op,
            counts,
        })
    }

    /// Gathers a bucket's parameters from their shards.
    pub(crate) fn gather(&self, bucket: usize) -> Made {
        let placed = &self.portion.buckets[bucket];
        let of = placed.shard.map_or(1, |shard| shard.of);
        Ok(Call::AllGather {
            send: self.flat(Region::ParameterShards, placed.sharded.clone())?,
            recv: self.flat(Region::Parameters, placed.range.clone())?,
            counts: vec![placed.sharded.len(); of],
        })
    }

    /// Sums the squared norms of all ranks' gradients.
    pub(crate) fn sum_norms(&self) -> Made {
        let norm = self.flat(Region::Norm, 0..1)?;
        Ok(Call::AllReduce {
            send: norm.clone(),
            recv: norm,
            op: ReduceOp::Sum,
        })
    }

    fn gather_tokens(&self, own: Matrix, all: Matrix, batch: &Batch) -> Call {
        Call::AllGather {
            send: own.slice,
            recv: all.slice,
            counts: self.rows_of_ranks(batch),
        }
    }

    /// Sums all ranks' addends of the stream: in place, or each rank's rows of `addends`.
    fn sum_tokens(&self, stream: Matrix, addends: Region, batch: &Batch) -> Made {
        let op = ReduceOp::Sum;
        if !self.portion.sequence_parallel {
            return Ok(Call::AllReduce {
                send: stream.slice.clone(),
                recv: stream.slice,
                op,
            });
        }
        Ok(Call::ReduceScatter {
            send: self.tokens_of(addends, batch)?.slice,
            recv: stream.slice,
            op,
            counts: self.rows_of_ranks(batch),
        })
    }

    /// Elements of the stream on each of the ranks that share its tokens.
    fn rows_of_ranks(&self, batch: &Batch) -> Vec<usize> {
        let (count, of) = (batch.tokens.count(), self.portion.tensor.of);
        let elements = |rank| share(count, of, rank).len() * self.portion.model.hidden;
        (0..of).map(elements).collect()
    }

    fn gather_keys(&self, layer: usize, batch: &Batch) -> Made {
        let counts = self.keys_of_ranks(batch);
        let total = counts.iter().sum();
        let all = self
            .memory
            .buffer(Region::KeyValue, self.kept(layer, batch))?;
        Ok(Call::AllGather {
            send: self.own_keys((Region::KeyValueOwn, (0, 0)), batch)?.slice,
            recv: Slice::new(all, 0..total)?,
            counts,
        })
    }

    fn scatter_key_gradients(&self, batch: &Batch) -> Made {
        let counts = self.keys_of_ranks(batch);
        let total = counts.iter().sum();
        let own = (Region::KeyValueGradientOwn, (0, 0));
        Ok(Call::ReduceScatter {
            send: self.flat(Region::KeyValueGradient, 0..total)?,
            recv: self.own_keys(own, batch)?.slice,
            op: ReduceOp::Sum,
            counts,
        })
    }

    /// Elements of keys and values of each of the ranks that share the sequences.
    fn keys_of_ranks(&self, batch: &Batch) -> Vec<usize> {
        let width = 2 * self.portion.own.kv_width();
        let elements = |part| batch.tokens.count_of(part) * width;
        (0..batch.tokens.parts).map(elements).collect()
    }

    /// Tokens to the experts and back, forward and backward.
    fn exchange_tokens(&self, layer: usize, payload: Payload, batch: &Batch) -> Made {
        let (here, there) = (self.sent(layer, batch)?, self.received(layer, batch)?);
        let sorted = |region| self.flat(region, 0..here.iter().sum());
        let come = |region, index| {
            let buffer = self.memory.buffer(region, index)?;
            Slice::new(buffer, 0..there.iter().sum())
        };
        let inputs = self.kept(layer, batch);
        let (send, recv, to_experts) = match payload {
            Payload::Input => (
                sorted(Region::Dispatched)?,
                come(Region::ExpertInput, inputs)?,
                true,
            ),
            Payload::Output => (
                come(Region::ExpertOutput, (0, 0))?,
                sorted(Region::Combined)?,
                false,
            ),
            Payload::OutputGradient => (
                sorted(Region::Combined)?,
                come(Region::ExpertOutput, (0, 0))?,
                true,
            ),
            Payload::InputGradient => (
                come(Region::ExpertInputGradient, (0, 0))?,
                sorted(Region::Dispatched)?,
                false,
            ),
        };
        let (send_counts, recv_counts) = match to_experts {
            true => (here, there),
            false => (there, here),
        };
        Ok(Call::AllToAll {
            send,
            recv,
            send_counts,
            recv_counts,
        })
    }
}

/// The member of a group that a send goes to: the next, the first after the last.
pub(crate) fn next(rank: Rank, size: u32) -> Rank {
    (rank + 1) % size
}

/// The member of a group that a receive comes from: the one before.
pub(crate) fn previous(rank: Rank, size: u32) -> Rank {
    (rank + size - 1) % size
}
