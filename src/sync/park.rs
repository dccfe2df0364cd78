//! Blocking: the calling thread as a waker, and its sleep.

use core::mem::ManuallyDrop;
use core::task::{RawWaker, RawWakerVTable, Waker};
use crossbeam_utils::sync::{Parker, Unparker};
use std::time::Instant;

/// Wakes by unparking. The data is a counted pointer of an `Unparker`.
static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |data| {
        // SAFETY: `data` came from `Unparker::into_raw` and its count is still held by
        // the waker that is being cloned; ManuallyDrop leaves it that count.
        let unparker = ManuallyDrop::new(unsafe { Unparker::from_raw(data) });
        RawWaker::new(Unparker::into_raw((*unparker).clone()), &VTABLE)
    },
    // SAFETY: `wake` consumes the waker, so its count is ours to give back.
    |data| unsafe { Unparker::from_raw(data) }.unpark(),
    |data| {
        // SAFETY: as for the clone.
        ManuallyDrop::new(unsafe { Unparker::from_raw(data) }).unpark();
    },
    // SAFETY: dropping the waker gives its count back.
    |data| drop(unsafe { Unparker::from_raw(data) }),
);

/// The calling thread's parker and the waker that ends its sleep.
pub(crate) struct Seat {
    parker: Parker,
    waker: Waker,
}

impl Seat {
    fn new() -> Self {
        let parker = Parker::new();
        let raw = RawWaker::new(Unparker::into_raw(parker.unparker().clone()), &VTABLE);
        // SAFETY: the table above keeps the contract of RawWakerVTable: an unparker may
        // be used and dropped on any thread, and its count follows the waker's clones.
        let waker = unsafe { Waker::from_raw(raw) };
        Self { parker, waker }
    }

    /// Parks until `done` (given the thread's waker) or the deadline; what `done` said last.
    fn until(&self, deadline: Option<Instant>, done: &mut dyn FnMut(&Waker) -> bool) -> bool {
        loop {
            if done(&self.waker) {
                return true;
            }
            match deadline {
                None => self.parker.park(),
                Some(deadline) => {
                    if Instant::now() >= deadline {
                        return false;
                    }
                    self.parker.park_deadline(deadline);
                }
            }
        }
    }
}

/// Blocks the calling thread until `done`, which is given the waker to leave behind, is
/// true, or until the deadline. `done` may be called any number of times.
#[cfg(not(cancel_tree_loom))]
pub(crate) fn until(deadline: Option<Instant>, mut done: impl FnMut(&Waker) -> bool) -> bool {
    std::thread_local! {
        static SEAT: Seat = Seat::new();
    }
    // A stale unpark of an earlier wait only makes one turn of the loop more. A thread
    // whose locals are gone already still can wait, on a seat of its own.
    match SEAT.try_with(|seat| seat.until(deadline, &mut done)) {
        Ok(answer) => answer,
        Err(_) => Seat::new().until(deadline, &mut done),
    }
}

/// The same on a seat for this wait alone: a model has no thread to keep it in.
#[cfg(cancel_tree_loom)]
pub(crate) fn until(deadline: Option<Instant>, mut done: impl FnMut(&Waker) -> bool) -> bool {
    Seat::new().until(deadline, &mut done)
}
