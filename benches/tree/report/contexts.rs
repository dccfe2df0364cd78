//! Contexts and their aims, against what does the nearest thing.

use std::fmt::Write;

use super::aims::Aim;
use crate::figures::{time, Figures};
use crate::lateness::{Lateness, Quantiles};

const NO_AIM: f64 = f64::INFINITY;

/// A row: what, the bench, whom it is compared with (the id of the other's figure and its name; or nobody, where the
/// aim is a time in nanoseconds), and the aim.
type Row = (
    &'static str,
    &'static str,
    Option<(&'static str, &'static str)>,
    f64,
);

const POLLED: &str = "tokio's sleep, polled";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("`with_timeout(30 s)` + drop", "ctx_timeout_drop", Some(("ctx_timeout_drop/tokio_sleep", POLLED)), 0.25),
    ("…", "ctx_timeout_drop", Some(("ctx_timeout_drop/tokio_sleep_unpolled", "tokio's sleep, never polled")), NO_AIM),
    ("…", "ctx_timeout_drop", Some(("ctx_timeout_drop/go", "Go")), 0.1),
    ("… beside 100,000 live ones", "ctx_timeout_drop_among_100k", Some(("ctx_timeout_drop_among_100k/tokio_sleep", POLLED)), 0.25),
    ("…", "ctx_timeout_drop_among_100k", Some(("ctx_timeout_drop_among_100k/go", "Go")), 0.1),
    ("… with a poll of `done()`", "ctx_timeout_done_drop", Some(("ctx_timeout_drop/tokio_sleep", POLLED)), 0.5),
    ("…", "ctx_timeout_done_drop", Some(("ctx_timeout_done_drop/go", "Go")), NO_AIM),
    ("a reading of the clock, part of each of these", "clock", Some(("ctx_timeout_drop/tokio_sleep", POLLED)), NO_AIM),
    ("`with_cancel` + drop", "ctx_cancel_drop", Some(("create_drop/tokio_util", "tokio-util's child token")), 0.3),
    ("…", "ctx_cancel_drop", Some(("ctx_cancel_drop/go", "Go")), NO_AIM),
    ("`err()` with a deadline", "ctx_err", None, 3.0),
    ("…", "ctx_err", Some(("ctx_err/go", "Go")), NO_AIM),
    ("…", "ctx_err", Some(("read_select/go", "Go, by a `select` on `Done()`")), NO_AIM),
    ("`value()`, at depth 100", "ctx_value", None, 10.0),
    ("…", "ctx_value", Some(("ctx_value/go", "Go")), NO_AIM),
    ("`value()`, a miss at depth 100", "ctx_value_miss", None, 10.0),
    ("…", "ctx_value_miss", Some(("ctx_value_miss/go", "Go")), NO_AIM),
    ("`with_value`", "ctx_with_value", None, 100.0),
    ("…", "ctx_with_value", Some(("ctx_with_value/go", "Go")), NO_AIM),
];

/// The table of contexts, of the rows that this run has measured.
pub fn table(figures: &Figures, lateness: &[Lateness]) -> String {
    let mut table = String::from(
        "\n### Contexts\n\n\
         | what | aim | measured | met | cancel-tree | the other | which |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (what, bench, other, limit) in ROWS {
        // The clock is nobody's.
        let ours = figures.get(bench, "cancel_tree");
        let Some(ours) = ours.or_else(|| figures.get(bench, "floor")) else {
            continue;
        };
        let (measured, unit, theirs, which) = match other {
            None => (ours.median, " ns", "–".to_owned(), "–"),
            Some((id, which)) => {
                let Some(theirs) = figures.at(id) else {
                    continue;
                };
                (ours.median / theirs.median, "", theirs.to_string(), *which)
            }
        };
        let limit = *limit;
        let aim = Aim { limit, measured };
        writeln!(
            table,
            "| {what} | {} | {:.3}{unit} | {} | {ours} | {theirs} | {which} |",
            aim.wanted(unit),
            aim.measured,
            aim.met(),
        )
        .expect("a string takes everything");
    }
    let all = |q: &Quantiles| format!("{} / {} / {}", time(q.p50), time(q.p99), time(q.max));
    for row in lateness {
        let aim = Aim {
            limit: row.limit,
            measured: row.ours.p99 / 1e6,
        };
        let p99 = if row.limit.is_finite() { "p99 " } else { "" };
        writeln!(
            table,
            "| {} | {p99}{} | {} | {} | {} | {} | {} |",
            row.what,
            aim.wanted(" ms"),
            time(row.ours.p99),
            aim.met(),
            all(&row.ours),
            all(&row.tokio),
            row.which,
        )
        .expect("a string takes everything");
    }
    table
}
