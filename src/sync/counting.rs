//! The real world, in which a thread can have what it does to shared memory written down: each access to an atomic or
//! a cell of this crate, and where. For `benches/scale`, which counts by it.
//!
//! Not seen: the reference counts of `Arc`, the atomics of `atomic-waker` (2 read-modify-writes to register, 2 to wake
//! or take; who waits for a running callback, a group, room in it, an outcome or a handler's task meets them), those that are std's or
//! core's in every world (`pressure.rs`: one for each entry that is pushed; `clock.rs`; the count of a worker's steps), and of
//! std (its parker; thread-locals have none; a worker has a `OnceLock`).

#![allow(
    missing_docs,
    dead_code,
    reason = "hidden, and all atomics have all that core's have"
)]

#[cfg(not(feature = "std"))]
compile_error!("`--cfg cancel_tree_counting` needs the feature `std` of cancel-tree");

use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::ptr;
use core::sync::atomic::{self, Ordering};

pub(crate) use alloc::sync::Arc;
pub(super) use atomic_waker::AtomicWaker;
#[cfg(feature = "testing")]
pub(crate) use std::sync::{Mutex, MutexGuard};
pub(super) use std::thread as parking;

#[cfg(not(all(target_has_atomic = "64", not(cancel_tree_narrow))))]
pub(crate) type AtomicBits = AtomicU32;
#[cfg(all(target_has_atomic = "64", not(cancel_tree_narrow)))]
pub(crate) type AtomicBits = AtomicU64;

/// Families of tokens are as large as users have them.
pub(crate) const SMALL: bool = false;

pub(crate) mod heap {
    pub(crate) use alloc::alloc::{alloc, dealloc, handle_alloc_error};
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Load,
    Store,
    /// A read-modify-write, also one that failed: it takes the line all the same.
    Rmw,
    /// Of what is not atomic.
    Read,
    /// Of what is not atomic.
    Write,
}

/// One access to shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub kind: Kind,
    pub address: usize,
}

std::thread_local! {
    /// None while nobody asks.
    static LOG: RefCell<Option<Vec<Access>>> = const { RefCell::new(None) };
}

/// Notes an access of this thread, if somebody asks: for what is to be counted beside this crate as well.
pub fn note<T: ?Sized>(kind: Kind, what: *const T) {
    // Err: the thread is being torn down.
    let _ = LOG.try_with(|log| {
        if let Some(log) = log.borrow_mut().as_mut() {
            let address = what.addr();
            log.push(Access { kind, address });
        }
    });
}

/// What this thread does in `f`, access by access.
pub fn accesses(f: impl FnOnce()) -> Vec<Access> {
    LOG.set(Some(Vec::new()));
    f();
    LOG.take().unwrap_or_default()
}

macro_rules! atomics {
    ($($name:ident $(<$t:ident>)? of $value:ty: $($fetch:ident)*;)*) => {$(
        #[repr(transparent)]
        pub struct $name $(<$t>)? (atomic::$name $(<$t>)?);

        impl $(<$t>)? $name $(<$t>)? {
            pub const fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }

            #[inline]
            fn noted(&self, kind: Kind) -> &atomic::$name $(<$t>)? {
                note(kind, self);
                &self.0
            }

            #[inline]
            pub fn load(&self, order: Ordering) -> $value {
                self.noted(Kind::Load).load(order)
            }

            #[inline]
            pub fn store(&self, value: $value, order: Ordering) {
                self.noted(Kind::Store).store(value, order);
            }

            #[inline]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.noted(Kind::Rmw).swap(value, order)
            }

            #[inline]
            pub fn compare_exchange(
                &self,
                seen: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.noted(Kind::Rmw).compare_exchange(seen, new, success, failure)
            }

            #[inline]
            pub fn compare_exchange_weak(
                &self,
                seen: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.noted(Kind::Rmw).compare_exchange_weak(seen, new, success, failure)
            }

            $(
                #[inline]
                pub fn $fetch(&self, value: $value, order: Ordering) -> $value {
                    self.noted(Kind::Rmw).$fetch(value, order)
                }
            )*
        }

        impl $(<$t>)? fmt::Debug for $name $(<$t>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

atomics! {
    AtomicBool of bool: ;
    AtomicU8 of u8: ;
    AtomicU32 of u32: fetch_add fetch_sub fetch_or fetch_and;
    AtomicU64 of u64: fetch_add fetch_sub fetch_or fetch_and;
    AtomicUsize of usize: fetch_add fetch_sub;
    AtomicPtr<T> of *mut T: ;
}

impl<T> AtomicPtr<T> {
    /// For one that is not written any more: not counted.
    pub const fn as_ptr(&self) -> *mut *mut T {
        self.0.as_ptr()
    }
}

/// `core`'s cell with the closure interface of loom's.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        note(Kind::Read, ptr::from_ref(self));
        f(self.0.get())
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        note(Kind::Write, ptr::from_ref(self));
        f(self.0.get())
    }
}
