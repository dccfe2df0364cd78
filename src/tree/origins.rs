//! Whose own cancel a node inherits, for a cancel that has to ask often: each node above is passed a bounded number of times,
//! however many below it ask.

use super::node_map::NodeMap;
use super::word::State;
use super::Node;
use crate::sync::SMALL;
use alloc::vec::Vec;
use core::ptr;

/// A search leaves a note after each so many steps.
const STRIDE: usize = if SMALL { 1 } else { 32 };

/// What has been found. All nodes that were asked about stay until this goes, and so does what is above them: what they
/// inherit, they inherit for good.
pub(super) struct Origins {
    /// Nodes on the way of a search, and its number.
    passed: NodeMap<usize>,
    /// What each search has found, if it came to its end. The one that is on its way is the next.
    found: Vec<Option<*const Node>>,
    /// The last node that was asked about, and its origin, or how far the search is.
    node: *const Node,
    at: Result<*const Node, *const Node>,
    steps: usize,
}

impl Origins {
    pub(super) const fn new() -> Origins {
        Origins {
            passed: NodeMap::new(),
            found: Vec::new(),
            node: ptr::null(),
            at: Ok(ptr::null()),
            steps: 0,
        }
    }

    /// The node with the own cancel that a node inherits, which may be that one; null: there is none. The answer comes with
    /// what is left of the budget, of which each step up takes one. None: it is used up; the next call, for the same
    /// node, goes on.
    ///
    /// Without memory for notes the way is made anew for each.
    pub(super) fn find(&mut self, node: &Node, budget: usize) -> Option<(*const Node, usize)> {
        if !ptr::eq(self.node, node) {
            if self.at.is_err() {
                self.leave(None);
            }
            (self.node, self.at, self.steps) = (node, Err(ptr::from_ref(node)), 0);
        }
        let mut left = budget;
        loop {
            let at = match self.at {
                Ok(origin) => return Some((origin, left)),
                Err(at) => at,
            };
            if left == 0 {
                return None;
            }
            left -= 1;
            self.at = self.step(at);
        }
    }

    fn step(&mut self, at: *const Node) -> Result<*const Node, *const Node> {
        // SAFETY: the node that was asked about, or above it (I5).
        let Some(node) = (unsafe { at.as_ref() }) else {
            return self.end(at);
        };
        if node.word.load().has_any(State::OWN) {
            return self.end(at);
        }
        let by = self.passed.get(at);
        if let Some(Some(origin)) = by.and_then(|by| self.found.get(by)) {
            return self.end(*origin);
        }
        self.steps += 1;
        if self.steps % STRIDE == 0 && self.found.try_reserve(1).is_ok() {
            // Without memory for it the next one has to go further.
            let _ = self.passed.insert(at, self.found.len());
        }
        // A node without an own cancel was marked from above.
        // SAFETY: as above.
        Err(unsafe { node.parent() }.map_or(ptr::null(), ptr::from_ref))
    }

    fn end(&mut self, origin: *const Node) -> Result<*const Node, *const Node> {
        self.leave(Some(origin));
        Ok(origin)
    }

    /// What the search's notes are to say. There is room if it has left any.
    fn leave(&mut self, origin: Option<*const Node>) {
        if self.steps >= STRIDE && self.found.len() < self.found.capacity() {
            self.found.push(origin);
        }
    }
}

#[cfg(all(test, feature = "std", not(any(cancel_tree_loom, cancel_tree_by_hand))))]
#[path = "origins_tests.rs"]
mod tests;
