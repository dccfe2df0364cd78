//! What is said of tasks that are there, and of those that were.

use super::place::Label;
use crate::sync::Panics;
use crate::tree::Cause;
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;
use core::panic::Location;
use std::time::{Duration, Instant};

/// A task of a group that is still there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskInfo {
    /// Its name, as given by [`Spawner::named`](super::Spawner::named).
    pub name: Option<String>,
    /// Where it was started.
    pub spawned_at: &'static Location<'static>,
    /// When it began, if it has a name.
    pub since: Option<Instant>,
    /// What it does, if it has a name.
    #[cfg(feature = "inspect")]
    pub progress: Option<super::snapshot::Progress>,
}

impl TaskInfo {
    /// `is_done`: whether its group is.
    #[cfg_attr(not(feature = "inspect"), allow(unused_variables))]
    pub(super) fn of(
        spawned_at: &'static Location<'static>,
        label: Option<&Label>,
        is_done: bool,
    ) -> TaskInfo {
        TaskInfo {
            name: label.map(|label| label.name().clone().into_owned()),
            spawned_at,
            since: label.map(|label| label.since),
            #[cfg(feature = "inspect")]
            progress: label.map(|label| label.probe.progress(is_done)),
        }
    }

    /// Returns what it does instead of stopping, if it was told to stop and has a name.
    #[cfg(feature = "inspect")]
    #[must_use]
    pub fn situation(&self) -> Option<super::snapshot::Situation> {
        self.progress?.situation()
    }
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("a task");
        write!(f, "{} ({}", one_line(name), self.spawned_at)?;
        if let Some(since) = self.since {
            write!(f, ", for {:.1?}", since.elapsed())?;
        }
        f.write_str(")")?;
        #[cfg(feature = "inspect")]
        if let Some(progress) = &self.progress {
            write!(f, ": {progress}")?;
        }
        Ok(())
    }
}

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
            write!(f, "; first error: {}", shown(cause))?;
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

/// A cause as people read it, as far as it goes: user code, whose panic does not concern the thread that looks or ends.
pub(crate) fn shown(cause: &Cause) -> String {
    use fmt::Write;
    let mut text = String::new();
    let mut panics = Panics::default();
    panics.catch(|| _ = write!(text, "{cause}"));
    panics.swallow();
    text
}

/// Names are others' words, as the paths of requests are their clients', and stay in their line.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    match text.contains(leaves_line) {
        true => Cow::Owned(text.replace(leaves_line, " ")),
        false => Cow::Borrowed(text),
    }
}

/// Also what parts lines and paragraphs, and what turns the direction of those that come after it.
pub(super) fn leaves_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
            shown(&self.cause)
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
