//! The service as models and fuzzers have it: no thread of its own, but steps that they take on whatever
//! thread they like, and a clock that they turn themselves. `--cfg cancel_tree_loom` or `cancel_tree_by_hand`.

use super::clock::{self, Tick};
use super::driver::Driver;
use super::round::Round;
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
use super::workers::Worker;
use super::{inbox, pool};
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
use crate::sync::Arc;
#[cfg(cancel_tree_loom)]
use crate::sync::{local, Acquire, AtomicBool, Notify, Release};
use alloc::boxed::Box;
use alloc::vec::Vec;
#[cfg(cancel_tree_loom)]
use core::cell::RefCell;
use std::time::Instant;

/// In place of the module `thread`: nobody sleeps, so nobody is woken.
#[cfg(not(any(cancel_tree_loom, cancel_tree_shuttle)))]
pub(crate) mod thread {
    pub(crate) fn start() {}

    pub(crate) fn wake() {}

    pub(super) fn begin() {}

    pub(super) fn park() {
        std::thread::yield_now();
    }

    pub(crate) fn is_running() -> bool {
        true
    }

    pub(crate) fn is_missing() -> bool {
        false
    }

    pub(crate) fn look() {}
}

/// In place of the module `thread`. None is started, and it counts as running, but where a model says how one is.
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
pub mod thread {
    use super::super::one_thread::{OneThread, Sleeper};
    use crate::sync::{global, local, Notify};
    use core::cell::RefCell;
    use std::sync::{Arc, OnceLock};

    /// A thread, by where it sleeps.
    #[derive(Clone)]
    pub struct Bed(Arc<Notify>);

    impl Bed {
        #[allow(clippy::new_without_default)]
        pub fn new() -> Bed {
            Bed(Arc::new(Notify::new()))
        }

        /// Until it is woken. Now and then it wakes up for nothing.
        pub fn sleep(&self) {
            self.0.wait();
        }
    }

    impl Sleeper for Bed {
        fn is(&self, other: &Bed) -> bool {
            Arc::ptr_eq(&self.0, &other.0)
        }

        fn wake(&self) {
            self.0.notify();
        }
    }

    global! {
        static SERVICE: OneThread<Bed> = OneThread::new();
    }
    global! {
        static SPAWN: OnceLock<fn() -> Option<Bed>> = OnceLock::new();
    }
    local! {
        static BED: RefCell<Bed> = RefCell::new(Bed::new());
    }

    /// From now on threads are started, so. Before anything else in the execution.
    #[cfg(cancel_tree_loom)]
    pub fn starts_by(spawn: fn() -> Option<Bed>) {
        assert!(SPAWN.set(spawn).is_ok());
    }

    pub(crate) fn start() {
        if let Some(spawn) = SPAWN.get() {
            SERVICE.start(spawn);
        }
    }

    pub(crate) fn look() {
        if let Some(spawn) = SPAWN.get() {
            SERVICE.look(spawn);
        }
    }

    pub(crate) fn wake() {
        SERVICE.wake();
    }

    /// What a thread that is started does first, with what it is known by.
    #[cfg(cancel_tree_loom)]
    pub fn stay(bed: &Bed) -> bool {
        BED.with(|own| own.replace(bed.clone()));
        SERVICE.stay(bed)
    }

    /// The same of one that nobody has started.
    pub(super) fn begin() {
        SERVICE.start(|| Some(own()));
    }

    fn own() -> Bed {
        BED.with(|own| own.borrow().clone())
    }

    pub(super) fn park() {
        own().sleep();
    }

    pub(crate) fn is_running() -> bool {
        SPAWN.get().is_none() || SERVICE.is_running()
    }

    pub(crate) fn is_missing() -> bool {
        SPAWN.get().is_some() && SERVICE.is_missing()
    }
}

/// In place of the module `pressure`: models have no time to lose.
pub(super) mod pressure {
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    pub(crate) fn begin() {}

    pub(crate) fn pushed(_: fn()) {}

    pub(crate) fn taken_in(_: usize) {}

    pub(crate) fn is_in_parent() -> bool {
        false
    }
}

/// The timer's thread, turned by hand: deadlines pass, and `after_func` callbacks run, when it is told. One for each
/// execution, made before what it is to see.
///
/// Dropping it has all deadlines pass that are left, so that nothing stays behind in the wheel.
// Boxed: the stacks of loom's threads are small.
pub struct Service(Box<Driver>);

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

/// Where a thread stands still that moves a deadline: after its step, before its push, until it is told to go on. Loom finds that
/// place by itself, but two threads there cost it more preemptions than a model can have.
#[cfg(cancel_tree_loom)]
#[derive(Clone)]
pub struct Stop(Arc<Stopped>);

#[cfg(cancel_tree_loom)]
struct Stopped {
    is_there: Told,
    goes_on: Told,
}

/// Loom's `Notify` wakes spuriously once, so a flag says whether it was told.
#[cfg(cancel_tree_loom)]
struct Told(AtomicBool, Notify);

#[cfg(cancel_tree_loom)]
impl Told {
    fn new() -> Told {
        Told(AtomicBool::new(false), Notify::new())
    }

    fn tell(&self) {
        // Release: pairs with `wait`.
        self.0.store(true, Release);
        self.1.notify();
    }

    fn wait(&self) {
        // Acquire: pairs with `tell`.
        while !self.0.load(Acquire) {
            self.1.wait();
        }
    }
}

#[cfg(cancel_tree_loom)]
local! {
    static STOP: RefCell<Option<Stop>> = RefCell::new(None);
}

#[cfg(cancel_tree_loom)]
impl Stop {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Stop {
        Stop(Arc::new(Stopped {
            is_there: Told::new(),
            goes_on: Told::new(),
        }))
    }

    /// The calling thread stops before the next push of this kind.
    pub fn before_push(&self) {
        STOP.with(|stop| stop.replace(Some(self.clone())));
    }

    /// Until it is there.
    pub fn wait(&self) {
        self.0.is_there.wait();
    }

    pub fn go_on(&self) {
        self.0.goes_on.tell();
    }

    /// The place itself.
    pub(super) fn here() {
        if let Some(Stop(stopped)) = STOP.with(|stop| stop.take()) {
            stopped.is_there.tell();
            stopped.goes_on.wait();
        }
    }
}

/// As many ticks as a slot of the wheel's fifth level has: deadlines at multiples of it are put into one slot and
/// taken out of it, and moved once. More than half an hour.
const STEP: u32 = 24;

impl Service {
    /// A service to which nothing has come yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Service {
        Service(Box::new(Driver::new()))
    }

    /// The instants of models, `n` from 1 on: far enough for the real clock never to get there.
    pub fn at(n: u64) -> Instant {
        clock::instant_of((n + 1) << STEP)
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
        self.turn_to(clock::tick_before(now))
    }

    fn turn_to(&mut self, now: Tick) -> Due {
        let mut due = Vec::new();
        // At least once: the first looks into the inbox.
        loop {
            due.extend(self.0.turn(now));
            if !self.0.is_busy() {
                return Due(due);
            }
        }
    }

    /// How many deadlines the wheel has.
    pub fn scheduled(&self) -> usize {
        self.0.scheduled()
    }

    /// The thread as it is, but that time stands still: looks into the lists and sleeps, until it has found
    /// something. A wake-up that is lost leaves it sleeping, and the model stops.
    pub fn run_until_something_comes(&mut self) {
        thread::begin();
        loop {
            let nothing = self.0.may_sleep();
            if nothing {
                thread::park();
            }
            inbox::note_awake();
            if !nothing || self.0.is_busy() {
                return self.turn_to(0).fire();
            }
        }
    }
}

impl Drop for Service {
    /// All that is armed fires, and all entries go back to their owners, or are freed. Owners that are left
    /// then find them not scheduled.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.turn_to(clock::LAST).fire();
            // What callbacks did.
            self.turn_to(clock::LAST).fire();
            assert_eq!(self.scheduled(), 0, "entries that stay in the wheel");
        }
    }
}
