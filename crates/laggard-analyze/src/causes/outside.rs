//! Causes outside of the job: other processes, limits on the processor, slow links.

use super::placement::odd_accelerator;
use super::words::{host_name, percent, percent_interval, rank_name};
use super::{Evidence, median_of_others};
use crate::links::slow_hosts;
use crate::{Cause, Confidence, Culprit, Finding, Level};

/// A rank's threads are kept waiting if they are off the processor this much longer than others'.
const DESCHEDULED: f64 = 0.05;
/// Others use a processor noticeably from this share of its time on.
const FOREIGN: f64 = 0.05;

/// Other processes on the job's processors. Returns the ranks that they explain.
pub(super) fn contention(
    evidence: &Evidence<'_>,
    limited: &[usize],
    found: &mut Vec<Finding>,
) -> Vec<usize> {
    let shares = evidence.inputs.measured.descheduled_shares();
    if !evidence.is_wall() || shares.is_empty() {
        return Vec::new();
    }
    let mut explained = Vec::new();
    for rank in (0..evidence.ranks()).filter(|rank| !limited.contains(rank)) {
        let usual = median_of_others(&shares, rank);
        let foreign = evidence
            .contention
            .and_then(|contention| contention.of_rank[rank]);
        let loss = evidence.charged(&[rank]);
        let is_off =
            shares[rank] - usual >= DESCHEDULED && foreign.is_none_or(|share| share >= FOREIGN);
        if !is_off && !starts_late(evidence, rank, loss.value) {
            continue;
        }
        explained.push(rank);
        if !evidence.costs(rank) {
            continue;
        }
        let name = rank_name(evidence.manifest, rank);
        let seen = foreign.map_or_else(
            || "no telemetry of its processors, so who it was is not known".to_owned(),
            |share| {
                let cpus = &evidence.manifest.ranks[rank].cpus;
                format!(
                    "other processes used {} of processor {cpus:?}",
                    percent(share)
                )
            },
        );
        found.push(Finding {
            cause: Cause::OutsideContention,
            culprit: Culprit::Rank(rank as u32),
            confidence: if foreign.is_some() {
                Confidence::Shown
            } else {
                Confidence::Inconclusive
            },
            summary: format!(
                "outside contention at {name}: another process takes its processor, which costs \
                 {} of wall time",
                percent_interval(&loss)
            ),
            loss,
            excess: None,
            onset: None,
            signs: Vec::new(),
            evidence: vec![
                format!(
                    "its threads were off the processor for {} of their compute time, others' {}",
                    percent(shares[rank]),
                    percent(usual)
                ),
                seen,
            ],
            advice:
                "find the process (`top`, `pidstat -C`) and move it, or bind the job elsewhere; \
                     then measure again"
                    .to_owned(),
        });
    }
    explained
}

/// Whether another process keeps a rank from starting its work, though not from going on with it:
/// most of what the rank is charged are pauses, and others used its processor for at least half as
/// long, beyond what they used of its peers' processors.
fn starts_late(evidence: &Evidence<'_>, rank: usize, charged: f64) -> bool {
    let Some(contention) = evidence.contention else {
        return false;
    };
    let foreign: Option<Vec<f64>> = contention.of_rank.iter().copied().collect();
    foreign.is_some_and(|foreign| {
        let beyond = foreign[rank] - median_of_others(&foreign, rank);
        beyond >= FOREIGN.max(charged / 2.0)
            && evidence.loss(Level::HostPauses).value >= charged / 2.0
    })
}

/// Ranks that are slow and may use less of their processors than most ranks of their class.
/// Returns the ranks that this explains.
pub(super) fn limits(evidence: &Evidence<'_>, found: &mut Vec<Finding>) -> Vec<usize> {
    let shares = evidence.inputs.measured.descheduled_shares();
    let is_off = |rank: usize| {
        evidence.is_wall()
            && !shares.is_empty()
            && shares[rank] - median_of_others(&shares, rank) >= DESCHEDULED
    };
    let mut explained = Vec::new();
    for rank in 0..evidence.ranks() {
        let is_slow = is_off(rank)
            || evidence.traits.excess[rank] >= evidence.thresholds.excess
            || evidence.pausing_rank() == Some(rank)
            || evidence.is_charged_most(rank);
        let Some((cause, limit, advice)) = limit_of(evidence, rank).filter(|_| is_slow) else {
            continue;
        };
        explained.push(rank);
        if !evidence.costs(rank) {
            continue;
        }
        let loss = evidence.charged(&[rank]);
        let name = rank_name(evidence.manifest, rank);
        let cost = percent_interval(&loss);
        let mut seen = vec![limit.clone()];
        if let Some(share) = shares.get(rank) {
            let off = percent(*share);
            seen.push(format!(
                "its threads were off the processor for {off} of compute time"
            ));
        }
        found.push(Finding {
            cause,
            culprit: Culprit::Rank(rank as u32),
            confidence: Confidence::Shown,
            summary: format!("{name} is held back: {limit}, which costs {cost} of wall time"),
            loss,
            excess: None,
            onset: None,
            signs: Vec::new(),
            evidence: seen,
            advice: advice.to_owned(),
        });
    }
    explained
}

/// What limits a rank and not most of its class: the cause, in words, and what to do.
pub(super) fn limit_of(
    evidence: &Evidence<'_>,
    rank: usize,
) -> Option<(Cause, String, &'static str)> {
    let ranks = &evidence.manifest.ranks;
    let place = &ranks[rank];
    let peers = || ranks.iter().filter(|other| other.class == place.class);
    let is_odd = |like: &dyn Fn(&&laggard_record::RankPlace) -> bool| {
        peers().filter(like).count() * 2 <= peers().count()
    };
    let quota = place
        .cpu_quota
        .filter(|quota| *quota < place.cpus.len().max(1) as f64);
    if let Some(quota) = quota
        && is_odd(&|other| other.cpu_quota.is_some_and(|theirs| theirs <= quota))
    {
        return Some((
            Cause::CpuQuota,
            format!("its control group grants it the time of {quota:.2} processors"),
            "raise the limit (`cpu.max`, a container's CPU limit), or give the rank whole \
             processors by a cpuset instead",
        ));
    }
    if let Some(how) = odd_accelerator(ranks, rank) {
        return Some((
            Cause::Binding,
            how,
            "start ranks alike (`srun --gpu-bind=closest --gpus-per-task=1`, a rankfile), and set \
             up all GPUs of the class alike (`nvidia-smi -q`, `nvidia-smi topo -m`)",
        ));
    }
    let allowed = place.allowed_cpus.len();
    if allowed > 0 && is_odd(&|other| other.allowed_cpus.len() <= allowed) {
        let cpus = &place.allowed_cpus;
        return Some((
            Cause::Binding,
            format!("it may use processors {cpus:?} alone, most ranks of its class may use more"),
            "bind all ranks alike (`mpirun --report-bindings`, `srun --cpu-bind=verbose`)",
        ));
    }
    None
}

/// Hosts whose links to all others are slow, by the probes before the run.
pub(super) fn slow_links(evidence: &Evidence<'_>, found: &mut Vec<Finding>) {
    let manifest = evidence.manifest;
    let loss = evidence.loss(Level::ExposedCommunication);
    if loss.value < evidence.thresholds.loss {
        return;
    }
    for slow in slow_hosts(&manifest.links, manifest.hosts.len()) {
        let name = host_name(manifest, slow.host as usize);
        let cost = percent_interval(&loss);
        found.push(Finding {
            cause: Cause::SlowLink,
            culprit: Culprit::Host(slow.host),
            confidence: Confidence::Shown,
            summary: format!(
                "communication of host {name} is slow: its links reach {} of what the others do; \
                 exposed communication costs {cost} of wall time",
                percent(1.0 / slow.ratio)
            ),
            loss,
            excess: None,
            onset: None,
            signs: Vec::new(),
            evidence: vec![format!(
                "median of its {} links {:.3} GB/s, of the {} others {:.3} GB/s; latency {:.0} us \
                 against {:.0} us",
                slow.links,
                slow.bandwidth_bytes_per_s * 1e-9,
                slow.other_links,
                slow.others_bandwidth_bytes_per_s * 1e-9,
                slow.latency_ns * 1e-3,
                slow.others_latency_ns * 1e-3,
            )],
            advice: "look at the host's port and cable (`ethtool`, `ibstatus`, the switch's error \
                     counters), or leave the host out"
                .to_owned(),
        });
    }
}
