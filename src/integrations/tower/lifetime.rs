//! A request's context, from the call to the end of the response's body.

use super::headers::{takes_trailers, Protocol};
use super::member::Share;
use super::shared::{say, Guards, HandlerGuard, Shared};
use super::upgrade::UpgradeGuard;
use crate::context::{CancelGuard, Context, DoneOwned};
use crate::sync::Panics;
use crate::tree::ContextError;
use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::task;
use core::time::Duration;
use http::{HeaderMap, Method, Request, Version};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

/// After so long a deadline that moves is asked again, once a cancel from above has come: so late may a sooner one be noticed.
const AGAIN: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ending {
    ClientGone,
    Completed,
    Failed,
    Deadline,
    /// Another is to end it: an upgrade's guard.
    HandedOver,
}

pub(super) struct Lifetime {
    /// None: handed over.
    guards: Option<Guards>,
    done: DoneOwned,
    upgrade: Option<UpgradeGuard>,
    shared: Arc<Shared>,
    pub(super) protocol: Protocol,
    /// The response will have no body, for the request was a HEAD.
    pub(super) is_head: bool,
    pub(super) is_connect: bool,
    /// Nobody asks for more of a body than its length says: HTTP/1, if the head of the response says a length.
    pub(super) ends_by_length: bool,
    /// Of gRPC: HTTP/1 sends none to a client that has not said that it takes them.
    takes_trailers: bool,
    /// The request's own context, once it was cancelled from above and `done` is another one's: it says when the deadline is.
    asked: Option<Context>,
    /// How it has gone if it is dropped now.
    ending: Ending,
}

impl Lifetime {
    pub(super) fn new<B>(
        (ctx, guard): (Context, CancelGuard),
        upgrade: Option<UpgradeGuard>,
        shared: Arc<Shared>,
        protocol: Protocol,
        request: &Request<B>,
    ) -> Lifetime {
        let method = request.method();
        Lifetime {
            guards: Some(Guards {
                request: guard,
                handler: None,
            }),
            done: ctx.done_owned(),
            upgrade,
            shared,
            protocol,
            is_head: method == Method::HEAD,
            is_connect: method == Method::CONNECT,
            ends_by_length: request.version() < Version::HTTP_2,
            takes_trailers: protocol == Protocol::Grpc
                && (request.version() >= Version::HTTP_2 || takes_trailers(request.headers())),
            ending: Ending::ClientGone,
            asked: None,
        }
    }

    pub(super) fn context(&self) -> &Context {
        self.done.context()
    }

    /// The handler had a context of its own, which ends with this one from now on.
    pub(super) fn take_over(&mut self, handler: Option<HandlerGuard>) {
        if let Some(guards) = &mut self.guards {
            guards.handler = handler;
        }
    }

    /// By our own clock: whoever else has a timer for the same moment, and is woken by it, finds us no later than itself.
    pub(super) fn is_past(&self) -> bool {
        let ctx = self.asked.as_ref().unwrap_or(self.context());
        ctx.deadline().is_some_and(|deadline| deadline <= ctx.now())
    }

    /// Whether the deadline has passed; the task is woken when it does.
    pub(super) fn poll_past(&mut self, cx: &mut task::Context<'_>) -> bool {
        if !self.context().may_have_deadline() {
            return false;
        }
        // Only to be woken. A cancel from above tells the handler, and drops nothing, also where it was another's deadline: as
        // that of a group's `shutdown`.
        while Pin::new(&mut self.done).poll(cx).is_ready() && !self.is_past() && self.wait_on() {}
        self.is_past()
    }

    /// The context is done, for it was cancelled from above, and wakes no task any more. Its deadline still holds for what goes on: from here on
    /// another context has it, with nothing above. One that moves is asked again when that one is done; and every while, if it may come sooner.
    #[cold]
    fn wait_on(&mut self) -> bool {
        let asked = self
            .asked
            .get_or_insert_with(|| self.done.context().clone());
        let again = match asked.may_be_sooner() {
            true => asked.now().checked_add(AGAIN),
            false => None,
        };
        let until = asked.deadline().into_iter().chain(again).min();
        let (Some(until), Some(guards)) = (until, &mut self.guards) else {
            return false;
        };
        let (ctx, guard) = asked.without_cancel().with_deadline(until);
        guards.request = guard;
        self.done = ctx.done_owned();
        true
    }

    /// The response has this head, and its body is to come. Trailers say that it was cut off where it is gRPC's, not where only the request was said to be.
    pub(super) fn goes_on(&mut self, head: &HeaderMap) {
        if self.protocol == Protocol::Grpc {
            self.protocol = match self.takes_trailers {
                true => Protocol::said(head),
                false => Protocol::Http,
            };
        }
    }

    pub(super) fn is_upgrade(&self) -> bool {
        self.upgrade.is_some()
    }

    /// The upgrade's guard ends the context, and is a task of the group until then.
    pub(super) fn hand_over(&mut self, member: Option<Share>) {
        // First: if the handler has dropped its guard, the last one goes here, and what is called then is user code.
        self.ending = Ending::HandedOver;
        if let (Some(guards), Some(upgrade)) = (self.guards.take(), self.upgrade.take()) {
            if let Some(member) = &member {
                member.is_held_on();
            }
            upgrade.take_over(guards, member);
        }
    }

    /// How it has gone if it is dropped now.
    pub(super) fn ending(&self) -> Ending {
        self.ending
    }

    /// All of the response is taken, but for trailers perhaps: whoever drops it now has had enough.
    pub(super) fn is_enough(&mut self) {
        self.ending = Ending::Completed;
    }
}

impl Lifetime {
    /// Ends the context, once. What is called then is user code.
    fn finish(&mut self, ending: Ending) -> Panics {
        self.ending = Ending::HandedOver;
        let mut panics = Panics::default();
        let counters = &self.shared.counters;
        let causes = &self.shared.causes;
        let cause = match ending {
            Ending::HandedOver => return panics,
            Ending::Completed => causes.completed.clone(),
            Ending::Failed => causes.failed.clone(),
            Ending::Deadline => ContextError::DeadlineExceeded.into(),
            Ending::ClientGone => causes.client_gone.clone(),
        };
        // The task that ends it need not be woken by that.
        panics.catch(|| self.done.leave());
        if let Some(guards) = &self.guards {
            panics.catch(|| guards.cancel_with(cause));
        }
        // Last: it may be told to an observer, which is user code.
        match ending {
            Ending::HandedOver | Ending::Completed => {}
            Ending::Failed => counters.failed(),
            Ending::Deadline => counters.cut(),
            Ending::ClientGone => counters.client_gone(),
        }
        panics
    }
}

impl Drop for Lifetime {
    fn drop(&mut self) {
        self.finish(self.ending).resume();
    }
}

/// Ends the request, if that is still to be done. If what is called then panics, the group says so, and the answer goes on. Without one the panic
/// goes on. The answer is what it speaks.
pub(super) fn end(
    lifetime: &mut Option<Lifetime>,
    member: &Option<Share>,
    ending: Ending,
) -> Protocol {
    // What has ended does nothing when it is dropped, and need not be moved out for that.
    let Some(at) = lifetime else {
        return Protocol::Http;
    };
    let protocol = at.protocol;
    let mut panics = at.finish(ending);
    // The last handle of what the context carries may go here: user code.
    panics.catch(|| *lifetime = None);
    say(panics, member);
    protocol
}

/// Gives the place up, if there is one, where there is an answer to hand out: what others do then takes it away from nobody.
#[inline]
pub(super) fn give_up(member: &mut Option<Share>) {
    if let Some(member) = member.take() {
        member.end_quietly();
    }
}

/// Does a step of the handler or of its body. If that panics, the context ends as failed, and the group says so.
pub(super) fn step<R>(
    lifetime: &mut Option<Lifetime>,
    member: &Option<Share>,
    step: impl FnOnce() -> R,
) -> R {
    let step = || match member {
        Some(member) => member.step(step),
        None => step(),
    };
    // AssertUnwindSafe: the panic goes on.
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(done) => done,
        Err(payload) => {
            if let Some(member) = member {
                member.note_panic(&*payload);
            }
            end(lifetime, member, Ending::Failed);
            resume_unwind(payload)
        }
    }
}
