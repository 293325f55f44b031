//! Files for the launchers of Open MPI and MPICH.

use std::fmt::Write;

use super::{Host, Job};

/// How Open MPI is told where each rank stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Hosts are filled one after the other.
    BySlot,
    /// The list has a line for each rank.
    Sequential,
    /// A rank file says it, and which cores are whose.
    RankFile,
}

impl Order {
    fn of(job: &Job<'_>) -> Self {
        let mut places = job.placement.places.iter();
        if places.all(|place| cores(job.host(place)).is_some()) {
            return Self::RankFile;
        }
        match job.placement.is_a_list_of_hosts() {
            true => Self::BySlot,
            false => Self::Sequential,
        }
    }

    const fn options(self) -> &'static str {
        match self {
            Self::BySlot => "--map-by slot --rank-by slot --bind-to none",
            Self::Sequential => "--map-by seq --bind-to none",
            Self::RankFile => "--rankfile \"$here/openmpi.rankfile\"",
        }
    }
}

/// Open MPI's list of hosts: every host once, in the order of its first rank, or where that does
/// not say all, the host of every rank. Source: mpirun(1) of Open MPI 4.1, "Specifying Host Nodes"
/// and "Mapping, Ranking, and Binding".
pub(super) fn open_mpi_hosts(job: &Job<'_>) -> String {
    let mut text = job.heading_of_names("Hosts for mpirun of Open MPI; ./mpirun.sh starts it.");
    if Order::of(job) == Order::Sequential {
        for place in &job.placement.places {
            let line = format!("{}\n", job.host(place).name);
            text.push_str(&line.repeat(place.ranks as usize));
        }
        return text;
    }
    for (host, ranks) in &job.ranks_of_hosts() {
        let name = &job.hosts.list[*host].name;
        // Writing to a string cannot fail.
        _ = writeln!(text, "{name} slots={ranks} max_slots={ranks}");
    }
    text
}

/// Open MPI's list of ranks with the cores of each, where all hosts say how many they have.
/// Source: mpirun(1) of Open MPI 4.1, "Rankfiles".
pub(super) fn open_mpi_ranks(job: &Job<'_>) -> Option<String> {
    if Order::of(job) != Order::RankFile {
        return None;
    }
    let mut text = job.heading_of_names("Ranks for mpirun of Open MPI; ./mpirun.sh starts it.");
    for place in &job.placement.places {
        let host = job.host(place);
        let share = cores(host)?;
        for at in 0..place.ranks {
            let (rank, first) = (place.first_rank + at, (place.first_device + at) * share);
            let last = first + share - 1;
            _ = writeln!(text, "rank {rank}={} slot={first}-{last}", host.name);
        }
    }
    Some(text)
}

/// MPICH's list of hosts: ranks are dealt from its top to its end.
/// Source: MPICH wiki, "Using the Hydra Process Manager", "Using Hydra with Host File".
pub(super) fn mpich_hosts(job: &Job<'_>) -> String {
    let mut text =
        job.heading_of_names("Hosts for mpiexec of MPICH (Hydra); ./mpirun.sh starts it.");
    if !job.placement.is_a_list_of_hosts() {
        text.push_str(
            "# A host that stands here twice counts its local ranks (MPI_LOCALRANKID) from 0\n\
             # twice: what chooses devices by them has to count its host's ranks instead.\n",
        );
    }
    for place in &job.placement.places {
        _ = writeln!(text, "{}:{}", job.host(place).name, place.ranks);
    }
    text
}

/// The script that starts either.
pub(super) fn script(job: &Job<'_>) -> String {
    let (does, default) = job.by_default("$here/../..");
    let about = job.heading(&format!(
        "Starts the job's ranks in the plan's order:\n\
         #   ./mpirun.sh openmpi|mpich [COMMAND...]\n\
         # Without a command it {does}. MPIRUN names another mpirun or mpiexec."
    ));
    let ranks = job.planned.ranks();
    let how = Order::of(job).options();
    let binding = match cores_of_each(job) {
        Some(cores) => format!("core:{cores}"),
        None => "none".to_owned(),
    };
    format!(
        r#"#!/bin/bash
{about}set -euo pipefail
here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
mpi=${{1:?say openmpi or mpich}}
shift
{default}
case $mpi in
openmpi)
    exec "${{MPIRUN:-mpirun}}" -n {ranks} --hostfile "$here/openmpi.hostfile" \
        {how} "$@"
    ;;
mpich)
    exec "${{MPIRUN:-mpiexec}}" -n {ranks} -f "$here/mpich.hostfile" -bind-to {binding} "$@"
    ;;
*)
    echo "mpirun.sh: say openmpi or mpich, not $mpi" >&2
    exit 2
    ;;
esac
"#
    )
}

/// Cores of each device of a host.
fn cores(host: &Host) -> Option<u32> {
    host.cores
        .map(|cores| cores / host.devices)
        .filter(|share| *share > 0)
}

/// Cores of each rank, where all hosts say so and alike.
fn cores_of_each(job: &Job<'_>) -> Option<u32> {
    let places = job.placement.places.iter();
    let mut shares = places.map(|place| cores(job.host(place)));
    let first = shares.next()??;
    shares.all(|share| share == Some(first)).then_some(first)
}

impl Job<'_> {
    /// Every host with its number of ranks, in the order of first ranks.
    fn ranks_of_hosts(&self) -> Vec<(usize, u32)> {
        let mut at = std::collections::BTreeMap::new();
        let mut list: Vec<(usize, u32)> = Vec::new();
        for place in &self.placement.places {
            let entry = *at.entry(place.host).or_insert(list.len());
            if entry == list.len() {
                list.push((place.host, 0));
            }
            list[entry].1 += place.ranks;
        }
        list
    }
}
