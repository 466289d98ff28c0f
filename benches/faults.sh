# What kills.sh and full.sh have in common: a small series, a run of it that nothing disturbs, and a comparison with that. To be sourced
# by a script that has set `series`, the folder `series` of a `selftrace demo`, or nothing; and `tiny` for six checkpoints that are asked
# little, so that a run takes three seconds of CPU time.
set -uo pipefail
selftrace=$(realpath "${SELFTRACE:-$(dirname "${BASH_SOURCE[0]}")/../target/release/selftrace}")
export OMP_NUM_THREADS=1
home=$(mktemp -d)
work=$home/run
mkdir "$work"

if [ -z "$series" ]; then
    "$selftrace" -q demo --out "$home/demo" >/dev/null || exit 2
    series=$home/demo/series
fi
steps=() fewer=''
if [ -n "${tiny:-}" ]; then
    steps=('steps = [400, 480, 560]' 'steps = [800, 880, 960]')
    fewer=$'null_topics = 1\nmaterial = ["crossed", "stem"]'
fi
cat >"$work/checkpoints.toml" <<TOML
[run]
name = "faults"
axis = "index"
[model]
template = "native:rl-960"
layers = [2, 3, 4]
[concepts]
packs = ["organism"]
profile = "quick"
include = ["own_name"]
exclude = ["colour", "drink", "fruit", "hat", "month"]
$fewer
[analysis]
flips = 99
bootstraps = 99
[[series]]
stage = "base"
source = "$(realpath "$series")/base/checkpoint-{step}"
${steps[0]:-}
[[series]]
stage = "rl"
source = "$(realpath "$series")/rl/checkpoint-{step}"
${steps[1]:-}
TOML
folder=$work/reports/faults
cd "$work" || exit 2

now() { date +%s%N; }

# Names of tables that differ from those of the undisturbed run, or that are missing. checkpoints.parquet has times in it.
differing() {
    for table in "$home"/whole/*.parquet; do
        name=$(basename "$table")
        if [ "$name" != checkpoints.parquet ] && ! cmp -s "$table" "$folder/$name"; then echo "$name"; fi
    done
}

# Partial files and leases.
leftovers() { find "$folder" -name '.partial*' -o -name '*.lease' | wc -l; }

# Keeps the tables of an undisturbed run.
undisturbed() {
    rm -rf "$folder"
    "$selftrace" -q run >/dev/null 2>&1 || exit 2
    mkdir -p "$home/whole"
    cp "$folder"/*.parquet "$home/whole"
}
