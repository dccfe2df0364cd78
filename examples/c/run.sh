#!/bin/sh
# Builds the library for C and the program in C, and runs it under valgrind: no argument is needed.
set -eu
cd "$(dirname "$0")"
target=../../target/c

if ! command -v "${CC:-cc}" >/dev/null; then
    echo "examples/c: SKIPPED, there is no C compiler (${CC:-cc})"
    exit 0
fi
cargo build --target-dir "$target"
# What std of Rust needs of the system; systems other than Linux have less in libraries of their own.
libraries=-lpthread
[ "$(uname)" != Linux ] || libraries="-lpthread -ldl -lm -lrt"
# shellcheck disable=SC2086 # several words
"${CC:-cc}" -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Werror -g -o "$target/program" \
    main.c "$target/debug/libcancel_tree_c.a" $libraries

if ! command -v valgrind >/dev/null; then
    "$target/program"
    echo "examples/c: under valgrind SKIPPED, there is none"
    exit 0
fi
# Not what is only possibly lost: std's own record of the main thread looks so.
valgrind --quiet --error-exitcode=1 --leak-check=full --errors-for-leak-kinds=definite,indirect \
    --show-leak-kinds=definite,indirect "$target/program"
