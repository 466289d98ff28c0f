#!/bin/sh
# The throughput bench in one go: writes the persona prompts for the model's tokenizer, then runs compare.py.
#   benches/throughput.sh MODEL_DIR SELFTRACE_BINARY [further arguments of compare.py]
# PYTHON names the interpreter with torch and transformers (default: python3).
set -eu
here=$(dirname "$0")
model=$1 selftrace=$2
shift 2
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" "$here/persona_prompts.py" --tokenizer "$model" --out "$folder/prompts.jsonl"
"$python" "$here/compare.py" --model "$model" --prompts "$folder/prompts.jsonl" --selftrace "$selftrace" "$@"
