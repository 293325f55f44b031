#!/bin/bash
#SBATCH --job-name=job-1
#SBATCH --nodes=5 --exclusive
#SBATCH --nodelist=a[1-3],b[1-2]
# Submit it from this folder:
#   sbatch slurm.sh                          rehearses the plan
#   sbatch slurm.sh COMMAND...               one process for each rank
#   sbatch slurm.sh torchrun SCRIPT.py ...   torchrun's agents, one process for each host
# SLURM_MPI_TYPE chooses the process manager: pmix for Open MPI, pmi2 for MPICH.
#
# Job job-1 of "one job": 32 ranks, dp4,tp4,pp2,zero1,sp.
set -euo pipefail
here=${LAGGARD_LAUNCH:-$SLURM_SUBMIT_DIR}
nodes=$here/nodes.tsv
order=$here/ranks.$SLURM_JOB_ID
awk '!/^#/ { for (at = 0; at < $6; at++) print $2 }' "$nodes" >"$order"
ranks() {
    SLURM_HOSTFILE=$order srun --kill-on-bad-exit=1 --gpus=32 --ntasks=32 \
        --distribution=arbitrary "$@"
}
agents() {
    srun --kill-on-bad-exit=1 --gpus=32 --ntasks="$SLURM_JOB_NUM_NODES" \
        --ntasks-per-node=1 "$@"
}
[ $# -gt 0 ] || set -- laggard run --plan "$here/../../plan.json" --job job-1
if [ "$1" = torchrun ]; then
    shift
    export LAGGARD_NODES=$nodes
    agents bash "$here/torchrun.sh" "$@"
else
    ranks "$@"
fi
