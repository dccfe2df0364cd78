//! Who is rung where no thread can be started: those that one was to tell of something, and that see it themselves if they look.

use alloc::vec::Vec;
use core::task::Waker;
// Std's in all worlds: no model has anybody who is rung.
use std::sync::{Mutex, MutexGuard, PoisonError};

static RUNG: Mutex<Vec<Waker>> = Mutex::new(Vec::new());

fn lock() -> MutexGuard<'static, Vec<Waker>> {
    RUNG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it is there, the waker is woken each time that a thread could not be had.
pub(crate) struct Rung(Waker);

impl Rung {
    /// The waker is one of `sync/park.rs`, which runs nothing else and does not block, and is not here yet. The caller looks after this: what was marked before a bell that has rung
    /// already is seen then.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn by(waker: &Waker) -> Rung {
        lock().push(waker.clone());
        Rung(waker.clone())
    }
}

impl Drop for Rung {
    fn drop(&mut self) {
        lock().retain(|waker| !waker.will_wake(&self.0));
    }
}

/// A thread could not be had. It waits for nobody: if somebody else has the list, it does nothing, for a caller that has something to be told
/// tries again to have the thread, and rings again.
#[allow(dead_code)] // Models and fuzzers have no threads.
pub(super) fn ring() {
    if let Ok(rung) = RUNG.try_lock() {
        rung.iter().for_each(Waker::wake_by_ref);
    }
}
