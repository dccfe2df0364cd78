//! What several threads did and saw, and what must hold of it whatever the order was.
//!
//! Each operation has a time stamp from before and from after it. Of two operations one is known to be earlier only
//! if it was over before the other one began.

use std::sync::atomic::{AtomicU64, Ordering};

static CLOCK: AtomicU64 = AtomicU64::new(1);

pub fn stamp() -> u64 {
    CLOCK.fetch_add(1, Ordering::SeqCst)
}

#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub begin: u64,
    pub end: u64,
}

impl Span {
    pub fn of<T>(operation: impl FnOnce() -> T) -> (Span, T) {
        let begin = stamp();
        let answer = operation();
        let end = stamp();
        (Span { begin, end }, answer)
    }

    fn is_before(self, other: Span) -> bool {
        self.end < other.begin
    }
}

/// Facts are tokens and contexts; each has a number greater than its parents'.
#[derive(Debug)]
pub enum Event {
    Made {
        fact: usize,
        parents: Vec<usize>,
        /// The tick of its own deadline, and its cause.
        deadline: Option<(u64, u32)>,
    },
    /// Whether it was the first one, as it says.
    Cancel {
        fact: usize,
        cause: u32,
        first: Option<bool>,
    },
    /// Not cancelled, or the cause if it was asked for.
    Seen { fact: usize, seen: Seen },
    /// The service was turned up to this tick.
    Turn { tick: u64 },
    /// Somebody waits, from now on.
    Told(Told),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    Live,
    Done,
    Because(u32),
}

/// A waker or a callback, when all is over.
#[derive(Debug)]
pub struct Told {
    pub fact: usize,
    pub how_often: usize,
    pub first: u64,
    /// It was given up before it was told.
    pub given_up: bool,
    /// Callbacks are told once, and nobody has to look whether they are; wakers more often.
    pub is_callback: bool,
    /// The service does it, some time.
    pub off_thread: bool,
}

/// A cancel, or a deadline in a turn of the service.
#[derive(Debug)]
struct Attempt {
    fact: usize,
    cause: u32,
    first: Option<bool>,
    span: Span,
    /// When it is over, the fact is cancelled.
    certain: bool,
}

#[derive(Default)]
pub struct History {
    pub events: Vec<(Span, Event)>,
}

impl History {
    pub fn note(&mut self, span: Span, event: Event) {
        self.events.push((span, event));
    }

    pub fn check(&self) {
        Check::new(&self.events).check();
    }
}

struct Check<'a> {
    events: &'a [(Span, Event)],
    /// When each fact was made.
    made: Vec<Option<Span>>,
    /// `above[fact]`: itself and those above.
    above: Vec<Vec<bool>>,
    attempts: Vec<Attempt>,
}

impl<'a> Check<'a> {
    fn new(events: &'a [(Span, Event)]) -> Check<'a> {
        let mut facts = Vec::new();
        for (span, event) in events {
            if let Event::Made {
                fact,
                parents,
                deadline,
            } = event
            {
                facts.push((*fact, *span, parents, *deadline));
            }
        }
        facts.sort_by_key(|fact| fact.0);
        let len = facts.last().map_or(0, |last| last.0 + 1);
        let mut made = vec![None; len];
        let mut above = vec![vec![false; len]; len];
        for &(fact, span, parents, _) in &facts {
            made[fact] = Some(span);
            let mut own = vec![false; len];
            own[fact] = true;
            for &parent in parents {
                own.iter_mut()
                    .zip(&above[parent])
                    .for_each(|(own, is)| *own |= is);
            }
            above[fact] = own;
        }
        let mut attempts = Vec::new();
        for (span, event) in events {
            let span = *span;
            match *event {
                Event::Cancel { fact, cause, first } => attempts.push(Attempt {
                    fact,
                    cause,
                    first,
                    span,
                    certain: true,
                }),
                Event::Turn { tick } => {
                    for &(fact, made, _, deadline) in &facts {
                        let Some((due, cause)) = deadline else {
                            continue;
                        };
                        if due <= tick && !span.is_before(made) {
                            attempts.push(Attempt {
                                fact,
                                cause,
                                first: None,
                                span,
                                certain: made.is_before(span),
                            });
                        }
                    }
                }
                _ => {}
            }
        }
        Check {
            events,
            made,
            above,
            attempts,
        }
    }

    /// Those that concern the fact.
    fn attempts(&self, fact: usize) -> impl Iterator<Item = &Attempt> {
        let above = &self.above[fact];
        self.attempts
            .iter()
            .filter(move |attempt| above[attempt.fact])
    }

    /// The fact was cancelled already when this began.
    fn was_done(&self, fact: usize, before: Span) -> bool {
        let existed = self.made[fact].is_some_and(|made| made.is_before(before));
        existed
            && self
                .attempts(fact)
                .any(|other| other.certain && other.span.is_before(before))
    }

    /// Whether the attempt can have been what cancelled the fact.
    fn can_have_won(&self, attempt: &Attempt, fact: usize) -> bool {
        attempt.first != Some(false)
            && !self.was_done(attempt.fact, attempt.span)
            && !self.was_done(fact, attempt.span)
    }

    fn check(&self) {
        for attempt in &self.attempts {
            self.check_first(attempt);
        }
        for &(span, ref event) in self.events {
            match event {
                Event::Seen { fact, seen } => self.check_seen(span, *fact, *seen),
                Event::Told(told) => self.check_told(span, told),
                _ => {}
            }
        }
        self.check_that_it_stays();
    }

    fn check_first(&self, attempt: &Attempt) {
        let others = || {
            self.attempts(attempt.fact)
                .filter(|other| !std::ptr::eq(*other, attempt))
        };
        match attempt.first {
            Some(true) => {
                assert!(
                    !self.was_done(attempt.fact, attempt.span),
                    "not the first: {attempt:?}"
                );
                let rival = others().find(|o| o.fact == attempt.fact && o.first == Some(true));
                assert!(rival.is_none(), "two were first: {attempt:?} {rival:?}");
            }
            Some(false) => {
                let faster = others().any(|other| other.span.begin < attempt.span.end);
                assert!(faster, "nobody was faster: {attempt:?}");
            }
            None => {}
        }
    }

    fn check_seen(&self, span: Span, fact: usize, seen: Seen) {
        let over = |attempt: &&Attempt| attempt.certain && attempt.span.is_before(span);
        let begun = |attempt: &&Attempt| attempt.span.begin < span.end;
        match seen {
            Seen::Live => {
                let missed = self.attempts(fact).find(over);
                assert!(missed.is_none(), "{fact} at {span:?} has missed {missed:?}");
            }
            Seen::Done => {
                let any = self.attempts(fact).find(begun);
                assert!(any.is_some(), "{fact} at {span:?} is cancelled for nothing");
            }
            Seen::Because(cause) => {
                let because = self
                    .attempts(fact)
                    .filter(begun)
                    .find(|attempt| attempt.cause == cause && self.can_have_won(attempt, fact));
                assert!(
                    because.is_some(),
                    "{fact} at {span:?} has the cause {cause}"
                );
                let first = self
                    .attempts
                    .iter()
                    .find(|attempt| attempt.fact == fact && attempt.first == Some(true));
                if let Some(first) = first {
                    assert_eq!(cause, first.cause, "{fact} at {span:?}");
                }
            }
        }
    }

    /// Once cancelled, always, and for one cause.
    fn check_that_it_stays(&self) {
        let mut of_fact = vec![Vec::new(); self.made.len()];
        for (span, event) in self.events {
            if let Event::Seen { fact, seen } = event {
                of_fact[*fact].push((*span, *seen));
            }
        }
        for (fact, mut seen) in of_fact.into_iter().enumerate() {
            let mut causes = seen.iter().filter_map(|(_, seen)| match seen {
                Seen::Because(cause) => Some(*cause),
                _ => None,
            });
            if let Some(cause) = causes.next() {
                assert!(
                    causes.all(|other| other == cause),
                    "{fact} has several causes"
                );
            }
            seen.sort_by_key(|(span, _)| span.end);
            let done = seen.iter().find(|(_, seen)| *seen != Seen::Live);
            if let Some(&(done, _)) = done {
                let undone = seen
                    .iter()
                    .find(|(span, seen)| done.is_before(*span) && *seen == Seen::Live);
                assert!(
                    undone.is_none(),
                    "{fact} was cancelled at {done:?}, and not at {undone:?}"
                );
            }
        }
    }

    /// `span`: the registration.
    fn check_told(&self, span: Span, told: &Told) {
        let certain = self.attempts(told.fact).any(|attempt| attempt.certain);
        if told.how_often != 0 {
            let cause = self
                .attempts(told.fact)
                .find(|attempt| attempt.span.begin < told.first);
            assert!(cause.is_some(), "told for nothing: {told:?}");
            assert!(
                !(told.is_callback && told.given_up),
                "stopped, and has run: {told:?}"
            );
            assert!(
                told.how_often == 1 || !told.is_callback,
                "told again: {told:?}"
            );
        } else if !told.given_up {
            assert!(!certain, "not told: {told:?} of {span:?}");
        }
        // Who is the only one to cancel it does not return before all have been told.
        let mut all = self.attempts(told.fact);
        if let (Some(only), None) = (all.next(), all.next()) {
            if only.certain && span.is_before(only.span) && !told.given_up && !told.off_thread {
                assert!(
                    told.first < only.span.end,
                    "told late: {told:?} of {only:?}"
                );
            }
        }
    }
}
