//! What is told by a waker, and the one that waits for it.

use super::{Arc, AtomicWaker, OfUser};

/// Something that is told by a waker. `std::task::Wake`, with the `Arc` that models know.
pub(crate) trait Wake: Send + Sync + 'static {
    fn wake(this: &Arc<Self>);
}

/// A waker that tells it, and keeps it.
pub(crate) fn waker_of<T: Wake>(this: Arc<T>) -> core::task::Waker {
    use core::mem::ManuallyDrop;
    use core::task::{RawWaker, RawWakerVTable, Waker};

    struct Table<T>(T);

    impl<T: Wake> Table<T> {
        const TABLE: &'static RawWakerVTable = &RawWakerVTable::new(
            |data| {
                // SAFETY: `data` is a counted pointer, whose count ManuallyDrop leaves to the waker.
                let this = ManuallyDrop::new(unsafe { Arc::<T>::from_raw(data.cast()) });
                raw(Arc::clone(&this))
            },
            // SAFETY: waking consumes the waker and its count.
            |data| T::wake(&unsafe { Arc::from_raw(data.cast()) }),
            |data| {
                // SAFETY: as for the clone.
                T::wake(&ManuallyDrop::new(unsafe { Arc::from_raw(data.cast()) }));
            },
            // SAFETY: dropping the waker gives its count back.
            |data| drop(unsafe { Arc::<T>::from_raw(data.cast()) }),
        );
    }

    fn raw<T: Wake>(this: Arc<T>) -> RawWaker {
        RawWaker::new(Arc::into_raw(this).cast(), Table::<T>::TABLE)
    }

    // SAFETY: the table keeps the contract of RawWakerVTable: `T` is Send and Sync, and the count follows
    // the waker's clones.
    unsafe { Waker::from_raw(raw(this)) }
}

/// The waker of one that waits, which another thread can take.
#[derive(Default)]
pub(crate) struct OneWaiter(AtomicWaker);

/// A waker that is cloned and dropped without running user code, but for its last copy's drop.
struct Relay(OfUser<core::task::Waker>);

impl Wake for Relay {
    fn wake(this: &Arc<Relay>) {
        this.0.wake_by_ref();
    }
}

impl OneWaiter {
    /// By the one that waits, and nobody else. It has to look once more afterwards.
    pub(crate) fn register(&self, waker: &core::task::Waker) {
        // All user code is here. `AtomicWaker` clones the new waker and drops the old one while it is
        // locked: if that panics, it stays locked, and nobody is woken any more.
        drop(self.0.take().map(OfUser::new));
        let relay = waker_of(Arc::new(Relay(OfUser::new(waker.clone()))));
        self.0.register(&relay);
    }

    pub(crate) fn wake(&self) {
        self.0.wake();
    }

    /// By the one that waits, and does not want to be woken any more. What it says is dropped as user code.
    #[cfg(feature = "std")]
    pub(crate) fn take(&self) -> Option<OfUser<core::task::Waker>> {
        self.0.take().map(OfUser::new)
    }
}
