//! What a table of devices says about the hosts of a cluster, and an option without the slowest.

use crate::command::fleet;
use crate::failure::BadInput;
use crate::input;
use crate::page::Page;
use anyhow::Result;
use laggard_analyze::{Fleet, FleetClass};
use laggard_plan::{Class, Kind, Objective, Options, Problem, Speeds, rank, trimmed};
use laggard_specs::{Cluster, Tables};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Options that the slowest hosts are left out of.
const BASES: [Kind; 3] = [Kind::EqualShares, Kind::UnevenShares, Kind::Pools];

/// What the slowest hosts cost.
#[derive(Debug, Serialize)]
pub(super) struct Tails {
    /// Hosts of each class that the option leaves out.
    left_out: BTreeMap<String, u64>,
    /// The option without them.
    option: String,
    /// Tokens per second without them, with them, and if all were as fast as their class.
    tokens_per_s: f64,
    with_all: f64,
    of_equal: f64,
    /// Share of the loss that is won back.
    recovered: Option<f64>,
}

/// The slowest device of each host of each class, the fastest host first; none where the table says
/// nothing of a class. The problem then goes at the pace of the slowest.
pub(super) fn slow_down(
    problem: &mut Problem<'_>,
    path: &Path,
    (cluster, tables): (&Cluster, &Tables),
) -> Result<Vec<Vec<f64>>> {
    let table = fleet::read(path)?;
    let mut speeds = Vec::new();
    let mut caveats = Vec::new();
    for class in &problem.classes {
        let of_class = |seen: &&FleetClass| is_of(class, seen, (cluster, tables));
        let Some(seen) = table.classes.iter().find(of_class) else {
            caveats.push(format!(
                "no device of {} was seen: all are taken as equally fast",
                class.of.name
            ));
            speeds.push(Vec::new());
            continue;
        };
        let pools = problem.classes.iter();
        let is_shared = pools
            .filter(|it| is_of(it, seen, (cluster, tables)))
            .count()
            > 1;
        let of_hosts = hosts(class, (&table, seen), is_shared)?;
        caveats.push(sentence(class, &of_hosts));
        speeds.push(of_hosts.of_hosts()?);
    }
    problem.slow_down(&speeds);
    caveats.push(
        "jobs go at the pace of the slowest host that they have; some of that is in the jitter of \
         the cost model already, which was fitted on whole runs"
            .to_owned(),
    );
    problem.caveats.extend(caveats);
    Ok(speeds)
}

/// Whether a class of a cluster is one of a table.
fn is_of(class: &Class, seen: &FleetClass, (cluster, tables): (&Cluster, &Tables)) -> bool {
    let mut pools = cluster.pools.iter().filter(|pool| pool.id == class.of.name);
    pools.any(|pool| input::is_of_class(pool, &seen.name, tables))
}

/// What is known of the hosts of a class. Of a class that is in several pools nobody knows which
/// host is in which, and each is as one that was never seen.
fn hosts(class: &Class, (table, seen): (&Fleet, &FleetClass), is_shared: bool) -> Result<Speeds> {
    let of_class = table.hosts.iter().filter(|host| host.class == seen.name);
    let known = of_class
        .filter(|_| !is_shared)
        .map(|host| host.slowest.value);
    let known: Vec<f64> = known.collect();
    let all = class.of.count.div_ceil(class.node_devices);
    let Some(unseen) = all.checked_sub(known.len() as u64) else {
        let why = format!(
            "the table has {} hosts of {}, but the cluster has {all}",
            known.len(),
            class.of.name
        );
        let hint = "hint: leave out the records of hosts that are gone, or mend the cluster's file";
        return Err(BadInput(format!("{why}\n{hint}")).into());
    };
    Ok(Speeds {
        hosts: known,
        unseen,
        host_devices: class.node_devices,
        spread: seen.spread,
        unusual: seen.unusual.clone(),
        devices: seen.devices,
    })
}

fn sentence(class: &Class, speeds: &Speeds) -> String {
    let (seen, name) = (speeds.hosts.len(), &class.of.name);
    let all = seen as u64 + speeds.unseen;
    let others = match speeds.unseen {
        0 => String::new(),
        _ => format!(
            "; the others are taken as their class is, devices differing by {:.2} %",
            100.0 * speeds.spread
        ),
    };
    format!("{seen} of {all} hosts of {name} were seen{others}")
}

/// Adds the best option that is better without its slowest hosts.
pub(super) fn add(
    problem: &Problem<'_>,
    found: &mut Options,
    speeds: &[Vec<f64>],
    objective: Objective,
) -> Result<Option<Tails>> {
    let order = rank(&found.list, objective)?.order;
    let is_base = |at: &usize| BASES.contains(&found.list[*at].kind);
    let mut best = None;
    for base in order.into_iter().filter(is_base) {
        best = trimmed(problem, &found.list[base], speeds)?;
        if best.is_some() {
            break;
        }
    }
    let Some(without) = best else {
        return Ok(None);
    };
    let classes = problem.classes.iter().zip(&without.left_out);
    let left = classes.filter(|(_, hosts)| **hosts > 0);
    let tails = Tails {
        left_out: left
            .map(|(class, hosts)| (class.of.name.clone(), *hosts))
            .collect(),
        option: without.option.name.clone(),
        tokens_per_s: without.option.figures.tokens_per_s,
        with_all: without.with_all,
        of_equal: without.of_equal,
        recovered: without.recovered(),
    };
    found.list.push(without.option);
    found.list.sort_by_key(|option| option.kind);
    Ok(Some(tails))
}

/// What the slowest hosts cost, on the page.
pub(super) fn lines(page: &mut Page, it: &Tails) {
    page.heading("slow hosts");
    let loss = 1.0 - it.with_all / it.of_equal;
    let won = it.tokens_per_s / it.with_all - 1.0;
    let recovered = it.recovered.map_or_else(String::new, |share| {
        format!(", {:.0} % of what they cost", 100.0 * share)
    });
    page.sentence(
        2,
        &format!(
            "differences between devices cost {:.1} % of tokens/s; {} wins {:.1} %{recovered}",
            100.0 * loss,
            it.option,
            100.0 * won
        ),
    );
}
