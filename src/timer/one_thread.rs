//! Which thread is the service's: of those that are started the first one stays, and others can wake it.
//!
//! Whoever needs it and does not find it starts one, also while others are at it: one that was stopped in the middle must not
//! keep it from being started. All is in one word, so that it is known from the step on by which it is there.

use super::pressure;
use crate::sync::{const_where_possible, Acquire, AtomicPtr, Relaxed, Release};
use alloc::boxed::Box;
use core::ptr;

/// What a thread is to those that wake it.
pub trait Sleeper: Clone + Send + Sync + 'static {
    /// Whether both are the same thread.
    fn is(&self, other: &Self) -> bool;
    /// Ends its sleep, or the next one.
    fn wake(&self);
}

/// Null, `WANTED`, or the thread, which stays for as long as the process does.
pub struct OneThread<T>(AtomicPtr<Known<T>>);

pub(crate) struct Known<T> {
    thread: T,
    /// Read by whoever wakes the thread: loom then sees a look that its making does not come before.
    #[cfg(cancel_tree_loom)]
    looks: crate::sync::UnsafeCell<()>,
}

/// It is needed, and is not there: it could not be started, or is about to be.
const WANTED: usize = 1;

impl<T> OneThread<T> {
    const_where_possible! {
        /// Nobody has needed it.
        #[allow(clippy::new_without_default)]
        pub fn new() -> OneThread<T> {
            OneThread(AtomicPtr::new(ptr::null_mut()))
        }
    }
}

impl<T: Sleeper> OneThread<T> {
    /// Whether it is there.
    #[inline]
    pub fn is_running(&self) -> bool {
        // Relaxed, here and below: nothing is read on the strength of it. Work is handed over by the inbox.
        self.0.load(Relaxed).addr() > WANTED
    }

    /// Whether somebody needs the thread, and it is not there.
    #[inline]
    pub fn is_missing(&self) -> bool {
        self.0.load(Relaxed).addr() == WANTED
    }

    /// Starts the thread if it could not be started when somebody needed it. `spawn`: a thread that calls `stay`, if it can be
    /// had.
    #[inline]
    pub fn look(&self, spawn: impl FnOnce() -> Option<T>) {
        if self.is_missing() {
            self.try_start(spawn);
        }
    }

    /// Starts the thread, if it is not there.
    #[inline]
    pub fn start(&self, spawn: impl FnOnce() -> Option<T>) {
        if !self.is_running() {
            self.try_start(spawn);
        }
    }

    #[cold]
    fn try_start(&self, spawn: impl FnOnce() -> Option<T>) {
        let wanted = ptr::without_provenance_mut(WANTED);
        // Relaxed: as above.
        let _ = self
            .0
            .compare_exchange(ptr::null_mut(), wanted, Relaxed, Relaxed);
        // If there is none to be had, the next one tries again: see `look`.
        if let Some(thread) = spawn() {
            self.stay(&thread);
        }
    }

    /// Makes this the thread, if there is none. False: there is another one. Both the thread and who has started it call it: so it is
    /// known to both when they go on.
    pub fn stay(&self, thread: &T) -> bool {
        // Before: the child of a `fork` has a copy of all.
        pressure::begin();
        let new = Box::into_raw(Box::new(Known {
            thread: thread.clone(),
            #[cfg(cancel_tree_loom)]
            looks: crate::sync::UnsafeCell::new(()),
        }));
        let wanted = ptr::without_provenance_mut(WANTED);
        // Release: pairs with the load in `known`. Relaxed on failure: that load comes after it.
        let is_new = self.0.compare_exchange(wanted, new, Release, Relaxed);
        if is_new.is_err() {
            // SAFETY: from a Box, and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
        }
        self.known().is_some_and(|known| known.is(thread))
    }

    fn known(&self) -> Option<&T> {
        // Acquire: pairs with the CAS in `stay`.
        let known = self.0.load(Acquire);
        if known.addr() <= WANTED {
            return None;
        }
        // SAFETY: from a Box in `stay`, and not freed before this is dropped.
        let known = unsafe { &*known };
        #[cfg(cancel_tree_loom)]
        known.looks.with(|_| ());
        Some(&known.thread)
    }

    /// The same as `is_running`, and what the thread has done before that is seen.
    pub fn is_there(&self) -> bool {
        self.known().is_some()
    }

    /// Ends the thread's sleep. False: it is not there.
    pub fn wake(&self) -> bool {
        // Set before the thread's first look into the lists. Whoever finds nothing here pushed
        // before that look.
        self.known().inspect(|thread| thread.wake()).is_some()
    }
}

/// Only in models it has an end.
#[cfg(cancel_tree_loom)]
impl<T> Drop for OneThread<T> {
    fn drop(&mut self) {
        // Relaxed: the caller has it alone.
        let known = self.0.load(Relaxed);
        if known.addr() > WANTED {
            // SAFETY: from a Box in `stay`.
            drop(unsafe { Box::from_raw(known) });
        }
    }
}
