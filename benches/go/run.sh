#!/bin/sh
# Go's context and this crate at the same work, in one table: benches/tree without the other contenders.
#
#   benches/go/run.sh               all
#   benches/go/run.sh create_drop   what has that in its name
#
# GO names the `go`, if it is not in the path; without one, its part is SKIPPED.
set -eu
cd "$(dirname "$0")/../.."
exec cargo bench --locked -p benches --bench tree -- "${1:+$1.*}/cancel_tree$"
