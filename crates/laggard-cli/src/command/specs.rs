//! `laggard specs`: what the tables hold, and whether it agrees with its sources.

use crate::args::{ListedTable, SpecsAction, SpecsArgs};
use crate::failure::Usage;
use crate::{exit_code, input, output};
use anyhow::{Context, Result};
use laggard_specs::{
    Cluster, Convention, NotRecomputed, SpecsError, Tables, arithmetic_exceptions,
    published_training, rows,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Columns of a page.
const WIDTH: usize = 100;
/// Columns of the names of conventions.
const CONVENTION: usize = 21;
/// Columns before what a check found.
const CHECKED: usize = 14;
/// What `show` calls the published rows.
const PUBLISHED: &str = "published-training";

pub(crate) fn run(args: &SpecsArgs) -> Result<u8> {
    let tables = input::tables(&args.tables)?;
    let text = match &args.action {
        SpecsAction::List { table } => list(&tables, *table)?,
        SpecsAction::Show { name } => show(&tables, name)?,
        SpecsAction::Check { cluster } => check(&tables, cluster.as_deref())?,
    };
    output::result(&text, Path::new("-"))?;
    Ok(exit_code::DONE)
}

fn list(tables: &Tables, table: Option<ListedTable>) -> Result<String> {
    let all = [
        ListedTable::Models,
        ListedTable::Accelerators,
        ListedTable::Clusters,
        ListedTable::Conventions,
    ];
    let parts: Vec<String> = match table {
        Some(table) => vec![list_one(tables, table)?],
        None => all
            .into_iter()
            .map(|table| list_one(tables, table))
            .collect::<Result<_>>()?,
    };
    Ok(parts.join("\n"))
}

fn list_one(tables: &Tables, table: ListedTable) -> Result<String> {
    let lines = match table {
        ListedTable::Models => models(tables),
        ListedTable::Accelerators => accelerators(tables),
        ListedTable::Clusters => clusters(tables)?,
        ListedTable::Conventions => conventions(),
    };
    Ok(lines.join("\n") + "\n")
}

fn models(tables: &Tables) -> Vec<String> {
    let row = |id: &str, cells: [String; 4], name: &str| {
        let [total, active, layers, hidden] = cells;
        format!("{id:<20}{total:>13}{active:>13}{layers:>8}{hidden:>8}  {name}")
    };
    let header = ["parameters", "per token", "layers", "hidden"];
    let mut lines = vec![row("model", header.map(str::to_owned), "name")];
    let mut models: Vec<_> = tables.models().iter().collect();
    models.sort_by_key(|model| model.parameters());
    lines.extend(models.iter().map(|model| {
        let cells = [
            billions(model.parameters()),
            billions(model.matmul_parameters()),
            model.layers.to_string(),
            model.hidden.to_string(),
        ];
        row(&model.id, cells, &model.name)
    }));
    lines
}

fn accelerators(tables: &Tables) -> Vec<String> {
    let row = |id: &str, cells: [String; 3], product: &str| {
        let [peak, memory, bandwidth] = cells;
        format!("{id:<24}{peak:>14}{memory:>10}{bandwidth:>12}  {product}")
    };
    let header = ["bf16 TFLOP/s", "memory", "bandwidth"];
    let mut lines = vec![row("accelerator", header.map(str::to_owned), "product")];
    let number = |value: Option<f64>, unit: &str| {
        value.map_or("-".to_owned(), |value| format!("{value:.0}{unit}"))
    };
    lines.extend(tables.accelerators().iter().map(|accelerator| {
        let peak = accelerator.dense_half_peak().map(|peak| peak.0 * 1e-12);
        let memory = accelerator.memory_bytes.map(|bytes| bytes.0 as f64 * 1e-9);
        let bandwidth = accelerator.memory_bandwidth_bytes_per_s;
        let bandwidth = bandwidth.map(|rate| rate.0 * 1e-9);
        let cells = [
            number(peak, ""),
            number(memory, " GB"),
            number(bandwidth, " GB/s"),
        ];
        row(&accelerator.id, cells, &accelerator.product)
    }));
    lines
}

fn clusters(tables: &Tables) -> Result<Vec<String>> {
    let mut lines = vec![format!("{:<16}{:>10}  {}", "cluster", "devices", "pools")];
    for name in Cluster::preset_names() {
        let cluster = Cluster::preset(name, tables)?;
        let pool = |pool: &laggard_specs::Pool| format!("{} {}", pool.count, pool.accelerator);
        let pools: Vec<String> = cluster.pools.iter().map(pool).collect();
        let devices = cluster.devices();
        lines.push(format!("{name:<16}{devices:>10}  {}", pools.join(", ")));
    }
    Ok(lines)
}

fn conventions() -> Vec<String> {
    let mut lines = vec![format!(
        "{:<CONVENTION$}{}",
        "convention", "counts per token"
    )];
    for convention in Convention::all() {
        let words = convention.describe().split(' ');
        for (at, text) in wrapped(words, WIDTH - CONVENTION).into_iter().enumerate() {
            let name = if at == 0 { convention.id() } else { "" };
            lines.push(format!("{name:<CONVENTION$}{text}"));
        }
    }
    let symbols = "N: parameters; Nmm: weights that multiply a token; L: layers; h: width; \
                   V: vocabulary; s: sequence length; w: window; A: L x heads x channels per head.";
    lines.push(String::new());
    lines.extend(wrapped(symbols.split(' '), WIDTH));
    lines
}

fn billions(parameters: u64) -> String {
    match parameters {
        0..1_000_000_000 => format!("{:.2} M", parameters as f64 * 1e-6),
        _ => format!("{:.2} B", parameters as f64 * 1e-9),
    }
}

/// An entry of any table. A name that several tables have is of the first of these.
fn show(tables: &Tables, name: &str) -> Result<String> {
    if name == PUBLISHED {
        return Ok(published_training().to_owned());
    }
    let model = tables.model(name);
    let accelerator = tables.accelerator(name);
    let cluster = Cluster::preset_text(name);
    let convention: Result<Convention, SpecsError> = name.parse();
    match (model, accelerator, cluster, convention) {
        (Ok(model), ..) => Ok(model.to_toml()?),
        (_, Ok(accelerator), ..) => Ok(accelerator.to_toml()?),
        (_, _, Ok(text), _) => Ok(text.to_owned()),
        (.., Ok(convention)) => Ok(format!("{convention}: {}\n", convention.describe())),
        (Err(model), Err(accelerator), Err(cluster), Err(_)) => {
            let errors = [model, accelerator, cluster].map(|error| error.to_string());
            let close = |text: &String| {
                let hint = text.lines().find(|line| line.starts_with("hint: close"));
                hint.map(str::to_owned)
            };
            let mut hints: Vec<String> = errors.iter().filter_map(close).collect();
            hints.push("hint: `laggard specs list` names all".to_owned());
            let problem = format!("no table has an entry '{name}'");
            Err(Usage(format!("{problem}\n{}", hints.join("\n"))).into())
        }
    }
}

fn check(tables: &Tables, cluster: Option<&Path>) -> Result<String> {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let mut line = |what: &str, text: String| _ = writeln!(page, "{what:<CHECKED$}{text}");
    let published = |model: &laggard_specs::Model| {
        let printed = model.published_parameters? as f64;
        Some((model.parameters() as f64 / printed - 1.0).abs())
    };
    let errors: Vec<f64> = tables.models().iter().filter_map(published).collect();
    let largest = errors.iter().copied().fold(0.0, f64::max);
    line(
        "models",
        format!(
            "{} entries; parameters of {} compared with what is published, at most {:.2} % off",
            tables.models().len(),
            errors.len(),
            100.0 * largest
        ),
    );
    line(
        "accelerators",
        format!("{} entries", tables.accelerators().len()),
    );
    line(
        "clusters",
        format!("{} presets", Cluster::preset_names().count()),
    );
    let (agree, listed, skipped) = recompute(tables)?;
    line(
        "published",
        format!("{agree} training rows print what their own throughput gives; others do not:"),
    );
    for (reason, rows) in listed {
        let text = format!("{}: {reason}", rows.len());
        let width = WIDTH - CHECKED - 2;
        for text in wrapped(text.split(' '), width) {
            line("", text);
        }
        for text in wrapped(rows.iter().map(String::as_str), width) {
            line("", format!("  {text}"));
        }
    }
    line("", "and some cannot be recomputed:".to_owned());
    for (reason, rows) in skipped {
        line("", format!("{rows}: {reason}"));
    }
    if let Some(path) = cluster {
        let read = Cluster::from_toml_str(&input::text(path)?, tables);
        let read = read.with_context(|| format!("cannot use {}", path.display()))?;
        line(
            "cluster",
            format!(
                "{}: {} devices, pools: {}, sites: {}",
                path.display(),
                read.devices(),
                read.pools.len(),
                read.sites.len()
            ),
        );
    }
    Ok(page)
}

/// Rows that agree with their own throughput, those that are known not to, by reason, and how many
/// cannot be recomputed, by reason.
type Recomputed = (
    usize,
    Vec<(String, Vec<String>)>,
    BTreeMap<&'static str, usize>,
);

fn recompute(tables: &Tables) -> Result<Recomputed> {
    let (mut agree, mut skipped) = (0, BTreeMap::new());
    let mut off = Vec::new();
    for row in rows(published_training())? {
        match row.check_figures(tables) {
            Ok(checks) if checks.iter().all(laggard_specs::FigureCheck::agrees) => agree += 1,
            Ok(_) => off.push(row.row_id),
            Err(why) => *skipped.entry(reason(why)).or_default() += 1,
        }
    }
    let mut listed = Vec::new();
    for exception in arithmetic_exceptions()? {
        let (rows, rest) = off
            .into_iter()
            .partition(|row| exception.rows.contains(row));
        off = rest;
        listed.push((exception.reason, rows));
    }
    if !off.is_empty() {
        listed.push(("no reason is known".to_owned(), off));
    }
    Ok((agree, listed, skipped))
}

const fn reason(why: NotRecomputed) -> &'static str {
    match why {
        NotRecomputed::NotTraining => "no training run on one kind of accelerator",
        NotRecomputed::UnknownConvention => {
            "it is not said how FLOP are counted, or not so that it can be computed"
        }
        NotRecomputed::UnknownShape => "the model's shape is unknown",
        NotRecomputed::NothingPrinted => "no throughput, or no figure beside it",
    }
}

/// Words in lines of at most so many columns.
fn wrapped<'a>(words: impl Iterator<Item = &'a str>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
