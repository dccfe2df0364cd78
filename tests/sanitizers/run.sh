#!/usr/bin/env bash
# Runs the tests where memory errors, leaks and data races are seen that nothing else notices.
#
#   tests/sanitizers/run.sh                               all of these:
#   tests/sanitizers/run.sh address                       AddressSanitizer and LeakSanitizer; the fuzzers' seeds
#   tests/sanitizers/run.sh valgrind                      memcheck, on the stable toolchain
#   tests/sanitizers/run.sh thread                        ThreadSanitizer, the standard library built for it as well
#   STRESS_SECONDS=60 NIGHTLY=nightly-2026-05-20 …        longer stress; another nightly than the newest
#
# What is not installed is SKIPPED, and said so. A program that runs no test is a failure.
set -euo pipefail
cd "$(dirname "$0")/../.."

nightly=${NIGHTLY:-nightly}
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-target}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
summary=()
# With all that have tests of their own.
features=crossbeam-channel,process,tokio-util,tokio,tower,serve,testing,metrics,tracing

say() {
    summary+=("$*")
    printf '\n=== %s\n' "$*"
}

# Runs `cargo test` as told, and counts: each program has to have run tests, and none to have failed.
run_tests() {
    local step=$1
    shift
    printf '\n=== %s\n' "$step"
    "$@" 2>&1 | tee "$log"
    local programs passed
    programs=$(grep -c '^ *Running ' "$log" || true)
    passed=$(sed -n 's/^test result: ok\. \([1-9][0-9]*\) passed.*/\1/p' "$log" | wc -l)
    if [ "$programs" -eq 0 ] || [ "$programs" -ne "$passed" ]; then
        echo "$step: $programs programs, of which $passed ran tests" >&2
        exit 1
    fi
    say "$step: $(awk '/^test result: ok/ { n += $4 } END { print n }' "$log") tests" \
        "of $programs programs passed"
}

has_nightly() {
    cargo "+$nightly" --version >/dev/null 2>&1
}

has_rust_src() {
    [ -f "$(rustc "+$nightly" --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]
}

address() {
    if ! has_nightly; then
        say "address: SKIPPED, there is no toolchain $nightly"
        return
    fi
    local build_std=()
    if has_rust_src; then build_std=(-Zbuild-std); fi
    # Without four that leave the process less address space than the sanitizer needs for itself.
    local file name programs=()
    for file in tests/*.rs tests/*/main.rs; do
        name=$(basename "${file/\/main.rs/}" .rs)
        case $name in
        group_no_thread | no_thread_asleep | no_thread_memory | serve_no_timer) ;;
        *) programs+=(--test "$name") ;;
        esac
    done
    # Not `depth`, whose stack of 128 KiB is too small for what the sanitizer puts around each variable.
    LSAN_OPTIONS="suppressions=$PWD/tests/sanitizers/lsan.supp ${LSAN_OPTIONS:-}" \
    RUSTFLAGS=-Zsanitizer=address run_tests address \
        cargo "+$nightly" test "${build_std[@]}" --target "$host" --target-dir "$target_dir/address" \
        "${programs[@]}" --features "$features" --no-fail-fast -- --skip depth
    seeds
}

# What the fuzzers have found worth keeping: cargo-fuzz builds with the sanitizer.
seeds() {
    fuzz/run.sh 0 | tee "$log"
    say "address, seeds: $(tail -n 3 "$log" | tr '\n' ' ')"
}

valgrind() {
    if ! command -v valgrind >/dev/null; then
        say "valgrind: SKIPPED, it is not installed"
        return
    fi
    local runner=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$host")_RUNNER
    # In turns, one thread at a time: otherwise one that spins can keep the others from running. What is only possibly
    # lost is no error: threads that live on, and handles that tests forget, are reached by inner pointers.
    # Without `theirs`, and without those that count what is done in a time, or see by a limit that a cost is linear.
    local timed=(--skip a_branch_of_select)
    local test
    for test in cancel_again \
        many_callbacks_cancel_the_root_again \
        many_callbacks_in_a_chain_are_told_the_cause \
        nested_guards_go_while_the_cancel_above_stands_still \
        any_of_tokens_in_each_other \
        a_ladder_of_any_of_tokens \
        many_sources_in_one_tree \
        many_edges_at_the_end_of_a_long_chain; do
        timed+=(--skip "$test")
    done
    run_tests valgrind env \
        "$runner=valgrind --quiet --error-exitcode=99 --fair-sched=yes --num-callers=40 --suppressions=tests/sanitizers/valgrind.supp \
--leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect" \
        cargo test --target-dir "$target_dir/valgrind" --test rules --test drop_in --test stress --test stress_context \
        --no-fail-fast -- --test-threads=1 --skip theirs "${timed[@]}"
}

thread() {
    if ! has_nightly; then
        say "thread: SKIPPED, there is no toolchain $nightly"
        return
    elif ! has_rust_src; then
        say "thread: SKIPPED, $nightly has no rust-src, and an uninstrumented std makes false alarms"
        return
    fi
    # A test forks, and its child starts threads. A panic's backtrace takes half a minute with an instrumented std.
    TSAN_OPTIONS="suppressions=$PWD/tests/sanitizers/tsan.supp die_after_fork=0 ${TSAN_OPTIONS:-}" RUST_BACKTRACE=0 \
    RUSTFLAGS=-Zsanitizer=thread run_tests thread \
        cargo "+$nightly" test -Zbuild-std --target "$host" --target-dir "$target_dir/thread" \
        --test '*' --features "$features" --no-fail-fast -- --skip depth
}

if [ $# -eq 0 ]; then set -- address valgrind thread; fi
for step in "$@"; do
    case $step in
    address | valgrind | thread) "$step" ;;
    *)
        echo "no such step: $step" >&2
        exit 2
        ;;
    esac
done
printf '\n'
printf '%s\n' "${summary[@]}"
