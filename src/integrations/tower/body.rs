//! The body of a response: the request's context ends with it.

use super::answer::Answer;
use super::headers::DeadlineReached;
use super::lifetime::{end, give_up, step, Ending, Lifetime};
use super::member::Share;
use super::BoxError;
use crate::sync::Panics;
use bytes::Buf;
use core::fmt;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::task::{self, Poll};
use http::header::{HeaderValue, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of a response under its request's context.
    ///
    /// The context ends with the last frame, however that is noticed, or when this is dropped. At the deadline
    /// the body ends with [`DeadlineReached`], or with trailers if this is gRPC; unless it has its last frame, or its end, ready then.
    pub struct ContextBody<B> {
        // None: the context has ended.
        lifetime: Option<Lifetime>,
        // How much is left of what `content-length` says.
        left: Option<u64>,
        // It was asked, and has said that nothing more comes. Relaxed: whoever drops it has it alone.
        has_said_end: AtomicBool,
        // None: it has ended, or there is none.
        #[pin]
        inner: Option<B>,
        // The last to go.
        member: Option<Share>,
    }

    impl<B> PinnedDrop for ContextBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let mut panics = Panics::default();
            // As it is to end if it is dropped.
            if let Some(ending) = this.lifetime.as_ref().map(Lifetime::ending) {
                // Since our own look, by another thread: whoever was told so has all of it.
                let ending = match ending {
                    Ending::ClientGone if *this.has_said_end.get_mut() => Ending::Completed,
                    ending => ending,
                };
                panics.catch(|| _ = end(this.lifetime, this.member, ending));
            }
            if this.inner.is_some() {
                panics.catch(|| step(this.lifetime, this.member, || this.inner.set(None)));
            }
            panics.resume();
        }
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
            has_said_end: AtomicBool::new(false),
            member: None,
        }
    }
}

impl<B: Body> ContextBody<B> {
    /// The handler's response, and what is to come of it. Its context ends here, if that is nothing.
    pub(super) fn around(
        lifetime: &mut Option<Lifetime>,
        member: &mut Option<Share>,
        response: Response<B>,
        to_come: ToCome,
    ) -> Response<ContextBody<B>> {
        let ToCome {
            left,
            left_over,
            is_by_length,
        } = to_come;
        let mut member = member.take();
        if let Some(at) = lifetime {
            let status = response.status();
            let is_upgraded =
                status == StatusCode::SWITCHING_PROTOCOLS || at.is_connect && status.is_success();
            let has_none = at.is_head || has_no_body(status);
            at.ends_by_length &= is_by_length || has_none;
            if is_upgraded && at.is_upgrade() {
                at.hand_over(member.take());
                *lifetime = None;
            } else if !has_none && left_over == LeftOver::More {
                at.goes_on(response.headers());
            } else if at.ends_by_length || left_over == LeftOver::Nothing {
                end(lifetime, &member, Ending::Completed);
                give_up(&mut member);
            } else {
                at.is_enough();
            }
        }
        response.map(|body| ContextBody {
            inner: Some(body),
            lifetime: lifetime.take(),
            left,
            has_said_end: AtomicBool::new(false),
            member,
        })
    }
}

/// What a header says.
pub(super) fn length(said: Option<&HeaderValue>) -> Option<u64> {
    super::grpc_timeout::number(said?.as_bytes(), 19)
}

fn take_off<D: Buf>(left: &mut u64, frame: &Frame<D>) {
    if let Some(data) = frame.data_ref() {
        *left = left.saturating_sub(data.remaining() as u64);
    }
}

/// Whatever `content-length` says.
pub(super) fn has_no_body(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// What tells the end of a body that comes in from a cut: over HTTP/2, hyper's says `None` for a reset with NO_ERROR, too.
#[derive(Default)]
pub(super) enum EndsBy {
    /// Its `None`: over HTTP/1, where a cut is always an error, or since its trailers have come.
    #[default]
    None,
    /// That so much more has come, as `content-length` says; or its `None` as well, which comes before that only if it lies.
    Length { left: u64, or_none: bool },
    /// What it says itself: `is_end_stream`.
    Itself,
    /// gRPC's trailers, in which the status is.
    Trailers,
}

impl EndsBy {
    pub(super) fn of(version: Version, head: &HeaderMap) -> EndsBy {
        let or_none = version != Version::HTTP_2;
        match length(head.get(CONTENT_LENGTH)) {
            Some(left) => EndsBy::Length { left, or_none },
            None if or_none => EndsBy::None,
            None => EndsBy::Itself,
        }
    }

    /// True: with it as many have come as `content-length` says, and not before.
    pub(super) fn note<D: Buf>(&mut self, frame: &Frame<D>) -> bool {
        if frame.is_trailers() {
            *self = EndsBy::None;
        } else if let EndsBy::Length {
            left: left @ 1.., ..
        } = self
        {
            take_off(left, frame);
            return *left == 0;
        }
        false
    }

    /// Of a body that has said `None`.
    pub(super) fn is_whole<B: Body>(&self, body: &B) -> bool {
        match self {
            EndsBy::None => true,
            EndsBy::Length { left, or_none } => *or_none || *left == 0,
            EndsBy::Itself => body.is_end_stream(),
            EndsBy::Trailers => false,
        }
    }
}

/// What a response says of its body at the beginning.
pub(super) struct ToCome {
    left: Option<u64>,
    left_over: LeftOver,
    /// What HTTP/1 says is a length, and not chunks, after which trailers may follow, or the connection's end.
    is_by_length: bool,
}

impl ToCome {
    /// Asks the body, which is user code.
    #[inline]
    pub(super) fn of<B: Body>(response: &Response<B>) -> ToCome {
        let head = response.headers();
        let left = length(head.get(CONTENT_LENGTH));
        let has_length = left.is_some() || response.body().size_hint().exact().is_some();
        ToCome {
            left,
            left_over: left_over(response.body(), left),
            is_by_length: has_length && !head.contains_key(TRANSFER_ENCODING),
        }
    }
}

#[derive(PartialEq)]
enum LeftOver {
    More,
    /// No data by what lengths say. HTTP/1 asks for no more then, if its head says a length; else, as HTTP/2, for trailers.
    NoData,
    Nothing,
}

fn left_over<B: Body>(body: &B, left: Option<u64>) -> LeftOver {
    if body.is_end_stream() {
        LeftOver::Nothing
    } else if left == Some(0) || body.size_hint().exact() == Some(0) {
        LeftOver::NoData
    } else {
        LeftOver::More
    }
}

/// Gives the place up, if there is one, and the body before that. If that panics, the frame is to go out all the same: the group says so, and
/// without one nobody.
fn leave(member: &mut Option<Share>, drop_it: impl FnOnce()) {
    let mut panics = Panics::default();
    match member.as_ref() {
        Some(member) => {
            panics.catch(|| member.step(drop_it));
            member.note_panics(panics);
        }
        None => {
            panics.catch(drop_it);
            panics.swallow();
        }
    }
    give_up(member);
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
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let is_past = this.lifetime.as_ref().is_some_and(Lifetime::is_past);
        let left = this.left;
        let next = step(this.lifetime, this.member, || {
            inner.as_mut().poll_frame(cx).map_ok(|frame| {
                if let Some(left) = left.as_mut() {
                    take_off(left, &frame);
                }
                let left_over = match frame.is_trailers() {
                    true => LeftOver::Nothing,
                    false => left_over(inner.as_ref().get_ref(), *left),
                };
                (frame, left_over)
            })
        });
        match next {
            Poll::Ready(Some(Ok((frame, left_over)))) => {
                let mut is_last_data = false;
                let is_last = match (&left_over, this.lifetime.as_mut()) {
                    (LeftOver::Nothing, _) => true,
                    (LeftOver::NoData, Some(lifetime)) if !lifetime.ends_by_length => {
                        // Once: another one after that is not.
                        is_last_data = lifetime.ending() != Ending::Completed;
                        lifetime.is_enough();
                        false
                    }
                    (left_over, _) => *left_over == LeftOver::NoData,
                };
                if is_last {
                    // By what the body guesses of its own length alone, it may still be asked. Past `content-length` nobody asks.
                    let is_through = left_over == LeftOver::Nothing
                        || this.lifetime.is_some() && *left == Some(0);
                    end(this.lifetime, this.member, Ending::Completed);
                    // It gives its place back here: what holds this may wait until the client makes room for the frame.
                    match is_through && this.member.is_some() {
                        true => leave(this.member, || this.inner.set(None)),
                        false => give_up(this.member),
                    }
                }
                // A body that always has a next frame would have no end.
                if is_last || is_last_data || !is_past {
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
            Poll::Ready(Some(Err(error))) if !is_past => {
                end(this.lifetime, this.member, Ending::Failed);
                // Its context has ended: it is not asked again.
                leave(this.member, || this.inner.set(None));
                return Poll::Ready(Some(Err(error.into())));
            }
            Poll::Ready(None) => {
                end(this.lifetime, this.member, Ending::Completed);
                step(this.lifetime, this.member, || this.inner.set(None));
                give_up(this.member);
                return Poll::Ready(None);
            }
            Poll::Pending if !is_past => {
                let past = this.lifetime.as_mut().is_some_and(|at| at.poll_past(cx));
                if !past {
                    return Poll::Pending;
                }
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        let protocol = end(this.lifetime, this.member, Ending::Deadline);
        step(this.lifetime, this.member, || this.inner.set(None));
        give_up(this.member);
        Poll::Ready(Some(Answer::Expired.last_frame(protocol, DeadlineReached)))
    }

    fn is_end_stream(&self) -> bool {
        let is_end = is_end_stream(&self.inner);
        if is_end {
            self.has_said_end.store(true, Relaxed);
        }
        is_end
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
            lifetime: None,
            left: None,
            has_said_end: AtomicBool::new(false),
            member: None,
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
