//! What the compiler has to promise of the public types, and what it has to refuse. Compiled for tests only.
//!
//! Each program that must not compile stands before its twin, which differs from it in what is to blame and does
//! compile. (rustdoc looks at the error's number on nightly only; on stable the twin says that nothing
//! else is wrong.)

// The items below carry doctests, or have only to compile.
#![allow(dead_code)]

use crate::*;
use core::future::Future;
use core::panic::{RefUnwindSafe, UnwindSafe};

const fn handle<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
const fn owned<T: 'static>() {}
const fn copied<T: Copy>() {}
const fn cloned<T: Clone>() {}
const fn future<T: Future>() {}
const fn error<T: core::error::Error>() {}

/// Whatever the features.
const _: () = {
    handle::<CancellationToken>();
    handle::<Cause>();
    handle::<ContextError>();
    handle::<DropGuard>();
    handle::<DropGuardRef<'static>>();
    handle::<Registration>();
    handle::<StaticToken>();
    handle::<StopOnDrop>();
    handle::<WaitForCancellationFuture<'static>>();
    handle::<WaitForCancellationFutureOwned>();
    handle::<WithCancellationToken<'static, core::future::Ready<()>>>();
    handle::<WithCancellationTokenOwned<core::future::Ready<()>>>();

    owned::<CancellationToken>();
    owned::<Cause>();
    owned::<DropGuard>();
    owned::<Registration>();
    owned::<StaticToken>();
    owned::<StopOnDrop>();
    owned::<WaitForCancellationFutureOwned>();

    cloned::<CancellationToken>();
    cloned::<Cause>();
    copied::<ContextError>();
    error::<Cause>();
    error::<ContextError>();
    future::<WaitForCancellationFuture<'static>>();
    future::<WaitForCancellationFutureOwned>();
};

#[cfg(feature = "crossbeam-channel")]
const _: () = {
    use crate::integrations::crossbeam_channel::{DoneReceiver, Never};
    handle::<DoneReceiver>();
    owned::<DoneReceiver>();
    cloned::<DoneReceiver>();
    handle::<Never<'static>>();
};

#[cfg(all(unix, feature = "fd"))]
const _: () = {
    use crate::integrations::fd::DoneFd;
    handle::<DoneFd>();
    owned::<DoneFd>();
};

#[cfg(all(unix, feature = "process"))]
const _: () = {
    use crate::integrations::process::{Ended, Running, Supervised};
    handle::<Ended>();
    cloned::<Ended>();
    handle::<Running>();
    owned::<Running>();
    handle::<Supervised>();
    owned::<Supervised>();
};

#[cfg(all(any(unix, windows), feature = "signals"))]
const _: () = {
    use crate::integrations::signals::{Signal, SignalGuard, Signals};
    handle::<Signal>();
    copied::<Signal>();
    error::<Signal>();
    handle::<Signals>();
    handle::<SignalGuard>();
    owned::<SignalGuard>();
};

#[cfg(all(any(unix, windows), feature = "serve"))]
const _: () = {
    use crate::integrations::serve::{
        Phase, Serve, Server, ServerFuture, ServerHandle, ServerReport, Shutdown,
    };
    copied::<Phase>();
    handle::<Phase>();
    handle::<Serve>();
    handle::<Server>();
    owned::<Server>();
    handle::<ServerFuture>();
    handle::<ServerHandle>();
    cloned::<ServerHandle>();
    handle::<ServerReport>();
    cloned::<ServerReport>();
    handle::<Shutdown>();
};

#[cfg(feature = "tower")]
const _: () = {
    use crate::integrations::tower::*;
    use core::convert::Infallible;
    use core::future::Ready;
    // Cloned for each connection.
    const fn layer<T: Clone + Send + Sync + Unpin + 'static>() {}
    layer::<ContextLayer>();
    layer::<SpawnedLayer>();
    layer::<PropagateLayer>();
    layer::<UploadLayer>();
    layer::<ContextService<()>>();
    layer::<SpawnedService<()>>();
    layer::<PropagateService<()>>();
    layer::<UploadService<()>>();
    layer::<UpgradeGuard>();
    layer::<DeadlineHeader>();
    layer::<Carried>();

    // What a connection's task holds, which may go from one thread to another.
    const fn held<T: Send + Unpin + 'static>() {}
    held::<ResponseFuture<Ready<()>>>();
    held::<SpawnedFuture<(), Infallible>>();
    held::<CallFuture<Ready<()>>>();
    held::<HandlerTask>();
    held::<ContextBody<()>>();
    held::<CallBody<()>>();
    held::<UploadBody<()>>();
    // If what they wrap is.
    const fn shared<T: Sync>() {}
    shared::<ContextBody<()>>();
    shared::<CallBody<()>>();
    shared::<UploadBody<()>>();

    error::<Completed>();
    error::<ClientGone>();
    error::<HandlerFailed>();
    error::<Shutdown>();
    error::<DeadlineReached>();
    error::<UploadCut>();
    error::<grpc_timeout::MalformedTimeout>();
    copied::<Mode>();
    copied::<Malformed>();
    copied::<Counts>();
};

#[cfg(feature = "testing")]
const _: () = {
    use crate::TestClock;
    handle::<TestClock>();
    owned::<TestClock>();
    cloned::<TestClock>();
};

#[cfg(feature = "std")]
const _: () = {
    handle::<Context>();
    handle::<CancelGuard>();
    handle::<StopAndWaitOnDrop>();
    owned::<StopAndWaitOnDrop>();
    handle::<Canceller>();
    handle::<Done<'static>>();
    handle::<CancelledOwned>();
    handle::<DoneOwned>();
    handle::<DoneSignal>();
    handle::<CauseOnDrop>();
    handle::<DeadlineGuard>();
    handle::<IdleGuard>();
    handle::<GraceOver>();
    handle::<IdleTimeout>();
    handle::<GuardedContext>();

    handle::<Group>();
    handle::<Spawner>();
    handle::<Named<'static>>();
    handle::<Member>();
    handle::<Outcomes<()>>();
    handle::<Tracked<core::future::Ready<()>>>();
    handle::<Report>();
    handle::<Unfinished>();
    handle::<TaskInfo>();
    handle::<Panicked>();
    owned::<Group>();
    owned::<Spawner>();
    owned::<Member>();
    cloned::<Spawner>();
    cloned::<Scope<'static, 'static>>();
    future::<Tracked<core::future::Ready<()>>>();
    error::<Refused<()>>();
    error::<Unfinished>();
    error::<Panicked>();
    error::<Closed>();
    error::<Full>();

    owned::<Context>();
    owned::<CancelGuard>();
    owned::<CauseOnDrop>();
    owned::<DeadlineGuard>();
    owned::<IdleGuard>();
    owned::<GuardedContext>();
    owned::<Canceller>();
    owned::<CancelledOwned>();
    owned::<DoneOwned>();
    owned::<DoneSignal>();

    cloned::<Context>();
    cloned::<Canceller>();
    cloned::<DoneSignal>();
    error::<GuardDropped>();
    future::<Done<'static>>();
    future::<DoneOwned>();
    future::<CancelledOwned>();

    // A foreign context is a trait object to us.
    const fn object<T: ?Sized + Send + Sync + 'static>() {}
    object::<dyn ForeignContext>();
};

#[cfg(feature = "tokio-util")]
const _: () = {
    handle::<integrations::tokio_util::TokioToken>();
    owned::<integrations::tokio_util::TokioToken>();
};

/// Futures that have no name, and wrappers that are what the wrapped future is.
mod of_values {
    use super::*;

    fn can_be_spawned(_: &(impl Send + Sync)) {}
    fn is_handle<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>(_: &T) {}

    fn of_tokens<F: Future + Send + Sync>(token: CancellationToken, [a, b, c]: [F; 3]) {
        can_be_spawned(&token.run_until_cancelled(a));
        can_be_spawned(&token.clone().run_until_cancelled_owned(b));
        can_be_spawned(&c.with_cancellation_token(&token));
        is_handle(&token.on_cancel(|| ()).stop_async());
    }

    #[cfg(all(any(unix, windows), feature = "serve"))]
    fn of_servers<F>(server: integrations::serve::Server, f: F)
    where
        F: Future<Output = std::io::Result<()>> + Send,
    {
        fn can_be_spawned(_: &impl Send) {}
        can_be_spawned(&server.run(f));
    }

    #[cfg(feature = "std")]
    fn of_contexts<F: Future + Send + Sync>(ctx: &Context, f: F) {
        can_be_spawned(&ctx.run(f));
        can_be_spawned(&ctx.run_or_cause(async {}));
        can_be_spawned(&ctx.sleep(std::time::Duration::ZERO));
    }

    fn unpin_if_it_is<F: Future + Unpin>(
        f: WithCancellationToken<'_, F>,
        g: WithCancellationTokenOwned<F>,
    ) -> impl Unpin + use<'_, F> {
        (f, g)
    }

    // A borrow may be taken for a shorter one.
    fn shorter_future<'a>(f: WaitForCancellationFuture<'static>) -> WaitForCancellationFuture<'a> {
        f
    }
    fn shorter_guard<'a>(g: DropGuardRef<'static>) -> DropGuardRef<'a> {
        g
    }
    fn shorter_wrapper<'a, F>(
        f: WithCancellationToken<'static, F>,
    ) -> WithCancellationToken<'a, F> {
        f
    }
    #[cfg(feature = "std")]
    fn shorter_done<'a>(f: Done<'static>) -> Done<'a> {
        f
    }

    // What a guard gives back lives as long as the token, not as the guard.
    fn outlives_the_guard(token: &CancellationToken) -> &CancellationToken {
        token.drop_guard_ref().disarm()
    }
}

// ----- what runs elsewhere has to be Send ---------------------------------------------------------

/// A callback runs on the thread that cancels.
///
/// ```compile_fail,E0277
/// let (token, n) = (cancel_tree::CancellationToken::new(), std::rc::Rc::new(1));
/// drop(token.on_cancel(move || drop(n)));
/// ```
///
/// ```
/// let (token, n) = (cancel_tree::CancellationToken::new(), std::sync::Arc::new(1));
/// drop(token.on_cancel(move || drop(n)));
/// ```
///
/// It may run after everything on the stack is gone.
///
/// ```compile_fail,E0597
/// let token = cancel_tree::CancellationToken::new();
/// let n = 1;
/// let n = &n;
/// drop(token.on_cancel(move || drop(n.to_string())));
/// ```
///
/// ```
/// let token = cancel_tree::CancellationToken::new();
/// static N: i32 = 1;
/// let n = &N;
/// drop(token.on_cancel(move || drop(n.to_string())));
/// ```
struct Callbacks;

/// `after_func` runs on a worker.
///
/// ```compile_fail,E0277
/// let (ctx, n) = (cancel_tree::Context::background(), std::rc::Rc::new(1));
/// drop(ctx.after_func(move || drop(n)));
/// ```
///
/// ```
/// let (ctx, n) = (cancel_tree::Context::background(), std::sync::Arc::new(1));
/// drop(ctx.after_func(move || drop(n)));
/// ```
#[cfg(feature = "std")]
struct AfterFunc;

/// A value is seen by every thread that has the context: not Send, not Sync, not `'static`.
///
/// ```compile_fail,E0277
/// let _ = cancel_tree::Context::background().with_value(std::rc::Rc::new(1));
/// ```
///
/// ```
/// let _ = cancel_tree::Context::background().with_value(std::sync::Arc::new(1));
/// ```
///
/// ```compile_fail,E0277
/// let _ = cancel_tree::Context::background().with_value(std::cell::Cell::new(1));
/// ```
///
/// ```
/// let _ = cancel_tree::Context::background().with_value(std::sync::Mutex::new(1));
/// ```
///
/// ```compile_fail,E0597
/// struct Text(&'static str);
/// let text = String::from("short");
/// let _ = cancel_tree::Context::background().with_value(Text(&text));
/// ```
///
/// ```
/// struct Text(&'static str);
/// let text = "long";
/// let _ = cancel_tree::Context::background().with_value(Text(&text));
/// ```
///
/// Nor is one asked for that cannot be there.
///
/// ```compile_fail,E0277
/// let _ = cancel_tree::Context::background().value::<std::rc::Rc<i32>>();
/// ```
///
/// ```
/// let _ = cancel_tree::Context::background().value::<std::sync::Arc<i32>>();
/// ```
#[cfg(feature = "std")]
struct Values;

/// A cause goes to every thread that asks why.
///
/// ```compile_fail,E0277
/// let error: Box<dyn std::error::Error> = "local".into();
/// let _ = cancel_tree::Cause::new(error);
/// ```
///
/// ```
/// let error: Box<dyn std::error::Error + Send + Sync> = "anywhere".into();
/// let _ = cancel_tree::Cause::new(error);
/// ```
struct Causes;

/// A foreign context's future is polled by whoever wakes it; the context is asked by every thread.
///
/// ```compile_fail,E0277
/// fn f(signal: cancel_tree::DoneSignal, n: std::rc::Rc<i32>) {
///     let f = std::future::poll_fn(move |_| std::task::Poll::Ready(n.to_string()));
///     drop(signal.when_ready(f));
/// }
/// ```
///
/// ```
/// fn f(signal: cancel_tree::DoneSignal, n: std::sync::Arc<i32>) {
///     let f = std::future::poll_fn(move |_| std::task::Poll::Ready(n.to_string()));
///     drop(signal.when_ready(f));
/// }
/// ```
///
/// ```compile_fail,E0277
/// struct Foreign(std::cell::Cell<i32>);
/// impl cancel_tree::ForeignContext for Foreign {
///     fn on_done(&self, _: cancel_tree::DoneSignal) -> Box<dyn std::any::Any + Send> {
///         Box::new(())
///     }
/// }
/// ```
///
/// ```
/// struct Foreign(std::sync::Mutex<i32>);
/// impl cancel_tree::ForeignContext for Foreign {
///     fn on_done(&self, _: cancel_tree::DoneSignal) -> Box<dyn std::any::Any + Send> {
///         Box::new(())
///     }
/// }
/// ```
#[cfg(feature = "std")]
struct Foreign;

/// A wrapped future is no more than it was: not Send, not Sync, not Unpin, not UnwindSafe.
///
/// ```compile_fail,E0277
/// use cancel_tree::FutureExt;
/// fn check(_: impl Send) {}
/// let n = std::rc::Rc::new(1);
/// check(std::future::ready(n).with_cancellation_token_owned(Default::default()));
/// ```
///
/// ```
/// use cancel_tree::FutureExt;
/// fn check(_: impl Send) {}
/// let n = std::sync::Arc::new(1);
/// check(std::future::ready(n).with_cancellation_token_owned(Default::default()));
/// ```
///
/// ```compile_fail,E0277
/// fn check(_: impl Send) {}
/// let n = std::rc::Rc::new(1);
/// check(cancel_tree::CancellationToken::new().run_until_cancelled_owned(std::future::ready(n)));
/// ```
///
/// ```
/// fn check(_: impl Send) {}
/// let n = std::sync::Arc::new(1);
/// check(cancel_tree::CancellationToken::new().run_until_cancelled_owned(std::future::ready(n)));
/// ```
///
/// ```compile_fail,E0277
/// use cancel_tree::FutureExt;
/// fn check(_: &impl Sync) {}
/// let n = std::cell::Cell::new(1);
/// check(&std::future::ready(n).with_cancellation_token_owned(Default::default()));
/// ```
///
/// ```
/// use cancel_tree::FutureExt;
/// fn check(_: &impl Sync) {}
/// let n = std::sync::Mutex::new(1);
/// check(&std::future::ready(n).with_cancellation_token_owned(Default::default()));
/// ```
///
/// ```compile_fail,E0277
/// use cancel_tree::FutureExt;
/// fn check(_: impl Unpin) {}
/// check(async {}.with_cancellation_token_owned(Default::default()));
/// ```
///
/// ```
/// use cancel_tree::FutureExt;
/// fn check(_: impl Unpin) {}
/// check(std::future::ready(()).with_cancellation_token_owned(Default::default()));
/// ```
///
/// ```compile_fail,E0277
/// use cancel_tree::{CancellationToken, FutureExt};
/// fn check(_: impl Unpin) {}
/// check(async {}.with_cancellation_token(&CancellationToken::new()));
/// ```
///
/// ```
/// use cancel_tree::{CancellationToken, FutureExt};
/// fn check(_: impl Unpin) {}
/// check(std::future::ready(()).with_cancellation_token(&CancellationToken::new()));
/// ```
///
/// ```compile_fail,E0277
/// use cancel_tree::FutureExt;
/// fn check(_: impl std::panic::UnwindSafe) {}
/// check(std::future::ready(&mut 1).with_cancellation_token_owned(Default::default()));
/// ```
///
/// ```
/// use cancel_tree::FutureExt;
/// fn check(_: impl std::panic::UnwindSafe) {}
/// check(std::future::ready(&1).with_cancellation_token_owned(Default::default()));
/// ```
struct Wrapped;

/// The same of a context's `run`.
///
/// ```compile_fail,E0277
/// fn check(_: impl Send) {}
/// let n = std::rc::Rc::new(1);
/// check(cancel_tree::Context::background().run(std::future::ready(n)));
/// ```
///
/// ```
/// fn check(_: impl Send) {}
/// let n = std::sync::Arc::new(1);
/// check(cancel_tree::Context::background().run(std::future::ready(n)));
/// ```
#[cfg(feature = "std")]
struct Run;

// ----- what is borrowed is not outlived -----------------------------------------------------------

/// A future that borrows its token, and one that owns it.
///
/// ```compile_fail,E0505
/// let token = cancel_tree::CancellationToken::new();
/// let future = token.cancelled();
/// drop(token);
/// drop(future);
/// ```
///
/// ```
/// let token = cancel_tree::CancellationToken::new();
/// let future = token.clone().cancelled_owned();
/// drop(token);
/// drop(future);
/// ```
///
/// ```compile_fail,E0505
/// use cancel_tree::FutureExt;
/// let token = cancel_tree::CancellationToken::new();
/// let future = async {}.with_cancellation_token(&token);
/// drop(token);
/// drop(future);
/// ```
///
/// ```
/// use cancel_tree::FutureExt;
/// let token = cancel_tree::CancellationToken::new();
/// let future = async {}.with_cancellation_token_owned(token.clone());
/// drop(token);
/// drop(future);
/// ```
///
/// ```compile_fail,E0505
/// let token = cancel_tree::CancellationToken::new();
/// let guard = token.drop_guard_ref();
/// drop(token);
/// drop(guard);
/// ```
///
/// ```
/// let token = cancel_tree::CancellationToken::new();
/// let guard = token.clone().drop_guard();
/// drop(token);
/// drop(guard);
/// ```
///
/// A token that is seen through its guard goes with it.
///
/// ```compile_fail,E0505
/// let guard = cancel_tree::CancellationToken::new().drop_guard();
/// let token = guard.token();
/// drop(guard);
/// assert!(token.is_cancelled());
/// ```
///
/// ```
/// let guard = cancel_tree::CancellationToken::new().drop_guard();
/// let token = guard.token().clone();
/// drop(guard);
/// assert!(token.is_cancelled());
/// ```
///
/// The error goes with the last that has the cause.
///
/// ```compile_fail,E0505
/// let cause = cancel_tree::Cause::new(std::fmt::Error);
/// let error = cause.downcast_ref::<std::fmt::Error>();
/// drop(cause);
/// assert!(error.is_some());
/// ```
///
/// ```
/// let cause = cancel_tree::Cause::new(std::fmt::Error);
/// let error = cause.downcast_ref::<std::fmt::Error>().copied();
/// drop(cause);
/// assert!(error.is_some());
/// ```
struct Borrowed;

/// The same of contexts.
///
/// ```compile_fail,E0505
/// let ctx = cancel_tree::Context::background();
/// let future = ctx.done();
/// drop(ctx);
/// drop(future);
/// ```
///
/// ```
/// let ctx = cancel_tree::Context::background();
/// let future = ctx.clone().done_owned();
/// drop(ctx);
/// drop(future);
/// ```
///
/// ```compile_fail,E0505
/// let ctx = cancel_tree::Context::background();
/// let future = ctx.run(async {});
/// drop(ctx);
/// drop(future);
/// ```
///
/// ```
/// let ctx = cancel_tree::Context::background();
/// let future = async move { ctx.run(async {}).await };
/// drop(future);
/// ```
///
/// ```compile_fail,E0505
/// let ctx = cancel_tree::Context::background().with_value(7);
/// let seven = ctx.value::<i32>();
/// drop(ctx);
/// assert_eq!(seven, Some(&7));
/// ```
///
/// ```
/// let ctx = cancel_tree::Context::background().with_value(7);
/// let seven = ctx.value::<i32>().copied();
/// drop(ctx);
/// assert_eq!(seven, Some(7));
/// ```
#[cfg(feature = "std")]
struct BorrowedOfContexts;

// ----- rights that are used up, and rights that one does not have ---------------------------------

/// What gives a right up, or uses it, takes it away.
///
/// ```compile_fail,E0382
/// let guard = cancel_tree::CancellationToken::new().drop_guard();
/// let token = guard.disarm();
/// assert_eq!(guard.token(), &token);
/// ```
///
/// ```
/// let guard = cancel_tree::CancellationToken::new().drop_guard();
/// let token = guard.token();
/// assert_eq!(guard.token(), token);
/// ```
///
/// ```compile_fail,E0382
/// let registration = cancel_tree::CancellationToken::new().on_cancel(|| ());
/// let _ = registration.stop();
/// let _ = registration.stop_async();
/// ```
///
/// ```
/// let registration = cancel_tree::CancellationToken::new().on_cancel(|| ());
/// let _ = registration.stop_async();
/// ```
///
/// ```compile_fail,E0382
/// let guard = cancel_tree::CancellationToken::new().on_cancel(|| ()).stop_on_drop();
/// let _ = guard.disarm().stop();
/// drop(guard);
/// ```
///
/// ```
/// let guard = cancel_tree::CancellationToken::new().on_cancel(|| ()).stop_on_drop();
/// drop(guard);
/// ```
///
/// There is one of it.
///
/// ```compile_fail,E0599
/// let _ = cancel_tree::CancellationToken::new().drop_guard().clone();
/// ```
///
/// ```
/// let _ = cancel_tree::CancellationToken::new().clone().drop_guard();
/// ```
///
/// ```compile_fail,E0599
/// let _ = cancel_tree::CancellationToken::new().on_cancel(|| ()).clone();
/// ```
///
/// ```
/// drop(cancel_tree::CancellationToken::new().clone().on_cancel(|| ()));
/// ```
struct Rights;

/// A context can be listened to, and nothing else.
///
/// ```compile_fail,E0599
/// let (ctx, guard) = cancel_tree::Context::background().with_cancel();
/// ctx.cancel();
/// ```
///
/// ```
/// let (ctx, guard) = cancel_tree::Context::background().with_cancel();
/// guard.cancel();
/// ```
///
/// ```compile_fail,E0382
/// let (ctx, guard) = cancel_tree::Context::background().with_cancel();
/// guard.detach();
/// guard.cancel();
/// ```
///
/// ```
/// let (ctx, guard) = cancel_tree::Context::background().with_cancel();
/// let canceller = guard.canceller();
/// guard.detach();
/// canceller.cancel();
/// ```
///
/// ```compile_fail,E0599
/// let (ctx, guard) = cancel_tree::Context::background().with_cancel();
/// drop(guard.clone());
/// ```
///
/// ```
/// let (ctx, guard) = cancel_tree::Context::background().with_cancel();
/// drop(guard.canceller().clone());
/// ```
///
/// The right that a foreign context has cannot be made.
///
/// ```compile_fail,E0423
/// let signal: cancel_tree::DoneSignal = cancel_tree::DoneSignal(todo!());
/// ```
///
/// ```no_run
/// let signal: cancel_tree::DoneSignal = todo!();
/// ```
#[cfg(feature = "std")]
struct RightsOfContexts;

/// A tracked future is Send only if the future is.
///
/// ```compile_fail,E0277
/// use cancel_tree::{Context, Group};
/// let local = std::rc::Rc::new(5);
/// let task = Group::new(&Context::background()).track(async move { drop(local) });
/// std::thread::spawn(move || drop(task));
/// ```
///
/// ```
/// use cancel_tree::{Context, Group};
/// let shared = std::sync::Arc::new(5);
/// let task = Group::new(&Context::background()).track(async move { drop(shared) });
/// std::thread::spawn(move || drop(task));
/// ```
#[cfg(feature = "std")]
fn tracked() {}

/// A scope's thread cannot keep what it borrows longer than the scope is.
///
/// ```compile_fail,E0597
/// use cancel_tree::{Context, Group};
/// Group::scope(&Context::background(), |g| {
///     let inside = String::from("gone");
///     g.spawn_thread(|_ctx| drop(inside.len())).unwrap();
/// }).unwrap();
/// ```
///
/// ```
/// use cancel_tree::{Context, Group};
/// let outside = String::from("there");
/// Group::scope(&Context::background(), |g| {
///     g.spawn_thread(|_ctx| drop(outside.len())).unwrap();
/// }).unwrap();
/// ```
#[cfg(feature = "std")]
fn scope() {}

/// A handler that is a task goes to another thread, and so does its answer.
///
/// ```compile_fail,E0277
/// # use cancel_tree::{integrations::tower::{ContextLayer, Mode}, Context, Group};
/// # use {http::{Request, Response}, tower_layer::Layer, tower_service::Service};
/// # struct Never;
/// # impl Service<Request<()>> for Never {
/// #     type Response = Response<Body>;
/// #     type Error = std::convert::Infallible;
/// #     type Future = std::future::Pending<Result<Response<Body>, Self::Error>>;
/// #     fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> { todo!() }
/// #     fn call(&mut self, _: Request<()>) -> Self::Future { todo!() }
/// # }
/// # impl http_body::Body for Body {
/// #     type Data = &'static [u8];
/// #     type Error = std::convert::Infallible;
/// #     fn poll_frame(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>)
/// #         -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> { todo!() }
/// # }
/// struct Body(std::rc::Rc<u8>);
/// fn check(_: impl Service<Request<()>>) {}
/// let group = Group::new(&Context::background());
/// check(ContextLayer::new(&Context::background()).spawned(&group, Mode::Detached, drop).layer(Never));
/// ```
///
/// ```
/// # use cancel_tree::{integrations::tower::{ContextLayer, Mode}, Context, Group};
/// # use {http::{Request, Response}, tower_layer::Layer, tower_service::Service};
/// # struct Never;
/// # impl Service<Request<()>> for Never {
/// #     type Response = Response<Body>;
/// #     type Error = std::convert::Infallible;
/// #     type Future = std::future::Pending<Result<Response<Body>, Self::Error>>;
/// #     fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> { todo!() }
/// #     fn call(&mut self, _: Request<()>) -> Self::Future { todo!() }
/// # }
/// # impl http_body::Body for Body {
/// #     type Data = &'static [u8];
/// #     type Error = std::convert::Infallible;
/// #     fn poll_frame(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>)
/// #         -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> { todo!() }
/// # }
/// struct Body(std::sync::Arc<u8>);
/// fn check(_: impl Service<Request<()>>) {}
/// let group = Group::new(&Context::background());
/// check(ContextLayer::new(&Context::background()).spawned(&group, Mode::Detached, drop).layer(Never));
/// ```
#[cfg(feature = "tower")]
fn spawned_handlers() {}
