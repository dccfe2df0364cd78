//! What the mutex tree is made of, with each access to shared memory noted as std makes it.
//!
//! A lock that nobody else wants is two read-modify-writes, to take it and to give it back. What it protects, two slabs,
//! is larger than a line: its first byte and its last are noted. The slabs' own memory is not seen, nor the allocator's.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::{self, LockResult};

pub use cancel_tree::counting::AtomicBool;
use cancel_tree::counting::{note, Kind};

thread_local! {
    /// The words of all mutexes that this thread has locked.
    static LOCKED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// The words of the mutexes that this thread has locked since it was last asked.
pub fn locked() -> Vec<usize> {
    LOCKED.take()
}

#[derive(Default)]
pub struct Mutex<T>(sync::Mutex<T>);

pub struct MutexGuard<'a, T> {
    guard: sync::MutexGuard<'a, T>,
    /// For its address, where the word is.
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        note(Kind::Rmw, self);
        let address = std::ptr::from_ref(self).addr();
        LOCKED.with_borrow_mut(|locked| locked.push(address));
        let guard = self.0.lock().expect("nobody panics with it");
        Ok(MutexGuard { guard, mutex: self })
    }
}

impl<T> MutexGuard<'_, T> {
    fn note_both_ends(&self, kind: Kind) {
        let value = std::ptr::from_ref(&*self.guard).cast::<u8>();
        note(kind, value);
        note(kind, value.wrapping_add(size_of::<T>() - 1));
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        note(Kind::Rmw, self.mutex);
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.note_both_ends(Kind::Read);
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.note_both_ends(Kind::Write);
        &mut self.guard
    }
}

/// std's, whose counts stand before the value. None only while it is taken apart.
pub struct Arc<T>(Option<sync::Arc<T>>);
pub struct Weak<T>(sync::Weak<T>);

const COUNTS: usize = 2 * size_of::<usize>();

fn note_count<T>(kind: Kind, value: *const T) {
    note(kind, value.wrapping_byte_sub(COUNTS));
}

impl<T> Arc<T> {
    pub fn new(value: T) -> Self {
        Self(Some(sync::Arc::new(value)))
    }

    pub fn downgrade(this: &Self) -> Weak<T> {
        note_count(Kind::Load, &**this);
        note_count(Kind::Rmw, &**this);
        Weak(sync::Arc::downgrade(this.inner()))
    }

    pub fn into_inner(mut this: Self) -> Option<T> {
        this.note_drop();
        this.0.take().and_then(sync::Arc::into_inner)
    }

    fn inner(&self) -> &sync::Arc<T> {
        self.0.as_ref().expect("not taken apart")
    }

    fn note_drop(&self) {
        note_count(Kind::Rmw, &**self);
        if sync::Arc::strong_count(self.inner()) == 1 {
            // The last one gives back the weak count that all have in common.
            note_count(Kind::Rmw, &**self);
        }
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        note_count(Kind::Rmw, &**self);
        Self(self.0.clone())
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.note_drop();
        }
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner()
    }
}

impl<T> Weak<T> {
    pub fn upgrade(&self) -> Option<Arc<T>> {
        note_count(Kind::Load, self.0.as_ptr());
        note_count(Kind::Rmw, self.0.as_ptr());
        self.0.upgrade().map(|inner| Arc(Some(inner)))
    }
}

impl<T> Drop for Weak<T> {
    fn drop(&mut self) {
        note_count(Kind::Rmw, self.0.as_ptr());
    }
}
