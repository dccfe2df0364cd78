//! Contexts of connections that are upgraded: they outlive the response.

use super::member::Share;
use super::shared::{say, Guards, Shared};
use crate::sync::Panics;
use alloc::sync::Arc;
use core::fmt;
use std::sync::OnceLock;

/// Keeps the context of an upgraded connection; found in the extensions of each request that asks for an upgrade.
///
/// A request that asks for an upgrade (a header `upgrade`, or the method CONNECT) has one beside its
/// [`Context`](crate::Context). If the answer is 101, or a 2xx to a CONNECT, the context lasts until the last clone of this is dropped: the handler
/// moves one into the task that serves the upgraded connection. The cause is [`Completed`](super::Completed) then. If the layer is
/// [in a group](super::ContextLayer::in_group), the connection counts as a task of it as long. After any other answer it means nothing.
/// Of layers around each other, the handler finds the innermost one's, which keeps those further out.
#[derive(Clone)]
#[must_use = "the context of the upgraded connection ends with the last clone"]
pub struct UpgradeGuard(Arc<Connection>);

struct Connection {
    shared: Arc<Shared>,
    /// Set once, by the response's head.
    taken: OnceLock<(Guards, Option<Share>)>,
    /// Of a layer around this one, whose context lasts as long. Dropped after what is above, also if that panics.
    _outer: Option<UpgradeGuard>,
}

impl UpgradeGuard {
    pub(super) fn new(shared: Arc<Shared>, outer: Option<UpgradeGuard>) -> UpgradeGuard {
        UpgradeGuard(Arc::new(Connection {
            shared,
            taken: OnceLock::new(),
            _outer: outer,
        }))
    }

    pub(super) fn take_over(&self, guards: Guards, member: Option<Share>) {
        // One lifetime has it, and hands over once.
        let _ = self.0.taken.set((guards, member));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some((guards, member)) = self.taken.take() {
            let mut panics = Panics::default();
            panics.catch(|| guards.cancel_with(self.shared.causes.completed.clone()));
            say(panics, &member);
        }
    }
}

impl fmt::Debug for UpgradeGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeGuard")
            .field("is_upgraded", &self.0.taken.get().is_some())
            .finish()
    }
}
