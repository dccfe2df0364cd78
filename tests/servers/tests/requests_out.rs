//! `PropagateLayer`: what is sent, and what comes back.

use axum::body::{Body, Bytes};
use axum::http::{
    header, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
};
use cancel_tree::integrations::tower::{
    grpc_timeout, ContextLayer, DeadlineHeader, PropagateLayer,
};
use cancel_tree::{Cause, Context, ContextError, TestClock};
use h2::Reason;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use servers::{before, in_time, millis, soon, Stream};
use std::convert::Infallible;
use std::future::{pending, ready};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tower::{service_fn, BoxError, Layer, Service, ServiceExt};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

fn under(ctx: &Context) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(ctx.clone());
    request
}

fn grpc_under(ctx: &Context) -> Request<Body> {
    let mut request = under(ctx);
    *request.method_mut() = Method::POST;
    let grpc = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert(header::CONTENT_TYPE, grpc);
    request
}

/// Answers with the headers that it was sent.
async fn mirror(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = request.headers().clone();
    Ok(response)
}

async fn mirror_never(_: Request<Body>) -> Result<Response<Body>, BoxError> {
    pending().await
}

fn kind(error: &BoxError) -> Option<ContextError> {
    error.downcast_ref::<Cause>().map(Cause::kind)
}

#[tokio::test]
async fn what_is_left_is_sent_less_the_reserve() {
    let layer = PropagateLayer::new(DeadlineHeader::GRPC).reserve(millis(300));
    let client = layer.layer(service_fn(mirror));
    let (ctx, _guard) = Context::background().with_timeout(millis(10_000));
    let answer = client.clone().oneshot(under(&ctx)).await.unwrap();
    let sent = grpc_timeout::parse(answer.headers()["grpc-timeout"].as_bytes()).unwrap();
    let left = ctx.remaining().unwrap();
    assert!(
        sent <= millis(9700) && sent + millis(301) >= left,
        "{sent:?}, {left:?}"
    );

    // An earlier one stays; a later one, and one that says nothing, do not.
    for (said, stays) in [("1S", true), ("20S", false), ("soon", false)] {
        let mut request = under(&ctx);
        request
            .headers_mut()
            .insert("grpc-timeout", said.parse().unwrap());
        let answer = client.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.headers()["grpc-timeout"] == said, stays, "{said}");
    }
    // No deadline, no header.
    let answer = client.oneshot(under(&ctx.without_cancel())).await.unwrap();
    assert!(!answer.headers().contains_key("grpc-timeout"));
}

#[tokio::test]
async fn nothing_is_sent_without_time() {
    let client = PropagateLayer::new(DeadlineHeader::CONNECT)
        .reserve(millis(300))
        .minimum(millis(100));
    let client = client.layer(service_fn(|_: Request<Body>| async {
        panic!("sent");
        #[allow(unreachable_code)]
        Ok::<_, BoxError>(Response::new(Body::empty()))
    }));
    let (ctx, _guard) = Context::background().with_timeout(millis(350));
    let error = client.clone().oneshot(under(&ctx)).await.unwrap_err();
    assert_eq!(kind(&error), Some(ContextError::DeadlineExceeded));
    let answer = client.clone().oneshot(grpc_under(&ctx)).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4");
    let (ctx, guard) = Context::background().with_timeout(Duration::from_secs(3600));
    guard.cancel();
    let error = client.oneshot(under(&ctx)).await.unwrap_err();
    assert_eq!(kind(&error), Some(ContextError::Cancelled));
}

#[tokio::test]
async fn carried_headers_go_along() {
    let id = HeaderName::from_static("x-request-id");
    let client = PropagateLayer::new(DeadlineHeader::GRPC).layer(service_fn(mirror));
    let server = ContextLayer::new(&Context::background()).carry([id]);
    let server = server.layer(service_fn(move |request: Request<Body>| {
        let ctx = request.extensions().get::<Context>().unwrap().clone();
        client.clone().oneshot(under(&ctx))
    }));
    let mut request = Request::new(Body::empty());
    request
        .headers_mut()
        .insert("x-request-id", "7".parse().unwrap());
    let answer = server.oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "7");
}

/// Of layers around each other, each may name some: all of them go along, and of what two of them have kept, what came to the inner one.
#[tokio::test]
async fn headers_that_several_layers_carry_go_along() {
    let names = ["x-request-id", "baggage", "traceparent"].map(HeaderName::from_static);
    let [id, baggage, parent] = names;
    let client = PropagateLayer::new(DeadlineHeader::GRPC).layer(service_fn(mirror));
    let handler = service_fn(move |request: Request<Body>| {
        let ctx = request.extensions().get::<Context>().unwrap().clone();
        client.clone().oneshot(under(&ctx))
    });
    let layer = || ContextLayer::new(&Context::background());
    // Twice is once.
    let inner = layer().carry([baggage.clone(), parent.clone(), baggage.clone()]);
    let between = inner
        .layer(handler)
        .map_request(|mut request: Request<Body>| {
            let headers = request.headers_mut();
            headers.insert("baggage", "c=3".parse().unwrap());
            headers.append("baggage", "d=4".parse().unwrap());
            headers.insert("x-request-id", "8".parse().unwrap());
            request
        });
    let outer = layer().carry([id, baggage]).layer(between);
    for parent in [true, false] {
        let mut request = Request::builder()
            .header("x-request-id", "7")
            .header("baggage", "a=1")
            .header("baggage", "b=2")
            .header("cookie", "secret");
        if parent {
            request = request.header("traceparent", "00-1-2-01");
        }
        let request = request.body(Body::empty()).unwrap();
        let answer = outer.clone().oneshot(request).await.unwrap();
        let sent = answer.headers();
        assert_eq!(sent["x-request-id"], "7");
        let baggage: Vec<_> = sent.get_all("baggage").iter().collect();
        assert_eq!(baggage, ["c=3", "d=4"]);
        assert_eq!(sent.contains_key("traceparent"), parent);
        assert!(!sent.contains_key("cookie"));
    }
}

#[tokio::test]
async fn a_call_ends_with_its_context() {
    let layer = PropagateLayer::new(DeadlineHeader::GRPC);
    let client = layer.layer(service_fn(|_: Request<Body>| async {
        pending::<()>().await;
        Ok::<_, BoxError>(Response::new(Body::empty()))
    }));
    let begin = Instant::now();
    let (ctx, _guard) = Context::background().with_timeout(millis(30));
    let error = client.clone().oneshot(under(&ctx)).await.unwrap_err();
    assert_eq!(kind(&error), Some(ContextError::DeadlineExceeded));
    assert!(begin.elapsed() >= millis(30));

    let (ctx, guard) = Context::background().with_cancel();
    let call = tokio::spawn(client.oneshot(grpc_under(&ctx)));
    tokio::task::yield_now().await;
    guard.cancel();
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "1");
}

/// The other end's "cancelled" and a reset are our deadline, if that has passed; before it they are what they say.
#[tokio::test]
async fn the_clock_decides_whose_end_it_was() {
    let client = |wait: Duration, how: &'static str| {
        PropagateLayer::new(DeadlineHeader::GRPC).layer(service_fn(
            move |_: Request<Body>| async move {
                // The thread is held, so that the answer is there in the poll that finds the deadline past.
                std::thread::sleep(wait);
                let mut response = Response::new(Body::empty());
                match how {
                    "reset" => {
                        return Err(BoxError::from(io::Error::from(
                            io::ErrorKind::ConnectionReset,
                        )))
                    }
                    "expired" => {
                        *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                        response
                            .headers_mut()
                            .insert("x-deadline-expired", "1".parse().unwrap());
                    }
                    status => {
                        response
                            .headers_mut()
                            .insert("grpc-status", status.parse().unwrap());
                    }
                }
                Ok(response)
            },
        ))
    };
    let (short, long) = (millis(100), Duration::from_secs(3600));
    for (limit, wait, ours) in [(short, millis(110), true), (long, millis(0), false)] {
        let limit = || Context::background().with_timeout(limit);
        let (ctx, _guard) = limit();
        let error = client(wait, "reset")
            .oneshot(under(&ctx))
            .await
            .unwrap_err();
        assert_eq!(kind(&error).is_some(), ours);
        let (ctx, _guard) = limit();
        let answer = client(wait, "expired").oneshot(under(&ctx)).await;
        assert_eq!(answer.is_err(), ours);
        let (ctx, _guard) = limit();
        let answer = client(wait, "1").oneshot(grpc_under(&ctx)).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"] == "4", ours);
    }
    // A real answer is never replaced. (Where the time is over before the call, there is none.)
    in_time(short, |short| async move {
        let (ctx, _guard) = Context::background().with_timeout(short);
        let late = client(short + millis(10), "5");
        let answer = late.oneshot(grpc_under(&ctx)).await.unwrap();
        (answer.headers()["grpc-status"] == "5").then_some(())
    })
    .await;
    let (ctx, _guard) = Context::background().with_timeout(long);
    let early = client(millis(0), "5");
    let answer = early.oneshot(grpc_under(&ctx)).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "5");
}

/// tonic's channel has a timer of its own for what is sent, which is earlier than ours by the reserve: it answers CANCELLED, and it is our
/// deadline all the same.
#[tokio::test]
async fn what_was_sent_counts_as_our_deadline() {
    let (ctx, guard) = Context::background().with_timeout(Duration::from_secs(3600));
    let reserve = Duration::from_secs(3600) - millis(20);
    let layer = PropagateLayer::new(DeadlineHeader::GRPC).reserve(reserve);
    let client = layer.layer(service_fn(|request: Request<Body>| async move {
        let sent = grpc_timeout::parse(request.headers()["grpc-timeout"].as_bytes()).unwrap();
        tokio::time::sleep(sent).await;
        Err::<Response<Body>, _>("a timer of its own")
    }));
    let answer = client.clone().oneshot(grpc_under(&ctx)).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4");
    // Not what we have cancelled before.
    let call = tokio::spawn({
        let client = PropagateLayer::new(DeadlineHeader::GRPC).layer(service_fn(mirror_never));
        client.oneshot(grpc_under(&ctx))
    });
    tokio::task::yield_now().await;
    guard.cancel();
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "1");
}

/// The same of a header that the request has itself, under a context that has no deadline.
#[tokio::test]
async fn what_the_request_says_itself_counts_as_our_deadline() {
    let layer = PropagateLayer::new(DeadlineHeader::GRPC);
    let client = layer.layer(service_fn(|request: Request<Body>| async move {
        let sent = grpc_timeout::parse(request.headers()["grpc-timeout"].as_bytes()).unwrap();
        if sent < Duration::from_secs(3600) {
            tokio::time::sleep(sent).await;
        }
        let mut response = Response::new(Body::empty());
        let cancelled = HeaderValue::from_static("1");
        response.headers_mut().insert("grpc-status", cancelled);
        Ok::<_, BoxError>(response)
    }));
    let (ctx, _guard) = Context::background().with_cancel();
    for (said, status) in [("20m", "4"), ("1H", "1")] {
        let mut request = grpc_under(&ctx);
        let said = said.parse().unwrap();
        request.headers_mut().insert("grpc-timeout", said);
        let answer = client.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], status);
    }
}

/// A header in seconds says more than is left: before that is over, what is CANCELLED is not our deadline.
#[tokio::test]
async fn what_was_sent_is_what_the_header_says() {
    let seconds = DeadlineHeader::seconds(HeaderName::from_static("x-seconds"));
    let seconds = &seconds;
    in_time(millis(20), |left| async move {
        // All of it, and the sleep, is in the second.
        let left = left.min(millis(800));
        let client = PropagateLayer::new(seconds.clone()).reserve(Duration::from_secs(3600) - left);
        let client = client.layer(service_fn(move |request: Request<Body>| async move {
            assert_eq!(request.headers()["x-seconds"], "1");
            tokio::time::sleep(left + millis(80)).await;
            let mut response = Response::new(Body::empty());
            let cancelled = HeaderValue::from_static("1");
            response.headers_mut().insert("grpc-status", cancelled);
            Ok::<_, BoxError>(response)
        }));
        let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(3600));
        // A machine that stands still may let all of the second pass, or what is left.
        let answer = client.oneshot(grpc_under(&ctx)).await.unwrap();
        (answer.headers()["grpc-status"] == "1").then_some(())
    })
    .await;
}

/// There is an end to the headers that a request can have; it is sent as it came then.
#[tokio::test]
async fn a_request_that_is_full_of_headers() {
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(3600));
    let mut headers = HeaderMap::new();
    for i in 0.. {
        let name = HeaderName::try_from(format!("x-{i}")).unwrap();
        let value = HeaderValue::from_static("1");
        if headers.try_append(name, value).is_err() {
            break;
        }
    }
    let many = headers.len();
    let layer = PropagateLayer::new(DeadlineHeader::CONNECT);
    layer.outgoing(&ctx, &mut headers).unwrap();
    assert_eq!(headers.len(), many);
    // Nor does it say what is not so: what it said is later than our deadline.
    headers.remove("x-0");
    let said = HeaderValue::from_static("9999999");
    headers.try_append("connect-timeout-ms", said).unwrap();
    assert_eq!(headers.len(), many);
    layer.outgoing(&ctx, &mut headers).unwrap();
    assert_ne!(headers["connect-timeout-ms"], "9999999");
}

/// However the context ends, a body that always has a next frame ends with it; and what is the last one is not lost.
#[tokio::test]
async fn a_body_ends_with_the_context_unless_it_has_its_last_frame() {
    use std::task::Poll;

    for grpc in [false, true] {
        in_time(millis(100), |short| async move {
            for by_deadline in [false, true] {
                let client = PropagateLayer::new(DeadlineHeader::GRPC).layer(service_fn(
                    |_: Request<Body>| async {
                        let always = Stream(|_: &mut std::task::Context<'_>| {
                            Poll::Ready(Some(Ok::<_, Infallible>(Frame::data(Bytes::from("x")))))
                        });
                        Ok::<_, BoxError>(Response::new(StreamBody::new(always)))
                    },
                ));
                let (ctx, guard) = Context::background().with_timeout(match by_deadline {
                    true => short,
                    false => Duration::from_secs(3600),
                });
                let request = if grpc { grpc_under(&ctx) } else { under(&ctx) };
                let answer = client.oneshot(request).await;
                before(&ctx)?;
                let mut body = answer.unwrap().into_body();
                let first = body.frame().await;
                before(&ctx)?;
                first.unwrap().unwrap();
                if by_deadline {
                    ctx.done().await;
                } else {
                    guard.cancel();
                }
                let end = body.frame().await.unwrap();
                match (grpc, by_deadline) {
                    (true, _) => {
                        let trailers = end.unwrap().into_trailers().unwrap();
                        assert_eq!(trailers["grpc-status"], if by_deadline { "4" } else { "1" });
                    }
                    (false, true) => assert_eq!(
                        kind(&end.unwrap_err()),
                        Some(ContextError::DeadlineExceeded)
                    ),
                    (false, false) => {
                        assert_eq!(kind(&end.unwrap_err()), Some(ContextError::Cancelled));
                    }
                }
                assert!(body.frame().await.is_none());
            }
            Some(())
        })
        .await;
    }

    let client =
        PropagateLayer::new(DeadlineHeader::GRPC).layer(service_fn(|_: Request<Body>| async {
            Ok::<_, BoxError>(Response::new(Body::from("whole")))
        }));
    let (ctx, guard) = Context::background().with_cancel();
    let answer = client.oneshot(under(&ctx)).await.unwrap();
    guard.cancel();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "whole");
}

/// Frames that a body has, one after the other, and then its end; it does not say before that it has come.
fn frames(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Body {
    let frames: Vec<_> = frames.into_iter().map(Ok::<_, Infallible>).collect();
    Body::new(StreamBody::new(tokio_stream::iter(frames)))
}

/// The end may be a frame for itself, over HTTP/2 above all: then the last one is known by `content-length` only. It is one once, and what comes after it is no frame of
/// data.
#[tokio::test]
async fn a_last_frame_by_length_that_is_ready_then_is_not_lost() {
    // How many are taken before the end of the context, and in all; and whether it is cut then.
    let cases: [(_, &[&str], _, _, _); 6] = [
        (Some("5"), &["hello"], 0, 1, false),
        (Some("5"), &["hel", "lo"], 1, 2, false),
        (Some("5"), &["hel", "lo"], 0, 0, true),
        (Some("5"), &["hello", ""], 0, 1, true),
        (Some("5"), &["hello", ""], 1, 1, true),
        (None, &["hello"], 0, 0, true),
    ];
    let both = [Version::HTTP_11, Version::HTTP_2].map(|version| cases.map(|case| (version, case)));
    for (version, (length, sent, before, all, is_cut)) in both.into_iter().flatten() {
        let case = format!("{version:?} {length:?} {sent:?} {before}");
        let sent = sent.iter().map(|text| Frame::data(Bytes::from(*text)));
        let mut response = Response::new(frames(sent.collect::<Vec<_>>()));
        *response.version_mut() = version;
        if let Some(length) = length {
            let length = HeaderValue::from_static(length);
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length);
        }
        let mut response = Some(response);
        let client =
            service_fn(move |_: Request<Body>| ready(Ok::<_, BoxError>(response.take().unwrap())));
        let (ctx, guard) = Context::background().with_cancel();
        let layer = PropagateLayer::new(DeadlineHeader::CONNECT);
        let answer = layer.layer(client).oneshot(under(&ctx)).await.unwrap();
        let mut body = answer.into_body();
        for taken in 0..all {
            if taken == before {
                guard.cancel();
            }
            assert!(body.frame().await.unwrap().is_ok(), "{case}");
        }
        guard.cancel();
        match body.frame().await {
            Some(end) => {
                let said = kind(&end.unwrap_err());
                assert!(is_cut && said == Some(ContextError::Cancelled), "{case}");
            }
            None => assert!(!is_cut, "{case}"),
        }
    }
}

/// What ends without an error may have been cut off: over HTTP/2 hyper takes a reset with NO_ERROR for an end. Past the deadline, ours
/// or what was sent, it is that; unless all has come.
#[tokio::test]
async fn an_end_past_the_deadline_is_one_if_all_has_come() {
    const SECOND: Duration = Duration::from_secs(1);
    const EXCEEDED: Option<ContextError> = Some(ContextError::DeadlineExceeded);
    let half = || Frame::data(Bytes::from("half"));
    let trailers = || {
        let status = HeaderValue::from_static("0");
        Frame::trailers(HeaderMap::from_iter([(GRPC_STATUS, status)]))
    };
    let with = |name: HeaderName, value: &'static str, body| {
        let mut response = Response::new(body);
        *response.version_mut() = Version::HTTP_2;
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
        response
    };
    let plain = |body| with(header::SERVER, "another one", body);
    let length = |value, body| with(header::CONTENT_LENGTH, value, body);
    // Before all of it; past what was sent, which is less by the reserve; past ours; and after a cancel.
    for (past, end) in [
        (9, None),
        (10, EXCEEDED),
        (20, EXCEEDED),
        (0, Some(ContextError::Cancelled)),
    ] {
        let mut unmodified = length("4", frames([]));
        *unmodified.status_mut() = StatusCode::NOT_MODIFIED;
        let cases = [
            // How many frames there are before the end, and whether they are all.
            (Method::GET, plain(frames([half()])), 1, false),
            (Method::GET, plain(frames([half(), trailers()])), 2, true),
            (Method::GET, plain(Body::from("says so")), 1, true),
            (Method::GET, length("5", frames([half()])), 1, false),
            (Method::GET, length("4", frames([half()])), 1, true),
            // Over HTTP/1.
            (Method::GET, Response::new(frames([half()])), 1, true),
            (Method::HEAD, length("4", frames([])), 0, true),
            (Method::GET, unmodified, 0, true),
            // gRPC.
            (Method::POST, plain(frames([half()])), 1, false),
            (Method::POST, plain(frames([half(), trailers()])), 2, true),
            (Method::POST, plain(Body::from("says so")), 1, false),
            (Method::POST, length("4", frames([half()])), 1, false),
            (Method::POST, Response::new(frames([half()])), 1, false),
            (Method::POST, with(GRPC_STATUS, "5", frames([])), 0, true),
        ];
        for (case, (method, response, many, is_whole)) in cases.into_iter().enumerate() {
            let clock = TestClock::new();
            let ctx = Context::background().with_clock(&clock);
            let (ctx, guard) = ctx.with_timeout(20 * SECOND);
            let is_grpc = method == Method::POST;
            let mut request = if is_grpc {
                grpc_under(&ctx)
            } else {
                under(&ctx)
            };
            *request.method_mut() = method;
            let mut response = Some(response);
            let client = service_fn(move |_: Request<Body>| {
                ready(Ok::<_, BoxError>(response.take().unwrap()))
            });
            let layer = PropagateLayer::new(DeadlineHeader::GRPC).reserve(10 * SECOND);
            let answer = layer.layer(client).oneshot(request).await.unwrap();
            let mut body = answer.into_body();
            for _ in 0..many {
                body.frame().await.unwrap().unwrap();
            }
            if end == Some(ContextError::Cancelled) {
                guard.cancel();
            }
            clock.advance(past * SECOND);
            let last = body.frame().await;
            let said = match last {
                None => None,
                Some(Err(error)) if !is_grpc => kind(&error),
                Some(frame) => match frame.unwrap().into_trailers().unwrap() {
                    trailers if trailers[GRPC_STATUS] == "4" => EXCEEDED,
                    trailers if trailers[GRPC_STATUS] == "1" => Some(ContextError::Cancelled),
                    trailers => panic!("{trailers:?}"),
                },
            };
            let expected = end.filter(|_| !is_whole);
            assert_eq!(said, expected, "case {case} at {past} seconds");
            assert!(body.frame().await.is_none());
        }
    }
}

/// What a server does, after half of its answer, with a stream whose time is over: h2's and hyper's own.
#[tokio::test]
async fn a_reset_that_is_no_error_is_our_deadline() {
    const SECOND: Duration = Duration::from_secs(1);
    for reset in [Some(Reason::NO_ERROR), Some(Reason::CANCEL), None] {
        for is_grpc in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = listener.local_addr().unwrap();
            let over = Arc::new(Notify::new());
            let is_over = over.clone();
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
                let mut answer = respond.send_response(Response::new(()), false).unwrap();
                answer.send_data("half".into(), false).unwrap();
                tokio::spawn(async move {
                    is_over.notified().await;
                    match reset {
                        Some(reason) => answer.send_reset(reason),
                        None => answer.send_data("other".into(), true).unwrap(),
                    }
                });
                while connection.accept().await.is_some() {}
            });
            let stream = TokioIo::new(TcpStream::connect(to).await.unwrap());
            let (mut send, connection) = http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
            tokio::spawn(connection);
            let client = service_fn(move |request: Request<Body>| send.send_request(request));
            let clock = TestClock::new();
            let ctx = Context::background().with_clock(&clock);
            let (ctx, _guard) = ctx.with_timeout(20 * SECOND);
            let mut request = if is_grpc {
                grpc_under(&ctx)
            } else {
                under(&ctx)
            };
            *request.uri_mut() = format!("http://{to}/").parse().unwrap();
            let layer = PropagateLayer::new(DeadlineHeader::GRPC).reserve(10 * SECOND);
            let answer = layer.layer(client).oneshot(request);
            let mut body = soon(answer).await.unwrap().into_body();
            soon(body.frame()).await.unwrap().unwrap();
            clock.advance(10 * SECOND);
            over.notify_one();
            let rest = soon(body.collect()).await;
            match (reset, is_grpc) {
                (None, false) => assert_eq!(rest.unwrap().to_bytes(), "other"),
                (Some(_), false) => {
                    assert_eq!(
                        kind(&rest.unwrap_err()),
                        Some(ContextError::DeadlineExceeded)
                    );
                }
                // Without its trailers it was no end.
                (_, true) => assert_eq!(rest.unwrap().trailers().unwrap()[GRPC_STATUS], "4"),
            }
        }
    }
}

/// Three hops: the time only shrinks, and the reserve of each is kept.
#[tokio::test]
async fn the_budget_shrinks_from_hop_to_hop() {
    let hop = |inner: tower::util::BoxCloneService<Request<Body>, Response<Body>, BoxError>| {
        let client = PropagateLayer::new(DeadlineHeader::CONNECT)
            .reserve(millis(100))
            .layer(inner);
        let server = ContextLayer::new(&Context::background())
            .deadline_from([DeadlineHeader::CONNECT])
            .layer(service_fn(move |request: Request<Body>| {
                let ctx = request.extensions().get::<Context>().unwrap().clone();
                let client = client
                    .clone()
                    .map_response(|answer: Response<_>| answer.map(Body::new));
                client.oneshot(under(&ctx))
            }));
        server
            .map_response(|answer: Response<_>| answer.map(Body::new))
            .boxed_clone()
    };
    let last = service_fn(mirror).boxed_clone();
    let chain = hop(hop(hop(last)));
    let request = Request::builder().header("connect-timeout-ms", "60000");
    let answer = chain
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let left = answer.headers()["connect-timeout-ms"]
        .to_str()
        .unwrap()
        .to_owned();
    let left: u64 = left.parse().unwrap();
    assert!(left <= 59_700 && left > 20_000, "{left}");
    answer.into_body().collect().await.unwrap();
}

#[tokio::test]
async fn without_a_context_it_is_as_if_there_were_no_layer() {
    let client =
        PropagateLayer::new(DeadlineHeader::GRPC).layer(service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Body::from("x")))
        }));
    let answer = client.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "x");
}

/// Nor is what is done by the time of its first poll: as with `Context::run`. By the clock too, whoever else has noticed.
#[tokio::test]
async fn nothing_is_sent_once_the_context_is_done() {
    let polled = Arc::new(AtomicUsize::new(0));
    let client = PropagateLayer::new(DeadlineHeader::GRPC).layer(service_fn({
        let polled = polled.clone();
        move |_: Request<Body>| {
            let polled = polled.clone();
            async move {
                polled.fetch_add(1, SeqCst);
                Ok::<_, BoxError>(Response::new(Body::empty()))
            }
        }
    }));
    let call = |request| {
        let mut client = client.clone();
        async move {
            client.ready().await.unwrap();
            client.call(request)
        }
    };
    let long = Duration::from_secs(3600);
    for (limit, error, status) in [
        (long, ContextError::Cancelled, "1"),
        (millis(20), ContextError::DeadlineExceeded, "4"),
    ] {
        let (ctx, guard) = Context::background().with_timeout(limit);
        let http = call(under(&ctx)).await;
        let grpc = call(grpc_under(&ctx)).await;
        if error == ContextError::Cancelled {
            guard.cancel();
        } else {
            while !ctx.remaining().unwrap().is_zero() {
                std::thread::sleep(millis(1));
            }
        }
        assert_eq!(kind(&http.await.unwrap_err()), Some(error));
        let answer = grpc.await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], status);
    }
    assert_eq!(polled.load(SeqCst), 0);
    // One that is polled in time goes on.
    let (ctx, _guard) = Context::background().with_timeout(long);
    call(under(&ctx)).await.await.unwrap();
    assert_eq!(polled.load(SeqCst), 1);
}
