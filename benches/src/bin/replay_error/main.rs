//! How far the replay of real steps is from the steps: records of random layouts are made and
//! looked at in two ways.
//!
//! - The unexplained rest of the analysis's waterfall, as a share of the step. Its replay knows how
//!   long each operation waited though it was ready, so that the rest is near 0 by construction; on
//!   the virtual clock, where the replay alone says how long a step is, it is 0.
//! - Where each rank has a processor of its own, replays of own times against the clock: with the
//!   delay that an operation usually has in other steps between being ready and its start, and
//!   without any. The latter lacks what ranks do beside the schedule, such as waking a thread.
//!
//! `replay_error --help` shows what can be asked for. Runs that other work of the machine has
//! disturbed, which telemetry tells, are left out of the replays of own times: what delayed an
//! operation in one step did not do so in others.
#![expect(clippy::print_stdout, reason = "the table is the result")]

mod draw;
mod replayed;

use anyhow::{Context, Result};
use clap::{Parser, value_parser};
use draw::Draw;
use laggard_analyze::{Analysis, Estimate, Level, analyze};
use laggard_measure::{Hooks, Settings, run};
use laggard_record::Record;
use laggard_specs::Tables;
use laggard_stats::{BlockBootstrap, Ranked, Resampling, median, percentile_interval, quantile};
use laggard_types::CaveatCode;
use replayed::Errors;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

const HEADER: &str = "number,layout,model,ranks,basis,seed,steps_used,step_ms,rest,rest_low,\
                      rest_high,bubble,exposed_communication,usual_delays,no_delays";

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let tables = Tables::builtin()?;
    let mut csv = options.csv.as_ref().map(File::create).transpose()?;
    let mut write = |line: &str| match &mut csv {
        Some(file) => writeln!(file, "{line}").and_then(|()| file.flush()),
        None => Ok(()),
    };
    write(HEADER)?;
    let (mut rests, mut usual, mut none) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..options.records {
        let draw = Draw::new(number, (options.seed, options.most_ranks), &tables)?;
        let made = Made::of(&draw, options.steps)
            .with_context(|| format!("record {number}, --layout {}", draw.text()))?;
        let rest = made.share(Level::Rest)?;
        println!(
            "{number:>3} rest {:>+6.2} %, {}{:7.2} ms, {:>2} ranks, {}: {}",
            1e2 * rest,
            made.words(),
            1e3 * made.analysis.step_time.median,
            made.analysis.subject.ranks,
            made.analysis.subject.time_basis,
            draw.text()
        );
        write(&made.row(number, &draw)?)?;
        rests.push(rest.abs());
        if made.is_disturbed() && made.errors.is_some() {
            println!(
                "    DISTURBED by other work of the machine: delays differ, and are not judged"
            );
            continue;
        }
        usual.extend(made.errors.map(|errors| errors.usual_delays.abs()));
        none.extend(made.errors.map(|errors| errors.no_delays.abs()));
    }
    let mut is_met = conclude("rest", &rests, options.require_median)?;
    if usual.is_empty() {
        println!("usual delays: UNDECIDED, as no undisturbed run had a processor for each rank");
    } else {
        is_met &= conclude("usual delays", &usual, options.require_median)?;
        conclude("no delays", &none, None)?;
    }
    Ok(match is_met {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What came of one run.
struct Made {
    analysis: Analysis,
    errors: Option<Errors>,
}

impl Made {
    /// Makes a record and looks at it.
    fn of(draw: &Draw, steps: u32) -> Result<Self> {
        let dir = tempfile::tempdir().context("no directory for the record")?;
        let ranks = draw.layout.world_size() as u32;
        let mut settings = Settings::new(draw.model.clone(), ranks, dir.path().join("record"));
        settings.layout = draw.layout.clone();
        settings.steps = steps;
        settings.seed = draw.seed;
        let hooks = Hooks {
            stop: &|| None,
            flush: &|| false,
            progress: &|_| (),
        };
        let made = run(&settings, &hooks).context("the run")?;
        let record = Record::open(&made.record)?;
        Ok(Self {
            errors: replayed::errors(&record).context("the replay")?,
            analysis: analyze(&record, &laggard_analyze::Options::default())
                .context("the analysis")?,
        })
    }

    /// Whether telemetry saw other processes on the processors.
    fn is_disturbed(&self) -> bool {
        let mut caveats = self.analysis.caveats.iter();
        caveats.any(|caveat| caveat.code == CaveatCode::OutsideContention)
    }

    fn words(&self) -> String {
        self.errors.map_or_else(String::new, |it| {
            let (usual, none) = (1e2 * it.usual_delays, 1e2 * it.no_delays);
            format!("usual delays {usual:+.2} %, no delays {none:+.2} %, ")
        })
    }

    fn term(&self, level: Level) -> Result<Estimate> {
        let mut terms = self.analysis.waterfall.iter();
        let term = terms.find(|term| term.level == level);
        let missing = || format!("no {} in the waterfall", level.name());
        Ok(term.with_context(missing)?.share)
    }

    fn share(&self, level: Level) -> Result<f64> {
        Ok(self.term(level)?.value)
    }

    fn row(&self, number: u32, draw: &Draw) -> Result<String> {
        let rest = self.term(Level::Rest)?;
        let subject = &self.analysis.subject;
        Ok(format!(
            "{number},\"{}\",{},{},{},{},{},{:.4},{:.6},{:.6},{:.6},{:.6},{:.6},{}",
            draw.text(),
            draw.model.id,
            subject.ranks,
            subject.time_basis,
            draw.seed,
            subject.steps_used,
            1e3 * self.analysis.step_time.median,
            rest.value,
            rest.low,
            rest.high,
            self.share(Level::Bubble)?,
            self.share(Level::ExposedCommunication)?,
            match self.errors {
                Some(it) => format!("{:.6},{:.6}", it.usual_delays, it.no_delays),
                None => ",".to_owned(),
            },
        ))
    }
}

/// Prints the quantiles of absolute errors; whether their median is as required.
fn conclude(name: &str, errors: &[f64], required: Option<f64>) -> Result<bool> {
    let middle = median(errors)?;
    let resampling = Resampling {
        block_length: 1,
        replicates: 2000,
        seed: 1,
    };
    let sorted = Ranked::new(errors)?;
    let bootstrap = BlockBootstrap::new(errors.len(), resampling)?;
    let medians = bootstrap.statistics(|counts| {
        let resampled = sorted.resampled_quantile(counts, 0.5);
        resampled.unwrap_or(middle)
    });
    let interval = percentile_interval(&medians, 0.95)?;
    println!(
        "absolute error of {} records, {name}: median {:.2} % [{:.2}, {:.2}], 5th percentile \
         {:.2} %, 95th {:.2} %, largest {:.2} %",
        errors.len(),
        1e2 * middle,
        1e2 * interval.low,
        1e2 * interval.high,
        1e2 * quantile(errors, 0.05)?,
        1e2 * quantile(errors, 0.95)?,
        1e2 * quantile(errors, 1.0)?,
    );
    let is_met = required.is_none_or(|required| middle < required);
    if !is_met {
        println!("{name}: the median is not below what is required");
    }
    Ok(is_met)
}

/// What the command line asks for.
#[derive(Parser)]
struct Options {
    /// Random layouts that are run.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = value_parser!(u32).range(1..)
    )]
    records: u32,
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = value_parser!(u32).range(2..)
    )]
    most_ranks: u32,
    /// Steps of each run.
    #[arg(long, value_name = "N", default_value_t = 40)]
    steps: u32,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where each record's errors go.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Fails if a median of absolute errors is not below this share.
    #[arg(long, value_name = "SHARE")]
    require_median: Option<f64>,
}
