#!/usr/bin/env bash
# The features for servers against the real ones: axum, hyper, tonic in Rust's own tests; curl, Python's grpcio and Go's
# net/http where they are to be had, and said to be SKIPPED where not.
set -euo pipefail
cd "$(dirname "$0")"
target=../../target/servers
# What listens here is asked without a proxy.
no_proxy=${no_proxy:-${NO_PROXY:-}}
export no_proxy=127.0.0.1,localhost${no_proxy:+,$no_proxy}
export NO_PROXY=$no_proxy

cargo test --target-dir $target
cargo build --example foreign --target-dir $target
foreign=$PWD/$target/debug/examples/foreign

skipped() { echo "SKIPPED: $*"; }

curls() {
    local said port answer ours client cut code status
    # Without what others have set for their own work.
    local curl=(curl -q --noproxy '*')
    said=$(mktemp)
    mkfifo "$said.in"
    "$foreign" serve <"$said.in" >"$said" &
    ours=$!
    exec 9>"$said.in"
    # wait_for TEXT COUNT: for half a minute.
    wait_for() {
        for _ in $(seq 3000); do
            [ "$(grep -c "$1" "$said")" -lt "$2" ] || return 0
            sleep 0.01
        done
        echo "curl: not seen $2 times: $1" && cat "$said" && return 1
    }
    # wait_for_body FILE: for half a minute.
    wait_for_body() {
        for _ in $(seq 3000); do
            [ ! -s "$1" ] || return 0
            sleep 0.01
        done
        echo "curl: nothing of the body has come" && return 1
    }
    wait_for '^ports ' 1
    port=$(awk '/^ports /{print $3}' "$said")
    local gone=0 begun=0
    for version in --http1.1 --http2-prior-knowledge; do
        grep -q HTTP2 <<<"$(curl --version)" || [ $version = --http1.1 ] || { skipped "curl without HTTP/2"; continue; }
        answer=$("${curl[@]}" -si $version "127.0.0.1:$port/hello")
        grep -q hello <<<"$answer"
        begun=$((begun + 1))
        answer=$("${curl[@]}" -si $version -H 'connect-timeout-ms: 100' "127.0.0.1:$port/head")
        grep -q ' 504' <<<"$answer"
        grep -qi '^x-deadline-expired: 1' <<<"$answer"
        # A body that is cut off is no clean end: 18 (partial), 56 (receive), 92 (HTTP/2 stream). A busy machine may not be there yet
        # at the deadline: that is a 504.
        cut=
        for limit in 1000 8000 60000; do
            status=0
            code=$("${curl[@]}" -s $version -o /dev/null -w '%{http_code}' -H "connect-timeout-ms: $limit" "127.0.0.1:$port/body") ||
                status=$?
            [ $status != 0 ] || [ "$code" = 504 ] || { echo "curl: a clean end at the deadline" && return 1; }
            if [ "$code" = 200 ]; then
                cut=$status
                break
            fi
        done
        [ -n "$cut" ] || { echo "curl: no body before the deadline" && return 1; }
        # It gives up: before the head, and in the middle of the body.
        for path in head body; do
            "${curl[@]}" -sN $version -o "$said.body" "127.0.0.1:$port/$path" 9>&- &
            client=$!
            # Those without a deadline, as the first one is.
            begun=$((begun + 1))
            wait_for '^begun$' $begun
            [ $path = head ] || wait_for_body "$said.body"
            kill $client
            if wait $client; then
                echo "curl: ended before it was to" && return 1
            fi
            rm -f "$said.body"
            gone=$((gone + 1))
            wait_for 'ended the client is gone' $gone
        done
        echo "curl: $version: 504, a cut body, and its end is ours"
    done
    exec 9>&-
    wait $ours
    rm -f "$said" "$said.in"
}

if command -v curl >/dev/null; then curls; else skipped "curl, which is not here"; fi

# Looked for, and else installed into a place of its own.
python=$target/venv/bin/python
if ! "$python" -c 'import grpc' 2>/dev/null; then
    # As it is built by others: to build it here takes longer than all the rest.
    { python3 -m venv $target/venv && timeout 120 "$python" -m pip install --quiet --only-binary :all: grpcio; } >/dev/null 2>&1 || true
fi
if "$python" -c 'import grpc' 2>/dev/null; then
    timeout 300 "$python" foreign/grpcio_check.py "$foreign"
else
    skipped "Python's grpcio, for there is no Python 3 with venv, or PyPI has none for it, or cannot be reached"
fi

# No other one is fetched.
export GOTOOLCHAIN=local
if ! { command -v go >/dev/null && go version | grep -qE 'go1\.(2[4-9]|[3-9][0-9])|go[2-9]'; }; then
    skipped "Go's net/http, for there is no Go 1.24 or later here"
elif (cd foreign/go && GOFLAGS=-mod=mod go build -o "../../$target/foreign-go" .); then
    timeout 300 "$target/foreign-go" "$foreign"
else
    skipped "Go's net/http, for it cannot be built by $(go version)"
fi

# The page of what does not stop, in a real browser.
# There may be a name without a browser behind it, or one that cannot run here.
shows() {
    timeout 60 "$1" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --dump-dom about:blank </dev/null 2>/dev/null |
        grep '<html>' >/dev/null
}
browser=
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    [ -n "$browser" ] || ! shows $name || browser=$name
done
if [ -n "$browser" ] && command -v node >/dev/null && node -e 'process.exit(+process.versions.node.split(".")[0] >= 18 ? 0 : 1)'; then
    cargo build --example debug --target-dir $target
    timeout 300 node foreign/page.mjs "$browser" $target/debug/examples/debug
else
    skipped "the page in a browser, for there is no Chromium that runs, or no Node 18 or later"
fi
