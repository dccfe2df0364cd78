#!/usr/bin/env bash
# What the layers for servers cost, beside tower-http's timeout and Go's net/http (SKIPPED where there is no Go): a request's
# nanoseconds and allocations, throughput over loopback, and from a client's reset to the end of the handler's context. On an idle
# machine; a few minutes.
set -euo pipefail
cd "$(dirname "$0")"
target=../../target/servers

cargo build --release --examples --target-dir $target
# Both ends of 10,000 connections.
ulimit -n 30000 2>/dev/null || ulimit -n "$(ulimit -Hn)"
$target/release/examples/cost

if command -v go >/dev/null && go version | grep -qE 'go1\.(2[4-9]|[3-9][0-9])|go[2-9]'; then
    (cd foreign/go && go build -o "../../$target/go-load" ./load)
    coproc GO { $target/go-load serve; }
    read -r port <&"${GO[0]}"
    $target/release/examples/load throughput "$port"
    eval "exec ${GO[1]}>&-"
    $target/go-load reset
else
    echo "SKIPPED: Go's column, for there is no Go 1.24 or later here"
    $target/release/examples/load throughput
fi
$target/release/examples/load reset
