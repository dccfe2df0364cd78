//! A node that is not on the heap, but in a static, and never goes.
//!
//! Its word begins with one handle, which is nobody's to give up. So whoever else has one finds two at least, nobody is ever
//! its last owner (I4), and all that a last owner does (resets, frees, settles) is not done to it.

#[cfg(not(any(cancel_tree_loom, cancel_tree_shuttle)))]
mod imp {
    use super::super::node::Node;
    use super::super::word::State;
    use super::super::Handle;
    use crate::sync::{Acquire, AtomicPtr, Release};
    #[cfg(target_pointer_width = "64")]
    use core::mem::offset_of;
    use core::ptr;

    /// The node, and a handle of it to be borrowed, once somebody has asked for that.
    #[cfg_attr(target_pointer_width = "64", repr(C, align(64)))]
    #[cfg_attr(not(target_pointer_width = "64"), repr(C))]
    pub(crate) struct Fixed {
        /// What the handle has in it: null, or the address of `node`.
        handle: AtomicPtr<Node>,
        // The handle and the word, which all read, and the hint, which is written for each child, are on different lines, as in
        // roots on the heap. Machines that have no use for that have no memory for it either.
        #[cfg(target_pointer_width = "64")]
        between: [u8; 24],
        node: Node,
    }

    #[cfg(target_pointer_width = "64")]
    const _: () = assert!(offset_of!(Fixed, node) == 32);

    // SAFETY: as for handles.
    unsafe impl Send for Fixed {}
    // SAFETY: as for handles; `handle` is atomic until it is not written any more.
    unsafe impl Sync for Fixed {}

    impl Fixed {
        pub(crate) const fn new() -> Fixed {
            Fixed {
                handle: AtomicPtr::new(ptr::null_mut()),
                #[cfg(target_pointer_width = "64")]
                between: [0; 24],
                node: Node::new(State::NEW, ptr::null()),
            }
        }

        #[inline]
        pub(crate) fn is_cancelled(&self) -> bool {
            self.node.word.load().is_cancelled()
        }

        /// The handle with which the word begins. The node does not move any more, for it is borrowed for ever.
        #[inline]
        pub(crate) fn handle(&'static self) -> &'static Handle {
            // Acquire: pairs with the one store there is.
            if self.handle.load(Acquire).is_null() {
                let node = ptr::from_ref(&self.node).cast_mut();
                // Not a store: one that comes late would race with those that read the handle. Release: pairs with the
                // load, and, on failure, with the Acquire here.
                let _ = self
                    .handle
                    .compare_exchange(ptr::null_mut(), node, Release, Acquire);
            }
            // SAFETY: a handle is a pointer to its node, and nothing else; this one was written before, once and for all.
            // It is counted from the beginning, and never given up, for it is only lent.
            unsafe { &*self.handle.as_ptr().cast_const().cast::<Handle>() }
        }
    }

    const _: () = assert!(size_of::<Handle>() == size_of::<AtomicPtr<Node>>());
    const _: () = assert!(align_of::<Handle>() <= align_of::<AtomicPtr<Node>>());
}

/// In models a static is made for each execution and dropped after it: so there it is a root like any other, and what is
/// never given back would be a leak.
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
mod imp {
    use super::super::Handle;

    pub(crate) struct Fixed(Handle);

    impl Fixed {
        pub(crate) fn new() -> Fixed {
            Fixed(Handle::root())
        }

        pub(crate) fn is_cancelled(&self) -> bool {
            self.0.is_cancelled()
        }

        pub(crate) fn handle(&'static self) -> &'static Handle {
            &self.0
        }
    }
}

pub(crate) use imp::Fixed;
