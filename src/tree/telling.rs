//! Callbacks that are told the cause. Such a one has a cell for it, which the tree fills when it has taken the waker out
//! of its slot and before it wakes. So the callback need not own the token, which it would keep alive.

use super::cause::Cause;
use super::why::own_cause;
use super::Node;
use crate::sync::{Arc, UnsafeCell};
use alloc::boxed::Box;
use core::ptr;
use core::task::{RawWaker, RawWakerVTable, Waker};

/// Where a callback finds the cause.
pub(crate) struct Told(UnsafeCell<Option<Cause>>);

// SAFETY: it is touched by whoever owns the one waker that tells, and after that by the callback, which is started by
// waking it. A cause is Send.
unsafe impl Sync for Told {}
// SAFETY: as above.
unsafe impl Send for Told {}

impl Told {
    pub(crate) fn new() -> Arc<Told> {
        Arc::new(Told(UnsafeCell::new(None)))
    }

    /// Takes the cause out.
    ///
    /// # Safety
    /// The caller is the callback of the waker that was made with this.
    pub(crate) unsafe fn take(&self) -> Option<Cause> {
        // SAFETY: the waker has been used up to start the callback, so nobody else is here.
        self.0.with_mut(|cause| unsafe { (*cause).take() })
    }
}

struct Telling {
    told: Arc<Told>,
    callback: Waker,
}

/// A waker that is to be told the cause before it is woken. The data is a `Box<Telling>`. Wakers in the slots of callbacks
/// are never cloned.
static TELLS: RawWakerVTable = RawWakerVTable::new(
    |_| unreachable!("a slot's waker is not cloned"),
    |data| {
        // SAFETY: waking consumes the waker, so what it points to is ours.
        let this = unsafe { Box::from_raw(data.cast::<Telling>().cast_mut()) };
        this.callback.wake();
    },
    |_| unreachable!("a slot's waker is consumed"),
    // SAFETY: the waker goes, and what it points to with it.
    |data| drop(unsafe { Box::from_raw(data.cast::<Telling>().cast_mut()) }),
);

/// Wakes `callback`, when the cause has been put into `told`.
pub(crate) fn telling(callback: Waker, told: Arc<Told>) -> Waker {
    let data = Box::into_raw(Box::new(Telling { told, callback }));
    // SAFETY: the table serves one waker that is woken or dropped once, on any thread: what it points to is Send.
    unsafe { Waker::from_raw(RawWaker::new(data.cast_const().cast(), &TELLS)) }
}

/// Tells a waker the cause, if it is to be told: that of the own cancel of the node that `origin` says, null for none. The
/// waker has been taken out of its slot.
#[inline]
pub(super) fn tell(waker: &Waker, origin: impl FnOnce() -> *const Node) {
    if ptr::eq(waker.vtable(), &TELLS) {
        // SAFETY: the caller's own, and kept by it.
        tell_cause(waker, unsafe { origin().as_ref() });
    }
}

#[cold]
fn tell_cause(waker: &Waker, origin: Option<&Node>) {
    // SAFETY: the table says what the data is; the waker is the caller's, which is the only one to look into it.
    let telling = unsafe { &*waker.data().cast::<Telling>() };
    let cause = origin.map(|origin| own_cause(origin, origin.word.load()));
    // SAFETY: see `Told`; the callback has not been started.
    telling.told.0.with_mut(|told| unsafe { *told = cause });
}
