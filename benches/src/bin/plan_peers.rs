//! Plans for the clusters that other planners were tried on, and predictions of the steps that they
//! measured.
//!
//! `cargo run --release -p laggard-benches --bin plan_peers -- search [RUNS]` plans each cluster of
//! [`laggard_benches::peers::problems`] and judges the plan by Sailor's simulator; `-- mixed` and
//! `-- amp` predict measured steps on mixed GPUs; `-- published` lists every published row of mixed
//! training with what can be said of it, and those of mixed serving. The first two read Sailor's
//! profiles under `LAGGARD_TRACES`. The goals: a step no longer than the best peer's for every
//! cluster, 96 devices of three classes and 4,096 of two in 50 ms each; 8 % mean error on Sailor's
//! mixed steps with a bias below 5 %; 25 % on AMP's with the pick within 5 % of the best.
#![expect(
    clippy::print_stdout,
    reason = "the figures are the result of a benchmark"
)]

use anyhow::{Context, Result, bail};
use laggard_benches::peers::amp::{AmpCluster, trials};
use laggard_benches::peers::errors::{Errors, pick};
use laggard_benches::peers::mixed::{Lab, measured};
use laggard_benches::peers::problems::PROBLEMS;
use laggard_benches::peers::profiles::directory;
use laggard_benches::peers::published::{NETWORKS, Said, belongs, said};
use laggard_plan::serving::ServingConstants;
use laggard_plan::{PipelineCosts, fastest_pipeline};
use laggard_specs::{published_training, rows};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::time::Instant;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("search") => {
            let runs = arguments.get(1).map_or(Ok(7), |text| text.parse());
            search(runs.context("RUNS is not a number")?)
        }
        Some("mixed") => mixed(),
        Some("amp") => amp(),
        Some("published") => published(),
        _ => bail!("usage: plan_peers search [RUNS] | mixed | amp | published"),
    }
}

/// Milliseconds that this thread has computed: what the machine's other work does not lengthen.
fn cpu_ms() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let ms = |time: TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    Ok(ms(usage.user_time()) + ms(usage.system_time()))
}

/// One line for each cluster and run.
fn search(runs: u32) -> Result<()> {
    let directory = directory().context("set LAGGARD_TRACES to the directory of real traces")?;
    println!(
        "a100,v100,gh200,run,search_ms,cpu_ms,step_s,best_peer,best_peer_s,share_of_bound,bound_s,\
         judged,cut,devices,sailor_search_s,plan"
    );
    for problem in PROBLEMS {
        let classes = problem.classes(&directory)?;
        for run in 0..runs {
            let classes = classes.clone();
            let (start, cpu) = (Instant::now(), cpu_ms()?);
            let costs = problem.costs(classes)?;
            let found = fastest_pipeline(&costs)?;
            let search_ms = start.elapsed().as_secs_f64() * 1e3;
            let cpu_ms = cpu_ms()? - cpu;
            let step = costs.simulated_seconds(&found.best)?;
            let devices: u64 = (0..costs.devices().len())
                .map(|class| found.best.devices(class))
                .sum();
            let [a100, v100, gh200] = problem.devices;
            println!(
                "{a100},{v100},{gh200},{run},{search_ms:.2},{cpu_ms:.2},{step:.4},{},{},\
                 {:.3},{:.4},{},{},{devices},{},{}",
                problem.best_peer,
                problem.best_peer_s,
                costs.compute_only_seconds() / step,
                found.bound_seconds,
                found.judged,
                found.cut,
                problem.sailor_search_s,
                costs.describe(&found.best)
            );
        }
    }
    Ok(())
}

fn mixed() -> Result<()> {
    let directory = directory().context("set LAGGARD_TRACES to the directory of real traces")?;
    let lab = Lab::read(&directory)?;
    println!(
        "set,id,measured_s,laggard_s,laggard_error,sailor_s,sailor_error,measured_gradients_s,\
         laggard_gradients_s,laggard_pipeline_s"
    );
    let steps = measured()?;
    for set in ["eight", "four"] {
        let (mut own, mut sailor) = (Errors::default(), Errors::default());
        for step in steps.iter().filter(|step| step.set == set) {
            let prediction = lab.predict(step)?;
            // Its simulator has no links of the network that the others ran on.
            let theirs = match set {
                "eight" => Some(lab.sailor_seconds(step)?),
                _ => None,
            };
            own.add(prediction.seconds, step.seconds);
            let sailor = theirs.map_or(",".to_owned(), |theirs| {
                sailor.add(theirs, step.seconds);
                format!("{theirs:.3},{:+.4}", theirs / step.seconds - 1.0)
            });
            println!(
                "{set},{},{},{:.3},{:+.4},{sailor},{},{:.3},{:.3}",
                step.id,
                step.seconds,
                prediction.seconds,
                prediction.seconds / step.seconds - 1.0,
                step.gradients_s,
                prediction.gradients_s,
                prediction.pipeline_s
            );
        }
        println!("# {set}: laggard {own}");
        if set == "eight" {
            println!("# {set}: Sailor {sailor}");
        }
    }
    Ok(())
}

fn amp() -> Result<()> {
    let cluster = AmpCluster::new()?;
    println!("micro_batch,tensor,data,pipeline,measured_s,laggard_s,laggard_error,amp_s,amp_error");
    let (mut own, mut theirs) = (Errors::default(), Errors::default());
    let mut ran = Vec::new();
    for trial in trials()? {
        let predicted = cluster.predict(&trial);
        let degrees = [trial.micro_batch, trial.tensor, trial.data, trial.pipeline];
        let degrees = degrees.map(|it| it.to_string()).join(",");
        let Some(seconds) = trial.seconds else {
            println!("{degrees},,{predicted:.3},,{},", trial.amp_s);
            continue;
        };
        own.add(predicted, seconds);
        theirs.add(trial.amp_s, seconds);
        ran.push((predicted, trial.amp_s, seconds));
        println!(
            "{degrees},{seconds},{predicted:.3},{:+.4},{},{:+.4}",
            predicted / seconds - 1.0,
            trial.amp_s,
            trial.amp_s / seconds - 1.0
        );
    }
    let of = |predicted: fn(&(f64, f64, f64)) -> f64| {
        let pairs: Vec<(f64, f64)> = ran.iter().map(|it| (predicted(it), it.2)).collect();
        pick(&pairs)
    };
    println!(
        "# laggard {own}, {}; AMP {theirs}, {}",
        of(|it| it.0),
        of(|it| it.1)
    );
    Ok(())
}

fn published() -> Result<()> {
    println!("row,source,what,published,unit,laggard_low,laggard_high,remark");
    for row in rows(published_training())?
        .iter()
        .filter(|row| belongs(row))
    {
        let source = row.source_url.as_deref().unwrap_or_default();
        let what = match &row.stage_layout {
            Some(layout) => format!("{} on {layout}", row.model),
            None => row.metric.clone().unwrap_or_else(|| row.model.clone()),
        };
        let start = format!("{},\"{source}\",\"{what}\"", row.row_id);
        match said(row)? {
            Said::Between {
                published,
                predicted: [slow, fast],
            } => println!(
                "{start},{published},% MFU,{slow:.2},{fast:.2},\"hosts' networks, which are not \
                 published, of {} and {} Gbit/s\"",
                NETWORKS[0], NETWORKS[1]
            ),
            Said::Nothing(why) => {
                let step = row.step_time_s.map(|seconds| (seconds, "s"));
                let other = row.value.zip(row.unit.as_deref());
                let (value, unit) = step.or(other).unwrap_or_default();
                println!("{start},{value},{unit},,,{why}");
            }
        }
    }
    let loss = ServingConstants::builtin()?.dispatch_loss;
    for mix in ServingConstants::measured_mixes()? {
        let share = 100.0 * mix.tokens_per_second / mix.apart_tokens_per_second;
        let [low, high] = [loss.high, loss.low].map(|lost| 100.0 * (1.0 - lost));
        println!(
            "{},\"{}\",\"{}\",{share:.2},% of the classes apart,{low:.2},{high:.2},the range is \
             taken from these rows: no test of it",
            mix.id, mix.source, mix.what
        );
    }
    Ok(())
}
