#!/bin/bash
#SBATCH --job-name=job-1
#SBATCH --nodes=4 --ntasks-per-node=8 --gpus-per-node=8
#SBATCH --constraint=h100 --exclusive
#SBATCH hetjob
#SBATCH --nodes=2 --ntasks-per-node=4 --gpus-per-node=4
#SBATCH --constraint=gb200 --exclusive
# Submit it from this folder:
#   sbatch slurm.sh                          rehearses the plan
#   sbatch slurm.sh COMMAND...               one process for each rank
#   sbatch slurm.sh torchrun SCRIPT.py ...   torchrun's agents, one process for each host
# SLURM_MPI_TYPE chooses the process manager: pmix for Open MPI, pmi2 for MPICH.
#
# Job job-1 of "one job": 40 ranks, dp10,tp4,zero1,sp.
# It takes for granted that hosts have their class as a feature in Slurm (h100, gb200): change
# --constraint where they are called otherwise.
set -euo pipefail
here=${LAGGARD_LAUNCH:-$SLURM_SUBMIT_DIR}
nodes=$here/nodes.$SLURM_JOB_ID.tsv
names() {
    scontrol show hostnames "$SLURM_JOB_NODELIST_HET_GROUP_0"
    scontrol show hostnames "$SLURM_JOB_NODELIST_HET_GROUP_1"
}
# The table of hosts with the names that Slurm gave, in its order, which is the plan's.
names | awk '
    NR == FNR { name[++count] = $1; next }
    /^#/ { next }
    { $2 = name[++at]; print }' OFS='\t' - "$here/nodes.tsv" >"$nodes"
# Hosts of each component, and ranks on each of its hosts.
hosts=(4 2)
each=(8 4)
# Starts a command on all components, so many processes on each of their hosts.
start() {
    local per_host=$1 step=() at tasks
    shift
    for at in "${!hosts[@]}"; do
        [ "$per_host" = all ] && tasks=${each[at]} || tasks=$per_host
        [ "$at" = 0 ] || step+=(:)
        step+=("--het-group=$at" "--nodes=${hosts[at]}" "--ntasks=$((hosts[at] * tasks))"
            "--ntasks-per-node=$tasks" --distribution=block "$@")
    done
    srun --kill-on-bad-exit=1 "${step[@]}"
}
ranks() { start all "$@"; }
agents() { start 1 "$@"; }
[ $# -gt 0 ] || set -- laggard run --plan "$here/../../plan.json" --job job-1
if [ "$1" = torchrun ]; then
    shift
    export LAGGARD_NODES=$nodes
    agents bash "$here/torchrun.sh" "$@"
else
    ranks "$@"
fi
