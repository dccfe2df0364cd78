//! Making children: move into a node that stands free, or link new ones; and the sharding of a
//! parent that several threads make children of at once.
//!
//! Where to find a free node is a matter of *hints*. A parent's `hint` points at a child: free, if
//! it is the top of the chain that `link` makes of free nodes; or occupied, then it is
//! where to look next, going round the list. Hints are written by plain stores, so two threads can lose
//! each other's; no hint is ever trusted, and what they lose the next look around finds.

use super::cause::{Cause, ContextError};
use super::chunk::{allocate, allocate_root, shards_of, SHARD_CLASS};
use super::extension::{AnyOf, Extension};
use super::room::{self, Room};
use super::why::{self, raw_cause};
use super::word::State;
use super::{Handle, Node};
use crate::sync::{thread, Acquire, Bits, Relaxed, Release, SMALL};
use alloc::boxed::Box;
use core::iter;
use core::mem;
use core::ptr::{self, NonNull};

/// Chunks have 1, 2, 4, … up to 2^MAX_CLASS nodes: a page.
const MAX_CLASS: usize = if SMALL { 1 } else { 6 };

/// A thread takes free nodes from others' shards only when its own has chunks of these classes.
const OWN_CLASSES: usize = if SMALL { 0 } else { 2 };

/// Waiters are children as long as the newest chunk is of a smaller class: in 1, 2 and 4 nodes.
const FEW_CLASS: usize = if SMALL { 0 } else { 2 };

/// At least this many nodes are looked at before a list grows.
const LOOK: usize = if SMALL { 2 } else { 8 };

/// This many times more where there are shards: several threads make children, and drop each other's, so hints get lost.
const LOOK_FURTHER: usize = if SMALL { 1 } else { 8 };

impl Node {
    /// Puts this node in front of its parent's free ones. Before it is marked FREE: after that the
    /// parent may be gone.
    #[inline]
    pub(super) fn offer_to(&self, parent: &Node) {
        // Acquire: whoever gets the older hint from this store may rely on it being announced (I6), as this thread may.
        self.link.set_next(parent.hint.load(Acquire));
        // Release: pairs with `claim_hinted`, for the link's sake.
        parent.hint.store(ptr::from_ref(self).cast_mut(), Release);
    }

    /// An earlier occupant, or this one, has left a hint.
    #[inline]
    fn has_places(&self) -> bool {
        // Relaxed: an occupant finds what the earlier ones have left, by the claim's Acquire; and its own threads' hints
        // come after their announcements.
        !self.hint.load(Relaxed).is_null()
    }

    /// Moves into the child that the hint points at.
    #[inline]
    fn claim_hinted(&self, handles: Bits) -> Result<NonNull<Node>, Miss> {
        // Acquire: pairs with the stores of hints; what a hint leads to has been announced, so
        // no canceller can miss it (I6).
        let hint = NonNull::new(self.hint.load(Acquire)).ok_or(Miss::Occupied)?;
        self.claim(hint, handles)
    }

    /// Moves into `node`, a child of this one, if it is free.
    #[inline]
    fn claim(&self, node: NonNull<Node>, handles: Bits) -> Result<NonNull<Node>, Miss> {
        // SAFETY: a linked child of a node that the caller holds (I2).
        let child = unsafe { node.as_ref() };
        match child.word.claim(handles) {
            Ok(()) => {
                let next = child.link.take_next();
                // The end of the chain: the next one looks on from here. Release: see `offer_to`.
                let next = if next.is_null() { node.as_ptr() } else { next };
                self.hint.store(next, Release);
                Ok(node)
            }
            Err(true) => Err(Miss::Raced),
            Err(false) => Err(Miss::Occupied),
        }
    }

    /// Looks for a free child from the hint on, at most `budget` nodes, going round the list once.
    fn claim_by_search(&self, budget: usize, handles: Bits) -> Search {
        // Acquire, both; the hint first: the head read after it is not older than the chunk that
        // the hint leads to, so every push before that one is behind us, and with it the nodes
        // that the siblings lead to.
        let mut node = self.hint.load(Acquire);
        let head = self.children.load(Acquire);
        let mut announced = false;
        let mut wrapped = false;
        for _ in 0..budget {
            // SAFETY: a linked child of a node that the caller holds (I2).
            let next = unsafe { node.as_ref() }.map_or(ptr::null_mut(), Node::sibling);
            let next = if next.is_null() && !mem::replace(&mut wrapped, true) {
                head
            } else {
                next
            };
            let Some(candidate) = NonNull::new(next) else {
                break;
            };
            node = next;
            // SAFETY: as above.
            if !unsafe { candidate.as_ref() }.word.looks_claimable() {
                continue;
            }
            // A node found by walking may have been linked by a creator that has not announced
            // it yet, and a canceller could miss it: announce it in the creator's place (I6).
            if !mem::replace(&mut announced, true) && self.word.announce_children().is_cancelled() {
                return Search::Cancelled;
            }
            if let Ok(found) = self.claim(candidate, handles) {
                return Search::Found(found);
            }
        }
        Search::Nothing { look_on: node }
    }

    /// Links a chunk in front of the list: the last node in the state `state`, the others in
    /// `others`, the links a chain from the last to the first that ends at `then`. The answer is the
    /// first node, the last, and the word: with CANCELLED a canceller may have missed the chunk.
    fn push_chunk(
        &self,
        class: usize,
        state: State,
        others: State,
        then: *mut Node,
    ) -> (NonNull<Node>, NonNull<Node>, State) {
        let first = allocate(class);
        let len = 1 << class;
        let mut next = then;
        // SAFETY: there is room for `len` nodes, all of which are written here; nobody else sees them
        // before the push.
        let last = unsafe {
            for i in 0..len {
                let node = first.sub(i);
                let is_last = i == len - 1;
                node.write(Node::new(if is_last { state } else { others }, self));
                node.as_ref().link.set_next(next);
                next = node.as_ptr();
                if !is_last {
                    node.as_ref().set_sibling(node.sub(1).as_ptr());
                }
            }
            first.as_ref().set_chunk_class(class);
            first.sub(len - 1)
        };
        // SAFETY: not linked yet.
        let seen = unsafe { self.link_chunk(first, last) };
        (first, last, seen)
    }

    /// Links a room in front of the list; none if a canceller may have missed it, and then nobody enters it.
    pub(super) fn push_room(&self) -> Option<NonNull<Room>> {
        let header = allocate(room::CLASS);
        // SAFETY: the chunk is ours, and all of it that will be used is written here; it is not linked yet.
        unsafe {
            let room = header.sub(room::REST).cast();
            Room::write(room);
            header.write(Node::new(State::ROOM, self));
            header.as_ref().set_chunk_class(room::CLASS);
            let seen = self.link_chunk(header, header);
            (!seen.is_cancelled()).then_some(room)
        }
    }

    /// The answer is the word.
    ///
    /// # Safety
    /// The chunk from `first` to `last` is the caller's and not linked yet.
    unsafe fn link_chunk(&self, first: NonNull<Node>, last: NonNull<Node>) -> State {
        // Relaxed: the CAS checks the guess.
        let mut head = self.children.load(Relaxed);
        loop {
            // SAFETY: not linked yet.
            unsafe { last.as_ref().set_sibling(head) };
            // Release: pairs with the Acquire loads of `children`. Earlier pushes are in its
            // release sequence, for they are RMWs too. Nothing is read through `head`.
            match self
                .children
                .compare_exchange_weak(head, first.as_ptr(), Release, Relaxed)
            {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        self.word.announce_children()
    }

    /// Where this thread makes its children: the node itself, or its shard of it.
    #[inline]
    pub(super) fn home(&self) -> &Node {
        match self.link.extension() {
            Some(extension) => self.shard(extension, thread::number()).unwrap_or(self),
            None => self,
        }
    }

    /// Where other threads do: none if the node has no shards.
    pub(super) fn other_homes<'a>(&'a self, home: &'a Node) -> impl Iterator<Item = &'a Node> {
        let extension = self.link.extension().filter(|_| !ptr::eq(self, home));
        let shards = extension.into_iter().flat_map(move |extension| {
            (0..1 << SHARD_CLASS).filter_map(move |i| self.shard(extension, i))
        });
        iter::once(self)
            .chain(shards)
            .filter(move |other| !ptr::eq(*other, home))
    }

    /// All lists in which children of this token are.
    #[cfg(feature = "inspect")]
    pub(super) fn homes(&self) -> impl Iterator<Item = &Node> {
        let shards = self
            .link
            .extension()
            .into_iter()
            .flat_map(move |extension| {
                (0..1 << SHARD_CLASS).filter_map(move |i| self.shard(extension, i))
            });
        iter::once(self).chain(shards)
    }

    /// The child list from the newest chunk to the oldest. By who holds the node, so that it is not reset (I2).
    #[cfg(feature = "inspect")]
    pub(super) fn children_now(&self) -> impl Iterator<Item = &Node> {
        // Acquire: pairs with the push.
        let first = self.children.load(Acquire);
        // SAFETY: linked nodes stay as long as the node is held, and so does a shard's list with its token.
        iter::successors(unsafe { first.as_ref() }, |node| unsafe {
            node.sibling().as_ref()
        })
    }

    fn shard<'a>(&'a self, extension: &Extension, number: usize) -> Option<&'a Node> {
        // Acquire: pairs with the publication in `grow`.
        let shards = NonNull::new(extension.shards.load(Acquire))?;
        // SAFETY: a linked chunk of 2^SHARD_CLASS children of this node, which the caller holds.
        Some(unsafe { shards.sub(number % (1 << SHARD_CLASS)).as_ref() })
    }

    /// Whether several threads make children here at once.
    #[inline]
    pub(super) fn is_sharded(&self) -> bool {
        self.link
            .extension()
            // Relaxed: only null or not is asked.
            .is_some_and(|extension| !extension.shards.load(Relaxed).is_null())
    }

    /// Puts shards between this node and its children to come: nodes like any other, each with a
    /// list and a hint of its own on a cache line of its own. Older children stay where they
    /// are.
    #[cold]
    pub(super) fn grow(&self) {
        let shard = State::NEW.with(State::SHARD);
        let (shards, _, seen) = self.push_chunk(SHARD_CLASS, shard, shard, ptr::null_mut());
        for shard in shards_of(shards) {
            // The chain made by the push is for free nodes.
            shard.link.take_next();
        }
        let published = !seen.is_cancelled()
            && match self.link.extension() {
                // Release: pairs with `shard`. Nothing is read on failure.
                Some(extension) => extension
                    .shards
                    .compare_exchange(ptr::null_mut(), shards.as_ptr(), Release, Relaxed)
                    .is_ok(),
                None => self.link.extend(Extension::of_shards(shards.as_ptr())),
            };
        if !published {
            // Cancelled, or somebody else was faster: nobody will make children in these.
            for shard in shards_of(shards) {
                // Nobody has seen these but walkers; their one handle is given up here.
                drop(Handle(NonNull::from(shard)));
            }
        }
    }
}

impl Handle {
    /// A root of its own.
    pub(crate) fn root() -> Handle {
        Handle::unlinked(State::NEW)
    }

    /// The same, with two handles from the start.
    #[cfg(feature = "std")]
    pub(crate) fn root_pair() -> (Handle, Handle) {
        let root = Handle::unlinked(State::NEW_PAIR);
        (Handle(root.0), root)
    }

    /// A root that says "cancelled" and why, for the child of a cancelled token: it is no part of
    /// that token's tree, so nothing has to be kept for it.
    pub(super) fn born_cancelled(cause: Cause, any_of: AnyOf) -> Handle {
        let (how, cause) = raw_cause(cause);
        let handle = Handle::unlinked(State::BORN_CANCELLED.with(how));
        let link = &handle.node().link;
        match (any_of, cause) {
            (AnyOf::No, None) => {}
            (AnyOf::No, Some(cause)) => link.put_cause_unshared(cause),
            (any_of, cause) => {
                let extension = Extension::new(any_of, Box::default());
                let extension = link.put_extension_unshared(extension);
                if let Some(cause) = cause {
                    extension.put_cause_unshared(cause);
                }
            }
        }
        handle
    }

    pub(super) fn unlinked(state: State) -> Handle {
        Handle(allocate_root(Node::new(state, ptr::null())))
    }

    /// A token below this one. One RMW, on the child's word, once the list has a free node.
    #[inline]
    pub(crate) fn child(&self) -> Handle {
        Handle(create(self.node(), 1))
    }

    /// The same, with two handles from the start.
    #[cfg(feature = "std")]
    #[inline]
    pub(crate) fn child_pair(&self) -> (Handle, Handle) {
        let node = create(self.node(), 2);
        (Handle(node), Handle(node))
    }
}

/// For models, which get to the point sooner so: what two threads that meet bring about, and how many rooms they
/// have made.
#[cfg(cancel_tree_loom)]
impl Handle {
    pub(crate) fn grow(&self) {
        self.node().grow();
    }

    pub(crate) fn rooms(&self) -> usize {
        let rooms = |home: &Node| {
            // SAFETY: the model's other threads have ended.
            let children = unsafe { home.children() };
            children.filter(|node| node.word.load().is_room()).count()
        };
        let home = self.node().home();
        rooms(home) + self.node().other_homes(home).map(rooms).sum::<usize>()
    }
}

/// Why a hint led nowhere.
enum Miss {
    Occupied,
    Raced,
}

/// What a search came to.
enum Search {
    Found(NonNull<Node>),
    Cancelled,
    Nothing { look_on: *mut Node },
}

/// Makes a child with that many handles. They are the caller's; what it gets is the pointer.
#[inline]
pub(super) fn create(parent: &Node, handles: Bits) -> NonNull<Node> {
    let state = parent.word.load();
    if state.is_cancelled() {
        return refused(parent, handles);
    }
    // The first child: what an earlier occupant has left below is announced before it is claimed by a hint (I6).
    // A shard's has been, for it had one occupant only.
    if !state.has_any(State::PARENT)
        && parent.has_places()
        && parent.word.announce_children().is_cancelled()
    {
        return refused(parent, handles);
    }
    let home = parent.home();
    match home.claim_hinted(handles) {
        Ok(child) => child,
        Err(miss) => create_slowly(parent, home, miss, handles),
    }
}

/// A child for a waiter, in the `home` of this thread's. None: the list has grown long, so a room is better.
#[inline]
pub(super) fn create_one_of_few(parent: &Node, state: State, home: &Node) -> Option<NonNull<Node>> {
    // As in `create`.
    if !state.has_any(State::PARENT)
        && parent.has_places()
        && parent.word.announce_children().is_cancelled()
    {
        return Some(refused(parent, 1));
    }
    match home.claim_hinted(1) {
        Ok(child) => Some(child),
        Err(miss) => create_one_of_few_slowly(parent, home, miss),
    }
}

#[cold]
fn create_one_of_few_slowly(parent: &Node, home: &Node, miss: Miss) -> Option<NonNull<Node>> {
    // Acquire: as in `create_slowly`.
    // SAFETY: a linked child of a node that the caller holds (I2).
    let newest = unsafe { home.children.load(Acquire).as_ref() };
    newest
        .is_none_or(|newest| newest.chunk_class().unwrap_or(0) < FEW_CLASS)
        .then(|| create_slowly(parent, home, miss, 1))
}

#[cold]
fn refused(parent: &Node, handles: Bits) -> NonNull<Node> {
    // The nearest own cancel is visible: INHERITED was set after it.
    let cause = why::cause(parent).unwrap_or(ContextError::Cancelled.into());
    with_handles(Handle::born_cancelled(cause, AnyOf::No), handles)
}

/// Makes one handle into that many.
fn with_handles(handle: Handle, handles: Bits) -> NonNull<Node> {
    if handles > 1 {
        handle.node().word.add_handles(handles as usize - 1);
    }
    mem::ManuallyDrop::new(handle).0
}

#[cold]
#[inline(never)]
fn create_slowly<'a>(
    parent: &'a Node,
    mut home: &'a Node,
    miss: Miss,
    handles: Bits,
) -> NonNull<Node> {
    if matches!(miss, Miss::Raced) {
        if ptr::eq(home, parent) && thread::contended() {
            parent.grow();
            home = parent.home();
        }
        // The winner has moved the hint on.
        if let Ok(child) = home.claim_hinted(handles) {
            return child;
        }
    }
    // Acquire: pairs with the push, for the class of the newest chunk.
    let newest = home.children.load(Acquire);
    // SAFETY: a linked child of a node that the caller holds (I2).
    let class = match unsafe { newest.as_ref() } {
        Some(newest) => (newest.chunk_class().unwrap_or(0) + 1).min(MAX_CLASS),
        None => 0,
    };
    let mut look_on = ptr::null_mut();
    // As many are looked at as would be made: a list grows only past occupied nodes, and
    // a child pays for one look, or for a few.
    let further = if ptr::eq(home, parent) {
        1
    } else {
        LOOK_FURTHER
    };
    let looks = further * LOOK.max(1 << class);
    if !newest.is_null() {
        match home.claim_by_search(looks, handles) {
            Search::Found(child) => {
                // A free node that no hint led to: another thread has overwritten the hint.
                if ptr::eq(home, parent) && thread::contended() {
                    parent.grow();
                }
                return child;
            }
            Search::Cancelled => return refused(parent, handles),
            Search::Nothing { look_on: node } => look_on = node,
        }
    }
    // A small list grows first: a thread that lives on the others' nodes would be in their way.
    if class > OWN_CLASSES {
        match claim_elsewhere(parent, home, looks, handles) {
            Search::Found(child) => return child,
            Search::Cancelled => return refused(parent, handles),
            Search::Nothing { .. } => {}
        }
    }
    let (_, last, seen) = home.push_chunk(class, State::NEW, State::FREE, look_on);
    // SAFETY: just linked under a node that the caller holds.
    let child = unsafe { last.as_ref() };
    let next = child.link.take_next();
    if seen.is_cancelled() {
        // The canceller may have passed before the push. Nobody will claim the other nodes:
        // a thread that finds them asks the parent first (I6).
        child.word.mark(seen.only(State::DEADLINE));
    } else {
        let next = if next.is_null() { last.as_ptr() } else { next };
        // Release: pairs with `claim_hinted`; the announcement above is behind this (I6).
        home.hint.store(next, Release);
    }
    with_handles(Handle(last), handles)
}

/// A free node of another thread's shard, or from before there were shards: so a producer and a
/// consumer of children do not make the tree grow, each on its side. Those from before are also searched, at most `looks`
/// of them, for nobody else does.
fn claim_elsewhere(parent: &Node, home: &Node, looks: usize, handles: Bits) -> Search {
    let mut others = parent.other_homes(home);
    match others.find_map(|other| other.claim_hinted(handles).ok()) {
        Some(child) => Search::Found(child),
        None if ptr::eq(home, parent) => Search::Nothing {
            look_on: ptr::null_mut(),
        },
        None => parent.claim_by_search(looks, handles),
    }
}
