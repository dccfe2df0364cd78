//! What the search for what does not stop asks of a token that it holds: by loads, so no other thread notices.

use super::above::token_above;
use super::extension::Extension;
use super::why::own_cause;
use super::word::State;
use super::{room, Cause, Handle, Node};
use alloc::vec::Vec;
use core::ptr;
use std::collections::HashMap;

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
}

/// Why tokens are cancelled: of many, with a step for each token on the ways up, once. It tells tokens by their addresses,
/// so those that it was asked about are held as long as it is.
#[derive(Default)]
pub(crate) struct Causes {
    found: Vec<Cause>,
    /// Of a token that is cancelled, where its cause is: for good, for an own cancel is there from the beginning.
    by_address: HashMap<*const (), usize>,
    way: Vec<*const ()>,
}

impl Causes {
    /// As `Handle::cause` says.
    pub(crate) fn of(&mut self, token: &Handle) -> Option<Cause> {
        let mut node = token.node();
        let mut state = node.word.load();
        if !state.is_cancelled() {
            return None;
        }
        self.way.clear();
        let place = loop {
            let address = address_of(node);
            if let Some(place) = self.by_address.get(&address) {
                break *place;
            }
            self.way.push(address);
            if state.has_any(State::OWN) {
                self.found.push(own_cause(node, state));
                break self.found.len() - 1;
            }
            // SAFETY: held, or above what is held (I5); cancelled from above, so there is a parent, which is cancelled too.
            node = unsafe { node.parent() }?;
            state = node.word.load();
        };
        let way = self.way.drain(..).map(|address| (address, place));
        self.by_address.extend(way);
        self.found.get(place).cloned()
    }
}

/// Which tokens nobody can cancel any more: of many, as `Causes`.
#[derive(Default)]
pub(crate) struct Reach {
    /// Whether nobody above can. Where somebody could, that is no more than old.
    is_out: HashMap<*const (), bool>,
    way: Vec<*const ()>,
}

impl Reach {
    /// Whether nobody is left who could cancel the token, now or ever. What `is_harmless` says of a token above is that those who hold
    /// it are told by it, and cannot cancel it: the same at each call.
    ///
    /// A token above that nobody holds has left its mark on the one below (I5). It has no deadline then that is not
    /// seen here, and its guard is gone.
    pub(crate) fn is_out(
        &mut self,
        token: &Handle,
        mut is_harmless: impl FnMut(*const ()) -> bool,
    ) -> bool {
        self.way.clear();
        let mut node = token.node();
        let is_out = loop {
            let address = address_of(node);
            if let Some(is_out) = self.is_out.get(&address) {
                break *is_out;
            }
            self.way.push(address);
            if has_other_cause(node) {
                break false;
            }
            // SAFETY: held, or above what is held (I5).
            let Some(parent) = (unsafe { node.parent() }) else {
                break true;
            };
            if node.word.load().has_any(State::ORPHAN) {
                node = parent;
                continue;
            }
            // SAFETY: as above.
            match unsafe { token_above(node) } {
                Some(above) if is_harmless(address_of(above)) => node = above,
                _ => break false,
            }
        };
        let way = self.way.drain(..).map(|address| (address, is_out));
        self.is_out.extend(way);
        // What the last one was cancelled by before it was let go is seen by the loads above.
        is_out && !token.is_cancelled()
    }
}

/// Something cancels it that is not above, or starts a deadline that does. Of a node that is held, or above one.
fn has_other_cause(node: &Node) -> bool {
    node.link.extension().is_some_and(Extension::is_live)
}
