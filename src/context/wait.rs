//! Waiting as a thread.

use super::context::{expire_if_past, now};
use super::limit::Limit;
use super::Context;
use crate::timer;
use crate::token::{wait as park, CancellationToken};
use crate::tree::{ContextError, Handle};
use std::time::{Duration, Instant};

/// How long a thread sleeps that has found a deadline passed which the timer is to act on.
const A_LITTLE: Duration = Duration::from_millis(1);

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
        self.sleeping(limit, |until| {
            park::until_cancelled(token, until).then_some(())
        });
        self.err()
    }

    /// Sleeps by `sleep`, which is told by when to come back, until that has an answer, or until the limit: none then. Deadlines that pass
    /// meanwhile are acted on, if the timer does not.
    pub(super) fn sleeping<R>(
        &self,
        limit: Option<Instant>,
        mut sleep: impl FnMut(Option<Instant>) -> Option<R>,
    ) -> Option<R> {
        let token = self.token.as_ref().map(CancellationToken::handle);
        let mut soon = None;
        loop {
            // It may have been moved meanwhile.
            let deadline = self.waited_deadline();
            // By a deadline that is not later the context is done then, if only a moment later.
            let limit = limit.filter(|limit| deadline.is_none_or(|deadline| *limit < deadline));
            let look = deadline.and_then(|deadline| Some(deadline).max(soon));
            // Where it may be moved, and nobody will say so.
            let asks = self.limit == Limit::Asked && timer::is_in_parent();
            let again = asks.then(|| Instant::now() + park::SLICE);
            let until = [limit, look, again];
            if let Some(answer) = sleep(until.into_iter().flatten().min()) {
                return Some(answer);
            }
            if let (Some(token), Some(deadline)) = (token, self.waited_deadline()) {
                expire_if_past(token, deadline, Handle::expire_asleep);
            }
            let now = Instant::now();
            if limit.is_some_and(|limit| limit <= now) {
                return None;
            }
            // What has passed is left to the timer, if the context is not done.
            soon = Some(now + A_LITTLE);
        }
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
