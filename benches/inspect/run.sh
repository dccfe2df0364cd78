#!/bin/sh
# What the feature `inspect` costs, without it and with it. A minute, after compilation.
#
#   benches/inspect/run.sh           measures
#   benches/inspect/run.sh counts    counts accesses to shared memory, and fails where they are not linear: for CI
set -eu
cd "$(dirname "$0")"
target=../../target/inspect
case "$*" in
"") ;;
counts)
    export RUSTFLAGS="${RUSTFLAGS:-} --cfg cancel_tree_counting"
    linear() { cargo test --locked --features inspect --test linear --target-dir "$target/counting" "$@"; }
    # Without that flag the file is empty.
    linear --no-run
    linear --quiet -- --list | grep -q ': test$' || { echo "inspect: no tests are there" >&2 && exit 1; }
    linear
    exit
    ;;
*) echo "usage: benches/inspect/run.sh [counts]" >&2 && exit 2 ;;
esac
cargo build --release --locked --target-dir "$target/without"
cargo build --release --locked --target-dir "$target/with" --features inspect
echo "without the feature:"
"$target/without/release/cancel-tree-inspect"
echo
echo "with it:"
"$target/with/release/cancel-tree-inspect"
