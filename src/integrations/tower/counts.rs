//! What a layer counts.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use std::time::Instant;

/// Numbers only: nothing is published with them, so all is Relaxed.
#[derive(Debug, Default)]
pub(super) struct Counters {
    received: AtomicU64,
    expired: AtomicU64,
    malformed: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    client_gone: AtomicU64,
    failed: AtomicU64,
}

/// What has become of the requests of a layer so far; made by [`ContextLayer::counts`](super::ContextLayer::counts).
///
/// The numbers are read one after the other, while requests come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// All that came.
    pub received: u64,
    /// Turned away, for their deadline had passed when they came.
    pub expired_on_arrival: u64,
    /// Had a header for the deadline that says none.
    pub malformed: u64,
    /// Turned away, for the server's context was done or its group took none.
    pub refused: u64,
    /// Answered, or cut off, at the deadline.
    pub cut_by_deadline: u64,
    /// Given up by the client, or the connection, before the end of the response.
    pub client_gone: u64,
    /// Ended by a panic or an error of the handler or of the body.
    pub failed: u64,
}

macro_rules! count {
    ($($name:ident)*) => {$(
        pub(super) fn $name(&self) {
            self.$name.fetch_add(1, Relaxed);
            #[cfg(feature = "inspect")]
            crate::context::observe::tell(&crate::context::observe::Event::Request {
                outcome: stringify!($name),
            });
        }
    )*};
}

impl Counters {
    count!(received expired malformed refused cut client_gone failed);

    pub(super) fn read(&self) -> Counts {
        Counts {
            received: self.received.load(Relaxed),
            expired_on_arrival: self.expired.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            cut_by_deadline: self.cut.load(Relaxed),
            client_gone: self.client_gone.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}

/// A bound for the share of requests that are turned away, in windows of time one after the other.
///
/// One word: the number of the window (16 bits), all requests in it, and those turned away (24 each).
#[derive(Debug)]
pub(super) struct Ceiling {
    begin: Instant,
    window: Duration,
    /// In 2^-16.
    share: u64,
    word: AtomicU64,
}

const FIELD: u64 = (1 << 24) - 1;

impl Ceiling {
    pub(super) fn new(share: f64, window: Duration) -> Ceiling {
        Ceiling {
            begin: Instant::now(),
            window: window.max(Duration::from_millis(1)),
            // Up: a fifth of five is one.
            share: (share.clamp(0.0, 1.0) * 65536.0).ceil() as u64,
            word: AtomicU64::new(0),
        }
    }

    /// Counts a request. Whether it may be turned away, if it is to be.
    pub(super) fn admits(&self, now: Instant, wants: bool) -> bool {
        let passed = now.saturating_duration_since(self.begin);
        let number = (passed.as_nanos() / self.window.as_nanos()) as u64 & 0xffff;
        let mut admitted = false;
        // Relaxed: numbers only.
        let _ = self.word.fetch_update(Relaxed, Relaxed, |word| {
            let (all, turned) = match word >> 48 == number {
                true => (word >> 24 & FIELD, word & FIELD),
                false => (0, 0),
            };
            // It counts on from half of what fits: the share is as it was.
            let (all, turned) = match all == FIELD {
                true => (all / 2, turned / 2),
                false => (all, turned),
            };
            let all = all + 1;
            admitted = wants && (turned + 1) << 16 <= all * self.share;
            // No more than all are.
            let turned = turned + u64::from(admitted);
            Some(number << 48 | all << 24 | turned)
        });
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::{Ceiling, FIELD};
    use core::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    #[test]
    fn a_share_of_each_window() {
        let ceiling = Ceiling::new(0.2, Duration::from_secs(10));
        let at = |secs| ceiling.begin + Duration::from_secs(secs);
        // Nobody before there are five.
        let turned = (0..100).filter(|_| ceiling.admits(at(1), true)).count();
        assert_eq!(turned, 20);
        assert!(!ceiling.admits(at(9), true));
        // A new window knows nothing of the old one.
        assert!((0..8).all(|_| !ceiling.admits(at(11), false)));
        assert!(ceiling.admits(at(12), true));
        assert!(!Ceiling::new(0.0, Duration::ZERO).admits(at(1), true));
        assert!(Ceiling::new(1.0, Duration::ZERO).admits(at(1), true));
    }

    #[test]
    fn a_share_of_more_than_can_be_counted() {
        for share in [0.2, 1.0] {
            let ceiling = Ceiling::new(share, Duration::from_secs(10));
            let all = FIELD - 10;
            let turned = (all * ceiling.share) >> 16;
            ceiling.word.store(all << 24 | turned, Relaxed);
            let turned = (0..1000).filter(|_| ceiling.admits(ceiling.begin, true));
            let turned = turned.count() as f64;
            assert!((turned - 1000.0 * share).abs() <= 15.0, "{turned}");
        }
    }
}
