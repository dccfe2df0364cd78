//! What one cancel notes of nodes that it keeps, in memory of its own.

use super::Node;
use crate::sync::SMALL;
use alloc::vec::Vec;
use core::ptr;

/// Nodes, and something for each: a table of a power of two, at most half full.
pub(super) struct NodeMap<V> {
    table: Vec<(*const Node, V)>,
    len: usize,
}

impl<V: Copy + Default> NodeMap<V> {
    pub(super) const fn new() -> NodeMap<V> {
        NodeMap {
            table: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, node: *const Node) -> Option<V> {
        if self.is_empty() {
            return None;
        }
        let (found, value) = self.table[NodeMap::find(&self.table, node)];
        (!found.is_null()).then_some(value)
    }

    /// Whether the node is new there. None: no memory.
    pub(super) fn insert(&mut self, node: *const Node, value: V) -> Option<bool> {
        if self.len * 2 >= self.table.len() {
            self.grow()?;
        }
        let place = NodeMap::find(&self.table, node);
        let is_new = self.table[place].0.is_null();
        self.table[place] = (node, value);
        self.len += usize::from(is_new);
        Some(is_new)
    }

    /// One of the nodes, which is not there any more; nothing can be looked for until all are out.
    pub(super) fn pop(&mut self) -> Option<*const Node> {
        self.len = 0;
        loop {
            let (node, _) = self.table.pop()?;
            if !node.is_null() {
                return Some(node);
            }
        }
    }

    fn grow(&mut self) -> Option<()> {
        let len = (self.table.len() * 2).max(8);
        let mut table = Vec::new();
        table.try_reserve_exact(len).ok()?;
        table.resize(len, (ptr::null(), V::default()));
        for (node, value) in self.table.drain(..).filter(|(node, _)| !node.is_null()) {
            let place = NodeMap::find(&table, node);
            table[place] = (node, value);
        }
        self.table = table;
        Some(())
    }

    /// Where the node is, or is to be.
    fn find(table: &[(*const Node, V)], node: *const Node) -> usize {
        // Nodes are aligned to 16 at least, and often lie side by side.
        // Models want the same order each time.
        let mut place = if SMALL {
            0
        } else {
            (node.addr() >> 4).wrapping_mul(0x9E37_79B9_u32 as usize) >> 12
        };
        loop {
            place %= table.len();
            if table[place].0.is_null() || ptr::eq(table[place].0, node) {
                return place;
            }
            place += 1;
        }
    }
}
