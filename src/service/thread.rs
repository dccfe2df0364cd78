//! The service thread itself.

use super::{inbox, workers};
use crate::timer::clock;
use crate::timer::entry::Entry;
use crate::timer::wheel::{Expired, Wheel};
use alloc::vec::Vec;
use core::ptr::NonNull;
use std::sync::atomic::{
    AtomicU8,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::Duration;

const NOT_STARTED: u8 = 0;
const STARTING: u8 = 1;
const RUNNING: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(NOT_STARTED);
static THREAD: OnceLock<Thread> = OnceLock::new();

/// How long a worker may take for one deadline before another one helps with the rest.
const PATIENCE: Duration = Duration::from_millis(1);

pub(crate) fn is_running() -> bool {
    // Relaxed: nothing follows but whether the clock is looked at.
    STATE.load(Relaxed) != NOT_STARTED
}

/// Starts the thread, if nobody has. Who comes while somebody else is at it goes on: the thread
/// looks into the lists before it sleeps for the first time.
pub(super) fn start() {
    // Relaxed: whatever it is, the exchange decides.
    if STATE.load(Relaxed) != NOT_STARTED
        || STATE
            .compare_exchange(NOT_STARTED, STARTING, Acquire, Relaxed)
            .is_err()
    {
        return;
    }
    let spawned = thread::Builder::new()
        .name("cancel-tree".into())
        .stack_size(256 << 10)
        .spawn(run);
    if spawned.is_err() {
        // The next one tries again. Until then contexts look at the clock themselves.
        STATE.store(NOT_STARTED, Release);
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
    STATE.store(RUNNING, Release);
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
