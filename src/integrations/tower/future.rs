//! From the call to the response's head.

use super::answer::Answer;
use super::body::ToCome;
use super::headers::Protocol;
use super::lifetime::{end, give_up, step, Ending, Lifetime};
use super::member::Share;
use super::ContextBody;
use crate::sync::Panics;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{self, Poll};
use http::{Request, Response};
use pin_project_lite::pin_project;

pin_project! {
    /// The handler under its request's context; made by [`ContextService`](super::ContextService).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the handler, and cancels the context with [`ClientGone`](super::ClientGone).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        // The first to go: the context tells what it has started, and not the handler itself.
        lifetime: Option<Lifetime>,
        // None: dropped, or never begun.
        #[pin]
        future: Option<F>,
        answer: Option<(Answer, Protocol)>,
        // The last to go: then the handler is gone.
        member: Option<Share>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.future.is_some() {
                let mut panics = Panics::default();
                panics.catch(|| _ = end(this.lifetime, this.member, Ending::ClientGone));
                panics.catch(|| step(this.lifetime, this.member, || this.future.set(None)));
                panics.resume();
            }
        }
    }
}

impl<F> ResponseFuture<F> {
    /// Before anything has begun.
    #[inline]
    pub(super) fn new() -> ResponseFuture<F> {
        ResponseFuture {
            lifetime: None,
            future: None,
            answer: None,
            member: None,
        }
    }

    /// Where a request begins.
    pub(super) fn parts(&mut self) -> (&mut Option<Lifetime>, &mut Option<Share>) {
        (&mut self.lifetime, &mut self.member)
    }

    /// Calls the handler under the context that has begun.
    #[inline]
    pub(super) fn run<B>(&mut self, mut request: Request<B>, call: impl FnOnce(Request<B>) -> F) {
        if let Some(lifetime) = &self.lifetime {
            let ctx = lifetime.context().clone();
            if let Some(member) = &self.member {
                member.is_future_under(&ctx);
            }
            request.extensions_mut().insert(ctx);
        }
        // Taken out in there: what a step owns is moved from one frame to the next.
        let mut request = Some(request);
        let future = &mut self.future;
        step(&mut self.lifetime, &self.member, || {
            *future = request.take().map(call);
        });
    }

    /// Answers in the handler's place.
    pub(super) fn answer(&mut self, answer: Answer, protocol: Protocol) {
        self.answer = Some((answer, protocol));
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: http_body::Body,
{
    type Output = Result<Response<ContextBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut to_come = None;
        // Written in there: what a step returns is moved from one frame to the next.
        let mut result = None;
        step(this.lifetime, this.member, || {
            if let Some(future) = this.future.as_mut().as_pin_mut() {
                result = Some(future.poll(cx));
            }
            if let Some(Poll::Ready(result)) = &result {
                to_come = result.as_ref().ok().map(ToCome::of);
                this.future.set(None);
            }
        });
        let Some(result) = result else {
            let Some((answer, protocol)) = this.answer.take() else {
                panic!("polled after it was ready");
            };
            return Poll::Ready(Ok(ContextBody::without(answer.response(protocol))));
        };
        match result {
            // Also if the deadline has passed meanwhile: what is ready is not replaced.
            Poll::Ready(Ok(response)) => {
                match to_come {
                    Some(to_come) if this.lifetime.is_some() => Poll::Ready(Ok(
                        ContextBody::around(this.lifetime, this.member, response, to_come),
                    )),
                    _ => panic!("polled after it has panicked"),
                }
            }
            Poll::Ready(Err(error)) => {
                end(this.lifetime, this.member, Ending::Failed);
                give_up(this.member);
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                let past = this.lifetime.as_mut().is_some_and(|at| at.poll_past(cx));
                if !past {
                    return Poll::Pending;
                }
                let protocol = end(this.lifetime, this.member, Ending::Deadline);
                step(this.lifetime, this.member, || this.future.set(None));
                give_up(this.member);
                let answer = Answer::Expired.response(protocol);
                Poll::Ready(Ok(ContextBody::without(answer)))
            }
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("is_running", &self.future.is_some())
            .finish_non_exhaustive()
    }
}
