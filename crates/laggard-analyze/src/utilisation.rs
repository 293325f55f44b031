//! Utilisation: the model's FLOP over what the ranks' own peaks allow.

use crate::own_time::{NominalWork, WorkShare};
use crate::{Estimate, Utilisation};
use laggard_record::{Manifest, PeakKind, RankPlace};
use laggard_schedule::ScheduleOrigin;

/// What all ranks do, over any number of steps.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Work {
    /// FLOP of the model.
    pub(crate) flop: f64,
    /// The part of it that is attention.
    pub(crate) attention_flop: f64,
    /// FLOP that are done again.
    pub(crate) recomputed_flop: f64,
    pub(crate) tokens: f64,
}

impl Work {
    /// All steps together.
    pub(crate) fn of(share: &WorkShare) -> Self {
        Self {
            flop: share.flop.iter().sum(),
            attention_flop: share.attention_flop.iter().sum(),
            recomputed_flop: share.recomputed_flop.iter().sum(),
            tokens: share.tokens.iter().sum(),
        }
    }

    /// One step as the schedule has it.
    pub(crate) fn nominal(manifest: &Manifest) -> Self {
        let schedule = &manifest.schedule;
        let mut first = vec![None; schedule.programs.len()];
        let mut ranks = vec![0.0; schedule.programs.len()];
        for (rank, program) in schedule.program_of_rank.iter().enumerate() {
            first[*program as usize].get_or_insert(rank);
            ranks[*program as usize] += 1.0;
        }
        let mut all = Self::default();
        for (rank, count) in first.into_iter().zip(ranks) {
            let Some(rank) = rank else { continue };
            NominalWork::of(manifest, rank).add_to(&mut all, count);
        }
        all.tokens /= ranks_per_replica(manifest);
        all
    }
}

/// MFU, and the share of a measured peak: at most one of them.
pub(crate) type Quoted = (Option<Utilisation>, Option<Utilisation>);

/// All ranks of a replica work on the same tokens.
pub(crate) fn ranks_per_replica(manifest: &Manifest) -> f64 {
    match &manifest.schedule.origin {
        ScheduleOrigin::Generated(layout) => f64::from(layout.ranks_per_replica()),
        ScheduleOrigin::Trace => 1.0,
    }
}

/// Sum of the ranks' own peaks, FLOP/s, if all are known.
pub(crate) fn peak_sum(manifest: &Manifest) -> Option<f64> {
    let peak = |place: &RankPlace| {
        manifest.classes[place.class as usize]
            .peak
            .as_ref()
            .map(|peak| peak.flop_per_s)
    };
    manifest.ranks.iter().map(peak).sum()
}

/// A utilisation, with what it is of in words.
pub(crate) fn utilisation(
    manifest: &Manifest,
    value: Estimate,
    work: &Work,
    peak_flop_per_s: f64,
) -> Quoted {
    // Imported schedules do not say what is computed again.
    let recompute = match &manifest.schedule.origin {
        ScheduleOrigin::Generated(_) => work.recomputed_flop,
        ScheduleOrigin::Trace => {
            work.recomputed_flop + manifest.workload.recompute_flop_per_token * work.tokens
        }
    };
    let ratio = |more: f64| {
        if work.flop > 0.0 {
            value.value * (work.flop + more) / work.flop
        } else {
            0.0
        }
    };
    let peaks = manifest
        .classes
        .iter()
        .filter_map(|class| class.peak.as_ref());
    let measured = peaks.clone().any(|peak| peak.kind == PeakKind::Measured);
    let mut sources: Vec<String> = peaks.map(|peak| peak.source.clone()).collect();
    sources.dedup();
    // FLOP per token: 6 per matmul parameter plus 6 x layers x heads x head width x sequence length
    // for causal attention (PaLM, appendix B, halved for the causal mask).
    let figure = Utilisation {
        value,
        convention: format!(
            "causal, {}, sum of the ranks' own peaks",
            manifest.workload.data_type
        ),
        full_attention: ratio(work.attention_flop),
        hfu: ratio(recompute),
        peak_flop_per_s,
        peak_source: sources.join("; "),
    };
    if measured {
        (None, Some(figure))
    } else {
        (Some(figure), None)
    }
}
