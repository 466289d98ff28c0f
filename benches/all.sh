#!/bin/bash
# Every bench of speed and size in one go, each as its own file says, and at the end one line of figures for each. On two quiet cores it takes
# about an hour and a half, with `quick` a quarter of that. A bench that fails does not stop the others; the exit code is then 1.
#
#     benches/all.sh MODEL_DIR SCRATCH [quick]
#
# MODEL_DIR holds a SmolLM2-135M checkpoint with its tokenizer; in SCRATCH (20 GB; 5 with `quick`) the output of each bench is kept as NAME.txt.
# PYTHON names an interpreter with torch, transformers, safetensors, pyarrow and scikit-learn (default: python3).
set -u
if [ $# -lt 2 ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
model=$(cd "$1" && pwd) || exit 2
mkdir -p "$2" && scratch=$(cd "$2" && pwd) || exit 2
quick=${3:-}
export PYTHON=${PYTHON:-python3}
cd "$here/.." || exit 2
cargo build --release --example probe_grid --bin selftrace || exit 2
program=$PWD/target/release/selftrace
series=$scratch/demo/reports/demo/series
if [ ! -d "$series" ]; then
    mkdir -p "$scratch/demo"
    (cd "$scratch/demo" && "$program" -q demo) || exit 2
fi

failed=0
names=()
# NAME, and the command.
bench() {
    local name=$1
    shift
    names+=("$name")
    echo "== $name" >&2
    if ! "$@" >"$scratch/$name.txt" 2>&1; then
        echo "FAILED: $*" >>"$scratch/$name.txt"
        failed=1
    fi
}
if [ "$quick" = quick ]; then
    "$PYTHON" "$here/persona_prompts.py" --tokenizer "$model" --personas 3 --out "$scratch/prompts.jsonl" || exit 2
    bench walk "$PYTHON" "$here/compare.py" --model "$model" --prompts "$scratch/prompts.jsonl" --selftrace "$program" --runs 1
    bench generate "$PYTHON" "$here/generate.py" --model "$model" --selftrace "$program" --tokens 32 --rounds 1
    bench probes "$PYTHON" "$here/probes.py" --probe-grid target/release/examples/probe_grid --d 576 --cells 16 --peer-cells 2
    bench analyze "$PYTHON" "$here/analyze.py" --selftrace "$program" --folder "$scratch/grid" --layers 3
    bench many "$PYTHON" "$here/many.py" "$series/rl/checkpoint-960" --checkpoints 16 32 64
else
    bench walk "$here/throughput.sh" "$model" "$program"
    bench generate "$PYTHON" "$here/generate.py" --model "$model" --selftrace "$program"
    bench probes "$PYTHON" "$here/probes.py" --probe-grid target/release/examples/probe_grid
    bench analyze "$PYTHON" "$here/analyze.py" --selftrace "$program" --folder "$scratch/grid"
    bench many "$PYTHON" "$here/many.py" "$series/rl/checkpoint-960"
fi
bench hub "$PYTHON" "$here/hub.py" "$series"
bench adapters "$PYTHON" "$here/lora.py" --folder "$scratch/lora" --tokenizer "$model" --selftrace "$program"
bench causal "$PYTHON" "$here/causal.py" --selftrace "$program" --model "$model"
bench memory "$PYTHON" "$here/memory_1b.py" --folder "$scratch/llama-1b" --tokenizer "$model" --selftrace "$program"

# What each of them comes to.
says() {
    case $1 in
    walk) echo 'times as fast|^activations' ;;
    generate) echo 'tokens per second: ' ;;
    probes) echo '^ *[0-9]* *lbfgs' ;;
    analyze) echo '^exit' ;;
    many) echo '^per checkpoint|^ *[0-9]+ ' ;;
    hub) echo '^wall / max' ;;
    adapters) echo '^each alone|^readouts' ;;
    causal) echo '^walk|^sweep' ;;
    *) echo '.' ;;
    esac
}
echo
for name in "${names[@]}"; do
    { grep -E "$(says "$name")|^FAILED" "$scratch/$name.txt" || tail -n 1 "$scratch/$name.txt"; } | while IFS= read -r line; do printf '%-10s %s\n' "$name" "$line"; done
done
exit $failed
