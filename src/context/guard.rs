//! The right to cancel, apart from the context.

use crate::token::CancellationToken;
use crate::tree::Cause;
use core::fmt;
use core::mem::ManuallyDrop;

/// The right to cancel a context, used at the end of the scope at the latest: dropping it cancels, as Go's
/// `defer cancel()`.
///
/// ```
/// # use cancel_tree::Context;
/// let (ctx, guard) = Context::background().with_cancel();
/// assert!(guard.cancel_with("the page was closed"));
/// assert!(!guard.cancel()); // somebody was faster
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
    #[inline]
    pub(super) fn new(token: CancellationToken) -> CancelGuard {
        let token = ManuallyDrop::new(token);
        CancelGuard { token }
    }

    /// Cancels the context and everything below. True: this call was the first.
    ///
    /// # Panics
    ///
    /// As [`CancellationToken::cancel`].
    pub fn cancel(&self) -> bool {
        self.token.handle().cancel()
    }

    /// The same, and says why.
    ///
    /// # Panics
    ///
    /// As [`CancellationToken::cancel`].
    pub fn cancel_with(&self, cause: impl Into<Cause>) -> bool {
        self.token.cancel_with(cause)
    }

    /// The right to cancel for others, as often as needed, without the duty.
    ///
    /// Cost: 1 RMW.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller {
            token: CancellationToken::clone(&self.token),
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

/// The right to cancel a context, and nothing else; made by [`CancelGuard::canceller`].
///
/// Dropping it does nothing.
#[derive(Clone)]
pub struct Canceller {
    token: CancellationToken,
}

impl Canceller {
    /// Cancels the context and everything below. True: this call was the first.
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

    /// The same, and says why.
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
