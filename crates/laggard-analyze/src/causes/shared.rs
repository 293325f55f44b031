//! Causes other than a slow device: pauses, unequal work, jitter, generations, stages.

use super::words::{percent, percent_interval, rank_list, rank_name};
use super::{Evidence, median_of_others};
use crate::cells::Slot;
use crate::per_step::wait_shares;
use crate::{Cause, Confidence, Culprit, Estimate, Finding, Level};

/// One rank has the pauses if it has this share of their time.
const PAUSES_OF_ONE: f64 = 0.8;
/// Pauses are charged to one rank if chance would put all of them there at most this often.
const PAUSES_CHANCE: f64 = 0.1;
/// A rank jitters if what its own time varies beyond that of its peers is this many times theirs.
const JITTER_RATIO: f64 = 1.5;
/// Smallest variation from step to step, relative to the rank's own time, that is called jitter.
pub(crate) const JITTER: f64 = 0.04;
/// Variation below this share of a rank's lasting excess does not make it a jittery rank.
const JITTER_OF_EXCESS: f64 = 0.2;
/// Jitter of all ranks is reported from this share of wall time on.
pub(crate) const JITTER_LOSS: f64 = 0.04;
/// What to do about generations.
pub(crate) const GENERATIONS_ADVICE: &str = "give each rank micro-batches in proportion to its \
     speed, or train on one generation and let the others serve";
/// What to do about pauses.
pub(crate) const PAUSES_ADVICE: &str = "align the pauses of all ranks (a garbage collection at the \
     same step costs once, not once per rank), or find the daemon, checkpoint or swap that stops \
     the host";

/// Rare long stops of a host; not those of a rank whose processor another process takes.
pub(super) fn pauses(evidence: &Evidence<'_>, contended: &[usize], found: &mut Vec<Finding>) {
    let loss = evidence.loss(Level::HostPauses);
    let pauses = &evidence.traits.pauses;
    let total: f64 = pauses.iter().map(|pause| pause.seconds).sum();
    let count: u32 = pauses.iter().map(|pause| pause.count).sum();
    let smallest = evidence.thresholds.loss;
    if loss.value < smallest || loss.low < smallest / 2.0 || count < 2 {
        return;
    }
    let most = (0..pauses.len()).max_by(|&a, &b| pauses[a].seconds.total_cmp(&pauses[b].seconds));
    // Whoever exchanges data with a rank that is held back stops with it; a rank's own pauses make
    // others wait.
    let answers = |ranks: &[usize]| evidence.charged(ranks).value >= loss.value / 2.0;
    let owns = most.is_some_and(|rank| answers(&[rank]));
    let answered = !contended.is_empty() && answers(contended) && !owns;
    if answered || most.is_some_and(|rank| contended.contains(&rank)) {
        return;
    }
    // By chance alone all pauses fall on one rank this often.
    let chance = (pauses.len() as f64).powi(1 - count as i32);
    let one = most
        .filter(|&rank| pauses[rank].seconds >= PAUSES_OF_ONE * total && pauses.len() > 1)
        .filter(|_| chance <= PAUSES_CHANCE);
    let steps = evidence.lengths.measured.len();
    let who = one.map_or_else(
        || "hosts of several ranks stop in turns".to_owned(),
        |rank| {
            format!(
                "the host of {} stops now and then",
                rank_name(evidence.manifest, rank)
            )
        },
    );
    found.push(Finding {
        cause: Cause::HostPauses,
        culprit: one.map_or(Culprit::Nobody, |rank| Culprit::Rank(rank as u32)),
        confidence: Confidence::Shown,
        summary: format!(
            "{who}, which costs {} of wall time",
            percent_interval(&loss)
        ),
        loss,
        excess: None,
        onset: None,
        signs: Vec::new(),
        evidence: vec![
            format!(
                "{count} pauses in {steps} steps, {:.1} ms each on average",
                1e3 * total / f64::from(count)
            ),
            "outside the pauses its compute is as fast as that of its peers".to_owned(),
        ],
        advice: PAUSES_ADVICE.to_owned(),
    });
}

/// Sequence lengths and micro-batches.
pub(super) fn uneven_work(evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
    let loss = evidence.loss(Level::UnevenWork);
    if !evidence.inputs.work.is_uneven() || loss.value < evidence.thresholds.loss {
        return;
    }
    let ragged = evidence.inputs.work.ragged;
    let cost = percent_interval(&loss);
    let (cause, summary, advice) = if ragged {
        (
            Cause::SequenceLengths,
            format!(
                "sequences of different lengths: in every step the rank with most tokens makes the \
                 others wait, which costs {cost} of wall time"
            ),
            "balance tokens (and squared lengths, for attention) over ranks in the data loader, \
             pack sequences, or sort by length within a batch",
        )
    } else {
        (
            Cause::UnevenMicroBatches,
            format!(
                "ranks of one class have different numbers of micro-batches, which costs {cost} of \
                 wall time"
            ),
            "give ranks of one class equal shares",
        )
    };
    let explained = percent(evidence.inputs.work.explained);
    found.push(Finding {
        cause,
        culprit: Culprit::Nobody,
        confidence: Confidence::Shown,
        summary,
        loss,
        excess: None,
        onset: None,
        signs: Vec::new(),
        evidence: if ragged {
            vec![format!(
                "tokens explain {explained} of the variance of compute times between ranks"
            )]
        } else {
            Vec::new()
        },
        advice: advice.to_owned(),
    });
}

/// Compute times that vary from step to step. Returns the ranks that they explain.
pub(super) fn jitter(
    evidence: &Evidence<'_>,
    contended: &[usize],
    found: &mut Vec<Finding>,
) -> Vec<usize> {
    let spread = &evidence.traits.spread;
    let loss = evidence.loss(Level::Transient);
    let mut jittery = Vec::new();
    for rank in (0..evidence.ranks()).filter(|rank| !contended.contains(rank)) {
        let usual = median_of_others(spread, rank);
        let excess = evidence.traits.excess[rank];
        // Variances of independent causes add.
        let beyond = (spread[rank].powi(2) - usual.powi(2)).max(0.0).sqrt();
        let varies = beyond >= JITTER && beyond >= JITTER_OF_EXCESS * excess;
        if evidence.ranks() > 1 && varies && beyond >= JITTER_RATIO * usual && evidence.costs(rank)
        {
            jittery.push(rank);
        }
    }
    let median = laggard_stats::median(spread).unwrap_or(0.0);
    if !jittery.is_empty() && jittery.len() * 2 <= evidence.ranks() {
        let cost = evidence.charged(&jittery);
        let culprit = match jittery[..] {
            [rank] => Culprit::Rank(rank as u32),
            _ => Culprit::Ranks(jittery.iter().map(|&rank| rank as u32).collect()),
        };
        let name = match jittery[..] {
            [rank] => rank_name(evidence.manifest, rank),
            _ => rank_list(&jittery),
        };
        let spread = percent(jittery.iter().map(|&r| spread[r]).fold(0.0, f64::max));
        let line = format!("spread {spread} of the own time, peers {}", percent(median));
        found.push(jitter_finding(
            culprit,
            &format!("compute times of {name} jitter"),
            cost,
            line,
        ));
        return jittery;
    }
    if loss.value >= JITTER_LOSS && median >= JITTER && evidence.ranks() > 1 {
        let line = format!(
            "median spread over ranks {} of the own time",
            percent(median)
        );
        let who = "compute times of all ranks jitter and the slowest changes";
        found.push(jitter_finding(Culprit::Nobody, who, loss, line));
    }
    Vec::new()
}

/// Own times that vary: of whom, at what cost, by how much.
pub(crate) fn jitter_finding(
    culprit: Culprit,
    what: &str,
    loss: Estimate,
    line: String,
) -> Finding {
    Finding {
        cause: Cause::StepJitter,
        culprit,
        confidence: Confidence::Shown,
        summary: format!(
            "{what} from step to step, which costs {} of wall time",
            percent_interval(&loss)
        ),
        loss,
        excess: None,
        onset: None,
        signs: Vec::new(),
        evidence: vec![line],
        advice: "look for what varies: clocks under a power cap, other tenants, page faults, \
                 uneven kernels; the loss grows with the number of ranks"
            .to_owned(),
    }
}

/// Equal shares for unequal generations. A class is never a culprit.
pub(super) fn generations(evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
    let loss = evidence.loss(Level::Generation);
    if loss.value < evidence.thresholds.loss {
        return;
    }
    let waits = class_waits(evidence);
    let mut list: Vec<String> = waits
        .iter()
        .map(|(name, wait)| wait_line(name, *wait))
        .collect();
    list.extend(stages_of_one_class(evidence));
    let point = &evidence.waterfall.point;
    found.push(Finding {
        cause: Cause::MixedGenerations,
        culprit: Culprit::Nobody,
        confidence: Confidence::Shown,
        summary: generations_summary(&loss),
        loss,
        excess: None,
        onset: None,
        signs: Vec::new(),
        evidence: list,
        advice: format!(
            "{GENERATIONS_ADVICE}; with shares in proportion the step would take {:.1} ms instead \
             of {:.1} ms",
            1e3 * point.even_generations,
            1e3 * point.as_class
        ),
    });
}

pub(crate) fn generations_summary(loss: &Estimate) -> String {
    format!(
        "generations of different speed have equal shares of the work, which costs {} of wall time",
        percent_interval(loss)
    )
}

/// Stages that one class has to itself, where another stage has another class: layers can be moved.
fn stages_of_one_class(evidence: &Evidence<'_>) -> Vec<String> {
    let cells = evidence.inputs.cells;
    if !cells.across_stages {
        return Vec::new();
    }
    let line = |stage: usize| {
        let ranks = (0..cells.ranks).filter(|r| cells.stage_of_rank[*r] as usize == stage);
        let mut classes: Vec<usize> = ranks.map(|rank| cells.class_of_rank[rank]).collect();
        classes.dedup();
        match classes[..] {
            [class] => Some(format!(
                "stage {stage} is all {}: stages can be given layers in proportion to speed",
                evidence.manifest.classes[class].name
            )),
            _ => None,
        }
    };
    (0..cells.stages()).filter_map(line).collect()
}

pub(crate) fn wait_line(class: &str, share: f64) -> String {
    format!("{class} waits {} of each step", percent(share))
}

/// Mean share of the step that ranks of each class wait for slower ones.
fn class_waits(evidence: &Evidence<'_>) -> Vec<(String, f64)> {
    let waits = wait_shares(evidence.inputs, evidence.lengths);
    evidence
        .manifest
        .classes
        .iter()
        .enumerate()
        .filter_map(|(class, info)| {
            let of_class = |rank: &usize| evidence.inputs.cells.class_of_rank[*rank] == class;
            let shares: Vec<f64> = (0..evidence.ranks())
                .filter(of_class)
                .map(|rank| waits[rank])
                .collect();
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            (!shares.is_empty()).then(|| (info.name.clone(), mean))
        })
        .collect()
}

/// Pipeline stages with unequal work.
pub(super) fn stages(evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
    let loss = evidence.loss(Level::Stage);
    let stages = evidence.manifest.schedule.stages();
    if stages < 2 || loss.value < evidence.thresholds.loss {
        return;
    }
    let times = stage_times(evidence, stages);
    let Some(slowest) = (0..times.len()).max_by(|&a, &b| times[a].total_cmp(&times[b])) else {
        return;
    };
    let others: Vec<f64> = (0..times.len())
        .filter(|&s| s != slowest)
        .map(|s| times[s])
        .collect();
    let usual = laggard_stats::median(&others).unwrap_or(0.0);
    let last = slowest + 1 == times.len();
    let name = if last {
        "the last pipeline stage".to_owned()
    } else {
        format!("pipeline stage {slowest}")
    };
    let list: Vec<String> = times
        .iter()
        .enumerate()
        .map(|(s, t)| format!("stage {s} {:.1} ms", 1e3 * t))
        .collect();
    found.push(Finding {
        cause: if last {
            Cause::LastStage
        } else {
            Cause::StageSplit
        },
        culprit: Culprit::Stage(slowest as u32),
        confidence: Confidence::Shown,
        summary: format!(
            "{name} computes {} longer than the others, and the split of the model costs {} of \
             wall time",
            percent(times[slowest] / usual - 1.0),
            percent_interval(&loss)
        ),
        loss,
        excess: None,
        onset: None,
        signs: Vec::new(),
        evidence: vec![format!("own time per step: {}", list.join(", "))],
        advice: if last {
            "the output head and loss make the last stage longer: give it fewer layers, or move \
             the head to a stage of its own; no hardware is slow"
                .to_owned()
        } else {
            "move layers from this stage to its neighbours; no hardware is slow".to_owned()
        },
    });
}

/// Mean own compute time of the ranks of each stage; where it is known what the split makes of it,
/// as if all ranks were equally fast.
fn stage_times(evidence: &Evidence<'_>, stages: u32) -> Vec<f64> {
    let (cells, own) = (evidence.inputs.cells, evidence.inputs.own);
    let mut sums = vec![[0.0; Slot::COUNT]; stages as usize];
    let mut ranks = vec![0.0; stages as usize];
    let steps = own.steps() as f64;
    for rank in 0..cells.ranks {
        let stage = cells.stage_of_rank[rank] as usize;
        ranks[stage] += 1.0;
        for step in 0..own.steps() {
            let usual = cells.usual(rank, own.of(step, rank));
            sums[stage]
                .iter_mut()
                .zip(usual)
                .for_each(|(sum, time)| *sum += time / steps);
        }
    }
    let mut all = [0.0; Slot::COUNT];
    for slots in &sums {
        all.iter_mut()
            .zip(slots)
            .for_each(|(all, time)| *all += time / cells.ranks as f64);
    }
    let of_stage = |stage: usize| {
        let first = cells
            .stage_of_rank
            .iter()
            .position(|of| *of as usize == stage);
        let Some(first) = first else { return 0.0 };
        let time = |slot: Slot| match cells.across_stages {
            true => all[slot as usize] * cells.expected[first][slot as usize],
            false => sums[stage][slot as usize] / ranks[stage],
        };
        time(Slot::Forward) + time(Slot::Backward)
    };
    (0..stages as usize).map(of_stage).collect()
}
