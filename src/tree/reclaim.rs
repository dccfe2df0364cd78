//! When a node goes, and its memory.
//!
//! The last owner of a node decides what becomes of it, in a loop upwards:
//!
//! - somebody lives below: each of these gets one handle of the node (ORPHAN), and the last of
//!   them will be here again;
//! - only callbacks wait below, which nobody can stop any more: the node becomes a PASSENGER, which
//!   keeps nothing alive and goes with its parent;
//! - only such callbacks are below, and an edge, a deadline or a foreign parent may still cancel the node: it is KEPT,
//!   with the last handle, for the first of these that does;
//! - frozen by a cancel that came from above: it stays as it is until that ancestor goes;
//! - nothing is below: it is offered to the parent's next child;
//! - a root: everything below is freed, iteratively, chunk by chunk.

use super::chunk::{self, shards_of};
use super::extension::{Extension, Remains};
use super::word::State;
use super::{edge, room, Handle, Node};
use crate::sync::{to_the_end, Panics, Relaxed, SMALL};
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};

/// At most this many free nodes survive the death of their parent, for its next occupant: enough for a
/// request's few children, in chunks of 4, 2 and 1.
const KEPT_NODES: usize = if SMALL { 1 } else { 7 };

/// Nodes whose release has to wait for its turn, strung through `link`: the sources of edges.
/// They are nobody else's, and without a cause, so `link` is free.
struct Pending(*mut Node);

impl Pending {
    fn push(&mut self, handle: Handle) {
        let node = ManuallyDrop::new(handle).0;
        // SAFETY: counted, by the handle that has just been given up to this list.
        unsafe { node.as_ref() }.link.set_next(self.0);
        self.0 = node.as_ptr();
    }

    fn pop(&mut self) -> Option<NonNull<Node>> {
        let node = NonNull::new(self.0)?;
        // SAFETY: as above.
        self.0 = unsafe { node.as_ref() }.link.take_next();
        Some(node)
    }
}

/// Gives up a handle of `node`, and what was kept by it.
///
/// # Safety
/// The caller owns the handle and does not use it again.
#[inline]
pub(super) unsafe fn release(node: NonNull<Node>) {
    // SAFETY: the handle keeps the node until the call below has given it up.
    let word = unsafe { &node.as_ref().word };
    if let Some(seen) = word.release_unless_sole() {
        // SAFETY: the handle is the only one, and the caller's.
        unsafe { release_sole(node, seen) };
    }
}

impl Drop for Handle {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the handle is counted and not used again.
        unsafe { release(self.0) }
    }
}

/// The last owner lets go.
///
/// # Safety
/// As for `release`, and the handle is the only one; `seen` is a recent state of the word.
#[inline(never)]
unsafe fn release_sole(node: NonNull<Node>, seen: State) {
    let plain = State::ORPHAN
        .with(State::CANCELLED)
        .with(State::OWN)
        .with(State::INHERITED)
        .with(State::DEADLINE)
        .with(State::MARKED)
        // Of a waiter that was woken: without WAITER it is empty.
        .with(State::SLOT);
    // SAFETY: the caller's handle keeps the node.
    let this = unsafe { node.as_ref() };
    // The common case, a leaf with nothing special: one RMW and no loop.
    if seen.unowned().without(plain) == State::NONE && this.link.is_settled() {
        // SAFETY: a living node's parent is alive (I5).
        let Some(parent) = (unsafe { this.parent() }) else {
            // SAFETY: a root without owner, with nobody below and nothing in it.
            return unsafe { chunk::free_root(node) };
        };
        let frozen = seen.has_any(State::INHERITED);
        let new = if frozen {
            seen.unowned().without(State::ORPHAN).with(State::FREE)
        } else {
            this.offer_to(parent);
            State::FREE
        };
        if this.word.vacate(seen, new).is_ok() {
            // From here on `this` may be gone.
            if seen.has_any(State::ORPHAN) {
                // SAFETY: the orphan owned a handle of its parent.
                unsafe { release_upwards(NonNull::from(parent)) };
            }
            return;
        }
        // Marked or adopted meanwhile. It has been offered, which does no harm: whoever finds it by
        // the hint looks at the word.
        this.link.set_next(ptr::null_mut());
    }
    // SAFETY: the caller's promise.
    unsafe { release_upwards(node) };
}

/// The waiter for which the node was made clears WAITER and lets go, in one step. False: nothing was done, because
/// it was cancelled, or there is more about it.
///
/// # Safety
/// As for `release`, if the answer is true. The handle is the only one, and the caller has armed the slot.
#[inline]
pub(super) unsafe fn vacate_armed(node: NonNull<Node>) -> bool {
    // SAFETY: the caller's handle keeps the node.
    let this = unsafe { node.as_ref() };
    let armed = State::NEW.with(State::WAITER).with(State::SLOT);
    // SAFETY: a living node's parent is alive (I5).
    let Some(parent) = (unsafe { this.parent() }).filter(|_| this.word.load() == armed) else {
        return false;
    };
    this.offer_to(parent);
    if this.word.vacate(armed, State::FREE).is_ok() {
        return true;
    }
    // As in `release_sole`.
    this.link.set_next(ptr::null_mut());
    false
}

/// Releases a handle of `node`, and then of its parent, as long as it takes.
///
/// # Safety
/// As for `release`.
#[cold]
#[inline(never)]
unsafe fn release_upwards(node: NonNull<Node>) {
    let mut left = Left {
        pending: Pending(ptr::null_mut()),
        remains: Remains::default(),
        garbage: Garbage::new(),
    };
    let mut panics = Panics::default();
    let mut next = Some(node);
    to_the_end(|| loop {
        // What is still to be released is ours, so user code may do what it likes.
        left.remains.drop_each(&mut panics);
        // SAFETY: out of every list, and nobody else has a pointer there.
        unsafe { left.garbage.free(&mut panics) };
        let kept = || left.remains.pop().map(|handle| ManuallyDrop::new(handle).0);
        let Some(node) = next.take().or_else(|| left.pending.pop()).or_else(kept) else {
            break;
        };
        // SAFETY: each handle in this loop was the caller's, an orphan's, an edge's, or kept by a node that is gone.
        next = unsafe { give_up(node, &mut left) };
    });
    panics.resume();
}

/// What the steps of the loop upwards leave to be done after each: none of them runs user code.
struct Left {
    pending: Pending,
    remains: Remains,
    garbage: Garbage,
}

/// One step of the loop upwards. The answer is the parent, if a handle of it is to be released.
///
/// # Safety
/// As for `release`.
unsafe fn give_up(node: NonNull<Node>, left: &mut Left) -> Option<NonNull<Node>> {
    // SAFETY: the handle that is being given up keeps the node.
    let this = unsafe { node.as_ref() };
    let census = loop {
        let seen = this.word.release_unless_sole()?;
        let extension = this.link.extension();
        if !extension.is_none_or(|extension| extension.settle_weak(this)) {
            continue;
        }
        // We are alone: nobody creates, waits, clones or cancels here any more (I4). Walkers
        // may come by, and living children may go.
        if seen.has_any(State::WAITER) {
            // A forgotten future's, or a canceller takes it right now.
            left.remains.waker = this.slot.disarm(&this.word);
        }
        if let Some(extension) = extension {
            release_shards(extension, left);
        }
        let mut census = Census::default();
        if seen.has_any(State::PARENT) {
            // SAFETY: we are the last owner.
            census = unsafe { Census::take(this) };
        }
        if census.living != 0 {
            // The handles come first: an orphan may release its one at once.
            this.word.add_handles(census.living);
            // SAFETY: as above.
            let adopted = unsafe { this.children() }
                .filter(|child| child.word.adopt())
                .count();
            this.word.return_handles(census.living - adopted);
            continue;
        }
        let Some(extension) = extension.filter(|e| e.is_live()) else {
            break census;
        };
        if census.passengers != 0 && !seen.is_cancelled() && extension.can_cancel() {
            // Without its edges a callback below would not hear of all sources, nor of the
            // deadline. So it stays, and our handle with it, until one of these cancels it.
            match this.word.vacate(seen, seen.with(State::KEPT)) {
                Ok(()) => return None,
                Err(_) => continue,
            }
        }
        if edge::settle(this, &extension.edges, |source| left.pending.push(source))
            && extension.settle_triggers(this)
            // Before the edges go: cancellers that pass look at them. One that has a handle is the last owner after us.
            && (!seen.has_any(State::TARGET) || this.word.end_target())
        {
            break census;
        }
    };

    // SAFETY: alone, nothing living below; edges, triggers and shards settled.
    unsafe { this.link.take(&mut left.remains) };
    // SAFETY: our handle; orphans are gone, so the parent is as alive as we are (I5).
    let Some(parent) = (unsafe { this.parent() }) else {
        // SAFETY: a root without owner and without anybody below.
        unsafe {
            // Relaxed: the last owner has acquired the pushes.
            left.garbage.push_list(this.children.load(Relaxed));
            chunk::free_root(node);
        }
        return None;
    };

    let mut offered = false;
    let mut seen = this.word.load();
    loop {
        let frozen = seen.has_any(State::INHERITED);
        let rest = seen.unowned().without(State::ORPHAN);
        let new = if census.passengers != 0 && (frozen || !seen.is_cancelled()) {
            rest.with(State::PASSENGER)
        } else if frozen {
            rest.with(State::FREE)
        } else if !seen.has_any(State::PARENT) || !seen.is_cancelled() && !census.excess {
            State::FREE
        } else {
            // Its own cancel, which is over, or too much below to keep: make it as new. DEAD
            // keeps walkers out (I2).
            if let Err(now) = this.word.vacate(seen, seen.with(State::DEAD)) {
                seen = now;
                continue;
            }
            // SAFETY: DEAD is ours.
            unsafe { reset_children(this, &mut left.garbage) };
            if !offered && !seen.has_any(State::SHARD) {
                this.offer_to(parent);
            }
            let mut seen = this.word.load();
            loop {
                // A cancel from above that came meanwhile must not be lost.
                let marks = if seen.has_any(State::INHERITED) {
                    State::CANCELLED.with(State::INHERITED)
                } else {
                    State::NONE
                };
                let shard = seen.only(State::SHARD);
                let new = State::FREE.with(marks).with(shard);
                match this.word.vacate(seen, new) {
                    Ok(()) => break,
                    Err(now) => seen = now,
                }
            }
            return seen.has_any(State::ORPHAN).then(|| NonNull::from(parent));
        };
        let new = new.with(seen.only(State::SHARD));
        if !frozen && !offered && new.has_any(State::FREE) && !seen.has_any(State::SHARD) {
            this.offer_to(parent);
            offered = true;
        }
        match this.word.vacate(seen, new) {
            Ok(()) => break,
            Err(now) => seen = now,
        }
    }
    seen.has_any(State::ORPHAN).then(|| NonNull::from(parent))
}

/// Gives up the handles of a dying parent's shards: from here on they are children like any other.
fn release_shards(extension: &Extension, left: &mut Left) {
    // Relaxed, both: only the last owner is here, which has acquired what the others did.
    let shards = extension.shards.load(Relaxed);
    extension.shards.store(ptr::null_mut(), Relaxed);
    for shard in NonNull::new(shards).into_iter().flat_map(shards_of) {
        // SAFETY: the shard's one handle of old. It has neither extension nor orphanhood, so
        // this goes neither down nor up from there.
        let up = unsafe { give_up(NonNull::from(shard), left) };
        debug_assert!(up.is_none());
    }
}

/// Leaves a callback's node to the tree: it keeps nothing alive and goes with its parent.
///
/// # Safety
/// The handle is the only one of the node, and the caller's; it is not used again.
pub(super) unsafe fn detach(node: NonNull<Node>) {
    // SAFETY: the caller's handle.
    let this = unsafe { node.as_ref() };
    let mut seen = this.word.load();
    while seen.has_any(State::WAITER) {
        let new = seen.unowned().without(State::ORPHAN).with(State::PASSENGER);
        // SAFETY: as above (I5).
        let parent = unsafe { this.parent() };
        match this.word.vacate(seen, new) {
            Ok(()) => {
                if let Some(parent) = parent.filter(|_| seen.has_any(State::ORPHAN)) {
                    // SAFETY: the orphan's handle.
                    unsafe { release(NonNull::from(parent)) };
                }
                return;
            }
            Err(now) => seen = now,
        }
    }
    // SAFETY: the caller's promise.
    unsafe { release(node) };
}

/// What is below a node whose last owner is about to go.
#[derive(Default)]
struct Census {
    /// Somebody holds these, or something below them.
    living: usize,
    passengers: usize,
    /// More than a node keeps for its next occupant.
    excess: bool,
}

impl Census {
    /// # Safety
    /// The caller is the last owner of `node`.
    unsafe fn take(node: &Node) -> Census {
        let mut census = Census::default();
        let mut nodes = 0;
        // SAFETY: the caller's promise.
        for child in unsafe { node.children() } {
            // Acquire: pairs with the child's `vacate`: what it did is behind us.
            let state = child.word.load();
            if state.is_living() {
                census.living += 1;
            } else if state.has_any(State::PASSENGER) {
                census.passengers += 1;
            }
            nodes += 1;
            // Relaxed: acquired with the state.
            let is_parent = !child.children.load(Relaxed).is_null();
            census.excess |= nodes > KEPT_NODES || is_parent || state.has_any(State::SHARD);
        }
        census
    }
}

/// Keeps a few small chunks for the next occupant, as new, and frees the rest.
///
/// # Safety
/// `node` is DEAD by the caller, and nobody lives below it.
unsafe fn reset_children(node: &Node, garbage: &mut Garbage) {
    // Relaxed, everywhere here: the list is ours alone (I2) and is published by `vacate`.
    let mut chunk = node.children.load(Relaxed);
    let (mut kept, mut head, mut last) = (0, ptr::null_mut(), None::<NonNull<Node>>);
    while let Some(first) = NonNull::new(chunk) {
        // SAFETY: a linked chunk of a list that is ours.
        let class = unsafe { first.as_ref() }.chunk_class().unwrap_or(0);
        // SAFETY: as above. Pointers that may be used for the whole chunk, for one of them is its head.
        let pointers = || (0..1 << class).map(|i| unsafe { first.sub(i) });
        // SAFETY: as above.
        let nodes = || unsafe { chunk::nodes_of(first, class) };
        chunk = nodes().next_back().map_or(ptr::null_mut(), Node::sibling);
        if kept + (1 << class) > KEPT_NODES
            || nodes().any(|node| node.word.load().has_any(State::SHARD))
        {
            garbage.push_chunk(first);
            continue;
        }
        for (child, pointer) in nodes().zip(pointers()) {
            garbage.push_list(child.children.load(Relaxed));
            child.children.store(ptr::null_mut(), Relaxed);
            child.hint.store(ptr::null_mut(), Relaxed);
            child.word.reset(State::FREE);
            // In the order of before: the next chunk's size depends on the newest one's. To be
            // claimed from the last to the first, as when they were new.
            child
                .link
                .set_next(last.map_or(ptr::null_mut(), NonNull::as_ptr));
            match last {
                // SAFETY: ours alone.
                Some(last) => unsafe { last.as_ref().set_sibling(pointer.as_ptr()) },
                None => head = pointer.as_ptr(),
            }
            last = Some(pointer);
        }
        kept += 1 << class;
    }
    if let Some(last) = last {
        // SAFETY: ours alone.
        unsafe { last.as_ref().set_sibling(ptr::null_mut()) };
    }
    node.children.store(head, Relaxed);
    let hint = last.map_or(ptr::null_mut(), NonNull::as_ptr);
    node.hint.store(hint, Relaxed);
}

/// What nobody can reach any more: stacks of chunks and of lists of chunks, strung through `link`.
/// Nothing is allocated and nothing recurses, however large or deep they are.
struct Garbage {
    lists: *mut Node,
    chunks: *mut Node,
    /// What is left of the list that is being freed.
    list: *mut Node,
}

impl Garbage {
    const fn new() -> Garbage {
        Garbage {
            lists: ptr::null_mut(),
            chunks: ptr::null_mut(),
            list: ptr::null_mut(),
        }
    }

    fn push_list(&mut self, head: *mut Node) {
        // SAFETY: the list is garbage, so its nodes are ours.
        if let Some(node) = unsafe { head.as_ref() } {
            node.link.set_next(self.lists);
            self.lists = head;
        }
    }

    fn push_chunk(&mut self, first: NonNull<Node>) {
        // SAFETY: as above.
        unsafe { first.as_ref() }.link.set_next(self.chunks);
        self.chunks = first.as_ptr();
    }

    /// May be called again after a panic came out of it, and goes on.
    ///
    /// # Safety
    /// All that was pushed, and all below it, is the caller's alone.
    unsafe fn free(&mut self, panics: &mut Panics) {
        loop {
            // SAFETY: chunks and lists that are ours; each is taken off before it is freed, and after it is cleared.
            unsafe {
                if let Some(chunk) = NonNull::new(self.chunks) {
                    let (class, _) = self.clear_chunk(chunk, panics);
                    self.chunks = chunk.as_ref().link.take_next();
                    chunk::free(chunk, class);
                } else if let Some(chunk) = NonNull::new(self.list) {
                    let (class, next) = self.clear_chunk(chunk, panics);
                    self.list = next;
                    chunk::free(chunk, class);
                } else if let Some(list) = NonNull::new(self.lists) {
                    self.lists = list.as_ref().link.take_next();
                    self.list = list.as_ptr();
                } else {
                    return;
                }
            }
        }
    }

    /// Notes what is below a chunk, and drops what waits there: user code. The answer is the class, and the next chunk
    /// of its list.
    ///
    /// # Safety
    /// As for `free`.
    unsafe fn clear_chunk(
        &mut self,
        first: NonNull<Node>,
        panics: &mut Panics,
    ) -> (usize, *mut Node) {
        let mut next = ptr::null_mut();
        // SAFETY: the caller's promise.
        let class = unsafe { first.as_ref() }.chunk_class().unwrap_or(0);
        // SAFETY: the same.
        for node in unsafe { chunk::nodes_of(first, class) } {
            next = node.sibling();
            let state = node.word.load();
            // Relaxed: the pushes were acquired with the state. An earlier occupant's are there without PARENT.
            self.push_list(node.children.load(Relaxed));
            if cfg!(not(feature = "std")) {
                // After a panic, which nothing catches there, the node is looked at again.
                node.children.store(ptr::null_mut(), Relaxed);
            }
            if state.is_room() {
                // What forgotten futures have left.
                room::close(node, panics, drop);
            } else if state.has_any(State::WAITER) {
                // A callback that will never run: nobody is left that could cancel.
                let waker = node.slot.disarm(&node.word);
                panics.catch(|| drop(waker));
            }
        }
        (class, next)
    }
}
