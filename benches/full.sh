#!/bin/bash
# A run folder on a file system (tmpfs) that is full, of bytes or of inodes, at every stage: the run has to end with exit code 2 and one
# sentence, leave nothing half-written, and, when there is room, go on and end with the tables of a run that nothing disturbed. Then a
# folder that is read-only. Needs root. Exits 1 if anything is not so.
#
#     benches/full.sh [SIZES [SERIES]]
#
# SIZES: how many sizes of each kind between nothing and what a run needs (12 unless given).
sizes=${1:-12}
series=${2:-}
. "$(dirname "$0")/faults.sh"
end() {
    cd /
    umount "$work/reports" 2>/dev/null
    rm -rf "$home"
}
trap end EXIT
undisturbed
bytes=$(du -s --block-size=1024 "$folder" | cut -f1)
inodes=$(($(find "$folder" | wc -l) + 2))
rm -rf "$folder"

bad=0
# Tries a run on a file system with these options, and once more with room.
try() {
    local kind=$1 options=$2 code lines left differ
    mkdir -p reports
    mount -t tmpfs -o "$options" selftrace reports || exit 2
    "$selftrace" -q run >"$home/out" 2>"$home/err"
    code=$?
    lines=$(grep -c '^error: ' "$home/err")
    left=$(leftovers 2>/dev/null)
    failed=$(grep -c 'failed: ' "$home/err")
    mount -o remount,size=1g,nr_inodes=100k,rw reports
    "$selftrace" -q run >/dev/null 2>&1 || code=$code-never
    differ=$(differing | wc -l)
    umount reports
    case $code in
        0 | 2) ;;
        *) bad=$((bad + 1)) ;;
    esac
    if [ "$code" = 2 ] && [ "$lines" -ne 1 ]; then bad=$((bad + 1)); fi
    bad=$((bad + left + differ + failed))
    printf '%-10s %-26s %5s %10d %10d %10d %10d  %s\n' "$kind" "$options" "$code" "$lines" "$failed" "$left" "$differ" \
        "$(grep '^error: ' "$home/err" | head -1 | sed "s#$home/##g" | cut -c1-110)"
}
printf '%-10s %-26s %5s %10s %10s %10s %10s\n' full options exit sentences failed 'left over' differing
for turn in $(seq 1 "$sizes"); do try bytes "size=$((bytes * turn / sizes + 4))k"; done
for turn in $(seq 1 "$sizes"); do try inodes "nr_inodes=$((inodes * turn / sizes + 2))"; done
try read-only ro
exit $((bad > 0))
