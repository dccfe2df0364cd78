//! What has happened so far, and what is alive.

use crossbeam_utils::CachePadded;
use std::fmt;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering::Relaxed};

/// A number that goes up.
#[derive(Default)]
pub struct Count(CachePadded<AtomicU64>);

impl Count {
    pub fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Default)]
pub struct Figures {
    /// Requests that are over, with all their waiters.
    pub requests: Count,
    pub tokens: Count,
    /// Waiters that were told.
    pub tasks: Count,
    pub threads: Count,
    pub callbacks: Count,
    /// Callbacks that were stopped before they ran, tasks that were dropped before they were woken.
    pub given_up: Count,
    /// Requests that were over by their deadline.
    pub deadlines: Count,
    /// Cancels and drops by another thread than the request's.
    pub errands: Count,
    /// Groups that were joined, steps of deadlines that were in time, shields that are over.
    pub groups: Count,
    pub moves: Count,
    pub shields: Count,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} by their deadline, {} tokens; told: {} tasks, {} threads, {} callbacks; given up: {}; \
             by another thread: {}; groups {}, deadlines moved {}, shields {}",
            self.requests.get(),
            self.deadlines.get(),
            self.tokens.get(),
            self.tasks.get(),
            self.threads.get(),
            self.callbacks.get(),
            self.given_up.get(),
            self.errands.get(),
            self.groups.get(),
            self.moves.get(),
            self.shields.get(),
        )
    }
}

/// What is given to the library, for it to drop.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Value,
    Cause,
    Waker,
    Callback,
}

const NAMES: [&str; 4] = ["values", "causes", "wakers", "callbacks"];

static ALIVE: [CachePadded<AtomicIsize>; NAMES.len()] =
    [const { CachePadded::new(AtomicIsize::new(0)) }; NAMES.len()];

/// One of them.
#[derive(Debug)]
pub struct Counted(Kind);

impl Counted {
    pub fn new(kind: Kind) -> Counted {
        ALIVE[kind as usize].fetch_add(1, Relaxed);
        Counted(kind)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE[self.0 as usize].fetch_sub(1, Relaxed);
    }
}

/// Those of which some are left, or too few: "3 values, -1 wakers". Empty if all are gone.
pub fn left() -> String {
    let left = ALIVE.iter().zip(NAMES).filter_map(|(alive, name)| {
        let alive = alive.load(Relaxed);
        (alive != 0).then(|| format!("{alive} {name}"))
    });
    left.collect::<Vec<_>>().join(", ")
}
