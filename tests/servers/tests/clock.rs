//! Both layers under the clock of a test.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use cancel_tree::integrations::tower::{
    grpc_timeout, ContextLayer, DeadlineHeader, PropagateLayer,
};
use cancel_tree::{Context, TestClock};
use http_body_util::Full;
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
