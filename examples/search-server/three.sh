#!/usr/bin/env bash
# Three backends, each with a third of the files, and the front that asks them, on one machine. Ctrl-C ends all.
#
#     ./three.sh [FRONT'S OPTIONS]         ROOT=dir and SLOW=10ms are for the backends
set -euo pipefail
cd "$(dirname "$0")"
# SERVER=file is a server that is built already.
[ -n "${SERVER:-}" ] || cargo build --release
server=${SERVER:-${CARGO_TARGET_DIR:-target}/release/search-server}
said=$(mktemp -d)
# In sessions of their own: the terminal's Ctrl-C is for this script to answer.
own=$(command -v setsid || true)
backends=()
front=
# The backends last: the front may still be waiting for them.
end() {
    trap '' INT TERM
    [ -z "$front" ] || { kill -TERM "$front" 2>/dev/null; wait "$front" || true; }
    for backend in "${backends[@]}"; do kill -INT "$backend" 2>/dev/null || true; done
    wait
    rm -r "$said"
}
trap end EXIT
trap 'exit 130' INT TERM

for number in 1 2 3; do
    $own "$server" serve-backend --share $number/3 --lame-duck 0s ${ROOT:+--root "$ROOT"} ${SLOW:+--slow "$SLOW"} >"$said/$number" &
    backends+=($!)
done
addresses=()
for number in 1 2 3; do
    until grep -q '^listening on ' "$said/$number"; do
        kill -0 "${backends[number - 1]}" || exit 1
        sleep 0.05
    done
    addresses+=("$(sed -n 's|^listening on http://||p' "$said/$number")")
done
$own "$server" --backends "$(IFS=,; echo "${addresses[*]}")" --lame-duck 0s "$@" &
front=$!
wait "$front"
