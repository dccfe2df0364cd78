//! What the service thread does, step by step: the thread itself, models and fuzzers take these steps.
//!
//! A step is bounded, however much there is to do, so that there is never long between two looks at what is due.

use super::clock::{Moment, Tick};
use super::entry::Entry;
use super::inbox::{self, Taken};
use super::job::Job;
use super::pressure;
use super::round::{Item, Round};
use super::wheel::Wheel;
use crate::sync::{Relaxed, SMALL};
use alloc::vec::Vec;
use core::ptr::{self, NonNull};

/// How much of each kind is done in one step.
const DUE: usize = 512;
const TAKEN_IN: usize = 256;
const MOVED_DOWN: usize = 256;
const JOBS: usize = 1024;
/// So many things are marked for each deadline in the step in which it is found to have passed. Deadlines that have more
/// below come back to it, some in each step.
const MARKS: usize = if SMALL { 2 } else { 64 };
const LARGE: usize = 16;
const MARKS_OF_LARGE: usize = if SMALL { 2 } else { 512 };
/// What has been marked is woken when all that is due has been marked, but not later than after so many ticks, nor are
/// there more.
const PATIENCE: Tick = 8;
const ROUND: usize = 16_384;

pub(super) struct Driver {
    wheel: Wheel,
    /// Out of the inbox, and not looked at yet: strung through `queue`.
    entries: *mut Entry,
    /// Jobs out of the inbox, last one first; those among them whose order has been turned; those that are ready.
    jobs: *mut Job,
    turned: *mut Job,
    ready: *mut Job,
    passed: Passed,
    /// How many entries have come, and how much was handed out.
    #[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
    pub(super) seen: usize,
}

/// What is FIRING, by the timer.
struct Passed {
    /// Not marked yet: those of this step.
    new: Vec<(Moment, NonNull<Entry>)>,
    /// Marked through, and the time of the last step in which there was nothing.
    marked: Vec<Item>,
    since: Tick,
    /// Not marked through: a queue strung through `next`.
    large: *mut Entry,
    last_large: *mut Entry,
}

// SAFETY: all that it has is its own, on whatever thread.
unsafe impl Send for Driver {}

impl Driver {
    pub(super) fn new() -> Driver {
        Driver {
            wheel: Wheel::new(),
            entries: ptr::null_mut(),
            jobs: ptr::null_mut(),
            turned: ptr::null_mut(),
            ready: ptr::null_mut(),
            passed: Passed {
                new: Vec::new(),
                marked: Vec::new(),
                since: 0,
                large: ptr::null_mut(),
                last_large: ptr::null_mut(),
            },
            #[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
            seen: 0,
        }
    }

    /// One step, at `now`. What workers are to do is handed out.
    pub(super) fn turn(&mut self, now: Tick) -> Option<Round> {
        self.wheel.advance(now);
        if self.passed.marked.is_empty() {
            self.passed.since = self.wheel.now();
        }
        self.wheel.take_due(DUE, |entry| self.passed.add(entry));
        self.take_in();
        self.wheel
            .settle(MOVED_DOWN, |entry| self.passed.add(entry));
        self.passed.mark_all(&mut self.wheel);
        self.hand_out()
    }

    fn take_in(&mut self) {
        if self.entries.is_null() {
            self.entries = inbox::take_entries();
        }
        let mut taken = 0;
        while let Some(entry) = NonNull::new(self.entries).filter(|_| taken < TAKEN_IN) {
            taken += 1;
            // SAFETY: in the list, which is ours. Relaxed: acquired when it was taken.
            unsafe {
                self.entries = entry.as_ref().queue.load(Relaxed);
                if self.wheel.take_in(entry) {
                    self.passed.add(entry);
                }
            }
        }
        pressure::taken_in(taken);
        #[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
        {
            self.seen += taken;
        }
    }

    /// What is ready for workers.
    fn hand_out(&mut self) -> Option<Round> {
        let all_marked = !self.wheel.has_due() && self.passed.large.is_null();
        let late =
            self.wheel.now() - self.passed.since >= PATIENCE || self.passed.marked.len() >= ROUND;
        let mut items = if all_marked || late {
            core::mem::take(&mut self.passed.marked)
        } else {
            Vec::new()
        };
        let mut others = Vec::new();
        self.take_jobs(&mut items, &mut others);
        let waking = items.len();
        items.append(&mut others);
        #[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
        {
            self.seen += items.len();
        }
        (!items.is_empty()).then(|| Round::new(items, waking))
    }

    /// Jobs, in the order in which they came: those that wake somebody, and the others.
    fn take_jobs(&mut self, waking: &mut Vec<Item>, others: &mut Vec<Item>) {
        if self.ready.is_null() && self.jobs.is_null() && self.turned.is_null() {
            self.jobs = inbox::take_jobs();
        }
        let mut steps = 0;
        while let Some(job) = NonNull::new(self.jobs).filter(|_| steps < JOBS) {
            steps += 1;
            // SAFETY: in the list, which is ours. Relaxed: acquired when it was taken.
            unsafe {
                self.jobs = job.as_ref().next.load(Relaxed);
                job.as_ref().next.store(self.turned, Relaxed);
            }
            self.turned = job.as_ptr();
        }
        if self.jobs.is_null() && self.ready.is_null() {
            self.ready = core::mem::replace(&mut self.turned, ptr::null_mut());
        }
        while let Some(job) = NonNull::new(self.ready).filter(|_| steps < 2 * JOBS) {
            steps += 1;
            // SAFETY: as above.
            let this = unsafe { job.as_ref() };
            self.ready = this.next.load(Relaxed);
            let items = if this.wakes() {
                &mut *waking
            } else {
                &mut *others
            };
            items.push(Item::of_job(job));
        }
    }

    /// Whether there is something to do now. If not, and nothing comes, the next step is due at `next`.
    pub(super) fn is_busy(&self) -> bool {
        self.wheel.is_busy()
            || !self.entries.is_null()
            || self.has_jobs()
            || !self.passed.large.is_null()
            || !self.passed.marked.is_empty()
    }

    fn has_jobs(&self) -> bool {
        [self.jobs, self.turned, self.ready]
            .iter()
            .any(|list| !list.is_null())
    }

    pub(super) fn next(&self) -> Option<Tick> {
        self.wheel.next()
    }

    /// The last look before the thread sleeps until `next`. False: something has come, and it must not.
    pub(super) fn may_sleep(&mut self) -> bool {
        let taken = inbox::take_before_sleep(self.next().unwrap_or(Tick::MAX));
        let nothing = taken.is_nothing();
        let Taken { entries, jobs } = taken;
        debug_assert!(!self.is_busy());
        (self.entries, self.jobs) = (entries, jobs);
        nothing
    }

    #[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
    pub(super) fn scheduled(&self) -> usize {
        self.wheel.len()
    }
}

impl Passed {
    /// A deadline that has passed: FIRING, by the timer, and not marked.
    fn add(&mut self, entry: NonNull<Entry>) {
        // SAFETY: FIRING keeps it.
        let this = unsafe { entry.as_ref() };
        this.set_notes(ptr::null_mut());
        self.new.push((this.deadline(), entry));
    }

    /// Marks on where there is much, and then what is new, the earliest first: of the sources of an `any_of`, its cause
    /// is that of the first.
    fn mark_all(&mut self, wheel: &mut Wheel) {
        self.go_on();
        self.look_behind(wheel);
        self.new.sort_unstable_by_key(|(deadline, _)| *deadline);
        for (_, entry) in core::mem::take(&mut self.new) {
            // SAFETY: FIRING, by the timer, and not marked; what it stands for has been looked at. It is not used after that.
            if unsafe { Entry::end_if_it_stands_for_another(entry) } {
                continue;
            }
            // SAFETY: FIRING, by the timer, and not marked; if it has been put off, LINKED, and in no list.
            unsafe {
                if let Some(tick) = Entry::put_off(entry) {
                    wheel.place(entry, tick);
                    continue;
                }
            }
            // SAFETY: FIRING, by the timer, and not marked.
            if unsafe { Entry::mark(entry, MARKS) } {
                self.marked.push(Item::of_entry(entry));
            } else {
                self.enqueue(entry);
            }
        }
    }

    /// Looks at what stand-ins stand for, at most as many again: what has passed of it is marked in the same step.
    fn look_behind(&mut self, wheel: &mut Wheel) {
        for index in 0..self.new.len() {
            let (_, entry) = self.new[index];
            // SAFETY: FIRING, by the timer, and not marked, which keeps both. `LINKED` is in one of the wheel's lists, none of
            // which is being gone through.
            unsafe {
                if let Some(other) = Entry::stands_for(entry) {
                    if wheel.look_at(other) {
                        self.add(other);
                    }
                }
            }
        }
    }

    fn enqueue(&mut self, entry: NonNull<Entry>) {
        // SAFETY: both are FIRING, by the timer. Relaxed: its own.
        unsafe {
            entry.as_ref().next.store(ptr::null_mut(), Relaxed);
            if self.large.is_null() {
                self.large = entry.as_ptr();
            } else {
                (*self.last_large).next.store(entry.as_ptr(), Relaxed);
            }
        }
        self.last_large = entry.as_ptr();
    }

    /// Marks on where there is much.
    fn go_on(&mut self) {
        for _ in 0..LARGE {
            let Some(entry) = NonNull::new(self.large) else {
                return;
            };
            // SAFETY: FIRING, in the queue, and not marked through. Relaxed: the timer's.
            unsafe {
                self.large = entry.as_ref().next.load(Relaxed);
                if Entry::mark(entry, MARKS_OF_LARGE) {
                    self.marked.push(Item::of_entry(entry));
                } else {
                    self.enqueue(entry);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
