//! The script that starts torchrun's agents on a host.

use std::fmt::Write;

use super::{Job, host_list};

/// Lines that name groups of hosts, in a script's comment; of more there are too many to read.
const SHOWN_GROUPS: usize = 40;

/// Starts the agents of the host that it runs on. A host whose ranks are in two places of the
/// order has two agents, each with its own devices. Global ranks go by the agents' ranks and their
/// numbers of processes, which may differ. Source: PyTorch, torch/distributed/elastic/agent/server/
/// api.py, `_assign_worker_ranks`; torchrun's options: docs.pytorch.org/docs/stable/elastic/run.
pub(super) fn script(job: &Job<'_>) -> String {
    let about = job.heading_of_names(
        "Starts this host's part of the job, on every host:\n\
         #   ./torchrun.sh SCRIPT.py ARGUMENTS...     (--no-python PROGRAM for what is no Python)\n\
         # LAGGARD_HOST: this host's name in nodes.tsv [Slurm's, or hostname -s]; LAGGARD_NODES:\n\
         # another table of hosts; MASTER_ADDR, MASTER_PORT: where rank 0 is met [its host,\n\
         # 29500].",
    );
    let mut groups = String::new();
    for line in group_lines(job) {
        _ = writeln!(groups, "# {line}");
    }
    format!(
        r#"#!/bin/bash
{about}#
# What it amounts to, for each group of hosts:
{groups}set -euo pipefail
here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
table=${{LAGGARD_NODES:-$here/nodes.tsv}}
self=${{LAGGARD_HOST:-${{SLURMD_NODENAME:-$(hostname -s)}}}}
agents=$(grep -vc '^#' "$table")
master=${{MASTER_ADDR:-$(awk '!/^#/ {{print $2; exit}}' "$table")}}
mine=$(awk -v self="$self" '
    !/^#/ {{ split($2, name, "."); if ($2 == self || name[1] == self) print $1, $6, $7 }}' "$table")
if [ -z "$mine" ]; then
    echo "torchrun.sh: $self is not in $table" >&2
    exit 1
fi
started=()
while read -r agent ranks device; do
    CUDA_VISIBLE_DEVICES=$(seq -s, "$device" $((device + ranks - 1))) \
        torchrun --nnodes="$agents" --node-rank="$agent" --nproc-per-node="$ranks" \
        --master-addr="$master" --master-port="${{MASTER_PORT:-29500}}" "$@" &
    started+=($!)
done <<<"$mine"
status=0
for agent in "${{started[@]}}"; do
    wait "$agent" || status=$?
done
exit "$status"
"#
    )
}

/// torchrun's line for each group of hosts that are alike.
pub(super) fn group_lines(job: &Job<'_>) -> Vec<String> {
    let segments = job.placement.alike(job.hosts);
    let (agents, count) = (job.placement.places.len(), segments.len());
    let line = |segment: &super::placement::Segment| {
        let places = &job.placement.places[segment.first..segment.first + segment.hosts];
        let names = places.iter().map(|place| job.host(place).name.as_str());
        let last = segment.first + segment.hosts - 1;
        let which = match segment.hosts {
            1 => segment.first.to_string(),
            _ => format!("{{{}..{last}}}", segment.first),
        };
        format!(
            "{}: torchrun --nnodes={agents} --node-rank={which} --nproc-per-node={}",
            host_list::compress(names),
            segment.ranks,
        )
    };
    let mut lines: Vec<String> = segments.iter().take(SHOWN_GROUPS).map(line).collect();
    if count > SHOWN_GROUPS {
        lines.push(format!(
            "and {} groups more: nodes.tsv has all",
            count - SHOWN_GROUPS
        ));
    }
    lines
}
