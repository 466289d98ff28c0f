#!/bin/bash
# Kills `run`, `walk` and `analyze` (SIGKILL) at random moments, again and again until each ends by itself, and compares every table, bit
# for bit, with those of a run that nothing disturbed. Prints a line per command; exits 1 if a table differs or anything is left over.
#
#     benches/kills.sh [KILLS [SERIES [SEED]]]
#
# KILLS in all (60 unless given), in equal parts. SERIES is the folder `series` of a `selftrace demo`; one is trained unless given.
kills=${1:-60}
series=${2:-}
RANDOM=${3:-0}
. "$(dirname "$0")/faults.sh"
trap 'rm -rf "$home"' EXIT

# Milliseconds of each command, undisturbed.
declare -A takes
timed() {
    local start
    start=$(now)
    "$selftrace" -q "$1" >/dev/null 2>&1 || exit 2
    takes[$1]=$((($(now) - start) / 1000000))
}
rm -rf "$folder"
timed walk
timed analyze
undisturbed
takes[run]=$((takes[walk] + takes[analyze]))

bad=0
printf '%-8s %6s %10s %16s %12s %10s\n' command kills completions 'differing tables' 'left over' 'not done'
for command in run walk analyze; do
    count=0
    completions=0
    differ=0
    left=0
    undone=0
    while [ $count -lt $((kills / 3)) ]; do
        case $command in
            analyze) find "$folder" -maxdepth 1 \( -name .analysis -o -name "*.parquet" \) ! -name items.parquet ! -name checkpoints.parquet \
                ! -name integrity.parquet -delete ;;
            *) rm -rf "$folder" ;;
        esac
        while true; do
            "$selftrace" -q $command >/dev/null 2>&1 &
            child=$!
            milliseconds=$((RANDOM % takes[$command]))
            sleep "$((milliseconds / 1000)).$(printf %03d $((milliseconds % 1000)))"
            if kill -9 $child 2>/dev/null && ! wait $child 2>/dev/null; then
                count=$((count + 1))
            else
                break
            fi
            # Longer than a run takes: the next one is let through.
            if [ $((RANDOM % 4)) -eq 0 ]; then break; fi
        done
        "$selftrace" -q $command >/dev/null 2>&1
        "$selftrace" -q run >/dev/null 2>&1
        completions=$((completions + 1))
        differ=$((differ + $(differing | wc -l)))
        left=$((left + $(leftovers)))
        "$selftrace" -q status >/dev/null 2>&1 || undone=$((undone + 1))
    done
    printf '%-8s %6d %11d %16d %12d %10d\n' $command $count $completions $differ $left $undone
    bad=$((bad + differ + left + undone))
done
exit $((bad > 0))
