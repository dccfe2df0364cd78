//! Adapters in the form in which tokio-util has them. Here, for two of them call tokio, and a trait is in one file; in every
//! build, for the others need no other crate.

use crate::token::{CancellationToken, WithCancellationToken, WithCancellationTokenOwned};
use core::future::Future;

/// Adapters for futures; the counterpart of `tokio_util::future::FutureExt`.
///
/// A file imports one of the two traits: where both are in scope, a call of any of these methods is ambiguous (E0034),
/// for both traits are there for every future. Where both are needed, import one and call the other by its path:
/// `cancel_tree::FutureExt::with_cancellation_token(future, &token)`.
pub trait FutureExt: Future {
    /// Calls [`tokio::time::timeout`], for a chain of calls (feature `tokio`).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use cancel_tree::FutureExt;
    /// use std::time::Duration;
    ///
    /// let never = std::future::pending::<()>();
    /// assert!(never.timeout(Duration::from_millis(5)).await.is_err());
    /// # });
    /// ```
    ///
    /// # Panics
    ///
    /// If called outside of a tokio runtime with its time driver enabled.
    ///
    /// # Cancel safety
    ///
    /// That of the future.
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    #[track_caller]
    fn timeout(self, timeout: core::time::Duration) -> tokio::time::Timeout<Self>
    where
        Self: Sized,
    {
        tokio::time::timeout(timeout, self)
    }

    /// Calls [`tokio::time::timeout_at`], for a chain of calls (feature `tokio`).
    ///
    /// # Panics
    ///
    /// If called outside of a tokio runtime with its time driver enabled.
    ///
    /// # Cancel safety
    ///
    /// That of the future.
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    fn timeout_at(self, deadline: tokio::time::Instant) -> tokio::time::Timeout<Self>
    where
        Self: Sized,
    {
        tokio::time::timeout_at(deadline, self)
    }

    /// Returns the future's output, or `None` once the token is cancelled: as
    /// [`CancellationToken::run_until_cancelled`], for a chain of calls.
    ///
    /// A token that is cancelled at the call gives `None` without polling the future, which is
    /// dropped there; after that, of a future that is ready and a cancel, the future goes first, also if it became ready
    /// after it was polled: when the token is found cancelled, it is polled once more. What tokio's budget holds back is not ready:
    /// see [`CancellationToken::run_until_cancelled`].
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use cancel_tree::{CancellationToken, FutureExt};
    /// let token = CancellationToken::new();
    /// assert_eq!(async { 5 }.with_cancellation_token(&token).await, Some(5));
    /// token.cancel();
    /// assert_eq!(async { 5 }.with_cancellation_token(&token).await, None);
    /// # });
    /// ```
    ///
    /// # Cancel safety
    ///
    /// That of the future.
    fn with_cancellation_token(
        self,
        cancellation_token: &CancellationToken,
    ) -> WithCancellationToken<'_, Self>
    where
        Self: Sized,
    {
        WithCancellationToken::new(self, cancellation_token)
    }

    /// Like [`with_cancellation_token`](Self::with_cancellation_token), but owns the token.
    ///
    /// # Cancel safety
    ///
    /// That of the future.
    fn with_cancellation_token_owned(
        self,
        cancellation_token: CancellationToken,
    ) -> WithCancellationTokenOwned<Self>
    where
        Self: Sized,
    {
        WithCancellationTokenOwned::new(self, cancellation_token)
    }
}

impl<F: Future + ?Sized> FutureExt for F {}
