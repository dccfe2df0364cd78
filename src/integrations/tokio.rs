//! Tasks of a [`Group`](crate::Group) on tokio (feature `tokio`).
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use cancel_tree::{Cause, Context, Group};
//!
//! let group = Group::new(&Context::background());
//! group.named("watch").spawn(|ctx| async move {
//!     ctx.done().await;
//! }).unwrap();
//! group.spawn(|_ctx| async { Err::<(), _>("backend gone") }).unwrap();
//! assert_eq!(group.join().await.unwrap_err().to_string(), "backend gone");
//! # });
//! ```

use crate::context::Context;
use crate::group::{
    with_work, End, Job, Member, Named, Outcome, Outcomes, Panicked, Refused, Spawner, Start,
};
use crate::sync::{Arc, AtomicBool, Relaxed, UnsafeCell};
use crate::tree::Cause;
use alloc::string::String;
use core::future::Future;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

fn runtime<F>(f: F) -> Result<(Handle, F), Refused<F>> {
    match Handle::try_current() {
        Ok(runtime) => Ok((runtime, f)),
        Err(error) => Err(Refused::new(f, Cause::new(error))),
    }
}

fn run<F, T>(runtime: &Handle, member: Member, f: F)
where
    F: FnOnce(Context) -> T,
    T: Future<Output: Outcome> + Send + 'static,
{
    member.is_future();
    let future = f(member.context());
    drop(runtime.spawn(member.track(future)));
}

/// A job that the runtime has, and may have to give back. Whoever comes first has it.
struct Lent<W> {
    is_taken: AtomicBool,
    job: UnsafeCell<Option<Job<W>>>,
}

// SAFETY: the job, which is Send, goes to one, and nobody else touches it.
unsafe impl<W: Send> Sync for Lent<W> {}

impl<W> Lent<W> {
    fn take(&self) -> Option<Job<W>> {
        // Relaxed: the job was there before the runtime had it, whose queue hands that on; of two one is the first.
        if self.is_taken.swap(true, Relaxed) {
            return None;
        }
        // SAFETY: nobody was here before, or will be.
        self.job.with_mut(|job| unsafe { (*job).take() })
    }
}

/// Where tokio has no thread and gets none, it panics, and keeps what it was given until it gets one: that must do nothing then.
pub(super) fn try_blocking<R: Send + 'static>(
    runtime: &Handle,
    run: impl FnOnce() -> R + Send + 'static,
) -> Result<JoinHandle<R>, String> {
    Panicked::caught("tokio", || runtime.spawn_blocking(run))
}

/// Gives the runtime work for one of its threads for blocking; or says why not.
fn run_blocking<W: Send + 'static>(
    runtime: &Handle,
    member: Member,
    work: W,
    run: impl FnOnce(Job<W>) + Send + 'static,
) -> Result<(), (W, Cause)> {
    let lent = Arc::new(Lent {
        is_taken: AtomicBool::new(false),
        job: UnsafeCell::new(Some(Job::new(member, work))),
    });
    let runs = lent.clone();
    let run = move || _ = runs.take().map(run);
    let Err(why) = try_blocking(runtime, run) else {
        return Ok(());
    };
    // None: another thread has come to it meanwhile.
    let Some((member, work)) = lent.take().and_then(|mut job| job.take()) else {
        return Ok(());
    };
    member.end(End::Refused);
    Err((work, why.into()))
}

fn spawn<F, T>(start: Start<'_>, f: F) -> Result<(), Refused<F>>
where
    F: FnOnce(Context) -> T,
    T: Future<Output: Outcome> + Send + 'static,
{
    let (runtime, f) = runtime(f)?;
    let (member, f) = with_work(start.enter(), f)?;
    run(&runtime, member, f);
    Ok(())
}

fn spawn_blocking<F, R>(start: Start<'_>, f: F) -> Result<(), Refused<F>>
where
    F: FnOnce(Context) -> R + Send + 'static,
    R: Outcome,
{
    let (runtime, f) = runtime(f)?;
    let (member, f) = with_work(start.enter(), f)?;
    let run = |job: Job<F>| job.run(|f, ctx| f(ctx));
    run_blocking(&runtime, member, f, run).map_err(|(f, cause)| Refused::new(f, cause))
}

async fn spawn_when<F, T>(start: Start<'_>, ctx: &Context, f: F) -> Result<(), Refused<F>>
where
    F: FnOnce(Context) -> T,
    T: Future<Output: Outcome> + Send + 'static,
{
    let (runtime, f) = runtime(f)?;
    let (member, f) = with_work(start.when(ctx).await, f)?;
    run(&runtime, member, f);
    Ok(())
}

/// # Starting tasks on tokio, on the runtime of the caller
impl Spawner {
    /// Spawns a task on tokio: the future that `f` makes from a context of its own.
    ///
    /// Cost: beside tokio's own, 2 RMWs for its place, 2 for its context and 2 to ask whether there is a runtime. A task
    /// that needs no context of its own costs the first 2 alone: `tokio::spawn(group.track(future)?)`.
    ///
    /// # Errors
    ///
    /// The group is closed, cancelled or full, or there is no runtime here; `f` was not called.
    #[doc(alias("Go", "TryGo"))]
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce(Context) -> T,
        T: Future<Output: Outcome> + Send + 'static,
    {
        spawn(self.start(), f)
    }

    /// Does the same as [`spawn`](Self::spawn), which never waits for room.
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn try_spawn<F, T>(&self, f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce(Context) -> T,
        T: Future<Output: Outcome> + Send + 'static,
    {
        spawn(self.start(), f)
    }

    /// Runs `f` on one of the runtime's threads for blocking work. If the runtime shuts down before `f` has begun, `f` is dropped, and has left
    /// the group (*forced*).
    ///
    /// Cost: beside tokio's own, those of `spawn`, an allocation and 4 RMWs.
    ///
    /// # Errors
    ///
    /// As for [`spawn`](Self::spawn); or the runtime has no thread for it, and gets none. tokio panics then, which is caught: a panic hook
    /// is told of it, and a program that aborts at panics ends.
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce(Context) -> R + Send + 'static,
        R: Outcome,
    {
        spawn_blocking(self.start(), f)
    }

    /// Like [`spawn`](Self::spawn), but waits until there is room: see [`enter_when`](Self::enter_when).
    ///
    /// # Errors
    ///
    /// As there; `f` was not called.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, and `f`.
    #[track_caller]
    pub fn spawn_when<'a, F, T>(
        &'a self,
        ctx: &'a Context,
        f: F,
    ) -> impl Future<Output = Result<(), Refused<F>>> + use<'a, F, T>
    where
        F: FnOnce(Context) -> T,
        T: Future<Output: Outcome> + Send + 'static,
    {
        spawn_when(self.start(), ctx, f)
    }
}

/// # Starting tasks on tokio, on the runtime of the caller
impl<'a> Named<'a> {
    /// Like [`Spawner::spawn`].
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce(Context) -> T,
        T: Future<Output: Outcome> + Send + 'static,
    {
        spawn(self.start(), f)
    }

    /// Like [`Spawner::spawn_blocking`].
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn spawn_blocking<F, R>(self, f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce(Context) -> R + Send + 'static,
        R: Outcome,
    {
        spawn_blocking(self.start(), f)
    }

    /// Like [`Spawner::spawn_when`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    #[track_caller]
    pub fn spawn_when<F, T>(
        self,
        ctx: &'a Context,
        f: F,
    ) -> impl Future<Output = Result<(), Refused<F>>> + use<'a, F, T>
    where
        F: FnOnce(Context) -> T,
        T: Future<Output: Outcome> + Send + 'static,
    {
        spawn_when(self.start(), ctx, f)
    }
}

/// On the runtime of the caller (feature `tokio`).
impl<T: Send + 'static> Outcomes<T> {
    /// Like [`Spawner::spawn`], with the outcome for [`next`](Self::next).
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # use cancel_tree::{Cause, Context, Group};
    /// # let group = Group::new(&Context::background());
    /// let mut sizes = group.outcomes();
    /// for text in ["tea", "coffee"] {
    ///     sizes.spawn(move |_ctx| async move { Ok::<_, Cause>(text.len()) }).unwrap();
    /// }
    /// let mut total = 0;
    /// while let Some(size) = sizes.next().await {
    ///     total += size.unwrap();
    /// }
    /// assert_eq!(total, 9);
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As there; then there is no outcome.
    #[track_caller]
    pub fn spawn<F, Fut, E>(&self, f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce(Context) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Cause> + 'static,
    {
        let (runtime, f) = runtime(f)?;
        let (member, f) = with_work(self.spawner().enter(), f)?;
        run(&runtime, member, |ctx| self.telling(f(ctx)));
        Ok(())
    }

    /// Like [`Spawner::spawn_blocking`], with the outcome for [`next`](Self::next). If the runtime shuts down before `f` has begun,
    /// that is an error here.
    ///
    /// # Errors
    ///
    /// As there; then there is no outcome.
    #[track_caller]
    pub fn spawn_blocking<F, E>(&self, f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce(Context) -> Result<T, E> + Send + 'static,
        E: Into<Cause> + 'static,
    {
        let (runtime, f) = runtime(f)?;
        let (member, f) = with_work(self.spawner().enter(), f)?;
        // Dropped unrun, the work goes first, and then the word on it.
        let work = (f, self.teller());
        let started = run_blocking(&runtime, member, work, |job| {
            job.run(|(f, teller), ctx| teller.tell(f(ctx).map_err(Into::into)));
        });
        started.map_err(|((f, teller), cause)| {
            self.call_off(teller);
            Refused::new(f, cause)
        })
    }
}
