#!/bin/sh
# Other machines than this one. For people and for CI: no argument is needed.
#
#   tests/targets.sh                      checks that the crate compiles for each target, and runs what can be run here
#   TARGETS_INSTALL=1 tests/targets.sh    installs the targets that are missing, with rustup
#
# A target that is not installed is built with its standard library from source if there is a nightly with rust-src,
# and said to be SKIPPED if not.
set -eu
cd "$(dirname "$0")/.."

# With std: 64-bit atomics, of 64 and 32 bits, both byte orders, other systems.
STD="i686-unknown-linux-gnu armv7-unknown-linux-gnueabihf aarch64-unknown-linux-gnu s390x-unknown-linux-gnu
    riscv64gc-unknown-linux-gnu x86_64-pc-windows-msvc aarch64-apple-darwin"
# Without: these have atomics of 32 bits only, so the narrow state word; and wasm32-unknown-unknown, which has neither
# threads nor a clock.
NO_STD="wasm32-unknown-unknown thumbv7em-none-eabihf riscv32imac-unknown-none-elf powerpc-unknown-linux-gnu"

# Without compare-and-swap: these need the feature `portable-atomic`.
NO_CAS="thumbv6m-none-eabi riscv32imc-unknown-none-elf"

stable=$(rustc --print sysroot)/lib/rustlib
nightly=$(rustc +nightly --print sysroot 2>/dev/null || true)/lib/rustlib
checked=0
skipped=

# cargo_for TARGET COMMAND…: with what there is.
cargo_for() {
    target=$1 command=$2
    shift 2
    if [ ! -d "$stable/$target" ] && [ -n "${TARGETS_INSTALL:-}" ]; then
        rustup target add "$target" || true
    fi
    if [ -d "$stable/$target" ]; then
        cargo "$command" --target "$target" "$@"
    elif [ -d "$nightly/src/rust/library" ]; then
        cargo +nightly "$command" "-Zbuild-std=$build_std" --target "$target" "$@"
    else
        return 77
    fi
}

check() {
    target=$1
    shift
    status=0
    cargo_for "$target" check --quiet --lib "$@" || status=$?
    case $status in
    0) checked=$((checked + 1)) && echo "targets: $target is checked" ;;
    77) skipped="$skipped $target" && echo "targets: $target SKIPPED, it is not installed" ;;
    *) echo "targets: $target FAILED" >&2 && exit 1 ;;
    esac
}

build_std=std,panic_abort
for target in $STD; do
    check "$target"
done
check x86_64-pc-windows-msvc --features serve,tower,tokio-util,tokio,crossbeam-channel,testing
check aarch64-apple-darwin --features serve
build_std=core,alloc
for target in $NO_STD; do
    check "$target" --no-default-features
done

# As a program would have it: critical sections, or one core and no way to be interrupted at the wrong moment.
for target in $NO_CAS; do
    check "$target" --manifest-path tests/no_std_check/Cargo.toml --features portable-atomic
    (
        export RUSTFLAGS="${RUSTFLAGS:-} --cfg portable_atomic_unsafe_assume_single_core"
        check "$target" --no-default-features --features portable-atomic \
            --target-dir "${CARGO_TARGET_DIR:-target}/single-core"
    )
done
check thumbv7em-none-eabihf --no-default-features --features portable-atomic

build_std=std,panic_abort

# count_tests COMMAND…: shows the sums; fails with it, or if it ran nothing.
count_tests() {
    log=$(mktemp)
    "$@" >"$log" 2>&1 || { cat "$log" >&2 && rm "$log" && exit 1; }
    sum=$(awk '/^test result: ok/ { sum += $4 } END { print sum + 0 }' "$log")
    rm "$log"
    [ "$sum" -gt 0 ] || { echo "targets: no tests were run" >&2 && exit 1; }
    echo "targets: $sum tests passed"
}

echo "targets: the tests with 32 bits"
probe=$(mktemp -d)
echo 'int main(void) { return 0; }' >"$probe/a.c"
if { [ -d "$stable/i686-unknown-linux-gnu" ] || [ -d "$nightly/src/rust/library" ]; } &&
    cc -m32 "$probe/a.c" -o "$probe/a" 2>/dev/null && "$probe/a"; then
    count_tests cargo_for i686-unknown-linux-gnu test --lib --test rules --test context_rules --test drop_in \
        --test limits --test memory --test stress --test stress_context
else
    echo "targets: SKIPPED, no i686 or no compiler and libraries for it (gcc-multilib)"
    skipped="$skipped i686-tests"
fi
rm -r "$probe"

echo "targets: the tests with the narrow state word, as where there are no 64-bit atomics"
# These two have more children and handles than that counts: it would end the process, as documented.
RUSTFLAGS="${RUSTFLAGS:-} --cfg cancel_tree_narrow" count_tests \
    cargo test --target-dir "${CARGO_TARGET_DIR:-target}/narrow" --lib --test rules --test context_rules \
    --test drop_in --test limits --test stress --test stress_context -- --skip a_wide_tree --skip many_callbacks_cancel_the_root_again

echo "targets: the tests with the atomics and the Arc of portable-atomic"
count_tests cargo test --features portable-atomic --lib --test rules --test context_rules --test static_token

echo "targets: $checked checked${skipped:+, SKIPPED:$skipped}"
[ "$checked" -gt 0 ] || echo "targets: SKIPPED, all of them: there is no other target here, nor a nightly with rust-src to build one"
