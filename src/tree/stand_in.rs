//! What the timer is told of a moving deadline while its entry is on its way to the inbox.
//!
//! An entry has one link, so of several threads that make a deadline earlier at once one pushes it (QUEUED), and that one may
//! stand still before it does. Another, whose deadline is to be on time all the same, has the timer told by another entry,
//! a *stand-in*. It is armed for that moment like any other; when it comes up, the timer looks at the deadline's own entry and
//! takes it, or puts it where it belongs: then it knows it, whether it is pushed or not.
//!
//! A stand-in too is pushed by one thread at a time. So a mover tries one after the other until it finds one that it can push
//! itself, or that is known to be in time, and makes a new one if there is none: there are no more of them than threads that
//! were at it at one time, the timer's among them. They stay as long as the deadline does, and are used again: when the timer has looked, one
//! that has come up is through.
//!
//! It has a trigger of its own, and the last owner settles that too: FIRING, it keeps the node. If that has left it a handle, a worker
//! gives it up.

use super::Handle;
use crate::sync::{Acquire, AtomicPtr, Relaxed, Release};
use crate::timer::clock::Moment;
use crate::timer::entry::{Entry, Table};
use crate::timer::trigger::Trigger;
use crate::timer::{self, pool};
use alloc::boxed::Box;
use core::ptr::{self, NonNull};

/// `repr(C)`: the timer knows it by its first field.
#[repr(C)]
struct StandIn {
    entry: Entry,
    pushers: timer::Pushers,
    /// The deadline's own entry.
    main: NonNull<Entry>,
    /// Written before it is in the list.
    next: AtomicPtr<StandIn>,
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    _leak: crate::sync::Track<()>,
}

/// Those of one deadline. Their owner gives them up when it goes: then they are settled.
pub(super) struct StandIns {
    first: AtomicPtr<StandIn>,
}

impl StandIns {
    pub(super) fn new() -> StandIns {
        StandIns {
            first: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn each(&self) -> impl Iterator<Item = NonNull<StandIn>> {
        // Acquire: pairs with the CAS in `add`.
        let mut next = self.first.load(Acquire);
        core::iter::from_fn(move || {
            let this = NonNull::new(next)?;
            // SAFETY: in the list, which keeps it. Relaxed: written before it came there, and not changed after that.
            next = unsafe { this.as_ref() }.next.load(Relaxed);
            Some(this)
        })
    }

    pub(super) fn triggers(&self) -> impl Iterator<Item = &Trigger> {
        // SAFETY: in the list, which keeps it as long as `self` is there.
        self.each()
            .map(|this| unsafe { &*this.as_ptr() }.entry.trigger())
    }

    /// Has the timer look at the deadline's entry at that moment at the latest, though it is not in the inbox. The deadline is
    /// that already: the look finds it.
    ///
    /// # Safety
    /// The stand-ins are that entry's. The caller keeps what it is about, and its owner is set.
    #[cold]
    pub(super) unsafe fn look_by(&self, main: NonNull<Entry>, at: Moment) {
        for this in self.each() {
            // SAFETY: the caller's promise.
            if unsafe { StandIn::look_by(this, at) } {
                return;
            }
        }
        let new = NonNull::from(Box::leak(Box::new(StandIn {
            entry: Entry::homeless(&TABLE),
            pushers: timer::Pushers::new(),
            main,
            next: AtomicPtr::new(ptr::null_mut()),
            #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
            _leak: crate::sync::Track::new(()),
        })));
        // SAFETY: new, and the pointer is to all of it. The owner is the node, which the caller keeps; and from `add` on, its last owner
        // settles the trigger before it goes.
        unsafe {
            timer::arm(new.cast(), main.as_ref().owner(), at);
            self.add(new);
        }
    }

    /// # Safety
    /// It is the caller's, and in no list.
    unsafe fn add(&self, new: NonNull<StandIn>) {
        // Relaxed: the CAS checks the guess.
        let mut head = self.first.load(Relaxed);
        loop {
            // SAFETY: the caller's promise. Relaxed: published by the CAS.
            unsafe { new.as_ref() }.next.store(head, Relaxed);
            // Release: pairs with `each`, which may come to all that were there before: each of these CASs goes on
            // with what the one before has released.
            match self
                .first
                .compare_exchange_weak(head, new.as_ptr(), Release, Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}

impl Drop for StandIns {
    fn drop(&mut self) {
        let mut each = self.each();
        let mut next = each.next();
        while let Some(this) = next {
            // Before it may be gone.
            next = each.next();
            // SAFETY: in the list, which goes. Settled: neither armed nor FIRING.
            unsafe { pool::put(this.cast()) };
        }
    }
}

impl StandIn {
    /// False: it cannot be said when it comes up, or it is doing so already.
    ///
    /// # Safety
    /// As for `StandIns::look_by`.
    unsafe fn look_by(this: NonNull<StandIn>, at: Moment) -> bool {
        // SAFETY: in the list, which keeps it.
        let StandIn { entry, pushers, .. } = unsafe { this.as_ref() };
        let mut seen = entry.look();
        // FIRING: the look that it stands for may be over.
        while !seen.is_firing() {
            let at = match seen.is_armed() {
                true => at.min(seen.deadline()),
                false => at,
            };
            // Of the timer's look at the deadline's entry and the step that has moved it one is first, for both are steps on
            // its word. If that was the look, this one is FIRING by now, or newer.
            // SAFETY: the caller's promise, and not FIRING; the pointer is to all of it.
            match unsafe { timer::move_to(this.cast(), pushers, seen, Some(at)) } {
                Ok(is_known) => return is_known,
                Err(now) => seen = now,
            }
        }
        false
    }
}

static TABLE: Table = Table {
    mark: |_, _| true,
    wake: |_| {},
    call,
    put_off: |_| None,
    stands_for: Some(stands_for),
    free,
    // No clock of tests has one.
    #[cfg(feature = "testing")]
    due_apart: |_, _| None,
};

/// # Safety
/// `Table::stands_for`.
unsafe fn stands_for(entry: NonNull<Entry>) -> NonNull<Entry> {
    // SAFETY: the first field of one.
    unsafe { entry.cast::<StandIn>().as_ref() }.main
}

/// # Safety
/// `Table::call`.
unsafe fn call(entry: NonNull<Entry>) {
    // SAFETY: FIRING keeps it, and the node. After `finish` both may be gone, unless a handle was left to us.
    unsafe {
        let node = entry.as_ref().owner();
        if entry.as_ref().trigger().finish() {
            drop(Handle(NonNull::new_unchecked(node.cast())));
        }
    }
}

/// # Safety
/// `Table::free`.
unsafe fn free(entry: NonNull<Entry>) {
    // SAFETY: the first field of one, which nobody else has; the pointer is to all of it.
    drop(unsafe { Box::from_raw(entry.cast::<StandIn>().as_ptr()) });
}
