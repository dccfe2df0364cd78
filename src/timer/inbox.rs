//! What has come for the service thread, and its handshake with sleep.

use super::clock::Tick;
use super::entry::Entry;
use super::job::Job;
use crate::sync::{global, AcqRel, AtomicPtr, AtomicU64, Relaxed};
use core::ptr::{self, NonNull};

struct Inbox {
    /// Entries that the timer has to look at, strung through `queue`.
    entries: AtomicPtr<Entry>,
    /// What workers are to run, strung through `next`.
    jobs: AtomicPtr<Job>,
    /// Until when the thread sleeps; 0 while it is awake.
    sleeps_until: AtomicU64,
}

global! {
    static INBOX: Inbox = Inbox {
        entries: AtomicPtr::new(ptr::null_mut()),
        jobs: AtomicPtr::new(ptr::null_mut()),
        sleeps_until: AtomicU64::new(0),
    };
}

/// Pushes to one of the lists: `link` makes the new element's successor.
fn push<T>(list: &AtomicPtr<T>, new: *mut T, link: impl Fn(*mut T)) {
    // Relaxed: the CAS checks the guess.
    let mut head = list.load(Relaxed);
    loop {
        link(head);
        // AcqRel: the release half publishes the element to the thread's swap; the acquire half
        // pairs with that swap, so that `sleeps_until` is what it was set to before it, or newer.
        match list.compare_exchange_weak(head, new, AcqRel, Relaxed) {
            Ok(_) => return,
            Err(now) => head = now,
        }
    }
}

pub(super) fn push_entry(entry: NonNull<Entry>) {
    push(&INBOX.entries, entry.as_ptr(), |head| {
        // SAFETY: the caller's, until the push is through. Relaxed: published by the push.
        unsafe { entry.as_ref() }.queue.store(head, Relaxed);
    });
}

pub(super) fn push_job(job: NonNull<Job>) {
    push(&INBOX.jobs, job.as_ptr(), |head| {
        // SAFETY: the caller's, until the push is through. Relaxed: published by the push.
        unsafe { job.as_ref() }.next.store(head, Relaxed);
    });
}

/// Asked after a push: until when the thread sleeps that has not found it.
#[inline]
pub(super) fn sleeps_until() -> Tick {
    // Relaxed: see `push`.
    INBOX.sleeps_until.load(Relaxed)
}

// ----- the thread's side ----------------------------------------------------------------------

/// What the thread has taken out of its lists.
pub(super) struct Taken {
    pub(super) entries: *mut Entry,
    pub(super) jobs: *mut Job,
}

impl Taken {
    pub(super) fn is_nothing(&self) -> bool {
        self.entries.is_null() && self.jobs.is_null()
    }
}

/// Takes all entries out. An RMW also if there is nothing: see the module `timer`.
pub(super) fn take_entries() -> *mut Entry {
    // AcqRel: pairs with `push`.
    INBOX.entries.swap(ptr::null_mut(), AcqRel)
}

/// The same for the jobs.
pub(super) fn take_jobs() -> *mut Job {
    // AcqRel: pairs with `push`.
    INBOX.jobs.swap(ptr::null_mut(), AcqRel)
}

/// The last look before the thread sleeps until `tick`, if it finds nothing: a thread that pushes
/// after this look knows until when, and wakes the thread if that is too long.
pub(super) fn take_before_sleep(tick: Tick) -> Taken {
    // Relaxed: published by the swaps.
    INBOX.sleeps_until.store(tick, Relaxed);
    Taken {
        entries: take_entries(),
        jobs: take_jobs(),
    }
}

/// The thread does not sleep any more, and will look again before it does.
pub(super) fn note_awake() {
    // Relaxed: a thread that pushes and does not see it wakes one that is awake.
    INBOX.sleeps_until.store(0, Relaxed);
}
