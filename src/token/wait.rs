//! Waiting as a thread.

use super::future::WithCancellationToken;
use super::token::CancellationToken;
pub(crate) use crate::sync::park::until;
use crate::timer::testing::Clock;
use crate::timer::{self, clock};
use crate::tree::waiter::Waiter;
use crate::tree::Handle;
use core::future::Future;
use core::pin::{pin, Pin};
use core::task::{Context, Poll, Waker};
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
    /// Cost: 3 RMWs to register (one counts the thread's waker), 1 for each look whether the thread has been told, 1 at the end, and those of `park`.
    ///
    /// # Panics
    ///
    /// Only where the timer's thread could not be started, and in the child of a `fork`: with what a waker or a callback panics with that
    /// is called here, at a deadline. See [`is_cancelled`](crate::CancellationToken::is_cancelled).
    pub fn blocking_wait(&self) {
        until_cancelled(self, None);
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
    ///
    /// # Panics
    ///
    /// As [`blocking_wait`](Self::blocking_wait).
    pub fn blocking_wait_timeout(&self, duration: Duration) -> bool {
        if self.is_cancelled() {
            return true;
        }
        let clock = self.handle().clock();
        let now = clock.map_or_else(Instant::now, |clock| clock.now());
        self.wait_until(now.checked_add(duration))
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
    ///
    /// # Panics
    ///
    /// As [`blocking_wait`](Self::blocking_wait).
    pub fn blocking_wait_deadline(&self, deadline: Instant) -> bool {
        self.wait_until(Some(deadline))
    }

    /// Parks the calling thread until the future is ready, or the token is cancelled: then the future is dropped, and
    /// the answer is `None`. It is [`run_until_cancelled`](Self::run_until_cancelled) for threads: a token that is cancelled
    /// at the call gives `None` without a poll; after that, of a future that is ready and a cancel, the future goes first.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let token = CancellationToken::new();
    /// assert_eq!(token.block_on(async { 5 }), Some(5));
    /// token.cancel();
    /// assert_eq!(token.block_on(std::future::pending::<()>()), None);
    /// ```
    ///
    /// See [`Context::block_on`](crate::Context::block_on) for what futures may be waited for, and what it costs.
    ///
    /// # Panics
    ///
    /// When the future does; nothing is left behind. And as [`blocking_wait`](Self::blocking_wait).
    pub fn block_on<F: Future>(&self, future: F) -> Option<F::Output> {
        let future = pin!(WithCancellationToken::new(future, self));
        block_on(&[Some(self.handle())], future, None).flatten()
    }

    /// The deadline is one of the clock that it is under.
    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        match self.handle().clock() {
            None => until_cancelled(self, deadline),
            Some(clock) => until_cancelled_by(self.handle(), clock, deadline),
        }
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
    until_done(&[Some(token.handle())], deadline, |waker| {
        seated.1.poll(token.handle(), waker)
    })
}

/// The same, by a clock of tests: its deadline is one of that clock's.
#[cold]
pub(crate) fn until_cancelled_by(token: &Handle, clock: Clock, deadline: Option<Instant>) -> bool {
    let nap = token.child();
    if let Some(deadline) = deadline {
        nap.set_deadline_by(clock, deadline, None);
    }
    until_cancelled(&nap.into(), None);
    token.is_cancelled()
}

/// How long a thread sleeps at most while the timer's thread is needed and could not be started, or is another process's.
pub(crate) const SLICE: Duration = Duration::from_millis(10);

/// Has the timer's thread started where what is above may need it while the caller sleeps: when it cannot be had then, nobody wakes
/// the caller to try again. If it cannot be had now, it is missing from now on.
fn see_to_timer(tokens: &[Option<&Handle>]) {
    let may_need_it = || tokens.iter().flatten().any(|token| token.may_need_timer());
    if !timer::is_running() && may_need_it() {
        timer::start();
    }
}

/// The same, for a thread that sleeps by other means: by when it has to come back.
#[allow(dead_code)] // It depends on the features who needs it.
pub(crate) fn look_again(token: Option<&Handle>) -> Option<Instant> {
    timer::look();
    see_to_timer(&[token]);
    timer::is_missing().then(|| Instant::now() + SLICE)
}

/// Whether it is for those who wait for this to do what workers would have done: in a forked child, below what tells it by them.
fn is_left_alone(tokens: &[Option<&Handle>]) -> bool {
    Handle::is_any_below_foreign()
        && timer::is_in_parent()
        && tokens
            .iter()
            .flatten()
            .any(|token| token.is_below_foreign())
}

/// `until`, for what the timer's threads may have a part in: tries to start the thread while it is missing, and does the workers'
/// part in a forked child, where what a token is below that it waits for may be done by them.
pub(crate) fn until_done(
    tokens: &[Option<&Handle>],
    deadline: Option<Instant>,
    mut done: impl FnMut(&Waker) -> bool,
) -> bool {
    let mut is_alone = None;
    loop {
        timer::look();
        let looks = is_alone == Some(true);
        if looks {
            timer::see_to_jobs();
        }
        let slice = (looks || timer::is_missing()).then(|| Instant::now() + SLICE);
        let first = [deadline, slice].into_iter().flatten().min();
        let mut is_done = false;
        let is_over = until(first, |waker| {
            if timer::is_missing() {
                // What ends this wait may be woken by what is done then, and by nothing else.
                let now = clock::at_or_before(Instant::now());
                tokens.iter().flatten().for_each(|token| token.expire(now));
            }
            is_done = done(waker);
            // Not before it is to sleep, for that asks the system, or starts a thread.
            let is_alone = !is_done && is_alone.is_none() && {
                see_to_timer(tokens);
                *is_alone.insert(is_left_alone(tokens))
            };
            // It begins anew, if it has to look now and then. What has been polled just now may be what has first needed the timer.
            is_done || is_alone || slice.is_none() && timer::is_missing()
        });
        if is_done {
            if looks {
                // Others wait for what has ended this wait.
                timer::see_to_jobs();
            }
            return true;
        }
        if !is_over && first == deadline {
            return false;
        }
    }
}

/// Parks the calling thread until the future is ready, or until the deadline: none then.
pub(crate) fn block_on<F: Future>(
    tokens: &[Option<&Handle>],
    mut future: Pin<&mut F>,
    deadline: Option<Instant>,
) -> Option<F::Output> {
    let mut output = None;
    until_done(tokens, deadline, |waker| {
        if let Poll::Ready(ready) = future.as_mut().poll(&mut Context::from_waker(waker)) {
            output = Some(ready);
        }
        output.is_some()
    });
    output
}
