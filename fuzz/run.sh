#!/bin/sh
# Fuzzes one target, or all, for some seconds each: fuzz/run.sh TARGET|all [SECONDS]
#
# With the stable toolchain: libFuzzer needs nothing but the compiler's coverage pass, which coverage.sh gives to the readers alone.
# COVERAGE=0 leaves that out and searches blindly from the corpora. What is found lies in fuzz/artifacts.
set -eu
cd "$(dirname "$0")"
which=${1:?a target, or all} seconds=${2:-60}
: "${LIBTORCH:=$(cd .. && pwd)/.libtorch}"
export LIBTORCH LD_LIBRARY_PATH="$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
if [ "${COVERAGE:-1}" = 1 ]; then
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/coverage}" RUSTC_WRAPPER="$PWD/coverage.sh"
fi
cargo build --release
targets=$which
[ "$which" != all ] || targets=$(ls targets | sed 's/\.rs$//')
mkdir -p artifacts
for target in $targets; do
    mkdir -p "found/$target"
    echo "$target:"
    # Where time grows with the text, short ones are searched better.
    case $target in prompts | store | template | tokenizer) longest=8192 ;; *) longest=65536 ;; esac
    # One exec may take seconds on a loaded machine, not minutes; a few MiB of file may not become gigabytes.
    "${CARGO_TARGET_DIR:-target}/release/$target" "found/$target" "corpus/$target" -max_total_time="$seconds" -timeout=30 \
        -rss_limit_mb=2048 -max_len=$longest -artifact_prefix="artifacts/$target-" -print_final_stats=1 2>&1 | tail -n 25
done
