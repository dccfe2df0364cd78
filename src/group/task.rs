//! What runs at a place.

use super::inside::inside;
use super::member::Member;
use super::place::End;
#[cfg(feature = "inspect")]
use super::probe::{Probe, Work};
use crate::context::Context;
use crate::sync::Panics;
use crate::tree::Cause;
use alloc::boxed::Box;
use core::any::Any;
use core::fmt;
use core::future::Future;
use core::mem::ManuallyDrop;
use core::pin::Pin;
use core::task::{self, Poll};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// What a task may return: `()`, or a `Result` whose error can be a [`Cause`]. For an error type of your own:
///
/// ```
/// use cancel_tree::{Cause, Context, Group};
///
/// #[derive(Debug)]
/// struct NotFound;
/// impl std::fmt::Display for NotFound {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("not found")
///     }
/// }
/// impl std::error::Error for NotFound {}
///
/// impl From<NotFound> for Cause {
///     fn from(error: NotFound) -> Cause {
///         Cause::new(error)
///     }
/// }
///
/// let group = Group::new(&Context::background());
/// group.spawn_thread(|_ctx| Err::<(), _>(NotFound)).unwrap();
/// assert!(group.join_blocking().unwrap_err().find::<NotFound>().is_some());
/// ```
#[diagnostic::on_unimplemented(
    message = "a task of a group cannot return `{Self}`",
    note = "it returns `()`, or a `Result` whose error converts into a `Cause`; for results of any type see `Group::outcomes`"
)]
pub trait Outcome: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), Cause>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<T, E> Sealed for Result<T, E> {}
}

impl Outcome for () {
    fn into_result(self) -> Result<(), Cause> {
        Ok(())
    }
}

impl<T, E: Into<Cause>> Outcome for Result<T, E> {
    fn into_result(self) -> Result<(), Cause> {
        self.map(drop).map_err(Into::into)
    }
}

/// A future that is counted by its group until it is ready or dropped; made by
/// [`Spawner::track`](super::Spawner::track). It may be run anywhere.
///
/// It is counted from the call that made it, before its first poll. An error or a panic of the future goes to the
/// group, so its own output is `()`. The future inside is dropped before the group can be told that it is gone.
///
/// # Cancel safety
///
/// Dropping it drops the future inside, and gives up its place.
#[must_use = "futures do nothing unless polled"]
pub struct Tracked<F> {
    /// None when it is through.
    member: Option<Member>,
    /// Pinned when this is. There as long as the member is.
    future: ManuallyDrop<F>,
}

impl<F> Tracked<F> {
    pub(super) fn new(member: Member, future: F) -> Tracked<F> {
        member.is_future();
        Tracked {
            member: Some(member),
            future: ManuallyDrop::new(future),
        }
    }
}

impl<F: Future<Output: Outcome>> Future for Tracked<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        // SAFETY: `future` is pinned with `self`, never moved out, and dropped in place; `Tracked` is Unpin only where
        // `F` is. `member` is not pinned.
        let Tracked { member, future } = unsafe { self.get_unchecked_mut() };
        let Some(at) = member else {
            return Poll::Ready(());
        };
        let mut answer = Poll::Pending;
        let panicked = at.step(|| {
            let mut is_there = true;
            let step = || {
                // SAFETY: as above; and it is there, as the member is.
                let future_now = unsafe { Pin::new_unchecked(&mut **future) };
                answer = future_now.poll(cx).map(Outcome::into_result);
                if answer.is_ready() {
                    is_there = false;
                    // SAFETY: once: the member goes too, below.
                    unsafe { ManuallyDrop::drop(future) };
                }
            };
            // AssertUnwindSafe: after a panic the future is only dropped.
            let payload = catch_unwind(AssertUnwindSafe(step)).err()?;
            let mut later = Panics::default();
            if is_there {
                // SAFETY: as above.
                later.catch(|| unsafe { ManuallyDrop::drop(future) });
            }
            later.swallow();
            Some(payload)
        });
        // It is looked at where it lies: to move what was just written in parts costs as much as an RMW.
        match (&panicked, &answer) {
            (None, Poll::Pending) => return Poll::Pending,
            (None, Poll::Ready(Ok(()))) => {
                if let Some(member) = member.take() {
                    member.end(End::Done);
                }
                return Poll::Ready(());
            }
            _ => {}
        }
        if let Some(member) = member.take() {
            if let Some(payload) = panicked {
                // An answer beside it, whose future's drop has panicked, goes last: its own drop is user code.
                member.settle_failed(Err(payload), End::Done);
            } else if let Poll::Ready(Err(cause)) = answer {
                member.settle_failed(Ok(cause), End::Done);
            }
        }
        Poll::Ready(())
    }
}

impl<F> Drop for Tracked<F> {
    fn drop(&mut self) {
        let Some(member) = self.member.take() else {
            return;
        };
        // AssertUnwindSafe: it is not used after this.
        // SAFETY: there, as the member was; pinned until now, and dropped in place, once.
        let drop = AssertUnwindSafe(|| unsafe { ManuallyDrop::drop(&mut self.future) });
        let dropped = catch_unwind(drop);
        match dropped {
            Ok(()) => member.end(End::Dropped),
            Err(payload) => member.settle_failed(Err(payload), End::Dropped),
        }
    }
}

/// Work that has a place, and may be dropped unrun. What it owns goes before its place does.
#[allow(dead_code)] // It depends on the features who needs it.
pub(crate) struct Job<F>(Option<(Member, F)>);

#[allow(dead_code)] // It depends on the features who needs it.
impl<F> Job<F> {
    pub(crate) fn new(member: Member, f: F) -> Job<F> {
        // From now on, though it may wait for its thread yet.
        member.is_for_thread();
        Job(Some((member, f)))
    }

    pub(crate) fn run<R: Outcome>(mut self, run: impl FnOnce(F, Context) -> R) {
        if let Some((member, f)) = self.take() {
            member.run(|ctx| run(f, ctx));
        }
    }

    /// What it was made of, for whoever does with it what is to be done.
    pub(crate) fn take(&mut self) -> Option<(Member, F)> {
        self.0.take()
    }
}

impl<F> Drop for Job<F> {
    fn drop(&mut self) {
        if let Some((member, f)) = self.take() {
            // AssertUnwindSafe: nothing of it is left.
            match catch_unwind(AssertUnwindSafe(|| drop(f))) {
                Ok(()) => member.end(End::Dropped),
                Err(payload) => member.settle_failed(Err(payload), End::Dropped),
            }
        }
    }
}

impl<F> fmt::Debug for Tracked<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("is_through", &self.member.is_none())
            .finish_non_exhaustive()
    }
}

#[cfg_attr(not(feature = "inspect"), allow(clippy::unused_self))]
impl Member {
    /// Whoever asks is told that it is a future; also while that is being made, which is user code.
    #[inline]
    pub(crate) fn is_future(&self) {
        #[cfg(feature = "inspect")]
        if let Some(probe) = self.probe() {
            probe.is_a(Work::Future);
        }
    }

    /// Or that it is a thread, which may not have begun.
    #[inline]
    pub(super) fn is_for_thread(&self) {
        #[cfg(feature = "inspect")]
        if let Some(probe) = self.probe() {
            probe.is_a(Work::Thread);
        }
    }
}

impl Member {
    /// Wraps a future, which has this place: see [`Spawner::track`](super::Spawner::track).
    pub fn track<F: Future<Output: Outcome>>(self, future: F) -> Tracked<F> {
        Tracked::new(self, future)
    }

    /// Runs `f` as the task of this place, on this thread, and gives the place up. An error or a panic goes to the group.
    pub fn run<R: Outcome>(self, f: impl FnOnce(Context) -> R) {
        let ctx = self.context();
        #[cfg(feature = "inspect")]
        let ctx = self.watched(ctx);
        let result = inside(self.place(), || {
            // AssertUnwindSafe: after a panic nothing of `f` is left.
            catch_unwind(AssertUnwindSafe(|| f(ctx).into_result()))
        });
        self.settle(result);
    }

    /// The context of a task that has a name, for this thread, which runs it.
    #[cfg(feature = "inspect")]
    fn watched(&self, ctx: Context) -> Context {
        let Some(probe) = self.probe() else {
            return ctx;
        };
        let looks = crate::context::Looks::new(ctx.token());
        let looks = alloc::sync::Arc::new(looks);
        probe.is_thread(looks.clone());
        ctx.watched(looks)
    }

    /// The task is through, and so it went.
    #[inline]
    fn settle(self, result: Result<Result<(), Cause>, Box<dyn Any + Send>>) {
        match result {
            Ok(Ok(())) => self.end(End::Done),
            Ok(Err(cause)) => self.settle_failed(Ok(cause), End::Done),
            Err(payload) => self.settle_failed(Err(payload), End::Done),
        }
    }

    #[cold]
    fn settle_failed(self, what: Result<Cause, Box<dyn Any + Send>>, end: End) {
        let mut panics = Panics::default();
        match what {
            Ok(cause) => self.body().fail(cause, self.place(), &mut panics),
            Err(payload) => self.body().panicked(payload, self.place(), &mut panics),
        }
        self.end_with(end, &mut panics);
        panics.resume();
    }

    /// Does a step of a future that has this place.
    #[inline]
    pub(crate) fn step<R>(&self, step: impl FnOnce() -> R) -> R {
        #[cfg(feature = "inspect")]
        let _polling = self.polling();
        self.step_unnoted(step)
    }

    /// The same beside a step that is noted, on another thread.
    #[cfg(feature = "inspect")]
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn step_beside<R>(&self, step: impl FnOnce() -> R) -> R {
        struct Beside<'a>(&'a Probe);
        impl Drop for Beside<'_> {
            fn drop(&mut self) {
                self.0.end_beside();
            }
        }
        let _beside = self.probe().map(|probe| {
            if probe.begin_beside(self.body().ctx.is_marked()) {
                self.body().tell_first_poll(self.place());
            }
            Beside(probe)
        });
        self.step_unnoted(step)
    }

    /// The same within a step that is noted already.
    #[inline]
    pub(crate) fn step_unnoted<R>(&self, step: impl FnOnce() -> R) -> R {
        inside(self.place(), step)
    }

    /// A poll of it begins, and ends with what is returned.
    #[cfg(feature = "inspect")]
    fn polling(&self) -> impl Drop + use<'_> {
        struct Polling<'a>(Option<&'a Probe>);
        impl Drop for Polling<'_> {
            fn drop(&mut self) {
                if let Some(probe) = self.0 {
                    probe.end();
                }
            }
        }
        let probe = self.probe();
        if let Some(probe) = probe {
            if probe.begin(self.body().ctx.is_marked()) {
                self.body().tell_first_poll(self.place());
            }
        }
        Polling(probe)
    }
}

#[cfg(all(test, not(cancel_tree_loom)))]
mod tests {
    use super::*;

    /// Work that is dropped unrun, and whose destructor panics, ends as it would without that.
    #[test]
    fn a_job_whose_destructor_panics_ends_as_one_that_is_dropped() {
        struct Fails;
        impl Drop for Fails {
            fn drop(&mut self) {
                panic!("the destructor");
            }
        }
        let group = crate::Group::new(&Context::background());
        let member = group.enter().unwrap();
        let limit = Context::background();
        let mut shutdown = Box::pin(group.shutdown(&limit));
        let waits = &mut task::Context::from_waker(task::Waker::noop());
        assert!(shutdown.as_mut().poll(waits).is_pending());
        drop(Job::new(member, Fails));
        let Poll::Ready(report) = shutdown.as_mut().poll(waits) else {
            panic!("it is over");
        };
        assert_eq!((report.cancelled, report.forced), (0, 1), "{report}");
        assert!(report.cause.is_some(), "{report}");
    }
}
