//! The batch script for Slurm.
//!
//! Where every host starts consecutive ranks on all its devices, the ranks of a class that follow
//! each other are a component of a heterogeneous job, and Slurm's own order is the plan's. Where
//! not, or where hosts are named, one job has all hosts and a list of the host of every rank.

use std::fmt::Write;

use super::placement::Segment;
use super::{Job, host_list};
use crate::file::label;

/// Most components of a heterogeneous job that is written: a scheduler has to start all at once.
const MOST_COMPONENTS: usize = 32;

/// The script.
pub(super) fn script(job: &Job<'_>) -> String {
    let components = job.placement.segments(job.hosts);
    let components = components
        .filter(|segments| job.hosts.are_placeholders && segments.len() <= MOST_COMPONENTS);
    match components {
        Some(segments) => whole_hosts(job, &segments),
        None => listed_ranks(job),
    }
}

fn usage(job: &Job<'_>) -> String {
    let (does, _) = job.by_default("");
    format!(
        "Submit it from this folder:\n\
         #   sbatch slurm.sh                          {does}\n\
         #   sbatch slurm.sh COMMAND...               one process for each rank\n\
         #   sbatch slurm.sh torchrun SCRIPT.py ...   torchrun's agents, one process for each \
         host\n\
         # SLURM_MPI_TYPE chooses the process manager: pmix for Open MPI, pmi2 for MPICH."
    )
}

/// The end of every script: what is started, once `ranks` and `agents` are functions that start
/// a command for each rank or host.
fn commands(job: &Job<'_>) -> String {
    let (_, default) = job.by_default("$here/../..");
    format!(
        r#"{default}
if [ "$1" = torchrun ]; then
    shift
    export LAGGARD_NODES=$nodes
    agents bash "$here/torchrun.sh" "$@"
else
    ranks "$@"
fi
"#
    )
}

/// A job, or a heterogeneous one with a component for each segment.
fn whole_hosts(job: &Job<'_>, segments: &[Segment]) -> String {
    let mut head = String::new();
    let name = label(&job.planned.name);
    for (at, segment) in segments.iter().enumerate() {
        let separator = if at > 0 { "#SBATCH hetjob\n" } else { "" };
        let named = if at > 0 {
            String::new()
        } else {
            format!("#SBATCH --job-name={name}\n")
        };
        let class = label(&job.classes[segment.class].name);
        let (hosts, ranks) = (segment.hosts, segment.ranks);
        _ = write!(
            head,
            "{separator}{named}#SBATCH --nodes={hosts} --ntasks-per-node={ranks} \
             --gpus-per-node={ranks}\n#SBATCH --constraint={class} --exclusive\n"
        );
    }
    let about = job.heading(&usage(job));
    let features = features(job);
    let (lists, start) = match segments {
        [_] => (
            "    scontrol show hostnames \"$SLURM_JOB_NODELIST\"\n".to_owned(),
            one_component(),
        ),
        _ => (
            (0..segments.len())
                .map(|at| {
                    format!("    scontrol show hostnames \"$SLURM_JOB_NODELIST_HET_GROUP_{at}\"\n")
                })
                .collect(),
            several_components(segments),
        ),
    };
    let commands = commands(job);
    format!(
        r#"#!/bin/bash
{head}{about}{features}set -euo pipefail
here=${{LAGGARD_LAUNCH:-$SLURM_SUBMIT_DIR}}
nodes=$here/nodes.$SLURM_JOB_ID.tsv
names() {{
{lists}}}
# The table of hosts with the names that Slurm gave, in its order, which is the plan's.
names | awk '
    NR == FNR {{ name[++count] = $1; next }}
    /^#/ {{ next }}
    {{ $2 = name[++at]; print }}' OFS='\t' - "$here/nodes.tsv" >"$nodes"
{start}{commands}"#
    )
}

fn one_component() -> String {
    r#"ranks() {
    srun --kill-on-bad-exit=1 --distribution=block "$@"
}
agents() {
    srun --kill-on-bad-exit=1 --ntasks="$SLURM_JOB_NUM_NODES" \
        --ntasks-per-node=1 "$@"
}
"#
    .to_owned()
}

/// One step of all components: their tasks are numbered component by component.
/// Source: slurm.schedmd.com/heterogeneous_jobs.html, "Launching Applications (Job Steps)".
fn several_components(segments: &[Segment]) -> String {
    let list = |of: &dyn Fn(&Segment) -> u64| {
        let numbers: Vec<String> = segments.iter().map(|it| of(it).to_string()).collect();
        numbers.join(" ")
    };
    let hosts = list(&|segment| segment.hosts as u64);
    let each = list(&|segment| segment.ranks.into());
    format!(
        r#"# Hosts of each component, and ranks on each of its hosts.
hosts=({hosts})
each=({each})
# Starts a command on all components, so many processes on each of their hosts.
start() {{
    local per_host=$1 step=() at tasks
    shift
    for at in "${{!hosts[@]}}"; do
        [ "$per_host" = all ] && tasks=${{each[at]}} || tasks=$per_host
        [ "$at" = 0 ] || step+=(:)
        step+=("--het-group=$at" "--nodes=${{hosts[at]}}" "--ntasks=$((hosts[at] * tasks))"
            "--ntasks-per-node=$tasks" --distribution=block "$@")
    done
    srun --kill-on-bad-exit=1 "${{step[@]}}"
}}
ranks() {{ start all "$@"; }}
agents() {{ start 1 "$@"; }}
"#
    )
}

/// One job with all hosts, and the host of every rank. Source: srun(1), `--distribution`,
/// "arbitrary"; sbatch(1), `--constraint`, "Multiple Counts".
fn listed_ranks(job: &Job<'_>) -> String {
    let name = label(&job.planned.name);
    let used = job.placement.hosts_of_classes(job.hosts, job.classes.len());
    let count: usize = used.iter().map(Vec::len).sum();
    let there = used
        .iter()
        .enumerate()
        .filter(|(_, hosts)| !hosts.is_empty());
    let which = match job.hosts.are_placeholders {
        true => {
            let label = |class: usize| label(&job.classes[class].name);
            let counts: Vec<String> = there
                .map(|(class, hosts)| format!("{}*{}", label(class), hosts.len()))
                .collect();
            match &counts[..] {
                [one] => format!("--constraint={}", one.split('*').next().unwrap_or(one)),
                _ => format!("--constraint=\"[{}]\"", counts.join("&")),
            }
        }
        false => {
            let mut names: Vec<&str> = there
                .flat_map(|(_, hosts)| hosts.iter())
                .map(|&host| job.hosts.list[host].name.as_str())
                .collect();
            names.sort_unstable();
            format!("--nodelist={}", host_list::compress(names.into_iter()))
        }
    };
    let about = job.heading(&usage(job));
    let (ranks, commands) = (job.planned.ranks(), commands(job));
    // Hosts of different classes have different numbers of devices: only a total can ask for all.
    let devices: u64 = used
        .iter()
        .flatten()
        .map(|&host| u64::from(job.hosts.list[host].devices))
        .sum();
    let (features, table) = match job.hosts.are_placeholders {
        true => (features(job), given_names()),
        false => (String::new(), "nodes=$here/nodes.tsv\n"),
    };
    format!(
        r#"#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={count} --exclusive
#SBATCH {which}
{about}{features}set -euo pipefail
here=${{LAGGARD_LAUNCH:-$SLURM_SUBMIT_DIR}}
{table}order=$here/ranks.$SLURM_JOB_ID
awk '!/^#/ {{ for (at = 0; at < $6; at++) print $2 }}' "$nodes" >"$order"
ranks() {{
    SLURM_HOSTFILE=$order srun --kill-on-bad-exit=1 --gpus={devices} --ntasks={ranks} \
        --distribution=arbitrary "$@"
}}
agents() {{
    srun --kill-on-bad-exit=1 --gpus={devices} --ntasks="$SLURM_JOB_NUM_NODES" \
        --ntasks-per-node=1 "$@"
}}
{commands}"#
    )
}

/// The table of hosts with the names that Slurm gave: the nth of each class by its feature.
fn given_names() -> &'static str {
    r#"nodes=$here/nodes.$SLURM_JOB_ID.tsv
sinfo --noheader --Node --nodes="$SLURM_JOB_NODELIST" --format='%N %f' | sort -u | awk '
    NR == FNR {
        features = split($2, feature, ",")
        for (at = 1; at <= features; at++) name[feature[at], count[feature[at]]++] = $1
        next
    }
    /^#/ { next }
    { $2 = name[$3, $4]; print }' OFS='\t' - "$here/nodes.tsv" >"$nodes"
"#
}

fn features(job: &Job<'_>) -> String {
    let used = job.placement.hosts_of_classes(job.hosts, job.classes.len());
    let there = used
        .iter()
        .enumerate()
        .filter(|(_, hosts)| !hosts.is_empty());
    let label = |(class, _): (usize, &Vec<usize>)| label(&job.classes[class].name);
    let names: Vec<String> = there.map(label).collect();
    format!(
        "# It takes for granted that hosts have their class as a feature in Slurm ({}): change\n\
         # --constraint where they are called otherwise.\n",
        names.join(", ")
    )
}
