//! What is above a token, and which token it is.

use super::extension::AnyOf;
use super::{Handle, Node};
use crate::tree::word::State;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::ptr;

/// Which token it is: clones have one, and of the tokens that exist at a time no two have the same. Made by
/// [`CancellationToken::id`](crate::CancellationToken::id).
///
/// It is a number for logs and as a key, and keeps nothing alive. When a token is gone, another one may get its number. It
/// is made of an address in memory: keep it from anyone who must not learn addresses of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(usize);

impl From<TokenId> for usize {
    fn from(id: TokenId) -> usize {
        id.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

fn id_of(node: &Node) -> TokenId {
    TokenId(ptr::from_ref(node).addr())
}

/// The token above, past what a contended parent has in between.
///
/// # Safety
/// As for `Node::parent`.
pub(super) unsafe fn token_above(node: &Node) -> Option<&Node> {
    let mut node = node;
    loop {
        // SAFETY: the caller's promise, and what is above what is held (I5).
        node = unsafe { node.parent() }?;
        if !node.word.load().has_any(State::SHARD) {
            return Some(node);
        }
    }
}

impl Handle {
    pub(crate) fn id(&self) -> TokenId {
        id_of(self.node())
    }

    pub(crate) fn parent_id(&self) -> Option<TokenId> {
        // SAFETY: held.
        unsafe { token_above(self.node()) }.map(id_of)
    }

    /// The token so many steps above.
    pub(super) fn node_above(&self, steps: usize) -> &Node {
        let mut node = self.node();
        for _ in 0..steps {
            // SAFETY: held, or above what is held (I5).
            node = unsafe { token_above(node) }.unwrap_or(node);
        }
        node
    }

    pub(crate) fn depth(&self) -> usize {
        let mut depth = 0;
        let mut node = self.node();
        // SAFETY: held, or above what is held (I5).
        while let Some(above) = unsafe { token_above(node) } {
            depth += 1;
            node = above;
        }
        depth
    }

    /// On any of the ways up. The token itself is not below itself.
    pub(crate) fn is_below(&self, other: &Handle) -> bool {
        self.is_below_within(usize::MAX, other)
    }

    /// The same for what is near: after so many steps the answer is no.
    pub(crate) fn is_below_within(&self, steps: usize, other: &Handle) -> bool {
        let (own, other) = (self.node(), other.node());
        let (mut found, mut left) = (false, steps);
        self.each_above(|node| {
            found |= ptr::eq(node, other);
            left = left.saturating_sub(1);
            !found && left != 0
        });
        found && !ptr::eq(own, other)
    }

    /// Visits the token and all above it, as long as the visitor says so.
    pub(super) fn each_above<'a>(&'a self, mut visit: impl FnMut(&'a Node) -> bool) {
        // An `any_of` token has more than one way up. From there on what has been looked at is noted, for another way may lead to
        // it too; what is below leads there alone.
        let mut others: Vec<&Node> = Vec::new();
        let mut seen: BTreeSet<*const Node> = BTreeSet::new();
        let mut has_forked = false;
        let mut next = Some(self.node());
        while let Some(node) = next {
            if has_forked && !seen.insert(node) {
                next = others.pop();
                continue;
            }
            if !visit(node) {
                return;
            }
            let extension = node.link.extension();
            // Of `below_both` the other is not a way up.
            let extension = extension.filter(|e| !matches!(e.any_of, AnyOf::No));
            let edges = extension.map_or(&[][..], |extension| &extension.edges);
            has_forked |= !edges.is_empty();
            // SAFETY: held, or above what is held.
            others.extend(edges.iter().filter_map(|edge| unsafe { edge.source() }));
            // SAFETY: the same (I5).
            next = unsafe { node.parent() }.or_else(|| others.pop());
        }
    }
}
