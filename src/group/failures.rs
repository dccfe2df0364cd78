//! How a group has failed: its first error, the first failure that ended nothing, and what the first panic said.

use super::info::Panicked;
use crate::sync::{Acquire, AtomicBool, AtomicPtr, OfUser, Panics, Relaxed, Release};
use crate::tree::Cause;
use alloc::boxed::Box;
use core::any::Any;
use core::ptr;

type Payload = OfUser<Box<dyn Any + Send>>;

/// Used by all threads that have the group: a cause is Send and Sync, and a payload, which is not Sync, is only ever moved out.
pub(crate) struct Failures {
    /// The first error; null: none.
    first: AtomicPtr<Cause>,
    /// The first failure that ended nothing; null: none.
    noted: AtomicPtr<Cause>,
    /// What the first panic said, until somebody re-raises it.
    payload: AtomicPtr<Payload>,
    /// Some task has handed back the group's own end.
    was_echoed: AtomicBool,
}

impl Failures {
    pub(super) fn new() -> Failures {
        Failures {
            first: AtomicPtr::new(ptr::null_mut()),
            noted: AtomicPtr::new(ptr::null_mut()),
            payload: AtomicPtr::new(ptr::null_mut()),
            was_echoed: AtomicBool::new(false),
        }
    }

    /// An error.
    pub(super) fn keep(&self, cause: Cause, panics: &mut Panics) {
        keep_first(&self.first, cause, panics);
    }

    /// What a panic has said, as it said it; the cause is kept apart.
    pub(super) fn keep_payload(&self, payload: Box<dyn Any + Send>, panics: &mut Panics) {
        let payload = Box::into_raw(Box::new(OfUser::new(payload)));
        // Relaxed: it is taken out when all are gone, and the end of the place hands it on.
        let first = self
            .payload
            .compare_exchange(ptr::null_mut(), payload, Relaxed, Relaxed);
        if first.is_err() {
            // SAFETY: made above, and not shared.
            panics.catch(|| drop(unsafe { Box::from_raw(payload) }));
        }
    }

    /// A task has handed back the group's own end.
    pub(super) fn set_echoed(&self) {
        // Relaxed: the end of the task hands it on.
        self.was_echoed.store(true, Relaxed);
    }

    /// Asked when all are gone.
    pub(super) fn was_echoed(&self) -> bool {
        self.was_echoed.load(Relaxed)
    }

    /// A failure that is said, and ends nothing.
    #[cold]
    pub(crate) fn note(&self, cause: Cause, panics: &mut Panics) {
        keep_first(&self.noted, cause, panics);
    }

    /// What was called at the group's end has panicked: that is said, and holds up no end.
    pub(crate) fn note_panics(&self, of_others: Panics) {
        let Some(payload) = of_others.into_payload() else {
            return;
        };
        let mut panics = Panics::default();
        let panicked = Panicked::of(&*payload, Some("what was called at the end"), None);
        self.note(Cause::new(panicked), &mut panics);
        panics.catch(|| drop(payload));
        panics.swallow();
    }

    /// Does a step of the end that calls user code, whose panic is said by whatever says how the group went.
    pub(super) fn saying_panics(&self, step: impl FnOnce()) {
        let mut panics = Panics::default();
        panics.catch(step);
        self.note_panics(panics);
    }

    /// The first error.
    pub(super) fn first(&self) -> Option<Cause> {
        // Acquire: pairs with `keep_first`.
        // SAFETY: never changed, and freed with the body.
        unsafe { self.first.load(Acquire).as_ref() }.cloned()
    }

    /// What there is to say: the first error, or else what ended nothing.
    pub(super) fn failure(&self) -> Option<Cause> {
        self.first().or_else(|| {
            // Acquire: pairs with `keep_first`.
            // SAFETY: never changed, and freed with the body.
            unsafe { self.noted.load(Acquire).as_ref() }.cloned()
        })
    }

    /// Re-raises the first panic, once. When all are gone.
    pub(super) fn resume_panic(&self) {
        if !std::thread::panicking() {
            // Relaxed: all are gone, and their ends have handed it on. The later of two finds nothing.
            let payload = self.payload.swap(ptr::null_mut(), Relaxed);
            if !payload.is_null() {
                // SAFETY: taken out once.
                let payload = unsafe { Box::from_raw(payload) };
                std::panic::resume_unwind((*payload).into_inner());
            }
        }
    }
}

/// Keeps it where there is none yet.
fn keep_first(kept: &AtomicPtr<Cause>, cause: Cause, panics: &mut Panics) {
    let cause = Box::into_raw(Box::new(cause));
    // Release: pairs with all reads of it. Relaxed: a thread that was not first reads it by a load.
    let first = kept.compare_exchange(ptr::null_mut(), cause, Release, Relaxed);
    if first.is_err() {
        // SAFETY: made above, and not shared.
        panics.catch(|| drop(unsafe { Box::from_raw(cause) }));
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        let mut panics = Panics::default();
        // Relaxed, here and below: nobody else has the body any more, and the tally has handed on what others did.
        for kept in [self.first.load(Relaxed), self.noted.load(Relaxed)] {
            if !kept.is_null() {
                // SAFETY: made by `keep_first`.
                panics.catch(|| drop(unsafe { Box::from_raw(kept) }));
            }
        }
        let payload = self.payload.load(Relaxed);
        if !payload.is_null() {
            // SAFETY: made by `keep_payload`, and never re-raised.
            panics.catch(|| drop(unsafe { Box::from_raw(payload) }));
        }
        panics.resume();
    }
}
