//! A table of devices as text: classes, who is named, and the slowest hosts.

use crate::command::date::day;
use crate::page::Page;
use laggard_analyze::{Estimate, Fleet, FleetClass, FleetDevice, FleetHost, Named};

/// Hosts and names of a list that are printed.
const SHOWN: usize = 10;

pub(super) fn page(table: &Fleet) -> String {
    let mut page = Page::default();
    head(&mut page, table);
    classes(&mut page, table);
    named(&mut page, table);
    slowest(&mut page, table);
    unseen(&mut page, table);
    if !table.caveats.is_empty() {
        page.heading("keep in mind");
    }
    for caveat in &table.caveats {
        page.sentence(2, &caveat.message);
    }
    page.text()
}

fn head(page: &mut Page, table: &Fleet) {
    let date = |run: Option<&laggard_analyze::FleetRunLine>| {
        run.map_or_else(String::new, |run| day(run.created_unix_ns))
    };
    let (devices, runs) = (table.devices.len(), table.runs.len());
    let (first, last) = (date(table.runs.first()), date(table.runs.last()));
    let hosts = match table.all_hosts {
        Some(all) => format!("{} of {all}", table.hosts.len()),
        None => table.hosts.len().to_string(),
    };
    page.sentence(
        0,
        &format!("{devices} devices of {hosts} hosts in {runs} runs, {first} to {last}"),
    );
    page.sentence(
        0,
        "speeds are over that of the device's class, with 95 % intervals; devices of little \
         evidence are pulled to their class",
    );
}

fn classes(page: &mut Page, table: &Fleet) {
    page.heading(&format!(
        "{:<16} {:>17} {:>15} {:>8} {:>10} {:>22}",
        "class", "devices seen", "hosts seen", "differ", "run to run", "of one never seen"
    ));
    let of = |seen: u64, all: Option<u64>| match all {
        Some(all) => format!("{seen} of {all}"),
        None => seen.to_string(),
    };
    for class in &table.classes {
        let FleetClass {
            name,
            spread,
            run_to_run,
            ..
        } = class;
        page.line(&format!(
            "{name:<16} {:>17} {:>15} {:>7.2}% {:>9.2}% {:>22}",
            of(class.devices, class.all_devices),
            of(class.hosts, class.all_hosts),
            100.0 * spread,
            100.0 * run_to_run,
            speed(&class.unseen)
        ));
    }
}

fn speed(speed: &Estimate) -> String {
    format!("{:.3} [{:.3}, {:.3}]", speed.value, speed.low, speed.high)
}

fn named(page: &mut Page, table: &Fleet) {
    page.heading("named");
    let mut nobody = true;
    for (device, why) in table.named() {
        nobody = false;
        page.sentence(2, &sentence(table, device, why));
    }
    if nobody {
        page.sentence(
            2,
            "nobody: no device is slower than chance and its class explain",
        );
    }
    page.sentence(
        2,
        &format!(
            "(from {:.1} % on; of fleets in which all is well, {:.0} % have anybody named)",
            100.0 * table.smallest,
            100.0 * table.false_alarms
        ),
    );
}

fn sentence(table: &Fleet, device: &FleetDevice, why: Named) -> String {
    let who = format!("{} on {} ({})", device.device, device.host, device.class);
    let seen = format!("{} runs, {} steps", device.runs.len(), device.steps);
    let pace = speed(&device.speed);
    let change = device.changes.last().filter(|_| why == Named::TurnedSlow);
    let Some(change) = change else {
        return format!("{who}: slow, at {pace} of its class in {seen}");
    };
    let date = |run: usize| day(table.runs[run].created_unix_ns);
    format!(
        "{who}: turned slow between {} ({}) and {} ({}), to {} of what it was, and is at {pace} \
         of its class ({seen})",
        date(change.last_before),
        table.runs[change.last_before].name,
        date(change.first_after),
        table.runs[change.first_after].name,
        speed(&change.ratio)
    )
}

fn slowest(page: &mut Page, table: &Fleet) {
    let mut hosts: Vec<&FleetHost> = table.hosts.iter().collect();
    hosts.sort_by(|a, b| a.slowest.value.total_cmp(&b.slowest.value));
    page.heading(&format!(
        "{:<32} {:<16} {:>8} {:>24}",
        "slowest hosts", "class", "devices", "slowest device"
    ));
    for host in hosts.iter().take(SHOWN) {
        page.line(&format!(
            "{:<32} {:<16} {:>8} {:>24}",
            host.host,
            host.class,
            host.devices,
            speed(&host.slowest)
        ));
    }
}

fn unseen(page: &mut Page, table: &Fleet) {
    let count = table.unseen_hosts.len();
    if count == 0 {
        return;
    }
    let names: Vec<&str> = table
        .unseen_hosts
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect();
    let more = match count.saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    page.heading("never seen");
    page.sentence(
        2,
        &format!(
            "{}{more}: taken as their class is, as in the table above",
            names.join(", ")
        ),
    );
}
