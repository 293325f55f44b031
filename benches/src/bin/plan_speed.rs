//! Speed and peak memory of planning.
//!
//! `cargo run --release -p laggard-benches --bin plan_speed -- [RUNS]` prints one line for each
//! run, each a process of its own, of
//! - `layouts`: layouts of GPT-3 175B on 1,024 A100 judged by the second on one core (those refused
//!   for lack of memory and those whose step is predicted together, and the latter alone; goal:
//!   200,000 a second);
//! - `program`: the integer program of 220,000 accelerators of three classes for two training jobs
//!   and a lease under 300 MW, where what is judged are linear programs (goal: 50 ms to a gap of
//!   0.1 %, beyond which it fails);
//! - `site-dense`, `site-experts`: every option for 220,000 accelerators in five classes, with the
//!   ranking and what would change it (goal: 1 s and 500 MiB);
//! - `sites-64`, `pools-1000`: the same for 64 linked sites, and for 1,000 pools of one site (goal:
//!   10 s and 500 MiB).
#![expect(
    clippy::print_stdout,
    reason = "the figures are the result of a benchmark"
)]

use anyhow::{Context, Result, bail};
use laggard_plan::money::Prices;
use laggard_plan::pools::{Curve, Effort, Member, PoolProblem, PowerLimit, Stock, Use, allocate};
use laggard_plan::serving::{Requests, ServingConstants};
use laggard_plan::{
    Alike, Demand, Known, Objective, Problem, Reserve, Service, Space, Terms, Training,
    fastest_layouts, flips, offers, options, rank, serve,
};
use laggard_simulate::{
    Constants, FabricOptions, Framework, Frameworks, Machine, Precision, Surroundings,
};
use laggard_specs::{Cluster, Tables};
use laggard_types::Seconds;
use nix::sys::resource::{UsageWho, getrusage};
use std::time::Instant;

/// What is measured.
const MEASUREMENTS: [&str; 6] = [
    "program",
    "layouts",
    "site-dense",
    "site-experts",
    "sites-64",
    "pools-1000",
];
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

/// Sites and pools of the large clusters.
const SITES: usize = 64;
const POOLS: usize = 1000;

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
    println!("measurement,run,seconds,judged,predicted,judged_per_second,peak_rss_mib,cpu_seconds");
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
    let known = (&tables, &constants, framework);
    let (seconds, judged, predicted) = match name {
        "program" => program()?,
        "layouts" => layouts(&tables, &constants, framework)?,
        "site-dense" => site("llama3-405b", &cluster(), known)?,
        "site-experts" => site("grok-1", &cluster(), known)?,
        "sites-64" => site("llama3-405b", &sites(), known)?,
        "pools-1000" => site("llama3-405b", &pools(), known)?,
        _ => bail!("no measurement is called {name}"),
    };
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let peak_mib = usage.max_rss() as f64 / 1024.0;
    let rate = judged as f64 / seconds;
    let time = usage.user_time();
    let cpu_seconds = time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6;
    println!("{seconds:.4},{judged},{predicted},{rate:.0},{peak_mib:.0},{cpu_seconds:.3}");
    Ok(())
}

/// Accelerators of the program's three classes, those of a box or rack, what they train relative to
/// an H100 (MLPerf Training v5.0, Llama 3.1 405B), dollars of rent per hour and watts.
const STOCK: [(u64, u64, f64, f64, f64); 3] = [
    (150_000, 8, 1.0, 2.35, 1275.0),
    (50_000, 8, 1.10, 3.50, 1275.0),
    (20_000, 72, 2.22, 4.54, 1670.0),
];
const LIMIT_WATTS: f64 = 3.0e8;
const POWER_USAGE_EFFECTIVENESS: f64 = 1.2;
/// What a pool keeps of its rate where it is four times as large, ibid.
const OF_FOUR_TIMES: f64 = 0.968;
/// The gap that is aimed at.
const GAP: f64 = 1e-3;

/// Two jobs, of which one can use all classes and one Hopper alone, and a lease.
fn program() -> Result<(f64, u64, u64)> {
    let stock = |(devices, domain, ..): (u64, u64, f64, f64, f64)| Stock {
        domains: devices / domain,
        reserve: devices / domain / 50,
        reserve_watts: domain as f64 * 1275.0 * POWER_USAGE_EFFECTIVENESS,
        site: 0,
    };
    let members = |classes: usize, of: fn(f64, f64) -> f64| -> Vec<Member> {
        let classes = STOCK.iter().take(classes).enumerate();
        let member = |(class, &(_, domain, rate, rent, watts)): (usize, &_)| Member {
            class,
            capacity: domain as f64 * of(rate, rent),
            cost: 0.0,
            watts: domain as f64 * watts * POWER_USAGE_EFFECTIVENESS,
            most: None,
        };
        classes.map(member).collect()
    };
    let points: Vec<(f64, f64)> = (9..=18)
        .map(|power| {
            let capacity = f64::from(1_u32 << power);
            (
                capacity,
                capacity * OF_FOUR_TIMES.powf((capacity / 512.0).log2() / 2.0),
            )
        })
        .collect();
    let curve = Curve::hull(&points)?;
    let job = |name, classes, value, least_rate| Use {
        curve: curve.clone(),
        fixed_cost: 100.0,
        least: 64,
        least_rate,
        ..Use::each(name, members(classes, |rate, _| rate), value)
    };
    let problem = PoolProblem {
        classes: STOCK.map(stock).to_vec(),
        sites: vec![PowerLimit {
            watts: Some(LIMIT_WATTS),
        }],
        uses: vec![
            job("large", 3, 3.1, 40_000.0),
            job("small", 2, 2.9, 5_000.0),
            Use::each("lease", members(3, |_, rent| rent), 1.0),
        ],
    };
    let start = Instant::now();
    let found = allocate(
        &problem,
        Effort {
            gap: GAP,
            ..Effort::default()
        },
    )?;
    let seconds = start.elapsed().as_secs_f64();
    if found.gap() > GAP {
        bail!("the gap is {}", found.gap());
    }
    Ok((seconds, found.nodes + 1, 0))
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
    text: &str,
    (tables, constants, framework): (&Tables, &Constants, &Framework),
) -> Result<(f64, u64, u64)> {
    let known = Known {
        tables,
        prices: &Prices::builtin()?,
        constants,
    };
    let start = Instant::now();
    let cluster = Cluster::from_toml_str(text, tables)?;
    let many = cluster.pools.len() > CLASSES.len();
    let cluster = Alike::of(&cluster, &|_| false).together(&cluster);
    let training = Training {
        model: tables.model(model)?,
        tokens: 1e13,
        batch_tokens: 1024 * cluster.devices(),
        sequence_length: 8192,
        precision: Precision::Half,
        software: framework.software,
        around: Surroundings::new(Seconds(30.0), Seconds(600.0))?,
    };
    let kept = cluster.pools.iter().filter(|_| many);
    let terms = Terms {
        reserve: kept
            .map(|pool| (pool.id.clone(), Reserve::Share(0.05)))
            .collect(),
        ..Terms::default()
    };
    let mut problem = Problem::new(&cluster, training, &terms, &known)?;
    if many {
        serve_some(&mut problem, tables)?;
    }
    let found = options(&problem)?;
    let ranking = rank(&found.list, Objective::Tokens)?;
    flips(&problem, &found.list, Objective::Tokens)?;
    let seconds = start.elapsed().as_secs_f64();
    if found.list.len() < 30 || ranking.order.is_empty() {
        bail!("{} options of {model}", found.list.len());
    }
    Ok((seconds, found.evaluated + found.too_large, found.evaluated))
}

/// Lets devices serve a million tokens a second of a smaller model.
fn serve_some(problem: &mut Problem<'_>, tables: &Tables) -> Result<()> {
    let service = Service {
        model: tables.model("llama3-70b")?,
        requests: Requests {
            input_tokens: 1024.0,
            output_tokens: 1024.0,
            most_seconds_per_token: Some(0.05),
            most_seconds_to_first_token: None,
        },
        peak_factor: 2.0,
        tokens_per_s: Some(1e6),
        sessions: None,
        session_tokens_per_s: None,
        dollars_per_million_tokens: Some(1.0),
    };
    let constants = ServingConstants::builtin()?;
    let offers = offers(problem, &service, tables, &constants)?;
    serve(problem, &service, &offers, Objective::Tokens, &constants)?;
    Ok(())
}

/// 64 sites with three classes each, in a ring of links.
fn sites() -> String {
    let mut text = "id = \"sites\"\n".to_owned();
    for site in 0..SITES {
        text += &format!(
            "[[site]]\nid = \"s{site}\"\npower_limit_watts = {:e}\n\
             power_usage_effectiveness = 1.2\n",
            1.0e6 + 1e4 * site as f64
        );
        for class in 0..3 {
            let (accelerator, _, host) = CLASSES[(3 * site + 2 * class + site / 5) % CLASSES.len()];
            let hosts = 64 + (37 * site + 101 * class) % 200;
            text += &pool(
                (
                    &format!("s{site}c{class}"),
                    &format!("s{site}"),
                    accelerator,
                ),
                (hosts as u64 * host, host),
                "",
            );
        }
        text += &format!(
            "[[link]]\nfrom = \"s{site}\"\nto = \"s{}\"\nbandwidth_bytes_per_s = {:e}\n\
             latency_s = 0.01\n",
            (site + 1) % SITES,
            1e10 * (1 + site % 7) as f64
        );
    }
    text
}

/// A site of 1,000 pools of five accelerators, whose networks and power differ.
fn pools() -> String {
    let mut text = "id = \"pools\"\n[[site]]\nid = \"site\"\npower_limit_watts = 3.0e8\n\
                    power_usage_effectiveness = 1.2\n"
        .to_owned();
    for at in 0..POOLS {
        let (accelerator, count, host) = CLASSES[at % CLASSES.len()];
        let devices = (count * CLASSES.len() as u64 / POOLS as u64).next_multiple_of(host);
        let network = 5e10 * (1.0 - 0.2 * ((7919 * at) % 101) as f64 / 100.0);
        text += &pool(
            (&format!("p{at}"), "site", accelerator),
            (devices, host),
            &format!("network_bytes_per_s_per_device = {network:e}\n"),
        );
    }
    text
}

/// 220,000 accelerators at one site whose power does not suffice for all.
fn cluster() -> String {
    let mut text = "id = \"five\"\n[[site]]\nid = \"site\"\npower_limit_watts = 3.0e8\n\
                    power_usage_effectiveness = 1.2\n"
        .to_owned();
    for (accelerator, count, host) in CLASSES {
        text += &pool((accelerator, "site", accelerator), (count, host), "");
    }
    text
}

fn pool(
    (id, site, accelerator): (&str, &str, &str),
    (count, host): (u64, u64),
    more: &str,
) -> String {
    format!(
        "[[pool]]\nid = \"{id}\"\nsite = \"{site}\"\naccelerator = \"{accelerator}\"\n\
         count = {count}\ndevices_per_node = {host}\npower_watts_per_device = 1275.0\n\
         failures_per_device_year = 0.173\n{more}"
    )
}
