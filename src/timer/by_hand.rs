//! The service as models and fuzzers have it: no thread of its own, but steps that they take on whatever
//! thread they like, and a clock that they turn themselves. `--cfg cancel_tree_loom` or `cancel_tree_by_hand`.

use super::clock::{self, Tick};
use super::entry::{Entry, LAST_TICK};
use super::inbox::{self, Taken};
use super::job::Job;
use super::wheel::{Expired, Wheel};
use crate::sync::Panics;
use alloc::boxed::Box;
use alloc::vec::Vec;
use std::ptr::NonNull;
use std::time::Instant;

/// In place of the module `thread`: nobody sleeps, so nobody is woken.
#[cfg(not(any(cancel_tree_loom, cancel_tree_shuttle)))]
pub(super) mod thread {
    pub(crate) fn start() {}

    pub(crate) fn wake() {}

    pub(super) fn begin() {}

    pub(super) fn park() {
        std::thread::yield_now();
    }
}

/// In place of the module `thread`.
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
pub(super) mod thread {
    use crate::sync::{global, Acquire, AtomicBool, Notify, Release};

    global! {
        /// Where the thread sleeps.
        static BED: Notify = Notify::new();
    }
    global! {
        /// In place of the `OnceLock` that the thread is known by.
        static KNOWN: AtomicBool = AtomicBool::new(false);
    }

    pub(crate) fn start() {}

    pub(crate) fn wake() {
        if KNOWN.load(Acquire) {
            BED.notify();
        }
    }

    pub(super) fn begin() {
        KNOWN.store(true, Release);
    }

    pub(super) fn park() {
        BED.wait();
    }
}

/// The wheel and what the service does with it. Dropping it lets go of all entries. Boxed: the stacks of loom's
/// threads are small.
pub struct Service(Box<Wheel>);

// SAFETY: the wheel's entries are its holder's, on whatever thread.
unsafe impl Send for Service {}

/// Deadlines that have passed, to be acted on: as a worker gets them.
#[must_use]
pub struct Due {
    fired: Vec<NonNull<Entry>>,
    freed: usize,
}

// SAFETY: a FIRING entry is its holder's to go on with, on whatever thread.
unsafe impl Send for Due {}

impl Expired for Due {
    fn fire(&mut self, entry: NonNull<Entry>) {
        self.fired.push(entry);
    }

    fn free(&mut self, entry: NonNull<Entry>) {
        self.freed += 1;
        // SAFETY: the wheel says that nobody else has it.
        unsafe { Entry::free(entry) }
    }
}

impl Due {
    fn new() -> Due {
        Due {
            fired: Vec::new(),
            freed: 0,
        }
    }

    /// Cancels the contexts; what the worker does.
    pub fn fire(self) {
        let mut panics = Panics::default();
        for entry in self.fired {
            // SAFETY: FIRING by the wheel.
            unsafe { Entry::fire(entry, &mut panics) };
        }
        panics.resume();
    }
}

/// As many ticks as a slot of the wheel's fifth level has: deadlines at multiples of it are put into one slot and
/// taken out of it, and never moved. More than half an hour.
const STEP: u32 = 24;

impl Service {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Service {
        Service(Box::new(Wheel::new()))
    }

    /// The instants of models, `n` from 1 on: far enough for the real clock never to get there.
    pub fn at(n: u64) -> Instant {
        clock::instant_of((n + 1) << STEP)
    }

    /// What happens at the end of a thread that has had contexts. loom lets a thread be joined before; a fuzzer's
    /// thread does not end.
    pub fn end_of_thread() {
        crate::tree::drop_cache();
    }

    /// One round of the thread: takes over what has come, does all that is due at `now`, and runs
    /// callbacks.
    pub fn turn(&mut self, now: Instant) {
        self.turn_to(clock::at_or_after(now));
    }

    fn turn_to(&mut self, now: Tick) {
        let taken = inbox::take();
        self.see_to(taken, now).fire();
    }

    /// The same, but the deadlines that have passed are the caller's to fire.
    pub fn expire(&mut self, now: Instant) -> Due {
        self.see_to(inbox::take(), clock::at_or_after(now))
    }

    fn see_to(&mut self, taken: Taken, now: Tick) -> Due {
        let mut due = Due::new();
        // SAFETY: out of the inbox.
        unsafe { self.0.take_in(taken.entries, &mut due) };
        self.0.advance(now, &mut due);
        // SAFETY: out of the inbox, and run once.
        inbox::each_job(taken.jobs, |job| unsafe { Job::run(job) });
        due
    }

    /// Throws out what was abandoned; how many it was.
    pub fn purge(&mut self) -> usize {
        let mut due = Due::new();
        self.0.purge(&mut due);
        due.freed
    }

    /// How many entries the wheel has.
    pub fn scheduled(&self) -> usize {
        self.0.len()
    }

    /// The thread as it is, but that time stands still: looks into the lists and sleeps, until it has found
    /// something. A wake-up that is lost leaves it sleeping, and the model stops.
    pub fn run_until_something_comes(&mut self) {
        thread::begin();
        loop {
            let next = self.0.next();
            let taken = inbox::take_before_sleep(next.unwrap_or(Tick::MAX));
            let nothing = taken.is_nothing();
            if nothing {
                thread::park();
            }
            inbox::note_awake();
            self.see_to(taken, 0).fire();
            if !nothing {
                return;
            }
        }
    }
}

impl Drop for Service {
    /// All that is armed fires, and all entries go back to their owners, or are freed. Owners that are left
    /// then find them not scheduled.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.turn_to(LAST_TICK);
            // What callbacks did.
            self.turn_to(LAST_TICK);
            assert_eq!(self.scheduled(), 0, "entries that stay in the wheel");
        }
    }
}
