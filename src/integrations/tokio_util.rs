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
//! assert!(below.is_cancelled());
//! ```

use crate::context::{Context, DoneSignal, ForeignContext};
use crate::token::StopOnDrop;
use crate::ContextError;
use alloc::boxed::Box;
use core::any::Any;
use core::fmt;
use core::ops::Deref;
use tokio_util::sync::CancellationToken;

/// A context below such a token is cancelled when the token is, with [`ContextError::Cancelled`].
///
/// Cost: what one of its `cancelled_owned()` futures costs.
impl ForeignContext for CancellationToken {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        let cancelled = self.clone().cancelled_owned();
        signal.when_ready(async move {
            cancelled.await;
            ContextError::Cancelled
        })
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
