//! The service thread's workers: when one is sent, and when one more is started.
//!
//! What is handed out goes to a worker that is idle; if none is, and something has to be woken, one is started at once.
//! After that a look every quarter of a millisecond says whether things get on. Where they do not, and something is left
//! that nobody has taken, more are sent, twice as many each time: so what blocks costs a thread, and holds up nobody for
//! long. A thread that cannot be had is tried again; nothing is lost, and nothing runs on the service thread.

use super::round::Round;
use super::workers::Worker;
use crate::sync::Arc;
use alloc::vec::Vec;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const PATIENCE: Duration = Duration::from_micros(250);
/// How many are sent at one time at most.
const MOST: usize = 128;
/// How long nobody tries to start a thread after that has failed: at first, and at most.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(100);

pub(super) struct Crew {
    workers: Vec<Arc<Worker>>,
    /// The first round of which not all has been taken, and the last one.
    first: Arc<Round>,
    last: Arc<Round>,
    looked: Instant,
    waking: Watch,
    calling: Watch,
    /// No thread could be had: not again before that, and how long it was.
    failed: Option<(Instant, Duration)>,
    processors: usize,
}

/// Whether things get on.
struct Watch {
    /// The address of the round that was looked at, and how far it had got.
    seen: (usize, usize),
    /// How many to send next.
    number: usize,
}

impl Watch {
    const fn new() -> Watch {
        Watch {
            seen: (0, 0),
            number: 1,
        }
    }

    /// The first round of which not all has been taken: how many are to be sent to it.
    fn look(&mut self, round: &Arc<Round>) -> usize {
        let now = (Arc::as_ptr(round).addr(), round.things().progress());
        if now != std::mem::replace(&mut self.seen, now) {
            self.number = 1;
            return 0;
        }
        let number = self.number;
        self.number = (2 * number).min(MOST);
        number
    }
}

impl Crew {
    pub(super) fn new() -> Crew {
        let nothing = Arc::new(Round::nothing());
        Crew {
            workers: Vec::new(),
            first: nothing.clone(),
            last: nothing,
            looked: Instant::now(),
            waking: Watch::new(),
            calling: Watch::new(),
            failed: None,
            processors: thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// There is something to do.
    pub(super) fn hand(&mut self, round: Round, now: Instant) {
        let urgent = round.things().has_deadlines();
        let round = Arc::new(round);
        self.last.set_next(round.clone());
        self.last = round;
        self.skip_taken();
        let round = self.first.clone();
        if self
            .workers
            .iter()
            .any(|worker| worker.send_if_idle(&round))
        {
            return;
        }
        // A worker that is on the way finds this round as well.
        let mut coming = self.workers.iter().filter(|worker| worker.is_coming());
        if coming.next().is_none() && (urgent || self.workers.is_empty()) {
            self.start(1, now);
        }
    }

    /// Passes over the rounds of which all has been taken.
    fn skip_taken(&mut self) {
        while !self.first.things().is_to_wake() && !self.first.things().is_to_call() {
            let Some(next) = self.first.next() else { break };
            self.first = next;
        }
    }

    /// A look at how things get on. The answer says when the next one is due, if there has to be one.
    pub(super) fn look(&mut self, now: Instant) -> Option<Duration> {
        self.skip_taken();
        if !self.first.things().is_to_wake() && !self.first.things().is_to_call() {
            self.rest();
            return None;
        }
        let since = now.saturating_duration_since(self.looked);
        if let Some(rest) = PATIENCE.checked_sub(since).filter(|rest| !rest.is_zero()) {
            return Some(rest);
        }
        self.looked = now;
        self.lead_on();
        let mut to_wake = Some(self.first.clone());
        while let Some(round) = to_wake.take_if(|round| !round.things().is_to_wake()) {
            to_wake = round.next();
        }
        let waking = to_wake.map_or(0, |round| self.waking.look(&round));
        let calling = if self.first.things().is_to_call() {
            self.calling.look(&self.first)
        } else {
            0
        };
        let mut number = waking.max(calling);
        self.workers.retain(|worker| !worker.is_gone());
        let coming = self
            .workers
            .iter()
            .filter(|worker| worker.is_coming())
            .count();
        let at_work = self.workers.iter().filter(|worker| !worker.is_idle());
        if number == 0 && coming == 0 && at_work.count() < self.processors {
            // They get on, and are sooner through if they are more.
            number = 1;
        }
        self.send(number.saturating_sub(coming), now);
        Some(PATIENCE)
    }

    /// A thread that is at one thing for long does not keep what others have done since.
    fn lead_on(&self) {
        for worker in &self.workers {
            worker.lead_on(&self.first);
        }
    }

    /// There is nothing left: what was large goes.
    fn rest(&mut self) {
        self.lead_on();
        self.waking = Watch::new();
        self.calling = Watch::new();
        if self.first.things().is_large() {
            let nothing = Arc::new(Round::nothing());
            self.last.set_next(nothing.clone());
            self.last = nothing.clone();
            self.first = nothing;
        }
        self.workers.retain(|worker| !worker.is_gone());
        if self.workers.capacity() > 64 && self.workers.capacity() > 4 * self.workers.len() {
            self.workers.shrink_to_fit();
        }
    }

    fn send(&mut self, mut number: usize, now: Instant) {
        let round = &self.first;
        for worker in &self.workers {
            if number == 0 {
                return;
            }
            number -= usize::from(worker.send_if_idle(round));
        }
        self.start(number, now);
    }

    fn start(&mut self, number: usize, now: Instant) {
        if number == 0 || self.failed.is_some_and(|(until, _)| now < until) {
            return;
        }
        let first = self.first.clone();
        let new: Vec<_> = (0..number)
            .map(|_| Arc::new(Worker::new(first.clone())))
            .collect();
        self.workers.extend(new.iter().cloned());
        if start(new) {
            self.failed = None;
        } else {
            let wait = self.failed.map_or(SHORT, |(_, wait)| (2 * wait).min(LONG));
            self.failed = Some((now + wait, wait));
        }
    }
}

/// Starts a thread for each of them: the first, which starts the others. False: it could not be had. (Where it is one of the
/// others, the next look finds that things do not get on.)
fn start(mut workers: Vec<Arc<Worker>>) -> bool {
    let all = workers.clone();
    let run = move || {
        while workers.len() > 1 {
            start(workers.split_off(workers.len().div_ceil(2)));
        }
        workers[0].work();
    };
    let thread = thread::Builder::new().name("cancel-tree worker".into());
    let started = thread.spawn(run).is_ok();
    if !started {
        for worker in all {
            worker.cancel();
        }
    }
    started
}
