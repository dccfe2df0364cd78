#!/usr/bin/env bash
# The search server with the library, and the same with it taken out: with tokio's timeout, with tokio-util's token by hand, and in Go.
#
#     benches/server/run.sh [DIR]           what is searched; by default the sources that Cargo keeps. Ten minutes; the table is put into docs/WORTH.md
#     benches/server/run.sh --quick [DIR]   tries it all out, in debug builds; the table goes to the output
#
# What a machine has not got (wrk, a Go that can build it) is said to be SKIPPED. GO names the `go`, if it is not in the path.
set -euo pipefail
quick=
[ "${1:-}" != --quick ] || { quick=--quick; shift; }
dir=$(cd "${1:-${CARGO_HOME:-$HOME/.cargo}/registry/src}" && pwd)
cd "$(dirname "$0")"
target=$(cd ../.. && pwd)/target/search-server
profile=release
[ -z "$quick" ] || profile=debug
for package in ../../examples/search-server .; do
    (cd $package && cargo build --quiet --locked $([ -n "$quick" ] || echo --release) --target-dir "$target")
done
go=()
# No other one is fetched.
export GOTOOLCHAIN=local
# There may be a name without a Go behind it.
if ! "${GO:-go}" version >/dev/null 2>&1; then
    echo "SKIPPED: the server in Go, for there is no Go here" >&2
elif (cd go && "${GO:-go}" build -o "$target/$profile/search-go" .); then
    go=("$target/$profile/search-go")
else
    echo "SKIPPED: the server in Go, for it cannot be built by $("${GO:-go}" version)" >&2
fi
measure() { "$target/$profile/measure-server" $quick "$dir" "$target/$profile/search-server" "$target/$profile/server-without" "${go[@]}"; }
[ -z "$quick" ] || { measure; exit; }
load=$(cut -d ' ' -f 1 /proc/loadavg)
table=$(measure)
made=$(mktemp)
{
    sed '/^<!-- measured -->$/q' ../../docs/WORTH.md
    printf '\n%s, commit %s, %s cores of %s, load average %s at the start; %s files with %s; %s%s.\n\n%s\n\n' \
        "$(date -u '+%Y-%m-%d %H:%M UTC')" "$(git describe --always --dirty --exclude='*')" "$(nproc)" \
        "$(lscpu | sed -n 's/^Model name: *//p')" "$load" "$(find "$dir" -type f | wc -l)" "$(du -sh "$dir" | cut -f 1)" \
        "$(rustc --version | cut -d ' ' -f 1,2)" "$([ ${#go[@]} = 0 ] || echo ", $("${GO:-go}" version | cut -d ' ' -f 3)")" "$table"
    case $load in 0.*) ;; *)
        printf '**The machine was busy with something else when this was measured: CPU time and answers are to be trusted, the rest beside its neighbours only.**\n\n' ;;
    esac
    sed -n '/^<!-- end -->$/,$p' ../../docs/WORTH.md
} >"$made"
cat "$made" >../../docs/WORTH.md
rm "$made"
