//! How findings name things.

use crate::Estimate;
use laggard_record::Manifest;

/// `12.3 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `12.3 % [11.9, 12.8]`.
pub(crate) fn percent_interval(estimate: &Estimate) -> String {
    let Estimate { value, low, high } = estimate;
    format!(
        "{:.1} % [{:.1}, {:.1}]",
        value * 100.0,
        low * 100.0,
        high * 100.0
    )
}

/// `rank 3 (h100 on node7)`.
pub(crate) fn rank_name(manifest: &Manifest, rank: usize) -> String {
    let place = &manifest.ranks[rank];
    let class = manifest
        .classes
        .get(place.class as usize)
        .map_or("?", |class| class.name.as_str());
    format!(
        "rank {rank} ({class} on {})",
        host_name(manifest, place.host as usize)
    )
}

pub(crate) fn host_name(manifest: &Manifest, host: usize) -> &str {
    manifest
        .hosts
        .get(host)
        .map_or("?", |host| host.name.as_str())
}

/// `ranks 1, 2, 5`; long lists are cut.
pub(crate) fn rank_list(ranks: &[usize]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = ranks.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = ranks.len().saturating_sub(SHOWN);
    let tail = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
    format!("{noun} {}{tail}", shown.join(", "))
}
