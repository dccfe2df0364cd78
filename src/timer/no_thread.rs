//! What models and fuzzers have in place of the thread, and of what slows others down.

#[cfg(cancel_tree_loom)]
use crate::sync::{local, Acquire, Arc, AtomicBool, Notify, Release};
#[cfg(cancel_tree_loom)]
use core::cell::RefCell;

/// In place of the module `thread`: nobody sleeps, so nobody is woken.
#[cfg(not(any(cancel_tree_loom, cancel_tree_shuttle)))]
pub(super) mod thread {
    pub(crate) fn start() {}

    pub(crate) fn wake() -> bool {
        true
    }

    pub(crate) fn is_there() -> bool {
        true
    }

    pub(in crate::timer) fn begin() {}

    pub(in crate::timer) fn park() {
        yield_now();
    }

    pub(in crate::timer) use std::thread::yield_now;

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
pub(super) mod thread {
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

    pub(crate) fn wake() -> bool {
        SERVICE.wake()
    }

    pub(crate) fn is_there() -> bool {
        SERVICE.is_there()
    }

    /// What a thread that is started does first, with what it is known by.
    #[cfg(cancel_tree_loom)]
    pub fn stay(bed: &Bed) -> bool {
        BED.with(|own| own.replace(bed.clone()));
        SERVICE.stay(bed)
    }

    /// The same of one that nobody has started.
    pub(in crate::timer) fn begin() {
        SERVICE.start(|| Some(own()));
    }

    fn own() -> Bed {
        BED.with(|own| own.borrow().clone())
    }

    pub(in crate::timer) fn park() {
        own().sleep();
    }

    pub(in crate::timer) use crate::sync::model::thread::yield_now;

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

    pub(crate) fn pushed(_: fn() -> bool) {}

    pub(crate) fn taken_in(_: usize) {}

    pub(crate) fn is_in_parent() -> bool {
        false
    }

    pub(crate) fn is_much() -> bool {
        false
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
