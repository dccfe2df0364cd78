//! What the timer knows of one deadline.
//!
//! Most deadlines never pass, and a server's are mostly alike: a while from now. So an entry outlives
//! the deadline that it was made for. When a context goes, its entry stays scheduled, and goes to a cache of
//! the thread (`cache.rs`). The next context's deadline is later than the time at which the timer will
//! look at the entry: arming is one CAS, and the timer, when that time comes, puts it back to where
//! it belongs by then. One insertion for each entry and period, and nothing ever has to be taken out.
//!
//! The word, above the flags of `Trigger`:
//!
//! | bits | |
//! | --- | --- |
//! | SCHEDULED | the timer has it, or will find it in its inbox |
//! | OWNED | a node or a cache has it; without, the timer frees it |
//! | the rest | the deadline, as a tick |
//!
//! The entry's memory goes with the second of SCHEDULED and OWNED. The deadline is part of the word, so
//! the timer cannot take an entry that was disarmed and armed again for what it was before.

use super::clock::Tick;
use crate::sync::{AtomicPtr, AtomicU64, Relaxed};
use crate::tree::trigger::{Trigger, ARMED, USER};
use crate::tree::Node;
use core::ptr;

const SCHEDULED: u64 = 1 << USER;
const OWNED: u64 = 1 << (USER + 1);
const SHIFT: u32 = USER + 2;

/// The latest tick that the word has room for: 18,000 years from the start.
pub(crate) const LAST_TICK: Tick = Tick::MAX >> SHIFT;

pub(crate) struct Entry {
    trigger: Trigger,
    /// When the timer looks at it next, while it is scheduled. Written by who schedules it: the owner
    /// before he puts it into the inbox, the timer before the RMW that leaves it armed.
    when: AtomicU64,
    /// The list that it is in: the inbox, a slot of the wheel, the expired ones. The timer's.
    pub(crate) next: AtomicPtr<Entry>,
}

/// What the timer finds when it looks at an entry.
pub(super) enum Visit {
    /// Armed for later: it goes back into the wheel.
    Later(Tick),
    /// Its time has come, and it is the caller's to fire.
    Fire,
    /// Nobody is waiting; its owner has it, and schedules it again when he needs it.
    Idle,
    /// Nobody has it any more: the caller frees it.
    Abandoned,
}

impl Entry {
    /// Owned, not scheduled.
    pub(crate) fn new() -> Entry {
        Entry {
            trigger: Trigger::new(OWNED),
            when: AtomicU64::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    #[inline]
    pub(crate) fn trigger(&self) -> &Trigger {
        &self.trigger
    }

    /// The owner's: can it be armed for that deadline without being scheduled anew?
    #[inline]
    pub(crate) fn suits(&self, deadline: Tick) -> bool {
        // Relaxed: the timer changes it only while the entry is armed, and disarming it acquired that.
        self.trigger.load() & SCHEDULED == 0 || self.when.load(Relaxed) <= deadline
    }

    /// Arms an entry that suits. True: the caller has to put it into the inbox.
    #[inline]
    pub(crate) fn arm(&self, node: &Node, deadline: Tick) -> bool {
        let deadline = deadline.clamp(1, LAST_TICK);
        self.trigger.aim(node);
        let armed = deadline << SHIFT | SCHEDULED | OWNED | ARMED;
        let mut seen = self.trigger.load();
        while seen & SCHEDULED != 0 {
            match self.trigger.replace(seen, armed) {
                Ok(()) => return false,
                // The timer has looked at it just now, and let it go.
                Err(now) => seen = now,
            }
        }
        self.when.store(deadline, Relaxed);
        self.trigger.reset(armed);
        true
    }

    #[inline]
    pub(crate) fn has_been_armed(&self) -> bool {
        self.trigger.load() >> SHIFT != 0
    }

    /// Armed for that tick or an earlier one, or about to fire.
    pub(crate) fn is_due(&self, passed: Tick) -> bool {
        let seen = self.trigger.load();
        Trigger::is_live(seen) && seen >> SHIFT <= passed.clamp(1, LAST_TICK)
    }

    /// The owner gives it up. True: it is the caller's to free.
    pub(crate) fn abandon(&self) -> bool {
        self.trigger.clear(OWNED) & SCHEDULED == 0
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.trigger.load() & OWNED == 0
    }

    /// When the timer looks at it next. The timer's.
    pub(super) fn when(&self) -> Tick {
        self.when.load(Relaxed)
    }

    /// The timer's look at an entry whose time to be looked at has come.
    pub(super) fn visit(&self, now: Tick) -> Visit {
        let mut seen = self.trigger.load();
        loop {
            let (step, answer) = if seen & ARMED != 0 {
                let deadline = seen >> SHIFT;
                if deadline > now {
                    // Relaxed: released by the RMW below to the owner who disarms it. If that fails,
                    // it was later than what holds, and only kept the owner from using the entry.
                    self.when.store(deadline, Relaxed);
                    (self.trigger.replace(seen, seen), Visit::Later(deadline))
                } else {
                    (self.trigger.begin(seen, SCHEDULED), Visit::Fire)
                }
            } else if seen & OWNED != 0 {
                (self.trigger.replace(seen, seen & !SCHEDULED), Visit::Idle)
            } else {
                return Visit::Abandoned;
            };
            match step {
                Ok(()) => return answer,
                Err(now) => seen = now,
            }
        }
    }
}
