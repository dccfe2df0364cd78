//! Waiting for a group: a seat for each waiter, which is used again. There are about as many as have ever waited at once.

use crate::sync::{
    Acquire, AtomicPtr, AtomicU8, Credit, OneWaiter, Panics, Relaxed, Release, SMALL,
};
use alloc::boxed::Box;
use core::ptr::{self, NonNull};
use core::task::Waker;

const FREE: u8 = 0;
const TAKEN: u8 = 1;

struct Seat {
    /// Fixed once the seat is linked.
    older: AtomicPtr<Seat>,
    state: AtomicU8,
    waiter: OneWaiter,
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    _leak: crate::sync::Track<()>,
}

pub(super) struct Seats {
    newest: AtomicPtr<Seat>,
    /// Where the last look for a free one ended.
    look: AtomicPtr<Seat>,
    credit: Credit,
}

/// So many seats are looked at before one more is made, or as many as were paid for.
const LOOK: usize = if SMALL { 2 } else { 16 };

/// A seat that is the caller's until it is left, before the group goes; or forgotten (`mem::forget`), and then not used again.
pub(super) struct Seated(NonNull<Seat>);

// SAFETY: a seat's state is atomic, its waiter may be woken by others, and only whoever has the seat registers.
unsafe impl Send for Seated {}
// SAFETY: as above; `register` takes `&mut self`.
unsafe impl Sync for Seated {}

impl Seats {
    pub(super) fn new() -> Seats {
        Seats {
            newest: AtomicPtr::new(ptr::null_mut()),
            look: AtomicPtr::new(ptr::null_mut()),
            credit: Credit::new(),
        }
    }

    fn each(&self) -> impl Iterator<Item = &Seat> {
        // Acquire: pairs with the push in `take`.
        let mut at = self.newest.load(Acquire).cast_const();
        core::iter::from_fn(move || {
            // SAFETY: seats are freed with the group, which the caller holds.
            let seat = unsafe { at.as_ref() }?;
            at = seat.older();
            Some(seat)
        })
    }

    pub(super) fn take(&self) -> Seated {
        // Acquire: pairs with the store below, so that the seat is there as it was made.
        let mut at = self.look.load(Acquire).cast_const();
        let most = self.credit.looks(LOOK);
        for looks in 1..=most {
            if at.is_null() {
                // Acquire: pairs with the push below.
                at = self.newest.load(Acquire).cast_const();
            }
            // SAFETY: seats are freed with the group, which the caller holds.
            let Some(seat) = (unsafe { at.as_ref() }) else {
                break;
            };
            at = seat.older();
            // Acquire: pairs with the drop of `Seated`; nobody else registers here any more.
            let take = || seat.state.compare_exchange(FREE, TAKEN, Acquire, Relaxed);
            if seat.state.load(Relaxed) == FREE && take().is_ok() {
                // Release: pairs with the load above.
                self.look.store(at.cast_mut(), Release);
                self.credit.found(looks);
                return Seated(NonNull::from(seat));
            }
        }
        // Release: as above.
        self.look.store(at.cast_mut(), Release);
        self.credit.found_nothing(most);
        self.credit.grown(1);
        let seat = Box::into_raw(Box::new(Seat {
            older: AtomicPtr::new(ptr::null_mut()),
            state: AtomicU8::new(TAKEN),
            waiter: OneWaiter::default(),
            #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
            _leak: crate::sync::Track::new(()),
        }));
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = self.newest.load(Relaxed);
        loop {
            // SAFETY: made above, and not shared yet. Relaxed: published by the CAS below.
            unsafe { (*seat).older.store(seen, Relaxed) };
            // Release: pairs with `each`. Failure: the seat there is only linked to; whoever follows the link has acquired
            // this push and with it, by the release sequence, that one.
            match self
                .newest
                .compare_exchange_weak(seen, seat, Release, Relaxed)
            {
                // SAFETY: of a Box.
                Ok(_) => return Seated(unsafe { NonNull::new_unchecked(seat) }),
                Err(now) => seen = now,
            }
        }
    }

    pub(super) fn wake_all(&self, panics: &mut Panics) {
        for seat in self.each() {
            panics.catch(|| seat.waiter.wake());
        }
    }
}

impl Seat {
    fn older(&self) -> *const Seat {
        // Relaxed: fixed before the push that the caller has acquired with the seat.
        self.older.load(Relaxed).cast_const()
    }
}

impl Seated {
    pub(super) fn register(&mut self, waker: &Waker) {
        // SAFETY: the seat is ours, and freed with the group.
        unsafe { self.0.as_ref() }.waiter.register(waker);
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        // SAFETY: as above.
        let seat = unsafe { self.0.as_ref() };
        let waker = seat.waiter.take();
        // Release: pairs with `take`.
        seat.state.store(FREE, Release);
        // User code last.
        drop(waker);
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        // Relaxed: nobody else has the group any more.
        let mut at = self.newest.load(Relaxed);
        let mut panics = Panics::default();
        while !at.is_null() {
            // SAFETY: with the group goes all that it has; whoever is still seated was forgotten.
            let seat = unsafe { Box::from_raw(at) };
            at = seat.older().cast_mut();
            // User code: that one's waker.
            panics.catch(|| drop(seat));
        }
        panics.resume();
    }
}
