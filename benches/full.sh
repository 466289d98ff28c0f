#!/bin/bash
# A run folder on a file system (tmpfs) that becomes full at every stage of a run, of bytes (something else fills it while the run is at
# work) or of inodes: the run has to end with exit code 2 and one sentence, fail no checkpoint for it, leave nothing half-written, and, when
# there is room again, go on and end with the tables of a run that nothing disturbed. Then a folder that is read-only. Needs root. Exits 1
# if anything is not so.
#
#     benches/full.sh [STAGES [SERIES]]
#
# STAGES: how many moments, and numbers of inodes, between nothing and a whole run (12 unless given).
stages=${1:-12}
series=${2:-}
. "$(dirname "$0")/faults.sh"
end() {
    cd /
    if [ -n "${child:-}" ]; then kill -9 "$child" 2>/dev/null && wait "$child" 2>/dev/null; fi
    umount "$work/reports" 2>/dev/null
    rm -rf "$home"
}
trap end EXIT
trap 'exit 1' INT TERM
undisturbed
bytes=$(du -s --block-size=1024 "$folder" | cut -f1)
inodes=$(($(find "$folder" | wc -l) + 2))
rm -rf "$folder"
mkdir -p reports

bad=0
# Runs on a file system with these options, which something else fills up as soon as the run has written so many kilobytes (never, if
# none are given), and once more with room.
try() {
    local kind=$1 options=$2 fill=${3:-} code sentences failed left differ again
    mount -t tmpfs -o "$options" selftrace reports || exit 2
    "$selftrace" -q run >/dev/null 2>"$home/err" &
    child=$!
    if [ -n "$fill" ]; then
        until [ "$(du -s --block-size=1024 reports | cut -f1)" -ge "$fill" ]; do
            kill -0 $child 2>/dev/null || break
            sleep .02
        done
        # While it stands still, so that it meets a full disk at its next write. Then again and again: what it gives back is taken too.
        kill -STOP $child
        head -c 1G /dev/zero >>reports/ballast 2>/dev/null
        kill -CONT $child
        while kill -0 $child 2>/dev/null; do
            head -c 1G /dev/zero >>reports/ballast 2>/dev/null
            sleep .1
        done
    fi
    wait $child
    code=$?
    rm -f reports/ballast
    sentences=$(grep -c '^error: ' "$home/err")
    failed=$(grep -c ': failed: ' "$home/err")
    left=$(leftovers 2>/dev/null)
    mount -o remount,size=1g,nr_inodes=100k,rw reports
    "$selftrace" -q run >/dev/null 2>&1
    again=$?
    differ=$(differing | wc -l)
    umount reports
    bad=$((bad + left + differ + failed + again))
    if [ $code -ne 0 ] && ! [ $code -eq 2 -a "$sentences" -eq 1 ]; then bad=$((bad + 1)); fi
    printf '%-10s %-18s %5s %10d %8d %10d %10d  %s\n' "$kind" "$(if [ -n "$fill" ]; then echo "after ${fill}k"; else echo "$options"; fi)" $code "$sentences" "$failed" "$left" \
        "$differ" "$(grep '^error: ' "$home/err" | head -1 | sed "s#$home/run/##g" | cut -c1-120)"
}
printf '%-10s %-18s %5s %10s %8s %10s %10s\n' full when exit sentences failed 'left over' differing
for stage in $(seq 1 "$stages"); do try bytes "size=$((bytes + 4096))k" $((bytes * stage / stages - 1000)); done
for stage in $(seq 1 "$stages"); do try inodes "nr_inodes=$((inodes * stage / stages + 2))"; done
try read-only ro
exit $((bad > 0))
