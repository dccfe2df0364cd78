//! What is said of a group at its end.

use super::info::{in_line, TaskInfo};
use crate::tree::Cause;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;
use std::time::Duration;

/// How a group was shut down; made by [`Group::shutdown`](super::Group::shutdown).
///
/// The numbers are of the tasks that were there when it began.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Tasks that ended by themselves before the group was cancelled.
    pub done: usize,
    /// Tasks that ended by themselves after that.
    pub cancelled: usize,
    /// Futures that were dropped before they were ready, by whatever ran them.
    pub forced: usize,
    /// Tasks that were still there at the end. One that ends while the report is made may be counted too.
    pub stuck: Vec<TaskInfo>,
    /// The first error or panic of one of this group's own tasks, since the group was made; or else the first panic of what was called on the
    /// way, as a waker. Those of groups inside ([`Group::child`](super::Group::child)) are in their reports.
    pub cause: Option<Cause>,
    /// From the call of `shutdown` to its return.
    pub took: Duration,
    /// The group and everything below it, if some are stuck.
    ///
    /// Cost: a look at all names and groups of the process. So do not end groups by the thousand in which something is stuck: put
    /// their tasks in one.
    #[cfg(feature = "inspect")]
    pub tree: Option<super::snapshot::Snapshot>,
}

impl Report {
    /// Returns `true` if all tasks ended by themselves and in time, those of groups inside too, and none of this group's own with an error
    /// ([`cause`](Self::cause)).
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.cancelled == 0 && self.forced == 0 && self.stuck.is_empty() && self.cause.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "shut down in {:.1?}: {} done, {} cancelled, {} forced, {} stuck",
            self.took,
            self.done,
            self.cancelled,
            self.forced,
            self.stuck.len()
        )?;
        if let Some(cause) = &self.cause {
            write!(f, "; first error: {}", in_line(cause))?;
        }
        for task in &self.stuck {
            write!(f, "\n  stuck: {task}")?;
        }
        #[cfg(feature = "inspect")]
        if let Some(tree) = &self.tree {
            for line in alloc::string::ToString::to_string(tree).lines() {
                write!(f, "\n  | {line}")?;
            }
        }
        Ok(())
    }
}

/// The error of a wait that ended before all tasks were gone; made by [`Group::join_until`](super::Group::join_until).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unfinished {
    /// Why the wait ended: the limit's cause.
    pub cause: Cause,
    /// The tasks that are still there.
    pub missing: Vec<TaskInfo>,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tasks are missing: {}",
            self.missing.len(),
            in_line(&self.cause)
        )
    }
}

impl Error for Unfinished {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

impl From<Unfinished> for Cause {
    fn from(unfinished: Unfinished) -> Cause {
        Cause::with_kind(unfinished.cause.kind(), unfinished)
    }
}
