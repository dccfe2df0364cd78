#!/usr/bin/env bash
# Each test in a process of its own, whose threads stand still now and then, as they do on a busy machine: one that counts on being
# faster than a deadline fails. Linux only, and by hand.
#
#   tests/stalls/run.sh 4                                        four times each, of the tests of `cargo test`
#   tests/stalls/run.sh 20 --features serve --test serve         of these
#   (cd tests/servers && ../stalls/run.sh 4 --target-dir ../../target/servers)     of another package
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ "$(uname)" = Linux ] && command -v "${CC:-cc}" >/dev/null || { echo "SKIPPED: stalls, for this is not Linux, or there is no C compiler"; exit; }
times=${1:-4}
[ $# -eq 0 ] || shift

logs=$(mktemp -d)
"${CC:-cc}" -shared -fPIC -O1 -Wall -o "$logs/stall.so" "$here/stall.c" -ldl -lpthread
export STALL_SO=$logs/stall.so STALL_LOGS=$logs

# one SEED BINARY TEST
one() {
    local ways=("15 500" "5 150" "60 900" "8 60") log=$STALL_LOGS/$(basename "$2").${3//:/.}.$1
    read -r STALL_IN STALL_MS <<<"${ways[$(($1 % 4))]}"
    export STALL_IN STALL_MS STALL_SEED=$1 STALL_TOTAL=4000
    if LD_PRELOAD=$STALL_SO timeout 300 "$2" --exact "$3" >"$log" 2>&1 </dev/null; then
        rm "$log"
    else
        echo "FAILED: $3, seed $1; see $log"
        return 1
    fi
}
export -f one

cargo test --no-run "$@" >"$logs/built" 2>&1 || { cat "$logs/built" >&2 && exit 1; }
sed -n 's/.*Executable .*(\(.*\))$/\1/p' "$logs/built" >"$logs/binaries"
[ -s "$logs/binaries" ] || { cat "$logs/built" >&2 && exit 1; }
while read -r binary; do
    "$PWD/${binary#"$PWD/"}" --list --format terse 2>/dev/null | sed -n "s|\(.*\): test\$|$PWD/${binary#"$PWD/"} \1|p"
done <"$logs/binaries" >"$logs/tests"
seeds=$(seq "$$" $(($$ + times - 1)))
for seed in $seeds; do sed "s/^/$seed /" "$logs/tests"; done >"$logs/all"
xargs -a "$logs/all" -P 8 -L 1 bash -c 'one "$@"' one || { echo "stalls: not all of $(wc -l <"$logs/all") passed" && exit 1; }
echo "stalls: $(wc -l <"$logs/tests") tests, $times times each, all passed"
rm -r "$logs"
