//! From a handler that is a task of its own to what waits for its answer. Either may be the first to go.

use crate::sync::{Acquire, Arc, AtomicPtr, OfUser, OneWaiter, Relaxed, Release};
use alloc::boxed::Box;
use core::marker::PhantomData;
use core::ptr;
use core::task::{self, Poll};

/// The word: null, one of these two, or a box with what was sent, which belongs to whoever takes it out of the word.
///
/// | from | to | by |
/// | --- | --- | --- |
/// | null | a box | the sender; or LOST, if it goes without having sent |
/// | null, a box, LOST | GONE | the receiver, when it has its answer or wants none |
const LOST: usize = 1;
const GONE: usize = 2;

struct Slot<T> {
    word: AtomicPtr<Sent<T>>,
    waiter: OneWaiter,
    owns: PhantomData<T>,
}

/// No box of it is at the address of a mark.
#[repr(align(8))]
struct Sent<T>(T);

// SAFETY: a value goes from one thread to another; nobody shares it.
unsafe impl<T: Send> Send for Slot<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Slot<T> {}

pub(super) struct Sender<T>(Option<Arc<Slot<T>>>);

pub(super) struct Receiver<T>(Arc<Slot<T>>);

fn mark<T>(mark: usize) -> *mut T {
    ptr::without_provenance_mut(mark)
}

pub(super) fn slot<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Slot {
        word: AtomicPtr::new(ptr::null_mut()),
        waiter: OneWaiter::default(),
        owns: PhantomData,
    });
    (Sender(Some(slot.clone())), Receiver(slot))
}

impl<T> Sender<T> {
    /// Nothing comes back: what is not wanted any more is dropped here. That is user code, and so is the waker of what waits.
    pub(super) fn send(mut self, value: T) {
        let Some(slot) = self.0.take() else {
            return;
        };
        let sent = Box::into_raw(Box::new(Sent(value)));
        if slot.put(sent).is_err() {
            // SAFETY: made above, and not shared.
            drop(unsafe { Box::from_raw(sent) });
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            let _ = slot.put(mark(LOST));
        }
    }
}

impl<T> Slot<T> {
    /// Err: the receiver is gone.
    fn put(&self, sent: *mut Sent<T>) -> Result<(), ()> {
        // Release: pairs with the receiver's swap. Relaxed where it is gone: nothing of it is read.
        let put = self
            .word
            .compare_exchange(ptr::null_mut(), sent, Release, Relaxed);
        if put.is_err() {
            return Err(());
        }
        crate::sync::unless_unwinding(|| self.waiter.wake());
        Ok(())
    }

    /// What the receiver finds when it goes.
    fn take(&self) -> Option<T> {
        // Acquire: pairs with the sender's exchange.
        let sent = self.word.swap(mark(GONE), Acquire);
        let is_mark = sent.is_null() || sent == mark(LOST) || sent == mark(GONE);
        // SAFETY: made by `send`, and taken out of the word once.
        (!is_mark).then(|| unsafe { Box::from_raw(sent) }.0)
    }
}

impl<T> Receiver<T> {
    /// Ready once. None: it was not sent, and never will be.
    pub(super) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<T>> {
        let slot = &self.0;
        // Relaxed, both: what was sent is taken by the swap.
        if slot.word.load(Relaxed).is_null() {
            slot.waiter.register(cx.waker());
            // Once more: the sender wakes after its exchange, and the waiter's handshake orders the two.
            if slot.word.load(Relaxed).is_null() {
                return Poll::Pending;
            }
        }
        Poll::Ready(slot.take())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // User code: the answer that nobody wants, and the waker. Each goes, whatever has panicked before it.
        let unwanted = self.0.take().map(OfUser::new);
        drop(self.0.waiter.take());
        drop(unwanted);
    }
}
