//! HTTP/2: hyper's server, h2's client, which shows each reset.

use axum::body::Body;
use axum::routing::{any, get};
use axum::{Extension, Router};
use cancel_tree::integrations::tower::{ClientGone, Completed, ContextLayer, UpgradeGuard};
use cancel_tree::{Cause, Context, ContextError, Group};
use h2::client::{ResponseFuture, SendRequest};
use h2::RecvStream;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::http::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use servers::{cause, endless, in_time, soon, Seen};
use std::future::pending;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// hyper itself, without axum's `serve`: one connection after the other, each a task.
async fn listen(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.enable_connect_protocol();
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    to
}

async fn connect(router: Router) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(listen(router).await).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

fn ask(send: &mut SendRequest<Bytes>, method: Method, path: &str) -> ResponseFuture {
    let uri = format!("http://x{path}");
    let request = Request::builder().method(method).uri(uri).body(()).unwrap();
    send.send_request(request, true).unwrap().0
}

async fn get_it(send: &mut SendRequest<Bytes>, path: &str) -> Response<RecvStream> {
    soon(ask(send, Method::GET, path)).await.unwrap()
}

/// The error that the body ends with; none if it ends well.
async fn read(mut body: RecvStream) -> Option<h2::Error> {
    while let Some(data) = soon(body.data()).await {
        match data {
            Ok(data) => body.flow_control().release_capacity(data.len()).unwrap(),
            Err(error) => return Some(error),
        }
    }
    None
}

fn routes(seen: Seen) -> Router {
    let (head, silent, full) = (seen.clone(), seen.clone(), seen.clone());
    let pend = move |Extension(ctx): Extension<Context>| async move {
        head.note(&ctx);
        pending::<()>().await;
    };
    let frames = move |Extension(ctx): Extension<Context>| async move {
        seen.note(&ctx);
        endless()
    };
    let none = move |Extension(ctx): Extension<Context>| async move {
        silent.note(&ctx);
        Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>())
    };
    let all = move |Extension(ctx): Extension<Context>| async move {
        full.note(&ctx);
        Response::new(Body::new(Full::new(Bytes::from("hello"))))
    };
    Router::new()
        .route("/head", get(pend))
        .route("/frames", get(frames))
        .route("/silent", get(none))
        .route("/full", get(all))
}

fn is<T: std::error::Error + 'static>(cause: &Cause) -> bool {
    cause.downcast_ref::<T>().is_some()
}

#[tokio::test]
async fn a_reset_ends_the_context() {
    let (seen, mut contexts) = Seen::new();
    let layer = ContextLayer::new(&Context::background());
    let mut send = connect(routes(seen).layer(layer.clone())).await;
    // Before the head.
    let response = ask(&mut send, Method::GET, "/head");
    let ctx = soon(contexts.recv()).await.unwrap();
    assert!(!ctx.is_done());
    drop(response);
    soon(ctx.done()).await;
    assert!(is::<ClientGone>(&ctx.cause().unwrap()));
    // In the middle of the body; and before its first frame.
    for path in ["/frames", "/silent"] {
        let mut body = get_it(&mut send, path).await.into_body();
        if path == "/frames" {
            soon(body.data()).await.unwrap().unwrap();
        }
        drop(body);
        assert!(is::<ClientGone>(&cause(&mut contexts).await));
    }
    // The connection itself is as it was.
    let body = get_it(&mut send, "/full").await.into_body();
    assert!(read(body).await.is_none());
    assert!(is::<Completed>(&cause(&mut contexts).await));
    assert_eq!(layer.counts().client_gone, 3);
}

#[tokio::test]
async fn a_connection_that_goes_ends_all_of_its_contexts() {
    let (seen, mut contexts) = Seen::new();
    let layer = ContextLayer::new(&Context::background());
    let router = routes(seen).layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let waiting: Vec<_> = (0..50)
        .map(|_| ask(&mut send, Method::GET, "/head"))
        .collect();
    let mut all = Vec::new();
    for _ in 0..50 {
        all.push(soon(contexts.recv()).await.unwrap());
    }
    connection.abort();
    for ctx in all {
        soon(ctx.done()).await;
        assert!(is::<ClientGone>(&ctx.cause().unwrap()));
    }
    drop(waiting);
}

#[tokio::test]
async fn the_deadline_before_the_head_after_it_and_in_the_middle() {
    in_time(Duration::from_millis(50), |limit| async move {
        let (seen, mut contexts) = Seen::new();
        let layer = ContextLayer::new(&Context::background()).max(limit);
        let mut send = connect(routes(seen).layer(layer)).await;
        let response = get_it(&mut send, "/head").await;
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(response.headers()["x-deadline-expired"], "1");
        assert!(read(response.into_body()).await.is_none());
        assert!(cause(&mut contexts).await == ContextError::DeadlineExceeded);
        for path in ["/silent", "/frames"] {
            let begin = Instant::now();
            // Where the head is late too, it may be a 504, or that and the body are cut at once.
            let response = soon(ask(&mut send, Method::GET, path)).await;
            if begin.elapsed() >= limit {
                return None;
            }
            let response = response.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let error = read(response.into_body()).await.expect("no clean end");
            assert!(error.is_reset(), "{error}");
            assert!(cause(&mut contexts).await == ContextError::DeadlineExceeded);
        }
        // What is in time is not touched, and the connection goes on.
        let begin = Instant::now();
        let response = soon(ask(&mut send, Method::GET, "/full")).await;
        if begin.elapsed() >= limit {
            return None;
        }
        let error = read(response.unwrap().into_body()).await;
        if begin.elapsed() >= limit {
            return None;
        }
        assert!(error.is_none());
        assert!(is::<Completed>(&cause(&mut contexts).await));
        Some(())
    })
    .await;
}

#[tokio::test]
async fn heads_alone_and_idle_connections_keep_nothing() {
    let (seen, mut contexts) = Seen::new();
    let group = Group::new(&Context::background());
    let layer = ContextLayer::new(&Context::background()).in_group(&group);
    let mut send = connect(routes(seen).layer(layer)).await;
    for (method, path) in [(Method::HEAD, "/full"), (Method::HEAD, "/frames")] {
        let response = soon(ask(&mut send, method, path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(read(response.into_body()).await.is_none());
        assert!(is::<Completed>(&cause(&mut contexts).await));
    }
    let body = get_it(&mut send, "/full").await.into_body();
    assert!(read(body).await.is_none());
    assert!(is::<Completed>(&cause(&mut contexts).await));
    // The connection is open and idle: it is no task of the group.
    soon(group.join()).await.unwrap();
    let late = get_it(&mut send, "/full").await;
    assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
}

/// A client that makes no room for the answer: when that is whole, its context has ended, and it keeps no place from others.
#[tokio::test]
async fn an_answer_that_nobody_reads_keeps_no_place() {
    let (seen, mut contexts) = Seen::new();
    let group = Group::new(&Context::background()).limit(1);
    let layer = ContextLayer::new(&Context::background()).in_group(&group);
    let to = listen(routes(seen).layer(layer)).await;
    let stream = TcpStream::connect(to).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let client = builder.initial_window_size(0).handshake(stream);
    let (mut send, connection) = client.await.unwrap();
    tokio::spawn(connection);
    let mut unread = Vec::new();
    for _ in 0..3 {
        let response = get_it(&mut send, "/full").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(is::<Completed>(&cause(&mut contexts).await));
        soon(group.wait_idle()).await;
        unread.push(response);
    }
}

/// A websocket over HTTP/2: an extended CONNECT, answered with 200.
#[tokio::test]
async fn an_extended_connect_keeps_its_context_as_long_as_its_guard() {
    let (seen, mut contexts) = Seen::new();
    let (keep, mut kept) = mpsc::unbounded_channel();
    let handler = move |Extension(ctx): Extension<Context>,
                        Extension(guard): Extension<UpgradeGuard>| async move {
        seen.note(&ctx);
        keep.send(guard).unwrap();
        Body::empty()
    };
    let group = Group::new(&Context::background());
    let layer = ContextLayer::new(&Context::background()).in_group(&group);
    let mut send = connect(Router::new().route("/", any(handler)).layer(layer)).await;
    // The server has to have said that it can.
    while !send.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        send = soon(send.ready()).await.unwrap();
    }
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://x/")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (response, _stream) = send.send_request(request, false).unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let ctx = soon(contexts.recv()).await.unwrap();
    assert_eq!(group.len(), 1);
    assert!(!ctx.is_done());
    drop(soon(kept.recv()).await.unwrap());
    soon(ctx.done()).await;
    assert!(is::<Completed>(&ctx.cause().unwrap()));
    soon(group.join()).await.unwrap();
}

/// A layer for handlers that are tasks: the same, by a reset.
#[tokio::test]
async fn a_reset_leaves_a_detached_handler_alone() {
    let (seen, mut contexts) = Seen::new();
    let group = Group::new(&Context::background());
    let layer = ContextLayer::new(&Context::background());
    let counts = layer.clone();
    let mut send = connect(routes(seen).layer(layer.detached(&group))).await;
    let response = ask(&mut send, Method::GET, "/head");
    let ctx = soon(contexts.recv()).await.unwrap();
    drop(response);
    while counts.counts().client_gone == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!ctx.is_done());
    assert_eq!(group.len(), 1);
    assert!(get_it(&mut send, "/full")
        .await
        .into_body()
        .data()
        .await
        .is_some());
}

/// A body that is collected by a client of ours, so that trailers and errors are seen as hyper gives them.
#[tokio::test]
async fn what_hypers_own_client_sees_at_the_deadline() {
    in_time(Duration::from_millis(50), |limit| async move {
        let (seen, _contexts) = Seen::new();
        let layer = ContextLayer::new(&Context::background()).max(limit);
        let router = routes(seen).layer(layer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let stream = TokioIo::new(TcpStream::connect(to).await.unwrap());
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut send, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://x/frames").body(Body::empty()).unwrap();
        let begin = Instant::now();
        let response = soon(send.send_request(request)).await;
        if begin.elapsed() >= limit {
            return None;
        }
        let body = response.unwrap().into_body();
        assert!(soon(body.collect()).await.is_err());
        Some(())
    })
    .await;
}
