#!/usr/bin/env bash
# The soak with the system's allocator, jemalloc and mimalloc in turn; a line of figures for each.
#
#   tests/soak/run.sh                   5 seconds each, for CI
#   tests/soak/run.sh 600               10 minutes each
#   tests/soak/run.sh 600 --threads 8   and what else `soak --help` says
#   ALLOCATORS=jemalloc …               only these
set -euo pipefail
cd "$(dirname "$0")"

# In a few seconds an uneven load of the machine may look as if memory grew; what is kept grows in each attempt.
attempts=3
[ $# -eq 0 ] || attempts=1
seconds=${1:-5}
[ $# -eq 0 ] || shift
for allocator in ${ALLOCATORS:-system jemalloc mimalloc}; do
    # Which its own make builds.
    if [ "$allocator" = jemalloc ] && ! command -v make >/dev/null; then
        echo "SKIPPED: the soak with jemalloc, for there is no make"
        continue
    fi
    features=()
    if [ "$allocator" != system ]; then features=(--features "$allocator"); fi
    for attempt in $(seq "$attempts"); do
        code=0
        cargo run --release --locked --quiet "${features[@]}" -- --seconds "$seconds" "$@" || code=$?
        # All but that the heap grows is final.
        [ "$code" = 3 ] || break
        echo "attempt $attempt of $attempts failed"
    done
    [ "$code" = 0 ] || exit "$code"
done
