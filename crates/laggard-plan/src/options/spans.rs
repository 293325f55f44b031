//! Replicas that span classes: each has some stages of every class, with as many layers as the
//! stage is fast.
//!
//! What is searched are the pipelines that frameworks can be told to run: one width of tensor
//! parallelism for all stages, each stage of one class in all replicas, and at least one stage of
//! every class. ([`crate::fastest_pipeline`] answers another question: widths and stages that
//! differ from class to class and slot to slot, for a batch of one size and costs that somebody
//! else knows. Nothing here could write such a pipeline down.) All numbers of replicas and of
//! stages are looked through where these are few. Where they are many, replicas are as many as the
//! devices of some class make with a number of stages each, or as fill the batch, and each class
//! has as many stages as it makes for them, up to the longest pipeline. For each, the cut is exact,
//! and so is the order of the stages where there are not too many orders to look through; for the
//! others a bound is given. Divisions are gone through from the one that could do most, until no
//! other can do more than the best.

mod cuts;
mod setting;

use laggard_schedule::Zero;
use laggard_simulate::Degrees;
use laggard_specs::Recompute;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

use super::job::{Costs, JobPlan, Outcome};
use crate::layouts::powers;
use setting::{Pace, Setting};

/// Longest pipeline that is tried.
const MOST_STAGES: u64 = 24;
/// Largest micro-batch that is tried, in sequences.
const MOST_SEQUENCES: u32 = 4;
/// Most numbers of replicas with stages of each class that are all looked through.
const FEW_DIVISIONS: usize = 2048;
/// Divisions that are tried at the same time, whatever the number of processors: what is found may
/// not depend on that. Each is tried as if the others of its time had found nothing.
const AT_ONCE: usize = 2;
/// What may have been missed is said from such a share on.
const WORTH_SAYING: f64 = 5e-4;

/// The pipeline of every replica, whose stages are of several classes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MixedPipeline {
    /// Class, by position, and layers of each stage in order.
    pub stages: Vec<(usize, usize)>,
}

/// What a search found.
pub(super) struct Found {
    /// The best job that trains more than asked for.
    pub(super) job: Option<JobPlan>,
    /// Tokens per second that it trains, or those that were asked for.
    pub(super) tokens_per_s: f64,
    /// What no order of stages that was not tried trains more than.
    pub(super) most_tokens_per_s: f64,
    /// Whether all divisions of the devices were tried.
    pub(super) has_all_divisions: bool,
}

impl Found {
    fn add(&mut self, tried: Tried) {
        if tried.most <= self.tokens_per_s {
            return;
        }
        if !tried.is_best_of_all {
            self.most_tokens_per_s = self.most_tokens_per_s.max(tried.most);
        }
        for (rate, job) in tried.jobs {
            if rate > self.tokens_per_s {
                self.tokens_per_s = rate;
                self.job = Some(job);
            }
        }
    }

    /// What orders that were not tried may train over what the best does.
    pub(super) fn excess(&self) -> f64 {
        match &self.job {
            Some(_) => self.most_tokens_per_s / self.tokens_per_s,
            None => 0.0,
        }
    }
}

/// What to say where no pipeline was found.
pub(super) fn none(has_all_divisions: bool) -> &'static str {
    match has_all_divisions {
        true => {
            "no pipeline of up to 24 stages has some of every class, within the batch and the \
             memory"
        }
        false => {
            "of the pipelines of up to 24 stages that were tried, none has some of every class, \
             within the batch and the memory"
        }
    }
}

/// What to say where orders of stages that were not tried may train that many times as much, and
/// where not all divisions were tried.
pub(super) fn missed(excess: f64, has_all_divisions: bool) -> impl Iterator<Item = String> {
    let divisions = (!has_all_divisions).then(|| {
        "of the ways to divide the devices into stages by speed only some were tried".to_owned()
    });
    let orders = (excess > 1.0 + WORTH_SAYING).then(|| {
        format!(
            "not every order of stages by speed was tried: none of the others trains more than \
             {:.1} % more",
            100.0 * (excess - 1.0)
        )
    });
    orders.into_iter().chain(divisions)
}

/// The best replicas of stages of all classes, on so many devices of each, that train more than
/// `beat` tokens a second.
pub(super) fn best(costs: &Costs<'_>, counts: &[u64], beat: f64) -> Found {
    let mut known = Paces::default();
    let (mut ways, has_all_divisions) = ways(costs, counts, &mut known);
    ways.sort_by(|a, b| b.most.total_cmp(&a.most));
    let mut found = Found {
        job: None,
        tokens_per_s: beat,
        most_tokens_per_s: 0.0,
        has_all_divisions,
    };
    for ways in ways.chunks(AT_ONCE) {
        if ways[0].most <= found.tokens_per_s {
            break;
        }
        for way in ways {
            known.of(costs, counts, &way.degrees);
            known.of(costs, counts, &way.again());
        }
        let tried = ways
            .par_iter()
            .map(|way| way.tried(costs, counts, (&known, found.tokens_per_s)));
        let tried: Vec<Vec<Tried>> = tried.collect();
        tried.into_iter().flatten().for_each(|it| found.add(it));
    }
    found
}

/// A way with or without recomputation.
struct Tried {
    /// Tokens per second that none of its cuts can pass.
    most: f64,
    /// Whether no order of the stages has a better cut.
    is_best_of_all: bool,
    /// Its best cuts with the tokens per second of each.
    jobs: Vec<(f64, JobPlan)>,
}

impl Way {
    /// The same where layers are computed again.
    fn again(&self) -> Degrees {
        Degrees {
            recompute: Recompute::Layers,
            ..self.degrees
        }
    }

    /// What comes of it that may train more than `beat` tokens a second.
    fn tried(&self, costs: &Costs<'_>, counts: &[u64], (known, beat): (&Paces, f64)) -> Vec<Tried> {
        let mut best = beat;
        let mut all = Vec::new();
        for degrees in [self.degrees, self.again()] {
            let setting = Setting::of(costs, &degrees, (&self.stages, known.get(&degrees)));
            let most = setting.most_tokens_per_s();
            if most <= best {
                continue;
            }
            let cuts = setting.cuts(best);
            let job = |stages| {
                let job = setting.job(MixedPipeline { stages }, counts);
                let rate = costs.outcome(&job).map_or(0.0, |it| it.tokens_per_s());
                (rate, job)
            };
            let jobs: Vec<(f64, JobPlan)> = cuts.list.into_iter().map(job).collect();
            best = jobs.iter().map(|it| it.0).fold(best, f64::max);
            all.push(Tried {
                most,
                is_best_of_all: cuts.are_best_of_all,
                jobs,
            });
        }
        all
    }
}

/// What a job of such replicas does.
pub(super) fn outcome(costs: &Costs<'_>, degrees: &Degrees, span: &MixedPipeline) -> Outcome {
    let mut stages = vec![0; costs.machines.len()];
    span.stages
        .iter()
        .for_each(|&(class, _)| stages[class] += 1);
    let paces = setting::paces(costs, degrees, |class| stages[class] > 0);
    Setting::of(costs, degrees, (&stages, &paces)).outcome(span)
}

/// Paces of the classes by what they depend on.
#[derive(Default)]
struct Paces {
    known: BTreeMap<(u32, u32, bool), Vec<Pace>>,
}

impl Paces {
    fn key(degrees: &Degrees) -> (u32, u32, bool) {
        let again = degrees.recompute != Recompute::None;
        (degrees.tensor, degrees.micro_batch, again)
    }

    /// Those that have been found out.
    fn get(&self, degrees: &Degrees) -> &[Pace] {
        self.known
            .get(&Self::key(degrees))
            .map_or(&[], Vec::as_slice)
    }

    fn of(&mut self, costs: &Costs<'_>, counts: &[u64], degrees: &Degrees) -> &[Pace] {
        let key = Self::key(degrees);
        let new = || setting::paces(costs, degrees, |class| counts[class] > 0);
        self.known.entry(key).or_insert_with(new)
    }
}

/// A way to divide the devices.
struct Way {
    /// Tokens per second that none of its cuts can pass.
    most: f64,
    degrees: Degrees,
    /// Stages of each class.
    stages: Vec<usize>,
}

/// The ways that are tried, and whether these are all.
fn ways(costs: &Costs<'_>, counts: &[u64], known: &mut Paces) -> (Vec<Way>, bool) {
    let problem = costs.problem;
    let model = problem.training.model;
    let classes: Vec<usize> = (0..counts.len()).filter(|&at| counts[at] > 0).collect();
    let divides = |tensor: &u32| model.heads.is_multiple_of(u64::from(*tensor));
    let longest = MOST_STAGES.min(model.layers) as usize;
    let (mut ways, mut are_all) = (Vec::new(), true);
    if classes.len() > longest {
        return (ways, are_all);
    }
    for tensor in powers(problem.space(0, &classes).most_tensor).filter(divides) {
        let groups: Vec<u64> = counts.iter().map(|it| it / u64::from(tensor)).collect();
        let all = all_divisions(&groups, &classes, longest);
        are_all &= all.is_some();
        for micro_batch in powers(MOST_SEQUENCES) {
            let batch = (problem.most_sequences() / f64::from(micro_batch)) as u64;
            let plain = degrees((tensor, micro_batch, 1), (1, 1));
            let paces = known.of(costs, counts, &plain);
            let divisions = match &all {
                Some(all) => all.clone(),
                None => some_divisions(&groups, (&classes, longest), paces, batch),
            };
            for (data, stages) in divisions {
                let way = way(costs, (tensor, micro_batch, data), stages, (paces, batch));
                ways.extend(way);
            }
        }
    }
    (ways, are_all)
}

/// Numbers of replicas with stages of each class.
type Division = (u64, Vec<usize>);

/// All that so many groups of devices of each class make; `None` where these are many.
fn all_divisions(groups: &[u64], classes: &[usize], longest: usize) -> Option<Vec<Division>> {
    let fewest = classes.iter().map(|&class| groups[class]).min()?;
    let mut divisions = Vec::new();
    for data in 1..=fewest {
        let mut parts = vec![vec![0; groups.len()]];
        for (at, &class) in classes.iter().enumerate() {
            let to_come = classes.len() - at - 1;
            let made = groups[class] / data;
            let with = |stages: &Vec<usize>| {
                let room = longest - to_come - stages.iter().sum::<usize>();
                let most = made.min(room as u64) as usize;
                let stages = stages.clone();
                (1..=most).map(move |count| {
                    let mut stages = stages.clone();
                    stages[class] = count;
                    stages
                })
            };
            parts = parts
                .iter()
                .flat_map(with)
                .take(FEW_DIVISIONS + 1)
                .collect();
        }
        divisions.extend(parts.into_iter().map(|stages| (data, stages)));
        if divisions.len() > FEW_DIVISIONS {
            return None;
        }
    }
    Some(divisions)
}

/// Those with as many replicas as some class makes with a number of stages each, or fewer that fill
/// the batch, and as many stages as these leave for; of too many, the slowest are given up.
fn some_divisions(
    groups: &[u64],
    (classes, longest): (&[usize], usize),
    paces: &[Pace],
    batch: u64,
) -> Vec<Division> {
    let mut numbers = BTreeSet::new();
    for &class in classes {
        let of = |stages: u64| groups[class] / stages;
        numbers.extend((1..=MOST_STAGES).map(of).filter(|data| *data > 0));
    }
    let mut divisions = BTreeSet::new();
    for most in numbers {
        let mut stages: Vec<usize> = groups.iter().map(|it| (it / most) as usize).collect();
        if classes.iter().any(|&class| stages[class] == 0) {
            continue;
        }
        let mut surplus = stages.iter().sum::<usize>().saturating_sub(longest);
        let mut by_pace = classes.to_vec();
        by_pace.sort_by(|&a, &b| paces[b].layer.total_cmp(&paces[a].layer));
        for class in by_pace {
            let fewer = surplus.min(stages[class] - 1);
            stages[class] -= fewer;
            surplus -= fewer;
        }
        let fewer = filling(most, batch).into_iter();
        divisions.extend(fewer.map(|data| (data, stages.clone())));
    }
    divisions.into_iter().collect()
}

/// So many replicas, and fewer that leave less of a batch of micro-batches to nobody. With m
/// micro-batches less than 1/m is left, and each more of them takes 1/(m + stages) longer.
fn filling(most: u64, batch: u64) -> Vec<u64> {
    let least = batch / most;
    let mut numbers = vec![most];
    if least == 0 {
        return vec![batch];
    }
    let mut filled = most * least;
    for micro_batches in least + 1..=least + 1 + MOST_STAGES / least {
        let data = batch / micro_batches;
        if data * micro_batches > filled {
            filled = data * micro_batches;
            numbers.push(data);
        }
    }
    numbers
}

fn way(
    costs: &Costs<'_>,
    (tensor, micro_batch, data): (u32, u32, u64),
    stages: Vec<usize>,
    (paces, batch): (&[Pace], u64),
) -> Option<Way> {
    let problem = costs.problem;
    let micro_batches = u32::try_from(batch.checked_div(data)?).ok()?;
    if micro_batches == 0 {
        return None;
    }
    // No stage is done sooner than the average of all, and no layer sooner than on the fastest.
    let there = || stages.iter().zip(paces).filter(|(count, _)| **count > 0);
    let pipeline: usize = stages.iter().sum();
    let speed: f64 = there()
        .map(|(&count, pace)| count as f64 / pace.layer)
        .sum();
    let seconds = f64::from(micro_batches - 1) * problem.training.model.layers as f64 / speed
        + setting::least_of_layers(&stages, paces, problem.training.model.layers);
    let sequences = f64::from(micro_batch) * data as f64 * f64::from(micro_batches);
    let tokens = sequences * f64::from(problem.training.sequence_length);
    Some(Way {
        // A hair more, since sums are rounded.
        most: tokens / seconds * (1.0 + 1e-9),
        degrees: degrees(
            (tensor, micro_batch, u32::try_from(data).ok()?),
            (pipeline as u32, micro_batches),
        ),
        stages,
    })
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

#[cfg(test)]
mod tests;
