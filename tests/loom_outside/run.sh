#!/bin/sh
# Checks models that are written from outside, by what docs/LOOM.md says, and the examples on that page. No argument is
# needed.
set -eu
cd "$(dirname "$0")"

export RUSTFLAGS="--cfg cancel_tree_loom --cfg crossbeam_loom" RUSTDOCFLAGS="--cfg cancel_tree_loom --cfg crossbeam_loom"
export CARGO_TARGET_DIR=../../target/loom
if [ $# -gt 0 ] && ! cargo test --locked --quiet --test models -- --list "$@" | grep -q ': test$'; then
    echo "loom_outside: no model has \"$*\" in its name" >&2
    exit 1
fi
cargo test --locked --test models -- "$@"
[ $# -gt 0 ] || LOOM_MAX_PREEMPTIONS=2 LOOM_MAX_BRANCHES=20000 cargo test --locked --doc

# What is forgotten is said, and no model that does not end.
if RUSTFLAGS="--cfg cancel_tree_loom" cargo check --locked --quiet >"$CARGO_TARGET_DIR/forgotten" 2>&1; then
    echo "loom_outside: without crossbeam_loom it was built" >&2
    exit 1
fi
grep -q 'models need `--cfg crossbeam_loom`' "$CARGO_TARGET_DIR/forgotten"
echo "loom_outside: all as expected"
