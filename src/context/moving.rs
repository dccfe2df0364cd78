//! Contexts whose deadline moves: by its guard, or by use.

use super::chain::Step;
use super::context::{expire_if_past, now};
use super::limit::Limit;
use super::{CancelGuard, Context};
use crate::sync::Arc;
use crate::timer::clock;
use crate::timer::testing::Clock;
use crate::tree::{Cause, ContextError, Handle, Moving};
use core::error::Error;
use core::fmt;
use core::ops::Deref;
use std::time::{Duration, Instant};

/// # Deadlines that move
impl Context {
    /// Creates a context below this one whose deadline can be set, extended and taken away by its guard, as long as it has not
    /// passed. With `None` it has no deadline at first.
    ///
    /// Contexts below follow: their [`deadline`](Self::deadline) is the earliest at the moment, and one with
    /// a later deadline of its own ends by that if this one is extended. Deadlines above are not changed.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// # use std::time::{Duration, Instant};
    /// let soon = Instant::now() + Duration::from_secs(5);
    /// let (ctx, guard) = Context::background().with_movable_deadline(soon);
    /// let (step, _guard) = ctx.with_deadline(soon + Duration::from_secs(60));
    /// assert_eq!(step.deadline(), Some(soon));
    /// // The client sends on: it gets more time.
    /// assert!(guard.extend(Duration::from_secs(5)));
    /// assert_eq!(step.deadline(), Some(soon + Duration::from_secs(5)));
    /// assert!(guard.take_away());
    /// assert_eq!(step.deadline(), Some(soon + Duration::from_secs(60)));
    /// ```
    ///
    /// Cost: that of [`with_deadline`](Self::with_deadline), and two allocations.
    pub fn with_movable_deadline(
        &self,
        deadline: impl Into<Option<Instant>>,
    ) -> (Context, DeadlineGuard) {
        let deadline = deadline.into();
        let clock = self.clock();
        let (ctx, guard) = self.movable(Moving::new(clock.clone()), None);
        let guard = DeadlineGuard { guard, clock };
        if let Some(deadline) = deadline {
            guard.set(deadline);
        }
        (ctx, guard)
    }

    /// Creates a context below this one that is done when its guard has not been [touched](IdleGuard::touch) for `timeout`, such as
    /// a connection on which nothing comes. Its cause is then [`IdleTimeout`]. Time counts from this call.
    ///
    /// ```
    /// # use cancel_tree::{Context, ContextError, IdleTimeout};
    /// # use std::time::Duration;
    /// let (ctx, guard) = Context::background().with_idle_timeout(Duration::from_secs(60));
    /// for _ in 0..10 {
    ///     std::thread::sleep(Duration::from_millis(5)); // something comes
    ///     guard.touch();
    /// }
    /// assert!(!ctx.is_done());
    /// // One on which nothing comes.
    /// let (ctx, _guard) = Context::background().with_idle_timeout(Duration::from_millis(20));
    /// assert_eq!(ctx.blocking_wait(), ContextError::DeadlineExceeded);
    /// assert!(ctx.cause().unwrap().downcast_ref::<IdleTimeout>().is_some());
    /// ```
    ///
    /// [`Duration::MAX`], and what the clock cannot express, is no timeout.
    ///
    /// Cost: that of [`with_deadline`](Self::with_deadline), and four allocations. Once a period the timer looks whether it has
    /// been touched.
    #[doc(alias = "Reset")]
    pub fn with_idle_timeout(&self, timeout: Duration) -> (Context, IdleGuard) {
        let cause = Cause::with_kind(ContextError::DeadlineExceeded, IdleTimeout { timeout });
        let moving = Moving::idle(timeout, self.clock());
        let (ctx, guard) = self.movable(moving.clone(), Some(cause));
        if !ctx.has_ended() {
            guard.handle().start_idle();
        }
        (ctx, IdleGuard { moving, guard })
    }

    fn movable(&self, moving: Arc<Moving>, cause: Option<Cause>) -> (Context, CancelGuard) {
        let pair = self.child_pair();
        let limit = if pair.0.is_cancelled() {
            self.deadline().into()
        } else {
            pair.0.make_movable(moving, cause);
            Limit::Asked
        };
        self.derive(pair, limit, Step::Moving)
    }
}

/// Moves the deadline of a context, and cancels it when it is dropped; made by [`Context::with_movable_deadline`]. It is a
/// [`CancelGuard`] by [`Deref`].
///
/// Its methods return `true` if they were in time. Either the deadline is moved first, or it passes first: after a `true`, the
/// former deadline no longer applies. They return `false` if the context is done,
/// or about to be. Any number of threads may move the deadline at once.
#[must_use = "a guard that is dropped at once cancels at once"]
pub struct DeadlineGuard {
    guard: CancelGuard,
    clock: Option<Clock>,
}

impl DeadlineGuard {
    /// Sets the deadline, whatever it was. One that has passed ends the context now; one that is more than 584 years away is none.
    ///
    /// Cost: 1 RMW; if it is earlier than the one before, 4 more and perhaps a wake-up of the timer's thread. If another thread is
    /// about to tell the timer of an earlier one at that moment, also an allocation, the first time.
    pub fn set(&self, deadline: Instant) -> bool {
        let nanos = clock::nanos(deadline);
        let in_time = self.guard.handle().move_deadline(|_| Some(nanos));
        // A clock of tests has noticed that itself.
        if in_time && self.clock.is_none() {
            expire_if_past(self.guard.handle(), deadline, Handle::expire);
        }
        in_time
    }

    /// Sets the deadline to `timeout` from now. What the clock cannot express, as [`Duration::MAX`], is no deadline.
    #[doc(alias("CancelAfter", "Reset"))]
    pub fn set_timeout(&self, timeout: Duration) -> bool {
        match now(&self.clock).checked_add(timeout) {
            Some(deadline) => self.set(deadline),
            None => self.take_away(),
        }
    }

    /// Makes the deadline later by `by`. If there is none, none is set.
    pub fn extend(&self, by: Duration) -> bool {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let later = |deadline: Option<u64>| deadline?.checked_add(by);
        self.guard.handle().move_deadline(later)
    }

    /// Takes the deadline away. Those above still apply.
    pub fn take_away(&self) -> bool {
        self.guard.handle().move_deadline(|_| None)
    }

    /// Returns the plain guard, without the right to move the deadline, which stays what it is.
    pub fn into_guard(self) -> CancelGuard {
        self.guard
    }
}

impl Deref for DeadlineGuard {
    type Target = CancelGuard;

    fn deref(&self) -> &CancelGuard {
        &self.guard
    }
}

impl fmt::Debug for DeadlineGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineGuard")
            .field("guard", &self.guard)
            .finish()
    }
}

/// Keeps a context from its idle timeout, and cancels it when it is dropped; made by [`Context::with_idle_timeout`]. It is a
/// [`CancelGuard`] by [`Deref`].
#[must_use = "a guard that is dropped at once cancels at once"]
pub struct IdleGuard {
    moving: Arc<Moving>,
    guard: CancelGuard,
}

// The cells in it are atomics.
impl core::panic::UnwindSafe for IdleGuard {}
impl core::panic::RefUnwindSafe for IdleGuard {}

impl IdleGuard {
    /// Says that the context is in use: its timeout counts from now. After the timeout it does nothing; after a cancel it still
    /// moves the [deadline](Context::deadline) that is shown, and nothing else.
    ///
    /// A touch that comes as the timeout passes may be too late; [`Context::is_done`] tells.
    ///
    /// Cost: a reading of the clock and a store, on a line that only touches write. No RMW, but for the
    /// fourth thread and later ones that touch the same guard: then one.
    #[inline]
    pub fn touch(&self) {
        self.moving.touch(self.moving.now());
    }

    /// Like [`touch`](Self::touch), for code that has looked at the clock already. A later touch counts, whichever comes first.
    #[inline]
    pub fn touch_at(&self, now: Instant) {
        self.moving.touch(clock::nanos(now));
    }

    /// Returns the plain guard. The context can no longer be kept from its timeout.
    pub fn into_guard(self) -> CancelGuard {
        self.guard
    }
}

impl Deref for IdleGuard {
    type Target = CancelGuard;

    fn deref(&self) -> &CancelGuard {
        &self.guard
    }
}

impl fmt::Debug for IdleGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleGuard")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

/// The cause of an [idle timeout](Context::with_idle_timeout). Its kind is [`ContextError::DeadlineExceeded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleTimeout {
    timeout: Duration,
}

impl IdleTimeout {
    /// Returns the timeout: for how long nothing has come.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl fmt::Display for IdleTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "idle for {:?}", self.timeout)
    }
}

impl Error for IdleTimeout {}
