#!/usr/bin/env bash
# The gate: everything that a change must pass. Runs from any directory, on a bare Debian or Ubuntu
# machine with a Rust toolchain; it says what it installs and leaves alone what is there.
#
#   LAGGARD_TRACES=DIR        real traces for the tests of `laggard import`
#   LAGGARD_REQUIRE=traces    fail instead of passing those tests over without traces
#   LAGGARD_SKIP_MPI=1        leave out everything that needs an MPI library
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n== %s\n' "$*" >&2; }
loud() { printf '\n!! %s\n' "$*" >&2; }

# rustup puts cargo here; a non-login shell may not have it in PATH.
if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi
if ! command -v cargo >/dev/null; then
    loud "cargo not found"
    printf 'hint: install a Rust toolchain from https://rustup.rs\n' >&2
    exit 1
fi

# Whether Debian packages can be installed here.
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo -n)
fi
can_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
}
install() {
    say "installing $* with apt-get: $why"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# rustc links with cc; kernels for GPUs are executed on the CPU by way of c++.
if ! command -v cc >/dev/null || ! command -v c++ >/dev/null; then
    if ! can_install; then
        loud "no C and C++ compilers (cc, c++), and no way to install them here"
        printf 'hint: install g++ and the headers of libc, then run this again\n' >&2
        exit 1
    fi
    why="there is no cc or no c++" install g++ libc6-dev
fi

# Two MPI libraries with their launchers, what rsmpi is built with, and what makes several hosts out
# of one machine.
with_mpi=yes
if [ "${LAGGARD_SKIP_MPI:-0}" = 1 ]; then
    with_mpi=no
    loud "SKIPPED: nothing is tested over MPI (LAGGARD_SKIP_MPI)"
elif ! command -v mpicc.openmpi >/dev/null || ! command -v mpicc.mpich >/dev/null ||
    ! command -v ip >/dev/null || ! compgen -G "/usr/lib/llvm-*/lib/libclang*.so*" >/dev/null; then
    if can_install; then
        why="tests over MPI need them" install openmpi-bin libopenmpi-dev mpich libmpich-dev \
            libclang-dev iproute2
    else
        with_mpi=no
        loud "SKIPPED: nothing is tested over MPI (hint: install openmpi-bin libopenmpi-dev mpich" \
            "libmpich-dev libclang-dev iproute2)"
    fi
fi

# What kernels for GPUs are compiled and inspected with: no GPU is needed.
if ! python3 -m pip --version >/dev/null 2>&1 && can_install; then
    why="compilers of CUDA come as wheels" install python3-pip
fi
if scripts/cuda_wheels.sh >/dev/null; then
    LAGGARD_REQUIRE="${LAGGARD_REQUIRE:+$LAGGARD_REQUIRE,}cuda"
    export LAGGARD_REQUIRE
else
    loud "SKIPPED: kernels for GPUs are not compiled (hint: see above)"
fi

if cargo fmt --version >/dev/null 2>&1; then
    say "cargo fmt"
    cargo fmt --all --check
else
    loud "SKIPPED: formatting is not checked (hint: rustup component add rustfmt)"
fi

if cargo clippy --version >/dev/null 2>&1; then
    say "cargo clippy"
    cargo clippy --workspace --all-targets --locked -- -D warnings
else
    loud "SKIPPED: lints are not checked (hint: rustup component add clippy)"
fi

if [ "$with_mpi" = yes ]; then
    say "the libraries for Open MPI and MPICH"
    scripts/build_mpi.sh all --profile dev
    LAGGARD_REQUIRE="${LAGGARD_REQUIRE:+$LAGGARD_REQUIRE,}mpi"
    export LAGGARD_REQUIRE
fi

say "cargo test"
cargo test --workspace --locked --no-fail-fast

# The full campaign is in benches/runs. So few trials can only refute: they fail where even the upper
# end of the interval is below what is promised, where the machine itself was even enough to know
# who was slow.
say "recall on real runs, two trials of each kind"
cargo run --quiet --locked -p laggard-benches --bin recall -- \
    --layouts dp --trials 2 --clean 6 --require-upper 0.90

say "recall over parallel layouts, some trials"
cargo run --quiet --locked -p laggard-benches --bin recall -- \
    --layouts pp,interleaved,tp,tp+sp,cp,ep,zero1,zero2,zero3,products \
    --trials 1 --at-most 13 --clean 1 --require-upper 0.90

say "replays of random layouts, some records"
cargo run --quiet --locked -p laggard-benches --bin replay_error -- \
    --records 9 --most-ranks 2 --steps 40 --require-median 0.02

# Libraries alone: the doc comments of the binary's arguments are the text of --help.
say "cargo doc"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --lib --no-deps --locked --quiet

# A CPU quota and a slow link, made by the machine. Over Open MPI one of three trials of each kind
# must be right; MPICH is asked only to get through, as its figures vary more.
limits() {
    say "a CPU quota and a slow link over $1"
    local status=0
    cargo run --quiet --locked -p laggard-benches --bin cluster_recall -- \
        --mpi "$1" --trials "$2" --require "$3" || status=$?
    if [ "$status" -eq 77 ]; then
        loud "SKIPPED: this machine cannot make several hosts (hint: run as root)"
    elif [ "$status" -ne 0 ]; then
        exit "$status"
    fi
}
if [ "$with_mpi" = yes ]; then
    limits openmpi 3 1
    limits mpich 1 0
fi

say "all passed"
