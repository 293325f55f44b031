//! Utilisation: the model's FLOP over what the ranks' own peaks allow.

use crate::work::Work;
use crate::{Estimate, Utilisation};
use laggard_record::{Manifest, PeakKind, RankPlace};
use laggard_schedule::ScheduleOrigin;

/// MFU, and the share of a measured peak: at most one of them.
pub(crate) type Quoted = (Option<Utilisation>, Option<Utilisation>);

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
