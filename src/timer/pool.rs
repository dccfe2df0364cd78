//! Where entries wait that belong to no context, with what they are a part of: a pool for each thread. The one that makes
//! contexts takes from its own; the one that drops a context gives the entry back to the pool that it came from. So it is
//! found again by whoever needs it, whoever drops what others made.
//!
//! The thread's own list is nobody else's. What others give back is pushed to a second list, which the thread takes
//! whole when its own is empty. A pool whose thread has ended is closed: what comes then is abandoned, and so is what a
//! list has no room for. While the timer's thread is missing nobody could free what is abandoned, so there is room for all: it is
//! used again, and goes as it is used when there is a thread.

use super::entry::{Abandoned, Entry, Table};
use super::home::{Home, CLOSED, ROOM};
use super::{service, thread};
use crate::sync::{local, Relaxed};
use alloc::boxed::Box;
use core::cell::Cell;
use core::ptr::{self, NonNull};

local! {
    static POOL: Pool = Pool::new();
}

/// The thread's side.
struct Pool {
    /// Null before the first entry.
    home: Cell<*const Home>,
    /// Strung through `owner`.
    first: Cell<*mut Entry>,
    len: Cell<usize>,
}

impl Pool {
    const fn new() -> Pool {
        Pool {
            home: Cell::new(ptr::null()),
            first: Cell::new(ptr::null_mut()),
            len: Cell::new(0),
        }
    }

    #[inline]
    fn pop(&self) -> Option<NonNull<Entry>> {
        let entry = NonNull::new(self.first.get())?;
        // SAFETY: in the pool, so it stays. Relaxed: this thread's, or acquired by `take_returned`.
        self.first
            .set(unsafe { entry.as_ref() }.owner.load(Relaxed).cast());
        self.len.set(self.len.get().saturating_sub(1));
        Some(entry)
    }

    /// What others gave back, or a new one's home.
    #[cold]
    fn refill(&self) -> Result<NonNull<Entry>, *const Home> {
        if self.home.get().is_null() {
            self.home.set(Box::into_raw(Home::new()));
        }
        // SAFETY: counted for this thread.
        let home = unsafe { &*self.home.get() };
        let (list, len) = home.take_returned(ptr::null_mut());
        self.first.set(list.cast());
        self.len.set(len);
        self.pop().ok_or_else(|| {
            home.count_one();
            ptr::from_ref(home)
        })
    }

    fn is_at(&self, home: *const Home) -> bool {
        ptr::eq(home, self.home.get())
    }

    /// False: not from here, or there are so many.
    #[inline]
    fn put(&self, entry: NonNull<Entry>, home: *const Home, room: usize) -> bool {
        let here = self.is_at(home) && self.len.get() < room;
        if here {
            // SAFETY: the caller's. Relaxed: this thread's.
            unsafe { entry.as_ref() }
                .owner
                .store(self.first.get().cast(), Relaxed);
            self.first.set(entry.as_ptr());
            self.len.set(self.len.get() + 1);
        }
        here
    }

    fn close(&self) {
        let home = self.home.replace(ptr::null());
        let mut lists = [self.first.replace(ptr::null_mut()), ptr::null_mut()];
        self.len.set(0);
        // SAFETY: counted for this thread.
        if let Some(home) = unsafe { home.as_ref() } {
            lists[1] = home.take_returned(CLOSED).0.cast();
        }
        for mut list in lists {
            while let Some(entry) = NonNull::new(list) {
                // SAFETY: in the list, which is ours.
                unsafe {
                    // Relaxed: linked before the push, which taking the list has acquired.
                    list = entry.as_ref().owner.load(Relaxed).cast();
                    abandon(entry);
                }
            }
        }
        // SAFETY: counted for this thread, which forgets it.
        unsafe { Home::forget_one(home) };
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

/// An entry of this thread's pool, that is neither armed nor FIRING; or a new one, which `make` makes a part of something
/// with that table. All entries of the process's pools are part of the same kind of thing.
#[inline]
pub(crate) fn take(
    table: &'static Table,
    make: impl FnOnce(Entry) -> NonNull<Entry>,
) -> NonNull<Entry> {
    let found = POOL.try_with(|pool| pool.pop().map_or_else(|| pool.refill(), Ok));
    match found {
        Ok(Ok(entry)) => entry,
        Ok(Err(home)) => make(Entry::new(home, table)),
        // The thread is being torn down.
        Err(_) => make(Entry::homeless(table)),
    }
}

/// Gives an entry up that is neither armed nor FIRING: to the pool that it came from, if there is room.
///
/// # Safety
/// The caller owns it.
#[inline]
pub(crate) unsafe fn put(entry: NonNull<Entry>) {
    // SAFETY: the caller's promise.
    let home = unsafe { entry.as_ref() }.home;
    if home.is_null() || !matches!(POOL.try_with(|pool| pool.put(entry, home, ROOM)), Ok(true)) {
        // SAFETY: as above.
        unsafe { put_elsewhere(entry, home) };
    }
}

/// # Safety
/// As for `put`.
#[cold]
unsafe fn put_elsewhere(entry: NonNull<Entry>, home: *const Home) {
    let link = |head| {
        // SAFETY: the caller's, until the push is through. Relaxed: published by the push.
        unsafe { entry.as_ref() }.owner.store(head, Relaxed);
    };
    // SAFETY: the entry is counted there, so it stays until the push is through.
    let is_kept = unsafe { home.as_ref() }.is_some_and(|home| {
        let room = if thread::is_missing() {
            usize::MAX
        } else {
            ROOM
        };
        let here = POOL.try_with(|pool| pool.is_at(home).then(|| pool.put(entry, home, room)));
        let here = here.ok().flatten();
        here.unwrap_or_else(|| home.push(entry.as_ptr().cast(), room, link))
    });
    if !is_kept {
        // SAFETY: the caller's promise.
        unsafe { abandon(entry) };
    }
}

/// # Safety
/// The caller owns it.
unsafe fn abandon(entry: NonNull<Entry>) {
    // SAFETY: the caller's promise.
    match unsafe { entry.as_ref() }.abandon() {
        // SAFETY: the timer does not know it.
        Abandoned::ToFree => unsafe { Entry::free(entry) },
        // SAFETY: nobody goes along the lists that it is in, nor frees it: they are a copy of another process's, whose thread does.
        _ if service::is_in_vain() => unsafe { Entry::free(entry) },
        Abandoned::ToPush => service::push_abandoned(entry),
        Abandoned::InInbox => {}
    }
}

/// For models: loom's threads are joined before their locals are dropped.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
pub(super) fn close() {
    POOL.with(Pool::close);
}
