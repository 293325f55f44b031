//! `laggard validate`: published runs, predicted beside measured.

use crate::args::{GroupBy, ValidateArgs};
use crate::{exit_code, input, output};
use anyhow::{Context, Result};
use laggard_simulate::{
    Constants, ErrorSummary, Frameworks, GroupKey, LeftOut, NoiseFloor, PublishedComparison,
    PublishedJobs, RowClass, noise_floor, published_jobs, summaries, summary,
};
use laggard_specs::published_training;
use std::collections::BTreeMap;
use std::fmt::Write;

pub(crate) fn run(args: &ValidateArgs) -> Result<u8> {
    let tables = input::tables(&args.tables)?;
    let frameworks = Frameworks::builtin()?;
    let constants = Constants::builtin()?;
    let published = match &args.rows {
        None => published_jobs(published_training(), &tables, &frameworks)?,
        Some(path) => published_jobs(&input::text(path)?, &tables, &frameworks)
            .with_context(|| format!("cannot read the rows of {}", path.display()))?,
    };
    let found = Validation::of(published, &constants, args);
    output::either(&args.result, &json(&found), || page(&found))?;
    Ok(exit_code::DONE)
}

/// Everything that is said of a file of rows.
struct Validation {
    floors: Vec<NoiseFloor>,
    rows: Vec<PublishedComparison>,
    /// Rows of the headline; all rows if it has none.
    headline: Option<ErrorSummary>,
    all: Option<ErrorSummary>,
    classes: Vec<(RowClass, ErrorSummary)>,
    by: GroupBy,
    groups: Vec<ErrorSummary>,
    left_out: Vec<LeftOut>,
    with_scalars: bool,
}

impl Validation {
    fn of(published: PublishedJobs, constants: &Constants, args: &ValidateArgs) -> Self {
        let jobs = published.jobs.iter();
        let rows: Vec<PublishedComparison> = jobs
            .map(|job| job.compare(constants, args.framework_scalars))
            .collect();
        let of_class = |class: RowClass| -> Vec<&PublishedComparison> {
            rows.iter().filter(|row| row.class == class).collect()
        };
        let all: Vec<&PublishedComparison> = rows.iter().collect();
        let headline = of_class(RowClass::DenseHalf);
        let grouped = if headline.is_empty() { &all } else { &headline };
        let key = match args.by {
            GroupBy::Source => GroupKey::Source,
            GroupBy::Model => GroupKey::Model,
            GroupBy::Accelerator => GroupKey::Accelerator,
            GroupBy::Scale => GroupKey::Scale,
            GroupBy::Framework => GroupKey::Framework,
        };
        let class = |class: RowClass| Some((class, summary(class.name(), &of_class(class))?));
        Self {
            floors: noise_floor(&published.jobs),
            headline: summary(RowClass::DenseHalf.name(), &headline),
            all: summary("all predicted rows", &all),
            classes: RowClass::ALL.into_iter().filter_map(class).collect(),
            by: args.by,
            groups: summaries(grouped, key),
            left_out: published.left_out,
            with_scalars: args.framework_scalars,
            rows,
        }
    }

    /// What the first figures are of: the headline's rows, or all of a file without any.
    fn first(&self) -> Option<&ErrorSummary> {
        self.headline.as_ref().or(self.all.as_ref())
    }
}

fn json(found: &Validation) -> serde_json::Value {
    let first = found.first();
    serde_json::json!({
        "median_absolute_relative_error": first.map(|one| one.median_absolute_relative_error),
        "p90_absolute_relative_error": first.map(|one| one.p90_absolute_relative_error),
        "errors_are_of": first.map(|one| &one.group),
        "rows": first.map_or(0, |one| one.rows),
        "framework_scalars": found.with_scalars,
        "all_predicted_rows": found.all,
        "noise_floor": found.floors,
        "by_class": found.classes.iter().map(|(_, one)| one).collect::<Vec<_>>(),
        "grouped_by": name_of(found.by),
        "groups": found.groups,
        "predictions": found.rows,
        "left_out": found.left_out,
    })
}

fn page(found: &Validation) -> String {
    let mut page = String::new();
    let mut line = |text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "{text}");
    };
    line("Predicted beside measured, model TFLOP/s per accelerator (causal)".to_owned());
    line(format!(
        "{:<16}{:<24}{:<20}{:>8}{:>11}{:>11}{:>9}",
        "row", "model", "accelerator", "count", "measured", "predicted", "error"
    ));
    for row in &found.rows {
        line(prediction(row));
    }
    line(String::new());
    line("Noise floor: fastest over slowest of runs with equal inputs".to_owned());
    for floor in &found.floors {
        line(format!(
            "  {:<34}{:>4} groups of {:>3} rows, {:.2} as a rule, at most {:.2}",
            floor.class.name(),
            floor.groups,
            floor.rows,
            floor.median_ratio,
            floor.largest_ratio
        ));
    }
    line(String::new());
    line(match found.with_scalars {
        true => "Absolute relative errors, with the efficiency of each framework".to_owned(),
        false => "Absolute relative errors".to_owned(),
    });
    line(heading("kind of rows"));
    for (_, errors) in &found.classes {
        line(distribution(errors));
    }
    if !found.groups.is_empty() {
        let of = found.first().map_or("", |one| one.group.as_str());
        line(String::new());
        line(format!("By {}: {of}", name_of(found.by)));
        line(heading(name_of(found.by)));
        for errors in &found.groups {
            line(distribution(errors));
        }
    }
    for text in left_out(&found.left_out) {
        line(text);
    }
    line(String::new());
    line(conclusion(found));
    page
}

fn prediction(row: &PublishedComparison) -> String {
    format!(
        "{:<16}{:<24}{:<20}{:>8}{:>11.1}{:>11.1}{:>8.1} %",
        row.row_id,
        cut(&row.model, 23),
        cut(&row.accelerator, 19),
        row.accelerators,
        row.measured_tflop_per_s,
        row.predicted_tflop_per_s,
        100.0 * row.relative_error
    )
}

fn heading(name: &str) -> String {
    format!(
        "  {name:<34}{:>6}{:>9}{:>10}{:>10}{:>10}",
        "rows", "sources", "median", "90th", "bias"
    )
}

fn distribution(errors: &ErrorSummary) -> String {
    format!(
        "  {:<34}{:>6}{:>9}{:>8.1} %{:>8.1} %{:>+8.1} %",
        cut(&errors.group, 33),
        errors.rows,
        errors.sources,
        100.0 * errors.median_absolute_relative_error,
        100.0 * errors.p90_absolute_relative_error,
        100.0 * errors.median_relative_error
    )
}

/// Rows that were left out, together where they have the same reason.
fn left_out(rows: &[LeftOut]) -> Vec<String> {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows {
        reasons.entry(&row.reason).or_default().push(&row.row_id);
    }
    let mut lines = Vec::new();
    if !rows.is_empty() {
        lines.push(String::new());
        lines.push(format!("Left out: {} rows", rows.len()));
    }
    for (reason, ids) in reasons {
        lines.push(format!("  {reason}: {}", ids.join(" ")));
    }
    lines
}

fn conclusion(found: &Validation) -> String {
    let Some(first) = found.first() else {
        return "No row can be predicted.".to_owned();
    };
    format!(
        "{}: half of the errors are below {:.1} %, nine in ten below {:.1} %; {} rows of {} \
         sources that weigh the same.",
        first.group,
        100.0 * first.median_absolute_relative_error,
        100.0 * first.p90_absolute_relative_error,
        first.rows,
        first.sources
    )
}

const fn name_of(by: GroupBy) -> &'static str {
    match by {
        GroupBy::Source => "source",
        GroupBy::Model => "model",
        GroupBy::Accelerator => "accelerator",
        GroupBy::Scale => "scale",
        GroupBy::Framework => "framework",
    }
}

/// A name that fits its column.
fn cut(name: &str, width: usize) -> String {
    match name.chars().count() > width {
        true => name.chars().take(width - 1).chain(['~']).collect(),
        false => name.to_owned(),
    }
}
