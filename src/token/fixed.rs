//! A token in a static.

use super::token::CancellationToken;
use crate::sync::const_where_possible;
use crate::tree::Fixed;
use core::fmt;

/// A token that lives in a `static`: for a program's one "stop", for interrupt and signal handlers, for C, for machines
/// without much of a heap.
///
/// It exists from the start, without an allocation, and for ever. [`token`](Self::token) lends the [`CancellationToken`], for
/// everything but the reading of the flag: `cancel`, children, callbacks, waits, clones, `any_of`.
///
/// ```
/// use cancel_tree::StaticToken;
///
/// static SHUTDOWN: StaticToken = StaticToken::new();
///
/// let request = SHUTDOWN.token().child_token();
/// assert!(!SHUTDOWN.is_cancelled());
/// SHUTDOWN.token().cancel_with("SIGTERM");
/// assert_eq!(request.cause().unwrap().to_string(), "SIGTERM");
/// ```
///
/// It can be cancelled once, and then stays cancelled: what can begin again should use a child.
///
/// # In interrupt and signal handlers
///
/// - [`is_cancelled`](Self::is_cancelled) is a load, and may be called anywhere, whatever was interrupted. (That of the
///   [`token`](Self::token) may do more, see there.)
/// - [`cancel`](CancellationToken::cancel), without a cause to allocate, never waits for what was interrupted, and allocates nothing by itself. But it
///   wakes and calls on the spot, and drops what it has woken. So it may be called where everything that waits below may be
///   woken and dropped: no waiter at all, or tasks whose wakers are made for interrupts, as those of most executors
///   for bare metal are. A callback runs there, and its memory is freed there, also one that is part of a descriptor, of a channel,
///   of another crate's token or of what a context is shown by; a token of [`any_of`](CancellationToken::any_of) below may allocate and
///   free, so may a group below a grace; the end of a context's grace is set there, for which something is allocated and perhaps a thread started; a thread in
///   a blocking wait is woken by the system, which few systems allow in a signal handler.
/// - If it has interrupted another cancel, of this token or above or below, what waits may still be about to be woken by that one.
/// - With the feature `portable-atomic`, neither may be called in an interrupt that that crate's critical sections do not keep out, as
///   one that cannot be masked.
/// - Where that cannot be known, set a flag or write to a pipe there, and cancel elsewhere.
///
/// # Models
///
/// With `--cfg cancel_tree_loom` `new` is not `const`, for loom's atomics belong to one execution: put it into
/// `loom::lazy_static!` there.
///
/// # Cost
///
/// Reading the flag is a load. `token` is a load; the first time, 1 RMW more.
pub struct StaticToken {
    fixed: Fixed,
}

// As for the token.
impl core::panic::UnwindSafe for StaticToken {}
impl core::panic::RefUnwindSafe for StaticToken {}

impl StaticToken {
    const_where_possible! {
        /// Creates a token that is not cancelled, with nothing above it. It allocates nothing.
        #[must_use]
        #[allow(clippy::new_without_default)]
        pub fn new() -> StaticToken {
            StaticToken {
                fixed: Fixed::new(),
            }
        }
    }

    /// Returns `true` if the token is cancelled.
    #[inline]
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.fixed.is_cancelled()
    }

    /// Returns the token. It is the same token for every call, and lives as long as the program.
    ///
    /// ```
    /// # use cancel_tree::{CancellationToken, StaticToken};
    /// static SHUTDOWN: StaticToken = StaticToken::new();
    /// let token: &'static CancellationToken = SHUTDOWN.token();
    /// let stopping = token.cancelled(); // borrows nothing but the static
    /// # drop(stopping);
    /// ```
    #[inline]
    #[must_use]
    pub fn token(&'static self) -> &'static CancellationToken {
        CancellationToken::from_ref(self.fixed.handle())
    }
}

impl fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticToken")
            .field("is_cancelled", &self.is_cancelled())
            .finish()
    }
}
