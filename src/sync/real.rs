//! The real world: `core`'s atomics, or those of the crate `portable-atomic`, and the allocator.

// Where the machine has them, these are `core`'s in a wrapper.
#[cfg(not(feature = "portable-atomic"))]
use core::sync::atomic;
#[cfg(feature = "portable-atomic")]
use portable_atomic as atomic;

#[cfg(not(all(target_has_atomic = "64", not(cancel_tree_narrow))))]
pub(crate) use atomic::AtomicU32 as AtomicBits;
#[cfg(all(target_has_atomic = "64", not(cancel_tree_narrow)))]
pub(crate) use atomic::AtomicU64 as AtomicBits;
pub(crate) use atomic::{AtomicBool, AtomicPtr, AtomicUsize};
#[cfg(feature = "std")]
pub(crate) use atomic::{AtomicU64, AtomicU8};

#[cfg(not(feature = "portable-atomic"))]
pub(crate) use alloc::sync::Arc;
#[cfg(feature = "portable-atomic")]
pub(crate) use portable_atomic_util::Arc;

/// Whether families of tokens are small, so that a few operations reach their edges.
pub(crate) const SMALL: bool = false;

/// `core`'s cell with the closure interface of loom's.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

pub(crate) mod heap {
    pub(crate) use alloc::alloc::{alloc, dealloc, handle_alloc_error};
}

pub(super) use atomic_waker::AtomicWaker;

/// For the clock of tests, and for nothing else.
#[cfg(feature = "testing")]
pub(crate) use std::sync::{Mutex, MutexGuard};

/// How a thread sleeps, and is woken.
#[cfg(feature = "std")]
pub(super) use std::thread as parking;
