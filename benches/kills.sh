#!/bin/bash
# Kills `run`, `walk` and `analyze` (SIGKILL) at random moments, again and again until each ends by itself, and compares every table, bit
# for bit, with those of a run that nothing disturbed. Prints a line per command; exits 1 if a table differs, if anything is left over, or
# if a checkpoint that was complete at a kill was written again.
#
#     benches/kills.sh [KILLS [SERIES [SEED]]]
#
# KILLS in all (60 unless given), in equal parts. SERIES is the folder `series` of a `selftrace demo`; one is trained unless given. A
# moment is one of the CPU time that a command has had, so that what else the machine does changes nothing.
kills=${1:-60}
series=${2:-}
RANDOM=${3:-0}
tiny=1
. "$(dirname "$0")/faults.sh"
trap 'rm -rf "$home"' EXIT
exec {never}<> <(:)

# Milliseconds of CPU time of each command, undisturbed, and of a start alone.
declare -A takes
timed() {
    local TIMEFORMAT='%3U %3S' user system
    read -r user system < <({ time "$selftrace" -q "$1" >/dev/null 2>&1; } 2>&1)
    takes[$1]=$((10#${user/./} + 10#${system/./}))
}
timed --version
rm -rf "$folder"
timed walk
timed analyze
undisturbed
takes[run]=$((takes[walk] + takes[analyze]))

# Whether a child has had so many milliseconds of CPU time before it ended.
reaches() {
    local stat
    while read -r stat 2>/dev/null <"/proc/$1/stat"; do
        set -- "$1" "$2" ${stat##*) }
        if [ "$3" = Z ]; then return 1; fi
        if [ $(((${14} + ${15}) * 10)) -ge "$2" ]; then return 0; fi
        read -r -t .004 -u "$never"
    done
    return 1
}

# Checkpoints that are complete, each with the inode and the time of its file.
complete() {
    local record
    for record in "$folder"/readouts/*.json; do
        if [ -e "${record%.json}.safetensors" ]; then stat -c '%n %i %Y' "${record%.json}.safetensors"; fi
    done
}

# Runs `$1` until it ends by itself; counts kills, and complete checkpoints that came to be written again.
until_done() {
    local child reach
    : >"$home/complete"
    while true; do
        "$selftrace" -q "$1" >/dev/null 2>&1 &
        child=$!
        # Early moments too, however long the command takes, since what is done already is not done again.
        reach=$(((takes[$1] - takes[--version]) >> (RANDOM % 4)))
        if reaches $child $((takes[--version] + RANDOM % (reach + 1))) && kill -9 $child 2>/dev/null && ! wait $child 2>/dev/null; then
            count=$((count + 1))
            complete >>"$home/complete"
        else
            wait $child 2>/dev/null
            break
        fi
    done
    again=$((again + $(sort -u "$home/complete" | grep -vxFc -f <(complete))))
}

bad=0
printf '%-8s %6s %10s %16s %12s %10s %14s\n' command kills completions 'differing tables' 'left over' 'not done' 'done again'
for command in run walk analyze; do
    count=0 completions=0 differ=0 left=0 undone=0 again=0
    while [ $count -lt $((kills / 3)) ]; do
        case $command in
            analyze) find "$folder" -maxdepth 1 \( -name .analysis -o -name "*.parquet" \) ! -name items.parquet ! -name checkpoints.parquet \
                ! -name integrity.parquet -delete ;;
            *) rm -rf "$folder" ;;
        esac
        until_done $command
        "$selftrace" -q run >/dev/null 2>&1
        completions=$((completions + 1))
        differ=$((differ + $(differing | wc -l)))
        left=$((left + $(leftovers)))
        "$selftrace" -q status >/dev/null 2>&1 || undone=$((undone + 1))
    done
    printf '%-8s %6d %11d %16d %12d %10d %14d\n' $command $count $completions $differ $left $undone $again
    bad=$((bad + differ + left + undone + again))
done
exit $((bad > 0))
