//! Contexts of another kind as parents of ours.

use super::chain::{Chain, Step};
use super::values::Values;
use super::Context;
use crate::sync::{unless_unwinding, waker_of, Arc as Counted, Panics, UnsafeCell, Wake};
use crate::sync::{AcqRel, Acquire, AtomicU8, Relaxed, Release};
use crate::timer::clock;
use crate::tree::{Cause, ContextError};
use crate::tree::{Handle, Signal};
use alloc::boxed::Box;
use core::any::{Any, TypeId};
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{self, Poll};
use std::sync::Arc;
use std::time::Instant;

/// What a context of another crate has to offer to be a parent of ours: see [`Context::below`].
///
/// For the other direction it takes no trait: [`Context::on_cancel`] and [`Context::done_owned`] tell when ours
/// is done, [`Context::cause`], [`Context::deadline`] and [`Context::value`] say the rest.
///
/// ```
/// use cancel_tree::{Context, ContextError, DoneSignal, ForeignContext};
/// use std::any::Any;
/// use std::sync::{Arc, Mutex};
///
/// /// A context of the simplest kind: a list of those to tell.
/// #[derive(Clone, Default)]
/// struct Stop(Arc<Mutex<Vec<DoneSignal>>>);
///
/// impl ForeignContext for Stop {
///     fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
///         self.0.lock().unwrap().push(signal);
///         Box::new(()) // a better one would take the signal out of the list when this is dropped
///     }
/// }
///
/// let stop = Stop::default();
/// let ctx = Context::below(stop.clone());
/// for signal in stop.0.lock().unwrap().drain(..) {
///     signal.cancel_with("stopped");
/// }
/// assert_eq!(ctx.cause().unwrap().to_string(), "stopped");
/// ```
pub trait ForeignContext: Send + Sync + 'static {
    /// Has `signal` used when this context is done; at once if it is. What is returned is kept for as
    /// long as somebody on our side waits, and dropped then: the place to unregister. The signal does not
    /// keep anything alive.
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send>;

    /// When this context will be done at the latest. Ours is done then with
    /// [`ContextError::DeadlineExceeded`], whether it was told or not.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The value of that type, asked for when our layers have none.
    fn value(&self, key: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        let _ = key;
        None
    }
}

/// The way in which a [`ForeignContext`] says that it is done.
#[derive(Clone)]
pub struct DoneSignal(Signal);

impl DoneSignal {
    /// The context below is cancelled. True: this was the first cancel there.
    ///
    /// # Panics
    ///
    /// As [`CancellationToken::cancel`](crate::CancellationToken::cancel).
    pub fn cancel(&self) -> bool {
        self.cancel_with(ContextError::Cancelled)
    }

    /// The same, and says why.
    ///
    /// # Panics
    ///
    /// As [`CancellationToken::cancel`](crate::CancellationToken::cancel).
    pub fn cancel_with(&self, cause: impl Into<Cause>) -> bool {
        self.0.cancel(cause.into())
    }

    /// For contexts that have a future instead of callbacks: when it is ready, its output is the cause.
    /// The answer is what [`ForeignContext::on_done`] has to return; dropping it drops the future.
    ///
    /// No task runs it: it is polled here once, and then by whoever wakes it.
    pub fn when_ready<F, C>(self, future: F) -> Box<dyn Any + Send>
    where
        F: Future<Output = C> + Send + 'static,
        C: Into<Cause>,
    {
        let drive = Counted::new(Drive {
            state: AtomicU8::new(IDLE),
            future: UnsafeCell::new(Some(Box::pin(IntoCause(future)))),
            signal: self.0,
        });
        Wake::wake(&drive);
        Box::new(Driven(drive))
    }
}

impl core::fmt::Debug for DoneSignal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DoneSignal").finish_non_exhaustive()
    }
}

impl core::panic::UnwindSafe for DoneSignal {}
impl core::panic::RefUnwindSafe for DoneSignal {}

pub(super) fn below(parent: impl ForeignContext) -> Context {
    let parent: Arc<dyn ForeignContext> = Arc::new(parent);
    let deadline = parent.deadline();
    let tick = deadline.map(clock::at_or_after);
    let handle = Handle::below_foreign(tick, |signal| parent.on_done(DoneSignal(signal)));
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        handle.cancel_with(ContextError::DeadlineExceeded.into());
    }
    let chain = Chain::new(Step::Foreign);
    Context {
        token: Some(handle.into()),
        deadline,
        values: Values::of_foreign(parent, chain),
        chain,
    }
}

/// Nobody is at the future.
const IDLE: u8 = 0;
/// Somebody polls it.
const POLLING: u8 = 1;
/// Somebody polls it, and has to do so again.
const AGAIN: u8 = 2;
/// Nobody will poll it any more; who polls it drops it.
const CLOSED: u8 = 3;

type Waiting = Pin<Box<dyn Future<Output = Cause> + Send>>;

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

/// A future that is polled by whoever wakes it.
struct Drive {
    state: AtomicU8,
    /// Belongs to who has made the state POLLING, or CLOSED from IDLE.
    future: UnsafeCell<Option<Waiting>>,
    signal: Signal,
}

// SAFETY: `future`, the only field that is not Sync, is touched by one thread at a time, as `state`
// says. It is Send.
unsafe impl Sync for Drive {}
// SAFETY: every field is Send.
unsafe impl Send for Drive {}

struct Driven(Counted<Drive>);

impl Drop for Driven {
    fn drop(&mut self) {
        // Acquire: pairs with the release of who polled last. Who polls now and finds it has the future anyway.
        if self.0.state.swap(CLOSED, Acquire) == IDLE {
            self.0.drop_future();
        }
    }
}

impl Wake for Drive {
    fn wake(this: &Counted<Drive>) {
        let mut seen = this.state.load(Relaxed);
        loop {
            let new = match seen {
                IDLE => POLLING,
                CLOSED => return,
                // AGAIN too, and by an RMW: what we have been told of has happened before this step, and who
                // polls next must see it.
                _ => AGAIN,
            };
            // AcqRel: the acquire half takes the future over from who polled last, the release half tells who
            // polls again (`poll`, both) of what has happened. Failure: the next turn exchanges again.
            match this.state.compare_exchange(seen, new, AcqRel, Relaxed) {
                Ok(IDLE) => return unless_unwinding(|| Drive::poll(this)),
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
        // Relaxed: who finds it leaves the future alone.
        self.0.state.store(CLOSED, Relaxed);
        self.0.drop_future();
    }
}

impl Drive {
    fn drop_future(&self) {
        // SAFETY: the caller has it, as `state` says. User code runs after it has been taken out.
        let future = self.future.with_mut(|future| unsafe { (*future).take() });
        unless_unwinding(|| drop(future));
    }

    /// The caller has made the state POLLING.
    fn poll(this: &Counted<Drive>) {
        let waker = waker_of(this.clone());
        let mut cx = task::Context::from_waker(&waker);
        loop {
            let close = Close(this);
            let poll = this.future.with_mut(|future| {
                // SAFETY: POLLING is ours.
                unsafe { (*future).as_mut() }.map(|future| future.as_mut().poll(&mut cx))
            });
            if let Some(Poll::Ready(cause)) = poll {
                // What the future says stands, also if its drop panics.
                let mut panics = Panics::default();
                panics.catch(|| drop(close));
                panics.catch(|| _ = this.signal.cancel(cause));
                return panics.resume();
            }
            mem::forget(close);
            // Release: hands the future on, to `wake` and the drop of `Driven`. Failure: nothing is read.
            match this.state.compare_exchange(POLLING, IDLE, Release, Relaxed) {
                Ok(_) => return,
                Err(AGAIN) => {
                    // Only CLOSED can come in between, and it is found at the next turn's end. Acquire: pairs
                    // with `wake`; the next poll sees what it was woken for.
                    let _ = this
                        .state
                        .compare_exchange(AGAIN, POLLING, Acquire, Relaxed);
                }
                Err(_) => return this.drop_future(),
            }
        }
    }
}
