//! The waiter slot of a node: room for one thing to be woken, or for an edge.

use super::word::{State, Word};
use crate::sync::{const_where_possible, UnsafeCell};
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr;
use core::task::Waker;

/// What a slot holds: a waker, or an edge if the word says EDGE.
pub(super) enum Content {
    Waker(Waker),
    /// Whose it is knows of what.
    Edge(*const ()),
}

union Raw {
    waker: ManuallyDrop<Waker>,
    edge: *const (),
}

/// Two words in every node. Which thread may touch them is decided on the state word (I8).
#[repr(transparent)]
pub(super) struct Slot(UnsafeCell<MaybeUninit<Raw>>);

impl Slot {
    const_where_possible! {
        pub(super) fn new() -> Slot {
            Slot(UnsafeCell::new(MaybeUninit::uninit()))
        }
    }

    /// Puts something in and arms the slot; hands it back if the token is cancelled.
    ///
    /// # Safety
    /// The slot is the caller's, by `take_slot` or because nobody else has the node.
    pub(super) unsafe fn arm_exclusive(
        &self,
        word: &Word,
        content: Content,
        what: State,
    ) -> Result<(), Content> {
        let raw = match content {
            Content::Waker(waker) => Raw {
                waker: ManuallyDrop::new(waker),
            },
            Content::Edge(edge) => Raw { edge },
        };
        // SAFETY: the slot is the caller's, and is not armed yet.
        self.0.with_mut(|slot| unsafe { (*slot).write(raw) });
        word.arm(what).map_err(|_| {
            // SAFETY: not armed, so still ours, with what was written above.
            unsafe {
                let raw = self.take();
                if what.has_any(State::EDGE) {
                    Content::Edge(raw.edge)
                } else {
                    Content::Waker(ManuallyDrop::into_inner(raw.waker))
                }
            }
        })
    }

    /// Takes the waker out, if nobody was faster.
    pub(super) fn disarm(&self, word: &Word) -> Option<Waker> {
        // SAFETY: whoever clears WAITER owns the content (I8). The slots of edges are not
        // disarmed here, so it is a waker.
        word.disarm().then(|| unsafe { self.take_waker() })
    }

    /// # Safety
    /// The content is the caller's, and is a waker.
    pub(super) unsafe fn take_waker(&self) -> Waker {
        // SAFETY: the caller's promise.
        unsafe { ManuallyDrop::into_inner(self.take().waker) }
    }

    /// Takes the waker out, by the waiter that armed it and a `step` that clears WAITER and gives up the slot; true: it
    /// was the caller that cleared it.
    ///
    /// # Safety
    /// The slot is the caller's, which has armed it.
    pub(super) unsafe fn take_by(&self, step: impl FnOnce() -> bool) -> Option<Waker> {
        // Read before it is known whose it is: a canceller that takes it reads too, and nobody writes
        // before the slot has been given up.
        // SAFETY: the caller has written it. It is a copy of bytes, used only if it is the caller's.
        let raw = self.0.with(|slot| unsafe { ptr::read(slot) });
        // SAFETY: whoever clears WAITER owns the content (I8), a waker as the caller has armed it.
        step().then(|| ManuallyDrop::into_inner(unsafe { raw.assume_init().waker }))
    }

    /// The edge in it, whoever has it by now.
    ///
    /// # Safety
    /// The node is an edge's, and nobody arms its slot anew meanwhile.
    pub(super) unsafe fn edge(&self) -> *const () {
        // SAFETY: the caller's promise; written before EDGE was set.
        self.0
            .with(|slot| unsafe { (*slot).assume_init_ref().edge })
    }

    /// # Safety
    /// The content is the caller's, and is there.
    unsafe fn take(&self) -> Raw {
        // SAFETY: the caller's promise. A read: the waiter may read too, see `take_by`.
        self.0.with(|slot| unsafe { ptr::read(slot).assume_init() })
    }
}
