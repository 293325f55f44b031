//! Speed and peak memory of planning.
//!
//! `cargo run --release -p laggard-benches --bin plan_speed -- [RUNS]` prints one line for each
//! run: layouts of GPT-3 175B on 1,024 A100 judged by the second on one core (those refused for
//! lack of memory and those whose step is predicted together, and the latter alone), and every
//! option for 220,000 accelerators in five classes, with the ranking and what would change it. The
//! goals: 200,000 layouts a second; all options in 1 s and 500 MiB. Each measurement is a process
//! of its own on one thread.
#![expect(
    clippy::print_stdout,
    reason = "the figures are the result of a benchmark"
)]

use anyhow::{Context, Result, bail};
use laggard_plan::money::Prices;
use laggard_plan::{
    Demand, Known, Objective, Problem, Space, Terms, Training, fastest_layouts, flips, options,
    rank,
};
use laggard_simulate::{
    Constants, FabricOptions, Framework, Frameworks, Machine, Precision, Surroundings,
};
use laggard_specs::{Cluster, Tables};
use laggard_types::Seconds;
use nix::sys::resource::{UsageWho, getrusage};
use std::time::Instant;

/// What is measured.
const MEASUREMENTS: [&str; 3] = ["layouts", "site-dense", "site-experts"];
/// Searches of one measurement, so that it takes about a second.
const SEARCHES: u32 = 200;
/// Accelerators and hosts of the five classes.
const CLASSES: [(&str, u64, u64); 5] = [
    ("a100-sxm4-80gb", 60_000, 8),
    ("h100-sxm5-80gb", 80_000, 8),
    ("h200-sxm-141gb", 40_000, 8),
    ("b200-sxm", 20_000, 8),
    ("gb200", 20_000, 4),
];

fn main() -> Result<()> {
    let argument = std::env::args().nth(1);
    if let Some(name) = argument
        .as_deref()
        .and_then(|it| it.strip_prefix("measure="))
    {
        return measure(name);
    }
    let runs: u32 = match argument {
        Some(text) => text.parse().context("RUNS is not a number")?,
        None => 7,
    };
    println!("measurement,run,seconds,judged,predicted,judged_per_second,peak_rss_mib");
    for name in MEASUREMENTS {
        for run in 0..runs {
            let output = std::process::Command::new(std::env::current_exe()?)
                .arg(format!("measure={name}"))
                .output()?;
            if !output.status.success() {
                bail!("{}", String::from_utf8_lossy(&output.stderr));
            }
            let figures = String::from_utf8(output.stdout)?;
            println!("{name},{run},{}", figures.trim());
        }
    }
    Ok(())
}

fn measure(name: &str) -> Result<()> {
    let tables = Tables::builtin()?;
    let constants = Constants::builtin()?;
    let frameworks = Frameworks::builtin()?;
    let framework = frameworks.named("megatron-lm").context("no framework")?;
    let (seconds, judged, predicted) = match name {
        "layouts" => layouts(&tables, &constants, framework)?,
        "site-dense" => site("llama3-405b", &tables, &constants, framework)?,
        "site-experts" => site("grok-1", &tables, &constants, framework)?,
        _ => bail!("no measurement is called {name}"),
    };
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let peak_mib = usage.max_rss() as f64 / 1024.0;
    let rate = judged as f64 / seconds;
    println!("{seconds:.4},{judged},{predicted},{rate:.0},{peak_mib:.0}");
    Ok(())
}

fn layouts(
    tables: &Tables,
    constants: &Constants,
    framework: &Framework,
) -> Result<(f64, u64, u64)> {
    let demand = Demand {
        model: tables.model("gpt3-175b")?,
        sequence_length: 2048,
        global_batch: 1536,
        batch_excess: 0.05,
        batch_shortfall: 1.0,
        precision: Precision::Half,
        software: framework.software,
    };
    let accelerator = tables.accelerator("a100-sxm4-80gb")?;
    let machine = Machine::new(accelerator, &FabricOptions::default())?;
    let space = Space {
        ranks: 1024,
        most_tensor: 8,
    };
    let (mut judged, mut predicted) = (0, 0);
    let start = Instant::now();
    for _ in 0..SEARCHES {
        let found = fastest_layouts(&demand, space, &machine, constants, 10)?;
        judged += found.evaluated + found.too_large;
        predicted += found.evaluated;
    }
    Ok((start.elapsed().as_secs_f64(), judged, predicted))
}

fn site(
    model: &str,
    tables: &Tables,
    constants: &Constants,
    framework: &Framework,
) -> Result<(f64, u64, u64)> {
    let known = Known {
        tables,
        prices: &Prices::builtin()?,
        constants,
    };
    let cluster = Cluster::from_toml_str(&cluster(), tables)?;
    let training = Training {
        model: tables.model(model)?,
        tokens: 1e13,
        batch_tokens: 1024 * cluster.devices(),
        sequence_length: 8192,
        precision: Precision::Half,
        software: framework.software,
        around: Surroundings::new(Seconds(30.0), Seconds(600.0))?,
    };
    let start = Instant::now();
    let problem = Problem::new(&cluster, training, &Terms::default(), &known)?;
    let found = options(&problem)?;
    let ranking = rank(&found.list, Objective::Tokens)?;
    flips(&problem, &found.list, Objective::Tokens)?;
    let seconds = start.elapsed().as_secs_f64();
    if found.list.len() < 30 || ranking.order.is_empty() {
        bail!("{} options of {model}", found.list.len());
    }
    Ok((seconds, found.evaluated + found.too_large, found.evaluated))
}

/// 220,000 accelerators at one site whose power does not suffice for all.
fn cluster() -> String {
    let mut text = "id = \"five\"\n[[site]]\nid = \"site\"\npower_limit_watts = 3.0e8\n\
                    power_usage_effectiveness = 1.2\n"
        .to_owned();
    for (accelerator, count, host) in CLASSES {
        text += &format!(
            "[[pool]]\nid = \"{accelerator}\"\nsite = \"site\"\naccelerator = \"{accelerator}\"\n\
             count = {count}\ndevices_per_node = {host}\npower_watts_per_device = 1275.0\n\
             failures_per_device_year = 0.173\n"
        );
    }
    text
}
