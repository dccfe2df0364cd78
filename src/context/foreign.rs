//! Contexts of another kind as parents of ours.

use crate::sync::{unless_unwinding, waker_of, Arc as Counted, Panics, UnsafeCell, Wake};
use crate::sync::{Acquire, AtomicU8, Relaxed, Release};
use crate::timer;
use crate::timer::job::Job;
use crate::tree::{Cause, ContextError};
use crate::tree::{Elsewhere, Signal};
#[cfg(doc)]
use crate::Context;
use alloc::boxed::Box;
use core::any::{Any, TypeId};
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::{self, Poll};
use std::time::Instant;

/// A context of another crate that can be a parent of ours: see [`Context::below`].
///
/// The other direction needs no trait: [`Context::on_cancel`] and [`Context::done_owned`] tell when ours
/// is done; [`Context::cause`], [`Context::deadline`] and [`Context::value`] say the rest.
///
/// ```
/// use cancel_tree::{Context, ContextError, DoneSignal, ForeignContext};
/// use std::any::Any;
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
///
/// /// A context of a simple kind: a list of those to tell, until it is stopped.
/// #[derive(Clone)]
/// struct Stop(Arc<Mutex<State>>);
///
/// enum State {
///     Running { next: u64, to_tell: BTreeMap<u64, DoneSignal> },
///     Stopped,
/// }
///
/// impl Stop {
///     fn new() -> Stop {
///         let (next, to_tell) = (0, BTreeMap::new());
///         Stop(Arc::new(Mutex::new(State::Running { next, to_tell })))
///     }
///
///     fn stop(&self) {
///         // The list is taken out first: a signal runs wakers and callbacks, which may come back here, so
///         // nothing must be locked then.
///         let before = std::mem::replace(&mut *self.0.lock().unwrap(), State::Stopped);
///         if let State::Running { to_tell, .. } = before {
///             for signal in to_tell.into_values() {
///                 signal.cancel_with("stopped");
///             }
///         }
///     }
/// }
///
/// impl ForeignContext for Stop {
///     fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
///         if let State::Running { next, to_tell } = &mut *self.0.lock().unwrap() {
///             let key = *next;
///             *next += 1;
///             to_tell.insert(key, signal);
///             return Box::new(Forget(self.clone(), key));
///         }
///         // Too late for the list: at once.
///         signal.cancel_with("stopped");
///         Box::new(())
///     }
/// }
///
/// /// Takes the signal out of the list when nothing waits for it any more.
/// struct Forget(Stop, u64);
///
/// impl Drop for Forget {
///     fn drop(&mut self) {
///         if let State::Running { to_tell, .. } = &mut *self.0.0.lock().unwrap() {
///             to_tell.remove(&self.1);
///         }
///     }
/// }
///
/// let stop = Stop::new();
/// let ctx = Context::below(stop.clone());
/// drop(Context::below(stop.clone())); // is forgotten
/// stop.stop();
/// assert_eq!(ctx.cause().unwrap().to_string(), "stopped");
/// assert!(Context::below(stop).is_done(), "stopped before");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no context of another crate",
    note = "below a `CancellationToken` of this crate: `token.context()`; below a `Context`: one of its methods `with_…`"
)]
pub trait ForeignContext: Send + Sync + 'static {
    /// Arranges that `signal` is used when this context is done, or at once if it is done already. The return value is kept for as
    /// long as our context or something below it is there, and then dropped: unregister in its `Drop`. The signal does not
    /// keep anything alive but callbacks that were left there (see [`Context::below`]). One that will never be done drops it.
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send>;

    /// Returns when this context will be done at the latest. Ours is done then with
    /// [`ContextError::DeadlineExceeded`], whether it was told or not.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Returns the value of that type; called when our own layers have none.
    fn value(&self, key: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        let _ = key;
        None
    }
}

/// The handle by which a [`ForeignContext`] says that it is done.
///
/// In a child process made by `fork`, which has no worker threads, their part is done by the threads that block on a context or a token
/// below any foreign parent (`blocking_wait` and its like, `blocking_sleep`, `block_on`, and the blocking waits of groups), each of which looks every 10 ms: they poll what
/// [`when_ready`](Self::when_ready) drives, and after an end wake tasks and run callbacks, one after the other. So a thread must not wait there while it holds a lock that such a
/// callback takes, and may be back as much later than its limit as they take. Where none of them is there, what
/// [`when_woken`](Self::when_woken) cancels is cancelled, but nobody is woken; and what `when_ready` drives is not polled.
#[derive(Clone)]
pub struct DoneSignal(Signal);

impl DoneSignal {
    pub(super) fn new(signal: Signal) -> DoneSignal {
        DoneSignal(signal)
    }

    /// Cancels the context below. Returns `true` if this call was the first to cancel it.
    ///
    /// # Panics
    ///
    /// As [`CancellationToken::cancel`](crate::CancellationToken::cancel).
    pub fn cancel(&self) -> bool {
        self.cancel_with(ContextError::Cancelled)
    }

    /// Like [`cancel`](Self::cancel), with a cause.
    ///
    /// # Panics
    ///
    /// As [`CancellationToken::cancel`](crate::CancellationToken::cancel).
    pub fn cancel_with(&self, cause: impl Into<Cause>) -> bool {
        self.0.cancel(cause.into())
    }

    /// Drives a future, for contexts that have one instead of callbacks: when it is ready, its output is the cause.
    /// The return value is what [`ForeignContext::on_done`] has to return; dropping it drops the future.
    ///
    /// No task runs it: it is polled here once, and then on a worker thread of this crate, at most once for each time that it
    /// has been woken. Waking it runs nothing, so a thread may hold any locks while it does.
    ///
    /// A panic of the future ends it, and the context below is left as it is. The first poll's goes on to the caller.
    pub fn when_ready<F, C>(self, future: F) -> Box<dyn Any + Send>
    where
        F: Future<Output = C> + Send + 'static,
        C: Into<Cause>,
    {
        let drive = Counted::new(Drive {
            job: Job::for_waiters(Drive::run_job),
            state: AtomicU8::new(POLLING),
            waits: UnsafeCell::new(Some(Waiting {
                signal: self.0,
                future: Box::pin(IntoCause(future)),
            })),
        });
        let driven = Driven(drive.clone());
        unless_unwinding(|| Drive::poll(drive));
        Box::new(driven)
    }

    /// Like [`when_ready`](Self::when_ready), for a future that is never woken unless it is ready: to be woken cancels, with
    /// [`ContextError::Cancelled`].
    ///
    /// When the call that wakes it returns, the context is done, and so is everything below. That takes no poll, and runs no
    /// user code: tasks and threads are woken and callbacks run by a worker thread of this crate, which lets go of the
    /// future too, if no handle of the context is left. So here too a thread may hold any locks while it wakes it.
    ///
    /// A future that is woken for another reason as well, as by a runtime's budget for tasks, is one for `when_ready`.
    ///
    /// ```
    /// use cancel_tree::{Context, DoneSignal, ForeignContext};
    /// use futures::task::AtomicWaker;
    /// use std::any::Any;
    /// use std::future::poll_fn;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use std::sync::Arc;
    /// use std::task::Poll;
    ///
    /// #[derive(Clone, Default)]
    /// struct Event(Arc<(AtomicBool, AtomicWaker)>);
    ///
    /// impl ForeignContext for Event {
    ///     fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
    ///         let event = self.clone();
    ///         signal.when_woken(poll_fn(move |cx| {
    ///             event.0 .1.register(cx.waker());
    ///             match event.0 .0.load(Ordering::Acquire) {
    ///                 true => Poll::Ready(()),
    ///                 false => Poll::Pending,
    ///             }
    ///         }))
    ///     }
    /// }
    ///
    /// let event = Event::default();
    /// let ctx = Context::below(event.clone());
    /// event.0 .0.store(true, Ordering::Release);
    /// event.0 .1.wake();
    /// assert!(ctx.is_done());
    /// ```
    pub fn when_woken<F>(self, future: F) -> Box<dyn Any + Send>
    where
        F: Future + Send + 'static,
    {
        let mut future = Box::pin(future);
        let waker = waker_of(Elsewhere::new(self.0.clone()));
        let mut cx = task::Context::from_waker(&waker);
        if future.as_mut().poll(&mut cx).is_ready() {
            drop(future);
            self.cancel();
            return Box::new(());
        }
        Box::new(future)
    }
}

impl core::fmt::Debug for DoneSignal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DoneSignal").finish_non_exhaustive()
    }
}

impl core::panic::UnwindSafe for DoneSignal {}
impl core::panic::RefUnwindSafe for DoneSignal {}

// A future is driven by a word, and by the job that gives it to a worker. The thread that wakes it may hold any lock, so it takes one
// step on the word and, if it was idle, one on the list of jobs; nothing is polled, dropped or run there.
//
// | from | by | to |
// | --- | --- | --- |
// | | `when_ready`, which polls | POLLING |
// | IDLE | `wake`, which gives the job to a worker | SCHEDULED |
// | SCHEDULED | `wake` | SCHEDULED |
// | SCHEDULED | the worker, which polls | POLLING |
// | POLLING, AGAIN | `wake` | AGAIN |
// | POLLING | whoever polls: not ready | IDLE |
// | AGAIN | whoever polls: not ready; gives the job to a worker | SCHEDULED |
// | POLLING, AGAIN | whoever polls: ready, or a panic; drops the future | CLOSED |
// | IDLE, SCHEDULED | the drop of `Driven`, which drops the future | CLOSED |
// | POLLING, AGAIN | the drop of `Driven`; whoever polls drops the future | CLOSED |
//
// The job is with a worker, or on its way to one, from the step to SCHEDULED until the worker's step, which fails if
// the word is CLOSED. So it is given away once at a time, and a count goes with it.

/// Nobody is at the future.
const IDLE: u8 = 0;
/// A worker has been given it, or will be by the thread that made this step.
const SCHEDULED: u8 = 1;
/// Somebody polls it.
const POLLING: u8 = 2;
/// Somebody polls it, and it has to be polled again.
const AGAIN: u8 = 3;
/// Nobody will poll it any more; a thread that is polling it drops it.
const CLOSED: u8 = 4;

/// What is driven, and what its output is for: who drives it no more cannot cancel any more.
struct Waiting {
    signal: Signal,
    future: Pin<Box<dyn Future<Output = Cause> + Send>>,
}

/// A future whose output is a cause. It keeps what it polls: an `async` block drops that first, and if the
/// drop panics, what the future has said is lost.
struct IntoCause<F>(F);

impl<F: Future<Output: Into<Cause>>> Future for IntoCause<F> {
    type Output = Cause;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Cause> {
        // SAFETY: the only field is pinned with `self`; there is no Drop and no other access.
        let future = unsafe { self.map_unchecked_mut(|this| &mut this.0) };
        future.poll(cx).map(Into::into)
    }
}

/// A future that is polled by a worker each time that it was woken. `repr(C)`: found by its first field.
#[repr(C)]
struct Drive {
    /// The timer's from the step to SCHEDULED until it runs.
    job: Job,
    state: AtomicU8,
    /// Belongs to the thread that has made the state POLLING, or CLOSED from IDLE or SCHEDULED.
    waits: UnsafeCell<Option<Waiting>>,
}

// SAFETY: `waits`, the only field that is not Sync, is touched by one thread at a time, as `state`
// says. It is Send.
unsafe impl Sync for Drive {}
// SAFETY: every field is Send.
unsafe impl Send for Drive {}

struct Driven(Counted<Drive>);

impl Drop for Driven {
    fn drop(&mut self) {
        // Acquire: pairs with the release of whoever polled last. Whoever polls now and finds it has the future anyway.
        let was = self.0.state.swap(CLOSED, Acquire);
        if was == IDLE || was == SCHEDULED {
            self.0.drop_future();
        }
    }
}

impl Wake for Drive {
    fn wake(this: &Counted<Drive>) {
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = this.state.load(Relaxed);
        loop {
            let new = match seen {
                IDLE => SCHEDULED,
                POLLING => AGAIN,
                CLOSED => return,
                // By an RMW too: what we have been told of has happened before this step, and whoever polls next must
                // see it.
                _ => seen,
            };
            // Release: tells whoever polls next (`run_job`) of what has happened; what that one needs of whoever polled
            // last is passed on by this step, an RMW. Failure: the next turn exchanges again.
            match this.state.compare_exchange(seen, new, Release, Relaxed) {
                Ok(IDLE) => return Drive::schedule(this.clone()),
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

/// After a panic nobody polls again.
struct Close<'a>(&'a Drive);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let waits = self.0.close();
        unless_unwinding(|| drop(waits));
    }
}

impl Drive {
    /// Whoever polls takes out what is driven, which is not polled again.
    fn close(&self) -> Option<Waiting> {
        // Relaxed: whoever finds it leaves the future alone.
        self.state.store(CLOSED, Relaxed);
        self.take()
    }

    fn take(&self) -> Option<Waiting> {
        // SAFETY: the caller has it, as `state` says.
        self.waits.with_mut(|waits| unsafe { (*waits).take() })
    }

    fn drop_future(&self) {
        // User code runs after it has been taken out.
        let waits = self.take();
        unless_unwinding(|| drop(waits));
    }

    /// The caller has made the state SCHEDULED.
    fn schedule(this: Counted<Drive>) {
        // The pointer of the count, for the job's sake: it may be used for all of the drive.
        let raw = Counted::into_raw(this).cast_mut();
        // SAFETY: the step to SCHEDULED has made the job the caller's. The count is the job's, and the first field is
        // where the drive is.
        unsafe { timer::run_on_worker(NonNull::new_unchecked(raw).cast()) }
    }

    /// # Safety
    /// `job` is a drive's that `schedule` has given to a worker.
    unsafe fn run_job(job: NonNull<Job>) {
        // SAFETY: the count that `schedule` gave away, of the drive that the job is the first field of.
        let this = unsafe { Counted::<Drive>::from_raw(job.cast().as_ptr()) };
        // Acquire: takes the future over from whoever polled last, and pairs with the release of everyone that woke it
        // since. Failure: CLOSED, and the future is gone.
        let step = this
            .state
            .compare_exchange(SCHEDULED, POLLING, Acquire, Relaxed);
        if step.is_ok() {
            Drive::poll(this);
        }
    }

    /// The caller has made the state POLLING, and holds nothing.
    fn poll(this: Counted<Drive>) {
        let waker = waker_of(this.clone());
        let close = Close(&this);
        let poll = this.waits.with_mut(|waits| {
            let mut cx = task::Context::from_waker(&waker);
            // SAFETY: POLLING is ours.
            unsafe { (*waits).as_mut() }.map(|waits| waits.future.as_mut().poll(&mut cx))
        });
        mem::forget(close);
        if let Some(Poll::Ready(cause)) = poll {
            let Some(Waiting { signal, future }) = this.close() else {
                unreachable!("it has been polled");
            };
            // What the future says stands, also if its drop panics.
            let mut panics = Panics::default();
            panics.catch(|| drop(future));
            panics.catch(|| _ = signal.cancel(cause));
            return panics.resume();
        }
        // Release: hands the future on, to the worker's step or to the drop of `Driven`. Failure: nothing is read.
        let Err(now) = this.state.compare_exchange(POLLING, IDLE, Release, Relaxed) else {
            return;
        };
        // Woken meanwhile. It waits its turn with other jobs, as it would have if it had been woken later: a future
        // that yields keeps nobody from anything. Release: as above. Failure: CLOSED; nothing else can have come in
        // between.
        let again = now == AGAIN
            && this
                .state
                .compare_exchange(AGAIN, SCHEDULED, Release, Relaxed)
                .is_ok();
        if again {
            Drive::schedule(this);
        } else {
            this.drop_future();
        }
    }
}
