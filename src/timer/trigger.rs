//! What cancels something from outside and does not hold it: the timer, a foreign parent. A word and the rules of
//! its game; what it is about is its user's.
//!
//! A context that waits for its deadline may go before; so a trigger does not count as a handle, and
//! the two ends have to agree on which is last. The firer takes the trigger (ARMED to FIRING) before it
//! touches the node. The node's last owner takes it out of the game (ARMED to nothing); if the firer was
//! faster, it leaves it a handle instead (LEFT), which the firer gives up when it is through. Nobody
//! waits. The edges of `edge.rs` play the same game with a slot of the tree.
//!
//! | from | by | to |
//! | --- | --- | --- |
//! | nothing | the owner of a new node: `arm`, or what the timer has for it | ARMED |
//! | ARMED | the last owner: `settle` | nothing |
//! | ARMED | the firer: `begin` | FIRING |
//! | FIRING | another firer, of a foreign parent: `join` | FIRING and one more of them |
//! | FIRING | the last owner: `settle` | FIRING, LEFT |
//! | FIRING | the firer: `finish`, `finish_unless_left` | nothing |
//! | FIRING, LEFT | the firer: `finish`, and releases the handle | nothing |
//! | ARMED or nothing | a mover of the deadline: `Entry::plan` | ARMED or nothing |
//! | FIRING | the timer, of a deadline that has been put off: `Entry::put_off` | ARMED |

use crate::sync::{AcqRel, Acquire, AtomicU64, Relaxed};

/// The firer may take it.
pub(super) const ARMED: u64 = 1;
/// The firer has it, and the node stays until it is through.
pub(super) const FIRING: u64 = 1 << 1;
/// The last owner has left a handle to the firer.
pub(super) const LEFT: u64 = 1 << 2;
/// The bits from here on are its user's own.
pub(super) const USER: u32 = 3;
/// One firer more, where a trigger's user counts them there.
const ONE: u64 = 1 << USER;

pub(crate) struct Trigger(AtomicU64);

impl Trigger {
    pub(super) fn new(word: u64) -> Trigger {
        Trigger(AtomicU64::new(word))
    }

    /// One that is armed from birth.
    pub(crate) fn armed() -> Trigger {
        Trigger::new(ARMED)
    }

    #[inline]
    pub(super) fn load(&self) -> u64 {
        // Acquire: pairs with the releases of `replace`.
        self.0.load(Acquire)
    }

    /// A step of its user's: the word becomes `new` if it still is `seen`.
    #[inline]
    pub(super) fn replace(&self, seen: u64, new: u64) -> Result<(), u64> {
        // AcqRel: the word changes hands between the node's owner and the firer, and with it what
        // they keep beside it. Acquire on failure: the answer decides what to do instead.
        match self.0.compare_exchange(seen, new, AcqRel, Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(now),
        }
    }

    /// For one that nobody else knows; published by what follows.
    #[inline]
    pub(super) fn reset(&self, word: u64) {
        // Relaxed: released by the step that publishes it.
        self.0.store(word, Relaxed);
    }

    /// The firer's first step, if it still is `seen`, which is armed; `without` goes as well.
    pub(super) fn begin(&self, seen: u64, without: u64) -> Result<(), u64> {
        debug_assert!(seen & ARMED != 0);
        self.replace(seen, seen & !(ARMED | without) | FIRING)
    }

    /// The first step of one of several firers: while it is FIRING they come along, for their calls too must not
    /// return before the node is cancelled. False: it is over, or settled. Only for triggers whose user has no
    /// bits of its own, and finishes by `finish_one`.
    pub(crate) fn begin_or_join(&self) -> bool {
        let mut seen = self.load();
        loop {
            let step = if seen & ARMED != 0 {
                self.begin(seen, 0)
            } else if seen & FIRING != 0 {
                self.join(seen)
            } else {
                return false;
            };
            match step {
                Ok(()) => return true,
                Err(now) => seen = now,
            }
        }
    }

    fn join(&self, seen: u64) -> Result<(), u64> {
        debug_assert!(seen & FIRING != 0);
        self.replace(seen, seen + ONE)
    }

    /// A firer's last step where there may be several; the trigger may be gone then. True: the last owner has left a
    /// handle, which is the caller's, for it was the last.
    #[must_use]
    pub(crate) fn finish_one(&self) -> bool {
        let mut seen = self.load();
        loop {
            let others = seen >= ONE;
            let new = if others { seen - ONE } else { 0 };
            match self.replace(seen, new) {
                Ok(()) => return !others && seen & LEFT != 0,
                Err(now) => seen = now,
            }
        }
    }

    /// A firer's last step where there is one; the trigger may be gone then. True: the last owner has left a handle,
    /// which is the caller's.
    #[must_use]
    pub(crate) fn finish(&self) -> bool {
        // AcqRel: as in `replace`.
        self.0.fetch_and(!(FIRING | LEFT), AcqRel) & LEFT != 0
    }

    /// The same, unless a handle has been left: to give that up may run user code.
    pub(super) fn finish_unless_left(&self) -> bool {
        let mut seen = self.load();
        while seen & LEFT == 0 {
            match self.replace(seen, seen & !FIRING) {
                Ok(()) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// The last owner's part. False: the firer has it, and now also a handle, which `leave` has added, or `take_back`
    /// taken back when the firer was through meanwhile.
    pub(crate) fn settle(&self, leave: impl Fn(), take_back: impl Fn()) -> bool {
        let mut seen = self.load();
        loop {
            if seen & ARMED != 0 {
                match self.replace(seen, seen & !ARMED) {
                    Ok(()) => return true,
                    Err(now) => seen = now,
                }
            } else if seen & FIRING != 0 {
                // A handle for the firer, before it can know of it.
                leave();
                match self.replace(seen, seen | LEFT) {
                    Ok(()) => return false,
                    Err(now) => {
                        take_back();
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
    pub(crate) fn disarm(&self) -> bool {
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
    pub(crate) fn is_live(&self) -> bool {
        live(self.load())
    }
}

/// Whether it may still fire, or is at it.
pub(super) fn live(seen: u64) -> bool {
    seen & (ARMED | FIRING) != 0
}
