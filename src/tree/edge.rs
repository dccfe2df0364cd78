//! An edge: what cancels an `any_of` token by a source that it is not the child of. See `any_of.rs`.

use super::below::Below;
use super::word::{State, Word};
use super::{Handle, Node};
use crate::sync::{AtomicPtr, AtomicUsize, UnsafeCell};
use core::cell::Cell;
use core::mem;
use core::ptr;

/// What cancels an `any_of` token when another source is cancelled.
pub(super) struct Edge {
    /// The child of the source in whose slot the edge waits. None: not armed, or settled.
    pub(super) source: UnsafeCell<Option<Handle>>,
    pub(super) target: *const Node,
    /// Which of the sources that is, in the order given.
    number: usize,
    /// The source's cause, as it would be in `link`: placed before the edge's own cancel of the target, and left there
    /// if that has won. Null: a bare kind.
    pub(super) cause: AtomicPtr<()>,
    /// Of a token's first edge, for all of them: which cancel has been here on its way through the token. 0, or what
    /// that cancel is known by.
    pub(super) noted_by: AtomicUsize,
    /// The same: the tokens that it has noted.
    pub(super) next_noted: UnsafeCell<*const Node>,
    /// The queue of the cancel that has taken the edge out of its slot.
    pub(super) next: Cell<*const Edge>,
    /// The node with the cause, or one that inherits it from there: above the source.
    pub(super) origin: Cell<*const Node>,
    /// What is below the target for that cancel.
    pub(super) below: Cell<Below>,
}

impl Edge {
    pub(super) fn new(target: *const Node, number: usize) -> Edge {
        Edge {
            source: UnsafeCell::new(None),
            target,
            number,
            cause: AtomicPtr::new(ptr::null_mut()),
            noted_by: AtomicUsize::new(0),
            next_noted: UnsafeCell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            origin: Cell::new(ptr::null()),
            below: Cell::new(Below::NOTHING),
        }
    }

    /// What is below the source and keeps it; none if that was cancelled from the beginning.
    ///
    /// # Safety
    /// The caller holds the target, or something below it.
    pub(super) unsafe fn source(&self) -> Option<&Node> {
        // SAFETY: written before the target was shared, and then by `settle`, when nobody holds anything there.
        let source = self.source.with(|source| unsafe { &*source });
        source.as_ref().map(Handle::node)
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }
}

/// The part of a target's last owner: takes the edges out of the game; their sources, to be
/// released, go to `released`. False: cancellers still have some of them, and a handle for each.
pub(super) fn settle(node: &Node, edges: &[Edge], mut released: impl FnMut(Handle)) -> bool {
    let mut all = true;
    for edge in edges {
        // SAFETY: changed by the owner alone.
        let Some(source) = edge.source.with(|s| unsafe { (*s).as_ref() }) else {
            continue;
        };
        if settle_one(node, &source.node().word) {
            // SAFETY: nobody else has the edge any more.
            let source = edge.source.with_mut(|s| mem::take(unsafe { &mut *s }));
            source.into_iter().for_each(&mut released);
        } else {
            all = false;
        }
    }
    all
}

/// The same for one edge, by the word of the node that it waits in.
fn settle_one(target: &Node, source: &Word) -> bool {
    let mut seen = source.load();
    loop {
        let armed = seen.has_any(State::WAITER);
        // All cancellers are through, also those that were left a handle: this is called again when it has
        // been given up.
        if !armed && !seen.is_fired() {
            return true;
        }
        if !armed {
            // A handle for them, before they can know of it.
            target.word.add_handle();
        }
        match source.settle_edge(seen) {
            Ok(()) => return armed,
            Err(now) => seen = now,
        }
        if !armed {
            target.word.return_handles(1);
        }
    }
}
