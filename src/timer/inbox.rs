//! The way to the service thread.

use super::clock::{tick_of, Moment, Tick};
use super::entry::{Arming, Entry, Seen};
use super::job::Job;
use super::{pressure, thread};
use crate::sync::{global, AcqRel, Acquire, AtomicPtr, AtomicU64, AtomicUsize, Relaxed, Release};
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

fn push_entry(entry: NonNull<Entry>) {
    push(&INBOX.entries, entry.as_ptr(), |head| {
        // SAFETY: the caller's, until the push is through. Relaxed: published by the push.
        unsafe { entry.as_ref() }.queue.store(head, Relaxed);
    });
}

/// Arms an entry, about `owner`: when the deadline has passed, the timer fires it. The pointer may be used for what the
/// entry is a part of.
///
/// # Safety
/// The caller owns the entry, which is neither armed nor FIRING; `owner` is good until it is disarmed or finished.
#[inline]
pub(crate) unsafe fn arm(entry: NonNull<Entry>, owner: *mut (), deadline: Moment) {
    // SAFETY: the caller's promise.
    let arming = unsafe { entry.as_ref() }.arm(owner, deadline);
    see_to(entry, arming, deadline);
}

#[inline]
fn see_to(entry: NonNull<Entry>, arming: Arming, deadline: Moment) {
    match arming {
        Arming::InTime => thread::look(),
        Arming::InInbox => wake_before(deadline),
        Arming::ToPush => {
            push_entry(entry);
            wake_before(deadline);
            pressure::pushed(thread::wake);
        }
    }
}

/// How many threads are about to push an entry, each from before its step on the word until after its push. A mover that
/// finds the entry QUEUED, and nobody here after that, knows that it is in the inbox.
pub(crate) struct Pushers(AtomicUsize);

impl Pushers {
    pub(crate) fn new() -> Pushers {
        Pushers(AtomicUsize::new(0))
    }

    fn enter(&self) {
        // Relaxed: released by the step on the word, which whoever finds QUEUED has acquired.
        self.0.fetch_add(1, Relaxed);
    }

    fn leave(&self) {
        // Release: pairs with `is_anybody`, for the push.
        self.0.fetch_sub(1, Release);
    }

    fn is_anybody(&self) -> bool {
        // Acquire: pairs with `leave`, so that `sleeps_until` is what the pusher could see, or newer.
        self.0.load(Acquire) != 0
    }
}

/// Moves the deadline of an entry, or takes it away, if its word still is what was seen; if not, the answer is what it is.
/// False: it was moved, but the timer need not know it, for another mover is to push it and perhaps has not.
/// The pointer may be used for what the entry is a part of.
///
/// # Safety
/// The caller keeps what the entry is about, and has seen that it is not FIRING; its owner is set, and the pushers are its own.
pub(crate) unsafe fn move_to(
    entry: NonNull<Entry>,
    pushers: &Pushers,
    seen: Seen,
    to: Option<Moment>,
) -> Result<bool, Seen> {
    // SAFETY: the caller's promise.
    let this = unsafe { entry.as_ref() };
    let (step, then) = Entry::plan(seen, to);
    match then {
        Arming::ToPush => {
            pushers.enter();
            let taken = this.take(&step);
            if taken.is_ok() {
                #[cfg(cancel_tree_loom)]
                super::by_hand::Stop::here();
                push_entry(entry);
            }
            pushers.leave();
            taken?;
            // Others that find it QUEUED from now on wake the thread themselves.
            wake_before(to.unwrap_or(Moment::MAX));
            pressure::pushed(thread::wake);
        }
        Arming::InInbox => {
            this.take(&step)?;
            if pushers.is_anybody() {
                return Ok(false);
            }
            wake_before(to.unwrap_or(Moment::MAX));
        }
        Arming::InTime => {
            this.take(&step)?;
            thread::look();
        }
    }
    Ok(true)
}

#[cold]
fn wake_before(deadline: Moment) {
    thread::start();
    // Relaxed: see `push`. An owner that finds its entry in the inbox already knows of that push, for those that may push it
    // hold what it was about; movers learn of it by `Pushers`.
    if tick_of(deadline) < INBOX.sleeps_until.load(Relaxed) {
        thread::wake();
    }
}

/// Gives an entry back that was abandoned, for the timer to free. That can wait until it is awake.
pub(super) fn push_abandoned(entry: NonNull<Entry>) {
    push_entry(entry);
    thread::start();
    pressure::pushed(thread::wake);
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
