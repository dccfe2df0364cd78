//! The service thread itself.

use super::bell;
use super::crew::Crew;
use super::one_thread::{OneThread, Sleeper};
use super::round::Round;
use super::turning::{Outside, Turning};
use alloc::boxed::Box;
use std::panic;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

static SERVICE: OneThread<Thread> = OneThread::new();

impl Sleeper for Thread {
    fn is(&self, other: &Thread) -> bool {
        self.id() == other.id()
    }

    fn wake(&self) {
        self.unpark();
    }
}

#[inline]
pub(crate) fn is_running() -> bool {
    SERVICE.is_running()
}

#[inline]
pub(crate) fn is_missing() -> bool {
    SERVICE.is_missing()
}

#[inline]
pub(crate) fn look() {
    SERVICE.look(spawn);
}

#[inline]
pub(crate) fn start() {
    SERVICE.start(spawn);
    // Not at each look that cannot have it, for those that are rung look.
    if is_missing() {
        bell::ring();
    }
}

pub(super) fn wake() -> bool {
    SERVICE.wake()
}

pub(super) fn is_there() -> bool {
    SERVICE.is_there()
}

fn spawn() -> Option<Thread> {
    // With a stack of the usual size: some systems take the program's thread-locals out of it.
    let thread = thread::Builder::new().name("cancel-tree".into());
    // Up to Rust 1.86 it panics in a thread whose own thread-locals are gone.
    let handle = panic::catch_unwind(|| thread.spawn(run)).ok()?.ok()?;
    Some(handle.thread().clone())
}

fn run() {
    if !SERVICE.stay(&thread::current()) {
        return;
    }
    let mut turning = Box::new(Turning::new(Real(Crew::new(Instant::now()))));
    loop {
        turning.turn();
    }
}

/// The system's time and its sleep, and workers that are threads.
struct Real(Crew);

impl Outside for Real {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&mut self, longest: Option<Duration>) {
        match longest {
            Some(longest) => thread::park_timeout(longest),
            None => thread::park(),
        }
    }

    fn hand(&mut self, round: Round, now: Instant) {
        self.0.hand(round, now);
    }

    fn look(&mut self, now: Instant) -> Option<Duration> {
        self.0.look(now)
    }
}
