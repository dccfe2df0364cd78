//! The part of a pool (`pool.rs`) that its entries know. What an entry is, it does not.

use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicUsize, Relaxed, Release, SMALL};
use alloc::boxed::Box;
use core::ptr;

/// So many entries each of the two lists has at most, while the timer frees others. 1,024 cover a server's requests of one thread; with what they are a
/// part of (160 bytes each) they take 160 KiB.
pub(super) const ROOM: usize = if SMALL { 1 } else { 1024 };

/// The part of a pool that others know; it goes with the thread and all its entries.
pub(super) struct Home {
    /// What others gave back, or CLOSED.
    returned: AtomicPtr<()>,
    /// About how many these are.
    waiting: AtomicUsize,
    /// The thread, and the entries that have not been freed.
    count: AtomicUsize,
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    _leak: crate::sync::Track<()>,
}

/// In the place of a list: nobody looks there any more.
pub(super) const CLOSED: *mut () = ptr::without_provenance_mut(1);

impl Home {
    pub(super) fn new() -> Box<Home> {
        Box::new(Home {
            returned: AtomicPtr::new(ptr::null_mut()),
            waiting: AtomicUsize::new(0),
            count: AtomicUsize::new(1),
            #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
            _leak: crate::sync::Track::new(()),
        })
    }

    /// Another thread gives an entry back; `link` makes the new one's successor. False: there are so many, or there is nobody.
    pub(super) fn push(&self, entry: *mut (), room: usize, link: impl Fn(*mut ())) -> bool {
        // Relaxed, both: a number that only bounds. It is raised first, so it is never less than nothing.
        if self.waiting.load(Relaxed) >= room {
            return false;
        }
        self.waiting.fetch_add(1, Relaxed);
        // Relaxed: the CAS checks the guess, and nothing is read through it.
        let mut head = self.returned.load(Relaxed);
        loop {
            if head == CLOSED {
                return false;
            }
            link(head);
            // Release: pairs with the Acquire of the swap in `take_returned`.
            match self
                .returned
                .compare_exchange_weak(head, entry, Release, Relaxed)
            {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
    }

    /// All that others gave back, and about how many; `then` is what is there from now on.
    pub(super) fn take_returned(&self, then: *mut ()) -> (*mut (), usize) {
        // Acquire: pairs with `push`.
        let list = self.returned.swap(then, Acquire);
        (list, self.waiting.swap(0, Relaxed))
    }

    /// One entry more.
    pub(super) fn count_one(&self) {
        // Relaxed: whoever counts one more has one.
        self.count.fetch_add(1, Relaxed);
    }

    /// The thread, or an entry of its, is gone.
    ///
    /// # Safety
    /// It was counted, and does not use its home again.
    pub(super) unsafe fn forget_one(this: *const Home) {
        // SAFETY: counted until now; null is no home.
        let Some(home) = (unsafe { this.as_ref() }) else {
            return;
        };
        // AcqRel: what others did with it comes before it is freed.
        if home.count.fetch_sub(1, AcqRel) == 1 {
            // SAFETY: from a Box, and the last is gone.
            drop(unsafe { Box::from_raw(this.cast_mut()) });
        }
    }
}
