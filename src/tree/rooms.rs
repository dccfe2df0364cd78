//! How the rooms of a token (`room.rs`) are found and made.
//!
//! The rooms of one home (a token, or a shard of it) are a ring, which no room leaves. Those with a free seat are also a
//! stack: the extension points at its top, and the header's `hint`, which no children need, at what is under it. LISTED says that a
//! room is there. A room gets there when it is made and when the first waiter leaves a full one, and is taken off when
//! somebody finds it full on top. Both are plain stores, so races lose rooms, as they lose the hints of
//! children: what the stack does not lead to is found by going on in the ring from the last one of the stack. Without
//! races nothing is lost, and a room is made only if all are full.

use super::extension::{AnyOf, Extension};
use super::room::{header, Room, Seated, Taken, LISTED};
use super::word::Refused;
use super::Node;
use crate::sync::{Acquire, Relaxed, Release, SMALL};
use alloc::boxed::Box;
use core::ptr::{self, NonNull};
use core::task::Waker;

/// So many rooms are looked at before another one is made.
const LOOK: usize = if SMALL { 2 } else { 4 };

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

/// Takes the waker back and gives up the seat; none if a canceller has it.
///
/// # Safety
/// The token that the room belongs to is held.
#[inline]
pub(super) unsafe fn leave(seated: Seated) -> Option<Waker> {
    let list = |room| {
        // SAFETY: the header of the room, whose parent is its home: the token or a shard of it (I5).
        let home = unsafe { header(room).as_ref().parent() };
        if let Some(extension) = home.and_then(|home| home.link.extension()) {
            // SAFETY: the caller's promise; the pointer is what `take` was given.
            unsafe { list(extension, room) };
        }
    };
    // SAFETY: the caller's promise.
    unsafe { seated.leave(list) }
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
