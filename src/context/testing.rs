//! The clock that tests advance.

use super::limit::Limit;
use super::Context;
use crate::sync::{park, waker_of, Acquire, Arc, AtomicBool, Release, Wake};
use crate::timer::testing::Clock;
use core::fmt;
use core::future::Future;
use core::mem;
use core::pin::pin;
use core::task::{self, Poll, Waker};
use std::time::{Duration, Instant};

/// A clock for tests: its time stands until it is [advanced](Self::advance), and then it is later at once. The feature
/// `testing`.
///
/// A context that is put [under it](Context::with_clock), and everything derived from that one, takes its time from here: deadlines,
/// tokens below and contexts below those, sleeps of tasks and threads, groups' bounds, graces, idle timeouts and deadlines that
/// move. So a test of an hour's deadlines takes milliseconds, and is the same every time.
///
/// ```
/// use cancel_tree::{Context, ContextError, TestClock};
/// use std::time::Duration;
///
/// let clock = TestClock::new();
/// let root = Context::background().with_clock(&clock);
/// let (request, _guard) = root.with_timeout(Duration::from_secs(3600));
/// let token = request.child_token();
///
/// clock.advance(Duration::from_secs(3599));
/// assert!(!request.is_done());
/// assert_eq!(request.remaining(), Some(Duration::from_secs(1)));
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(request.err(), Some(ContextError::DeadlineExceeded));
/// assert!(token.is_cancelled());
/// ```
///
/// Clones are the same clock.
///
/// # What `Instant` means
///
/// The clock begins at the moment at which it is made, and counts from there: its instants are ordinary ones, mostly of the future. They
/// are exact, to the nanosecond. They can be compared with one another, and not with [`Instant::now`]: code that computes a deadline
/// asks [`Context::now`] for the time. Deadlines that a context has from above [`with_clock`](Context::with_clock) are of another clock,
/// and stay there: they still end it, but its [`deadline`](Context::deadline) does not include them. Of an
/// [`any_of`](Context::any_of) it is the first context's clock that has one.
///
/// # What happens when it is advanced
///
/// The time goes from one deadline to the next, up to where it is to be. At each instant, what is due is marked, in the order in which
/// the deadlines were set or moved (of an idle timeout that was touched, when the clock has noticed that);
/// then tasks and threads are woken; then callbacks run ([`on_cancel`](Context::on_cancel)): as at every cancel, but all on the
/// thread that advances, and before the time goes on. `advance` returns when that is done. Callbacks of
/// [`after_func`](Context::after_func) run on a worker thread, as usual, and are not waited for; nor is what has been woken.
///
/// Whoever is woken or called finds the time at the deadline. Another thread that asks again and again whether a context is done may see that
/// a moment before [`now`](Self::now) says so.
///
/// A callback may use the clock. A deadline that it sets is met on the way, if it lies there. What it advances comes on top: each call moves
/// the time on by what it says, also where several are at it at once, on whatever threads.
///
/// A callback whose registration was dropped keeps its context until it has run. If the last handle of the clock is dropped before, the clock cannot be
/// advanced any more, and they are never freed: advance it beyond their deadlines before, or cancel.
///
/// A deadline that is set to a time that has passed, by [`DeadlineGuard::set`](crate::DeadlineGuard::set), is met on the thread that sets it.
///
/// # When to advance it
///
/// When the other side waits. A task on a runtime of one thread does when control is back in the test; whatever the test wakes by
/// `advance` runs when it awaits something next. For other threads there is
/// [`blocking_wait_for_deadlines`](Self::blocking_wait_for_deadlines): when the deadline of the sleep is set, the thread sleeps, or is about to.
///
/// ```
/// # use cancel_tree::{Context, TestClock};
/// # use std::time::Duration;
/// let clock = TestClock::new();
/// let ctx = Context::background().with_clock(&clock);
/// let sleeper = std::thread::spawn(move || ctx.blocking_sleep(Duration::from_secs(60)));
/// clock.blocking_wait_for_deadlines(1);
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(sleeper.join().unwrap(), Ok(()));
/// ```
///
/// A future that does it all by itself is run by [`block_on`](Self::block_on), which advances the clock whenever nothing else is left to do.
///
/// # Cost
///
/// There is a lock in it, which contexts under it take when a deadline is set, moved or dropped: held for some steps, or while what is due is
/// marked, never while a waker, callback or destructor of others runs. The time is an atomic load. Contexts that are under no such clock
/// pay a comparison with null for the feature, and no lock.
#[derive(Clone)]
pub struct TestClock(Clock);

// What is locked is in order while others' code runs.
impl core::panic::UnwindSafe for TestClock {}
impl core::panic::RefUnwindSafe for TestClock {}

impl TestClock {
    /// Creates a clock that stands at the present time.
    #[must_use]
    pub fn new() -> TestClock {
        TestClock(Clock::new())
    }

    /// Returns the time of this clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.now()
    }

    /// Moves the time on by `by`, past the deadlines on the way: see [there](Self#what-happens-when-it-is-advanced).
    ///
    /// ```
    /// # use cancel_tree::{Context, TestClock};
    /// # use std::time::Duration;
    /// # const SECOND: Duration = Duration::from_secs(1);
    /// let clock = TestClock::new();
    /// let begin = clock.now();
    /// let (ctx, _guard) = Context::background().with_clock(&clock).with_timeout(SECOND);
    /// let seen = clock.clone();
    /// ctx.on_cancel(move || assert_eq!(seen.now(), begin + SECOND)); // by the deadline's time
    /// clock.advance(10 * SECOND);
    /// assert_eq!(clock.now(), begin + 10 * SECOND);
    /// ```
    ///
    /// It goes no further than 292 years.
    ///
    /// # Panics
    ///
    /// With the first panic of a waker or callback, when all is done.
    pub fn advance(&self, by: Duration) {
        self.0.advance(nanos(by));
    }

    /// Moves the time on to the next deadline, and lets what is due then pass. Returns by how much, or `None` if there is no deadline.
    ///
    /// A cancelled context has none any more, and an idle timeout's is where the last touch has put it.
    ///
    /// # Panics
    ///
    /// As [`advance`](Self::advance).
    pub fn advance_to_next(&self) -> Option<Duration> {
        self.0.advance_to_next()
    }

    /// Returns when the next deadline is.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.next_deadline()
    }

    /// Returns how many deadlines are set and have not passed: of contexts, of sleeps and of waits with a limit. A context whose own is not
    /// earlier than that above has none, nor has one that is cancelled.
    #[must_use]
    pub fn deadlines(&self) -> usize {
        self.0.deadlines()
    }

    /// Returns a future that is ready when there are `at_least` [deadlines](Self::deadlines) or more.
    ///
    /// ```
    /// # use cancel_tree::{Context, TestClock};
    /// # use std::time::Duration;
    /// # futures::executor::block_on(async {
    /// let clock = TestClock::new();
    /// let ctx = Context::background().with_clock(&clock);
    /// let sleep = ctx.sleep(Duration::from_secs(60));
    /// let advanced = async {
    ///     clock.wait_for_deadlines(1).await;
    ///     clock.advance(Duration::from_secs(60));
    /// };
    /// assert_eq!(futures::join!(sleep, advanced).0, Ok(()));
    /// # });
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub fn wait_for_deadlines(
        &self,
        at_least: usize,
    ) -> impl Future<Output = ()> + Send + Sync + Unpin + 'static {
        self.0.watch(at_least)
    }

    /// Like [`wait_for_deadlines`](Self::wait_for_deadlines), but parks the calling thread.
    pub fn blocking_wait_for_deadlines(&self, at_least: usize) {
        let mut watch = pin!(self.0.watch(at_least));
        park::until(None, |waker| {
            let mut cx = task::Context::from_waker(waker);
            watch.as_mut().poll(&mut cx).is_ready()
        });
    }

    /// Runs the future on this thread, and [advances](Self::advance_to_next) the clock from one deadline to the next whenever the
    /// future waits and has not been woken. If there is no deadline, the thread sleeps until it is woken.
    ///
    /// ```
    /// # use cancel_tree::{Context, ContextError, TestClock};
    /// # use std::time::Duration;
    /// let clock = TestClock::new();
    /// let (begin, ctx) = (clock.now(), Context::background().with_clock(&clock));
    /// let (ctx, _guard) = ctx.with_timeout(Duration::from_secs(3600));
    /// clock.block_on(async {
    ///     while ctx.sleep(Duration::from_secs(60)).await.is_ok() { /* once a minute */ }
    /// });
    /// assert_eq!(clock.now(), begin + Duration::from_secs(3600));
    /// ```
    ///
    /// All that the future waits for should be in it, joined or selected. What runs elsewhere, on threads or a runtime, is not seen to be
    /// at work: the clock does not wait for it.
    ///
    /// # Panics
    ///
    /// As [`advance`](Self::advance), and when the future does.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut output = None;
        let (mut woken, mut is_new) = (None, true);
        park::until(None, |sleeper| {
            let woken = woken.get_or_insert_with(|| {
                Arc::new(Woken {
                    is_woken: AtomicBool::new(false),
                    sleeper: sleeper.clone(),
                })
            });
            let waker = waker_of(woken.clone());
            loop {
                // Acquire: pairs with the swaps of all that have woken it.
                while !mem::take(&mut is_new) && !woken.is_woken.swap(false, Acquire) {
                    if self.advance_to_next().is_none() {
                        return false;
                    }
                }
                let poll = future.as_mut().poll(&mut task::Context::from_waker(&waker));
                if let Poll::Ready(ready) = poll {
                    output = Some(ready);
                    return true;
                }
            }
        });
        match output {
            Some(output) => output,
            None => unreachable!("`until` ends when there is an output"),
        }
    }
}

/// How it stands with a future that `block_on` runs.
struct Woken {
    is_woken: AtomicBool,
    sleeper: Waker,
}

impl Wake for Woken {
    fn wake(this: &Arc<Woken>) {
        // Release: pairs with the swap before the next poll. An RMW, so that what an earlier one has released goes on with
        // it. Before the sleeper is told, which then looks.
        this.is_woken.swap(true, Release);
        this.sleeper.wake_by_ref();
    }
}

fn nanos(by: Duration) -> u64 {
    u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)
}

impl Default for TestClock {
    /// [`TestClock::new`].
    fn default() -> TestClock {
        TestClock::new()
    }
}

impl fmt::Debug for TestClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClock")
            .field("now", &self.now())
            .field("deadlines", &self.deadlines())
            .finish_non_exhaustive()
    }
}

/// # Under a clock of tests
impl Context {
    /// Creates a context below this one that takes its time from that clock, as does everything that is derived from it: see
    /// [`TestClock`]. It is done when this one is. The feature `testing`.
    ///
    /// ```
    /// # use cancel_tree::{Context, TestClock};
    /// # use std::time::Duration;
    /// let clock = TestClock::new();
    /// let ctx = Context::background().with_clock(&clock);
    /// let (ctx, _guard) = ctx.with_timeout(Duration::from_secs(60));
    /// clock.advance(Duration::from_secs(60));
    /// assert!(ctx.is_done());
    /// ```
    ///
    /// A token below it, and a context below that, is under the clock too, unless it was made when what is above was cancelled already. Tokens
    /// (not contexts) are not if the clock has come to their context without one: by [`any_of`](Context::any_of) from a source that can't be done, or to a
    /// [`shield`](Context::shield) whose grace is from before the clock.
    pub fn with_clock(&self, clock: &TestClock) -> Context {
        let clock = &clock.0;
        if Clock::is_same(&self.clock(), &Some(clock.clone())) {
            return self.clone();
        }
        let token = self.token.as_ref().map(|token| {
            let token = token.child_token();
            token.handle().note_clock(clock.clone());
            token
        });
        let ctx = Context {
            token,
            limit: Limit::Never,
            values: self.values.clone(),
            chain: self.chain,
        };
        ctx.under(&Some(clock.clone()))
    }
}
