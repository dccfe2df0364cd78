//! A forked child has neither the timer's thread nor workers, nor can it have them. There threads that wait see to those jobs
//! that somebody may wait for. The others are not run.

use super::inbox;
use super::round::{Item, Round};
use crate::sync::Relaxed;
use alloc::vec::Vec;
use core::ptr::NonNull;

/// Sees to what has come, in a forked child: wakes, polls and calls, whose panics stay here. Any number of threads may be at it, each
/// with what it has found: a callback that blocks holds up those that were found with it.
#[cold]
pub(crate) fn see_to_jobs() {
    let (mut waking, mut others) = (Vec::new(), Vec::new());
    let mut next = inbox::take_jobs();
    while let Some(job) = NonNull::new(next) {
        // SAFETY: in the list, which is ours. Relaxed: acquired when it was taken.
        let this = unsafe { job.as_ref() };
        next = this.next.load(Relaxed);
        match (this.wakes(), this.is_for_waiters()) {
            (true, _) => waking.push(Item::of_job(job)),
            (false, true) => others.push(Item::of_job(job)),
            (false, false) => {}
        }
    }
    // In the order in which they came.
    waking.reverse();
    others.reverse();
    let count = waking.len();
    let (waking, others) = (Round::new(waking, count), Round::new(others, 0));
    while waking.things().wake_one() {}
    // Before the callbacks, which may wait for what is polled here.
    while others.things().call_one() {}
    while waking.things().call_one() {}
}
