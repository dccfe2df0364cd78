//! What the machine itself asks for the work that no contender can avoid.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A flag behind a pointer, the least that a shared token can be.
pub struct Flag(Box<AtomicUsize>);

impl Flag {
    pub fn new() -> Self {
        Self(Box::new(AtomicUsize::new(0)))
    }

    #[inline]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire) & 1 != 0
    }
}

/// Flags in a row, a cache line each: the least that cancelling a wide tree can be.
pub struct Lines(Vec<Line>);

#[repr(align(64))]
struct Line(AtomicUsize);

impl Lines {
    pub fn new(len: usize) -> Self {
        Self((0..len).map(|_| Line(AtomicUsize::new(0))).collect())
    }

    /// As they were, and gone through just now, as a tree is that has just been built.
    pub fn clear(&self) {
        for line in &self.0 {
            line.0.store(0, Ordering::Relaxed);
        }
    }

    pub fn set_all(&self) {
        for line in &self.0 {
            line.0.fetch_or(1, Ordering::AcqRel);
        }
    }
}

/// Nodes of 64 bytes, each of which knows the next: the least that cancelling a chain can be.
pub struct Linked {
    head: *const Node,
    /// Frees the nodes, which a walk along `next` would do no better.
    #[allow(
        clippy::vec_box,
        reason = "apart from each other, as a tree's nodes are"
    )]
    nodes: Vec<Box<Node>>,
}

#[repr(C)]
struct Node {
    flag: AtomicUsize,
    next: AtomicPtr<Node>,
    _rest: [usize; 6],
}

impl Linked {
    pub fn new(len: usize) -> Self {
        let mut nodes: Vec<Box<Node>> = Vec::with_capacity(len);
        for _ in 0..len {
            let mut node = Box::new(Node {
                flag: AtomicUsize::new(0),
                next: AtomicPtr::new(ptr::null_mut()),
                _rest: [0; 6],
            });
            if let Some(last) = nodes.last() {
                last.next.store(&mut *node, Ordering::Relaxed);
            }
            nodes.push(node);
        }
        let head = nodes.first().map_or(ptr::null(), |node| &**node);
        Self { head, nodes }
    }

    /// As that of [`Lines`].
    pub fn clear(&self) {
        for node in &self.nodes {
            node.flag.store(0, Ordering::Relaxed);
        }
    }

    pub fn set_all(&self) {
        let mut next = self.head;
        // SAFETY: every pointer of the list is null or one of the boxes in `nodes`, which live
        // as long as `self` and are only shared.
        while let Some(node) = unsafe { next.as_ref() } {
            node.flag.fetch_or(1, Ordering::AcqRel);
            next = node.next.load(Ordering::Relaxed);
        }
    }
}
