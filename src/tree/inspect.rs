//! What the search for what does not stop asks of a token that it holds: by loads, so no other thread notices.

use super::above::token_above;
use super::extension::Extension;
use super::word::State;
use super::{room, Handle, Node};
use core::ptr;

fn address_of(node: &Node) -> *const () {
    ptr::from_ref(node).cast()
}

impl Handle {
    /// Visits the tokens above, the nearest first, as long as the visitor says so. Of an `any_of` token, by its first source.
    pub(crate) fn each_address_above(&self, mut visit: impl FnMut(*const ()) -> bool) {
        let mut node = self.node();
        // SAFETY: held, or above what is held (I5).
        while let Some(above) = unsafe { token_above(node) } {
            if !visit(address_of(above)) {
                return;
            }
            node = above;
        }
    }

    /// Whether it was cancelled, and not one above.
    pub(crate) fn is_cancelled_itself(&self) -> bool {
        self.node().word.load().has_any(State::OWN)
    }

    /// Whether a task or a thread waits at the token, in its own slot or beside others in a room. Children that were made to wait
    /// at are not asked: a child with one handle may as well be somebody's who cancels it.
    pub(crate) fn is_waited_for(&self) -> bool {
        let waits = |state: State| {
            state.has_all(State::WAITER.with(State::SLOT)) && !state.has_any(State::EDGE)
        };
        if waits(self.node().word.load()) {
            return true;
        }
        self.node().homes().any(|home| {
            home.children_now().any(|child| {
                let state = child.word.load();
                state.is_room() && room::is_waited_in(child)
            })
        })
    }

    /// Whether nobody is left who could cancel the token, now or ever. What `is_harmless` says of a token above is that those who hold
    /// it are told by it, and cannot cancel it.
    ///
    /// A token above that nobody holds has left its mark on the one below (I5). It has no deadline then that is not
    /// seen here, and its guard is gone.
    pub(crate) fn is_out_of_reach(&self, mut is_harmless: impl FnMut(*const ()) -> bool) -> bool {
        let mut node = self.node();
        while !has_other_cause(node) {
            // SAFETY: held, or above what is held (I5).
            let Some(parent) = (unsafe { node.parent() }) else {
                // The last one: what it was cancelled by before it was let go is seen by the loads above.
                return !self.is_cancelled();
            };
            if node.word.load().has_any(State::ORPHAN) {
                node = parent;
                continue;
            }
            // SAFETY: as above.
            match unsafe { token_above(node) } {
                Some(above) if is_harmless(address_of(above)) => node = above,
                _ => return false,
            }
        }
        false
    }
}

/// Something cancels it that is not above. Of a node that is held, or above one.
fn has_other_cause(node: &Node) -> bool {
    node.link.extension().is_some_and(Extension::can_cancel)
}
