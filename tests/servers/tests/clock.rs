//! Both layers under the clock of a test.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use cancel_tree::integrations::serve::{Phase, Serve};
use cancel_tree::integrations::tower::{
    grpc_timeout, ContextLayer, DeadlineHeader, PropagateLayer,
};
use cancel_tree::{Context, TestClock};
use http_body_util::Full;
use servers::soon;
use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;
use tower::{service_fn, Layer, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_request_is_cut_at_its_time() {
    let clock = TestClock::new();
    let ctx = Context::background().with_clock(&clock);
    let layer = ContextLayer::new(&ctx).max(30 * SECOND);
    let service = layer.layer(service_fn(|_: Request<Body>| async {
        pending::<Result<Response<Full<hyper::body::Bytes>>, Infallible>>().await
    }));
    let task = tokio::spawn(service.oneshot(Request::new(Body::empty())));
    clock.wait_for_deadlines(1).await;
    clock.advance(29 * SECOND);
    tokio::task::yield_now().await;
    assert!(!task.is_finished());
    clock.advance(SECOND);
    let response = task.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn what_is_left_by_the_clock_is_sent() {
    let clock = TestClock::new();
    let ctx = Context::background().with_clock(&clock);
    let (ctx, _guard) = ctx.with_timeout(10 * SECOND);
    clock.advance(3 * SECOND);
    let client = PropagateLayer::new(DeadlineHeader::GRPC).layer(service_fn(
        |request: Request<Body>| async move {
            let left = grpc_timeout::parse(request.headers()["grpc-timeout"].as_bytes());
            assert_eq!(left.unwrap(), 7 * SECOND);
            Ok::<_, tower::BoxError>(Response::new(Body::empty()))
        },
    ));
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(ctx);
    assert!(client.oneshot(request).await.is_ok());
}

/// Each phase takes its time by the clock, and none by ours.
#[tokio::test]
async fn a_server_ends_in_its_time() {
    let clock = TestClock::new();
    let ctx = Context::background().with_clock(&clock);
    let serve = Serve::new(&ctx).lame_duck(SECOND).graceful(2 * SECOND);
    let serve = serve.cancelled(3 * SECOND).dropped(4 * SECOND);
    let server = serve.start().unwrap();
    let handle = server.handle();
    let held = handle.requests().named("held").enter().unwrap();
    let server = tokio::spawn(server.run(pending::<Result<(), Infallible>>()));
    handle.end("it is time");
    for (phase, bound) in [
        (Phase::LameDuck, 1),
        (Phase::Graceful, 2),
        (Phase::Cancelled, 3),
        (Phase::Dropped, 4),
    ] {
        soon(clock.wait_for_deadlines(1)).await;
        assert_eq!(handle.phase(), phase);
        clock.advance(bound * SECOND - SECOND / 2);
        tokio::task::yield_now().await;
        assert_eq!(handle.phase(), phase);
        clock.advance(SECOND / 2);
        soon(async {
            while handle.phase() == phase {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let report = soon(server).await.unwrap();
    let bounds: Vec<_> = report.phases.iter().map(|(_, took)| *took).collect();
    assert_eq!(bounds, [SECOND, 2 * SECOND, 3 * SECOND, 4 * SECOND]);
    assert_eq!(report.took, 10 * SECOND);
    assert_eq!(report.tasks.stuck.len(), 1);
    drop(held);
}

/// What forces a server may have a clock that nobody advances; the server's own bounds are not by that.
#[tokio::test]
async fn a_server_is_forced_by_what_has_another_clock() {
    let bound = Duration::from_millis(10);
    let (force, _guard) = Context::background()
        .with_clock(&TestClock::new())
        .with_cancel();
    let serve = Serve::new(&Context::background()).force_with(&force);
    let serve = serve.lame_duck(bound).graceful(bound).cancelled(bound);
    let server = serve.start().unwrap();
    let handle = server.handle();
    let held = handle.requests().named("held").enter().unwrap();
    let server = tokio::spawn(server.run(pending::<Result<(), Infallible>>()));
    handle.end("it is time");
    let report = soon(server).await.unwrap();
    assert_eq!(report.tasks.stuck.len(), 1);
    drop(held);
}
