//! What the timer knows of one deadline.
//!
//! Most deadlines never pass, and a server's are mostly alike: a while from now. So an entry outlives
//! the deadline that it was made for. When a context goes, its entry stays where it is in the wheel, and goes to a pool
//! of the thread (`pool.rs`). The next context's deadline is later than the time at which the timer will
//! look at the entry, as a rule: arming is one CAS, and the timer, when that time comes, puts it back to where
//! it belongs by then. If it is earlier, the entry goes to the inbox once more, and the timer moves it.
//!
//! The word, above the flags of `Trigger`:
//!
//! | bits | |
//! | --- | --- |
//! | LINKED | it is in the wheel; changed by the timer only |
//! | QUEUED | it is in the inbox, or about to be: whoever sets it pushes, and the timer clears it. The timer relies on the push for nothing else: what it has in the wheel it looks at in time |
//! | OWNED | a node or a pool has it; without, it is QUEUED, and the timer frees it |
//! | the rest | the deadline, as a moment; the last one if it is not armed |
//!
//! The entry's memory goes with the last of the three. The deadline is part of the word, so
//! the timer cannot take an entry that was disarmed and armed again for what it was before.

use super::clock::{tick_of, Moment, Tick};
use super::home::Home;
use super::trigger::{live, Trigger, ARMED, FIRING, LEFT, USER};
use crate::sync::{Acquire, AtomicPtr, AtomicU64, Relaxed, Release};
use core::ptr::{self, NonNull};

const LINKED: u64 = 1 << USER;
const QUEUED: u64 = 1 << (USER + 1);
const OWNED: u64 = 1 << (USER + 2);
const SHIFT: u32 = USER + 3;

/// From this moment on the timer has no deadlines: 584 years after its start, and whatever the clock can express
/// beyond.
pub(crate) const NEVER: Moment = Moment::MAX >> SHIFT;

/// What its user does about an entry; `repr(C)` structs that begin with it, which these functions find by the pointer.
pub(crate) struct Table {
    /// The deadline has passed, and the entry is FIRING: sets the state of what it is about, and of what is below; at
    /// most about `budget` things. True: it is through. Called by the timer's thread until then; runs no user code.
    pub(crate) mark: unsafe fn(NonNull<Entry>, budget: usize) -> bool,
    /// Once, after `mark`: wakes tasks and threads. On a worker, and may panic.
    pub(crate) wake: unsafe fn(NonNull<Entry>),
    /// Once, after `wake`: runs callbacks, and lets go of the entry by [`Trigger::finish`]. On a worker, and may panic.
    pub(crate) call: unsafe fn(NonNull<Entry>),
    /// Asked before `mark`, when the entry is FIRING: the deadline may have been put off, without a step on the word.
    pub(crate) put_off: unsafe fn(NonNull<Entry>) -> Option<Moment>,
    /// Of one that has no more to say than that the timer is to look at another one: that one, which FIRING keeps.
    pub(crate) stands_for: Option<unsafe fn(NonNull<Entry>) -> NonNull<Entry>>,
    /// Nobody has it any more.
    pub(crate) free: unsafe fn(NonNull<Entry>),
    /// For a clock of tests, which has its lock: when, in nanoseconds, what was to be due at that time is. `None`: it is done
    /// already. Runs no user code.
    #[cfg(feature = "testing")]
    pub(crate) due_apart: unsafe fn(NonNull<Entry>, at: u64) -> Option<u64>,
}

#[repr(C)]
pub(crate) struct Entry {
    trigger: Trigger,
    /// When the timer looks at it, while it is LINKED, and the list of the wheel that it was put into. Written by the
    /// timer, before the RMW that leaves it LINKED; read by the owner after its load of the word.
    place: AtomicU64,
    /// Its neighbours there: the timer's. While the entry is FIRING `prev` is its user's: what `mark` leaves to `wake`.
    pub(super) next: AtomicPtr<Entry>,
    pub(super) prev: AtomicPtr<Entry>,
    /// The next one in the inbox, while it is QUEUED.
    pub(super) queue: AtomicPtr<Entry>,
    /// The owner's: what the entry is about; in a pool, the next one there.
    pub(super) owner: AtomicPtr<()>,
    /// Where it goes when its context goes.
    pub(super) home: *const Home,
    pub(super) table: &'static Table,
}

/// In `owner`, whose lowest bits are free: it has been cancelled by its deadline.
const PASSED: usize = 1;

/// The list's number has that many bits in `place`.
const LIST: u32 = 11;

/// What an entry's word says to a mover of its deadline.
#[derive(Clone, Copy)]
pub(crate) struct Seen(u64);

impl Seen {
    /// It is too late: the deadline has passed, and somebody is at it.
    pub(crate) fn is_firing(self) -> bool {
        self.0 & FIRING != 0
    }

    pub(crate) fn is_armed(self) -> bool {
        self.0 & ARMED != 0
    }

    /// The deadline, or the last one.
    pub(crate) fn deadline(self) -> Moment {
        self.0 >> SHIFT
    }
}

/// A step of a mover.
pub(super) struct Move {
    seen: u64,
    new: u64,
}

/// What is left to do after an entry was armed.
pub(super) enum Arming {
    /// Nothing: the timer looks at it in time.
    InTime,
    /// It is in the inbox: the timer must not sleep longer than until the deadline. Or another mover is about to push it.
    InInbox,
    /// It has to go to the inbox.
    ToPush,
}

/// What the timer finds when it looks at an entry in the wheel or out of the inbox.
pub(super) enum Visit {
    /// It goes to this tick's place.
    Place(Tick),
    /// Its time has come, and it is the caller's to fire. Out of the wheel.
    Fire,
    /// Out of the wheel: nobody needs it there.
    Out,
    /// Nobody has it any more: out of the wheel, and the caller frees it.
    Free,
}

impl Entry {
    /// Owned, and the timer does not know it.
    pub(super) fn new(home: *const Home, table: &'static Table) -> Entry {
        Entry {
            trigger: Trigger::new(OWNED),
            place: AtomicU64::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
            prev: AtomicPtr::new(ptr::null_mut()),
            queue: AtomicPtr::new(ptr::null_mut()),
            owner: AtomicPtr::new(ptr::null_mut()),
            home,
            table,
        }
    }

    /// One that belongs to no pool.
    pub(crate) fn homeless(table: &'static Table) -> Entry {
        Entry::new(ptr::null(), table)
    }

    #[inline]
    pub(crate) fn trigger(&self) -> &Trigger {
        &self.trigger
    }

    /// What it is about: good while it is armed or FIRING.
    pub(crate) fn owner(&self) -> *mut () {
        // Relaxed: published by the step that arms, which the firer's has read.
        self.owner.load(Relaxed).map_addr(|a| a & !PASSED)
    }

    /// The entry is the caller's alone, and not armed yet.
    pub(crate) fn set_owner(&self, owner: *mut ()) {
        // Relaxed: published with what it is about.
        self.owner.store(owner, Relaxed);
    }

    /// What it is about is cancelled because its deadline has passed: noted before that. The caller keeps it.
    pub(crate) fn note_passed(&self) {
        // Relaxed: more than one may be at it, with the same word.
        let owner = self.owner.load(Relaxed);
        // Release: pairs with `has_passed`, for what its user has noted before. And it is published by the cancel.
        self.owner.store(owner.map_addr(|a| a | PASSED), Release);
    }

    /// Whether that was noted. The caller keeps what it is about.
    pub(crate) fn has_passed(&self) -> bool {
        // Acquire: pairs with `note_passed`.
        self.owner.load(Acquire).addr() & PASSED != 0
    }

    /// A word that is the firer's, from `mark` to `call`; nothing when it is armed.
    pub(crate) fn notes(&self) -> *mut () {
        // Relaxed, here and below: the firer's, which hands the entry on.
        self.prev.load(Relaxed).cast()
    }

    pub(crate) fn set_notes(&self, notes: *mut ()) {
        self.prev.store(notes.cast(), Relaxed);
    }

    /// Arms it: the owner's, and it is neither armed nor FIRING.
    #[inline]
    pub(super) fn arm(&self, owner: *mut (), deadline: Moment) -> Arming {
        // Relaxed: published by the step that arms.
        self.owner.store(owner, Relaxed);
        let armed = deadline << SHIFT | OWNED | ARMED;
        let mut seen = self.trigger.load();
        loop {
            let (new, then) = match seen & (LINKED | QUEUED) {
                // Relaxed: the load of the word acquired it. The timer changes it meanwhile only with a word that makes
                // the CAS fail.
                LINKED if self.place.load(Relaxed) >> LIST <= tick_of(deadline) => {
                    (armed | LINKED, Arming::InTime)
                }
                LINKED => (armed | LINKED | QUEUED, Arming::ToPush),
                0 => {
                    // Nobody else knows it.
                    self.trigger.reset(armed | QUEUED);
                    return Arming::ToPush;
                }
                kept => (armed | kept, Arming::InInbox),
            };
            match self.trigger.replace(seen, new) {
                Ok(()) => return then,
                // The timer has looked at it just now.
                Err(now) => seen = now,
            }
        }
    }

    /// Armed for that moment or an earlier one, or about to fire: the moment.
    pub(crate) fn due(&self, passed: Moment) -> Option<Moment> {
        let seen = self.trigger.load();
        let deadline = seen >> SHIFT;
        (live(seen) && deadline <= passed).then_some(deadline)
    }

    pub(crate) fn look(&self) -> Seen {
        Seen(self.trigger.load())
    }

    /// The step that moves the deadline, or takes it away, and what is left to do after it.
    ///
    /// Unlike `arm`, others may be here too, so it is the word alone that decides: while an entry is in the wheel and not in
    /// the inbox, the timer looks at it at the word's deadline at the latest.
    pub(super) fn plan(seen: Seen, to: Option<Moment>) -> (Move, Arming) {
        let seen = seen.0;
        debug_assert!(seen & FIRING == 0);
        let (new, then) = match to {
            None => (seen & !ARMED, Arming::InTime),
            Some(deadline) => {
                let armed = deadline << SHIFT | OWNED | ARMED;
                match seen & (LINKED | QUEUED) {
                    LINKED if seen >> SHIFT <= deadline => (armed | LINKED, Arming::InTime),
                    kept @ (0 | LINKED) => (armed | kept | QUEUED, Arming::ToPush),
                    queued => (armed | queued, Arming::InInbox),
                }
            }
        };
        (Move { seen, new }, then)
    }

    /// Takes that step, if the word still is what was seen. Of this and the firer's step one is first, for both are on that
    /// word. The caller keeps what it is about.
    pub(super) fn take(&self, step: &Move) -> Result<(), Seen> {
        self.trigger.replace(step.seen, step.new).map_err(Seen)
    }

    /// Takes it to fire it, on a thread other than the timer's, if the word still is what was seen. The timer drops it from
    /// its lists when it comes by.
    pub(crate) fn begin(&self, seen: Seen) -> bool {
        seen.is_armed() && self.trigger.begin(seen.0, 0).is_ok()
    }

    /// The owner has disarmed it, and gives it up. The answer says what is left to do: to free it, to push it, or
    /// nothing.
    pub(super) fn abandon(&self) -> Abandoned {
        let mut seen = self.trigger.load();
        loop {
            if seen & (LINKED | QUEUED) == 0 {
                return Abandoned::ToFree;
            }
            match self.trigger.replace(seen, seen & !OWNED | QUEUED) {
                Ok(()) if seen & QUEUED == 0 => return Abandoned::ToPush,
                Ok(()) => return Abandoned::InInbox,
                Err(now) => seen = now,
            }
        }
    }

    // ----- the timer's --------------------------------------------------------------------------

    pub(super) fn list(&self) -> usize {
        // Relaxed, here and below: while the entry is the timer's its thread alone writes this.
        (self.place.load(Relaxed) & ((1 << LIST) - 1)) as usize
    }

    pub(super) fn set_list(&self, list: usize) {
        let tick = self.place.load(Relaxed) >> LIST;
        self.place.store(tick << LIST | list as u64, Relaxed);
    }

    /// When the timer looks at it, while it is LINKED.
    pub(super) fn tick(&self) -> Tick {
        self.place.load(Relaxed) >> LIST
    }

    /// The step to `new` after which it is in that tick's place.
    fn place_at(&self, tick: Tick, seen: u64, new: u64) -> Result<(), u64> {
        let before = self.place.load(Relaxed);
        // Relaxed: released by the RMW. An owner that sees it although that fails pushes the entry for nothing.
        self.place.store(tick << LIST, Relaxed);
        self.trigger.replace(seen, new).inspect_err(|_| {
            self.place.store(before, Relaxed);
        })
    }

    /// The deadline, or the last one.
    pub(super) fn deadline(&self) -> Moment {
        self.trigger.load() >> SHIFT
    }

    pub(super) fn is_linked(&self) -> bool {
        self.trigger.load() & LINKED != 0
    }

    /// The timer's look at an entry in the wheel whose time has come, or which a stand-in stands for. Where it is QUEUED it stays
    /// so, and is looked at once more when it is taken out of the inbox: but whoever is to push it may stand still.
    pub(super) fn visit(&self, now: Tick) -> Visit {
        let mut seen = self.trigger.load();
        loop {
            let tick = tick_of(seen >> SHIFT);
            let (step, answer) = if seen & ARMED == 0 {
                (self.trigger.replace(seen, seen & !LINKED), Visit::Out)
            } else if tick > now {
                (self.place_at(tick, seen, seen | LINKED), Visit::Place(tick))
            } else {
                (self.trigger.begin(seen, LINKED), Visit::Fire)
            };
            match step {
                Ok(()) => return answer,
                Err(now) => seen = now,
            }
        }
    }

    /// The timer's look at an entry out of the inbox.
    pub(super) fn take_in(&self, now: Tick) -> Visit {
        let mut seen = self.trigger.load();
        loop {
            if seen & OWNED == 0 {
                return Visit::Free;
            }
            let tick = tick_of(seen >> SHIFT);
            let (step, answer) = if tick <= now {
                if seen & ARMED != 0 {
                    (self.trigger.begin(seen, LINKED | QUEUED), Visit::Fire)
                } else {
                    let out = seen & !(LINKED | QUEUED);
                    (self.trigger.replace(seen, out), Visit::Out)
                }
            } else if seen & LINKED != 0 && (now + 1..=tick).contains(&self.tick()) {
                let step = self.trigger.replace(seen, seen & !QUEUED);
                (step, Visit::Place(self.tick()))
            } else {
                // Also if it is not armed: the next deadline set by its owner will be later, as a rule.
                let new = seen & !QUEUED | LINKED;
                (self.place_at(tick, seen, new), Visit::Place(tick))
            };
            match step {
                Ok(()) => return answer,
                Err(now) => seen = now,
            }
        }
    }

    /// If the deadline has been put off, it is armed again, and goes to that tick's place.
    ///
    /// # Safety
    /// FIRING by the timer, out of the wheel, and not marked.
    pub(super) unsafe fn put_off(this: NonNull<Entry>) -> Option<Tick> {
        // SAFETY: FIRING keeps it; the rest is the caller's promise.
        let (this, deadline) = unsafe { (this.as_ref(), (this.as_ref().table.put_off)(this)?) };
        let seen = this.trigger.load();
        if seen & LEFT != 0 {
            // Its last owner is gone, and nothing is left that could see when it ends.
            return None;
        }
        let tick = tick_of(deadline);
        let new = deadline << SHIFT | seen & (QUEUED | OWNED) | ARMED | LINKED;
        this.place_at(tick, seen, new).ok().map(|()| tick)
    }

    /// What it stands for, if that is all that it does.
    ///
    /// # Safety
    /// FIRING by the timer, and not marked.
    pub(super) unsafe fn stands_for(this: NonNull<Entry>) -> Option<NonNull<Entry>> {
        // SAFETY: FIRING keeps it; the rest is the caller's promise.
        unsafe { this.as_ref().table.stands_for.map(|of| of(this)) }
    }

    /// The end of one that stands for another, at which the timer has looked: it may be armed again then, or gone. False: it is not
    /// such a one, or a handle has been left to it, which a worker gives up.
    ///
    /// # Safety
    /// FIRING by the timer, and not marked.
    pub(super) unsafe fn end_if_it_stands_for_another(this: NonNull<Entry>) -> bool {
        // SAFETY: FIRING keeps it, until the last step.
        let this = unsafe { this.as_ref() };
        this.table.stands_for.is_some() && this.trigger.finish_unless_left()
    }

    /// # Safety
    /// FIRING by the timer, and not marked through.
    pub(super) unsafe fn mark(this: NonNull<Entry>, budget: usize) -> bool {
        // SAFETY: FIRING keeps it; the rest is the caller's promise.
        unsafe { (this.as_ref().table.mark)(this, budget) }
    }

    /// # Safety
    /// Marked through, and this is the one call for it.
    pub(super) unsafe fn wake(this: NonNull<Entry>) {
        // SAFETY: as above.
        unsafe { (this.as_ref().table.wake)(this) }
    }

    /// # Safety
    /// Woken, and this is the one call for it. Not to be used again.
    pub(super) unsafe fn call(this: NonNull<Entry>) {
        // SAFETY: as above.
        unsafe { (this.as_ref().table.call)(this) }
    }

    /// # Safety
    /// Nobody else has it, and it is not used again.
    pub(super) unsafe fn free(this: NonNull<Entry>) {
        // SAFETY: the caller's promise.
        unsafe {
            let (home, free) = (this.as_ref().home, this.as_ref().table.free);
            free(this);
            Home::forget_one(home);
        }
    }
}

/// For a clock of tests (`testing.rs`), of which an entry's word knows nothing but whether it is armed or FIRING.
#[cfg(feature = "testing")]
impl Entry {
    /// Arms it: the owner's, and it has never been armed.
    pub(super) fn arm_apart(&self, owner: *mut (), deadline: Moment) {
        // Relaxed: published by the lock.
        self.owner.store(owner, Relaxed);
        self.trigger.reset(deadline << SHIFT | OWNED | ARMED);
    }

    /// The step of a mover.
    pub(super) fn move_apart(&self, seen: Seen, to: Option<Moment>) -> Result<(), Seen> {
        debug_assert!(!seen.is_firing());
        let new = match to {
            None => seen.0 & !ARMED,
            Some(deadline) => deadline << SHIFT | OWNED | ARMED,
        };
        self.trigger.replace(seen.0, new).map_err(Seen)
    }

    /// # Safety
    /// Registered with a clock, whose lock is the caller's.
    pub(super) unsafe fn due_apart(this: NonNull<Entry>, at: u64) -> Option<u64> {
        // SAFETY: the caller's promise.
        unsafe { (this.as_ref().table.due_apart)(this, at) }
    }
}

/// What is left to do after an entry was abandoned.
pub(super) enum Abandoned {
    ToFree,
    ToPush,
    /// The timer finds it in the inbox.
    InInbox,
}
