//! What a layer knows, and how a request begins under it.

use super::answer::Answer;
use super::counts::{Ceiling, Counters};
use super::headers::{self, Carried, DeadlineHeader, Protocol};
use super::lifetime::Lifetime;
use super::member::Share;
use super::shared::{Causes, Shared};
use super::upgrade::UpgradeGuard;
use crate::context::Context;
use crate::group::{Spawner, Start};
use alloc::borrow::Cow;
use alloc::format;
use alloc::sync::Arc;
use core::panic::Location;
use core::time::Duration;
use http::header::{HeaderName, UPGRADE};
use http::{Method, Request};

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) ctx: Context,
    pub(super) group: Option<(Spawner, &'static Location<'static>)>,
    pub(super) is_named: bool,
    pub(super) max: Option<Duration>,
    pub(super) default: Option<Duration>,
    pub(super) from: Arc<[DeadlineHeader]>,
    pub(super) malformed: Malformed,
    pub(super) carry: Arc<[HeaderName]>,
    pub(super) ceiling: Option<Arc<Ceiling>>,
    pub(super) shared: Arc<Shared>,
}

/// What becomes of a request whose header for the deadline says none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// As if it were not there.
    #[default]
    Ignore,
    /// It is answered with 400, or gRPC's 13 (INTERNAL).
    Reject,
}

impl Settings {
    pub(super) fn new(ctx: &Context) -> Settings {
        Settings {
            ctx: ctx.clone(),
            group: None,
            is_named: false,
            max: None,
            default: None,
            from: Arc::from([]),
            malformed: Malformed::Ignore,
            carry: Arc::from([]),
            ceiling: None,
            shared: Arc::new(Shared {
                causes: Causes::new(),
                counters: Counters::default(),
            }),
        }
    }

    /// Whether any request may have a deadline of its own.
    fn has_deadlines(&self) -> bool {
        self.max.is_some() || self.default.is_some() || !self.from.is_empty()
    }

    /// How long a request may take that said so much.
    fn timeout(&self, said: Option<Duration>) -> Option<Duration> {
        let wanted = said.or(self.default);
        match (wanted, self.max) {
            (Some(wanted), Some(max)) => Some(wanted.min(max)),
            (wanted, max) => wanted.or(max),
        }
    }

    /// Begins a request that is to be handled, in the place of these two: they are too large to be handed on. Returns the context above the request's, if
    /// it is not the server's; or what is to be answered instead.
    pub(super) fn begin<B>(
        &self,
        request: &mut Request<B>,
        protocol: Protocol,
        begun: &mut Option<Lifetime>,
        member: &mut Option<Share>,
    ) -> Result<Option<Context>, Answer> {
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
        if let Some((group, from)) = &self.group {
            *member = Share::of_outer(group, request.extensions());
            if member.is_none() {
                let name = self.is_named.then(|| {
                    let path = request.uri().path();
                    Cow::Owned(format!("{} {path}", request.method()))
                });
                match Start::new(group, name, from).enter() {
                    Ok(place) => {
                        *member = Some(Share::new(place, group, request.extensions_mut()));
                    }
                    Err(refused) => {
                        counters.refused();
                        return Err(match refused.is_full() {
                            true => Answer::Full,
                            false => Answer::Unavailable,
                        });
                    }
                }
            }
        }
        let mut above = request
            .extensions()
            .get()
            .map(|of| below_both(of, &self.ctx));
        if !self.carry.is_empty() {
            let base = above.as_ref().unwrap_or(&self.ctx);
            let outer = base.value::<Carried>();
            if let Some(carried) = Carried::of(&self.carry, request.headers(), outer) {
                above = Some(base.with_value(carried));
            }
        }
        let base = above.as_ref().unwrap_or(&self.ctx);
        // What the clock cannot express is no deadline.
        let pair = match now.zip(self.timeout(said)) {
            Some((now, timeout)) => base.with_timeout_from(now, timeout),
            None => base.with_cancel(),
        };
        let upgrades =
            *request.method() == Method::CONNECT || request.headers().contains_key(UPGRADE);
        let upgrade = upgrades.then(|| {
            // That of a layer further out, in whose place it is put.
            let outer = request.extensions_mut().remove::<UpgradeGuard>();
            UpgradeGuard::new(self.shared.clone(), outer)
        });
        let shared = self.shared.clone();
        *begun = Some(Lifetime::new(
            pair,
            upgrade.clone(),
            shared,
            protocol,
            request,
        ));
        if let Some(upgrade) = upgrade {
            request.extensions_mut().insert(upgrade);
        }
        Ok(above)
    }

    /// With the values of what is above the request's context, but done with the server's only.
    pub(super) fn detached(&self, above: Option<Context>) -> Context {
        match above {
            None => self.ctx.clone(),
            Some(above) if are_done_by_one(&above, &self.ctx) => above,
            Some(above) => Context::any_of([&above.without_cancel(), &self.ctx]),
        }
    }
}

/// Whether they differ in their values at most.
fn are_done_by_one(one: &Context, other: &Context) -> bool {
    one.token() == other.token()
}

/// A context with the values of the first, which is done when either is, or one of the two where that says as much.
#[cold]
pub(super) fn below_both(ctx: &Context, other: &Context) -> Context {
    match other.can_be_done() && !are_done_by_one(other, ctx) {
        true => Context::any_of([ctx, other]),
        false => ctx.clone(),
    }
}
