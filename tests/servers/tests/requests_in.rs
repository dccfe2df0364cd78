//! `ContextLayer` around axum on loopback, and around plain services.

use axum::body::Body;
use axum::http::{header, HeaderName, Method, Request, Response, StatusCode, Version};
use axum::routing::{any, get};
use axum::{Extension, Router};
use cancel_tree::integrations::tower::{
    Carried, ClientGone, Completed, ContextLayer, DeadlineHeader, DeadlineReached, HandlerFailed,
    Malformed, Shutdown, UpgradeGuard,
};
use cancel_tree::{Context, ContextError, Group};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use servers::{
    background, cause, ended_by, endless, exchange, in_time, is, millis, serve, soon, Seen, Stream,
};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::{service_fn, Layer, ServiceExt};

const CLOSE: &str = "Host: x\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_response_taken_whole_completes_its_context() {
    let (seen, mut contexts) = Seen::new();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        seen.note(&ctx);
        "hello"
    };
    let to = serve(Router::new().route("/", get(handler)).layer(background())).await;
    for method in ["GET", "HEAD"] {
        let answer = exchange(to, &format!("{method} / HTTP/1.1\r\n{CLOSE}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // A body of known length is never polled to its `None`; that of a HEAD not at all.
        ended_by::<Completed>(&mut contexts).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_ends_handler_and_body() {
    let (seen, mut contexts) = Seen::new();
    let (a, b) = (seen.clone(), seen);
    let router = Router::new()
        .route(
            "/head",
            get(move |Extension(ctx): Extension<Context>| async move {
                a.note(&ctx);
                pending::<()>().await;
            }),
        )
        .route(
            "/body",
            get(move |Extension(ctx): Extension<Context>| async move {
                b.note(&ctx);
                endless()
            }),
        );
    let layer = background();
    let to = serve(router.layer(layer.clone())).await;
    for path in ["/head", "/body"] {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        if path == "/body" {
            stream.read_u8().await.unwrap();
        }
        let ctx = soon(contexts.recv()).await.unwrap();
        assert!(!ctx.is_done());
        drop(stream);
        soon(ctx.done()).await;
        assert!(is::<ClientGone>(&ctx));
    }
    assert_eq!(layer.counts().client_gone, 2);
}

#[tokio::test]
async fn the_deadline_before_the_head_and_after_it() {
    let (seen, mut contexts) = Seen::new();
    let (a, b) = (seen.clone(), seen);
    let head = any(move |Extension(ctx): Extension<Context>| async move {
        a.note(&ctx);
        pending::<()>().await;
    });
    let body = any(move |Extension(ctx): Extension<Context>| async move {
        b.note(&ctx);
        endless()
    });
    let router = Router::new().route("/head", head);
    let layer = background().max(millis(50));
    let to = serve(router.layer(layer.clone())).await;
    let begin = Instant::now();
    let answer = exchange(to, &format!("GET /head HTTP/1.1\r\n{CLOSE}")).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(answer.contains("x-deadline-expired: 1"), "{answer}");
    assert!(begin.elapsed() >= millis(50));
    assert!(cause(&mut contexts).await == ContextError::DeadlineExceeded);
    assert_eq!(layer.counts().cut_by_deadline, 1);

    let contexts = Arc::new(tokio::sync::Mutex::new(contexts));
    let router = Router::new().route("/body", body);
    in_time(millis(50), |limit| {
        let (layer, begin) = (background().max(limit), Instant::now());
        let (router, contexts) = (router.clone().layer(layer.clone()), contexts.clone());
        async move {
            let to = serve(router).await;
            let answer = exchange(to, &format!("GET /body HTTP/1.1\r\n{CLOSE}")).await;
            assert!(cause(&mut *contexts.lock().await).await == ContextError::DeadlineExceeded);
            assert_eq!(layer.counts().cut_by_deadline, 1);
            if !answer.starts_with("HTTP/1.1 200") {
                // The head was late, or was cut with the body.
                assert!(begin.elapsed() >= limit, "{answer}");
                return None;
            }
            assert!(!answer.ends_with("\r\n0\r\n\r\n"), "no clean end: {answer}");
            Some(())
        }
    })
    .await;
}

fn grpc_response<B>(mut response: Response<B>) -> Response<B> {
    let grpc = "application/grpc".parse().unwrap();
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

/// Any client may say of any request that it is gRPC's. By a GET, it is none; and trailers in which nobody looks for a status end no other body.
#[tokio::test]
async fn a_request_alone_makes_no_route_one_of_grpc() {
    let router = Router::new()
        .route("/head", any(pending::<()>))
        .route("/body", any(|| async { endless() }));
    in_time(millis(30), |limit| {
        let router = router.clone().layer(background().max(limit));
        async move {
            for (method, version, status) in [
                (Method::GET, Version::HTTP_2, 504),
                (Method::PUT, Version::HTTP_11, 504),
                (Method::POST, Version::HTTP_2, 200),
                (Method::POST, Version::HTTP_11, 200),
            ] {
                let ask = |path: &str| {
                    let request = Request::builder()
                        .method(method.clone())
                        .version(version)
                        .uri(path)
                        .header(header::TE, "trailers")
                        .header(header::CONTENT_TYPE, "application/grpc");
                    router.clone().oneshot(request.body(Body::empty()).unwrap())
                };
                assert_eq!(ask("/head").await.unwrap().status(), status);
                let begin = Instant::now();
                let answer = ask("/body").await.unwrap();
                // Where the head was late, there is no body.
                (begin.elapsed() < limit).then_some(())?;
                assert_eq!(answer.status(), 200);
                assert!(
                    answer.into_body().collect().await.is_err(),
                    "{method} {version:?}"
                );
            }
            Some(())
        }
    })
    .await;
}

#[tokio::test]
async fn grpc_is_answered_in_its_own_way() {
    let handler = |Extension(ctx): Extension<Context>| async move {
        assert!(ctx.deadline().is_some());
        endless()
    };
    let router = Router::new()
        .route("/head", any(pending::<()>))
        .route("/body", any(handler));
    // Of a route that is gRPC's.
    let router = router.layer(tower::util::MapResponseLayer::new(grpc_response));
    let layer = background().deadline_from([DeadlineHeader::GRPC]);
    let service = router.layer(layer.malformed(Malformed::Reject));
    let ask = async |path: &str, timeout: &str| {
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/grpc+proto")
            .header("grpc-timeout", timeout)
            .body(Body::empty())
            .unwrap();
        service.clone().oneshot(request).await.unwrap()
    };
    for (timeout, status) in [("30m", "4"), ("0n", "4"), ("+5S", "13"), ("-1S", "13")] {
        let response = ask("/head", timeout).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], status, "{timeout}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/grpc");
        assert!(response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty());
    }
    in_time(millis(30), |limit| {
        let ask = &ask;
        async move {
            let begin = Instant::now();
            let answer = ask("/body", &format!("{}m", limit.as_millis())).await;
            if answer.headers().contains_key("grpc-status") {
                assert!(begin.elapsed() >= limit);
                return None;
            }
            let collected = answer.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers().unwrap()["grpc-status"], "4");
            Some(())
        }
    })
    .await;
    // Too far for anybody to wait.
    let response = ask("/body", "99999999H").await;
    assert_eq!(response.status(), StatusCode::OK);
}

/// The answer is in the head there too. Trailers are sent as far as the client takes them, and the response has announced them; and a length that was not
/// reached says that something is missing.
#[tokio::test]
async fn grpc_over_http1() {
    let grpc = |name: HeaderName, value: &'static str| {
        let mut response = Response::new(endless());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, "application/grpc".parse().unwrap());
        headers.insert(name, value.parse().unwrap());
        std::future::ready(response)
    };
    let router = Router::new()
        .route("/head", any(pending::<()>))
        .route("/bare", any(move || grpc(header::VARY, "*")))
        .route(
            "/length",
            any(move || grpc(header::CONTENT_LENGTH, "10000")),
        )
        .route("/told", any(move || grpc(header::TRAILER, "grpc-status")));
    let layer = background().deadline_from([DeadlineHeader::GRPC]);
    let to = serve(router.layer(layer.clone())).await;
    let ask = |path: &str, te: &str| {
        let headers = format!("content-type: application/grpc\r\n{te}grpc-timeout: 30m");
        format!("POST {path} HTTP/1.1\r\n{headers}\r\n{CLOSE}")
    };
    let takes = "te: gzip, Trailers\r\n";
    let answer = exchange(to, &ask("/head", takes)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\ngrpc-status: 4\r\n"), "{answer}");
    // No status, which is a failure too, as gRPC has it. That is why it needs HTTP/2.
    let answer = exchange(to, &ask("/bare", takes)).await;
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    let answer = exchange(to, &ask("/length", takes)).await;
    assert!(answer.contains("content-length: 10000"), "{answer}");
    assert!(answer.len() < 10_000, "{answer}");
    let answer = exchange(to, &ask("/told", takes)).await;
    let end = "\r\n0\r\ngrpc-status: 4\r\n\r\n";
    assert!(answer.ends_with(end), "{answer}");
    // To a client that takes none, a body without them would be complete.
    for path in ["/bare", "/told"] {
        for te in ["", "te: gzip\r\n"] {
            let answer = exchange(to, &ask(path, te)).await;
            assert!(!answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
        }
    }
    assert_eq!(layer.counts().cut_by_deadline, 8);
}

/// Full is not the end: gRPC has a word for it.
#[tokio::test]
async fn a_full_group_and_a_closed_one_take_no_request() {
    let group = Group::new(&Context::background()).limit(0);
    let layer = background().in_group(&group);
    let service = layer.layer(service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    }));
    for status in ["8", "14"] {
        let mut request = Request::new(Body::empty());
        let answer = service.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        request = Request::new(Body::empty());
        *request.method_mut() = Method::POST;
        let content = "application/grpc".parse().unwrap();
        request.headers_mut().insert(header::CONTENT_TYPE, content);
        let answer = service.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["grpc-status"], status);
        group.close();
    }
    assert_eq!(layer.counts().refused, 4);
}

#[tokio::test]
async fn what_headers_say() {
    let name = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
    let layer = background()
        .deadline_from([DeadlineHeader::CONNECT, DeadlineHeader::millis(name)])
        .default_timeout(Duration::from_secs(20))
        .max(Duration::from_secs(60));
    let echo = service_fn(|request: Request<Body>| async move {
        let ctx = request.extensions().get::<Context>().unwrap();
        let left = ctx.remaining().unwrap().as_millis().div_ceil(1000);
        Ok::<_, Infallible>(Response::new(left.to_string()))
    });
    let service = layer.layer(echo);
    let told = async |headers: &[(&str, &str)]| {
        let mut request = Request::new(Body::empty());
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let response = service.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        match status {
            StatusCode::OK => String::from_utf8(text.to_vec()).unwrap(),
            other => other.as_u16().to_string(),
        }
    };
    let (connect, envoy) = ("connect-timeout-ms", "x-envoy-expected-rq-timeout-ms");
    assert_eq!(told(&[]).await, "20");
    assert_eq!(told(&[(connect, "5000")]).await, "5");
    assert_eq!(told(&[(connect, "5000"), (envoy, "3000")]).await, "3");
    assert_eq!(told(&[(envoy, "3600000")]).await, "60");
    assert_eq!(told(&[(envoy, "99999999999999999999999")]).await, "60");
    assert_eq!(told(&[(envoy, "0")]).await, "504");
    // As if they were not there: malformed, twice, not believed.
    for wrong in ["", "-1", "+1", "1.5", "1s", "0x10", "12345678901"] {
        assert_eq!(told(&[(connect, wrong)]).await, "20", "{wrong}");
    }
    assert_eq!(told(&[(connect, "5000"), (connect, "1")]).await, "20");
    assert_eq!(told(&[("grpc-timeout", "1S")]).await, "20");
    let counts = layer.counts();
    assert_eq!((counts.received, counts.expired_on_arrival), (15, 1));
    assert_eq!(counts.malformed, 8);
}

#[tokio::test]
async fn many_that_have_expired_reach_no_handler_up_to_the_ceiling() {
    let called = Arc::new(AtomicUsize::new(0));
    let count = called.clone();
    let service = service_fn(move |_: Request<Body>| {
        count.fetch_add(1, SeqCst);
        async { Ok::<_, Infallible>(Response::new(String::new())) }
    });
    let layer = background().deadline_from([DeadlineHeader::CONNECT]);
    for (layer, most) in [
        (layer.clone(), 0),
        (layer.ceiling(0.2, Duration::from_secs(3600)), 900),
    ] {
        called.store(0, SeqCst);
        let service = layer.layer(service.clone());
        for _ in 0..1000 {
            let request = Request::builder().header("connect-timeout-ms", "0");
            let request = request.body(Body::empty()).unwrap();
            service.clone().oneshot(request).await.unwrap();
        }
        let called = called.load(SeqCst);
        assert!(
            called <= most && called >= most * 8 / 9,
            "{called} of {most}"
        );
    }
}

#[tokio::test]
async fn headers_are_carried_as_they_came() {
    let names = ["traceparent", "baggage"].map(HeaderName::from_static);
    let service =
        background()
            .carry(names)
            .layer(service_fn(|request: Request<Body>| async move {
                let ctx = request.extensions().get::<Context>().unwrap();
                let carried = ctx.value::<Carried>().unwrap().headers();
                assert_eq!(carried.get_all("baggage").iter().count(), 2);
                assert_eq!(carried["traceparent"], "00-1-2-01");
                assert!(!carried.contains_key("cookie"));
                Ok::<_, Infallible>(Response::new(String::new()))
            }));
    let request = Request::builder()
        .header("baggage", "a=1")
        .header("baggage", "b=2")
        .header("traceparent", "00-1-2-01")
        .header("cookie", "secret");
    service
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn the_servers_end_tells_the_handler_and_takes_none() {
    let (server, guard) = Context::background().with_cancel();
    let (seen, mut contexts) = Seen::new();
    let service = ContextLayer::new(&server).layer(service_fn(move |request: Request<Body>| {
        let ctx = request.extensions().get::<Context>().unwrap().clone();
        seen.note(&ctx);
        async move {
            ctx.done().await;
            Ok::<_, Infallible>(Response::new("half of it".to_string()))
        }
    }));
    let answer = tokio::spawn(service.clone().oneshot(Request::new(Body::empty())));
    let ctx = contexts.recv().await.unwrap();
    guard.cancel_with(Shutdown);
    assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
    assert!(ctx.cause().unwrap().downcast_ref::<Shutdown>().is_some());
    let late = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn requests_are_tasks_of_the_group_and_named_in_its_report() {
    let group = Group::new(&Context::background());
    let layer = background().in_group(&group.spawner()).named();
    let router = Router::new()
        .route("/stuck", get(pending::<()>))
        .route("/quick", get(|| async { "quick" }));
    let to = serve(router.layer(layer)).await;
    let stuck =
        tokio::spawn(async move { exchange(to, &format!("GET /stuck HTTP/1.1\r\n{CLOSE}")).await });
    exchange(to, &format!("GET /quick HTTP/1.1\r\n{CLOSE}")).await;
    while group.len() != 1 || group.running()[0].name.as_deref() != Some("GET /stuck") {
        tokio::time::sleep(millis(5)).await;
    }
    let (limit, _guard) = Context::background().with_timeout(millis(10));
    let report = group.shutdown_with(&limit, millis(10)).await;
    assert_eq!(report.stuck.len(), 1);
    assert_eq!(report.stuck[0].name.as_deref(), Some("GET /stuck"));
    stuck.abort();
    group.wait_idle().await;
}

#[tokio::test]
async fn a_panic_ends_the_context() {
    let (seen, mut contexts) = Seen::new();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        seen.note(&ctx);
        tokio::task::yield_now().await;
        if true {
            panic!("a fault of the handler");
        }
    };
    let to = serve(Router::new().route("/", get(handler)).layer(background())).await;
    exchange(to, &format!("GET / HTTP/1.1\r\n{CLOSE}")).await;
    ended_by::<HandlerFailed>(&mut contexts).await;
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_context_as_long_as_its_guard() {
    let (seen, mut contexts) = Seen::new();
    let (keep, mut kept) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |Extension(ctx): Extension<Context>,
                        Extension(guard): Extension<UpgradeGuard>| async move {
        seen.note(&ctx);
        keep.send(guard).unwrap();
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let response = response.header(header::CONNECTION, "upgrade");
        response
            .header(header::UPGRADE, "x")
            .body(Body::empty())
            .unwrap()
    };
    let to = serve(Router::new().route("/", get(handler)).layer(background())).await;
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 101");
    let ctx = contexts.recv().await.unwrap();
    tokio::time::sleep(millis(30)).await;
    assert!(!ctx.is_done());
    drop(kept.recv().await.unwrap());
    assert!(ctx.cause().unwrap().downcast_ref::<Completed>().is_some());
}

/// What is ready in the poll that finds the deadline past is not replaced.
#[tokio::test]
async fn a_response_that_is_ready_at_the_deadline_is_kept() {
    let service =
        background()
            .max(millis(20))
            .layer(service_fn(|request: Request<Body>| async move {
                let ctx = request.extensions().get::<Context>().unwrap().clone();
                poll_fn(|cx| {
                    // The thread is held beyond the deadline, and the answer is there.
                    std::thread::sleep(millis(30));
                    cx.waker().wake_by_ref();
                    Poll::Ready(())
                })
                .await;
                assert!(ctx.remaining().unwrap().is_zero());
                Ok::<_, Infallible>(Response::new(Full::<hyper::body::Bytes>::default()))
            }));
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_always_has_a_frame_ends_at_the_deadline() {
    let service = background()
        .max(millis(30))
        .layer(service_fn(|_: Request<Body>| async {
            let always = Stream(|_: &mut std::task::Context<'_>| {
                Poll::Ready(Some(Ok::<_, Infallible>(Frame::data(
                    hyper::body::Bytes::from("x"),
                ))))
            });
            // At once: a head that is ready is given, also at the deadline.
            Ok::<_, Infallible>(Response::new(StreamBody::new(always)))
        }));
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    let mut body = response.into_body();
    let begin = Instant::now();
    let error = loop {
        match body.frame().await.expect("no clean end") {
            Ok(_) => assert!(begin.elapsed() < Duration::from_secs(30)),
            Err(error) => break error,
        }
    };
    assert!(error.is::<DeadlineReached>());
    assert!(body.frame().await.is_none());
}
