#!/usr/bin/env bash
# Checks laggard on the first GPU of this machine, from a folder that scripts/device_pack.sh made:
# what is here, kernels against their twins, the device, collectives of several ranks on the GPU,
# speed against cuBLASLt and the driver, single calls, whole runs with their analysis, and plans that
# are calibrated on them. Ends within 8 minutes.
#
#   DIR/device_check.sh RESULTS
#
# RESULTS gets README.md, with a line for each check and the figures that have a goal, and what each
# check printed and recorded. Without a GPU, each line says so. Needs the NVIDIA driver, and NVRTC and NCCL here or among the wheels of the folder; no network.
set -uo pipefail

if [ $# -ne 1 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "$1"
results="$(cd "$1" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME="$work/cache"
ends=$((SECONDS + 470))

# Wheels are archives, which python3 unpacks.
for wheel in "$here"/wheels/*.whl; do
    [ -e "$wheel" ] && python3 -m zipfile -e "$wheel" "$work/wheels"
done
chmod -R u+x "$work"/wheels/*.data/*/bin "$work"/wheels/bin 2>/dev/null

# Folders that hold CUDA's libraries: those of the wheels, and wherever else Python has them.
if [ -z "${LAGGARD_CUDA_PATH:-}" ]; then
    found="$(find "$work/wheels" /usr/local /opt /usr/lib /root/.local /home -xdev \
        \( -name 'libnvrtc.so.1?' -o -name 'libnccl.so.2' -o -name 'libcublasLt.so.1?' \) \
        -printf '%h\n' 2>/dev/null | sort -u | paste -s -d :)"
    export LAGGARD_CUDA_PATH="$found"
fi

readme="$results/README.md"
{
    echo "# Checks on a GPU"
    echo
    echo "Made by \`scripts/device_check.sh\` on $(date -u +%F), commit $(cat "$here/commit")."
    echo
    echo '```'
    nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit --format=csv 2>&1 ||
        echo "no nvidia-smi here"
    uname -srm
    echo '```'
    echo
    echo "| check | outcome | seconds | printed |"
    echo "|---|---|---|---|"
} >"$readme" 2>&1

# Why a check was not run, in the words of what it printed.
reason() {
    sed -n 's/^SKIPPED: //p; s/^error: //p' "$results/$1.txt" | head -n 1 | tr '|' '/'
}

# check NAME LIMIT COMMAND...: runs it, keeps what it prints, and notes what became of it.
# Once it is known why nothing runs on a GPU here (`gap`), only doctor's word is asked for.
failed=0
gap=""
check() {
    local name="$1" limit="$2" begin=$SECONDS outcome
    shift 2
    local left=$((ends - SECONDS))
    if [ -n "$gap" ]; then
        echo "SKIPPED: $gap" >"$results/$name.txt"
        outcome="not run: $gap"
    elif [ "$left" -le 5 ]; then
        outcome="not run: no time left"
    else
        timeout -k 5 $((limit < left ? limit : left)) "$@" >"$results/$name.txt" 2>&1
        case $? in
            0) outcome=pass ;;
            77) outcome="not run: $(reason "$name")" ;;
            124 | 137) outcome="fail: over its time" failed=1 ;;
            *) outcome="fail: exit code $?" failed=1 ;;
        esac
        if [ "$outcome" = pass ] && grep -q '^SKIPPED' "$results/$name.txt"; then
            outcome="not run: $(reason "$name")"
        fi
    fi
    echo "| $name | $outcome | $((SECONDS - begin)) | [$name.txt]($name.txt) |" >>"$readme"
    printf '%-28s %s\n' "$name" "$outcome" >&2
}

# run NAME LIMIT ARGUMENTS...: a run and the analysis of its record, which is kept if it is small.
run() {
    local name="$1" limit="$2"
    shift 2
    local record="$work/$name"
    check "$name" "$limit" "$here/laggard" run --device gpu --quiet -o "$record" "$@"
    [ -e "$record/manifest.json" ] || return
    check "$name-analysis" 30 "$here/laggard" analyze "$record" --html "$results/$name.html"
    if [ "$(du -sm "$record" | cut -f 1)" -le 4 ]; then
        tar -C "$work" -czf "$results/$name.tar.gz" "$name"
    fi
}

# bench NAME LIMIT ARGUMENTS...: single calls; the result is kept, its samples are if they are small.
bench() {
    local name="$1" limit="$2"
    shift 2
    check "$name" "$limit" "$here/laggard" bench --device gpu --quiet --output "$work/$name" "$@"
    [ -e "$work/$name/bench.json" ] || return
    mkdir -p "$results/$name"
    cp "$work/$name/bench.json" "$results/$name"
    tar -C "$work" -czf "$results/$name/samples.tar.gz" "$name/samples.json"
}

check doctor 30 "$here/laggard" doctor
# Without a GPU this says so at once, and nothing else needs to find out again.
check kernels 150 "$here/gpu_kernels" "$results/kernels.csv"
gap="$(reason kernels)"
[ -e "$results/kernels.csv" ] && gap=""
LAGGARD_REQUIRE=gpu check device 100 "$here/device_checks" --nocapture --test-threads 1
check step_graph 60 "$here/step_graph" "$results/step_graph.csv"
bench compute 60 --ranks 1 --only gemm,triad --gemm 8192 --model llama3-8b
run small 40 --ranks 1 --model small --steps 300
run llama3-8b 60 --ranks 1 --model llama3-8b --layers 8 --sequence-length 4096 --micro-batches 4 \
    --steps 60
# Which class of a cluster this GPU is: what `simulate` and `plan` then take from its own figures.
class="$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)"
calibrated=(--accelerator "$class" --gpus 8 --model llama3-8b --sequence-length 4096)
check calibrate-bench 30 "$here/laggard" simulate "${calibrated[@]}" --calibrate "$work/compute"
check calibrate-run 30 "$here/laggard" simulate "${calibrated[@]}" --calibrate "$work/small"
check plan 60 "$here/laggard" plan --cluster colossus-1 --model llama3-8b \
    --calibrate "$work/compute"
export NCCL_MULTI_RANK_GPU_ENABLE=1
run two-ranks 40 --ranks 2 --model small --steps 200
run tensor-parallel 40 --layout tp2 --model small --steps 100
run emulated-mix 40 --classes h200:1,h100:1 --model small --steps 200 --inject slow-rank:1:1.3
bench collectives 60 --ranks 2 --only collectives,pairs -b 8 -e 128M -f 8
if command -v all_reduce_perf >/dev/null && [ "$(nvidia-smi -L 2>/dev/null | wc -l)" -ge 2 ]; then
    check nccl_tests 30 all_reduce_perf -g 2 -b 8 -e 128M -f 8 -n 100 -w 5
fi
launcher="$(find "$work/wheels" -name mpirun -type f 2>/dev/null | head -n 1)"
if [ -n "$launcher" ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    libraries="$(dirname "$launcher")/../lib"
    export LD_LIBRARY_PATH="$libraries:${LD_LIBRARY_PATH:-}"
    check mpirun 60 "$launcher" -n 2 --oversubscribe "$here/laggard" run --device gpu \
        --model small --steps 100 -o "$work/mpirun"
fi
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        check "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$here/device_checks" --nocapture every_kernel
    done
fi
[ -n "$gap" ] || nvidia-smi -q >"$results/nvidia-smi.txt" 2>&1
{
    echo
    echo "## Figures that have a goal"
    echo
    python3 "$here/device_figures.py" "$results"
} >>"$readme" 2>&1
cat "$readme" >&2
exit "$failed"
