//! The other direction: calls to other servers, under a context.

use super::answer::{Answer, EXPIRED, GRPC_STATUS};
use super::body::{self, EndsBy};
use super::headers::{Carried, DeadlineHeader, Protocol};
use super::BoxError;
use crate::context::{Context, DoneOwned};
use crate::tree::{Cause, ContextError};
use core::fmt;
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{self, Poll};
use core::time::Duration;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

/// Sends a context along with each request of a client, and runs the call under it.
///
/// The context is the one in the request's extensions; a request without one goes as it is. The time that is left, less a
/// [reserve](Self::reserve), is rounded up and written into the header, unless an earlier one is there. If no time is left, nothing is sent. Headers
/// that [`ContextLayer::carry`](super::ContextLayer::carry) has kept go along, where the request has none of the name.
///
/// A call whose context is done before its first poll is not polled either, as by [`Context::run`].
///
/// When the context is done, the call and the response's body end with its [`Cause`] as the error; if this is gRPC, with `grpc-status` 4 or 1. A
/// response, or the last frame of its body (by what the body says, or by `content-length`), that is ready then is not lost; nor is the end after it, if that is ready at the next poll.
/// (What is not sent does not come to the service within, and what that has reserved in `poll_ready` stays reserved until the next call, or until the
/// service is dropped: put what reserves, as tower's `ConcurrencyLimit` and `Buffer` do, further out.)
/// What comes back as an error, a reset, a 504 with `x-deadline-expired` or a CANCELLED after our own deadline, or after that which was
/// sent, *is* that deadline: the clock decides, not which side noticed it first. So is the end of a body that is not whole: over HTTP/2 a reset with
/// NO_ERROR, as Envoy's own timeout sends it, looks like an end. Whether it is whole is told as by [`UploadLayer`](super::UploadLayer), so put this layer next
/// to the client: a layer further in that decompresses, or that has a timeout for bodies, may not answer [`is_end_stream`](Body::is_end_stream), and what ends
/// after the deadline without a `content-length` is taken for a cut then. A gRPC stream is whole with its status. It needs h2 0.4.17 or later, as is said there: a server may answer before it has read
/// the request, and reset the stream behind a whole answer.
///
/// # Examples
///
/// ```
/// use cancel_tree::integrations::tower::{DeadlineHeader, PropagateLayer};
/// use cancel_tree::Context;
/// use http::HeaderMap;
/// use std::time::Duration;
///
/// let layer = PropagateLayer::new(DeadlineHeader::GRPC).reserve(Duration::from_millis(5));
///
/// // A client that knows nothing of layers asks for the headers alone, and runs its call under the context by itself.
/// let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(1));
/// let mut headers = HeaderMap::new();
/// layer.outgoing(&ctx, &mut headers).unwrap();
/// assert!(headers["grpc-timeout"].to_str().unwrap().ends_with('u'));
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing unless it is put around a service"]
pub struct PropagateLayer {
    header: DeadlineHeader,
    reserve: Duration,
    minimum: Duration,
}

/// A client's service whose calls run under contexts; made by [`PropagateLayer`].
#[derive(Clone, Debug)]
pub struct PropagateService<S> {
    inner: S,
    layer: PropagateLayer,
}

impl PropagateLayer {
    /// Creates a layer that writes the time that is left into this header.
    pub fn new(header: DeadlineHeader) -> PropagateLayer {
        PropagateLayer {
            header,
            reserve: Duration::ZERO,
            minimum: Duration::ZERO,
        }
    }

    /// Sets what is kept back for the way, and for what is done with the answer.
    pub fn reserve(mut self, reserve: Duration) -> PropagateLayer {
        self.reserve = reserve;
        self
    }

    /// Sends nothing if less than this is left after the reserve. (Inside a retry layer, no attempt is made then.)
    pub fn minimum(mut self, minimum: Duration) -> PropagateLayer {
        self.minimum = minimum;
        self
    }

    /// Writes the headers alone, for clients without extensions.
    ///
    /// # Errors
    ///
    /// The context is done, or too little time is left: nothing should be sent.
    pub fn outgoing(&self, ctx: &Context, headers: &mut HeaderMap) -> Result<(), Cause> {
        self.write(ctx, headers).map(drop)
    }

    /// Writes the headers. When the other end is to give up by them.
    fn write(&self, ctx: &Context, headers: &mut HeaderMap) -> Result<Option<Instant>, Cause> {
        ctx.check_cause()?;
        let mut told = None;
        // The request may have one of its own. The content type may not be there yet: whose header this is decides.
        let own = self.header.read(headers, Protocol::Grpc).ok().flatten();
        if let Some(deadline) = ctx.deadline() {
            let now = ctx.now();
            let left = deadline.saturating_duration_since(now);
            let left = left.saturating_sub(self.reserve);
            if left.is_zero() || left < self.minimum {
                return Err(ContextError::DeadlineExceeded.into());
            }
            match own {
                Some(own) if own <= left => told = now.checked_add(own),
                _ => {
                    let (value, said) = self.header.write(left);
                    // There is an end to how many headers a request can have: then it goes without. What it said is too late.
                    headers.remove(&self.header.name);
                    if headers.try_insert(self.header.name.clone(), value).is_ok() {
                        told = now.checked_add(said);
                    }
                }
            }
        } else if let Some(own) = own {
            told = ctx.now().checked_add(own);
        }
        if let Some(carried) = ctx.value::<Carried>() {
            for name in carried.headers().keys() {
                if !headers.contains_key(name) {
                    for value in carried.headers().get_all(name) {
                        // As above.
                        let _ = headers.try_append(name.clone(), value.clone());
                    }
                }
            }
        }
        Ok(told)
    }
}

impl<S> Layer<S> for PropagateLayer {
    type Service = PropagateService<S>;

    fn layer(&self, inner: S) -> PropagateService<S> {
        let layer = self.clone();
        PropagateService { inner, layer }
    }
}

impl<S, B, R> Service<Request<B>> for PropagateService<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>>,
    R: Body<Error: Into<BoxError>>,
{
    type Response = Response<CallBody<R>>;
    type Error = BoxError;
    type Future = CallFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> CallFuture<S::Future> {
        let protocol = Protocol::of(&request);
        let is_head = request.method() == Method::HEAD;
        let ctx = request.extensions().get::<Context>().cloned();
        let (told, unsent) = match &ctx {
            Some(ctx) => match self.layer.write(ctx, request.headers_mut()) {
                Ok(told) => (told, None),
                Err(cause) => (None, Some(cause)),
            },
            None => (None, None),
        };
        CallFuture {
            future: unsent.is_none().then(|| self.inner.call(request)),
            unsent,
            has_begun: false,
            call: ctx.map(|ctx| Call {
                done: ctx.done_owned(),
                told,
                protocol,
                is_head,
            }),
        }
    }
}

/// A call that has a context.
struct Call {
    done: DoneOwned,
    /// When the other end is to give up, and whoever has read the header on the way: earlier than the context, by the reserve.
    told: Option<Instant>,
    protocol: Protocol,
    is_head: bool,
}

impl Call {
    fn ends_by<R>(&self, response: &Response<R>) -> EndsBy {
        let head = response.headers();
        match self.protocol {
            Protocol::Grpc if head.contains_key(GRPC_STATUS) => EndsBy::None,
            Protocol::Grpc => EndsBy::Trailers,
            _ if self.is_head || body::has_no_body(response.status()) => EndsBy::None,
            _ => EndsBy::of(response.version(), head),
        }
    }

    /// Why the context is done, if it is.
    fn done(&self) -> Option<Cause> {
        match self.done.context().is_done() {
            true => self.done.context().cause(),
            false => self.past(),
        }
    }

    /// The same, if its deadline has passed by our own clock.
    fn past(&self) -> Option<Cause> {
        let ctx = self.done.context();
        let is_past = ctx.deadline().is_some_and(|at| at <= ctx.now());
        match ctx.cause() {
            Some(cause) if cause.kind() == ContextError::DeadlineExceeded => Some(cause),
            // A cancel was first.
            Some(_) => None,
            None => is_past.then(|| ContextError::DeadlineExceeded.into()),
        }
    }

    /// The same of what the other end was told: then what it says of an end is what we have said.
    fn over(&self) -> Option<Cause> {
        self.past().or_else(|| {
            let is_over = self.told.is_some_and(|at| at <= self.done.context().now());
            let is_done = self.done.context().is_done();
            (is_over && !is_done).then(|| ContextError::DeadlineExceeded.into())
        })
    }

    fn poll_done(&mut self, cx: &mut task::Context<'_>) -> Option<Cause> {
        let done = Pin::new(&mut self.done).poll(cx);
        match done {
            Poll::Ready(error) => Some(self.done.context().cause().unwrap_or(error.into())),
            Poll::Pending => self.past(),
        }
    }
}

fn answer(cause: &Cause) -> Answer {
    match cause.kind() {
        ContextError::DeadlineExceeded => Answer::Expired,
        ContextError::Cancelled => Answer::Cancelled,
    }
}

fn is_cancelled(headers: &HeaderMap) -> bool {
    headers.get(GRPC_STATUS).is_some_and(|status| status == "1")
}

pin_project! {
    /// A call under a context; made by [`PropagateService`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the call.
    #[must_use = "futures do nothing unless polled"]
    pub struct CallFuture<F> {
        #[pin]
        future: Option<F>,
        unsent: Option<Cause>,
        has_begun: bool,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for CallFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
    E: Into<BoxError>,
{
    type Output = Result<Response<CallBody<R>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if !mem::replace(this.has_begun, true) && this.unsent.is_none() {
            // Time may have passed since the call: nothing is sent in vain.
            *this.unsent = this.call.as_ref().and_then(Call::done);
        }
        let cause = match (this.unsent.take(), this.future.as_mut().as_pin_mut()) {
            (Some(cause), _) => cause,
            (None, None) => panic!("polled after it was ready"),
            (None, Some(future)) => match future.poll(cx) {
                Poll::Pending => match this.call.as_mut().and_then(|call| call.poll_done(cx)) {
                    Some(cause) => cause,
                    None => return Poll::Pending,
                },
                Poll::Ready(result) => {
                    this.future.set(None);
                    let call = this.call.take();
                    let past = call.as_ref().and_then(Call::over);
                    let is_grpc = call
                        .as_ref()
                        .is_some_and(|call| call.protocol != Protocol::Http);
                    let response = match (result, past) {
                        (Ok(response), Some(past)) => {
                            let is_ours = match is_grpc {
                                true => is_cancelled(response.headers()),
                                false => {
                                    response.status() == StatusCode::GATEWAY_TIMEOUT
                                        && response.headers().contains_key(EXPIRED)
                                }
                            };
                            if is_ours {
                                return Poll::Ready(ended(call.as_ref(), past));
                            }
                            response
                        }
                        (Ok(response), None) => response,
                        (Err(_), Some(past)) => return Poll::Ready(ended(call.as_ref(), past)),
                        (Err(error), None) => return Poll::Ready(Err(error.into())),
                    };
                    let ends_by = call.as_ref().map(|call| call.ends_by(&response));
                    return Poll::Ready(Ok(response.map(|inner| CallBody {
                        inner: Some(inner),
                        ends_by: ends_by.unwrap_or_default(),
                        call,
                    })));
                }
            },
        };
        this.future.set(None);
        let call = this.call.take();
        Poll::Ready(ended(call.as_ref(), cause))
    }
}

/// What a call comes to whose context is done.
fn ended<R>(call: Option<&Call>, cause: Cause) -> Result<Response<CallBody<R>>, BoxError> {
    match call.map(|call| call.protocol) {
        Some(protocol @ (Protocol::Grpc | Protocol::GrpcWeb)) => {
            let response = answer(&cause).response(protocol);
            Ok(response.map(|()| CallBody {
                inner: None,
                ends_by: EndsBy::default(),
                call: None,
            }))
        }
        _ => Err(cause.into()),
    }
}

pin_project! {
    /// The body of a response to a call under a context: it ends when the context is done.
    pub struct CallBody<B> {
        // None: it has ended, or there is none.
        #[pin]
        inner: Option<B>,
        ends_by: EndsBy,
        call: Option<Call>,
    }
}

impl<B> Body for CallBody<B>
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
        let mut cause = this.call.as_ref().and_then(Call::done);
        match inner.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_trailers() {
                Ok(mut trailers) => {
                    *this.ends_by = EndsBy::None;
                    let over = this.call.as_ref().and_then(Call::over);
                    if over.is_some() && is_cancelled(&trailers) {
                        // In its place: there is an end to what a map can take in.
                        if let Some(status) = trailers.get_mut(GRPC_STATUS) {
                            *status = HeaderValue::from_static("4");
                        }
                    }
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Err(frame) => {
                    let is_last = this.ends_by.note(&frame);
                    // A body that always has a next frame would have no end.
                    if is_last || cause.is_none() || inner.is_end_stream() {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
            },
            Poll::Ready(None) => {
                cause = cause.or_else(|| this.call.as_ref().and_then(Call::over));
                if cause.is_none() || this.ends_by.is_whole(&*inner) {
                    this.inner.set(None);
                    return Poll::Ready(None);
                }
            }
            Poll::Ready(Some(Err(error))) => {
                cause = cause.or_else(|| this.call.as_ref().and_then(Call::over));
                if cause.is_none() {
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
            Poll::Pending if cause.is_none() => {
                cause = this.call.as_mut().and_then(|call| call.poll_done(cx));
            }
            Poll::Pending => {}
        }
        let Some(cause) = cause else {
            return Poll::Pending;
        };
        let protocol = this.call.take().map(|call| call.protocol);
        this.inner.set(None);
        let protocol = protocol.unwrap_or(Protocol::Http);
        Poll::Ready(Some(answer(&cause).last_frame(protocol, cause)))
    }

    fn is_end_stream(&self) -> bool {
        body::is_end_stream(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        body::size_hint(&self.inner)
    }
}

impl<F> fmt::Debug for CallFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture")
            .field("is_running", &self.future.is_some())
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for CallBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallBody")
            .field("has_ended", &self.inner.is_none())
            .finish_non_exhaustive()
    }
}
