#!/usr/bin/env bash
# Builds the library with the oldest version of each dependency that Cargo.toml admits: a published lock file may hold any
# of them. tokio-util has a script of its own (tests/tokio_util/run.sh), for its oldest needs a newer tokio than it says;
# loom and shuttle are for this project's own checks.
set -euo pipefail
cd "$(dirname "$0")/.."
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
# Twice: some are held back by what is newer of the others.
for _ in 1 2; do
    while read -r name version; do
        cargo update --quiet --package "$name" --precise "$version" 2>/dev/null || true
    done <<<"$oldest"
done
CARGO_TARGET_DIR=../oldest-build cargo check --quiet --locked
while read -r name version; do
    grep -A1 "^name = \"$name\"$" Cargo.lock | grep -q "\"$version\"" || { echo "oldest: $name is not $version" >&2 && exit 1; }
done <<<"$oldest"
echo "oldest: builds with" $oldest
