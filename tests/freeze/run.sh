#!/usr/bin/env bash
# Freezes threads at any instruction, and sees that no other is late because of it. Linux only.
#
#   tests/freeze/run.sh            12 seconds, and 4 with a tree that has a mutex, which has to be found late; for CI
#   tests/freeze/run.sh 600        10 minutes
set -euo pipefail
cd "$(dirname "$0")"

if [ "$(uname -s)" != Linux ]; then
    echo "SKIPPED: freezing threads, which needs Linux"
    exit
fi
cargo build --release --locked --quiet
target=${CARGO_TARGET_DIR:-target}
echo "tokio-util's token, to see that lateness shows:"
"$target/release/freeze" 4 tokio-util
echo "this crate's:"
"$target/release/freeze" "${1:-12}"
