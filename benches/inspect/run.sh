#!/bin/sh
# What the feature `inspect` costs, without it and with it. A minute, after compilation.
set -eu
cd "$(dirname "$0")"
target=../../target/inspect
cargo build --release --locked --target-dir $target/without
cargo build --release --locked --target-dir $target/with --features inspect
echo "without the feature:"
$target/without/release/cancel-tree-inspect
echo
echo "with it:"
$target/with/release/cancel-tree-inspect
