//! One token's memory.

use super::slot::Slot;
use super::word::{State, Word};
use crate::sync::{const_where_possible, AtomicPtr, Relaxed, UnsafeCell};
use core::ptr;

/// One token's memory: a cache line where pointers have 64 bits.
///
/// In this order a walk touches the first half only, which stays on one line also where the
/// allocator aligns to 16 (three times out of four).
#[repr(C, align(16))]
pub(crate) struct Node {
    pub(super) word: Word,
    /// The child list's head; children are pushed, never removed (I2).
    pub(super) children: AtomicPtr<Node>,
    /// The next node of the same list; in the low bits, for the first node of a chunk, the
    /// chunk's size. See `chunk.rs`.
    pub(super) sibling: UnsafeCell<*mut Node>,
    /// Null for a root.
    pub(super) parent: *const Node,
    /// While free: the next hint. While occupied: the cause or the extension. See
    /// `link.rs`.
    pub(super) link: Link,
    /// A child that was free when somebody last looked, or where to look next.
    pub(super) hint: AtomicPtr<Node>,
    pub(super) slot: Slot,
}

#[cfg(all(target_pointer_width = "64", not(cancel_tree_loom)))]
const _: () = assert!(size_of::<Node>() == 64);
// With pointers of 32 bits the word may have 64 or 32.
#[cfg(all(target_pointer_width = "32", not(cancel_tree_loom)))]
const _: () = assert!(size_of::<Node>() == if size_of::<Word>() == 8 { 48 } else { 32 });

impl Node {
    const_where_possible! {
        pub(super) fn new(state: State, parent: *const Node) -> Node {
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
    }

    /// The parent.
    ///
    /// # Safety
    /// The node is living, or something below it is, or the caller holds an ancestor's
    /// handle: then the parent is alive (I5).
    pub(super) unsafe fn parent(&self) -> Option<&Node> {
        // SAFETY: the caller's promise.
        unsafe { self.parent.as_ref() }
    }
}

/// The `link` word of a node. What it is while the node is occupied, `link.rs` knows.
pub(super) struct Link(pub(super) AtomicPtr<()>);

impl Link {
    const_where_possible! {
        pub(super) fn new() -> Link {
            Link(AtomicPtr::new(ptr::null_mut()))
        }
    }

    /// Remembers the parent's hint in a node that is about to become free.
    #[inline]
    pub(super) fn set_next(&self, next: *mut Node) {
        // Relaxed: published by the store of the hint, and by `vacate`.
        self.0.store(next.cast(), Relaxed);
    }

    /// The new occupant reads the hint it finds and leaves the word null.
    #[inline]
    pub(super) fn take_next(&self) -> *mut Node {
        // Relaxed, both: only whoever has claimed the node is here; the claim's Acquire precedes.
        let next = self.0.load(Relaxed);
        self.0.store(ptr::null_mut(), Relaxed);
        next.cast()
    }
}
