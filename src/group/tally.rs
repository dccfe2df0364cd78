//! The tally: how many of those that are watched have not ended yet, and what keeps the body.

use crate::sync::{AcqRel, AtomicU64, Relaxed};

/// | bits | |
/// | --- | --- |
/// | 0 to 39 | watched places, and looks that are under way |
/// | 40 to 61 | whoever is waking those that wait for the bits before to be 0 |
/// | 62 | DROPPED: there is no handle any more |
pub(super) struct Tally(AtomicU64);

const ONE: u64 = 1;
const WAKER: u64 = 1 << 40;
const DROPPED: u64 = 1 << 62;
const COUNT: u64 = WAKER - 1;

/// What the caller has to do.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Then {
    Nothing,
    /// It was the last: wake whoever waits, and then call `woken`.
    Wake,
    /// The body is the caller's to free (G5).
    Free,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally(AtomicU64::new(0))
    }

    /// Before a look, or before so many are marked.
    pub(super) fn count(&self, many: usize) {
        // Relaxed: the count goes with the mark on the place, whose release half is what its end acquires (G2).
        self.0.fetch_add(many as u64 * ONE, Relaxed);
    }

    /// Some are through.
    pub(super) fn count_off(&self, many: usize) -> Then {
        let many = many as u64 * ONE;
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = self.0.load(Relaxed);
        loop {
            let is_last = seen & COUNT == many;
            let free = is_last && seen & !COUNT == DROPPED;
            let new = seen - many + if is_last && !free { WAKER } else { 0 };
            // AcqRel: the release half hands what the task did to whoever is last; the acquire half is that one's, and pairs
            // with whoever has left a waker before a look.
            match self.0.compare_exchange_weak(seen, new, AcqRel, Relaxed) {
                Ok(_) if free => return Then::Free,
                Ok(_) if is_last => return Then::Wake,
                Ok(_) => return Then::Nothing,
                Err(now) => seen = now,
            }
        }
    }

    /// Those that wait have been woken.
    pub(super) fn woken(&self) -> Then {
        // AcqRel: the release half hands on what was done with the body, the acquire half is for whoever frees it.
        match self.0.fetch_sub(WAKER, AcqRel) - WAKER {
            DROPPED => Then::Free,
            _ => Then::Nothing,
        }
    }

    /// The last handle goes: whoever comes last after this frees the body. The caller is in the tally with one.
    pub(super) fn set_dropped(&self) {
        // Relaxed: what the handles did is handed on by the caller's `count_off`.
        self.0.fetch_add(DROPPED, Relaxed);
    }
}
