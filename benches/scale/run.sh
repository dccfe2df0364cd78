#!/bin/sh
# What each operation does to shared cache lines, counted; and a model of what that means on many cores, checked on one
# and two. A minute, after compilation.
#
#   benches/scale/run.sh            counts, measures, and writes scale.md and scale.csv to where REPORT says
#   benches/scale/run.sh counts     counts, and fails if anything needs other than expected.csv says: for CI
#   benches/scale/run.sh build      compiles, and no more
set -eu
case "$*" in
"" | counts | build) ;;
*) echo "usage: benches/scale/run.sh [counts | build]" >&2 && exit 2 ;;
esac
# Directories are named from where the caller is.
absolute() {
    case $1 in
    /*) echo "$1" ;;
    *) echo "$PWD/$1" ;;
    esac
}
TARGET=$(absolute "${CARGO_TARGET_DIR:-$(dirname "$0")/../../target}")
REPORT=$(absolute "${REPORT:-$TARGET/report}")
cd "$(dirname "$0")"

export REPORT

# Two builds, each with a directory of its own: they differ in a flag that all they are made of is built with.
build() {
    RUSTFLAGS="${RUSTFLAGS:-} $2" cargo build --release --locked --quiet --target-dir "$TARGET/scale/$1"
}

build counting "--cfg cancel_tree_counting"
[ "${1:-}" = counts ] || build measuring ""
[ "${1:-}" != build ] || exit 0
counts=$TARGET/scale/counts.csv
# A thread that another program holds up may look once more than it would; what we do ourselves is counted each time: a row that
# is right in one of three attempts is right.
said=$TARGET/scale/said wrong=$TARGET/scale/wrong
row='^\(scale: \)\{0,1\}\([a-z0-9_]*, [A-Za-z]*\): .*'
attempt=1
until "$TARGET/scale/counting/release/cancel-tree-scale" "$counts" 2>"$said"; do
    cat "$said" >&2
    # Whatever else it says is no row.
    if [ ! -s "$said" ] || grep -qv "$row" "$said"; then exit 1; fi
    sed "s/$row/\2/" "$said" | sort -u >"$wrong.now"
    [ $attempt = 1 ] || comm -12 "$wrong.now" "$wrong" >"$wrong.each"
    [ $attempt = 1 ] || mv "$wrong.each" "$wrong.now"
    mv "$wrong.now" "$wrong"
    [ -s "$wrong" ] || { echo "scale: each is as expected in one of $attempt attempts" && break; }
    [ $attempt -lt 3 ] || { sed 's/^/scale: wrong each time: /' "$wrong" >&2 && exit 1; }
    attempt=$((attempt + 1))
    echo "scale: counts once more" >&2
done
[ "${1:-}" != counts ] || exit 0
"$TARGET/scale/measuring/release/cancel-tree-scale" "$counts"
