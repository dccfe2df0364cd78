//! The service as models and fuzzers have it: no thread of its own, but steps that they take on whatever
//! thread they like, and a clock that they turn themselves. `--cfg cancel_tree_loom` or `cancel_tree_by_hand`.

use super::clock::{self, Tick};
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
use super::crew::Crew;
#[cfg(cancel_tree_loom)]
pub use super::no_thread::thread::{starts_by, stay, Bed};
#[cfg(cancel_tree_loom)]
pub use super::no_thread::Stop;
use super::round::Round;
use super::turning::{Outside, Turning};
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
use super::workers::{self, Worker};
use super::{inbox, pool, thread};
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
use crate::sync::Arc;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use std::time::{Duration, Instant};

/// The timer's thread, turned by hand: deadlines pass, and `after_func` callbacks run, when it is told. One for each
/// execution, made before what it is to see.
///
/// Dropping it has all deadlines pass that are left, so that nothing stays behind in the wheel.
// Boxed: the stacks of loom's threads are small.
pub struct Service(Box<Turning<World>>);

/// Contexts whose deadlines have passed, and `after_func` callbacks, to be woken and run: as workers get them.
#[must_use]
pub struct Due(Vec<Round>);

impl Due {
    /// Wakes what waits, then runs the callbacks: the workers' part.
    pub fn fire(self) {
        for round in &self.0 {
            while round.things().wake_one() {}
        }
        for round in &self.0 {
            while round.things().call_one() {}
        }
    }
}

#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
impl Due {
    /// For more than one worker: the first round.
    pub fn share(self) -> Shared {
        let first = self.0.into_iter().next();
        Shared(Arc::new(first.unwrap_or_else(Round::nothing)))
    }
}

/// A round that several workers are at.
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
#[derive(Clone)]
pub struct Shared(Arc<Round>);

#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
impl Shared {
    /// The part of a worker that is sent there.
    pub fn serve(self) {
        Worker::new(Arc::new(Round::nothing()), true).serve(self.0);
    }

    /// The part of one that only wakes, because others are at callbacks.
    pub fn serve_waking(self) {
        Worker::new(Arc::new(Round::nothing()), false).serve(self.0);
    }

    /// The round after it.
    pub fn set_next(&self, next: &Shared) {
        self.0.set_next(next.0.clone());
    }

    /// Whether all of it has been taken by somebody.
    pub fn is_taken(&self) -> bool {
        !self.0.things().is_to_wake() && !self.0.things().is_to_call()
    }
}

/// A worker, and what the service thread knows of it.
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
#[derive(Clone)]
pub struct Hand(Arc<Worker>);

#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
impl Hand {
    pub fn new(round: &Shared) -> Hand {
        Hand(Arc::new(Worker::new(round.0.clone(), true)))
    }

    /// What the worker does with one round, and those after it.
    pub fn serve(&self, round: Shared) {
        self.0.serve(round.0);
    }

    /// The service thread's look at where the worker is; all before `first` has been taken.
    pub fn lead_on(&self, first: &Shared) {
        self.0.lead_on(&first.0);
    }

    /// The worker's thread, until it goes.
    pub fn work(&self) {
        self.0.work();
    }

    pub fn send_if_idle(&self, round: &Shared) -> bool {
        self.0.send_if_idle(&round.0)
    }

    /// Its time is over.
    pub fn let_go(&self) {
        self.0.wake_for_nothing();
    }

    pub fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}

/// Such a sleep of the service's ends by itself.
const SHORT: Duration = Duration::from_millis(2);

/// As many ticks as a slot of the wheel's fifth level has: deadlines at multiples of it are put into one slot and
/// taken out of it, and moved once. More than half an hour.
const STEP: u32 = 24;

impl Service {
    /// A service to which nothing has come yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Service {
        Service(Box::new(Turning::new(World {
            now: clock::instant_of(0),
            #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
            crew: None,
        })))
    }

    /// One that [runs](Service::run_until_something_comes) with workers, as the real one: what is due is handed to threads, on a
    /// machine with one processor. Of the starts of threads those succeed that are said to, in their order, and none after these.
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    pub fn with_workers<I: Iterator<Item = bool> + 'static>(
        starts: impl IntoIterator<IntoIter = I>,
    ) -> Service {
        workers::set_starts(starts.into_iter(), Service::end_of_thread);
        let mut service = Service::new();
        service.0.outside.crew = Some(Crew::new(service.0.outside.now));
        service
    }

    /// Workers that are idle have been so for long, and go.
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    pub fn let_workers_go(&self) {
        workers::let_go();
    }

    /// The instants of models, `n` from 1 on: far enough for the real clock never to get there.
    pub fn at(n: u64) -> Instant {
        clock::instant_of((n + 1) << STEP)
    }

    /// An instant that the service does not sleep through: see [`run_until_something_comes`](Service::run_until_something_comes).
    pub fn soon() -> Instant {
        clock::instant_of(8)
    }

    /// What happens at the end of a thread that has had contexts. loom lets a thread be joined before; a fuzzer's
    /// thread does not end.
    pub fn end_of_thread() {
        pool::close();
    }

    /// One round of the thread: takes over what has come, does all that is due at `now`, and runs
    /// callbacks.
    pub fn turn(&mut self, now: Instant) {
        self.expire(now).fire();
    }

    /// The same, but what has been marked is the caller's to [`fire`](Due::fire), on another thread if it likes.
    pub fn expire(&mut self, now: Instant) -> Due {
        self.0.outside.now = now.max(self.0.outside.now);
        self.turn_to(clock::tick_before(now))
    }

    fn turn_to(&mut self, now: Tick) -> Due {
        let mut due = Vec::new();
        // At least once: the first looks into the inbox.
        loop {
            due.extend(self.0.driver.turn(now));
            if !self.0.driver.is_busy() {
                return Due(due);
            }
        }
    }

    /// How many deadlines the wheel has.
    pub fn scheduled(&self) -> usize {
        self.0.driver.scheduled()
    }

    /// The thread as it is: takes turns, and sleeps, until it has found something and nothing is left of it. A wake-up that is lost
    /// leaves it sleeping, and the model stops. Where it would sleep for two milliseconds or less, that time passes at once; otherwise it
    /// stands still.
    pub fn run_until_something_comes(&mut self) {
        self.run_until_so_much_comes(1);
    }

    /// The same for more: a job counts once, a deadline when it comes and when it passes.
    pub fn run_until_so_much_comes(&mut self, number: usize) {
        thread::begin();
        let number = self.0.driver.seen + number;
        while self.0.driver.seen < number || !self.0.is_through() {
            self.0.turn();
        }
        // Nobody has to wake it.
        assert_eq!(inbox::sleeps_until(), 0);
    }
}

/// What is around the loop.
struct World {
    now: Instant,
    /// Without, the service's thread wakes and runs what is due.
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    crew: Option<Crew>,
}

// SAFETY: it has the crew's rounds, which threads share: the real ones are `Sync`, but for the cell by which loom sees looks at them.
#[cfg(cancel_tree_loom)]
unsafe impl Send for World {}

impl Outside for World {
    fn now(&self) -> Instant {
        self.now
    }

    fn sleep(&mut self, longest: Option<Duration>) {
        match longest.filter(|longest| *longest <= SHORT) {
            Some(short) => {
                self.now += short;
                thread::yield_now();
            }
            None => thread::park(),
        }
    }

    fn hand(&mut self, round: Round, now: Instant) {
        #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
        if let Some(crew) = &mut self.crew {
            return crew.hand(round, now);
        }
        let _ = now;
        Due(vec![round]).fire();
    }

    fn look(&mut self, now: Instant) -> Option<Duration> {
        #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
        if let Some(crew) = &mut self.crew {
            return crew.look(now);
        }
        let _ = now;
        None
    }
}

impl Drop for Service {
    /// All that is armed fires, and all entries go back to their owners, or are freed. Owners that are left
    /// then find them not scheduled.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
            workers::let_all_go();
            self.turn_to(clock::LAST).fire();
            // What callbacks did.
            self.turn_to(clock::LAST).fire();
            assert_eq!(self.scheduled(), 0, "entries that stay in the wheel");
        }
    }
}
