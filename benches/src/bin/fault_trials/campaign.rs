//! All trials, kind by kind in turns, and what came of them.

use crate::bed::Unavailable;
use crate::trial::{Kind, Outcome, Plan, Setup};
use anyhow::{Result, ensure};
use clap::Parser;
use laggard_stats::{Rng, median, wilson_interval};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Standard normal deviations of a 95 % interval.
const Z: f64 = 1.959_963_984_540_054;
/// What `scripts/testbed.sh` exits with where it can make no bed, passed on.
const SKIPPED: u8 = 77;
/// Longest time between the manifest and the fault: `laggard run` flushes every 5 s, so that faults
/// come before the first flush, between two, and after.
const WINDOW: Duration = Duration::from_secs(12);

/// What the command line asks for.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    setup: Setup,
    /// Trials of each kind.
    #[arg(long, value_name = "N", default_value_t = 5)]
    trials: u32,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The one kind to try.
    #[arg(long, value_name = "KIND", value_parser = Kind::from_name)]
    only: Option<Kind>,
    /// Where each trial goes.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

impl Options {
    /// The command line, if such trials can be made.
    fn of_command_line() -> Result<Self> {
        let mut options = Self::parse();
        let setup = &mut options.setup;
        setup.laggard = std::path::absolute(&setup.laggard)?;
        let program = setup.laggard.display();
        ensure!(
            setup.laggard.is_file(),
            "there is no {program}\nhint: build it, or give --laggard FILE"
        );
        ensure!(
            setup.shape.ranks() > 1,
            "one rank has no survivors\nhint: give --hosts more"
        );
        Ok(options)
    }
}

/// Does as the command line asks.
pub(crate) fn main() -> Result<ExitCode> {
    let options = Options::of_command_line()?;
    match run(&options) {
        Err(error) if error.is::<Unavailable>() => {
            println!("{error}");
            Ok(ExitCode::from(SKIPPED))
        }
        other => other,
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    let mut csv = options.csv.as_ref().map(File::create).transpose()?;
    let mut write = |line: &str| -> Result<()> {
        let Some(file) = &mut csv else { return Ok(()) };
        writeln!(file, "{line}")?;
        Ok(file.flush()?)
    };
    write(Outcome::HEADER)?;
    let one_host = options.setup.shape.hosts == 1;
    let mut kinds = Kind::ALL.to_vec();
    kinds.retain(|kind| options.only.is_none_or(|only| only == *kind));
    kinds.retain(|kind| !(one_host && kind.needs_hosts()));
    ensure!(
        !kinds.is_empty() && options.trials > 0,
        "nothing to do on so few hosts"
    );
    let mut outcomes = Vec::new();
    for number in 0..options.trials {
        for &kind in &kinds {
            let plan = draw(kind, number, options);
            let outcome = Outcome::of(&options.setup, plan)?;
            println!("{}", outcome.line());
            write(&outcome.csv_row())?;
            outcomes.push(outcome);
        }
    }
    conclude(&kinds, &outcomes)
}

/// The trial of this number of a kind, whatever other kinds are tried beside it.
fn draw(kind: Kind, number: u32, options: &Options) -> Plan {
    let stream = u64::from(number) << 8 | kind as u64;
    let mut rng = Rng::for_stream(options.seed, stream);
    Plan {
        number,
        kind,
        rank: rng.below(options.setup.shape.ranks()),
        after: WINDOW.mul_f64(rng.uniform()),
    }
}

fn conclude(kinds: &[Kind], outcomes: &[Outcome]) -> Result<ExitCode> {
    println!();
    println!(
        "{:<16}{:>8}{:>10}{:>11}{:>11}{:>22}{:>22}",
        "fault",
        "right",
        "95 % CI",
        "on stderr",
        "in record",
        "named, s: median/max",
        "gone, s: median/max"
    );
    for &kind in kinds {
        let of_kind = || outcomes.iter().filter(|outcome| outcome.plan.kind == kind);
        let (right, all) = (
            of_kind().filter(|it| it.is_right()).count(),
            of_kind().count(),
        );
        let interval = wilson_interval(right as u64, all as u64, Z)?;
        let spread = |value: fn(&Outcome) -> Option<Duration>| -> Result<String> {
            let seconds = of_kind().filter_map(value).map(|it| it.as_secs_f64());
            let seconds: Vec<f64> = seconds.collect();
            let Some(most) = seconds.iter().copied().reduce(f64::max) else {
                return Ok("-".to_owned());
            };
            Ok(format!("{:.2} / {most:.2}", median(&seconds)?))
        };
        println!(
            "{:<16}{:>8}{:>10}{:>11}{:>11}{:>22}{:>22}",
            kind.name(),
            format!("{right}/{all}"),
            format!("{:.0}-{:.0}", interval.low * 100.0, interval.high * 100.0),
            of_kind().filter(|it| it.named_after.is_some()).count(),
            of_kind().filter(|it| it.recorded).count(),
            spread(|outcome| outcome.named_after)?,
            spread(|outcome| outcome.gone_after)?,
        );
    }
    let wrong = outcomes
        .iter()
        .filter(|outcome| !outcome.is_right())
        .count();
    println!("{} trials, {wrong} wrong", outcomes.len());
    Ok(ExitCode::from(u8::from(wrong > 0)))
}
