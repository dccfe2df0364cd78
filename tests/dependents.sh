#!/usr/bin/env bash
# Programs that were written for tokio-util's token, on ours: each is taken as its authors published it and its own tests
# are run twice, with tokio-util as it is and with a copy whose token, guards, futures and FutureExt are re-exports of
# ours. Fails if a test ends otherwise, if a program no longer compiles, or if nothing was compared.
#
#   tests/dependents.sh                      all: hours on two cores
#   tests/dependents.sh poem salvo           these
#   DEPENDENTS_LIMIT=1800 …                  seconds for each program, compiling included; 5400 if not said
#
# What can't be had here is SKIPPED, with the reason. A test that ends otherwise is repeated alone, on both sides: the
# difference stands if ours ends even once as theirs never does. All that is written is below target/dependents.
set -euo pipefail
cd "$(dirname "$0")/.."

TOKIO_UTIL=0.7.20
REPEATS=5
LIMIT=${DEPENDENTS_LIMIT:-5400}

# NAME: package and version, and what `cargo test` is told beside --no-fail-fast. All of these publish their tests, but for
# poem and hickory-server, whose unit tests are all that is there. `doc`: the examples in the documentation too.
program() {
    case $1 in
    tokio-util) echo tokio-util $TOKIO_UTIL doc --features full ;;
    tokio-graceful-shutdown) echo tokio-graceful-shutdown 0.20.0 doc ;;
    rmcp) echo rmcp 3.11.0 - --all-features ;;
    salvo) echo salvo_core 1.1.0 - --features rustls,quinn ;;
    poem) echo poem 3.1.12 - --features test,cookie,session,multipart,sse,static-files,websocket,tempfile ;;
    hickory) echo hickory-server 0.26.3 - ;;
    acton) echo acton-reactive 10.0.0 - --all-features ;;
    engineioxide) echo engineioxide 0.17.9 - --all-features ;;
    task-supervisor) echo task-supervisor 0.5.2 doc ;;
    restate) echo restate-sdk 0.13.0 - --features tunnel ;;
    *) echo "dependents: no program $1" >&2 && return 1 ;;
    esac
}
ALL="tokio-util tokio-graceful-shutdown task-supervisor engineioxide acton hickory poem restate salvo rmcp"

root=$PWD
state=$root/target/dependents
patched=$state/patched
mkdir -p "$state"
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=$state/target CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
unset RUSTFLAGS

say() { echo "dependents: $*"; }

# fetch PACKAGE VERSION: prints where cargo keeps the published source.
fetch() {
    local probe=$state/fetch/$1
    mkdir -p "$probe/src"
    : >"$probe/src/lib.rs"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n%s = "=%s"\n[workspace]\n' \
        "$1" "$2" >"$probe/Cargo.toml"
    (cd "$probe" && cargo metadata --quiet --format-version 1 --filter-platform "$host") |
        grep -o "\"manifest_path\":\"[^\"]*/$1-$2/Cargo.toml\"" | sed 's/.*:"//; s|/Cargo.toml"||'
}

# copy PACKAGE VERSION TO: a fresh one, that belongs to no workspace but its own.
copy() {
    local source
    source=$(fetch "$1" "$2") || return
    rm -rf "$3"
    cp -r "$source" "$3"
    chmod -R u+w "$3"
    # The toolchain is the one that all of this is run with.
    rm -f "$3/rust-toolchain" "$3/rust-toolchain.toml"
    grep -q '^\[workspace\]' "$3/Cargo.toml" || printf '\n[workspace]\n' >>"$3/Cargo.toml"
}

# complete PACKAGE DIRECTORY: what its tests use of its workspace and is not published: hickory's turn on its log.
complete() {
    [ "$1" = hickory-server ] || return 0
    mkdir -p "$2/test-support/src"
    printf '[package]\nname = "test-support"\nversion = "0.0.0"\nedition = "2021"\n' >"$2/test-support/Cargo.toml"
    echo 'pub fn subscribe() {}' >"$2/test-support/src/lib.rs"
    printf '\n[dev-dependencies.test-support]\npath = "test-support"\n' >>"$2/Cargo.toml"
}

# edit FILE SED: fails if it changes nothing, for then the patch is not what it says.
edit() {
    cp "$1" "$1.before"
    sed -i "$2" "$1"
    ! cmp -s "$1" "$1.before" || { say "the patch of tokio-util does not fit: ${1#"$patched/"}" >&2 && exit 1; }
    rm "$1.before"
}

# tokio-util with our token. The files that go stay where their examples are looked for: these are tests, and are compiled
# against the library, which has them no more.
patch_tokio_util() {
    copy tokio-util $TOKIO_UTIL "$patched"
    cp tests/dependents/sync.rs "$patched/src/sync/cancel_tree.rs"
    cp tests/dependents/future.rs "$patched/src/cancel_tree_future.rs"
    local both='#[cfg(doctest)]\n&\n#[cfg(not(doctest))]\n#[path = '
    edit "$patched/src/sync/mod.rs" "s/^mod cancellation_token;/${both}\"cancel_tree.rs\"]\nmod cancellation_token;/"
    edit "$patched/src/sync/mod.rs" 's/^pub(crate) use cancellation_token::{RunUntil/#[cfg(doctest)]\n&/'
    edit "$patched/src/lib.rs" "s/^pub mod future;/${both}\"cancel_tree_future.rs\"]\npub mod future;/"
    edit "$patched/Cargo.toml" 's|^time = \[|&\n    "cancel-tree/tokio",|'
    printf '\n[dependencies.cancel-tree]\npath = "%s"\n' "$root" >>"$patched/Cargo.toml"
}

# cargo calls this for each test binary: BINARY ARGUMENTS…
write_runner() {
    cat >"$state/runner" <<'RUNNER'
#!/usr/bin/env bash
binary=$1
shift
name=$(basename "$binary" | sed -E 's/-[0-9a-f]{16}$//')
while [ -e "$OUTCOMES/$name.log" ]; do name=$name+; done
log=$OUTCOMES/$name.log
# That the token is in it shows in the names of its functions.
if grep -q cancel_tree "$binary"; then echo ours; else echo theirs; fi >>"$OUTCOMES/tokens"
status=0
"$binary" "$@" </dev/null >"$log" 2>"$OUTCOMES/$name.err" || status=$?
printf '%s\t(the end)\t%s\n' "$name" "$status" >>"$OUTCOMES/all"
# Not from the lines of the single tests: what a test prints past the harness tears them.
result=$(grep -aoE 'test result: [A-Za-z]+\. [0-9]+ passed; [0-9]+ failed; [0-9]+ ignored' "$log" | tail -1)
[ -n "$result" ] || exit "$status"
names() { "$binary" "$@" --list </dev/null 2>/dev/null | sed -n 's/: test$//p' | sort; }
names "$@" >"$log.names"
case " $* " in *" --include-ignored "*) : ;; *) names "$@" --ignored ;; esac >"$log.ignored"
awk '/^failures:$/ { block = "" } /^    [^ ]/ { block = block substr($0, 5) "\n" } END { printf "%s", block }' \
    "$log" | grep -Fxf "$log.names" | sort >"$log.failed"
awk -v name="$name" -v ignored="$log.ignored" -v failed="$log.failed" '
    FILENAME == ignored { outcome[$0] = "ignored"; next }
    FILENAME == failed { outcome[$0] = "FAILED"; next }
    { print name "\t" $0 "\t" ($0 in outcome ? outcome[$0] : "ok") }' \
    "$log.ignored" "$log.failed" "$log.names" >"$log.outcomes"
cat "$log.outcomes" >>"$OUTCOMES/all"
counts=$(awk -F'\t' '{ n[$3]++ } END { print n["ok"] + 0, n["FAILED"] + 0, n["ignored"] + 0 }' "$log.outcomes")
if [ "$counts" != "$(echo "$result" | tr -c '0-9' ' ' | xargs)" ]; then
    printf '%s\t(the count)\t%s, not %s\n' "$name" "$counts" "$result" | tee -a "$OUTCOMES/all" >&2
fi
exit "$status"
RUNNER
    chmod +x "$state/runner"
}

left() { echo $((deadline > SECONDS ? deadline - SECONDS : 1)); }

# build and run take the side (before, after) and what cargo test is told. `sides` says where and with which patch.
in_side() {
    local side=$1
    shift
    if [ "$side" = before ]; then
        (cd "$before" && timeout -k 10 "$(left)" "$@")
    elif [ "$before" = "$after" ]; then
        (cd "$after" && timeout -k 10 "$(left)" "$@" --config "patch.crates-io.tokio-util.path='$patched'")
    else
        (cd "$after" && timeout -k 10 "$(left)" "$@")
    fi
}

build() {
    local side=$1
    shift
    cp "$out/$side.lock" "${!side}/Cargo.lock"
    in_side "$side" cargo test --locked --no-run "$@" >"$out/$side.build" 2>&1
}

# run SIDE INTO CARGO_ARGUMENTS… -- TEST_ARGUMENTS…: binary, test and outcome, one a line.
run() {
    local side=$1 into=$2 status=0
    shift 2
    rm -rf "$into"
    mkdir -p "$into"
    : >"$into/all"
    cp "$out/$side.lock" "${!side}/Cargo.lock"
    local arguments=() split=0
    for argument; do
        [ "$argument" != -- ] || break
        arguments+=("$argument")
        split=$((split + 1))
    done
    shift "$split"
    local runner=CARGO_TARGET_$(echo "$host" | tr 'a-z-' 'A-Z_')_RUNNER
    # The option of the patch is cargo's: it has to come before the `--`.
    local patch=()
    if [ "$side" = after ] && [ "$before" = "$after" ]; then
        patch=(--config "patch.crates-io.tokio-util.path='$patched'")
    fi
    (cd "${!side}" && env OUTCOMES="$into" "$runner=$state/runner" timeout -k 10 "$(left)" \
        cargo test --locked --no-fail-fast "${arguments[@]}" "${patch[@]}" "$@") >"$into/log" 2>&1 || status=$?
    if [ $status = 124 ] || [ $status = 137 ]; then
        printf '(all)\t(the end)\tno time left\n' >>"$into/all"
    fi
    sort -o "$into/all" "$into/all"
}

run_doc() {
    local side=$1 into=$2
    shift 2
    mkdir -p "$into"
    cp "$out/$side.lock" "${!side}/Cargo.lock"
    in_side "$side" cargo test --locked --no-fail-fast --doc "$@" >"$into/doc.log" 2>&1 || true
    sed -nE 's/^test (.+) \.\.\. (ok|FAILED|ignored).*$/(doc)\t\1\t\2/p' "$into/doc.log" | sort >"$into/doc"
}

# Which lines of tokio-util 0.7 are in the graph of a side: the one copy that is meant, or the check fails. A lock file
# may hold a patch back, and cargo says so in a warning only.
check_patch() {
    local side=$1 found
    shift
    if [ "$before" != "$after" ]; then
        found=$(in_side "$side" cargo tree --locked --edges all --prefix none --target all "$@" | grep '^cancel-tree v' | sort -u)
        [ "$side" = before ] && [ -z "$found" ] || { [ "$side" = after ] && [[ $found == *"($root)"* ]]; }
        return
    fi
    found=$(in_side "$side" cargo tree --locked --edges all --prefix none --target all "$@" |
        grep '^tokio-util v0\.7\.' | sed 's/ (\*)$//' | sort -u)
    if [ "$side" = before ]; then
        [ "$found" = "tokio-util v$TOKIO_UTIL" ]
    else
        [ "$found" = "tokio-util v$TOKIO_UTIL ($patched)" ]
    fi || { say "$name: $side, this is in use: $found" && return 1; }
}

versions() { awk '/^name = / { name = $3 } /^version = / { print name, $3 }' "$1" | sort; }

# locks CARGO_ARGUMENTS…: the published lock file, with tokio-util's version the one that is compared, and the same with ours.
locks() {
    (
        cd "$before"
        if [ "$package" != tokio-util ]; then
            # A lock file may name what a mirror of the registry does not have yet: then one is made anew.
            cargo update --quiet -p tokio-util@0.7 --precise $TOKIO_UTIL ||
                { rm Cargo.lock && cargo generate-lockfile --quiet && cargo update --quiet -p tokio-util@0.7 --precise $TOKIO_UTIL; }
        elif [ ! -e Cargo.lock ]; then
            cargo generate-lockfile --quiet
        fi
        cp Cargo.lock "$out/before.lock"
    ) >"$out/locks" 2>&1 || return
    cp "$out/before.lock" "$after/Cargo.lock"
    in_side after cargo metadata --quiet --format-version 1 --filter-platform "$host" >/dev/null 2>>"$out/locks" || return
    cp "$after/Cargo.lock" "$out/after.lock"
    # Everything else is the same on both sides.
    comm -23 <(versions "$out/before.lock") <(versions "$out/after.lock") >"$out/moved"
    [ ! -s "$out/moved" ] || { say "$name: the patch moves" "$(cat "$out/moved")" && return 1; }
}

# differences BEFORE AFTER: binary, test, both outcomes.
differences() {
    awk -F'\t' 'NR == FNR { a[$1 "\t" $2] = $3; next }
        { k = $1 "\t" $2; if (!(k in a)) print k "\tmissing\t" $3; else if (a[k] != $3) print k "\t" a[k] "\t" $3; delete a[k] }
        END { for (k in a) print k "\t" a[k] "\tmissing" }' "$1" "$2" | sort
}

# outcomes_of KEY FILES…: those it had, sorted.
outcomes_of() {
    local key=$1
    shift
    awk -F'\t' -v key="$key" '$1 "\t" $2 == key { print $3 }' "$@" | sort -u
}

# compare CARGO_ARGUMENTS…: 1 if a difference stands. Repeats what differs, alone.
compare() {
    local stands=0 i key
    differences "$out/before/all" "$out/after/all" >"$out/differences"
    # A binary that ends otherwise because its tests do is not worth a line of its own. One that crashes, does not end or
    # loses tests is: that can't be repeated alone.
    awk -F'\t' 'NR == FNR { if ($2 !~ /^\(the /) tests[$1]; next }
        $2 !~ /^\(the / { next }
        !($1 in tests && ($3 == 0 && $4 == 101 || $3 == 101 && $4 == 0))' \
        "$out/differences" "$out/differences" >"$out/ends"
    if [ -s "$out/ends" ]; then
        say "$name: DIFFERS (binary, what, before, after):" && cat "$out/differences" && return 1
    fi
    grep -vP '\t\(the ' "$out/differences" >"$out/tests" || return 0
    local names
    mapfile -t names < <(cut -f2 "$out/tests" | sort -u)
    for i in $(seq $REPEATS); do
        run before "$out/again/before-$i" "$@" -- --exact "${names[@]}"
        run after "$out/again/after-$i" "$@" -- --exact "${names[@]}"
    done
    while IFS= read -r line; do
        key=$(echo "$line" | cut -f1,2)
        if [ -n "$(comm -13 <(outcomes_of "$key" "$out"/again/before-*/all "$out/before/all") \
            <(outcomes_of "$key" "$out"/again/after-*/all))" ] ||
            [ -z "$(outcomes_of "$key" "$out"/again/after-*/all)" ]; then
            say "$name: DIFFERS (binary, test, before, after): $line"
            stands=1
        else
            say "$name: unsteady, but alone as before in $REPEATS of $REPEATS (binary, test, before, after): $line"
        fi
    done <"$out/tests"
    return $stands
}

skip() {
    say "$name: SKIPPED, $1"
    skipped="$skipped $name"
}

fail() {
    say "$name: FAILED, $1; see $out"
    failed="$failed $name"
}

count() { awk -F'\t' -v want="$1" '$3 == want && $2 !~ /^\(the/ { n++ } END { print n + 0 }' "${@:2}"; }

# tokio-util's own models of its token. It has to ignore three; ours are all run, and all have to pass.
loom() {
    local into side status
    for side in before after; do
        into=$out/loom-$side
        mkdir -p "$into"
        local flags="--cfg loom" arguments=() tests=()
        if [ $side = after ]; then
            flags="--cfg loom --cfg cancel_tree_loom --cfg crossbeam_loom"
            arguments=(--features cancel-tree/loom) tests=(--include-ignored)
        fi
        status=0
        cp "$out/$side.lock" "${!side}/Cargo.lock"
        (cd "${!side}" && RUSTFLAGS=$flags LOOM_MAX_PREEMPTIONS=2 LOOM_MAX_BRANCHES=20000 timeout -k 10 "$(left)" cargo test --release --lib \
            --features full "${arguments[@]}" --target-dir "$state/loom-$side" -- "${tests[@]}" loom_cancellation_token) \
            >"$into/log" 2>&1 || status=$?
        sed -nE 's/^test (.+) \.\.\. (ok|FAILED|ignored).*$/(loom)\t\1\t\2/p' "$into/log" | sort >"$into/all"
        [ $status = 0 ] || { tail -30 "$into/log" && return 1; }
    done
    sed 's/\tignored$/\tok/' "$out/loom-before/all" >"$out/loom-expected"
    cmp "$out/loom-expected" "$out/loom-after/all" && [ "$(count ok "$out/loom-after/all")" -gt 0 ] || return
    say "$name: $(count ok "$out/loom-after/all") models pass, of which it ignores $(count ignored "$out/loom-before/all")"
}

one() {
    name=$1
    local package version doc arguments
    # shellcheck disable=SC2046
    set -- $(program "$name")
    package=$1 version=$2 doc=$3
    shift 3
    arguments=(--lib --bins --tests --examples "$@")
    deadline=$((SECONDS + LIMIT))
    out=$state/$name
    rm -rf "$out"
    mkdir -p "$out"
    before=$out/source
    after=$before
    copy "$package" "$version" "$before" 2>"$out/fetch" ||
        { skip "it can't be fetched: $(tail -1 "$out/fetch")" && return; }
    complete "$package" "$before"
    if [ "$package" = tokio-util ]; then
        after=$out/patched
        cp -r "$patched" "$after"
    fi
    locks || { fail "no lock file fits both sides: $(tail -1 "$out/locks")" && return; }

    build before "${arguments[@]}" ||
        { skip "it does not compile here: $(grep -m1 -E '^error' "$out/before.build" || tail -1 "$out/before.build")" && return; }
    check_patch before "$@" || { fail "before is not tokio-util's token" && return; }
    run before "$out/before" "${arguments[@]}"
    if grep -q 'no time left' "$out/before/all"; then skip "$LIMIT s are too short" && return; fi
    build after "${arguments[@]}" ||
        { fail "it does not compile: $(grep -m1 -E '^error' "$out/after.build")" && return; }
    check_patch after "$@" || { fail "after is not our token" && return; }
    run after "$out/after" "${arguments[@]}"
    if grep -q ours "$out/before/tokens" || ! grep -q ours "$out/after/tokens"; then
        fail "the binaries do not have the token that they should" && return
    fi
    if [ "$doc" = doc ]; then
        run_doc before "$out/before" "$@"
        run_doc after "$out/after" "$@"
        cat "$out/before/doc" >>"$out/before/all"
        cat "$out/after/doc" >>"$out/after/all"
    fi
    compare "${arguments[@]}" || { fail "tests end otherwise" && return; }
    if [ "$package" = tokio-util ]; then loom || { fail "its models" && return; }; fi

    local passed
    passed=$(count ok "$out/after/all")
    [ "$passed" -gt 0 ] || { fail "no test passed" && return; }
    compared=$((compared + passed))
    say "$name: $package $version, $passed pass, $(count ignored "$out/after/all") ignored," \
        "$(count FAILED "$out/before/all") fail without us too; $((SECONDS - deadline + LIMIT)) s"
    rm -rf "$before" # Its outcomes and logs stay.
}

# A function, so that bash has read all of this file before the hours begin.
main() {
    compared=0 failed='' skipped=''
    write_runner
    patch_tokio_util
    local each
    for each in ${*:-$ALL}; do
        program "$each" >/dev/null
    done
    for each in ${*:-$ALL}; do
        one "$each"
    done
    say "$compared tests end as before${skipped:+, SKIPPED:$skipped}${failed:+, FAILED:$failed}"
    [ -z "$failed" ] && [ $compared -gt 0 ]
}
main "$@"
