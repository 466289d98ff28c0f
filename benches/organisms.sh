#!/bin/sh
# Organisms by weight surgery, walked, analysed and named, over SEEDS seeds (5 unless given): prints organism by part of the evidence
# and exits 1 if any organism is not named for what it is. FOLDER keeps series and tables.
#
#     benches/organisms.sh [SEEDS [FOLDER [ORGANISM]]]
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release --quiet --example organisms -- "$@"
