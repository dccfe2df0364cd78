#!/usr/bin/env python3
"""Breaks cancel-tree on purpose, one change at a time, and asks the models whether they see it.

    loom-tests/mutate.py            every change: is there a model that fails?
    loom-tests/mutate.py --models   every model: is there a change that makes it fail?
    loom-tests/mutate.py --report   what is known so far, as Markdown; runs nothing

The changes: every ordering in src/ weakened by a step (success and failure of a CAS apart), and the steps left
out or turned round that mutants.toml lists. All of them are compiled into one binary, and an environment variable
switches one on, so that a change costs a run and not a build. What was found is kept in
target/mutants/ for as long as the sources are the same, so that a run that was stopped goes on where it was.

A model that only runs out of time has not failed. A change that no model sees must be explained in
mutants.toml, or the exit code is 1.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "mutants"

# Files without an ordering of the tree's own: sync.rs wraps the atomics themselves.
NOT_MUTATED = {"sync.rs"}

WEAKER = {
    "AcqRel": ["Acquire", "Release", "Relaxed"],
    "Acquire": ["Relaxed"],
    "Release": ["Relaxed"],
}

# Which models to ask first. The others are asked as well.
TOPICS = {
    "any_of.rs": ["any_of"],
    "callback.rs": ["callback"],
    "cancel.rs": ["cancel", "cause", "recycle"],
    "children.rs": ["create", "shard", "recycle"],
    "extension.rs": ["cause", "shard", "any_of"],
    "reclaim.rs": ["recycle", "release", "callback"],
    "waiter.rs": ["wait"],
    "word.rs": ["visibility", "release", "create", "wait", "cause"],
}

# Appended to sync.rs: the switch.
SWITCH = """
mod mutant {
    use core::sync::atomic::Ordering::{self, *};
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
    pub(crate) fn step(id: usize) -> bool { switch().0 == id }
    pub(crate) fn ordering(id: usize, strong: Ordering) -> Ordering {
        match *switch() { (on, Some(weaker)) if on == id => weaker, _ => strong }
    }
}
pub(crate) use mutant::{ordering as mutant_ordering, step as mutant_step};
"""


def read_steps():
    with open(HERE / "mutants.toml", "rb") as file:
        return tomllib.load(file)


def mutate(src, steps):
    """Puts every change into the copy `src`; a list of (name, file, switch)."""
    mutants = []
    texts = {}
    for path in sorted(src.rglob("*.rs")):
        if path.name not in NOT_MUTATED:
            texts[str(path.relative_to(src))] = path.read_text()
    number = 0
    for step in steps:
        number += 1
        text = texts[step["file"]]
        if text.count(step["find"]) != 1:
            sys.exit(f"mutants.toml: found {text.count(step['find'])} times: {step['name']}")
        on = step["replace"].replace("MUTANT", f"crate::sync::mutant_step({number})")
        texts[step["file"]] = text.replace(step["find"], on)
        mutants.append((step["name"], step["file"], str(number)))
    for name, text in texts.items():
        lines, function, seen = [], "?", {}
        for line in text.split("\n"):
            if line.lstrip().startswith("#[cfg(test)]"):
                break
            if found := re.search(r"\bfn (\w+)", line):
                function, seen = found[1], {}
            if line.startswith("use ") or "mutant_step" in line:
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
                    mutants.append((title, name, f"{number}:{weaker}"))
                return f"crate::sync::mutant_ordering({number}, crate::sync::{strong})"

            code = re.sub(r"(?<![\w:])(?:AcqRel|Acquire|Release)\b", site, code)
            lines.append(code + slashes + comment)
        (src / name).write_text("\n".join(lines))
    with open(src / "sync.rs", "a") as file:
        file.write(SWITCH)
    return mutants


def build():
    """Builds the models over the mutated copy; its mutants and its binary."""
    tree = TARGET / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for name in ["src", "loom-tests"]:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("target"))
    for name in ["README.md", "Cargo.lock"]:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree)
    # The library alone: its examples and benches are not there.
    manifest = (ROOT / "Cargo.toml").read_text()
    manifest = re.sub(r"(?ms)^\[\[(bench|example|test)\]\].*?(?=^\[|\Z)", "", manifest)
    manifest = re.sub(r"(?ms)^\[dev-dependencies\].*?(?=^\[|\Z)", "", manifest)
    (tree / "Cargo.toml").write_text(manifest)
    mutants = mutate(tree / "src", read_steps()["step"])
    flags = "--cfg cancel_tree_loom --cfg crossbeam_loom -A warnings"
    subprocess.run(
        ["cargo", "test", "--release", "--test", "races", "--no-run", "--target-dir", TARGET / "build"],
        cwd=tree / "loom-tests",
        env=dict(os.environ, RUSTFLAGS=flags),
        check=True,
    )
    built = (TARGET / "build" / "release" / "deps").glob("races-*")
    binary = max((p for p in built if p.suffix == ""), key=lambda p: p.stat().st_mtime)
    return mutants, shutil.copy(binary, TARGET / "races")


class Runs:
    """Runs models, and remembers what became of each run."""

    def __init__(self, binary, mutants):
        self.binary = binary
        self.lock = threading.Lock()
        self.known = {}
        digest = hashlib.sha256()
        for path in sorted([*ROOT.glob("src/**/*.rs"), *HERE.glob("**/*.rs"), HERE / "mutants.toml"]):
            if "target" not in path.parts:
                digest.update(path.read_bytes())
        self.file = TARGET / f"results-{digest.hexdigest()[:12]}.jsonl"
        if self.file.exists():
            for line in self.file.read_text().splitlines():
                mutant, model, limits, how = json.loads(line)
                self.known[mutant, model, limits] = how
        self.kills = {}
        for (mutant, model, _), how in self.known.items():
            if how == "failed":
                self.kills.setdefault(mutant, set()).add(model)
        listed = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True)
        self.models = re.findall(r"^(\S+): test$", listed.stdout, re.M)
        self.seconds = {}

    def run(self, mutant, model, limits):
        """`passed`, `failed` or `timeout`; `limits`: preemptions ("own": the model's) and seconds."""
        key = (mutant, model, limits)
        if key not in self.known:
            preemptions, cap = limits.split("/")
            env = dict(os.environ, CANCEL_TREE_MUTANT=mutant, LOOM_MAX_DURATION=cap, RUST_BACKTRACE="0")
            if preemptions != "own":
                env["CANCEL_TREE_PREEMPTIONS"] = preemptions
            begin = time.monotonic()
            try:
                status = subprocess.run(
                    [self.binary, "--exact", model, "--test-threads=1"],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=env,
                    timeout=int(cap) + 20,
                ).returncode
                how = "passed" if status == 0 else "failed"
            except subprocess.TimeoutExpired:
                how = "timeout"
            if mutant == "0":
                how = f"{how} {time.monotonic() - begin:.2f}"
            with self.lock:
                self.known[key] = how
                if how == "failed":
                    self.kills.setdefault(mutant, set()).add(model)
                with open(self.file, "a") as file:
                    file.write(json.dumps([*key, how]) + "\n")
        return self.known[key]

    def baseline(self, jobs):
        """Every model without a change: it has to pass, and its time says when to ask it."""
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for model, how in zip(self.models, pool.map(lambda m: self.run("0", m, "2/5"), self.models)):
                how, seconds = how.split()
                if how != "passed":
                    sys.exit(f"{model} {how} though nothing was changed")
                self.seconds[model] = float(seconds)

    def kill(self, switch, file, limits):
        """A model that fails by this change, or None."""
        if found := self.kills.get(switch):
            return min(found, key=lambda m: (self.seconds.get(m, 9), m))
        topics = TOPICS.get(Path(file).name, [])

        def rank(model):
            first = model.split("::")[0] in topics and self.seconds[model] < 1
            return (not first, self.seconds[model])

        for model in sorted(self.models, key=rank):
            if self.run(switch, model, limits) == "failed":
                return model
        return None

    def failing(self, model, mutants, limits):
        """A change by which this model fails, or None; the ones that concern its topic first."""
        topic = model.split("::")[0]

        def rank(mutant):
            kills = self.kills.get(mutant[2], set())
            near = sum(k.split("::")[0] == topic for k in kills)
            about = topic in TOPICS.get(Path(mutant[1]).name, [])
            return (model not in kills, not near, not about, -near, -len(kills))

        for mutant in sorted(mutants, key=rank):
            if not self.kills.get(mutant[2]):
                break
            if self.run(mutant[2], model, limits) == "failed":
                return mutant
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", action="store_true", help="ask for each model what makes it fail")
    parser.add_argument("--report", action="store_true", help="print what is known and run nothing")
    parser.add_argument("--only", default="", help="changes (or models) with this in their name or file")
    parser.add_argument("--limits", default="2/5", help="preemptions/seconds of a run; own/60: the models' own")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()

    if args.report and (TARGET / "races").exists():
        mutants, binary = json.loads((TARGET / "mutants.json").read_text()), TARGET / "races"
    else:
        mutants, binary = build()
        (TARGET / "mutants.json").write_text(json.dumps(mutants))
    runs = Runs(binary, mutants)
    runs.baseline(args.jobs)
    if args.report:
        return report(runs, mutants)

    if args.models:
        todo = [m for m in runs.models if args.only in m]
        work = lambda model: runs.failing(model, mutants, args.limits)
        title = lambda model: model
    else:
        todo = [m for m in mutants if args.only in m[0] or args.only in m[1]]
        work = lambda mutant: runs.kill(mutant[2], mutant[1], args.limits)
        title = lambda mutant: f"{mutant[1]} {mutant[0]}"
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        jobs = {pool.submit(work, one): one for one in todo}
        for n, job in enumerate(concurrent.futures.as_completed(jobs), 1):
            by = job.result()
            by = by[0] if isinstance(by, (list, tuple)) else by
            print(f"{n}/{len(todo)} {title(jobs[job])}: {by or 'NOTHING FAILED'}", flush=True)
    return report(runs, mutants)


def report(runs, mutants):
    explained = {(e["file"], e["name"]): e["why"] for e in read_steps().get("equivalent", [])}
    killed = [m for m in mutants if runs.kills.get(m[2])]
    left = [m for m in mutants if not runs.kills.get(m[2])]
    unexplained = [m for m in left if (m[1], m[0]) not in explained]
    for model in runs.models:
        if not any(model in kills for kills in runs.kills.values()):
            print(f"not seen to fail: {model}", file=sys.stderr)
    for file, name in explained.keys() - {(m[1], m[0]) for m in left}:
        print(f"mutants.toml: explained, but caught or not there: {file} {name}", file=sys.stderr)
    print(f"\n{len(mutants)} changes: {len(killed)} caught, {len(left)} not.\n")
    print("| file | change | models seen to fail by it |\n| --- | --- | --- |")
    for name, file, switch in sorted(killed, key=lambda m: (m[1], m[0])):
        models = ", ".join(f"`{m}`" for m in sorted(runs.kills[switch]))
        print(f"| `{file}` | {name} | {models} |")
    print("\n| file | change | why nothing fails |\n| --- | --- | --- |")
    for name, file, _ in sorted(left, key=lambda m: (m[1], m[0])):
        print(f"| `{file}` | {name} | {explained.get((file, name), 'NOT EXPLAINED')} |")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
