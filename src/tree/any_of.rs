//! Tokens with several parents: `any_of`.
//!
//! The new token is a child of the first source. To each other source it has an *edge*: a child of
//! that source with the edge in its waiter slot. Who cancels the source takes the edge out of
//! the slot and cancels the edge's target.
//!
//! An edge does not count as a handle of its target: a token that only waits to be cancelled by
//! its sources may go. So the two ends have to agree on who is last. The target's last owner
//! takes the edges out of their slots. If a canceller was faster, the owner leaves him a handle
//! instead (`LEFT`), and the canceller, when he is through, gives it up. Nobody waits.

use super::extension::Extension;
use super::waiter::Content;
use super::word::State;
use super::{cancel, reclaim, Handle, Node};
use crate::cause::ContextError;
use crate::sync::{AcqRel, Acquire, AtomicU8, Relaxed, UnsafeCell};
use alloc::vec::Vec;
use core::cell::Cell;
use core::iter;
use core::mem;
use core::ptr::{self, NonNull};

/// In the slot, or in a canceller's hands.
const ARMED: u8 = 0;
/// The canceller is through with it.
const FIRED: u8 = 1;
/// The target's last owner has left a handle to the canceller.
const LEFT: u8 = 2;
/// Out of the game.
const SETTLED: u8 = 3;

/// What cancels an `any_of` token when another source is cancelled.
pub(super) struct Edge {
    /// The child of the source in whose slot the edge waits.
    source: UnsafeCell<Option<Handle>>,
    target: *const Node,
    state: AtomicU8,
    /// The canceller's list of those he has taken.
    next: Cell<*const Edge>,
    /// What the canceller has seen below the target; nothing if it was cancelled before.
    below: Cell<Option<State>>,
}

impl Handle {
    /// A token that is cancelled when any of the sources is.
    pub(crate) fn any_of<'a>(sources: impl Iterator<Item = &'a Handle>) -> Handle {
        let mut sources = sources;
        let Some(first) = sources.next() else {
            // User code, before there is a handle to return: it would be lost by a panic.
            drop(sources);
            return Handle::root();
        };
        let others: Vec<&Handle> = sources.collect();
        // A source that is cancelled already decides, the first of them.
        let mut all = iter::once(first).chain(others.iter().copied());
        if let Some(cancelled) = all.find(|source| source.is_cancelled()) {
            return cancelled.child();
        }
        let target = first.child();
        if others.is_empty() || target.is_cancelled() {
            return target;
        }
        let edges = others.iter().map(|_| Edge {
            source: UnsafeCell::new(None),
            target: target.0.as_ptr(),
            // Nothing is in a slot yet.
            state: AtomicU8::new(SETTLED),
            next: Cell::new(ptr::null()),
            below: Cell::new(None),
        });
        let extension = Extension::new(edges.collect());
        // Nobody else knows the token, so nothing else can be in `link`.
        if !target.node().link.extend(extension) {
            unreachable!("a new token has an empty link");
        }
        let extension = target.node().link.extension();
        let edges = extension.map_or(&[][..], |extension| &extension.edges);
        for (edge, source) in edges.iter().zip(others) {
            if !edge.arm(source) {
                if let Some(cause) = source.cause() {
                    target.cancel_with(cause);
                }
                break;
            }
        }
        target
    }
}

impl Edge {
    /// Waits below `source`. False: it is cancelled.
    fn arm(&self, source: &Handle) -> bool {
        let child = source.child();
        let node = child.0;
        // SAFETY: nobody else looks at this edge before it is armed.
        self.source.with_mut(|s| unsafe { *s = Some(child) });
        // Relaxed: published by `arm` on the word.
        self.state.store(ARMED, Relaxed);
        // SAFETY: the edge holds the child; the slot of a new node is ours alone.
        let armed = unsafe {
            let node = node.as_ref();
            node.slot
                .arm_exclusive(&node.word, Content::Edge(self), State::EDGE)
        };
        if armed.is_err() {
            // Relaxed: not published.
            self.state.store(SETTLED, Relaxed);
            // The child goes now: born cancelled it may have a cause, and `settle` has no place
            // for one.
            // SAFETY: not published.
            self.source
                .with_mut(|s| drop(mem::take(unsafe { &mut *s })));
        }
        armed.is_ok()
    }

    /// The canceller's part: cancels the target with the source's cause. The target to go on
    /// below, if there is something to do.
    pub(super) fn follow(&self) -> Option<&Node> {
        // SAFETY: the edge is in the canceller's hands: the target's last owner leaves it, its
        // source and the target in place until the canceller is through (`settle`).
        let (source, target) = unsafe { (self.source.with(|s| &*s), &*self.target) };
        let cause = source.as_ref().and_then(Handle::cause);
        let cause = cause.unwrap_or(ContextError::Cancelled.into());
        let (_, state, rejected) = cancel::set_cancelled(target, cause);
        // A clone of a cause that its owner still has: dropping it runs no user code.
        drop(rejected);
        (!state.has_any(State::DONE)).then_some(target)
    }

    pub(super) fn remember(&self, below: State) {
        self.below.set(Some(below));
    }
}

/// The edges that one call of `cancel` has taken out of their slots: a queue strung through them.
pub(super) struct FiredEdges {
    first: *const Edge,
    last: *const Edge,
    to_follow: *const Edge,
}

impl FiredEdges {
    pub(super) fn new() -> FiredEdges {
        FiredEdges {
            first: ptr::null(),
            last: ptr::null(),
            to_follow: ptr::null(),
        }
    }

    /// Takes the edges that wait below `top`.
    pub(super) fn collect(&mut self, top: &Node) {
        cancel::walk(top, |node| {
            let state = node.word.load();
            if state.has_all(State::WAITER.with(State::EDGE)) {
                // SAFETY: a node with EDGE has an edge in its slot.
                if let Some(edge) = unsafe { node.slot.disarm_edge(&node.word) } {
                    self.push(edge);
                }
            }
            state
        });
    }

    fn push(&mut self, edge: *const Edge) {
        // SAFETY: taken out of its slot, so ours until `finish`; so is `last`.
        unsafe {
            (*edge).next.set(ptr::null());
            (*edge).below.set(None);
            match self.last.as_ref() {
                Some(last) => last.next.set(edge),
                None => self.first = edge,
            }
        }
        self.last = edge;
        if self.to_follow.is_null() {
            self.to_follow = edge;
        }
    }

    pub(super) fn next_to_follow<'a>(&mut self) -> Option<&'a Edge> {
        // SAFETY: in the queue, so in our hands until `finish`.
        let edge = unsafe { self.to_follow.as_ref() }?;
        self.to_follow = edge.next.get();
        Some(edge)
    }

    /// Wakes below the targets, and lets go of the edges.
    pub(super) fn finish(self, mut wake: impl FnMut(&Node, State)) {
        let mut edge = self.first;
        // SAFETY: in the queue, so in our hands until its `state` is swapped.
        while let Some(this) = unsafe { edge.as_ref() } {
            edge = this.next.get();
            let target = this.target;
            if let Some(below) = this.below.get() {
                // SAFETY: as above: the target is alive as long as the edge is in our hands.
                wake(unsafe { &*target }, below);
            }
            // AcqRel: pairs with the swap in `settle`: of owner and canceller, the later one sees all
            // that the earlier did.
            if this.state.swap(FIRED, AcqRel) == LEFT {
                // SAFETY: the owner left us a handle of the target.
                unsafe { reclaim::release(NonNull::new_unchecked(target.cast_mut())) };
            }
        }
    }
}

/// The part of a target's last owner: takes the edges out of the game; their sources, to be
/// released, go to `released`. False: a canceller still has some of them and a handle for each.
pub(super) fn settle(node: &Node, edges: &[Edge], mut released: impl FnMut(Handle)) -> bool {
    let mut all = true;
    for edge in edges {
        // Acquire: pairs with the canceller's swap, here and below.
        match edge.state.load(Acquire) {
            ARMED if !edge.take_out() => {
                // A handle for the canceller, before he can know of it.
                node.word.add_handle();
                if edge.state.swap(LEFT, AcqRel) == FIRED {
                    node.word.return_handles(1);
                } else {
                    all = false;
                    continue;
                }
            }
            // ARMED, and out of the slot again. FIRED: the canceller was through before. LEFT, and we are
            // here again: he has given up the handle, so he is through.
            _ => {}
        }
        // Relaxed: nobody else has the edge any more.
        edge.state.store(SETTLED, Relaxed);
        // SAFETY: as said.
        if let Some(source) = edge.source.with_mut(|s| mem::take(unsafe { &mut *s })) {
            released(source);
        }
    }
    all
}

impl Edge {
    fn take_out(&self) -> bool {
        // SAFETY: armed, so `source` is set and not changed before the edge is settled.
        let source = self.source.with(|s| unsafe { &*s });
        source.as_ref().is_some_and(|source| {
            let node = source.node();
            // SAFETY: the slot holds this edge.
            unsafe { node.slot.disarm_edge(&node.word) }.is_some()
        })
    }
}
