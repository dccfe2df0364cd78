//! What the timer hands to workers at one time: deadlines that have passed, and jobs. Any number of workers are at it
//! together, and what one of them does holds up no other: each takes the next index.
//!
//! First tasks and threads are woken: those of deadlines, and of jobs that have some to wake. Then callbacks are run, and
//! jobs. Whose waking still goes on elsewhere when
//! its callbacks' turn comes is left to whoever is at it: of the two that swap the item's state, the later one goes on.
//!
//! Each round knows the next one, so whoever is through with one finds the next without asking anybody.

use super::entry::Entry;
use super::job::Job;
use crate::sync::{Acquire, Arc, AtomicPtr, AtomicU8, AtomicUsize, Panics, Relaxed, Release};
use alloc::vec::Vec;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use std::time::Instant;

pub(super) struct Round {
    things: Arc<Things>,
    /// A counted pointer, or null.
    next: AtomicPtr<Round>,
    /// When it was handed out: the crew's.
    pub(super) handed: Option<Instant>,
    /// Read by whoever looks into the round, written by the drop: loom then sees a look that does not come before it.
    #[cfg(cancel_tree_loom)]
    looks: crate::sync::UnsafeCell<()>,
}

/// What there is to do in a round, apart from what comes after it: whoever is at one thing for long keeps this, and not
/// all that is handed out meanwhile.
pub(super) struct Things {
    /// What has something to wake, deadlines and jobs; then jobs that have nothing.
    items: Vec<Item>,
    /// How many of the first kind.
    waking: usize,
    /// How many have been taken to be woken, and to be run.
    woken: AtomicUsize,
    called: AtomicUsize,
    /// How often a worker has been through with something.
    done: AtomicUsize,
}

pub(super) struct Item {
    /// An entry or a job.
    what: NonNull<()>,
    is_job: bool,
    state: AtomicU8,
}

// SAFETY: what is FIRING or a job is its holder's to go on with, on whatever thread.
unsafe impl Send for Item {}
// SAFETY: what it is about is used by whoever has taken it, by the rules above.
unsafe impl Sync for Item {}

/// Nobody is through with the item's waking, nor has its callbacks' turn come.
const NEW: u8 = 0;
const WOKEN: u8 = 1;
const CALLED: u8 = 2;

impl Item {
    pub(super) fn of_entry(entry: NonNull<Entry>) -> Item {
        Item {
            what: entry.cast(),
            is_job: false,
            state: AtomicU8::new(NEW),
        }
    }

    pub(super) fn of_job(job: NonNull<Job>) -> Item {
        Item {
            what: job.cast(),
            is_job: true,
            state: AtomicU8::new(NEW),
        }
    }

    /// Wakes tasks and threads: user code, whose panics stay here.
    ///
    /// # Safety
    /// A deadline that is FIRING and marked, or a job out of the inbox; and this thread has taken it to be woken.
    unsafe fn wake(&self) {
        of_user(|| match self.is_job {
            // SAFETY: the caller's promise.
            true => unsafe { Job::wake(self.what.cast()) },
            // SAFETY: the caller's promise.
            false => unsafe { Entry::wake(self.what.cast()) },
        });
    }

    /// Runs callbacks, or the job: the same.
    ///
    /// # Safety
    /// The same, and it has been woken if there is something to wake; this thread has taken it to be run.
    unsafe fn call(&self) {
        of_user(|| match self.is_job {
            // SAFETY: the caller's promise.
            true => unsafe { Job::run(self.what.cast()) },
            // SAFETY: the caller's promise.
            false => unsafe { Entry::call(self.what.cast()) },
        });
    }
}

/// Runs user code, whose panics have nobody to go to: the hook has told of them.
fn of_user(f: impl FnOnce()) {
    let mut panics = Panics::default();
    panics.catch(f);
    // In models it is no user's: something has been found.
    #[cfg(cancel_tree_loom)]
    panics.resume();
    #[cfg(not(cancel_tree_loom))]
    panics.swallow();
}

impl Round {
    /// The first `waking` of them have something to wake.
    pub(super) fn new(items: Vec<Item>, waking: usize) -> Round {
        Round {
            things: Arc::new(Things {
                items,
                waking,
                woken: AtomicUsize::new(0),
                called: AtomicUsize::new(0),
                done: AtomicUsize::new(0),
            }),
            next: AtomicPtr::new(ptr::null_mut()),
            handed: None,
            #[cfg(cancel_tree_loom)]
            looks: crate::sync::UnsafeCell::new(()),
        }
    }

    pub(super) fn things(&self) -> &Arc<Things> {
        #[cfg(cancel_tree_loom)]
        self.looks.with(|_| ());
        &self.things
    }

    /// The end of the line, when there is nothing to do.
    pub(super) fn nothing() -> Round {
        Round::new(Vec::new(), 0)
    }

    /// Says what comes after it: the timer's, once.
    pub(super) fn set_next(&self, next: Arc<Round>) {
        // Release: pairs with the Acquire of `next`.
        self.next.store(Arc::into_raw(next).cast_mut(), Release);
    }

    pub(super) fn next(&self) -> Option<Arc<Round>> {
        // Acquire: pairs with `set_next`.
        let next = self.next.load(Acquire);
        (!next.is_null()).then(|| {
            // SAFETY: counted, as long as this one is there; the clone counts for itself.
            let next = ManuallyDrop::new(unsafe { Arc::from_raw(next.cast_const()) });
            Arc::clone(&next)
        })
    }

    fn take_next(&mut self) -> Option<Arc<Round>> {
        // Relaxed: the last owner's.
        let next = self.next.load(Relaxed);
        self.next.store(ptr::null_mut(), Relaxed);
        // SAFETY: the count was this one's, and is taken once.
        (!next.is_null()).then(|| unsafe { Arc::from_raw(next.cast_const()) })
    }
}

impl Things {
    /// Or jobs that have something to wake, which is as urgent.
    pub(super) fn has_deadlines(&self) -> bool {
        self.waking != 0
    }

    /// Whether it is worth being freed when there is nothing left to do.
    pub(super) fn is_large(&self) -> bool {
        self.items.len() > 64
    }

    /// Whether there is something that nobody has taken to be woken.
    pub(super) fn is_to_wake(&self) -> bool {
        // Relaxed, and below: guesses, which the RMWs check.
        self.woken.load(Relaxed) < self.waking
    }

    /// Whether there is something that nobody has taken to be run.
    pub(super) fn is_to_call(&self) -> bool {
        self.called.load(Relaxed) < self.items.len()
    }

    /// By how much it has gone on.
    pub(super) fn progress(&self) -> usize {
        self.done.load(Relaxed)
    }

    fn take(&self, cursor: &AtomicUsize, end: usize) -> Option<(usize, &Item)> {
        // The look keeps the number from growing for ever. Relaxed, both: each index goes to one thread, and the items
        // came with the round.
        if cursor.load(Relaxed) >= end {
            return None;
        }
        let index = cursor.fetch_add(1, Relaxed);
        Some((index, self.items[..end].get(index)?))
    }

    /// Wakes one. False: there is none left.
    pub(super) fn wake_one(&self) -> bool {
        let Some((_, item)) = self.take(&self.woken, self.waking) else {
            return false;
        };
        // SAFETY: FIRING and marked, or out of the inbox; and taken by this thread.
        unsafe { item.wake() };
        // Release: what was done for the waking comes before the callbacks, on whatever thread they are. Whoever has left them
        // to us has done nothing for them.
        if item.state.swap(WOKEN, Release) == CALLED {
            // SAFETY: the callbacks' turn has come while we were at it, so they were left to us.
            unsafe { item.call() };
        }
        self.done.fetch_add(1, Relaxed);
        true
    }

    /// Runs the callbacks of one, or a job. False: there is none left.
    pub(super) fn call_one(&self) -> bool {
        let Some((index, item)) = self.take(&self.called, self.items.len()) else {
            return false;
        };
        // Acquire: pairs with the swap in `wake_one`.
        if index >= self.waking || item.state.swap(CALLED, Acquire) == WOKEN {
            // SAFETY: woken, or a job out of the inbox that wakes nobody; and taken by this thread.
            unsafe { item.call() };
        }
        self.done.fetch_add(1, Relaxed);
        true
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        // One after the other, however many there are.
        let mut next = self.take_next();
        while let Some(mut round) = next {
            next = Arc::get_mut(&mut round).and_then(Round::take_next);
        }
    }
}
