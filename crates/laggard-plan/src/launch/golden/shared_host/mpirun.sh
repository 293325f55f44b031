#!/bin/bash
# Starts the job's ranks in the plan's order:
#   ./mpirun.sh openmpi|mpich [COMMAND...]
# Without a command it rehearses the plan. MPIRUN names another mpirun or mpiexec.
#
# Job job-1 of "one job": 32 ranks, dp4,tp4,pp2,zero1,sp.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mpi=${1:?say openmpi or mpich}
shift
[ $# -gt 0 ] || set -- laggard run --plan "$here/../../plan.json" --job job-1
case $mpi in
openmpi)
    exec "${MPIRUN:-mpirun}" -n 32 --hostfile "$here/openmpi.hostfile" \
        --rankfile "$here/openmpi.rankfile" "$@"
    ;;
mpich)
    exec "${MPIRUN:-mpiexec}" -n 32 -f "$here/mpich.hostfile" -bind-to none "$@"
    ;;
*)
    echo "mpirun.sh: say openmpi or mpich, not $mpi" >&2
    exit 2
    ;;
esac
