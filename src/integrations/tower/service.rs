//! The service around the handler's.

use super::answer::Answer;
use super::future::ResponseFuture;
use super::headers::{self, Carried, Protocol};
use super::layer::{Malformed, Settings};
use super::lifetime::Lifetime;
use super::upgrade::UpgradeGuard;
use super::ContextBody;
use crate::context::Context;
use crate::group::Member;
use alloc::borrow::Cow;
use alloc::format;
use alloc::sync::Arc;
use core::fmt;
use core::task::{self, Poll};
use http::header::UPGRADE;
use http::{Method, Request, Response};
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
        let protocol = Protocol::of(request.headers());
        match self.settings.begin(&mut request, protocol) {
            Ok(begun) => ResponseFuture::run(begun, || self.inner.call(request)),
            Err(answer) => ResponseFuture::answer(answer, protocol),
        }
    }
}

impl Settings {
    /// The request's context, put into its extensions; or what is to be answered instead.
    fn begin<B>(
        &self,
        request: &mut Request<B>,
        protocol: Protocol,
    ) -> Result<(Lifetime, Option<Member>), Answer> {
        let counters = &self.shared.counters;
        counters.received();
        let now = self.has_deadlines().then(|| self.ctx.now());
        let (mut said, well) = headers::earliest(&self.from, request.headers(), protocol);
        if well.is_err() {
            counters.malformed();
            if self.malformed == Malformed::Reject {
                return Err(Answer::Malformed);
            }
        }
        if self.ctx.is_done() {
            counters.refused();
            return Err(Answer::Unavailable);
        }
        let is_expired = said.is_some_and(|said| said.is_zero());
        let may_turn_away = match (&self.ceiling, now) {
            (Some(ceiling), Some(now)) => ceiling.admits(now, is_expired),
            _ => true,
        };
        if is_expired {
            if may_turn_away {
                counters.expired();
                return Err(Answer::Expired);
            }
            said = None;
        }
        let member = match &self.group {
            None => None,
            Some((group, from)) => {
                let name = self.is_named.then(|| {
                    let path = request.uri().path();
                    Cow::Owned(format!("{} {path}", request.method()))
                });
                let Ok(member) = group.enter_from(name, from) else {
                    counters.refused();
                    return Err(Answer::Unavailable);
                };
                Some(member)
            }
        };
        let carried = match self.carry.is_empty() {
            true => None,
            false => Carried::of(&self.carry, request.headers()),
        };
        let with_values;
        let base: &Context = match carried {
            None => &self.ctx,
            Some(carried) => {
                with_values = self.ctx.with_value(carried);
                &with_values
            }
        };
        // What the clock cannot express is no deadline.
        let timeout = self.timeout(said);
        let deadline = now
            .zip(timeout)
            .and_then(|(now, time)| now.checked_add(time));
        let (ctx, guard) = match deadline {
            Some(deadline) => base.with_deadline(deadline),
            None => base.with_cancel(),
        };
        let extensions = request.extensions_mut();
        extensions.insert(ctx.clone());
        let method = request.method();
        let upgrades = *method == Method::CONNECT || request.headers().contains_key(UPGRADE);
        let upgrade = upgrades.then(|| UpgradeGuard::new(self.shared.clone()));
        let shared = self.shared.clone();
        let pair = (ctx, guard);
        let lifetime = Lifetime::new(pair, upgrade.clone(), shared, protocol, method);
        if let Some(upgrade) = upgrade {
            request.extensions_mut().insert(upgrade);
        }
        Ok((lifetime, member))
    }
}

impl<S: fmt::Debug> fmt::Debug for ContextService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
