//! Time as the timer counts it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A point in time: so many ticks after the first use of the clock.
pub(crate) type Tick = u64;

/// A tick is 2^17 ns, an eighth of a millisecond: deadlines are rounded up to it.
const SHIFT: u32 = 17;

#[inline]
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

#[inline]
fn nanos(instant: Instant) -> u64 {
    let since = instant.saturating_duration_since(base());
    // 584 years fit.
    let seconds = since.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(since.subsec_nanos().into())
}

/// The first tick that is not before `instant`.
#[inline]
pub(crate) fn at_or_after(instant: Instant) -> Tick {
    nanos(instant).div_ceil(1 << SHIFT)
}

/// For models, whose deadlines are ticks that they choose.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
pub(crate) fn instant_of(tick: Tick) -> Instant {
    base() + Duration::from_nanos(tick << SHIFT)
}

/// The last tick that is not after now.
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
pub(crate) fn now() -> Tick {
    nanos(Instant::now()) >> SHIFT
}

/// How long it is from now to the tick.
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
pub(crate) fn until(tick: Tick) -> Duration {
    let at = Duration::from_nanos(tick.saturating_mul(1 << SHIFT));
    (base() + at).saturating_duration_since(Instant::now())
}
