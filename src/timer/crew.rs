//! The service thread's workers: when one is sent, and when one more is started.
//!
//! What is handed out goes to a worker that is idle; if none is, and something has to be woken, one is started at once.
//! After that a look every quarter of a millisecond says whether things get on. Where they do not, and something is left
//! that nobody has taken, more are sent, twice as many each time: so what blocks costs a thread, and holds up nobody for
//! long. A thread that cannot be had is tried again; nothing is lost, and nothing runs on the service thread.
//!
//! A callback that computes for long looks like one that blocks, and more threads make it no quicker. So the more are at work, the
//! longer callbacks may stand still before more are sent. And while as many as there are processors are at
//! callbacks, whoever is started for what is to be woken does that alone, and is idle for the next one.

use super::round::Round;
use super::workers::Worker;
use crate::sync::Arc;
use alloc::vec::Vec;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const PATIENCE: Duration = Duration::from_micros(250);
/// How many times that, at most, callbacks may stand still.
const MOST_PATIENT: usize = 64;
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
    /// Since when nothing has happened, or nobody was sent.
    since: Instant,
    /// How many to send next.
    number: usize,
}

impl Watch {
    const fn new(since: Instant) -> Watch {
        Watch {
            seen: (0, 0),
            since,
            number: 1,
        }
    }

    /// The first round of which not all has been taken: how many are to be sent to it, if nothing has happened for so long.
    fn look(&mut self, round: &Arc<Round>, now: Instant, patience: Duration) -> usize {
        let seen = (Arc::as_ptr(round).addr(), round.things().progress());
        if seen != std::mem::replace(&mut self.seen, seen) {
            self.number = 1;
            self.since = now;
            return 0;
        }
        if now.saturating_duration_since(self.since) < patience {
            return 0;
        }
        self.since = now;
        let number = self.number;
        self.number = (2 * number).min(MOST);
        number
    }
}

impl Crew {
    pub(super) fn new() -> Crew {
        let nothing = Arc::new(Round::nothing());
        let now = Instant::now();
        Crew {
            workers: Vec::new(),
            first: nothing.clone(),
            last: nothing,
            looked: now,
            waking: Watch::new(now),
            calling: Watch::new(now),
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
        let round = &self.first;
        let send = |calls| {
            let mut workers = self.workers.iter().filter(|one| one.calls() == calls);
            workers.any(|worker| worker.send_if_idle(round))
        };
        if send(true) || urgent && send(false) {
            return;
        }
        // A worker that is on the way finds this round as well.
        let mut coming = self.workers.iter().filter(|worker| worker.is_coming());
        if coming.next().is_none() && (urgent || self.workers.is_empty()) {
            self.start(1, self.callers() < self.processors, now);
        }
    }

    /// How many are at work that call, too.
    fn callers(&self) -> usize {
        let callers = self.workers.iter().filter(|worker| worker.calls());
        callers.filter(|worker| !worker.is_idle()).count()
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
        let waking = to_wake.map_or(0, |round| self.waking.look(&round, now, Duration::ZERO));
        let callers = self.callers();
        let mut calling = 0;
        if self.first.things().is_to_call() {
            let times = (callers / self.processors).min(MOST_PATIENT);
            let patience = PATIENCE * u32::try_from(times).unwrap_or(0);
            calling = self.calling.look(&self.first, now, patience);
        }
        self.workers.retain(|worker| !worker.is_gone());
        let coming = self
            .workers
            .iter()
            .filter(|worker| worker.is_coming())
            .count();
        let at_work = self.workers.iter().filter(|worker| !worker.is_idle());
        if waking == 0 && calling == 0 && coming == 0 && at_work.count() < self.processors {
            // They get on, and are sooner through if they are more.
            calling = 1;
        }
        self.send(calling.saturating_sub(coming), true, now);
        let only_waking = waking.saturating_sub(calling.max(coming));
        self.send(only_waking, callers < self.processors, now);
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
        self.waking = Watch::new(self.looked);
        self.calling = Watch::new(self.looked);
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

    fn send(&mut self, mut number: usize, calls: bool, now: Instant) {
        let round = &self.first;
        for worker in self.workers.iter().filter(|one| one.calls() == calls) {
            if number == 0 {
                return;
            }
            number -= usize::from(worker.send_if_idle(round));
        }
        self.start(number, calls, now);
    }

    fn start(&mut self, number: usize, calls: bool, now: Instant) {
        if number == 0 || self.failed.is_some_and(|(until, _)| now < until) {
            return;
        }
        let first = self.first.clone();
        let new: Vec<_> = (0..number)
            .map(|_| Arc::new(Worker::new(first.clone(), calls)))
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
