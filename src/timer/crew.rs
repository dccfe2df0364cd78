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
//!
//! However many workers there are, a look goes along a part of them, and the next one goes on from there: what is counted is what was
//! seen of each when its turn came. Who was seen to be idle lies apart, and is sent by one step.

use super::bell;
use super::round::Round;
use super::workers::{spawn, State, Worker};
use crate::sync::Arc;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const PATIENCE: Duration = Duration::from_micros(250);
/// How many times that, at most, callbacks may stand still.
const MOST_PATIENT: u32 = 16;
/// Who has been at one thing for so long blocks.
const STUCK: Duration = Duration::from_millis(250);
/// For how long callbacks may wait while others get on; and how many for each processor may get on before no more
/// are sent for that reason.
const LATE: Duration = Duration::from_millis(100);
const ENOUGH: usize = 64;
/// How many are sent at one time at most.
const MOST: usize = 128;
/// How many of a kind are looked at at one time at most.
const SURVEY: usize = 256;
/// How long nobody tries to start a thread after that has failed: at first, and at most.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(100);

pub(super) struct Crew {
    /// Who was sent and has not taken it, as far as was seen. They are few, so who has come is soon seen to have.
    coming: Line,
    /// Who is at something.
    working: Line,
    /// Who was idle when it was seen, the last one at the end: those that only wake, and those that call.
    idle: [VecDeque<Known>; 2],
    /// The first round of which not all has been taken, the first with something left to be woken, if there is one, and the
    /// last one. What is called late is no way that has to be gone each time.
    first: Arc<Round>,
    to_wake: Arc<Round>,
    last: Arc<Round>,
    looked: Instant,
    /// How often it is still to be tidied up since something was handed out: whoever is at one thing is known by the second look at it.
    untidy: usize,
    /// Something was handed out for which nobody was known to be idle: the first one that is found to be is sent.
    is_unsent: bool,
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
    /// It is at callbacks, and has been at one for so long that it blocks.
    is_stuck: bool,
}

impl Known {
    fn look(&mut self, now: Instant) {
        let steps = self.worker.steps();
        if steps != self.steps {
            self.steps = steps;
            self.since = now;
        }
        let is_long = now.saturating_duration_since(self.since) >= STUCK;
        self.is_stuck = is_long && self.worker.calls();
    }
}

/// Workers of one kind, and what there is of them.
#[derive(Default)]
struct Line {
    known: VecDeque<Known>,
    /// So many, the first ones, are still to be looked at before it begins at the end again. Who comes is put there.
    left: usize,
    /// How many are there for callbacks, and how many of these were seen to block.
    calling: usize,
    stuck: usize,
}

impl Line {
    fn put(&mut self, known: Known) {
        self.calling += usize::from(known.worker.calls());
        self.stuck += usize::from(known.is_stuck);
        self.known.push_back(known);
    }

    /// Those that are still to be looked at keep their places, if this one is the last of them.
    fn take(&mut self, index: usize) -> Option<Known> {
        let known = self.known.swap_remove_back(index)?;
        self.calling -= usize::from(known.worker.calls());
        self.stuck -= usize::from(known.is_stuck);
        Some(known)
    }

    /// Which are to be looked at now.
    fn part(&mut self) -> Range<usize> {
        let all = self.known.len();
        let end = match self.left {
            1.. if all > SURVEY => self.left.min(all),
            _ => all,
        };
        self.left = end.saturating_sub(SURVEY);
        self.left..end
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
            coming: Line::default(),
            working: Line::default(),
            idle: [VecDeque::new(), VecDeque::new()],
            first: nothing.clone(),
            to_wake: nothing.clone(),
            last: nothing,
            looked: now,
            untidy: 0,
            is_unsent: false,
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
        self.untidy = usize::MAX;
        self.skip_taken();
        if self.send_idle(1, true, now) == 1 {
            return;
        }
        // Somebody may have become idle since the last look.
        self.survey(now);
        if self.send_idle(1, true, now) == 1 || urgent && self.send_idle(1, false, now) == 1 {
            return;
        }
        self.is_unsent = true;
        // One that is on the way finds what is to be woken in this round as well; the rest is the next look's.
        let is_coming = !self.coming.known.is_empty();
        if !is_coming && (urgent || self.is_empty()) {
            let (_, callers) = self.callers();
            self.start(1, callers < self.processors, now);
        }
    }

    fn is_empty(&self) -> bool {
        let [wakes, calls] = &self.idle;
        let all = [&self.coming.known, &self.working.known, wakes, calls];
        all.iter().all(|known| known.is_empty())
    }

    /// How many are at callbacks, and how many of them get on.
    fn callers(&self) -> (usize, usize) {
        let all = self.coming.calling + self.working.calling;
        (all, all - self.coming.stuck - self.working.stuck)
    }

    /// Looks at where workers are: at a part of each kind.
    fn survey(&mut self, now: Instant) {
        // In this order: who has come is not looked at twice.
        for index in self.working.part().rev() {
            let known = self.working.take(index);
            self.settle(known, now);
        }
        for index in self.coming.part().rev() {
            let known = self.coming.take(index);
            self.settle(known, now);
        }
        // The last one is sent first, so it is the first ones that go.
        for idle in &mut self.idle {
            let gone = |known: &&Known| known.worker.is_gone();
            let number = idle.iter().take(SURVEY).take_while(gone).count();
            idle.drain(..number);
        }
    }

    /// Puts it where it belongs by now.
    fn settle(&mut self, known: Option<Known>, now: Instant) {
        let Some(mut known) = known else { return };
        known.look(now);
        // A thread that is at one thing for long does not keep what others have done since.
        known.worker.lead_on(&self.first);
        match known.worker.state() {
            State::Coming => self.coming.put(known),
            State::AtWork => self.working.put(known),
            State::Idle => self.idle[usize::from(known.worker.calls())].push_back(known),
            State::Gone => (),
        }
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
            return self.rest(now);
        }
        let since = now.saturating_duration_since(self.looked);
        if let Some(rest) = PATIENCE.checked_sub(since).filter(|rest| !rest.is_zero()) {
            return Some(rest);
        }
        self.looked = now;
        self.survey(now);
        let waking = match self.to_wake.things().is_to_wake() {
            true => self.waking.look(&self.to_wake, now, Duration::ZERO),
            false => 0,
        };
        let (all, callers) = self.callers();
        let mut calling = 0;
        if self.first.things().is_to_call() {
            let times = u32::try_from(all / self.processors).unwrap_or(u32::MAX);
            let patience = PATIENCE * times.min(MOST_PATIENT);
            calling = self.calling.look(&self.first, now, patience);
            let is_enough = callers >= ENOUGH * self.processors;
            if calling == 0 && !is_enough && self.is_late(now, patience) {
                self.sent_late = now;
                calling = 1;
            }
        }
        let (coming, all_coming) = (self.coming.calling, self.coming.known.len());
        if self.is_unsent && !self.idle[1].is_empty() {
            calling = calling.max(1);
        }
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

    /// There is nothing left: what was large goes. The answer is as for `look`.
    fn rest(&mut self, now: Instant) -> Option<Duration> {
        if self.untidy == 0 {
            return None;
        }
        // Each is seen twice in three surveys for each part, wherever the first one begins; in two if there is one part.
        let most = self.working.known.len().max(self.coming.known.len());
        let more_parts = most.saturating_sub(1) / SURVEY;
        self.untidy = self.untidy.min(2 + 3 * more_parts) - 1;
        self.is_unsent = false;
        self.waking = Watch::new(self.looked);
        self.calling = Watch::new(self.looked);
        if self.first.things().is_large() {
            let nothing = Arc::new(Round::nothing());
            self.last.set_next(nothing.clone());
            self.last = nothing.clone();
            self.to_wake = nothing.clone();
            self.first = nothing;
        }
        // After that: nobody is led on to what goes.
        self.survey(now);
        let [wakes, calls] = &mut self.idle;
        for known in [
            &mut self.coming.known,
            &mut self.working.known,
            wakes,
            calls,
        ] {
            if known.capacity() > 64 && known.capacity() > 4 * known.len() {
                known.shrink_to_fit();
            }
        }
        // A few are seen to whenever the thread is awake. Many would keep what was handed out in many of these times.
        (more_parts != 0 && self.untidy != 0).then_some(PATIENCE * MOST_PATIENT)
    }

    /// Sends so many that are idle, if there are as many, and says how many.
    fn send_idle(&mut self, number: usize, calls: bool, now: Instant) -> usize {
        // Who only wakes need not come by what others are to call.
        let round = if calls { &self.first } else { &self.to_wake };
        let mut sent = 0;
        for _ in 0..SURVEY {
            if sent == number {
                break;
            }
            let last = self.idle[usize::from(calls)].pop_back();
            let Some(mut known) = last else { break };
            // If not, it is gone.
            if known.worker.send_if_idle(round) {
                known.since = now;
                known.look(now);
                self.coming.put(known);
                self.is_unsent &= !calls;
                sent += 1;
            }
        }
        sent
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
        for worker in &new {
            self.coming.put(Known {
                worker: worker.clone(),
                steps: 0,
                since: now,
                is_stuck: false,
            });
        }
        if (self.spawn)(new) {
            self.failed = None;
        } else {
            let wait = self.failed.map_or(SHORT, |(_, wait)| (2 * wait).min(LONG));
            self.failed = Some((now + wait, wait));
            self.ask_for_one();
            bell::ring();
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
