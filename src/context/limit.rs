//! What a context knows of the deadlines above it.

use std::time::Instant;

/// As large as the instant alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Never,
    /// Fixed: the earliest of its own and those above.
    At(Instant),
    /// One of them can be moved: those above are asked.
    Asked,
}

#[cfg(target_os = "linux")]
const _: () = assert!(size_of::<Limit>() == size_of::<Option<Instant>>());

impl From<Option<Instant>> for Limit {
    #[inline]
    fn from(deadline: Option<Instant>) -> Limit {
        deadline.map_or(Limit::Never, Limit::At)
    }
}
