//! The right to start tasks in a group.

use super::body::Body;
use super::info::Panicked;
use super::inside::is_inside;
use super::limit::Wait;
use super::member::Member;
use super::place::End;
use super::refused::Refused;
use super::task::{Outcome, Tracked};
use crate::context::{Context, Done};
use crate::sync::Panics;
use crate::token::{wait, CancellationToken};
use crate::tree::Cause;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::future::Future;
use core::panic::Location;
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::{self, Poll};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// A handle that can start tasks in a [`Group`](super::Group), for tasks that start tasks, and for code that only brings work.
///
/// Clones start tasks in the same group. A spawner does not keep the group going: when the group is dropped, it is cancelled,
/// and starts are refused.
///
/// ```
/// use cancel_tree::{Context, Group};
/// let group = Group::new(&Context::background());
/// let spawner = group.spawner();
/// group.spawn_thread(move |_ctx| {
///     for part in 0..3 {
///         spawner.spawn_thread(move |_ctx| println!("part {part}")).unwrap();
///     }
/// }).unwrap();
/// group.join_blocking().unwrap(); // of all four
/// ```
pub struct Spawner {
    body: NonNull<Body>,
}

// SAFETY: a counted pointer to what is Send and Sync.
unsafe impl Send for Spawner {}
// SAFETY: as above.
unsafe impl Sync for Spawner {}

// User code runs when the group is in order.
impl core::panic::UnwindSafe for Spawner {}
impl core::panic::RefUnwindSafe for Spawner {}

/// A [`Spawner`] for one task that has a name; made by [`Spawner::named`].
#[must_use = "a name alone starts nothing"]
pub struct Named<'a> {
    spawner: &'a Spawner,
    name: Cow<'static, str>,
}

/// What starts a task, and from where.
pub(crate) struct Start<'a> {
    spawner: &'a Spawner,
    name: Option<Cow<'static, str>>,
    from: &'static Location<'static>,
}

/// # The group
impl Spawner {
    pub(super) fn new(body: NonNull<Body>) -> Spawner {
        Spawner { body }
    }

    pub(super) fn at(&self) -> NonNull<Body> {
        self.body
    }

    #[inline]
    pub(super) fn body(&self) -> &Body {
        // SAFETY: the handle is counted.
        unsafe { self.body.as_ref() }
    }

    /// Returns the group's context: above those of all its tasks.
    pub fn context(&self) -> &Context {
        &self.body().ctx
    }

    /// Returns `true` if the group was closed, joined or shut down, so that no new task is started. (A cancelled group starts
    /// none either.)
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.body().is_closed()
    }

    /// Returns how many tasks there are. They come and go meanwhile, so the number is for logs and gauges.
    ///
    /// Cost: a look at each place, of which there are about as many as there have ever been tasks at once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.body().how_many()
    }

    /// Returns `true` if there are no tasks at this moment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body().is_idle()
    }

    /// For those who may: a spawner alone has no say in that.
    pub(crate) fn set_limit_of_group(&self, tasks: usize) {
        let mut panics = Panics::default();
        self.body().limit.set(tasks).wake(&mut panics);
        panics.resume();
    }

    /// What was called at the end of something has panicked: the group says so, and goes on.
    pub(crate) fn note_panics(&self, of_others: Panics) {
        self.body().failures.note_panics(of_others);
    }

    /// Gives the next task a name, by which a [`Report`](super::Report) calls it, and notes when it begins. Of a task
    /// without a name, a report only knows the place in the source where it was started.
    ///
    /// ```
    /// # use cancel_tree::{Context, Group};
    /// # let group = Group::new(&Context::background());
    /// group.named("flush").spawn_thread(|_ctx| {}).unwrap();
    /// # group.join_blocking().unwrap();
    /// ```
    ///
    /// Cost: an allocation and a reading of the clock; 1 RMW more at the task's end. In a group inside others, the path to it is kept in each
    /// ([`Group::child`](super::Group::child)).
    pub fn named(&self, name: impl Into<Cow<'static, str>>) -> Named<'_> {
        Named {
            spawner: self,
            name: name.into(),
        }
    }

    #[track_caller]
    #[inline]
    pub(crate) fn start(&self) -> Start<'_> {
        Start::new(self, None, Location::caller())
    }
}

impl<'a> Named<'a> {
    #[track_caller]
    #[inline]
    pub(crate) fn start(self) -> Start<'a> {
        Start::new(self.spawner, Some(self.name), Location::caller())
    }
}

impl Clone for Spawner {
    fn clone(&self) -> Spawner {
        self.body().add_handle();
        Spawner { body: self.body }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // SAFETY: the handle is counted, and not used again.
        unsafe { Body::release(self.body) };
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner")
            .field("context", self.context())
            .field("is_closed", &self.is_closed())
            .finish()
    }
}

impl fmt::Debug for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named")
            .field("spawner", self.spawner)
            .field("name", &self.name)
            .finish()
    }
}

/// The same methods for tasks with and without a name.
macro_rules! starting {
    ($self:ident: $by:ty, $simple:ty, [$($own:lifetime)?], $lifetime:lifetime) => {
        /// Takes a place in the group, held until it is dropped or used. For work that is neither a future nor a closure, such as a
        /// connection that was handed over.
        ///
        /// # Errors
        ///
        /// The group is closed, cancelled or full: see [`Refused`].
        ///
        /// Cost: 1 RMW, on the place's own word, once there are empty places.
        #[track_caller]
        #[inline]
        pub fn enter($self: $simple) -> Result<Member, Refused<()>> {
            $self.start().enter()
        }

        /// Wraps a future, which is counted from now until it is ready or dropped. It may be run anywhere. For a task with a
        /// context of its own, use [`track_with`](Self::track_with).
        ///
        /// # Errors
        ///
        /// As for [`enter`](Self::enter), with the future untouched.
        ///
        /// ```
        /// # futures::executor::block_on(async {
        /// use cancel_tree::{Context, Group};
        /// let group = Group::new(&Context::background());
        /// let task = group.track(async { Err::<(), _>("disk full") }).unwrap();
        /// futures::future::join(task, async {
        ///     assert_eq!(group.join().await.unwrap_err().to_string(), "disk full");
        /// }).await;
        /// # });
        /// ```
        ///
        /// Cost: 1 RMW to begin and 1 to end, on the task's own place.
        #[doc(alias = "track_future")]
        #[track_caller]
        #[inline]
        pub fn track<F>($self: $simple, future: F) -> Result<Tracked<F>, Refused<F>>
        where
            F: Future<Output: Outcome>,
        {
            let (member, future) = with_work($self.start().enter(), future)?;
            Ok(member.track(future))
        }

        /// Like [`track`](Self::track), for a future that is given a context of its own, below the group's.
        ///
        /// # Errors
        ///
        /// As for [`enter`](Self::enter); `f` was not called.
        #[track_caller]
        #[inline]
        pub fn track_with<F, T>($self: $simple, f: F) -> Result<Tracked<T>, Refused<F>>
        where
            F: FnOnce(Context) -> T,
            T: Future<Output: Outcome>,
        {
            let start = $self.start();
            let above = start.spawner.context();
            let (member, f) = with_work(start.enter(), f)?;
            member.is_future();
            let future = f(above.child());
            Ok(member.track(future))
        }

        /// Starts a thread that is a task of the group. For the group it is gone when `f` has returned and everything that it owned is
        /// dropped; its thread-locals go after that, as with std's scoped threads.
        ///
        /// # Errors
        ///
        /// As for [`enter`](Self::enter), or no thread could be started; with `f` untouched.
        #[doc(alias("Go", "TryGo"))]
        #[track_caller]
        pub fn spawn_thread<F, R>($self: $simple, f: F) -> Result<(), Refused<F>>
        where
            F: FnOnce(Context) -> R + Send + 'static,
            R: Outcome,
        {
            $self.start().spawn_thread(f, spawn_detached)
        }

        /// Like [`enter`](Self::enter), but waits until there is room under the group's [limit](super::Group::limit), which is given
        /// in order of arrival. The wait ends early with the group, or with `ctx`.
        ///
        /// A task of the same group that calls this is refused at once when there is no room: if all tasks waited for each
        /// other's places, none would ever be free. (This is noticed if the call is made on the task's own stack, and of the
        /// outermost sixteen that run there; but not in another task that a task of the group waits for, and not surely where stacks are
        /// switched on one thread, as by stackful coroutines.)
        ///
        /// # Errors
        ///
        /// As for [`enter`](Self::enter); or `ctx` is done, with its cause.
        ///
        /// # Cancel safety
        ///
        /// Dropping the future gives up the place in the queue, and nothing else.
        #[track_caller]
        pub fn enter_when<$($own,)? 'c>(
            $self: $by,
            ctx: &'c Context,
        ) -> impl Future<Output = Result<Member, Refused<()>>> + Send + use<$lifetime, 'c> {
            $self.start().when(ctx)
        }

        /// Like [`enter_when`](Self::enter_when), but parks the calling thread meanwhile.
        ///
        /// # Errors
        ///
        /// As there.
        #[track_caller]
        pub fn enter_when_blocking($self: $simple, ctx: &Context) -> Result<Member, Refused<()>> {
            let start = $self.start();
            let own = start.spawner.context();
            let first = || ctx.waited_deadline().into_iter().chain(own.waited_deadline()).min();
            block_on_until([ctx, own], first, start.when(ctx))
        }

        /// Like [`track`](Self::track), but waits until there is room: see [`enter_when`](Self::enter_when).
        ///
        /// # Errors
        ///
        /// As there, with the future untouched.
        ///
        /// # Cancel safety
        ///
        /// As there; the future that waits for room is dropped too.
        #[track_caller]
        pub fn track_when<$($own,)? 'c, F>(
            $self: $by,
            ctx: &'c Context,
            future: F,
        ) -> impl Future<Output = Result<Tracked<F>, Refused<F>>> + use<$lifetime, 'c, F>
        where
            F: Future<Output: Outcome>,
        {
            let when = $self.start().when(ctx);
            async move {
                let (member, future) = with_work(when.await, future)?;
                Ok(member.track(future))
            }
        }
    };
}

/// # Starting tasks
///
/// Tasks with a name: [`named`](Self::named).
impl Spawner {
    starting!(self: &'s Self, &Self, ['s], 's);
}

impl<'a> Named<'a> {
    starting!(self: Self, Self, [], 'a);
}

impl<'a> Start<'a> {
    #[inline]
    pub(crate) fn new(
        spawner: &'a Spawner,
        name: Option<Cow<'static, str>>,
        from: &'static Location<'static>,
    ) -> Start<'a> {
        Start {
            spawner,
            name,
            from,
        }
    }

    // Inlined where there is no name: what is handed on by memory costs as much as an RMW.
    #[inline]
    pub(crate) fn enter(self) -> Result<Member, Refused<()>> {
        if self.name.is_none() {
            // SAFETY: the spawner holds it.
            if let Some(place) = unsafe { Body::claim_at_once(self.spawner.body, self.from) } {
                return Ok(Member::new(place));
            }
        }
        self.enter_slowly()
    }

    /// The same, when there is room.
    pub(crate) fn when<'c>(self, ctx: &'c Context) -> When<'a, 'c> {
        let spawner = self.spawner;
        When {
            start: self,
            is_through: false,
            ctx,
            wait: Wait::default(),
            ctx_ends: ctx.done(),
            group_ends: spawner.context().done(),
        }
    }

    /// Starts a thread, by `spawn`, that is a task.
    pub(super) fn spawn_thread<'s, F, R>(
        self,
        f: F,
        spawn: impl FnOnce(thread::Builder, Main<'s>) -> io::Result<()>,
    ) -> Result<(), Refused<F>>
    where
        F: FnOnce(Context) -> R + Send + 's,
        R: Outcome,
    {
        let name = self.name.clone();
        let (member, f) = with_work(self.enter(), f)?;
        member.is_for_thread();
        let run = |(member, f): (Member, F)| member.run(f);
        start_thread(name, (member, f), run, spawn).map_err(|((member, f), cause)| {
            member.end(End::Refused);
            Refused::new(f, cause)
        })
    }

    #[inline(never)]
    fn enter_slowly(self) -> Result<Member, Refused<()>> {
        match self.spawner.body().take_permit() {
            Ok(limited) => self.claim(limited),
            Err(cause) => Err(Refused::new((), cause)),
        }
    }

    /// The permit, if it is limited, is the caller's, and used up.
    fn claim(self, limited: bool) -> Result<Member, Refused<()>> {
        let body = self.spawner.body;
        // SAFETY: the spawner holds it; the permit is the caller's.
        match unsafe { Body::claim(body, limited, self.from, self.name) } {
            Ok(place) => Ok(Member::new(place)),
            Err(cause) => Err(Refused::new((), cause)),
        }
    }
}

/// The place together with the work that it was taken for, which comes back where there is none.
#[inline]
pub(crate) fn with_work<W>(
    entered: Result<Member, Refused<()>>,
    work: W,
) -> Result<(Member, W), Refused<W>> {
    match entered {
        Ok(member) => Ok((member, work)),
        Err(refused) => Err(refused.map(|()| work)),
    }
}

/// Waiting for room.
pub(crate) struct When<'a, 'c> {
    start: Start<'a>,
    is_through: bool,
    ctx: &'c Context,
    wait: Wait,
    ctx_ends: Done<'c>,
    group_ends: Done<'a>,
}

impl<'a> When<'a, '_> {
    fn leave(&mut self) {
        let mut panics = Panics::default();
        let body = self.start.spawner.body();
        self.wait.leave(&body.limit, &mut panics);
        panics.resume();
    }

    /// It is through with that.
    fn start(&mut self) -> Start<'a> {
        self.is_through = true;
        Start {
            name: self.start.name.take(),
            ..self.start
        }
    }

    fn refuse(&mut self, cause: Cause) -> Poll<Result<Member, Refused<()>>> {
        // First, for a waker's drop may panic: then another poll says why.
        self.leave();
        self.is_through = true;
        Poll::Ready(Err(Refused::new((), cause)))
    }
}

impl Future for When<'_, '_> {
    type Output = Result<Member, Refused<()>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let spawner = this.start.spawner;
        let body = spawner.body();
        if this.is_through {
            return this.refuse(super::refused::Closed.into());
        }
        if let Some(cause) = body.why_ended().or_else(|| this.ctx.cause()) {
            return this.refuse(cause);
        }
        if !body.limit.is_set() && this.wait.is_new() {
            return Poll::Ready(this.start().claim(false));
        }
        if this.wait.is_new() && is_inside(spawner.body) {
            return Poll::Ready(this.start().enter());
        }
        // Also where it is the group around that was: that closes no queue in here.
        if this.wait.is_new() && body.is_closed() {
            return this.refuse(super::refused::Closed.into());
        }
        match this.wait.poll(&body.limit, cx.waker()) {
            Poll::Ready(Ok(())) => return Poll::Ready(this.start().claim(true)),
            Poll::Ready(Err(no)) => return this.refuse(body.no_room(no)),
            Poll::Pending => {}
        }
        let mut done = |done: &mut Done<'_>| Pin::new(done).poll(cx).is_ready();
        if done(&mut this.group_ends) || done(&mut this.ctx_ends) {
            let cause = body.why_ended().or_else(|| this.ctx.cause());
            return this.refuse(cause.unwrap_or(super::refused::Closed.into()));
        }
        Poll::Pending
    }
}

impl Drop for When<'_, '_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What a thread runs.
pub(super) type Main<'s> = Box<dyn FnOnce() + Send + 's>;

/// A thread that outlives its caller.
pub(super) fn spawn_detached(builder: thread::Builder, main: Main<'static>) -> io::Result<()> {
    builder.spawn(main).map(drop)
}

/// A thread for `work`; which comes back if there is none to be had. (std drops what it was given then.) `spawn` is one of std's
/// ways to start it: after an error, `main` was not run.
pub(super) fn start_thread<'s, W: Send + 's>(
    name: Option<Cow<'static, str>>,
    work: W,
    run: fn(W),
    spawn: impl FnOnce(thread::Builder, Main<'s>) -> io::Result<()>,
) -> Result<(), (W, Cause)> {
    struct Raw<W>(NonNull<W>);
    // SAFETY: it is the only pointer to what it points to, once the thread is there, and that is Send.
    unsafe impl<W: Send> Send for Raw<W> {}
    impl<W> Raw<W> {
        /// # Safety
        /// Once.
        unsafe fn take(self) -> W {
            // SAFETY: of a Box.
            *unsafe { Box::from_raw(self.0.as_ptr()) }
        }
    }

    // SAFETY: of a Box.
    let raw = unsafe { NonNull::new_unchecked(Box::into_raw(Box::new(work))) };
    let work = Raw(raw);
    let mut builder = thread::Builder::new();
    // The system's names end at a 0.
    if let Some(name) = name.filter(|name| !name.contains('\0')) {
        builder = builder.name(String::from(name));
    }
    let main = Box::new(move || {
        // SAFETY: this thread runs once.
        run(unsafe { work.take() });
    });
    // Up to Rust 1.86 it panics in a thread whose own thread-locals are gone, before there is another one. All that it had
    // is taken back.
    let error = match Panicked::caught("std", || spawn(builder, main)) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(text) => io::Error::other(text),
    };
    // SAFETY: there is no thread, so nobody else takes it.
    Err((unsafe { Raw(raw).take() }, Cause::new(error)))
}

/// Parks the calling thread until the future is ready, which one of the contexts may end; and after the deadline, if there is one: it
/// is polled then, also where there is no timer's thread to wake it.
pub(super) fn block_on_until<F: Future, const N: usize>(
    contexts: [&Context; N],
    deadline: impl Fn() -> Option<Instant>,
    future: F,
) -> F::Output {
    /// A deadline may be moved, or have nothing to say: then it is looked at so often.
    const AGAIN: Duration = Duration::from_millis(20);

    let mut future = core::pin::pin!(future);
    let tokens = contexts.map(|ctx| ctx.token().map(CancellationToken::handle));
    let mut until = deadline();
    loop {
        if let Some(answer) = wait::block_on(&tokens, future.as_mut(), until) {
            return answer;
        }
        until = deadline().map(|deadline| deadline.max(Instant::now() + AGAIN));
    }
}
