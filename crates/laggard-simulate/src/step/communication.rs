//! What the collectives of a step take when nothing hides them: a matter of bytes, groups and
//! links alone.

use laggard_schedule::Zero;
use laggard_types::Collective;

use super::parameters_of_rank;
use crate::job::{Degrees, Job, Machine};
use crate::network::{Group, collective_seconds};

/// Bytes of an element in half precision.
const HALF_BYTES: f64 = 2.0;

/// Seconds of each collective of a job, alone on its links.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Communication {
    /// One synchronisation of tensor-parallel ranks: an all-reduce, or the reduce-scatter and
    /// all-gather that replace it.
    pub tensor_s: f64,
    /// Exchange of a layer's keys and values, forward.
    pub context_s: f64,
    /// Sending tokens to their experts, or back.
    pub expert_s: f64,
    /// Gathering a layer's sharded parameters, or scattering their gradients.
    pub shard_s: f64,
    /// One transfer of a micro-batch between two stages, those that are furthest apart.
    pub transfer_s: f64,
    /// All transfers of a micro-batch through the pipeline once.
    pub through_s: f64,
    /// Reducing gradients and gathering parameters once a step.
    pub gradients_s: f64,
    /// The reduction alone.
    pub reduce_s: f64,
}

impl Communication {
    /// The collectives of a job on a machine.
    #[must_use]
    pub fn of(job: &Job, machine: &Machine) -> Self {
        let [reduce_s, gather_s] = gradients(job, machine);
        let [transfer_s, through_s] = transfers(job, machine);
        Self {
            tensor_s: tensor(job, machine),
            context_s: context(job, machine),
            expert_s: expert(job, machine),
            shard_s: shard(job, machine),
            transfer_s,
            through_s,
            gradients_s: reduce_s + gather_s,
            reduce_s,
        }
    }
}

/// Ranks that share out what ZeRO shares of dense parameters.
pub(super) fn shards(job: &Job) -> f64 {
    let all = job.degrees.gradient_ranks();
    f64::from(job.degrees.shard_ranks.map_or(all, |ranks| ranks.min(all)))
}

/// How the ranks of a replica's layer share its routed experts.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoutedOver {
    /// Ranks that have all experts of a layer together.
    pub(super) shared_by: f64,
    /// Ranks that have the same of them, and share out what ZeRO shares.
    pub(super) shards: f64,
    /// How far apart two of those are.
    stride: u32,
}

/// Alone, tensor-parallel ranks each have a part of every expert. With experts on ranks of their
/// own, these are taken from the tensor-parallel ranks first, and experts are whole (Megatron-LM's
/// `--expert-tensor-parallel-size 1`).
pub(super) fn routed_over(degrees: &Degrees) -> RoutedOver {
    let replicas = degrees.gradient_ranks();
    let (shared_by, shards) = match degrees.expert {
        1 => (degrees.tensor, replicas),
        expert => (expert, (replicas * degrees.tensor / expert).max(1)),
    };
    RoutedOver {
        shared_by: shared_by.into(),
        shards: shards.into(),
        stride: shared_by,
    }
}

fn group(job: &Job, machine: &Machine, ranks: u32, stride: u32) -> Group {
    let group = Group::strided(ranks, stride, &machine.fabric);
    match job.software.all_cards {
        true => group,
        false => Group {
            ranks_per_domain: 1,
            ..group
        },
    }
}

fn tensor(job: &Job, machine: &Machine) -> f64 {
    let degrees = &job.degrees;
    let group = Group::strided(degrees.tensor, 1, &machine.fabric);
    let bytes = HALF_BYTES * job.tokens_per_micro_batch() * job.shape.hidden;
    let seconds = |collective| collective_seconds(collective, bytes, &group, &machine.fabric);
    match degrees.sequence_parallel {
        true => seconds(Collective::ReduceScatter) + seconds(Collective::AllGather),
        false => seconds(Collective::AllReduce),
    }
}

fn context(job: &Job, machine: &Machine) -> f64 {
    let degrees = &job.degrees;
    let group = Group::strided(degrees.context, degrees.tensor, &machine.fabric);
    let tokens = job.tokens_per_micro_batch() * f64::from(degrees.context);
    let bytes = HALF_BYTES * tokens * job.shape.keys_and_values / f64::from(degrees.tensor);
    collective_seconds(Collective::AllGather, bytes, &group, &machine.fabric)
}

fn expert(job: &Job, machine: &Machine) -> f64 {
    let Some(experts) = &job.shape.experts else {
        return 0.0;
    };
    let degrees = &job.degrees;
    // Ranks that share tokens by tensor parallelism take part as well.
    let group = Group::strided(degrees.expert, 1, &machine.fabric);
    let tokens = job.tokens_per_micro_batch() / f64::from(degrees.tensor);
    let bytes = HALF_BYTES * tokens * experts.active * job.shape.hidden;
    collective_seconds(Collective::AllToAll, bytes, &group, &machine.fabric)
}

fn shard(job: &Job, machine: &Machine) -> f64 {
    let degrees = &job.degrees;
    if degrees.zero != Zero::Parameters {
        return 0.0;
    }
    let shape = &job.shape;
    let dense = shape.attention_parameters() + shape.dense_ffn_parameters();
    let gather = |parameters: f64, ranks: f64, stride: u32| {
        let group = group(job, machine, ranks as u32, stride);
        let bytes = HALF_BYTES * parameters;
        collective_seconds(Collective::AllGather, bytes, &group, &machine.fabric)
    };
    let over = routed_over(degrees);
    let routed = shape.routed_parameters() / over.shared_by;
    gather(
        dense / f64::from(degrees.tensor),
        shards(job),
        degrees.tensor,
    ) + gather(routed, over.shards, over.stride)
}

/// The transfer between the stages that are furthest apart, and all of them one after the other.
fn transfers(job: &Job, machine: &Machine) -> [f64; 2] {
    let degrees = &job.degrees;
    if degrees.pipeline == 1 {
        return [0.0; 2];
    }
    let scattered = job.software.scatter_transfers || degrees.sequence_parallel;
    let parts = if scattered { degrees.tensor } else { 1 };
    let bytes = HALF_BYTES * job.tokens_per_micro_batch() * job.shape.hidden / f64::from(parts);
    let fabric = &machine.fabric;
    let inner = u64::from(degrees.tensor) * u64::from(degrees.context) * u64::from(degrees.data);
    let (mut slowest, mut all) = (0.0_f64, 0.0);
    for (pair, count) in Group::neighbours(degrees.pipeline, inner, fabric) {
        if count > 0 {
            let seconds = collective_seconds(Collective::SendRecv, bytes, &pair, fabric);
            slowest = slowest.max(seconds);
            all += count as f64 * seconds;
        }
    }
    [slowest, all]
}

/// Reducing the gradients of a rank, and gathering its parameters.
fn gradients(job: &Job, machine: &Machine) -> [f64; 2] {
    let degrees = &job.degrees;
    if degrees.zero == Zero::Parameters {
        return [0.0; 2];
    }
    let (dense, routed) = parameters_of_rank(job);
    let exchange = |parameters: f64, ranks: u32, stride: u32| {
        let group = group(job, machine, ranks, stride);
        let seconds = |collective, size: f64| {
            collective_seconds(collective, size * parameters, &group, &machine.fabric)
        };
        let gradient = job.software.gradient_bytes;
        match degrees.zero {
            Zero::None => [seconds(Collective::AllReduce, gradient), 0.0],
            _ => [
                seconds(Collective::ReduceScatter, gradient),
                seconds(Collective::AllGather, HALF_BYTES),
            ],
        }
    };
    let of_dense = exchange(dense, degrees.gradient_ranks(), degrees.tensor);
    if job.shape.experts.is_none() {
        return of_dense;
    }
    let over = routed_over(degrees);
    let of_routed = exchange(routed, over.shards as u32, over.stride);
    [of_dense[0] + of_routed[0], of_dense[1] + of_routed[1]]
}
