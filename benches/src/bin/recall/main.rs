//! How often the analysis names the right cause and the right culprit, on real runs with a fault
//! put in, and how often it leaves clean runs alone.
//!
//! Clean runs come first: the persistent excess that they show is the A/A noise, which no size of a
//! fault is judged without. Place, size and seed of every fault are drawn from `--seed`, kind by
//! kind, so that one kind alone gives the trials that it has in the whole campaign; kinds take
//! turns, so that a disturbance of the machine does not hit one kind alone.
//!
//! An injected run is right if a finding has the cause and the culprit (and, where a fault begins
//! in the middle, its onset), and no finding names anybody else. A clean run is right if nobody is
//! called guilty.
//!
//! Beside each run goes a clean twin, in turns of a few steps: what that shows is the machine's own
//! doing. Where it is too much, the truth is not known; such trials are called disturbed.
//!
//! Layouts come in groups that are counted apart and together. `recall --help` shows what can be
//! asked for.
#![expect(clippy::print_stdout, reason = "the table is the result")]

mod busy;
mod kind;
mod options;
mod trial;
mod world;

use anyhow::{Result, bail};
use clap::Parser as _;
use kind::{KINDS, Plan, Row};
use laggard_analyze::Level;
use laggard_specs::Tables;
use laggard_stats::{mad, median, quantile, wilson_interval};
use options::{Options, Require};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;
use trial::Outcome;
use world::{WORLDS, World};

/// Standard normal deviations of a 95 % interval.
const Z: f64 = 1.959_963_984_540_054;
/// Few trials refute a share where so few right come by chance less often: then it lies above a
/// 95 % interval. What the machine itself has disturbed refutes nothing.
const REFUTED_BELOW: f64 = 0.025;
/// The percentile of the noise that sizes are compared with.
const NOISE_QUANTILE: f64 = 0.95;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, cpu] = &arguments[..]
        && name == busy::ARGUMENT
    {
        busy::be_busy_on(cpu.parse()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse();
    if options.clean == 0 && options.trials == 0 {
        bail!("nothing to do\nhint: give --trials or --clean a positive number");
    }
    let tables = Tables::builtin()?;
    let mut campaign = Campaign {
        tables: &tables,
        csv: options.csv.as_ref().map(File::create).transpose()?,
        noise: BTreeMap::new(),
        outcomes: Vec::new(),
    };
    campaign.write_line(Outcome::HEADER)?;
    for number in 0..options.clean {
        for group in &options.groups {
            campaign.add(Plan::clean(group, number, options.seed)?)?;
        }
    }
    campaign.measure_noise()?;
    for plan in plans(&options, &tables)? {
        campaign.add(plan)?;
    }
    println!();
    KINDS.iter().for_each(|row| campaign.print_kind(row));
    campaign.print_groups(&options.groups)?;
    campaign.conclude(options.require)
}

/// The trials to make, in turns of groups and kinds.
fn plans(options: &Options, tables: &Tables) -> Result<Vec<Plan>> {
    let mut plans = Vec::new();
    for number in 0..options.trials {
        for group in &options.groups {
            let rows = KINDS
                .iter()
                .filter(|row| options.wants(row) && row.is_possible());
            for row in rows {
                plans.extend(Plan::draw(row, group, (number, options.seed), tables)?);
            }
        }
    }
    let (all, most) = (
        plans.len(),
        options.at_most.unwrap_or(plans.len()).min(plans.len()),
    );
    let chosen: Vec<usize> = (0..most).map(|index| index * all / most).collect();
    let mut place = 0..all;
    plans.retain(|_| place.next().is_some_and(|place| chosen.contains(&place)));
    Ok(plans)
}

/// What clean runs of one world show.
#[derive(Debug, Clone, Copy)]
struct Noise {
    /// Robust spread of the persistent excess of ranks.
    spread: f64,
    /// 95th percentile of its absolute value.
    p95: f64,
    /// Median step, seconds.
    step_s: f64,
}

struct Campaign<'a> {
    tables: &'a Tables,
    csv: Option<File>,
    noise: BTreeMap<World, Noise>,
    outcomes: Vec<Outcome>,
}

impl Campaign<'_> {
    /// Runs one trial, writes its row and, if it is wrong, all about it.
    fn add(&mut self, plan: Plan) -> Result<()> {
        let outcome = Outcome::of(plan, self.tables)?;
        let noise = self.noise.get(&outcome.plan.world);
        let step_s = noise.map_or(outcome.analysis.step_time.median, |noise| noise.step_s);
        self.write_line(&outcome.csv_row(step_s))?;
        if !outcome.is_right() {
            print!("{}", outcome.detail());
        }
        self.outcomes.push(outcome);
        Ok(())
    }

    fn write_line(&mut self, line: &str) -> Result<()> {
        if let Some(file) = &mut self.csv {
            writeln!(file, "{line}")?;
            file.flush()?;
        }
        Ok(())
    }

    fn measure_noise(&mut self) -> Result<()> {
        println!("A/A noise of clean runs: lasting excess of ranks, losses of straggler levels");
        for world in WORLDS {
            let of_world = || self.outcomes.iter().filter(|it| it.plan.world == world);
            let ranks = of_world().flat_map(|outcome| &outcome.analysis.ranks);
            let excess: Vec<f64> = ranks.map(|rank| rank.excess).collect();
            if excess.is_empty() {
                continue;
            }
            let steps: Vec<f64> = of_world()
                .map(|outcome| outcome.analysis.step_time.median)
                .collect();
            let size: Vec<f64> = excess.iter().map(|excess| excess.abs()).collect();
            let noise = Noise {
                spread: mad(&excess)?,
                p95: quantile(&size, NOISE_QUANTILE)?,
                step_s: median(&steps)?,
            };
            println!(
                "  {} ({} runs, step {:.2} ms): spread {:.2} %, 95th percentile {:.2} %",
                world.name(),
                steps.len(),
                1e3 * noise.step_s,
                1e2 * noise.spread,
                1e2 * noise.p95
            );
            for (level, losses) in losses(of_world()) {
                let at = |p| quantile(&losses, p).map(|loss| 1e2 * loss);
                let (middle, high) = (at(0.5)?, at(NOISE_QUANTILE)?);
                println!(
                    "    {}: median {middle:.2} %, 95th {high:.2} %",
                    level.name()
                );
            }
            self.noise.insert(world, noise);
        }
        Ok(())
    }

    fn print_kind(&self, row: &Row) {
        let of_kind = || self.outcomes.iter().filter(|it| it.plan.kind == row.name);
        let (right, all) = count(of_kind());
        if all == 0 {
            return;
        }
        // How many times the noise the smallest effect was, by spread and by 95th percentile.
        let (mut over_spread, mut over_p95) = (f64::INFINITY, f64::INFINITY);
        for outcome in of_kind() {
            if let Some(noise) = self.noise.get(&outcome.plan.world) {
                let effect = outcome.effect(noise.step_s);
                over_spread = over_spread.min(effect / noise.spread);
                over_p95 = over_p95.min(effect / noise.p95);
            }
        }
        let disturbed = of_kind().filter(|it| it.is_disturbed() && !it.is_right());
        println!(
            "{:<16} {right:>3} of {all:>3}; smallest effect {over_spread:5.1} spreads, \
             {over_p95:5.1} 95th percentiles; disturbed misses {}",
            row.name,
            disturbed.count()
        );
    }

    /// Prints the counts of each group, clean runs apart.
    fn print_groups(&self, groups: &[&str]) -> Result<()> {
        for group in groups {
            let of_group = || {
                self.outcomes
                    .iter()
                    .filter(|it| it.plan.world.group == *group)
            };
            let is_clean = |it: &&Outcome| it.plan.expected.is_empty();
            let (right, all) = count(of_group().filter(|it| !is_clean(it)));
            let (silent, clean) = count(of_group().filter(is_clean));
            let interval = match all {
                0 => String::new(),
                _ => {
                    let interval = wilson_interval(right, all, Z)?;
                    let (low, high) = (1e2 * interval.low, 1e2 * interval.high);
                    format!(", 95 % interval {low:.1} to {high:.1} %")
                }
            };
            println!("{group:<16} {right:>3} of {all:>3}{interval}; clean {silent} of {clean}");
        }
        Ok(())
    }

    /// Prints the pooled counts, and fails if they are below what is required.
    fn conclude(&self, require: Require) -> Result<ExitCode> {
        let (clean, injected): (Vec<&Outcome>, Vec<&Outcome>) = self
            .outcomes
            .iter()
            .partition(|outcome| outcome.plan.expected.is_empty());
        let mut is_met = true;
        for (name, outcomes) in [("all injections", &injected), ("clean", &clean)] {
            let (right, all) = count(outcomes.iter().copied());
            if all == 0 {
                continue;
            }
            let interval = wilson_interval(right, all, Z)?;
            println!(
                "{name:<16} {right:>3} of {all:>3} = {:.1} %, 95 % interval {:.1} to {:.1} %",
                1e2 * right as f64 / all as f64,
                1e2 * interval.low,
                1e2 * interval.high
            );
            let judged = outcomes.iter().copied().filter(|it| !it.is_disturbed());
            let (right, all) = count(judged);
            println!(
                "{:<16} {right:>3} of {all:>3} without those DISTURBED by the machine",
                ""
            );
            if all == 0 {
                println!("{name}: UNDECIDED, as all trials were disturbed");
            }
            let lower = require.lower.filter(|_| name != "clean");
            let refutes = |required| chance_of_at_most(right, all, required) < REFUTED_BELOW;
            let is_refuted = require.upper.is_some_and(refutes);
            if is_refuted || lower.is_some_and(|required| interval.low < required) {
                println!("{name}: below what is required");
                is_met = false;
            }
        }
        let suspects = clean.iter().filter(|it| it.has_suspect() && it.is_right());
        println!(
            "clean runs that only suspect somebody: {}",
            suspects.count()
        );
        Ok(match is_met {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

/// The chance of at most so many successes in so many trials, each of which succeeds with this
/// probability.
fn chance_of_at_most(successes: u64, trials: u64, probability: f64) -> f64 {
    let odds = (1.0 - probability) / probability;
    // From all trials downwards: of each number of failures from that of one less.
    let mut chance = probability.powf(trials as f64);
    let mut at_most = 0.0;
    for failures in 0..=trials {
        if trials - failures <= successes {
            at_most += chance;
        }
        chance *= odds * (trials - failures) as f64 / (failures + 1) as f64;
    }
    at_most
}

/// How many are right, of how many.
fn count<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> (u64, u64) {
    outcomes.fold((0, 0), |(right, all), outcome| {
        (right + u64::from(outcome.is_right()), all + 1)
    })
}

/// Losses of the levels that stragglers cause, over runs.
fn losses<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> BTreeMap<Level, Vec<f64>> {
    let mut losses: BTreeMap<Level, Vec<f64>> = BTreeMap::new();
    for term in outcomes.flat_map(|outcome| &outcome.analysis.waterfall) {
        if term.level.is_straggler() {
            losses.entry(term.level).or_default().push(term.share.value);
        }
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::chance_of_at_most;

    #[test]
    fn chances_are_those_of_the_binomial_law() {
        let close = |got: f64, want: f64| assert!((got - want).abs() < 1e-9, "{got} {want}");
        close(chance_of_at_most(0, 0, 0.9), 1.0);
        close(chance_of_at_most(0, 1, 0.9), 0.1);
        close(chance_of_at_most(1, 2, 0.9), 0.19);
        close(chance_of_at_most(3, 3, 0.9), 1.0);
        // 0.1^6 + 6 * 0.9 * 0.1^5 + 15 * 0.81 * 0.1^4 + 20 * 0.729 * 0.1^3
        close(chance_of_at_most(3, 6, 0.9), 0.01585);
    }
}
