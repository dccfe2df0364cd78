//! One waiter: something to wake, in the slot of a node.
//!
//! A task and a parked thread are both a `Waker`; so is a callback, whose `wake` runs it. The
//! first waiter of a token takes the token's own slot, a few further ones a child of it each, and more sit in
//! rooms. The check for a
//! cancel and the registration are one step (`Word::arm`): a waiter is either refused or seen.

use super::room::Seated;
use super::slot::Content;
use super::why::origin_of;
use super::word::{Refused, State};
use super::{children, reclaim, rooms, telling, Handle, Node};
use crate::sync::{thread, unless_unwinding};
use core::mem::{self, ManuallyDrop};
use core::ptr;
use core::task::{RawWakerVTable, Waker};

/// Where a waiter has left its waker.
enum Place {
    Nowhere,
    /// In the slot of the token itself.
    Own,
    /// In the slot of a child that it made for the purpose.
    Child(Handle),
    /// In a room of the token.
    Seat(Seated),
}

/// A waiter on one token: the state of a future, or of a blocked thread.
///
/// It must be given the same token every time and be left (`leave`) before that is dropped.
pub(crate) struct Waiter {
    place: Place,
    /// What the waker in the slot looks like, to recognise it without touching the slot.
    looks: Looks,
}

type Looks = (*const (), *const RawWakerVTable);

#[inline]
fn looks(waker: &Waker) -> Looks {
    (waker.data(), ptr::from_ref(waker.vtable()))
}

/// A table may be there more than once, for compilers make copies of constants: then what is in it tells.
fn are_alike(one: Looks, other: Looks) -> bool {
    // SAFETY: null, or a waker's table, which is static.
    one.0 == other.0 && unsafe { one.1.as_ref() == other.1.as_ref() }
}

// SAFETY: of `looks` the data are compared, never followed, and tables are static; the handle is Send and Sync, and so is what a seat
// holds, which is decided by its room's word.
unsafe impl Send for Waiter {}
// SAFETY: as above; all methods that change anything take `&mut self`.
unsafe impl Sync for Waiter {}

// User code runs only when the waiter is in order.
impl core::panic::UnwindSafe for Waiter {}
impl core::panic::RefUnwindSafe for Waiter {}

impl Waiter {
    pub(crate) const fn new() -> Waiter {
        Waiter {
            place: Place::Nowhere,
            looks: (ptr::null(), ptr::null()),
        }
    }

    /// True: cancelled. False: `waker`, and no other, will be woken when it is.
    #[inline]
    pub(crate) fn poll(&mut self, token: &Handle, waker: &Waker) -> bool {
        if token.is_cancelled() {
            self.leave(token);
            return true;
        }
        if matches!(self.place, Place::Nowhere) {
            return self.register(token, waker);
        }
        // The waker in the slot is kept alive there, so one that looks the same is the same.
        looks(waker) != self.looks && self.replace(token, waker)
    }

    #[cold]
    #[inline(never)]
    fn replace(&mut self, token: &Handle, waker: &Waker) -> bool {
        if are_alike(looks(waker), self.looks) {
            return false;
        }
        if !self.leave(token) {
            // A canceller has taken the old one.
            return true;
        }
        self.register(token, waker)
    }

    #[inline]
    fn register(&mut self, token: &Handle, waker: &Waker) -> bool {
        // User code, while nothing is held (I9).
        let waker = waker.clone();
        // Those of the clone: it may look otherwise, and what it was made of may be gone, and its address be used again.
        self.looks = looks(&waker);
        self.enter(token, waker)
    }

    fn enter(&mut self, token: &Handle, waker: Waker) -> bool {
        let node = token.node();
        // Several threads make children here, or wait: keep off the line that all of them read.
        let refused = if node.is_sharded() {
            Refused::Taken
        } else {
            match node.word.take_slot() {
                Ok(raced) => {
                    if raced {
                        shard_if_contended(node);
                    }
                    return self.enter_own(node, waker);
                }
                Err(refused) => refused,
            }
        };
        match refused {
            Refused::Cancelled => refuse(waker),
            Refused::Taken => self.enter_beside(token, waker),
        }
    }

    /// For all but the first: a few become children, more sit in rooms.
    #[inline]
    fn enter_beside(&mut self, token: &Handle, waker: Waker) -> bool {
        let node = token.node();
        let before = node.word.load();
        let home = node.home();
        if before.is_cancelled() {
            return refuse(waker);
        }
        if !rooms::is_there(home) {
            if let Some(child) = children::create_one_of_few(node, before, home) {
                return self.enter_child(token, before, Handle(child), waker);
            }
        }
        self.enter_room(token, home, waker)
    }

    #[inline(never)]
    fn enter_room(&mut self, token: &Handle, home: &Node, waker: Waker) -> bool {
        let node = token.node();
        match rooms::take(node, home) {
            Ok(taken) => {
                let raced = taken.raced;
                // SAFETY: the token is held by whoever waits.
                match unsafe { taken.sit(waker) } {
                    Ok(seated) => {
                        self.place = Place::Seat(seated);
                        if raced {
                            shard_if_contended(node);
                        }
                        false
                    }
                    Err(rejected) => refuse(rejected),
                }
            }
            Err(Refused::Taken) => self.enter_any_child(token, waker),
            Err(Refused::Cancelled) => refuse(waker),
        }
    }

    fn enter_own(&mut self, node: &Node, waker: Waker) -> bool {
        // SAFETY: `take_slot` succeeded.
        match unsafe {
            node.slot
                .arm_exclusive(&node.word, Content::Waker(waker), State::NONE)
        } {
            Ok(()) => {
                self.place = Place::Own;
                false
            }
            Err(rejected) => {
                // Nobody takes the slot again: the token is cancelled.
                unless_unwinding(|| drop(rejected));
                true
            }
        }
    }

    /// Somebody is about to cancel: for the moment that this takes there is the list.
    #[cold]
    fn enter_any_child(&mut self, token: &Handle, waker: Waker) -> bool {
        self.enter_child(token, token.node().word.load(), token.child(), waker)
    }

    #[inline(always)]
    fn enter_child(&mut self, token: &Handle, before: State, child: Handle, waker: Waker) -> bool {
        let node = child.node();
        // SAFETY: a new child, which nobody else has.
        match unsafe {
            node.slot
                .arm_exclusive(&node.word, Content::Waker(waker), State::SLOT)
        } {
            Ok(()) => {
                self.place = Place::Child(child);
                // Somebody else changes the token's word all the while.
                let after = token.node().word.load();
                if before.with(State::PARENT) != after.with(State::PARENT) {
                    shard_if_contended(token.node());
                }
                false
            }
            Err(rejected) => {
                drop(child);
                unless_unwinding(|| drop(rejected));
                true
            }
        }
    }

    /// Takes the waker back and drops it. False: a canceller has it, or has woken it.
    #[inline]
    pub(crate) fn leave(&mut self, token: &Handle) -> bool {
        match mem::replace(&mut self.place, Place::Nowhere) {
            Place::Nowhere => true,
            Place::Own => {
                let node = token.node();
                if node.word.is_disarmed() {
                    // Nor is the slot given up: nobody takes it again.
                    return false;
                }
                // SAFETY: armed by this waiter.
                let waker = unsafe { node.slot.take_by(|| node.word.disarm_and_leave()) };
                // User code last, after the slot has been left (I9).
                drop_waker(waker)
            }
            Place::Child(child) => {
                let node = child.node();
                if node.word.is_disarmed() {
                    return false;
                }
                // SAFETY: armed by this waiter, whose handle is the only one; with the step it is gone.
                let waker = unsafe { node.slot.take_by(|| reclaim::vacate_armed(child.0)) };
                if waker.is_some() {
                    mem::forget(child);
                    return drop_waker(waker);
                }
                let waker = node.slot.disarm(&node.word);
                drop(child);
                drop_waker(waker)
            }
            Place::Seat(seated) => {
                // SAFETY: the token is held by whoever waits.
                if unsafe { seated.is_called() } {
                    return false;
                }
                // SAFETY: the same.
                drop_waker(unsafe { rooms::leave(seated) })
            }
        }
    }
}

/// User code. True: there was one.
#[inline]
fn drop_waker(waker: Option<Waker>) -> bool {
    let there = waker.is_some();
    if let Some(waker) = waker {
        unless_unwinding(|| drop(waker));
    }
    there
}

/// The token is cancelled. User code.
#[cold]
fn refuse(waker: Waker) -> bool {
    unless_unwinding(|| drop(waker));
    true
}

/// Moves the waiters of a token that several threads wait for at once off its own line.
#[cold]
fn shard_if_contended(node: &Node) {
    if !node.is_sharded() && thread::contended() {
        node.grow();
    }
}

impl Handle {
    /// Leaves `waker` in the token's own slot, for good: it goes when the token does, and keeps nothing but what it has
    /// itself. The token is new. Handed back if it is cancelled.
    #[cfg(feature = "std")]
    pub(super) fn put_waker(&self, waker: Waker) -> Result<(), Waker> {
        let node = self.node();
        if node.word.take_slot().is_err() {
            return Err(waker);
        }
        // SAFETY: `take_slot` succeeded.
        let armed = unsafe {
            let content = Content::Waker(waker);
            node.slot.arm_exclusive(&node.word, content, State::NONE)
        };
        armed.map_err(|rejected| match rejected {
            Content::Waker(waker) => waker,
            Content::Edge(_) => unreachable!("what was put in comes back"),
        })
    }
}

/// When it is the turn of what stays registered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// With the tasks and threads. It is not told the cause.
    Woken,
    /// After all of these.
    Called,
}

/// Something that stays registered without anybody holding it: a callback.
pub(crate) struct Entry(ManuallyDrop<Handle>);

impl Entry {
    /// Leaves `waker` below the token; handed back, and told, if it is cancelled.
    pub(crate) fn new(token: &Handle, waker: Waker, turn: Turn) -> Result<Entry, Waker> {
        let child = token.child();
        let node = child.node();
        let what = match turn {
            // As a waiter's that has a child to itself.
            Turn::Woken => State::SLOT,
            Turn::Called => State::NONE,
        };
        // SAFETY: a new child, which nobody else has.
        match unsafe {
            node.slot
                .arm_exclusive(&node.word, Content::Waker(waker), what)
        } {
            Ok(()) => Ok(Entry(ManuallyDrop::new(child))),
            Err(Content::Waker(waker)) => {
                telling::tell(&waker, || origin_of(node));
                Err(waker)
            }
            Err(Content::Edge(_)) => unreachable!("what was put in comes back"),
        }
    }

    /// Takes the waker out; none if a canceller was faster. The place is free again.
    pub(crate) fn take(self) -> Option<Waker> {
        let this = ManuallyDrop::new(self);
        // SAFETY: taken once, because `self` is not dropped.
        let child = unsafe { ptr::read(&*this.0) };
        let node = child.node();
        node.slot.disarm(&node.word)
    }
}

impl Drop for Entry {
    /// Leaves the waker where it is, to be woken or to go with the tree.
    fn drop(&mut self) {
        // SAFETY: dropped once; the handle is not used again.
        unsafe { reclaim::detach(self.0 .0) }
    }
}
