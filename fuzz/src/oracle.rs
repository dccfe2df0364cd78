//! The oracle: a simple single-threaded tree that says what must hold of tokens and contexts.
//!
//! It is a list of who has which parents; a cancel goes through all of it. Nothing is ever taken out, for what
//! nobody holds does no harm here. Where the order of things is not promised (callbacks, deadlines within one
//! tick), it keeps all causes that are possible, until one of them has been seen.

use std::collections::{BTreeMap, BTreeSet};

/// What is cancelled, and the number of the cause.
pub type Trigger = (usize, u32);

/// A token, or a context that is not shared with the one it was derived from.
struct Fact {
    /// Older than this one.
    parents: Vec<usize>,
    /// The causes that it may have, once it is cancelled.
    verdict: Option<BTreeSet<u32>>,
    /// The tick of its own deadline, and its cause.
    deadline: Option<(u64, u32)>,
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
}

impl Oracle {
    /// Of parents that are cancelled already the first decides, and then none of them is needed any more.
    pub fn add(&mut self, mut parents: Vec<usize>) -> usize {
        let verdict = parents
            .iter()
            .find_map(|&parent| self.facts[parent].verdict.clone());
        if verdict.is_some() {
            parents.clear();
        }
        self.facts.push(Fact {
            parents,
            verdict,
            deadline: None,
        });
        self.facts.len() - 1
    }

    pub fn set_deadline(&mut self, fact: usize, tick: u64, cause: u32) {
        self.facts[fact].deadline = Some((tick, cause));
    }

    pub fn is_cancelled(&self, fact: usize) -> bool {
        self.facts[fact].verdict.is_some()
    }

    /// The causes that it may have.
    pub fn verdict(&self, fact: usize) -> impl Iterator<Item = u32> + '_ {
        self.facts[fact].verdict.iter().flatten().copied()
    }

    /// The cause that was seen must be possible, and stands from now on.
    pub fn observe(&mut self, fact: usize, cause: Option<u32>) {
        let verdict = &mut self.facts[fact].verdict;
        match (cause, verdict) {
            (None, None) => {}
            (Some(cause), Some(possible)) if possible.contains(&cause) => {
                possible.retain(|&other| other == cause);
            }
            (cause, verdict) => panic!("{cause:?} was seen, not {verdict:?}"),
        }
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
        let reached = self.mark(&[(fact, cause)]);
        let then = self.wake_and_tell(&reached);
        self.cancel_in_any_order(then);
    }

    /// Sets all state, in any order; what has been cancelled by it. To wake that is the caller's.
    fn mark(&mut self, triggers: &[Trigger]) -> Vec<usize> {
        let mut reached = BTreeMap::<usize, BTreeSet<u32>>::new();
        for &(top, cause) in triggers {
            for i in self.below(top) {
                if !self.is_cancelled(i) {
                    reached.entry(i).or_default().insert(cause);
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
        let marked = self.mark(&[(fact, cause)]);
        self.jobs.push(Job::Rest(marked));
    }

    /// A worker is to cancel it.
    pub fn cancel_by_worker(&mut self, fact: usize, cause: u32) {
        self.jobs.push(Job::Cancel(fact, cause));
    }

    /// These, and what the callbacks do that they lead to.
    pub fn cancel_in_any_order(&mut self, mut triggers: Vec<Trigger>) {
        let mut reached = BTreeMap::<usize, BTreeSet<u32>>::new();
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
                reached.entry(i).or_default().insert(cause);
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
    /// the number of runs; whether it was so.
    pub fn was_called_early(&mut self, callback: usize, runs: usize) -> bool {
        let known = &self.callbacks[callback];
        let is_early = known.queued || known.registered && self.is_cancelled(known.fact);
        if !is_early || runs != known.runs + 1 {
            return false;
        }
        self.callbacks[callback].registered = false;
        let then = self.run(callback);
        self.cancel_in_any_order(Vec::from_iter(then));
        true
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
        for (i, fact) in self.facts.iter_mut().enumerate() {
            if let Some((tick, cause)) = fact.deadline {
                // What came too late goes first, as it came.
                let tick = if tick <= self.turned { 0 } else { tick };
                if tick <= now.max(self.turned) {
                    fact.deadline = None;
                    groups.entry(tick).or_default().push((i, cause));
                }
            }
        }
        self.turned = self.turned.max(now);
        let mut groups = Vec::from_iter(groups.into_values());
        // What has much below is marked in several steps, and others meanwhile.
        let tops = groups.iter().flatten().map(|&(top, _)| top);
        if tops.map(|top| self.size(top)).max() >= Some(MARKED_AT_ONCE) {
            groups = vec![groups.concat()];
        }
        let mut marked = Vec::new();
        for group in &groups {
            marked.extend(self.mark(group));
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
