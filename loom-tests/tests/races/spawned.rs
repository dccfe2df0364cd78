//! Handlers that are tasks of their own: the answer against who waits for it, and against who does not any more.

use bytes::Bytes;
use cancel_tree::integrations::tower::{
    ContextBody, ContextLayer, HandlerTask, Mode, SpawnedFuture,
};
use cancel_tree::{Context, Group};
use cancel_tree_loom::{block_on, model, poll, spawn, Data, Probe, USUAL};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use std::convert::Infallible;
use std::future::{ready, Future};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// A body that has something to read, and is never read to its end.
struct Written {
    _data: Data,
}

impl Body for Written {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// A service that keeps its handler's context.
struct Handler {
    data: Data,
    ctx: Arc<Mutex<Option<Context>>>,
}

impl Service<Request<()>> for Handler {
    type Response = Response<Written>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Written>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        *self.ctx.lock().unwrap() = request.extensions().get::<Context>().cloned();
        let data = self.data.clone();
        Box::pin(async move {
            data.write();
            ready(Ok(Response::new(Written { _data: data }))).await
        })
    }
}

/// A request that is handled, and its handler, for a thread to run.
struct Running {
    group: Group,
    answer: SpawnedFuture<Written, Infallible>,
    handler: HandlerTask,
    ctx: Context,
}

fn running(data: &Data) -> Running {
    let group = Group::new(&Context::background());
    let given = Arc::new(Mutex::new(None));
    let taken = given.clone();
    let layer = ContextLayer::new(&Context::background());
    let layer = layer.spawned(&group, Mode::Detached, move |handler| {
        *given.lock().unwrap() = Some(handler);
    });
    let ctx = Arc::new(Mutex::new(None));
    let mut service = layer.layer(Handler {
        data: data.clone(),
        ctx: ctx.clone(),
    });
    let answer = service.call(Request::new(()));
    let handler = taken.lock().unwrap().take().unwrap();
    let ctx = ctx.lock().unwrap().take().unwrap();
    Running {
        group,
        answer,
        handler,
        ctx,
    }
}

fn run(mut handler: HandlerTask) {
    assert!(poll(&mut handler, &Probe::new().waker()));
}

/// Who waits is woken, and sees what the handler did.
#[test]
fn answer_vs_who_waits() {
    model(USUAL, || {
        let data = Data::new();
        let Running {
            group,
            answer,
            handler,
            ..
        } = running(&data);
        let thread = spawn(move || run(handler));
        let answer: Response<ContextBody<Written>> = block_on(answer).unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        data.read();
        assert_eq!(group.len(), 1);
        drop(answer);
        assert!(group.is_empty());
        thread.join().unwrap();
    });
}

/// Whoever is last drops the answer, once; and then the context has ended and nobody is in the group.
#[test]
fn answer_vs_who_goes() {
    model(USUAL, || {
        let data = Data::new();
        let Running {
            group,
            answer,
            handler,
            ctx,
        } = running(&data);
        let thread = spawn(move || run(handler));
        drop(answer);
        thread.join().unwrap();
        data.read();
        assert!(ctx.is_done());
        assert!(group.is_empty());
    });
}

/// Who has waited once goes while the answer comes.
#[test]
fn answer_vs_who_has_waited_and_goes() {
    model(USUAL, || {
        let data = Data::new();
        let Running {
            group,
            mut answer,
            handler,
            ctx,
        } = running(&data);
        let probe = Probe::new();
        let thread = spawn(move || run(handler));
        let _ready_or_not = poll(&mut answer, &probe.waker());
        drop(answer);
        thread.join().unwrap();
        assert!(ctx.is_done());
        assert!(group.is_empty());
        data.read();
    });
}

/// What runs the handler drops it: who waits is told.
#[test]
fn handler_dropped_vs_who_waits() {
    model(USUAL, || {
        let data = Data::new();
        let Running {
            group,
            answer,
            handler,
            ctx,
        } = running(&data);
        let thread = spawn(move || drop(handler));
        let answer = block_on(answer).unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(ctx.is_done());
        thread.join().unwrap();
        assert!(group.is_empty());
    });
}
