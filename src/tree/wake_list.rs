//! Nodes where somebody waits whom a cancel is to wake.
//!
//! A walk meets the youngest child first. Whoever has made the tokens has mostly made their tasks in the same order, so
//! a list is gone through from its end: of those in it the oldest is woken first, and the one who runs them goes upwards
//! through memory, as processors like it.

#[cfg(feature = "std")]
use super::start;
use super::Node;
use crate::sync::{Panics, SMALL};
use core::mem::MaybeUninit;

/// As many as the largest chunk has nodes; a kilobyte.
const LEN: usize = if SMALL { 2 } else { 64 };

/// So many nodes are looked at while somebody in the list waits. (A climb back from the end of a chain looks at none.)
const LOOKS: usize = 1024;

/// What it knows are nodes below one that the canceller keeps, or that one: marked, so they stay, and so does whoever
/// waits there, until the last moment. No waker is out of its slot while another one runs.
pub(super) struct WakeList<'a> {
    entries: [MaybeUninit<Entry<'a>>; LEN],
    len: usize,
    looks: usize,
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    node: &'a Node,
    /// Whose own cancel it is. Without std there are no deadlines that ask for it.
    #[cfg(feature = "std")]
    origin: *const Node,
}

impl<'a> WakeList<'a> {
    #[inline]
    pub(super) const fn new() -> WakeList<'a> {
        WakeList {
            entries: [const { MaybeUninit::uninit() }; LEN],
            len: 0,
            looks: 0,
        }
    }

    /// For each node that is looked at. User code, now and then.
    #[inline]
    pub(super) fn look(&mut self, panics: &mut Panics) {
        self.looks += 1;
        if self.looks == LOOKS {
            self.wake_all(panics);
        }
    }

    /// User code, if that fills it.
    #[inline]
    #[cfg_attr(not(feature = "std"), allow(unused_variables))]
    pub(super) fn push(&mut self, node: &'a Node, origin: *const Node, panics: &mut Panics) {
        self.entries[self.len].write(Entry {
            node,
            #[cfg(feature = "std")]
            origin,
        });
        self.len += 1;
        if self.len == LEN {
            self.wake_all(panics);
        }
    }

    /// User code.
    pub(super) fn wake_all(&mut self, panics: &mut Panics) {
        self.looks = 0;
        while self.len != 0 {
            panics.catch(|| {
                while self.len != 0 {
                    self.len -= 1;
                    // SAFETY: all below `len` were written.
                    let entry = unsafe { self.entries[self.len].assume_init() };
                    Self::wake(entry);
                }
            });
        }
    }

    fn wake(entry: Entry) {
        let node = entry.node;
        let Some(waker) = node.slot.disarm(&node.word) else {
            return;
        };
        #[cfg(feature = "std")]
        if start::is_told(&waker) {
            // SAFETY: out of the slot of a node that inherits from there, or is that one.
            return unsafe { start::wake(waker, entry.origin) };
        }
        waker.wake();
    }
}
