//! What happens to what has a name as events of the crate `tracing` 0.1 (feature `tracing`), with the target `cancel_tree`.
//!
//! | message | level | fields |
//! | --- | --- | --- |
//! | `done` | info | `name`, `at`, `is_group`, `kind`, `cause`; `late_ms`, if a deadline has passed |
//! | `first poll since the cancel` | debug | `task`, `at`, `after_ms` |
//! | `gone` | debug; warn if it was dropped before it was through | `task`, `at`, `after_ms`, `is_forced` |
//! | `stuck` | warn | `task`, `at` |
//!
//! ```
//! cancel_tree::integrations::tracing::install();
//! ```

use crate::context::observe::{observe, Event, Observer};
use crate::group::{in_line, one_line};
use ::tracing::{debug, info, warn};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::time::Duration;

struct Tracing;

/// Reports to the subscriber of `tracing` from now on; calling it once is enough.
pub fn install() {
    static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
    // Relaxed: one of them is the first.
    if !IS_INSTALLED.swap(true, Relaxed) {
        observe(Tracing);
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Observer for Tracing {
    fn tell(&self, event: &Event<'_>) {
        match *event {
            Event::Done {
                is_group,
                name,
                at,
                cause,
                late,
            } => {
                let name = name.map(one_line);
                let name = name.as_deref();
                let kind = cause.kind();
                // Here, where its panic is nobody's: a subscriber may hold something while it formats.
                let cause = in_line(cause);
                match late.map(millis) {
                    Some(late_ms) => {
                        info!(target: "cancel_tree", name, at = %at, is_group, kind = %kind, cause = %cause, late_ms, "done");
                    }
                    None => {
                        info!(target: "cancel_tree", name, at = %at, is_group, kind = %kind, cause = %cause, "done");
                    }
                }
            }
            Event::FirstPoll {
                name,
                spawned_at,
                after,
            } => {
                let after_ms = millis(after);
                let name = &*one_line(name);
                debug!(target: "cancel_tree", task = name, at = %spawned_at, after_ms, "first poll since the cancel");
            }
            Event::Gone {
                name,
                spawned_at,
                after,
                is_forced,
            } => {
                let after_ms = millis(after);
                let name = &*one_line(name);
                if is_forced {
                    warn!(target: "cancel_tree", task = name, at = %spawned_at, after_ms, is_forced, "gone");
                } else {
                    debug!(target: "cancel_tree", task = name, at = %spawned_at, after_ms, is_forced, "gone");
                }
            }
            Event::Stuck { name, spawned_at } => {
                let name = name.map(one_line);
                let name = name.as_deref();
                warn!(target: "cancel_tree", task = name, at = %spawned_at, "stuck");
            }
            // A service has events of its own for its requests.
            Event::Request { .. } => {}
        }
    }
}
