//! What the launch files of a job are, in words: the head of each, and the file to read first.

use std::fmt::Write;

use super::{Job, megatron, torchrun};

/// What files say whose names of hosts are stand-ins.
pub(super) const PLACEHOLDERS: &str = "\
# HOST NAMES ARE PLACEHOLDERS: put yours in their places, or plan again with
# `--hosts FILE`, one line for each host or range: `gpu[001-128] h100 8`.
";

impl Job<'_> {
    /// The comment at the top of a file: what it is, and of which job.
    pub(super) fn heading(&self, what: &str) -> String {
        let (name, ranks) = (&self.planned.name, self.planned.ranks());
        let of = format!(
            "Job {name} of \"{}\": {ranks} ranks, {}.",
            self.option, self.layout
        );
        format!("# {what}\n#\n# {of}\n")
    }

    /// The comment at the top of a file with names of hosts: also whether they are real.
    pub(super) fn heading_of_names(&self, what: &str) -> String {
        let heading = self.heading(what);
        match self.hosts.are_placeholders {
            true => heading + PLACEHOLDERS,
            false => heading,
        }
    }

    /// The command that rehearses the job, with the folder that the plan is in.
    pub(super) fn rehearsal(&self, folder: &str) -> String {
        let name = &self.planned.name;
        let option = self
            .number
            .map(|it| format!(" --option {it}"))
            .unwrap_or_default();
        format!("laggard run --plan \"{folder}/plan.json\"{option} --job {name}")
    }

    /// What a script does without a command, and the line of shell that does it: it rehearses the
    /// plan in the folder where that is possible.
    pub(super) fn by_default(&self, folder: &str) -> (&'static str, String) {
        match self.planned.unrehearsed() {
            None => (
                "rehearses the plan",
                format!("[ $# -gt 0 ] || set -- {}", self.rehearsal(folder)),
            ),
            Some(why) => (
                "says why the plan cannot be rehearsed",
                format!(
                    "[ $# -gt 0 ] || {{ echo '{}' >&2; exit 2; }}",
                    without_command(why)
                ),
            ),
        }
    }
}

/// What a script says that was given no command, without a quotation mark that would end it.
fn without_command(why: &str) -> String {
    let why = why.replace('\'', "");
    format!("give a command to start: the plan cannot be rehearsed, as {why}")
}

/// The file to read first.
pub(super) fn text(job: &Job<'_>) -> String {
    let planned = job.planned;
    let mut text = format!(
        "Job {}: {} on {} ranks, {}\n",
        planned.name,
        planned.model,
        planned.ranks(),
        job.layout
    );
    _ = writeln!(
        text,
        "{} sequences of {} tokens a step, micro-batches of {}\n",
        planned.global_batch_sequences, planned.sequence_length, planned.degrees.micro_batch
    );
    text.push_str("Hosts, in the order of ranks:\n");
    for line in torchrun::group_lines(job) {
        let (hosts, command) = line.split_once(": ").unwrap_or((&line, ""));
        _ = writeln!(text, "  {hosts}\n    {command}");
    }
    if job.hosts.are_placeholders {
        text.push_str(
            "\nThese names are placeholders. `laggard plan ... --hosts FILE` puts yours in; \
             slurm.sh\nneeds none. A line of FILE names a host or a range, its class and its \
             devices:\n`gpu[001-128] h100 8`; `sinfo -N -h -o \"%N %f %G\"` prints such a list.\n",
        );
    }
    text.push_str("\nFiles:\n");
    let mut file = |name: &str, what: &str| _ = writeln!(text, "  {name:<18}{what}");
    file(
        "nodes.tsv",
        "which host starts which ranks; the scripts read it",
    );
    file("mpirun.sh", "starts the ranks with Open MPI or MPICH");
    file("openmpi.hostfile", "Open MPI's hosts");
    if super::mpi::open_mpi_ranks(job).is_some() {
        file("openmpi.rankfile", "Open MPI's ranks with their cores");
    }
    file("mpich.hostfile", "MPICH's hosts");
    file("slurm.sh", "batch script");
    file("torchrun.sh", "starts a host's torchrun agents");
    match megatron::script(job) {
        Ok(_) => file("megatron.sh", "Megatron-LM's arguments"),
        Err(why) => file("(no megatron.sh)", &why),
    }
    match super::kubernetes::manifest(job) {
        Ok(_) => file("kubernetes.yaml", "Jobs with node selectors"),
        Err(why) => file("(no kubernetes)", &why),
    }
    match job.planned.unrehearsed() {
        None => {
            text.push_str("\nRehearse before training: ./mpirun.sh openmpi, or sbatch slurm.sh, ");
            _ = writeln!(text, "runs\n  {}", job.rehearsal("DIR"));
        }
        Some(why) => _ = writeln!(text, "\nIt cannot be rehearsed: {why}."),
    }
    let group = job.layout.tensor_parallel;
    let spans = job
        .placement
        .places
        .iter()
        .any(|place| place.ranks % group != 0);
    if spans {
        _ = writeln!(
            text,
            "\n{group} ranks share each matrix, more than a host has: their hosts have to be in \
             one\nscale-up domain. Of Slurm with topology/block ask for that with --segment."
        );
    }
    text
}
