//! The edges that a cancel has come to, and has to follow.

use super::below::Below;
use super::edge::Edge;
use super::node_map::NodeMap;
use super::origins::Origins;
use super::word::State;
use super::{Handle, Node};
use crate::sync::{Acquire, Panics, Relaxed, Release};
use alloc::vec::Vec;
use core::ptr::{self, NonNull};

/// A node that a cancel was led to, with everything below.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// The one it began with.
    Top,
    /// The target of an edge that it has taken out of its slot.
    Taken(*const Edge),
    /// The same, of an edge where another call was faster.
    Joined(usize),
}

impl Edge {
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
            drop(Handle(unsafe { NonNull::new_unchecked(target.cast_mut()) }));
        }
    }
}

/// Whether a cancel has been at an `any_of` token before.
pub(super) enum Noted {
    First,
    Before,
    /// The token has no edges any more, so that there is one way to it.
    Gone,
    /// There is no memory to note it, and another cancel is there: that is relied upon.
    Unknown,
}

/// The edges that one cancel has in its hands, and the `any_of` tokens that it has come to, by edges or from above.
pub(super) struct FiredEdges {
    /// Those that it took out of their slots: a queue strung through them.
    first: *const Edge,
    last: *const Edge,
    next: *const Edge,
    /// Those that another call was faster with, to come along. Only calls that race have some.
    joined: Vec<Joined>,
    next_joined: usize,
    /// The tokens that it has noted, strung through their first edges. It has a handle of each.
    noted: *const Node,
    /// What this cancel is known by: the first of those. Nobody else can have noted it as its first before
    /// this cancel has given it back, as the last.
    me: usize,
    /// Those that another cancel has noted. A handle of each, too.
    others: NodeMap<()>,
    /// Where the causes of the edges' sources are.
    origins: Origins,
    incomplete: bool,
}

struct Joined {
    edge: *const Edge,
    origin: *const Node,
    below: Below,
}

impl FiredEdges {
    pub(super) const fn new() -> FiredEdges {
        FiredEdges {
            first: ptr::null(),
            last: ptr::null(),
            next: ptr::null(),
            joined: Vec::new(),
            next_joined: 0,
            noted: ptr::null(),
            me: 0,
            others: NodeMap::new(),
            origins: Origins::new(),
            incomplete: false,
        }
    }

    /// Nothing is in its hands.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_null()
            && self.joined.is_empty()
            && self.noted.is_null()
            && self.others.is_empty()
    }

    /// There was no memory to keep all that it met.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// An edge's node, which has been marked: takes the edge, or comes along with whoever has taken it. `origin`: the
    /// node with the cause; null: the walk's `top`, or somebody above.
    pub(super) fn meet(&mut self, node: &Node, origin: *const Node, top: &Node) {
        let mut state = node.word.load();
        while state.has_any(State::EDGE) {
            let first = state.has_any(State::WAITER);
            if !first {
                if !state.is_fired() {
                    // It has been settled, or its cancellers are through.
                    return;
                }
                if self.joined.try_reserve(1).is_err() {
                    self.incomplete = true;
                    return;
                }
            }
            // SAFETY: armed with an edge once, and below what is cancelled nobody arms anew.
            let edge = unsafe { node.slot.edge() }.cast::<Edge>();
            match node.word.begin_firing(state) {
                Ok(()) => {
                    let origin = if origin.is_null() { top } else { origin };
                    if first {
                        self.take(edge, origin);
                    } else {
                        self.joined.push(Joined {
                            edge,
                            origin,
                            below: Below::NOTHING,
                        });
                    }
                    return;
                }
                Err(now) => state = now,
            }
        }
    }

    /// The node with the cause of one that inherits, which may be that one, and what is left of the budget. None: it is used up
    /// before it is found.
    pub(super) fn origin_of(
        &mut self,
        inheriting: &Node,
        budget: usize,
    ) -> Option<(*const Node, usize)> {
        self.origins.find(inheriting, budget)
    }

    fn take(&mut self, edge: *const Edge, origin: *const Node) {
        // SAFETY: taken out of its slot, so in our hands until we leave; so is `last`.
        let (this, last) = unsafe { (&*edge, self.last.as_ref()) };
        this.next.set(ptr::null());
        this.origin.set(origin);
        this.below.set(Below::NOTHING);
        match last {
            Some(last) => last.next.set(edge),
            None => self.first = edge,
        }
        self.last = edge;
        if self.next.is_null() {
            self.next = edge;
        }
    }

    /// The next target to be cancelled, and the node with the cause.
    pub(super) fn next(&self) -> Option<(Part, *const Node, *const Node)> {
        // SAFETY: in the queue, so in our hands until `finish`.
        if let Some(edge) = unsafe { self.next.as_ref() } {
            return Some((Part::Taken(self.next), edge.target, edge.origin.get()));
        }
        let joined = self.joined.get(self.next_joined)?;
        // SAFETY: joined, so in our hands until `finish`.
        let target = unsafe { (*joined.edge).target };
        Some((Part::Joined(self.next_joined), target, joined.origin))
    }

    /// On to the one after that.
    pub(super) fn advance(&mut self) {
        // SAFETY: as above.
        match unsafe { self.next.as_ref() } {
            Some(edge) => self.next = edge.next.get(),
            None => self.next_joined += 1,
        }
    }

    pub(super) fn joined(&self, i: usize) -> *const Edge {
        self.joined[i].edge
    }

    pub(super) fn set_below(edge: *const Edge, below: Below) {
        // SAFETY: taken, so in the caller's hands.
        unsafe { &*edge }.below.set(below);
    }

    pub(super) fn set_joined_below(&mut self, i: usize, below: Below) {
        self.joined[i].below = below;
    }

    /// Begins anew with the first.
    pub(super) fn rewind(&mut self) {
        self.next = self.first;
        self.next_joined = 0;
    }

    /// The next target, when all have been cancelled.
    pub(super) fn next_part(&mut self) -> Option<(*const Node, Below)> {
        let (part, target, _) = self.next()?;
        self.advance();
        let below = match part {
            // SAFETY: as above.
            Part::Taken(edge) => unsafe { &*edge }.below.get(),
            Part::Joined(i) => self.joined[i].below,
            Part::Top => Below::NOTHING,
        };
        Some((target, below))
    }

    /// Every target that was cancelled.
    pub(super) fn each_part(&mut self, mut each: impl FnMut(*const Node, Below)) {
        self.rewind();
        while let Some((target, below)) = self.next_part() {
            each(target, below);
        }
    }

    /// Comes to an `any_of` token with something below, which is marked: by an edge or from above. Each is to be entered
    /// once.
    pub(super) fn note(&mut self, node: &Node) -> Noted {
        if !node.word.pin_target() {
            return Noted::Gone;
        }
        let Some(edge) = node.link.extension().and_then(|e| e.edges.first()) else {
            unreachable!("it has edges, and we have a handle");
        };
        let me = match self.me {
            0 => ptr::from_ref(node).addr(),
            me => me,
        };
        loop {
            // Acquire: pairs with the step by which the last one gave it back. On failure nothing is read.
            match edge.noted_by.compare_exchange(0, me, Acquire, Relaxed) {
                Ok(_) => {
                    self.me = me;
                    // SAFETY: whoever has noted the token has this.
                    edge.next_noted
                        .with_mut(|next| unsafe { *next = self.noted });
                    self.noted = node;
                    return Noted::First;
                }
                Err(other) if other == self.me => {
                    // We have another one.
                    node.word.return_handles(1);
                    return Noted::Before;
                }
                Err(_) => {}
            }
            match self.others.insert(node, ()) {
                Some(true) => return Noted::First,
                Some(false) => {
                    node.word.return_handles(1);
                    return Noted::Before;
                }
                // There is nowhere to keep our handle. If it is the only one by now, the other cancel is through, and
                // gave the token back before it let go of it.
                None if node.word.release_unless_sole().is_some() => {}
                None => {
                    self.incomplete = true;
                    return Noted::Unknown;
                }
            }
        }
    }

    /// Lets go of everything.
    pub(super) fn finish(&mut self, panics: &mut Panics) {
        // From the last to the first, by which this cancel is known.
        // SAFETY: we have a handle of each.
        while let Some(node) = unsafe { self.noted.as_ref() } {
            if let Some(edge) = node.link.extension().and_then(|e| e.edges.first()) {
                // SAFETY: whoever has noted the token has this.
                self.noted = edge.next_noted.with(|next| unsafe { *next });
                // Release: pairs with the next one's step in `note`.
                edge.noted_by.store(0, Release);
            } else {
                unreachable!("it has edges, as we have a handle");
            }
            // Ours. User code, if the token goes and its cause with it.
            let handle = Handle(NonNull::from(node));
            panics.catch(|| drop(handle));
        }
        // One by one: a panic that nobody catches here leaves the rest to the next call.
        while let Some(node) = self.others.pop() {
            // SAFETY: our handle.
            let node = unsafe { NonNull::new_unchecked(node.cast_mut()) };
            panics.catch(|| drop(Handle(node)));
        }
        while !self.first.is_null() {
            let edge = self.first;
            // SAFETY: in the queue, so in our hands until it is left.
            self.first = unsafe { (*edge).next.get() };
            // A pointer: no reference to it may be passed on, for the edge may go meanwhile.
            // SAFETY: in our hands, and not used again.
            panics.catch(|| unsafe { Edge::leave(edge) });
        }
        while let Some(joined) = self.joined.pop() {
            // SAFETY: the same.
            panics.catch(|| unsafe { Edge::leave(joined.edge) });
        }
    }
}
