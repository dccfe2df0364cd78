#!/usr/bin/env bash
# The soak with the system's allocator, jemalloc and mimalloc in turn; a line of figures for each.
#
#   tests/soak/run.sh                   5 seconds each, for CI
#   tests/soak/run.sh 600               10 minutes each
#   tests/soak/run.sh 600 --threads 8   and what else `soak --help` says
#   ALLOCATORS=jemalloc …               only these
set -euo pipefail
cd "$(dirname "$0")"

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
    cargo run --release --locked --quiet "${features[@]}" -- --seconds "$seconds" "$@"
done
