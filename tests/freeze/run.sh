#!/usr/bin/env bash
# Freezes threads at any instruction, and sees that no other is late because of it. Linux only.
#
#   tests/freeze/run.sh            12 seconds, and 4 with a tree that has a mutex, which has to be found late; for CI
#   tests/freeze/run.sh 600        10 minutes
#
# Where it is late with the same pauses between operations as well, it is the machine that is: that is said to be SKIPPED.
set -euo pipefail
cd "$(dirname "$0")"

if [ "$(uname -s)" != Linux ]; then
    echo "SKIPPED: freezing threads, which needs Linux"
    exit
fi
cargo build --release --locked --quiet
target=${CARGO_TARGET_DIR:-target}

# What the machine does is in one attempt and not in another: a wait in CI's few seconds would be there in all of them. In
# the long form there is one attempt, for it looks for what is rare.
attempts=3
[ $# = 0 ] || attempts=1
# freeze ARGUMENT…: 3 if another attempt may find it otherwise. What else goes wrong, a panic or a crash above all, is no matter of time.
freeze() {
    local code=0
    "$target/release/freeze" "$@" || code=$?
    [ $code = 0 ] || [ $code = 3 ] || {
        echo "FAILED: freeze $*: exit code $code" >&2
        exit 1
    }
    return $code
}

# attempt TIMES COMMAND…: one that is good is enough.
attempt() {
    for n in $(seq "$1"); do
        "${@:2}" && return
        echo "attempt $n of $1 failed"
    done
    return 1
}

# Ours, and where it fails, what the machine does by itself, which comes and goes as well.
ours() {
    freeze "$1" && return
    for _ in $(seq "$attempts"); do
        [ -z "$machine" ] || break
        echo "the same pauses between operations:"
        freeze "$1" between || machine=late
    done
    return 1
}

echo "tokio-util's token, to see that lateness shows:"
attempt 3 freeze 4 tokio-util
echo "this crate's:"
machine=
if ! attempt $attempts ours "${1:-12}"; then
    [ -n "$machine" ] || exit 1
    echo "SKIPPED: whether others are late because a thread stands still, for on this machine they are late anyway"
fi
