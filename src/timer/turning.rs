//! The service thread's loop, turn by turn. The thread itself, models and schedules take these turns; what is not the same there
//! is given to them: the time, the sleep, and who gets what is due.

use super::clock;
use super::driver::Driver;
use super::inbox;
use super::round::Round;
use std::time::{Duration, Instant};

/// What the loop needs.
pub(super) trait Outside {
    fn now(&self) -> Instant;

    /// Until the thread is woken, or for so long. It may end before.
    fn sleep(&mut self, longest: Option<Duration>);

    /// There is something for workers to do.
    fn hand(&mut self, round: Round, now: Instant);

    /// A look at how workers get on. The answer says when the next one is due, if there has to be one.
    fn look(&mut self, now: Instant) -> Option<Duration>;
}

pub(super) struct Turning<O> {
    pub(super) driver: Driver,
    pub(super) outside: O,
    next_look: Option<Duration>,
}

impl<O: Outside> Turning<O> {
    pub(super) fn new(outside: O) -> Turning<O> {
        Turning {
            driver: Driver::new(),
            outside,
            next_look: None,
        }
    }

    /// Once round: sleeps if nothing has come, and does a step of what there is to do.
    pub(super) fn turn(&mut self) {
        if !self.driver.is_busy() {
            self.rest();
        }
        let now = self.outside.now();
        if let Some(round) = self.driver.turn(clock::tick_before(now)) {
            self.outside.hand(round, now);
        }
        self.next_look = self.outside.look(now);
    }

    fn rest(&mut self) {
        if self.driver.may_sleep() {
            // By the time as it is now: the step before has taken some.
            let until = |tick| clock::until(tick, self.outside.now());
            let next = self.driver.next().map(until);
            self.outside
                .sleep(next.into_iter().chain(self.next_look).min());
        }
        inbox::note_awake();
    }

    /// Nothing is left to be done or looked after, as far as the thread knows.
    #[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
    pub(super) fn is_through(&self) -> bool {
        !self.driver.is_busy() && self.next_look.is_none()
    }
}
