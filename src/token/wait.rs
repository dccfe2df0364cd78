//! Waiting as a thread.

use super::token::CancellationToken;
pub(crate) use crate::sync::park::until;
use crate::timer::{self, clock};
use crate::tree::waiter::Waiter;
use core::task::Waker;
use std::time::{Duration, Instant};

/// # Waiting as a thread
impl CancellationToken {
    /// Parks the calling thread until the token is cancelled.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let token = CancellationToken::new();
    /// let worker = std::thread::spawn({
    ///     let token = token.clone();
    ///     move || token.blocking_wait()
    /// });
    /// token.cancel();
    /// worker.join().unwrap();
    /// ```
    ///
    /// The thread sleeps by [`std::thread::park`]. A permit that is given to it meanwhile, by
    /// [`Thread::unpark`](std::thread::Thread::unpark), neither ends the wait nor is lost: a wait that has slept leaves a permit
    /// behind. So the next `park` of the thread's own may return at once, for nothing, as `park` may at any time.
    ///
    /// Cost: 2 RMWs to register, 1 for each look whether the thread has been told, 1 at the end, and those of `park`.
    pub fn blocking_wait(&self) {
        self.wait_until(None);
    }

    /// Parks the calling thread until the token is cancelled, or for `duration`. Returns `true` if it is
    /// cancelled.
    ///
    /// A duration beyond what the clock can express means for ever.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// # use std::time::Duration;
    /// let token = CancellationToken::new();
    /// assert!(!token.blocking_wait_timeout(Duration::from_millis(1)));
    /// ```
    pub fn blocking_wait_timeout(&self, duration: Duration) -> bool {
        if self.is_cancelled() {
            return true;
        }
        self.wait_until(Instant::now().checked_add(duration))
    }

    /// Parks the calling thread until the token is cancelled, or until `deadline`. Returns `true` if it is
    /// cancelled.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// # use std::time::Instant;
    /// let token = CancellationToken::new();
    /// assert!(!token.blocking_wait_deadline(Instant::now()));
    /// ```
    pub fn blocking_wait_deadline(&self, deadline: Instant) -> bool {
        self.wait_until(Some(deadline))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        until_cancelled(self, deadline)
    }
}

/// Parks the calling thread until the token is cancelled, or until the deadline. Returns `true` if it is cancelled.
pub(crate) fn until_cancelled(token: &CancellationToken, deadline: Option<Instant>) -> bool {
    if token.is_cancelled() {
        return true;
    }
    /// Takes the waker back, also if cloning it panics.
    struct Seated<'a>(&'a CancellationToken, Waiter);
    impl Drop for Seated<'_> {
        fn drop(&mut self) {
            self.1.leave(self.0.handle());
        }
    }
    let mut seated = Seated(token, Waiter::new());
    until_done(deadline, |waker| {
        if timer::is_missing() {
            token.handle().expire(clock::at_or_before(Instant::now()));
        }
        seated.1.poll(token.handle(), waker)
    })
}

/// How long a thread sleeps at most while the timer's thread is needed and could not be started.
const SLICE: Duration = Duration::from_millis(10);

/// `until`, for what the timer's threads may have a part in: tries to start the thread while it is missing.
pub(crate) fn until_done(deadline: Option<Instant>, mut done: impl FnMut(&Waker) -> bool) -> bool {
    loop {
        timer::look();
        let slice = timer::is_missing().then(|| Instant::now() + SLICE);
        let first = [deadline, slice].into_iter().flatten().min();
        if until(first, &mut done) {
            return true;
        }
        if first == deadline {
            return false;
        }
    }
}
