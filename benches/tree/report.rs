//! The aims of the project and how far they are met, all contenders side by side, and who was left out of what.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::contenders::{self, CancelTree, Visitor};
use crate::context::Lateness;
use crate::go::Go;
use crate::memory::PerChild;

/// A row of the table whose measure is a ratio of two benchmarks.
struct Ratio {
    what: &'static str,
    /// The benchmarks to compare; `of` is the group, its contender is `cancel_tree`.
    of: &'static str,
    to: &'static str,
    limit: f64,
}

const fn ratio(what: &'static str, of: &'static str, to: &'static str, limit: f64) -> Ratio {
    Ratio {
        what,
        of,
        to,
        limit,
    }
}

#[rustfmt::skip]
const RATIOS: &[Ratio] = &[
    ratio("read the flag", "read", "read/floor", 1.1),
    ratio("… while another thread makes and drops children", "read_busy", "read_busy/floor", 1.5),
    ratio("… while another thread polls and drops `cancelled()`", "read_beside_waits", "read_beside_waits/floor", f64::INFINITY),
    ratio("… while another thread clones and drops the token", "read_beside_clones", "read_beside_clones/floor", f64::INFINITY),
    ratio("… 100 levels below the root", "read_deep", "read_deep/tokio_util", f64::INFINITY),
    ratio("create + drop a child", "create_drop", "create_drop/tokio_util", 0.15),
    ratio("… beside 100,000 living siblings", "create_drop_among_100k", "create_drop_among_100k/tokio_util", 0.15),
    ratio("… from 2 threads on one parent", "create_drop_two_threads", "create_drop_two_threads/tokio_util", 0.02),
    ratio("… against one thread", "create_drop_two_threads", "create_drop/cancel_tree", 1.3),
    ratio("… while another thread makes and cancels siblings", "create_drop_beside_cancels", "create_drop_beside_cancels/tokio_util", f64::INFINITY),
    ratio("create + cancel + drop", "create_cancel_drop", "create_cancel_drop/tokio_util", 0.2),
    ratio("a request: child, 3 grandchildren, cancel, drop all", "request", "request/tokio_util", 0.25),
    ratio("clone + drop", "clone_drop", "clone_drop/tokio_util", 0.4),
    ratio("first poll + drop of `cancelled()`", "first_poll", "first_poll/tokio_util", 0.5),
    ratio("… beside another waiter", "first_poll_second_waiter", "first_poll_second_waiter/tokio_util", 0.8),
    ratio("… 100 levels below the root", "first_poll_deep", "first_poll_deep/tokio_util", f64::INFINITY),
    ratio("… from 2 threads on one token", "first_poll_two_threads", "first_poll_two_threads/tokio_util", 0.08),
    ratio("poll again", "poll_again", "poll_again/tokio_util", 0.1),
    ratio("a turn of a select loop, `cancelled()` made anew", "select_anew", "select_anew/floor", f64::INFINITY),
    ratio("… kept from turn to turn", "select_kept", "select_kept/floor", f64::INFINITY),
    ratio("cancel 1,000 while another thread reads their flags", "cancel_beside_reads", "cancel_beside_reads/tokio_util", f64::INFINITY),
    ratio("cancel 1,000,000 children", "cancel_wide", "cancel_wide/floor", 1.3),
    ratio("… after random churn", "cancel_churned", "cancel_wide/floor", 1.8),
    ratio("cancel a chain of 1,000,000", "cancel_chain", "cancel_chain/floor", 1.5),
    ratio("cancel a 10-ary tree of 1,111,111", "cancel_ten_ary", "cancel_ten_ary/tokio_util", 0.2),
    ratio("build 1,000,000 children cold", "build_cold", "build_cold/tokio_util", 0.4),
    ratio("drop them", "drop_children", "drop_children/tokio_util", 0.12),
    ratio("… and their parent", "drop_all", "drop_all/tokio_util", f64::INFINITY),
    ratio("wake a parked thread", "wake", "wake/floor", 1.05),
    ratio("… on another core", "wake_across", "wake_across/floor", 1.05),
];

/// Where criterion puts its estimates, and since when they count.
pub struct Estimates {
    pub directory: PathBuf,
    /// The machine of an earlier run was another one, if only by its noise.
    pub since: SystemTime,
}

impl Estimates {
    /// Whether this run has measured it.
    pub fn has(&self, id: &str) -> bool {
        self.median(id).is_some()
    }

    /// The median of a benchmark in nanoseconds, if this run has measured it.
    fn median(&self, id: &str) -> Option<f64> {
        let file = self.directory.join(id).join("new/estimates.json");
        if fs::metadata(&file).ok()?.modified().ok()? < self.since {
            return None;
        }
        let json = fs::read_to_string(file).ok()?;
        let (_, median) = json.split_once(r#""median":"#)?;
        let (_, point) = median.split_once(r#""point_estimate":"#)?;
        let end = point.find([',', '}'])?;
        point[..end].trim().parse().ok()
    }
}

/// One table in Markdown, of the rows that this run has measured.
pub fn table(estimates: &Estimates, memory: &[(&str, PerChild)]) -> String {
    let mut table = String::from(
        "| what | aim | measured | met | cancel-tree | floor | tokio-util |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in RATIOS {
        let (Some(of), Some(to)) = (
            estimates.median(&format!("{}/cancel_tree", row.of)),
            estimates.median(row.to),
        ) else {
            continue;
        };
        let unit = match row.to.rsplit('/').next() {
            Some("tokio_util") => " t",
            Some("floor") => " f",
            _ => "",
        };
        let aim = if row.limit.is_finite() {
            format!("≤ {}{unit}", row.limit)
        } else {
            "–".to_owned()
        };
        let floor = (unit == " f").then_some(to);
        let tokio_util = estimates.median(&format!("{}/tokio_util", row.of));
        line(
            &mut table,
            row.what,
            &aim,
            &format!("{:.3}{unit}", of / to),
            of / to <= row.limit,
            [Some(of), floor, tokio_util].map(|ns| ns.map_or("–".to_owned(), time)),
        );
    }
    let of = |name| memory.iter().find(|(of, _)| *of == name).map(|(_, it)| it);
    if let (Some(ours), Some(theirs)) = (of("cancel_tree"), of("tokio_util")) {
        let bytes = |n: f64| format!("{n:.1} bytes");
        line(
            &mut table,
            "memory of a child",
            "≤ 72 bytes",
            &bytes(ours.first),
            ours.first <= 72.0,
            [bytes(ours.first), "–".to_owned(), bytes(theirs.first)],
        );
        line(
            &mut table,
            "… when recycled",
            "none",
            &bytes(ours.recycled),
            // A page here or there for the process itself is not the children's.
            ours.recycled < 0.1,
            [bytes(ours.recycled), "–".to_owned(), bytes(theirs.recycled)],
        );
    }
    table
}

/// A contender as the report names it.
struct Entry {
    name: &'static str,
    about: String,
}

fn entries() -> Vec<Entry> {
    struct Enter(Vec<Entry>);

    impl Visitor for Enter {
        fn visit<T: CancelTree>(&mut self) {
            let from = match T::PACKAGE {
                Some(package) => format!("{package} {}", version(package)),
                None => "written for this comparison".to_owned(),
            };
            self.0.push(Entry {
                name: T::NAME,
                about: format!("{}: {} ({from})", T::NAME, T::ABOUT),
            });
        }
    }

    let mut entries = Enter(Vec::new());
    contenders::each(&mut entries);
    entries.0
}

/// The version of a package that this one is built with, as the lock file has it.
fn version(package: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
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

/// All contenders side by side, of the benches that this run has measured.
pub fn contenders(estimates: &Estimates, memory: &[(&str, PerChild)]) -> String {
    let entries = entries();
    let names: Vec<_> = entries.iter().map(|entry| entry.name).collect();
    let mut table = format!(
        "\n| what | {} |\n| --- |{}\n",
        names.join(" | "),
        " --- |".repeat(names.len())
    );
    let mut row = |what: &str, cells: Vec<Option<String>>| {
        let cells = cells.into_iter().map(|cell| cell.unwrap_or("–".to_owned()));
        let cells = cells.collect::<Vec<_>>().join(" | ");
        writeln!(table, "| {what} | {cells} |").expect("a string takes everything");
    };
    let mut last = "";
    for ratio in RATIOS {
        // Some benches have an aim against two others.
        if ratio.of != last && estimates.has(&format!("{}/cancel_tree", ratio.of)) {
            let median = |name| estimates.median(&format!("{}/{name}", ratio.of)).map(time);
            row(ratio.what, names.iter().map(median).collect());
        }
        last = ratio.of;
    }
    let of = |name: &str| memory.iter().find(|(of, _)| *of == name);
    let bytes = |name: &&str| of(name).map(|(_, it)| format!("{:.1} bytes", it.first));
    row("memory of a child", names.iter().map(bytes).collect());

    table.push('\n');
    for entry in &entries {
        writeln!(table, "- {}", entry.about).expect("a string takes everything");
    }
    let measured =
        |bench: &str| bench == "memory" || estimates.has(&format!("{bench}/cancel_tree"));
    table + "\n" + &left_out(measured)
}

/// Who was left out of those benches that are `of_interest`, and why.
pub fn left_out(of_interest: impl Fn(&str) -> bool) -> String {
    let mut by_reason: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for left_out in contenders::left_out().iter() {
        if of_interest(left_out.of) {
            let reason = (left_out.name, left_out.because);
            by_reason.entry(reason).or_default().push(left_out.of);
        }
    }
    let lines = by_reason.iter().map(|((name, because), benches)| {
        format!(
            "- left out of {}: {name}, because {because}\n",
            benches.join(", ")
        )
    });
    lines.collect()
}

/// What a context's operation is compared with.
enum Peer {
    /// A benchmark of this run.
    Rust(&'static str, &'static str),
    /// One of Go's.
    Go(&'static str),
    /// Nothing: the aim is a time.
    None,
}

/// A row of the contexts' table: the benchmark, its peer, and the aim.
type ContextRow = (&'static str, &'static str, Peer, f64);

#[rustfmt::skip]
const CONTEXTS: &[ContextRow] = &[
    ("`with_timeout(30 s)` + drop", "ctx_timeout_drop", Peer::Rust("tokio's sleep, polled", "ctx_timeout_drop/tokio_sleep"), 0.25),
    ("…", "ctx_timeout_drop", Peer::Rust("tokio's sleep, never polled", "ctx_timeout_drop/tokio_sleep_unpolled"), f64::INFINITY),
    ("…", "ctx_timeout_drop", Peer::Go("TimeoutDrop"), 0.1),
    ("… beside 100,000 live ones", "ctx_timeout_drop_among_100k", Peer::Rust("tokio's sleep, polled", "ctx_timeout_drop_among_100k/tokio_sleep"), 0.25),
    ("…", "ctx_timeout_drop_among_100k", Peer::Go("TimeoutDropAmong100k"), 0.1),
    ("… with a poll of `done()`", "ctx_timeout_done_drop", Peer::Rust("tokio's sleep, polled", "ctx_timeout_drop/tokio_sleep"), 0.5),
    ("…", "ctx_timeout_done_drop", Peer::Go("TimeoutDoneDrop"), f64::INFINITY),
    ("a reading of the clock, part of each of these", "clock", Peer::Rust("tokio's sleep, polled", "ctx_timeout_drop/tokio_sleep"), f64::INFINITY),
    ("`with_cancel` + drop", "ctx_cancel_drop", Peer::Rust("tokio-util's child token", "create_drop/tokio_util"), 0.3),
    ("…", "ctx_cancel_drop", Peer::Go("CancelDrop"), f64::INFINITY),
    ("`err()` with a deadline", "ctx_err", Peer::None, 3.0),
    ("…", "ctx_err", Peer::Go("Err"), f64::INFINITY),
    ("`value()`, at depth 100", "ctx_value", Peer::None, 10.0),
    ("…", "ctx_value", Peer::Go("Value"), f64::INFINITY),
    ("`value()`, a miss at depth 100", "ctx_value_miss", Peer::None, 10.0),
    ("…", "ctx_value_miss", Peer::Go("ValueMiss"), f64::INFINITY),
    ("`with_value`", "ctx_with_value", Peer::None, 100.0),
    ("…", "ctx_with_value", Peer::Go("WithValue"), f64::INFINITY),
];

/// The table of contexts, of the rows that this run has measured.
pub fn contexts(estimates: &Estimates, go: Option<Go>, lateness: &Lateness) -> String {
    let mut table = String::from(
        "\n| what | aim | measured | met | cancel-tree | the other | which |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let ours_of = |id: &str| {
        let ours = estimates.median(&format!("{id}/cancel_tree"));
        ours.or_else(|| estimates.median(&format!("{id}/floor")))
    };
    for (what, id, peer, limit) in CONTEXTS {
        let Some(ours) = ours_of(id) else { continue };
        let (which, theirs) = match peer {
            Peer::Rust(name, id) => (*name, estimates.median(id)),
            Peer::Go(name) => ("Go", go.as_ref().and_then(|go| go.ns.get(*name).copied())),
            Peer::None => ("–", None),
        };
        let (measured, unit) = match (peer, theirs) {
            (Peer::None, _) => (ours, " ns"),
            (_, Some(theirs)) => (ours / theirs, ""),
            (_, None) => continue,
        };
        let aim = if limit.is_finite() {
            format!("≤ {limit}{unit}")
        } else {
            "–".to_owned()
        };
        let met = match aim.as_str() {
            "–" => "–",
            _ if measured <= *limit => "yes",
            _ => "**no**",
        };
        let theirs = theirs.map_or("–".to_owned(), time);
        writeln!(
            table,
            "| {what} | {aim} | {measured:.2}{unit} | {met} | {} | {theirs} | {which} |",
            time(ours)
        )
        .expect("a string takes everything");
    }
    let met = if lateness.ours.p99 <= 1e6 {
        "yes"
    } else {
        "**no**"
    };
    let all = |q: &crate::context::Quantiles| {
        format!("{} / {} / {}", time(q.p50), time(q.p99), time(q.max))
    };
    writeln!(
        table,
        "| lateness: median / p99 / worst of 1000 | p99 ≤ 1 ms | {} | {met} | {} | {} | tokio's sleep |",
        time(lateness.ours.p99),
        all(&lateness.ours),
        all(&lateness.tokio),
    )
    .expect("a string takes everything");
    if let Some(go) = go {
        writeln!(table, "\nGo: {}", go.version).expect("a string takes everything");
    }
    table
}

fn line(
    table: &mut String,
    what: &str,
    aim: &str,
    measured: &str,
    met: bool,
    [ours, floor, theirs]: [String; 3],
) {
    let met = match aim {
        "–" => "–",
        _ if met => "yes",
        _ => "**no**",
    };
    writeln!(
        table,
        "| {what} | {aim} | {measured} | {met} | {ours} | {floor} | {theirs} |"
    )
    .expect("a string takes everything");
}

fn time(ns: f64) -> String {
    match ns {
        _ if ns < 1e3 => format!("{ns:.2} ns"),
        _ if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        _ => format!("{:.1} ms", ns / 1e6),
    }
}
