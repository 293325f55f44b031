//! Launch files of a plan's jobs: which host starts which ranks, for the launchers that are in use.
//! Texts alone; who writes them where is for others to say. The order of ranks is that of the
//! job's layout, by its own functions: here is only said where each rank stands.

mod frameworks;
mod host_list;
mod hosts;
mod kubernetes;
mod megatron;
mod mpi;
mod others;
mod overview;
mod placement;
mod slurm;
mod torchrun;

use laggard_schedule::Layout;
use laggard_specs::{Model, Tables};
use thiserror::Error;

pub use frameworks::{Executable, Framework, executable, in_words};
pub use hosts::{Host, Hosts};
pub use placement::{Place, Placement};

use crate::file::{PlanFile, PlannedJob, PlannedOption};
use placement::Free;

/// Names of the files of a job; not every job has all.
pub const FILE_NAMES: [&str; 10] = [
    "README.txt",
    "nodes.tsv",
    "openmpi.hostfile",
    "openmpi.rankfile",
    "mpich.hostfile",
    "mpirun.sh",
    "slurm.sh",
    "torchrun.sh",
    "megatron.sh",
    "kubernetes.yaml",
];

/// A class of devices as it is launched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceClass {
    /// Its name in the plan.
    pub name: String,
    /// Its accelerator in the tables.
    pub accelerator: String,
    /// Devices that there are.
    pub devices: u64,
    /// Devices of a host.
    pub host_devices: u32,
    /// Devices that the fabric inside a box or rack joins; at least those of a host.
    pub domain_devices: u32,
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchFile {
    /// Its path inside the folder of launch files: the job's name and its own.
    pub path: String,
    /// What stands in it.
    pub text: String,
}

/// Why there are no launch files.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// A line of a list of hosts.
    #[error(
        "line {line} of the list of hosts: {why}\nhint: each line names a host or a range, its \
         class and its devices: `gpu[001-128] h100 8`"
    )]
    BadHostLine {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A list without hosts that could be used.
    #[error(
        "the list of hosts has none of the plan's classes\nhint: the second word of a line is one \
         of {classes}"
    )]
    NoHosts {
        /// The classes of the plan.
        classes: String,
    },
    /// More ranks than hosts have devices for.
    #[error(
        "job {job} has {ranks} ranks on {class}, but the hosts take only {placed} of them\nhint: \
         name more hosts of {class} with `--hosts`; {group} ranks that share each matrix have to \
         stand in one host or scale-up domain"
    )]
    TooFewDevices {
        /// The job.
        job: String,
        /// The class.
        class: String,
        /// Ranks that are to stand on it.
        ranks: u64,
        /// Those that found a place.
        placed: u64,
        /// Ranks of a tensor-parallel group.
        group: u32,
    },
    /// A plan that names what is not there.
    #[error("the plan has no class `{class}`\nhint: write it again with `laggard plan -o DIR`")]
    UnknownClass {
        /// What is named.
        class: String,
    },
}

/// A job with what its files are made from.
struct Job<'a> {
    planned: &'a PlannedJob,
    layout: Layout,
    classes: &'a [DeviceClass],
    /// Where the job's model is in the tables, its shape.
    model: Option<&'a Model>,
    hosts: &'a Hosts,
    placement: Placement,
    /// What is done with the cluster, in words.
    option: &'a str,
    /// The option's number on the page, where it is not the answer.
    number: Option<usize>,
}

/// The classes of a plan.
#[must_use]
pub fn device_classes(plan: &PlanFile) -> Vec<DeviceClass> {
    let of = |class: &crate::file::PlannedClass| {
        let host = u32::try_from(class.node_devices).unwrap_or(u32::MAX).max(1);
        DeviceClass {
            name: class.name.clone(),
            accelerator: class.accelerator.clone(),
            devices: class.count,
            host_devices: host,
            domain_devices: class.domain_devices.unwrap_or(host).max(host),
        }
    };
    plan.classes.iter().map(of).collect()
}

/// The launch files of every job of an option, and the table of the hosts that serve, are leased,
/// in reserve or off.
///
/// # Errors
/// Where the hosts have not enough devices.
pub fn launch_files(
    plan: &PlanFile,
    option: &PlannedOption,
    hosts: &Hosts,
    tables: &Tables,
) -> Result<Vec<LaunchFile>, LaunchError> {
    let classes = device_classes(plan);
    let is_answer = *option == plan.options[plan.chosen];
    let mut free = Free::new(hosts, &classes);
    let places = option.jobs.iter().map(|planned| {
        let layout = planned.layout();
        let placement = free.place(planned, &layout);
        placement.map(|placement| (layout, placement))
    });
    let places: Vec<(Layout, Placement)> = places.collect::<Result<_, _>>()?;
    let placements = places.iter().map(|(_, placement)| placement);
    let others = others::table(option, (hosts, &classes), placements);
    let mut files = Vec::new();
    for (planned, (layout, placement)) in option.jobs.iter().zip(places) {
        let job = Job {
            planned,
            layout,
            classes: &classes,
            model: tables.model(&planned.model).ok(),
            hosts,
            placement,
            option: &option.name,
            number: option.number.filter(|_| !is_answer),
        };
        files.extend(files_of(&job));
    }
    files.extend(others);
    Ok(files)
}

fn files_of(job: &Job<'_>) -> Vec<LaunchFile> {
    let folder = &job.planned.name;
    let texts = [
        Some(overview::text(job)),
        Some(job.placement_table()),
        Some(mpi::open_mpi_hosts(job)),
        mpi::open_mpi_ranks(job),
        Some(mpi::mpich_hosts(job)),
        Some(mpi::script(job)),
        Some(slurm::script(job)),
        Some(torchrun::script(job)),
        megatron::script(job).ok(),
        kubernetes::manifest(job).ok(),
    ];
    let file = |(name, text): (&str, Option<String>)| {
        Some(LaunchFile {
            path: format!("{folder}/{name}"),
            text: text?,
        })
    };
    FILE_NAMES.into_iter().zip(texts).filter_map(file).collect()
}

#[cfg(test)]
mod tests;
