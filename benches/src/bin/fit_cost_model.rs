//! Fits the constants of the cost model to the published rows that laggard ships, prints their
//! values, and the errors of predictions: with these constants, with the efficiency of each
//! framework, and of each source with constants fitted without it. Deterministic.
//!
//! `fit_cost_model [--rows]`: values go to stdout, errors to stderr; `--rows` adds every row with
//! its causes.

use anyhow::Result;
use laggard_simulate::{
    Constant, ConstantEntry, Constants, Frameworks, GroupKey, PublishedComparison, PublishedJob,
    RowClass, noise_floor, published_jobs, summaries, summary,
};
use laggard_specs::{Tables, published_training};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// The steps that other cost models are compared on.
const MEGATRON_STEPS: &str =
    include_str!("../../../crates/laggard-simulate/data/megatron_steps.csv");
/// Weight of what was known of the constants before, per squared standard deviation.
const PRIOR_WEIGHT: f64 = 5e-5;
/// Errors below this count as if they were squared: the noise of equal runs.
const NOISE: f64 = 0.05;
/// Weight of squared errors beside absolute ones.
const SQUARED: f64 = 0.5;
/// Rounds over all constants.
const ROUNDS: usize = 120;
/// Steps in the logarithm of a constant: the first, the smallest, and how they grow and shrink.
const FIRST_STEP: f64 = 0.1;
const LAST_STEP: f64 = 1e-3;
const GROW: f64 = 1.6;
const SHRINK: f64 = 0.5;
/// A round that gains less is the last.
const LEAST_GAIN: f64 = 1e-7;

/// Constants that only rows outside of the headline tell something of.
const OF_OTHER_ROWS: [Constant; 6] = [
    Constant::Fp8Share,
    Constant::Fp4Share,
    Constant::ProductShareBlackwell,
    Constant::ContextExposed,
    Constant::ExpertExposed,
    Constant::RoutingBytes,
];

fn main() -> Result<()> {
    let with_rows = std::env::args().any(|argument| argument == "--rows");
    let entries = Constants::builtin_entries()?;
    let tables = Tables::builtin()?;
    let frameworks = Frameworks::builtin()?;
    let published = published_jobs(published_training(), &tables, &frameworks)?;
    let floors = noise_floor(&published.jobs);
    let (headline, others): (Vec<_>, Vec<_>) = published
        .jobs
        .into_iter()
        .partition(|job| job.class == RowClass::DenseHalf);
    let fit = fit_all(&entries, &headline, &others)?;

    let mut out = std::io::stdout().lock();
    for entry in &entries {
        writeln!(out, "{:?} = {:.4e}", entry.name, fit.get(entry.name))?;
    }
    let mut talk = std::io::stderr().lock();
    for floor in floors {
        let name = floor.class.name();
        let (median, largest) = (floor.median_ratio, floor.largest_ratio);
        let groups = floor.groups;
        writeln!(
            talk,
            "{name}: {groups} groups of equal inputs, fastest over slowest {median:.2} as a rule, \
             at most {largest:.2}"
        )?;
    }
    let all: Vec<&PublishedJob> = headline.iter().collect();
    let rows = compared(&all, &fit);
    print(&mut talk, "all constants fitted on all sources", &rows)?;
    let steps = published_jobs(MEGATRON_STEPS, &tables, &frameworks)?.jobs;
    print_steps(
        &mut talk,
        &compared(&steps.iter().collect::<Vec<_>>(), &fit),
    )?;
    let efficiency = efficiencies(&rows);
    for (framework, value) in &efficiency {
        writeln!(out, "efficiency {framework} = {value:.3}")?;
    }
    let scaled: Vec<_> = rows.iter().map(|row| scale(row, &efficiency)).collect();
    print(&mut talk, "with the efficiency of each framework", &scaled)?;
    for class in RowClass::ALL {
        let of_class: Vec<_> = others.iter().filter(|job| job.class == class).collect();
        print(&mut talk, class.name(), &compared(&of_class, &fit))?;
    }
    if with_rows {
        for job in headline.iter().chain(&others) {
            print_row(&mut talk, job, &fit)?;
        }
    }
    let rows = leave_one_out(&entries, &all)?;
    print(&mut talk, "each source predicted without it", &rows)
}

/// All constants: those of the headline's rows first, then the rest with the first held.
fn fit_all(
    entries: &[ConstantEntry],
    headline: &[PublishedJob],
    others: &[PublishedJob],
) -> Result<Constants> {
    let special = others.iter().filter(|job| {
        let tells = matches!(job.class, RowClass::Experts | RowClass::LowPrecision);
        tells && !job.layout_assumed
    });
    let constants = fit(entries, &Rows::sources_equal(headline.iter().collect()))?;
    let special = Rows::rows_equal(special.collect());
    let free = |constant: Constant| OF_OTHER_ROWS.contains(&constant);
    Ok(refine(constants, entries, &special, free))
}

/// Every source, predicted with constants that were fitted on all others, from their priors.
fn leave_one_out(
    entries: &[ConstantEntry],
    all: &[&PublishedJob],
) -> Result<Vec<PublishedComparison>> {
    let sources: BTreeSet<&str> = all.iter().map(|job| job.source.as_str()).collect();
    let mut rows = Vec::new();
    for source in sources {
        let (test, training): (Vec<_>, Vec<_>) = all.iter().partition(|job| job.source == source);
        let constants = fit(entries, &Rows::sources_equal(training))?;
        rows.extend(compared(&test, &constants));
    }
    Ok(rows)
}

fn compared(jobs: &[&PublishedJob], constants: &Constants) -> Vec<PublishedComparison> {
    jobs.iter()
        .map(|job| job.compare(constants, false))
        .collect()
}

/// Rows with their weights, which sum to one.
struct Rows<'a> {
    jobs: Vec<&'a PublishedJob>,
    weights: Vec<f64>,
}

impl<'a> Rows<'a> {
    fn sources_equal(jobs: Vec<&'a PublishedJob>) -> Self {
        let mut rows: BTreeMap<&str, f64> = BTreeMap::new();
        for job in &jobs {
            *rows.entry(&job.source).or_default() += 1.0;
        }
        let sources = rows.len() as f64;
        let weight = |job: &&PublishedJob| 1.0 / (rows[job.source.as_str()] * sources);
        let weights = jobs.iter().map(weight).collect();
        Self { jobs, weights }
    }

    fn rows_equal(jobs: Vec<&'a PublishedJob>) -> Self {
        let weights = vec![1.0 / jobs.len() as f64; jobs.len()];
        Self { jobs, weights }
    }

    /// Weighted errors of the logarithm of throughput, nearly absolute, and the priors.
    fn loss(&self, constants: &Constants, entries: &[ConstantEntry]) -> f64 {
        let error = |job: &PublishedJob| {
            let ratio = job.predict(constants).tokens_per_s / job.measured_tokens_per_s;
            let error = ratio.ln();
            error.hypot(NOISE) + SQUARED * error * error
        };
        let errors = self.jobs.iter().zip(&self.weights);
        let prior = |entry: &ConstantEntry| {
            let deviation = (constants.get(entry.name) / entry.prior).ln() / entry.spread;
            PRIOR_WEIGHT * deviation * deviation
        };
        errors.map(|(job, weight)| weight * error(job)).sum::<f64>()
            + entries.iter().map(prior).sum::<f64>()
    }
}

/// The constants of the headline's rows, from the priors.
fn fit(entries: &[ConstantEntry], rows: &Rows<'_>) -> Result<Constants> {
    let mut constants = Constants::from_entries(entries)?;
    for entry in entries {
        constants.set(entry.name, entry.prior);
    }
    let free = |constant: Constant| !OF_OTHER_ROWS.contains(&constant);
    Ok(refine(constants, entries, rows, free))
}

/// Coordinate descent in the logarithms of the free constants.
fn refine(
    mut constants: Constants,
    entries: &[ConstantEntry],
    rows: &Rows<'_>,
    free: impl Fn(Constant) -> bool,
) -> Constants {
    let free: Vec<&ConstantEntry> = entries.iter().filter(|entry| free(entry.name)).collect();
    let mut best = rows.loss(&constants, entries);
    let mut steps = vec![FIRST_STEP; free.len()];
    for _ in 0..ROUNDS {
        let before = best;
        for (entry, step) in free.iter().zip(&mut steps) {
            let value = constants.get(entry.name);
            let mut improved = false;
            for sign in [1.0, -1.0] {
                let tried = value * (sign * *step).exp();
                constants.set(entry.name, tried.min(entry.most.unwrap_or(f64::MAX)));
                let loss = rows.loss(&constants, entries);
                if loss < best {
                    best = loss;
                    improved = true;
                    break;
                }
                constants.set(entry.name, value);
            }
            *step = (*step * if improved { GROW } else { SHRINK }).max(LAST_STEP);
        }
        if before - best < LEAST_GAIN {
            break;
        }
    }
    constants
}

/// Median of measured over predicted throughput of each framework's rows, sources equal.
fn efficiencies(rows: &[PublishedComparison]) -> BTreeMap<String, f64> {
    let rows: Vec<&PublishedComparison> = rows.iter().collect();
    summaries(&rows, GroupKey::Framework)
        .into_iter()
        .map(|group| (group.group, 1.0 / (1.0 + group.median_relative_error)))
        .collect()
}

fn scale(row: &PublishedComparison, efficiency: &BTreeMap<String, f64>) -> PublishedComparison {
    let factor = efficiency.get(&row.framework).copied().unwrap_or(1.0);
    PublishedComparison {
        relative_error: (1.0 + row.relative_error) * factor - 1.0,
        ..row.clone()
    }
}

fn print(out: &mut impl Write, title: &str, rows: &[PublishedComparison]) -> Result<()> {
    let rows: Vec<&PublishedComparison> = rows.iter().collect();
    let Some(total) = summary("ALL", &rows) else {
        return Ok(());
    };
    writeln!(out, "\n{title}")?;
    let groups = summaries(&rows, GroupKey::Source);
    for group in groups.iter().chain([&total]) {
        writeln!(
            out,
            "  {:12} {:4} rows  median {:5.1} %  90th {:5.1} %  bias {:+5.1} %",
            group.group,
            group.rows,
            100.0 * group.median_absolute_relative_error,
            100.0 * group.p90_absolute_relative_error,
            100.0 * group.median_relative_error,
        )?;
    }
    Ok(())
}

/// Errors of step times, as other cost models state them.
fn print_steps(out: &mut impl Write, steps: &[PublishedComparison]) -> Result<()> {
    writeln!(out, "\nMegatron's eight steps")?;
    let mut sum = 0.0;
    for row in steps {
        let error = 1.0 / (1.0 + row.relative_error) - 1.0;
        sum += error.abs();
        writeln!(out, "  {:15} {:+5.1} %", row.row_id, 100.0 * error)?;
    }
    let mean = 100.0 * sum / steps.len() as f64;
    writeln!(out, "  mean of absolute errors of their time {mean:.2} %")?;
    Ok(())
}

/// A row with the shares of its causes, in per cent.
fn print_row(out: &mut impl Write, job: &PublishedJob, constants: &Constants) -> Result<()> {
    let row = job.compare(constants, false);
    write!(
        out,
        "{:15} {:+6.1} % {:8.3} s {} |",
        row.row_id,
        100.0 * row.relative_error,
        row.step.total_s,
        row.layout
    )?;
    for (cause, seconds) in row.step.causes() {
        let share = 100.0 * seconds / row.step.total_s;
        if share >= 0.5 {
            write!(out, " {cause} {share:.0}")?;
        }
    }
    writeln!(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headline() -> (Vec<ConstantEntry>, Vec<PublishedJob>) {
        let tables = Tables::builtin().expect("tables");
        let frameworks = Frameworks::builtin().expect("frameworks");
        let published = published_jobs(published_training(), &tables, &frameworks).expect("rows");
        let mut jobs = published.jobs;
        jobs.retain(|job| job.class == RowClass::DenseHalf);
        (Constants::builtin_entries().expect("entries"), jobs)
    }

    /// What the model promises of rows that it has never seen.
    #[test]
    fn sources_are_predicted_without_themselves() {
        let (entries, jobs) = headline();
        let rows = leave_one_out(&entries, &jobs.iter().collect::<Vec<_>>()).expect("a fit");
        let found = summary("all", &rows.iter().collect::<Vec<_>>()).expect("rows");
        assert!(found.median_absolute_relative_error <= 0.1, "{found:?}");
        assert!(found.p90_absolute_relative_error <= 0.25, "{found:?}");
    }

    #[test]
    fn shipped_constants_are_as_good_as_a_new_fit() {
        let (entries, jobs) = headline();
        let rows = Rows::sources_equal(jobs.iter().collect());
        let anew = rows.loss(&fit(&entries, &rows).expect("a fit"), &entries);
        let shipped = rows.loss(&Constants::builtin().expect("constants"), &entries);
        assert!(shipped <= 1.05 * anew, "{shipped} against {anew}");
    }
}
