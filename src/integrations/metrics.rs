//! What happens to what has a name, and to requests, as metrics of the crate `metrics` 0.24 (feature `metrics`).
//!
//! | name | kind | labels | what |
//! | --- | --- | --- | --- |
//! | `cancel_tree_first_poll_seconds` | histogram | `task` | from the cancel of a group to a task's first poll since |
//! | `cancel_tree_gone_seconds` | histogram | `task` | from the cancel of a group to a task's end |
//! | `cancel_tree_deadline_lateness_seconds` | histogram | `name` | how late a deadline was told: to contexts with a name, and groups |
//! | `cancel_tree_cancels_total` | counter | `name`, `kind` | contexts with a name, and groups, that are done and were not when they were made; `cancelled` or `deadline_exceeded` |
//! | `cancel_tree_tasks_total` | counter | `task`, `outcome` | `forced`: dropped after the cancel, before they were through; `stuck`: named by a report |
//! | `cancel_tree_requests_total` | counter | `outcome` | with the feature `tower`: `received`, `expired` on arrival, `cut` by the deadline, `client_gone`, `failed`, `malformed`, `refused` |
//!
//! Labels are names that the program has given, and kinds, never the text of a cause: labels must have few values. So a task's name should be that
//! of what it does, and not of the client it does it for. (What [`ContextLayer::named`](super::tower::ContextLayer::named) gives has the path in it.)
//!
//! ```
//! cancel_tree::integrations::metrics::install();
//! // From here on whatever recorder the program has installed is told: an exporter for Prometheus, say.
//! ```

use crate::context::observe::{observe, Event, Observer};
use crate::tree::ContextError;
use ::metrics::{counter, describe_counter, describe_histogram, histogram, Unit};
use alloc::borrow::ToOwned;
use alloc::string::String;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

struct Metrics;

/// Reports to the recorder of `metrics` from now on; calling it once is enough. Install the recorder first, or it misses the descriptions of the metrics.
pub fn install() {
    static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
    // Relaxed: one of them is the first.
    if IS_INSTALLED.swap(true, Relaxed) {
        return;
    }
    describe_histogram!(
        "cancel_tree_first_poll_seconds",
        Unit::Seconds,
        "From a group's cancel to a task's first poll since"
    );
    describe_histogram!(
        "cancel_tree_gone_seconds",
        Unit::Seconds,
        "From a group's cancel to a task's end"
    );
    describe_histogram!(
        "cancel_tree_deadline_lateness_seconds",
        Unit::Seconds,
        "How late a deadline was told"
    );
    describe_counter!(
        "cancel_tree_cancels_total",
        "Named contexts and groups that are done"
    );
    describe_counter!(
        "cancel_tree_tasks_total",
        "Tasks that were dropped after the cancel, or did not stop"
    );
    describe_counter!(
        "cancel_tree_requests_total",
        "Requests, by what became of them"
    );
    observe(Metrics);
}

fn name_of(name: Option<&str>) -> String {
    name.unwrap_or("unnamed").to_owned()
}

impl Observer for Metrics {
    fn tell(&self, event: &Event<'_>) {
        match *event {
            Event::Done {
                name, cause, late, ..
            } => {
                let name = name_of(name);
                if let Some(late) = late {
                    histogram!("cancel_tree_deadline_lateness_seconds", "name" => name.clone())
                        .record(late.as_secs_f64());
                }
                let kind = match cause.kind() {
                    ContextError::Cancelled => "cancelled",
                    ContextError::DeadlineExceeded => "deadline_exceeded",
                };
                counter!("cancel_tree_cancels_total", "name" => name, "kind" => kind).increment(1);
            }
            Event::FirstPoll { name, after, .. } => {
                histogram!("cancel_tree_first_poll_seconds", "task" => name.to_owned())
                    .record(after.as_secs_f64());
            }
            Event::Gone {
                name,
                after,
                is_forced,
                ..
            } => {
                histogram!("cancel_tree_gone_seconds", "task" => name.to_owned())
                    .record(after.as_secs_f64());
                if is_forced {
                    counter!("cancel_tree_tasks_total", "task" => name.to_owned(), "outcome" => "forced").increment(1);
                }
            }
            Event::Stuck { name, .. } => {
                counter!("cancel_tree_tasks_total", "task" => name_of(name), "outcome" => "stuck")
                    .increment(1);
            }
            Event::Request { outcome } => {
                counter!("cancel_tree_requests_total", "outcome" => outcome).increment(1);
            }
        }
    }
}
