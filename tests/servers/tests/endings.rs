//! When a request's context ends, and by what: the corners.

use axum::body::Body;
use axum::http::{header, Request, Response, StatusCode, Version};
use axum::routing::{get, post};
use axum::{Extension, Router};
use cancel_tree::integrations::tower::{
    ClientGone, Completed, ContextBody, ContextLayer, DeadlineHeader, DeadlineReached,
    HandlerFailed, Shutdown, UpgradeGuard,
};
use cancel_tree::{Cause, Context, ContextError, Group, Panicked, TestClock};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::http::{HeaderMap, Method};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use servers::{
    background, before, context, exchange, in_time, is, is_pending, millis, patience, serve, soon,
    Stream,
};
use std::convert::Infallible;
use std::future::{pending, poll_fn, ready, Future, Ready};
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::task::{self, Poll, Wake};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::{service_fn, BoxError, Layer, Service, ServiceExt};

fn request() -> Request<Body> {
    Request::new(Body::empty())
}

/// The response of a service that answers `body`, and its context.
async fn answered<B>(
    layer: &ContextLayer,
    request: Request<Body>,
    response: Response<B>,
) -> (Response<ContextBody<B>>, Context)
where
    B: hyper::body::Body + Send + 'static,
{
    let (sender, mut seen) = mpsc::unbounded_channel();
    let mut response = Some(response);
    let service = service_fn(move |request: Request<Body>| {
        sender.send(context(&request)).unwrap();
        ready(Ok::<_, Infallible>(response.take().unwrap()))
    });
    let response = layer.layer(service).oneshot(request).await.unwrap();
    (response, seen.recv().await.unwrap())
}

async fn held_until_past(ctx: Context) {
    // The thread is held, so that one poll finds the deadline past and all of this ready.
    poll_fn(|_| {
        while !ctx.remaining().unwrap().is_zero() {
            std::thread::sleep(millis(1));
        }
        Poll::Ready(())
    })
    .await;
}

/// The server's end tells a handler, and takes nothing from it; nor does it give it more time than it had.
#[tokio::test]
async fn a_cancel_from_above_does_not_take_the_deadline_away() {
    let never = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
    for in_group in [false, true] {
        let (server, end) = Context::background().with_cancel();
        let group = Group::new(&server);
        let mut layer = ContextLayer::new(&server).max(millis(100));
        if in_group {
            layer = layer.in_group(&group);
        }
        let counts = layer.clone();
        let all = [
            layer.layer(never).boxed_clone(),
            layer
                .clone()
                .cooperative(&group, Duration::from_secs(3600))
                .layer(never)
                .boxed_clone(),
            layer.clone().detached(&group).layer(never).boxed_clone(),
        ];
        let calls: Vec<_> = all
            .map(|service| tokio::spawn(service.oneshot(request())))
            .into();
        while counts.counts().received < 3 {
            tokio::time::sleep(millis(1)).await;
        }
        end.cancel_with(Shutdown);
        for call in calls {
            let answer = soon(call).await.unwrap().unwrap();
            assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
        }
        assert_eq!(counts.counts().cut_by_deadline, 3);
    }

    // In the middle of a body too.
    in_time(millis(100), |limit| async move {
        let (server, end) = Context::background().with_cancel();
        let layer = ContextLayer::new(&server).max(limit);
        type Next = Option<Result<Frame<Bytes>, Infallible>>;
        let body = Stream(|_: &mut task::Context<'_>| Poll::<Next>::Pending);
        let response = Response::new(StreamBody::new(body));
        let (response, ctx) = answered(&layer, request(), response).await;
        let mut body = response.into_body();
        let waits = is_pending(pin!(body.frame()));
        end.cancel_with(Shutdown);
        before(&ctx)?;
        assert!(waits);
        let error = soon(body.frame()).await.unwrap().unwrap_err();
        assert!(error.is::<DeadlineReached>());
        assert!(is::<Shutdown>(&ctx));
        assert!(body.frame().await.is_none());
        Some(())
    })
    .await;
}

/// As for heads: what is there, and is all that was missing, is not thrown away.
#[tokio::test]
async fn a_last_frame_or_an_end_that_is_ready_at_the_deadline_is_taken() {
    for mode in ["none", "cooperative", "detached"] {
        let group = Group::new(&Context::background());
        let (sender, mut seen) = mpsc::unbounded_channel();
        let handler = service_fn(move |request: Request<Body>| {
            let sender = sender.clone();
            async move {
                let ctx = context(&request);
                // Of a detached handler, it is the answer that has a deadline, and not the context.
                match ctx.deadline() {
                    Some(_) => held_until_past(ctx.clone()).await,
                    None => std::thread::sleep(millis(80)),
                }
                sender.send(ctx).unwrap();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("hello"))))
            }
        });
        let layer = background().max(millis(50));
        let counts = layer.clone();
        let answer: Result<Response<ContextBody<Full<Bytes>>>, Infallible> = match mode {
            "none" => layer.layer(handler).oneshot(request()).await,
            // It is there when it is asked for.
            "cooperative" => {
                let mut service = layer.cooperative(&group, patience()).layer(handler);
                let call = service.call(request());
                drop(soon(seen.recv()).await.unwrap());
                tokio::time::sleep(millis(30)).await;
                call.await
            }
            _ => {
                let mut service = layer.detached(&group).layer(handler);
                let call = service.call(request());
                drop(soon(seen.recv()).await.unwrap());
                tokio::time::sleep(millis(30)).await;
                call.await
            }
        };
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{mode}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "hello", "{mode}");
        assert_eq!(counts.counts().cut_by_deadline, 0, "{mode}");
    }

    // The end of a stream; but no frame that is not the last.
    in_time(millis(30), |limit| async move {
        let mut frames = vec![None, Some("b"), Some("a")];
        let layer = background().max(limit);
        let body = Stream(move |_: &mut task::Context<'_>| {
            let frame = frames.pop().unwrap();
            Poll::Ready(frame.map(|frame| Ok::<_, Infallible>(Frame::data(Bytes::from(frame)))))
        });
        let (answer, ctx) = answered(&layer, request(), Response::new(StreamBody::new(body))).await;
        let mut body = answer.into_body();
        for frame in ["a", "b"] {
            let next = body.frame().await;
            before(&ctx)?;
            assert_eq!(next.unwrap().unwrap().into_data().unwrap(), frame);
        }
        held_until_past(ctx.clone()).await;
        assert!(body.frame().await.is_none());
        assert_eq!(layer.counts().cut_by_deadline, 0);
        Some(())
    })
    .await;
}

/// Trailers that are made when all data is there, by a future.
fn with_trailers(
    body: Full<Bytes>,
    trailers: impl Future<Output = Option<Result<HeaderMap, Infallible>>> + Send + 'static,
) -> impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static {
    body.with_trailers(Box::pin(trailers))
}

/// One that says how long it is from its first frame on.
struct Vague<B>(Pin<Box<B>>, bool);

impl<B: hyper::body::Body> hyper::body::Body for Vague<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.1 = false;
        self.0.as_mut().poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        match self.1 {
            true => SizeHint::default(),
            false => self.0.size_hint(),
        }
    }
}

/// The same of what is the last by a length, though the body does not say so: over HTTP/2 its end is a frame for itself. What comes after that is taken too
/// if it is the end and ready, and nothing else is.
#[tokio::test]
async fn a_last_frame_by_length_that_is_ready_at_the_deadline_is_taken() {
    const SECOND: Duration = Duration::from_secs(1);
    let trailers = || HeaderMap::from_iter([(header::ETAG, "x".parse().unwrap())]);
    let data = |text: &'static str| Some(Frame::data(Bytes::from(text)));
    // What the head says; the frames, of which None is one that is not ready; how many of them are taken before the deadline, and how many in all; and whether it is cut then.
    let cases = [
        (Some("5"), vec![data("hello")], 0, 1, false),
        (Some("5"), vec![data("hel"), data("lo")], 1, 2, false),
        (Some("5"), vec![data("hel"), data("lo")], 0, 0, true),
        (Some("5"), vec![data("hello"), None], 0, 1, true),
        (Some("5"), vec![data("hello"), data("")], 0, 1, true),
        (Some("5"), vec![data("hello"), data("")], 1, 1, true),
        (
            Some("5"),
            vec![data("hello"), Some(Frame::trailers(trailers()))],
            0,
            2,
            false,
        ),
        (None, vec![data("hello")], 0, 0, true),
    ];
    for (case, (length, frames, before, all, is_cut)) in cases.into_iter().enumerate() {
        let clock = TestClock::new();
        let layer = ContextLayer::new(&Context::background().with_clock(&clock)).max(SECOND);
        let mut frames = frames.into_iter();
        let stream = Stream(move |_: &mut task::Context<'_>| match frames.next() {
            Some(Some(frame)) => Poll::Ready(Some(Ok::<_, Infallible>(frame))),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        });
        let mut request = request();
        *request.version_mut() = Version::HTTP_2;
        let mut response = Response::new(StreamBody::new(stream));
        if let Some(length) = length {
            let length = length.parse().unwrap();
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length);
        }
        let (answer, _) = answered(&layer, request, response).await;
        let mut body = answer.into_body();
        for taken in 0..all {
            if taken == before {
                clock.advance(2 * SECOND);
            }
            assert!(body.frame().await.unwrap().is_ok(), "case {case}");
        }
        if all == before {
            clock.advance(2 * SECOND);
        }
        match body.frame().await {
            Some(Err(error)) => assert!(is_cut && error.is::<DeadlineReached>(), "case {case}"),
            end => assert!(!is_cut && end.is_none(), "case {case}"),
        }
        assert_eq!(
            layer.counts().cut_by_deadline,
            u64::from(is_cut),
            "case {case}"
        );
    }

    // By what it says of its own length; once, for it may be wrong.
    struct Wrong(u64);
    impl hyper::body::Body for Wrong {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0 = 0;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from("x")))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0)
        }
    }
    let clock = TestClock::new();
    let layer = ContextLayer::new(&Context::background().with_clock(&clock)).max(SECOND);
    let mut request = request();
    *request.version_mut() = Version::HTTP_2;
    let (answer, _) = answered(&layer, request, Response::new(Wrong(1))).await;
    clock.advance(2 * SECOND);
    let mut body = answer.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    let cut = body.frame().await.unwrap().unwrap_err();
    assert!(cut.is::<DeadlineReached>());
}

/// A body that has no data left may have trailers, which are made under the context: over HTTP/2, and over HTTP/1 where the head does not say how
/// long it is.
#[tokio::test]
async fn trailers_after_a_known_length_are_under_the_context() {
    let layer = background().max(patience());
    const HTTP_1: Version = Version::HTTP_11;
    const HTTP_2: Version = Version::HTTP_2;
    for (version, text, header, is_vague) in [
        (HTTP_1, "hello", "", false),
        (HTTP_1, "hello", "content-length", false),
        (HTTP_1, "hello", "content-length", true),
        (HTTP_1, "", "", false),
        (HTTP_1, "hello", "", true),
        (HTTP_1, "hello", "transfer-encoding", false),
        (HTTP_1, "", "transfer-encoding", false),
        (HTTP_1, "hello", "transfer-encoding", true),
        (HTTP_2, "hello", "", false),
        (HTTP_2, "", "", false),
        (HTTP_2, "hello", "", true),
    ] {
        let case = format!("{version:?} {text:?} {header:?} {is_vague}");
        let (tell, told) = tokio::sync::oneshot::channel::<Context>();
        let body = with_trailers(Full::new(Bytes::from(text)), async {
            let ctx = told.await.unwrap();
            Some(Ok(match ctx.is_done() {
                true => HeaderMap::new(),
                false => HeaderMap::from_iter([(header::ETAG, "x".parse().unwrap())]),
            }))
        });
        let mut request = request();
        *request.version_mut() = version;
        let mut response = Response::new(Vague(Box::pin(body), is_vague));
        let value = match header {
            "content-length" => text.len().to_string(),
            _ => "chunked".to_owned(),
        };
        if !header.is_empty() {
            let headers = response.headers_mut();
            headers.insert(header, value.parse().unwrap());
        }
        let (response, ctx) = answered(&layer, request, response).await;
        let mut body = response.into_body();
        if !text.is_empty() {
            assert!(!ctx.is_done(), "{case}");
            let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(data, text);
        }
        // hyper asks for nothing more in HTTP/1, if the head says how long it is.
        let is_over = version == HTTP_1
            && header != "transfer-encoding"
            && (header == "content-length" || !is_vague);
        assert_eq!(is::<Completed>(&ctx), is_over, "{case}");
        tell.send(ctx.clone()).unwrap();
        let trailers = loop {
            let frame = body.frame().await.unwrap().unwrap();
            if let Ok(trailers) = frame.into_trailers() {
                break trailers;
            }
        };
        assert_eq!(trailers.len(), usize::from(!is_over), "{case}");
        assert!(is::<Completed>(&ctx));
        assert!(body.frame().await.is_none());
    }

    // Whoever drops it when it has all data has had enough; before that it is gone.
    for (takes, cause) in [
        (true, "the response is complete"),
        (false, "the client is gone"),
    ] {
        let body = with_trailers(Full::new(Bytes::from("hello")), pending());
        let mut request = request();
        *request.version_mut() = Version::HTTP_2;
        let (response, ctx) = answered(&layer, request, Response::new(body)).await;
        let mut body = response.into_body();
        if takes {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        assert_eq!(ctx.cause().unwrap().to_string(), cause);
    }

    // Trailers that do not come are cut at the deadline.
    in_time(millis(30), |limit| async move {
        let body = with_trailers(Full::new(Bytes::from("hello")), pending());
        let mut request = request();
        *request.version_mut() = Version::HTTP_2;
        let layer = background().max(limit);
        let (response, ctx) = answered(&layer, request, Response::new(body)).await;
        let mut body = response.into_body();
        let data = soon(body.frame()).await;
        before(&ctx)?;
        data.unwrap().unwrap();
        let error = soon(body.frame()).await.unwrap().unwrap_err();
        assert!(error.is::<DeadlineReached>());
        assert!(ctx.cause().unwrap() == ContextError::DeadlineExceeded);
        Some(())
    })
    .await;
}

/// The same in hyper: of a body in chunks it asks for trailers, whatever the body says of its length.
#[tokio::test]
async fn hyper_asks_for_trailers_under_the_context() {
    for is_vague in [false, true] {
        let group = Group::new(&Context::background());
        let theirs = group.spawner();
        let service = service_fn(move |request: Request<Incoming>| {
            let (ctx, group) = (context(&request), theirs.clone());
            let body = with_trailers(Full::new(Bytes::from("hello")), async move {
                let said = match (ctx.is_done(), group.len()) {
                    (false, 1) => "under it",
                    _ => "after it",
                };
                Some(Ok(HeaderMap::from_iter([(
                    header::ETAG,
                    said.parse().unwrap(),
                )])))
            });
            let mut response = Response::new(Vague(Box::pin(body), is_vague));
            let headers = response.headers_mut();
            headers.insert(header::TRAILER, "etag".parse().unwrap());
            if !is_vague {
                headers.insert(header::TRANSFER_ENCODING, "chunked".parse().unwrap());
            }
            ready(Ok::<_, Infallible>(response))
        });
        let service = background().in_group(&group).layer(service);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let builder = hyper::server::conn::http1::Builder::new();
            let service = TowerToHyperService::new(service);
            builder
                .serve_connection(TokioIo::new(stream), service)
                .await
        });
        let get = "GET / HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n";
        let answer = soon(exchange(to, get)).await;
        assert!(answer.contains("etag: under it"), "{answer}");
        soon(group.join()).await.unwrap();
    }
}

/// A body that never says that it has ended, and has no frame either.
struct Silent(SizeHint);

impl hyper::body::Body for Silent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        self.0
    }
}

#[tokio::test]
async fn responses_without_a_body_end_with_their_heads() {
    let silent = || Silent(SizeHint::default());
    for (method, status, length) in [
        ("GET", 204, None),
        ("GET", 304, None),
        ("GET", 304, Some("5")),
        ("GET", 100, None),
        // Nobody has asked for an upgrade.
        ("GET", 101, None),
        ("HEAD", 200, None),
        ("HEAD", 200, Some("5")),
        ("HEAD", 404, None),
        ("GET", 200, Some("0")),
        ("POST", 500, Some("000")),
    ] {
        let mut request = request();
        *request.method_mut() = method.parse().unwrap();
        let mut response = Response::new(silent());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(length) = length {
            let length = length.parse().unwrap();
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length);
        }
        let (answer, ctx) = answered(&background(), request, response).await;
        assert!(is::<Completed>(&ctx), "{method} {status} {length:?}");
        drop(answer);
    }
    let exact = Silent(SizeHint::with_exact(0));
    let (_answer, ctx) = answered(&background(), request(), Response::new(exact)).await;
    assert!(is::<Completed>(&ctx));
    // What is no length, or more than there is, says nothing.
    for length in ["", "-0", "0,0", "0x0", "99999999999999999999999999", "5"] {
        let mut response = Response::new(silent());
        let length = length.parse().unwrap();
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
        let (answer, ctx) = answered(&background(), request(), response).await;
        assert!(!ctx.is_done());
        drop(answer);
        assert!(is::<ClientGone>(&ctx));
    }
}

/// hyper over HTTP/2 has no eye on lengths: it asks until the body says that it has ended.
#[tokio::test]
async fn a_head_over_http2_is_no_way_around_the_deadline() {
    let layer = background().max(millis(50));
    let mut request = request();
    *request.method_mut() = Method::HEAD;
    *request.version_mut() = Version::HTTP_2;
    let response = Response::new(Silent(SizeHint::default()));
    let (answer, ctx) = answered(&layer, request, response).await;
    let error = soon(answer.into_body().frame()).await.unwrap().unwrap_err();
    assert!(error.is::<DeadlineReached>());
    assert!(ctx.is_done());
}

/// What ends on another thread, after we have looked and before the one that writes does: all of it is there.
#[tokio::test]
async fn a_body_that_is_at_its_end_when_it_is_asked_is_complete() {
    /// Says so from the nth time on.
    struct Late(AtomicUsize);
    impl hyper::body::Body for Late {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from("x")))))
        }
        fn is_end_stream(&self) -> bool {
            self.0.fetch_sub(1, SeqCst) <= 1
        }
    }
    // At the head, and after a frame.
    for (times, frames) in [(2, 0), (3, 1)] {
        for asks in [true, false] {
            let layer = background();
            let body = Late(AtomicUsize::new(times));
            let (answer, ctx) = answered(&layer, request(), Response::new(body)).await;
            let mut body = answer.into_body();
            for _ in 0..frames {
                body.frame().await.unwrap().unwrap();
            }
            assert!(!ctx.is_done());
            assert!(!asks || body.is_end_stream());
            drop(body);
            assert_eq!(is::<Completed>(&ctx), asks);
            assert_eq!(layer.counts().client_gone, u64::from(!asks));
        }
    }
}

/// In each state; the counters say so once.
#[tokio::test]
async fn dropping_what_was_not_taken_whole() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Body>| {
        sender.send(context(&request)).unwrap();
        async move {
            if request.uri().path() == "/wait" {
                pending::<()>().await;
            }
            let mut frames = 2;
            let body = Stream(move |_: &mut task::Context<'_>| {
                frames -= 1;
                Poll::Ready(
                    (frames >= 0).then(|| Ok::<_, Infallible>(Frame::data(Bytes::from("x")))),
                )
            });
            Ok::<_, Infallible>(Response::new(StreamBody::new(body)))
        }
    });
    let group = Group::new(&Context::background());
    let layer = background().in_group(&group);
    let mut service = layer.layer(service);
    let mut gone = 0;
    for state in ["unpolled", "polled", "head", "frame", "frames", "end"] {
        let mut request = request();
        if state == "polled" {
            *request.uri_mut() = "/wait".parse().unwrap();
        }
        let mut call = Box::pin(service.call(request));
        let ctx = seen.recv().await.unwrap();
        match state {
            "unpolled" => {}
            "polled" => assert!(is_pending(call.as_mut())),
            _ => {
                let mut body = call.as_mut().await.unwrap().into_body();
                let frames = match state {
                    "head" => 0,
                    "frame" => 1,
                    _ => 2,
                };
                for _ in 0..frames {
                    body.frame().await.unwrap().unwrap();
                }
                if state == "end" {
                    assert!(body.frame().await.is_none());
                    assert!(body.frame().await.is_none());
                }
                assert_eq!(group.len(), usize::from(state != "end"), "{state}");
            }
        }
        drop(call);
        match state {
            "end" => assert!(is::<Completed>(&ctx)),
            // A stream that was not asked whether there is more: nobody knows that it was the last.
            _ => {
                assert!(is::<ClientGone>(&ctx), "{state}");
                gone += 1;
            }
        }
        assert_eq!(group.len(), 0, "{state}");
    }
    let counts = layer.counts();
    assert_eq!((counts.client_gone, counts.received), (gone, 6));
    assert_eq!((counts.failed, counts.cut_by_deadline), (0, 0));
}

/// Panics where it is dropped, but not while another panic is under way.
struct Fault;

impl Drop for Fault {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("in the drop");
        }
    }
}

/// A body that panics where it is told to.
struct Faulty(&'static str, #[allow(dead_code)] Option<Fault>);

impl hyper::body::Body for Faulty {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0 {
            "frame" => panic!("in the frame"),
            "late hint" => {
                self.get_mut().0 = "hint";
                Poll::Ready(Some(Ok(Frame::data(Bytes::from("x")))))
            }
            "end" => Poll::Ready(None),
            _ => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.0 == "hint" {
            panic!("in the hint");
        }
        SizeHint::default()
    }
}

/// Wherever a handler or its body panics: the context ends, the group says so and goes on, and so does the panic.
#[tokio::test]
async fn a_panic_anywhere_ends_the_context_and_is_reported() {
    // Where; what it says; by what the context has ended.
    let failed = HandlerFailed.to_string();
    let gone = ClientGone.to_string();
    let late = ContextError::DeadlineExceeded.to_string();
    let completed = Completed.to_string();
    for (place, message, cause) in [
        ("call", "in the call", &failed),
        ("poll", "in the poll", &failed),
        ("drop when ready", "in the drop", &failed),
        ("drop at the deadline", "in the drop", &late),
        ("drop when gone", "in the drop", &gone),
        ("hint", "in the hint", &failed),
        ("late hint", "in the hint", &failed),
        ("frame", "in the frame", &failed),
        ("end", "in the drop", &completed),
        ("body at the deadline", "in the drop", &late),
        ("body when gone", "in the drop", &gone),
    ] {
        let group = Group::new(&Context::background());
        let layer = background()
            .in_group(&group)
            .max(match place.contains("deadline") {
                true => millis(20),
                false => patience(),
            });
        let (sender, mut seen) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Body>| {
            sender.send(context(&request)).unwrap();
            assert!(place != "call", "in the call");
            let fault = place.starts_with("drop").then(|| Fault);
            async move {
                let _fault = fault;
                match place {
                    "poll" => panic!("in the poll"),
                    "drop at the deadline" | "drop when gone" => pending().await,
                    _ => {}
                }
                let is_of_body = place == "end" || place.starts_with("body");
                let body = Faulty(place, is_of_body.then(|| Fault));
                Ok::<_, Infallible>(Response::new(body))
            }
        });
        let service = layer.layer(service);
        // A task of its own, as the connection is.
        let task = tokio::spawn(async move {
            let mut call = Box::pin(service.oneshot(request()));
            if place == "drop when gone" {
                assert!(is_pending(call.as_mut()));
                return drop(call);
            }
            let mut body = call.await.unwrap().into_body();
            if place != "body when gone" {
                while let Some(frame) = body.frame().await {
                    let _ = frame;
                }
            }
        });
        let error = soon(task).await.unwrap_err();
        let said = error.into_panic();
        let said = said.downcast_ref::<&str>().map(|said| said.to_string());
        assert_eq!(said.as_deref(), Some(message), "{place}");
        let ctx = seen.recv().await.unwrap();
        assert_eq!(ctx.cause().unwrap().to_string(), *cause, "{place}");
        assert!(group.is_empty(), "{place}");
        let joined = soon(group.join()).await.unwrap_err();
        let panicked = joined.downcast_ref::<Panicked>();
        assert_eq!(panicked.unwrap().message, message, "{place}");
    }
}

#[tokio::test]
async fn times_of_nothing_and_times_without_end() {
    let header = |name: &'static str| hyper::http::HeaderName::from_static(name);
    let echo = service_fn(|request: Request<Body>| async move {
        let ctx = context(&request);
        Ok::<_, Infallible>(Response::new(match ctx.remaining() {
            None => "none".to_owned(),
            Some(left) => (left.as_secs() > 1 << 30).to_string(),
        }))
    });
    let ask = async |layer: ContextLayer, name: &'static str, value: &str| {
        let mut request = request();
        if !name.is_empty() {
            request.headers_mut().insert(name, value.parse().unwrap());
            *request.method_mut() = Method::POST;
            let grpc = "application/grpc".parse().unwrap();
            request.headers_mut().insert(header::CONTENT_TYPE, grpc);
        }
        let answer = layer.layer(echo).oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    let all = || {
        background().deadline_from([
            DeadlineHeader::GRPC,
            DeadlineHeader::millis(header("x-ms")),
            DeadlineHeader::seconds(header("x-s")),
        ])
    };
    assert_eq!(ask(all(), "", "").await, "none");
    assert_eq!(ask(all().max(Duration::MAX), "", "").await, "none");
    assert_eq!(
        ask(all().default_timeout(Duration::MAX), "", "").await,
        "none"
    );
    assert_eq!(ask(all(), "grpc-timeout", "99999999H").await, "true");
    let greatest = u64::MAX.to_string();
    assert_eq!(ask(all(), "x-ms", &greatest).await, "true");
    assert_eq!(ask(all(), "x-s", &greatest).await, "none");
    assert_eq!(ask(all(), "x-s", &"9".repeat(4000)).await, "none");
    assert_eq!(ask(all(), "x-s", &"0".repeat(4000)).await, "");

    // No time at all is the server's own choice: the handler is called, and told.
    let none = background().max(Duration::ZERO);
    let told = service_fn(|request: Request<Body>| async move {
        assert_eq!(
            context(&request).err(),
            Some(ContextError::DeadlineExceeded)
        );
        if request.uri().path() == "/wait" {
            pending::<()>().await;
        }
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("late"))))
    });
    let answer = none.layer(told).oneshot(request()).await.unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "late"
    );
    let mut wait = request();
    *wait.uri_mut() = "/wait".parse().unwrap();
    let answer = soon(none.layer(told).oneshot(wait)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_service_that_cannot_be_ready() {
    struct Failing;
    impl Service<Request<Body>> for Failing {
        type Response = Response<Body>;
        type Error = &'static str;
        type Future = std::future::Ready<Result<Response<Body>, &'static str>>;
        fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), &'static str>> {
            Poll::Ready(Err("never"))
        }
        fn call(&mut self, _: Request<Body>) -> Self::Future {
            unreachable!("it is not ready")
        }
    }
    let group = Group::new(&Context::background());
    let layer = background().in_group(&group);
    assert_eq!(
        layer.layer(Failing).oneshot(request()).await.unwrap_err(),
        "never"
    );
    assert_eq!(layer.counts().received, 0);
    // One that fails when it is called: the context has ended when the error is there.
    let (sender, mut seen) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Body>| {
        sender.send(context(&request)).unwrap();
        async { Err::<Response<Body>, _>("no") }
    });
    assert_eq!(
        layer.layer(service).oneshot(request()).await.unwrap_err(),
        "no"
    );
    assert!(is::<HandlerFailed>(&seen.recv().await.unwrap()));
    assert_eq!(layer.counts().failed, 1);
    assert!(group.is_empty());
}

/// A body that fails: its own error goes on, before the deadline.
#[tokio::test]
async fn a_body_that_fails() {
    let layer = background().max(patience());
    let body =
        Stream(|_: &mut task::Context<'_>| Poll::Ready(Some(Err::<Frame<Bytes>, _>("torn"))));
    let (answer, ctx) = answered(&layer, request(), Response::new(StreamBody::new(body))).await;
    let error = answer.into_body().frame().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "torn");
    assert!(is::<HandlerFailed>(&ctx));
}

/// Nobody is told to go on with an upload that is refused; who is to be handled is, when its body is asked for.
#[tokio::test]
async fn expect_continue() {
    let handler = |Extension(ctx): Extension<Context>, body: Body| async move {
        let body = ctx.run(body.collect()).await;
        body.map_or("cut".into(), |body| body.unwrap().to_bytes())
    };
    let layer = background().deadline_from([DeadlineHeader::CONNECT]);
    let to = serve(Router::new().route("/", post(handler)).layer(layer)).await;
    let head = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n";
    let answer = exchange(to, &format!("{head}connect-timeout-ms: 0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");

    let mut stream = TcpStream::connect(to).await.unwrap();
    let request = format!("{head}Connection: close\r\nconnect-timeout-ms: 30000\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    soon(stream.read_exact(&mut go_on)).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");

    // It is told to go on, and does not: the deadline is over all the same.
    in_time(millis(60), |limit| async move {
        let limit = limit.as_millis();
        let with = format!("\r\nconnect-timeout-ms: {limit}\r\nConnection: close\r\nHost");
        let head = head.replace("\r\nHost", &with);
        let answer = exchange(to, &format!("{head}\r\n")).await;
        assert!(
            answer.contains("HTTP/1.1 504") || answer.ends_with("cut"),
            "{answer}"
        );
        // Where the handler was late, it has not asked for it.
        answer.starts_with("HTTP/1.1 100").then_some(())
    })
    .await;
}

/// Requests one after the other on one connection: each has its own context, and its own end.
#[tokio::test]
async fn pipelined_requests_on_one_connection() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        sender.send(ctx).unwrap();
        "x"
    };
    let layer = background();
    let router = Router::new().route("/", get(handler)).layer(layer.clone());
    let to = serve(router).await;
    let one = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = exchange(to, &format!("{one}{one}{last}")).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3);
    for _ in 0..3 {
        let ctx = soon(seen.recv()).await.unwrap();
        soon(ctx.done()).await;
        assert!(is::<Completed>(&ctx));
    }
    assert_eq!(layer.counts().received, 3);
}

/// A 101 whose guard nobody has taken, one whose client has gone before it, and an upgrade that is turned down.
#[tokio::test]
async fn upgrades_that_come_to_nothing() {
    let group = Group::new(&Context::background());
    let layer = background().in_group(&group);
    let upgrade = |status: u16| {
        let mut request = request();
        request
            .headers_mut()
            .insert(header::UPGRADE, "x".parse().unwrap());
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        (request, response)
    };
    for status in [101, 200] {
        let (request, response) = upgrade(status);
        let (_answer, ctx) = answered(&layer, request, response).await;
        assert!(is::<Completed>(&ctx), "{status}");
        assert!(group.is_empty());
    }
    let (sender, mut seen) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Body>| {
        let guard = request.extensions().get::<UpgradeGuard>().cloned();
        sender.send((context(&request), guard)).unwrap();
        pending::<Result<Response<Body>, Infallible>>()
    });
    let mut call = Box::pin(layer.layer(service).oneshot(upgrade(101).0));
    assert!(is_pending(call.as_mut()));
    let (ctx, guard) = seen.recv().await.unwrap();
    drop(call);
    assert!(is::<ClientGone>(&ctx));
    // The guard has come to mean nothing.
    drop(guard.unwrap());
    assert!(group.is_empty());
    let cause: Cause = ctx.cause().unwrap();
    assert!(cause.downcast_ref::<ClientGone>().is_some());
}

/// `Body` of ours says what the inner one says of its length.
#[tokio::test]
async fn lengths_are_the_inner_ones() {
    let (answer, _) = answered(
        &background(),
        request(),
        Response::new(Full::<Bytes>::from("hello")),
    )
    .await;
    let body = answer.into_body();
    assert_eq!(body.size_hint().exact(), Some(5));
    assert!(!body.is_end_stream());
    assert!(ContextBody::<Full<Bytes>>::default().is_end_stream());
    let _: Result<_, BoxError> = body.collect().await;
}

/// A deadline that moves still moves when the request was cancelled from above.
#[tokio::test]
async fn an_idle_timeout_goes_on_after_a_cancel_from_above() {
    in_time(millis(400), |limit| async move {
        let server = Group::new(&Context::background());
        let mut last = Instant::now();
        let (conn, idle) = Context::background().with_idle_timeout(limit);
        let layer = ContextLayer::new(&conn).in_group(&server);
        let service = layer.layer(service_fn(|_: Request<Body>| {
            pending::<Result<Response<Body>, Infallible>>()
        }));
        let mut answer = Box::pin(service.oneshot(request()));
        let waits = is_pending(answer.as_mut());
        server.cancel();
        let still = is_pending(answer.as_mut());
        (last.elapsed() < limit).then_some(())?;
        assert!(waits && still);
        for _ in 0..8 {
            tokio::time::sleep(limit / 4).await;
            let now = Instant::now();
            idle.touch();
            let waits = is_pending(answer.as_mut());
            (last.elapsed() < limit).then_some(())?;
            assert!(waits, "it is not idle");
            last = now;
        }
        let response = soon(answer).await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        Some(())
    })
    .await;
}

/// One that is moved by its guard too, and one that was taken away when the cancel came: the head and the body end when it has come to be.
#[tokio::test]
async fn a_deadline_that_moves_still_moves_after_a_cancel_from_above() {
    type Next = Option<Result<Frame<Bytes>, Infallible>>;
    type Nothing = StreamBody<Stream<fn(&mut task::Context<'_>) -> Poll<Next>>>;
    let is_timeout = |status: StatusCode| status == StatusCode::GATEWAY_TIMEOUT;
    for is_taken_away in [false, true] {
        let long = Instant::now() + Duration::from_secs(3600);
        let (server, deadline) = Context::background().with_movable_deadline(long);
        let group = Group::new(&server);
        let layer = ContextLayer::new(group.context()).in_group(&group);
        let never = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
        let grace = Duration::from_secs(3600);
        let heads = [
            layer.layer(never).boxed_clone(),
            layer
                .clone()
                .cooperative(&group, grace)
                .layer(never)
                .boxed_clone(),
            layer.clone().detached(&group).layer(never).boxed_clone(),
        ];
        let mut heads = heads.map(|service| Box::pin(service.oneshot(request())));
        let body: Nothing = StreamBody::new(Stream(|_| Poll::Pending));
        let (response, _ctx) = answered(&layer, request(), Response::new(body)).await;
        let mut body = response.into_body();
        if is_taken_away {
            assert!(deadline.take_away());
        }
        let all = async {
            for head in &mut heads {
                assert!(is_pending(head.as_mut()));
            }
            // They find the cancel, and wait on.
            let heads = heads.map(tokio::spawn);
            let body = tokio::spawn(async move { body.frame().await.unwrap() });
            tokio::task::yield_now().await;
            group.cancel();
            tokio::time::sleep(millis(50)).await;
            assert!(deadline.set(Instant::now() + millis(50)));
            for head in heads {
                assert!(is_timeout(head.await.unwrap().unwrap().status()));
            }
            let error = body.await.unwrap().unwrap_err();
            assert!(error.downcast_ref::<DeadlineReached>().is_some());
        };
        soon(all).await;
    }
}

/// A panic in `call` is a handler that failed, in each mode.
#[tokio::test]
async fn a_panic_in_call_is_no_client_that_has_gone() {
    let group = Group::new(&Context::background());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let service = background().detached(&group).layer(service_fn(
        move |request: Request<Body>| -> Ready<Result<Response<Body>, Infallible>> {
            tell.send(context(&request)).unwrap();
            panic!("in call")
        },
    ));
    let response = soon(service.oneshot(request())).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let ctx = soon(told.recv()).await.unwrap();
    soon(ctx.done()).await;
    assert!(is::<HandlerFailed>(&ctx));
}

/// What the handler has left to be called at the end may panic: in a group, that is said there, and the answer goes out. Without one it goes on.
/// What is counted is counted.
#[tokio::test]
async fn a_callback_that_panics_at_the_end_takes_no_answer_away() {
    for is_in_group in [true, false] {
        let group = Group::new(&Context::background());
        let layer = match is_in_group {
            true => background().in_group(&group),
            false => background(),
        };
        let left = |ctx: &Context| drop(ctx.on_cancel(|| panic!("at the end")));
        let handler = move |Extension(ctx): Extension<Context>| async move {
            left(&ctx);
            "hello"
        };
        let fails = move |request: Request<Body>| {
            left(&context(&request));
            ready(Err::<Response<Body>, _>("no"))
        };
        let to = serve(Router::new().route("/", get(handler)).layer(layer.clone())).await;
        let get = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = soon(exchange(to, get)).await;
        assert_eq!(answer.ends_with("hello"), is_in_group, "{answer}");
        let failed = tokio::spawn(layer.layer(service_fn(fails)).oneshot(request()));
        assert_eq!(soon(failed).await.is_ok(), is_in_group);
        assert_eq!(layer.counts().failed, 1);
        if is_in_group {
            let said = soon(group.join()).await.unwrap_err();
            let panicked = said.downcast_ref::<Panicked>().unwrap();
            assert_eq!(panicked.message, "at the end");
        }
    }
}

/// The same of a handler that answers 101, but has let the guard of its connection go.
#[tokio::test]
async fn a_callback_that_panics_at_the_end_of_an_upgrade() {
    let group = Group::new(&Context::background());
    let layer = background().in_group(&group);
    let service = service_fn(|request: Request<Body>| {
        drop(context(&request).on_cancel(|| panic!("at the end")));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        ready(Ok::<_, Infallible>(response))
    });
    let mut upgrade = request();
    let headers = upgrade.headers_mut();
    headers.insert(header::UPGRADE, "x".parse().unwrap());
    let call = tokio::spawn(layer.layer(service).oneshot(upgrade));
    let answer = soon(call).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(layer.counts().client_gone, 0);
    let said = soon(group.join()).await.unwrap_err();
    let panicked = said.downcast_ref::<Panicked>().unwrap();
    assert_eq!(panicked.message, "at the end");
}

/// A body that has given its last frame is dropped there, in a group; if that panics, the frame goes out. Without one it panics where it is dropped.
#[tokio::test]
async fn a_body_that_panics_when_it_is_dropped_takes_no_frame_away() {
    struct Last(bool, #[allow(dead_code)] Fault);
    impl hyper::body::Body for Last {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0 = true;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from("x")))))
        }
        fn is_end_stream(&self) -> bool {
            self.0
        }
    }
    for is_in_group in [true, false] {
        let group = Group::new(&Context::background());
        let layer = match is_in_group {
            true => background().in_group(&group),
            false => background(),
        };
        let response = Response::new(Last(false, Fault));
        let (answer, ctx) = answered(&layer, request(), response).await;
        let mut body = answer.into_body();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "x");
        assert!(body.is_end_stream() && is::<Completed>(&ctx));
        assert!(group.is_empty());
        let dropped = tokio::spawn(async move { drop(body) }).await;
        assert_eq!(dropped.is_ok(), is_in_group);
        if is_in_group {
            let said = soon(group.join()).await.unwrap_err();
            let panicked = said.downcast_ref::<Panicked>().unwrap();
            assert_eq!(panicked.message, "in the drop");
        }
    }
}

/// A request that ends does not wake the task that ends it.
#[tokio::test]
async fn an_end_wakes_nobody_but_others() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = task::Waker::from(count.clone());
    let mut cx = task::Context::from_waker(&waker);
    let service = background().max(patience()).layer(service_fn({
        let mut answers = false;
        move |_: Request<Body>| {
            poll_fn(move |_| match std::mem::replace(&mut answers, true) {
                false => Poll::Pending,
                true => Poll::Ready(Ok::<_, Infallible>(Response::new(Body::from("x")))),
            })
        }
    }));
    let mut call = pin!(service.oneshot(request()));
    assert!(call.as_mut().poll(&mut cx).is_pending());
    let Poll::Ready(Ok(response)) = call.poll(&mut cx) else {
        panic!("it answers");
    };
    let mut body = response.into_body();
    assert!(pin!(body.frame()).poll(&mut cx).is_ready());
    drop(body);
    assert_eq!(count.0.load(SeqCst), 0);
}
