//! The service thread itself.

use super::clock;
use super::entry::Entry;
use super::wheel::{Expired, Wheel};
use super::{inbox, workers};
use crate::sync::{AtomicBool, Relaxed};
use alloc::vec::Vec;
use core::ptr::NonNull;
use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::Duration;

/// Somebody has started the thread, or is about to. Relaxed throughout: what others need to know of the thread is
/// in `THREAD`, and what it needs to know of them in the inbox.
static STARTED: AtomicBool = AtomicBool::new(false);
/// A start has failed. Deadlines are watched by nobody then, until one does not.
static FAILED: AtomicBool = AtomicBool::new(false);
static THREAD: OnceLock<Thread> = OnceLock::new();

/// How long a worker may take for one deadline before another one helps with the rest.
const PATIENCE: Duration = Duration::from_millis(1);

pub(crate) fn is_running() -> bool {
    STARTED.load(Relaxed)
}

/// Deadlines that somebody has set are watched by nobody: the thread could not be started.
#[inline]
pub(crate) fn is_missing() -> bool {
    FAILED.load(Relaxed) && !is_running()
}

/// Starts the thread, if nobody has. Who comes while somebody else is at it goes on: the thread
/// looks into the lists before it sleeps for the first time.
pub(super) fn start() {
    // The load keeps the line shared; the swap decides.
    if STARTED.load(Relaxed) || STARTED.swap(true, Relaxed) {
        return;
    }
    let spawned = thread::Builder::new()
        .name("cancel-tree".into())
        .stack_size(256 << 10)
        .spawn(run);
    if spawned.is_err() {
        // The next one tries again. Until then contexts look at the clock themselves.
        STARTED.store(false, Relaxed);
        FAILED.store(true, Relaxed);
    }
}

/// Ends the thread's sleep.
pub(super) fn wake() {
    // Set before the thread's first look into the lists. Whoever finds nothing here pushed
    // before that look.
    if let Some(thread) = THREAD.get() {
        thread.unpark();
    }
}

struct Due {
    fired: Vec<NonNull<Entry>>,
    freed: usize,
}

impl Expired for Due {
    fn fire(&mut self, entry: NonNull<Entry>) {
        self.fired.push(entry);
    }

    fn free(&mut self, entry: NonNull<Entry>) {
        self.freed += 1;
        // SAFETY: the wheel says that nobody else has it.
        unsafe { Entry::free(entry) };
    }
}

fn run() {
    let _ = THREAD.set(thread::current());
    let mut wheel = Wheel::new();
    let mut due = Due {
        fired: Vec::new(),
        freed: 0,
    };
    loop {
        wheel.advance(clock::now(), &mut due);
        if inbox::too_many_abandoned() {
            wheel.purge(&mut due);
        }
        workers::fire(due.fired.drain(..));
        inbox::note_freed(std::mem::take(&mut due.freed), wheel.len());

        let next = wheel.next();
        let taken = inbox::take_before_sleep(next.unwrap_or(u64::MAX));
        if taken.is_nothing() {
            let busy = workers::help_if_stuck().then_some(PATIENCE);
            match (next.map(clock::until), busy) {
                (Some(sleep), Some(busy)) => thread::park_timeout(sleep.min(busy)),
                (Some(sleep), None) | (None, Some(sleep)) => thread::park_timeout(sleep),
                (None, None) => thread::park(),
            }
        }
        inbox::note_awake();
        // SAFETY: out of the inbox.
        unsafe { wheel.take_in(taken.entries, &mut due) };
        inbox::each_job(taken.jobs, workers::run);
    }
}
