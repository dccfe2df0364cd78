//! What a token is asked about its deadline and those above, about what moves them, and about parents of another kind. Each
//! question is a climb: the timer is not asked. Some are asked only if there was ever what they look for.

use super::timing::Timing;
use super::word::State;
use super::Handle;
use crate::timer::testing::{Alarm, Clock};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// Whether there was ever a parent of another kind in this process.
static IS_ANY_BELOW_FOREIGN: AtomicBool = AtomicBool::new(false);

/// Whether there was ever a token whose deadline can be set later on.
static IS_ANY_MOVABLE: AtomicBool = AtomicBool::new(false);

/// There is a parent of another kind from now on.
pub(super) fn note_foreign() {
    IS_ANY_BELOW_FOREIGN.store(true, Relaxed);
}

/// And a token whose deadline can be set later on.
pub(super) fn note_movable() {
    if !IS_ANY_MOVABLE.load(Relaxed) {
        IS_ANY_MOVABLE.store(true, Relaxed);
    }
}

impl Handle {
    /// The token so many steps above was cancelled by the deadline that was set for it, and not by one above, or by somebody.
    pub(crate) fn is_expired_itself(&self, steps: usize) -> bool {
        let node = self.node_above(steps);
        let state = node.word.load();
        let is_own = state.is_cancelled() && state.has_any(State::OWN);
        is_own
            && state.has_any(State::DEADLINE)
            && node
                .link
                .timing()
                .is_some_and(|timing| timing.entry.has_passed())
    }

    /// Whether there was ever a parent of another kind in this process: a load.
    pub(crate) fn is_any_below_foreign() -> bool {
        // Relaxed: who asks for a token that is below one has got it from the thread that has stored this.
        IS_ANY_BELOW_FOREIGN.load(Relaxed)
    }

    /// Whether it has a parent of another kind, or something above has.
    #[cold]
    pub(crate) fn is_below_foreign(&self) -> bool {
        let mut found = false;
        self.each_above(|node| {
            let timing = node.link.timing();
            found = timing.is_some_and(|timing| timing.foreign().is_some());
            !found
        });
        found
    }

    /// The earliest of the deadlines that the token has, and those above it; and whether one of them can be moved. Of those of one
    /// clock.
    pub(crate) fn deadline(&self, clock: &Option<Clock>) -> (Option<Instant>, bool) {
        let (mut earliest, mut moves) = (None, false);
        self.each_above(|node| {
            if let Some(timing) = node.link.timing() {
                if !Clock::is_same(&timing.alarm().map(Alarm::clock), clock) {
                    return true;
                }
                let own = match timing.moving() {
                    Some(moving) => {
                        moves = true;
                        moving.deadline(&timing.entry)
                    }
                    // SAFETY: written before the node was shared, and not changed while it is held.
                    None => timing.exact.with(|e| unsafe { *e }),
                };
                earliest = earliest.into_iter().chain(own).min();
            }
            true
        });
        (earliest, moves)
    }

    /// Whether one of these deadlines can become an earlier one: whoever moves it sets it to what they like. (An idle timeout only
    /// becomes later.)
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn may_be_sooner(&self) -> bool {
        let mut found = false;
        self.each_above(|node| {
            let timing = node.link.timing();
            let moving = timing.and_then(Timing::moving);
            found = moving.is_some_and(|moving| !moving.is_idle());
            !found
        });
        found
    }

    /// Whether the timer's threads may come to be needed for what is above, though nobody has needed them: by a deadline that is set,
    /// or becomes an earlier one, or by a parent of another kind.
    #[cold]
    pub(crate) fn may_need_timer(&self) -> bool {
        // Relaxed, as there: mostly there is none, and no climb.
        if !IS_ANY_MOVABLE.load(Relaxed) && !Handle::is_any_below_foreign() {
            return false;
        }
        let mut found = false;
        self.each_above(|node| {
            let timing = node.link.timing();
            found = timing.is_some_and(|timing| {
                let moving = timing.moving();
                // A clock of tests needs no thread.
                timing.foreign().is_some()
                    || moving.is_some_and(|m| !m.is_idle() && m.clock.is_none())
            });
            !found
        });
        found
    }

    /// The clock of tests that the token is under: the nearest that was noted.
    #[cfg(feature = "testing")]
    pub(crate) fn clock(&self) -> Option<Clock> {
        let mut found = None;
        self.each_above(|node| {
            found = node.link.timing().and_then(Timing::alarm).map(Alarm::clock);
            found.is_none()
        });
        found
    }

    #[cfg(not(feature = "testing"))]
    #[inline(always)]
    pub(crate) fn clock(&self) -> Option<Clock> {
        None
    }
}
