#!/usr/bin/env bash
# Builds the library with the oldest version of each dependency that Cargo.toml admits: a published lock file may hold any
# of them. tokio-util has a script of its own (tests/tokio_util/run.sh), for its oldest needs a newer tokio than it says;
# loom and shuttle are for this project's own checks.
set -euo pipefail
cd "$(dirname "$0")/.."
# Of what has no oldest here, the newest that this compiler can build.
export CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS=fallback
features=crossbeam-channel,process,tokio,tower,serve,testing,metrics,tracing,portable-atomic

package=target/oldest
mkdir -p $package/src
: >$package/src/lib.rs
cat >$package/Cargo.toml <<PACKAGE
[package]
name = "oldest"
version = "0.0.0"
edition = "2021"
publish = false
[dependencies.cancel-tree]
path = "../.."
features = ["${features//,/\", \"}"]
[workspace]
PACKAGE
# Name and version of each: the sections of dependencies, but for those of tests.
oldest=$(awk '/^\[/ { on = /dependencies\]$/ && !/dev-/ } on && / = / { sub(/ =.*version = "/, " "); sub(/".*/, ""); print }' Cargo.toml |
    grep -vE '^(loom|shuttle|tokio-util) ')
cd $package
rm -f Cargo.lock
cargo generate-lockfile --quiet
# Twice: some are held back by what is newer of the others. What Cargo says of them then is told if one stays.
: >said
for round in 1 2; do
    while read -r name version; do
        echo "round $round: $name to $version" >>said
        cargo update --quiet --package "$name" --precise "$version" 2>>said || true
    done <<<"$oldest"
done
while read -r name version; do
    grep -A1 "^name = \"$name\"$" Cargo.lock | grep -q "\"$version\"" ||
        { cat said >&2 && echo "oldest: $name is not $version" >&2 && exit 1; }
done <<<"$oldest"
CARGO_TARGET_DIR=../oldest-build cargo check --quiet --locked || {
    # Of what has no oldest here the world may have published another one today.
    echo "oldest: FAILED, with" $(awk '/^name = / { name = $3 } /^version = / && name { print name, $3; name = "" }' Cargo.lock) >&2
    exit 1
}
echo "oldest: builds with" $oldest
