//! Groups, deadlines that move and their aims, against what does the nearest thing.

use std::fmt::Write;

use super::aims::Aim;
use crate::figures::Figures;

const NO_AIM: f64 = f64::INFINITY;

/// What is made of our figure and the other one.
enum Of {
    Ratio,
    /// In nanoseconds.
    Difference,
}

/// A row: what, the id of our figure, that of the other one, its name, what is made of the two, and the aim.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Of,
    f64,
);

const TRACKER: &str = "tokio-util's `TaskTracker`, a child token";
const SET: &str = "tokio's `JoinSet`, a child token";
const BY_HAND: &str = "Go's `WaitGroup`, a child context";
const ERRGROUP: &str = "Go, as `errgroup` does it";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("a task that ends at once, made and gone: `track_with` + one poll", "task/cancel_tree", "task/task_tracker", TRACKER, Of::Ratio, 0.5),
    ("…", "task/cancel_tree", "task/go", BY_HAND, Of::Ratio, NO_AIM),
    ("… with a name", "task/cancel_tree_named", "task/task_tracker", TRACKER, Of::Ratio, NO_AIM),
    ("… from 2 threads in one group", "task_two_threads/cancel_tree", "task_two_threads/task_tracker", TRACKER, Of::Ratio, 0.1),
    ("… against one thread", "task_two_threads/cancel_tree", "task/cancel_tree", "one thread", Of::Ratio, 1.3),
    ("…", "task_two_threads/cancel_tree", "task_two_threads/go", BY_HAND, Of::Ratio, NO_AIM),
    ("`spawn` on tokio, a task that ends at once", "task_on_tokio/cancel_tree", "task_on_tokio/floor", "a bare `tokio::spawn`", Of::Ratio, 1.1),
    ("…", "task_on_tokio/cancel_tree", "task_on_tokio/task_tracker", TRACKER, Of::Ratio, NO_AIM),
    ("…", "task_on_tokio/cancel_tree", "task_on_tokio/join_set", SET, Of::Ratio, NO_AIM),
    ("…", "task_on_tokio/cancel_tree", "task_on_tokio/go", ERRGROUP, Of::Ratio, NO_AIM),
    ("cancel 100,000 tasks, to the return of `join`", "join_100k/cancel_tree", "join_100k/task_tracker", TRACKER, Of::Ratio, 1.0),
    ("…", "join_100k/cancel_tree", "join_100k/join_set", SET, Of::Ratio, 1.0),
    ("…", "join_100k/cancel_tree", "join_100k/go", ERRGROUP, Of::Ratio, NO_AIM),
    ("`touch()`, beside a reading of the clock", "touch/cancel_tree", "touch/floor", "the clock", Of::Difference, 2.0),
    ("`err()` in a group", "ctx_err_in_group/cancel_tree", "ctx_err_in_group/floor", "outside of it", Of::Ratio, 1.05),
    ("… below a movable deadline", "ctx_err_movable/cancel_tree", "ctx_err_movable/floor", "below a fixed one", Of::Ratio, 1.05),
    ("`with_timeout` in a group", "ctx_timeout_drop_in_group/cancel_tree", "ctx_timeout_drop_in_group/floor", "outside of it", Of::Ratio, 1.05),
    ("… below a movable deadline", "ctx_timeout_drop_movable/cancel_tree", "ctx_timeout_drop_movable/floor", "below a fixed one", Of::Ratio, 1.05),
];

/// Those that are compared with nobody.
#[rustfmt::skip]
const ALONE: &[(&str, &str)] = &[
    ("`touch_at()`", "touch_at/cancel_tree"),
    ("`extend()`", "extend/cancel_tree"),
];

/// The table, of the rows that this run has measured; nothing if there is none.
pub fn table(figures: &Figures) -> String {
    let mut rows = String::new();
    for (what, ours, theirs, which, of, limit) in ROWS {
        let (Some(ours), Some(theirs)) = (figures.at(ours), figures.at(theirs)) else {
            continue;
        };
        let (measured, unit) = match of {
            Of::Ratio => (ours.median / theirs.median, ""),
            Of::Difference => (ours.median - theirs.median, " ns"),
        };
        let limit = *limit;
        let aim = Aim { limit, measured };
        writeln!(
            rows,
            "| {what} | {} | {measured:.3}{unit} | {} | {ours} | {theirs} | {which} |",
            aim.wanted(unit),
            aim.met(),
        )
        .expect("a string takes everything");
    }
    for (what, ours) in ALONE {
        if let Some(ours) = figures.at(ours) {
            writeln!(rows, "| {what} | – | – | – | {ours} | – | – |")
                .expect("a string takes everything");
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n### Groups, and deadlines that move\n\n\
         | what | aim | measured | met | cancel-tree | the other | which |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n{rows}"
    )
}
