//! The service around the handler's.

use super::future::ResponseFuture;
use super::headers::Protocol;
use super::settings::Settings;
use super::ContextBody;
use alloc::sync::Arc;
use core::fmt;
use core::task::{self, Poll};
use http::{Request, Response};
use tower_service::Service;

/// A service whose requests have contexts; made by [`ContextLayer`](super::ContextLayer).
#[derive(Clone)]
pub struct ContextService<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> ContextService<S> {
    pub(super) fn new(inner: S, settings: Arc<Settings>) -> ContextService<S> {
        ContextService { inner, settings }
    }
}

impl<S, B, R> Service<Request<B>> for ContextService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: http_body::Body,
{
    type Response = Response<ContextBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> ResponseFuture<S::Future> {
        let protocol = Protocol::of(&request);
        let mut future = ResponseFuture::new();
        let begun = {
            let (lifetime, member) = future.parts();
            self.settings
                .begin(&mut request, protocol, lifetime, member)
        };
        match begun {
            Ok(_) => future.run(request, |request| self.inner.call(request)),
            Err(answer) => future.answer(answer, protocol),
        }
        future
    }
}

impl<S: fmt::Debug> fmt::Debug for ContextService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
