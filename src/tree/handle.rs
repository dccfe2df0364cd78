//! A counted reference to a node: what the floors above see of the tree.

use super::cause::Cause;
use super::extension::{AnyOf, Extension};
use super::node::Node;
use super::why::raw_cause;
use super::word::State;
use super::{children, chunk, reclaim};
use alloc::boxed::Box;
use core::ptr::{self, NonNull};

/// A counted reference to a node: what a token is made of.
#[repr(transparent)]
pub(crate) struct Handle(pub(super) NonNull<Node>);

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
        Handle(chunk::allocate_root(Node::new(state, ptr::null())))
    }

    #[inline(always)]
    pub(super) fn node(&self) -> &Node {
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

    /// # Safety
    /// The address of a handle that was given up for it, and was not given back yet.
    pub(crate) unsafe fn from_address(address: *const ()) -> Handle {
        // SAFETY: a node's, so not null.
        Handle(unsafe { NonNull::new_unchecked(address.cast_mut().cast()) })
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
