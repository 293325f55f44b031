//! Plans against their rehearsals, over random mixes of emulated classes.
//!
//! Each mix is run with equal shares, once or more, planned by what that cost, and then run both
//! ways in pairs, since the speed of a shared machine drifts: at the same time on the virtual
//! clock, in turns of a few steps by wall clock; over and over where several rounds are asked for.
//! What is predicted of a pair by what its own equal shares cost is printed beside the plan.
//!
//! `rehearse --help` shows what can be asked for.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use laggard_benches::models::layered;
use laggard_benches::rehearse::{Campaign, Median, Mix, Outcome, Round, rehearse};
use laggard_record::TimeBasis;
use laggard_stats::{Rng, median, quantile};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// How far off a predicted gain may be.
const POINTS: f64 = 0.05;
const LAYERS: u32 = 6;
const OUTPUTS: u32 = 768;
const HEADER: &str = "mix,round,basis,ranks,rates,each,option,layout,shares,planned_gain,\
                      predicted_gains,measured_gains,equal_step_ms,planned_step_ms";

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let model = layered(LAYERS, OUTPUTS)?;
    let mut csv = options.csv.as_ref().map(File::create).transpose()?;
    if let Some(file) = &mut csv {
        writeln!(file, "{HEADER}")?;
    }
    let processors = std::thread::available_parallelism()?.get() as u32;
    let (mut points, mut by_pairs) = (Vec::new(), Vec::new());
    let (mut worse, mut surely_off) = (0, 0);
    for number in options.from..options.from + options.mixes {
        let mut rng = Rng::for_stream(options.seed, u64::from(number));
        let (basis, mix) = match options.basis {
            Basis::Wall => (TimeBasis::Wall, Mix::of_processors(processors, &mut rng)),
            Basis::Virtual => (TimeBasis::Virtual, Mix::beyond(processors + 1, &mut rng)),
        };
        let folder = tempfile::tempdir().context("no directory for records")?;
        let campaign = Campaign {
            basis,
            steps: options.steps,
            rounds: options.rounds,
            calibrations: options.calibrations,
            pairs: options.pairs,
        };
        let outcome = rehearse((&mix, &model), campaign, &mut rng, folder.path())
            .with_context(|| format!("mix {number}: {mix:?}"))?;
        tell((number, basis), &mix, &outcome)?;
        let off = outcome.off()?;
        points.push(100.0 * off.value.abs());
        by_pairs.push(100.0 * outcome.off_by_pairs()?.value.abs());
        worse += u32::from(outcome.gain()?.value < -outcome.noise());
        surely_off += u32::from(0.0_f64.clamp(off.low, off.high).abs() > POINTS);
        if let Some(file) = &mut csv {
            for (at, round) in outcome.rounds.iter().enumerate() {
                writeln!(file, "{}", line((number, at, basis), &mix, round)?)?;
            }
        }
    }
    let within = |points: &[f64]| points.iter().filter(|off| **off <= 100.0 * POINTS).count();
    let largest = quantile(&points, 1.0)?;
    println!(
        "{} mixes: gain planned to {:.1} points in the median, {largest:.1} at most; {} within 5 \
         points, {surely_off} off by more than pairs leave in doubt; at the speeds of the pairs, \
         to {:.1} and {:.1}, {} within 5; {worse} slower than equal shares beyond what runs of \
         these lie apart",
        points.len(),
        median(&points)?,
        within(&points),
        median(&by_pairs)?,
        quantile(&by_pairs, 1.0)?,
        within(&by_pairs)
    );
    let holds = options
        .require_points
        .is_none_or(|most| largest <= most && worse == 0);
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn tell((number, basis): (u32, TimeBasis), mix: &Mix, outcome: &Outcome) -> Result<()> {
    let rates: Vec<String> = mix.rates.iter().map(|rate| format!("{rate:.2}")).collect();
    let percent = |share: f64| format!("{:+.1}", 100.0 * share);
    let with_interval = |of: Median| {
        let [value, low, high] = [of.value, of.low, of.high].map(percent);
        format!("{value} ({low} to {high})")
    };
    let planned: Vec<f64> = outcome.rounds.iter().map(|it| it.planned).collect();
    let mut names = BTreeSet::new();
    for round in &outcome.rounds {
        names.insert(round.plan.option(None)?.name.clone());
    }
    let names: Vec<String> = names.into_iter().collect();
    println!(
        "{number:>3} {basis:?}: ranks {:?} at {}, {} each: {}: planned {} %, measured {} %, off by \
         {} points, by {} at the speeds of the pairs; runs with equal shares {:.1} % apart",
        mix.ranks,
        rates.join(" "),
        mix.each,
        names.join(" or "),
        percent(median(&planned)?),
        with_interval(outcome.gain()?),
        with_interval(outcome.off()?),
        with_interval(outcome.off_by_pairs()?),
        100.0 * outcome.noise()
    );
    Ok(())
}

fn line((number, at, basis): (u32, usize, TimeBasis), mix: &Mix, round: &Round) -> Result<String> {
    let list = |values: &[f64], scale: f64| {
        let values: Vec<String> = values
            .iter()
            .map(|it| format!("{:.5}", it * scale))
            .collect();
        values.join(" ")
    };
    let chosen = round.plan.option(None)?;
    let layouts: Vec<String> = chosen
        .jobs
        .iter()
        .map(|it| it.layout().to_string())
        .collect();
    let shares = chosen.jobs.iter().map(|job| {
        let layout = job.layout();
        format!("{:?} {:?}", layout.micro_batches, layout.stage_layers)
    });
    let planned: Vec<f64> = round.planned_step_s.concat();
    Ok(format!(
        "{number},{at},{basis:?},\"{:?}\",{},{},{},\"{}\",\"{}\",{:.5},{},{},{},{}",
        mix.ranks,
        list(&mix.rates, 1.0),
        mix.each,
        chosen.name.replace(',', ";"),
        layouts.join("; "),
        shares.collect::<Vec<_>>().join("; "),
        round.planned,
        list(&round.predicted, 1.0),
        list(&round.measured, 1.0),
        list(&round.equal_step_s, 1e3),
        list(&planned, 1e3)
    ))
}

/// What the command line asks for.
#[derive(Parser)]
struct Options {
    /// By which clock: wall with a rank on each processor, virtual with more ranks than that.
    #[arg(long, value_enum)]
    basis: Basis,
    #[arg(long, value_name = "N", default_value_t = 20)]
    mixes: u32,
    /// The first of them: their numbers say what they are.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u32,
    /// Plans of each mix, each rehearsed as soon as it is made.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
    /// Times that what a plan is made from is measured.
    #[arg(long, value_name = "N", default_value_t = 1)]
    calibrations: u32,
    /// Runs of each plan, each beside one of equal shares.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pairs: u32,
    /// Steps of each run.
    #[arg(long, value_name = "N", default_value_t = 60)]
    steps: u32,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where each mix goes.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Fails if a gain is further off than so many points, or a plan is slower than equal shares by
    /// more than runs of these lay apart.
    #[arg(long, value_name = "N")]
    require_points: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Basis {
    Wall,
    Virtual,
}
