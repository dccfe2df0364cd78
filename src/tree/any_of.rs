//! Tokens with several parents: `any_of`.
//!
//! The new token is a child of the first source. To each other source it has an *edge*: a child of
//! that source with the edge in its waiter slot. Who cancels the source takes the edge out of
//! the slot and cancels the edge's target.
//!
//! An edge does not count as a handle of its target: a token that only waits to be cancelled by
//! its sources may go. So the two ends have to agree on who is last. A canceller who comes by has a
//! handle of the edge's node until he is through; the first takes the edge out of the slot, others come along,
//! because their calls too must not return before the target is cancelled. The target's last owner takes
//! the edges out of their slots. Where cancellers were faster, he leaves them a handle of the target (`LEFT`),
//! which the last of them gives up. Nobody waits.

use super::cause::ContextError;
use super::extension::Extension;
use super::waiter::Content;
use super::word::{State, Word};
use super::{cancel, reclaim, Handle, Node};
use crate::sync::{AtomicUsize, Panics, Relaxed, UnsafeCell};
use alloc::vec::Vec;
use core::cell::Cell;
use core::iter;
use core::mem;
use core::ptr::{self, NonNull};

/// What cancels an `any_of` token when another source is cancelled.
pub(super) struct Edge {
    /// The child of the source in whose slot the edge waits. None: not armed, or settled.
    source: UnsafeCell<Option<Handle>>,
    target: *const Node,
    /// Which call of `cancel` has taken it out of its slot: the address of its `FiredEdges`.
    taken_by: AtomicUsize,
    /// That call's queue.
    next: Cell<*const Edge>,
    /// What that call has seen below the target; nothing if it was cancelled before.
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
            taken_by: AtomicUsize::new(0),
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
    /// What is below the source and keeps it; none if that was cancelled from the beginning.
    ///
    /// # Safety
    /// The caller holds the target, or something below it.
    #[cfg(feature = "std")]
    pub(super) unsafe fn source(&self) -> Option<&Node> {
        // SAFETY: written before the target was shared, and then by `settle`, when nobody holds anything there.
        let source = self.source.with(|source| unsafe { &*source });
        source.as_ref().map(Handle::node)
    }

    /// Waits below `source`. False: it is cancelled.
    fn arm(&self, source: &Handle) -> bool {
        let child = source.child();
        let node = child.0;
        // SAFETY: nobody else looks at this edge before it is armed.
        self.source.with_mut(|s| unsafe { *s = Some(child) });
        // SAFETY: the edge holds the child; the slot of a new node is ours alone.
        let armed = unsafe {
            let node = node.as_ref();
            node.slot
                .arm_exclusive(&node.word, Content::Edge(self), State::EDGE)
        };
        if armed.is_err() {
            // The child goes now: born cancelled it may have a cause, and `settle` has no place
            // for one.
            // SAFETY: not published.
            self.source
                .with_mut(|s| drop(mem::take(unsafe { &mut *s })));
        }
        armed.is_ok()
    }

    /// A canceller's part: cancels the target with the source's cause. The target to go on
    /// below, if there is something to do.
    fn follow(&self) -> Option<&Node> {
        // SAFETY: the edge is in a canceller's hands: the target's last owner leaves it, its
        // source and the target in place until he is through (`settle`).
        let (source, target) = unsafe { (self.source.with(|s| &*s), &*self.target) };
        let cause = source.as_ref().and_then(Handle::cause);
        let cause = cause.unwrap_or(ContextError::Cancelled.into());
        // Nobody is woken before all is marked.
        let cancelled = cancel::set_cancelled(target, cause, false);
        // A clone of a cause that its owner still has: dropping it runs no user code.
        drop(cancelled.rejected);
        (!cancelled.state.has_any(State::DONE)).then_some(target)
    }

    /// A canceller's last step, after which the edge may be gone.
    ///
    /// # Safety
    /// The edge is in the caller's hands, once.
    unsafe fn leave(this: *const Edge) {
        // SAFETY: as the caller says.
        let (source, target) = unsafe {
            let source = (*this).source.with(|s| (*s).as_ref().map(|s| s.0));
            (source, (*this).target)
        };
        // SAFETY: the edge has a handle of it until we have left.
        if source.is_some_and(|source| unsafe { source.as_ref() }.word.end_firing()) {
            // SAFETY: the owner left a handle of the target, and we are the last.
            unsafe { reclaim::release(NonNull::new_unchecked(target.cast_mut())) };
        }
    }
}

/// The edges that one call of `cancel` has in its hands.
pub(super) struct FiredEdges {
    /// Those that it took out of their slots: a queue strung through them.
    first: *const Edge,
    last: *const Edge,
    to_follow: *const Edge,
    /// Those that another call was faster with, to come along, and what is below their targets. Only calls that
    /// race have some.
    joined: Vec<(*const Edge, Option<State>)>,
    joined_followed: usize,
}

impl FiredEdges {
    pub(super) fn new() -> FiredEdges {
        FiredEdges {
            first: ptr::null(),
            last: ptr::null(),
            to_follow: ptr::null(),
            joined: Vec::new(),
            joined_followed: 0,
        }
    }

    /// Takes the edges that wait below `top`, or comes along with those who have taken them.
    pub(super) fn collect(&mut self, top: &Node) {
        cancel::walk(top, |node| {
            let mut state = node.word.load();
            while state.has_any(State::EDGE) {
                // SAFETY: armed with an edge once, and below what is cancelled nobody arms anew.
                let edge = unsafe { node.slot.edge() };
                let first = state.has_any(State::WAITER);
                if !(first || state.is_fired() && self.can_join(edge)) {
                    break;
                }
                match node.word.begin_firing(state) {
                    Ok(()) if first => self.take(edge),
                    Ok(()) => self.join(edge, &node.word),
                    Err(now) => {
                        state = now;
                        continue;
                    }
                }
                break;
            }
            state
        });
    }

    fn me(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    fn take(&mut self, edge: *const Edge) {
        // SAFETY: taken out of its slot, so in our hands until we leave; so is `last`.
        let (edge, last) = unsafe { (&*edge, self.last.as_ref()) };
        // Relaxed: only for ourselves to recognise.
        edge.taken_by.store(self.me(), Relaxed);
        match last {
            Some(last) => last.next.set(edge),
            None => self.first = edge,
        }
        self.last = edge;
        if self.to_follow.is_null() {
            self.to_follow = edge;
        }
    }

    /// Whether there is room for it, and it is not there yet. Without memory, who was faster is relied upon.
    fn can_join(&mut self, edge: *const Edge) -> bool {
        self.joined.iter().all(|&(other, _)| other != edge) && self.joined.try_reserve(1).is_ok()
    }

    fn join(&mut self, edge: *const Edge, word: &Word) {
        // SAFETY: in our hands, beside somebody else's.
        if unsafe { (*edge).taken_by.load(Relaxed) } == self.me() {
            // It was reached by two ways, and is in the queue.
            let last = word.end_firing();
            debug_assert!(!last);
        } else {
            self.joined.push((edge, None));
        }
    }

    /// Cancels the targets, and those of the edges below them, and so on. `mark` is given each, and answers
    /// what is below.
    pub(super) fn follow(&mut self, mut mark: impl FnMut(&Node) -> State) {
        loop {
            // SAFETY: in the queue, so in our hands until `finish`.
            if let Some(edge) = unsafe { self.to_follow.as_ref() } {
                edge.below.set(self.follow_one(edge, &mut mark));
                // Not before: more may have been added.
                self.to_follow = edge.next.get();
            } else if let Some(&(edge, _)) = self.joined.get(self.joined_followed) {
                // SAFETY: joined, so in our hands until `finish`.
                let below = self.follow_one(unsafe { &*edge }, &mut mark);
                self.joined[self.joined_followed].1 = below;
                self.joined_followed += 1;
            } else {
                return;
            }
        }
    }

    fn follow_one(&mut self, edge: &Edge, mark: impl FnOnce(&Node) -> State) -> Option<State> {
        let target = edge.follow()?;
        let below = mark(target);
        if below.has_any(State::EDGE) {
            self.collect(target);
        }
        Some(below)
    }

    /// Wakes below the targets, and lets go of the edges.
    pub(super) fn finish(self, panics: &mut Panics, wake: impl Fn(&Node, State, &mut Panics)) {
        let mut finish_one = |edge: *const Edge, below: Option<State>| {
            if let Some(below) = below {
                // SAFETY: the target is alive as long as the edge is in our hands.
                wake(unsafe { &*(*edge).target }, below, panics);
            }
            // User code, if the target goes and its cause with it.
            // SAFETY: in our hands, and not used again.
            panics.catch(|| unsafe { Edge::leave(edge) });
        };
        let mut edge = self.first;
        // SAFETY: in the queue, so in our hands until it is left.
        while let Some(this) = unsafe { edge.as_ref() } {
            edge = this.next.get();
            // Relaxed: whoever has our address later has it after we have left.
            this.taken_by.store(0, Relaxed);
            finish_one(this, this.below.get());
        }
        for (edge, below) in self.joined {
            finish_one(edge, below);
        }
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
        // All cancellers are through, also those who were left a handle: this is called again when it has
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
