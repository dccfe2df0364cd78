//! Knowing a token without keeping it: a counted cell beside the node, which outlives it.
//!
//! That makes a handle out of none, so "one handle, found by its owner" (I4) does not stand any more where there is such a
//! cell. The last owner therefore first ends it (`settle`): after that, what it finds stands as elsewhere. What upgrades
//! counts itself in the cell, adds a handle to the node, and leaves with TOUCHED. So the last owner finds
//!
//! - upgraders: they get a handle (`LEFT`), and the first that leaves gives it up, for it has its own by then;
//! - TOUCHED: it takes that away, and *then* looks at the node's word again;
//! - neither: nobody has come since it looked at the word, and by the same step nobody will.
//!
//! Nobody waits.

use super::{Handle, Node};
use crate::sync::{abort_on_overflow, Acquire, Arc, AtomicUsize, Relaxed, Release, UnsafeCell};
use core::ptr::NonNull;

/// The token has a handle. Once this has gone it does not come back.
const ALIVE: usize = 1;
/// The last owner has left a handle to the upgraders that it found.
const LEFT: usize = 1 << 1;
/// An upgrader has been here since the last owner looked.
const TOUCHED: usize = 1 << 2;
/// One upgrader.
const ONE: usize = 1 << 3;

/// What weak handles point to.
pub(crate) struct Cell {
    state: AtomicUsize,
    /// Good as long as the state is ALIVE, and for an upgrader that has counted itself then.
    node: UnsafeCell<NonNull<Node>>,
}

// SAFETY: the state decides which thread may use the node.
unsafe impl Send for Cell {}
// SAFETY: as above.
unsafe impl Sync for Cell {}

/// A handle of a token that does not keep it.
#[derive(Clone)]
pub(crate) struct Weak(pub(super) Arc<Cell>);

impl Weak {
    /// `None` if the last handle is gone.
    pub(crate) fn upgrade(&self) -> Option<Handle> {
        let cell = &*self.0;
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = cell.state.load(Relaxed);
        loop {
            if seen & ALIVE == 0 {
                return None;
            }
            if seen > usize::MAX / 2 {
                abort_on_overflow();
            }
            // Relaxed: the node was published with the cell. The last owner learns that somebody is here, and no more.
            match cell
                .state
                .compare_exchange_weak(seen, seen + ONE, Relaxed, Relaxed)
            {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        // SAFETY: counted in while ALIVE: the last owner leaves us a handle rather than go.
        unsafe { cell.node().as_ref() }.word.add_handle();
        let handle = Handle(cell.node());
        // Relaxed: a guess, which the CAS below checks.
        seen = cell.state.load(Relaxed);
        loop {
            // What was left is given up by the first that has a handle of its own: from then on that one is the last
            // owner, and looks here again.
            let new = ((seen - ONE) | TOUCHED) & !LEFT;
            // Release: pairs with the last owner's look, after which it sees our handle.
            match cell
                .state
                .compare_exchange_weak(seen, new, Release, Relaxed)
            {
                Ok(_) if seen & LEFT != 0 => {
                    handle.node().word.return_handles(1);
                    return Some(handle);
                }
                Ok(_) => return Some(handle),
                Err(now) => seen = now,
            }
        }
    }
}

impl Cell {
    pub(super) fn new(node: NonNull<Node>) -> Cell {
        Cell {
            state: AtomicUsize::new(ALIVE),
            node: UnsafeCell::new(node),
        }
    }

    fn node(&self) -> NonNull<Node> {
        // SAFETY: not written any more.
        self.node.with(|node| unsafe { *node })
    }

    /// The last owner's part, after it has found one handle and before it acts on that. Returns `false` if that is not
    /// so any more, or may not be.
    pub(super) fn settle(&self, node: &Node) -> bool {
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = self.state.load(Relaxed);
        while seen & ALIVE != 0 {
            if seen >= ONE {
                // A handle for them, before they can know of it.
                // Relaxed: the handle is a count on the node's own word, where an upgrader adds one before it takes one back.
                node.word.add_handle();
                match self
                    .state
                    .compare_exchange(seen, seen | LEFT, Relaxed, Relaxed)
                {
                    Ok(_) => return false,
                    Err(now) => seen = now,
                }
                node.word.return_handles(1);
            } else if seen & TOUCHED != 0 {
                // Acquire: pairs with the upgrader's last step; the caller looks at the word again.
                match self
                    .state
                    .compare_exchange(seen, seen & !TOUCHED, Acquire, Relaxed)
                {
                    Ok(_) => return false,
                    Err(now) => seen = now,
                }
            } else {
                match self.state.compare_exchange(seen, 0, Relaxed, Relaxed) {
                    Ok(_) => return true,
                    Err(now) => seen = now,
                }
            }
        }
        true
    }
}
