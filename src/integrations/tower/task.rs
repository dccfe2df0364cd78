//! A handler that is a task of its own.

use super::member::Share;
use super::shared::HandlerGuard;
use super::slot::Sender;
use crate::context::DoneOwned;
use crate::sync::Panics;
use alloc::boxed::Box;
use core::future::Future;
use core::pin::Pin;
use core::task::{self, Poll};
use http::Response;
use pin_project_lite::pin_project;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// A handler that is to be run to its end, wherever futures are; see [`ContextLayer::spawned`](super::ContextLayer::spawned).
///
/// # Cancel safety
///
/// Dropping it drops the handler; what waits for its answer before the deadline gets a 503, or gRPC's 14.
pub type HandlerTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a handler that is a task went. Whoever wants it takes it out, the place first.
pub(super) struct Outcome<R, E> {
    /// Of the handler's context, if that is not the request's.
    pub(super) guard: Option<HandlerGuard>,
    /// None: it has panicked.
    pub(super) result: Option<Result<Response<R>, E>>,
    /// The place in the group goes on with the response. None: taken out.
    pub(super) member: Option<Share>,
}

impl<R, E> Drop for Outcome<R, E> {
    /// Nobody has wanted it.
    fn drop(&mut self) {
        if let Some(member) = self.member.take() {
            // The handler is told before its answer is dropped. Who else is told by that may panic.
            let mut panics = Panics::default();
            panics.catch(|| self.guard = None);
            member.drop_inside(|| self.result = None);
            member.note_panics(panics);
            member.end_quietly();
        }
    }
}

/// What a handler's task hands on when it is through.
struct Parts<R, E> {
    sender: Sender<Outcome<R, E>>,
    guard: Option<HandlerGuard>,
    member: Share,
}

pin_project! {
    pub(super) struct Running<F, R, E> {
        // None: dropped.
        #[pin]
        future: Option<F>,
        // Done when the grace is over.
        limit: Option<DoneOwned>,
        // None: it is through.
        parts: Option<Parts<R, E>>,
    }

    impl<F, R, E> PinnedDrop for Running<F, R, E> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            // Also if it was never polled.
            if let Some(parts) = this.parts.take() {
                parts.give_up(|| this.future.set(None));
            }
        }
    }
}

impl<R, E> Parts<R, E> {
    /// The handler is dropped before it is through.
    fn give_up(self, drop_it: impl FnOnce()) {
        if let Some(guard) = &self.guard {
            guard.failed(&self.member);
        }
        self.member.drop_inside(drop_it);
        // The waker of what waits is user code.
        let mut panics = Panics::default();
        panics.catch(|| drop(self.sender));
        self.member.note_panics(panics);
        self.member.end_dropped();
    }
}

impl<F, R, E> Running<F, R, E> {
    pub(super) fn new(
        future: F,
        (limit, guard): (Option<DoneOwned>, Option<HandlerGuard>),
        sender: Sender<Outcome<R, E>>,
        member: Share,
    ) -> Running<F, R, E> {
        Running {
            future: Some(future),
            limit,
            parts: Some(Parts {
                sender,
                guard,
                member,
            }),
        }
    }
}

impl<F, R, E> Future for Running<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(parts) = this.parts.take() else {
            return Poll::Ready(());
        };
        // AssertUnwindSafe: after a panic the future is only dropped.
        let step = AssertUnwindSafe(|| match this.future.as_mut().as_pin_mut() {
            Some(future) => future.poll(cx),
            None => Poll::Pending,
        });
        let result = match parts.member.step(|| catch_unwind(step)) {
            Ok(Poll::Pending) => {
                let limit = this.limit.as_mut();
                let is_over = limit.is_some_and(|limit| Pin::new(limit).poll(cx).is_ready());
                if !is_over {
                    *this.parts = Some(parts);
                    return Poll::Pending;
                }
                parts.give_up(|| this.future.set(None));
                return Poll::Ready(());
            }
            Ok(Poll::Ready(result)) => Ok(result),
            Err(payload) => Err(payload),
        };
        let Parts {
            sender,
            guard,
            member,
        } = parts;
        // AssertUnwindSafe: nothing of it is left.
        let drop_it = AssertUnwindSafe(|| this.future.set(None));
        let dropped = member.step(|| catch_unwind(drop_it));
        let (result, panic) = match result {
            Ok(result) => (Some(result), dropped.err()),
            Err(payload) => (None, Some(payload)),
        };
        if let Some(payload) = panic {
            member.note_panic(&*payload);
            if let Some(guard) = guard.as_ref().filter(|_| result.is_none()) {
                guard.failed(&member);
            }
        }
        let outcome = Outcome {
            guard,
            result,
            member: Some(member),
        };
        // The waker of what waits is user code. The place is gone with the answer, and nobody is left to say it.
        let mut panics = Panics::default();
        panics.catch(|| sender.send(outcome));
        panics.swallow();
        Poll::Ready(())
    }
}
