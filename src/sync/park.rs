//! Blocking: the calling thread as a waker, and its sleep.
//!
//! The sleep is std's own: its parker is one word in most places (docs/INTERNALS.md says where), so whoever wakes a thread
//! never waits for it. What is beside it is a word that says whether this wait has been told, for a permit
//! may come from elsewhere, and may be used up by whatever `done` runs.

use super::{parking, waker_of, Acquire, Arc, AtomicU8, Release, Wake};
use core::cell::Cell;
use core::task::Waker;
use std::time::Instant;

/// What `told` says; otherwise 0.
const TOLD: u8 = 1;

/// Where a thread waits, as those that wake it know it.
struct Seat {
    thread: parking::Thread,
    told: AtomicU8,
}

impl Wake for Seat {
    fn wake(this: &Arc<Seat>) {
        // Release: to the `swap` in `sleep`. A RMW, so that a sleeper that finds it said by another one has
        // acquired from this one as well.
        this.told.swap(TOLD, Release);
        // Also if it was said already: whoever said it may not have come as far as this.
        this.thread.unpark();
    }
}

/// The calling thread's seat, with the waker that ends its sleep.
struct Seated {
    seat: Arc<Seat>,
    waker: Waker,
    /// Whether it has slept since it sat down.
    has_parked: bool,
}

super::local! {
    /// The seat that the thread's next wait takes. A wait within a wait (the outer one's `done` runs a
    /// user's code) finds none and has one of its own: it must not take what the outer one is told.
    static SEAT: Cell<Option<Seated>> = Cell::new(None);
}

impl Seated {
    fn new() -> Seated {
        let seat = Arc::new(Seat {
            thread: parking::current(),
            told: AtomicU8::new(0),
        });
        Seated {
            waker: waker_of(seat.clone()),
            seat,
            has_parked: false,
        }
    }

    /// Sleeps until it has been told since the last time, or until the deadline.
    fn sleep(&mut self, deadline: Option<Instant>) {
        // Acquire: from the `swap` of all that have told it.
        while self.seat.told.swap(0, Acquire) != TOLD {
            match deadline {
                None => {
                    self.has_parked = true;
                    parking::park();
                }
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    self.has_parked = true;
                    parking::park_timeout(left);
                }
            }
        }
    }
}

/// A wait that goes on, with its seat once it has one.
struct Wait(Option<Seated>);

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(seated) = &mut self.0 else {
            return;
        };
        if core::mem::take(&mut seated.has_parked) {
            // One of the permits that ended the sleep may have been meant for a `park` of the user's.
            seated.seat.thread.unpark();
        }
        // Err: the thread's locals are gone. Otherwise the seat that came back first is dropped with `self`.
        let _ = SEAT.try_with(|seat| self.0 = seat.replace(self.0.take()));
    }
}

/// Blocks the calling thread until `done`, which is given the waker to leave behind, is
/// true, or until the deadline. `done` may be called any number of times.
pub(crate) fn until(deadline: Option<Instant>, mut done: impl FnMut(&Waker) -> bool) -> bool {
    // What a waker of an earlier wait says late only makes one turn more. A thread that drops its locals can still wait, on a
    // new seat. Later, in a destructor of the system's, std's `current` panics, and so does the wait, before it has begun.
    let mut wait = Wait(SEAT.try_with(Cell::take).ok().flatten());
    loop {
        let seated = wait.0.get_or_insert_with(Seated::new);
        // Before the look: what comes before the deadline counts.
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if done(&seated.waker) {
            return true;
        }
        if late {
            return false;
        }
        seated.sleep(deadline);
    }
}
