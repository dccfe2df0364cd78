#!/bin/sh
# Checks all models of cancel-tree with loom. For people and for CI: no argument is needed.
#
#   loom-tests/run.sh                    all models
#   loom-tests/run.sh any_of::           those whose name has this in it
#   CANCEL_TREE_PREEMPTIONS=4 …          another bound for the models that have one; "none" for none
#   LOOM_LOCATION=1 LOOM_MAX_PREEMPTIONS=n …   what loom itself offers
set -eu
cd "$(dirname "$0")"

# Raised with every model that is added: a file that is not compiled in must not go unnoticed.
EXPECTED=539

export RUSTFLAGS="${RUSTFLAGS:-} --cfg cancel_tree_loom --cfg crossbeam_loom"

cargo test --release --locked --test races --no-run
count=$(cargo test --release --locked --quiet --test races -- --list | grep -c ': test$')
ignored=$(cargo test --release --locked --quiet --test races -- --list --ignored | grep -c ': test$' || true)
if [ "$count" -lt "$EXPECTED" ] || [ "$ignored" -ne 0 ]; then
    echo "loom-tests: $count models, $ignored of them ignored; expected $EXPECTED and none" >&2
    exit 1
fi
if [ $# -gt 0 ] && ! cargo test --release --locked --quiet --test races -- --list "$@" | grep ': test$' >/dev/null; then
    echo "loom-tests: no model has \"$*\" in its name" >&2
    exit 1
fi
cargo test --release --locked --test races -- "$@"
echo "loom-tests: $count models there${1:+, run: those with \"$1\" in their name}"
