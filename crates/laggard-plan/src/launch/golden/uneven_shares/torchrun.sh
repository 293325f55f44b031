#!/bin/bash
# Starts this host's part of the job, on every host:
#   ./torchrun.sh SCRIPT.py ARGUMENTS...     (--no-python PROGRAM for what is no Python)
# LAGGARD_HOST: this host's name in nodes.tsv [Slurm's, or hostname -s]; LAGGARD_NODES:
# another table of hosts; MASTER_ADDR, MASTER_PORT: where rank 0 is met [its host,
# 29500].
#
# Job job-1 of "one job": 40 ranks, dp10,tp4,zero1,sp.
# HOST NAMES ARE PLACEHOLDERS: put yours in their places, or plan again with
# `--hosts FILE`, one line for each host or range: `gpu[001-128] h100 8`.
#
# What it amounts to, for each group of hosts:
# h100-[0001-0004]: torchrun --nnodes=6 --node-rank={0..3} --nproc-per-node=8
# gb200-[0001-0002]: torchrun --nnodes=6 --node-rank={4..5} --nproc-per-node=4
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
table=${LAGGARD_NODES:-$here/nodes.tsv}
self=${LAGGARD_HOST:-${SLURMD_NODENAME:-$(hostname -s)}}
agents=$(grep -vc '^#' "$table")
master=${MASTER_ADDR:-$(awk '!/^#/ {print $2; exit}' "$table")}
mine=$(awk -v self="$self" '
    !/^#/ { split($2, name, "."); if ($2 == self || name[1] == self) print $1, $6, $7 }' "$table")
if [ -z "$mine" ]; then
    echo "torchrun.sh: $self is not in $table" >&2
    exit 1
fi
started=()
while read -r agent ranks device; do
    CUDA_VISIBLE_DEVICES=$(seq -s, "$device" $((device + ranks - 1))) \
        torchrun --nnodes="$agents" --node-rank="$agent" --nproc-per-node="$ranks" \
        --master-addr="$master" --master-port="${MASTER_PORT:-29500}" "$@" &
    started+=($!)
done <<<"$mine"
status=0
for agent in "${started[@]}"; do
    wait "$agent" || status=$?
done
exit "$status"
