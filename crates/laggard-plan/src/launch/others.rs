//! The hosts that no job is launched on: what becomes of them.

use std::fmt::Write;

use super::{DeviceClass, Hosts, LaunchFile, Placement};
use crate::file::{PlannedOption, label};

/// The table's name, beside the folders of the jobs.
const NAME: &str = "others.tsv";

/// The table of all hosts without a job, those that serve first; `None` where the plan has no use
/// for any.
pub(super) fn table<'p>(
    option: &PlannedOption,
    (hosts, classes): (&Hosts, &[DeviceClass]),
    placements: impl Iterator<Item = &'p Placement>,
) -> Option<LaunchFile> {
    let mut has_job = vec![false; hosts.list.len()];
    for place in placements.flat_map(|it| &it.places) {
        has_job[place.host] = true;
    }
    let mut text = format!(
        "# Hosts that no job of \"{}\" is launched on, and what they do.\n",
        option.name
    );
    if hosts.are_placeholders {
        text.push_str(super::overview::PLACEHOLDERS);
    }
    text.push_str("# host\tclass\tdevices\tuse\n");
    let mut is_any = false;
    for (at, class) in classes.iter().enumerate() {
        let Some(of_class) = option.uses.get(&class.name) else {
            continue;
        };
        let mut uses = [
            (of_class.serve, "serves"),
            (of_class.lease, "is leased"),
            (of_class.reserve, "is in reserve"),
            (of_class.off, "is off"),
        ];
        is_any |= uses.iter().any(|(devices, _)| *devices > 0);
        let free = hosts.list.iter().zip(&has_job);
        let free = free.filter(|(host, has_job)| host.class == at && !**has_job);
        for (host, _) in free {
            let devices = u64::from(host.devices);
            let next = uses.iter_mut().find(|(left, _)| *left > 0);
            let what = next.map_or("is idle", |(left, what)| {
                *left = left.saturating_sub(devices);
                *what
            });
            let name = label(&class.name);
            _ = writeln!(text, "{}\t{name}\t{devices}\t{what}", host.name);
        }
    }
    is_any.then(|| LaunchFile {
        path: NAME.to_owned(),
        text,
    })
}
