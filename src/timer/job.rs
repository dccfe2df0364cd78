//! What a worker is to run.

use crate::sync::AtomicPtr;
use core::ptr::{self, NonNull};

/// The header of something that a worker is to run: the first field of a `repr(C)` struct, which its functions find by
/// the pointer. The timer knows no more of it.
#[repr(C)]
pub(crate) struct Job {
    /// The list that it is in. The timer's.
    pub(super) next: AtomicPtr<Job>,
    /// What comes before that, together with what deadlines wake.
    wake: Option<unsafe fn(NonNull<Job>)>,
    run: unsafe fn(NonNull<Job>),
    /// Where there are no workers, a thread that waits may see to it.
    for_waiters: bool,
}

impl Job {
    /// `run` is called once for each time that the job is given to [`run_on_worker`](super::run_on_worker), on a worker
    /// thread, and may panic. The job belongs to it again then.
    pub(crate) fn new(run: unsafe fn(NonNull<Job>)) -> Job {
        Job {
            next: AtomicPtr::new(ptr::null_mut()),
            wake: None,
            run,
            for_waiters: false,
        }
    }

    /// The same of one that somebody may wait for: where there are no workers, in a forked child, it is run by a thread that
    /// waits, if there is one.
    pub(crate) fn for_waiters(run: unsafe fn(NonNull<Job>)) -> Job {
        Job {
            for_waiters: true,
            ..Job::new(run)
        }
    }

    /// The same of one that has tasks and threads to wake, which somebody may wait for too: `wake` is called before `run`, once too, on a worker thread that may be
    /// another one, and may panic. It is called as soon as those of a deadline are woken that the timer finds with it (jobs that
    /// have come before it are found before it), while `run` may come much later, behind others' callbacks.
    pub(crate) fn that_wakes(wake: unsafe fn(NonNull<Job>), run: unsafe fn(NonNull<Job>)) -> Job {
        Job {
            wake: Some(wake),
            ..Job::for_waiters(run)
        }
    }

    /// Whether there is something to be woken before it is run.
    pub(super) fn wakes(&self) -> bool {
        self.wake.is_some()
    }

    pub(super) fn is_for_waiters(&self) -> bool {
        self.for_waiters
    }

    /// # Safety
    /// The job was given to `run_on_worker`, and this is the one call for it, before that of `run`.
    pub(super) unsafe fn wake(this: NonNull<Job>) {
        // SAFETY: it stays until it has been run.
        if let Some(wake) = unsafe { this.as_ref() }.wake {
            // SAFETY: the caller's promise.
            unsafe { wake(this) }
        }
    }

    /// # Safety
    /// The job was given to `run_on_worker`, and this is the one call for it. It has been woken, if it wakes.
    pub(super) unsafe fn run(this: NonNull<Job>) {
        // SAFETY: it stays until it has been run.
        let run = unsafe { this.as_ref() }.run;
        // SAFETY: the caller's promise.
        unsafe { run(this) }
    }
}
