//! A cancel in two halves: the first sets all state, where the canceller is, and runs no user code; the second wakes
//! tasks and threads, runs callbacks and lets go of what was kept, on a worker. For those that are told of a cancel
//! while they or their callers hold locks.

use super::cancel::Cancel;
use super::cause::ContextError;
use super::timing::Signal;
use crate::sync::{Arc, AtomicU8, Panics, Relaxed, UnsafeCell, Wake};
use crate::timer;
use crate::timer::job::Job;
use core::ptr::NonNull;

/// Cancels by a signal when it is woken: what is told by its waker. `repr(C)`: found by its first field.
#[repr(C)]
pub(crate) struct Elsewhere {
    /// The timer's from when it is used until it runs.
    job: Job,
    /// 1: somebody has the job.
    used: AtomicU8,
    /// The second half: of whoever has the job, and then of the job.
    rest: UnsafeCell<Option<Cancel>>,
    signal: Signal,
}

// SAFETY: `rest`, the only field that is not Sync, is touched by the one that has set `used`, and then by the job that it
// gives to a worker. What it has in its hands is kept by the trigger, which is FIRING meanwhile, on whatever thread.
unsafe impl Sync for Elsewhere {}
// SAFETY: as above.
unsafe impl Send for Elsewhere {}

impl Elsewhere {
    pub(crate) fn new(signal: Signal) -> Arc<Elsewhere> {
        Arc::new(Elsewhere {
            job: Job::that_wakes(Elsewhere::wake_by_job, Elsewhere::run_job),
            used: AtomicU8::new(0),
            rest: UnsafeCell::new(None),
            signal,
        })
    }

    /// # Safety
    /// `job` is one that `wake` has given to a worker, and has not been run.
    unsafe fn wake_by_job(job: NonNull<Job>) {
        // SAFETY: the count that `wake` gave away keeps what the job is the first field of.
        let this = unsafe { job.cast::<Elsewhere>().as_ref() };
        let mut panics = Panics::default();
        this.rest.with_mut(|rest| {
            // SAFETY: the job's.
            if let Some(rest) = unsafe { &mut *rest } {
                rest.wake(&mut panics);
            }
        });
        panics.resume();
    }

    /// # Safety
    /// `job` is one that `wake` has given to a worker, and has been woken.
    unsafe fn run_job(job: NonNull<Job>) {
        // SAFETY: the count that `wake` gave away, of what the job is the first field of.
        let this = unsafe { Arc::<Elsewhere>::from_raw(job.cast().as_ptr()) };
        // SAFETY: the job's.
        let rest = this.rest.with_mut(|rest| unsafe { (*rest).take() });
        let mut panics = Panics::default();
        if let Some(mut rest) = rest {
            rest.call(&mut panics);
            drop(rest);
        }
        // SAFETY: FIRING by `wake`, and this is the end of it.
        unsafe { this.signal.finish(&mut panics) };
        panics.resume();
    }
}

impl Wake for Elsewhere {
    /// When it returns, the token is cancelled and all below it, or gone. Runs no user code and drops nothing of a
    /// user's: the trigger is FIRING until the job is through, and that keeps the node and what its subscription has.
    fn wake(this: &Arc<Elsewhere>) {
        if !this.signal.begin() {
            return;
        }
        // Another one comes along: its call too must not return before the token is cancelled, and where it lets go,
        // user code may run. So it needs a job too. Relaxed: decides which of them has this one, and nothing passes by it.
        let other = (this.used.swap(1, Relaxed) != 0).then(|| Elsewhere::new(this.signal.clone()));
        let this = other.as_ref().unwrap_or(this);
        // SAFETY: FIRING by the step above, until the job is through: that keeps the node.
        let mut cancel =
            unsafe { Cancel::begin(this.signal.node(), ContextError::Cancelled.into()) };
        cancel.mark(usize::MAX);
        // SAFETY: ours, by `used`, or for nobody else knows it.
        this.rest.with_mut(|rest| unsafe { *rest = Some(cancel) });
        // The pointer of a count, for the job's sake: it may be used for all of this.
        let raw = Arc::into_raw(this.clone()).cast_mut();
        // SAFETY: the job is ours as `rest` is, and the count is the job's. The first field is where the whole is.
        unsafe { timer::run_on_worker(NonNull::new_unchecked(raw).cast()) }
    }
}
