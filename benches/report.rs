//! The aims of the project, and how far they are met.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

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
    ratio("create + drop a child", "create_drop", "create_drop/tokio_util", 0.15),
    ratio("… beside 100,000 living siblings", "create_drop_among_100k", "create_drop_among_100k/tokio_util", 0.15),
    ratio("… from 2 threads on one parent", "create_drop_two_threads", "create_drop_two_threads/tokio_util", 0.02),
    ratio("… against one thread", "create_drop_two_threads", "create_drop/cancel_tree", 1.3),
    ratio("create + cancel + drop", "create_cancel_drop", "create_cancel_drop/tokio_util", 0.2),
    ratio("a request: child, 3 grandchildren, cancel, drop all", "request", "request/tokio_util", 0.25),
    ratio("clone + drop", "clone_drop", "clone_drop/tokio_util", 0.4),
    ratio("first poll + drop of `cancelled()`", "first_poll", "first_poll/tokio_util", 0.5),
    ratio("… beside another waiter", "first_poll_second_waiter", "first_poll_second_waiter/tokio_util", 0.8),
    ratio("… from 2 threads on one token", "first_poll_two_threads", "first_poll_two_threads/tokio_util", 0.08),
    ratio("poll again", "poll_again", "poll_again/tokio_util", 0.1),
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
pub fn table(estimates: &Estimates, ours: Option<PerChild>, theirs: Option<PerChild>) -> String {
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
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
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
