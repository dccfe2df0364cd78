//! A request's context, from the call to the end of the response's body.

use super::causes::{ClientGone, Completed, HandlerFailed};
use super::counts::Counters;
use super::headers::Protocol;
use super::upgrade::UpgradeGuard;
use crate::context::{CancelGuard, Context, DoneOwned};
use crate::group::Member;
use crate::tree::{Cause, ContextError};
use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::task;
use http::Method;

/// The causes, made once for all requests.
#[derive(Debug)]
pub(super) struct Causes {
    completed: Cause,
    client_gone: Cause,
    failed: Cause,
}

impl Causes {
    pub(super) fn new() -> Causes {
        Causes {
            completed: Completed.into(),
            client_gone: ClientGone.into(),
            failed: HandlerFailed.into(),
        }
    }

    pub(super) fn completed(&self) -> Cause {
        self.completed.clone()
    }
}

/// What all requests of a layer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) causes: Causes,
    pub(super) counters: Counters,
}

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
    guard: Option<CancelGuard>,
    done: DoneOwned,
    upgrade: Option<UpgradeGuard>,
    shared: Arc<Shared>,
    pub(super) protocol: Protocol,
    /// The response will have no body, for the request was a HEAD.
    pub(super) is_head: bool,
    pub(super) is_connect: bool,
    ending: Ending,
}

impl Lifetime {
    pub(super) fn new(
        (ctx, guard): (Context, CancelGuard),
        upgrade: Option<UpgradeGuard>,
        shared: Arc<Shared>,
        protocol: Protocol,
        method: &Method,
    ) -> Lifetime {
        Lifetime {
            guard: Some(guard),
            done: ctx.done_owned(),
            upgrade,
            shared,
            protocol,
            is_head: method == Method::HEAD,
            is_connect: method == Method::CONNECT,
            ending: Ending::ClientGone,
        }
    }

    /// By our own clock: whoever else has a timer for the same moment, and is woken by it, finds us no later than itself.
    pub(super) fn is_past(&self) -> bool {
        let ctx = self.done.context();
        ctx.deadline().is_some_and(|deadline| deadline <= ctx.now())
    }

    /// Whether the deadline has passed; the task is woken when it does.
    pub(super) fn poll_past(&mut self, cx: &mut task::Context<'_>) -> bool {
        // Only to be woken. A cancel from above tells the handler, and drops nothing, also where it was another's deadline: as
        // that of a group's `shutdown`.
        let _ = Pin::new(&mut self.done).poll(cx);
        self.is_past()
    }

    pub(super) fn is_upgrade(&self) -> bool {
        self.upgrade.is_some()
    }

    /// The upgrade's guard ends the context, and is a task of the group until then.
    pub(super) fn hand_over(mut self, member: Option<Member>) {
        if let (Some(guard), Some(upgrade)) = (self.guard.take(), self.upgrade.take()) {
            upgrade.take_over(guard, member);
        }
        self.ending = Ending::HandedOver;
    }

    pub(super) fn end(mut self, ending: Ending) {
        self.ending = ending;
    }
}

impl Drop for Lifetime {
    fn drop(&mut self) {
        let counters = &self.shared.counters;
        let causes = &self.shared.causes;
        let cause = match self.ending {
            Ending::HandedOver => return,
            Ending::Completed => causes.completed.clone(),
            Ending::Failed => {
                counters.failed();
                causes.failed.clone()
            }
            Ending::Deadline => {
                counters.cut();
                ContextError::DeadlineExceeded.into()
            }
            Ending::ClientGone => {
                counters.client_gone();
                causes.client_gone.clone()
            }
        };
        if let Some(guard) = &self.guard {
            guard.cancel_with(cause);
        }
    }
}

/// Ends the context as failed, should what is polled meanwhile panic.
pub(super) struct Polling<'a>(pub(super) &'a mut Option<Lifetime>);

impl Polling<'_> {
    pub(super) fn through(self) {
        core::mem::forget(self);
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        if let Some(lifetime) = self.0.take() {
            lifetime.end(Ending::Failed);
        }
    }
}
