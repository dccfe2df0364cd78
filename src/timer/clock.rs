//! Time as the timer counts it.

use alloc::boxed::Box;
use core::hash::{Hash, Hasher};
use core::ptr;
use std::sync::atomic::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire},
};
use std::time::{Duration, Instant};

/// A point in time, as deadlines are kept: so many times 64 ns after the clock's base.
pub(crate) type Moment = u64;

/// A point in time, as the wheel counts it: so many times 2^17 ns, an eighth of a millisecond.
pub(crate) type Tick = u64;

const MOMENT: u32 = 6;
const TICK: u32 = 17;

/// A day before the first use of the clock, or as much of it as instants can express: also a deadline that had passed by then is
/// shown as it was said.
struct Base {
    instant: Instant,
    parts: Parts,
    /// So many seconds after it, parts can be reckoned with. 0: never.
    reach: u64,
}

#[inline]
fn base() -> &'static Base {
    // Acquire: pairs with the CAS in `begin`.
    // SAFETY: null, or never freed.
    unsafe { BASE.load(Acquire).as_ref() }.unwrap_or_else(begin)
}

/// std's, also in models: whichever execution is the first to ask, the answer stays. Not a `OnceLock`: where several threads
/// come first, they would wait for one of them.
static BASE: AtomicPtr<Base> = AtomicPtr::new(ptr::null_mut());

#[cold]
fn begin() -> &'static Base {
    let new = Box::into_raw(Box::new(Base::new(beginning())));
    // AcqRel: publishes it, or, on failure, pairs with the other one's step. It stays for as long as the process does.
    match BASE.compare_exchange(ptr::null_mut(), new, AcqRel, Acquire) {
        // SAFETY: never freed.
        Ok(_) => unsafe { &*new },
        Err(other) => {
            // SAFETY: from a Box, and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
            // SAFETY: never freed.
            unsafe { &*other }
        }
    }
}

/// As early as the clock can say, but for a round number: a deadline may lie before the first use of the clock.
fn beginning() -> Instant {
    let now = Instant::now();
    let back = |seconds| now.checked_sub(Duration::from_secs(seconds));
    EARLIER.into_iter().find_map(back).unwrap_or(now)
}

/// In seconds.
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
const EARLIER: [u64; 4] = [24 * 3600, 3600, 60, 1];

/// Models choose their ticks, from the first on.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
const EARLIER: [u64; 0] = [];

impl Base {
    #[cold]
    fn new(instant: Instant) -> Base {
        let parts = Parts::of(instant);
        // Nothing says what an instant hashes, so this asks: where the seconds turn over, and far away.
        let is_understood = |after: &Duration| {
            instant.checked_add(*after).is_some_and(|later| {
                let later = Parts::of(later);
                later.calls == Parts::CALLS && later.nanos_since(&parts) == nanos_in(*after)
            })
        };
        let mut turn = (0..60).map(|bit| Duration::from_nanos((1 << bit) - 1));
        let all = parts.calls == Parts::CALLS && turn.all(|after| is_understood(&after));
        Base {
            instant,
            parts,
            reach: if all { 1 << 30 } else { 0 },
        }
    }

    /// By the standard library.
    #[cold]
    fn nanos_until(&self, instant: Instant) -> u64 {
        nanos_in(instant.saturating_duration_since(self.instant))
    }
}

fn nanos_in(duration: Duration) -> u64 {
    // 584 years fit.
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An instant's seconds and nanoseconds, which it tells to hashers alone. A difference of two instants costs three calls,
/// which is more than all else that a [touch](crate::IdleGuard::touch) does; this is inlined.
struct Parts {
    seconds: u64,
    nanos: u64,
    calls: u32,
}

impl Parts {
    /// One for the seconds, then one for the rest.
    const CALLS: u32 = 0x12;

    #[inline]
    fn of(instant: Instant) -> Parts {
        let mut parts = Parts {
            seconds: 0,
            nanos: 0,
            calls: 0,
        };
        instant.hash(&mut parts);
        parts
    }

    /// Of what is not much later. Wraps.
    #[inline]
    fn nanos_since(&self, earlier: &Parts) -> u64 {
        let seconds = self.seconds.wrapping_sub(earlier.seconds);
        let nanos = self.nanos.wrapping_sub(earlier.nanos);
        seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
    }
}

impl Hasher for Parts {
    fn write(&mut self, _bytes: &[u8]) {
        self.calls = u32::MAX;
    }

    #[inline]
    fn write_u64(&mut self, seconds: u64) {
        self.seconds = seconds;
        self.calls = self.calls << 4 | 1;
    }

    #[inline]
    fn write_i64(&mut self, seconds: i64) {
        self.write_u64(seconds as u64);
    }

    #[inline]
    fn write_u32(&mut self, nanos: u32) {
        self.nanos = nanos.into();
        self.calls = self.calls << 4 | 2;
    }

    fn finish(&self) -> u64 {
        0
    }
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
    base().instant
}

/// So many nanoseconds after the base.
#[inline]
pub(crate) fn nanos(instant: Instant) -> u64 {
    let base = base();
    let parts = Parts::of(instant);
    let seconds = parts.seconds.wrapping_sub(base.parts.seconds);
    let nanos = parts.nanos_since(&base.parts);
    // Of the first second, a part is before the base.
    if seconds < base.reach && nanos < u64::MAX / 2 {
        nanos
    } else {
        base.nanos_until(instant)
    }
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
    base().instant.checked_add(Duration::from_nanos(nanos))
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
    base().instant + Duration::from_nanos(tick << TICK)
}

/// How long it is from `now` to the tick.
pub(super) fn until(tick: Tick, now: Instant) -> Duration {
    let at = Duration::from_nanos(tick.saturating_mul(1 << TICK));
    (base().instant + at).saturating_duration_since(now)
}

/// After the last deadline.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
pub(super) const LAST: Tick = 1 << (u64::BITS - TICK);
