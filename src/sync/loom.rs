//! The world of loom: its atomics and cells, checked when they are dropped, and its heap.

#[cfg(not(feature = "loom"))]
compile_error!("`--cfg cancel_tree_loom` also needs the feature `loom` of cancel-tree");

// Without it a model does not end: crossbeam's atomics are then real, and loom never sees them change.
#[cfg(not(crossbeam_loom))]
compile_error!(
    "models need `--cfg crossbeam_loom` beside `--cfg cancel_tree_loom`: \
     RUSTFLAGS=\"--cfg cancel_tree_loom --cfg crossbeam_loom\""
);

use core::ops::Deref;
use loom::{cell, sync::atomic};

pub(crate) use loom::sync::{atomic::AtomicBool, Notify};

pub(crate) use loom::sync::Arc;
#[cfg(feature = "testing")]
pub(crate) use loom::sync::{Mutex, MutexGuard};
pub(crate) use AtomicU64 as AtomicBits;

/// Whether families of tokens are small, so that a few operations reach their edges.
pub(crate) const SMALL: bool = true;

std::thread_local! {
    static ALL_ORDERS: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
}

/// Whether the models that this OS thread checks from now on explore loads in all orders: see `Shadow`.
pub(crate) fn set_all_orders(all: bool) {
    ALL_ORDERS.set(all);
}

/// loom tries another order of two accesses only if one of them is the last that it remembers, and
/// of each object it remembers one. A thread that loads and then exchanges hides by its own load
/// that another one has loaded before: that the other's load comes after the exchange is not tried then.
/// So there is an access of each atomic's shadow before each of its own: these are RMWs, of which none hides
/// another. They are relaxed and order nothing. A model that has too many executions may do without.
#[derive(Debug)]
struct Shadow(Option<atomic::AtomicUsize>);

impl Shadow {
    fn new() -> Shadow {
        Shadow(ALL_ORDERS.get().then(|| atomic::AtomicUsize::new(0)))
    }

    fn touch(&self) {
        if let Some(shadow) = &self.0 {
            shadow.fetch_add(1, super::Relaxed);
        }
    }
}

/// loom's types, whose drop counts as a write here: so every access must have happened before
/// it, and a release that is too weak to free by shows. loom itself lets a drop pass.
macro_rules! checked_at_drop {
    ($($name:ident $(<$t:ident>)? = $inner:ty, $value:ty;)*) => {$(
        #[derive(Debug)]
        pub(crate) struct $name $(<$t>)? ($inner, Shadow);

        impl $(<$t>)? $name $(<$t>)? {
            #[track_caller]
            pub(crate) fn new(value: $value) -> Self {
                Self(<$inner>::new(value), Shadow::new())
            }
        }

        impl $(<$t>)? Deref for $name $(<$t>)? {
            type Target = $inner;
            fn deref(&self) -> &$inner {
                self.1.touch();
                &self.0
            }
        }

        impl $(<$t>)? Drop for $name $(<$t>)? {
            fn drop(&mut self) {
                if !std::thread::panicking() {
                    self.0.with_mut(|_| ());
                }
            }
        }
    )*};
}

checked_at_drop! {
    AtomicU64 = atomic::AtomicU64, u64;
    AtomicPtr<T> = atomic::AtomicPtr<T>, *mut T;
    AtomicU8 = atomic::AtomicU8, u8;
    AtomicUsize = atomic::AtomicUsize, usize;
    UnsafeCell<T> = cell::UnsafeCell<T>, T;
}

/// loom's heap notices what is never freed. It knows layouts only by their pointer, so
/// an array is one allocation there as well.
pub(crate) mod heap {
    pub(crate) use alloc::alloc::handle_alloc_error;
    pub(crate) use loom::alloc::{alloc, dealloc};
}

/// A value that loom reports if it is leaked: for what a Box holds, which loom does not see.
pub(crate) use loom::alloc::Track;

/// loom's stand-in for `atomic_waker::AtomicWaker`, whose atomics loom cannot see.
#[derive(Debug, Default)]
pub(super) struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    pub(super) fn register(&self, waker: &core::task::Waker) {
        self.0.register_by_ref(waker);
    }

    pub(super) fn take(&self) -> Option<core::task::Waker> {
        self.0.take_waker()
    }

    pub(super) fn wake(&self) {
        self.0.wake();
    }
}

/// How a thread sleeps, and is woken, as std has it: one permit for each thread, whoever gives it. loom's own `unpark`
/// also ends what else the thread is blocked in (a join), and is no step that may come later than the one before.
pub(crate) mod parking {
    use loom::sync::Notify;
    use std::sync::Arc;
    use std::time::Duration;

    /// A thread that can be woken.
    #[derive(Clone)]
    pub struct Thread(Arc<Notify>);

    loom::thread_local! {
        static PERMIT: Thread = Thread(Arc::new(Notify::new()));
    }

    /// The calling thread.
    pub fn current() -> Thread {
        PERMIT.with(Thread::clone)
    }

    /// Takes the thread's permit, or sleeps until there is one. Now and then it wakes up for nothing.
    pub fn park() {
        current().0.wait();
    }

    /// The same: no time passes in a model.
    pub(crate) fn park_timeout(_: Duration) {
        park();
    }

    impl Thread {
        /// Gives the thread its permit.
        pub fn unpark(&self) {
            self.0.notify();
        }
    }
}
