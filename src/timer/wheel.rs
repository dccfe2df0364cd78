//! A hierarchical timing wheel (Varghese and Lauck): insertion and expiry are O(1), whatever the number
//! of entries. Nobody but its thread touches it, so it has no lock. Its lists are rings strung through `next` and
//! `prev`, so that an entry can be taken out of the middle, and a list be put to the end of another, in a few steps.
//!
//! Level l has slots of 64^l ticks: 128 of them, for the 64 of the current slot of the level above, and of the next
//! one. So a slot of a higher level can be moved down during all of the time before it begins, in pieces, and nothing
//! is left to be moved when it does. An entry is on the lowest level that has room for its tick. On level 0 slots lie
//! ahead of now; on a higher one they begin after the slot that follows the current one, which is being moved down,
//! by `settle`.

use super::clock::Tick;
use super::entry::{Entry, Visit};
use crate::sync::Relaxed;
use core::ptr::{self, NonNull};

const BITS: u32 = 6;
/// Two rotations.
const SLOTS: usize = 2 << BITS;
/// Enough for every tick that a deadline can have: 2^47.
const LEVELS: usize = 8;
/// Lists of entries that are due, so that those of one moment need not wait for all of an earlier one.
const DUE: usize = 32;

/// The lists' numbers: the slots of all levels, then, for each level, what comes down from it (none from level 0), then
/// what is due.
const DOWN: usize = LEVELS * SLOTS;
const FIRST_DUE: usize = DOWN + LEVELS;
const LISTS: usize = FIRST_DUE + DUE;

pub(super) struct Wheel {
    now: Tick,
    /// The slots that have entries.
    occupied: [u128; LEVELS],
    lists: [*mut Entry; LISTS],
    /// The lists of what is due that have entries.
    due: u32,
    /// Whose turn it is to make room.
    merged: usize,
    /// How many entries it has.
    len: usize,
}

impl Wheel {
    pub(super) const fn new() -> Wheel {
        Wheel {
            now: 0,
            occupied: [0; LEVELS],
            lists: [ptr::null_mut(); LISTS],
            due: 0,
            merged: 0,
            len: 0,
        }
    }

    #[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn now(&self) -> Tick {
        self.now
    }

    // ----- lists --------------------------------------------------------------------------------
    // Relaxed, all: the links of entries in the wheel are this thread's. The first entry of a list knows the list's
    // number; what others remember is nothing, for no list begins with them.

    /// # Safety
    /// The entry is the timer's, and in no list.
    unsafe fn link(&mut self, list: usize, entry: NonNull<Entry>) {
        // SAFETY: the caller's promise; what is in a list stays until it is taken out.
        unsafe {
            let (new, this) = (entry.as_ptr(), entry.as_ref());
            this.set_list(list);
            let first = self.lists[list];
            if let Some(first) = first.as_ref() {
                let last = first.prev.load(Relaxed);
                this.prev.store(last, Relaxed);
                this.next.store(ptr::from_ref(first).cast_mut(), Relaxed);
                (*last).next.store(new, Relaxed);
                first.prev.store(new, Relaxed);
            } else {
                this.prev.store(new, Relaxed);
                this.next.store(new, Relaxed);
                self.lists[list] = new;
            }
        }
        self.len += 1;
    }

    /// # Safety
    /// The entry is in a list.
    unsafe fn unlink(&mut self, entry: NonNull<Entry>) {
        // SAFETY: the caller's promise, and for its neighbours too.
        unsafe {
            let this = entry.as_ref();
            let (prev, next) = (this.prev.load(Relaxed), this.next.load(Relaxed));
            let list = this.list();
            if self.lists[list] == entry.as_ptr() {
                if next == entry.as_ptr() {
                    self.lists[list] = ptr::null_mut();
                    if list < DOWN {
                        self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
                    } else if list >= FIRST_DUE {
                        self.due &= !(1 << (list - FIRST_DUE));
                    }
                } else {
                    self.lists[list] = next;
                    (*next).set_list(list);
                }
            }
            (*prev).next.store(next, Relaxed);
            (*next).prev.store(prev, Relaxed);
        }
        self.len -= 1;
    }

    /// Puts all of one list to the end of another.
    fn splice(&mut self, from: usize, to: usize) {
        let moved = core::mem::replace(&mut self.lists[from], ptr::null_mut());
        let first = self.lists[to];
        // SAFETY: both are in the lists, and so are those at their ends.
        unsafe {
            let Some(moved) = moved.as_ref() else { return };
            let raw = ptr::from_ref(moved).cast_mut();
            if let Some(first) = first.as_ref() {
                let (last, end) = (first.prev.load(Relaxed), moved.prev.load(Relaxed));
                (*last).next.store(raw, Relaxed);
                moved.prev.store(last, Relaxed);
                (*end).next.store(ptr::from_ref(first).cast_mut(), Relaxed);
                first.prev.store(end, Relaxed);
            } else {
                moved.set_list(to);
                self.lists[to] = raw;
            }
        }
    }

    /// The first slot from `from` to `to` that is marked as occupied.
    fn occupied(&self, level: usize, from: Tick, to: Tick) -> Option<Tick> {
        let turned = self.occupied[level].rotate_right((from % SLOTS as Tick) as u32);
        let slot = from + Tick::from(turned.trailing_zeros());
        (turned != 0 && slot <= to).then_some(slot)
    }

    // ----- entries -------------------------------------------------------------------------------

    /// # Safety
    /// The entry is the timer's, LINKED, and in no list; `tick` is what it is LINKED for.
    pub(super) unsafe fn place(&mut self, entry: NonNull<Entry>, tick: Tick) {
        let tick = tick.max(self.now + 1);
        let mut level = 0;
        loop {
            let above = BITS * (level as u32 + 1);
            if level == LEVELS - 1 || (tick >> above) - (self.now >> above) <= 1 {
                break;
            }
            level += 1;
        }
        let slot = (tick >> (BITS * level as u32)) as usize % SLOTS;
        self.occupied[level] |= 1 << slot;
        // SAFETY: the caller's promise.
        unsafe { self.link(level * SLOTS + slot, entry) };
    }

    /// Looks at an entry out of the inbox. True: it is FIRING, by the timer, and the caller's.
    ///
    /// # Safety
    /// It was in the inbox.
    pub(super) unsafe fn take_in(&mut self, entry: NonNull<Entry>) -> bool {
        // SAFETY: QUEUED, so it stays until the timer lets it go. Out of its list first: after the visit it may be gone.
        unsafe {
            if entry.as_ref().is_linked() {
                self.unlink(entry);
            }
            match entry.as_ref().take_in(self.now) {
                Visit::Place(tick) => self.place(entry, tick),
                Visit::Fire => return true,
                Visit::Out => {}
                Visit::Free => Entry::free(entry),
            }
        }
        false
    }

    /// Looks at an entry before its time, and puts it where it belongs by its word, wherever it was. True: it is FIRING, by the
    /// timer, and the caller's.
    ///
    /// # Safety
    /// It stays meanwhile. No list of the wheel is being gone through.
    pub(super) unsafe fn look_at(&mut self, entry: NonNull<Entry>) -> bool {
        // SAFETY: the caller's promise; LINKED, it is in a list, and after the visit in none.
        unsafe {
            if entry.as_ref().is_linked() {
                self.unlink(entry);
            }
            match entry.as_ref().visit(self.now) {
                Visit::Place(tick) => self.place(entry, tick),
                Visit::Fire => return true,
                _ => {}
            }
        }
        false
    }

    /// Goes on to `now`: what is due by then, and what is to be moved down, is put where `take_due` and `settle` find
    /// it. A few steps, whatever the number of entries.
    pub(super) fn advance(&mut self, now: Tick) {
        let from = self.now + 1;
        if now < from {
            return;
        }
        self.now = now;
        while let Some(slot) = self.occupied(0, from, now) {
            let slot = (slot % SLOTS as Tick) as usize;
            self.occupied[0] &= !(1 << slot);
            let due = self.room_for_due();
            self.splice(slot, due);
        }
        for level in 1..LEVELS {
            let shift = BITS * level as u32;
            let (from, to) = (((from - 1) >> shift) + 2, (now >> shift) + 1);
            while let Some(slot) = self.occupied(level, from, to) {
                let slot = (slot % SLOTS as Tick) as usize;
                self.occupied[level] &= !(1 << slot);
                self.splice(level * SLOTS + slot, DOWN + level);
            }
        }
    }

    /// An empty list for what is due. If all have some left, there is much to do: the entries of two of them come one
    /// after the other from now on.
    fn room_for_due(&mut self) -> usize {
        let free = (!self.due).trailing_zeros() as usize;
        let free = if free < DUE {
            free
        } else {
            self.merged = self.merged % (DUE - 1) + 1;
            self.splice(FIRST_DUE + self.merged, FIRST_DUE);
            self.merged
        };
        self.due |= 1 << free;
        FIRST_DUE + free
    }

    /// Looks at what is due, about `budget` of it, and at as many of each moment. What is FIRING by that is the caller's.
    pub(super) fn take_due(&mut self, budget: usize, mut fire: impl FnMut(NonNull<Entry>)) {
        let lists = self.due;
        let each = (budget / (lists.count_ones() as usize).max(1)).max(8);
        for due in (0..DUE).filter(|due| lists & 1 << due != 0) {
            for _ in 0..each {
                let Some(entry) = NonNull::new(self.lists[FIRST_DUE + due]) else {
                    break;
                };
                // SAFETY: in a list of the wheel.
                match unsafe { self.visit(entry) } {
                    Visit::Place(tick) => {
                        // SAFETY: LINKED, and out of its list.
                        unsafe { self.place(entry, tick) };
                    }
                    Visit::Fire => fire(entry),
                    _ => {}
                }
            }
        }
    }

    /// # Safety
    /// The entry is in a list; not to be used again unless the answer says so.
    unsafe fn visit(&mut self, entry: NonNull<Entry>) -> Visit {
        // SAFETY: the caller's promise. Out of the list first: after the visit it may be gone.
        unsafe {
            self.unlink(entry);
            entry.as_ref().visit(self.now)
        }
    }

    /// Moves entries down, so many at most. What is FIRING by that is the caller's.
    pub(super) fn settle(&mut self, mut budget: usize, mut fire: impl FnMut(NonNull<Entry>)) {
        for level in 1..LEVELS {
            while let Some(entry) = NonNull::new(self.lists[DOWN + level]) {
                if budget == 0 {
                    return;
                }
                budget -= 1;
                // SAFETY: in a list of the wheel, so it stays until the timer lets it go.
                let tick = unsafe { entry.as_ref() }.tick();
                // SAFETY: as above.
                unsafe {
                    if tick > self.now {
                        self.unlink(entry);
                        self.place(entry, tick);
                        continue;
                    }
                    match self.visit(entry) {
                        Visit::Place(tick) => self.place(entry, tick),
                        Visit::Fire => fire(entry),
                        _ => {}
                    }
                }
            }
        }
    }

    pub(super) fn has_due(&self) -> bool {
        self.due != 0
    }

    /// Whether there is something to do for `take_due` or `settle`.
    pub(super) fn is_busy(&self) -> bool {
        self.has_due() || self.lists[DOWN..FIRST_DUE].iter().any(|l| !l.is_null())
    }

    /// The tick at which there is something to do next, if it is not busy.
    pub(super) fn next(&self) -> Option<Tick> {
        let first = (0..LEVELS).filter_map(|level| {
            let shift = BITS * level as u32;
            let ahead = Tick::from(level != 0);
            let slot = self.occupied(level, (self.now >> shift) + 1 + ahead, Tick::MAX)?;
            Some((slot - ahead) << shift)
        });
        first.min()
    }
}
