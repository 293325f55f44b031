//! `--calibrate`: records and benchmarks of the user's own machines in place of what datasheets say
//! of classes, for `simulate` and `plan`.

mod bench;

use crate::failure::Usage;
use anyhow::{Context, Result};
use laggard_analyze::operation_series;
use laggard_record::{BenchSamples, Manifest, Record};
use laggard_simulate::{
    Constants, Correction, Expectation, ForecastClass, MeasuredRun, Precision, RunComparison,
    Software, compare_run,
};
use laggard_specs::Tables;
use laggard_types::format_seconds;
use serde::Serialize;
use std::path::Path;

/// Seed of resampling.
const SEED: u64 = 1;

/// What a record changed.
#[derive(Debug, Serialize)]
pub(super) struct CalibratedOn {
    record: String,
    #[serde(flatten)]
    found: RunComparison,
    /// Whether it is of single calls, and so has no step.
    #[serde(skip)]
    is_bench: bool,
}

/// A class as a record or a benchmark names it.
struct RecordedClass<'a> {
    name: &'a str,
    device: Option<&'a str>,
}

/// What records are held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Basis<'a> {
    pub(super) tables: &'a Tables,
    pub(super) precision: Precision,
    pub(super) software: Software,
    pub(super) constants: &'a Constants,
}

/// Replaces what the datasheets say of classes by what their records say. `given` are
/// `[CLASS=]DIR`.
pub(super) fn calibrate(
    given: &[String],
    classes: &mut [&mut ForecastClass],
    basis: &Basis<'_>,
) -> Result<Vec<CalibratedOn>> {
    let mut found = Vec::new();
    let mut done: Vec<String> = Vec::new();
    for text in given {
        let known: Vec<&ForecastClass> = classes.iter().map(|class| &**class).collect();
        let (wanted, dir) = parsed(text, &known)?;
        let source = Source::open(dir)?;
        let of = matched(&source.classes(), wanted, &known, basis.tables)
            .with_context(|| format!("cannot calibrate on {}", dir.display()))?;
        for at in of.iter().flatten() {
            let name = &known[*at].name;
            if done.contains(name) {
                let hint = "hint: give each class one record";
                let message = format!("class `{name}` is calibrated twice\n{hint}");
                return Err(Usage(message).into());
            }
            done.push(name.clone());
        }
        let expected: Vec<_> = of.iter().map(|at| at.map(|at| known[at])).collect();
        let comparison = match &source {
            Source::Record(record) => compare(record, &expected, basis),
            Source::Bench(samples) => bench::compare(samples, &expected, basis),
        };
        let comparison =
            comparison.with_context(|| format!("cannot calibrate on {}", dir.display()))?;
        for (at, class) in of.iter().flatten().zip(&comparison.classes) {
            let machine = &mut classes[*at].machine;
            *machine = machine.corrected(&class.corrections())?;
        }
        found.push(CalibratedOn {
            record: dir.display().to_string(),
            found: comparison,
            is_bench: matches!(source, Source::Bench(_)),
        });
    }
    Ok(found)
}

/// What a folder holds.
enum Source {
    Record(Box<Record>),
    Bench(Box<BenchSamples>),
}

impl Source {
    fn open(dir: &Path) -> Result<Self> {
        Ok(match bench::read(dir)? {
            Some(samples) => Self::Bench(Box::new(samples)),
            None => Self::Record(Box::new(Record::open(dir)?)),
        })
    }

    fn classes(&self) -> Vec<RecordedClass<'_>> {
        match self {
            Self::Record(record) => classes_of(&record.manifest),
            Self::Bench(samples) => bench::classes(samples)
                .into_iter()
                .map(|name| RecordedClass { name, device: None })
                .collect(),
        }
    }
}

fn classes_of(manifest: &Manifest) -> Vec<RecordedClass<'_>> {
    let mut classes = Vec::new();
    for (class, at) in manifest.classes.iter().zip(0..) {
        let first = manifest.ranks.iter().find(|rank| rank.class == at);
        classes.push(RecordedClass {
            name: &class.name,
            device: first.map(|rank| rank.device.as_str()),
        });
    }
    classes
}

/// The class that is named, if one is, and the record's folder.
fn parsed<'t>(text: &'t str, classes: &[&ForecastClass]) -> Result<(Option<usize>, &'t Path)> {
    let whole = Path::new(text);
    let Some((name, dir)) = text.split_once('=').filter(|_| !whole.exists()) else {
        return Ok((None, whole));
    };
    match classes.iter().position(|class| class.name == name) {
        Some(at) => Ok((Some(at), Path::new(dir))),
        None => {
            let hint = format!("hint: the cluster has {}", names(classes));
            Err(Usage(format!("no class is called `{name}`\n{hint}")).into())
        }
    }
}

fn names(classes: &[&ForecastClass]) -> String {
    let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    names.join(", ")
}

/// Which class of the cluster each class of a record is; `None` where it is none of them.
fn matched(
    classes_there: &[RecordedClass<'_>],
    wanted: Option<usize>,
    classes: &[&ForecastClass],
    tables: &Tables,
) -> Result<Vec<Option<usize>>> {
    let recorded = 0..classes_there.len();
    let fitting: Vec<Vec<usize>> = recorded
        .clone()
        .map(|at| fitting(&classes_there[at], classes, tables))
        .collect();
    let Some(wanted) = wanted else {
        return of_own_names(classes_there, &fitting, classes);
    };
    let only = |chosen: usize| {
        let of = |at: usize| (at == chosen).then_some(wanted);
        recorded.clone().map(of).collect::<Vec<_>>()
    };
    if classes_there.len() == 1 {
        return Ok(only(0));
    }
    let fits: Vec<usize> = recorded
        .clone()
        .filter(|at| fitting[*at].contains(&wanted))
        .collect();
    match fits[..] {
        [chosen] => Ok(only(chosen)),
        _ => {
            let has: Vec<&str> = classes_there.iter().map(|it| it.name).collect();
            let message = format!(
                "the record has the classes {}, and not exactly one of them is {}\nhint: give a \
                 record of that class alone",
                has.join(", "),
                classes[wanted].name
            );
            Err(Usage(message).into())
        }
    }
}

/// Classes of the cluster that a class of a record can be: that of its name, or those of the
/// accelerator that its name or its devices' is.
fn fitting(
    recorded: &RecordedClass<'_>,
    classes: &[&ForecastClass],
    tables: &Tables,
) -> Vec<usize> {
    if let Some(same) = classes.iter().position(|it| it.name == recorded.name) {
        return vec![same];
    }
    let mut words = std::iter::once(recorded.name).chain(recorded.device);
    let Some(accelerator) = words.find_map(|word| tables.accelerator(word).ok()) else {
        return Vec::new();
    };
    let is = |at: &usize| classes[*at].accelerator == accelerator.id;
    (0..classes.len()).filter(is).collect()
}

/// By the record's own names: each is one class of the cluster or none, and some is one.
fn of_own_names(
    classes_there: &[RecordedClass<'_>],
    fitting: &[Vec<usize>],
    classes: &[&ForecastClass],
) -> Result<Vec<Option<usize>>> {
    let mut list = Vec::new();
    for (recorded, fitting) in classes_there.iter().zip(fitting) {
        let name = recorded.name;
        match fitting[..] {
            [] => list.push(None),
            [at] => list.push(Some(at)),
            _ => {
                let among: Vec<&ForecastClass> = fitting.iter().map(|at| classes[*at]).collect();
                let message = format!(
                    "class `{name}` of the record can be any of {}\nhint: say which with \
                     `--calibrate CLASS=DIR`",
                    names(&among)
                );
                return Err(Usage(message).into());
            }
        }
    }
    if list.iter().flatten().next().is_some() {
        return Ok(list);
    }
    let recorded: Vec<&str> = classes_there.iter().map(|it| it.name).collect();
    let message = format!(
        "the record is of {}, the cluster has {}\nhint: say which class it is with `--calibrate \
         CLASS=DIR`",
        recorded.join(", "),
        names(classes)
    );
    Err(Usage(message).into())
}

fn compare(
    record: &Record,
    classes: &[Option<&ForecastClass>],
    basis: &Basis<'_>,
) -> Result<RunComparison> {
    let series = operation_series(record)?;
    let run = MeasuredRun {
        manifest: &record.manifest,
        columns: &series.columns,
        seconds: &series.seconds,
        step_s: &series.step_s,
    };
    let against = Expectation {
        model: basis.tables.model(&record.manifest.workload.model)?,
        classes,
        precision: basis.precision,
        software: basis.software,
        constants: basis.constants,
    };
    Ok(compare_run(&run, &against, SEED)?)
}

/// What a page says of the records.
pub(super) fn lines(records: &[CalibratedOn]) -> Vec<String> {
    let mut lines = Vec::new();
    for CalibratedOn {
        record,
        found,
        is_bench,
    } in records
    {
        let steps = if *is_bench { "rounds" } else { "steps" };
        lines.push(String::new());
        lines.push(format!("calibrated on {record}, {} {steps}", found.steps));
        for class in &found.classes {
            let kinds = [
                ("products", &class.products),
                ("memory-bound kernels", &class.memory_bound),
                ("links", &class.links),
            ];
            for (kind, correction) in kinds {
                lines.push(format!(
                    "  {} of {} {}",
                    kind,
                    class.class,
                    told(correction)
                ));
            }
        }
        match &found.own_step {
            Some(own) => {
                let off = |error: f64| format!("{:+.1} %", 100.0 * error);
                lines.push(format!(
                    "  its own step took {}; predicted {} by default ({}), {} calibrated ({})",
                    format_seconds(own.measured_s),
                    format_seconds(own.default_s),
                    off(own.default_error),
                    format_seconds(own.corrected_s),
                    off(own.corrected_error)
                ));
            }
            None if *is_bench => {}
            None => {
                lines.push("  its own step is of other classes as well: not predicted".to_owned())
            }
        }
        let caveats = found.caveats.iter();
        lines.extend(caveats.map(|caveat| format!("  caveat: {caveat}")));
    }
    lines
}

fn told(correction: &Correction) -> String {
    match correction {
        Correction::Measured(ratio) => format!(
            "took {} ({} to {}) of the default, from {} steps x {} rank{}",
            factor(ratio.value),
            factor(ratio.low),
            factor(ratio.high),
            ratio.steps,
            ratio.ranks,
            if ratio.ranks == 1 { "" } else { "s" }
        ),
        Correction::Default { reason } => format!("stay at their default: {reason}"),
    }
}

/// Three digits, whatever the magnitude.
fn factor(value: f64) -> String {
    let digits = 2 - value.abs().log10().floor().clamp(-3.0, 2.0) as i32;
    format!("{value:.*}", digits.max(0) as usize)
}
