//! What the layers allocate for a request, counted, and that nothing of it is left. One test, so that nothing else allocates
//! meanwhile.

use axum::body::Body;
use cancel_tree::integrations::tower::{ContextLayer, DeadlineHeader, HandlerTask, Mode};
use cancel_tree::{Context, Group};
use hyper::http::{Request, Response};
use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::future::{ready, Future};
use std::pin::pin;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};
use std::sync::Mutex;
use std::task::{self, Poll, Waker};
use std::time::Duration;
use tower::{service_fn, Layer, Service};

struct Counting;

/// Allocations so far.
static CALLS: AtomicUsize = AtomicUsize::new(0);
/// Bytes that are allocated now.
static BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: hands on to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size() as isize, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as isize, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The handler that is a task of its own, until somebody runs it.
static TASK: Mutex<Option<HandlerTask>> = Mutex::new(None);

const REQUESTS: usize = 2_000;

/// Allocations for a request in the steady state, and what is in use after many of them.
fn costs<R>(mut service: impl Service<Request<()>, Response = R>, timeout: bool) -> (f64, isize) {
    let mut allocations = 0;
    let mut one = || {
        let mut request = Request::new(());
        // As hyper's requests, which have something in their extensions already.
        request.extensions_mut().insert(1u8);
        if timeout {
            let headers = request.headers_mut();
            headers.insert("connect-timeout-ms", "3600000".parse().unwrap());
        }
        let before = CALLS.load(Relaxed);
        let mut cx = task::Context::from_waker(Waker::noop());
        let mut call = pin!(service.call(request));
        let answer = loop {
            match call.as_mut().poll(&mut cx) {
                Poll::Ready(answer) => break answer,
                Poll::Pending => {
                    let task = TASK.lock().unwrap().take();
                    assert!(task.unwrap().as_mut().poll(&mut cx).is_ready());
                }
            }
        };
        drop(answer.ok());
        allocations += CALLS.load(Relaxed) - before;
    };
    for _ in 0..REQUESTS {
        one();
    }
    let begin = BYTES.load(Relaxed);
    for _ in 0..REQUESTS {
        one();
    }
    let left = BYTES.load(Relaxed) - begin;
    (allocations as f64 / (2 * REQUESTS) as f64, left)
}

#[test]
fn what_a_request_allocates_and_leaves() {
    let bare = service_fn(|request: Request<()>| {
        drop(request);
        ready(Ok::<_, Infallible>(Response::new(Body::from("hello"))))
    });
    let (server, _guard) = Context::background().with_cancel();
    let group = Group::new(&server);
    let plain = ContextLayer::new(&server);
    let believing = plain.clone().deadline_from([DeadlineHeader::CONNECT]);
    let limited = plain.clone().max(Duration::from_secs(3600));
    let spawned = |layer: &ContextLayer, mode| {
        layer
            .clone()
            .spawned(&group, mode, |task| *TASK.lock().unwrap() = Some(task))
    };
    // A grace that would be seen if it were kept for each request.
    let grace = Duration::from_secs(3600);
    let cooperative = Mode::Cooperative { grace };
    let (of_bare, _) = costs(bare, false);
    // As rustdoc has it.
    let rows = [
        ("no deadline", costs(plain.layer(bare), false), 1.0),
        ("no header", costs(believing.layer(bare), false), 1.0),
        ("a header", costs(believing.layer(bare), true), 1.0),
        ("a most", costs(limited.layer(bare), false), 1.0),
        (
            "in a group",
            costs(plain.clone().in_group(&group).layer(bare), false),
            3.0,
        ),
        (
            "detached",
            costs(spawned(&plain, Mode::Detached).layer(bare), false),
            7.0,
        ),
        (
            "cooperative",
            costs(spawned(&plain, cooperative).layer(bare), false),
            18.0,
        ),
        (
            "cooperative, a most",
            costs(spawned(&limited, cooperative).layer(bare), false),
            18.0,
        ),
    ];
    for (name, (allocations, left), said) in rows {
        let more = allocations - of_bare;
        println!("{name:20} {more:5.2} allocations, {left} bytes left");
        // Chunks of the tree, once in a while.
        assert!((more - said).abs() < 0.05, "{name}: {more}");
        assert!(left < 100_000, "{name}: {left} bytes are left");
    }
    assert!(group.is_empty());
}
