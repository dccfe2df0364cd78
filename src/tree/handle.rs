//! A counted reference to a node: what the floors above see of the tree. It may be had by any file here: what can be done with it
//! stands in the file that does it, and what becomes of the node when it is dropped, in `reclaim.rs`.

use super::node::Node;
use core::ptr::NonNull;

/// A counted reference to a node: what a token is made of.
#[repr(transparent)]
pub(crate) struct Handle(pub(super) NonNull<Node>);

// SAFETY: what a node holds of others' (wakers, causes, callbacks) is Send and Sync, and all
// access to it is by atomics or decided by them (I8).
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    #[inline(always)]
    pub(super) fn node(&self) -> &Node {
        // SAFETY: the handle is counted, so the node is alive (I4).
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.node().word.load().is_cancelled()
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
