#!/usr/bin/env bash
# Builds laggard's MPI plugin, once per MPI, and puts it beside the binaries. Installs what is
# missing with apt-get, and leaves alone what is there. A second run is quick.
#
#   scripts/build_mpi.sh [openmpi|mpich|all] [--profile release|dev]
#
# The default is `all` and `release`. The plugin itself is always optimised; the profile says beside
# which binaries it goes: target/release or target/debug.
#
#   MPICC=PATH    the compiler wrapper of another MPI of the family that is named, such as one in
#                 /opt; its packages are then not installed
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*" >&2; }
die() {
    printf '!! %s\n' "$1" >&2
    shift
    for hint in "$@"; do printf 'hint: %s\n' "$hint" >&2; done
    exit 1
}
usage() { die "$1" "usage: scripts/build_mpi.sh [openmpi|mpich|all] [--profile release|dev]"; }

flavors=(openmpi mpich)
profile=release
while [ $# -gt 0 ]; do
    case "$1" in
        all) flavors=(openmpi mpich) ;;
        openmpi | mpich) flavors=("$1") ;;
        --profile)
            [ $# -ge 2 ] || usage "--profile needs a value"
            profile=$2
            shift
            ;;
        *) usage "unknown argument: $1" ;;
    esac
    shift
done
case "$profile" in
    release) folder=target/release ;;
    dev) folder=target/debug ;;
    *) usage "unknown profile: $profile" ;;
esac
if [ -n "${MPICC:-}" ] && [ "${#flavors[@]}" -ne 1 ]; then
    usage "MPICC is that of one MPI: say which"
fi

# rustup puts cargo here; a non-login shell may not have it in PATH.
if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi
command -v cargo >/dev/null ||
    die "cargo not found" "install a Rust toolchain from https://rustup.rs"

# A system's libclang; bindgen, inside rsmpi, reads mpi.h with it.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] || ldconfig -p 2>/dev/null | grep -q 'libclang[-.0-9]*\.so' ||
        compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null
}

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
has_libclang || missing+=(libclang-dev)
for flavor in "${flavors[@]}"; do
    if [ -z "${MPICC:-}" ]; then
        command -v "mpicc.$flavor" >/dev/null || missing+=("lib$flavor-dev")
        command -v "mpirun.$flavor" >/dev/null || case "$flavor" in
            openmpi) missing+=(openmpi-bin) ;;
            mpich) missing+=(mpich) ;;
        esac
    fi
done
if [ "${#missing[@]}" -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
    fi
    if ! command -v apt-get >/dev/null || { [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; }
    then
        die "missing, and no way to install it here: ${missing[*]}" \
            "for an MPI elsewhere, name its compiler wrapper: MPICC=/opt/.../bin/mpicc" \
            "for a libclang elsewhere, name its folder: LIBCLANG_PATH=/opt/.../lib"
    fi
    say "installing with apt-get: ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

# A libclang without its own headers (a lone library) takes those of gcc.
export BINDGEN_EXTRA_CLANG_ARGS="${BINDGEN_EXTRA_CLANG_ARGS:--I$(cc -print-file-name=include)}"
mkdir -p "$folder"
for flavor in "${flavors[@]}"; do
    plugin="liblaggard_mpi_$flavor.so"
    say "$plugin"
    # A target folder per MPI: what rsmpi generates is that MPI's.
    MPICC="${MPICC:-mpicc.$flavor}" CARGO_TARGET_DIR="$PWD/target/mpi/$flavor" \
        cargo build --release --locked --quiet --manifest-path crates/laggard-mpi/plugin/Cargo.toml
    # Renamed into place: the file that is there may be in use.
    cp "target/mpi/$flavor/release/liblaggard_mpi_plugin.so" "$folder/$plugin.new"
    mv "$folder/$plugin.new" "$folder/$plugin"
    say "in $folder/$plugin"
done
