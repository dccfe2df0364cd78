#!/bin/sh
# Instructions of the hot operations, counted by callgrind. Half a minute, after compilation.
#
#   benches/instructions/run.sh             fails if one needs over 5 % more than expected.csv says: for CI
#   benches/instructions/run.sh --update    takes expected.csv anew
#   benches/instructions/run.sh build       compiles, and no more
#
# With another compiler or target than expected.csv is of nothing is compared, and without valgrind nothing counted;
# either is said to be SKIPPED. instructions.md and instructions.csv go to the directory that REPORT names.
set -eu
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

PROFILES=$TARGET/instructions/profiles
TOOLCHAIN="rustc $(rustc -vV | sed -n 's/^release: //p'), $(rustc -vV | sed -n 's/^host: //p')"
export REPORT PROFILES TOOLCHAIN

cargo build --release --locked --quiet --target-dir "$TARGET/instructions"
[ "${1:-}" != build ] || exit 0
exec "$TARGET/instructions/release/cancel-tree-instructions" "$@"
