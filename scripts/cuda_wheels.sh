#!/usr/bin/env bash
# Fetches what kernels are compiled and inspected with on a machine without CUDA, as wheels from
# wherever pip is configured to get them: NVRTC of two generations, NVIDIA's disassembler, NCCL.
# A second run is quick. Prints the folder, where tests find it by themselves; laggard does so through
# LAGGARD_CUDA_PATH.
#
#   scripts/cuda_wheels.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# NVRTC 12 is the last that compiles for sm_70. The cubins of 13.0 load with every driver of CUDA 13.
wheels=(
    nvidia-cuda-nvrtc==13.0.88
    nvidia-cuda-nvrtc-cu12==12.9.86
    nvidia-cuda-cuobjdump==13.5.37
    nvidia-cuda-nvdisasm==13.5.37
    nvidia-nccl-cu13==2.30.7
)
folder=$PWD/target/cuda-wheels
stamp=$folder/.wheels

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "${wheels[*]}" ]; then
    printf '%s\n' "$folder"
    exit 0
fi
if ! python3 -m pip --version >/dev/null 2>&1; then
    printf '!! wheels are fetched with pip, which is not here\n' >&2
    printf 'hint: install python3-pip, or a CUDA toolkit instead of the wheels\n' >&2
    exit 1
fi

printf '== fetching %s\n' "${wheels[*]}" >&2
mkdir -p "$PWD/target"
fresh=$(mktemp -d "$PWD/target/cuda-wheels.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
# All at once: the wheels share a folder, and a second --target would replace what the first left.
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
    --no-compile --only-binary :all: --target "$fresh" "${wheels[@]}" >&2
printf '%s' "${wheels[*]}" >"$fresh/.wheels"
rm -rf "$folder"
mv "$fresh" "$folder"
printf '%s\n' "$folder"
