//! What models and fuzzers have in place of the thread, and of what slows others down.

#[cfg(cancel_tree_loom)]
use crate::sync::{local, Acquire, Arc, AtomicBool, Notify, Release};
#[cfg(cancel_tree_loom)]
use core::cell::RefCell;

/// In place of the module `thread`: nobody sleeps, so nobody is woken.
#[cfg(not(any(cancel_tree_loom, cancel_tree_shuttle)))]
pub(super) mod thread {
    pub(crate) fn start() {}

    pub(crate) fn wake() {}

    pub(in crate::timer) fn begin() {}

    pub(in crate::timer) fn park() {
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

/// In place of the module `thread`.
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
pub(super) mod thread {
    use crate::sync::{global, Acquire, AtomicBool, Notify, Release};

    global! {
        /// Where the thread sleeps.
        static BED: Notify = Notify::new();
    }
    global! {
        /// In place of the pointer that the thread is known by.
        static KNOWN: AtomicBool = AtomicBool::new(false);
    }

    pub(crate) fn start() {}

    pub(crate) fn wake() {
        // Acquire: pairs with `begin`.
        if KNOWN.load(Acquire) {
            BED.notify();
        }
    }

    pub(in crate::timer) fn begin() {
        // Release: pairs with `wake`.
        KNOWN.store(true, Release);
    }

    pub(in crate::timer) fn park() {
        BED.wait();
    }

    pub(crate) fn is_running() -> bool {
        true
    }

    pub(crate) fn is_missing() -> bool {
        false
    }

    pub(crate) fn look() {}
}

/// In place of the module `pressure`: models have no time to lose.
pub(super) mod pressure {
    pub(crate) fn pushed(_: fn()) {}

    pub(crate) fn taken_in(_: usize) {}

    pub(crate) fn is_in_parent() -> bool {
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
