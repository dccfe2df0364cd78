//! The oracle: a simple single-threaded tree that says what must hold of tokens and contexts.
//!
//! It is a list of who has which parents; a cancel goes through all of it. Nothing is ever taken out, for what
//! nobody holds does no harm here. Where the order of things is not promised (callbacks, deadlines within one
//! tick), it keeps all causes that are possible, until one of them has been seen.

use crate::clock;
use crate::probes::{over, IDLE};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What is cancelled, and the number of the cause.
pub type Trigger = (usize, u32);

/// Between these two: where the real clock has a part in it. Mostly they are the same.
pub type Span = (Instant, Instant);

/// What a fact has of a deadline, for those who ask.
#[derive(Clone, Copy)]
enum Own {
    Nothing,
    Fixed(Span),
    /// It is moved by its guard, or set when a grace begins.
    Moving(Option<Span>),
    Idle(Idle),
}

#[derive(Clone, Copy)]
struct Idle {
    period: Duration,
    touched: Span,
    /// What the timer's entry says. None: it has passed, or there is none.
    armed: Option<Instant>,
    /// When the timer looks at it.
    place: u64,
}

impl Idle {
    fn due(self) -> Span {
        (self.touched.0 + self.period, self.touched.1 + self.period)
    }
}

/// The hard token is given a deadline when the soft one is woken, if anybody is left who has a context under it.
struct Grace {
    hard: usize,
    soft: usize,
    /// None: without end.
    period: Option<Duration>,
    is_held: bool,
}

/// Whether it was the fact's own deadline, beside the cause.
type Why = (u32, bool);

/// A token, or a context that is not shared with the one it was derived from.
struct Fact {
    /// Older than this one.
    parents: Vec<usize>,
    /// One of them, whose deadlines are not asked for: the hard token of a group under a grace.
    beside: Option<usize>,
    /// The causes that it may have, once it is cancelled.
    verdict: Option<BTreeSet<Why>>,
    /// The tick of its own deadline, and what may be its cause.
    deadline: Option<(u64, BTreeSet<u32>)>,
    own: Own,
}

/// What a callback does, besides being counted.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Nothing,
    /// Cancels what the link leads to.
    Cancel(usize, u32),
    /// Gives up the link's handle.
    Unlink(usize),
}

pub struct Callback {
    pub fact: usize,
    pub off_thread: bool,
    pub registered: bool,
    /// The next turn of the service runs it.
    pub queued: bool,
    pub runs: usize,
    action: Action,
}

pub struct Waiter {
    /// None: of a context that is never done.
    pub fact: Option<usize>,
    pub pending: bool,
    pub rings: usize,
}

/// What a worker is to do.
enum Job {
    Callback(usize),
    Cancel(usize, u32),
    /// To wake and call what has been marked.
    Rest(Vec<usize>),
}

/// What workers are to do: what has been marked, and jobs.
#[must_use]
pub struct Due {
    marked: Vec<usize>,
    jobs: Vec<Job>,
}

/// The timer marks 64 nodes of a deadline before it looks at others. Not all nodes are known here.
const MARKED_AT_ONCE: usize = 16;

#[derive(Default)]
pub struct Oracle {
    facts: Vec<Fact>,
    pub callbacks: Vec<Callback>,
    pub waiters: Vec<Waiter>,
    /// Handles that callbacks share: what they lead to, while they do.
    pub links: Vec<Option<usize>>,
    /// For the next worker that is sent.
    jobs: Vec<Job>,
    /// The service has been turned so far.
    turned: u64,
    graces: Vec<Grace>,
    /// Which have begun in this step.
    begun: Vec<usize>,
}

impl Oracle {
    /// Of parents that are cancelled already the first decides, and then none of them is needed any more.
    pub fn add(&mut self, mut parents: Vec<usize>) -> usize {
        let verdict = parents
            .iter()
            .find_map(|&parent| self.facts[parent].verdict.clone());
        let verdict = verdict.map(|causes| {
            causes
                .into_iter()
                .map(|(cause, _)| (cause, false))
                .collect()
        });
        if verdict.is_some() {
            parents.clear();
        }
        self.facts.push(Fact {
            parents,
            beside: None,
            verdict,
            deadline: None,
            own: Own::Nothing,
        });
        self.facts.len() - 1
    }

    /// The same, but nobody knows which of them comes first.
    pub fn add_in_any_order(&mut self, parents: Vec<usize>) -> usize {
        let causes: BTreeSet<u32> = parents.iter().flat_map(|&p| self.verdict(p)).collect();
        let fact = self.add(parents);
        if let Some(verdict) = &mut self.facts[fact].verdict {
            *verdict = causes.into_iter().map(|cause| (cause, false)).collect();
        }
        fact
    }

    /// Cancelled by that one too, whose deadlines are not its own.
    pub fn add_beside(&mut self, above: usize, beside: usize) -> usize {
        let fact = self.add(vec![above, beside]);
        self.facts[fact].beside = Some(beside);
        fact
    }

    /// Whether it was the fact's own deadline by which it is done; `None` if that is not known, or it is not done.
    pub fn is_own_deadline(&self, fact: usize) -> Option<bool> {
        let mut own = self.facts[fact].verdict.iter().flatten().map(|why| why.1);
        let first = own.next()?;
        own.all(|own| own == first).then_some(first)
    }

    /// A deadline for the timer, if that is not too far for it; with what may be its cause.
    pub fn set_deadline(&mut self, fact: usize, at: Span, causes: impl IntoIterator<Item = u32>) {
        self.facts[fact].own = Own::Fixed(at);
        self.arm(fact, at, causes);
    }

    fn arm(&mut self, fact: usize, at: Span, causes: impl IntoIterator<Item = u32>) {
        let tick = clock::tick_of(at.1);
        self.facts[fact].deadline = tick.map(|tick| (tick, causes.into_iter().collect()));
    }

    /// It is done from the beginning, by its own deadline, which had passed.
    pub fn expire_at_birth(
        &mut self,
        fact: usize,
        at: Span,
        causes: impl IntoIterator<Item = u32>,
    ) {
        self.facts[fact].own = Own::Fixed(at);
        self.facts[fact].verdict = Some(causes.into_iter().map(|cause| (cause, true)).collect());
    }

    // ----- deadlines that move --------------------------------------------------------------------

    pub fn make_movable(&mut self, fact: usize) {
        self.facts[fact].own = Own::Moving(None);
    }

    /// What a movable deadline is at this moment.
    pub fn moving(&self, fact: usize) -> Option<Span> {
        match self.facts[fact].own {
            Own::Moving(at) => at,
            _ => None,
        }
    }

    /// Moved, of what is not cancelled. A deadline that is too far for the timer is none.
    pub fn move_to(&mut self, fact: usize, to: Option<Span>) {
        let to = to.filter(|to| clock::is_for_the_timer(to.1));
        self.facts[fact].own = Own::Moving(to);
        self.facts[fact].deadline = None;
        if let Some(to) = to {
            self.arm(fact, to, [1]);
        }
    }

    pub fn make_idle(&mut self, fact: usize, period: Duration, touched: Span) {
        let mut idle = Idle {
            period,
            touched,
            armed: None,
            place: 0,
        };
        idle.armed = Some(idle.due().1);
        idle.place = clock::tick(idle.due().1);
        self.facts[fact].own = Own::Idle(idle);
    }

    pub fn touch(&mut self, fact: usize, at: Instant) {
        if let Own::Idle(idle) = &mut self.facts[fact].own {
            idle.touched = (idle.touched.0.max(at), idle.touched.1.max(at));
        }
    }

    /// The earliest of the deadlines of the fact and of all above; and whether one of them moves.
    pub fn deadline(&self, fact: usize) -> (Option<Span>, bool) {
        let (mut earliest, mut moves) = (None::<Span>, false);
        let mut is_above = vec![false; fact + 1];
        is_above[fact] = true;
        for i in (0..=fact).rev() {
            if !is_above[i] {
                continue;
            }
            let Fact {
                parents, beside, ..
            } = &self.facts[i];
            for &parent in parents.iter().filter(|&&parent| Some(parent) != *beside) {
                is_above[parent] = true;
            }
            let own = match self.facts[i].own {
                Own::Nothing => None,
                Own::Fixed(at) => Some(at),
                Own::Moving(at) => {
                    moves = true;
                    at
                }
                Own::Idle(idle) => {
                    moves = true;
                    Some(idle.due())
                }
            };
            earliest = earlier(earliest, own);
        }
        (earliest, moves)
    }

    // ----- grace ----------------------------------------------------------------------------------

    /// Its number.
    pub fn add_grace(&mut self, hard: usize, soft: usize, period: Option<Duration>) -> usize {
        self.graces.push(Grace {
            hard,
            soft,
            period,
            is_held: true,
        });
        self.graces.len() - 1
    }

    /// Which of them end the fact, all of them.
    pub fn graces_above(&self, fact: usize) -> impl Iterator<Item = usize> + '_ {
        let ends = move |grace: &usize| self.is_below(fact, self.graces[*grace].hard);
        (0..self.graces.len()).filter(ends)
    }

    /// Which of them somebody has a context under.
    pub fn set_held(&mut self, is_held: impl Fn(usize) -> bool) {
        for (i, grace) in self.graces.iter_mut().enumerate() {
            grace.is_held = is_held(i);
        }
    }

    /// A soft token is cancelled, and a worker is still to wake it.
    pub fn has_grace_to_begin(&self) -> bool {
        self.graces.iter().any(|grace| {
            grace.is_held
                && self.is_cancelled(grace.soft)
                && !self.is_cancelled(grace.hard)
                && grace.period.is_some()
                && self.moving(grace.hard).is_none()
        })
    }

    /// The grace begins: whoever is first sets the end.
    pub fn begin_grace(&mut self, grace: usize, because: &BTreeSet<u32>) {
        let Grace { hard, period, .. } = self.graces[grace];
        if self.is_cancelled(hard) || self.moving(hard).is_some() {
            return;
        }
        let Some(period) = period else { return };
        let at = Instant::now() + period;
        self.facts[hard].own = Own::Moving(Some((at, at)));
        self.arm(hard, (at, at), because.iter().map(|&cause| over(cause)));
        self.begun.push(grace);
    }

    /// What has begun between that moment and this one, by the real clock.
    pub fn note_when(&mut self, since: Instant) {
        for grace in std::mem::take(&mut self.begun) {
            let Grace { hard, period, .. } = self.graces[grace];
            let period = period.unwrap_or_default();
            self.facts[hard].own = Own::Moving(Some((since + period, Instant::now() + period)));
        }
    }

    pub fn is_cancelled(&self, fact: usize) -> bool {
        self.facts[fact].verdict.is_some()
    }

    /// The causes that it may have.
    pub fn verdict(&self, fact: usize) -> impl Iterator<Item = u32> + '_ {
        self.facts[fact].verdict.iter().flatten().map(|why| why.0)
    }

    /// The cause that was seen must be possible, and stands from now on; and so must whether it was the fact's own
    /// deadline, if that was asked.
    pub fn observe(&mut self, fact: usize, cause: Option<u32>, is_own: Option<bool>) {
        let verdict = &mut self.facts[fact].verdict;
        let seen = |why: &Why| Some(why.0) == cause && is_own.is_none_or(|is_own| why.1 == is_own);
        match (cause, verdict) {
            (None, None) => assert_ne!(is_own, Some(true)),
            (Some(_), Some(possible)) if possible.iter().any(seen) => possible.retain(seen),
            (cause, verdict) => panic!("{cause:?}, {is_own:?} was seen of {fact}, not {verdict:?}"),
        }
    }

    /// Or the same.
    pub fn is_below(&self, fact: usize, top: usize) -> bool {
        self.below(top).contains(&fact)
    }

    /// The fact and all below it.
    pub fn below(&self, top: usize) -> Vec<usize> {
        let mut is_below = vec![false; self.facts.len()];
        is_below[top] = true;
        for i in top + 1..self.facts.len() {
            is_below[i] = self.facts[i].parents.iter().any(|&parent| is_below[parent]);
        }
        (top..self.facts.len()).filter(|&i| is_below[i]).collect()
    }

    /// All is marked before anything is woken, and that before the first callback runs.
    pub fn cancel(&mut self, fact: usize, cause: u32) {
        let reached = self.mark(&[(fact, cause)], false);
        let then = self.wake_and_tell(&reached);
        self.cancel_in_any_order(then);
    }

    /// Sets all state, in any order; what has been cancelled by it. To wake that is the caller's.
    fn mark(&mut self, triggers: &[Trigger], by_deadline: bool) -> Vec<usize> {
        let mut reached = BTreeMap::<usize, BTreeSet<Why>>::new();
        for &(top, cause) in triggers {
            for i in self.below(top) {
                if !self.is_cancelled(i) {
                    let why = (cause, by_deadline && i == top);
                    reached.entry(i).or_default().insert(why);
                }
            }
        }
        let marked = reached.keys().copied().collect();
        for (i, verdict) in reached {
            self.facts[i].verdict = Some(verdict);
        }
        marked
    }

    fn wake(&mut self, fact: usize) {
        for waiter in &mut self.waiters {
            if waiter.fact == Some(fact) && waiter.pending {
                waiter.pending = false;
                waiter.rings += 1;
            }
        }
        let begins = |grace: &Grace| grace.soft == fact && grace.is_held;
        let graces = (0..self.graces.len()).filter(|&i| begins(&self.graces[i]));
        for grace in graces.collect::<Vec<_>>() {
            let because = self.verdict(fact).collect();
            self.begin_grace(grace, &because);
        }
    }

    /// What the callbacks cancel.
    fn wake_and_tell(&mut self, marked: &[usize]) -> Vec<Trigger> {
        for &i in marked {
            self.wake(i);
        }
        marked.iter().flat_map(|&i| self.tell(i)).collect()
    }

    /// Who was told of a cancel has set all state; a worker is to do the rest.
    pub fn cancel_and_leave_the_rest(&mut self, fact: usize, cause: u32) {
        let marked = self.mark(&[(fact, cause)], false);
        self.jobs.push(Job::Rest(marked));
    }

    /// The same, by who has noticed that its deadline has passed.
    pub fn expire_and_leave_the_rest(&mut self, fact: usize, cause: u32) {
        self.facts[fact].deadline = None;
        let marked = self.mark(&[(fact, cause)], true);
        self.jobs.push(Job::Rest(marked));
    }

    /// A worker is to cancel it.
    pub fn cancel_by_worker(&mut self, fact: usize, cause: u32) {
        self.jobs.push(Job::Cancel(fact, cause));
    }

    /// These, and what the callbacks do that they lead to.
    pub fn cancel_in_any_order(&mut self, mut triggers: Vec<Trigger>) {
        let mut reached = BTreeMap::<usize, BTreeSet<Why>>::new();
        let mut next = 0;
        while let Some(&(top, cause)) = triggers.get(next) {
            next += 1;
            for i in self.below(top) {
                if self.is_cancelled(i) {
                    continue;
                }
                if !reached.contains_key(&i) {
                    triggers.extend(self.tell(i));
                }
                reached.entry(i).or_default().insert((cause, false));
            }
        }
        for (i, verdict) in reached {
            self.facts[i].verdict = Some(verdict);
            self.wake(i);
        }
    }

    /// Runs the callbacks of a fact that is being cancelled; what they cancel.
    fn tell(&mut self, fact: usize) -> Vec<Trigger> {
        let mut triggers = Vec::new();
        for i in 0..self.callbacks.len() {
            if self.callbacks[i].fact == fact && self.callbacks[i].registered {
                triggers.extend(self.call(i));
            }
        }
        triggers
    }

    fn call(&mut self, callback: usize) -> Option<Trigger> {
        self.callbacks[callback].registered = false;
        if self.callbacks[callback].off_thread {
            self.callbacks[callback].queued = true;
            self.jobs.push(Job::Callback(callback));
            return None;
        }
        self.run(callback)
    }

    /// Of what is cancelled, and a worker is still to call: a cancel from anywhere helps, and may be faster. Told of it by
    /// the numbers of runs; whether it was so. In which order it has called them is not known.
    pub fn were_called_early(&mut self, callbacks: impl Iterator<Item = (usize, usize)>) -> bool {
        let (mut were, mut then) = (false, Vec::new());
        for (callback, runs) in callbacks {
            let known = &self.callbacks[callback];
            let is_early = known.queued || known.registered && self.is_cancelled(known.fact);
            if is_early && runs == known.runs + 1 {
                were = true;
                self.callbacks[callback].registered = false;
                then.extend(self.run(callback));
            }
        }
        self.cancel_in_any_order(then);
        were
    }

    fn run(&mut self, callback: usize) -> Option<Trigger> {
        let callback = &mut self.callbacks[callback];
        callback.runs += 1;
        callback.queued = false;
        match callback.action {
            Action::Nothing => None,
            Action::Cancel(link, cause) => Some((self.links[link]?, cause)),
            Action::Unlink(link) => {
                self.links[link] = None;
                None
            }
        }
    }

    /// Runs at once, if the fact is cancelled.
    pub fn register(&mut self, fact: usize, off_thread: bool, action: Action) {
        self.callbacks.push(Callback {
            fact,
            off_thread,
            registered: true,
            queued: false,
            runs: 0,
            action,
        });
        if self.is_cancelled(fact) {
            // Not the others that are there: they may be a worker's to call.
            let then = self.call(self.callbacks.len() - 1);
            self.cancel_in_any_order(Vec::from_iter(then));
        }
    }

    /// The service takes what has come up to `now`, and marks what is due: one group after the other, in any order
    /// within a group.
    pub fn expire(&mut self, now: u64) -> Due {
        let mut groups = BTreeMap::<u64, Vec<Trigger>>::new();
        let now = now.max(self.turned);
        // The last that the timer's clock can say.
        let looks = now.min(u64::MAX >> 17);
        for (i, fact) in self.facts.iter_mut().enumerate() {
            // What came too late goes first, as it came.
            let in_order = |tick| if tick <= self.turned { 0 } else { tick };
            if let Some((tick, causes)) = fact.deadline.take_if(|(tick, _)| *tick <= now) {
                let triggers = causes.into_iter().map(|cause| (i, cause));
                groups.entry(in_order(tick)).or_default().extend(triggers);
            }
            let Own::Idle(idle) = &mut fact.own else {
                continue;
            };
            let due = idle.due().1;
            match idle.armed {
                // Put off: it has been touched. The timer looks again after this turn at the earliest.
                Some(armed) if idle.place <= looks && clock::moment(due) > clock::moment(armed) => {
                    idle.armed = Some(due);
                    idle.place = clock::tick(due).max(looks + 1);
                }
                Some(armed) if idle.place <= looks => {
                    idle.armed = None;
                    let tick = in_order(clock::tick(armed));
                    groups.entry(tick).or_default().push((i, IDLE));
                }
                _ => {}
            }
        }
        self.turned = now;
        let mut groups = Vec::from_iter(groups.into_values());
        // What has much below is marked in several steps, and others meanwhile.
        let tops = groups.iter().flatten().map(|&(top, _)| top);
        if tops.map(|top| self.size(top)).max() >= Some(MARKED_AT_ONCE) {
            groups = vec![groups.concat()];
        }
        let mut marked = Vec::new();
        for group in &groups {
            marked.extend(self.mark(group, true));
        }
        Due {
            marked,
            jobs: std::mem::take(&mut self.jobs),
        }
    }

    /// About how many nodes there are at and below it: some are free.
    fn size(&self, top: usize) -> usize {
        let below = self.below(top);
        let waiters = self.waiters.iter().filter_map(|waiter| waiter.fact);
        let callbacks = self.callbacks.iter().map(|callback| callback.fact);
        let there = waiters.chain(callbacks);
        below.len() + there.filter(|fact| below.contains(fact)).count()
    }

    /// Workers do what an `expire` has left to them.
    pub fn fire(&mut self, due: Due) {
        let mut then = self.wake_and_tell(&due.marked);
        for job in due.jobs {
            match job {
                // Not, if a worker that was sent before had it already.
                Job::Callback(callback) if !self.callbacks[callback].queued => {}
                Job::Callback(callback) => then.extend(self.run(callback)),
                Job::Cancel(fact, cause) => then.push((fact, cause)),
                Job::Rest(marked) => then.extend(self.wake_and_tell(&marked)),
            }
        }
        self.cancel_in_any_order(then);
    }
}

/// The earlier one; of two that are not exact, what the earlier one may be.
pub fn earlier(one: Option<Span>, other: Option<Span>) -> Option<Span> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.min(other.1))),
        (one, other) => one.or(other),
    }
}
