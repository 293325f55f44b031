//! `laggard bench`: single calls on the ranks of this process or of a launch.

mod asked;

use crate::args::{BenchArgs, TableFormat, WITNESS};
use crate::exit_code;
use crate::failure;
use crate::gpus::Gpus;
use crate::launcher::Launch;
use crate::output::{self, talk};
use crate::process::{Process, SPEAKERS_FIRST, end};
use crate::signals::Signals;
use anyhow::{Context, Result};
use laggard_analyze::{Bench, BenchOptions, bench};
use laggard_measure::{SweepHooks, SweepSettings, sweep_here, sweep_member, sweep_on};
use laggard_record::BenchSamples;
use std::io::BufWriter;
use std::path::Path;

/// Names of the files of a result.
const RESULT_FILE: &str = "bench.json";
pub(crate) const SAMPLES_FILE: &str = "samples.json";

pub(crate) fn run(args: &BenchArgs, quiet: bool) -> Result<u8> {
    match Launch::detect()? {
        Some(launch) => under_launcher(args, &launch, quiet),
        None => {
            let gpus = Gpus::find(args.device)?;
            let count = gpus.as_ref().map(|gpus| gpus.count);
            let (settings, world) = asked::of(args, None, count)?;
            let samples = with_hooks(quiet, |hooks| match &gpus {
                Some(gpus) => gpus.in_process(&world, |worlds| {
                    Ok(sweep_on(&worlds, &gpus.communication(), &settings, hooks)?)
                }),
                None => Ok(sweep_here(world.ranks(), &settings, hooks)?),
            })?;
            tell(args, &samples)
        }
    }
}

fn under_launcher(args: &BenchArgs, launch: &Launch, quiet: bool) -> Result<u8> {
    let gpus = Gpus::find(args.device);
    let count = match &gpus {
        Ok(gpus) => gpus.as_ref().map(|gpus| gpus.count),
        Err(_) => Some(0),
    };
    // All ranks make the same mistake; one of them says so.
    let (settings, world) = match asked::of(args, Some(launch), count) {
        Ok(asked) => asked,
        Err(error) if launch.rank == 0 => return Err(error),
        Err(error) => {
            std::thread::sleep(SPEAKERS_FIRST);
            return Ok(failure::code(&error));
        }
    };
    let ranks = 0..launch.size;
    let (process, arrival) = match Process::join(&world, ranks, (launch, WITNESS)) {
        Ok(joined) => joined,
        Err(error) => end(launch.rank, !failure::is_shared(&error), &error, || ()),
    };
    let outcome = process
        .member(arrival, gpus, (&world, launch))
        .and_then(|member| measure(&member, &settings, quiet || launch.rank != 0));
    match outcome {
        Ok(samples) => {
            process.leave(world.timeout);
            samples.map_or(Ok(exit_code::DONE), |samples| tell(args, &samples))
        }
        Err(error) => process.fail(launch.rank, &error),
    }
}

/// This process's rank; the others are told of a failure.
fn measure(
    member: &laggard_measure::Member,
    settings: &SweepSettings,
    quiet: bool,
) -> Result<Option<BenchSamples>> {
    with_hooks(quiet, |hooks| {
        let samples = sweep_member(&member.world, &member.communication, settings, hooks);
        let samples = samples.inspect_err(|error| {
            if !error.is_of_others() {
                member.control.abort(&error.to_string());
            }
        });
        Ok(samples?)
    })
}

fn with_hooks<T>(quiet: bool, measure: impl FnOnce(&SweepHooks<'_>) -> Result<T>) -> Result<T> {
    let signals = Signals::listen()?;
    measure(&SweepHooks {
        stop: &|| signals.stop(),
        progress: &|what| {
            if !quiet {
                talk(&format!("measuring {what} ..."));
            }
        },
    })
}

/// Prints what samples say, and keeps them where that is asked for.
fn tell(args: &BenchArgs, samples: &BenchSamples) -> Result<u8> {
    let options = BenchOptions {
        name_over: args.name_over / 100.0,
    };
    let found = bench(samples, &options);
    if let Some(folder) = &args.output {
        write(folder, &found, samples)?;
    }
    let stdout = Path::new("-");
    let text = match args.format {
        TableFormat::Text => laggard_report::text::bench(&found, output::style(stdout)),
        TableFormat::Json => laggard_report::json::bench(&found),
    };
    output::result(&text, stdout)?;
    if let Some(folder) = &args.output {
        let path = folder.display();
        talk(&format!(
            "result: {path}/{RESULT_FILE}\nsamples: {path}/{SAMPLES_FILE}\nnext: laggard simulate \
             --cluster FILE --model NAME --calibrate CLASS={path}"
        ));
    }
    Ok(match found.is_wrong() {
        true => exit_code::BACKEND,
        false => exit_code::DONE,
    })
}

fn write(folder: &Path, found: &Bench, samples: &BenchSamples) -> Result<()> {
    let failed = || {
        let hint = "hint: free some space or choose another place with `--output`";
        format!("cannot write {}\n{hint}", folder.display())
    };
    std::fs::create_dir(folder).with_context(failed)?;
    output::file(
        &laggard_report::json::bench(found),
        &folder.join(RESULT_FILE),
    )?;
    let file = std::fs::File::create(folder.join(SAMPLES_FILE)).with_context(failed)?;
    let mut file = BufWriter::new(file);
    samples.write_json(&mut file).with_context(failed)?;
    std::io::Write::flush(&mut file).with_context(failed)
}
