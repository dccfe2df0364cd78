//! Deadlines that move, idle timeouts, grace and shields.

use super::{Ctx, Limit, Right, When, World};
use arbitrary::Arbitrary;
use cancel_tree_fuzz::clock;
use cancel_tree_fuzz::oracle::{earlier, Span};
use cancel_tree_fuzz::probes::over;
use std::time::{Duration, Instant};

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Move {
    Set(When),
    SetTimeout(When),
    /// By so many ticks, times a power.
    Extend(u8, u8),
    TakeAway,
}

/// How long a grace is: the real clock counts, so nothing in between.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Period {
    Nothing,
    Ages,
    NoEnd,
}

impl Period {
    const AGES: Duration = Duration::from_secs(300 * 365 * 24 * 3600);

    fn as_duration(self) -> Option<Duration> {
        match self {
            Period::Nothing => Some(Duration::ZERO),
            Period::Ages => Some(Period::AGES),
            Period::NoEnd => None,
        }
    }
}

/// The grace that a context is under.
#[derive(Clone, Copy)]
pub struct Under {
    pub hard: usize,
    /// None: without end.
    pub period: Option<Duration>,
    /// Under several, that of the longest; below a bounded shield none.
    pub longest: Option<Duration>,
    pub is_shielded: bool,
}

fn exactly(at: Instant) -> Option<Span> {
    Some((at, at)).filter(|at| clock::is_for_the_timer(at.1))
}

impl World {
    pub(super) fn movable(&mut self, i: usize, when: Option<When>) {
        let from = self.contexts[i].clone();
        let deadline = when.map(|when| self.instant(when));
        let (ctx, guard) = from.ctx.with_movable_deadline(deadline);
        let fact = self.fact(Vec::from_iter(from.fact));
        let limit = if self.oracle.is_cancelled(fact) {
            Limit::Fixed(self.deadline_of(&from))
        } else {
            self.oracle.make_movable(fact);
            if let Some(deadline) = deadline {
                self.set(fact, deadline);
            }
            Limit::Asked
        };
        let shown = from.shown.then("with_movable_deadline");
        self.push(Some(&from), Some(fact), limit, shown, ctx);
        self.rights.push((fact, Right::Deadline(guard)));
    }

    /// What is set to the past is done at once, and a worker does the rest.
    fn set(&mut self, fact: usize, deadline: Instant) {
        self.oracle.move_to(fact, exactly(deadline));
        if deadline <= Instant::now() {
            self.oracle.expire_and_leave_the_rest(fact, 1);
        }
    }

    pub(super) fn idle(&mut self, i: usize, ticks: u8, power: u8) {
        let from = self.contexts[i].clone();
        let timeout = super::ticks_long(u64::from(ticks) << (6 * (power % 5)));
        let before = Instant::now();
        let (ctx, guard) = from.ctx.with_idle_timeout(timeout);
        let touched = (before, Instant::now());
        let fact = self.fact(Vec::from_iter(from.fact));
        let limit = if self.oracle.is_cancelled(fact) {
            Limit::Fixed(self.deadline_of(&from))
        } else {
            self.oracle.make_idle(fact, timeout, touched);
            Limit::Asked
        };
        let shown = from.shown.then("with_movable_deadline");
        self.push(Some(&from), Some(fact), limit, shown, ctx);
        self.rights.push((fact, Right::Idle(guard)));
    }

    fn right(&self, n: u8, is_it: impl Fn(&Right) -> bool) -> Option<usize> {
        let those = self.rights.iter().enumerate();
        let those: Vec<usize> = those.filter(|(_, r)| is_it(&r.1)).map(|r| r.0).collect();
        super::pick(those.len(), n).map(|i| those[i])
    }

    pub(super) fn move_deadline(&mut self, n: u8, how: Move) {
        let Some(i) = self.right(n, |right| matches!(right, Right::Deadline(_))) else {
            return;
        };
        let fact = self.rights[i].0;
        let in_time = !self.oracle.is_cancelled(fact);
        let when = match how {
            Move::Set(when) | Move::SetTimeout(when) => Some(self.instant(when)),
            _ => None,
        };
        let Right::Deadline(guard) = &self.rights[i].1 else {
            return;
        };
        let answer = match how {
            Move::Set(_) => guard.set(when.unwrap()),
            Move::SetTimeout(_) => {
                let before = Instant::now();
                let timeout = match when.unwrap().checked_duration_since(before) {
                    Some(timeout) if timeout > Duration::ZERO => timeout,
                    // No deadline.
                    _ => Duration::MAX,
                };
                let answer = guard.set_timeout(timeout);
                if in_time {
                    let span = before.checked_add(timeout);
                    let span = span.map(|from| (from, Instant::now() + timeout));
                    self.oracle.move_to(fact, span);
                }
                answer
            }
            Move::Extend(ticks, power) => {
                let by = super::ticks_long(u64::from(ticks) << (6 * (power % 6)));
                let answer = guard.extend(by);
                if in_time {
                    let later = self.oracle.moving(fact).map(|at| (at.0 + by, at.1 + by));
                    self.oracle.move_to(fact, later);
                }
                answer
            }
            Move::TakeAway => {
                let answer = guard.take_away();
                if in_time {
                    self.oracle.move_to(fact, None);
                }
                answer
            }
        };
        assert_eq!(answer, in_time, "{how:?}");
        if let (Move::Set(_), Some(deadline), true) = (how, when, in_time) {
            self.set(fact, deadline);
        }
    }

    pub(super) fn touch(&mut self, n: u8, when: When) {
        let Some(i) = self.right(n, |right| matches!(right, Right::Idle(_))) else {
            return;
        };
        let fact = self.rights[i].0;
        let at = self.instant(when).min(self.now);
        // After its own timeout it shows what has passed; after a cancel, the last touch.
        let is_over = match self.oracle.is_cancelled(fact) {
            false => false,
            true => match self.oracle.is_own_deadline(fact) {
                Some(is_over) => is_over,
                None => return,
            },
        };
        if let Right::Idle(guard) = &self.rights[i].1 {
            guard.touch_at(at);
            if !is_over {
                self.oracle.touch(fact, at);
            }
        }
    }

    // ----- grace ------------------------------------------------------------------------------

    pub(super) fn with_grace(&mut self, i: usize, period: Period) {
        let from = self.contexts[i].clone();
        let ctx = from
            .ctx
            .with_grace(period.as_duration().unwrap_or(Duration::MAX));
        let period = period.as_duration();
        let hard = self.fact(Vec::from_iter(from.under.map(|under| under.hard)));
        if !self.oracle.is_cancelled(hard) {
            self.oracle.make_movable(hard);
        }
        let soft = self.fact(vec![from.fact.unwrap_or(hard)]);
        let grace = self.oracle.add_grace(hard, soft, period);
        if self.oracle.is_cancelled(soft) {
            let because = self.oracle.verdict(soft).collect();
            self.oracle.begin_grace(grace, &because);
        }
        let limit = self.limit_below(&from, soft);
        let shown = from.shown.anew(Some("with_grace"));
        self.push(Some(&from), Some(soft), limit, shown, ctx);
        let made = self.contexts.last_mut().unwrap();
        made.keeps.push(grace);
        made.under = Some(Under {
            hard,
            period,
            longest: period,
            is_shielded: from.under.is_some_and(|under| under.is_shielded),
        });
    }

    pub(super) fn shield(&mut self, i: usize) {
        let from = self.contexts[i].clone();
        let before = Instant::now();
        let ctx = from.ctx.shield();
        let after = Instant::now();
        let (Some(fact), Some(under)) = (from.fact, from.under) else {
            let fact = from.fact.map(|fact| self.fact(vec![fact]));
            let limit = fact.map_or(from.limit, |fact| self.limit_below(&from, fact));
            let shown = from.shown.then("with_cancel");
            return self.push(Some(&from), fact, limit, shown, ctx);
        };
        let shield = self.fact(vec![under.hard]);
        let of_hard = self.oracle.deadline(under.hard).0;
        let mut limit = match self.oracle.is_cancelled(shield) {
            true => Limit::Fixed(of_hard),
            false => Limit::Asked,
        };
        let mut shown = from.shown.anew(Some("shield"));
        // What is made below is within its bound, if it has one.
        let (mut made, mut hard) = (shield, under.hard);
        let mut longest = under.longest;
        // The end that is known may be that of a grace further out, and then later than that of this one would be.
        let is_in_time = |end: Span| {
            let latest = under
                .longest
                .and_then(|longest| before.checked_add(longest));
            latest.is_none_or(|latest| end.1 <= latest)
        };
        let has_begun = of_hard.is_some_and(is_in_time);
        let is_done = self.oracle.is_cancelled(fact);
        let period = under.period.filter(|_| is_done && !has_begun);
        if let Some(period) = period.filter(|_| !self.oracle.is_cancelled(shield)) {
            // Cancelled by itself: as long as the grace would be, from now.
            made = self.fact(vec![shield]);
            (hard, longest) = (made, Some(Duration::ZERO));
            let because = self.oracle.verdict(fact).map(over).collect::<Vec<_>>();
            shown = shown.then("with_deadline");
            let own = (before + period, after + period);
            if period.is_zero() {
                self.oracle.expire_at_birth(made, own, because);
                limit = Limit::Fixed(earlier(self.oracle.deadline(shield).0, Some(own)));
            } else {
                self.oracle.set_deadline(made, own, because);
            }
        }
        self.push(Some(&from), Some(made), limit, shown, ctx);
        let made: &mut Ctx = self.contexts.last_mut().unwrap();
        made.under = Some(Under {
            hard,
            longest,
            is_shielded: true,
            ..under
        });
    }

    /// What an `any_of` of these is under; and whether that is not what the first one is under.
    pub(super) fn graces_of(&mut self, sources: &[Ctx]) -> (Option<Under>, bool) {
        let own = sources.first().and_then(|first| first.under);
        let mut graces: Vec<Under> = sources.iter().filter_map(|source| source.under).collect();
        let is_shielded = graces.iter().any(|grace| grace.is_shielded);
        let periods = graces.iter().filter_map(|grace| grace.period);
        let period = periods.min();
        let longest = graces.iter().map(|grace| grace.longest);
        // None: one has no end.
        let longest = longest
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().max());
        let over = |grace: &&Under| self.oracle.is_cancelled(grace.hard);
        if let Some(&over) = graces.iter().find(over) {
            graces = vec![over];
        }
        graces.sort_by_key(|grace| grace.hard);
        graces.dedup_by_key(|grace| grace.hard);
        if let [outer, inner] = graces[..] {
            // What is above is older.
            if self.oracle.is_below(inner.hard, outer.hard) {
                graces.remove(0);
            }
        }
        let hard = match graces[..] {
            [] => return (None, false),
            [one] => one.hard,
            _ => {
                let hards = graces.iter().map(|grace| grace.hard).collect();
                // A callback that is left on a shield waits for one of them.
                self.loses_callbacks.push(true);
                self.oracle.add_in_any_order(hards)
            }
        };
        let under = Under {
            hard,
            period,
            longest,
            is_shielded,
        };
        let what = |under: Under| (under.hard, under.period, under.longest, under.is_shielded);
        let is_own = |own: Under| what(own) == what(under);
        (Some(under), !own.is_some_and(is_own))
    }
}
