//! Callbacks: `on_cancel`, and the ways to unregister one.

use super::token::CancellationToken;
#[cfg(feature = "std")]
use crate::sync::Panics;
use crate::sync::UnsafeCell;
use crate::sync::{
    thread, unless_unwinding, Acquire, Arc, AtomicBool, AtomicUsize, OfUser, OneWaiter, Relaxed,
    Release,
};
#[cfg(feature = "std")]
use crate::timer::job::Job;
use crate::tree::telling::{telling, Told};
use crate::tree::waiter::{Entry, Turn};
use crate::tree::{Cause, Handle};
use alloc::boxed::Box;
use core::fmt;
use core::future::Future;
use core::mem::ManuallyDrop;
use core::pin::Pin;
use core::ptr;
#[cfg(feature = "std")]
use core::ptr::NonNull;
use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

/// # Callbacks
impl CancellationToken {
    /// Calls `f` when the token is cancelled: on the cancelling thread, after all state below
    /// is set, in no particular order among callbacks; at once and on this thread if the
    /// token is cancelled already. It runs once at most.
    ///
    /// The returned [`Registration`] can unregister `f`. Dropping it leaves `f` registered, also after
    /// the last handle of this token is gone, as long as something above can still be cancelled.
    /// Then `f` is dropped without running. (On a token of [`any_of`](Self::any_of) it stays until a
    /// source is cancelled.)
    ///
    /// `f` may do anything: cancel, create, drop, wait. But `cancel()` returns only after it: if `f` takes a lock that the
    /// canceller holds, never. A token that `f` owns keeps its
    /// tree alive as long as `f` is registered. A cancel inside `f` of what is not cancelled yet has run its own callbacks when it returns: if that
    /// one's callback cancels the next one, and so on, they nest on the stack, about a KiB for each.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// # use std::sync::mpsc;
    /// let token = CancellationToken::new();
    /// let (say, hear) = mpsc::channel();
    /// let registration = token.on_cancel(move || say.send("stopping").unwrap());
    /// token.cancel();
    /// assert_eq!(hear.recv(), Ok("stopping"));
    /// assert!(!registration.stop()); // too late
    /// ```
    ///
    /// # Panics
    ///
    /// If the token is cancelled already, with the panic of `f`; if this thread is unwinding, that is swallowed.
    ///
    /// # Cost
    ///
    /// A child (1 RMW), 2 RMWs to count and to arm the callback, two allocations. At a token that is cancelled, the climb of
    /// [`cause`](CancellationToken::cause) and the call.
    #[doc(alias("Register", "stop_callback", "AfterFunc"))]
    pub fn on_cancel<F>(&self, f: F) -> Registration
    where
        F: FnOnce() + Send + 'static,
    {
        self.has_expired_unseen();
        Registration::new(self.handle(), f)
    }

    /// Like [`on_cancel`](Self::on_cancel), but passes the cause to `f`, so that `f` need not own a token to ask for it
    /// (which would keep that token's tree alive).
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// # use std::sync::mpsc;
    /// let token = CancellationToken::new();
    /// let (say, hear) = mpsc::channel();
    /// let registration = token.on_cancel_with(move |cause| say.send(cause.to_string()).unwrap());
    /// token.cancel_with("the page was closed");
    /// assert_eq!(hear.recv().unwrap(), "the page was closed");
    /// # drop(registration);
    /// ```
    ///
    /// # Panics
    ///
    /// As `on_cancel`.
    ///
    /// # Cost
    ///
    /// That of `on_cancel`, two allocations, and 1 RMW.
    pub fn on_cancel_with<F>(&self, f: F) -> Registration
    where
        F: FnOnce(Cause) + Send + 'static,
    {
        self.has_expired_unseen();
        Registration::with_cause(self.handle(), f)
    }

    /// For what wakes those that wait by other means: as `on_cancel`, but `f` runs when tasks and threads are woken, before
    /// the first callback, which may wait for them.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn on_wake<F>(&self, f: F) -> Registration
    where
        F: FnOnce() + Send + 'static,
    {
        self.has_expired_unseen();
        Registration::woken(self.handle(), f)
    }
}

/// A registered callback, and the right to unregister it; made by
/// [`CancellationToken::on_cancel`](crate::CancellationToken::on_cancel).
///
/// Dropping it leaves the callback registered, also where it is a field of something that is dropped, of which the
/// compiler cannot warn. A struct that registers a callback about itself, over and over with each one that is made,
/// leaves one in the tree each time, with what it owns, until something at the token or above it is cancelled or gone. So such a struct keeps a
/// [`StopOnDrop`] in place of the registration, or a `StopAndWaitOnDrop` (with std) if nothing may run after it:
///
/// ```
/// use cancel_tree::{CancellationToken, StopOnDrop};
/// # fn close(_: u32) {}
///
/// struct Connection {
///     number: u32,
///     _close: StopOnDrop, // not a `Registration`
/// }
///
/// impl Connection {
///     fn new(server: &CancellationToken, number: u32) -> Connection {
///         let close = server.on_cancel(move || close(number));
///         Connection { number, _close: close.stop_on_drop() }
///     }
/// }
/// # let server = CancellationToken::new();
/// # assert_eq!(Connection::new(&server, 7).number, 7);
/// ```
///
/// Three ways to unregister differ in what they do
/// when the callback is running at that moment: [`stop`](Self::stop) returns,
/// [`stop_and_wait`](Self::stop_and_wait) blocks until it is over,
/// [`stop_async`](Self::stop_async) is ready when it is over.
#[must_use = "dropping a registration leaves the callback registered; say so with `drop`, or keep it"]
pub struct Registration {
    entry: Option<Entry>,
    callback: Arc<Callback>,
}

type Function = OfUser<Box<dyn FnOnce() + Send>>;

/// What the slot in the tree and the registration share.
#[repr(C)]
pub(crate) struct Callback {
    /// For a worker, if it is to run there.
    #[cfg(feature = "std")]
    job: Job,
    /// Taken by the thread that took the waker out of the slot.
    function: UnsafeCell<Option<Function>>,
    /// The number of the thread that runs it.
    runner: AtomicUsize,
    finished: AtomicBool,
    /// Runs on a worker, not on the thread that cancels.
    #[cfg_attr(not(feature = "std"), allow(dead_code))]
    off_thread: bool,
    /// The one that waits for `finished`.
    waiting: OneWaiter,
}

// SAFETY: `function`, the only field that is not Sync, is touched by one thread at a time: the one
// that owns the waker (see `VTABLE`). It is Send.
unsafe impl Sync for Callback {}
// SAFETY: every field is Send.
unsafe impl Send for Callback {}

/// A callback as a waker: waking it runs it. The data is a counted pointer of the `Callback`.
/// The slot's waker is never cloned, so there is one owner of `function` at any time.
static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |_| unreachable!("a slot's waker is not cloned"),
    // SAFETY: waking consumes the waker, so its count is ours.
    |data| Callback::start(unsafe { Callback::from_data(data) }),
    |_| unreachable!("a slot's waker is consumed"),
    // SAFETY: dropping the waker gives its count back.
    |data| drop(unsafe { Callback::from_data(data) }),
);

impl Callback {
    fn waker(this: Arc<Callback>) -> Waker {
        let raw = RawWaker::new(Arc::into_raw(this).cast(), &VTABLE);
        // SAFETY: the tree moves a slot's waker between threads, wakes or drops it once, and does
        // nothing else with it; the table serves that.
        unsafe { Waker::from_raw(raw) }
    }

    /// # Safety
    /// `data` is a waker's, and the waker is used up.
    unsafe fn from_data(data: *const ()) -> Arc<Callback> {
        // SAFETY: made by `Arc::into_raw` in `waker`.
        unsafe { Arc::from_raw(data.cast()) }
    }

    /// The token is cancelled.
    fn start(this: Arc<Callback>) {
        #[cfg(feature = "std")]
        if this.off_thread {
            // The pointer of the Arc, for the job's sake: it may be used for all of the callback.
            let raw = Arc::into_raw(this).cast_mut();
            // SAFETY: the count is the job's, and the first field is where the callback is.
            return unsafe { crate::timer::run_on_worker(NonNull::new_unchecked(raw).cast()) };
        }
        this.run();
    }

    /// # Safety
    /// `job` is a callback's that `start` has given to a worker.
    #[cfg(feature = "std")]
    unsafe fn run_job(job: NonNull<Job>) {
        // SAFETY: the count that `start` gave away, of the callback that the job is the first field of.
        let this = unsafe { Arc::<Callback>::from_raw(job.cast().as_ptr()) };
        let mut panics = Panics::default();
        panics.catch(|| this.run());
        panics.catch(|| drop(this));
        panics.resume();
    }

    /// Runs the function. The caller has consumed the waker.
    fn run(&self) {
        /// Tells the one that waits, also if the function panics.
        struct Finish<'a>(&'a Callback);
        impl Drop for Finish<'_> {
            fn drop(&mut self) {
                // Release: pairs with the Acquire of `has_finished`.
                self.0.finished.store(true, Release);
                // User code, of which the function's panic may be on its way.
                unless_unwinding(|| self.0.waiting.wake());
            }
        }
        let function = self.take_function();
        // Relaxed: only this thread itself can find its own number here.
        self.runner.store(thread::me(), Relaxed);
        let _finish = Finish(self);
        if let Some(function) = function {
            function.into_inner()();
        }
    }

    fn take_function(&self) -> Option<Function> {
        // SAFETY: the caller has consumed the waker, of which there is one.
        self.function.with_mut(|f| unsafe { (*f).take() })
    }

    fn has_finished(&self) -> bool {
        // Acquire: what the callback did is visible to whoever has waited for it.
        self.finished.load(Acquire)
    }

    /// Whether the calling thread is inside the function.
    fn is_running_here(&self) -> bool {
        let me = thread::me();
        // Relaxed: see `run`.
        me != thread::NOBODY && self.runner.load(Relaxed) == me
    }
}

impl Registration {
    /// On the thread that cancels.
    pub(crate) fn new<F>(token: &Handle, f: F) -> Registration
    where
        F: FnOnce() + Send + 'static,
    {
        let f: Function = OfUser::new(Box::new(f));
        Registration::with(token, f, false, Turn::Called, |waker| waker)
    }

    /// On the thread that cancels, when tasks and threads are woken: for what wakes those that wait by other means.
    #[allow(dead_code)] // It depends on the features which of these there are.
    pub(crate) fn woken<F>(token: &Handle, f: F) -> Registration
    where
        F: FnOnce() + Send + 'static,
    {
        let f: Function = OfUser::new(Box::new(f));
        Registration::with(token, f, false, Turn::Woken, |waker| waker)
    }

    /// On the thread that cancels, with the cause.
    pub(crate) fn with_cause<F>(token: &Handle, f: F) -> Registration
    where
        F: FnOnce(Cause) + Send + 'static,
    {
        Registration::told(token, f, false)
    }

    fn told<F>(token: &Handle, f: F, off_thread: bool) -> Registration
    where
        F: FnOnce(Cause) + Send + 'static,
    {
        let told = Told::new();
        let cell = told.clone();
        let f = move || {
            // SAFETY: this is the callback, and its waker is made with the cell below.
            let cause = unsafe { cell.take() };
            f(cause.unwrap_or_else(|| unreachable!("told before it is woken")));
        };
        let f: Function = OfUser::new(Box::new(f));
        let turn = Turn::Called;
        Registration::with(token, f, off_thread, turn, |waker| telling(waker, told))
    }

    /// On a worker thread.
    #[cfg(feature = "std")]
    pub(crate) fn off_thread<F>(token: &Handle, f: F) -> Registration
    where
        F: FnOnce() + Send + 'static,
    {
        let f: Function = OfUser::new(Box::new(f));
        Registration::with(token, f, true, Turn::Called, |waker| waker)
    }

    /// On a worker thread, with the cause.
    #[cfg(feature = "std")]
    pub(crate) fn off_thread_with_cause<F>(token: &Handle, f: F) -> Registration
    where
        F: FnOnce(Cause) + Send + 'static,
    {
        Registration::told(token, f, true)
    }

    fn with(
        token: &Handle,
        f: Function,
        off_thread: bool,
        turn: Turn,
        wrap: impl FnOnce(Waker) -> Waker,
    ) -> Registration {
        #[cfg(feature = "std")]
        crate::timer::look();
        let callback = Arc::new(Callback {
            function: UnsafeCell::new(Some(f)),
            runner: AtomicUsize::new(thread::NOBODY),
            finished: AtomicBool::new(false),
            waiting: OneWaiter::default(),
            #[cfg(feature = "std")]
            job: Job::new(Callback::run_job),
            off_thread,
        });
        match Entry::new(token, wrap(Callback::waker(callback.clone())), turn) {
            Ok(entry) => Registration {
                entry: Some(entry),
                callback,
            },
            Err(waker) => {
                // Cancelled already: at once, here.
                unless_unwinding(|| waker.wake());
                Registration {
                    entry: None,
                    callback,
                }
            }
        }
    }

    /// Unregisters the callback, without waiting. Returns `true` if it has not run and never will, `false` if it has
    /// run, is running, or is about to (a canceller has taken it, or a worker has been given it).
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let token = CancellationToken::new();
    /// let registration = token.on_cancel(|| panic!("not wanted any more"));
    /// assert!(registration.stop());
    /// token.cancel();
    /// ```
    ///
    /// Cost: 5 RMWs, 3 of them of the `Arc` that the callback is in.
    pub fn stop(mut self) -> bool {
        self.take_out()
    }

    fn take_out(&mut self) -> bool {
        let Some(waker) = self.entry.take().and_then(Entry::take) else {
            return false;
        };
        // User code: what the function owns is dropped here.
        let function = self.callback.take_function();
        drop(waker);
        drop(function);
        true
    }

    /// Unregisters the callback; if it is running, or is about to (a cancel has taken it, or a worker is to run it), blocks until
    /// it is over. Called from inside the callback it does not wait. Returns `true` if it has not run and never will.
    ///
    /// In the child of a `fork` there are no workers: there, of an `after_func` callback whose context is done, it does not return.
    ///
    /// Two callbacks that run on two threads and wait here for each other wait for ever.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let token = CancellationToken::new();
    /// let registration = token.on_cancel(|| ());
    /// token.cancel();
    /// assert!(!registration.stop_and_wait());
    /// ```
    #[cfg(feature = "std")]
    pub fn stop_and_wait(mut self) -> bool {
        self.take_out_and_wait()
    }

    #[cfg(feature = "std")]
    fn take_out_and_wait(&mut self) -> bool {
        if self.take_out() {
            return true;
        }
        if !self.callback.is_running_here() {
            super::wait::until_done(&[], None, |waker| self.poll_finished(waker));
        }
        false
    }

    fn poll_finished(&self, waker: &Waker) -> bool {
        if self.callback.has_finished() {
            return true;
        }
        self.callback.waiting.register(waker);
        self.callback.has_finished()
    }

    /// Unregisters the callback; if it is running or about to, as said at [`stop_and_wait`](Self#method.stop_and_wait), the future
    /// is ready when it is over. Its output is `true` if it has not run and never will. The callback is unregistered at the call, not
    /// at the first poll.
    ///
    /// Inside the callback it does not wait: the output is `false`. (Without the feature `std`, where the program is built with
    /// `panic = "abort"` or for a system that has no threads, threads can't be told apart. There a callback must not wait for
    /// this future.)
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only gives up waiting.
    pub fn stop_async(mut self) -> impl Future<Output = bool> + Send + Sync + Unpin {
        let stopped = self.take_out();
        Stopped {
            stopped,
            registration: self,
        }
    }

    /// Returns a guard that unregisters the callback when it is dropped, as [`stop`](Self::stop) does.
    ///
    /// Locals are dropped in the reverse order of their declaration: one that is declared before a
    /// guard that cancels goes after it, when the callback has run.
    pub fn stop_on_drop(self) -> StopOnDrop {
        StopOnDrop { registration: self }
    }

    /// Returns a guard that unregisters the callback when it is dropped and, if it is running or about to, blocks until it is over, as
    /// [`stop_and_wait`](Self::stop_and_wait) does. After the guard's scope the callback does not run. (C++'s
    /// `std::stop_callback`.)
    ///
    /// Dropping the guard may block the thread: in tasks, use [`stop_async`](Self::stop_async).
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// # use std::sync::atomic::{AtomicBool, Ordering};
    /// # use std::sync::Arc;
    /// let token = CancellationToken::new();
    /// let closed = Arc::new(AtomicBool::new(false));
    /// {
    ///     let closed = closed.clone();
    ///     let close = token.on_cancel(move || closed.store(true, Ordering::Relaxed));
    ///     let _guard = close.stop_and_wait_on_drop();
    ///     // … what may be closed
    /// }
    /// token.cancel();
    /// assert!(!closed.load(Ordering::Relaxed));
    /// ```
    #[cfg(feature = "std")]
    pub fn stop_and_wait_on_drop(self) -> StopAndWaitOnDrop {
        StopAndWaitOnDrop { registration: self }
    }
}

/// Leaves the callback registered.
#[cfg(feature = "std")]
impl Drop for Registration {
    fn drop(&mut self) {
        // The callback may wait for a thread that could not be started when it was handed over.
        crate::timer::look();
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("finished", &self.callback.has_finished())
            .finish()
    }
}

// The registration itself is only an entry in the tree and a shared record, both in order
// whenever user code runs.
impl core::panic::UnwindSafe for Registration {}
impl core::panic::RefUnwindSafe for Registration {}

struct Stopped {
    stopped: bool,
    registration: Registration,
}

impl Future for Stopped {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.stopped {
            return Poll::Ready(true);
        }
        // Inside the callback it would wait for itself.
        if self.registration.callback.is_running_here()
            || self.registration.poll_finished(cx.waker())
        {
            return Poll::Ready(false);
        }
        Poll::Pending
    }
}

/// Unregisters a callback when dropped, without waiting; made by [`Registration::stop_on_drop`].
#[derive(Debug)]
#[must_use = "a guard that is dropped at once unregisters at once"]
pub struct StopOnDrop {
    registration: Registration,
}

impl StopOnDrop {
    /// Gives the registration back: the callback stays.
    pub fn disarm(self) -> Registration {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped after its only field was moved out.
        unsafe { ptr::read(&this.registration) }
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.registration.take_out();
    }
}

/// Unregisters a callback when dropped, and waits for its end if it is running; made by
/// [`Registration::stop_and_wait_on_drop`].
///
/// Dropped inside the callback it does not wait.
#[cfg(feature = "std")]
#[derive(Debug)]
#[must_use = "a guard that is dropped at once unregisters at once"]
pub struct StopAndWaitOnDrop {
    registration: Registration,
}

#[cfg(feature = "std")]
impl StopAndWaitOnDrop {
    /// Gives the registration back: the callback stays.
    pub fn disarm(self) -> Registration {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped after its only field was moved out.
        unsafe { ptr::read(&this.registration) }
    }
}

#[cfg(feature = "std")]
impl Drop for StopAndWaitOnDrop {
    fn drop(&mut self) {
        self.registration.take_out_and_wait();
    }
}
