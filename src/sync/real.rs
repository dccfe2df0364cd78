//! The real world: `core`'s atomics, the allocator.

#[cfg(not(all(target_has_atomic = "64", not(cancel_tree_narrow))))]
pub(crate) use core::sync::atomic::AtomicU32 as AtomicBits;
#[cfg(all(target_has_atomic = "64", not(cancel_tree_narrow)))]
pub(crate) use core::sync::atomic::AtomicU64 as AtomicBits;
pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
#[cfg(feature = "std")]
pub(crate) use core::sync::atomic::{AtomicU64, AtomicU8};

pub(crate) use alloc::sync::Arc;

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

/// How a thread sleeps, and is woken.
#[cfg(feature = "std")]
pub(super) use std::thread as parking;
