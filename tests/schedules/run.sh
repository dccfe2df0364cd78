#!/bin/sh
# Randomised schedules of cancel-tree, drawn with shuttle: what is too large for loom. For people and for CI.
#
#   tests/schedules/run.sh                     the short form: under a minute
#   tests/schedules/run.sh 45000 [SEED]        so many schedules for each scenario, kind of order and build
#   tests/schedules/run.sh again BUILD SCENARIO KIND SEED     one schedule again, as a failure says
#
# Builds: "real" has the constants that users have, "small" has small families of tokens, as the loom models.
set -eu
cd "$(dirname "$0")"

# Scenarios × kinds of order × builds. Raised with every scenario that is added.
EXPECTED=44
TARGET=${CARGO_TARGET_DIR:-target}

build() {
    flags="--cfg cancel_tree_shuttle --cfg cancel_tree_by_hand"
    [ "$1" = real ] || flags="$flags --cfg cancel_tree_small"
    RUSTFLAGS="${RUSTFLAGS:-} $flags" cargo build --release --locked --quiet --target-dir "$TARGET/$1"
}

# A process that dies by a signal cannot say which schedule it was.
run() {
    export SCHEDULES_NOTE="$TARGET/$1/seed"
    build=$1
    shift
    "$TARGET/$build/release/cancel-tree-schedules" "$@" || {
        status=$?
        [ $status -lt 128 ] || echo "FAILED by a signal: the seed is $(cat "$SCHEDULES_NOTE"), see the last line for the rest" >&2
        exit $status
    }
}

if [ "${1:-}" = again ]; then
    build "$2"
    run "$2" 1 "$5" "$3" "$4"
    exit
fi

count=${1:-3000}
log="$TARGET/schedules.log"
mkdir -p "$TARGET"
: >"$log"
for build in real small; do
    build "$build"
    run "$build" "$count" "${2:-0}" >>"$log"
done
cat "$log"
# What was run is counted: a run of nothing must not pass.
total=$(awk '$5 == "schedules" { sum += $4; rows++ } END { print rows == '$EXPECTED' ? sum : 0 }' "$log")
if [ "$total" -ne $((EXPECTED * count)) ] || [ "$total" -eq 0 ]; then
    echo "schedules: $total run, expected $EXPECTED times $count" >&2
    exit 1
fi
echo "schedules: $total, all passed"
