//! What several threads did and saw, and what must hold of it whatever the order was.

use crate::probes::{over, FIRST_CAUSE, IDLE};
use crate::span::Span;
use crate::tasks::{Known, TaskEvent, Tasks};

/// Facts are tokens and contexts; each has a number greater than its parents'.
#[derive(Debug)]
pub enum Event {
    Made {
        fact: usize,
        parents: Vec<usize>,
        /// The tick of its own deadline, and its cause.
        deadline: Option<(u64, u32)>,
    },
    /// The deadline of this fact moves: first it is that.
    Movable { fact: usize, deadline: Option<u64> },
    /// It was moved, if that was in time.
    Moved {
        fact: usize,
        to: Moved,
        in_time: bool,
    },
    /// This fact has an idle timeout of so many ticks.
    Idle { fact: usize, ticks: u64 },
    /// It was touched at this tick of the test clock.
    Touched { fact: usize, at: u64 },
    /// Somebody has slept below the fact, and so looked at the real clock.
    Slept,
    /// A grace: when the soft one is done, the hard one is done at the next turn, or, if the grace is that long, never.
    Grace {
        hard: usize,
        soft: usize,
        is_long: bool,
    },
    /// A shield of this context under a grace that is not long. If that one was done already, by itself, it is done at once.
    Shield { fact: usize, of: usize },
    /// Whether it was the first one, as it says.
    Cancel {
        fact: usize,
        cause: u32,
        first: Option<bool>,
    },
    /// A handle has gone, which may have been the last: then it has cancelled.
    MayCancel { fact: usize },
    /// Of tasks.
    Task(TaskEvent),
    /// Not cancelled, or the cause if it was asked for.
    Seen { fact: usize, seen: Seen },
    /// The service was turned up to this tick.
    Turn { tick: u64 },
    /// Somebody waits, from now on.
    Told(Told),
}

/// What a deadline was moved to.
#[derive(Clone, Copy, Debug)]
pub enum Moved {
    To(Option<u64>),
    /// Later than it was.
    Later,
}

impl Moved {
    /// Whether it has passed at this tick. None: perhaps.
    fn is_due(self, tick: u64) -> Option<bool> {
        match self {
            Moved::To(deadline) => Some(deadline.is_some_and(|due| due <= tick)),
            Moved::Later => None,
        }
    }
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

impl Attempt {
    /// The end of a grace that this may have begun, some time.
    fn ends(&self, fact: usize) -> Attempt {
        Attempt {
            fact,
            cause: over(self.cause),
            first: None,
            span: Span {
                begin: self.span.begin,
                end: u64::MAX,
            },
            certain: false,
        }
    }
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
    pub groups: Vec<Known>,
}

impl History {
    pub fn note(&mut self, span: Span, event: Event) {
        self.events.push((span, event));
    }

    pub fn check(&self) {
        let check = Check::new(&self.events);
        check.check();
        let events = self.events.iter().filter_map(|(span, event)| match event {
            Event::Task(event) => Some((*span, event)),
            _ => None,
        });
        let tasks = Tasks {
            groups: &self.groups,
            events: events.collect(),
        };
        for (span, event) in &tasks.events {
            if let TaskEvent::Was { group, entered, .. } = event {
                let fact = self.groups[*group].fact;
                let was_done = check.was_done(fact, *entered);
                assert!(!was_done, "let in by what is done: {event:?} at {span:?}");
            }
        }
        tasks.check();
        check.check_joins(&tasks);
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
                Event::MayCancel { fact } => attempts.push(Attempt {
                    fact,
                    cause: 0,
                    first: None,
                    span,
                    certain: false,
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
        let mut check = Check {
            events,
            made,
            above,
            attempts,
        };
        check.add_moving();
        check.add_idle();
        check.add_graces();
        check
    }

    fn turns(&self) -> impl Iterator<Item = (Span, u64)> + 'a {
        self.events.iter().filter_map(|(span, event)| match event {
            Event::Turn { tick } => Some((*span, *tick)),
            _ => None,
        })
    }

    /// What deadlines that move have done: at each turn, by what they can have been then.
    fn add_moving(&mut self) {
        for (span, event) in self.events {
            let &Event::Movable { fact, deadline } = event else {
                continue;
            };
            let mut values = vec![(*span, Moved::To(deadline))];
            values.extend(self.events.iter().filter_map(|(span, event)| match event {
                Event::Moved {
                    fact: moved,
                    to,
                    in_time: true,
                } if *moved == fact => Some((*span, *to)),
                _ => None,
            }));
            for (turn, tick) in self.turns() {
                if turn.is_before(*span) {
                    continue;
                }
                let is_over = |old: Span| {
                    let mut others = values.iter();
                    others.any(|(new, _)| old.is_before(*new) && new.is_before(turn))
                };
                let can_be = values
                    .iter()
                    .filter(|(value, _)| value.begin < turn.end && !is_over(*value));
                let due: Vec<_> = can_be.map(|(_, to)| to.is_due(tick)).collect();
                if due.iter().any(|due| *due != Some(false)) {
                    self.attempts.push(Attempt {
                        fact,
                        cause: 1,
                        first: None,
                        span: turn,
                        certain: span.is_before(turn) && due.iter().all(|due| *due == Some(true)),
                    });
                }
            }
        }
    }

    /// What idle timeouts have done. Without a touch they are over at the first turn, for the real clock is behind. What a
    /// turn has put off, the next one looks at again.
    fn add_idle(&mut self) {
        for (span, event) in self.events {
            let &Event::Idle { fact, ticks } = event else {
                continue;
            };
            let touches = self.events.iter().filter_map(|(span, event)| match event {
                Event::Touched { fact: touched, at } if *touched == fact => {
                    Some((*span, at + ticks))
                }
                _ => None,
            });
            let touches: Vec<(Span, u64)> = touches.collect();
            let turns: Vec<(Span, u64)> = self.turns().collect();
            let mut attempt = |span, certain| {
                self.attempts.push(Attempt {
                    fact,
                    cause: IDLE,
                    first: None,
                    span,
                    certain,
                });
            };
            for &(turn, tick) in &turns {
                if turn.is_before(*span) {
                    continue;
                }
                let counts = touches.iter().filter(|(touch, _)| touch.is_before(turn));
                if counts
                    .map(|(_, due)| *due)
                    .max()
                    .is_none_or(|due| due <= tick)
                {
                    let begun = touches.iter().filter(|(touch, _)| touch.begin < turn.end);
                    let latest = begun.clone().map(|(_, due)| *due).max();
                    let seen_before = |latest: u64| {
                        turns.iter().any(|&(before, at)| {
                            before.is_before(turn)
                                && span.is_before(before)
                                && latest <= at
                                && at < tick
                                // One that moves no time looks at nothing that was put off.
                                && !turns.iter().any(|&(same, t)| t == at && same.is_before(before))
                                && begun.clone().all(|(touch, _)| touch.is_before(before))
                        })
                    };
                    attempt(turn, span.is_before(turn) && latest.is_none_or(seen_before));
                }
            }
            for (slept, event) in self.events {
                if matches!(event, Event::Slept) && !slept.is_before(*span) {
                    attempt(*slept, false);
                }
            }
        }
    }

    /// What follows from what was cancelled softly.
    fn add_graces(&mut self) {
        let mut graces: Vec<_> = self
            .events
            .iter()
            .filter_map(|(span, event)| match *event {
                Event::Grace {
                    hard,
                    soft,
                    is_long: false,
                } => Some((hard, *span, Ok(soft))),
                Event::Shield { fact, of } => Some((fact, *span, Err(of))),
                _ => None,
            })
            .collect();
        // Those around first.
        graces.sort_by_key(|grace| grace.0);
        let hards: Vec<_> = graces
            .iter()
            .filter_map(|&(hard, _, soft)| Some((hard, soft.ok()?)))
            .collect();
        for (hard, span, soft) in graces {
            let soft = match soft {
                Ok(soft) => soft,
                Err(of) => {
                    self.add_shield(hard, span, of, &hards);
                    continue;
                }
            };
            let begins = self
                .attempts(soft)
                .filter(|begin| !self.above[hard][begin.fact]);
            let mut ends: Vec<Attempt> = begins.map(|begin| begin.ends(hard)).collect();
            for (turn, _) in self.turns() {
                // Of two who cancel, one may still be at telling it.
                let is_told =
                    |begin: &Attempt| begin.span.is_before(turn) || turn.is_before(begin.span);
                if span.is_before(turn)
                    && self.was_done(soft, turn)
                    && self.attempts(soft).all(is_told)
                {
                    // Each of them may be the cause.
                    for begin in self.attempts(soft) {
                        if begin.span.is_before(turn) && !self.above[hard][begin.fact] {
                            ends.push(Attempt {
                                span: turn,
                                certain: true,
                                ..begin.ends(hard)
                            });
                        }
                    }
                }
            }
            self.attempts.append(&mut ends);
        }
    }

    /// A shield of what had been cancelled by itself has time of its own: none, here. Of the graces their hard and soft ones.
    fn add_shield(&mut self, fact: usize, span: Span, of: usize, graces: &[(usize, usize)]) {
        let has_begun = |soft| self.attempts(soft).any(|begin| begin.span.begin < span.end);
        let mut above = graces.iter().filter(|(hard, _)| self.above[fact][*hard]);
        let certain = self.was_done(of, span) && !above.any(|(_, soft)| has_begun(*soft));
        let begins = self
            .attempts(of)
            .filter(|begin| begin.span.begin < span.end);
        let mut ends: Vec<Attempt> = begins
            .map(|begin| match certain {
                true => Attempt {
                    span,
                    certain,
                    ..begin.ends(fact)
                },
                false => begin.ends(fact),
            })
            .collect();
        self.attempts.append(&mut ends);
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
                Event::Moved { fact, in_time, .. } => self.check_moved(span, *fact, *in_time),
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

    /// Where an error of a task is what the group ended by, that is the first error, and `join` says so.
    fn check_joins(&self, tasks: &Tasks) {
        for (span, event) in &tasks.events {
            let &&TaskEvent::JoinedWith { group, number } = event else {
                continue;
            };
            let fact = tasks.groups[group].fact;
            let causes = self.events.iter().filter_map(|(_, event)| match event {
                Event::Seen {
                    fact: seen,
                    seen: Seen::Because(cause),
                } if *seen == fact => Some(*cause),
                _ => None,
            });
            for cause in causes {
                let is_error = self.attempts.iter().any(|attempt| {
                    attempt.fact == fact
                        && attempt.cause == cause
                        && attempt.cause >= FIRST_CAUSE
                        && attempt.first.is_none()
                        && attempt.certain
                });
                assert!(
                    !is_error || cause == number,
                    "ended by {cause}: {event:?} at {span:?}"
                );
            }
        }
    }

    fn check_moved(&self, span: Span, fact: usize, in_time: bool) {
        match in_time {
            true => assert!(
                !self.was_done(fact, span),
                "{fact} was moved when it was done, at {span:?}"
            ),
            false => {
                let mut all = self.attempts(fact);
                let too_late = all.any(|attempt| attempt.span.begin < span.end);
                assert!(too_late, "{fact} was not moved at {span:?}");
            }
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
