//! The threads that run user code on the service thread's behalf. They are started as needed, live on while
//! there is something to do, and go when there has been nothing for a while.
//!
//! The service thread is the only one that sends them. Each worker has a mailbox, one word: a CAS puts a round in, a
//! swap takes it out, and the worker's step from EMPTY to IDLE, before it sleeps, fails if there is one. So nobody waits
//! for anybody, and a worker that stops anywhere keeps no more than the one thing that it is at.

use super::round::{Round, Things};
use crate::sync::{AcqRel, Acquire, Arc, AtomicPtr, AtomicUsize, Relaxed, Release};
use core::ptr;
use core::sync::atomic::AtomicUsize as Count;

/// The worker is at work, or on its way to sleep.
const EMPTY: *mut Round = ptr::null_mut();
/// It sleeps: whoever puts a round in wakes it.
const IDLE: *mut Round = ptr::without_provenance_mut(1);
/// It is gone, or was never started.
const GONE: *mut Round = ptr::without_provenance_mut(2);

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    /// It has mail that it has not taken yet.
    Coming,
    /// Or on its way to sleep.
    AtWork,
    Idle,
    Gone,
}

/// What the service thread knows of a worker.
pub(super) struct Worker {
    /// A counted pointer of a round, or one of the three.
    mail: AtomicPtr<Round>,
    /// While the worker runs user code: the round in which it goes on waking, and the one in which it goes on calling, as
    /// counted pointers. Whoever takes one out by an RMW has its count.
    left_off: [AtomicPtr<Round>; 2],
    /// The service thread's: what was there when it looked last.
    seen: [AtomicUsize; 2],
    /// Not: it is there for what is to be woken, while others are at callbacks.
    calls: bool,
    /// With how many things it has been through, for the crew: none of the models' atomics, for nothing leans on it.
    steps: Count,
    bed: Bed,
}

impl Worker {
    /// One that has mail from the start.
    pub(super) fn new(round: Arc<Round>, calls: bool) -> Worker {
        Worker {
            mail: AtomicPtr::new(Arc::into_raw(round).cast_mut()),
            left_off: [(); 2].map(|()| AtomicPtr::new(ptr::null_mut())),
            seen: [(); 2].map(|()| AtomicUsize::new(0)),
            calls,
            steps: Count::new(0),
            bed: Bed::new(),
        }
    }

    // ----- the service thread's side -------------------------------------------------------------

    /// True: it had nothing to do, and has now.
    pub(super) fn send_if_idle(&self, round: &Arc<Round>) -> bool {
        #[cfg(test)]
        self.note_look();
        // Relaxed: the CAS checks the guess.
        if self.mail.load(Relaxed) != IDLE {
            return false;
        }
        let raw = Arc::into_raw(Arc::clone(round)).cast_mut();
        // Release: pairs with `take_mail`. Acquire: pairs with the step to IDLE, which comes after the worker has made its
        // bed. Relaxed on failure: then nothing has become of it.
        match self.mail.compare_exchange(IDLE, raw, AcqRel, Relaxed) {
            Ok(_) => {
                self.bed.wake();
                true
            }
            Err(_) => {
                // SAFETY: counted by `into_raw`, and nobody else has seen it.
                drop(unsafe { Arc::from_raw(raw.cast_const()) });
                false
            }
        }
    }

    pub(super) fn calls(&self) -> bool {
        self.calls
    }

    pub(super) fn steps(&self) -> usize {
        #[cfg(test)]
        self.note_look();
        // Relaxed, here and below: a number to be compared with what it was.
        self.steps.load(Relaxed)
    }

    fn note_step(&self) {
        self.steps
            .store(self.steps.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub(super) fn state(&self) -> State {
        #[cfg(test)]
        self.note_look();
        // Relaxed: a guess; the CAS of `send_if_idle` decides. What one that is gone did comes before it is freed, by the count of
        // those that know it.
        match self.mail.load(Relaxed) {
            EMPTY => State::AtWork,
            IDLE => State::Idle,
            GONE => State::Gone,
            _ => State::Coming,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state() == State::Gone
    }

    /// Has it go on at `first`, before which all has been taken, if it has been at one thing since this was last called: it
    /// would keep all rounds since then.
    pub(super) fn lead_on(&self, first: &Arc<Round>) {
        #[cfg(test)]
        self.note_look();
        for (word, seen) in self.left_off.iter().zip(&self.seen) {
            // Relaxed, all: the CAS checks the guess, and `seen` is this thread's.
            let old = word.load(Relaxed);
            let is_long = old.addr() == seen.load(Relaxed) && !old.is_null();
            seen.store(old.addr(), Relaxed);
            if !is_long || ptr::eq(old, Arc::as_ptr(first)) {
                continue;
            }
            let new = Arc::into_raw(Arc::clone(first)).cast_mut();
            // Release: pairs with the worker's swap, which takes our count. Acquire: pairs with the worker's store; the
            // count that we take may be the last, and then the worker's looks at the round come before it is freed.
            let out = match word.compare_exchange(old, new, AcqRel, Relaxed) {
                Ok(old) => old,
                Err(_) => new,
            };
            // SAFETY: counted: the one that the worker has put there, or the new one, which nobody has seen.
            drop(unsafe { Arc::from_raw(out.cast_const()) });
        }
    }

    /// It could not be started.
    pub(super) fn cancel(&self) {
        drop(self.take_mail(GONE));
    }

    /// For models, in which time stands still: it has slept for long.
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    pub(super) fn wake_for_nothing(&self) {
        self.bed.end();
    }

    // ----- the worker's side -----------------------------------------------------------------------

    fn take_mail(&self, then: *mut Round) -> Option<Arc<Round>> {
        // Acquire: pairs with `send_if_idle`.
        let mail = self.mail.swap(then, Acquire);
        // SAFETY: a round's pointer is counted, and taken out once.
        (![EMPTY, IDLE, GONE].contains(&mail)).then(|| unsafe { Arc::from_raw(mail.cast_const()) })
    }

    /// All that a worker does.
    pub(super) fn work(&self) {
        self.bed.make();
        while let Some(round) = self.next_round() {
            self.serve(round);
        }
    }

    /// Does what is left for it to do in a round, and in those after it. Whatever is to be woken comes before the next callback.
    pub(super) fn serve(&self, round: Arc<Round>) {
        let (mut waking, mut calling) = (Arc::clone(&round), round);
        loop {
            loop {
                if waking.things().is_to_wake() {
                    let wake = |things: &Things| {
                        while things.wake_one() {
                            self.note_step();
                        }
                    };
                    let things = Arc::clone(waking.things());
                    [waking, calling] = self.leaving_off([waking, calling], || wake(&things));
                }
                match waking.next() {
                    Some(next) => waking = next,
                    None => break,
                }
            }
            if !self.calls {
                return;
            }
            loop {
                if calling.things().is_to_call() {
                    let mut called = false;
                    let things = Arc::clone(calling.things());
                    [waking, calling] =
                        self.leaving_off([waking, calling], || called = things.call_one());
                    if called {
                        self.note_step();
                        break;
                    }
                }
                match calling.next() {
                    Some(next) => calling = next,
                    None => return,
                }
            }
        }
    }

    /// Runs user code while the rounds to go on with lie where the service thread can reach them.
    fn leaving_off(&self, rounds: [Arc<Round>; 2], user: impl FnOnce()) -> [Arc<Round>; 2] {
        for (word, round) in self.left_off.iter().zip(rounds) {
            // Release: pairs with `lead_on`, which may give up the last count.
            word.store(Arc::into_raw(round).cast_mut(), Release);
        }
        user();
        self.left_off.each_ref().map(|word| {
            // Acquire: pairs with `lead_on`.
            let round = word.swap(ptr::null_mut(), Acquire);
            // SAFETY: a round has been there since the store above, and its count is whoever's takes it out.
            unsafe { Arc::from_raw(round.cast_const()) }
        })
    }

    /// The next round, or nothing when there has been none for a while.
    fn next_round(&self) -> Option<Arc<Round>> {
        if let Some(round) = self.take_mail(EMPTY) {
            return Some(round);
        }
        // Release: pairs with `send_if_idle`, which finds the bed made. Nobody puts something in while it is not IDLE.
        let _ = self.mail.compare_exchange(EMPTY, IDLE, Release, Relaxed);
        loop {
            let waited = self.bed.sleep();
            // Relaxed: the swap or the CAS decides.
            if self.mail.load(Relaxed) != IDLE {
                return self.take_mail(EMPTY);
            }
            // Relaxed: it decides which is first, this or `send_if_idle`, and hands nothing on.
            if waited
                && self
                    .mail
                    .compare_exchange(IDLE, GONE, Relaxed, Relaxed)
                    .is_ok()
            {
                return None;
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.take_mail(GONE));
    }
}

#[cfg(not(any(cancel_tree_loom, cancel_tree_shuttle)))]
mod bed {
    use super::{Arc, Worker};
    use std::sync::OnceLock;
    use std::thread::{self, Thread};
    use std::time::{Duration, Instant};

    /// How long a worker waits for the next round before it goes.
    const IDLE: Duration = Duration::from_secs(5);

    /// Where a worker sleeps.
    pub(super) struct Bed(OnceLock<Thread>);

    impl Bed {
        pub(super) fn new() -> Bed {
            Bed(OnceLock::new())
        }

        pub(super) fn make(&self) {
            let _ = self.0.set(thread::current());
        }

        pub(super) fn wake(&self) {
            if let Some(thread) = self.0.get() {
                thread.unpark();
            }
        }

        /// True: for as long as a worker waits.
        pub(super) fn sleep(&self) -> bool {
            let begin = Instant::now();
            thread::park_timeout(IDLE);
            begin.elapsed() >= IDLE
        }
    }

    /// Starts the worker's thread. False: it could not be had.
    pub(in crate::timer) fn spawn(_: &Arc<Worker>, run: impl FnOnce() + Send + 'static) -> bool {
        let thread = thread::Builder::new().name("cancel-tree worker".into());
        thread.spawn(run).is_ok()
    }
}

/// In models time stands still: a worker goes when it is told that it has waited for long.
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
mod bed {
    use super::{Arc, Worker};
    use crate::sync::model::thread::{self, yield_now, JoinHandle};
    use crate::sync::{self, AtomicBool, Notify};
    use alloc::boxed::Box;
    use alloc::vec::Vec;
    use core::cell::RefCell;

    std::thread_local! {
        /// Of the execution that this OS thread is at.
        static THREADS: RefCell<Threads> = RefCell::default();
    }

    #[derive(Default)]
    struct Threads {
        /// For each start that comes whether there is a thread to be had. For others there is none.
        starts: Option<Box<dyn Iterator<Item = bool>>>,
        started: Vec<(Arc<Worker>, JoinHandle<()>)>,
        /// What each does last.
        at_end: Option<fn()>,
    }

    /// Says which of the starts that come succeed, in their order, and what the threads do last.
    pub(in crate::timer) fn set_starts(starts: impl Iterator<Item = bool> + 'static, at_end: fn()) {
        THREADS.set(Threads {
            starts: Some(Box::new(starts)),
            started: Vec::new(),
            at_end: Some(at_end),
        });
    }

    /// Starts the worker's thread. False: it could not be had.
    pub(in crate::timer) fn spawn(
        worker: &Arc<Worker>,
        run: impl FnOnce() + Send + 'static,
    ) -> bool {
        let mut starts = THREADS.with_borrow_mut(|threads| threads.starts.take());
        let can_be_had = starts.as_mut().and_then(Iterator::next) == Some(true);
        THREADS.with_borrow_mut(|threads| threads.starts = starts);
        if can_be_had {
            let at_end = THREADS.with_borrow(|threads| threads.at_end);
            let thread = thread::spawn(move || {
                run();
                at_end.into_iter().for_each(|end| end());
            });
            THREADS.with_borrow_mut(|threads| threads.started.push((worker.clone(), thread)));
        }
        can_be_had
    }

    /// The time of those that are idle is over.
    pub(in crate::timer) fn let_go() {
        let number = THREADS.with_borrow(|threads| threads.started.len());
        for number in 0..number {
            THREADS
                .with_borrow(|threads| threads.started[number].0.clone())
                .wake_for_nothing();
        }
    }

    /// Until all that were started are gone.
    pub(in crate::timer) fn let_all_go() {
        while let Some((worker, thread)) = THREADS.with_borrow_mut(|threads| threads.started.pop())
        {
            while !worker.is_gone() {
                worker.wake_for_nothing();
                yield_now();
            }
            thread.join().unwrap();
        }
    }

    pub(super) struct Bed {
        is_made: AtomicBool,
        sleep: Notify,
        /// Nothing leans on it, so it is none of the models' atomics.
        is_over: core::sync::atomic::AtomicBool,
    }

    impl Bed {
        pub(super) fn new() -> Bed {
            Bed {
                is_made: AtomicBool::new(false),
                sleep: Notify::new(),
                is_over: false.into(),
            }
        }

        pub(super) fn make(&self) {
            // Release, and Acquire below: as the `OnceLock` has it.
            self.is_made.store(true, sync::Release);
        }

        pub(super) fn wake(&self) {
            if self.is_made.load(sync::Acquire) {
                self.sleep.notify();
            }
        }

        pub(super) fn sleep(&self) -> bool {
            self.sleep.wait();
            self.is_over.load(sync::Relaxed)
        }

        /// The sleep, or the next one, is over.
        pub(super) fn end(&self) {
            self.is_over.store(true, sync::Relaxed);
            self.wake();
        }
    }
}

pub(super) use bed::spawn;
use bed::Bed;
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
pub(super) use bed::{let_all_go, let_go, set_starts};

#[cfg(test)]
std::thread_local! {
    /// How often this thread has looked at a worker or sent one.
    pub(super) static LOOKS: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

#[cfg(test)]
impl Worker {
    fn note_look(&self) {
        LOOKS.set(LOOKS.get() + 1);
    }

    /// As its thread would have it: for one that has none.
    pub(super) fn pretend(&self, state: State) {
        drop(self.take_mail(match state {
            State::AtWork => EMPTY,
            State::Idle => IDLE,
            State::Gone => GONE,
            State::Coming => unreachable!("by what is sent"),
        }));
    }
}
