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

#[derive(Default)]
pub struct Oracle {
    facts: Vec<Fact>,
    pub callbacks: Vec<Callback>,
    pub waiters: Vec<Waiter>,
    /// Handles that callbacks share: what they lead to, while they do.
    pub links: Vec<Option<usize>>,
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

    /// All is marked before the first callback runs.
    pub fn cancel(&mut self, fact: usize, cause: u32) {
        let mut reached = self.below(fact);
        reached.retain(|&i| !self.is_cancelled(i));
        for &i in &reached {
            self.set_verdict(i, BTreeSet::from([cause]));
        }
        let then = reached.iter().flat_map(|&i| self.tell(i)).collect();
        self.cancel_in_any_order(then);
    }

    fn set_verdict(&mut self, fact: usize, verdict: BTreeSet<u32>) {
        self.facts[fact].verdict = Some(verdict);
        for waiter in &mut self.waiters {
            if waiter.fact == Some(fact) && waiter.pending {
                waiter.pending = false;
                waiter.rings += 1;
            }
        }
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
            self.set_verdict(i, verdict);
        }
    }

    /// Runs the callbacks of a fact that is being cancelled; what they cancel.
    fn tell(&mut self, fact: usize) -> Vec<Trigger> {
        let mut triggers = Vec::new();
        for i in 0..self.callbacks.len() {
            if self.callbacks[i].fact == fact && self.callbacks[i].registered {
                self.callbacks[i].registered = false;
                if self.callbacks[i].off_thread {
                    self.callbacks[i].queued = true;
                } else {
                    triggers.extend(self.run(i));
                }
            }
        }
        triggers
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

    /// At once, if the fact is cancelled.
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
            let then = self.tell(fact);
            self.cancel_in_any_order(then);
        }
    }

    /// The service takes what has come up to `now`: the callbacks run, of the deadlines it says which ones are to
    /// be fired, one group after the other, in any order within a group.
    pub fn turn(&mut self, now: u64) -> Vec<Vec<Trigger>> {
        let mut due = BTreeMap::<u64, Vec<Trigger>>::new();
        for (i, fact) in self.facts.iter_mut().enumerate() {
            if let Some((tick, cause)) = fact.deadline {
                // What came too late goes first, as it came.
                let tick = if tick <= self.turned { 0 } else { tick };
                if tick <= now.max(self.turned) {
                    fact.deadline = None;
                    due.entry(tick).or_default().push((i, cause));
                }
            }
        }
        self.turned = self.turned.max(now);
        let mut jobs = Vec::from_iter(0..self.callbacks.len());
        jobs.retain(|&i| self.callbacks[i].queued);
        let then = jobs.into_iter().filter_map(|job| self.run(job)).collect();
        self.cancel_in_any_order(then);
        due.into_values().collect()
    }

    pub fn fire(&mut self, due: Vec<Vec<Trigger>>) {
        for group in due {
            match group[..] {
                [(fact, cause)] => self.cancel(fact, cause),
                _ => self.cancel_in_any_order(group),
            }
        }
    }
}
