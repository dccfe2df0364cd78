//! tokio-util's `CancellationToken` as a parent of our contexts, and the other way round (feature
//! `tokio-util`).
//!
//! For programs that change over step by step, or whose libraries take the other token. No task and no thread
//! stands between the two, and nothing is left in either when the other is dropped.
//!
//! ```
//! use cancel_tree::integrations::tokio_util::tokio_token;
//! use cancel_tree::Context;
//! use tokio_util::sync::CancellationToken;
//!
//! // Theirs above ours:
//! let theirs = CancellationToken::new();
//! let ctx = Context::below(theirs.clone());
//! // … and ours above theirs:
//! let below = tokio_token(&ctx);
//!
//! theirs.cancel();
//! assert!(ctx.is_done());
//! // Waiters are told by a worker thread, for theirs may wake with locks held.
//! futures::executor::block_on(below.cancelled());
//! ```

use crate::context::{Context, DoneSignal, ForeignContext};
use crate::token::StopOnDrop;
#[cfg(doc)]
use crate::ContextError;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// A context below such a token is cancelled when the token is, with [`ContextError::Cancelled`]: when their `cancel()`
/// returns, it is done, and so is everything below. Tasks and threads are woken, and callbacks run, by a worker thread of
/// this crate: their `cancel()` may hold locks of their tree, which what runs then may need.
///
/// Cost: what one of its `cancelled()` futures costs, and two allocations.
impl ForeignContext for CancellationToken {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        let token = self.clone();
        // Being woken means cancelled: in 0.7.0 and 0.7.1 `cancel` alone wakes from the list of those that wait, after it
        // has set the state; from 0.7.2 on `cancel` alone calls `notify_waiters` of the token's `Notify`, after it has
        // set `is_cancelled`, and nobody calls `notify_one`. The future takes no part in tokio's budget for tasks. Up
        // to 0.7.19 wakers are called with locks of the tree held, also those of the token's parent: so nothing of
        // theirs may be asked, polled or dropped there.
        signal.when_woken(async move { token.cancelled().await })
    }
}

/// A token of tokio-util's that is cancelled when the context is done; made by [`tokio_token`].
///
/// Its clones and children are of this type too, and stay connected as long as one of them
/// exists; when the last is dropped, the context forgets them. [`into_token`](Self::into_token) and [`as_token`](Self::as_token) return a
/// plain token, for code that takes one by value or by reference; that stays connected for as long as the context.
#[derive(Clone)]
#[must_use = "dropped at once it is cancelled by nobody"]
pub struct TokioToken {
    token: CancellationToken,
    bridge: Arc<Bridge>,
}

/// The callback that cancels the token.
struct Bridge {
    /// Taken out when the last one goes.
    registration: Option<StopOnDrop>,
    /// Also after that.
    stays: AtomicBool,
}

/// Creates a token of tokio-util's below a context.
///
/// The token is cancelled on the thread that cancels the context, after all state of the context's tree
/// is set, and before the first callback runs, which may wait for a task that waits for the token.
///
/// Cost: that of [`Context::on_cancel`], of a token there, and an allocation.
pub fn tokio_token(ctx: &Context) -> TokioToken {
    let token = CancellationToken::new();
    let registration = ctx.on_wake({
        let token = token.clone();
        move || token.cancel()
    });
    let bridge = Arc::new(Bridge {
        registration: Some(registration.stop_on_drop()),
        stays: AtomicBool::new(false),
    });
    TokioToken { token, bridge }
}

impl TokioToken {
    /// Returns `true` if the token is cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns a future that is ready when the token is cancelled.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// Cancels the token, its clones and children; not the context.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Creates a child of the token, connected as this one is.
    pub fn child_token(&self) -> TokioToken {
        TokioToken {
            token: self.token.child_token(),
            bridge: self.bridge.clone(),
        }
    }

    /// Returns the plain token. It stays connected, with all of its clones and children: until the context is done, or can no longer
    /// be cancelled, the context keeps a callback for it.
    ///
    /// ```
    /// use cancel_tree::integrations::tokio_util::tokio_token;
    /// use cancel_tree::Context;
    /// use tokio_util::sync::CancellationToken;
    ///
    /// let (ctx, guard) = Context::background().with_cancel();
    /// let token: CancellationToken = tokio_token(&ctx).into_token();
    /// guard.cancel();
    /// assert!(token.is_cancelled());
    /// ```
    #[must_use]
    pub fn into_token(self) -> CancellationToken {
        self.bridge.stay();
        self.token
    }

    /// Returns the plain token by reference, for code that takes it so. A clone or a child that such code makes is a plain token too, and may
    /// be kept when the `TokioToken` has gone: so from this call on they all stay connected, as after [`into_token`](Self::into_token), and
    /// the context keeps a callback for them: one for each `TokioToken` of [`tokio_token`] that was asked so, for as long as the context. Below a context
    /// that lives long, make one and ask that.
    ///
    /// ```
    /// use cancel_tree::integrations::tokio_util::tokio_token;
    /// use cancel_tree::Context;
    /// use tokio_util::sync::CancellationToken;
    ///
    /// fn start(stop: &CancellationToken) -> CancellationToken {
    ///     stop.clone()
    /// }
    ///
    /// let (ctx, guard) = Context::background().with_cancel();
    /// let inside = start(tokio_token(&ctx).as_token());
    /// guard.cancel();
    /// assert!(inside.is_cancelled());
    /// ```
    ///
    /// There is no `Deref` to it, by which a plain token could be cloned unseen.
    #[must_use]
    pub fn as_token(&self) -> &CancellationToken {
        self.bridge.stay();
        &self.token
    }
}

/// As the token itself; the connection stays as long as something below is there.
impl ForeignContext for TokioToken {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        Box::new((self.token.on_done(signal), self.bridge.clone()))
    }
}

impl Bridge {
    fn stay(&self) {
        // Relaxed: whoever drops the last of them has acquired what the others did, by the `Arc`.
        self.stays.store(true, Relaxed);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(registration) = self.registration.take() {
            if *self.stays.get_mut() {
                drop(registration.disarm());
            }
        }
    }
}

/// [`TokioToken::into_token`].
impl From<TokioToken> for CancellationToken {
    fn from(token: TokioToken) -> CancellationToken {
        token.into_token()
    }
}

impl fmt::Debug for TokioToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokioToken").field(&self.token).finish()
    }
}
