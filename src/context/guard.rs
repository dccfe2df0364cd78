//! The right to cancel, apart from the context.

use crate::token::CancellationToken;
use crate::tree::{Cause, Handle};
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr;

/// The right to cancel a context. Dropping it cancels, at the end of the scope at the latest, as Go's
/// `defer cancel()` does; the cause is then [`GuardDropped`](crate::GuardDropped).
///
/// ```
/// # use cancel_tree::Context;
/// let (ctx, guard) = Context::background().with_cancel();
/// assert!(guard.cancel_with("the page was closed"));
/// assert!(!guard.cancel()); // not the first any more
/// assert_eq!(ctx.cause().unwrap().to_string(), "the page was closed");
/// ```
///
/// # Panics
///
/// Dropping it panics where [`CancellationToken::cancel`] would.
#[must_use = "a guard that is dropped at once cancels at once"]
pub struct CancelGuard {
    /// Taken out when the guard goes.
    token: ManuallyDrop<CancellationToken>,
}

impl CancelGuard {
    pub(crate) fn handle(&self) -> &Handle {
        self.token.handle()
    }

    #[inline]
    pub(super) fn new(token: CancellationToken) -> CancelGuard {
        let token = ManuallyDrop::new(token);
        CancelGuard { token }
    }

    /// Cancels the context and everything below. Returns `true` if this call was the first to cancel.
    ///
    /// # Panics
    ///
    /// As [`CancellationToken::cancel`].
    pub fn cancel(&self) -> bool {
        self.token.handle().cancel()
    }

    /// Like [`cancel`](Self::cancel), with a cause.
    ///
    /// # Panics
    ///
    /// As [`CancellationToken::cancel`].
    pub fn cancel_with(&self, cause: impl Into<Cause>) -> bool {
        self.token.cancel_with(cause)
    }

    /// Returns a handle that can cancel, can be cloned and handed around, and does nothing when dropped.
    ///
    /// Cost: 1 RMW.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller {
            token: CancellationToken::clone(&self.token),
        }
    }

    /// Returns a guard that gives this cause when it is dropped, instead of [`GuardDropped`](crate::GuardDropped).
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// let (ctx, guard) = Context::background().with_cancel();
    /// {
    ///     let _guard = guard.cause_on_drop("the handler returned");
    /// }
    /// assert_eq!(ctx.cause().unwrap().to_string(), "the handler returned");
    /// ```
    ///
    /// # Panics
    ///
    /// Dropping it panics where [`CancellationToken::cancel`] would.
    pub fn cause_on_drop(self, cause: impl Into<Cause>) -> CauseOnDrop {
        CauseOnDrop {
            cause: Some(cause.into()),
            guard: self,
        }
    }

    /// Gives the guard up without cancelling: the context lives as long as those above.
    pub fn detach(self) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped after its only field was dropped.
        unsafe { ManuallyDrop::drop(&mut this.token) };
    }
}

impl Drop for CancelGuard {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: not used again.
        let token = unsafe { ManuallyDrop::take(&mut self.token) };
        token.into_handle().cancel_and_drop();
    }
}

impl fmt::Debug for CancelGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelGuard")
            .field("is_cancelled", &self.token.is_cancelled())
            .finish()
    }
}

/// A [`CancelGuard`], by [`Deref`], that has a cause of its own for its drop; made by [`CancelGuard::cause_on_drop`].
#[derive(Debug)]
#[must_use = "a guard that is dropped at once cancels at once"]
pub struct CauseOnDrop {
    /// None: given back.
    cause: Option<Cause>,
    guard: CancelGuard,
}

impl CauseOnDrop {
    /// Returns the plain guard, without the cause: it still cancels.
    pub fn into_guard(mut self) -> CancelGuard {
        // User code, with the guard still there to cancel should it panic.
        drop(self.cause.take());
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped after the guard was moved out, and its other field is empty.
        unsafe { ptr::read(&this.guard) }
    }
}

impl Deref for CauseOnDrop {
    type Target = CancelGuard;

    fn deref(&self) -> &CancelGuard {
        &self.guard
    }
}

impl Drop for CauseOnDrop {
    fn drop(&mut self) {
        if let Some(cause) = self.cause.take() {
            self.guard.cancel_with(cause);
        }
    }
}

/// The right to cancel a context, and nothing else; made by [`CancelGuard::canceller`].
///
/// Dropping it does nothing.
#[derive(Clone)]
pub struct Canceller {
    token: CancellationToken,
}

impl Canceller {
    /// What it cancels.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn handle(&self) -> &Handle {
        self.token.handle()
    }

    /// Marks at once. A worker does what may run user code, and drops this.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn cancel_by_worker(self, cause: Cause) {
        self.token.into_handle().cancel_by_worker_and_drop(cause);
    }

    /// Cancels the context and everything below. Returns `true` if this call was the first to cancel.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// let (ctx, guard) = Context::background().with_cancel();
    /// let canceller = guard.canceller();
    /// std::thread::spawn(move || canceller.cancel()).join().unwrap();
    /// assert!(ctx.is_done());
    /// ```
    ///
    /// # Panics
    ///
    /// As [`CancellationToken::cancel`].
    pub fn cancel(&self) -> bool {
        self.token.handle().cancel()
    }

    /// Like [`cancel`](Self::cancel), with a cause.
    ///
    /// # Panics
    ///
    /// As [`CancellationToken::cancel`].
    pub fn cancel_with(&self, cause: impl Into<Cause>) -> bool {
        self.token.cancel_with(cause)
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller")
            .field("is_cancelled", &self.token.is_cancelled())
            .finish()
    }
}
