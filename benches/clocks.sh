#!/bin/bash
# Clocks that jump: two `walk` and then `run` on one folder, of which one sees, through libfaketime, a clock that jumps by up to two days
# forwards or backwards several times a second, while file times stay those of the file server. Compares every table, bit for bit, with
# those of a run that nothing disturbed. Prints a line; exits 1 if a table differs or anything is left over.
#
#     benches/clocks.sh [ROUNDS [SERIES [SEED]]]
#
# ROUNDS: 10 unless given. SERIES is the folder `series` of a `selftrace demo`; one is trained unless given. Needs Debian's `faketime`.
rounds=${1:-10}
series=${2:-}
RANDOM=${3:-0}
library=$(find /usr/lib -name libfaketimeMT.so.1 2>/dev/null | head -1)
if [ -z "$library" ]; then
    echo "clocks: skipped, as libfaketime is not installed (apt-get install faketime)"
    exit 0
fi
. "$(dirname "$0")/faults.sh"
jumper=
end() {
    if [ -n "$jumper" ]; then kill "$jumper" 2>/dev/null; fi
    rm -rf "$home"
}
trap end EXIT
undisturbed
# A file with the offset, which is read anew at every look at the clock.
astray() {
    env LD_PRELOAD="$library" FAKETIME_TIMESTAMP_FILE="$home/offset" FAKETIME_NO_CACHE=1 NO_FAKE_STAT=1 DONT_FAKE_MONOTONIC=1 "$@"
}
echo "+0s" >"$home/offset"
jump() {
    while sleep ".$((RANDOM % 4 + 1))"; do
        printf '%+ds\n' $((RANDOM * 10 - 172800 + RANDOM % 10)) >"$home/offset.new"
        mv "$home/offset.new" "$home/offset"
        echo >>"$home/jumps"
    done
}
jump &
jumper=$!
differ=0 left=0 undone=0
for _ in $(seq 1 "$rounds"); do
    rm -rf "$folder"
    astray "$selftrace" -q walk >/dev/null 2>&1 &
    first=$!
    "$selftrace" -q walk >/dev/null 2>&1
    wait $first
    astray "$selftrace" -q run >/dev/null 2>&1
    "$selftrace" -q status >/dev/null 2>&1 || undone=$((undone + 1))
    differ=$((differ + $(differing | wc -l)))
    left=$((left + $(leftovers)))
done
echo "$rounds rounds, $(wc -l <"$home/jumps") jumps: $differ differing tables, $left left over, $undone not done"
exit $((differ + left + undone > 0))
