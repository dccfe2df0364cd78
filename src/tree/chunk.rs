//! Memory of nodes: chunks of a child list, and roots.
//!
//! Nodes are allocated in chunks. A chunk's nodes are contiguous and linked from the highest
//! address to the lowest. Chunks are pushed to the front of the list and allocators tend to hand out
//! ascending addresses, so a walk of the whole list is one descending pass over memory, which
//! hardware prefetches. All of a chunk is linked by one push: the first node occupied by the child
//! that was asked for, the others free. A chunk is known by its first node.

use super::room::Room;
use super::Node;
use crate::sync::heap::{alloc, dealloc, handle_alloc_error};
use crate::sync::{Relaxed, SMALL};
use alloc::alloc::Layout;
use core::iter;
use core::ptr::{self, NonNull};

/// Pages are aligned to the cache line. Smaller chunks are not: an allocator that is asked for
/// alignment scatters them, and a walk over many small families takes twice as long.
const ALIGNED_CLASS: usize = 6;

/// A contended parent gets 2^SHARD_CLASS shards, a cache line each.
pub(super) const SHARD_CLASS: usize = if SMALL { 1 } else { 6 };

const _: () = assert!(SMALL || SHARD_CLASS >= ALIGNED_CLASS);

/// The low bits of `sibling` hold the class of the chunk plus one, in its first node.
const CLASS_BITS: usize = 15;

fn layout(class: usize) -> Layout {
    let nodes = Layout::array::<Node>(1 << class).expect("a page at most");
    if class >= ALIGNED_CLASS {
        nodes.align_to(64).expect("64 is a power of two")
    } else {
        nodes
    }
}

/// Memory for a chunk; the answer is where its first node goes, the highest.
pub(super) fn allocate(class: usize) -> NonNull<Node> {
    let layout = layout(class);
    // SAFETY: the layout is not of size zero.
    let memory = unsafe { alloc(layout) };
    expose(memory);
    let lowest = NonNull::new(memory.cast()).unwrap_or_else(|| handle_alloc_error(layout));
    // SAFETY: there is room for 2^class nodes.
    unsafe { lowest.add((1 << class) - 1) }
}

/// Many pointers to nodes come from references, and may be used for no more than those may. Memory is freed
/// through a pointer that may be used for all of it: found again by its address.
fn expose(memory: *mut u8) {
    let _ = memory.expose_provenance();
}

/// The pointer to memory that was exposed.
fn exposed(address: usize) -> *mut u8 {
    ptr::with_exposed_provenance_mut(address)
}

/// The nodes of a chunk, from the first to the last. In a room that is the header alone.
///
/// # Safety
/// `first` is the first node of a chunk of that class, which stays while the iterator and the
/// nodes are used.
pub(super) unsafe fn nodes_of<'a>(
    first: NonNull<Node>,
    class: usize,
) -> impl DoubleEndedIterator<Item = &'a Node> {
    // SAFETY: the caller's promise.
    let len = if unsafe { first.as_ref() }.word.load().is_room() {
        1
    } else {
        1 << class
    };
    // SAFETY: the same.
    (0..len).map(move |i| unsafe { first.sub(i).as_ref() })
}

/// A root begins in the middle of a cache line: so the word, which all read, and the hint, which is
/// written for each child, are on different ones.
const ROOT_OFFSET: usize = 32;

/// What the allocator aligns to anyway, for asking for more is much slower. There is room to move the
/// root to where it should be.
const ROOT_ALIGN: usize = align_of::<Node>();

fn root_layout() -> Layout {
    Layout::from_size_align(size_of::<Node>() + 64 - ROOT_ALIGN, ROOT_ALIGN).expect("small")
}

/// Memory for a node that is in no list.
pub(super) fn allocate_root(node: Node) -> NonNull<Node> {
    // SAFETY: the layout is not of size zero.
    let memory = unsafe { alloc(root_layout()) };
    expose(memory);
    let memory = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(root_layout()));
    let shift = ROOT_OFFSET.wrapping_sub(memory.addr().get()) % 64;
    // SAFETY: fresh memory with room for a node after the shift, a multiple of its alignment.
    unsafe {
        let root = memory.add(shift).cast::<Node>();
        root.write(node);
        // A root is in no chunk: the tag is free to remember the shift.
        root.as_ref().set_chunk_class(shift / ROOT_ALIGN);
        root
    }
}

/// Frees a root.
///
/// # Safety
/// Made by `allocate_root`; nobody has a pointer to it, and its slot and link are empty.
pub(super) unsafe fn free_root(root: NonNull<Node>) {
    // SAFETY: the caller's promise. Nothing to drop but under loom, see `free`.
    unsafe {
        let shift = root.as_ref().chunk_class().unwrap_or(0) * ROOT_ALIGN;
        let memory = exposed(root.addr().get() - shift);
        memory.add(shift).cast::<Node>().drop_in_place();
        dealloc(memory, root_layout());
    }
}

/// Frees a chunk of the class.
///
/// # Safety
/// Made by `allocate(class)` and initialised; nobody has a pointer into it (I2), and its slots
/// and links are empty.
pub(super) unsafe fn free(first: NonNull<Node>, class: usize) {
    let len = 1 << class;
    // The lowest node is where the memory begins.
    let memory = exposed(first.addr().get() - (len - 1) * size_of::<Node>());
    // SAFETY: the caller's promise.
    let is_room = unsafe { first.as_ref() }.word.load().is_room();
    if is_room {
        // SAFETY: the caller's promise.
        unsafe { memory.cast::<Room>().drop_in_place() };
    }
    for i in (if is_room { len - 1 } else { 0 }..len).rev() {
        // Nothing to do but under loom, whose atomics and cells report what they saw.
        // SAFETY: the caller's promise.
        unsafe { memory.cast::<Node>().add(i).drop_in_place() };
    }
    // SAFETY: the caller's promise.
    unsafe { dealloc(memory, layout(class)) };
}

/// The shards of a parent.
pub(super) fn shards_of<'a>(first: NonNull<Node>) -> impl Iterator<Item = &'a Node> {
    // SAFETY: the caller has them from an extension of a node that it holds.
    unsafe { nodes_of(first, SHARD_CLASS) }
}

impl Node {
    /// The next node of the list, or null.
    #[inline(always)]
    pub(super) fn sibling(&self) -> *mut Node {
        // SAFETY: fixed once linked (I1), and the caller found this node linked; rewritten only
        // by the thread that has the parent DEAD, and is then alone in the list (I2).
        self.sibling
            .with(|s| unsafe { *s })
            .map_addr(|a| a & !CLASS_BITS)
    }

    /// The class of the chunk that begins here, if one does.
    pub(super) fn chunk_class(&self) -> Option<usize> {
        // SAFETY: as in `sibling`.
        let tag = self.sibling.with(|s| unsafe { *s }).addr() & CLASS_BITS;
        tag.checked_sub(1)
    }

    /// Links the node to `next`, keeping the chunk's tag.
    ///
    /// # Safety
    /// The node is not linked yet, or its list is the caller's alone (I2).
    pub(super) unsafe fn set_sibling(&self, next: *mut Node) {
        self.sibling.with_mut(|s| {
            // SAFETY: nobody else reads or writes it now (the caller's promise).
            unsafe { *s = next.map_addr(|a| a | (*s).addr() & CLASS_BITS) }
        });
    }

    /// # Safety
    /// As for `set_sibling`.
    pub(super) unsafe fn set_chunk_class(&self, class: usize) {
        self.sibling.with_mut(|s| {
            // SAFETY: the caller's promise.
            unsafe { *s = (*s).map_addr(|a| a | (class + 1)) }
        });
    }

    /// The child list from the newest chunk to the oldest.
    ///
    /// # Safety
    /// The caller is the node's last owner, and the iterator is used while it is.
    pub(super) unsafe fn children(&self) -> impl Iterator<Item = &Node> {
        // Relaxed: the last owner has acquired what the others did, the pushes too.
        let first = self.children.load(Relaxed);
        // SAFETY: linked nodes stay for as long as the caller promises (I2).
        iter::successors(unsafe { first.as_ref() }, |node| unsafe {
            node.sibling().as_ref()
        })
    }
}
