//! What could not be started.

use crate::tree::Cause;
use core::error::Error;
use core::fmt;

/// Work that was not started, returned untouched, with the cause.
///
/// The cause is the group's, if it is cancelled; [`Closed`] or [`Full`], to be found by
/// [`Cause::downcast_ref`]; or what the system says, if no thread could be started or there is no runtime.
///
/// ```
/// use cancel_tree::{Context, Closed, Group};
/// let group = Group::new(&Context::background());
/// group.close();
/// let refused = group.spawn_thread(|_ctx| println!("never printed")).unwrap_err();
/// assert!(refused.cause().downcast_ref::<Closed>().is_some());
/// let _work = refused.into_inner();
/// ```
pub struct Refused<W> {
    work: W,
    cause: Cause,
}

impl<W> Refused<W> {
    pub(crate) fn new(work: W, cause: impl Into<Cause>) -> Refused<W> {
        let cause = cause.into();
        Refused { work, cause }
    }

    /// Returns why the work was not started.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// Returns `true` if the only reason was that there was no room: see [`Full`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.cause.downcast_ref::<Full>().is_some()
    }

    /// Returns the work.
    #[must_use]
    pub fn into_inner(self) -> W {
        self.work
    }

    pub(crate) fn map<V>(self, f: impl FnOnce(W) -> V) -> Refused<V> {
        Refused {
            work: f(self.work),
            cause: self.cause,
        }
    }
}

impl<W> fmt::Debug for Refused<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("cause", &self.cause)
            .finish_non_exhaustive()
    }
}

impl<W> fmt::Display for Refused<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not started: {}", self.cause)
    }
}

impl<W> Error for Refused<W> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

impl<W> From<Refused<W>> for Cause {
    fn from(refused: Refused<W>) -> Cause {
        refused.cause
    }
}

/// The cause with which a closed group refuses work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed;

/// The cause with which a group with a limit refuses work at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Full;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the group is closed")
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the group has as many tasks as its limit allows")
    }
}

impl Error for Closed {}
impl Error for Full {}

impl From<Closed> for Cause {
    fn from(closed: Closed) -> Cause {
        Cause::new(closed)
    }
}

impl From<Full> for Cause {
    fn from(full: Full) -> Cause {
        Cause::new(full)
    }
}
