//! Moments are made up, and the workers are threads: what they call returns when it is told to.

use super::super::job::Job;
use super::super::round::Item;
use super::super::workers::LOOKS;
use super::{start, Crew, Duration, Instant, Round, State, Worker};
use crate::sync::Arc;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;
use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;

// What `docs/INTERNALS.md` says, in its numbers: not those of the source, so that another one is noticed.
const PATIENCE: Duration = Duration::from_micros(250);
const LONG_PATIENCE: Duration = Duration::from_millis(4);
const STUCK: Duration = Duration::from_millis(250);
const LATE: Duration = Duration::from_millis(100);
const ENOUGH: usize = 64;
const MOST: usize = 128;
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(100);
const SURVEY: usize = 256;

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
    /// What wakes does not return.
    wakes_hold: bool,
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
        if out.timed_out() {
            // The others go on: the lock is not poisoned.
            drop(seen);
            panic!("it does not come");
        }
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
        drop(this.calls.wait_until(|seen| !seen.wakes_hold));
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
            ..Crew::new(Instant::now())
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

    /// So many are at calls that block.
    fn block(&mut self, number: usize) {
        while STARTED.get() < number {
            self.are_all_at_calls();
            self.look(LONG_PATIENCE);
        }
        self.are_all_at_calls();
        assert_eq!(STARTED.get(), number);
    }

    fn begun(&self, number: usize) {
        drop(self.calls.wait_until(|seen| seen.begun == number));
    }

    /// All that are known.
    fn workers(&self) -> Vec<Arc<Worker>> {
        let crew = &self.crew;
        let [wakes, calls] = &crew.idle;
        let lines = [&crew.coming.known, &crew.working.known, wakes, calls];
        let all = lines.into_iter().flatten();
        all.map(|known| known.worker.clone()).collect()
    }

    /// Of the largest line.
    fn capacity(&self) -> usize {
        let crew = &self.crew;
        let [wakes, calls] = &crew.idle;
        let lines = [&crew.coming.known, &crew.working.known, wakes, calls];
        lines.map(|line| line.capacity()).into_iter().max().unwrap()
    }

    fn idle(&self) -> Vec<Arc<Worker>> {
        let mut all = self.workers();
        all.retain(|worker| worker.state() == State::Idle);
        all
    }

    fn wait_until_idle(&self, number: usize) {
        while self.idle().len() != number {
            thread::yield_now();
        }
    }

    /// So many more that are at something, and have no thread.
    fn pretend(&mut self, number: usize, calls: bool) -> Vec<Arc<Worker>> {
        let new = || Arc::new(Worker::new(self.crew.first.clone(), calls));
        let all: Vec<_> = core::iter::repeat_with(new).take(number).collect();
        for worker in &all {
            worker.pretend(State::AtWork);
            self.crew.working.put(super::Known {
                worker: worker.clone(),
                steps: 0,
                since: self.now,
                is_stuck: false,
            });
        }
        all
    }

    /// As after the time for which one that is idle stays.
    fn let_go(&self, which: impl Fn(&Worker) -> bool) {
        for worker in self.idle().iter().filter(|worker| which(worker)) {
            worker.cancel();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.calls
            .change(|seen| (seen.held, seen.end, seen.wakes_hold) = (0, usize::MAX, false));
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
    let early = stage.now + PATIENCE * 3 / 4;
    assert_eq!(stage.crew.look(early), Some(PATIENCE / 4));
    assert_eq!(stage.crew.look(stage.now + PATIENCE), Some(PATIENCE));
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
    let long = LONG_PATIENCE;
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
    let mut stage = Stage::new(2);
    stage.hand(100_000, false);
    stage.are_all_at_calls();
    let mut passed = 4 * PATIENCE;
    assert_eq!(stage.look(passed), 1);
    stage.are_all_at_calls();
    stage.get_on(2);
    while passed + 4 * PATIENCE < LATE {
        passed += 4 * PATIENCE;
        assert_eq!(stage.look(4 * PATIENCE), 0);
        stage.get_on(2);
    }
    stage.look(4 * PATIENCE);
    stage.are_all_at_calls();
    let long = PATIENCE * 16;
    while STARTED.get() < 2 * ENOUGH {
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
    // What could not be had is not kept.
    assert!(stage.workers().len() <= 1);
    assert_eq!(waits[..4], [SHORT, 2 * SHORT, 4 * SHORT, 8 * SHORT]);
    assert_eq!(waits[7..9], [LONG, LONG]);
    FAILS.set(false);
    // Not as many as all that time would be worth.
    assert_eq!(stage.look(LONG), 1);
    drop(stage.calls.wait_until(|seen| seen.woken == 1));
    stage.are_all_at_calls();
    // And what has failed before does not count.
    FAILS.set(true);
    stage.hand(1, true);
    FAILS.set(false);
    assert_eq!(stage.look(SHORT - PATIENCE), 0);
    assert_eq!(stage.look(PATIENCE), 1);
}

#[test]
fn who_is_gone_is_forgotten_and_another_one_started() {
    let mut stage = Stage::new(2);
    stage.calls.change(|seen| seen.end = usize::MAX);
    for number in 1..=3 {
        stage.hand(1, false);
        assert_eq!(STARTED.get(), number);
        stage.wait_until_idle(1);
        stage.let_go(|_| true);
        assert_eq!(stage.crew.look(stage.now), None);
        assert_eq!(stage.workers().len(), 0);
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

#[test]
fn calls_that_block_delay_others_by_little() {
    let mut stage = Stage::new(2);
    let begin = stage.now;
    stage.hand(100, false);
    while STARTED.get() < 100 {
        stage.are_all_at_calls();
        stage.look(PATIENCE);
    }
    assert!(stage.now - begin < Duration::from_millis(20));
}

#[test]
fn who_is_idle_is_sent_by_a_look_as_well() {
    let mut stage = Stage::new(2);
    stage.hand(2, false);
    stage.begun(1);
    stage.look(PATIENCE);
    stage.begun(2);
    stage.calls.change(|seen| seen.end = 2);
    stage.wait_until_idle(2);
    stage.hand(9, false);
    stage.begun(3);
    stage.look(PATIENCE);
    stage.begun(4);
    assert_eq!(STARTED.get(), 2);
}

#[test]
fn of_two_that_are_idle_the_one_that_calls_is_sent() {
    let mut stage = Stage::new(1);
    stage.hand(1, false);
    stage.begun(1);
    stage.hand(1, true);
    stage.wait_until_idle(1);
    stage.calls.change(|seen| seen.end = 2);
    stage.wait_until_idle(2);
    stage.hand(1, true);
    stage.begun(3);
    assert_eq!(STARTED.get(), 2);
    // The same where the one that only wakes is known for longer.
    stage.calls.change(|seen| seen.end = usize::MAX);
    stage.wait_until_idle(2);
    stage.let_go(|worker| worker.calls());
    stage.look(PATIENCE);
    stage.hand(1, true);
    assert_eq!(stage.look(PATIENCE), 1);
    stage.begun(4);
    stage.wait_until_idle(2);
    stage.hand(1, true);
    stage.begun(5);
    assert_eq!(STARTED.get(), 3);
}

#[test]
fn what_is_to_be_woken_and_waits_has_one_more_that_does_not_call() {
    let mut stage = Stage::new(1);
    stage.hand(1000, false);
    stage.block(8);
    // The one that is started for it does not come.
    HOLDS.set(true);
    stage.hand(1, true);
    HOLDS.set(false);
    for started in [0, 0, 1] {
        assert_eq!(stage.look(PATIENCE), started);
    }
    drop(stage.calls.wait_until(|seen| seen.woken == 1));
    stage.wait_until_idle(1);
    assert_eq!(stage.calls.seen.lock().unwrap().begun, 8);
}

#[test]
fn for_what_is_to_be_woken_those_that_only_wake_are_sent() {
    let mut stage = Stage::new(1);
    stage.hand(1000, false);
    stage.block(8);
    stage.calls.change(|seen| seen.wakes_hold = true);
    for number in 1..=2 {
        stage.hand(1, true);
        drop(stage.calls.wait_until(|seen| seen.woken == number));
    }
    stage.calls.change(|seen| seen.wakes_hold = false);
    stage.wait_until_idle(2);
    stage.calls.change(|seen| seen.wakes_hold = true);
    stage.hand(2, true);
    drop(stage.calls.wait_until(|seen| seen.woken == 3));
    stage.look(PATIENCE);
    stage.look(PATIENCE);
    drop(stage.calls.wait_until(|seen| seen.woken == 4));
    assert_eq!(STARTED.get(), 10);
}

#[test]
fn for_what_is_to_be_woken_those_that_call_are_sent() {
    let mut stage = Stage::new(1);
    stage.hand(8, false);
    stage.block(8);
    stage
        .calls
        .change(|seen| (seen.held, seen.end, seen.wakes_hold) = (6, 8, true));
    stage.wait_until_idle(2);
    stage.hand(2, true);
    drop(stage.calls.wait_until(|seen| seen.woken == 1));
    stage.look(PATIENCE);
    stage.look(PATIENCE);
    drop(stage.calls.wait_until(|seen| seen.woken == 2));
    assert_eq!(STARTED.get(), 8);
}

#[test]
fn what_has_waited_for_long_has_one_at_a_time() {
    let mut stage = Stage::new(1);
    stage.hand(100_000, false);
    let mut passed = Duration::ZERO;
    while passed + PATIENCE < LATE {
        stage.get_on(1);
        passed += PATIENCE;
        assert_eq!(stage.look(PATIENCE), 0);
    }
    for at_work in 1..6 {
        for _ in 1..at_work {
            stage.get_on(at_work);
            assert_eq!(stage.look(PATIENCE), 0);
        }
        stage.get_on(at_work);
        assert_eq!(stage.look(PATIENCE), 1);
        stage.are_all_at_calls();
    }
}

#[test]
fn who_gets_on_does_not_block_however_long_it_is_at_work() {
    let mut stage = Stage::new(1);
    stage.hand(2, false);
    stage.are_all_at_calls();
    let mut passed = Duration::ZERO;
    while passed < 2 * STUCK {
        stage.hand(1, false);
        passed += LONG_PATIENCE;
        assert_eq!(stage.look(LONG_PATIENCE), 0);
        stage.get_on(1);
    }
}

#[test]
fn who_was_idle_for_long_does_not_block() {
    let mut stage = Stage::new(1);
    stage.hand(2, false);
    while STARTED.get() < 2 {
        stage.are_all_at_calls();
        stage.look(PATIENCE);
    }
    stage.are_all_at_calls();
    stage.calls.change(|seen| seen.end = 2);
    stage.wait_until_idle(2);
    // One is sent, and what the other one has done is seen.
    stage.hand(3, false);
    stage.begun(3);
    let other = stage.idle().pop().unwrap();
    stage.look(PATIENCE);
    stage.calls.change(|seen| seen.end = 5);
    stage.wait_until_idle(2);
    stage.let_go(|worker| !core::ptr::eq(worker, &*other));
    stage.look(PATIENCE);
    stage.now += STUCK;
    stage.hand(2, false);
    stage.begun(6);
    assert_eq!(stage.look(PATIENCE), 0);
}

#[test]
fn who_is_gone_or_only_wakes_is_not_at_callbacks() {
    let mut stage = Stage::new(1);
    stage.hand(1, false);
    stage.begun(1);
    stage.calls.change(|seen| seen.wakes_hold = true);
    stage.hand(1, true);
    drop(stage.calls.wait_until(|seen| seen.woken == 1));
    stage.calls.change(|seen| seen.end = 1);
    stage.wait_until_idle(1);
    stage.let_go(|_| true);
    stage.hand(1, true);
    stage.calls.change(|seen| seen.wakes_hold = false);
    // By who was at the wake, and by the one that was started.
    stage.begun(3);
}

#[test]
fn places_of_those_that_are_gone_are_given_back() {
    let mut stage = Stage::new(1);
    stage.hand(256, false);
    stage.block(256);
    stage.calls.change(|seen| seen.end = usize::MAX);
    stage.wait_until_idle(256);
    stage.let_go(|_| true);
    stage.look(PATIENCE);
    assert_eq!(stage.workers().len(), 0);
    assert!(stage.capacity() <= 64);
}

#[test]
fn where_calls_get_on_patience_begins_anew() {
    let mut stage = Stage::new(1);
    stage.hand(1000, false);
    stage.block(8);
    for _ in 0..7 {
        assert_eq!(stage.look(PATIENCE), 0);
    }
    stage.get_on(1);
    for _ in 0..8 {
        assert_eq!(stage.look(PATIENCE), 0);
    }
    assert_eq!(stage.look(PATIENCE), 1);
    stage.are_all_at_calls();
}

#[test]
fn who_is_at_one_thing_for_long_keeps_no_rounds_when_there_is_nothing_left() {
    let mut stage = Stage::new(1);
    stage.hand(2, false);
    stage.block(2);
    stage.calls.change(|seen| seen.end = 2);
    stage.wait_until_idle(2);
    stage.hand(1, false);
    stage.begun(3);
    stage
        .calls
        .change(|seen| (seen.held, seen.end) = (3, usize::MAX));
    stage.hand(1, false);
    stage.wait_until_idle(1);
    let round = Arc::downgrade(&stage.crew.last);
    stage.hand(1, false);
    stage.wait_until_idle(1);
    assert!(round.upgrade().is_some());
    stage.look(PATIENCE);
    stage.look(PATIENCE);
    assert!(round.upgrade().is_none());
}

#[test]
fn nor_while_others_are_at_work() {
    let mut stage = Stage::new(1);
    stage.hand(2, false);
    stage.block(2);
    stage.calls.change(|seen| seen.end = 2);
    stage.wait_until_idle(2);
    stage.hand(1, false);
    stage.begun(3);
    stage.calls.change(|seen| (seen.held, seen.end) = (3, 4));
    stage.hand(1, false);
    stage.wait_until_idle(1);
    let round = Arc::downgrade(&stage.crew.last);
    stage.hand(2, false);
    stage.begun(5);
    for _ in 0..2 {
        assert_eq!(stage.look(PATIENCE), 0);
    }
    assert!(round.upgrade().is_none());
}

/// Two lines with three looks at each worker, two with one, and who is sent. Less than a look at each of so many.
const FEW: usize = 9 * SURVEY;
const MANY: usize = 5000;

/// How often a worker is looked at by one step of the crew's.
fn looks(stage: &mut Stage, step: impl FnOnce(&mut Stage)) -> usize {
    let before = LOOKS.get();
    step(stage);
    LOOKS.get() - before
}

#[test]
fn however_many_there_are_a_part_of_them_is_looked_at() {
    let mut stage = Stage::new(2);
    let all = stage.pretend(MANY, true);
    // Those that are started are gone.
    FAILS.set(true);
    let mut are_few = |what: &str| {
        for step in 0..4 {
            let looks = looks(&mut stage, |stage| match step {
                0 => stage.hand(9, false),
                1 => stage.hand(9, true),
                step => {
                    stage.look([PATIENCE, LONG_PATIENCE][step % 2]);
                }
            });
            assert!(looks <= FEW, "{what}: {looks}");
        }
    };
    are_few("all are at work");
    all.iter().for_each(|worker| worker.pretend(State::Idle));
    for _ in 0..20 {
        are_few("all have become idle");
    }
    all.iter().for_each(|worker| worker.pretend(State::Gone));
    for _ in 0..20 {
        are_few("all are gone");
    }
    drop(all);
    assert!(stage.workers().len() < 9);
    // All are on the way, and then there is nothing left to do.
    let mut stage = Stage::new(2);
    HOLDS.set(true);
    FAILS.set(false);
    stage.crew.start(MANY, true, stage.now);
    stage.hand(1, true);
    for _ in 0..40 {
        let looks = looks(&mut stage, |stage| {
            stage.look(PATIENCE);
        });
        assert!(looks <= FEW, "all are on the way: {looks}");
    }
    assert_eq!(stage.workers().len(), MANY);
}

#[test]
fn each_of_a_few_is_looked_at_each_time() {
    let mut stage = Stage::new(1);
    let all = stage.pretend(SURVEY, true);
    for (now_idle, worker) in all.iter().enumerate() {
        assert_eq!(stage.crew.callers().0, SURVEY - now_idle);
        worker.pretend(State::Idle);
        stage.crew.survey(stage.now);
    }
    assert_eq!(stage.crew.callers(), (0, 0));
}

#[test]
fn who_is_idle_among_many_is_found() {
    for place in [0, 1, MANY / 2, MANY - 1] {
        let mut stage = Stage::new(2);
        HOLDS.set(true);
        let all = stage.pretend(MANY, true);
        // From the end on, then from there on.
        for _ in 0..place % 3 {
            stage.crew.survey(stage.now);
        }
        all[place].pretend(State::Idle);
        let before = STARTED.get();
        let mut surveys = 0;
        while stage.crew.idle[1].is_empty() {
            surveys += 1;
            stage.crew.survey(stage.now);
        }
        assert!(surveys <= 2 + MANY / SURVEY, "{surveys}");
        // And is sent by one step.
        assert_eq!(looks(&mut stage, |stage| stage.hand(1, true)), 2);
        assert_eq!((all[place].state(), STARTED.get()), (State::Coming, before));
        assert_eq!(stage.crew.callers().0, MANY);
    }
}

#[test]
fn while_one_that_is_idle_is_not_found_another_one_is_started() {
    let mut stage = Stage::new(2);
    let all = stage.pretend(MANY, true);
    all[0].pretend(State::Idle);
    stage.hand(1, true);
    assert_eq!(STARTED.get(), 1);
    drop(stage.calls.wait_until(|seen| seen.woken == 1));
}

/// What wakes nobody is not urgent, so no thread is started for it before calls have stood still for long.
#[test]
fn who_is_found_to_be_idle_among_many_is_sent() {
    let mut stage = Stage::new(2);
    HOLDS.set(true);
    let all = stage.pretend(MANY, true);
    let idle = &all[MANY / 2];
    idle.pretend(State::Idle);
    stage.hand(1, false);
    for _ in 0..1 + MANY / 2 / SURVEY {
        assert_eq!(stage.look(PATIENCE), 0);
    }
    assert_eq!(idle.state(), State::Coming);
}

/// There were more before.
#[test]
fn each_of_a_few_that_are_left_is_looked_at_each_time() {
    let mut stage = Stage::new(2);
    HOLDS.set(true);
    let all = stage.pretend(SURVEY + 50, true);
    all[SURVEY..].iter().for_each(|w| w.pretend(State::Gone));
    stage.crew.survey(stage.now);
    assert_eq!(stage.crew.working.known.len(), SURVEY);
    all[..SURVEY].iter().for_each(|w| w.pretend(State::Idle));
    stage.crew.survey(stage.now);
    assert!(stage.crew.working.known.is_empty());
}

#[test]
fn what_many_are_at_is_counted_as_it_was_seen() {
    let mut stage = Stage::new(2);
    let all = stage.pretend(MANY, true);
    let through = |stage: &mut Stage| {
        for _ in 0..2 * (1 + MANY / SURVEY) {
            stage.crew.survey(stage.now);
        }
        stage.crew.callers()
    };
    assert_eq!(through(&mut stage), (MANY, MANY));
    stage.now += STUCK;
    stage.crew.survey(stage.now);
    assert_eq!(stage.crew.callers(), (MANY, MANY - SURVEY));
    assert_eq!(through(&mut stage), (MANY, 0));
    for worker in &all[..600] {
        worker.pretend(State::Idle);
    }
    assert_eq!(through(&mut stage), (MANY - 600, 0));
    // Who is sent is not at one thing for long.
    assert_eq!(stage.crew.send_idle(100, true, stage.now), 100);
    assert_eq!(stage.crew.coming.calling, 100);
    assert_eq!(stage.crew.callers(), (MANY - 500, 100));
    stage.now += STUCK;
    assert_eq!(through(&mut stage), (MANY - 500, 0));
    for worker in &all {
        worker.pretend(State::AtWork);
    }
    // Those that were idle are known to be at work when they have been sent.
    assert_eq!(through(&mut stage), (MANY - 500, 0));
    assert_eq!(stage.crew.coming.calling, 0);
    for worker in &all {
        worker.pretend(State::Gone);
    }
    assert_eq!(through(&mut stage), (0, 0));
    assert_eq!(stage.workers().len(), 0);
    // Who only wakes is at no callbacks.
    stage.pretend(1, false);
    stage.now += STUCK;
    assert_eq!(through(&mut stage), (0, 0));
}

#[test]
fn who_was_at_work_last_is_sent_so_that_others_go() {
    let mut stage = Stage::new(2);
    let all = stage.pretend(100, true);
    all.iter().for_each(|worker| worker.pretend(State::Idle));
    stage.crew.survey(stage.now);
    let mut sent = Vec::new();
    for _ in 0..9 {
        stage.hand(1, true);
        let coming = |worker: &&Arc<Worker>| worker.state() == State::Coming;
        let one: Vec<_> = all.iter().filter(coming).collect();
        assert_eq!(one.len(), 1);
        one[0].pretend(State::Idle);
        sent.push(Arc::as_ptr(one[0]));
        stage.crew.survey(stage.now);
    }
    assert!(sent.iter().all(|one| *one == sent[0]));
    for worker in all.iter().filter(|one| Arc::as_ptr(one) != sent[0]) {
        worker.pretend(State::Gone);
    }
    stage.crew.survey(stage.now);
    assert_eq!(stage.workers().len(), 1);
}

#[test]
fn among_many_who_is_at_one_thing_for_long_keeps_no_rounds() {
    // So many that whoever is started calls.
    let mut stage = Stage::new(9000);
    // The first of all is the last one to be looked at.
    stage.hand(1, false);
    stage.are_all_at_calls();
    stage
        .calls
        .change(|seen| (seen.held, seen.end) = (1, usize::MAX));
    stage.look(PATIENCE);
    let _many = stage.pretend(MANY, true);
    stage.hand(1, true);
    stage.wait_until_idle(1);
    let round = Arc::downgrade(&stage.crew.last);
    stage.hand(1, true);
    stage.wait_until_idle(1);
    assert!(round.upgrade().is_some());
    // It is seen to, though nothing comes.
    let mut number = 0;
    while let Some(wait) = stage.crew.look(stage.now) {
        assert_eq!(wait, LONG_PATIENCE);
        stage.now += wait;
        number += 1;
    }
    assert!(number <= 3 * (1 + MANY / SURVEY), "{number}");
    assert!(round.upgrade().is_none());
    // And then it is not gone along any more.
    assert_eq!(
        looks(&mut stage, |stage| assert_eq!(stage.look(PATIENCE), 0)),
        0
    );
}
