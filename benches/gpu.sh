#!/bin/sh
# Everything that only a GPU can show, in one go and without a network: parity of every family's fixture, the demo's dates against the CPU's,
# nodes per second on a checkpoint of an 8B model's shape against transformers, and whether two runs have the same bits. Under ten minutes.
#
#     benches/gpu.sh SELFTRACE SCRATCH [arguments of gpu.py]
#
# SELFTRACE is the binary, built against the PyTorch of PYTHON (default: python3), whose libtorch it loads. To carry: this folder, the binary
# and tests/fixtures/parity, less than 60 MB. In SCRATCH it needs 6 GB.
#
# Never run on a GPU so far. Run on a CPU, with --device cpu --blocks 2 --width 256: all four parts, to their ends.
set -eu
if [ $# -lt 2 ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
torch=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "lib")')
export LD_LIBRARY_PATH="$torch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$python" "$here/gpu.py" "$@"
