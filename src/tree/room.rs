//! Rooms: where the waiters of a token sit when it has many.
//!
//! A room is a chunk of a child list in which only the first node, its *header*, is a node; the rest of the memory is
//! seats for wakers. So it lives as long as every other chunk (I2), and a canceller finds it as it finds children (I6). The
//! header is FREE, so nobody looks for anything below it, and has SHARD, so nobody claims it or keeps it for
//! the next occupant; WAITER beside SHARD says that it is a room.
//!
//! Everything about the seats is decided on one word of the room, which has TAKEN and ARMED for each and one CLOSED. A
//! canceller closes the room and takes all its wakers by one step; whoever arms a seat after that is refused by the answer.
//! After the close no seat is taken or given up, so what is in the seats stays as it is while it is read.
//!
//! The rooms of one home (a token, or a shard of it) are a ring, which no room leaves. Those with a free seat are also a
//! stack: the extension points at its top, and the header's `hint`, which no children need, at what is under it. LISTED says that a
//! room is there. A room gets there when it is made and when the first waiter leaves a full one, and is taken off when
//! somebody finds it full on top. Both are plain stores, so races lose rooms, as they lose the hints of
//! children: what the stack does not lead to is found by going on in the ring from the last one of the stack. Without
//! races nothing is lost, and a room is made only if all are full.

use super::extension::{AnyOf, Extension};
use super::word::{Refused, State};
use super::Node;
use crate::sync::{
    to_the_end, AcqRel, Acquire, AtomicBits, AtomicPtr, Bits, Panics, Relaxed, Release, UnsafeCell,
    SMALL,
};
use alloc::boxed::Box;
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

/// So many rooms are looked at before another one is made.
const LOOK: usize = if SMALL { 2 } else { 4 };

/// The canceller has been here: nobody takes a seat any more, and the wakers are the canceller's.
const CLOSED: Bits = 1 << (Bits::BITS - 1);
/// The room is in its home's stack, or was until a race.
const LISTED: Bits = 1 << (Bits::BITS - 2);
/// All seats are taken.
const FULL: Bits = taken(SEATS) - taken(0);

/// The seat is somebody's.
const fn taken(seat: usize) -> Bits {
    1 << (SEATS + seat)
}

/// There is a waker in it. Whoever clears this, or closes the room, owns it.
const fn armed(seat: usize) -> Bits {
    1 << seat
}

struct Seat(UnsafeCell<MaybeUninit<Waker>>);

/// What is in the memory before the header.
#[repr(C)]
pub(super) struct Room {
    word: AtomicBits,
    /// The next one of the ring; null until the room is in it.
    next: AtomicPtr<Room>,
    seats: [Seat; SEATS],
}

/// A seat that its owner has taken.
pub(super) struct Taken {
    room: NonNull<Room>,
    seat: u8,
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
    unsafe fn take(room: NonNull<Room>) -> Result<Taken, Refused> {
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
    fn unlist(&self) -> Option<bool> {
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

    /// What is under it in the stack.
    ///
    /// # Safety
    /// As for `take`.
    unsafe fn under<'a>(room: NonNull<Room>) -> &'a AtomicPtr<Node> {
        // SAFETY: the header is memory of the same chunk, written before the room was linked.
        unsafe { &(*header(room).as_ptr()).hint }
    }
}

/// Puts a room that has LISTED on top of the stack; what is full there is taken off.
///
/// # Safety
/// As for `Room::take`.
unsafe fn list(extension: &Extension, room: NonNull<Room>) {
    // Acquire, both: pair with the stores below.
    let mut top = extension.rooms.load(Acquire);
    if top == room.as_ptr() {
        return;
    }
    if let Some(full) = NonNull::new(top) {
        // SAFETY: a room of the same home (I2).
        unsafe {
            if full.as_ref().unlist().is_some() {
                top = Room::under(full).load(Acquire).cast();
            }
        }
    }
    // Release, both: pair with the loads of them; every room in the stack was announced (I6).
    // SAFETY: the caller's promise.
    unsafe { Room::under(room) }.store(top.cast(), Release);
    extension.rooms.store(room.as_ptr(), Release);
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
        // An addition sets the bit, for it is not set. Release: gives the waker to `close`. Acquire: pairs with `close`;
        // whoever is refused goes on as one that has seen the cancel.
        let before = this.word.fetch_add(armed(seat as usize), AcqRel);
        if before & CLOSED == 0 {
            return Ok(Seated { room, seat });
        }
        // SAFETY: not among those that the canceller took, so still ours.
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
        word.load(Acquire) & CLOSED != 0
    }

    /// Takes the waker back and gives up the seat; none if a canceller has it.
    ///
    /// # Safety
    /// As above.
    #[inline]
    pub(super) unsafe fn leave(self) -> Option<Waker> {
        // SAFETY: memory of the token's list (I2).
        let this = unsafe { self.room.as_ref() };
        let seat = self.seat as usize;
        // Read before it is known whose it is: a canceller only reads too, and nobody writes before the
        // seat has been given up.
        // SAFETY: written by the caller. It is a copy of bytes, used only if it is the caller's.
        let raw = this.seats[seat].0.with(|cell| unsafe { ptr::read(cell) });
        // Release: pairs with `take`. Acquire: pairs with `close`, as in `is_called`.
        let before = this.word.fetch_and(!(taken(seat) | armed(seat)), AcqRel);
        if before & CLOSED != 0 {
            return None;
        }
        if before & FULL == FULL && before & LISTED == 0 {
            // Nobody is led here if nobody is led here now.
            // Relaxed: whoever sets it puts the room on the stack; the stack's pointers have their own orderings.
            let first = this.word.fetch_or(LISTED, Relaxed) & LISTED == 0;
            // SAFETY: the header of the room, whose parent is its home: the token or a shard of it (I5).
            let home = unsafe { header(self.room).as_ref().parent() };
            if let Some(extension) = home
                .and_then(|home| home.link.extension())
                .filter(|_| first)
            {
                // SAFETY: the caller's promise; the pointer is what `take` was given.
                unsafe { list(extension, self.room) };
            }
        }
        // SAFETY: the bit was cleared here, in a room that was not closed.
        Some(unsafe { raw.assume_init() })
    }
}

/// The header of a room.
fn header(room: NonNull<Room>) -> NonNull<Node> {
    // SAFETY: the last node of the room's chunk.
    unsafe { room.cast::<Node>().add(REST) }
}

/// Whether the waiters at `home` have a room.
#[inline]
pub(super) fn is_there(home: &Node) -> bool {
    // Relaxed: only null or not is asked.
    let hint = |extension: &Extension| extension.rooms.load(Relaxed);
    home.link.extension().is_some_and(|e| !hint(e).is_null())
}

/// A seat for one that waits at `token`, whose `home` this thread's waiters sit at. `Refused::Taken`: there can be no room,
/// because somebody is about to cancel the token.
#[inline(always)]
pub(super) fn take(token: &Node, home: &Node) -> Result<Taken, Refused> {
    let extension = extension_of(home).ok_or(Refused::Taken)?;
    // Acquire: pairs with the stores of hints, all of which come after the room was announced (I6).
    let hint = extension.rooms.load(Acquire);
    // SAFETY: a room in the list of a home whose token the caller holds (I2).
    match NonNull::new(hint).map(|room| unsafe { Room::take(room) }) {
        Some(Ok(taken)) => Ok(taken),
        Some(Err(Refused::Cancelled)) => Err(Refused::Cancelled),
        _ => take_slowly(token, home, extension),
    }
}

/// The rooms further down, those that come next, other threads', a new one.
#[cold]
fn take_slowly(token: &Node, home: &Node, extension: &Extension) -> Result<Taken, Refused> {
    // Acquire: as in `take`.
    let mut top = extension.rooms.load(Acquire);
    // Down the stack. It ends: each turn but the last takes LISTED from a room, or somebody else has left one.
    let end = loop {
        let Some(room) = NonNull::new(top) else {
            return make(home, extension, top);
        };
        // SAFETY: as in `take`.
        match unsafe { Room::take(room) } {
            Err(Refused::Taken) => {}
            taken_or_cancelled => return taken_or_cancelled,
        }
        // Acquire: pairs with `list`.
        // SAFETY: the same.
        let under = unsafe { Room::under(room) }.load(Acquire).cast::<Room>();
        // First off the stack, then LISTED: whoever leaves in between finds LISTED, and the step fails. The last one stays, for
        // the ring's sake. Release: pairs with the loads of it.
        if !under.is_null() {
            extension.rooms.store(under, Release);
        }
        // SAFETY: the same.
        match unsafe { room.as_ref() }.unlist() {
            Some(true) if !under.is_null() => top = under,
            Some(_) => break room,
            // SAFETY: the same.
            None => unsafe { list(extension, room) },
        }
    };
    // On in the ring, for those that the stack has lost.
    let mut last = end;
    for _ in 1..LOOK {
        // Acquire: pairs with `enter_ring`.
        // SAFETY: as in `take`.
        let next = unsafe { last.as_ref() }.next.load(Acquire);
        let Some(next) = NonNull::new(next).filter(|next| *next != end) else {
            break;
        };
        last = next;
        // SAFETY: the same.
        match unsafe { Room::take(last) } {
            Ok(taken) => {
                // Relaxed: without LISTED it is somebody else's to be put there.
                // SAFETY: the same.
                if unsafe { last.as_ref() }.word.load(Relaxed) & LISTED != 0 {
                    // SAFETY: the same.
                    unsafe { list(extension, last) };
                }
                return Ok(taken);
            }
            Err(Refused::Cancelled) => return Err(Refused::Cancelled),
            Err(Refused::Taken) => {}
        }
    }
    match take_elsewhere(token, home) {
        Err(Refused::Taken) => make(home, extension, last.as_ptr()),
        taken_or_cancelled => taken_or_cancelled,
    }
}

/// A seat in a room of another thread, or from before there were shards.
#[cold]
fn take_elsewhere(token: &Node, home: &Node) -> Result<Taken, Refused> {
    for other in token.other_homes(home) {
        let Some(extension) = other.link.extension() else {
            continue;
        };
        // Acquire: as in `take`.
        let Some(room) = NonNull::new(extension.rooms.load(Acquire)) else {
            continue;
        };
        // SAFETY: the same.
        match unsafe { Room::take(room) } {
            Err(Refused::Taken) => {}
            taken_or_cancelled => return taken_or_cancelled,
        }
    }
    Err(Refused::Taken)
}

/// Makes a room, in the ring after the one that is given, and takes its first seat.
fn make(home: &Node, extension: &Extension, after: *mut Room) -> Result<Taken, Refused> {
    let room = home.push_room().ok_or(Refused::Cancelled)?;
    enter_ring(extension, room, after);
    // The announcement is behind this (I6).
    // SAFETY: new, and of the caller's home.
    unsafe { list(extension, room) };
    Ok(Taken {
        room,
        seat: 0,
        raced: false,
    })
}

#[inline]
fn extension_of(home: &Node) -> Option<&Extension> {
    home.link.extension().or_else(|| extend(home))
}

#[cold]
fn extend(home: &Node) -> Option<&Extension> {
    // If it is not taken: somebody else's has come in between, or the cause of a cancel.
    home.link.extend(Extension::new(AnyOf::No, Box::default()));
    home.link.extension()
}

fn enter_ring(extension: &Extension, room: NonNull<Room>, after: *mut Room) {
    // SAFETY: the caller's new room; nobody takes it away.
    let this = unsafe { room.as_ref() };
    let mut after = after;
    if after.is_null() {
        // Relaxed: published by the exchange.
        this.next.store(room.as_ptr(), Relaxed);
        // Release: pairs with the loads of it. Acquire: of the other's room, if it was faster.
        match extension
            .rooms
            .compare_exchange(ptr::null_mut(), room.as_ptr(), Release, Acquire)
        {
            Ok(_) => return,
            Err(other) => after = other,
        }
    }
    // SAFETY: a room of the same ring (I2).
    let after = unsafe { &*after };
    // Acquire, here and on failure: pairs with the exchange below by another one, for whoever comes to that one's room by ours.
    let mut next = after.next.load(Acquire);
    loop {
        this.next.store(next, Relaxed);
        // Release: pairs with `take`.
        match after
            .next
            .compare_exchange_weak(next, room.as_ptr(), Release, Acquire)
        {
            Ok(_) => return,
            Err(now) => next = now,
        }
    }
}

/// Closes a room, and does with each waker what is said: user code. From the lowest seat on.
pub(super) fn close(header: &Node, panics: &mut Panics, each: impl Fn(Waker)) {
    debug_assert!(header.word.load().has_all(State::ROOM));
    let room = of_header(header);
    // SAFETY: the header is linked, or garbage of the caller's, and so is what comes before it.
    let room = unsafe { room.as_ref() };
    // Relaxed: another canceller has been here, and wakes whom there was.
    if room.word.load(Relaxed) & CLOSED != 0 {
        return;
    }
    // Acquire: pairs with `sit`. Release: gives the cancel to those that find the room closed.
    let before = room.word.swap(CLOSED, AcqRel);
    if before & CLOSED != 0 {
        return;
    }
    let mut rest = before & (taken(0) - 1);
    to_the_end(|| {
        while rest != 0 {
            panics.catch(|| {
                while rest != 0 {
                    let seat = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    let cell = &room.seats[seat].0;
                    // SAFETY: armed when the room was closed, so the caller's, once.
                    each(cell.with(|cell| unsafe { ptr::read(cell).assume_init() }));
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
    word & CLOSED == 0 && word & (taken(0) - 1) != 0
}

fn of_header(header: &Node) -> NonNull<Room> {
    // A reference to the header may not be used for what comes before it.
    super::children::before(header)
}
