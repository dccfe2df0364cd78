//! What cancels a node from outside the tree and does not hold it: the timer, a foreign parent.
//!
//! A context that waits for its deadline may go before; so a trigger does not count as a handle, and
//! the two ends have to agree on who is last. The firer takes the trigger (ARMED to FIRING) before he
//! touches the node. The node's last owner takes it out of the game (ARMED to nothing); if the firer was
//! faster, he leaves him a handle instead (LEFT), which the firer gives up when he is through. Nobody
//! waits. The edges of `any_of.rs` play the same game with a slot of the tree.
//!
//! | from | by | to |
//! | --- | --- | --- |
//! | nothing | the owner of a new node: `arm`, or what the timer has for it | ARMED |
//! | ARMED | the last owner: `settle` | nothing |
//! | ARMED | the firer: `begin` | FIRING |
//! | FIRING | another firer, of a foreign parent: `join` | FIRING and one more of them |
//! | FIRING | the last owner: `settle` | FIRING, LEFT |
//! | FIRING | the firer: `finish` | nothing |
//! | FIRING, LEFT | the firer: `finish`, and releases the handle | nothing |

use super::{reclaim, Node};
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU64, Panics, Relaxed};
use core::ptr::{self, NonNull};

/// The firer may take it.
pub(crate) const ARMED: u64 = 1;
/// The firer has it, and the node stays until he is through.
const FIRING: u64 = 1 << 1;
/// The last owner has left a handle to the firer.
const LEFT: u64 = 1 << 2;
/// The bits from here on are its user's own.
pub(crate) const USER: u32 = 3;
/// One firer more, where a trigger's user counts them there.
const ONE: u64 = 1 << USER;

pub(crate) struct Trigger {
    word: AtomicU64,
    node: AtomicPtr<Node>,
}

impl Trigger {
    pub(crate) fn new(word: u64) -> Trigger {
        Trigger {
            word: AtomicU64::new(word),
            node: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Says which node it is about. It is not armed.
    #[inline]
    pub(crate) fn aim(&self, node: &Node) {
        // Relaxed: published by the step that arms.
        self.node.store(ptr::from_ref(node).cast_mut(), Relaxed);
    }

    #[inline]
    pub(crate) fn load(&self) -> u64 {
        // Acquire: pairs with the releases of `replace`.
        self.word.load(Acquire)
    }

    /// A step of its user's: the word becomes `new` if it still is `seen`.
    #[inline]
    pub(crate) fn replace(&self, seen: u64, new: u64) -> Result<(), u64> {
        // AcqRel: the word changes hands between the node's owner and the firer, and with it what
        // they keep beside it. Acquire on failure: the answer decides what to do instead.
        match self.word.compare_exchange(seen, new, AcqRel, Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(now),
        }
    }

    /// Clears bits of its user's; the word before.
    pub(crate) fn clear(&self, bits: u64) -> u64 {
        // AcqRel: as in `replace`.
        self.word.fetch_and(!bits, AcqRel)
    }

    /// For one that nobody else knows; published by what follows.
    pub(crate) fn reset(&self, word: u64) {
        self.word.store(word, Relaxed);
    }

    /// The firer's first step, if it still is `seen`, which is armed; `without` goes as well.
    pub(crate) fn begin(&self, seen: u64, without: u64) -> Result<(), u64> {
        debug_assert!(seen & ARMED != 0);
        self.replace(seen, seen & !(ARMED | without) | FIRING)
    }

    /// Another firer comes along while it is FIRING: his call too must not return before the node is
    /// cancelled. Only for triggers whose user counts firers in his bits, and finishes by `finish_one`.
    pub(super) fn join(&self, seen: u64) -> Result<(), u64> {
        debug_assert!(seen & FIRING != 0);
        self.replace(seen, seen + ONE)
    }

    /// A firer's last step where there may be several; the word before, without LEFT unless he was the last.
    pub(super) fn finish_one(&self) -> u64 {
        let mut seen = self.load();
        loop {
            let others = seen >= ONE;
            let new = if others { seen - ONE } else { 0 };
            match self.replace(seen, new) {
                Ok(()) if others => return seen & !LEFT,
                Ok(()) => return seen,
                Err(now) => seen = now,
            }
        }
    }

    /// A firer's last step where there is one; the word before.
    pub(super) fn finish(&self) -> u64 {
        self.clear(FIRING | LEFT)
    }

    /// What it is about.
    ///
    /// # Safety
    /// The caller has made it FIRING, or joined, and has not finished: that keeps the node.
    pub(super) unsafe fn node(&self) -> &Node {
        // Relaxed: published by the step that armed. SAFETY: the caller's promise.
        unsafe { &*self.node.load(Relaxed) }
    }

    /// The firer's work: `fire` is given the node; after `finish` the trigger may be gone.
    ///
    /// # Safety
    /// The caller has made it FIRING, or joined.
    pub(super) unsafe fn fire(
        this: NonNull<Trigger>,
        fire: impl FnOnce(&Node),
        finish: impl FnOnce(&Trigger) -> u64,
        panics: &mut Panics,
    ) {
        // SAFETY: FIRING keeps the node, and the node keeps the trigger.
        let node = unsafe {
            let node = this.as_ref().node.load(Relaxed);
            NonNull::new_unchecked(node)
        };
        // SAFETY: as above.
        panics.catch(|| fire(unsafe { node.as_ref() }));
        // SAFETY: as above; the last use.
        if finish(unsafe { this.as_ref() }) & LEFT != 0 {
            // SAFETY: the last owner left us his handle.
            panics.catch(|| unsafe { reclaim::release(node) });
        }
    }

    /// The last owner's part. False: the firer has it, and now also a handle of the node.
    pub(super) fn settle(&self, node: &Node) -> bool {
        let mut seen = self.load();
        loop {
            if seen & ARMED != 0 {
                match self.replace(seen, seen & !ARMED) {
                    Ok(()) => return true,
                    Err(now) => seen = now,
                }
            } else if seen & FIRING != 0 {
                // A handle for the firer, before he can know of it.
                node.word.add_handle();
                match self.replace(seen, seen | LEFT) {
                    Ok(()) => return false,
                    Err(now) => {
                        node.word.return_handles(1);
                        seen = now;
                    }
                }
            } else {
                return true;
            }
        }
    }

    /// The last owner's short way: out of the game, unless the firer has it.
    #[inline]
    pub(super) fn disarm(&self) -> bool {
        let mut seen = self.load();
        while seen & ARMED != 0 {
            match self.replace(seen, seen & !ARMED) {
                Ok(()) => return true,
                Err(now) => seen = now,
            }
        }
        seen & FIRING == 0
    }

    /// It may still fire, or is at it.
    pub(crate) fn is_live(seen: u64) -> bool {
        seen & (ARMED | FIRING) != 0
    }

    pub(super) fn is_armed(seen: u64) -> bool {
        seen & ARMED != 0
    }

    pub(super) fn is_firing(seen: u64) -> bool {
        seen & FIRING != 0
    }

    /// One that is armed from birth.
    pub(super) fn armed(node: &Node) -> Trigger {
        let this = Trigger::new(ARMED);
        this.aim(node);
        this
    }
}
