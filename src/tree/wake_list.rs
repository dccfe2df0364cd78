//! Wakers that a cancel has taken, to be woken many at a time.
//!
//! A walk meets the youngest child first. Whoever has made the tokens has mostly made their tasks in the same order, so
//! a list is woken from its end: of those in it the oldest goes first, and the one who runs them goes upwards through
//! memory, as processors like it.

use crate::sync::{Panics, SMALL};
use core::mem::MaybeUninit;
use core::task::Waker;

/// As many as the largest chunk has nodes; a kilobyte.
const LEN: usize = if SMALL { 2 } else { 64 };

pub(super) struct WakeList {
    wakers: [MaybeUninit<Waker>; LEN],
    len: usize,
}

impl WakeList {
    #[inline]
    pub(super) const fn new() -> WakeList {
        WakeList {
            wakers: [const { MaybeUninit::uninit() }; LEN],
            len: 0,
        }
    }

    /// User code, if that fills it.
    #[inline]
    pub(super) fn push(&mut self, waker: Waker, panics: &mut Panics) {
        self.wakers[self.len].write(waker);
        self.len += 1;
        if self.len == LEN {
            self.wake_all(panics);
        }
    }

    /// User code.
    pub(super) fn wake_all(&mut self, panics: &mut Panics) {
        while self.len != 0 {
            panics.catch(|| {
                while self.len != 0 {
                    self.len -= 1;
                    // SAFETY: all below `len` were written, and each is taken out once.
                    unsafe { self.wakers[self.len].assume_init_read() }.wake();
                }
            });
        }
    }
}

/// Without std a panic of one passes by, and the others are woken meanwhile.
#[cfg(not(feature = "std"))]
impl Drop for WakeList {
    fn drop(&mut self) {
        self.wake_all(&mut Panics::default());
    }
}
