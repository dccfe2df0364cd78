//! Waiting for a context as a task.

use super::Context;
use crate::timer;
use crate::tree::waiter::Waiter;
use crate::tree::ContextError;
use core::fmt;
use core::future::{poll_fn, Future};
use core::pin::{pin, Pin};
use core::task::{self, Poll, Waker};

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
    #[cfg(feature = "tower")]
    pub(crate) fn leave(&mut self) {
        leave(&self.ctx, &mut self.waiter);
    }

    /// What it waits for.
    #[cfg(feature = "tower")]
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
        leave(&self.ctx, &mut self.waiter);
    }
}

impl fmt::Debug for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Done").field(self.ctx).finish()
    }
}

impl fmt::Debug for DoneOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DoneOwned").field(&self.ctx).finish()
    }
}

impl fmt::Debug for CancelledOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelledOwned").field(&self.0.ctx).finish()
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
