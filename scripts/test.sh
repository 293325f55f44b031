#!/usr/bin/env bash
# The gate: everything that a change must pass. Runs from any directory, on a bare Debian or Ubuntu
# machine with a Rust toolchain; it says what it installs and leaves alone what is there.
#
#   LAGGARD_TRACES=DIR        real traces for the tests of `laggard import`
#   LAGGARD_REQUIRE=traces    fail instead of passing those tests over without traces
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

# rustc links with cc; nothing else is needed.
if ! command -v cc >/dev/null; then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
    fi
    if ! command -v apt-get >/dev/null || { [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; }
    then
        loud "no C compiler (cc), and no way to install one here"
        printf 'hint: install gcc and the headers of libc, then run this again\n' >&2
        exit 1
    fi
    say "installing gcc and libc6-dev with apt-get: there is no cc"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends gcc libc6-dev
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

say "cargo test"
cargo test --workspace --locked

# Libraries alone: the doc comments of the binary's arguments are the text of --help.
say "cargo doc"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --lib --no-deps --locked --quiet

say "all passed"
