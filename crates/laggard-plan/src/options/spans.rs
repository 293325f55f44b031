//! Replicas that span classes: each has some stages of every class, with as many layers as the
//! stage is fast. The cut is exact for given numbers of stages, and so is their order where there
//! are not too many orders to look through; else the class with the most memory comes first.
//! Numbers of replicas, each with as many stages as the devices make, are gone through from the one
//! that could do most if layers could be split at will, until no other can do more than the best.

use laggard_schedule::Zero;
use laggard_simulate::{Degrees, Job, StepTime, predict};
use laggard_specs::{Model, Recompute, memory_of_stage};
use serde::Serialize;
use std::collections::BTreeSet;
use std::ops::Range;

use super::across;
use super::job::{ClassTime, Costs, JobPlan, Outcome, Parts};
use crate::layouts::{USABLE_MEMORY, powers};
use crate::stages::{Chain, Cut, Stage, cut_chain, order_stages};

/// Longest pipeline that is tried.
const MOST_STAGES: u64 = 24;
/// Largest micro-batch that is tried, in sequences.
const MOST_SEQUENCES: u32 = 4;
/// Most pairs of layers times ways to have used some stages of each class that all orders are
/// looked through for.
const MOST_ORDERS: usize = 1_000_000;

/// The pipeline of every replica, whose stages are of several classes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MixedPipeline {
    /// Class, by position, and layers of each stage in order.
    pub stages: Vec<(usize, usize)>,
}

/// How long a class takes for parts of the model, seconds of a micro-batch.
#[derive(Clone, Copy, Default)]
struct Pace {
    layer: f64,
    /// Output head, embedding and what the host adds.
    ends: f64,
    /// Share of a layer's time that is communication.
    communication: f64,
}

/// The best replicas of stages of all classes, on so many devices of each.
pub(super) fn best(costs: &Costs<'_>, counts: &[u64]) -> Option<JobPlan> {
    let mut ways = ways(costs, counts);
    ways.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut found: Option<(f64, JobPlan)> = None;
    for (most, degrees, stages) in ways {
        if found.as_ref().is_some_and(|(rate, _)| most <= *rate) {
            break;
        }
        for recompute in [Recompute::None, Recompute::Layers] {
            let degrees = Degrees {
                recompute,
                ..degrees
            };
            let best = found.as_ref().map_or(0.0, |(rate, _)| *rate);
            for job in cuts(costs, &degrees, &stages, (counts, best)) {
                let rate = costs.outcome(&job).map_or(0.0, |it| it.tokens_per_s());
                if found.as_ref().is_none_or(|(best, _)| rate > *best) {
                    found = Some((rate, job));
                }
            }
        }
    }
    found.map(|(_, job)| job)
}

/// Ways to divide the devices, each with the tokens per second that none of its cuts can pass.
fn ways(costs: &Costs<'_>, counts: &[u64]) -> Vec<(f64, Degrees, Vec<usize>)> {
    let problem = costs.problem;
    let model = problem.training.model;
    let classes: Vec<usize> = (0..counts.len()).filter(|&at| counts[at] > 0).collect();
    let divides = |tensor: &u32| model.heads.is_multiple_of(u64::from(*tensor));
    let mut ways = Vec::new();
    for tensor in powers(problem.space(0, &classes).most_tensor).filter(divides) {
        let mut replicas = BTreeSet::new();
        for &class in &classes {
            let per_stage = |stages: u64| counts[class] / (u64::from(tensor) * stages);
            replicas.extend((1..=MOST_STAGES).map(per_stage));
        }
        for micro_batch in powers(MOST_SEQUENCES) {
            let plain = degrees((tensor, micro_batch, 1), (1, 1));
            let there = |at: usize| counts[at] > 0;
            let paces = paces(costs, &plain, there).into_iter();
            let layers: Vec<f64> = paces.map(|pace| pace.layer).collect();
            for &data in replicas.iter().filter(|&&data| data > 0) {
                ways.extend(way(costs, counts, (tensor, micro_batch, data), &layers));
            }
        }
    }
    ways
}

/// A way to divide the devices, where it has stages of each class; `layers` are the seconds that a
/// class takes for one.
fn way(
    costs: &Costs<'_>,
    counts: &[u64],
    (tensor, micro_batch, data): (u32, u32, u64),
    layers: &[f64],
) -> Option<(f64, Degrees, Vec<usize>)> {
    let problem = costs.problem;
    let of_class = |count: &u64| (count / (u64::from(tensor) * data)) as usize;
    let stages: Vec<usize> = counts.iter().map(of_class).collect();
    let pipeline: usize = stages.iter().sum();
    let all_take_part = counts.iter().zip(&stages).all(|(n, s)| *n == 0 || *s > 0);
    if !all_take_part || pipeline as u64 > MOST_STAGES.min(problem.training.model.layers) {
        return None;
    }
    let sequences = f64::from(micro_batch) * data as f64;
    let micro_batches = (problem.most_sequences() / sequences) as u32;
    let data = u32::try_from(data).ok()?;
    if micro_batches == 0 {
        return None;
    }
    // No stage is done sooner than the average of all, and no layer sooner than on the fastest.
    let there = || stages.iter().zip(layers).filter(|(count, _)| **count > 0);
    let speed: f64 = there().map(|(&count, layer)| count as f64 / layer).sum();
    let fastest = there()
        .map(|(_, layer)| *layer)
        .fold(f64::INFINITY, f64::min);
    let later = f64::from(micro_batches - 1);
    let seconds = problem.training.model.layers as f64 * (later / speed + fastest);
    let ranks = u64::from(tensor) * u64::from(data);
    let devices: Vec<u64> = stages.iter().map(|&count| ranks * count as u64).collect();
    let tokens = sequences * f64::from(micro_batches) * f64::from(problem.training.sequence_length);
    // A hair more, since sums are rounded.
    let most = tokens / seconds * costs.useful(&devices)? * (1.0 + 1e-9);
    let degrees = degrees(
        (tensor, micro_batch, data),
        (pipeline as u32, micro_batches),
    );
    Some((most, degrees, stages))
}

fn degrees(
    (tensor, micro_batch, data): (u32, u32, u32),
    (pipeline, micro_batches): (u32, u32),
) -> Degrees {
    Degrees {
        tensor,
        context: 1,
        pipeline,
        data,
        expert: 1,
        virtual_stages: 1,
        micro_batch,
        micro_batches,
        sequence_parallel: tensor > 1,
        zero: Zero::Optimizer,
        shard_ranks: None,
        recompute: Recompute::None,
        recompute_layers: None,
    }
}

/// Those of each class that takes part; nobody asks for the others.
fn paces(costs: &Costs<'_>, degrees: &Degrees, takes_part: impl Fn(usize) -> bool) -> Vec<Pace> {
    let of = |class: usize| match takes_part(class) {
        true => pace(costs, degrees, class),
        false => Pace::default(),
    };
    (0..costs.machines.len()).map(of).collect()
}

/// From steps of one and of two layers in a single stage.
fn pace(costs: &Costs<'_>, degrees: &Degrees, class: usize) -> Pace {
    let step = |layers: u32, micro_batches: u32| -> StepTime {
        let degrees = Degrees {
            pipeline: 1,
            micro_batches,
            ..*degrees
        };
        let mut job: Job = costs.job(degrees);
        job.shape.layers = layers;
        predict(&job, &costs.machines[class], &costs.constants)
    };
    let each = |layers: u32| {
        let time = |step: StepTime| step.total_s - step.jitter_s - step.gradients_s;
        time(step(layers, 3)) - time(step(layers, 2))
    };
    let layer = each(2) - each(1);
    let two = step(2, 2);
    let links = two.tensor_s + two.context_s + two.expert_s;
    Pace {
        layer,
        ends: (each(1) - layer).max(0.0),
        communication: links / (4.0 * layer),
    }
}

/// The best cuts into so many stages of each class, one for each order of sites, if they train more
/// than `best` tokens a second.
fn cuts(
    costs: &Costs<'_>,
    degrees: &Degrees,
    counts: &[usize],
    (given, best): (&[u64], f64),
) -> Vec<JobPlan> {
    let problem = costs.problem;
    let ranks = u64::from(degrees.tensor) * u64::from(degrees.data);
    let devices: Vec<u64> = counts.iter().map(|&stages| ranks * stages as u64).collect();
    let around = Around::of(costs, degrees, counts);
    let sequences = degrees.global_batch() as f64;
    let tokens = sequences * f64::from(problem.training.sequence_length);
    // A hair more, since sums are rounded.
    let useful = costs.useful(&devices).unwrap_or(0.0);
    let longest = tokens * useful / best * (1.0 + 1e-9);
    let below = longest / (1.0 + around.jitter) - around.gradients - around.rest;
    let layers = problem.training.model.layers as usize;
    let paces = paces(costs, degrees, |class| counts[class] > 0);
    let transfer = transfer(costs, degrees, counts);
    let need = needs(
        problem.training.model,
        degrees,
        problem.training.sequence_length,
    );
    let last = |range: &Range<usize>| range.end == layers;
    let seconds = |stage: Stage, range: Range<usize>| {
        let pace = &paces[stage.class];
        let ends = if last(&range) { pace.ends } else { 0.0 };
        range.len() as f64 * pace.layer + ends + transfer
    };
    let fits = |stage: Stage, range: Range<usize>| {
        let memory = problem.classes[stage.class].of.machine.memory_bytes;
        let need = need.get(stage.before).and_then(|row| row.get(range.len()));
        need.is_some_and(|need| *need <= memory * USABLE_MEMORY)
    };
    let chain = Chain {
        layers,
        micro_batches: degrees.micro_batches.into(),
        seconds: &seconds,
        after: &|_, _| 0.0,
        fits: &fits,
        below,
    };
    let left = || given.iter().zip(&devices);
    let job = |cut: Cut| JobPlan {
        degrees: *degrees,
        parts: Parts::Stages(MixedPipeline {
            stages: cut
                .stages
                .into_iter()
                .map(|(at, it)| (at, it.len()))
                .collect(),
        }),
        idle: left().map(|(count, devices)| count - devices).collect(),
    };
    let cuts = ordered(costs, &chain, counts).into_iter();
    cuts.map(job).collect()
}

/// The best cut in the best order, or in that of memory where there are too many. Stages at several
/// sites stand together site by site, in an order in which links join neighbours.
fn ordered(costs: &Costs<'_>, chain: &Chain<'_>, counts: &[usize]) -> Vec<Cut> {
    let classes = &costs.problem.classes;
    let there = || (0..counts.len()).filter(|&class| counts[class] > 0);
    let sites: BTreeSet<usize> = there().map(|class| classes[class].site).collect();
    let states: usize = counts.iter().map(|count| count + 1).product();
    let all_orders = states.saturating_mul(chain.layers * chain.layers) <= MOST_ORDERS;
    if sites.len() < 2 && all_orders {
        return in_any_order(chain, &there().collect::<Vec<_>>(), counts)
            .into_iter()
            .collect();
    }
    let memory = |class: usize| classes[class].of.machine.memory_bytes;
    let cut = |order: Vec<usize>| {
        let place = |class: usize| order.iter().position(|&site| site == classes[class].site);
        let mut by_place: Vec<usize> = there().collect();
        by_place.sort_by(|&a, &b| {
            let memories = memory(b).total_cmp(&memory(a));
            place(a).cmp(&place(b)).then(memories)
        });
        let stages = by_place.into_iter();
        let stages = stages.flat_map(|class| std::iter::repeat_n(class, counts[class]));
        cut_chain(chain, &stages.collect::<Vec<_>>()).ok()
    };
    let orders = match sites.len() {
        0 | 1 => vec![sites.into_iter().collect()],
        _ => across::orders(costs.problem, &sites),
    };
    orders.into_iter().filter_map(cut).collect()
}

/// The best cut in the best order, by the classes that take part alone.
fn in_any_order(chain: &Chain<'_>, there: &[usize], counts: &[usize]) -> Option<Cut> {
    let of = |stage: Stage| Stage {
        class: there[stage.class],
        ..stage
    };
    let counts: Vec<usize> = there.iter().map(|&class| counts[class]).collect();
    let few = Chain {
        seconds: &|stage, range| (chain.seconds)(of(stage), range),
        after: &|stage, range| (chain.after)(of(stage), range),
        fits: &|stage, range| (chain.fits)(of(stage), range),
        ..*chain
    };
    let mut cut = order_stages(&few, &counts).ok()?;
    cut.stages.iter_mut().for_each(|it| it.0 = there[it.0]);
    Some(cut)
}

/// Memory of each stage with each number of layers, bytes; infinite where it cannot be.
fn needs(model: &Model, degrees: &Degrees, sequence_length: u32) -> Vec<Vec<f64>> {
    let layout = degrees.memory_layout(sequence_length);
    let stages = u64::from(degrees.pipeline);
    let models: Vec<Model> = (0..=model.layers)
        .map(|layers| Model {
            layers: layers * stages,
            ..model.clone()
        })
        .collect();
    let need = |stage: u64, model: &Model| {
        let need = memory_of_stage(model, &layout, stage);
        need.map_or(f64::INFINITY, |need| need.total().0 as f64)
    };
    let row = |stage: u64| models.iter().map(|model| need(stage, model)).collect();
    (0..stages).map(row).collect()
}

/// Exposed seconds of a micro-batch's transfers at a stage, of the class where they take longest.
fn transfer(costs: &Costs<'_>, degrees: &Degrees, counts: &[usize]) -> f64 {
    let there = (0..counts.len()).filter(|&class| counts[class] > 0);
    let of = |class| whole(costs, degrees, class).transfer_s / f64::from(degrees.micro_batches);
    there.map(of).fold(0.0, f64::max)
}

/// The step of an even pipeline, for what does not depend on how layers are cut.
fn whole(costs: &Costs<'_>, degrees: &Degrees, class: usize) -> StepTime {
    costs.step(degrees, class, degrees.micro_batches)
}

/// What a step takes beside its pipelines.
struct Around {
    /// Gradients, seconds.
    gradients: f64,
    /// The optimizer and the host, seconds.
    rest: f64,
    /// What ranks that are late add, as a share.
    jitter: f64,
}

impl Around {
    /// That of the slowest class in each.
    fn of(costs: &Costs<'_>, degrees: &Degrees, counts: &[usize]) -> Self {
        let there = (0..counts.len()).filter(|&at| counts[at] > 0);
        let mut all = Self {
            gradients: 0.0,
            rest: 0.0,
            jitter: 0.0,
        };
        for step in there.map(|class| whole(costs, degrees, class)) {
            let jitter = step.jitter_s / (step.total_s - step.jitter_s);
            all.gradients = all.gradients.max(step.gradients_s);
            all.rest = all.rest.max(step.optimizer_s + step.fixed_s);
            all.jitter = all.jitter.max(jitter);
        }
        all
    }
}

/// What a job of such replicas does: `sum(t) + (m - 1) max(t)` over the stages of a pipeline, and
/// once a step what the slowest class takes for gradients and the optimizer.
pub(super) fn outcome(costs: &Costs<'_>, degrees: &Degrees, span: &MixedPipeline) -> Outcome {
    let classes = costs.machines.len();
    let mut counts = vec![0; classes];
    span.stages
        .iter()
        .for_each(|&(class, _)| counts[class] += 1);
    let Around {
        gradients,
        rest,
        jitter,
    } = Around::of(costs, degrees, &counts);
    let transfer = transfer(costs, degrees, &counts);
    let paces = paces(costs, degrees, |class| counts[class] > 0);
    let last = span.stages.len() - 1;
    let times: Vec<f64> = span
        .stages
        .iter()
        .enumerate()
        .map(|(at, &(class, layers))| {
            let ends = if at == last { paces[class].ends } else { 0.0 };
            layers as f64 * paces[class].layer + ends + transfer
        })
        .collect();
    let micro_batches = f64::from(degrees.micro_batches);
    let (sum, longest) = (
        times.iter().sum::<f64>(),
        times.iter().copied().fold(0.0, f64::max),
    );
    let replicas = f64::from(degrees.data) * f64::from(degrees.micro_batch);
    let in_order = span.stages.iter().zip(&times);
    let in_order: Vec<(usize, f64)> = in_order.map(|(stage, time)| (stage.0, *time)).collect();
    let hops = costs.hops(&in_order, replicas);
    let links_s = hops.once_s + (micro_batches - 1.0) * (hops.each_s - longest).max(0.0);
    let pipeline = sum + (micro_batches - 1.0) * longest + links_s;
    let base = pipeline + gradients + rest;
    let step_s = base * (1.0 + jitter);
    let mut of_class = vec![ClassTime::default(); classes];
    let devices = u64::from(degrees.tensor) * u64::from(degrees.data);
    for (&(class, layers), time) in span.stages.iter().zip(&times) {
        let links = layers as f64 * paces[class].layer * paces[class].communication + transfer;
        let time = ClassTime {
            devices,
            kernels_s: micro_batches * (time - links) + rest,
            communication_s: micro_batches * links + gradients,
            bubble_s: sum - longest,
            waiting_s: micro_batches * (longest - time),
            jitter_s: step_s - base,
            links_s,
        };
        of_class[class].include(&time);
    }
    let sequences = degrees.global_batch() as f64;
    Outcome {
        step_s,
        step_tokens: sequences * f64::from(costs.problem.training.sequence_length),
        classes: of_class,
        mtbf_s: None,
        goodput: None,
    }
}

#[cfg(test)]
mod tests;
