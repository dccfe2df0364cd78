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

use super::cause::ContextError;
use super::edge::Edge;
use super::extension::{AnyOf, Extension, Number};
use super::own::cancel_target;
use super::slot::Content;
use super::word::State;
use super::Handle;
use alloc::vec::Vec;
use core::iter;
use core::mem;
use core::ptr;

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
        let edges = others
            .iter()
            .map(|(number, _)| Edge::new(target.0.as_ptr(), *number));
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
                    cancel_target(edge, target.node(), cause);
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
}
