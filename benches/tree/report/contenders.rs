//! All contenders side by side, who they are, and who was left out of what.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::RATIOS;
use crate::contenders::{self, CancelTree, Visitor};
use crate::figures::Figures;
use crate::go::{self, Go};
use crate::memory::PerChild;

/// A contender as the report names it.
struct Entry {
    name: &'static str,
    about: String,
}

fn entries(go: Option<&Go>) -> Vec<Entry> {
    struct Enter(Vec<Entry>);

    impl Visitor for Enter {
        fn visit<T: CancelTree>(&mut self) {
            let from = match T::PACKAGE {
                Some(package) => format!("{package} {}", version(package)),
                None => "written for this comparison".to_owned(),
            };
            self.0.push(Entry {
                name: T::NAME,
                about: format!("{} ({from})", T::ABOUT),
            });
        }
    }

    let mut entries = Enter(Vec::new());
    contenders::each(&mut entries);
    let version = go.and_then(|go| go.version.as_ref().ok());
    entries.0.extend(version.map(|version| Entry {
        name: go::NAME,
        about: format!(
            "Go's `context`, where `cancel()` takes the place of a drop, memory is what is live after a collection, \
             and `wake` is between goroutines on one thread ({version})"
        ),
    }));
    entries.0
}

/// The version of a package that this one is built with, as the lock file has it.
fn version(package: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let lock = fs::read_to_string(file).unwrap_or_default();
    let entry = |name: &str| {
        let start = format!("name = \"{name}\"\nversion = \"");
        let (_, entry) = lock.split_once(&start)?;
        entry.split("\n\n").next()
    };
    let of_two = || {
        // Of two versions, what depends on one says on which.
        let dependency = format!(" \"{package} ");
        let (_, version) = entry(env!("CARGO_PKG_NAME"))?.split_once(&dependency)?;
        version.split(['"', ' ']).next()
    };
    let of_one = || entry(package)?.split('"').next();
    of_two().or_else(of_one).unwrap_or("?").to_owned()
}

/// The benches that this run has measured, for those who took part in any.
pub fn table(figures: &Figures, memory: &[(&str, PerChild)], go: Option<&Go>) -> String {
    let mut rows: Vec<(&str, &str)> = RATIOS.iter().map(|row| (row.what, row.of)).collect();
    // Some benches have an aim against two others.
    rows.dedup_by_key(|&mut (_, bench)| bench);
    rows.retain(|(_, bench)| figures.get(bench, "cancel_tree").is_some());
    let bytes = |name: &str| {
        let (_, it) = memory.iter().find(|(of, _)| *of == name)?;
        Some(format!("{:.1} bytes", it.first))
    };
    let mut entries = entries(go);
    entries.retain(|Entry { name, .. }| {
        bytes(name).is_some() || rows.iter().any(|(_, of)| figures.get(of, name).is_some())
    });
    let names: Vec<&str> = entries.iter().map(|entry| entry.name).collect();

    let mut table = format!(
        "\n### Tokens: all contenders\n\n| what | {} |\n| --- |{}\n",
        names.join(" | "),
        " --- |".repeat(names.len())
    );
    let mut row = |what: &str, cell: &dyn Fn(&str) -> Option<String>| {
        let cells = names
            .iter()
            .map(|name| cell(name).unwrap_or("–".to_owned()));
        let cells = cells.collect::<Vec<_>>().join(" | ");
        writeln!(table, "| {what} | {cells} |").expect("a string takes everything");
    };
    for (what, bench) in &rows {
        row(what, &|name| Some(figures.get(bench, name)?.to_string()));
    }
    if !memory.is_empty() {
        row("memory of a child", &bytes);
    }

    table.push('\n');
    for Entry { name, about } in &entries {
        writeln!(table, "- {name}: {about}").expect("a string takes everything");
    }
    let version = go.map(|go| &go.version);
    if let Some(Err(because)) = version {
        writeln!(table, "- {}: SKIPPED, {because}", go::NAME).expect("a string takes everything");
    }

    let measured = |bench: &str| bench == "memory" || figures.get(bench, "cancel_tree").is_some();
    let mut without_go = Vec::new();
    if let Some(Ok(_)) = version {
        without_go = figures.ours();
        without_go.retain(|bench| figures.get(bench, go::NAME).is_none());
    }
    table + "\n" + &listed(measured, &without_go)
}

/// Who was left out of those benches that are `of_interest`, and why.
pub fn left_out(of_interest: impl Fn(&str) -> bool) -> String {
    listed(of_interest, &[])
}

/// Go, which is nobody that `contenders` could ask, comes on top.
fn listed(of_interest: impl Fn(&str) -> bool, without_go: &[&str]) -> String {
    let mut by_reason: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for left_out in contenders::left_out().iter() {
        if of_interest(left_out.of) {
            let reason = (left_out.name, left_out.because);
            by_reason.entry(reason).or_default().push(left_out.of);
        }
    }
    for bench in without_go {
        let reason = (go::NAME, go::why_not(bench));
        by_reason.entry(reason).or_default().push(bench);
    }
    let lines = by_reason.iter().map(|((name, because), benches)| {
        format!(
            "- left out of {}: {name}, because {because}\n",
            benches.join(", ")
        )
    });
    lines.collect()
}
