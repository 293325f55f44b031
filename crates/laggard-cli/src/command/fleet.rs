//! `laggard fleet`: one table of all devices from many records.

mod csv;
mod page;

use crate::args::{FleetArgs, FleetFormat, TableFormat};
use crate::failure::{BadInput, Usage};
use crate::{exit_code, input, output};
use anyhow::{Context, Result};
use laggard_analyze::{FLEET_VERSION, Fleet, FleetOptions, FleetRun, FleetStock, fleet};
use laggard_plan::launch::Hosts;
use laggard_record::{MANIFEST_FILE, Record};
use laggard_specs::{Cluster, Pool, Tables};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(crate) fn run(args: &FleetArgs) -> Result<u8> {
    if !(args.name_over > 0.0 && args.name_over < 100.0) {
        let hint = "hint: for example `--name-over 3`";
        let why = "--name-over must be a number of per cent above 0 and below 100";
        return Err(Usage(format!("{why}\n{hint}")).into());
    }
    let hosts = args.hosts.as_deref().map(listed_hosts).transpose()?;
    let tables = input::tables(&args.tables)?;
    let cluster = args.cluster.as_deref();
    let cluster = cluster
        .map(|name| input::cluster(name, &tables))
        .transpose()?;
    let runs = runs(&args.records)?;
    let stock = cluster.map(|cluster| stock(&cluster, &runs, &tables));
    let options = FleetOptions {
        smallest: args.name_over / 100.0,
        stock: stock.unwrap_or_default(),
        hosts,
        ..FleetOptions::default()
    };
    let table = fleet(&runs, &options)?;
    let text = match args.format {
        FleetFormat::Text => page::page(&table),
        FleetFormat::Csv => csv::csv(&table),
        FleetFormat::Json => output::formatted(TableFormat::Json, &table, String::new)?,
    };
    output::result(&text, &args.output)?;
    Ok(exit_code::DONE)
}

/// A table of devices that `laggard fleet --format json` wrote.
pub(super) fn read(path: &Path) -> Result<Fleet> {
    /// What tables of every version have.
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
    }
    let refused = |why: String| {
        let hint = "hint: write it with `laggard fleet DIR... --format json -o fleet.json`";
        let path = path.display();
        BadInput(format!("{path} is no table of devices: {why}\n{hint}"))
    };
    let unreadable = |error: serde_json::Error| refused(error.to_string());
    let text = input::text(path)?;
    let Version { schema_version } = serde_json::from_str(&text).map_err(unreadable)?;
    if schema_version != FLEET_VERSION {
        let why = format!("it has version {schema_version}, this laggard reads {FLEET_VERSION}");
        return Err(refused(why).into());
    }
    Ok(serde_json::from_str(&text).map_err(unreadable)?)
}

fn runs(paths: &[PathBuf]) -> Result<Vec<FleetRun>> {
    let mut runs = Vec::new();
    for path in paths {
        for record in records(path)? {
            let name = record.display().to_string();
            let read = Record::open(&record)?;
            let run = FleetRun::read(&read, &name);
            runs.push(run.with_context(|| format!("cannot use {name}"))?);
        }
    }
    Ok(runs)
}

/// A record itself, or the records in a folder, by name.
fn records(path: &Path) -> Result<Vec<PathBuf>> {
    let is_record = |path: &Path| path.join(MANIFEST_FILE).is_file();
    if is_record(path) || !path.is_dir() {
        // What is not there, the reader says best.
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path);
    let entries = entries.with_context(|| format!("cannot list {}", path.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", path.display()))?;
        if is_record(&entry.path()) {
            found.push(entry.path());
        }
    }
    if found.is_empty() {
        let hint = "hint: give records of `laggard run -o DIR`, or a folder of them";
        let why = format!("{} is no record and holds none\n{hint}", path.display());
        return Err(BadInput(why).into());
    }
    found.sort();
    Ok(found)
}

/// The hosts of a hostfile or of a list of ranges: the first word of each line.
fn listed_hosts(path: &Path) -> Result<BTreeSet<String>> {
    let hosts = Hosts::names(&input::text(path)?)
        .map_err(|error| BadInput(format!("cannot use {}: {error}", path.display())))?;
    if hosts.is_empty() {
        let hint = "hint: write the name of a host in each line";
        return Err(BadInput(format!("{} names no host\n{hint}", path.display())).into());
    }
    Ok(hosts)
}

/// What a cluster has of each class that runs name, or that it alone has.
fn stock(cluster: &Cluster, runs: &[FleetRun], tables: &Tables) -> Vec<FleetStock> {
    let devices = runs.iter().flat_map(|run| &run.devices);
    let classes: BTreeSet<&str> = devices.map(|it| it.class.as_str()).collect();
    let name = |pool: &Pool| {
        let mut known = classes.iter();
        let found = known.find(|class| input::is_of_class(pool, class, tables));
        found.map_or_else(|| pool.id.clone(), |class| (*class).to_owned())
    };
    let mut stock: Vec<FleetStock> = Vec::new();
    for pool in &cluster.pools {
        let class = name(pool);
        let hosts = pool
            .devices_per_node
            .map(|each| pool.count.div_ceil(each.max(1)));
        match stock.iter_mut().find(|it| it.class == class) {
            Some(sum) => {
                sum.devices += pool.count;
                sum.hosts = sum.hosts.zip(hosts).map(|(a, b)| a + b);
            }
            None => stock.push(FleetStock {
                class,
                devices: pool.count,
                hosts,
            }),
        }
    }
    stock
}
