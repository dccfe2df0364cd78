//! The group itself: its owner waits for its tasks, and ends them.

use super::body::{Body, Ends, Look};
use super::info::TaskInfo;
use super::report::{Report, Unfinished};
use super::seats::Seated;
use super::spawner::{block_on_until, Spawner};
use crate::context::Context;
use crate::sync::{Panics, Relaxed};
use crate::timer::testing::Clock;
use crate::tree::Cause;
use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;
use core::future::{poll_fn, Future};
use core::ops::Deref;
use core::pin::{pin, Pin};
use core::ptr::NonNull;
use core::task::{self, Poll};
use std::time::{Duration, Instant};

/// Work that belongs together: tasks that can be waited for, fail together, and are ended together.
///
/// Each task is counted from before its first step until after its last, whether it returns, fails, panics, is aborted
/// or is dropped before it was ever polled. The first error or panic cancels the group's [context](Spawner::context); so
/// does dropping the group, which neither blocks nor aborts.
///
/// A group dereferences to a [`Spawner`], whose methods start tasks. No runtime is needed: [`track`](Spawner::track) counts a future
/// wherever it runs, [`spawn_thread`](Spawner::spawn_thread) starts a thread. With the feature `tokio` there are also `spawn` and
/// `spawn_blocking`.
///
/// ```
/// use cancel_tree::{Context, Group};
/// use std::time::Duration;
///
/// /// Sends events in the background. At the end none is lost, and the wait for them has a bound.
/// struct Tracker(Group);
///
/// impl Tracker {
///     fn event(&self, data: &'static str) {
///         self.0.named(data).spawn_thread(move |_ctx| println!("{data}")).unwrap();
///     }
///     fn shutdown(&self, limit: &Context) -> cancel_tree::Report {
///         self.0.shutdown_blocking(limit)
///     }
/// }
///
/// let tracker = Tracker(Group::new(&Context::background()));
/// tracker.event("page opened");
/// let (limit, _guard) = Context::background().with_timeout(Duration::from_secs(5));
/// let report = tracker.shutdown(&limit);
/// assert!(report.is_clean());
/// ```
///
/// # Errors of tasks
///
/// The first error cancels the group and is its cause; [`join`](Self::join) returns it. An error that only hands back the group's own
/// end (its cause, or a bare [`ContextError`](crate::ContextError), also as the source of another error) never
/// takes the place of a real one. If nothing else has gone wrong, `join` returns the group's cause for it. A group whose
/// tasks all returned well joins well, also if it was cancelled: ask its context.
///
/// # Cost
///
/// In atomic read-modify-writes (RMWs): a task 1 to begin and 1 to end, on a line that no other thread writes as long as each ends the
/// tasks that it has started; its context 2. During a `join`, 1
/// more at the end; with a limit, 2 more. (A context with values is counted by all that have it: 2 more, on a line that
/// all share.) A task without a name takes 48 bytes, and 64 for its context, beyond its future. The group keeps that for about as many
/// as there ever were at once.
pub struct Group {
    spawner: Spawner,
}

/// What a report is about: the tasks that end from here on.
pub(crate) struct Since {
    begin: Instant,
    /// The background, under the clock by which it is reckoned.
    timed: Context,
    before: Ends,
}

/// How long [`Group::shutdown`] waits after the cancel.
const GRACE: Duration = Duration::from_secs(1);

/// # Making
impl Group {
    /// Creates a group with a context of its own, below `ctx`.
    #[must_use = "dropping a group cancels it"]
    #[cfg_attr(feature = "inspect", track_caller)]
    pub fn new(ctx: &Context) -> Group {
        Group::of(Body::allocate(ctx, None, None))
    }

    fn of(body: NonNull<Body>) -> Group {
        Group {
            spawner: Spawner::new(body),
        }
    }

    /// Creates a group inside this one. Its context is below this one's, and its tasks count here too, so this one's
    /// `join` and `shutdown` include them. Its errors cancel only itself; code that joins it may pass them on. Closing this one
    /// closes that one. (Code that waits for room there already is told when its turn comes.)
    ///
    /// Where `named` gives a task a name, it is called `db/name` here. The limit of this one does not count
    /// them.
    ///
    /// Cost: a task has a place in each group around it, and one with a name is written down there with the whole path, by an allocation:
    /// so in groups d deep, names together take d².
    #[must_use]
    #[cfg_attr(feature = "inspect", track_caller)]
    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Group {
        let around = self.spawner.at();
        Group::of(Body::allocate(
            self.context(),
            Some(around),
            Some(name.into()),
        ))
    }

    /// Makes errors cancel nothing: the first one is kept for `join`. A panic still cancels.
    #[doc(alias("supervisorScope", "SupervisorJob"))]
    #[must_use = "it is the group"]
    pub fn keep_going(self) -> Group {
        // Relaxed: tasks are started after this.
        self.spawner.body().keeps_going.store(true, Relaxed);
        self
    }

    /// Allows at most `tasks` tasks at once, of those that are started from now on. When there is no room, a start is refused
    /// ([`Full`](super::Full)); the methods `…_when` wait for room.
    ///
    /// It can be changed by [`set_limit`](Self::set_limit).
    #[doc(alias = "SetLimit")]
    #[must_use = "it is the group"]
    pub fn limit(self, tasks: usize) -> Group {
        self.set_limit(tasks);
        self
    }

    /// Changes the limit while tasks run. A higher one lets waiting tasks in; a lower one lets none in until enough have
    /// gone. `usize::MAX` means no limit; tasks that are started without one are never counted, also if a limit is set later.
    pub fn set_limit(&self, tasks: usize) {
        self.spawner.set_limit_of_group(tasks);
    }
}

/// # Starting tasks
///
/// Besides the methods of [`Spawner`], which start tasks:
impl Group {
    /// Returns a handle that can start tasks, but cannot end the group.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }
}

/// # What it says
impl Group {
    /// Returns the tasks that are there at this moment.
    #[must_use]
    pub fn running(&self) -> Vec<TaskInfo> {
        let mut panics = Panics::default();
        let running = self.spawner.body().running(&mut panics);
        panics.resume();
        running
    }
}

/// # Ending it
impl Group {
    /// Cancels the group's context. Returns `true` if this call was the first to cancel. Under a
    /// [grace](Context::with_grace) that is about the group's own end, which its shields end with too: then it is `true` also if the context was
    /// done already, by a cancel from above.
    ///
    /// # Panics
    ///
    /// As [`CancellationToken::cancel`](crate::CancellationToken::cancel).
    pub fn cancel(&self) -> bool {
        self.spawner.body().cancel()
    }

    /// Like [`cancel`](Self::cancel), with a cause.
    ///
    /// # Panics
    ///
    /// As [`cancel`](Self::cancel).
    pub fn cancel_with(&self, cause: impl Into<Cause>) -> bool {
        self.spawner.body().cancel_with(cause.into())
    }

    /// Closes the group: no new task is started, and the running ones go on.
    pub fn close(&self) {
        self.close_and_tell()();
    }

    /// Closes the group. The answer tells those who wait for room in vain, and may be called elsewhere, for their wakers may block.
    pub(crate) fn close_and_tell(&self) -> impl FnOnce() + Send + 'static {
        let in_vain = self.spawner.body().close();
        move || {
            let mut panics = Panics::default();
            in_vain.wake(&mut panics);
            panics.resume();
        }
    }
}

/// # Waiting for its end
impl Group {
    /// Waits for a moment at which the group has no task. It does not close the group. While tasks come and go, such moments may pass
    /// between its looks, unseen: close the group first if that may go on for ever.
    ///
    /// Cost: whenever the group comes to have no task, all that wait for that, here or in a `join`, look at all its places once more: of
    /// these there are about as many as there have ever been tasks at once. And all seats are passed, as many as have ever waited
    /// at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn wait_idle(&self) {
        self.gone().await;
    }

    /// Waits until all tasks are gone, including those that tasks start meanwhile; then closes the group.
    ///
    /// # Errors
    ///
    /// The first error of a task; see [Errors of tasks](Group#errors-of-tasks).
    ///
    /// # Panics
    ///
    /// With the panic of a task, after all are gone. If several calls join, one of them panics, and the others return the first error, which
    /// is a [`Panicked`](super::Panicked) if there was none before the panic.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing. If it has found the group without a task before, the group stays closed.
    #[doc(alias = "Wait")]
    pub async fn join(&self) -> Result<(), Cause> {
        self.gone_for_good().await;
        self.spawner.body().verdict()
    }

    /// Like [`join`](Self::join), but parks the calling thread.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there; and as [`blocking_wait`](crate::CancellationToken::blocking_wait), as do the other waits of groups that park the thread.
    pub fn join_blocking(&self) -> Result<(), Cause> {
        block_on_until([self.context()], || None, self.join())
    }

    /// Like [`join`](Self::join), but waits only until `limit` is done, and then leaves the group as it was; but closed, if it was found
    /// without a task meanwhile and a task had come by the time that it was closed.
    ///
    /// # Errors
    ///
    /// That of `join`; or [`Unfinished`], with the tasks that are still there.
    ///
    /// # Panics
    ///
    /// As `join`.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn join_until(&self, limit: &Context) -> Result<Result<(), Cause>, Unfinished> {
        if until(self.gone_for_good(), limit).await.is_some() {
            return Ok(self.spawner.body().verdict());
        }
        Err(Unfinished {
            cause: cause_of(limit),
            missing: self.running(),
        })
    }
}

/// # Shutting down
impl Group {
    /// Shuts the group down, in bounded time. No new task is started, and the running ones may finish until `limit` is done. Then the
    /// group is cancelled, with the limit's cause, and tasks that have not ended a second later are named in the report. Panics of tasks,
    /// and of what is called at the cancel ([`on_cancel`](Context::on_cancel)), are not resumed, but reported. What is called
    /// then has no bound: a callback that blocks holds up the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the group closed.
    pub async fn shutdown(&self, limit: &Context) -> Report {
        self.shutdown_with(limit, GRACE).await
    }

    /// Like [`shutdown`](Self::shutdown), with another bound after the cancel.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn shutdown_with(&self, limit: &Context, grace: Duration) -> Report {
        self.shut(limit, grace, None).await
    }

    /// What comes after the cancel has the grace, but not beyond `end`, by the clock of `limit`.
    async fn shut(&self, limit: &Context, grace: Duration, end: Option<Instant>) -> Report {
        let since = self.since(limit.clock().or_else(|| self.context().clock()));
        let body = self.spawner.body();
        body.failures.saying_panics(|| self.close());
        if until(self.gone(), limit).await.is_none() {
            let cancel = || _ = self.cancel_with(cause_of(limit));
            body.failures.saying_panics(cancel);
            let left = end.map(|end| end.saturating_duration_since(limit.now()));
            let grace = left.map_or(grace, |left| grace.min(left));
            let (bound, _guard) = since.timed.with_timeout(grace);
            until(self.gone(), &bound).await;
        }
        let report = self.report(&since);
        #[cfg(feature = "inspect")]
        Group::tell_stuck(&report);
        report
    }

    /// Where a report begins, whose time is that of this clock of tests, if there is one.
    pub(crate) fn since(&self, clock: Option<Clock>) -> Since {
        let timed = Context::background().under(&clock);
        Since {
            begin: timed.now(),
            timed,
            before: self.spawner.body().ends(),
        }
    }

    /// Tells the observers: user code, which may block.
    #[cfg(feature = "inspect")]
    pub(crate) fn tell_stuck(report: &Report) {
        use crate::context::observe::{tell, Event};
        for task in &report.stuck {
            tell(&Event::Stuck {
                name: task.name.as_deref(),
                spawned_at: task.spawned_at,
            });
        }
    }

    pub(crate) fn report(&self, since: &Since) -> Report {
        let body = self.spawner.body();
        // Who is still there, and then the numbers: one that ends in between is in both, and not in neither.
        let stuck = body.running_quietly();
        let (before, after) = (since.before, body.ends());
        Report {
            #[cfg(feature = "inspect")]
            tree: match stuck.is_empty() {
                true => None,
                false => super::snapshot::of_group(body),
            },
            done: after.done - before.done,
            cancelled: after.cancelled - before.cancelled,
            forced: after.dropped - before.dropped,
            stuck,
            cause: body.failures.failure(),
            took: since.timed.now().saturating_duration_since(since.begin),
        }
    }

    /// Like [`shutdown`](Self::shutdown), but parks the calling thread.
    pub fn shutdown_blocking(&self, limit: &Context) -> Report {
        // When the limit is done, it is not for long any more: looked at now and then.
        let next = || match limit.is_done() {
            false => limit.waited_deadline(),
            true => Some(Instant::now()),
        };
        block_on_until([limit, self.context()], next, self.shutdown(limit))
    }

    /// Shuts groups down one after the other, each within an equal share of the time that is left until `limit`'s deadline. The last
    /// quarter of a share, a second at most, is for what ends after the cancel. So by the deadline all have ended or are named in their reports,
    /// but for callbacks that block (see [`shutdown`](Self::shutdown)): whoever is killed then has seen them. Where no time is left, each
    /// is cancelled in its turn all the same, but not waited for: a report names what has not ended at once. That holds too where the end of a share
    /// is noticed late, or a callback has used it up.
    ///
    /// The cause of such a cancel is a bare [`ContextError::DeadlineExceeded`](crate::ContextError::DeadlineExceeded), also where the deadline
    /// of `limit` has a cause of its own; if `limit` is done already, it is that of `limit`.
    ///
    /// Without a deadline, each may take until `limit` is done, and a second after the cancel.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves those groups closed whose turn has come.
    pub async fn shutdown_stages(stages: &[&Group], limit: &Context) -> Vec<Report> {
        let mut reports = Vec::with_capacity(stages.len());
        for (i, stage) in stages.iter().enumerate() {
            let left = u32::try_from(stages.len() - i).unwrap_or(u32::MAX);
            let now = limit.now();
            let share = limit.remaining().map(|all| all / left);
            // From here on, however late it is noticed that the part before the cancel is over.
            let end = share.map(|share| now + share);
            let grace = share.map_or(GRACE, |share| GRACE.min(share / 4));
            let wait = share.map_or(Duration::MAX, |share| share - grace);
            let (part, _guard) = limit.with_timeout_from(now, wait);
            reports.push(stage.shut(&part, grace, end).await);
        }
        reports
    }
}

impl Group {
    async fn gone_for_good(&self) {
        self.gone().await;
        // Also if it says that it is closed: whoever has said so may not have come to all places yet.
        self.spawner.body().failures.saying_panics(|| self.close());
        self.gone().await;
    }

    fn gone(&self) -> Gone<'_> {
        Gone {
            spawner: &self.spawner,
            seat: None,
            zeros: None,
        }
    }
}

impl Deref for Group {
    type Target = Spawner;

    fn deref(&self) -> &Spawner {
        &self.spawner
    }
}

impl Drop for Group {
    /// Cancels the group.
    fn drop(&mut self) {
        crate::sync::unless_unwinding(|| _ = self.cancel());
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("context", self.context())
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

pub(super) fn cause_of(ctx: &Context) -> Cause {
    ctx.cause()
        .unwrap_or(crate::tree::ContextError::Cancelled.into())
}

/// What the future gives, if that is not later than that the limit is done.
pub(super) async fn until<F: Future>(future: F, limit: &Context) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut done = pin!(limit.done());
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => done.as_mut().poll(cx).map(|_| None),
    })
    .await
}

/// Ready after a moment at which no task was there.
struct Gone<'a> {
    spawner: &'a Spawner,
    seat: Option<Seated>,
    /// While it waits: what `zeros` said before its last look.
    zeros: Option<usize>,
}

impl Future for Gone<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let body = this.spawner.body();
        let seat = match &mut this.seat {
            None if body.is_idle() => return Poll::Ready(()),
            seat => seat.get_or_insert_with(|| body.seats.take()),
        };
        // Before the look, or before `zeros` is read: whoever comes to 0 after that wakes us.
        seat.register(cx.waker());
        // Relaxed: counted before the wake, whose handshake with `register` orders it.
        if this.zeros == Some(body.zeros.load(Relaxed)) {
            // Nothing has happened since.
            return Poll::Pending;
        }
        if this.zeros.is_some() && body.is_idle() {
            // By loads: a look that comes to 0 wakes all others again.
            this.seat = None;
            return Poll::Ready(());
        }
        let mut panics = Panics::default();
        // Relaxed: an older number makes the next poll look once more, and no more.
        let zeros = body.zeros.load(Relaxed);
        let look = Body::look(this.spawner.at(), &mut panics);
        // Of others that wait: they hold up nobody who waits for the end.
        this.spawner.note_panics(panics);
        match look {
            Look::Nobody => {
                this.seat = None;
                return Poll::Ready(());
            }
            // In another poll: as long as tasks come and go, each look may be too early.
            Look::Again => cx.waker().wake_by_ref(),
            Look::Wait => this.zeros = Some(zeros),
        }
        Poll::Pending
    }
}
