//! The test clock: it stands where the target has turned the service to, far from the real time, which never gets
//! there.

use cancel_tree::Service;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub const TICK: Duration = Duration::from_nanos(1 << 17);

/// The instant of the crate's tick 0: real, and past.
pub fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(|| {
        let ticks = Service::at(2) - Service::at(1);
        Service::at(1) - 2 * ticks
    })
}

/// Where the test clock starts: years from now.
pub fn start() -> Instant {
    Service::at(100_000)
}

/// The tick at which a deadline is due. None: in more than 584 years, which is never.
pub fn tick_of(instant: Instant) -> Option<u64> {
    let nanos = u64::try_from((instant - base()).as_nanos()).ok()?;
    Some(nanos.div_ceil(TICK.as_nanos() as u64))
}

/// The same, for turns of the service.
pub fn tick(instant: Instant) -> u64 {
    tick_of(instant).unwrap_or(u64::MAX)
}

/// As deadlines are kept: so many times 64 ns.
pub fn moment(instant: Instant) -> u128 {
    (instant - base()).as_nanos().div_ceil(64)
}

/// A deadline that is later is none.
pub fn is_for_the_timer(instant: Instant) -> bool {
    moment(instant) < (u64::MAX >> 6).into()
}
