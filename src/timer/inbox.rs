//! The way to the service thread.

use super::clock::Tick;
use super::entry::Entry;
use super::job::Job;
use super::thread;
use crate::sync::{global, AcqRel, AtomicPtr, AtomicU64, AtomicUsize, Relaxed};
use core::ptr::{self, NonNull};

/// The least number of abandoned entries that is worth a look at all of them.
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
const MIN_PURGE: usize = 4096;

struct Inbox {
    /// Entries to be scheduled, strung through `next`.
    entries: AtomicPtr<Entry>,
    /// What workers are to run, strung through `next`.
    jobs: AtomicPtr<Job>,
    /// Until when the thread sleeps; 0 while it is awake.
    sleeps_until: AtomicU64,
    /// How many scheduled entries have been abandoned, and how many are too many.
    abandoned: AtomicUsize,
    too_many: AtomicUsize,
}

global! {
    static INBOX: Inbox = Inbox {
        entries: AtomicPtr::new(ptr::null_mut()),
        jobs: AtomicPtr::new(ptr::null_mut()),
        sleeps_until: AtomicU64::new(0),
        abandoned: AtomicUsize::new(0),
        too_many: AtomicUsize::new(4096),
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

/// Gives an entry to the timer.
///
/// The pointer may be used for what the entry is a part of.
pub(crate) fn schedule(entry: NonNull<Entry>, deadline: Tick) {
    push(&INBOX.entries, entry.as_ptr(), |head| {
        // SAFETY: the caller's, until the push is through. Relaxed: published by the push.
        unsafe { entry.as_ref() }.next.store(head, Relaxed);
    });
    thread::start();
    // Relaxed: see `push`.
    if deadline < INBOX.sleeps_until.load(Relaxed) {
        thread::wake();
    }
}

/// Has the job run by a worker. The pointer may be used for what the job is a part of.
///
/// # Safety
/// The job is the caller's, and nobody but the timer and its `run` uses it until it has been run.
pub(crate) unsafe fn run_on_worker(job: NonNull<Job>) {
    push(&INBOX.jobs, job.as_ptr(), |head| {
        // SAFETY: the caller's, until the push is through. Relaxed: published by the push.
        unsafe { job.as_ref() }.next.store(head, Relaxed);
    });
    thread::start();
    // Relaxed: see `push`.
    if INBOX.sleeps_until.load(Relaxed) != 0 {
        thread::wake();
    }
}

/// A scheduled entry was given up. Once they are too many, the timer looks through all.
pub(crate) fn note_abandoned() {
    // Relaxed, all: numbers, from which nothing follows but that somebody looks.
    let now = INBOX.abandoned.fetch_add(1, Relaxed).wrapping_add(1);
    let above = above(now, INBOX.too_many.load(Relaxed));
    if above.is_some_and(|above| above % 1024 == 0) {
        thread::wake();
    }
}

/// How many more have been abandoned than `limit`. The timer may have freed an entry, and said so, before who abandoned
/// it has: then the number is less than nothing for a moment, and wraps.
fn above(abandoned: usize, limit: usize) -> Option<usize> {
    let abandoned = usize::try_from(abandoned as isize).ok()?;
    abandoned.checked_sub(limit)
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

/// Takes all out. RMWs also if there is nothing: see the module `service`.
pub(super) fn take() -> Taken {
    // AcqRel: pairs with `push`.
    let entries = INBOX.entries.swap(ptr::null_mut(), AcqRel);
    // AcqRel: the same.
    let jobs = INBOX.jobs.swap(ptr::null_mut(), AcqRel);
    Taken { entries, jobs }
}

/// The same, as the last look before the thread sleeps until `tick`, if it finds nothing: who pushes
/// after this look knows until when, and wakes the thread if that is too long.
pub(super) fn take_before_sleep(tick: Tick) -> Taken {
    // Relaxed: published by the swaps.
    INBOX.sleeps_until.store(tick, Relaxed);
    take()
}

/// The thread does not sleep any more, and will look again before it does.
pub(super) fn note_awake() {
    // Relaxed: who pushes and does not see it wakes a thread that is awake.
    INBOX.sleeps_until.store(0, Relaxed);
}

/// Goes through jobs in the order in which they came.
pub(super) fn each_job(list: *mut Job, mut with: impl FnMut(NonNull<Job>)) {
    let (mut list, mut in_order) = (NonNull::new(list), ptr::null_mut());
    while let Some(job) = list {
        // SAFETY: the list is ours.
        unsafe {
            list = NonNull::new(job.as_ref().next.load(Relaxed));
            job.as_ref().next.store(in_order, Relaxed);
        }
        in_order = job.as_ptr();
    }
    while let Some(job) = NonNull::new(in_order) {
        // SAFETY: as above.
        in_order = unsafe { job.as_ref() }.next.load(Relaxed);
        with(job);
    }
}

/// Whether a purge is due.
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
pub(super) fn too_many_abandoned() -> bool {
    above(INBOX.abandoned.load(Relaxed), INBOX.too_many.load(Relaxed)).is_some()
}

/// The timer has freed some; of the `all` that it has, as many may be abandoned as are not.
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
pub(super) fn note_freed(freed: usize, all: usize) {
    let too_many = MIN_PURGE.max(all / 2);
    // Only this thread writes it, and it is read for every entry that is abandoned.
    if INBOX.too_many.load(Relaxed) != too_many {
        INBOX.too_many.store(too_many, Relaxed);
    }
    if freed != 0 {
        INBOX.abandoned.fetch_sub(freed, Relaxed);
    }
}
