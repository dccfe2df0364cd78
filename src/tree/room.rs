//! Rooms: where the waiters of a token sit when it has many.
//!
//! A room is a chunk of a child list in which only the first node, its *header*, is a node; the rest of the memory is
//! seats for wakers. So it lives as long as every other chunk (I2), and a canceller finds it as it finds children (I6). The
//! header is FREE, so nobody looks for anything below it, and has SHARD, so nobody claims it or keeps it for
//! the next occupant; WAITER beside SHARD says that it is a room.
//!
//! Everything about the seats is decided on one word of the room, which has TAKEN and ARMED for each and one CLOSED. A
//! canceller closes the room by one step, and takes each waker by another one when its turn comes: it has none out of its seat
//! while another one runs. Whoever arms a seat after the close is refused by the answer, and disarms it. After the close no seat
//! is taken, so what is armed stays as it is while it is read.

use super::word::{Refused, State};
use super::Node;
use crate::sync::{
    to_the_end, AcqRel, Acquire, AtomicBits, AtomicPtr, Bits, Panics, Relaxed, Release, UnsafeCell,
    SMALL,
};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::task::Waker;

/// A room is a chunk of 2^CLASS nodes: 512 bytes where pointers have 64 bits.
pub(super) const CLASS: usize = if SMALL {
    1
} else if Bits::BITS == 64 {
    3
} else {
    2
};

/// The nodes of the chunk that are seats' memory.
pub(super) const REST: usize = (1 << CLASS) - 1;

const SEATS: usize = {
    let space = REST * size_of::<Node>() - size_of::<AtomicBits>() - size_of::<AtomicPtr<Room>>();
    let (in_memory, in_word) = (space / size_of::<Seat>(), (Bits::BITS as usize - 1) / 2);
    if SMALL {
        2
    } else if in_memory < in_word {
        in_memory
    } else {
        in_word
    }
};

const _: () = assert!(2 * SEATS <= Bits::BITS as usize - 2);
const _: () = assert!(size_of::<Room>() <= REST * size_of::<Node>());
const _: () = assert!(align_of::<Room>() <= align_of::<Node>());

/// A canceller has been here: nobody takes a seat any more.
const CLOSED: Bits = 1 << (Bits::BITS - 1);
/// The room is in its home's stack, or was until a race.
pub(super) const LISTED: Bits = 1 << (Bits::BITS - 2);
const ALL_ARMED: Bits = taken(0) - 1;
/// All seats are taken.
const FULL: Bits = taken(SEATS) - taken(0);

/// The seat is somebody's.
const fn taken(seat: usize) -> Bits {
    1 << (SEATS + seat)
}

/// There is a waker in it. Whoever clears this owns it.
const fn armed(seat: usize) -> Bits {
    1 << seat
}

struct Seat(UnsafeCell<MaybeUninit<Waker>>);

/// What is in the memory before the header.
#[repr(C)]
pub(super) struct Room {
    pub(super) word: AtomicBits,
    /// The next one of the ring; null until the room is in it.
    pub(super) next: AtomicPtr<Room>,
    seats: [Seat; SEATS],
}

/// A seat that its owner has taken.
pub(super) struct Taken {
    pub(super) room: NonNull<Room>,
    pub(super) seat: u8,
    /// Another thread was at the room at the same time.
    pub(super) raced: bool,
}

/// A seat with a waker in it.
pub(super) struct Seated {
    room: NonNull<Room>,
    seat: u8,
}

impl Room {
    /// Makes what comes before a header, with the first seat taken.
    ///
    /// # Safety
    /// The pointer may be used for the whole chunk, which is the caller's.
    pub(super) unsafe fn write(room: NonNull<Room>) {
        let room = room.as_ptr();
        // SAFETY: the caller's promise.
        unsafe {
            (&raw mut (*room).word).write(AtomicBits::new(taken(0) | LISTED));
            (&raw mut (*room).next).write(AtomicPtr::new(ptr::null_mut()));
            for i in 0..SEATS {
                let cell = UnsafeCell::new(MaybeUninit::uninit());
                (&raw mut (*room).seats[i]).write(Seat(cell));
            }
        }
    }

    /// Takes the lowest seat that is free.
    ///
    /// # Safety
    /// A room in the list of a home whose token the caller holds (I2), by a pointer for the whole chunk: the seat's owner
    /// finds the header by it.
    #[inline(always)]
    pub(super) unsafe fn take(room: NonNull<Room>) -> Result<Taken, Refused> {
        // SAFETY: the caller's promise.
        let word = unsafe { &room.as_ref().word };
        let mut raced = false;
        // Acquire, here and on failure: pairs with `close`; whoever is refused goes on as one that has seen the cancel.
        let mut seen = word.load(Acquire);
        loop {
            if seen & CLOSED != 0 {
                return Err(Refused::Cancelled);
            }
            let free = !seen & FULL;
            if free == 0 {
                return Err(Refused::Taken);
            }
            let bit = free & free.wrapping_neg();
            // Acquire: pairs with `leave`, whose waiter has read the seat before.
            match word.compare_exchange_weak(seen, seen | bit, Acquire, Acquire) {
                Ok(_) => {
                    let seat = (bit.trailing_zeros() as usize - SEATS) as u8;
                    return Ok(Taken { room, seat, raced });
                }
                Err(now) => (seen, raced) = (now, true),
            }
        }
    }

    /// Takes LISTED from a room that is full. None: it is not full any more, or closed; otherwise whether LISTED was there.
    pub(super) fn unlist(&self) -> Option<bool> {
        // Relaxed, all: it is about what the step itself says; the stack's pointers have their own orderings.
        let mut seen = self.word.load(Relaxed);
        loop {
            if seen & CLOSED != 0 || seen & FULL != FULL {
                return None;
            }
            if seen & LISTED == 0 {
                return Some(false);
            }
            match self
                .word
                .compare_exchange_weak(seen, seen & !LISTED, Relaxed, Relaxed)
            {
                Ok(_) => return Some(true),
                Err(now) => seen = now,
            }
        }
    }

    /// Whether there is a waker in a seat of the closed room, which is the caller's then.
    #[inline]
    fn disarm(&self, seat: usize) -> bool {
        // Acquire: pairs with `sit`; and with `close`, for whoever is refused goes on as one that has seen the cancel.
        self.word.fetch_and(!armed(seat), Acquire) & armed(seat) != 0
    }

    /// What is under it in the stack.
    ///
    /// # Safety
    /// As for `take`.
    pub(super) unsafe fn under<'a>(room: NonNull<Room>) -> &'a AtomicPtr<Node> {
        // SAFETY: the header is memory of the same chunk, written before the room was linked.
        unsafe { &(*header(room).as_ptr()).hint }
    }
}

impl Taken {
    /// Puts the waker into the seat; hands it back if the room is closed.
    ///
    /// # Safety
    /// The token that the room belongs to is held.
    #[inline(always)]
    pub(super) unsafe fn sit(self, waker: Waker) -> Result<Seated, Waker> {
        let Taken { room, seat, .. } = self;
        // SAFETY: memory of the token's list (I2).
        let this = unsafe { room.as_ref() };
        let cell = &this.seats[seat as usize].0;
        // SAFETY: the seat is the caller's, and is not armed yet.
        cell.with_mut(|cell| unsafe { (*cell).write(waker) });
        // An addition sets the bit, for it is not set. Release: gives the waker to `disarm`.
        let before = this.word.fetch_add(armed(seat as usize), Release);
        // A canceller that comes to the closed room just now may be faster: then it wakes.
        if before & CLOSED == 0 || !this.disarm(seat as usize) {
            return Ok(Seated { room, seat });
        }
        // SAFETY: the bit was cleared here.
        Err(cell.with(|cell| unsafe { ptr::read(cell).assume_init() }))
    }
}

impl Seated {
    /// A canceller has the waker.
    ///
    /// # Safety
    /// The token that the room belongs to is held.
    #[inline]
    pub(super) unsafe fn is_called(&self) -> bool {
        // SAFETY: memory of the token's list (I2).
        let word = unsafe { &self.room.as_ref().word };
        // Acquire: pairs with `close`; a waiter that goes on here has seen the cancel.
        word.load(Acquire) & armed(self.seat as usize) == 0
    }

    /// Takes the waker back and gives up the seat; none if a canceller has it. `list` is told of the room if it was full, and
    /// is to be put on the stack: LISTED is there.
    ///
    /// # Safety
    /// As above.
    #[inline]
    pub(super) unsafe fn leave(self, list: impl FnOnce(NonNull<Room>)) -> Option<Waker> {
        // SAFETY: memory of the token's list (I2).
        let this = unsafe { self.room.as_ref() };
        let seat = self.seat as usize;
        // Read before it is known whose it is: a canceller only reads too, and nobody writes before the
        // seat has been given up.
        // SAFETY: written by the caller. It is a copy of bytes, used only if it is the caller's.
        let raw = this.seats[seat].0.with(|cell| unsafe { ptr::read(cell) });
        // Release: pairs with `take`. Acquire: pairs with `close`, as in `is_called`.
        let before = this.word.fetch_and(!(taken(seat) | armed(seat)), AcqRel);
        if before & armed(seat) == 0 {
            return None;
        }
        if before & (FULL | LISTED | CLOSED) == FULL {
            // Nobody is led here if nobody is led here now.
            // Relaxed: whoever sets it puts the room on the stack; the stack's pointers have their own orderings.
            let first = this.word.fetch_or(LISTED, Relaxed) & LISTED == 0;
            if first {
                list(self.room);
            }
        }
        // SAFETY: the bit was cleared here.
        Some(unsafe { raw.assume_init() })
    }
}

/// The header of a room.
pub(super) fn header(room: NonNull<Room>) -> NonNull<Node> {
    // SAFETY: the last node of the room's chunk.
    unsafe { room.cast::<Node>().add(REST) }
}

/// Closes a room, takes one after the other the wakers that are left, and does with each what is said: user code. From the
/// lowest seat on.
pub(super) fn close(header: &Node, panics: &mut Panics, each: impl Fn(Waker)) {
    debug_assert!(header.word.load().has_all(State::ROOM));
    let room = of_header(header);
    // SAFETY: the header is linked, or garbage of the caller's, and so is what comes before it.
    let room = unsafe { room.as_ref() };
    // Relaxed: each waker is taken by a step that acquires.
    let mut left = room.word.load(Relaxed);
    if left & CLOSED == 0 {
        // Release: gives the cancel to those that find the room closed.
        left = room.word.fetch_or(CLOSED, Release);
    }
    left &= ALL_ARMED;
    to_the_end(|| {
        while left != 0 {
            panics.catch(|| {
                while left != 0 {
                    let seat = left.trailing_zeros() as usize;
                    left &= left - 1;
                    if room.disarm(seat) {
                        let cell = &room.seats[seat].0;
                        // SAFETY: the bit was cleared here.
                        each(cell.with(|cell| unsafe { ptr::read(cell).assume_init() }));
                    }
                }
            });
        }
    });
}

/// Whether somebody waits in the room with that header.
#[cfg(feature = "inspect")]
pub(super) fn is_waited_in(header: &Node) -> bool {
    let room = of_header(header);
    // SAFETY: the header is linked, and so is its room (I2).
    // Relaxed: a number for people.
    let word = unsafe { room.as_ref() }.word.load(Relaxed);
    word & ALL_ARMED != 0
}

fn of_header(header: &Node) -> NonNull<Room> {
    // A reference to the header may not be used for what comes before it: that is found by its address, which was exposed with
    // the chunk.
    let address = ptr::from_ref(header).addr() - REST * size_of::<Node>();
    let room = ptr::with_exposed_provenance_mut(address);
    // SAFETY: the beginning of the room's chunk.
    unsafe { NonNull::new_unchecked(room) }
}
