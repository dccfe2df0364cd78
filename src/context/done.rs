//! Waiting for a context as a task.

use super::Context;
use crate::timer;
use crate::tree::waiter::Waiter;
use crate::tree::{Cause, ContextError};
use core::fmt;
use core::future::{poll_fn, Future};
use core::pin::{pin, Pin};
use core::task::{self, Poll, Waker};
use std::time::Duration;

/// # Waiting as a task
impl Context {
    /// Returns a future that is ready when the context is done, with the error.
    ///
    /// Once ready it stays ready. It holds one waker at most.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    #[doc(alias("Done", "select"))]
    pub fn done(&self) -> Done<'_> {
        Done::new(self)
    }

    /// Like [`done`](Self::done), but owns the context.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing but the context.
    pub fn done_owned(self) -> DoneOwned {
        DoneOwned::new(self)
    }

    /// Like [`done_owned`](Self::done_owned), without an output: what a server's graceful shutdown takes, as axum's `with_graceful_shutdown` or tonic's `serve_with_shutdown`.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use cancel_tree::Context;
    /// # use std::future::Future;
    /// async fn serve(shutdown: impl Future<Output = ()> + Send + 'static) {
    ///     shutdown.await;
    /// }
    ///
    /// let (ctx, guard) = Context::background().with_cancel();
    /// let server = serve(ctx.clone().cancelled_owned());
    /// guard.cancel();
    /// server.await;
    /// # });
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing but the context.
    pub fn cancelled_owned(self) -> CancelledOwned {
        CancelledOwned::new(self)
    }

    /// Runs a future until it is ready or the context is done. If both are, the future goes first, also if it became
    /// ready after it was polled: when the context is found done, it is polled once more. A context that is done at
    /// the first poll does not poll it. What tokio's budget holds back is not ready: see
    /// [`CancellationToken::run_until_cancelled`](crate::CancellationToken::run_until_cancelled).
    ///
    /// It drops the future, which is not the task: a task goes on when its `JoinHandle` is dropped, so `ctx.run(tokio::spawn(work))` returns,
    /// and `work` is not stopped. Write `tokio::spawn(async move { ctx.run(work).await })`.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use cancel_tree::{Context, ContextError};
    /// # use std::time::Duration;
    /// let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(5));
    /// let never = std::future::pending::<()>();
    /// assert_eq!(ctx.run(never).await, Err(ContextError::DeadlineExceeded));
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// The context was done first. The future is dropped then.
    ///
    /// # Panics
    ///
    /// When the future does; or if it is polled again after it was ready.
    ///
    /// # Cancel safety
    ///
    /// That of the future.
    #[doc(alias("select", "run_until_cancelled"))]
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, ContextError> {
        run(self, future).await
    }

    /// Like [`run`](Self::run), but the error is the cause.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use cancel_tree::Context;
    /// let (ctx, guard) = Context::background().with_cancel();
    /// guard.cancel_with("the page was closed");
    /// let never = std::future::pending::<()>();
    /// assert_eq!(ctx.run_or_cause(never).await.unwrap_err().to_string(), "the page was closed");
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// The context was done first. The future is dropped then.
    ///
    /// # Panics
    ///
    /// When the future does; or if it is polled again after it was ready.
    ///
    /// # Cancel safety
    ///
    /// That of the future.
    pub async fn run_or_cause<F: Future>(&self, future: F) -> Result<F::Output, Cause> {
        let outcome = run(self, future).await;
        outcome.map_err(|error| self.cause_or(error))
    }

    /// Returns a future that is ready after `duration`, or when the context is done. For tasks of any runtime; it uses this crate's own timer. Threads use
    /// [`blocking_sleep`](Self::blocking_sleep).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use cancel_tree::Context;
    /// # use std::time::Duration;
    /// let ctx = Context::background();
    /// assert_eq!(ctx.sleep(Duration::from_millis(1)).await, Ok(()));
    /// # });
    /// ```
    ///
    /// The time counts from the call, not from the first poll. Once ready it stays ready.
    ///
    /// # Errors
    ///
    /// The context is done: before the time was over, or since then, but before the caller looked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing, and leaves nothing.
    pub fn sleep(
        &self,
        duration: Duration,
    ) -> impl Future<Output = Result<(), ContextError>> + Send + Sync + '_ {
        let (nap, guard) = self.with_timeout(duration);
        let mut nap = Some((nap.done_owned(), guard));
        poll_fn(move |cx| {
            if let Some((done, _guard)) = &mut nap {
                if Pin::new(done).poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            nap = None;
            Poll::Ready(self.check())
        })
    }
}

/// A future that is ready when the context is done; made by [`Context::done`].
#[must_use = "futures do nothing unless polled"]
pub struct Done<'a> {
    ctx: &'a Context,
    waiter: Waiter,
}

/// A future that is ready when the context is done; made by [`Context::done_owned`].
#[must_use = "futures do nothing unless polled"]
pub struct DoneOwned {
    ctx: Context,
    waiter: Waiter,
}

/// A future that is ready when the context is done, with no output; made by [`Context::cancelled_owned`].
#[must_use = "futures do nothing unless polled"]
pub struct CancelledOwned(DoneOwned);

fn poll(ctx: &Context, waiter: &mut Waiter, waker: &Waker) -> Poll<ContextError> {
    timer::look();
    let Some(token) = &ctx.token else {
        return Poll::Pending;
    };
    if waiter.poll(token.handle(), waker) || ctx.has_expired_unseen(token.handle()) {
        if let Some(error) = ctx.err() {
            return Poll::Ready(error);
        }
    }
    Poll::Pending
}

fn leave(ctx: &Context, waiter: &mut Waiter) {
    if let Some(token) = &ctx.token {
        waiter.leave(token.handle());
    }
}

impl<'a> Done<'a> {
    pub(super) fn new(ctx: &'a Context) -> Done<'a> {
        let waiter = Waiter::new();
        Done { ctx, waiter }
    }
}

impl DoneOwned {
    pub(super) fn new(ctx: Context) -> DoneOwned {
        let waiter = Waiter::new();
        DoneOwned { ctx, waiter }
    }

    /// Waits no more, until it is polled again: the next canceller does not wake it.
    #[inline]
    pub(crate) fn leave(&mut self) {
        leave(&self.ctx, &mut self.waiter);
    }

    /// What it waits for.
    pub(crate) fn context(&self) -> &Context {
        &self.ctx
    }
}

impl CancelledOwned {
    pub(super) fn new(ctx: Context) -> CancelledOwned {
        CancelledOwned(DoneOwned::new(ctx))
    }
}

impl Future for Done<'_> {
    type Output = ContextError;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<ContextError> {
        let this = &mut *self;
        poll(this.ctx, &mut this.waiter, cx.waker())
    }
}

impl Future for DoneOwned {
    type Output = ContextError;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<ContextError> {
        let this = &mut *self;
        poll(&this.ctx, &mut this.waiter, cx.waker())
    }
}

impl Future for CancelledOwned {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

impl Drop for Done<'_> {
    #[inline]
    fn drop(&mut self) {
        leave(self.ctx, &mut self.waiter);
    }
}

impl Drop for DoneOwned {
    #[inline]
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Done").field(self.ctx).finish()
    }
}

impl fmt::Debug for DoneOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DoneOwned").field(self.context()).finish()
    }
}

impl fmt::Debug for CancelledOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ctx = self.0.context();
        f.debug_tuple("CancelledOwned").field(ctx).finish()
    }
}

pub(super) async fn run<F: Future>(ctx: &Context, future: F) -> Result<F::Output, ContextError> {
    ctx.check()?;
    let mut future = pin!(future);
    let mut done = pin!(ctx.done());
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match done.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            // It may have become ready since it was polled, before the cancel even: what it has is not lost.
            Poll::Ready(error) => Poll::Ready(match future.as_mut().poll(cx) {
                Poll::Ready(output) => Ok(output),
                Poll::Pending => Err(error),
            }),
        }
    })
    .await
}
