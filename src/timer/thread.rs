//! The service thread itself.

use super::clock;
use super::crew::Crew;
use super::driver::Driver;
use alloc::boxed::Box;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicPtr, AtomicU8};
use std::thread::{self, Thread};
use std::time::Instant;

/// How it stands with the thread. Relaxed throughout: what others need to know of it is in `THREAD`, and what it needs to
/// know of them in the inbox.
static STATE: AtomicU8 = AtomicU8::new(UNUSED);
static THREAD: AtomicPtr<Thread> = AtomicPtr::new(ptr::null_mut());

/// Nobody has needed it.
const UNUSED: u8 = 0;
/// It is needed, and is not there: it could not be started, or is about to be.
const WANTED: u8 = 1;
const RUNNING: u8 = 2;

#[inline]
pub(crate) fn is_running() -> bool {
    // Relaxed, here and below: nothing is read on the strength of it. Work is handed over by the inbox.
    STATE.load(Relaxed) == RUNNING
}

/// Whether somebody needs the thread, and it is not there.
#[inline]
pub(crate) fn is_missing() -> bool {
    STATE.load(Relaxed) == WANTED
}

/// Starts the thread if it could not be started when somebody needed it.
#[inline]
pub(crate) fn look() {
    if is_missing() {
        try_start();
    }
}

/// Starts the thread, if it is not there.
#[inline]
pub(super) fn start() {
    if !is_running() {
        try_start();
    }
}

/// Whoever comes tries, also while others are at it: one that was stopped in the middle must not keep it from being
/// started. Of several threads the first one stays.
#[cold]
fn try_start() {
    if known().is_some() && super::pressure::is_in_parent() {
        // The child of a `fork` that came just as the thread was started.
        return;
    }
    // Relaxed: as above.
    let _ = STATE.compare_exchange(UNUSED, WANTED, Relaxed, Relaxed);
    let thread = thread::Builder::new()
        .name("cancel-tree".into())
        .stack_size(256 << 10);
    // If there is none to be had, the next one tries again: see `look`.
    if let Ok(handle) = thread.spawn(run) {
        stay(handle.thread());
    }
}

/// Makes this the thread, if there is none. False: there is another one.
fn stay(thread: &Thread) -> bool {
    // Before: the child of a `fork` has a copy of all.
    super::pressure::begin();
    let new = Box::into_raw(Box::new(thread.clone()));
    // AcqRel: pairs with the loads in `known`. It stays for as long as the process does.
    let is_new = THREAD
        .compare_exchange(ptr::null_mut(), new, AcqRel, Acquire)
        .is_ok();
    if !is_new {
        // SAFETY: from a Box, and nobody else has seen it.
        drop(unsafe { Box::from_raw(new) });
    }
    let stays = known().is_some_and(|known| known.id() == thread.id());
    if stays {
        STATE.store(RUNNING, Relaxed);
    }
    stays
}

fn known() -> Option<&'static Thread> {
    // Acquire: pairs with the CAS in `stay`.
    // SAFETY: null, or never freed.
    unsafe { THREAD.load(Acquire).as_ref() }
}

/// Ends the thread's sleep.
pub(super) fn wake() {
    // Set before the thread's first look into the lists. Whoever finds nothing here pushed
    // before that look.
    if let Some(thread) = known() {
        thread.unpark();
    }
}

fn run() {
    if !stay(&thread::current()) {
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
