//! When a thread has looked since its context was done: for the question what does not stop.

use crate::sync::{thread, AtomicU64, Relaxed, Release};
use crate::timer::clock;
use crate::token::{CancellationToken, WeakToken};
use std::time::Instant;

/// Of one thread, which alone writes it.
pub(crate) struct Looks {
    thread: usize,
    /// What tells the thread to stop, and is not kept by this: whoever asks who could still cancel it counts the handles. None: it was
    /// told from the beginning.
    token: Option<WeakToken>,
    count: AtomicU64,
    /// When the first was, as the clock counts, and not 0; or 0.
    first: AtomicU64,
    last: AtomicU64,
}

/// So often, first then, and last then.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told {
    pub(crate) times: u64,
    pub(crate) first: Option<Instant>,
    pub(crate) last: Option<Instant>,
}

impl Looks {
    /// Of the calling thread.
    pub(crate) fn new(token: Option<&CancellationToken>) -> Looks {
        Looks {
            thread: thread::number(),
            token: token.map(CancellationToken::downgrade),
            count: AtomicU64::new(0),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// Somebody has looked at a context that is done, and was told. What others find out is not this thread's; and a step of its
    /// that has ended by a deadline of its own tells it nothing.
    #[cold]
    pub(crate) fn note(&self) {
        // A token that is gone was the thread's, which has nothing else to be told by.
        let is_told = |token: &WeakToken| token.upgrade().is_none_or(|token| token.is_cancelled());
        if thread::number() != self.thread || !self.token.as_ref().is_none_or(is_told) {
            return;
        }
        let now = now();
        // Relaxed, all but the last: written by this thread alone; whoever reads has acquired the count.
        if self.first.load(Relaxed) == 0 {
            self.first.store(now, Relaxed);
        }
        self.last.store(now, Relaxed);
        // Release: pairs with `told`, which then finds when it was.
        self.count.store(self.count.load(Relaxed) + 1, Release);
    }

    pub(crate) fn told(&self) -> Told {
        Told {
            // Acquire: pairs with `note`.
            times: self.count.load(crate::sync::Acquire),
            // Relaxed, both: see above.
            first: at(self.first.load(Relaxed)),
            last: at(self.last.load(Relaxed)),
        }
    }
}

/// Now, as the clock counts, and not 0.
pub(crate) fn now() -> u64 {
    clock::nanos(Instant::now()) | 1
}

/// The same as an instant; 0 is none.
pub(crate) fn at(nanos: u64) -> Option<Instant> {
    if nanos == 0 {
        return None;
    }
    clock::instant_at(nanos)
}
