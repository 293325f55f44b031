//! Every layout of a space, but for what replicas share out and what backward computes again.

use laggard_simulate::Degrees;
use laggard_specs::Model;

use super::{Demand, Space};

/// Widest pipeline that is tried.
const MOST_STAGES: u32 = 64;
/// Most ranks that share the tokens of a sequence, as far as is tried.
const MOST_CONTEXT: u32 = 8;
/// Most pieces of a stage that are tried.
const MOST_PIECES: u32 = 8;
/// Largest micro-batch that is tried, in sequences.
const MOST_SEQUENCES: u32 = 16;

/// Calls `each` with every layout of a space, in a fixed order: simple ones first.
pub(super) fn for_each(demand: &Demand<'_>, space: Space, each: &mut dyn FnMut(Degrees)) {
    let model = demand.model;
    let divides = |all: u64, part: u32| all.is_multiple_of(part.into());
    let tensors = powers(space.most_tensor).filter(|&tensor| divides(model.heads, tensor));
    for tensor in tensors {
        let is_even =
            |pieces: u32| divides(model.layers, pieces) || divides(model.layers + 2, pieces);
        let stages = (1..=MOST_STAGES).filter(|&stages| {
            u64::from(stages) <= model.layers && (stages.is_power_of_two() || is_even(stages))
        });
        for pipeline in stages {
            for virtual_stages in 1..=MOST_PIECES {
                let pieces = pipeline * virtual_stages;
                let cannot = pipeline == 1 || u64::from(pieces) > model.layers || !is_even(pieces);
                if virtual_stages > 1 && cannot {
                    continue;
                }
                let degrees = Degrees {
                    tensor,
                    pipeline,
                    virtual_stages,
                    sequence_parallel: tensor > 1,
                    ..Degrees::ONE
                };
                for expert in experts(model) {
                    for context in contexts(demand) {
                        let degrees = Degrees {
                            expert,
                            context,
                            ..degrees
                        };
                        replicas(demand, space, &degrees, each);
                    }
                }
            }
        }
    }
}

/// The number of replicas and micro-batches for given degrees of the rest.
fn replicas(demand: &Demand<'_>, space: Space, degrees: &Degrees, each: &mut dyn FnMut(Degrees)) {
    let most = space.ranks / degrees.ranks_per_replica();
    if most == 0 {
        return;
    }
    for micro_batch in powers(MOST_SEQUENCES) {
        let batches = demand.global_batch / u64::from(micro_batch);
        // Interleaved pipelines take rounds of as many micro-batches as they have stages.
        let round = match degrees.virtual_stages {
            1 => 1,
            _ => degrees.pipeline,
        };
        let found = batches_of(most, batches, (degrees.expert, round), demand);
        if let Some((data, micro_batches)) = found {
            each(Degrees {
                data: data as u32,
                micro_batch,
                micro_batches: micro_batches as u32,
                ..*degrees
            });
        }
    }
}

/// Replicas and micro-batches of each, for `batches` in all: as many replicas as there can be, or
/// where that misses the batch by too much, as many as divide it. Replicas come in groups that
/// share experts, micro-batches in rounds.
pub(super) fn batches_of(
    most: u64,
    batches: u64,
    (expert, round): (u32, u32),
    demand: &Demand<'_>,
) -> Option<(u64, u64)> {
    let (expert, round) = (u64::from(expert), u64::from(round));
    let all = most.min(batches / round) / expert * expert;
    if all > 0 {
        let rounds = batches as f64 / (all * round) as f64;
        let fits = |each: u64| {
            let off = (all * each) as f64 / batches as f64 - 1.0;
            each > 0 && off <= demand.batch_excess && -off <= demand.batch_shortfall
        };
        let each = [rounds.round(), rounds.floor()].map(|rounds| rounds as u64 * round);
        if let Some(each) = each.into_iter().find(|&each| fits(each)) {
            return Some((all, each));
        }
    }
    let divides =
        |replicas: u64| replicas.is_multiple_of(expert) && batches.is_multiple_of(replicas * round);
    let data = (1..=most.min(batches)).rev().find(|&it| divides(it))?;
    Some((data, batches / data))
}

pub(crate) fn powers(most: u32) -> impl Iterator<Item = u32> {
    (0..32)
        .map(|power| 1_u32 << power)
        .take_while(move |it| *it <= most)
}

/// A causal mask leaves the ranks of a sequence equal work where each has two equal parts of it,
/// one from either end (Megatron-LM's `--context-parallel-size`).
fn contexts(demand: &Demand<'_>) -> impl Iterator<Item = u32> {
    let length = demand.sequence_length;
    powers(MOST_CONTEXT).filter(move |context| *context == 1 || length.is_multiple_of(2 * context))
}

fn experts(model: &Model) -> Vec<u32> {
    match &model.experts {
        None => vec![1],
        Some(experts) => powers(64)
            .filter(|&it| experts.count.is_multiple_of(it.into()))
            .collect(),
    }
}
