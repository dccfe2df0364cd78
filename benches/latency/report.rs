//! Tables of percentiles, the contenders side by side.

use std::collections::BTreeMap;
use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::cell::{Cell, Entrant, Measured, What};

/// The share of samples that are below, and how many it takes to speak of it.
const PERCENTILES: [(&str, f64, u64); 3] = [("p50", 0.5, 1), ("p90", 0.9, 10), ("p99", 0.99, 100)];

fn percentile(of: &Histogram<u64>, (_, quantile, fewest): (&str, f64, u64)) -> Option<u64> {
    (of.len() >= fewest).then(|| of.value_at_quantile(quantile))
}

/// A cell in a line, while others are still to come.
pub fn summary(measured: &Measured) -> String {
    let median = |it: &Entrant| format!("{} {}", it.name, time(it.latency.value_at_quantile(0.5)));
    let medians: Vec<_> = measured.entrants.iter().map(median).collect();
    format!("{}: {}", measured.cell.id(), medians.join(", "))
}

pub fn csv(measured: &[Measured]) -> String {
    let mut lines = String::from("what,shape,n,contender,samples,p50,p90,p99,max\n");
    for Measured { cell, entrants, .. } in measured {
        let (what, shape, len) = (cell.what.name(), cell.kind.name(), cell.len);
        for Entrant { name, latency, .. } in entrants {
            let percentiles = PERCENTILES
                .map(|it| percentile(latency, it).map_or(String::new(), |ns| ns.to_string()));
            let (samples, max) = (latency.len(), latency.max());
            let percentiles = percentiles.join(",");
            writeln!(
                lines,
                "{what},{shape},{len},{name},{samples},{percentiles},{max}"
            )
            .expect("a string takes everything");
        }
    }
    lines
}

/// A table for each kind of tree, under a heading for what is waited for.
pub fn tables(measured: &[Measured]) -> String {
    let mut text = String::new();
    for what in What::ALL {
        let of_what = measured.iter().filter(|it| it.cell.what == what);
        let of_what: Vec<_> = of_what.collect();
        if of_what.is_empty() {
            continue;
        }
        text += match what {
            What::Seen => {
                "### From `cancel()` to the last leaf that is seen cancelled\n\n\
                 A thread on another core looks at the leaves in order and stays with each until it is cancelled.\n\
                 *scan*: how long it takes to look at each of them once, shortly before; so much of a latency may be its own.\n"
            }
            What::Task => {
                "### From `cancel()` to the last task that runs again\n\n\
                 A task for each leaf, on a runtime of one thread, on another core, which is asleep. The floor has the\n\
                 runtime's part in it.\n"
            }
            What::Thread => {
                "### From `cancel()` to the last parked thread that is back\n\n\
                 A thread for each leaf, all on another core.\n"
            }
        };
        for of_kind in of_what.chunk_by(|a, b| a.cell.kind == b.cell.kind) {
            text += &table(of_kind);
        }
        text.push('\n');
    }
    text += "So many tokens are below the root; a chain has one leaf, the last. Ratios are of medians: `t` to tokio_util's,\n\
             `f` to the floor's. A p90 takes 10 samples, a p99 100.\n\n";
    text + &left_out(measured)
}

fn table(measured: &[&Measured]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for entrant in measured.iter().flat_map(|it| &it.entrants) {
        if !names.contains(&entrant.name) {
            names.push(entrant.name);
        }
    }
    let mut table = format!(
        "\n| {} | | {} |\n| --- | --- |{}\n",
        measured[0].cell.kind.name(),
        names.join(" | "),
        " --- |".repeat(names.len())
    );
    for of_cell in measured {
        let mut row = |first: &str, label: &str, figure: &dyn Fn(&Entrant) -> Option<String>| {
            let cell = |name: &&str| entrant(of_cell, name).and_then(figure);
            let cells = names
                .iter()
                .map(|name| cell(name).unwrap_or("–".to_owned()));
            let cells = cells.collect::<Vec<_>>().join(" | ");
            writeln!(table, "| {first} | {label} | {cells} |").expect("a string takes everything");
        };

        let median = |it: &Entrant| it.latency.value_at_quantile(0.5);
        let (peer, unit) = match entrant(of_cell, "tokio_util") {
            Some(peer) => (Some(peer), "t"),
            None => (entrant(of_cell, "floor"), "f"),
        };
        let ratio = |it: &Entrant| match peer {
            Some(peer) if peer.name != it.name => {
                let ratio = median(it) as f64 / median(peer) as f64;
                format!(" ({ratio:.2} {unit})")
            }
            _ => String::new(),
        };
        row(&grouped(of_cell.cell.len), "p50", &|it| {
            Some(time(median(it)) + &ratio(it))
        });
        for of in &PERCENTILES[1..] {
            row("", of.0, &|it| percentile(&it.latency, *of).map(time));
        }
        row("", "max", &|it| Some(time(it.latency.max())));
        row("", "samples", &|it| Some(it.latency.len().to_string()));
        if of_cell.cell.what == What::Seen {
            row("", "scan", &|it| Some(time(it.scan.value_at_quantile(0.5))));
        }
    }
    table
}

fn entrant<'a>(measured: &'a Measured, name: &str) -> Option<&'a Entrant> {
    measured.entrants.iter().find(|it| it.name == name)
}

/// Who was left out of what, and why.
fn left_out(measured: &[Measured]) -> String {
    let mut by_reason: BTreeMap<_, Vec<Cell>> = BTreeMap::new();
    for of_cell in measured {
        for &who_and_why in &of_cell.left_out {
            by_reason.entry(who_and_why).or_default().push(of_cell.cell);
        }
    }
    let lines = by_reason.into_iter().map(|((name, because), cells)| {
        let of = if cells.len() == measured.len() {
            "everything".to_owned()
        } else {
            let same = |a: &Cell, b: &Cell| a.what == b.what && a.kind == b.kind;
            let places = cells.chunk_by(same).map(|cells| {
                let sizes: Vec<_> = cells.iter().map(|cell| cell.len.to_string()).collect();
                let Cell { what, kind, .. } = cells[0];
                format!("{}/{}/{}", what.name(), kind.name(), sizes.join("+"))
            });
            places.collect::<Vec<_>>().join(", ")
        };
        format!("- left out of {of}: {name}, because {because}\n")
    });
    lines.collect()
}

/// With a comma after each three digits.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy)
        .collect();
    groups.join(",")
}

fn time(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        _ if ns < 1e3 => format!("{ns:.0} ns"),
        _ if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        _ => format!("{:.1} ms", ns / 1e6),
    }
}
