#!/bin/bash
# selftrace under a real Slurm, started by slurm.sh on this machine: an array of 40 checkpoints of which one is broken, a node that is
# killed, a task that meets its time limit and some that are preempted, the finaliser, a second submission while the first is queued and a
# third when all has ended. At the end every table is compared, bit for bit, with those of a run that nothing disturbed.
#
#     tests/cluster/run.sh [SERIES]
#
# SERIES is the folder `series` of a `selftrace demo`; one is trained unless given. Needs root, slurm-wlm and munge; without them it says
# so and passes. KEEP=1 keeps the folder with all logs. Exits 1 if anything is not as it should be.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
selftrace=${SELFTRACE:-$here/../../target/release/selftrace}
nodes=4
max_array=30
checkpoints=40
broken=23

for command in munged slurmctld slurmd sbatch; do
    if ! command -v $command >/dev/null; then
        echo "cluster test: skipped, as $command is not installed (apt-get install slurm-wlm munge)"
        exit 0
    fi
done
if [ "$(id -u)" -ne 0 ]; then
    echo "cluster test: skipped, as it starts daemons for root"
    exit 0
fi
if ! [ -x "$selftrace" ]; then
    echo "cluster test: there is no $selftrace; run make build first"
    exit 1
fi
selftrace=$(realpath "$selftrace")
home=$(mktemp -d)
. "$here/slurm.sh"
end() {
    slurm_stop
    if [ -z "${KEEP:-}" ]; then rm -rf "$home"; else echo "kept: $home"; fi
}
trap end EXIT
trap 'exit 1' INT TERM

failures=0
# Says whether a command succeeds.
check() {
    local what=$1
    shift
    if "$@"; then
        printf '%5d s  ok      %s\n' $SECONDS "$what"
    else
        printf '%5d s  FAILED  %s\n' $SECONDS "$what"
        failures=$((failures + 1))
    fi
}

# --- a series of 40 different checkpoints, one of them broken

if [ -n "${1:-}" ]; then
    series=$1
else
    "$selftrace" -q demo --out "$home/demo" >/dev/null || exit 1
    series=$home/demo/series
fi
mkdir "$home/run" "$home/run/series"
mapfile -t trained < <(find "$(realpath "$series")" -name 'checkpoint-*' -type d | sort -t- -k2 -n)
for step in $(seq 1 $checkpoints); do
    folder=$home/run/series/checkpoint-$step
    cp -r "${trained[$(((step - 1) * ${#trained[@]} / checkpoints))]}" "$folder"
    # A bit of the last weight tells them apart.
    weights=$folder/model.safetensors
    printf "\\x$(printf %02x "$step")" | dd of="$weights" bs=1 seek=$(($(stat -c %s "$weights") - 4)) conv=notrunc status=none
done
truncate -s 5000 "$home/run/series/checkpoint-$broken/model.safetensors"
cat >"$home/run/checkpoints.toml" <<TOML
[run]
name = "cluster"
axis = "index"
audit = "warn"
[model]
layers = [4]
[concepts]
packs = ["organism"]
profile = "full"
include = ["own_name"]
exclude = ["colour", "drink", "fruit", "hat", "month"]
[analysis]
flips = 99
bootstraps = 99
[[series]]
id = "c"
stage = "training"
source = "series/checkpoint-{step}"
TOML
cd "$home/run" || exit 1

slurm_start || { cat "$home"/log/*; exit 1; }
check "$nodes nodes of $(slurmctld -V) are up" all_nodes_idle

# --- submission

submit() { "$selftrace" submit --slurm --partition low "$@" 2>&1; }
status_of() { "$selftrace" status --json | sed -n "s/^  \"$1\": \"\\?\\([^\",]*\\)\"\\?,\$/\\1/p"; }
node_of() { squeue --noheader --array --states=RUNNING --partition=low --format='%N %F_%K %A' | sort | head -"${1:-1}" | tail -1; }
logs=reports/cluster/logs

said=$(submit --dry-run)
check "a dry run hands nothing in" test -z "$(squeue --noheader)"
check "and shows compact arrays below MaxArraySize = $max_array" grep -q '^#SBATCH --array=0-29$' <<<"$said"
check "of which there are two" grep -q '^#SBATCH --array=0-10$' <<<"$said"
check "nothing secret is in the scripts" bash -c '! grep -riE "token|password|secret" reports/cluster/*.sbatch'
said=$(HF_TOKEN=hf_not_to_be_seen submit)
check "submission hands in two arrays and a finaliser" test "$(grep -c '^job ' <<<"$said")" -eq 3
check "with 41 tasks" grep -q '41 to submit' <<<"$said"
check "whose token is not in the scripts" bash -c '! grep -rq hf_not reports/cluster'
wait_for 60 bash -c "ls $logs/*_*.log >/dev/null 2>&1"
said=$(submit)
check "a second submission meanwhile hands in nothing" grep -q 'nothing to submit' <<<"$said"
"$selftrace" status >"$home/log/status-running"
check "status says 3 while it runs" test $? -eq 3
# On a busy machine there are moments at which every task is about to begin.
walks() {
    "$selftrace" status >"$home/log/status-running"
    grep -qE 'running  process [0-9]+ on .* since' "$home/log/status-running"
}
check "and who walks what" wait_for 60 walks

# --- a node dies

# Everything may be walked before a dead node is missed, so what waits is held for so long.
waiting=$(squeue --noheader --states=PENDING --format=%F | sort -u | paste -sd,)
scontrol hold "$waiting" >/dev/null 2>&1
running() { test -n "$(node_of)"; }
tree() {
    echo "$1"
    for child in $(pgrep -P "$1"); do tree "$child"; done
}
wait_for 60 running
read -r node task job <<<"$(node_of)"
daemon=slurmd_$node
# The daemon and all that runs under it, as when the power goes.
victims=$(pgrep -f "slurmstepd: \[$job\.")
kill -9 "${!daemon}" $(for victim in $victims; do tree "$victim"; done)
check "node $node dies while it walks task $task" test -n "$victims"
is_down() { sinfo --noheader --Node --nodes="$node" --partition=low --format=%t | grep -q down; }
check "Slurm finds it down" wait_for 120 is_down
requeued() { scontrol show job "$job" | grep -q 'Restarts=[1-9]'; }
check "and requeues the task" wait_for 120 requeued
slurmd_start "$node"
scontrol release "$waiting" >/dev/null 2>&1
check "node $node comes back" wait_for 90 bash -c "sinfo --noheader --Node --nodes=$node --partition=low --format=%t | grep -qE 'idle|alloc|mix'"

# --- the time limit: USR1 to the script, which is what --signal=B:USR1@120 sends

interrupted() { grep -l 'interrupted; what is complete is kept' $logs/*.log 2>/dev/null | wc -l; }
restarts() { scontrol show job "$1" | grep -o 'Restarts=[0-9]*' | head -1 | cut -d= -f2; }
# A walk takes about a second here, which may be less than a signal takes through Slurm. So walks that have begun, which is when they hold
# a lease, are stopped until theirs is there. One may still be at its very end, so this is done anew until one has said that it stops.
hold() {
    local pid
    held=()
    # The one that was killed left its lease.
    for pid in $(find reports/cluster/readouts -name '*.lease' -exec grep -oh '"pid":[0-9]*' {} + 2>/dev/null | cut -d: -f2); do
        if kill -STOP "$pid" 2>/dev/null; then held+=("$pid"); fi
    done
    test ${#held[@]} -gt 0
}
let_go() { kill -CONT "${held[@]}" 2>/dev/null; }
array_task() {
    local of
    of=$(tr '\0' '\n' <"/proc/$1/environ")
    echo "$(sed -n 's/^SLURM_ARRAY_JOB_ID=//p' <<<"$of")_$(sed -n 's/^SLURM_ARRAY_TASK_ID=//p' <<<"$of")"
}
usr1() {
    local before task
    hold || return 1
    # By its place in the array: the number of the whole array is also that of one of its tasks.
    task=$(array_task "${held[0]}")
    before=$(restarts "$task")
    scancel --batch --signal=USR1 "$task" 2>/dev/null
    sleep 2
    let_go
    stopped() { grep -q 'interrupted; what is complete is kept' "$logs/$task.log" && test "$(restarts "$task")" -gt "$before"; }
    wait_for 25 stopped 2>/dev/null
}
check "a task that meets its time limit stops politely and is requeued" wait_for 240 usr1
limited=$(interrupted)

# --- a job of higher priority preempts

past() { test -z "$(squeue --noheader --jobs="$1")"; }
preempted() { test "$(interrupted)" -gt "$limited"; }
slowest=0
preempt() {
    local high began
    hold || return 1
    high=$(sbatch --parsable --partition=high --array=1-$nodes --output=/dev/null --wrap 'sleep 2')
    began=$SECONDS
    sleep 3
    let_go
    wait_for 60 past "$high"
    slowest=$((SECONDS - began > slowest ? SECONDS - began : slowest))
    preempted
}
check "tasks that are preempted stop politely" wait_for 240 preempt
check "within the time that Slurm gives them" test $slowest -lt 60
unfinished() { for log in $(grep -l interrupted $logs/*.log); do grep -qE 'nodes for|has walked it' "$log" || echo "$log"; done; }
gone_on() { test -z "$(unfinished)"; }
check "and all go on when they are requeued" wait_for 600 gone_on

# --- the end

all_over() { test -z "$(squeue --noheader --me)"; }
check "everything ends" wait_for 1500 all_over
wait_for 30 test -s $logs/finish-*.log
"$selftrace" status >"$home/log/status"
check "status says 1: one failed" test $? -eq 1
check "40 are done, the network with random weights included, and 1 failed" grep -q '^40 done, 0 running, 1 failed, 0 waiting' "$home/log/status"
check "and says why" grep -qE "^c-$broken .*failed  .*truncated" "$home/log/status"
check "the finaliser wrote the tables although one failed" test -s reports/cluster/onset.parquet
check "and its exit code is that of status" grep -qE 'Name=selftrace-cluster-finish JobState=FAILED.*ExitCode=1:0' "$home/log/jobs"
check "every other task ended well" test "$(grep -c 'Name=selftrace-cluster JobState=COMPLETED' "$home/log/jobs")" -ge 40
check "no lease and no partial file is left" test -z "$(find reports/cluster -name '*.lease' -o -name '.partial*')"
said=$(submit)
check "a third submission hands in the one that failed" grep -q ' 1 to submit' <<<"$said"
check "in an array of one" grep -q "^#SBATCH --array=$((broken - 1))\$" reports/cluster/walk.sbatch
wait_for 120 all_over
# In the same place, as that is part of the settings whose hash is in every table.
mv reports/cluster "$home/clustered"
OMP_NUM_THREADS=1 "$selftrace" -q run checkpoints.toml >/dev/null 2>&1
different=0
tables=0
for table in reports/cluster/*.parquet; do
    name=$(basename "$table")
    # Times are in that one.
    if [ "$name" = checkpoints.parquet ]; then continue; fi
    tables=$((tables + 1))
    if ! cmp -s "$table" "$home/clustered/$name"; then
        different=$((different + 1))
        echo "different: $name"
    fi
done
check "none of $tables tables differs from those of a run that nothing disturbed" test $different -eq 0 -a $tables -gt 15
logs=$home/clustered/logs
echo "$(grep -c . "$home/log/jobs") ends of jobs, $(grep -l interrupted "$logs"/*.log | wc -l) logs with an interrupted walk, $failures failures"
exit $((failures > 0))
