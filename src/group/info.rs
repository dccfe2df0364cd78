//! What is said of one task, and how.

use super::label::Label;
use crate::sync::Panics;
use crate::tree::Cause;
use alloc::borrow::Cow;
use alloc::string::String;
use core::any::Any;
use core::error::Error;
use core::fmt;
use core::panic::Location;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Instant;

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
    pub progress: Option<super::probe::Progress>,
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
    pub fn situation(&self) -> Option<super::probe::Situation> {
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

/// The cause of a group that ended because one of its tasks panicked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Panicked {
    /// What the panic said, if it was a text.
    pub message: Cow<'static, str>,
    /// The task's name, if it has one; or what it was that is no task.
    pub name: Option<String>,
    /// Where it was started. None: it is no task.
    pub spawned_at: Option<&'static Location<'static>>,
}

impl Panicked {
    /// What was called so has panicked.
    pub(crate) fn of(
        payload: &(dyn Any + Send),
        name: Option<&str>,
        spawned_at: Option<&'static Location<'static>>,
    ) -> Panicked {
        Panicked {
            message: Panicked::text(payload).unwrap_or("no text".into()),
            name: name.map(Into::into),
            spawned_at,
        }
    }

    /// What a panic said, if it was a text.
    pub(crate) fn text(payload: &(dyn Any + Send)) -> Option<Cow<'static, str>> {
        match payload.downcast_ref::<&'static str>() {
            Some(text) => Some(Cow::Borrowed(text)),
            None => payload.downcast_ref::<String>().cloned().map(Cow::Owned),
        }
    }

    /// What the step gives, which is no user code; or what it says if it panics.
    pub(crate) fn caught<R>(who: &str, step: impl FnOnce() -> R) -> Result<R, String> {
        // AssertUnwindSafe: the caller sees to that.
        catch_unwind(AssertUnwindSafe(step)).map_err(|payload| match Panicked::text(&*payload) {
            Some(text) => text.into_owned(),
            None => alloc::format!("{who} has panicked"),
        })
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name.as_deref().map(one_line), self.spawned_at) {
            (Some(other), None) => write!(f, "{other} panicked")?,
            (Some(name), Some(at)) => write!(f, "a task panicked ({name}), started at {at}")?,
            (None, Some(at)) => write!(f, "a task panicked, started at {at}")?,
            (None, None) => f.write_str("a task panicked")?,
        }
        write!(f, ": {}", self.message)
    }
}

impl Error for Panicked {}

/// A cause as people read it, as far as it goes: user code, whose panic does not concern the thread that looks or ends.
pub(super) fn shown(cause: &Cause) -> String {
    use fmt::Write;
    let mut text = String::new();
    let mut panics = Panics::default();
    panics.catch(|| _ = write!(text, "{cause}"));
    panics.swallow();
    text
}

/// The same, in its line.
pub(crate) fn in_line(cause: &Cause) -> String {
    one_line(&shown(cause)).into_owned()
}

/// Names and causes are others' words, as the paths of requests are their clients', and stay in their line.
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
