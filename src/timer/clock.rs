//! Time as the timer counts it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A point in time, as deadlines are kept: so many times 64 ns after the first use of the clock.
pub(crate) type Moment = u64;

/// A point in time, as the wheel counts it: so many times 2^17 ns, an eighth of a millisecond.
pub(crate) type Tick = u64;

const MOMENT: u32 = 6;
const TICK: u32 = 17;

#[inline]
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

/// What a new deadline is compared with and a timeout counts from.
#[cfg(not(cancel_tree_loom))]
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// In models time stands still: a timeout is the same tick in each execution, for loom replays.
#[cfg(cancel_tree_loom)]
pub(crate) fn now() -> Instant {
    base()
}

/// So many nanoseconds after the first use of the clock.
#[inline]
pub(crate) fn nanos(instant: Instant) -> u64 {
    let since = instant.saturating_duration_since(base());
    // 584 years fit.
    let seconds = since.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(since.subsec_nanos().into())
}

/// The first moment that is not before `instant`.
#[inline]
pub(crate) fn at_or_after(instant: Instant) -> Moment {
    nanos(instant).div_ceil(1 << MOMENT)
}

/// The first moment that is not before so many nanoseconds.
pub(crate) fn moment_of(nanos: u64) -> Moment {
    nanos.div_ceil(1 << MOMENT)
}

/// The instant of so many nanoseconds, as `nanos` counts them.
pub(crate) fn instant_at(nanos: u64) -> Option<Instant> {
    base().checked_add(Duration::from_nanos(nanos))
}

/// When the moment is, in nanoseconds.
pub(crate) fn nanos_of(moment: Moment) -> u64 {
    moment.saturating_mul(1 << MOMENT)
}

/// The last moment that is not after `instant`.
pub(crate) fn at_or_before(instant: Instant) -> Moment {
    nanos(instant) >> MOMENT
}

/// The first tick that is not before the moment: when the timer acts on it. Never early.
#[inline]
pub(super) fn tick_of(moment: Moment) -> Tick {
    moment.div_ceil(1 << (TICK - MOMENT))
}

/// The last tick that is not after `instant`.
pub(super) fn tick_before(instant: Instant) -> Tick {
    nanos(instant) >> TICK
}

/// For models, whose deadlines are ticks that they choose.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
pub(crate) fn instant_of(tick: Tick) -> Instant {
    base() + Duration::from_nanos(tick << TICK)
}

/// How long it is from `now` to the tick.
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
pub(super) fn until(tick: Tick, now: Instant) -> Duration {
    let at = Duration::from_nanos(tick.saturating_mul(1 << TICK));
    (base() + at).saturating_duration_since(now)
}

/// After the last deadline.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
pub(super) const LAST: Tick = 1 << (u64::BITS - TICK);
