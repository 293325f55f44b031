//! `laggard run` under a launcher: one rank per process.

use crate::args::{RunArgs, WITNESS};
use crate::command::run::{code, tell, tell_compare, tell_next, watched};
use crate::gpus::Gpus;
use crate::launcher::Launch;
use crate::output::talk;
use crate::process::{Process, SPEAKERS_FIRST, end};
use crate::{exit_code, failure, settings};
use anyhow::{Result, anyhow};
use laggard_measure::{Settings, Summary, run_member};
use laggard_types::Rank;
use std::ops::Range;

pub(crate) fn run(args: &RunArgs, launch: &Launch, quiet: bool) -> Result<u8> {
    // What is missing on this host may be there on others, who are to hear of it.
    let gpus = Gpus::find(args.device);
    let count = match &gpus {
        Ok(gpus) => gpus.as_ref().map(|gpus| gpus.count),
        Err(_) => Some(0),
    };
    // All ranks make the same mistake; one of them says so.
    let jobs = match jobs(args, launch, count) {
        Ok(jobs) => jobs,
        Err(error) if launch.rank == 0 => return Err(error),
        Err(error) => {
            std::thread::sleep(SPEAKERS_FIRST);
            return Ok(failure::code(&error));
        }
    };
    let (job, ranks) = own_job(&jobs, launch.rank)?;
    let joined = Process::join(job, ranks, (launch, WITNESS));
    let (process, arrival) = match joined {
        Ok(joined) => joined,
        Err(error) => end(launch.rank, !failure::is_shared(&error), &error, || ()),
    };
    let rank = arrival.rank;
    let quiet = quiet || launch.rank != 0;
    let member = process.member(arrival, gpus, (job, launch));
    let outcome = member.and_then(|member| {
        if rank == 0 && !quiet {
            let (size, backend) = (job.ranks(), &member.communication.backend);
            talk(&format!("{size} ranks over {backend}"));
        }
        watched(job.steps, args.time_limit, quiet, |hooks| {
            Ok(run_member(job, member, hooks)?)
        })
    });
    match outcome {
        Ok(summary) => {
            process.leave(job.timeout);
            let told = |summary: Summary| {
                tell(job, &summary, quiet);
                match &args.rehearsal.plan {
                    Some(_) if launch.rank == 0 => tell_compare(&args.rehearsal, &jobs),
                    Some(_) => (),
                    None => tell_next(&summary),
                }
                code(&summary)
            };
            Ok(summary.map_or(exit_code::DONE, told))
        }
        Err(error) => process.fail(launch.rank, &error),
    }
}

/// The jobs to run, on so many GPUs that this process sees, or on processors.
fn jobs(args: &RunArgs, launch: &Launch, gpus: Option<usize>) -> Result<Vec<Settings>> {
    match &args.rehearsal.plan {
        Some(plan) => settings::of_plan(args, plan, (Some(launch), gpus.is_some())),
        None => Ok(vec![settings::of_run(args, Some(launch), gpus)?]),
    }
}

/// The job that a rank works in, and the ranks of that job.
fn own_job(jobs: &[Settings], rank: Rank) -> Result<(&Settings, Range<Rank>)> {
    let mut first = 0;
    for job in jobs {
        let ranks = first..first + job.ranks();
        if ranks.contains(&rank) {
            return Ok((job, ranks));
        }
        first = ranks.end;
    }
    Err(anyhow!("rank {rank} has no job"))
}
