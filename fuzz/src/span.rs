//! When an operation was: it has a time stamp from before and from after it. Of two operations one is known to be earlier only
//! if it was over before the other one began.

use std::sync::atomic::{AtomicU64, Ordering};

static CLOCK: AtomicU64 = AtomicU64::new(1);

pub fn stamp() -> u64 {
    CLOCK.fetch_add(1, Ordering::SeqCst)
}

#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub begin: u64,
    pub end: u64,
}

impl Span {
    pub fn of<T>(operation: impl FnOnce() -> T) -> (Span, T) {
        let begin = stamp();
        let answer = operation();
        let end = stamp();
        (Span { begin, end }, answer)
    }

    pub(crate) fn is_before(self, other: Span) -> bool {
        self.end < other.begin
    }
}
