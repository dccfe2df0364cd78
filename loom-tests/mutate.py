#!/usr/bin/env python3
"""Breaks cancel-tree on purpose, one change at a time, and asks the models, or unit tests, whether they see it.

    loom-tests/mutate.py            every change: is there a model that fails?
    loom-tests/mutate.py --models   every model: is there a change that makes it fail?
    loom-tests/mutate.py --texts    only whether each change can still be made; part of CI
    loom-tests/mutate.py --report   what is known so far, as the Markdown that ends docs/VERIFICATION.md; runs nothing

The changes: every ordering in src/ weakened (success and failure of a CAS apart), every read-modify-write torn
into a load and a store, and the steps left out or turned round that mutants.toml lists. All of them are compiled into
one binary, and an environment variable switches one on, so that a change costs a run and not a build. A run
without a change notes which sites each model reaches, and a change is asked only of these.

Unit tests are asked about what decides by numbers and time, which models do not look at (UNITS): each constant there doubled and halved, and
the steps that mutants.toml calls `[[unit]]`, in a binary of their own.

What was found is kept in target/mutants/results.jsonl. It counts as long as the library, the file the model
is in and the change are the same, so a run that was stopped goes on where it was. What was found with older
sources only says what to try first.

A model that only runs out of time has not failed; a unit test that does not end has. A change that no model sees must be explained in
mutants.toml, and each model must have failed by something, or the exit code is 1.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "mutants"

# What decides by numbers and time: unit tests, by the beginning of their names, are asked about it.
UNITS = {
    "timer/crew.rs": "timer::crew::tests::",
    "timer/driver.rs": "timer::driver::tests::",
    "timer/pressure.rs": "timer::pressure::tests::",
}

# Files without an ordering of the crate's own that models run: but for park.rs the folder sync wraps the atomics
# themselves, by_hand.rs and no_thread.rs are the models', and what is in a static is part of no model. counts.rs
# has numbers for reports, each by a Relaxed RMW of `core`'s: nothing leans on them. And files of features that models are
# built without.
NOT_MUTATED = {
    "bell.rs",
    "by_hand.rs",
    "clock.rs",
    "counts.rs",
    "fixed.rs",
    "integrations/metrics.rs",
    "integrations/process.rs",
    "integrations/serve/mod.rs",
    "integrations/tokio.rs",
    "integrations/tower/member.rs",
    "integrations/tracing.rs",
    "no_thread.rs",
    "unix.rs",
    "windows.rs",
}

WEAKER = {
    "AcqRel": ["Acquire", "Release", "Relaxed"],
    "Acquire": ["Relaxed"],
    "Release": ["Relaxed"],
}

ORDERING = r"(?<![\w:])(?:AcqRel|Acquire|Release)\b"
RMW = r"\.(compare_exchange(?:_weak)?|swap|fetch_\w+)\("

# Which models to ask first. The others are asked as well.
TOPICS = {
    "any_of.rs": ["any_of"],
    "edge.rs": ["any_of"],
    "fired.rs": ["any_of"],
    "arming.rs": ["deadline", "foreign", "moving"],
    "callback.rs": ["callback"],
    "cancel.rs": ["cancel", "cause", "recycle", "any_of", "room", "deadline"],
    "children.rs": ["create", "shard", "recycle", "room"],
    "chunk.rs": ["create", "shard", "recycle", "room"],
    "deadline.rs": ["deadline", "foreign", "moving"],
    "timing.rs": ["deadline", "foreign", "moving"],
    "elsewhere.rs": ["foreign"],
    "entry.rs": ["service", "deadline", "moving"],
    "extension.rs": ["cause", "shard", "any_of", "weak"],
    "link.rs": ["cause", "shard", "any_of", "weak"],
    "raw_cause.rs": ["any_of", "cause"],
    "body.rs": ["group"],
    "failures.rs": ["group"],
    "foreign.rs": ["foreign"],
    "grace.rs": ["moving"],
    "home.rs": ["service", "deadline"],
    "inbox.rs": ["service", "deadline"],
    "limit.rs": ["group"],
    "looks.rs": ["noted"],
    "name.rs": ["noted"],
    "observe.rs": ["noted"],
    "probe.rs": ["noted"],
    "registry.rs": ["registry"],
    "outcomes.rs": ["group"],
    "moving.rs": ["moving"],
    "moves.rs": ["moving"],
    "own.rs": ["cause", "any_of", "cancel"],
    "park.rs": ["park"],
    "one_thread.rs": ["starting"],
    "place.rs": ["group"],
    "places.rs": ["group"],
    "seats.rs": ["group"],
    "spawner.rs": ["group"],
    "tally.rs": ["group"],
    "received.rs": ["signals"],
    "reclaim.rs": ["recycle", "release", "callback"],
    "room.rs": ["room"],
    "rooms.rs": ["room"],
    "round.rs": ["service", "deadline"],
    "service.rs": ["service", "deadline", "moving"],
    "trigger.rs": ["foreign", "deadline", "service"],
    "turning.rs": ["crew", "deadline"],
    "wake.rs": ["cancel", "callback", "any_of", "room", "deadline"],
    "waiter.rs": ["wait", "room"],
    "weak.rs": ["weak"],
    "walk.rs": ["cancel", "any_of"],
    "why.rs": ["cause", "any_of"],
    "word.rs": ["visibility", "release", "create", "wait", "cause"],
    "workers.rs": ["service", "crew"],
}

# Appended to sync/mod.rs: the switch.
SWITCH = """
use core::sync::atomic::Ordering;

mod mutant {
    use super::Ordering::{self, *};
    fn switch() -> &'static (usize, Option<Ordering>) {
        static SWITCH: std::sync::OnceLock<(usize, Option<Ordering>)> = std::sync::OnceLock::new();
        SWITCH.get_or_init(|| {
            let value = std::env::var("CANCEL_TREE_MUTANT").unwrap_or_default();
            let (id, weaker) = value.split_once(':').unwrap_or((&value, ""));
            let weaker = match weaker {
                "Relaxed" => Some(Relaxed),
                "Acquire" => Some(Acquire),
                "Release" => Some(Release),
                _ => None,
            };
            (id.parse().unwrap_or(0), weaker)
        })
    }
    /// Notes a site in the file that is named so, the first time.
    fn reach(id: usize) {
        use std::{fs::File, io::Write, sync::OnceLock, sync::atomic::AtomicBool};
        static FILE: OnceLock<Option<File>> = OnceLock::new();
        static REACHED: [AtomicBool; SITES] = [const { AtomicBool::new(false) }; SITES];
        let open = || Some(File::create(std::env::var_os("CANCEL_TREE_REACHED")?).unwrap());
        if let Some(mut file) = FILE.get_or_init(open).as_ref() {
            if !REACHED[id].swap(true, Relaxed) { writeln!(file, "{id}").unwrap(); }
        }
    }
    pub(crate) fn step(id: usize) -> bool { reach(id); switch().0 == id }
    pub(crate) fn ordering(id: usize, strong: Ordering) -> Ordering {
        reach(id);
        match *switch() { (on, Some(weaker)) if on == id => weaker, _ => strong }
    }
}
pub(crate) use mutant::{ordering as mutant_ordering, step as mutant_step};
"""

# And what models need beside it: RMWs that are a load and a store.
TORN = """
macro_rules! torn {
    ($($atomic:ident $(<$t:ident>)? = $value:ty;)*) => {$(
        impl $(<$t>)? $atomic $(<$t>)? {
            #[track_caller]
            pub(crate) fn torn_compare_exchange(
                &self, id: usize, old: $value, new: $value, yes: Ordering, no: Ordering,
            ) -> Result<$value, $value> {
                if !mutant_step(id) { return self.compare_exchange(old, new, yes, no); }
                let seen = self.load(Acquire);
                if seen != old { return Err(seen); }
                self.store(new, Release);
                Ok(seen)
            }
            #[track_caller]
            pub(crate) fn torn_swap(&self, id: usize, new: $value, ordering: Ordering) -> $value {
                if !mutant_step(id) { return self.swap(new, ordering); }
                let seen = self.load(Acquire);
                self.store(new, Release);
                seen
            }
        }
    )*};
}
torn! { AtomicU64 = u64; AtomicU8 = u8; AtomicUsize = usize; AtomicPtr<T> = *mut T; }

/// The same for loom's own type.
pub(crate) trait TornBool {
    fn torn_swap(&self, id: usize, new: bool, ordering: Ordering) -> bool;
}
impl TornBool for AtomicBool {
    #[track_caller]
    fn torn_swap(&self, id: usize, new: bool, ordering: Ordering) -> bool {
        if !mutant_step(id) { return self.swap(new, ordering); }
        let seen = self.load(Acquire);
        self.store(new, Release);
        seen
    }
}

macro_rules! torn_number {
    ($name:ident $whole:ident $atomic:ident $value:ty, $change:expr) => {
        impl $atomic {
            #[track_caller]
            #[allow(dead_code)]
            pub(crate) fn $name(&self, id: usize, by: $value, ordering: Ordering) -> $value {
                if !mutant_step(id) { return self.$whole(by, ordering); }
                let seen = self.load(Acquire);
                let change: fn($value, $value) -> $value = $change;
                self.store(change(seen, by), Release);
                seen
            }
        }
    };
}
torn_number! { torn_fetch_or fetch_or AtomicU64 u64, |a, b| a | b }
torn_number! { torn_fetch_and fetch_and AtomicU64 u64, |a, b| a & b }
torn_number! { torn_fetch_add fetch_add AtomicU64 u64, |a, b| a.wrapping_add(b) }
torn_number! { torn_fetch_sub fetch_sub AtomicU64 u64, |a, b| a.wrapping_sub(b) }
torn_number! { torn_fetch_add fetch_add AtomicUsize usize, |a, b| a.wrapping_add(b) }
torn_number! { torn_fetch_sub fetch_sub AtomicUsize usize, |a, b| a.wrapping_sub(b) }
"""


class Mutant(NamedTuple):
    file: str
    name: str
    switch: str  # what CANCEL_TREE_MUTANT has to be
    text: str = ""  # of a step: what it does

    @property
    def key(self):
        return f"{self.file} {self.name}"

    @property
    def site(self):
        return self.switch.partition(":")[0]


NO_CHANGE = Mutant("", "", "0")

# The limits of a run without preemptions: one thread after the other, as they come.
ALONE = "0/5"

# The limits of a run without a change, which only has to come to all the sites.
BASELINE = "2/2"


def read_steps():
    with open(HERE / "mutants.toml", "rb") as file:
        return tomllib.load(file)


def take_step(texts, step, number):
    """Puts a step of mutants.toml into the text of its file."""
    text = texts[step["file"]]
    if text.count(step["find"]) != 1:
        sys.exit(f"mutants.toml: found {text.count(step['find'])} times: {step['name']}")
    on = step["replace"].replace("MUTANT", f"crate::sync::mutant_step({number})")
    texts[step["file"]] = text.replace(step["find"], on)
    return Mutant(step["file"], step["name"], str(number), step["find"] + step["replace"])


def mutate_units(src, steps):
    """Puts the changes that unit tests are asked about into the copy `src`."""
    texts = {name: (src / name).read_text() for name in UNITS}
    mutants = [take_step(texts, step, number) for number, step in enumerate(steps, 1)]
    for name, text in texts.items():
        text, tests, rest = text.partition("#[cfg(test)]")
        # Constants become functions, which the switch can tell another value. Tests say their numbers themselves.
        declaration = r"^const (\w+): (\w+) = (.*);$"
        found = re.findall(declaration, text, re.M)
        names = "|".join(constant for constant, _, _ in found)
        called = lambda code: re.sub(rf"\b({names})\b", r"\1()", code)
        text = called(re.sub(declaration, "", text, flags=re.M))
        for constant, kind, value in found:
            twice = len(mutants) + 1
            mutants.append(Mutant(name, f"`{constant}` is twice as much", str(twice), f"2 * {value}"))
            mutants.append(Mutant(name, f"`{constant}` is half as much", str(twice + 1), f"{value} / 2"))
            text += f"""
            fn {constant}() -> {kind} {{
                let it: {kind} = {called(value)};
                if crate::sync::mutant_step({twice}) {{ return 2 * it; }}
                if crate::sync::mutant_step({twice + 1}) {{ return it / 2; }}
                it
            }}
            """
        (src / name).write_text(text + tests + rest)
    switch(src, len(mutants))
    return mutants


def switch(src, sites, more=""):
    with open(src / "sync" / "mod.rs", "a") as file:
        file.write(SWITCH.replace("SITES", str(sites + 1)) + more)
    # Here and not by a flag, so that what the models depend on is built as for run.sh.
    library = src / "lib.rs"
    library.write_text("#![allow(warnings)]\n" + library.read_text())


def mutate(src, steps):
    """Puts every change into the copy `src`."""
    mutants = []
    texts = {}
    # Files that models run too have `[[step]]`s.
    of_units_alone = UNITS.keys() - {step["file"] for step in steps}
    for path in sorted(src.rglob("*.rs")):
        name = str(path.relative_to(src))
        if NOT_MUTATED & {path.name, name} or name in of_units_alone or path.stem.endswith("_tests"):
            continue
        if path.parent.name != "sync" or path.name == "park.rs":
            texts[name] = path.read_text()
    number = 0
    for step in steps:
        number += 1
        mutants.append(take_step(texts, step, number))
    for name, text in texts.items():
        lines, seen_in, in_use = [], {}, False
        seen, function = {}, "?"
        for line in text.split("\n"):
            # Where it stands within something it is one line of it, which models do without.
            if re.match(r"#\[cfg\((all\()?test\b", line):
                break
            if found := re.search(r"\bfn (\w+)", line):
                function = found[1]
                # Several functions may have one name.
                seen = seen_in.setdefault(function, {})
            in_use = in_use or line.lstrip().startswith("use ")
            is_use, in_use = in_use, in_use and not line.endswith(";")
            if is_use or "mutant_step" in line:
                if not is_use and re.search(ORDERING, line):
                    sys.exit(f"mutants.toml: hides an ordering: {line}")
                lines.append(line)
                continue
            code, slashes, comment = line.partition("//")

            def site(match):
                nonlocal number
                number += 1
                strong = match[0]
                nth = seen[strong] = seen.get(strong, 0) + 1
                for weaker in WEAKER[strong]:
                    which = f" (the {nth}. {strong})" if nth > 1 else ""
                    title = f"`{function}`{which}: {strong} → {weaker}"
                    mutants.append(Mutant(name, title, f"{number}:{weaker}"))
                return f"crate::sync::mutant_ordering({number}, crate::sync::{strong})"

            def rmw(match):
                nonlocal number
                number += 1
                whole = match[1].removesuffix("_weak")
                nth = seen[whole] = seen.get(whole, 0) + 1
                which = f" (the {nth}.)" if nth > 1 else ""
                title = f"`{function}`: {whole}{which} as a load and a store"
                mutants.append(Mutant(name, title, str(number)))
                return f".torn_{whole}({number}, "

            # Not those that a step has brought in: they are written with their path.
            code = re.sub(ORDERING, site, code)
            code = re.sub(RMW, rmw, code)
            lines.append(code + slashes + comment)
        text = "\n".join(lines).replace("\nuse ", "\nuse crate::sync::TornBool as _;\nuse ", 1)
        (src / name).write_text(text)
    switch(src, number, TORN)
    return mutants


def loom():
    """What models are built with."""
    return dict(os.environ, RUSTFLAGS="--cfg cancel_tree_loom --cfg crossbeam_loom")


def copy(tree):
    """A copy of the library and the models, and nothing else."""
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    # The documents are part of the library's own.
    # Unit tests use what tests have in common.
    for name in ["src", "docs", "loom-tests", "tests/forked"]:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("target"))
    for name in ["README.md", "Cargo.lock"]:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree)
    # The library alone: its examples and benches are not there.
    manifest = (ROOT / "Cargo.toml").read_text()
    manifest = re.sub(r"(?ms)^\[\[(bench|example|test)\]\].*?(?=^\[|\Z)", "", manifest)
    manifest = re.sub(r"(?ms)^\[dev-dependencies\].*?(?=^\[|\Z)", "", manifest)
    manifest = re.sub(r"(?m)^members = .*$", "", manifest)
    (tree / "Cargo.toml").write_text(manifest)


def build():
    """Builds the models over the mutated copy; its mutants and its binary."""
    tree = TARGET / "tree"
    copy(tree)
    mutants = mutate(tree / "src", read_steps()["step"])
    stamp, binary = TARGET / "races.stamp", TARGET / "races"
    made_of = hashlib.sha256()
    for path in sorted(p for p in tree.rglob("*") if p.suffix in {".rs", ".toml", ".lock"} and p.name != "mutants.toml"):
        made_of.update(path.read_bytes())
    if binary.exists() and stamp.exists() and stamp.read_text() == made_of.hexdigest():
        return mutants, binary
    subprocess.run(
        ["cargo", "test", "--release", "--test", "races", "--no-run", "--target-dir", TARGET / "build"],
        cwd=tree / "loom-tests",
        env=loom(),
        check=True,
    )
    built = (TARGET / "build" / "release" / "deps").glob("races-*")
    shutil.copy(max((p for p in built if p.suffix == ""), key=lambda p: p.stat().st_mtime), binary)
    stamp.write_text(made_of.hexdigest())
    return mutants, binary


class Units:
    """Asks unit tests, all those of a file at once, and remembers what became of it."""

    def __init__(self, ask):
        tree = TARGET / "units-tree"
        copy(tree)
        library = hashlib.sha256()
        for path in sorted((tree / "src").glob("**/*.rs")):
            library.update(path.read_bytes())
        self.library = library.digest()
        self.mutants = mutate_units(tree / "src", read_steps().get("unit", []))
        self.lock = threading.Lock()
        self.file = TARGET / "units.json"
        self.known = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.kills = {m.key: self.known[self.stamp(m)] for m in self.mutants if self.stamp(m) in self.known}
        if ask:
            command = ["cargo", "test", "--lib", "--no-run", "--target-dir", TARGET / "units"]
            subprocess.run(command, cwd=tree, check=True)
            built = (TARGET / "units" / "debug" / "deps").glob("cancel_tree-*")
            self.binary = max((p for p in built if p.suffix == ""), key=lambda p: p.stat().st_mtime)
            for file in UNITS:
                if failed := self.failed(Mutant(file, "", "0")):
                    sys.exit(f"{', '.join(failed)} failed though nothing was changed")

    def stamp(self, mutant):
        """What the answer depends on."""
        return hashlib.sha256(self.library + f"{mutant.key} {mutant.text}".encode()).hexdigest()[:12]

    def failed(self, mutant):
        """The tests that fail by this change, or do not end."""
        tests = UNITS[mutant.file]
        listed = subprocess.run([self.binary, tests, "--list"], capture_output=True, text=True, check=True)
        env = dict(os.environ, CANCEL_TREE_MUTANT=mutant.switch, RUST_BACKTRACE="0")
        try:
            run = subprocess.run([self.binary, tests], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, timeout=50)
            said = run.stdout
        except subprocess.TimeoutExpired as late:
            said = late.stdout or b""
        fine = re.findall(r"^test (\S+) \.\.\. ok$", said.decode(), re.M)
        return sorted(set(re.findall(r"^(\S+): test$", listed.stdout, re.M)) - set(fine))

    def ask(self, pattern, jobs):
        todo = [m for m in self.mutants if re.search(pattern, m.key) and m.key not in self.kills]

        def work(mutant):
            failed = self.failed(mutant)
            with self.lock:
                self.kills[mutant.key] = self.known[self.stamp(mutant)] = failed
                self.file.write_text(json.dumps(self.known))
                print(f"{mutant.key}: {' '.join(failed[:2]) or 'NOTHING FAILED'}", flush=True)

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            list(pool.map(work, todo))


class Runs:
    """Runs models, and remembers what became of each run."""

    def __init__(self, binary, mutants):
        self.binary = binary
        self.lock = threading.Lock()
        listed = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True)
        self.models = re.findall(r"^(\S+): test$", listed.stdout, re.M)
        self.seconds = {}
        self.reached = {}  # the sites that a model comes to
        library = hashlib.sha256()
        for path in sorted([*ROOT.glob("src/**/*.rs"), *HERE.glob("src/*.rs")]):
            library.update(path.read_bytes())
        self.library = library.digest()
        self.sites = json.dumps(mutants).encode()
        self.files = {path.stem: path.read_bytes() for path in HERE.glob("tests/races/*.rs")}
        # By the sources as they are: what became of each run, and by which changes a model fails.
        # With older sources: which pairs are worth trying first.
        self.known, self.kills, self.hints = {}, {}, set()
        self.orderings = {mutant.key for mutant in mutants if not mutant.text}
        self.file = TARGET / "results.jsonl"
        by_key = {mutant.key: mutant for mutant in [NO_CHANGE, *mutants]}
        for line in self.file.read_text().splitlines() if self.file.exists() else []:
            stamp, key, model, limits, how = json.loads(line)
            mutant = by_key.get(key)
            if mutant and model in self.models:
                if stamp == self.stamp(mutant, model):
                    self.note(mutant, model, limits, how)
                elif how == "failed":
                    self.hints.add((key, model))

    def stamp(self, mutant, model):
        """What the result of a run depends on."""
        file = self.files.get(model.split("::")[0], b"")
        # The numbers of the sites that it has reached are of these changes.
        text = self.sites if mutant is NO_CHANGE else mutant.text.encode()
        return hashlib.sha256(self.library + file + text).hexdigest()[:12]

    def note(self, mutant, model, limits, how):
        self.known[mutant.key, model, limits] = how
        if how == "failed":
            self.kills.setdefault(mutant.key, set()).add(model)

    def killed_by(self, model):
        return {key for key, models in self.kills.items() if model in models}

    def raced(self, model):
        """Changes by which the model fails, though not with its threads one after the other. An ordering
        is about a race in any case."""
        alone = {key for key in self.killed_by(model) if self.known.get((key, model, ALONE)) != "passed"}
        return self.killed_by(model) - (alone - self.orderings)

    def run(self, mutant, model, limits):
        """`passed`, `failed` or `timeout`; `limits`: preemptions ("own": the model's) and seconds."""
        key = (mutant.key, model, limits)
        if key not in self.known:
            preemptions, cap = limits.split("/")
            # Seconds of the processor, so that a busy machine finds what an idle one does.
            env = dict(os.environ, CANCEL_TREE_MUTANT=mutant.switch, RUST_BACKTRACE="0")
            if limits == ALONE:
                # Also where the model has no bound.
                env["LOOM_MAX_PREEMPTIONS"] = "0"
            if preemptions != "own":
                env["CANCEL_TREE_PREEMPTIONS"] = preemptions
            sites = TARGET / f"reached-{model.replace('::', '-')}"
            if mutant is NO_CHANGE:
                env["CANCEL_TREE_REACHED"] = str(sites)
            begin = time.monotonic()
            try:
                status = subprocess.run(
                    ["sh", "-c", 'ulimit -S -t "$0"; exec "$@"', cap, self.binary, "--exact", model, "--test-threads=1"],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=env,
                    timeout=int(cap) * 20 + 20,
                ).returncode
                # To run out of time is to pass, too.
                how = "passed" if status in (0, -signal.SIGXCPU) else "failed"
            except subprocess.TimeoutExpired:
                how = "timeout"
            if mutant is NO_CHANGE:
                how = f"{how} {time.monotonic() - begin:.2f} {' '.join(sites.read_text().split())}"
                sites.unlink()
            with self.lock:
                self.note(mutant, model, limits, how)
                with open(self.file, "a") as file:
                    file.write(json.dumps([self.stamp(mutant, model), *key, how]) + "\n")
        return self.known[key]

    def baseline(self, jobs):
        """Every model without a change: it has to pass; its time says when to ask it, the sites it reaches about what."""
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for model, how in zip(self.models, pool.map(lambda m: self.run(NO_CHANGE, m, BASELINE), self.models)):
                how, seconds, *reached = how.split()
                if how != "passed":
                    sys.exit(f"{model} {how} though nothing was changed")
                self.seconds[model] = float(seconds)
                self.reached[model] = set(reached)

    def kill(self, mutant, limits):
        """A model that fails by this change, or None."""
        if found := self.kills.get(mutant.key):
            return min(found, key=lambda m: (self.seconds.get(m, 0), m))
        topics = TOPICS.get(Path(mutant.file).name, [])

        def rank(model):
            first = model.split("::")[0] in topics and self.seconds[model] < 1
            return ((mutant.key, model) not in self.hints, not first, self.seconds[model])

        for model in sorted((m for m in self.models if mutant.site in self.reached[m]), key=rank):
            if self.run(mutant, model, limits) == "failed":
                return model
        return None

    def failing(self, model, mutants, limits):
        """A change by which this model fails, or None: one that takes a race to be seen, if there is one.
        The ones that concern its topic first."""
        if found := self.raced(model):
            return min(found)
        topic = model.split("::")[0]

        def rank(mutant):
            kills = self.kills.get(mutant.key, set())
            near = sum(k.split("::")[0] == topic for k in kills)
            about = topic in TOPICS.get(Path(mutant.file).name, [])
            return ((mutant.key, model) not in self.hints, not kills, not near, not about, -near, -len(kills))

        for mutant in sorted((m for m in mutants if m.site in self.reached[model]), key=rank):
            if mutant.text and self.run(mutant, model, ALONE) != "passed":
                continue
            if self.run(mutant, model, limits) == "failed":
                return mutant.key
        return min(self.killed_by(model), default=None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", action="store_true", help="ask for each model what makes it fail")
    parser.add_argument("--texts", action="store_true", help="only look whether each step finds its text and all of it compiles, and run nothing")
    parser.add_argument("--units", action="store_true", help="ask unit tests alone, and no model")
    parser.add_argument("--report", action="store_true", help="print what is known and run nothing")
    parser.add_argument("--explored", type=Path, help="what run.sh has printed, for the report")
    parser.add_argument("--only", default="", help="changes (or models) that this pattern is found in")
    parser.add_argument("--by", default="", help="the others: only models (or changes) that this pattern is found in")
    parser.add_argument("--limits", default="2/5", help="preemptions/seconds (of the processor) of a run; own/60: the models' own")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    explained = {f"{e['file']} {e['name']}": e["why"] for e in read_steps().get("equivalent", [])}
    TARGET.mkdir(parents=True, exist_ok=True)

    if args.texts:
        copy(TARGET / "tree")
        changes = [*mutate(TARGET / "tree" / "src", read_steps()["step"]), *Units(ask=False).mutants]
        gone = explained.keys() - {change.key for change in changes}
        # With all the changes in them, or none of these could be tried.
        cargo = ["cargo", "check", "--quiet", "--target-dir", TARGET / "check"]
        subprocess.run([*cargo, "--lib", "--profile", "test"], cwd=TARGET / "units-tree", check=True)
        subprocess.run([*cargo, "--test", "races"], cwd=TARGET / "tree" / "loom-tests", env=loom(), check=True)
        print(*(f"explained, but not there: {key}" for key in gone), f"{len(changes)} changes could be made", sep="\n")
        return 1 if gone else 0

    units = Units(ask=not args.report and not args.models)
    if not args.report and not args.models:
        units.ask(args.only, args.jobs)
    if args.units:
        return check(None, [], units, explained)

    if args.report and (TARGET / "races").exists():
        mutants = [Mutant(*m) for m in json.loads((TARGET / "mutants.json").read_text())]
        runs = Runs(TARGET / "races", mutants)
    else:
        mutants, binary = build()
        (TARGET / "mutants.json").write_text(json.dumps(mutants))
        runs = Runs(binary, mutants)
        if not args.models:
            runs.models = [model for model in runs.models if re.search(args.by, model)]
        runs.baseline(args.jobs)
    if args.report:
        return report(runs, mutants, units, explained, args.explored)

    if args.models:
        todo = [m for m in runs.models if re.search(args.only, m)]
        by = [m for m in mutants if re.search(args.by, m.key) and m.key not in explained]
        work = lambda model: runs.failing(model, by, args.limits)
        title = lambda model: model
    else:
        # Those that are explained come last: every model is asked about them.
        todo = sorted((m for m in mutants if re.search(args.only, m.key)), key=lambda m: m.key in explained)
        work = lambda mutant: runs.kill(mutant, args.limits)
        title = lambda mutant: mutant.key
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        jobs = {pool.submit(work, one): one for one in todo}
        for n, job in enumerate(concurrent.futures.as_completed(jobs), 1):
            print(f"{n}/{len(todo)} {title(jobs[job])}: {job.result() or 'NOTHING FAILED'}", flush=True)
    return check(runs, mutants, units, explained)


def check(runs, mutants, units, explained):
    """Says what is left to do; 1 if there is something."""
    wrong = [f"not seen to fail: {model}" for model in runs.models if not runs.killed_by(model)] if runs else []
    kills = {**(runs.kills if runs else {}), **units.kills}
    mutants = [*mutants, *units.mutants]
    for mutant in mutants:
        if mutant.key in explained and kills.get(mutant.key):
            wrong.append(f"explained, but caught: {mutant.key}")
        if mutant.key not in explained and not kills.get(mutant.key):
            wrong.append(f"nothing fails, and not explained: {mutant.key}")
    # Without models, their changes are not there.
    for key in explained.keys() - {mutant.key for mutant in mutants}:
        if runs or key.split()[0] in UNITS:
            wrong.append(f"explained, but not there: {key}")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def report(runs, mutants, units, explained, explored):
    """The tables of docs/VERIFICATION.md."""
    everything = [*mutants, *units.mutants]
    kills = {**runs.kills, **units.kills}
    names = {mutant.key: f"{mutant.name} (`{Path(mutant.file).name}`)" for mutant in everything}
    lines = explored.read_text() if explored else ""
    found = r"^explored races::(\S+) +bound (\S+) +(\d+) executions"
    bounds = {m: (bound, f"{int(n):,}") for m, bound, n in re.findall(found, lines, re.M)}
    caught = [m for m in everything if kills.get(m.key)]
    left = [m for m in everything if not kills.get(m.key)]
    failed = [m for m in runs.models if runs.killed_by(m)]

    git = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()

    print("## Each model has been seen to fail\n")
    raced = [m for m in failed if runs.raced(m)]
    print(f"Of {commit}: {len(runs.models)} models; {len(failed)} of them have failed by a change, of which one is named: {len(raced)} by a weaker")
    print("ordering, or by a step that is not missed as long as the threads run one after the other; the others have a *.\n")
    print("| model | bound | executions | fails by |\n| --- | --- | --- | --- |")
    for model in sorted(runs.models):
        raced = runs.raced(model)
        # The most particular one.
        by = min(raced or runs.killed_by(model), key=lambda key: (len(runs.kills[key]), key), default=None)
        by = names.get(by, "**nothing yet**") + ("" if raced else " \\*")
        bound, executions = bounds.get(model, ("", ""))
        print(f"| `{model}` | {bound} | {executions} | {by} |")

    print("\n## What was broken on purpose\n")
    reasons = sum(mutant.key in explained for mutant in left)
    settled = 100 * (len(caught) + reasons) / len(everything)
    print(f"Of {commit}: {len(everything)} changes: {len(caught)} make a model or a unit test fail ({100 * len(caught) / len(everything):.1f} %), {reasons} are explained")
    print(f"below, {len(left) - reasons} are neither. Score: {settled:.1f} % caught or explained.\n")
    by_tests = sum(bool(units.kills.get(mutant.key)) for mutant in units.mutants)
    print(f"{len(units.mutants)} of them were asked of unit tests, which {by_tests} make fail; the others of models.\n")
    print("| file | change | models (not all were asked) or tests that failed |\n| --- | --- | --- |")
    for mutant in sorted(caught):
        models = sorted(kills[mutant.key], key=lambda m: (len(runs.killed_by(m)), m))
        more = f" and {len(models) - 2} more" if len(models) > 2 else ""
        print(f"| `{Path(mutant.file).name}` | {mutant.name} | {', '.join(f'`{m}`' for m in models[:2])}{more} |")

    print("\n## What nothing fails by\n")
    print("| file | change | why |\n| --- | --- | --- |")
    for mutant in sorted(left):
        why = explained.get(mutant.key, "**not explained yet**")
        print(f"| `{Path(mutant.file).name}` | {mutant.name} | {why} |")
    return check(runs, mutants, units, explained)


if __name__ == "__main__":
    sys.exit(main())
