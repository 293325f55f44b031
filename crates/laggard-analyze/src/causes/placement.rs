//! How ranks' accelerators are set up and connected, against most of their class.

use laggard_record::RankPlace;
use laggard_types::{AdapterPath, DeviceIdentity};

/// What of a rank's accelerator is unlike those of most of its class and slows what it computes, in
/// words. What is not known of either is no difference.
pub(super) fn odd_accelerator(ranks: &[RankPlace], rank: usize) -> Option<String> {
    let own = ranks[rank].accelerator.as_ref()?;
    let sharing = |place: &RankPlace| Some(on_same(ranks, place).count());
    if let Some(2..) = odd(ranks, rank, sharing) {
        let others = on_same(ranks, &ranks[rank]).filter(|other| *other != rank);
        let others: Vec<String> = others.map(|other| other.to_string()).collect();
        return Some(format!(
            "it shares its GPU with ranks {}",
            others.join(", ")
        ));
    }
    if let Some(count @ 1..) = odd(ranks, rank, |place| place.other_processes) {
        return Some(format!("{count} processes of others compute on its GPU"));
    }
    let of = |get: fn(&DeviceIdentity) -> Option<bool>| {
        odd(ranks, rank, move |place| get(place.accelerator.as_ref()?))
    };
    if of(|it| it.is_mig) == Some(true) {
        return Some("its GPU is cut into instances (MIG)".to_owned());
    }
    if of(|it| it.shared_by_mps) == Some(true) {
        return Some("processes share its GPU by way of a server (MPS)".to_owned());
    }
    let is_far = |place: &RankPlace| {
        let node = place.accelerator.as_ref()?.numa_node?;
        Some(place.numa_node? != node)
    };
    let (processors, gpu) = (ranks[rank].numa_node, own.numa_node);
    match (odd(ranks, rank, is_far), processors, gpu) {
        (Some(true), Some(processors), Some(gpu)) => Some(format!(
            "its processors are on memory node {processors}, its GPU on node {gpu}"
        )),
        _ => None,
    }
}

/// A way to the network that is longer than that of most of the class, in words. It does not slow
/// what a rank computes.
pub(super) fn far_adapter(ranks: &[RankPlace], rank: usize) -> Option<String> {
    let path = |place: &RankPlace| place.accelerator.as_ref()?.adapter_path;
    let behind = match odd(ranks, rank, path)? {
        // There is no shorter way.
        AdapterPath::PcieSwitch => return None,
        AdapterPath::HostBridge => "a host bridge",
        AdapterPath::NumaNode => "its processor",
        AdapterPath::System => "another processor",
    };
    let adapters = ranks[rank]
        .accelerator
        .as_ref()?
        .nearest_adapters
        .join(", ");
    Some(format!(
        "its nearest network adapter ({adapters}) is behind {behind}, unlike those of its class"
    ))
}

/// A rank's own property, where less than half of its class have the same.
fn odd<T: PartialEq>(
    ranks: &[RankPlace],
    rank: usize,
    of: impl Fn(&RankPlace) -> Option<T>,
) -> Option<T> {
    let own = of(&ranks[rank])?;
    let class = ranks
        .iter()
        .filter(|place| place.class == ranks[rank].class);
    let known: Vec<T> = class.filter_map(of).collect();
    let like = known.iter().filter(|other| **other == own).count();
    (like * 2 < known.len()).then_some(own)
}

/// The ranks on the accelerator of a rank, the rank among them; none where it does not tell.
fn on_same<'a>(ranks: &'a [RankPlace], place: &'a RankPlace) -> impl Iterator<Item = usize> + 'a {
    let own = uuid(place);
    let is_there = move |(_, other): &(usize, &RankPlace)| {
        own.is_some() && other.host == place.host && uuid(other) == own
    };
    ranks
        .iter()
        .enumerate()
        .filter(is_there)
        .map(|(rank, _)| rank)
}

fn uuid(place: &RankPlace) -> Option<&str> {
    place.accelerator.as_ref()?.uuid.as_deref()
}
