#!/bin/sh
# The demo over SEEDS seeds (15 unless given) and every kind of arithmetic that this processor has: how often anything untaught is dated, and
# how often what was taught is, with binomial intervals. FOLDER keeps a line per run, and what is there is not run again. Exits 1 if more
# runs err than one in twenty, beyond chance. JOBS runs at a time (2 unless set); a run takes about two minutes of one core.
#
#     benches/machines.sh [SEEDS [FOLDER]]
set -eu
cd "$(dirname "$0")/.."
seeds=${1:-15}
folder=${2:-$(mktemp -d)}
mkdir -p "$folder"
cargo build --release --quiet --example machines
kinds="native compatible avx2"
if grep -q avx512f /proc/cpuinfo; then kinds="$kinds avx512"; fi
if [ "$(nproc)" -gt 1 ]; then kinds="$kinds threads"; fi

for seed in $(seq 0 $((seeds - 1))); do for kind in $kinds; do echo "$kind $seed"; done; done |
    xargs -P "${JOBS:-2}" -L 1 sh -c '
        case $2 in
            native)     arithmetic="OMP_NUM_THREADS=1" ;;
            compatible) arithmetic="OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE" ;;
            avx2)       arithmetic="OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2" ;;
            avx512)     arithmetic="OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx512 MKL_ENABLE_INSTRUCTIONS=AVX512" ;;
            threads)    arithmetic="OMP_NUM_THREADS=2" ;;
        esac
        line="$1/$2-$3.json"
        test -s "$line" && exit 0
        env $arithmetic target/release/examples/machines one "$1/$2-$3" "$3" "$2" 2>"$1/$2-$3.log" >"$line.new" || exit 255
        mv "$line.new" "$line"
        rm -rf "$1/$2-$3"' machines "$folder"
cat "$folder"/*.json >"$folder/tallies.jsonl"
exec target/release/examples/machines table "$folder/tallies.jsonl"
