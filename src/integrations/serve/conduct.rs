//! The thread that keeps the time of a server's end. It runs no user code but at the very end, `when_stuck` and the waker of `run`: what is told is told by workers.

use super::report::signal_in;
use super::{Bounds, Phase, ServerFuture, ServerReport, Shared, Shutdown, WhenStuck};
use crate::context::{CancelGuard, Canceller, CauseOnDrop, Context};
use crate::group::Group;
use crate::integrations::signals::Signal;
use crate::sync::Panics;
use crate::timer::{self, Rung};
use crate::token::wait::SLICE;
use crate::token::{CancellationToken, StopOnDrop};
use crate::tree::{Cause, ContextError};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{poll_fn, Future};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::thread;
use std::time::Instant;

pub(super) struct Conductor {
    pub(super) shared: Arc<Shared>,
    pub(super) group: Group,
    /// Cancels what is above the group, and so leaves shields their grace.
    pub(super) cancel: Canceller,
    /// Ends the shields, too; when the server has ended, at the latest.
    pub(super) end_graces: CauseOnDrop,
    pub(super) close: CancelGuard,
    /// Done when the end begins.
    pub(super) begin: Watched,
    /// Done when nobody is to be waited for before the cancel.
    pub(super) force: Watched,
    pub(super) bounds: Bounds,
    pub(super) when_stuck: Option<WhenStuck>,
}

/// Contexts of users, of which the first counts. A thread that waits for these themselves calls their callbacks where there is no timer to
/// do it, and one of them may block, or panic: so this thread waits for a context of its own, which has nothing above. That one is cancelled by a worker, as a
/// rule: where none can be had, this thread is rung, and looks whether they are marked.
pub(super) struct Watched {
    theirs: Context,
    told: Context,
    _registration: StopOnDrop,
}

impl Watched {
    pub(super) fn new(theirs: &[Context]) -> Watched {
        let theirs = Context::any_of(theirs);
        let (told, tell) = Context::background().with_cancel();
        let registration = theirs.on_wake(move || _ = tell.cancel());
        Watched {
            theirs,
            told,
            _registration: registration.stop_on_drop(),
        }
    }

    /// The cause of a context that is cancelled; or of a deadline that has passed, which nobody notices where there is no timer.
    fn cause(&self) -> Option<Cause> {
        let cause = self.theirs.marked_cause();
        cause.or_else(|| {
            self.has_passed()
                .then(|| ContextError::DeadlineExceeded.into())
        })
    }

    fn has_passed(&self) -> bool {
        let is_past = |deadline| deadline <= Instant::now();
        timer::is_missing() && self.theirs.waited_deadline().is_some_and(is_past)
    }

    /// None: one of them is done, or the bound.
    fn block_on<F: Future>(&self, bound: &Context, future: F) -> Option<F::Output> {
        // If it cannot be had now, that is known from now on.
        let _ = self.theirs.look_again();
        let mut future = pin!(future);
        let mut rung = None;
        // Without the timer it is polled every so often.
        let future = poll_fn(|cx| {
            rung.get_or_insert_with(|| Rung::by(cx.waker()));
            match future.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if self.theirs.is_marked() || self.has_passed() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        let limit = Context::any_of([bound, &self.told]);
        limit.block_on(future).ok().flatten()
    }
}

/// Runs this on a worker, for what it wakes may block: before callbacks that are to be called there.
fn by_worker(f: impl FnOnce() + Send + 'static) {
    let (ctx, guard) = Context::background().with_cancel();
    drop(ctx.on_wake(f));
    cancel_by_worker(&guard, Shutdown);
    guard.detach();
}

/// Marks at once, so that nobody who blocks stands between two of these, and has a worker tell whoever waits.
fn cancel_by_worker(guard: &CancelGuard, cause: impl Into<Cause>) {
    guard.handle().cancel_by_worker(cause.into());
}

/// How long the executor has to take the report where no time was left for it to drop the server's future.
const TO_TAKE: Duration = Duration::from_secs(1);

/// The phases that have begun, and when.
struct Clock {
    /// The background, under the clock of the server's context.
    timed: Context,
    begun: Instant,
    phases: Vec<(Phase, Instant)>,
}

impl Clock {
    fn begin(&mut self, shared: &Shared, phase: Phase) {
        self.phases.push((phase, self.timed.now()));
        shared.advance(phase);
    }

    fn lengths(&self, end: Instant) -> Vec<(Phase, Duration)> {
        let ends = self.phases.iter().skip(1).map(|(_, at)| *at);
        let ends = ends.chain([end]);
        let phases = self.phases.iter().zip(ends);
        phases
            .map(|((phase, at), end)| (*phase, end.duration_since(*at)))
            .collect()
    }
}

impl Conductor {
    pub(super) fn run(self) {
        let Conductor {
            shared,
            group,
            cancel,
            end_graces,
            close,
            begin,
            force,
            bounds,
            when_stuck,
        } = self;
        let cancel = || cancel.handle().cancel_by_worker(Shutdown.into());
        let end_shields = || {
            // First: no shield is done before the context that it is of.
            cancel();
            cancel_by_worker(&end_graces, Shutdown);
        };
        let tell = |token: fn(&Shared) -> &CancellationToken| {
            let shared = shared.clone();
            by_worker(move || token(&shared).cancel());
        };

        let gone = begin.block_on(&Context::background(), shared.gone.cancelled());
        let has_ended = gone.is_some();
        let timed = Context::background().under(&group.context().clock());
        let mut clock = Clock {
            begun: timed.now(),
            phases: Vec::new(),
            timed: timed.clone(),
        };
        // The future may have ended on the same event, which is the cause then.
        let cause = begin.cause();
        let cause = cause.unwrap_or_else(|| "the server ended by itself".into());
        let is_patient = !bounds.lame_duck.is_zero() && signal_in(&cause) != Some(Signal::INT);
        if !has_ended && is_patient && force.cause().is_none() {
            clock.begin(&shared, Phase::LameDuck);
            let (bound, _guard) = timed.with_timeout(bounds.lame_duck);
            let _ = force.block_on(&bound, shared.gone.cancelled());
        }

        clock.begin(&shared, Phase::Graceful);
        let since = group.since(group.context().clock());
        // The report keeps the cause.
        cancel_by_worker(&close, cause.clone());
        let (bound, guard) = timed.with_timeout(bounds.graceful);
        let mut are_gone = wait(&bound, Some(&force), &shared, &group);
        by_worker(group.close_and_tell());
        // Who has begun between that moment and the close has what is left of the time.
        are_gone = are_gone && wait(&bound, Some(&force), &shared, &group);
        drop(guard);
        if !are_gone {
            clock.begin(&shared, Phase::Cancelled);
            cancel();
            let (limit, _guard) = timed.with_timeout(bounds.cancelled);
            are_gone = wait(&limit, None, &shared, &group);
        }
        if !are_gone {
            clock.begin(&shared, Phase::Dropped);
            tell(|shared| &shared.drop_now);
            end_shields();
            let (limit, _guard) = timed.with_timeout(bounds.dropped);
            wait(&limit, None, &shared, &group);
        }

        let now = timed.now();
        let future = shared.future.get().cloned();
        let is_stuck = future.is_none();
        let report = ServerReport {
            cause,
            server: future.unwrap_or(ServerFuture::Stuck),
            phases: clock.lengths(now),
            tasks: group.report(&since),
            took: now.duration_since(clock.begun),
        };
        // It is the only one.
        let _ = shared.report.set(report.clone());
        shared.advance(Phase::Ended);
        tell(|shared| &shared.ended);
        #[cfg(feature = "inspect")]
        {
            // Elsewhere, for it may block.
            let told = report.clone();
            let (ctx, guard) = Context::background().with_cancel();
            drop(ctx.after_func(move || Group::tell_stuck(&told.tasks)));
            drop(guard);
        }
        let (limit, _guard) = timed.with_timeout(match is_stuck {
            // An executor that was given no time cannot be told from one that is stuck.
            _ if bounds.dropped.is_zero() => TO_TAKE,
            // It has had its time.
            true => Duration::ZERO,
            false => bounds.dropped,
        });
        let mut panics = Panics::default();
        if limit.block_on(shared.taken.cancelled()).is_err() {
            if let Some(when_stuck) = when_stuck {
                panics.catch(|| (when_stuck.into_inner())(report));
            }
        }
        end_shields();
        // By this thread, for there may have been none for a worker. Nothing comes after this that its waker could hold up.
        panics.catch(|| shared.drop_now.cancel());
        panics.catch(|| shared.ended.cancel());
        // Until there is somebody to do the workers' part: nobody else may look.
        while timer::is_missing() {
            timer::look();
            thread::sleep(SLICE);
        }
        panics.resume();
    }
}

/// Until the server's future has ended and no task is there after that. Also with a limit that is done, it looks once, so that what is there counts.
fn wait(limit: &Context, force: Option<&Watched>, shared: &Shared, group: &Group) -> bool {
    let mut both = pin!(async {
        {
            // Those that are here are counted from now on.
            let mut idle = pin!(group.wait_idle());
            poll_fn(|cx| {
                let _ = idle.as_mut().poll(cx);
                Poll::Ready(())
            })
            .await;
        }
        shared.gone.cancelled().await;
        group.wait_idle().await;
    });
    let once = Context::background();
    let first = once.block_on(poll_fn(|cx| Poll::Ready(both.as_mut().poll(cx).is_ready())));
    first == Ok(true)
        || match force {
            Some(force) => force.block_on(limit, both).is_some(),
            None => limit.block_on(both).is_ok(),
        }
}
