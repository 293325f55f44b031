//! A table of devices for spreadsheets.

use crate::command::date::day;
use laggard_analyze::{Fleet, FleetDevice, Named};
use std::fmt::Write;

const HEAD: &str = "class,host,device,runs,steps,first_run,last_run,speed,speed_low,speed_high,\
                    named,changed_between,changed_by,changed_by_low,changed_by_high\n";

/// One line for each device.
pub(super) fn csv(table: &Fleet) -> String {
    let mut text = HEAD.to_owned();
    for device in &table.devices {
        line(&mut text, table, device);
    }
    text
}

fn line(text: &mut String, table: &Fleet, device: &FleetDevice) {
    let date = |run: usize| day(table.runs[run].created_unix_ns);
    let end = |run: Option<&usize>| run.map_or_else(String::new, |run| date(*run));
    let named = match device.named {
        Some(Named::Slow) => "slow",
        Some(Named::TurnedSlow) => "turned slow",
        None => "",
    };
    let names = [&device.class, &device.host, &device.device].map(|name| quoted(name));
    let speed = &device.speed;
    // Writing to a string cannot fail.
    _ = write!(
        text,
        "{},{},{},{},{},{:.5},{:.5},{:.5},{named}",
        names.join(","),
        device.runs.len(),
        device.steps,
        end(device.runs.first()),
        end(device.runs.last()),
        speed.value,
        speed.low,
        speed.high,
    );
    match device.changes.last() {
        Some(change) => {
            let ratio = &change.ratio;
            _ = writeln!(
                text,
                ",{} to {},{:.5},{:.5},{:.5}",
                date(change.last_before),
                date(change.first_after),
                ratio.value,
                ratio.low,
                ratio.high
            );
        }
        None => text.push_str(",,,,\n"),
    }
}

fn quoted(name: &str) -> String {
    match name.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_commas_are_quoted() {
        assert_eq!(quoted("node1"), "node1");
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
        assert_eq!(HEAD.matches(',').count(), 14);
    }
}
