//! For models: what is noted of what has a name, apart from the groups and contexts that note it, of which models are large
//! without that.

#![allow(missing_docs, reason = "hidden")]

use super::probe::Probe;
use crate::context::name::{self, Record};
use crate::context::observe;
use crate::context::Looks;
use crate::sync::Panics;
use crate::token::CancellationToken;
use alloc::sync::Arc;
use core::panic::Location;

pub use crate::context::observe::{observe, Event, Observer};

/// A task's notes.
pub struct Task(Probe);

#[allow(clippy::new_without_default)]
impl Task {
    pub fn new() -> Task {
        Task(Probe::new(None))
    }

    /// One poll, after the cancel or before it.
    pub fn poll(&self, is_done: bool) {
        self.0.begin(is_done);
        self.0.end();
    }

    /// From now on it is a thread, which has looked before.
    pub fn is_thread_that_has_looked(&self) {
        let looks = Arc::new(Looks::new(None));
        looks.note();
        self.0.is_thread(looks);
    }

    pub fn is_told_by(&self, ctx: &crate::context::Context) {
        self.0.is_told_by(ctx);
    }

    pub fn is_told(&self, is_done: bool) -> bool {
        self.0.is_told(is_done)
    }

    /// How often since the cancel, by who reads it.
    pub fn times(&self) -> u64 {
        let since = self.0.progress(true).since_cancel;
        since.map_or(0, |since| since.times)
    }
}

/// A thread's looks.
#[derive(Clone)]
pub struct Thread(Arc<Looks>);

#[allow(clippy::new_without_default)]
impl Thread {
    pub fn new() -> Thread {
        Thread(Arc::new(Looks::new(None)))
    }

    pub fn look(&self) {
        self.0.note();
    }

    /// How often; and whether it is known since when, and until when.
    pub fn told(&self) -> (u64, bool) {
        let told = self.0.told();
        (told.times, told.first.is_some() && told.last.is_some())
    }
}

/// A name's record.
pub struct Name(#[allow(dead_code)] Record);

impl Name {
    #[track_caller]
    pub fn new(token: &CancellationToken) -> Name {
        let at = Location::caller();
        Name(Record::new(
            "name".into(),
            at,
            Some(token.clone()),
            None,
            None,
        ))
    }
}

/// What is known of each name: whether it is cancelled; whether that was noted, and by whom.
pub fn each(mut read: impl FnMut(bool, bool, Option<alloc::string::String>)) {
    let mut panics = Panics::default();
    name::each(&mut panics, |_, named| {
        let is_noted = named.note.at().is_some();
        let by = named.note.by();
        let token = named.token.as_ref();
        read(token.is_some_and(|t| t.is_cancelled()), is_noted, by);
    });
    panics.resume();
}

/// The same as a task asks that has found out: whether each name is cancelled, since when, and by whom.
pub fn each_since(
    mut read: impl FnMut(bool, Option<std::time::Instant>, Option<alloc::string::String>),
) {
    let mut panics = Panics::default();
    name::each(&mut panics, |_, named| {
        let token = named.token.as_ref();
        let is_cancelled = token.is_some_and(|t| t.is_cancelled());
        let since = is_cancelled.then(|| named.note.since()).flatten();
        read(is_cancelled, since, named.note.by());
    });
    panics.resume();
}

/// Something has happened.
pub fn tell() {
    observe::tell(&Event::Request { outcome: "cut" });
}
