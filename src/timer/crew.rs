//! The service thread's workers: when one is sent, and when one more is started.
//!
//! What is handed out goes to a worker that is idle; if none is, and something has to be woken, one is started at once.
//! After that a look every quarter of a millisecond says whether things get on. Where they do not, and something is left
//! that nobody has taken, more are sent, twice as many each time: so what blocks costs a thread, and holds up nobody for
//! long. A thread that cannot be had is tried again; nothing is lost, and nothing runs on the service thread.
//!
//! A callback that computes for long looks like one that blocks, and more threads make it no quicker. So the more are at work, the
//! longer callbacks may stand still before more are sent, up to some milliseconds. And while as many as there are processors are at
//! callbacks, whoever is started for what is to be woken does that alone, and is idle for the next one. But who has been at one
//! thing for very long blocks: such ones do not count as those that get on. And where callbacks have waited for long although things get on,
//! more are sent, one at a time, up to a number.

use super::round::Round;
use super::workers::{spawn, Worker};
use crate::sync::Arc;
use alloc::vec::Vec;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const PATIENCE: Duration = Duration::from_micros(250);
/// How many times that, at most, callbacks may stand still.
const MOST_PATIENT: usize = 16;
/// Who has been at one thing for so long blocks.
const STUCK: Duration = Duration::from_millis(250);
/// For how long callbacks may wait while others get on; and how many for each processor may get on before no more
/// are sent for that reason.
const LATE: Duration = Duration::from_millis(100);
const ENOUGH: usize = 64;
/// How many are sent at one time at most.
const MOST: usize = 128;
/// How long nobody tries to start a thread after that has failed: at first, and at most.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(100);

pub(super) struct Crew {
    workers: Vec<Known>,
    /// The first round of which not all has been taken, the first with something left to be woken, if there is one, and the
    /// last one. What is called late is no way that has to be gone each time.
    first: Arc<Round>,
    to_wake: Arc<Round>,
    last: Arc<Round>,
    looked: Instant,
    /// How often it is still to be tidied up since something was handed out: whoever is at one thing is known by the second look.
    untidy: u8,
    waking: Watch,
    calling: Watch,
    /// When one was sent because callbacks have waited for long.
    sent_late: Instant,
    /// No thread could be had: not again before that, and how long it was.
    failed: Option<(Instant, Duration)>,
    processors: usize,
    /// `start`, but for tests.
    spawn: fn(Vec<Arc<Worker>>) -> bool,
}

/// A worker, and since when it has been at one thing, as far as was seen.
struct Known {
    worker: Arc<Worker>,
    steps: usize,
    since: Instant,
}

impl Known {
    fn look(&mut self, now: Instant) {
        let steps = self.worker.steps();
        if steps != self.steps {
            self.steps = steps;
            self.since = now;
        }
    }

    fn is_at_callbacks(&self) -> bool {
        let worker = &self.worker;
        worker.calls() && !worker.is_idle() && !worker.is_gone()
    }

    fn is_stuck(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= STUCK
    }
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
    pub(super) fn new(now: Instant) -> Crew {
        let nothing = Arc::new(Round::nothing());
        Crew {
            workers: Vec::new(),
            first: nothing.clone(),
            to_wake: nothing.clone(),
            last: nothing,
            looked: now,
            untidy: 0,
            waking: Watch::new(now),
            calling: Watch::new(now),
            sent_late: now,
            failed: None,
            processors: match cfg!(any(cancel_tree_loom, cancel_tree_shuttle)) {
                // The same on each machine.
                true => 1,
                false => thread::available_parallelism().map_or(1, usize::from),
            },
            spawn: start,
        }
    }

    /// There is something to do.
    pub(super) fn hand(&mut self, mut round: Round, now: Instant) {
        let urgent = round.things().has_deadlines();
        round.handed = Some(now);
        let round = Arc::new(round);
        self.last.set_next(round.clone());
        self.last = round;
        self.untidy = 2;
        self.skip_taken();
        if self.send_idle(1, true, now) == 1 || urgent && self.send_idle(1, false, now) == 1 {
            return;
        }
        // One that is on the way finds what is to be woken in this round as well; the rest is the next look's.
        let is_coming = self.workers.iter().any(|known| known.worker.is_coming());
        if !is_coming && (urgent || self.workers.is_empty()) {
            let (_, callers) = self.callers(now);
            self.start(1, callers < self.processors, now);
        }
    }

    /// How many are at callbacks, and how many of them get on.
    fn callers(&mut self, now: Instant) -> (usize, usize) {
        self.workers.iter_mut().for_each(|known| known.look(now));
        let all = self.workers.iter().filter(|known| known.is_at_callbacks());
        all.fold((0, 0), |(all, get_on), known| {
            (all + 1, get_on + usize::from(!known.is_stuck(now)))
        })
    }

    /// Passes over the rounds of which all has been taken.
    fn skip_taken(&mut self) {
        while !self.first.things().is_to_wake() && !self.first.things().is_to_call() {
            let Some(next) = self.first.next() else { break };
            self.first = next;
        }
        // What has been taken is not there again.
        while !self.to_wake.things().is_to_wake() {
            let Some(next) = self.to_wake.next() else {
                break;
            };
            self.to_wake = next;
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
        let waking = match self.to_wake.things().is_to_wake() {
            true => self.waking.look(&self.to_wake, now, Duration::ZERO),
            false => 0,
        };
        self.workers.retain(|known| !known.worker.is_gone());
        let (all, callers) = self.callers(now);
        let mut calling = 0;
        if self.first.things().is_to_call() {
            let times = u32::try_from((all / self.processors).min(MOST_PATIENT)).unwrap_or(0);
            let patience = PATIENCE * times;
            calling = self.calling.look(&self.first, now, patience);
            let is_enough = callers >= ENOUGH * self.processors;
            if calling == 0 && !is_enough && self.is_late(now, patience) {
                self.sent_late = now;
                calling = 1;
            }
        }
        let coming = self.workers.iter().filter(|w| w.worker.is_coming());
        let (coming, all_coming) = coming.fold((0, 0), |(calling, all), known| {
            (calling + usize::from(known.worker.calls()), all + 1)
        });
        if waking == 0 && calling == 0 && callers < self.processors {
            // They get on, and are sooner through if they are more.
            calling = 1;
        }
        let calling = calling.saturating_sub(coming);
        let sent = self.send_idle(calling, true, now);
        self.start(calling - sent, true, now);
        let waking = waking.saturating_sub(calling.max(all_coming));
        let sent = self.send_idle(waking, true, now);
        let sent = sent + self.send_idle(waking - sent, false, now);
        self.start(waking - sent, callers < self.processors, now);
        Some(PATIENCE)
    }

    /// What is to be called next was handed out long ago, and nobody was sent for that reason for a while.
    fn is_late(&self, now: Instant, patience: Duration) -> bool {
        let since = |then| now.saturating_duration_since(then);
        let handed = self.first.handed;
        handed.is_some_and(|handed| since(handed) >= LATE) && since(self.sent_late) >= patience
    }

    /// A thread that is at one thing for long does not keep what others have done since.
    fn lead_on(&self) {
        for Known { worker, .. } in &self.workers {
            worker.lead_on(&self.first);
        }
    }

    /// There is nothing left: what was large goes.
    fn rest(&mut self) {
        if self.untidy == 0 {
            return;
        }
        self.untidy -= 1;
        self.lead_on();
        self.waking = Watch::new(self.looked);
        self.calling = Watch::new(self.looked);
        if self.first.things().is_large() {
            let nothing = Arc::new(Round::nothing());
            self.last.set_next(nothing.clone());
            self.last = nothing.clone();
            self.to_wake = nothing.clone();
            self.first = nothing;
        }
        self.workers.retain(|known| !known.worker.is_gone());
        if self.workers.capacity() > 64 && self.workers.capacity() > 4 * self.workers.len() {
            self.workers.shrink_to_fit();
        }
    }

    /// Sends so many that are idle, if there are as many, and says how many.
    fn send_idle(&mut self, number: usize, calls: bool, now: Instant) -> usize {
        // Who only wakes need not come by what others are to call.
        let round = if calls { &self.first } else { &self.to_wake };
        let idle = self.workers.iter_mut();
        let idle = idle.filter(|known| known.worker.calls() == calls);
        let sent = idle.filter(|known| known.worker.send_if_idle(round));
        sent.take(number).map(|known| known.since = now).count()
    }

    fn start(&mut self, number: usize, calls: bool, now: Instant) {
        if number == 0 {
            return;
        }
        if self.failed.is_some_and(|(until, _)| now < until) {
            self.ask_for_one();
            return;
        }
        let round = if calls { &self.first } else { &self.to_wake };
        let new: Vec<_> = (0..number)
            .map(|_| Arc::new(Worker::new(round.clone(), calls)))
            .collect();
        self.workers.extend(new.iter().map(|worker| Known {
            worker: worker.clone(),
            steps: 0,
            since: now,
        }));
        if (self.spawn)(new) {
            self.failed = None;
        } else {
            let wait = self.failed.map_or(SHORT, |(_, wait)| (2 * wait).min(LONG));
            self.failed = Some((now + wait, wait));
            self.ask_for_one();
        }
    }

    /// Nobody was sent: that things do not get on does not show that one would be too few.
    fn ask_for_one(&mut self) {
        self.waking.number = 1;
        self.calling.number = 1;
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
    let started = spawn(&all[0], run);
    if !started {
        for worker in all {
            worker.cancel();
        }
    }
    started
}

#[cfg(test)]
#[path = "crew_tests.rs"]
mod tests;
