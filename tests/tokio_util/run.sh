#!/bin/sh
# The tests of tests/tokio_util.rs with other versions of tokio-util than the one in Cargo.lock: a graph has one 0.7 only, so
# each gets a package of its own, below target/. For people and for CI.
#
#   tests/tokio_util/run.sh                  the oldest that Cargo.toml admits, and the newest
#   tests/tokio_util/run.sh all              and some of those between, one for each way in which theirs is made
#   tests/tokio_util/run.sh 0.7.2 0.7.15     these
set -eu
cd "$(dirname "$0")/../.."
# Of what else is needed, the newest that this compiler can build.
export CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS=fallback

oldest=$(sed -n 's/^tokio-util = { version = "\([0-9.]*\)".*optional = true.*/\1/p' Cargo.toml)
case $oldest in
*.*.*) ;;
*.*) oldest=$oldest.0 ;;
*) echo "tokio_util: which versions does Cargo.toml admit?" >&2 && exit 1 ;;
esac
case ${1-} in
'') set -- "$oldest" newest ;;
all) set -- "$oldest" 0.7.2 0.7.4 0.7.10 0.7.15 newest ;;
esac

root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}/tokio_util
for version; do
    package=$target/$version
    mkdir -p "$package/src"
    : >"$package/src/lib.rs"
    requirement="=$version"
    [ "$version" != newest ] || requirement="0.7"
    cat >"$package/Cargo.toml" <<END
[package]
name = "with-tokio-util"
version = "0.0.0"
edition = "2021"
publish = false

[dev-dependencies]
cancel-tree = { path = "$root", features = ["tokio-util"] }
futures = { version = "0.3", default-features = false, features = ["std", "async-await", "executor"] }
tokio-util = { version = "$requirement", default-features = false }

[[test]]
name = "tokio_util"
path = "$root/tests/tokio_util.rs"

[workspace]
END
    # "newest" means today's.
    [ "$version" != newest ] || rm -f "$package/Cargo.lock"
    (
        cd "$package"
        cargo test --quiet --test tokio_util --target-dir "$target/build" >log 2>&1 || {
            cat log >&2
            # The world may have published another one of them today.
            echo "tokio_util: FAILED, with" \
                $(awk '/^name = / { name = $3 } /^version = / && name { print name, $3; name = "" }' Cargo.lock) >&2
            exit 1
        }
        grep -q '^test result: ok. [1-9]' log || { cat log >&2 && echo "tokio_util: no tests were run" >&2 && exit 1; }
        found=$(awk '/^name = "tokio-util"/ { getline; print $3 }' Cargo.lock)
        echo "tokio_util: $(sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' log) tests passed with $found"
    )
done
