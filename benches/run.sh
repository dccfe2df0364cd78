#!/bin/sh
# The one command: runs all benchmarks, and makes docs/BENCHMARKS.md and docs/plots of what they have measured. Under
# 20 minutes from a fresh clone, on an idle machine with two cores.
#
#   benches/run.sh            all
#   benches/run.sh --quick    tries it all out with a few samples each; the report goes to the target directory
#
# GO names the `go` to compare with, if it is not in the path. What a machine has not got is said to be SKIPPED.
set -eu
cd "$(dirname "$0")/.."

case ${1:-} in
'') QUICK= ;;
--quick) QUICK=--quick ;;
*) echo "usage: benches/run.sh [--quick]" >&2 && exit 2 ;;
esac

TARGET=${CARGO_TARGET_DIR:-$PWD/target}
REPORT=$TARGET/report$QUICK
LOG=$REPORT/log
export REPORT
# Nothing of an earlier run.
rm -rf "$REPORT"
mkdir -p "$REPORT"

BEGIN=$(date +%s)
STEP=0
# What each step took on the machine of the committed report, in seconds, for what remains.
EXPECTED='210 570 340 40 15 5'
[ -z "$QUICK" ] || EXPECTED='210 130 40 40 15 5'

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# The steps are numbered as they are run.
step() {
    remaining=0
    i=0
    for seconds in $EXPECTED; do
        [ $i -lt $STEP ] || remaining=$((remaining + seconds))
        i=$((i + 1))
    done
    STEP=$((STEP + 1))
    printf '\n=== %d of %d: %s (%s so far, about %s to go)\n\n' \
        $STEP $i "$1" "$(clock $(($(date +%s) - BEGIN)))" "$(clock $remaining)" | tee -a "$LOG"
}

# Shows what a command prints, keeps it, and fails if it does. (A pipe's status is that of its end.)
run() {
    { "$@" 2>&1 && echo 0 >"$REPORT/status" || echo $? >"$REPORT/status"; } | tee -a "$LOG"
    status=$(cat "$REPORT/status")
    rm "$REPORT/status"
    [ "$status" -eq 0 ] || {
        echo "FAILED: $*" >&2
        exit "$status"
    }
}

# Before this is at work itself.
if [ -r /proc/loadavg ]; then
    cut -d ' ' -f 1 /proc/loadavg >"$REPORT/load"
    [ "$(tr -d . <"$REPORT/load" | sed 's/^0*//;s/^$/0/')" -le 50 ] ||
        echo "WARNING: something else runs on this machine (load average $(cat "$REPORT/load")): the figures will be off" | tee -a "$LOG"
fi

step "compiling"
run cargo bench --locked -p benches --no-run
run benches/scale/run.sh build
run benches/instructions/run.sh build
run cargo build --release --locked --manifest-path benches/report/Cargo.toml --target-dir "$TARGET/reporter"

step "medians (benches/tree, benches/go)"
run cargo bench --locked -p benches --bench tree -- $QUICK

step "latencies (benches/latency)"
run cargo bench --locked -p benches --bench latency -- $QUICK

step "many cores (benches/scale)"
run benches/scale/run.sh

step "instructions (benches/instructions)"
run benches/instructions/run.sh

step "the report (benches/report)"
DOCS=docs
if [ -n "$QUICK" ]; then
    DOCS=$REPORT/docs
    mkdir -p "$DOCS"
    cp docs/BENCHMARKS.md "$DOCS"
fi
run "$TARGET/reporter/release/cancel-tree-report" "$REPORT" "$DOCS"

grep '^SKIPPED' "$LOG" || echo "nothing was SKIPPED"
echo "done in $(clock $(($(date +%s) - BEGIN))) minutes: $DOCS/BENCHMARKS.md"
