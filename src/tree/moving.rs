//! Deadlines that move: what is kept beside the timer's entry. How they are moved is in `moves.rs`.
//!
//! The deadline itself is in the entry's word, and every step that sets, extends or takes it away is an RMW on that word,
//! as is the firer's first: so one of them is first, and the other learns of it by its answer. The timer is told only of a
//! deadline that has become earlier; at a later one it looks too early, and puts the entry where it belongs by then.
//!
//! An idle timeout is put off by a store, and not by a step on the word. When its entry comes up, the timer first takes it
//! (FIRING), then asks when it was touched last, and arms it again if that is less than the period ago. A thread that notices
//! the deadline itself asks first. A touch that comes while they do is as late as one that comes after.

use super::stand_in::StandIns;
use crate::sync::{thread, Arc, AtomicU64, AtomicUsize, Relaxed, SMALL};
use crate::timer;
use crate::timer::clock::{self, Moment};
use crate::timer::entry::{Entry, Seen, NEVER};
use crate::timer::testing::Clock;
use crate::timer::trigger::Trigger;
use std::time::{Duration, Instant};

/// Nanoseconds that are no point in time.
pub(super) const NONE: u64 = u64::MAX;

/// Shared by the node and the guard that moves its deadline.
pub(crate) struct Moving {
    /// The deadline as its user said it, as the entry's is rounded. Written before the step that sets that: where several
    /// threads set it at once this may be another one's, and then the entry's counts. Of an idle timeout that has passed: the
    /// deadline by which it has, whatever is touched afterwards.
    pub(super) exact: AtomicU64,
    idle: Option<Idle>,
    pub(super) clock: Option<Clock>,
    /// Who is about to push the entry, and what is told to the timer instead while somebody is.
    pub(super) pushers: timer::Pushers,
    pub(super) stand_ins: StandIns,
}

/// When it was touched last, in nanoseconds. A thread that was stopped between its look at the clock and its store must not
/// hide what others stored meanwhile: so the first threads that come have a slot each, where a store is enough, and what
/// the others say is the greatest of it.
struct Idle {
    period: u64,
    slots: [Slot; SLOTS],
    others: AtomicU64,
}

const SLOTS: usize = if SMALL { 1 } else { 3 };

struct Slot {
    /// Whose it is, by the number of the thread; 0: nobody's. No number comes twice.
    thread: AtomicUsize,
    touched: AtomicU64,
}

impl Moving {
    /// For a deadline that is set, extended and taken away.
    pub(crate) fn new(clock: Option<Clock>) -> Arc<Moving> {
        Arc::new(Moving {
            exact: AtomicU64::new(NONE),
            idle: None,
            clock,
            pushers: timer::Pushers::new(),
            stand_ins: StandIns::new(),
        })
    }

    /// For one that is a while after the last touch; now is one.
    pub(crate) fn idle(period: Duration, clock: Option<Clock>) -> Arc<Moving> {
        let now = nanos_now(&clock);
        let slot = || Slot {
            thread: AtomicUsize::new(0),
            touched: AtomicU64::new(0),
        };
        Arc::new(Moving {
            exact: AtomicU64::new(NONE),
            idle: Some(Idle {
                period: u64::try_from(period.as_nanos()).unwrap_or(NONE),
                slots: core::array::from_fn(|_| slot()),
                others: AtomicU64::new(now),
            }),
            clock,
            pushers: timer::Pushers::new(),
            stand_ins: StandIns::new(),
        })
    }

    /// What time it is, in nanoseconds.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        nanos_now(&self.clock)
    }

    /// It is in use at that moment. A store, for the first threads that come.
    #[inline]
    pub(crate) fn touch(&self, now: u64) {
        let Some(idle) = &self.idle else { return };
        let this = thread::number();
        // Relaxed, all here: a slot is its thread's, and what it says is no more than a number.
        let first = &idle.slots[0];
        if first.thread.load(Relaxed) == this {
            first.touch(now);
        } else {
            idle.touch_elsewhere(this, now);
        }
    }

    /// When the deadline is, if that is later than what its entry says: it has been touched.
    pub(super) fn put_off(&self, entry: Moment) -> Option<Moment> {
        let due = clock::moment_of(self.idle.as_ref()?.due());
        // One that will not come, for it has been touched for a time that far away, is looked at as late as the timer can.
        let due = due.min(NEVER - 1);
        (due > entry).then_some(due)
    }

    /// The deadline passes, by a look that found it not later than that moment. A touch since then has come too late. Called by
    /// what has made the entry FIRING.
    pub(super) fn note_due(&self, latest: Moment) {
        if let Some(idle) = &self.idle {
            // Relaxed: published by `note_passed`.
            let due = idle.due().min(clock::nanos_of(latest));
            self.exact.store(due, Relaxed);
        }
    }

    /// When the deadline is, if there is one.
    pub(super) fn deadline(&self, entry: &Entry) -> Option<Instant> {
        self.nanos(entry, entry.look()).and_then(clock::instant_at)
    }

    /// Of one that is put off by use. If it passes, it is by this look: a clock's, which has its lock.
    #[cfg(feature = "testing")]
    pub(super) fn idle_due(&self) -> Option<u64> {
        let due = self.idle.as_ref()?.due();
        // Relaxed: published by `note_passed`.
        self.exact.store(due, Relaxed);
        Some(due)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.idle.is_some()
    }

    /// Those of its stand-ins, which last as long as it does.
    pub(super) fn stand_ins(&self) -> impl Iterator<Item = &Trigger> {
        self.stand_ins.triggers()
    }

    pub(super) fn nanos(&self, entry: &Entry, seen: Seen) -> Option<u64> {
        if let Some(idle) = &self.idle {
            let due = match entry.has_passed() {
                // Relaxed: acquired with that.
                true => self.exact.load(Relaxed),
                false => idle.due(),
            };
            return Some(due).filter(|due| *due < clock::nanos_of(NEVER));
        }
        // Relaxed: see the field.
        let exact = self.exact.load(Relaxed);
        let moment = seen.deadline();
        if exact != NONE && clock::moment_of(exact) == moment {
            return Some(exact);
        }
        // One that was too late may have written what it wanted.
        let stands = seen.is_armed() || seen.is_firing() || entry.has_passed();
        stands.then(|| clock::nanos_of(moment))
    }
}

#[inline]
fn nanos_now(clock: &Option<Clock>) -> u64 {
    match clock {
        None => clock::nanos(Instant::now()),
        Some(clock) => clock.nanos(),
    }
}

impl Slot {
    /// By the thread whose it is. An earlier touch that is told later changes nothing.
    #[inline]
    fn touch(&self, now: u64) {
        if self.touched.load(Relaxed) < now {
            self.touched.store(now, Relaxed);
        }
    }
}

impl Idle {
    #[cold]
    fn touch_elsewhere(&self, this: usize, now: u64) {
        for slot in &self.slots {
            let mut owner = slot.thread.load(Relaxed);
            if owner == 0 {
                owner = match slot.thread.compare_exchange(0, this, Relaxed, Relaxed) {
                    Ok(_) => this,
                    Err(other) => other,
                };
            }
            if owner == this {
                slot.touch(now);
                return;
            }
        }
        let others = &self.others;
        let mut seen = others.load(Relaxed);
        while seen < now {
            match others.compare_exchange_weak(seen, now, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    fn due(&self) -> u64 {
        // Relaxed: the latest that has come this far.
        let touched = self.slots.iter().map(|slot| slot.touched.load(Relaxed));
        let last = touched.fold(self.others.load(Relaxed), u64::max);
        last.saturating_add(self.period)
    }
}
