//! What the layer adds to a request, without a network: `cargo run --release --example cost`. Nanoseconds (the best of ten rounds) and allocations.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use cancel_tree::integrations::tower::{ContextLayer, DeadlineHeader};
use cancel_tree::Context;
use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::future::{ready, Future};
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{self, Poll, Waker};
use std::time::{Duration, Instant};
use tower::{service_fn, Layer, Service};
use tower_http::timeout::TimeoutLayer;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: as System, which does it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

const ROUND: usize = 20_000;

fn measure<R>(mut service: impl Service<Request<()>, Response = R>, timeout: &str) -> (f64, f64) {
    let mut best = Duration::MAX;
    let mut allocations = 0;
    for _ in 0..10 {
        let mut requests: Vec<_> = (0..ROUND)
            .map(|_| {
                let mut request = Request::new(());
                // As hyper's requests, which have something in their extensions already.
                request.extensions_mut().insert(1u8);
                if !timeout.is_empty() {
                    let headers = request.headers_mut();
                    headers.insert("connect-timeout-ms", timeout.parse().unwrap());
                }
                request
            })
            .collect();
        let before = ALLOCATIONS.load(Relaxed);
        let begin = Instant::now();
        while let Some(request) = requests.pop() {
            let mut call = pin!(service.call(request));
            let mut cx = task::Context::from_waker(Waker::noop());
            let Poll::Ready(answer) = call.as_mut().poll(&mut cx) else {
                unreachable!();
            };
            drop(black_box(answer.ok()));
        }
        best = best.min(begin.elapsed());
        allocations = ALLOCATIONS.load(Relaxed) - before;
    }
    let each = |of: f64| of / ROUND as f64;
    (each(best.as_nanos() as f64), each(allocations as f64))
}

fn main() {
    let bare = service_fn(|request: Request<()>| {
        drop(request);
        ready(Ok::<_, Infallible>(Response::new(Body::from("hello"))))
    });
    let (server, _guard) = Context::background().with_cancel();
    let plain = ContextLayer::new(&server);
    let believing = plain.clone().deadline_from([DeadlineHeader::CONNECT]);
    let limited = plain.clone().max(Duration::from_secs(30));
    // Beside: their timer is an entry in a runtime's wheel, and its handler's future is boxed by nobody either.
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build().unwrap();
    let _inside = runtime.enter();
    let limit = Duration::from_secs(30);
    let theirs = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limit);
    let rows = [
        ("bare", measure(bare, "")),
        ("no deadline", measure(plain.layer(bare), "")),
        (
            "header believed, none there",
            measure(believing.layer(bare), ""),
        ),
        ("bare, with a header", measure(bare, "5000")),
        ("header believed", measure(believing.layer(bare), "5000")),
        ("a most of 30 s", measure(limited.layer(bare), "")),
        (
            "tower-http's timeout, 30 s",
            measure(theirs.layer(bare), ""),
        ),
    ];
    for (name, (nanos, allocations)) in rows {
        println!("{name:30} {nanos:7.0} ns {allocations:6.2} allocations");
    }
}
