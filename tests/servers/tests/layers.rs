//! Layers around each other: ours twice, in groups and below contexts, and tower's own.

use axum::body::Body;
use axum::http::{header, HeaderName, Request, Response, StatusCode};
use axum::routing::get;
use axum::{Extension, Router};
use cancel_tree::integrations::tower::{
    Carried, ClientGone, Completed, ContextLayer, DeadlineHeader, PropagateLayer, Shutdown,
    UpgradeGuard,
};
use cancel_tree::{Cause, Context, ContextError, Group};
use http_body_util::BodyExt;
use servers::{background, context, exchange, in_time, is, millis, patience, serve, soon};
use std::convert::Infallible;
use std::future::{pending, ready, Ready};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use tokio::sync::mpsc;
use tower::buffer::BufferLayer;
use tower::retry::{Policy, RetryLayer};
use tower::timeout::TimeoutLayer;
use tower::{service_fn, BoxError, Layer, ServiceExt};

fn request() -> Request<Body> {
    Request::new(Body::empty())
}

const ID: HeaderName = HeaderName::from_static("x-request-id");

/// A router has one layer around it that knows the headers, and a route another one: the handler has the time and the headers of
/// both, and ends with either.
#[tokio::test]
async fn a_layer_around_another_one() {
    let server = Group::new(&Context::background());
    let layer = || ContextLayer::new(server.context());
    let outer = layer()
        .deadline_from([DeadlineHeader::CONNECT])
        .carry([ID])
        .in_group(&server);
    let (tell, told) = mpsc::unbounded_channel();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        let carried = ctx.value::<Carried>().unwrap().headers();
        assert_eq!(carried["x-request-id"], "7");
        tell.send(ctx.clone()).unwrap();
        pending::<()>().await;
    };
    let inner = layer().in_group(&server);
    let router = Router::new()
        .route(
            "/later",
            get(handler.clone()).layer(inner.clone().max(patience())),
        )
        .route(
            "/earlier",
            get(handler.clone()).layer(inner.max(millis(30))),
        )
        .route(
            "/task",
            get(handler.clone()).layer(layer().cooperative(&server, millis(1))),
        )
        .route("/detached", get(handler).layer(layer().detached(&server)))
        .layer(outer);
    let to = serve(router).await;
    let told = Arc::new(tokio::sync::Mutex::new(told));
    for (path, limit) in [
        ("/later", millis(60)),
        ("/earlier", patience()),
        ("/task", millis(60)),
        ("/detached", millis(60)),
    ] {
        in_time(limit, |limit| {
            let told = told.clone();
            async move {
                let request = format!(
                    "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-request-id: 7\r\n\
             connect-timeout-ms: {}\r\n\r\n",
                    limit.as_millis()
                );
                let answer = soon(exchange(to, &request)).await;
                let mut told = told.lock().await;
                assert!(answer.starts_with("HTTP/1.1 504"), "{path} {answer}");
                // A task that was late has never begun.
                let ctx = tokio::time::timeout(millis(2000), told.recv());
                let ctx = ctx.await.ok()?.unwrap();
                if path == "/detached" {
                    // It runs to its end, whoever has given up.
                    assert_eq!(ctx.deadline(), None);
                    assert!(!ctx.is_done());
                    return Some(());
                }
                soon(ctx.done()).await;
                assert!(
                    ctx.cause().unwrap() == ContextError::DeadlineExceeded,
                    "{path}"
                );
                assert!(ctx.deadline().is_some());
                Some(())
            }
        })
        .await;
    }
    while server.len() > 1 {
        tokio::time::sleep(millis(1)).await;
    }
}

/// So many requests, and not so many layers, have room in their group.
#[tokio::test]
async fn a_router_and_its_route_take_one_place() {
    let server = Group::new(&Context::background()).limit(1);
    let layer = || ContextLayer::new(server.context());
    let spawner = server.spawner();
    let handler = move || ready(spawner.len().to_string());
    let router = Router::new()
        .route("/", get(handler.clone()).layer(layer().in_group(&server)))
        .route(
            "/task",
            get(handler.clone()).layer(layer().cooperative(&server, patience())),
        )
        .route("/detached", get(handler).layer(layer().detached(&server)))
        .layer(layer().in_group(&server));
    let to = serve(router).await;
    for path in ["/", "/task", "/detached"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = soon(exchange(to, &request)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path} {answer}");
        assert!(answer.ends_with("\r\n\r\n1"), "{path} {answer}");
        assert!(server.is_empty());
    }
}

/// Both last as long as the upgraded connection, in each mode of the inner one; and each is a task of its group.
#[tokio::test]
async fn an_upgrade_under_two_layers() {
    for mode in ["none", "cooperative", "detached"] {
        let [outside, inside] = [(); 2].map(|()| Group::new(&Context::background()));
        let (tell, mut told) = mpsc::unbounded_channel();
        let (tell_outer, mut told_outer) = mpsc::unbounded_channel();
        let handler = service_fn(move |request: Request<Body>| {
            let guard = request.extensions().get::<UpgradeGuard>().unwrap().clone();
            tell.send((context(&request), guard)).unwrap();
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            ready(Ok::<_, Infallible>(response))
        });
        let layer = background();
        let inner = match mode {
            "none" => layer.in_group(&inside).layer(handler).boxed_clone(),
            "cooperative" => {
                let layer = layer.cooperative(&inside, patience());
                layer.layer(handler).boxed_clone()
            }
            _ => layer.detached(&inside).layer(handler).boxed_clone(),
        };
        let between = inner.map_request(move |request: Request<Body>| {
            tell_outer.send(context(&request)).unwrap();
            request
        });
        let outer = background().in_group(&outside);
        let mut upgrade = request();
        let headers = upgrade.headers_mut();
        headers.insert(header::UPGRADE, "x".parse().unwrap());
        let answer = soon(outer.layer(between).oneshot(upgrade)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        drop(answer);
        let (ctx, guard) = told.recv().await.unwrap();
        let outer_ctx = told_outer.recv().await.unwrap();
        assert!(!outer_ctx.is_done() && !ctx.is_done(), "{mode}");
        assert_eq!((outside.len(), inside.len()), (1, 1));
        // Another one is enough.
        let other = guard.clone();
        drop(guard);
        assert!(!outer_ctx.is_done() && !ctx.is_done(), "{mode}");
        drop(other);
        assert!(is::<Completed>(&outer_ctx) && is::<Completed>(&ctx));
        assert!(outside.is_empty() && inside.is_empty());
        assert_eq!(outer.counts().client_gone, 0);
    }
}

/// Of two servers' contexts that a request is below, each ends it; it has the values of the one that it had before.
#[tokio::test]
async fn below_what_the_request_has_and_below_the_servers() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Body>| {
        tell.send(context(&request)).unwrap();
        pending::<Result<Response<Body>, Infallible>>()
    });
    for ends_inner in [true, false] {
        let [(a, end_a), (b, end_b)] = [(); 2].map(|()| Context::background().with_cancel());
        let a = a.with_value("a");
        let layers = ContextLayer::new(&a).layer(ContextLayer::new(&b).layer(service.clone()));
        let call = tokio::spawn(layers.oneshot(request()));
        let ctx = soon(told.recv()).await.unwrap();
        assert_eq!(ctx.value(), Some(&"a"));
        assert!(!ctx.is_done());
        let (ended, other) = match ends_inner {
            true => (end_b.cancel_with(Shutdown), a),
            false => (end_a.cancel_with(Shutdown), b),
        };
        assert!(ended && !other.is_done());
        soon(ctx.done()).await;
        assert!(is::<Shutdown>(&ctx));
        call.abort();
    }
    // What cannot be done says nothing, and one that is the same is not another.
    let (server, end) = Context::background().with_cancel();
    for extension in [
        Context::background(),
        server.clone(),
        server.with_value(7_u8),
    ] {
        let mut request = request();
        request.extensions_mut().insert(extension);
        let call = tokio::spawn(
            ContextLayer::new(&server)
                .layer(service.clone())
                .oneshot(request),
        );
        let ctx = soon(told.recv()).await.unwrap();
        assert!(!ctx.is_done() && ctx.can_be_done());
        call.abort();
        soon(ctx.done()).await;
        assert!(is::<ClientGone>(&ctx));
    }
    drop(end);
}

/// A group that is not below the layer's context: a request is below both.
#[tokio::test]
async fn in_a_group_that_is_elsewhere() {
    let (server, end) = Context::background().with_cancel();
    let (limited, _limit) = server.with_timeout(patience());
    let group = Group::new(&Context::background().with_value(7_u8));
    let (tell, mut told) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Body>| {
        let ctx = context(&request);
        tell.send(ctx.clone()).unwrap();
        async move {
            ctx.done().await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let layer = ContextLayer::new(&limited).in_group(&group);
    let spawned = ContextLayer::new(&limited).detached(&group);
    let services = [
        layer.layer(service.clone()).boxed_clone(),
        spawned.layer(service).boxed_clone(),
    ];
    let mut calls = Vec::new();
    for service in &services {
        calls.push(tokio::spawn(service.clone().oneshot(request())));
        let ctx = soon(told.recv()).await.unwrap();
        assert_eq!(ctx.value(), Some(&7_u8));
        assert_eq!(ctx.deadline(), limited.deadline());
    }
    assert_eq!(group.len(), 2);
    end.cancel_with(Shutdown);
    for call in calls {
        assert_eq!(soon(call).await.unwrap().unwrap().status(), StatusCode::OK);
    }
    for service in services {
        let late = service.oneshot(request()).await.unwrap();
        assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(!group.context().is_done());
    soon(group.join()).await.unwrap();
}

/// tower's timeout, inside of ours and outside; whoever is the first ends it.
#[tokio::test]
async fn with_towers_timeout() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Body>| {
        tell.send(context(&request)).unwrap();
        pending::<Result<Response<Body>, BoxError>>()
    });
    let short = TimeoutLayer::new(millis(20));
    let ours = background().max(patience());
    let error = soon(ours.layer(short.layer(service.clone())).oneshot(request()));
    assert!(error
        .await
        .unwrap_err()
        .is::<tower::timeout::error::Elapsed>());
    assert!(told.recv().await.unwrap().is_done());
    assert_eq!(ours.counts().failed, 1);
    let error = soon(short.layer(ours.layer(service.clone())).oneshot(request()));
    assert!(error
        .await
        .unwrap_err()
        .is::<tower::timeout::error::Elapsed>());
    assert!(is::<ClientGone>(&told.recv().await.unwrap()));
    let long = TimeoutLayer::new(patience());
    let ours = background().max(millis(20));
    let answer = soon(long.layer(ours.layer(service.clone())).oneshot(request()));
    assert_eq!(answer.await.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    let answer = soon(ours.layer(long.layer(service)).oneshot(request()));
    assert_eq!(answer.await.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
}

/// A buffer has a worker of its own, which calls the service: what waits in it when the deadline passes never is.
#[tokio::test]
async fn around_a_buffer_and_inside_of_one() {
    let called = Arc::new(AtomicUsize::new(0));
    let count = called.clone();
    let (tell, mut told) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Body>| {
        count.fetch_add(1, SeqCst);
        tell.send(context(&request)).unwrap();
        async move {
            if request.uri().path() == "/wait" {
                pending::<()>().await;
            }
            Ok::<_, BoxError>(Response::new(Body::from("x")))
        }
    });
    // One at a time, so that the second waits.
    let one = tower::limit::ConcurrencyLimitLayer::new(1);
    let buffer = BufferLayer::new(4);
    let service = background()
        .max(millis(50))
        .layer(buffer.layer(one.layer(service)));
    let ask = |path: &str| {
        let mut request = request();
        *request.uri_mut() = path.parse().unwrap();
        tokio::spawn(service.clone().oneshot(request))
    };
    let calls = [ask("/wait"), ask("/wait"), ask("/wait")];
    for call in calls {
        let answer = soon(call).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    }
    let answer = soon(ask("/")).await.unwrap();
    // It may have waited for the others.
    assert!(answer.is_ok());
    while let Ok(ctx) = told.try_recv() {
        soon(ctx.done()).await;
    }
    assert!(called.load(SeqCst) <= 4);

    // Inside of one: the context is made where the worker calls.
    let inside = service_fn(|request: Request<Body>| {
        assert!(!context(&request).is_done());
        ready(Ok::<_, BoxError>(Response::new(Body::from("x"))))
    });
    let layer = background().max(patience());
    let service = BufferLayer::new(4).layer(layer.layer(inside));
    let answer = soon(service.oneshot(request())).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "x");
    assert_eq!(layer.counts().client_gone, 0);
}

/// So often, whatever comes.
#[derive(Clone)]
struct Attempts(usize);

impl<R, E> Policy<Request<String>, R, E> for Attempts {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request<String>, result: &mut Result<R, E>) -> Option<Ready<()>> {
        self.0 = self.0.checked_sub(1)?;
        result.is_err().then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<String>) -> Option<Request<String>> {
        Some(request.clone())
    }
}

/// Inside of a retry layer each attempt says what is left then, and none is made without time.
#[tokio::test]
async fn attempts_have_less_and_less_time() {
    in_time(millis(1000), |limit| async move {
        let tenth = limit / 10;
        let (tell, mut told) = mpsc::unbounded_channel();
        let client = service_fn(move |request: Request<String>| {
            let left = request.headers()["connect-timeout-ms"].to_str().unwrap();
            tell.send(left.parse::<u128>().unwrap()).unwrap();
            async move {
                tokio::time::sleep(tenth).await;
                Err::<Response<Body>, _>(BoxError::from("no"))
            }
        });
        let layer = PropagateLayer::new(DeadlineHeader::CONNECT)
            .reserve(tenth)
            .minimum(tenth);
        let client = RetryLayer::new(Attempts(1000)).layer(layer.layer(client));
        let (ctx, _guard) = Context::background().with_timeout(limit);
        let mut request = Request::new(String::new());
        request.extensions_mut().insert(ctx.clone());
        let error = soon(client.oneshot(request)).await.unwrap_err();
        let cause = error.downcast_ref::<Cause>().unwrap();
        assert!(*cause == ContextError::DeadlineExceeded);
        let mut before = 9 * tenth.as_millis() + 1;
        let mut attempts = 0;
        while let Ok(left) = told.try_recv() {
            let possible = tenth.as_millis()..before;
            assert!(possible.contains(&left), "{left} after {before}");
            before = left;
            attempts += 1;
        }
        assert!(attempts <= 9, "{attempts}");
        (attempts > 0).then_some(())
    })
    .await;
}

/// A service of ours that calls another one of ours in the same process: what it is told ends both.
#[tokio::test]
async fn a_client_and_its_server_in_one_process() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = background()
        .deadline_from([DeadlineHeader::CONNECT])
        .layer(service_fn(move |request: Request<Body>| {
            let tell = tell.clone();
            async move {
                let ctx = context(&request);
                tell.send(ctx.clone()).unwrap();
                if request.uri().path() == "/wait" {
                    ctx.done().await;
                    pending::<()>().await;
                }
                Ok::<_, BoxError>(Response::new(Body::from("x")))
            }
        }));
    let client = PropagateLayer::new(DeadlineHeader::CONNECT).layer(server);
    let (ctx, guard) = Context::background().with_timeout(patience());
    let under = |path: &str| {
        let mut request = request();
        *request.uri_mut() = path.parse().unwrap();
        request.extensions_mut().insert(ctx.clone());
        request
    };
    let answer = client.clone().oneshot(under("/")).await.unwrap();
    answer.into_body().collect().await.unwrap();
    assert!(is::<Completed>(&told.recv().await.unwrap()));
    assert!(!ctx.is_done());
    let call = tokio::spawn(client.oneshot(under("/wait")));
    let there = soon(told.recv()).await.unwrap();
    guard.cancel_with("enough");
    let error = soon(call).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "enough");
    soon(there.done()).await;
}

/// A handler is inside its group, also where the connection's task runs it: it does not wait for the room that it takes itself.
#[tokio::test]
async fn a_handler_that_waits_for_room_in_its_own_group_is_refused() {
    let group = Group::new(&Context::background()).limit(1);
    let spawner = group.spawner();
    let service = background()
        .in_group(&group)
        .layer(service_fn(move |request: Request<Body>| {
            let (spawner, ctx) = (spawner.clone(), context(&request));
            async move {
                let refused = spawner.enter_when(&ctx).await.is_err();
                assert!(refused);
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        }));
    let response = soon(service.oneshot(request())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

/// Values come along from a context that nobody can cancel, too.
#[tokio::test]
async fn values_of_what_cannot_be_done_are_kept() {
    struct User(u8);
    let (server, _guard) = Context::background().with_cancel();
    let group = Group::new(&server);
    let handler = service_fn(|request: Request<Body>| {
        let user = context(&request).value::<User>().map(|user| user.0);
        ready(Ok::<_, Infallible>(Response::new(Body::from(format!(
            "{user:?}"
        )))))
    });
    let layer = ContextLayer::new(&server);
    let asked = || {
        let mut request = request();
        let ctx = Context::background().with_value(User(7));
        request.extensions_mut().insert(ctx);
        request
    };
    let said = |response: Response<_>| async move {
        let body: Body = Body::new(response.into_body());
        body.collect().await.unwrap().to_bytes()
    };
    let plain = layer.layer(handler).oneshot(asked()).await.unwrap();
    assert_eq!(said(plain.map(Body::new)).await, "Some(7)");
    let spawned = layer.detached(&group).layer(handler);
    let spawned = soon(spawned.oneshot(asked())).await.unwrap();
    assert_eq!(said(spawned.map(Body::new)).await, "Some(7)");
}
