//! What is one for all requests of a layer, and what each has of its own beside it.

use super::causes::{ClientGone, Completed, HandlerFailed};
use super::counts::Counters;
use super::member::Share;
use crate::context::CancelGuard;
use crate::group::Spawner;
use crate::sync::Panics;
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
        let Some(handler) = &self.handler else {
            self.request.cancel_with(cause);
            return;
        };
        // What the one calls takes nothing from the other.
        let mut panics = Panics::default();
        panics.catch(|| handler.cancel_with(cause.clone()));
        panics.catch(|| _ = self.request.cancel_with(cause));
        panics.resume();
    }
}

/// Of a handler's own context. If it is dropped, nobody wanted the answer.
pub(super) struct HandlerGuard {
    guard: CancelGuard,
    shared: Arc<Shared>,
    /// It says what panics where nobody is left to be told.
    group: Spawner,
}

impl HandlerGuard {
    pub(super) fn new(guard: CancelGuard, shared: Arc<Shared>, group: Spawner) -> HandlerGuard {
        HandlerGuard {
            guard,
            shared,
            group,
        }
    }

    pub(super) fn cancel_with(&self, cause: Cause) {
        self.guard.cancel_with(cause);
    }

    /// The handler has panicked, or was dropped. If what is called then panics, the group says so.
    pub(super) fn failed(&self, member: &Share) {
        let mut panics = Panics::default();
        panics.catch(|| self.cancel_with(self.shared.causes.failed.clone()));
        member.note_panics(panics);
    }
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        let mut panics = Panics::default();
        panics.catch(|| self.cancel_with(self.shared.causes.client_gone.clone()));
        self.group.note_panics(panics);
    }
}

/// What has panicked at an end is the group's to say; without one it goes on.
pub(super) fn say(panics: Panics, member: &Option<Share>) {
    match member {
        Some(member) => member.note_panics(panics),
        None => panics.resume(),
    }
}
