//! The body of a response: the request's context ends with it.

use super::answer::Answer;
use super::headers::DeadlineReached;
use super::lifetime::{end, step, Ending, Lifetime};
use super::BoxError;
use crate::group::Member;
use bytes::Buf;
use core::fmt;
use core::pin::Pin;
use core::task::{self, Poll};
use http::header::{HeaderValue, CONTENT_LENGTH};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of a response under its request's context.
    ///
    /// The context ends with the last frame, whoever notices that it is the last one, or when this is dropped. At the deadline
    /// the body ends with [`DeadlineReached`], or with trailers if this is gRPC.
    pub struct ContextBody<B> {
        // None: the context has ended.
        lifetime: Option<Lifetime>,
        // How much is left of what `content-length` says.
        left: Option<u64>,
        // None: it has ended, or there is none.
        #[pin]
        inner: Option<B>,
        // The last to go.
        member: Option<Member>,
    }
}

impl<B> ContextBody<B> {
    /// An answer in the place of the handler's.
    pub(super) fn without(answer: Response<()>) -> Response<ContextBody<B>> {
        answer.map(|()| ContextBody::empty())
    }

    fn empty() -> ContextBody<B> {
        ContextBody {
            inner: None,
            lifetime: None,
            left: None,
            member: None,
        }
    }
}

impl<B: Body> ContextBody<B> {
    /// The handler's response. Its context ends here, if there is nothing to come.
    pub(super) fn around(
        lifetime: Lifetime,
        mut member: Option<Member>,
        response: Response<B>,
    ) -> Response<ContextBody<B>> {
        let status = response.status();
        let is_upgraded =
            status == StatusCode::SWITCHING_PROTOCOLS || lifetime.is_connect && status.is_success();
        let length = response.headers().get(CONTENT_LENGTH);
        let left = length.map(HeaderValue::as_bytes).and_then(digits);
        let has_none = lifetime.is_head
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
            || is_at_end(response.body(), left);
        let lifetime = if is_upgraded && lifetime.is_upgrade() {
            lifetime.hand_over(member.take());
            None
        } else if has_none {
            lifetime.end(Ending::Completed);
            member = None;
            None
        } else {
            Some(lifetime)
        };
        response.map(|body| ContextBody {
            inner: Some(body),
            lifetime,
            left,
            member,
        })
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    super::grpc_timeout::number(text, 19)
}

/// Whether nobody will ask for more.
fn is_at_end<B: Body>(body: &B, left: Option<u64>) -> bool {
    left == Some(0) || body.is_end_stream() || body.size_hint().exact() == Some(0)
}

impl<B> Body for ContextBody<B>
where
    B: Body<Error: Into<BoxError>>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        // The deadline first: a body that always has a next frame would have no end.
        if !this.lifetime.as_ref().is_some_and(Lifetime::is_past) {
            match step(this.lifetime, this.member, || inner.poll_frame(cx)) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let (Some(left), Some(data)) = (this.left.as_mut(), frame.data_ref()) {
                        *left = left.saturating_sub(data.remaining() as u64);
                    }
                    let inner = this.inner.as_ref().get_ref().as_ref();
                    let is_last = frame.is_trailers()
                        || inner.is_none_or(|inner| is_at_end(inner, *this.left));
                    if is_last {
                        end(this.lifetime, Ending::Completed);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(error))) => {
                    end(this.lifetime, Ending::Failed);
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => {
                    end(this.lifetime, Ending::Completed);
                    this.inner.set(None);
                    *this.member = None;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    let past = this.lifetime.as_mut().is_some_and(|at| at.poll_past(cx));
                    if !past {
                        return Poll::Pending;
                    }
                }
            }
        }
        let protocol = end(this.lifetime, Ending::Deadline);
        this.inner.set(None);
        *this.member = None;
        Poll::Ready(Some(Answer::Expired.last_frame(protocol, DeadlineReached)))
    }

    fn is_end_stream(&self) -> bool {
        is_end_stream(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        size_hint(&self.inner)
    }
}

/// Of a body that is gone when it has ended.
pub(super) fn is_end_stream<B: Body>(body: &Option<B>) -> bool {
    body.as_ref().is_none_or(Body::is_end_stream)
}

/// The same.
pub(super) fn size_hint<B: Body>(body: &Option<B>) -> SizeHint {
    let hint = body.as_ref().map(Body::size_hint);
    hint.unwrap_or_else(|| SizeHint::with_exact(0))
}

impl<B: Default> Default for ContextBody<B> {
    /// A body under no context.
    fn default() -> ContextBody<B> {
        ContextBody {
            inner: Some(B::default()),
            ..ContextBody::empty()
        }
    }
}

impl<B> fmt::Debug for ContextBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextBody")
            .field("is_under_a_context", &self.lifetime.is_some())
            .finish_non_exhaustive()
    }
}
