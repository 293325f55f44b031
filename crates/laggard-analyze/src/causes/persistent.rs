//! Ranks, hosts and stages that are always slower than their peers.

use super::Evidence;
use super::device::slowed;
use super::outside::limit_of;
use super::words::{host_name, percent, percent_interval, rank_list, rank_name};
use crate::cells::Slot;
use crate::traits::ALIKE;
use crate::{Cause, Confidence, Culprit, Estimate, Finding, Onset};

/// Ranks alone in their class are measured against a published ratio, which is less sure than a
/// peer.
const ALONE_FACTOR: f64 = 3.0;
/// A phase is to blame alone if the other one shows less than this share of its excess.
const OTHER_PHASE_SHARE: f64 = 0.25;
/// A unit must stand out from the spread of its peers by this many robust deviations.
pub(crate) const OUTLIER_DEVIATIONS: f64 = 4.0;

/// Finds slow stages that several hosts share, then slow hosts, then stages on one host, then slow
/// ranks that none of these explains.
pub(super) fn slow_units(evidence: &Evidence<'_>, excluded: &[usize], found: &mut Vec<Finding>) {
    // Each costs a bootstrap: once per rank.
    let lasting: Vec<Lasting> = (0..evidence.ranks())
        .map(|rank| lasting_excess(evidence, rank))
        .collect();
    let significant = evidence
        .chance
        .is_some_and(|chance| chance.p_value <= evidence.thresholds.p_value);
    let slow: Vec<usize> = (0..evidence.ranks())
        .filter(|rank| !excluded.contains(rank))
        .filter(|&rank| significant || !evidence.traits.has_peers[rank])
        .filter(|&rank| stands_out(evidence, &lasting, rank))
        .filter(|&rank| evidence.costs(rank) || stage_costs(evidence, rank))
        .collect();
    let mut named: Vec<usize> = Vec::new();
    let mut name_stages = |named: &mut Vec<usize>, least_hosts: usize| {
        for stage in slow_stages(evidence, &slow, named) {
            let ranks: Vec<usize> = ranks_of_stage(evidence, stage).collect();
            if count_hosts(evidence, &ranks) >= least_hosts {
                found.push(stage_finding(evidence, &lasting, stage, &ranks));
                named.extend(ranks);
            }
        }
    };
    // That all hosts of a stage are slow by chance is less likely than that the stage is.
    name_stages(&mut named, 2);
    let mut of_hosts = Vec::new();
    let excess: Vec<f64> = lasting.iter().map(|(excess, _)| excess.value).collect();
    for (host, ranks) in slow_hosts(&evidence.inputs.cells.host_of_rank, &excess, &slow) {
        if !ranks.iter().any(|rank| named.contains(rank)) {
            of_hosts.push(host_finding(evidence, &lasting, host, &ranks));
            named.extend(ranks);
        }
    }
    name_stages(&mut named, 1);
    found.extend(of_hosts);
    let alone = slow.iter().filter(|rank| !named.contains(rank));
    found.extend(alone.map(|&rank| rank_finding(evidence, lasting[rank], rank)));
}

/// Whether a rank is slower than its peers by more than they differ among each other.
fn stands_out(evidence: &Evidence<'_>, lasting: &[Lasting], rank: usize) -> bool {
    let traits = evidence.traits;
    let Estimate {
        value: excess, low, ..
    } = lasting[rank].0;
    let factor = if traits.has_peers[rank] {
        1.0
    } else {
        ALONE_FACTOR
    };
    // What came up in the last few steps only is not lasting yet.
    let smallest = evidence.thresholds.excess * factor;
    let sure = low.min(traits.excess[rank]) >= smallest / 2.0;
    if excess < smallest || !sure {
        return false;
    }
    let peers = evidence.inputs.cells.mates(rank);
    let others: Vec<f64> = peers.iter().map(|&peer| traits.excess[peer]).collect();
    if others.len() < 5 || traits.stage_excess[rank] >= smallest {
        return true;
    }
    let spread = laggard_stats::mad(&others).unwrap_or(0.0);
    let centre = laggard_stats::median(&others).unwrap_or(0.0);
    excess - centre >= OUTLIER_DEVIATIONS * spread || spread >= evidence.thresholds.excess
}

/// An excess and, if it is not from the beginning, its onset.
type Lasting = (Estimate, Option<Onset>);

/// Excess since the largest lasting change, and that change.
fn lasting_excess(evidence: &Evidence<'_>, rank: usize) -> Lasting {
    let series = evidence.traits.series(rank);
    let value = evidence.traits.excess[rank];
    if value.abs() < evidence.thresholds.excess / 4.0 {
        // Never named, so that no interval is needed.
        return (
            Estimate {
                value,
                low: value,
                high: value,
            },
            None,
        );
    }
    let change = evidence.traits.largest_change(rank);
    let first = change.as_ref().map_or(0, |change| change.at);
    let excess: Vec<f64> = series[first..].iter().map(|ratio| ratio - 1.0).collect();
    let onset = change.map(|change| evidence.onset_of(&change));
    (evidence.mean(&excess), onset)
}

/// Hosts of at least two ranks of which nearly all are slow, while other hosts are not; each with
/// its ranks.
pub(crate) fn slow_hosts(
    host_of_rank: &[usize],
    excess: &[f64],
    slow: &[usize],
) -> Vec<(usize, Vec<usize>)> {
    let hosts = host_of_rank.iter().max().map_or(0, |last| last + 1);
    let mut sure = vec![0; hosts];
    slow.iter().for_each(|&rank| sure[host_of_rank[rank]] += 1);
    let mut ranks_of: Vec<Vec<usize>> = vec![Vec::new(); hosts];
    for (rank, &host) in host_of_rank.iter().enumerate() {
        if sure[host] > 0 {
            ranks_of[host].push(rank);
        }
    }
    let is_whole = |(host, ranks): &(usize, Vec<usize>)| {
        let largest = ranks.iter().map(|&rank| excess[rank]).fold(0.0, f64::max);
        let is_alike = |rank: &&usize| excess[**rank] >= ALIKE * largest;
        let alike = ranks.iter().filter(is_alike).count();
        ranks.len() >= 2 && alike * 4 >= ranks.len() * 3 && sure[*host] * 2 >= ranks.len()
    };
    let whole: Vec<_> = ranks_of.into_iter().enumerate().filter(is_whole).collect();
    if whole.len() * 2 > hosts {
        Vec::new()
    } else {
        whole
    }
}

/// Whether anybody waits for a rank's stage, which is slow as a whole.
fn stage_costs(evidence: &Evidence<'_>, rank: usize) -> bool {
    let is_slow = evidence.traits.stage_excess[rank] >= evidence.thresholds.excess;
    let mates = evidence.inputs.cells.mates(rank);
    is_slow && evidence.charged(mates).value >= evidence.thresholds.loss
}

fn ranks_of_stage(evidence: &Evidence<'_>, stage: u32) -> impl Iterator<Item = usize> {
    let cells = evidence.inputs.cells;
    (0..cells.ranks).filter(move |rank| cells.stage_of_rank[*rank] == stage)
}

/// Stages of at least two ranks of which nearly all are slow, beyond what their work explains.
fn slow_stages(evidence: &Evidence<'_>, slow: &[usize], named: &[usize]) -> Vec<u32> {
    let is_slow = |stage: &u32| {
        let ranks: Vec<usize> = ranks_of_stage(evidence, *stage).collect();
        let of_stage = |rank: &&usize| {
            slow.contains(rank)
                && !named.contains(rank)
                && evidence.traits.stage_excess[**rank] >= evidence.thresholds.excess
        };
        ranks.len() > 1 && ranks.iter().filter(of_stage).count() * 4 >= ranks.len() * 3
    };
    (0..evidence.inputs.cells.stages() as u32)
        .filter(is_slow)
        .collect()
}

fn count_hosts(evidence: &Evidence<'_>, ranks: &[usize]) -> usize {
    let host = |rank: &usize| evidence.inputs.cells.host_of_rank[*rank];
    let hosts: std::collections::BTreeSet<usize> = ranks.iter().map(host).collect();
    hosts.len()
}

/// The excess of the rank in the middle.
fn middle(lasting: &[Lasting], ranks: &[usize]) -> Lasting {
    let mut order: Vec<Lasting> = ranks.iter().map(|&rank| lasting[rank]).collect();
    order.sort_by(|a, b| a.0.value.total_cmp(&b.0.value));
    order[order.len() / 2]
}

fn stage_finding(
    evidence: &Evidence<'_>,
    lasting: &[Lasting],
    stage: u32,
    ranks: &[usize],
) -> Finding {
    let unit = Unit {
        cause: Cause::SlowStage,
        culprit: Culprit::Stage(stage),
        name: format!("pipeline stage {stage}"),
        than: "take {} longer than its work explains",
        evidence: Some(
            "passes of like layers, with the same FLOP, are compared; the output head is not",
        ),
        advice: "look at what the ranks of this stage share: a switch or chassis with a power \
                 cap, a library version, a kernel that falls back at this stage's shapes"
            .to_owned(),
    };
    slow_alike(evidence, lasting, ranks, unit)
}

fn host_finding(
    evidence: &Evidence<'_>,
    lasting: &[Lasting],
    host: usize,
    ranks: &[usize],
) -> Finding {
    let name = host_name(evidence.manifest, host);
    let unit = Unit {
        cause: Cause::SlowNode,
        culprit: Culprit::Host(host as u32),
        name: format!("host {name}"),
        than: "compute {} longer than ranks of their class elsewhere",
        evidence: None,
        advice: host_advice(name),
    };
    slow_alike(evidence, lasting, ranks, unit)
}

pub(crate) fn host_advice(name: &str) -> String {
    format!(
        "take {name} out of the job or swap it; then look at what its devices share: power cap, \
         cooling, host processes, PCIe or memory configuration"
    )
}

/// What several ranks share that are slow together, in words.
struct Unit {
    cause: Cause,
    culprit: Culprit,
    name: String,
    /// How slow they are against whom, with `{}` for the excess.
    than: &'static str,
    evidence: Option<&'static str>,
    advice: String,
}

/// Ranks that are all slower, by about the same, and share a unit.
fn slow_alike(
    evidence: &Evidence<'_>,
    lasting: &[Lasting],
    ranks: &[usize],
    unit: Unit,
) -> Finding {
    let (excess, onset) = middle(lasting, ranks);
    let loss = evidence.charged(ranks);
    let mut lines = vec![format!(
        "{} are all slower, by about the same",
        rank_list(ranks)
    )];
    lines.extend(unit.evidence.map(str::to_owned));
    lines.extend(ranks.iter().find_map(|rank| set_up(evidence, *rank)));
    lines.push(chance_line(evidence));
    Finding {
        cause: unit.cause,
        culprit: unit.culprit,
        confidence: Confidence::Shown,
        summary: format!(
            "{} is slow: its {} ranks {}, which costs {} of wall time",
            unit.name,
            ranks.len(),
            unit.than.replace("{}", &percent_interval(&excess)),
            percent_interval(&loss)
        ),
        loss,
        excess: Some(excess),
        onset,
        signs: Vec::new(),
        evidence: lines,
        advice: unit.advice,
    }
}

fn rank_finding(evidence: &Evidence<'_>, (excess, onset): Lasting, rank: usize) -> Finding {
    let loss = evidence.charged(&[rank]);
    let name = rank_name(evidence.manifest, rank);
    let cause = phase_cause(evidence, rank);
    let what = match cause {
        Cause::SlowBackward => "is slow in backward only: it computes",
        Cause::SlowForward => "is slow in forward only: it computes",
        Cause::Binding => "is slow and bound differently from its peers: it computes",
        _ => "is slow: it computes",
    };
    let mut lines = vec![
        format!(
            "against its peers: forward {:+.1} %, backward {:+.1} %, optimizer {:+.1} %",
            100.0 * evidence.traits.slot_excess(rank, Slot::Forward),
            100.0 * evidence.traits.slot_excess(rank, Slot::Backward),
            100.0 * evidence.traits.slot_excess(rank, Slot::Optimizer)
        ),
        format!(
            "last to arrive in {} of steps",
            percent(f64::from(evidence.blame.last[rank]) / evidence.lengths.measured.len() as f64)
        ),
        chance_line(evidence),
    ];
    if cause != Cause::Binding {
        lines.extend(set_up(evidence, rank));
    }
    if !evidence.traits.has_peers[rank] {
        lines.push("alone in its class: compared with others by the class's relative rate".into());
    }
    Finding {
        cause,
        culprit: Culprit::Rank(rank as u32),
        confidence: Confidence::Shown,
        summary: format!(
            "{name} {what} {} longer than its peers and costs {} of wall time",
            percent_interval(&excess),
            percent_interval(&loss)
        ),
        loss,
        excess: Some(excess),
        onset,
        signs: Vec::new(),
        evidence: lines,
        advice: advice(cause).to_owned(),
    }
}

/// How a rank is set up unlike most of its class, which is not what it is named for.
fn set_up(evidence: &Evidence<'_>, rank: usize) -> Option<String> {
    let bound = || "it is bound differently from its peers".to_owned();
    let limit = limit_of(evidence, rank).map(|(_, limit, _)| limit);
    let how = limit.or_else(|| bound_differently(evidence, rank).then(bound))?;
    Some(format!(
        "beside that, rank {rank} is set up unlike most of its class: {how}"
    ))
}

/// Whether one part of the step alone, or the binding, explains a slow rank.
fn phase_cause(evidence: &Evidence<'_>, rank: usize) -> Cause {
    if bound_differently(evidence, rank) && slowed(evidence, &[rank]).is_empty() {
        return Cause::Binding;
    }
    let forward = evidence.traits.slot_excess(rank, Slot::Forward);
    let backward = evidence.traits.slot_excess(rank, Slot::Backward);
    if forward < OTHER_PHASE_SHARE * backward {
        Cause::SlowBackward
    } else if backward < OTHER_PHASE_SHARE * forward {
        Cause::SlowForward
    } else {
        Cause::SlowRank
    }
}

/// Whether a rank has fewer processors than most of its class, or shares one with another rank.
fn bound_differently(evidence: &Evidence<'_>, rank: usize) -> bool {
    let places = &evidence.manifest.ranks;
    let mine = &places[rank];
    if mine.cpus.is_empty() {
        return false;
    }
    let peers = evidence.inputs.cells.peers(rank);
    let more = peers
        .iter()
        .filter(|&&peer| places[peer].cpus.len() > mine.cpus.len())
        .count();
    let shares = |other: usize| {
        other != rank
            && places[other].host == mine.host
            && places[other].cpus.iter().any(|cpu| mine.cpus.contains(cpu))
    };
    let alone = |&&peer: &&usize| {
        let place = &places[peer];
        !places.iter().enumerate().any(|(other, with)| {
            other != peer
                && with.host == place.host
                && with.cpus.iter().any(|c| place.cpus.contains(c))
        })
    };
    let sharing = (0..places.len()).any(shares);
    more * 2 > peers.len() || (sharing && peers.iter().filter(alone).count() * 2 > peers.len())
}

fn chance_line(evidence: &Evidence<'_>) -> String {
    match evidence.chance {
        Some(chance) => format!(
            "largest lasting excess {} over the class's mean; chance alone gives {} (p = {:.3})",
            percent(chance.observed),
            percent(chance.null_mean),
            chance.p_value
        ),
        None => "no peers of the same class to test against chance".to_owned(),
    }
}

pub(crate) fn advice(cause: Cause) -> &'static str {
    match cause {
        Cause::Binding => {
            "bind it as its peers are bound (mpirun --bind-to core, srun --cpu-bind) and run again"
        }
        Cause::SlowBackward | Cause::SlowForward => {
            "look at what only this part of the step does on that rank: hooks, recomputation, \
             logging, a kernel that falls back; hardware would slow both parts"
        }
        _ => {
            "run the same step on this device alone and beside a peer; if it stays slow, check \
             clocks, power cap, temperature and throttle reasons, and swap the device"
        }
    }
}
