#!/usr/bin/env bash
# The search server with the library, and the same with it taken out: with tokio's timeout, and with tokio-util's token by hand.
#
#     benches/server/run.sh [DIR]        what is searched; by default the sources that Cargo keeps
#
# For each: requests a second and their latency under load (wrk, where it is), CPU seconds for searches whose client has gone, memory, and
# how long the end takes after a SIGTERM with searches under way.
set -euo pipefail
cd "$(dirname "$0")"
dir=${1:-${CARGO_HOME:-$HOME/.cargo}/registry/src}
target=$PWD/../../target/server-bench
(cd ../../examples/search-server && cargo build --quiet --release --target-dir "$target")
cargo build --quiet --release --target-dir "$target"
said=$(mktemp)
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true; rm -f "$said"' EXIT

ticks=$(getconf CLK_TCK)
# User and system time, in ms.
cpu() { awk -v ticks="$ticks" '{ sub(/.*\) /, ""); print int(($12 + $13) * 1000 / ticks) }' "/proc/$server/stat"; }
memory() { awk '/^VmRSS/ { print $2 }' "/proc/$server/status"; }
now() { date +%s%3N; }
value() { curl -s "$at/metrics" | awk -v name="$1" '$1 == name { print $2 }'; }
# Nobody searches.
idle() { until [ "$(value search_working)" = 0 ]; do sleep 0.05; done; }

measure() {
    local name=$1 before begin
    shift
    "$@" >"$said" 2>/dev/null &
    server=$!
    until grep -q '^listening on ' "$said"; do kill -0 $server; sleep 0.05; done
    at=$(sed -n 's/^listening on //p' "$said" | head -1)
    echo "== $name"
    # All of it once: the files are in memory.
    curl -s -o /dev/null "$at/search?q=no+such+text+at+all&timeout=60s"
    if command -v wrk >/dev/null; then
        wrk -t2 -c16 -d10s --latency "$at/search?q=unsafe&timeout=50ms&n=20" | grep -E '50%|99%|Requests/sec|Non-2xx' || true
        echo "with a limit that is met, of 50 ms:"
        wrk -t2 -c8 -d10s --latency "$at/search?q=no+such+text+at+all&timeout=50ms" | grep -E '50%|99%|Requests/sec|Non-2xx' || true
    else
        echo "SKIPPED: requests a second, for there is no wrk here"
    fi
    idle
    before=$(cpu)
    for _ in $(seq 20); do
        curl -s -o /dev/null --max-time 0.05 "$at/search?q=no+such+text+at+all&timeout=30s" || true
    done
    begin=$(now)
    idle
    echo "20 clients that go after 50 ms: $(($(cpu) - before)) ms of CPU; the last work ends $(($(now) - begin)) ms after the last has gone"
    echo "memory: $(memory) KiB"
    for _ in $(seq 4); do
        curl -s -o /dev/null --max-time 60 "$at/search?q=no+such+text+at+all&timeout=30s" &
    done
    sleep 0.3
    begin=$(now)
    kill -TERM $server
    wait $server || true
    server=
    echo "from SIGTERM to the end, with 4 searches under way: $(($(now) - begin)) ms"
}

measure "with the library" "$target/release/search-server" --listen 127.0.0.1:0 --root "$dir" --lame-duck 0s --graceful 100ms --events /dev/null
measure "tokio's timeout" "$target/release/server-without" timeout "$dir" 127.0.0.1:0
measure "tokio-util's token by hand" "$target/release/server-without" token "$dir" 127.0.0.1:0
