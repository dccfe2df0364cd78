//! What a worker is to run.

use crate::sync::AtomicPtr;
use core::ptr::{self, NonNull};

/// The header of something that a worker is to run: the first field of a `repr(C)` struct, which `run` finds by the
/// pointer. The timer knows no more of it.
#[repr(C)]
pub(crate) struct Job {
    /// The list that it is in. The timer's.
    pub(super) next: AtomicPtr<Job>,
    run: unsafe fn(NonNull<Job>),
}

impl Job {
    /// `run` is called once for each time that the job is given to [`run_on_worker`](super::run_on_worker), on a worker
    /// thread, and may panic. The job belongs to it again then.
    pub(crate) fn new(run: unsafe fn(NonNull<Job>)) -> Job {
        Job {
            next: AtomicPtr::new(ptr::null_mut()),
            run,
        }
    }

    /// # Safety
    /// The job was given to `run_on_worker`, and this is the one call for it.
    pub(super) unsafe fn run(this: NonNull<Job>) {
        // SAFETY: it stays until it has been run.
        let run = unsafe { this.as_ref() }.run;
        // SAFETY: the caller's promise.
        unsafe { run(this) }
    }
}
