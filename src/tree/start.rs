//! What begins when another token is cancelled: a deadline, as that of a grace. In the slot of that other, *soft* token is a
//! waker that sets it, known by its table. The cause of the deadline names that of the soft cancel, so whoever wakes it hands
//! it the node that this is to be asked of: of many, one below the other, each would climb to it.

use super::cause::{Cause, ContextError};
use super::timing::Signal;
use super::why::own_cause;
use super::{why, Handle, Node};
use alloc::boxed::Box;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use core::task::{RawWaker, RawWakerVTable, Waker};

/// It holds neither token: the soft one has it, and is kept by the hard one.
struct Start {
    /// Of the *hard* token, whose deadline it is.
    hard: Signal,
    /// Kept beside the hard token's deadline: so it is good while `hard` is FIRING, and what is above it as well (I5).
    soft: NonNull<Node>,
    after: u64,
    /// The deadline's cause, by that of the soft cancel.
    because: fn(Cause) -> Cause,
}

impl Start {
    /// # Safety
    /// `origin` is null, or the soft token's node or one above it.
    unsafe fn begin(&self, origin: *const Node) {
        self.hard.start_deadline(self.after, || {
            // SAFETY: FIRING now, so the soft token is kept, and what is above it. What stands there as a cause stays with it,
            // whoever else lets go.
            let origin = unsafe {
                let asked = origin.as_ref();
                asked.or_else(|| why::origin(self.soft.as_ref()))
            };
            let first = origin.map(|origin| own_cause(origin, origin.word.load()));
            (self.because)(first.unwrap_or(ContextError::Cancelled.into()))
        });
    }
}

/// The data is a `Box<Start>`. Wakers in slots of the tree's own are never cloned.
static STARTS: RawWakerVTable = RawWakerVTable::new(
    |_| unreachable!("a slot's waker is not cloned"),
    // SAFETY: waking consumes the waker. Null: it looks for the cause itself.
    |data| unsafe { take(data).begin(ptr::null()) },
    |_| unreachable!("a slot's waker is consumed"),
    // SAFETY: the waker goes, and what it points to with it.
    |data| drop(unsafe { take(data) }),
);

/// # Safety
/// `data` is that of a waker of the table, which is used up.
unsafe fn take(data: *const ()) -> Box<Start> {
    // SAFETY: made by `Box::into_raw` in `waker`.
    unsafe { Box::from_raw(data.cast::<Start>().cast_mut()) }
}

/// Whether the waker is to be told: woken by `wake`.
#[inline]
pub(super) fn is_told(waker: &Waker) -> bool {
    ptr::eq(waker.vtable(), &STARTS)
}

/// Wakes, and says to what starts a deadline which node's own cancel it is that has come down to it; null: it is to look.
///
/// # Safety
/// The waker has been taken out of a node's slot, and `origin` says that node or one above it, or null.
pub(super) unsafe fn wake(waker: Waker, origin: *const Node) {
    debug_assert!(is_told(&waker));
    let waker = ManuallyDrop::new(waker);
    // SAFETY: not used any more. The node is the soft token's, into whose slot `start_with` has put it.
    unsafe { take(waker.data()).begin(origin) };
}

/// What is to be put into the slot of the `soft` token, which is kept beside `hard`.
pub(super) fn waker(hard: Signal, soft: &Handle, after: u64, because: fn(Cause) -> Cause) -> Waker {
    let start = Box::into_raw(Box::new(Start {
        hard,
        soft: soft.0,
        after,
        because,
    }));
    // SAFETY: the table serves one waker that is woken or dropped once, on any thread: a signal is Send, and the node is
    // used only while it is kept.
    unsafe { Waker::from_raw(RawWaker::new(start.cast_const().cast(), &STARTS)) }
}
