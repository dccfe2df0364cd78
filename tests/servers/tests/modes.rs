//! Handlers that are tasks of their own: `cooperative`, `detached`, and what runs them elsewhere.

use axum::body::Body;
use axum::http::{header, Method, Request, Response, StatusCode};
use axum::routing::get;
use axum::{Extension, Router};
use cancel_tree::integrations::tower::{ClientGone, Completed, HandlerFailed, Mode, Shutdown};
use cancel_tree::{Context, Group, Panicked};
use http_body_util::BodyExt;
use servers::{
    background, cause, ended_by, exchange, in_time, is_pending, millis, patience, serve, soon, Seen,
};
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, Notify};
use tower::{service_fn, Layer, Service, ServiceExt};

const CLOSE: &str = "Host: x\r\nConnection: close\r\n\r\n";

fn server() -> Group {
    Group::new(&Context::background())
}

fn request() -> Request<Body> {
    Request::new(Body::empty())
}

fn context(request: &Request<Body>) -> Context {
    request.extensions().get::<Context>().unwrap().clone()
}

/// A client that asks, and goes when it is told to.
async fn ask_and_go(to: std::net::SocketAddr, go: Arc<Notify>) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    go.notified().await;
}

#[tokio::test]
async fn a_cooperative_handler_cleans_up_when_the_client_has_gone() {
    let group = server();
    let layer = background().cooperative(&group, patience());
    let (begun, clean) = (Arc::new(Notify::new()), mpsc::unbounded_channel());
    let (started, (cleaned, mut clean)) = (begun.clone(), clean);
    let handler = move |Extension(ctx): Extension<Context>| async move {
        started.notify_one();
        ctx.done().await;
        let shield = ctx.shield();
        assert!(!shield.is_done());
        shield.run(tokio::task::yield_now()).await.unwrap();
        cleaned.send(ctx.cause().unwrap()).unwrap();
    };
    let to = serve(Router::new().route("/", get(handler)).layer(layer)).await;
    ask_and_go(to, begun).await;
    let cause = soon(clean.recv()).await.unwrap();
    assert!(cause.downcast_ref::<ClientGone>().is_some());
    soon(group.join()).await.unwrap();
}

/// Says when it is dropped.
struct Dropped(mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn a_handler_that_does_not_cooperate_is_dropped_after_the_grace() {
    for grace in [millis(1), Duration::from_secs(3600)] {
        let group = server();
        let layer = background().max(millis(20)).cooperative(&group, grace);
        let (dropped, mut is_dropped) = mpsc::unbounded_channel();
        let service = layer.layer(service_fn(move |_: Request<Body>| {
            let dropped = Dropped(dropped.clone());
            async move {
                let _dropped = dropped;
                pending::<Result<Response<Body>, Infallible>>().await
            }
        }));
        // The answer does not wait for the grace.
        let answer = soon(service.oneshot(request())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
        if grace == millis(1) {
            soon(is_dropped.recv()).await.unwrap();
            soon(group.join()).await.unwrap();
        } else {
            assert!(is_dropped.try_recv().is_err());
            assert_eq!(group.len(), 1);
        }
    }
}

#[tokio::test]
async fn a_detached_handler_runs_to_its_end() {
    let group = server();
    let layer = background();
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (ended, mut has_ended) = mpsc::unbounded_channel();
    let (started, going) = (begun.clone(), go.clone());
    let handler = move |Extension(ctx): Extension<Context>| async move {
        started.notify_one();
        going.notified().await;
        ended.send(ctx).unwrap();
    };
    let router = Router::new().route("/", get(handler));
    let to = serve(router.layer(layer.clone().detached(&group))).await;
    ask_and_go(to, begun).await;
    while layer.counts().client_gone == 0 {
        tokio::time::sleep(millis(1)).await;
    }
    // Joined at shutdown.
    let (limit, _guard) = Context::background().with_timeout(millis(20));
    assert_eq!(group.join_until(&limit).await.unwrap_err().missing.len(), 1);
    go.notify_one();
    let ctx = soon(has_ended.recv()).await.unwrap();
    soon(group.join()).await.unwrap();
    // It was not done as long as the handler ran.
    let cause = ctx.cause().unwrap();
    assert!(cause.downcast_ref::<ClientGone>().is_some());
}

#[tokio::test]
async fn a_detached_handler_has_no_deadline_and_its_answer_has_one() {
    let group = server();
    let layer = background().max(millis(20)).detached(&group);
    let (seen, mut contexts) = Seen::new();
    let go = Arc::new(Notify::new());
    let going = go.clone();
    let service = layer.layer(service_fn(move |request: Request<Body>| {
        let (going, seen) = (going.clone(), seen.clone());
        async move {
            let ctx = context(&request);
            assert_eq!(ctx.deadline(), None);
            going.notified().await;
            assert!(!ctx.is_done());
            seen.note(&ctx);
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    }));
    let answer = service.oneshot(request()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(group.len(), 1);
    go.notify_one();
    soon(group.join()).await.unwrap();
    ended_by::<ClientGone>(&mut contexts).await;
}

#[tokio::test]
async fn what_was_taken_whole_is_completed_and_a_task_until_then() {
    let group = server();
    for mode in [Mode::Detached, Mode::Cooperative { grace: patience() }] {
        let layer = background().spawned(&group, mode, |task| drop(tokio::spawn(task)));
        let (seen, mut contexts) = Seen::new();
        let service = layer.layer(service_fn(move |request: Request<Body>| {
            seen.note(&context(&request));
            async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
        }));
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(group.len(), 1);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "hello");
        assert_eq!(group.len(), 0);
        ended_by::<Completed>(&mut contexts).await;
    }
}

#[tokio::test]
async fn a_panic_is_the_groups_to_report_and_ends_nothing_else() {
    let group = server();
    let (seen, mut contexts) = Seen::new();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        seen.note(&ctx);
        tokio::task::yield_now().await;
        if true {
            panic!("a fault of the handler");
        }
    };
    let layer = background().named();
    let router = Router::new()
        .route("/quick", get(|| async { "quick" }))
        .route("/dropped", get(handler.clone()))
        .layer(layer.clone().in_group(&group));
    let spawned = Router::new()
        .route("/detached", get(handler))
        .layer(layer.clone().detached(&group));
    let to = serve(router.merge(spawned)).await;
    let get = async |path: &str| exchange(to, &format!("GET {path} HTTP/1.1\r\n{CLOSE}")).await;

    let answer = get("/detached").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    ended_by::<HandlerFailed>(&mut contexts).await;
    // axum's connection goes with the panic.
    assert_eq!(get("/dropped").await, "");
    cause(&mut contexts).await;
    assert!(get("/quick").await.ends_with("quick"));
    assert!(!group.context().is_done());
    assert_eq!(layer.counts().failed, 2);

    let (limit, _guard) = Context::background().with_timeout(patience());
    let report = group.shutdown(&limit).await;
    let cause = report.cause.clone().unwrap();
    let panicked = cause.downcast_ref::<Panicked>().unwrap();
    assert_eq!(panicked.message, "a fault of the handler");
    assert_eq!(panicked.name.as_deref(), Some("GET /detached"));
    assert!(!report.is_clean());
    let joined = group.join().await.unwrap_err();
    assert!(joined.downcast_ref::<Panicked>().is_some());
}

/// A panic before the first poll, and one in the drop of the handler.
#[tokio::test]
async fn panics_everywhere_leave_the_group_in_order() {
    struct Fault;
    impl Drop for Fault {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("in the drop");
            }
        }
    }

    let group = server();
    let layer = |limit| background().max(limit).cooperative(&group, millis(1));
    let at_once = layer(patience()).layer(service_fn(
        |_: Request<Body>| -> std::future::Ready<Result<Response<Body>, Infallible>> {
            panic!("at once")
        },
    ));
    let answer = at_once.oneshot(request()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);

    let in_drop = layer(millis(20)).layer(service_fn(|_: Request<Body>| {
        let fault = Fault;
        async move {
            let _fault = fault;
            pending::<Result<Response<Body>, Infallible>>().await
        }
    }));
    let mut grpc = request();
    *grpc.method_mut() = Method::POST;
    grpc.headers_mut()
        .insert(header::CONTENT_TYPE, "application/grpc".parse().unwrap());
    let answer = in_drop.oneshot(grpc).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4");
    let failed = soon(group.join()).await.unwrap_err();
    let panicked = failed.downcast_ref::<Panicked>().unwrap();
    assert_eq!(panicked.message, "at once");
}

/// What runs the handlers does not: it drops them at once, or before they are through.
#[tokio::test]
async fn a_handler_that_nobody_runs_is_answered_for() {
    let group = server();
    let (seen, mut contexts) = Seen::new();
    let service = service_fn(move |request: Request<Body>| {
        seen.note(&context(&request));
        pending::<Result<Response<Body>, Infallible>>()
    });
    let at_once = background().spawned(&group, Mode::Detached, drop);
    let later = background().spawned(&group, Mode::Detached, |task| {
        drop(tokio::spawn(tokio::time::timeout(millis(20), task)));
    });
    for layer in [at_once, later] {
        let answer = layer.layer(service.clone()).oneshot(request());
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        ended_by::<HandlerFailed>(&mut contexts).await;
    }
    soon(group.join()).await.unwrap();
}

#[tokio::test]
async fn the_servers_end_gives_cooperative_handlers_their_grace() {
    in_time(millis(50), |grace| async move {
        let (above, end) = Context::background().with_cancel();
        let group = Group::new(&above);
        let (seen, mut contexts) = Seen::new();
        let layer = background().cooperative(&group, grace);
        let service = layer.layer(service_fn(move |request: Request<Body>| {
            let ctx = context(&request);
            seen.note(&ctx);
            async move {
                if request.uri().path() == "/stubborn" {
                    pending::<()>().await;
                }
                ctx.done().await;
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        }));
        let mut answers = Vec::new();
        for path in ["/", "/stubborn"] {
            let mut request = request();
            *request.uri_mut() = path.parse().unwrap();
            answers.push(tokio::spawn(service.clone().oneshot(request)));
            assert!(soon(contexts.recv()).await.is_some());
        }
        let begin = Instant::now();
        end.cancel_with(Shutdown);
        let mut statuses = Vec::new();
        for answer in answers {
            statuses.push(soon(answer).await.unwrap().unwrap().status().as_u16());
            if statuses == [503] {
                assert!(begin.elapsed() >= grace);
                return None;
            }
        }
        assert_eq!(statuses, [200, 503]);
        soon(group.join()).await.unwrap();
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_service_that_fails_or_is_never_ready() {
    let group = server();
    let layer = background().detached(&group);
    let service = layer.layer(service_fn(|_: Request<Body>| async {
        Err::<Response<Body>, _>("no")
    }));
    assert_eq!(service.oneshot(request()).await.unwrap_err(), "no");
    assert!(group.is_empty());

    struct Never;
    impl Service<Request<Body>> for Never {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;
        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Infallible>> {
            std::task::Poll::Pending
        }
        fn call(&mut self, _: Request<Body>) -> Self::Future {
            unreachable!("it is not ready")
        }
    }
    let waiting = layer.layer(Never).oneshot(request());
    tokio::time::timeout(millis(10), waiting).await.unwrap_err();
    // Nothing has begun.
    assert!(group.is_empty());
    soon(group.join()).await.unwrap();
}

/// Two faults at once: the handler's is said, and answered, whatever the callbacks do that its end calls.
#[tokio::test]
async fn a_handler_and_its_callback_panic() {
    for is_detached in [true, false] {
        let group = server();
        let (seen, mut contexts) = Seen::new();
        let service = service_fn(move |request: Request<Body>| {
            let ctx = context(&request);
            seen.note(&ctx);
            drop(ctx.on_cancel(|| panic!("the callback")));
            let is_there = ctx.value::<u8>().is_none();
            async move {
                assert!(!is_there, "the handler");
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let layer = match is_detached {
            true => background().detached(&group),
            false => background().cooperative(&group, millis(1)),
        };
        let answer = soon(layer.layer(service).oneshot(request())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        ended_by::<HandlerFailed>(&mut contexts).await;
        let joined = soon(group.join()).await.unwrap_err();
        let panicked = joined.downcast_ref::<Panicked>().unwrap();
        assert_eq!(panicked.message, "the handler");
    }
}

/// A handler of its own is through, and nobody wants what it has answered: what is called then may panic.
#[tokio::test]
async fn a_callback_panics_where_an_answer_is_dropped() {
    for client_goes_first in [true, false] {
        let group = server();
        let (go, (say, mut hear)) = (Arc::new(Notify::new()), mpsc::unbounded_channel());
        let wait = go.clone();
        let service = service_fn(move |request: Request<Body>| {
            drop(context(&request).on_cancel(|| panic!("at the end")));
            let (wait, say) = (wait.clone(), say.clone());
            async move {
                wait.notified().await;
                say.send(()).unwrap();
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let layer = background().detached(&group);
        let mut call = Box::pin(layer.layer(service).oneshot(request()));
        assert!(is_pending(call.as_mut()));
        if client_goes_first {
            drop(call);
            go.notify_one();
            soon(hear.recv()).await.unwrap();
        } else {
            go.notify_one();
            soon(hear.recv()).await.unwrap();
            let dropped = tokio::spawn(async move { drop(call) });
            soon(dropped).await.expect("no panic of the connection");
        }
        let said = soon(group.join()).await.unwrap_err();
        let panicked = said.downcast_ref::<Panicked>().unwrap();
        assert_eq!(panicked.message, "at the end");
    }
}
