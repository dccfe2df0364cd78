//! A context together with the right to cancel it.

use super::guard::CancelGuard;
use super::Context;
use core::ops::Deref;

/// A context together with its guard: the context, by [`Deref`], is cancelled when this is dropped.
///
/// For contexts that are handed around or kept together with their guard: in a field of a struct, as what a function returns, in a task or in the body of a
/// response. There is no separate guard that could be dropped too early, left behind in another scope, or forgotten as
/// in `let (ctx, _) = …`.
///
/// ```
/// use cancel_tree::{Context, GuardedContext};
/// use std::time::Duration;
///
/// fn request(server: &Context) -> GuardedContext {
///     server.with_timeout(Duration::from_secs(30)).into()
/// }
///
/// let server = Context::background();
/// let ctx = request(&server);
/// assert!(!ctx.is_done());
/// let seen = ctx.clone(); // the context alone
/// drop(ctx);
/// assert!(seen.is_done());
/// ```
#[derive(Debug)]
#[must_use = "dropped at once it is cancelled at once"]
pub struct GuardedContext {
    // The first to go: what the guard does is cheaper while the context is there.
    guard: CancelGuard,
    ctx: Context,
}

impl GuardedContext {
    /// Returns the right to cancel: [`cancel`](CancelGuard::cancel), [`cancel_with`](CancelGuard::cancel_with),
    /// [`canceller`](CancelGuard::canceller).
    pub fn guard(&self) -> &CancelGuard {
        &self.guard
    }

    /// Takes the two apart.
    ///
    /// ```
    /// # use cancel_tree::{Context, GuardedContext};
    /// let ctx = GuardedContext::from(Context::background().with_cancel());
    /// let (ctx, guard) = ctx.split();
    /// guard.detach();
    /// assert!(!ctx.is_done());
    /// ```
    pub fn split(self) -> (Context, CancelGuard) {
        (self.ctx, self.guard)
    }
}

/// What [`Context::with_cancel`] and the others return.
impl From<(Context, CancelGuard)> for GuardedContext {
    fn from((ctx, guard): (Context, CancelGuard)) -> GuardedContext {
        GuardedContext { guard, ctx }
    }
}

impl Deref for GuardedContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.ctx
    }
}

impl AsRef<Context> for GuardedContext {
    fn as_ref(&self) -> &Context {
        &self.ctx
    }
}
