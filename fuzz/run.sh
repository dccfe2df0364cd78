#!/bin/sh
# Fuzzes cancel-tree. For people and for CI: no argument is needed.
#
#   fuzz/run.sh                      the seeds again: what it says is about the sources, not about luck
#   fuzz/run.sh 1800                 and a search of half an hour in each target
#   fuzz/run.sh 1800 threads         of this one
#   fuzz/run.sh 0 threads            the seeds of this one
#   FUZZ_INSTALL=1 fuzz/run.sh …     installs what is missing
#
# The corpus is kept in fuzz/corpus and grows from run to run. A failing input is named at the end.
set -eu
cd "$(dirname "$0")"

RACES=5000
seconds=${1:-0}
[ $# -eq 0 ] || shift
targets=${*:-tokens contexts threads headers}

missing() {
    echo "fuzz: SKIPPED, $1 is missing (FUZZ_INSTALL=1 installs it)"
    exit 0
}
if ! cargo +nightly --version >/dev/null 2>&1; then
    [ -n "${FUZZ_INSTALL:-}" ] || missing "a nightly toolchain"
    rustup toolchain install nightly --profile minimal
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    [ -n "${FUZZ_INSTALL:-}" ] || missing "cargo-fuzz"
    cargo install cargo-fuzz --locked
fi

# Time and the timer's work are in the fuzzer's hands.
export RUSTFLAGS="${RUSTFLAGS:-} --cfg cancel_tree_by_hand"
# The sanitizer keeps what is freed back for a while, and the stack of each allocation for ever.
export ASAN_OPTIONS="quarantine_size_mb=64:malloc_context_size=12${ASAN_OPTIONS:+:$ASAN_OPTIONS}"

logs=${CARGO_TARGET_DIR:-target}/fuzz
mkdir -p "$logs"
summary=

# run TARGET LOG ARGUMENTS…: what libFuzzer says goes to the log, and is shown if it fails.
run() {
    target=$1 log=$2
    shift 2
    if ! cargo +nightly fuzz run "$target" "$@" -timeout=60 >"$log" 2>&1; then
        # The first line that says why, and where the input is.
        grep -nE -A4 'panicked at|ERROR: |^error' "$log" | head -n 30 >&2 || true
        grep -E '^Running: ' "$log" | tail -n 1 >&2 || true
        grep -E 'cargo fuzz (run|tmin) |Test unit written' "$log" >&2 || true
        echo "fuzz: $target FAILED; all of it is in $log" >&2
        exit 1
    fi
}

for target in $targets; do
    [ -f "fuzz_targets/$target.rs" ] || { echo "fuzz: no target $target" >&2; exit 1; }
    cargo +nightly fuzz build "$target"

    # `cover-*`: what reaches most of the code. The others are named by what they show.
    seeds=$(find "seeds/$target" -type f | LC_ALL=C sort)
    named=$(echo "$seeds" | grep -v '/cover-' || true)
    [ -n "$seeds" ] || { echo "fuzz: no seeds for $target" >&2; exit 1; }
    # shellcheck disable=SC2086 # no name has a space
    run "$target" "$logs/$target-seeds.log" $seeds -- -runs=1
    line="$target: $(echo "$seeds" | wc -l) seeds"
    if [ "$target" = threads ]; then
        # Races: one time does not tell.
        # shellcheck disable=SC2086
        run "$target" "$logs/$target-races.log" $named -- -runs=$RACES
        line="$line, $(echo "$named" | wc -l) of them $RACES times"
    fi

    if [ "$seconds" -gt 0 ]; then
        mkdir -p "corpus/$target"
        run "$target" "$logs/$target.log" "corpus/$target" "seeds/$target" -- \
            -max_total_time="$seconds" -print_final_stats=1
        executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/$target.log")
        peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$logs/$target.log")
        covered=$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$logs/$target.log" | tail -n 1)
        line="$line; $executions executions in $seconds s, $covered, corpus $(ls "corpus/$target" | wc -l), $peak MB"
    fi
    echo "fuzz: $line"
    summary="$summary
fuzz: $line"
done
echo "
fuzz: all passed$summary"
