#!/usr/bin/env bash
# The page in a real browser: it searches, shows hits, closes, and the server's counters show that the work has ended. SKIPPED, and
# said to be so, where there is no Chromium or no Node. `tests/browser.sh PICTURE` keeps a picture of the page, too
# (the README's is in `docs/plots`, and as a link to itself in `docs/picture.md`).
set -euo pipefail
cd "$(dirname "$0")/.."
# What listens here is asked without a proxy.
no_proxy=${no_proxy:-${NO_PROXY:-}}
export no_proxy=127.0.0.1,localhost${no_proxy:+,$no_proxy}
export NO_PROXY=$no_proxy
skipped() { echo "SKIPPED: the page in a browser, for there is no $1 here"; exit 0; }
# There may be a name without a browser behind it, or one that cannot run here.
shows() {
    timeout 60 "$1" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --dump-dom about:blank </dev/null 2>/dev/null |
        grep '<html>' >/dev/null
}
browser=
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    [ -n "$browser" ] || ! shows $name || browser=$name
done
[ -n "$browser" ] || skipped "Chromium that runs"
command -v node >/dev/null && node -e 'process.exit(+process.versions.node.split(".")[0] >= 18 ? 0 : 1)' || skipped "Node 18 or later"
target=${CARGO_TARGET_DIR:-target}
cargo build --target-dir "$target"
timeout 300 node tests/browser.mjs "$browser" "$target/debug/search-server" "$@"
