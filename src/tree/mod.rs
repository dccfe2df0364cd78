//! The tree: nodes that are never unlinked while anybody may be walking past them.
//!
//! A node's memory belongs to the child list of its parent from the moment it is linked
//! until the parent itself is dead. A child that nobody holds any more stays linked, marked
//! FREE, and the parent's next child moves in. So there is no reclamation scheme, and whoever
//! walks a list may meet the earlier or the later occupant of a node: cancelling the parent
//! must cancel either.
//!
//! Invariants, cited by number where the code relies on them; docs/INTERNALS.md argues them:
//!
//! - **I1** `parent` and, once linked, `sibling` are fixed while the parent is not DEAD.
//! - **I2** A linked node is memory of its parent's list and is freed, or reset, only by the
//!   one who has made the parent DEAD or is freeing the parent, and then by him alone.
//! - **I3** A node with CANCELLED and INHERITED is *frozen*: neither claimed nor reset, nor is
//!   anything below it, before the cancelled ancestor dies, which the canceller's handle prevents.
//! - **I4** Every strong reference to a node is counted in its word, and only who owns one can make
//!   another. So "one handle", found by a load by its owner, stays true until he acts.
//! - **I5** A living child of a node without handles of its own has ORPHAN and owns one handle
//!   of it. So parents of living nodes are alive, and climbing by `parent` is safe.
//! - **I6** A cancel, own or inherited, is a read-modify-write on the word of each node that
//!   has one. A creator announces itself by another on its parent's word, after linking and before
//!   anybody can claim what it linked. Of the two, the later sees the earlier.
//! - **I7** Below a FREE or DEAD node nobody lives; below a cancelled one nobody is born live.
//! - **I8** What is in the slot belongs to who cleared WAITER, and to nobody else.
//! - **I9** User code runs when no invariant is broken and nothing is held.

mod any_of;
mod cancel;
mod children;
#[cfg(feature = "std")]
mod deadline;
mod extension;
mod reclaim;
#[cfg(feature = "std")]
pub(crate) mod trigger;
pub(crate) mod waiter;
mod word;

use crate::cause::Cause;
use crate::sync::{AtomicPtr, UnsafeCell};
use core::ptr::{self, NonNull};
use extension::Link;
use waiter::Slot;
use word::{State, Word};

#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
pub(crate) use deadline::drop_cache;
#[cfg(feature = "std")]
pub(crate) use deadline::Signal;

/// One token's memory: a cache line where pointers have 64 bits.
///
/// In this order a walk touches the first half only, which stays on one line also where the
/// allocator aligns to 16 (three times out of four).
#[repr(C, align(16))]
pub(crate) struct Node {
    word: Word,
    /// The child list's head; children are pushed, never removed (I2).
    children: AtomicPtr<Node>,
    /// The next node of the same list; in the low bits, for the first node of a chunk, the
    /// chunk's size. See `children.rs`.
    sibling: UnsafeCell<*mut Node>,
    /// Null for a root.
    parent: *const Node,
    /// While free: the next hint. While occupied: the cause or the extension. See
    /// `extension.rs`.
    link: Link,
    /// A child that was free when somebody last looked, or where to look next.
    hint: AtomicPtr<Node>,
    slot: Slot,
}

#[cfg(all(target_pointer_width = "64", not(cancel_tree_loom)))]
const _: () = assert!(size_of::<Node>() == 64);
// With pointers of 32 bits the word may have 64 or 32.
#[cfg(all(target_pointer_width = "32", not(cancel_tree_loom)))]
const _: () = assert!(size_of::<Node>() == if size_of::<Word>() == 8 { 48 } else { 32 });

impl Node {
    fn new(state: State, parent: *const Node) -> Node {
        Node {
            word: Word::new(state),
            children: AtomicPtr::new(ptr::null_mut()),
            sibling: UnsafeCell::new(ptr::null_mut()),
            parent,
            link: Link::new(),
            hint: AtomicPtr::new(ptr::null_mut()),
            slot: Slot::new(),
        }
    }

    /// The parent.
    ///
    /// # Safety
    /// The node is living, or something below it is, or the caller holds an ancestor's
    /// handle: then the parent is alive (I5).
    unsafe fn parent(&self) -> Option<&Node> {
        // SAFETY: the caller's promise.
        unsafe { self.parent.as_ref() }
    }
}

/// A counted reference to a node: what a token is made of.
pub(crate) struct Handle(NonNull<Node>);

// SAFETY: what a node holds of others' (wakers, causes, callbacks) is Send and Sync, and all
// access to it is by atomics or decided by them (I8).
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

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
    fn born_cancelled(cause: Cause) -> Handle {
        let (how, cause) = cancel::raw_cause(cause);
        let handle = Handle::unlinked(State::BORN_CANCELLED.with(how));
        if let Some(cause) = cause {
            handle.node().link.put_cause_unshared(cause);
        }
        handle
    }

    fn unlinked(state: State) -> Handle {
        Handle(children::allocate_root(Node::new(state, ptr::null())))
    }

    #[inline(always)]
    fn node(&self) -> &Node {
        // SAFETY: the handle is counted, so the node is alive (I4).
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.node().word.load().is_cancelled()
    }

    /// A token below this one. One RMW, on the child's word, once the list has a free node.
    #[inline]
    pub(crate) fn child(&self) -> Handle {
        Handle(children::create(self.node(), 1))
    }

    /// The same, with two handles from the start.
    #[cfg(feature = "std")]
    #[inline]
    pub(crate) fn child_pair(&self) -> (Handle, Handle) {
        let node = children::create(self.node(), 2);
        (Handle(node), Handle(node))
    }

    /// The node's address: what makes clones equal and children not.
    pub(crate) fn address(&self) -> *const () {
        self.0.as_ptr().cast()
    }
}

impl Clone for Handle {
    #[inline]
    fn clone(&self) -> Handle {
        self.node().word.add_handle();
        Handle(self.0)
    }
}

impl Drop for Handle {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the handle is counted and not used again.
        unsafe { reclaim::release(self.0) }
    }
}
