#!/usr/bin/env bash
# The page in a real browser: it searches, shows hits, closes, and the server's counters show that the work has ended. SKIPPED, and
# said to be so, where there is no Chromium or no Node. `tests/browser.sh PICTURE` keeps a picture of the page, too
# (the README's is in `docs/plots`, and as a link to itself in `docs/picture.md`).
set -euo pipefail
cd "$(dirname "$0")/.."
skipped() { echo "SKIPPED: the page in a browser, for there is no $1 here"; exit 0; }
browser=
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    browser=${browser:-$(command -v $name || true)}
done
[ -n "$browser" ] || skipped "Chromium"
command -v node >/dev/null && node -e 'process.exit(+process.versions.node.split(".")[0] >= 18 ? 0 : 1)' || skipped "Node 18 or later"
target=${CARGO_TARGET_DIR:-target}
cargo build --target-dir "$target"
timeout 300 node tests/browser.mjs "$browser" "$target/debug/search-server" "$@"
