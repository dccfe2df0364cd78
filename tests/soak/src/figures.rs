//! What has happened so far.

use crossbeam_utils::CachePadded;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that goes up.
#[derive(Default)]
pub struct Count(CachePadded<AtomicU64>);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Times, in buckets each an eighth longer than the last.
pub struct Times {
    buckets: Box<[AtomicU64]>,
    longest: AtomicU64,
}

const EIGHTHS: u32 = 3;

impl Default for Times {
    fn default() -> Times {
        Times {
            buckets: (0..64 << EIGHTHS).map(|_| AtomicU64::new(0)).collect(),
            longest: AtomicU64::new(0),
        }
    }
}

impl Times {
    pub fn note(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[Times::bucket(nanos)].fetch_add(1, Relaxed);
        if nanos > self.longest.load(Relaxed) {
            self.longest.fetch_max(nanos, Relaxed);
        }
    }

    fn bucket(nanos: u64) -> usize {
        let nanos = nanos.max(1 << EIGHTHS);
        let log = nanos.ilog2();
        let eighth = (nanos >> (log - EIGHTHS)) & ((1 << EIGHTHS) - 1);
        ((u64::from(log) << EIGHTHS) | eighth) as usize
    }

    /// The least time that is in the next bucket.
    fn end(bucket: usize) -> u64 {
        let next = bucket as u64 + 1;
        let (log, eighth) = (next >> EIGHTHS, next & ((1 << EIGHTHS) - 1));
        ((1 << EIGHTHS) | eighth) << (log - u64::from(EIGHTHS))
    }

    pub fn len(&self) -> u64 {
        self.buckets.iter().map(|n| n.load(Relaxed)).sum()
    }

    /// So many of a thousand took no longer.
    fn permille(&self, permille: u64) -> Duration {
        let wanted = (self.len() * permille).div_ceil(1000);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|n| {
            seen += n.load(Relaxed);
            seen >= wanted
        });
        let longest = self.longest.load(Relaxed);
        Duration::from_nanos(bucket.map_or(longest, |bucket| Times::end(bucket).min(longest)))
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = Duration::from_nanos(self.longest.load(Relaxed));
        let (half, p99) = (self.permille(500), self.permille(990));
        write!(f, "half within {half:.1?}, 99 % within {p99:.1?}, longest {longest:.1?}")
    }
}

#[derive(Default)]
pub struct Figures {
    /// Requests that are over, with all their waiters.
    pub requests: Count,
    pub cancels: Count,
    pub tokens: Count,
    /// Waiters that were woken, or came too late to sleep.
    pub tasks: Count,
    pub threads: Count,
    pub callbacks: Count,
    /// Callbacks that were stopped before they ran, futures that were dropped before they were woken.
    pub given_up: Count,
    pub deadlines: Count,
    /// What another thread did.
    pub errands: Count,
    /// From before the cancel to the waker's call, and to the parked thread's return.
    pub wake_task: Times,
    pub wake_thread: Times,
    /// From the deadline to the waker's call.
    pub late: Times,
}
