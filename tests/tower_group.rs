//! Requests that are tasks of a group: where one gives its place up, what others do then takes nothing away from its client.

use bytes::Bytes;
use cancel_tree::integrations::tower::{
    ContextBody, ContextLayer, DeadlineReached, HandlerTask, Mode, SpawnedLayer,
};
use cancel_tree::{Context, GraceOver, Group};
use futures::executor::block_on;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use std::any::Any;
use std::convert::Infallible;
use std::future::{pending, ready, Future};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{mpsc, Arc, Mutex};
use std::task::{self, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use tower_layer::Layer;
use tower_service::Service;

const LONG: Duration = Duration::from_secs(3600);

/// What is counted when it is dropped.
#[derive(Clone, Default)]
struct Gone(Arc<AtomicUsize>);

impl Gone {
    fn many(&self) -> usize {
        self.0.load(Relaxed)
    }
}

struct Parts {
    left: usize,
    /// It says that it has ended when it has.
    says_end: bool,
    gone: Gone,
}

impl Parts {
    fn of(left: usize, says_end: bool) -> Parts {
        Parts {
            left,
            says_end,
            gone: Gone::default(),
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.gone.0.fetch_add(1, Relaxed);
    }
}

/// An answer that is ready as soon as that is not 0.
fn answer_when(
    is_ready: Arc<AtomicUsize>,
) -> impl Future<Output = Result<Response<Parts>, Infallible>> {
    std::future::poll_fn(move |_| match is_ready.load(Relaxed) {
        0 => Poll::Pending,
        _ => Poll::Ready(Ok(Response::new(Parts::of(0, true)))),
    })
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None if self.says_end => return Poll::Ready(None),
            None => return Poll::Pending,
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from("x")))))
    }

    fn is_end_stream(&self) -> bool {
        self.says_end && self.left == 0
    }
}

/// A handler that has this answer, or none.
struct Handler(Option<Response<Parts>>);

impl Service<Request<()>> for Handler {
    type Response = Response<Parts>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Parts>, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        match self.0.take() {
            Some(response) => Box::pin(ready(Ok(response))),
            None => Box::pin(pending()),
        }
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(Waker::noop()))
}

fn call(
    layer: &ContextLayer,
    answer: Option<Response<Parts>>,
) -> Pin<Box<impl Future<Output = Result<Response<ContextBody<Parts>>, Infallible>>>> {
    Box::pin(layer.layer(Handler(answer)).call(Request::new(())))
}

type Answer = Poll<Option<Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>>>;

fn frame(body: Pin<&mut ContextBody<Parts>>) -> Answer {
    body.poll_frame(&mut task::Context::from_waker(Waker::noop()))
}

fn status<R, E, F>(call: Pin<&mut F>) -> StatusCode
where
    F: Future<Output = Result<Response<R>, E>> + ?Sized,
{
    match poll(call) {
        Poll::Ready(Ok(response)) => response.status(),
        _ => panic!("it is ready"),
    }
}

fn request_context(request: &Request<()>) -> Context {
    request.extensions().get::<Context>().unwrap().clone()
}

/// A service that is a function.
#[derive(Clone, Copy)]
struct By<F>(F);

impl<F, Fut, R, E> Service<Request<()>> for By<F>
where
    F: FnMut(Request<()>) -> Fut,
    Fut: Future<Output = Result<Response<R>, E>>,
{
    type Response = Response<R>;
    type Error = E;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Fut {
        (self.0)(request)
    }
}

/// For handlers that are through at once.
fn run_at_once(mut handler: HandlerTask) {
    assert!(poll(handler.as_mut()).is_ready());
}

/// Its destructor may be another one's.
struct Fails(#[allow(dead_code)] Option<PanicsInDrop>);

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("the destructor");
    }
}

impl Body for Fails {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(Some(Err("the body fails")))
    }
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("the waker of a stranger");
    }
}

/// Of four ends that a request has, each finds somebody who waits for the last task, and whose waker panics.
#[test]
fn a_waker_that_panics_takes_no_head_frame_or_trailers_away() {
    let bad = Waker::from(Arc::new(Panics));
    let group = Group::new(&Context::background());
    let layer = ContextLayer::new(&Context::background()).in_group(&group);
    // Left for the waiter: it is woken once.
    let wait = || {
        let mut idle = Box::pin(group.wait_idle());
        let mut cx = task::Context::from_waker(&bad);
        assert!(idle.as_mut().poll(&mut cx).is_pending());
        idle
    };
    // A panic that comes out is the test's failure.
    let head = |answer| {
        let mut call = call(&layer, answer);
        let idle = wait();
        let answer = catch_unwind(AssertUnwindSafe(|| poll(call.as_mut())));
        let Poll::Ready(Ok(response)) = answer.expect("the head is lost") else {
            panic!("it is ready");
        };
        drop(idle);
        response
    };
    let last = |mut body: Pin<&mut ContextBody<Parts>>| {
        let idle = wait();
        let answer = catch_unwind(AssertUnwindSafe(|| frame(body.as_mut())));
        drop(idle);
        assert!(group.is_empty() && body.is_end_stream());
        match answer.expect("the frame is lost") {
            Poll::Ready(last) => last,
            Poll::Pending => panic!("it is ready"),
        }
    };

    // The head, where the body is at its end.
    let response = head(Some(Response::new(Parts::of(0, true))));
    assert!(group.is_empty() && response.status() == StatusCode::OK);
    drop(response);

    // The last frame; and the end of one that has not said that it was the last.
    let mut call_of = call(&layer, Some(Response::new(Parts::of(1, true))));
    let Poll::Ready(Ok(response)) = poll(call_of.as_mut()) else {
        panic!("it is ready");
    };
    let mut body = pin!(response.into_body());
    let data = last(body.as_mut()).unwrap().unwrap().into_data().unwrap();
    assert_eq!(data, "x");
    assert!(matches!(frame(body.as_mut()), Poll::Ready(None)));

    // What takes the last frame's place at the deadline; and what takes the answer's.
    let until = |limit| {
        let layer = ContextLayer::new(&Context::background());
        (layer.in_group(&group).max(limit), Instant::now() + limit)
    };
    let error = in_time(|limit| {
        let (layer, end) = until(limit);
        let mut of_body = call(&layer, Some(Response::new(Parts::of(0, false))));
        let Poll::Ready(Ok(response)) = poll(of_body.as_mut()) else {
            panic!("it is ready");
        };
        let mut body = pin!(response.into_body());
        if frame(body.as_mut()).is_ready() {
            assert!(Instant::now() >= end);
            return None;
        }
        std::thread::sleep(limit);
        Some(last(body.as_mut()).unwrap().unwrap_err())
    });
    assert!(error.is::<DeadlineReached>());

    in_time(|limit| {
        let (layer, end) = until(limit);
        let mut of_head = call(&layer, None);
        if poll(of_head.as_mut()).is_ready() {
            assert!(Instant::now() >= end);
            return None;
        }
        std::thread::sleep(limit);
        let idle = wait();
        let answer = catch_unwind(AssertUnwindSafe(|| poll(of_head.as_mut())));
        let Poll::Ready(Ok(response)) = answer.expect("the answer is lost") else {
            panic!("it is ready");
        };
        drop(idle);
        assert!(group.is_empty() && response.status() == StatusCode::GATEWAY_TIMEOUT);
        Some(())
    });
}

/// An error takes the place of a head or of a frame, and a panic that of a handler's answer: the same.
#[test]
fn a_waker_that_panics_takes_no_error_away() {
    let bad = Waker::from(Arc::new(Panics));
    let group = Group::new(&Context::background());
    let layer = ContextLayer::new(&Context::background()).in_group(&group);
    let spawned = || layer.clone().spawned(&group, Mode::Detached, run_at_once);
    // The step is the end of the only task.
    fn beside<R>(group: &Group, bad: &Waker, step: impl FnOnce() -> R) -> R {
        let mut idle = Box::pin(group.wait_idle());
        let mut cx = task::Context::from_waker(bad);
        assert!(idle.as_mut().poll(&mut cx).is_pending());
        let answer = catch_unwind(AssertUnwindSafe(step)).expect("the answer is lost");
        assert!(group.is_empty());
        answer
    }
    let fails = By(|_| ready(Err::<Response<Parts>, _>("no")));

    // Of what is through, the rest is dropped too before the error is seen.
    let mut call = Box::pin(layer.layer(fails).call(Request::new(())));
    let error = beside(&group, &bad, || match poll(call.as_mut()) {
        Poll::Ready(answer) => {
            drop(call);
            answer.err()
        }
        Poll::Pending => None,
    });
    assert_eq!(error, Some("no"));

    let mut call = Box::pin(spawned().layer(fails).call(Request::new(())));
    let error = beside(&group, &bad, || match poll(call.as_mut()) {
        Poll::Ready(answer) => answer.err(),
        Poll::Pending => None,
    });
    assert_eq!(error, Some("no"));

    let body = By(|_| ready(Ok::<_, Infallible>(Response::new(Fails(None)))));
    let mut call = Box::pin(layer.layer(body).call(Request::new(())));
    let Poll::Ready(Ok(response)) = poll(call.as_mut()) else {
        panic!("it is ready");
    };
    let mut body = Box::pin(response.into_body());
    let error = beside(&group, &bad, || {
        let mut cx = task::Context::from_waker(Waker::noop());
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Err(error))) => {
                drop(body);
                Some(error.to_string())
            }
            _ => None,
        }
    });
    assert_eq!(error.as_deref(), Some("the body fails"));

    // A handler that panics: when it is called, and in its task. (Whoever waits comes when the task is there.)
    type Never = std::future::Ready<Result<Response<Parts>, Infallible>>;
    let mut idle = None;
    let mut service = spawned().layer(By(|_| -> Never {
        let idle = idle.insert(Box::pin(group.wait_idle()));
        let mut cx = task::Context::from_waker(&bad);
        assert!(idle.as_mut().poll(&mut cx).is_pending());
        panic!("the call");
    }));
    let call = catch_unwind(AssertUnwindSafe(|| service.call(Request::new(()))));
    let call = call.expect("the answer is lost");
    drop(service);
    assert!(idle.is_some() && group.is_empty());
    let said = status(Box::pin(call).as_mut());
    assert_eq!(said, StatusCode::INTERNAL_SERVER_ERROR);
    let mut service = spawned().layer(By(|_| async {
        if true {
            panic!("the handler");
        }
        Ok::<_, Infallible>(Response::new(Parts::of(0, true)))
    }));
    let mut call = Box::pin(service.call(Request::new(())));
    let said = beside(&group, &bad, || status(call.as_mut()));
    assert_eq!(said, StatusCode::INTERNAL_SERVER_ERROR);
}

/// What is dropped in the middle: what is called at the end of its context panics, and so does its own destructor. One of the two
/// comes out, and the process goes on.
#[test]
fn a_callback_and_a_destructor_that_panic_in_one_drop() {
    let layer = ContextLayer::new(&Context::background());
    let bad = |request: &Request<()>| {
        drop(request_context(request).on_cancel(|| panic!("the callback")));
        PanicsInDrop
    };
    let mut service = layer.layer(By(|request| {
        let bad = bad(&request);
        async move {
            let _bad = bad;
            pending::<Result<Response<Parts>, Infallible>>().await
        }
    }));
    let mut call = Box::pin(service.call(Request::new(())));
    assert!(poll(call.as_mut()).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(call))).is_err());

    let mut service = layer.layer(By(|request| {
        let body = Fails(Some(bad(&request)));
        ready(Ok::<_, Infallible>(Response::new(body)))
    }));
    let Poll::Ready(Ok(response)) = poll(Box::pin(service.call(Request::new(()))).as_mut()) else {
        panic!("it is ready");
    };
    let body = Box::pin(response.into_body());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(body))).is_err());

    // And the answer of a handler that is a task, which nobody has taken.
    let group = Group::new(&Context::background());
    let mode = Mode::Cooperative { grace: LONG };
    let layer = layer.spawned(&group, mode, run_at_once);
    let mut service = layer.layer(By(|request| {
        let body = Fails(Some(bad(&request)));
        ready(Ok::<_, Infallible>(Response::new(body)))
    }));
    let call = service.call(Request::new(()));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(call))).is_err());
    assert!(group.is_empty());
}

/// What has failed is not asked again, in a group or without one; its destructor keeps no error back.
#[test]
fn a_body_that_fails_is_gone() {
    let group = Group::new(&Context::background());
    let alone = ContextLayer::new(&Context::background());
    for layer in [alone.clone(), alone.in_group(&group)] {
        let fails = By(|_| {
            let body = Fails(Some(PanicsInDrop));
            ready(Ok::<_, Infallible>(Response::new(body)))
        });
        let mut call = Box::pin(layer.layer(fails).call(Request::new(())));
        let Poll::Ready(Ok(response)) = poll(call.as_mut()) else {
            panic!("it is ready");
        };
        let mut body = Box::pin(response.into_body());
        let mut cx = task::Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Err(error))) = body.as_mut().poll_frame(&mut cx) else {
            panic!("it fails");
        };
        assert_eq!(error.to_string(), "the body fails");
        let next = body.as_mut().poll_frame(&mut cx);
        assert!(matches!(next, Poll::Ready(None)) && body.is_end_stream());
    }
}

/// A call that waits, under one layer more if there is one.
fn begun<S>(outer: Option<ContextLayer>, mut service: S, request: Request<()>) -> Box<dyn Any>
where
    S: Service<Request<()>, Response = Response<ContextBody<Parts>>, Future: 'static>,
{
    match outer {
        Some(outer) => {
            let mut call = Box::pin(outer.layer(service).call(request));
            assert!(poll(call.as_mut()).is_pending());
            Box::new(call)
        }
        None => {
            let mut call = Box::pin(service.call(request));
            assert!(poll(call.as_mut()).is_pending());
            Box::new(call)
        }
    }
}

/// A handler under two layers has the time of the inner one's server for its shields, and no more once the group is cancelled: whatever
/// the outer one is below, and where the handler is a task too.
#[test]
fn shields_under_two_layers_are_the_inner_ones() {
    let begin = |outer: Option<&Context>, server: &Context, group: &Group, is_task: bool| {
        let handlers = Arc::new(Mutex::new(Vec::new()));
        let (say, told) = mpsc::channel();
        let handler = By(move |request: Request<()>| {
            say.send(request_context(&request)).unwrap();
            pending::<Result<Response<Parts>, Infallible>>()
        });
        let inner = ContextLayer::new(server);
        let keeps = handlers.clone();
        let run = move |mut handler: HandlerTask| {
            assert!(poll(handler.as_mut()).is_pending());
            keeps.lock().unwrap().push(handler);
        };
        let request = Request::new(());
        let outer = outer.map(ContextLayer::new);
        let call = match is_task {
            true => {
                let inner = inner.spawned(group, Mode::Detached, run);
                begun(outer, inner.layer(handler), request)
            }
            false => begun(outer, inner.in_group(group).layer(handler), request),
        };
        (told.recv().unwrap(), (call, handlers))
    };
    for (is_task, outer) in [false, true]
        .into_iter()
        .flat_map(|is_task| (0..4).map(move |n| (is_task, n)))
    {
        let (root, stop) = Context::background().with_cancel();
        let server = root.with_grace(LONG);
        let group = Group::new(&server);
        let background = Context::background();
        let outer = [None, Some(&background), Some(&root), Some(&server)][outer];
        let (ctx, keeps) = begin(outer, &server, &group, is_task);
        stop.cancel();
        let shield = ctx.shield();
        assert!(ctx.is_done() && !shield.is_done(), "{is_task} {outer:?}");
        assert!(shield.deadline().is_some(), "{is_task} {outer:?}");
        group.cancel();
        assert!(shield.is_done(), "{is_task} {outer:?}");
        drop(keeps);
    }
}

/// Where what both are below has a grace, shields end with that which is over first.
#[test]
fn shields_under_two_graces_end_with_either() {
    let short = Duration::from_millis(1);
    for (outer, server, is_the_client) in [
        (short, LONG, true),
        (2 * LONG, LONG, true),
        (LONG, 2 * LONG, false),
    ] {
        let shorter = outer.min(server);
        let (root, stop) = Context::background().with_cancel();
        let server = root.with_grace(server);
        let group = Group::new(&server);
        let tasks = Group::new(&Context::background());
        let (say, told) = mpsc::channel();
        let inner = ContextLayer::new(&server).in_group(&group);
        let inner = inner.layer(By(move |request| {
            say.send(request_context(&request)).unwrap();
            pending::<Result<Response<Parts>, Infallible>>()
        }));
        let handlers = Arc::new(Mutex::new(Vec::new()));
        let keeps = handlers.clone();
        let run = move |mut handler: HandlerTask| {
            assert!(poll(handler.as_mut()).is_pending());
            keeps.lock().unwrap().push(handler);
        };
        let layer = ContextLayer::new(&Context::background());
        let layer = layer.spawned(&tasks, Mode::Cooperative { grace: outer }, run);
        let mut call = Box::pin(layer.layer(inner).call(Request::new(())));
        assert!(poll(call.as_mut()).is_pending());
        let ctx = told.recv().unwrap();
        let shield = ctx.shield();
        assert!(!shield.is_done());
        // Where neither begins, the shorter one bounds it.
        let (below, guard) = ctx.with_cancel();
        guard.cancel();
        assert!(below
            .shield()
            .remaining()
            .is_none_or(|left| left <= shorter));
        match is_the_client {
            true => drop(call),
            false => _ = stop.cancel(),
        }
        if outer == short {
            assert!(shield.child_token().blocking_wait_timeout(LONG));
            assert!(shield.cause().unwrap().find::<GraceOver>().is_some());
        } else {
            // One has begun, the longer one: all share it, also those from now on.
            assert!(!shield.is_done() && shield.remaining().unwrap() > LONG);
            assert_eq!(ctx.shield().deadline(), shield.deadline());
            group.cancel();
            assert!(shield.is_done());
        }
    }
}

/// For what is looked at before a deadline: an attempt that finds that it has passed says `None`, and begins anew with twice the time.
fn in_time<R>(attempt: impl Fn(Duration) -> Option<R>) -> R {
    (0..10)
        .find_map(|n| attempt(Duration::from_millis(20 << n)))
        .expect("no attempt was in time")
}

/// The deadline and the grace are over before anybody looks, and the handler's task is the first that does: it was the deadline.
#[test]
fn a_grace_that_is_over_with_the_deadline_is_answered_as_the_deadline() {
    let group = Group::new(&Context::background());
    let limit = Duration::from_millis(50);
    let grace = Duration::from_millis(1);
    for is_grpc in [false, true] {
        let task = Arc::new(Mutex::new(None));
        let to_run = task.clone();
        let layer = ContextLayer::new(&Context::background()).max(limit);
        let counted = layer.clone();
        let mode = Mode::Cooperative { grace };
        let layer = layer.spawned(&group.spawner(), mode, move |handler| {
            *to_run.lock().unwrap() = Some(handler);
        });
        let mut request = Request::post("/");
        if is_grpc {
            request = request.header(CONTENT_TYPE, "application/grpc");
        }
        let handler = By(|_| pending::<Result<Response<Parts>, Infallible>>());
        let call = layer.layer(handler).call(request.body(()).unwrap());
        let mut task = task.lock().unwrap().take().unwrap();
        std::thread::sleep(3 * limit);
        while poll(task.as_mut()).is_pending() {
            std::thread::sleep(grace);
        }
        let Poll::Ready(Ok(response)) = poll(pin!(call)) else {
            panic!("it is ready");
        };
        if is_grpc {
            assert_eq!(response.headers()["grpc-status"], "4");
        } else {
            assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
            assert!(response.headers().contains_key("x-deadline-expired"));
        }
        let counts = counted.counts();
        assert_eq!((counts.cut_by_deadline, counts.failed), (1, 0));
    }
}

/// Over HTTP/1 nobody asks for more than `content-length` says: the body is gone before its place is another one's.
#[test]
fn a_body_that_ends_by_its_length_is_gone_before_its_place_is_free() {
    let group = Group::new(&Context::background()).limit(1);
    let layer = ContextLayer::new(&Context::background()).in_group(&group);
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let parts = Parts::of(1, false);
        let gone = parts.gone.clone();
        let response = Response::builder()
            .header(CONTENT_LENGTH, "1")
            .body(parts)
            .unwrap();
        let Poll::Ready(Ok(response)) = poll(call(&layer, Some(response)).as_mut()) else {
            panic!("it is ready");
        };
        assert_eq!(response.version(), Version::HTTP_11);
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = Box::pin(response.into_body());
        assert!(!group.is_empty() && gone.many() == 0);
        assert!(matches!(frame(body.as_mut()), Poll::Ready(Some(Ok(_)))));
        assert_eq!((group.is_empty(), gone.many()), (true, 1));
        assert!(matches!(frame(body.as_mut()), Poll::Ready(None)));
        bodies.push(body);
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type AnyBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;
type AnyCall = Pin<Box<dyn Future<Output = Result<Response<AnyBody>, Infallible>> + Send>>;
type AnyService = By<Box<dyn FnMut(Request<()>) -> AnyCall>>;

/// A service under a layer of this group, in this mode.
fn under<S, R>(
    group: &Group,
    mode: Option<Mode>,
    run: impl Fn(HandlerTask) + Send + Sync + 'static,
    inner: S,
) -> AnyService
where
    S: Service<Request<()>, Response = Response<R>, Error = Infallible> + 'static,
    S::Future: Send + 'static,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn boxed<S, R>(mut service: S) -> AnyService
    where
        S: Service<Request<()>, Response = Response<R>, Error = Infallible> + 'static,
        S::Future: Send + 'static,
        R: Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        By(Box::new(move |request| {
            let call = service.call(request);
            Box::pin(async { Ok(call.await?.map(|body| Box::pin(body) as AnyBody)) })
        }))
    }
    let layer = ContextLayer::new(&Context::background()).named();
    match mode {
        None => boxed(layer.in_group(group).layer(inner)),
        Some(mode) => boxed(layer.spawned(group, mode, run).layer(inner)),
    }
}

/// A request that has a place takes no second one there, in each mode of the two layers, but one in each other group.
#[test]
fn layers_around_each_other_take_one_place() {
    let modes = [None, Some(MODES[0]), Some(MODES[1])];
    for (outer, inner) in (0..9).map(|n| (modes[n / 3], modes[n % 3])) {
        let [group, other] = [(); 2].map(|()| Group::new(&Context::background()).limit(1));
        let spawners = [group.spawner(), other.spawner()];
        let handler = By(move |_| {
            assert!(spawners.iter().all(|group| group.len() == 1));
            ready(Ok::<_, Infallible>(Response::new(Parts::of(1, true))))
        });
        let inner = under(&group, inner, run_at_once, handler);
        let between = under(&other, None, run_at_once, inner);
        let mut service = under(&group, outer, run_at_once, between);
        // One after the other.
        for _ in 0..2 {
            let Poll::Ready(Ok(response)) = poll(service.0(Request::new(())).as_mut()) else {
                panic!("it is ready");
            };
            assert_eq!(response.status(), StatusCode::OK);
            let tasks = group.running();
            assert_eq!((tasks.len(), other.len()), (1, 1));
            assert_eq!(tasks[0].name.as_deref(), Some("GET /"));
            let second = status(service.0(Request::new(())).as_mut());
            assert_eq!(second, StatusCode::SERVICE_UNAVAILABLE);
            let mut body = response.into_body();
            let mut cx = task::Context::from_waker(Waker::noop());
            let last = body.as_mut().poll_frame(&mut cx);
            assert!(matches!(last, Poll::Ready(Some(Ok(_)))));
            assert!(group.is_empty() && other.is_empty());
        }
    }
}

/// Who sends one request through again and again, as what follows redirects, leaves nothing in it that grows.
#[test]
fn one_request_that_takes_a_place_many_times() {
    let sends = || {
        let group = Group::new(&Context::background());
        let extensions = Arc::new(Mutex::new(http::Extensions::new()));
        let kept = extensions.clone();
        let handler = By(move |request: Request<()>| {
            *kept.lock().unwrap() = request.extensions().clone();
            ready(Ok::<_, Infallible>(Response::new(Parts::of(0, true))))
        });
        let mut service = under(&group, None, run_at_once, handler);
        for _ in 0..5_000 {
            let mut request = Request::new(());
            *request.extensions_mut() = std::mem::take(&mut *extensions.lock().unwrap());
            assert_eq!(status(service.0(request).as_mut()), StatusCode::OK);
        }
        assert!(group.is_empty());
    };
    let small = std::thread::Builder::new().stack_size(128 << 10);
    small.spawn(sends).unwrap().join().unwrap();
}

/// A handler that is a task may outlive what waits for it, further out too: the place is its own until then, and says how it went.
#[test]
fn a_handler_keeps_the_place_that_a_layer_further_out_has_taken() {
    for (mode, is_answered) in MODES.into_iter().flat_map(|m| [(m, false), (m, true)]) {
        let group = Group::new(&Context::background()).limit(1);
        let by_hand = ByHand::default();
        let tasks = by_hand.clone();
        let is_ready = Arc::new(AtomicUsize::new(0));
        let answers = is_ready.clone();
        let handler = By(move |_| answer_when(answers.clone()));
        let run = move |task| tasks.0.lock().unwrap().push(task);
        let inner = under(&group, Some(mode), run, handler);
        let mut service = under(&group, None, run_at_once, inner);
        let mut begin = || {
            let mut call = service.0(Request::new(()));
            assert!(poll(call.as_mut()).is_pending());
            call
        };

        // The client goes, and the handler comes to its end.
        drop(begin());
        let mut task = by_hand.take();
        assert!(poll(task.as_mut()).is_pending());
        assert_eq!(group.len(), 1);
        assert!(group.enter().unwrap_err().is_full());
        is_ready.store(1, Relaxed);
        assert!(poll(task.as_mut()).is_ready());
        assert!(group.is_empty());

        // The handler is dropped, and the layer further out is the last to go.
        is_ready.store(0, Relaxed);
        let mut call = begin();
        let limit = Context::background();
        let mut shutdown = Box::pin(group.shutdown(&limit));
        assert!(poll(shutdown.as_mut()).is_pending());
        drop(by_hand.take());
        assert_eq!(group.len(), 1);
        if is_answered {
            assert_eq!(status(call.as_mut()), StatusCode::SERVICE_UNAVAILABLE);
        }
        drop(call);
        let report = block_on(shutdown);
        let ends = (report.done, report.cancelled, report.forced);
        assert_eq!(ends, (0, 0, 1), "{report}");
    }
}

/// What hands a request on more than once: all share its place, which is held until the last of them is gone. What comes after that takes one
/// for itself, though a clone of the request has been there all the time.
#[test]
fn clones_of_a_request_share_its_place() {
    let group = Group::new(&Context::background()).limit(1);
    let inner = ContextLayer::new(&Context::background()).in_group(&group);
    let again = move |request: &Request<()>| {
        let never = By(|_| pending::<Result<Response<Parts>, Infallible>>());
        Box::pin(inner.layer(never).call(request.clone()))
    };
    let (say, told) = mpsc::channel();
    let both = again.clone();
    let handler = By(move |request: Request<()>| {
        let attempts = [(); 2].map(|()| both(&request));
        say.send((attempts, request)).unwrap();
        ready(Ok::<_, Infallible>(Response::new(Parts::of(0, true))))
    });
    let mut service = under(&group, None, run_at_once, handler);
    let answer = service.0(Request::new(()));
    assert_eq!(status(pin!(answer)), StatusCode::OK);
    let (attempts, request) = told.recv().unwrap();
    let late = again(&request);
    for mut attempt in attempts.into_iter().chain([late]) {
        assert!(poll(attempt.as_mut()).is_pending());
        assert_eq!(group.len(), 1);
    }
    assert!(group.is_empty());
    let first = again(&request);
    assert_eq!(group.len(), 1);
    // Of the clone that it was called with, and not of this.
    let second = status(again(&request).as_mut());
    assert_eq!(second, StatusCode::SERVICE_UNAVAILABLE);
    drop(first);
}

/// The steps of layers are in each other, or beside, and are noted as one task's. It is told to stop with the outer layer's context, unless the inner one's handler is
/// detached from that.
#[cfg(feature = "inspect")]
#[test]
fn layers_around_each_other_are_one_task() {
    for mode in [None, Some(MODES[0]), Some(MODES[1])] {
        let group = Arc::new(Group::new(&Context::background()));
        let progress = |group: &Group| group.running()[0].progress.unwrap();
        let by_hand = ByHand::default();
        let tasks = by_hand.clone();
        let seen = Arc::downgrade(&group);
        let handler = By(move |_| {
            let seen = seen.clone();
            std::future::poll_fn(move |_| {
                assert!(progress(&seen.upgrade().unwrap()).is_polling);
                Poll::<Result<Response<Parts>, Infallible>>::Pending
            })
        });
        let run = move |task| tasks.0.lock().unwrap().push(task);
        let inner = under(&group, mode, run, handler);
        let mut service = under(&group, None, run_at_once, inner);
        let mut call = service.0(Request::new(()));
        // The call is a step, too.
        for polls in 2..4 {
            assert!(poll(call.as_mut()).is_pending());
            let now = progress(&group);
            assert!(!now.is_polling && now.since_cancel.is_none());
            assert_eq!(now.polls, polls);
        }
        let Some(mode) = mode else { continue };
        let mut task = by_hand.take();
        assert!(poll(task.as_mut()).is_pending());
        let now = progress(&group);
        assert_eq!((now.polls, now.is_polling), (4, false));
        drop(call);
        let is_told = progress(&group).since_cancel.is_some();
        assert_eq!(is_told, mode != Mode::Detached);
        group.cancel();
        assert!(progress(&group).since_cancel.is_some());
    }
}

/// A handler's poll on another thread, that begins beside a step of the layer around it, is known to be under way.
#[cfg(feature = "inspect")]
#[test]
fn a_poll_that_begins_beside_a_step_of_the_layer_around_is_noted() {
    use std::sync::mpsc;
    let group = Group::new(&Context::background());
    let (say, begun) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();
    let may_end = Arc::new(Mutex::new(may_end));
    let handler = By(move |_| {
        let (say, may_end) = (say.clone(), may_end.clone());
        std::future::poll_fn(move |_| {
            say.send(()).unwrap();
            _ = may_end.lock().unwrap().recv();
            Poll::Ready(Ok::<_, Infallible>(Response::new(Parts::of(0, true))))
        })
    });
    // In the call of the layer around, which goes on when the handler is being polled.
    let begun = Mutex::new(begun);
    let run = move |task: HandlerTask| {
        std::thread::spawn(move || poll(pin!(task)).is_ready());
        begun.lock().unwrap().recv().unwrap();
    };
    let inner = under(&group, Some(Mode::Detached), run, handler);
    let mut service = under(&group, None, run_at_once, inner);
    let mut call = service.0(Request::new(()));
    assert!(poll(call.as_mut()).is_pending());
    let progress = || group.running()[0].progress.unwrap();
    assert!(progress().is_polling);
    group.cancel();
    let now = progress();
    assert!(now.is_polling && now.since_cancel.unwrap().times == 0);
    drop((call, end));
    group.join_blocking().unwrap();
}

#[cfg(feature = "inspect")]
mod page {
    use super::*;
    use cancel_tree::integrations::tower::DebugService;
    use cancel_tree::Cause;
    use std::fmt;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    /// The thread that asks for the page; and how often it had to do with others' destructors, which might as well block.
    const READER: &str = "reader";
    static HELD_UP: AtomicUsize = AtomicUsize::new(0);

    #[derive(Debug)]
    struct MayBlockInDrop;

    impl fmt::Display for MayBlockInDrop {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("others' cause")
        }
    }

    impl std::error::Error for MayBlockInDrop {}

    impl Drop for MayBlockInDrop {
        fn drop(&mut self) {
            if thread::current().name() == Some(READER) {
                HELD_UP.fetch_add(1, Relaxed);
            }
        }
    }

    /// As a report of a group's end.
    #[test]
    fn a_page_waits_for_no_destructor_of_others() {
        // So that it takes a while.
        let (server, _guard) = Context::background().with_cancel();
        let names: Vec<_> = (0..2_000).map(|_| server.with_name("name")).collect();
        let done = AtomicBool::new(false);
        let page = || {
            let asks = Request::get("/?format=json").body(()).unwrap();
            let Poll::Ready(Ok(response)) = poll(pin!(DebugService::new().call(asks))) else {
                panic!("it is ready");
            };
            assert_eq!(response.status(), StatusCode::OK);
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    let (request, guard) = Context::background().with_cancel();
                    let request = request.with_name("request");
                    guard.cancel_with(Cause::new(MayBlockInDrop));
                    drop(guard);
                    drop(request);
                }
            });
            let reader = thread::Builder::new().name(READER.into());
            let reads = reader
                .spawn_scoped(scope, || (0..20).for_each(|_| page()))
                .unwrap();
            let is_through = reads.join().is_ok();
            done.store(true, Relaxed);
            assert!(is_through);
        });
        assert_eq!(HELD_UP.load(Relaxed), 0);
        drop(names);
    }
}

/// A body whose destructor panics.
struct FailsLast(#[allow(dead_code)] PanicsInDrop);

impl Body for FailsLast {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// Handlers that are run when the test says so.
#[derive(Clone, Default)]
struct ByHand(Arc<Mutex<Vec<HandlerTask>>>);

impl ByHand {
    fn layer(&self, group: &Group, mode: Mode) -> SpawnedLayer {
        let tasks = self.0.clone();
        let layer = ContextLayer::new(group.context());
        layer.spawned(group, mode, move |task| tasks.lock().unwrap().push(task))
    }

    fn take(&self) -> HandlerTask {
        self.0.lock().unwrap().pop().unwrap()
    }
}

const MODES: [Mode; 2] = [Mode::Detached, Mode::Cooperative { grace: LONG }];

fn said(cause: Option<cancel_tree::Cause>) -> String {
    cause.map_or("nothing".into(), |cause| cause.to_string())
}

/// An answer that nobody wants, whose destructor panics: the group says so, whoever of the two goes first.
#[test]
fn an_unwanted_answer_that_panics_is_said_by_the_group() {
    for mode in MODES {
        for is_answered_first in [false, true] {
            let group = Group::new(&Context::background());
            let by_hand = ByHand::default();
            let handler =
                By(|_| ready(Ok::<_, Infallible>(Response::new(FailsLast(PanicsInDrop)))));
            let mut call = Box::pin(
                by_hand
                    .layer(&group, mode)
                    .layer(handler)
                    .call(Request::new(())),
            );
            assert!(poll(call.as_mut()).is_pending());
            let mut task = by_hand.take();
            if is_answered_first {
                assert!(poll(task.as_mut()).is_ready());
                drop(call);
            } else {
                drop(call);
                assert!(poll(task.as_mut()).is_ready());
            }
            let report = block_on(group.shutdown(&Context::background()));
            assert_eq!(report.done, 0, "{report}");
            let said = said(report.cause);
            assert!(said.contains("the destructor"), "{mode:?}: {said}");
        }
    }
}

/// A handler that is dropped is forced, also if its destructor panics.
#[test]
fn a_handler_whose_destructor_panics_is_forced() {
    for mode in MODES {
        let group = Group::new(&Context::background());
        let by_hand = ByHand::default();
        let handler = By(|_| {
            let fails = PanicsInDrop;
            async move {
                let _fails = fails;
                pending::<Result<Response<Parts>, Infallible>>().await
            }
        });
        let layer = by_hand.layer(&group, mode);
        let mut call = Box::pin(layer.layer(handler).call(Request::new(())));
        assert!(poll(call.as_mut()).is_pending());
        let mut task = by_hand.take();
        assert!(poll(task.as_mut()).is_pending());
        let limit = Context::background();
        let mut shutdown = Box::pin(group.shutdown(&limit));
        assert!(poll(shutdown.as_mut()).is_pending());
        drop(task);
        let report = block_on(shutdown);
        assert_eq!((report.cancelled, report.forced), (0, 1), "{report}");
        let said = said(report.cause);
        assert!(said.contains("the destructor"), "{mode:?}: {said}");
        assert_eq!(status(call.as_mut()), StatusCode::SERVICE_UNAVAILABLE);
    }
}

/// The waker of the connection's task panics where the handler is dropped, or has its answer: that takes nothing away from the group, nor from what
/// runs the handler.
#[test]
fn a_waker_of_a_connection_that_panics_is_not_the_handlers() {
    let bad = Waker::from(Arc::new(Panics));
    for (mode, is_dropped) in MODES.into_iter().zip([true, false]) {
        let group = Group::new(&Context::background());
        let by_hand = ByHand::default();
        let is_ready = Arc::new(AtomicUsize::new(0));
        let answers = is_ready.clone();
        let handler = By(move |_| answer_when(answers.clone()));
        let layer = by_hand.layer(&group, mode);
        let mut call = Box::pin(layer.layer(handler).call(Request::new(())));
        let waits = &mut task::Context::from_waker(&bad);
        assert!(call.as_mut().poll(waits).is_pending());
        let mut task = by_hand.take();
        assert!(poll(task.as_mut()).is_pending());
        let limit = Context::background();
        let mut shutdown = Box::pin(group.shutdown(&limit));
        if is_dropped {
            // It finds the waker that panics there.
            assert!(poll(shutdown.as_mut()).is_pending());
            drop(task);
            let report = block_on(shutdown);
            assert_eq!((report.cancelled, report.forced), (0, 1), "{report}");
            let said = said(report.cause);
            assert!(said.contains("the waker of a stranger"), "{said}");
            assert_eq!(status(call.as_mut()), StatusCode::SERVICE_UNAVAILABLE);
        } else {
            is_ready.store(1, Relaxed);
            assert!(poll(task.as_mut()).is_ready());
            assert_eq!(status(call.as_mut()), StatusCode::OK);
            assert!(block_on(shutdown).is_clean());
        }
    }
}

/// A handler that takes its grace is dropped with the server, whether the server's context has a grace or none.
#[cfg(all(any(unix, windows), feature = "serve"))]
#[test]
fn a_cooperative_handler_ends_with_the_server() {
    use cancel_tree::integrations::serve::{Phase, Serve};
    let root = Context::background();
    let graced = root.with_grace(LONG);
    for ctx in [&root, &graced] {
        let zero = Duration::ZERO;
        let serve = Serve::new(ctx).lame_duck(zero).graceful(zero);
        let serve = serve.cancelled(Duration::from_millis(20));
        let serve = serve.dropped(Duration::from_secs(30));
        let server = serve.start().unwrap();
        let handle = server.handle();
        let mode = Mode::Cooperative { grace: LONG };
        let run = |task| drop(std::thread::spawn(|| block_on(task)));
        let layer = ContextLayer::new(ctx).spawned(handle.requests(), mode, run);
        let gone = Gone::default();
        let of_handler = gone.clone();
        let never = By(move |_| {
            let body = Parts {
                gone: of_handler.clone(),
                ..Parts::of(0, true)
            };
            async move {
                pending::<()>().await;
                Ok::<_, Infallible>(Response::new(body))
            }
        });
        let call = layer.layer(never).call(Request::new(()));
        handle.end("enough");
        let report = block_on(server.run(pending::<Result<(), Infallible>>()));
        assert_eq!(report.phases.last().unwrap().0, Phase::Dropped, "{report}");
        assert_eq!(
            (report.tasks.forced, report.tasks.stuck.len()),
            (1, 0),
            "{report}"
        );
        assert_eq!(gone.many(), 1);
        assert_eq!(status(pin!(call)), StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[cfg(all(any(unix, windows), feature = "serve"))]
#[test]
fn what_is_too_much_for_a_server_is_answered_with_503() {
    use cancel_tree::integrations::serve::Serve;
    let ctx = Context::background();
    let server = Serve::new(&ctx).limit(1).start().unwrap();
    let handle = server.handle();
    let layer = ContextLayer::new(&ctx).in_group(handle.requests());
    let mut first = call(&layer, None);
    assert!(poll(first.as_mut()).is_pending());
    assert_eq!(
        status(call(&layer, None).as_mut()),
        StatusCode::SERVICE_UNAVAILABLE
    );
    drop(first);
    let answer = Some(Response::new(Parts::of(0, true)));
    assert_eq!(status(call(&layer, answer).as_mut()), StatusCode::OK);
}
