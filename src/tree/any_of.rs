//! Tokens with several parents: `any_of`.
//!
//! The new token is a child of the first source. To each other source it has an *edge*: a child of
//! that source with the edge in its waiter slot. Whoever cancels the source takes the edge out of
//! the slot and cancels the edge's target.
//!
//! An edge does not count as a handle of its target: a token that only waits to be cancelled by
//! its sources may go. So the two ends have to agree on which is last. A canceller that comes by has a
//! handle of the edge's node until it is through; the first takes the edge out of the slot, others come along,
//! because their calls too must not return before the target is cancelled. The target's last owner takes
//! the edges out of their slots. Where cancellers were faster, it leaves them a handle of the target (`LEFT`),
//! which the last of them gives up. Nobody waits.

use super::cancel::{self, Below, Outcome, Part};
use super::cause::{Cause, ContextError};
use super::extension::{AnyOf, Extension, Number};
use super::slot::Content;
use super::why::origin_of;
use super::word::{State, Word};
use super::{reclaim, Handle, Node};
use crate::sync::{Acquire, AtomicPtr, AtomicUsize, Panics, Relaxed, Release, UnsafeCell, SMALL};
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
    /// Which of the sources that is, in the order given.
    number: usize,
    /// The source's cause, as it would be in `link`: placed before the edge's own cancel of the target, and left there
    /// if that has won. Null: a bare kind.
    pub(super) cause: AtomicPtr<()>,
    /// Of a token's first edge, for all of them: which cancel has been here on its way through the token. 0, or what
    /// that cancel is known by.
    noted_by: AtomicUsize,
    /// The same: the tokens that it has noted.
    next_noted: UnsafeCell<*const Node>,
    /// The queue of the cancel that has taken the edge out of its slot.
    next: Cell<*const Edge>,
    /// The node with the cause, above the source.
    origin: Cell<*const Node>,
    /// What is below the target for that cancel.
    below: Cell<Below>,
}

impl Handle {
    /// A token that is cancelled when any of the sources is. Each has a number, which `any_of_source` gives back.
    pub(crate) fn any_of<'a>(sources: impl Iterator<Item = (usize, &'a Handle)>) -> Handle {
        Handle::any_of_as(sources, |number| AnyOf::Below(Number::new(number)))
    }

    /// A token below this one that the other cancels as well, and that does not say which of them it was. What is above the
    /// other one is not above this token; its deadlines, for one, are not. None if one of them is cancelled already.
    #[cfg(feature = "std")]
    pub(crate) fn below_both(&self, other: &Handle) -> Option<Handle> {
        if self.is_cancelled() || other.is_cancelled() {
            return None;
        }
        let both = [(0, self), (1, other)].into_iter();
        let token = Handle::any_of_as(both, |_| AnyOf::No);
        // One that was born cancelled has nothing above it.
        token.parent_id().is_some().then_some(token)
    }

    fn any_of_as<'a>(
        sources: impl Iterator<Item = (usize, &'a Handle)>,
        kind: impl FnOnce(usize) -> AnyOf,
    ) -> Handle {
        let mut sources = sources;
        let Some((number, first)) = sources.next() else {
            // User code, before there is a handle to return: it would be lost by a panic.
            drop(sources);
            return Handle::root();
        };
        let others: Vec<(usize, &Handle)> = sources.collect();
        // A source that is cancelled already decides, the first of them.
        let mut all = iter::once((number, first)).chain(others.iter().copied());
        if let Some((number, cancelled)) = all.find(|(_, source)| source.is_cancelled()) {
            return Handle::born_of(number, cancelled);
        }
        let target = first.child();
        if target.is_cancelled() {
            return Handle::born_of(number, first);
        }
        let edges = others.iter().map(|(number, _)| Edge {
            source: UnsafeCell::new(None),
            target: target.0.as_ptr(),
            number: *number,
            cause: AtomicPtr::new(ptr::null_mut()),
            noted_by: AtomicUsize::new(0),
            next_noted: UnsafeCell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            origin: Cell::new(ptr::null()),
            below: Cell::new(Below::NOTHING),
        });
        let extension = Extension::new(kind(number), edges.collect());
        // Nobody else knows the token, so nothing else can be in `link`.
        if !target.node().link.extend(extension) {
            unreachable!("a new token has an empty link");
        }
        if others.is_empty() {
            return target;
        }
        target.node().word.set_target();
        let extension = target.node().link.extension();
        let edges = extension.map_or(&[][..], |extension| &extension.edges);
        for (edge, (_, source)) in edges.iter().zip(others) {
            if !edge.arm(source) {
                if let Some(cause) = source.cause() {
                    // Nobody waits there yet and nothing is below, so this is all of it.
                    edge.cancel_target(target.node(), cause);
                }
                break;
            }
        }
        target
    }

    /// A token of a source that is cancelled already.
    #[cold]
    fn born_of(number: usize, source: &Handle) -> Handle {
        let cause = source.cause().unwrap_or(ContextError::Cancelled.into());
        Handle::born_cancelled(cause, AnyOf::Born(Number::new(number)))
    }
}

impl Edge {
    /// What is below the source and keeps it; none if that was cancelled from the beginning.
    ///
    /// # Safety
    /// The caller holds the target, or something below it.
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
            node.slot.arm_exclusive(
                &node.word,
                Content::Edge(ptr::from_ref(self).cast()),
                State::EDGE,
            )
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

    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The target's own cancel by this edge, which the caller has in its hands.
    pub(super) fn cancel_target(&self, target: &Node, cause: Cause) -> Outcome {
        let Some(extension) = target.link.extension() else {
            unreachable!("it has edges");
        };
        let from_first = ptr::from_ref(self).addr() - extension.edges.as_ptr().addr();
        let place = from_first / size_of::<Edge>();
        cancel::set_cancelled_by(self, target, place, cause)
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
    others: Others,
    /// The walk's top whose origin was looked for last, and that.
    origin: (*const Node, *const Node),
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
            others: Others::new(),
            origin: (ptr::null(), ptr::null()),
            incomplete: false,
        }
    }

    /// Nothing is in its hands.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_null()
            && self.joined.is_empty()
            && self.noted.is_null()
            && self.others.len == 0
    }

    /// There was no memory to keep all that it met.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// An edge's node, which has been marked: takes the edge, or comes along with whoever has taken it. `origin`: the
    /// node with the cause; null: somebody above the walk's `top`.
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
                    let origin = self.origin_below(origin, top);
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

    fn origin_below(&mut self, origin: *const Node, top: &Node) -> *const Node {
        if !origin.is_null() {
            return origin;
        }
        if !ptr::eq(self.origin.0, top) {
            self.origin = (top, origin_of(top));
        }
        self.origin.1
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
    pub(super) fn next(&mut self) -> Option<(Part, *const Node, *const Node)> {
        // SAFETY: in the queue, so in our hands until `finish`.
        if let Some(edge) = unsafe { self.next.as_ref() } {
            self.next = edge.next.get();
            return Some((Part::Taken(edge), edge.target, edge.origin.get()));
        }
        let joined = self.joined.get(self.next_joined)?;
        self.next_joined += 1;
        // SAFETY: joined, so in our hands until `finish`.
        let target = unsafe { (*joined.edge).target };
        Some((Part::Joined(self.next_joined - 1), target, joined.origin))
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
            match self.others.insert(node) {
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
            // User code, if the token goes and its cause with it.
            let node = NonNull::from(node);
            // SAFETY: our handle.
            panics.catch(|| unsafe { reclaim::release(node) });
        }
        // One by one: a panic that nobody catches here leaves the rest to the next call.
        self.others.len = 0;
        while let Some(node) = self.others.table.pop() {
            if let Some(node) = NonNull::new(node.cast_mut()) {
                // SAFETY: our handle.
                panics.catch(|| unsafe { reclaim::release(node) });
            }
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

/// A set of nodes: a table of a power of two, at most half full.
struct Others {
    table: Vec<*const Node>,
    len: usize,
}

impl Others {
    const fn new() -> Others {
        Others {
            table: Vec::new(),
            len: 0,
        }
    }

    /// Whether it is new there. None: no memory.
    fn insert(&mut self, node: *const Node) -> Option<bool> {
        if self.len * 2 >= self.table.len() {
            self.grow()?;
        }
        let place = Others::find(&self.table, node);
        let is_new = self.table[place].is_null();
        self.table[place] = node;
        self.len += usize::from(is_new);
        Some(is_new)
    }

    fn grow(&mut self) -> Option<()> {
        let len = (self.table.len() * 2).max(8);
        let mut table = Vec::new();
        table.try_reserve_exact(len).ok()?;
        table.resize(len, ptr::null());
        for node in self.table.drain(..).filter(|node| !node.is_null()) {
            let place = Others::find(&table, node);
            table[place] = node;
        }
        self.table = table;
        Some(())
    }

    /// Where the node is, or is to be.
    fn find(table: &[*const Node], node: *const Node) -> usize {
        // Nodes are aligned to 16 at least, and often lie side by side.
        // Models want the same order each time.
        let mut place = if SMALL {
            0
        } else {
            (node.addr() >> 4).wrapping_mul(0x9E37_79B9_u32 as usize) >> 12
        };
        loop {
            place %= table.len();
            if table[place].is_null() || table[place] == node {
                return place;
            }
            place += 1;
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
