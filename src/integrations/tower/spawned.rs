//! Handlers that are tasks of their own: they outlive the wait for the answer.

use super::answer::Answer;
use super::body::ToCome;
use super::headers::Protocol;
use super::layer::ContextLayer;
use super::lifetime::{end, give_up, step, Ending, Lifetime};
use super::member::Share;
use super::settings::Settings;
use super::shared::HandlerGuard;
use super::slot::{slot, Receiver};
use super::task::{HandlerTask, Outcome, Running};
use super::ContextBody;
use crate::group::Spawner;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{self, Poll};
use core::time::Duration;
use http::{Request, Response};
use std::panic::{catch_unwind, AssertUnwindSafe};
use tower_layer::Layer;
use tower_service::Service;

/// What becomes of a handler whose answer is no longer waited for: the client is gone, or the deadline has passed.
///
/// (Without a mode, by [`ContextLayer`] alone, the handler is dropped, as axum and hyper do.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Its context is cancelled, and it may end by itself: what it awaits under its context ends, what it does under a
    /// [shield](crate::Context::shield) has the time of the grace. When that is over, the handler is dropped.
    Cooperative {
        /// From the cancel on, also if that came from above: the server's end.
        grace: Duration,
    },
    /// It runs to its end as if nothing had happened: its context has no deadline, and only the server's end cancels it.
    Detached,
}

type Run = Arc<dyn Fn(HandlerTask) + Send + Sync>;

/// A [`ContextLayer`] whose handlers are tasks of their own; made by [`ContextLayer::spawned`].
#[derive(Clone)]
#[must_use = "a layer does nothing unless it is put around a service"]
pub struct SpawnedLayer {
    settings: Settings,
    group: Spawner,
    mode: Mode,
    run: Run,
}

/// A service whose handlers are tasks of their own; made by [`SpawnedLayer`].
#[derive(Clone)]
pub struct SpawnedService<S> {
    inner: S,
    layer: Arc<SpawnedLayer>,
}

impl ContextLayer {
    /// Makes each handler a task of `group` that outlives the wait for its answer, as `mode` says. `run` has to run it, by spawning it on a
    /// runtime. (With the feature `tokio`: [`cooperative`](Self::cooperative), [`detached`](Self::detached).)
    ///
    /// The answer waits for none of that: at the deadline it is a 504 at once, and the handler goes on. The group's
    /// `shutdown` waits for it, and names it in the [`Report`](crate::Report) if it is stuck.
    ///
    /// A handler that panics is answered with 500, or gRPC's 13. The group says so, in the report and by `join`, and goes on. One that is
    /// dropped before its deadline, by its runtime or when the grace is over, is answered with 503, or gRPC's 14 (if what it has left to be called at
    /// the end does not panic).
    ///
    /// A handler that outlives its stream is not bounded by it, either: over HTTP/2, a client that opens streams and resets each at once starts handlers without end.
    /// Give the group a [`limit`](crate::Group::limit) (a server's group: `Serve::limit`): what is too much is answered with 503, or gRPC's 8.
    ///
    /// By route: in axum, `.route_layer(layer)` on those routes that need it.
    ///
    /// # Examples
    ///
    /// ```
    /// use cancel_tree::integrations::tower::{ContextLayer, Mode};
    /// use cancel_tree::{Context, Group};
    /// use std::time::Duration;
    ///
    /// let group = Group::new(&Context::background());
    /// let grace = Duration::from_secs(2);
    /// let layer = ContextLayer::new(&Context::background()).spawned(
    ///     &group.spawner(),
    ///     Mode::Cooperative { grace },
    ///     // A thread of its own takes the place of a runtime here.
    ///     |handler| drop(std::thread::spawn(|| futures::executor::block_on(handler))),
    /// );
    /// # let _ = layer;
    /// ```
    ///
    /// # Cost
    ///
    /// Beyond that of the layer: four allocations and what a task costs to spawn. `Cooperative` has 11 more for the grace.
    #[track_caller]
    pub fn spawned(
        self,
        group: &Spawner,
        mode: Mode,
        run: impl Fn(HandlerTask) + Send + Sync + 'static,
    ) -> SpawnedLayer {
        SpawnedLayer {
            settings: self.in_group(group).settings,
            group: group.clone(),
            mode,
            run: Arc::new(run),
        }
    }

    /// [Spawns](Self::spawned) handlers on the caller's tokio: when the answer is no longer waited for, the
    /// context is cancelled, and after the grace the handler is dropped.
    #[cfg(feature = "tokio")]
    #[track_caller]
    pub fn cooperative(self, group: &Spawner, grace: Duration) -> SpawnedLayer {
        self.spawned(group, Mode::Cooperative { grace }, on_tokio)
    }

    /// [Spawns](Self::spawned) handlers on the caller's tokio: each runs to its end, whether its answer is waited for or not.
    #[cfg(feature = "tokio")]
    #[track_caller]
    pub fn detached(self, group: &Spawner) -> SpawnedLayer {
        self.spawned(group, Mode::Detached, on_tokio)
    }
}

#[cfg(feature = "tokio")]
fn on_tokio(handler: HandlerTask) {
    // Without a runtime it is dropped: 503.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        drop(runtime.spawn(handler));
    }
}

impl<S> Layer<S> for SpawnedLayer {
    type Service = SpawnedService<S>;

    fn layer(&self, inner: S) -> SpawnedService<S> {
        let layer = Arc::new(self.clone());
        SpawnedService { inner, layer }
    }
}

impl<S, B, R> Service<Request<B>> for SpawnedService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    R: http_body::Body + Send + 'static,
{
    type Response = Response<ContextBody<R>>;
    type Error = S::Error;
    type Future = SpawnedFuture<R, S::Error>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> SpawnedFuture<R, S::Error> {
        let protocol = Protocol::of(&request);
        let layer = &*self.layer;
        let (mut lifetime, mut member) = (None, None);
        let begun = layer
            .settings
            .begin(&mut request, protocol, &mut lifetime, &mut member);
        let above = match begun {
            Ok(above) => above,
            Err(answer) => return SpawnedFuture::answer(answer, protocol),
        };
        let (Some(at), Some(member)) = (&lifetime, member) else {
            unreachable!("it has begun, and a layer that spawns has a group");
        };
        let shared = &layer.settings.shared;
        let (ctx, ends) = match layer.mode {
            Mode::Cooperative { grace } => {
                let ctx = at.context().with_grace(grace);
                let over = ctx.shield().done_owned();
                (ctx, (Some(over), None))
            }
            Mode::Detached => {
                let (ctx, guard) = layer.settings.detached(above).with_cancel();
                let guard = HandlerGuard::new(guard, shared.clone(), layer.group.clone());
                (ctx, (None, Some(guard)))
            }
        };
        match layer.mode {
            Mode::Cooperative { .. } => member.is_future_under(&ctx),
            Mode::Detached => member.is_detached_under(&ctx),
        }
        request.extensions_mut().insert(ctx);
        let inner = &mut self.inner;
        // AssertUnwindSafe: the service is as it would be after a panic that goes on.
        let called = catch_unwind(AssertUnwindSafe(|| member.step(|| inner.call(request))));
        let future = match called {
            Ok(future) => future,
            Err(payload) => {
                member.note_panic(&*payload);
                if let Some(guard) = &ends.1 {
                    guard.failed(&member);
                }
                let mut member = Some(member);
                end(&mut lifetime, &member, Ending::Failed);
                give_up(&mut member);
                return SpawnedFuture::answer(Answer::Failed, protocol);
            }
        };
        let (sender, receiver) = slot();
        let running = Running::new(future, ends, sender, member);
        (layer.run)(Box::pin(running));
        SpawnedFuture {
            lifetime,
            receiver: Some(receiver),
            answer: None,
        }
    }
}

/// The wait for a handler that is a task of its own; made by [`SpawnedService`].
///
/// # Cancel safety
///
/// Dropping it leaves the handler to its [`Mode`].
#[must_use = "futures do nothing unless polled"]
pub struct SpawnedFuture<R, E> {
    /// The first to go: the handler is told before its answer is dropped.
    lifetime: Option<Lifetime>,
    receiver: Option<Receiver<Outcome<R, E>>>,
    answer: Option<(Answer, Protocol)>,
}

// What runs handlers is called where nothing is held, and an answer is taken over whole: a panic leaves nothing half done.
impl core::panic::UnwindSafe for SpawnedLayer {}
impl core::panic::RefUnwindSafe for SpawnedLayer {}
impl<S: core::panic::UnwindSafe> core::panic::UnwindSafe for SpawnedService<S> {}
impl<S: core::panic::RefUnwindSafe> core::panic::RefUnwindSafe for SpawnedService<S> {}
impl<R, E> core::panic::UnwindSafe for SpawnedFuture<R, E> {}
impl<R, E> core::panic::RefUnwindSafe for SpawnedFuture<R, E> {}

impl<R, E> SpawnedFuture<R, E> {
    fn answer(answer: Answer, protocol: Protocol) -> SpawnedFuture<R, E> {
        SpawnedFuture {
            lifetime: None,
            receiver: None,
            answer: Some((answer, protocol)),
        }
    }

    /// Ends the request, with an answer in the place of the handler's.
    fn end(
        &mut self,
        mut member: Option<Share>,
        ending: Ending,
        answer: Answer,
    ) -> Response<ContextBody<R>> {
        let protocol = end(&mut self.lifetime, &member, ending);
        self.receiver = None;
        give_up(&mut member);
        ContextBody::without(answer.response(protocol))
    }
}

impl<R: http_body::Body, E> Future for SpawnedFuture<R, E> {
    type Output = Result<Response<ContextBody<R>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let Some(receiver) = &mut self.receiver else {
            let Some((answer, protocol)) = self.answer.take() else {
                panic!("polled after it was ready");
            };
            return Poll::Ready(Ok(ContextBody::without(answer.response(protocol))));
        };
        Poll::Ready(Ok(match receiver.poll(cx) {
            // Also if the deadline has passed meanwhile: what is ready is not replaced.
            Poll::Ready(Some(mut outcome)) => {
                let mut member = outcome.member.take();
                let (guard, result) = (outcome.guard.take(), outcome.result.take());
                self.receiver = None;
                match (result, self.lifetime.take()) {
                    (Some(Ok(response)), Some(mut lifetime)) => {
                        lifetime.take_over(guard);
                        let mut lifetime = Some(lifetime);
                        let to_come = step(&mut lifetime, &member, || ToCome::of(&response));
                        ContextBody::around(&mut lifetime, &mut member, response, to_come)
                    }
                    (Some(Err(error)), mut lifetime) => {
                        if let Some(lifetime) = &mut lifetime {
                            lifetime.take_over(guard);
                        }
                        end(&mut lifetime, &member, Ending::Failed);
                        give_up(&mut member);
                        return Poll::Ready(Err(error));
                    }
                    (_, lifetime) => {
                        self.lifetime = lifetime;
                        self.end(member, Ending::Failed, Answer::Failed)
                    }
                }
            }
            // It was dropped by what runs it, or its grace is over: by the deadline's, if both are found here at once.
            Poll::Ready(None) => match &self.lifetime {
                Some(at) if at.is_past() => self.end(None, Ending::Deadline, Answer::Expired),
                _ => self.end(None, Ending::Failed, Answer::Unavailable),
            },
            Poll::Pending => {
                if !self.lifetime.as_mut().is_some_and(|at| at.poll_past(cx)) {
                    return Poll::Pending;
                }
                self.end(None, Ending::Deadline, Answer::Expired)
            }
        }))
    }
}

impl fmt::Debug for SpawnedLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnedLayer")
            .field("mode", &self.mode)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug> fmt::Debug for SpawnedService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnedService")
            .field("inner", &self.inner)
            .field("mode", &self.layer.mode)
            .finish_non_exhaustive()
    }
}

impl<R, E> fmt::Debug for SpawnedFuture<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnedFuture")
            .field("is_waiting", &self.receiver.is_some())
            .finish_non_exhaustive()
    }
}
