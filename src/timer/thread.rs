//! The service thread itself.

use super::clock;
use super::crew::Crew;
use super::driver::Driver;
use super::one_thread::{OneThread, Sleeper};
use alloc::boxed::Box;
use std::panic;
use std::thread::{self, Thread};
use std::time::Instant;

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
pub(super) fn start() {
    SERVICE.start(spawn);
}

pub(super) fn wake() {
    SERVICE.wake();
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
    let mut driver = Box::new(Driver::new());
    let mut crew = Crew::new();
    loop {
        let now = Instant::now();
        if let Some(round) = driver.turn(clock::tick_before(now)) {
            crew.hand(round, now);
        }
        let busy = crew.look(now);
        if driver.is_busy() {
            continue;
        }
        if driver.may_sleep() {
            let next = driver.next().map(|tick| clock::until(tick, Instant::now()));
            match next.into_iter().chain(busy).min() {
                Some(sleep) => thread::park_timeout(sleep),
                None => thread::park(),
            }
        }
        super::inbox::note_awake();
    }
}
