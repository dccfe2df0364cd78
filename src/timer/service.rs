//! The way to the service thread: what it is to see to goes to the inbox, and if it sleeps too long it is woken.

use super::clock::{tick_of, Moment};
use super::entry::{Arming, Entry, Seen};
use super::job::Job;
use super::{inbox, pressure, thread};
use crate::sync::{Acquire, AtomicUsize, Relaxed, Release};
use core::ptr::NonNull;

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
            inbox::push_entry(entry);
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
                super::no_thread::Stop::here();
                inbox::push_entry(entry);
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
    // An owner that finds its entry in the inbox already knows of its push, for those that may push it hold what it was about;
    // movers learn of it by `Pushers`.
    if tick_of(deadline) < inbox::sleeps_until() {
        thread::wake();
    }
}

/// Whether nobody goes along the timer's lists in this process, neither now nor later: the thread is another process's. Asked of
/// the system only where much has been pushed, as if for nothing.
pub(super) fn is_in_vain() -> bool {
    // In this order: a thread that is there, which has been acquired, has noted before whose it is.
    pressure::is_much() && thread::is_there() && pressure::is_in_parent()
}

/// Gives an entry back that was abandoned, for the timer to free. That can wait until it is awake.
pub(super) fn push_abandoned(entry: NonNull<Entry>) {
    inbox::push_entry(entry);
    thread::start();
    pressure::pushed(thread::wake);
}

/// Has the job run by a worker. The pointer may be used for what the job is a part of.
///
/// # Safety
/// The job is the caller's, and nobody but the timer and its `run` uses it until it has been run.
pub(crate) unsafe fn run_on_worker(job: NonNull<Job>) {
    inbox::push_job(job);
    thread::start();
    if inbox::sleeps_until() != 0 {
        thread::wake();
    }
}
