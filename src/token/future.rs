//! Waiting as a task: futures on a token.

use super::token::CancellationToken;
use crate::tree::waiter::Waiter;
use core::borrow::Borrow;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

/// # Waiting as a task
impl CancellationToken {
    /// Returns a future that is ready when the token is cancelled.
    ///
    /// It holds at most one waker: that of the last poll, until it is dropped. Once ready it
    /// stays ready.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    ///
    /// # Cost
    ///
    /// First poll: 2 RMWs, dropping it 1, or none once it was woken; beside other waiters of the same token the same, at
    /// a child of its own, which takes 1 to drop in any case, or, beside many of them, in a room, where it takes 2 if that was full. To poll again with the same waker: a load. (One whose clones are not the same to look at, by
    /// `Waker::will_wake`, is never the same.)
    #[doc(alias("Done", "select"))]
    #[inline]
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        WaitForCancellationFuture::new(self)
    }

    /// Like [`cancelled`](Self::cancelled), but owns the token.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing but the token.
    #[inline]
    pub fn cancelled_owned(self) -> WaitForCancellationFutureOwned {
        WaitForCancellationFutureOwned::new(self)
    }

    /// Runs the future to its end, or until the token is cancelled: then it returns `None`, and
    /// the future is dropped.
    ///
    /// A token that is cancelled already gives `None` without polling the future; after that, of
    /// a future that is ready and a cancel, the future goes first, also if it became ready after it was polled: when the
    /// token is found cancelled, it is polled once more. (A future of tokio's says that it is not ready when its task has used up
    /// its budget, whatever it has: `tokio::task::unconstrained` around it keeps that from being lost.)
    ///
    /// # Cancel safety
    ///
    /// That of `fut`.
    pub async fn run_until_cancelled<F>(&self, fut: F) -> Option<F::Output>
    where
        F: Future,
    {
        WithCancellationToken::new(fut, self).await
    }

    /// Like [`run_until_cancelled`](Self::run_until_cancelled), but owns the token.
    ///
    /// # Cancel safety
    ///
    /// That of `fut`.
    pub async fn run_until_cancelled_owned<F>(self, fut: F) -> Option<F::Output>
    where
        F: Future,
    {
        WithCancellationTokenOwned::new(fut, self).await
    }
}

/// A future that is ready when the token is cancelled; made by [`CancellationToken::cancelled`].
#[must_use = "futures do nothing unless polled"]
pub struct WaitForCancellationFuture<'a> {
    token: &'a CancellationToken,
    waiter: Waiter,
}

impl<'a> WaitForCancellationFuture<'a> {
    #[inline]
    fn new(token: &'a CancellationToken) -> Self {
        WaitForCancellationFuture {
            token,
            waiter: Waiter::new(),
        }
    }
}

impl Future for WaitForCancellationFuture<'_> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        ready_if(
            this.waiter.poll(this.token.handle(), cx.waker()) || this.token.has_expired_unseen(),
        )
    }
}

impl Drop for WaitForCancellationFuture<'_> {
    #[inline]
    fn drop(&mut self) {
        self.waiter.leave(self.token.handle());
    }
}

impl fmt::Debug for WaitForCancellationFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitForCancellationFuture").finish()
    }
}

/// A future that is ready when the token is cancelled; made by [`CancellationToken::cancelled_owned`].
#[must_use = "futures do nothing unless polled"]
pub struct WaitForCancellationFutureOwned {
    token: CancellationToken,
    waiter: Waiter,
}

impl WaitForCancellationFutureOwned {
    #[inline]
    fn new(token: CancellationToken) -> Self {
        WaitForCancellationFutureOwned {
            token,
            waiter: Waiter::new(),
        }
    }
}

impl Future for WaitForCancellationFutureOwned {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        ready_if(
            this.waiter.poll(this.token.handle(), cx.waker()) || this.token.has_expired_unseen(),
        )
    }
}

impl Drop for WaitForCancellationFutureOwned {
    #[inline]
    fn drop(&mut self) {
        self.waiter.leave(self.token.handle());
    }
}

impl fmt::Debug for WaitForCancellationFutureOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitForCancellationFutureOwned").finish()
    }
}

#[inline]
fn ready_if(cancelled: bool) -> Poll<()> {
    if cancelled {
        Poll::Ready(())
    } else {
        Poll::Pending
    }
}

/// A future and the wait for its cancellation.
struct Either<C, F> {
    cancelled: C,
    /// Pinned when this is.
    future: F,
}

impl<C, F> Either<C, F> {
    fn unless_cancelled<T: Borrow<CancellationToken>>(
        token: T,
        future: F,
        wait: impl FnOnce(T) -> C,
    ) -> Option<Either<C, F>> {
        let live = !token.borrow().is_cancelled();
        live.then(|| Either {
            cancelled: wait(token),
            future,
        })
    }
}

impl<C: Future<Output = ()> + Unpin, F: Future> Either<C, F> {
    /// None stands for "cancelled from the beginning".
    fn poll(this: Pin<&mut Option<Self>>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let Some(this) = this.as_pin_mut() else {
            return Poll::Ready(None);
        };
        // SAFETY: `future` is pinned with `this` and never moved out; it has no other access,
        // `Either` has no Drop, and it is Unpin only where `F` is. The other field is Unpin.
        let (cancelled, mut future) = unsafe {
            let this = this.get_unchecked_mut();
            (&mut this.cancelled, Pin::new_unchecked(&mut this.future))
        };
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        match Pin::new(cancelled).poll(cx) {
            Poll::Pending => Poll::Pending,
            // It may have become ready since it was polled, before the cancel even: what it has is not lost.
            Poll::Ready(()) => Poll::Ready(match future.poll(cx) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            }),
        }
    }
}

/// A future that ends with a token's cancel; made by
/// [`FutureExt::with_cancellation_token`](crate::FutureExt::with_cancellation_token).
#[must_use = "futures do nothing unless polled"]
pub struct WithCancellationToken<'a, F>(Option<Either<WaitForCancellationFuture<'a>, F>>);

impl<'a, F> WithCancellationToken<'a, F> {
    pub(crate) fn new(future: F, token: &'a CancellationToken) -> Self {
        WithCancellationToken(Either::unless_cancelled(token, future, |token| {
            token.cancelled()
        }))
    }
}

impl<F> fmt::Debug for WithCancellationToken<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithCancellationToken")
            .finish_non_exhaustive()
    }
}

impl<F: Future> Future for WithCancellationToken<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the only field is pinned with `self`; there is no Drop and no other access.
        Either::poll(unsafe { self.map_unchecked_mut(|this| &mut this.0) }, cx)
    }
}

/// A future that ends with a token's cancel; made by
/// [`FutureExt::with_cancellation_token_owned`](crate::FutureExt::with_cancellation_token_owned).
#[must_use = "futures do nothing unless polled"]
pub struct WithCancellationTokenOwned<F>(Option<Either<WaitForCancellationFutureOwned, F>>);

impl<F> WithCancellationTokenOwned<F> {
    pub(crate) fn new(future: F, token: CancellationToken) -> Self {
        WithCancellationTokenOwned(Either::unless_cancelled(token, future, |token| {
            token.cancelled_owned()
        }))
    }
}

impl<F> fmt::Debug for WithCancellationTokenOwned<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithCancellationTokenOwned")
            .finish_non_exhaustive()
    }
}

impl<F: Future> Future for WithCancellationTokenOwned<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: as above.
        Either::poll(unsafe { self.map_unchecked_mut(|this| &mut this.0) }, cx)
    }
}
