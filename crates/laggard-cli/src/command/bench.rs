//! `laggard bench`: single calls on the ranks of this process or of a launch.

mod asked;

use crate::args::{BenchArgs, TableFormat, WITNESS};
use crate::exit_code;
use crate::failure::{self, Usage};
use crate::gpus::Gpus;
use crate::launcher::Launch;
use crate::output::{self, talk};
use crate::process::{Process, SPEAKERS_FIRST, end};
use crate::signals::Signals;
use anyhow::{Context, Result};
use laggard_analyze::{Bench, BenchOptions, bench};
use laggard_measure::{Signal, SweepHooks, SweepSettings, sweep_here, sweep_member, sweep_on};
use laggard_record::BenchSamples;
use laggard_types::CaveatCode;
use std::fs;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

/// Names of the files of a result.
const RESULT_FILE: &str = "bench.json";
pub(crate) const SAMPLES_FILE: &str = "samples.json";

pub(crate) fn run(args: &BenchArgs, quiet: bool) -> Result<u8> {
    match Launch::detect()? {
        Some(launch) => under_launcher(args, &launch, quiet),
        None => {
            let gpus = gpus(args)?;
            let count = gpus.as_ref().map(|gpus| gpus.count);
            let (settings, world) = asked::of(args, None, count)?;
            let folder = Folder::create(args)?;
            let (samples, signal) = with_hooks(quiet, |hooks| match &gpus {
                Some(gpus) => gpus.in_process(&world, |worlds| {
                    Ok(sweep_on(&worlds, &gpus.communication(), &settings, hooks)?)
                }),
                None => Ok(sweep_here(world.ranks(), &settings, hooks)?),
            })?;
            tell(args, folder, &samples, signal.as_ref())
        }
    }
}

/// The GPUs, if ranks are to compute on them.
fn gpus(args: &BenchArgs) -> Result<Option<Gpus>> {
    let found = Gpus::find(args.device)?;
    Ok(match args.late {
        Some(_) => found.map(Gpus::paced),
        None => found,
    })
}

fn under_launcher(args: &BenchArgs, launch: &Launch, quiet: bool) -> Result<u8> {
    let gpus = gpus(args);
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
        .and_then(|member| measure(args, &member, &settings, quiet || launch.rank != 0));
    match outcome {
        Ok((folder, samples, signal)) => {
            process.leave(world.timeout);
            let told = samples.map(|samples| tell(args, folder, &samples, signal.as_ref()));
            told.unwrap_or(Ok(exit_code::DONE))
        }
        Err(error) => process.fail(launch.rank, &error),
    }
}

/// This process's rank, and on rank 0 the folder for the result; the others are told of a failure.
fn measure(
    args: &BenchArgs,
    member: &laggard_measure::Member,
    settings: &SweepSettings,
    quiet: bool,
) -> Result<(Option<Folder>, Option<BenchSamples>, Option<Signal>)> {
    let folder = match member.world.messenger.rank() {
        0 => Folder::create(args),
        _ => Ok(None),
    };
    let folder = folder.inspect_err(|error| member.control.abort(&failure::cause(error)))?;
    let (samples, signal) = with_hooks(quiet, |hooks| {
        let samples = sweep_member(&member.world, &member.communication, settings, hooks);
        let samples = samples.inspect_err(|error| {
            if !error.is_of_others() {
                member.control.abort(&error.to_string());
            }
        });
        Ok(samples?)
    })?;
    Ok((folder, samples, signal))
}

/// Measures, and gives the signal that has come meanwhile, if one has.
fn with_hooks<T>(
    quiet: bool,
    measure: impl FnOnce(&SweepHooks<'_>) -> Result<T>,
) -> Result<(T, Option<Signal>)> {
    let signals = Signals::listen()?;
    let measured = measure(&SweepHooks {
        stop: &|| signals.stop(),
        progress: &|what| {
            if !quiet {
                talk(&format!("measuring {what} ..."));
            }
        },
    })?;
    Ok((measured, signals.stop()))
}

/// Prints what samples say, and keeps them where that is asked for.
fn tell(
    args: &BenchArgs,
    folder: Option<Folder>,
    samples: &BenchSamples,
    signal: Option<&Signal>,
) -> Result<u8> {
    let options = BenchOptions {
        name_over: args.name_over / 100.0,
    };
    let found = bench(samples, &options);
    let stdout = Path::new("-");
    let text = match args.format {
        TableFormat::Text => laggard_report::text::bench(&found, output::style(stdout)),
        TableFormat::Json => laggard_report::json::bench(&found),
    };
    // Neither is lost because the other cannot be written.
    let printed = output::result(&text, stdout);
    if let Some(folder) = folder {
        let path = folder.keep(&found, samples)?;
        let path = path.display();
        talk(&format!(
            "result: {path}/{RESULT_FILE}\nsamples: {path}/{SAMPLES_FILE}\nnext: laggard simulate \
             --cluster FILE --model NAME --calibrate CLASS={path}"
        ));
    }
    printed?;
    let is_cut = samples
        .caveats
        .iter()
        .any(|it| it.code == CaveatCode::NotClosed);
    Ok(match signal.filter(|_| is_cut) {
        _ if found.is_wrong() => exit_code::BACKEND,
        Some(signal) => exit_code::by_signal(&signal.name),
        None => exit_code::DONE,
    })
}

/// The folder for a result. It is made before anything is measured, and is gone again if nothing
/// comes of that.
struct Folder {
    path: PathBuf,
    is_kept: bool,
}

impl Folder {
    /// The one that is asked for, if one is.
    fn create(args: &BenchArgs) -> Result<Option<Self>> {
        let Some(path) = &args.output else {
            return Ok(None);
        };
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let hint = "hint: give --output a folder that is not there yet";
                Err(Usage(format!("{} exists already\n{hint}", path.display())).into())
            }
            created => created.with_context(|| cannot_write(path)).map(|()| {
                Some(Self {
                    path: path.clone(),
                    is_kept: false,
                })
            }),
        }
    }

    /// Writes a result and its samples.
    fn keep(mut self, found: &Bench, samples: &BenchSamples) -> Result<PathBuf> {
        self.is_kept = true;
        let path = self.path.clone();
        let failed = || cannot_write(&path);
        output::file(&laggard_report::json::bench(found), &path.join(RESULT_FILE))?;
        let file = fs::File::create(path.join(SAMPLES_FILE)).with_context(failed)?;
        let mut file = BufWriter::new(file);
        samples.write_json(&mut file).with_context(failed)?;
        io::Write::flush(&mut file).with_context(failed)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.is_kept {
            // What others have put there stays.
            _ = fs::remove_dir(&self.path);
        }
    }
}

fn cannot_write(folder: &Path) -> String {
    let hint = "hint: free some space or choose another place with `--output`";
    format!("cannot write {}\n{hint}", folder.display())
}
