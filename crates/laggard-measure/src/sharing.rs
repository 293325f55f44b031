//! Who else computes on a rank's accelerator: other ranks of the job, and processes of others.

use crate::MeasureError;
use crate::place::Report;
use laggard_types::{Caveat, CaveatCode, Rank};
use std::collections::BTreeSet;

/// Ranks that a message names at most.
const NAMED_RANKS: usize = 8;

/// The accelerator of a rank, among those of all machines; `None` where it does not tell.
fn accelerator(report: &Report) -> Option<(&str, &str)> {
    let uuid = report.identity.as_ref()?.uuid.as_deref()?;
    Some((&report.machine, uuid))
}

/// The ranks on the accelerator of a rank, in order, the rank among them.
fn on_same(reports: &[Report], rank: usize) -> impl Iterator<Item = usize> + '_ {
    let own = accelerator(&reports[rank]);
    let is_there = move |other: &usize| match own {
        Some(own) => accelerator(&reports[*other]) == Some(own),
        None => *other == rank,
    };
    (0..reports.len()).filter(is_there)
}

/// Refuses ranks that share an accelerator.
pub(crate) fn refuse(reports: &[Report]) -> Result<(), MeasureError> {
    for rank in 0..reports.len() {
        let Some(other) = on_same(reports, rank).find(|other| *other != rank) else {
            continue;
        };
        let report = &reports[rank];
        return Err(MeasureError::Setting {
            what: "the device",
            value: format!("{} of host {}", report.device(), report.host),
            why: format!("ranks {rank} and {other} share it, so that each is slowed by the other"),
            hint: "give each rank a GPU of its own, or run with --allow-shared-gpu".to_owned(),
        });
    }
    Ok(())
}

/// Processes on a rank's accelerator that are none of this job's. The driver's numbers of processes
/// are those of another name space in containers, so that they are counted, not compared; of
/// processes that share by way of a server (MPS) the server is one. `None` where the driver shows
/// fewer than there must be.
pub(crate) fn other_processes(reports: &[Report], rank: usize) -> Option<u32> {
    let identity = reports[rank].identity.as_ref()?;
    let own: BTreeSet<(&str, u32)> = on_same(reports, rank)
        .map(|rank| (reports[rank].host.as_str(), reports[rank].process))
        .collect();
    let server = usize::from(identity.shared_by_mps == Some(true));
    let known = u32::try_from(own.len() + server).ok()?;
    identity.processes?.checked_sub(known)
}

/// What a reader must know of accelerators that are shared.
pub(crate) fn caveats(reports: &[Report]) -> Vec<Caveat> {
    let caveat = |message| Caveat::new(CaveatCode::SharedDevice, message);
    let shares = |rank: &usize| on_same(reports, *rank).count() > 1;
    let sharing: Vec<usize> = (0..reports.len()).filter(shares).collect();
    let disturbed = |rank: &usize| other_processes(reports, *rank).is_some_and(|count| count > 0);
    let disturbed: Vec<usize> = (0..reports.len()).filter(disturbed).collect();
    let mut list = Vec::new();
    if !sharing.is_empty() {
        list.push(caveat(format!(
            "{} share GPUs: each is slowed by the others, and none of their times is that of a \
             whole GPU",
            named(&sharing)
        )));
    }
    if !disturbed.is_empty() {
        list.push(caveat(format!(
            "other processes computed on the GPUs of {} when the run began (`nvidia-smi` lists \
             them)",
            named(&disturbed)
        )));
    }
    list
}

/// `ranks 1, 2, 5`; long lists are cut.
fn named(ranks: &[usize]) -> String {
    let shown = ranks.iter().take(NAMED_RANKS).map(|rank| *rank as Rank);
    let shown: Vec<String> = shown.map(|rank| rank.to_string()).collect();
    let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
    match ranks.len().saturating_sub(NAMED_RANKS) {
        0 => format!("{noun} {}", shown.join(", ")),
        more => format!("{noun} {} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_types::DeviceIdentity;

    /// Ranks with machine, process, UUID, and how many processes the driver shows.
    fn reports(ranks: &[(&str, u32, &str, Option<u32>)]) -> Vec<Report> {
        let report = |&(machine, process, uuid, processes): &(&str, u32, &str, _)| Report {
            process,
            identity: Some(DeviceIdentity {
                uuid: (!uuid.is_empty()).then(|| uuid.to_owned()),
                processes,
                ..DeviceIdentity::default()
            }),
            ..Report::named(machine)
        };
        ranks.iter().map(report).collect()
    }

    #[test]
    fn ranks_on_one_gpu_are_refused() {
        let shared = reports(&[
            ("a", 1, "g", None),
            ("a", 2, "h", None),
            ("a", 3, "g", None),
        ]);
        let error = refuse(&shared).expect_err("shared").to_string();
        assert!(error.contains("ranks 0 and 2 share it"), "{error}");
        assert!(error.contains("--allow-shared-gpu"), "{error}");
        let apart = [("a", 1, "g", None), ("b", 1, "g", None), ("a", 2, "", None)];
        assert!(refuse(&reports(&apart)).is_ok());
        // What does not tell which it is cannot be called the same.
        assert!(refuse(&reports(&[("a", 1, "", None), ("a", 2, "", None)])).is_ok());
    }

    #[test]
    fn processes_of_others_are_what_is_more_than_our_own() {
        let check = |ranks: &[(&str, u32, &str, Option<u32>)], expect: Option<u32>| {
            assert_eq!(other_processes(&reports(ranks), 0), expect, "{ranks:?}");
        };
        check(&[("a", 1, "g", None)], None);
        check(&[("a", 1, "g", Some(1))], Some(0));
        check(&[("a", 1, "g", Some(3))], Some(2));
        // Two ranks of one process, and two processes.
        check(&[("a", 1, "g", Some(1)), ("a", 1, "g", None)], Some(0));
        check(&[("a", 1, "g", Some(2)), ("a", 2, "g", None)], Some(0));
        // Fewer than there must be is no zero.
        check(&[("a", 1, "g", Some(0))], None);
        let mut by_server = reports(&[("a", 1, "g", Some(2))]);
        by_server[0].identity.as_mut().unwrap().shared_by_mps = Some(true);
        assert_eq!(other_processes(&by_server, 0), Some(0));
    }

    #[test]
    fn sharing_is_a_doubt() {
        let alone = reports(&[("a", 1, "g", Some(1)), ("a", 2, "h", None)]);
        assert_eq!(caveats(&alone), []);
        let shared = reports(&[("a", 1, "g", Some(5)), ("a", 1, "g", None)]);
        let words: Vec<String> = caveats(&shared).into_iter().map(|it| it.message).collect();
        assert!(words[0].starts_with("ranks 0, 1 share GPUs"), "{words:?}");
        assert!(words[1].contains("on the GPUs of rank 0 when"), "{words:?}");
    }
}
