//! The tables of this run: the aims of the project and how far they are met, all contenders side by side, contexts.

mod aims;
mod contenders;
mod contexts;
mod groups;

use crate::figures::Figures;
use crate::go::{self, Go};
use crate::lateness::Lateness;
use crate::machine::cores;
use crate::memory::PerChild;

pub use contenders::left_out;

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
    ratio("a wait that ends: child, first poll, cancel, poll, drop", "wait_cancel", "wait_cancel/tokio_util", f64::INFINITY),
    ratio("a turn of a select loop, `cancelled()` made anew", "select_anew", "select_anew/floor", f64::INFINITY),
    ratio("… kept from turn to turn", "select_kept", "select_kept/floor", f64::INFINITY),
    ratio("cancel 1,000 while another thread reads their flags", "cancel_beside_reads", "cancel_beside_reads/tokio_util", f64::INFINITY),
    ratio("cancel 1,000,000 children", "cancel_wide", "cancel_wide/floor", 1.3),
    ratio("… after random churn", "cancel_churned", "cancel_wide/floor", 1.8),
    ratio("cancel a chain of 1,000,000", "cancel_chain", "cancel_chain/floor", 1.5),
    ratio("cancel a 10-ary tree of 1,111,111", "cancel_ten_ary", "cancel_ten_ary/tokio_util", 0.2),
    ratio("cancel a token for which 100,000 tasks wait", "cancel_waiters", "cancel_waiters/tokio_util", 1.6),
    ratio("build 1,000,000 children cold", "build_cold", "build_cold/tokio_util", 0.4),
    ratio("drop them", "drop_children", "drop_children/tokio_util", 0.12),
    ratio("… and their parent", "drop_all", "drop_all/tokio_util", f64::INFINITY),
    ratio("wake a parked thread", "wake", "wake/floor", 1.05),
    ratio("… on another core", "wake_across", "wake_across/floor", 1.05),
];

/// All tables in Markdown, of the rows that this run has measured.
pub fn tables(
    figures: &Figures,
    mut memory: Vec<(&'static str, PerChild)>,
    lateness: Option<Vec<Lateness>>,
    go: Option<Go>,
) -> String {
    let mut tables = aims::table(figures, &memory);
    let go_memory = go.as_ref().and_then(|go| go.memory);
    memory.extend(go_memory.map(|it| (go::NAME, it)));
    tables += &contenders::table(figures, &memory, go.as_ref());
    if let Some(lateness) = lateness {
        tables += &contexts::table(figures, &lateness);
    }
    tables += &groups::table(figures);
    if !cores::has_two() {
        tables += "\nSKIPPED: what two threads do at once, for there is one core\n";
    }
    tables
}
