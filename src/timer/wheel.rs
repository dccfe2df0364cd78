//! A hierarchical timing wheel (Varghese and Lauck): insertion and expiry are O(1), whatever the number
//! of entries. Nobody but its thread touches it, so it has no lock; entries are strung through `next`.
//!
//! Level l has 64 slots of 64^l ticks. An entry is on the level of the highest group of six bits in which its tick
//! differs from now, in the slot that the group says. So all of level 0 comes before all of level 1, and
//! within a level the slots come in order: the next one to be looked at is found by two bit scans.

use super::clock::Tick;
use super::entry::{Entry, Visit};
use crate::sync::Relaxed;
use core::ptr::{self, NonNull};

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
/// Enough for every tick that an entry has room for.
const LEVELS: usize = 10;

pub(crate) struct Wheel {
    now: Tick,
    occupied: [u64; LEVELS],
    slots: [[*mut Entry; SLOTS]; LEVELS],
    /// How many entries it has.
    len: usize,
}

/// What the wheel does with the entries that leave it.
pub(crate) trait Expired {
    /// It is FIRING, by the wheel, for the callee to go on.
    fn fire(&mut self, entry: NonNull<Entry>);
    /// Nobody else has it: to be freed.
    fn free(&mut self, entry: NonNull<Entry>);
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel {
            now: 0,
            occupied: [0; LEVELS],
            slots: [[ptr::null_mut(); SLOTS]; LEVELS],
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes over a list of scheduled entries, as the inbox has them.
    ///
    /// # Safety
    /// The entries are scheduled and in no other list.
    pub(crate) unsafe fn take_in(&mut self, list: *mut Entry, expired: &mut impl Expired) {
        each(list, |entry| {
            self.len += 1;
            // SAFETY: out of the inbox, and counted.
            unsafe { self.place(entry, expired) };
        });
    }

    /// # Safety
    /// The entry is scheduled, counted in `len`, and in no list.
    unsafe fn place(&mut self, entry: NonNull<Entry>, expired: &mut impl Expired) {
        // SAFETY: scheduled, so it stays until the timer lets it go.
        let this = unsafe { entry.as_ref() };
        let mut when = this.when();
        if when <= self.now || this.is_abandoned() {
            match this.visit(self.now) {
                Visit::Later(tick) => when = tick,
                out => {
                    self.len -= 1;
                    match out {
                        Visit::Fire => expired.fire(entry),
                        Visit::Abandoned => expired.free(entry),
                        _ => {}
                    }
                    return;
                }
            }
        }
        let level = ((Tick::BITS - 1 - (when ^ self.now).leading_zeros()) / BITS) as usize;
        let slot = (when >> (BITS * level as u32)) as usize % SLOTS;
        let list = &mut self.slots[level][slot];
        // Relaxed: the list is this thread's.
        this.next.store(*list, Relaxed);
        *list = entry.as_ptr();
        self.occupied[level] |= 1 << slot;
    }

    /// The tick at which there is something to do next.
    pub(crate) fn next(&self) -> Option<Tick> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        let slot = Tick::from(self.occupied[level].trailing_zeros());
        let shift = BITS * level as u32;
        let above = (self.now >> shift) & !(SLOTS as Tick - 1);
        Some((above | slot) << shift)
    }

    /// Goes on to `now`, and sees to everything on the way.
    pub(crate) fn advance(&mut self, now: Tick, expired: &mut impl Expired) {
        while let Some(tick) = self.next().filter(|tick| *tick <= now) {
            let level = self
                .occupied
                .iter()
                .position(|bits| *bits != 0)
                .unwrap_or(0);
            let slot = self.occupied[level].trailing_zeros();
            self.occupied[level] &= !(1 << slot);
            let list = std::mem::replace(&mut self.slots[level][slot as usize], ptr::null_mut());
            self.now = tick;
            // SAFETY: entries of the wheel, out of their list now.
            each(list, |entry| unsafe { self.place(entry, expired) });
        }
        self.now = self.now.max(now);
    }

    /// Throws out all that was abandoned. O(n): worth it when that is a good part of them.
    pub(crate) fn purge(&mut self, expired: &mut impl Expired) {
        for level in 0..LEVELS {
            for slot in 0..SLOTS {
                let list = std::mem::replace(&mut self.slots[level][slot], ptr::null_mut());
                let mut kept = ptr::null_mut();
                each(list, |entry| {
                    // SAFETY: the wheel's.
                    let this = unsafe { entry.as_ref() };
                    if this.is_abandoned() {
                        self.len -= 1;
                        expired.free(entry);
                    } else {
                        this.next.store(kept, Relaxed);
                        kept = entry.as_ptr();
                    }
                });
                self.slots[level][slot] = kept;
                if kept.is_null() {
                    self.occupied[level] &= !(1 << slot);
                }
            }
        }
    }
}

/// Goes through a list whose entries may leave it on the way.
fn each(list: *mut Entry, mut with: impl FnMut(NonNull<Entry>)) {
    let mut next = NonNull::new(list);
    while let Some(entry) = next {
        // SAFETY: in the list, which is the caller's. Relaxed: so is `next`.
        next = NonNull::new(unsafe { entry.as_ref() }.next.load(Relaxed));
        with(entry);
    }
}
