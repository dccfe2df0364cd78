//! Waiting as a thread.

use super::context::{expire_if_past, now};
use super::limit::Limit;
use super::Context;
use crate::timer;
use crate::token::{wait as park, CancellationToken};
use crate::tree::{ContextError, Handle};
use std::time::{Duration, Instant};

/// How long a thread sleeps that has found a deadline passed which the timer is to act on.
pub(super) const A_LITTLE: Duration = Duration::from_millis(1);

/// # Waiting as a thread
impl Context {
    /// Parks the calling thread until the context is done. A context that never is, as
    /// [`background`](Self::background), is waited for until the end of the process.
    ///
    /// A thread that waits here does not need the timer: it sleeps until the deadline by itself, and acts on it if the timer, which is to do
    /// that within an eighth of a millisecond, has not after a whole one. One that is set during the wait, or moved to an earlier moment,
    /// the timer notices, which is started for that before the thread sleeps; in a child process made by `fork`, where there is none, the
    /// thread itself, 10 ms late at most.
    ///
    /// # Panics
    ///
    /// Only where the timer's thread could not be started, and in the child of a `fork`: with what a waker or a callback panics with that
    /// is called here, at a deadline. See [`is_cancelled`](crate::CancellationToken::is_cancelled).
    pub fn blocking_wait(&self) -> ContextError {
        loop {
            if let Some(error) = self.wait_until(None) {
                return error;
            }
        }
    }

    /// Parks the calling thread until the context is done, or for `duration`. Returns `None` if it is not
    /// done then.
    ///
    /// # Panics
    ///
    /// As [`blocking_wait`](Self::blocking_wait).
    pub fn blocking_wait_timeout(&self, duration: Duration) -> Option<ContextError> {
        if let Some(error) = self.err() {
            return Some(error);
        }
        self.wait_until(now(&self.clock()).checked_add(duration))
    }

    fn wait_until(&self, limit: Option<Instant>) -> Option<ContextError> {
        if let Some(clock) = self.clock() {
            let token = self.token.clone().unwrap_or_default();
            park::until_cancelled_by(token.handle(), clock, limit);
            return self.err();
        }
        let Some(token) = &self.token else {
            park::until(limit, |_| false);
            return None;
        };
        let mut soon = None;
        loop {
            // It may have been moved meanwhile.
            let deadline = self.deadline();
            // By a deadline that is not later the context is done then, if only a moment later.
            let limit = limit.filter(|limit| deadline.is_none_or(|deadline| *limit < deadline));
            let look = deadline.and_then(|deadline| Some(deadline).max(soon));
            let until = [limit, look, self.next_look()];
            if park::until_cancelled(token, until.into_iter().flatten().min()) {
                return self.err();
            }
            let expire = |at| expire_if_past(token.handle(), at, Handle::expire_asleep);
            if self.deadline().is_some_and(expire) {
                return self.err();
            }
            let now = Instant::now();
            if limit.is_some_and(|limit| limit <= now) {
                return self.err();
            }
            // What has passed is left to the timer.
            soon = Some(now + A_LITTLE);
        }
    }

    /// When a thread that waits here has to look at the deadline again: where it may be moved, and nobody will say so.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let asks = self.limit == Limit::Asked && timer::is_in_parent();
        asks.then(|| Instant::now() + park::SLICE)
    }

    /// For a thread that is about to sleep by means of its own until the context is done: by when it has to look again, if what would tell
    /// it may be missing.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn look_again(&self) -> Option<Instant> {
        park::look_again(self.token.as_ref().map(CancellationToken::handle))
    }

    /// Parks the calling thread until the context is done, or until `deadline`. Returns `None` if it is not
    /// done then.
    ///
    /// # Panics
    ///
    /// As [`blocking_wait`](Self::blocking_wait).
    pub fn blocking_wait_deadline(&self, deadline: Instant) -> Option<ContextError> {
        if let Some(error) = self.err() {
            return Some(error);
        }
        self.wait_until(Some(deadline))
    }

    /// Parks the calling thread for `duration`, or until the context is done. Tasks take [`sleep`](Self::sleep).
    ///
    /// ```
    /// # use cancel_tree::{Context, ContextError};
    /// # use std::time::Duration;
    /// let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(30));
    /// assert_eq!(ctx.blocking_sleep(Duration::from_millis(1)), Ok(()));
    /// let (ctx, _guard) = ctx.with_timeout(Duration::from_millis(20));
    /// assert_eq!(ctx.blocking_sleep(Duration::from_secs(60)), Err(ContextError::DeadlineExceeded));
    /// ```
    ///
    /// # Errors
    ///
    /// The context is done: before the time was over, or since then, but before the caller looked.
    ///
    /// # Panics
    ///
    /// As [`blocking_wait`](Self::blocking_wait).
    pub fn blocking_sleep(&self, duration: Duration) -> Result<(), ContextError> {
        self.blocking_wait_timeout(duration).map_or(Ok(()), Err)
    }
}
