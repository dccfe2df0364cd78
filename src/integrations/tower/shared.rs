//! What all requests of a layer share.

use super::causes::{ClientGone, Completed, HandlerFailed};
use super::counts::Counters;
use crate::context::CancelGuard;
use crate::tree::Cause;
use alloc::sync::Arc;

/// The causes, made once for all requests.
#[derive(Debug)]
pub(super) struct Causes {
    pub(super) completed: Cause,
    pub(super) client_gone: Cause,
    pub(super) failed: Cause,
}

impl Causes {
    pub(super) fn new() -> Causes {
        Causes {
            completed: Completed.into(),
            client_gone: ClientGone.into(),
            failed: HandlerFailed.into(),
        }
    }
}

/// What all requests of a layer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) causes: Causes,
    pub(super) counters: Counters,
}

/// What ends a request's context, and the handler's where that is another.
pub(super) struct Guards {
    pub(super) request: CancelGuard,
    pub(super) handler: Option<HandlerGuard>,
}

impl Guards {
    pub(super) fn cancel_with(&self, cause: Cause) {
        if let Some(handler) = &self.handler {
            handler.cancel_with(cause.clone());
        }
        self.request.cancel_with(cause);
    }
}

/// Of a handler's own context. If it is dropped, nobody wanted the answer.
pub(super) struct HandlerGuard {
    guard: CancelGuard,
    shared: Arc<Shared>,
}

impl HandlerGuard {
    pub(super) fn new(guard: CancelGuard, shared: Arc<Shared>) -> HandlerGuard {
        HandlerGuard { guard, shared }
    }

    pub(super) fn cancel_with(&self, cause: Cause) {
        self.guard.cancel_with(cause);
    }
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        self.cancel_with(self.shared.causes.client_gone.clone());
    }
}
