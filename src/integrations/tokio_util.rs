//! tokio-util's `CancellationToken` as a parent of our contexts, and the other way round (feature
//! `tokio-util`).
//!
//! For programs that change over one by one, or whose libraries ask for the other token. No task and no thread
//! stands between the two, and nothing is left in either when the other goes.
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
//! // Whoever waits is told by a worker thread: their wake-ups may hold locks.
//! futures::executor::block_on(below.cancelled());
//! ```

use crate::context::{Context, DoneSignal, ForeignContext};
use crate::token::StopOnDrop;
#[cfg(doc)]
use crate::ContextError;
use alloc::boxed::Box;
use core::any::Any;
use core::fmt;
use core::ops::Deref;
use tokio_util::sync::CancellationToken;

/// A context below such a token is cancelled when the token is, with [`ContextError::Cancelled`]: when their `cancel()`
/// returns, it is done, and so is everything below. Tasks and threads are woken, and callbacks run, by a worker thread of
/// this crate: their `cancel()` may hold locks of their tree, which what runs then may need.
///
/// Cost: what one of its `cancelled()` futures costs, and two allocations.
impl ForeignContext for CancellationToken {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        let token = self.clone();
        // Being woken means cancelled: in 0.7.0 and 0.7.1 `cancel` alone wakes from the list of those who wait, after it
        // has set the state; from 0.7.2 on `cancel` alone calls `notify_waiters` of the token's `Notify`, after it has
        // set `is_cancelled`, and nobody calls `notify_one`. The future takes no part in tokio's budget for tasks. Up
        // to 0.7.19 wakers are called with locks of the tree held, also those of the token's parent: so nothing of
        // theirs may be asked, polled or dropped there.
        signal.when_woken(async move { token.cancelled().await })
    }
}

/// A token of tokio-util's that is cancelled when the context is done; made by [`tokio_token`].
///
/// It is the token, by [`Deref`]. When it is dropped, the context forgets it: clones and children
/// that are still there are cancelled by nobody then, unless by themselves.
#[must_use = "dropped at once it is cancelled by nobody"]
pub struct TokioToken {
    token: CancellationToken,
    _registration: StopOnDrop,
}

/// A token of tokio-util's below a context.
///
/// The token is cancelled on the thread that cancels the context, after all state of the context's tree
/// is set.
///
/// Cost: that of [`Context::on_cancel`], and of a token there.
pub fn tokio_token(ctx: &Context) -> TokioToken {
    let token = CancellationToken::new();
    let registration = ctx.on_cancel({
        let token = token.clone();
        move || token.cancel()
    });
    TokioToken {
        token,
        _registration: registration.stop_on_drop(),
    }
}

impl Deref for TokioToken {
    type Target = CancellationToken;

    fn deref(&self) -> &CancellationToken {
        &self.token
    }
}

impl fmt::Debug for TokioToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokioToken").field(&self.token).finish()
    }
}
