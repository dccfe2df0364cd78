//! Who is rung where no thread can be started: those that one was to tell of something, and that see it themselves if they look.

use alloc::vec::Vec;
use core::sync::atomic::{fence, AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use core::task::Waker;
// Std's in all worlds: no model has anybody who is rung.
use std::sync::{Mutex, PoisonError};

static RUNG: Mutex<Vec<Waker>> = Mutex::new(Vec::new());

/// A bell that has rung and that nobody was woken for so far.
static HAS_RUNG: AtomicBool = AtomicBool::new(false);

/// While it is there, the waker is woken each time that something is to be told and no thread can be had for that.
pub(crate) struct Rung(Waker);

impl Rung {
    /// The waker is one of `sync/park.rs`, which runs nothing else and does not block, and is not here yet. The caller looks after this: what was marked before a bell that has rung
    /// already is seen then.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn by(waker: &Waker) -> Rung {
        change(|rung| rung.push(waker.clone()));
        Rung(waker.clone())
    }
}

impl Drop for Rung {
    fn drop(&mut self) {
        change(|rung| rung.retain(|waker| !waker.will_wake(&self.0)));
    }
}

fn change(how: impl FnOnce(&mut Vec<Waker>)) {
    how(&mut RUNG.lock().unwrap_or_else(PoisonError::into_inner));
    // Who rang meanwhile has not waited.
    wake_if_rung();
}

/// Something is to be told, and a thread could not be had. It waits for nobody: if somebody has the list, that one wakes.
#[allow(dead_code)] // Models and fuzzers have no threads.
pub(super) fn ring() {
    HAS_RUNG.store(true, Relaxed);
    wake_if_rung();
}

fn wake_if_rung() {
    loop {
        // SeqCst, with itself: after the bell, before the look at the lock; and after that is open, before the look at the bell. So of one that
        // finds it locked and the one that has locked it, at least the latter sees the bell.
        fence(SeqCst);
        if !HAS_RUNG.load(Relaxed) {
            return;
        }
        let Ok(rung) = RUNG.try_lock() else { return };
        if HAS_RUNG.swap(false, Relaxed) {
            rung.iter().for_each(Waker::wake_by_ref);
        }
    }
}
