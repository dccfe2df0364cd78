//! Moments are made up, and the workers are threads: what they call returns when it is told to.

use super::super::job::Job;
use super::super::round::Item;
use super::{start, Crew, Round, Worker, ENOUGH, LATE, LONG, MOST, MOST_PATIENT, PATIENCE, SHORT};
use super::{Duration, Instant, STUCK};
use crate::sync::Arc;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;
use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;

std::thread_local! {
    /// How many threads were started, how often that was tried, and whether it fails.
    static STARTED: Cell<usize> = const { Cell::new(0) };
    static TRIED: Cell<usize> = const { Cell::new(0) };
    static FAILS: Cell<bool> = const { Cell::new(false) };
    /// Those that were started do not come yet.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
}

fn spawn(workers: Vec<Arc<Worker>>) -> bool {
    TRIED.set(TRIED.get() + 1);
    if FAILS.get() {
        workers.iter().for_each(|worker| worker.cancel());
        return false;
    }
    STARTED.set(STARTED.get() + workers.len());
    HOLDS.get() || start(workers)
}

#[derive(Default)]
struct Seen {
    woken: usize,
    begun: usize,
    /// Of the calls, by their numbers: those below one number may return, but for those below another one.
    end: usize,
    held: usize,
}

#[derive(Default)]
struct Calls {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Calls {
    fn change(&self, f: impl FnOnce(&mut Seen)) {
        f(&mut self.seen.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait_until(&self, holds: impl Fn(&Seen) -> bool) -> MutexGuard<'_, Seen> {
        let seen = self.seen.lock().unwrap();
        let wait = |seen| {
            self.changed
                .wait_timeout_while(seen, Duration::from_secs(60), |seen| !holds(seen))
        };
        let (seen, out) = wait(seen).unwrap();
        assert!(!out.timed_out());
        seen
    }
}

/// Something to call, or to be woken and called.
#[repr(C)]
struct Call {
    job: Job,
    number: usize,
    calls: Arc<Calls>,
}

impl Call {
    /// # Safety
    /// As for `Job::wake`.
    unsafe fn wake(job: NonNull<Job>) {
        // SAFETY: the first field of one.
        let this = unsafe { job.cast::<Call>().as_ref() };
        this.calls.change(|seen| seen.woken += 1);
    }

    /// # Safety
    /// As for `Job::run`.
    unsafe fn run(job: NonNull<Job>) {
        // SAFETY: the first field of one that was a box; it is run once.
        let this = unsafe { Box::from_raw(job.cast::<Call>().as_ptr()) };
        this.calls.change(|seen| seen.begun += 1);
        let number = this.number;
        drop(
            this.calls
                .wait_until(|seen| (seen.held..seen.end).contains(&number)),
        );
    }
}

struct Stage {
    crew: Crew,
    now: Instant,
    calls: Arc<Calls>,
    numbers: std::ops::RangeFrom<usize>,
}

impl Stage {
    fn new(processors: usize) -> Stage {
        let crew = Crew {
            processors,
            spawn,
            ..Crew::new()
        };
        Stage {
            now: crew.looked,
            crew,
            calls: Arc::default(),
            numbers: 0..,
        }
    }

    fn hand(&mut self, number: usize, wakes: bool) {
        let items = self.numbers.by_ref().take(number).map(|number| {
            let call = Box::new(Call {
                job: match wakes {
                    true => Job::that_wakes(Call::wake, Call::run),
                    false => Job::new(Call::run),
                },
                number,
                calls: self.calls.clone(),
            });
            Item::of_job(NonNull::from(Box::leak(call)).cast())
        });
        let waking = if wakes { number } else { 0 };
        let round = Round::new(items.collect(), waking);
        self.crew.hand(round, self.now);
    }

    /// A look when so much time has passed: how many were started by it.
    fn look(&mut self, after: Duration) -> usize {
        self.now += after;
        let before = STARTED.get();
        self.crew.look(self.now);
        STARTED.get() - before
    }

    /// All that were started are at a call.
    fn are_all_at_calls(&self) {
        let ended = {
            let seen = self.calls.seen.lock().unwrap();
            seen.end.saturating_sub(seen.held)
        };
        let begun = STARTED.get() + ended;
        drop(self.calls.wait_until(|seen| seen.begun == begun));
    }

    /// So many calls return, the oldest of those that are not held, and who was at them is at others.
    fn get_on(&self, number: usize) {
        self.calls
            .change(|seen| seen.end = seen.end.max(seen.held) + number);
        self.are_all_at_calls();
    }

    fn wait_until_idle(&self, number: usize) {
        let is_idle = |known: &&super::Known| known.worker.is_idle();
        while self.crew.workers.iter().filter(is_idle).count() != number {
            thread::yield_now();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.calls
            .change(|seen| (seen.held, seen.end) = (0, usize::MAX));
    }
}

#[test]
fn a_thread_at_once_and_another_by_the_next_look() {
    let mut stage = Stage::new(2);
    stage.hand(1, false);
    assert_eq!(STARTED.get(), 1);
    stage.are_all_at_calls();
    stage.hand(9, false);
    assert_eq!(STARTED.get(), 1);
    assert_eq!(stage.look(PATIENCE / 2), 0);
    // They are sooner through if they are as many as there are processors.
    assert_eq!(stage.look(PATIENCE / 2), 1);
    stage.are_all_at_calls();
    stage.get_on(2);
    assert_eq!(stage.look(PATIENCE), 0);
}

#[test]
fn who_is_idle_is_sent() {
    let mut stage = Stage::new(2);
    stage.hand(1, false);
    stage.calls.change(|seen| seen.end = 1);
    stage.wait_until_idle(1);
    assert_eq!(stage.crew.look(stage.now + PATIENCE), None);
    stage.hand(1, false);
    stage.are_all_at_calls();
    assert_eq!((STARTED.get(), stage.look(PATIENCE)), (1, 0));
}

#[test]
fn what_is_to_be_woken_waits_for_no_call() {
    let mut stage = Stage::new(2);
    stage.hand(9, false);
    stage.are_all_at_calls();
    assert_eq!(stage.look(PATIENCE), 1);
    stage.are_all_at_calls();
    for number in 1..4 {
        stage.hand(1, true);
        // The one for that alone, and it is idle for the next one.
        assert_eq!(STARTED.get(), 3);
        drop(stage.calls.wait_until(|seen| seen.woken == number));
        stage.wait_until_idle(1);
        assert_eq!(stage.calls.seen.lock().unwrap().begun, 2);
    }
}

#[test]
fn calls_that_stand_still_have_twice_as_many_each_time() {
    let mut stage = Stage::new(2);
    stage.hand(1000, false);
    stage.are_all_at_calls();
    assert_eq!(stage.look(PATIENCE), 1);
    stage.are_all_at_calls();
    let long = PATIENCE * u32::try_from(MOST_PATIENT).unwrap();
    let mut number = 1;
    while number <= MOST {
        assert_eq!(stage.look(long), number);
        stage.are_all_at_calls();
        number *= 2;
    }
    assert_eq!(stage.look(long), MOST);
    stage.are_all_at_calls();
    // One gets on: it begins anew.
    stage.get_on(1);
    assert_eq!(stage.look(long), 0);
    assert_eq!(stage.look(long), 1);
}

#[test]
fn the_more_are_at_work_the_longer_calls_may_stand_still() {
    let mut stage = Stage::new(2);
    stage.hand(1000, false);
    stage.are_all_at_calls();
    for after in [0, 1, 1, 1] {
        stage.look(PATIENCE * after);
        stage.are_all_at_calls();
    }
    // Two, one more, two more.
    assert_eq!(STARTED.get(), 5);
    assert_eq!(stage.look(PATIENCE), 0);
    assert_eq!(stage.look(PATIENCE), 4);
    stage.are_all_at_calls();
    for _ in 1..4 {
        assert_eq!(stage.look(PATIENCE), 0);
    }
    assert_eq!(stage.look(PATIENCE), 8);
    stage.are_all_at_calls();
    // At most so long, however many there are.
    for _ in 0..4 {
        assert!(stage.look(PATIENCE * 16) > 0);
        stage.are_all_at_calls();
    }
    assert_eq!(stage.look(PATIENCE * 15), 0);
    assert!(stage.look(PATIENCE) > 0);
    stage.are_all_at_calls();
}

#[test]
fn calls_that_get_on_have_no_more_threads_but_what_has_waited_for_long() {
    let mut stage = Stage::new(1);
    stage.hand(100_000, false);
    stage.are_all_at_calls();
    let mut passed = Duration::ZERO;
    while passed + 4 * PATIENCE < LATE {
        passed += 4 * PATIENCE;
        assert_eq!(stage.look(4 * PATIENCE), 0);
        stage.get_on(1);
    }
    stage.look(4 * PATIENCE);
    stage.are_all_at_calls();
    let long = PATIENCE * 16;
    while STARTED.get() < ENOUGH {
        stage.get_on(STARTED.get());
        assert_eq!(stage.look(long), 1, "of {}", STARTED.get());
        stage.are_all_at_calls();
    }
    for _ in 0..100 {
        stage.get_on(STARTED.get());
        assert_eq!(stage.look(long), 0);
    }
}

#[test]
fn who_is_at_one_call_for_very_long_does_not_count() {
    let mut stage = Stage::new(1);
    stage.hand(100_000, false);
    stage.are_all_at_calls();
    const HELD: usize = 100;
    stage.calls.change(|seen| seen.held = HELD);
    let long = PATIENCE * 16;
    while STARTED.get() <= HELD {
        stage.look(long);
        stage.are_all_at_calls();
    }
    let others = STARTED.get() - HELD;
    assert!(others < ENOUGH && ENOUGH <= HELD);
    let mut passed = Duration::ZERO;
    while passed < STUCK {
        passed += long;
        stage.get_on(others);
        stage.look(long);
    }
    let before = STARTED.get();
    for _ in 0..10 {
        stage.are_all_at_calls();
        stage.get_on(STARTED.get() - HELD);
        stage.look(long);
    }
    assert_eq!(STARTED.get() - before, 10);
}

#[test]
fn what_cannot_be_started_is_tried_again() {
    let mut stage = Stage::new(2);
    FAILS.set(true);
    stage.hand(1, true);
    let (mut tried, mut last) = (TRIED.get(), stage.now);
    let mut waits = Vec::new();
    for _ in 0..4000 {
        assert_eq!(stage.look(PATIENCE), 0);
        if TRIED.get() != tried {
            assert_eq!(TRIED.get(), tried + 1);
            waits.push(stage.now - last);
            (tried, last) = (TRIED.get(), stage.now);
        }
    }
    assert!(stage.crew.workers.len() <= 2 * MOST);
    assert_eq!(waits[..4], [SHORT, 2 * SHORT, 4 * SHORT, 8 * SHORT]);
    assert_eq!(waits[7..9], [LONG, LONG]);
    FAILS.set(false);
    // Not as many as all that time would be worth.
    assert_eq!(stage.look(LONG), 1);
    drop(stage.calls.wait_until(|seen| seen.woken == 1));
}

#[test]
fn who_is_gone_is_forgotten_and_another_one_started() {
    let mut stage = Stage::new(2);
    stage.calls.change(|seen| seen.end = usize::MAX);
    for number in 1..=3 {
        stage.hand(1, false);
        assert_eq!(STARTED.get(), number);
        stage.wait_until_idle(1);
        // As after the time for which one that is idle stays.
        stage.crew.workers[0].worker.cancel();
        assert_eq!(stage.crew.look(stage.now), None);
        assert_eq!(stage.crew.workers.len(), 0);
    }
}

#[test]
fn who_is_on_the_way_is_enough() {
    let mut stage = Stage::new(2);
    HOLDS.set(true);
    for _ in 0..9 {
        stage.hand(1, true);
    }
    assert_eq!(STARTED.get(), 1);
    // Nor by the next look, nor by the first one that finds that things do not get on.
    assert_eq!(stage.look(PATIENCE), 0);
    assert_eq!(stage.look(PATIENCE), 0);
}

#[test]
fn who_is_at_one_thing_for_long_keeps_no_rounds() {
    let mut stage = Stage::new(2);
    stage.hand(1, false);
    stage.are_all_at_calls();
    stage
        .calls
        .change(|seen| (seen.held, seen.end) = (1, usize::MAX));
    stage.hand(1, true);
    stage.wait_until_idle(1);
    stage.look(PATIENCE);
    let round = Arc::downgrade(&stage.crew.first);
    stage.hand(1, true);
    stage.wait_until_idle(1);
    assert!(round.upgrade().is_some());
    for _ in 0..3 {
        stage.look(PATIENCE);
    }
    assert!(round.upgrade().is_none());
}

#[test]
fn what_was_large_goes_when_there_is_nothing_left() {
    let mut stage = Stage::new(2);
    stage.calls.change(|seen| seen.end = usize::MAX);
    stage.hand(1000, false);
    stage.wait_until_idle(1);
    let round = Arc::downgrade(&stage.crew.first);
    assert!(round.upgrade().is_some());
    assert_eq!(stage.crew.look(stage.now + PATIENCE), None);
    assert!(round.upgrade().is_none());
}

#[test]
fn a_look_does_not_go_along_what_waits_to_be_called() {
    let mut stage = Stage::new(1);
    stage.hand(1, false);
    stage.are_all_at_calls();
    FAILS.set(true);
    for _ in 0..50_000 {
        stage.hand(1, false);
    }
    let looks = (0..20).map(|_| {
        let begin = Instant::now();
        stage.look(PATIENCE);
        begin.elapsed()
    });
    // Along all of them it is some milliseconds.
    let quickest = looks.min().unwrap();
    assert!(quickest < Duration::from_micros(200), "{quickest:?}");
}
