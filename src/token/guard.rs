//! Guards: cancel at the end of a scope.

use super::token::CancellationToken;
use core::fmt;
use core::mem::{self, ManuallyDrop};
use core::ptr;

/// # Cancelling at the end of a scope
impl CancellationToken {
    /// Returns a guard that cancels the token when it is dropped, unless it is disarmed.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let token = CancellationToken::new();
    /// {
    ///     let _guard = token.clone().drop_guard();
    /// }
    /// assert!(token.is_cancelled());
    /// ```
    #[inline]
    pub fn drop_guard(self) -> DropGuard {
        DropGuard::new(self)
    }

    /// Like [`drop_guard`](Self::drop_guard), for a borrowed token.
    #[inline]
    pub fn drop_guard_ref(&self) -> DropGuardRef<'_> {
        DropGuardRef::new(self)
    }
}

/// Cancels a token when dropped; made by [`CancellationToken::drop_guard`].
///
/// A guard that is not kept is dropped at once, and cancels at once. There is no `must_use` on it, as there is none on
/// tokio-util's, so that a program that denies warnings compiles with either.
///
/// # Panics
///
/// Dropping it panics where [`CancellationToken::cancel`] would.
pub struct DropGuard {
    token: CancellationToken,
}

impl DropGuard {
    #[inline]
    fn new(token: CancellationToken) -> DropGuard {
        DropGuard { token }
    }

    /// Returns the token that the guard cancels.
    #[inline]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Returns the token, which is not cancelled by this guard any more.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let token = CancellationToken::new().drop_guard().disarm();
    /// assert!(!token.is_cancelled());
    /// ```
    #[inline]
    pub fn disarm(self) -> CancellationToken {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped after its only field was moved out.
        unsafe { ptr::read(&this.token) }
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.token.handle().cancel_by_guard();
    }
}

impl fmt::Debug for DropGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("DropGuard", &self.token, f)
    }
}

/// Cancels a borrowed token when dropped; made by [`CancellationToken::drop_guard_ref`].
///
/// # Panics
///
/// Dropping it panics where [`CancellationToken::cancel`] would.
pub struct DropGuardRef<'a> {
    token: &'a CancellationToken,
}

impl<'a> DropGuardRef<'a> {
    #[inline]
    fn new(token: &'a CancellationToken) -> DropGuardRef<'a> {
        DropGuardRef { token }
    }

    /// Returns the token that the guard cancels.
    #[inline]
    pub fn token(&self) -> &CancellationToken {
        self.token
    }

    /// Returns the reference to the token, which is not cancelled by this guard any more.
    #[inline]
    pub fn disarm(self) -> &'a CancellationToken {
        let token = self.token;
        mem::forget(self);
        token
    }
}

impl Drop for DropGuardRef<'_> {
    fn drop(&mut self) {
        self.token.handle().cancel_by_guard();
    }
}

impl fmt::Debug for DropGuardRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("DropGuardRef", self.token, f)
    }
}

/// What tokio-util's guards show, to the letter: logs and snapshots of them stay as they are.
fn debug(name: &str, token: &CancellationToken, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_struct(name).field("inner", &Some(token)).finish()
}
