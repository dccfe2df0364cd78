//! Two phases of a cancel: what is below is told softly, and has a while to clean up; then it is over.
//!
//! It takes no new state in the tree: a *hard* token of its own, and a *soft* one, a child of the outer context's. The soft
//! one has a waker in its slot from the beginning, which sets the deadline of the hard one. A shield is a child of the hard
//! token. Which that is stands among the values, where every derived context finds it, also one that was derived when
//! all is cancelled already and so has no token above it.
//!
//! The soft token need not be below the hard one: that is cancelled by the deadline that the soft cancel has set, or by what is
//! above it, the hard token of an outer grace, and then the outer context is done already.

use super::chain::{Chain, Step};
use super::limit::Limit;
use super::values::Values;
use super::{CancelGuard, Context};
use crate::tree::{Cause, ContextError, Handle, Moving};
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;
use std::time::{Duration, Instant};

/// Among the values of a context: the grace that it is under. None: none any more, by `without_cancel`.
struct Under(Option<Grace>);

#[derive(Clone)]
struct Grace {
    hard: Handle,
    /// What bounds a shield where nothing has begun. None: it grants no time, and a shield is a plain child; it only ends the graces below.
    period: Option<Duration>,
    /// What has begun ends within that. Under several graces it may be the one that takes longest; below a bounded shield there is
    /// none that could begin.
    longest: Duration,
    is_shielded: bool,
}

/// So many steps up it is asked whether one grace is within another.
const NEAR: usize = 64;

impl Grace {
    fn is_as(&self, other: &Grace) -> bool {
        let what = |grace: &Grace| {
            let times = (grace.period, grace.longest);
            (grace.hard.address(), times, grace.is_shielded)
        };
        what(self) == what(other)
    }
}

/// The cause of the hard cancel. Where the soft one was the end of another grace, that one's first: they do not pile up.
fn over(first: Cause) -> Cause {
    let first = match first.downcast_ref::<GraceOver>() {
        Some(over) => over.first.clone(),
        None => first,
    };
    Cause::with_kind(ContextError::DeadlineExceeded, GraceOver { first })
}

/// # Graces and shields
impl Context {
    /// Creates a context that is done when this one is, but whose [shields](Self::shield) then have `grace` to clean up. So a
    /// cancel has two phases. First it is *soft*: everything below is done, as usual. When the grace is over it is *hard*: then
    /// shields are done too, with the cause [`GraceOver`]. A grace is bounded by the one above it: when the outer one
    /// is over, so are the inner ones.
    ///
    /// The grace counts from the cancel or the deadline of this context or one above, and is shared by everything
    /// below. Its clock is started when tasks are woken: behind the wakers of those that waited there before. A cancel by a guard further below does not start it, so add the grace where the cancel comes from: to
    /// the context of the server, or of the request. A [`Group`](crate::Group) that was made under a grace is over at once when a
    /// task of it fails, or when it is cancelled itself: shields in it are done then too, also those of a grace that was made
    /// inside the group. The end of a group that was made under none is a cancel like any other: a grace that was made inside it
    /// begins then.
    ///
    /// ```
    /// use cancel_tree::{Context, GraceOver};
    /// use std::time::{Duration, Instant};
    ///
    /// let grace = Duration::from_millis(20);
    /// let (server, shutdown) = Context::background().with_cancel();
    /// let ctx = server.with_grace(grace);
    /// let (request, _guard) = ctx.with_timeout(Duration::from_secs(30));
    /// let end = Instant::now();
    /// shutdown.cancel_with("shutting down");
    ///
    /// assert!(request.is_done());
    /// let cleanup = request.shield(); // there is time to write down what was done
    /// assert!(cleanup.deadline().unwrap() >= end + grace);
    /// cleanup.blocking_wait(); // it takes too long
    /// let cause = cleanup.cause().unwrap();
    /// let over = cause.downcast_ref::<GraceOver>().unwrap();
    /// assert_eq!(over.first().to_string(), "shutting down");
    /// ```
    ///
    /// [`Duration::MAX`], and what the clock cannot express, is a grace without an end of its own.
    ///
    /// Cost: about 10 allocations. What is derived from it costs what a context with a value costs.
    pub fn with_grace(&self, grace: Duration) -> Context {
        let outer = self.grace();
        let hard = match outer {
            Some(outer) => outer.hard.child(),
            None => Handle::root(),
        };
        let soft = match &self.token {
            // Done by the hard one alone: there is nothing to start.
            None => {
                if !hard.is_cancelled() {
                    hard.make_movable(Moving::new(self.clock()), None);
                }
                hard.child()
            }
            Some(above) => {
                let soft = above.handle().child();
                if !hard.is_cancelled() {
                    let after = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
                    // Where the outer one is done already, this one begins with its grace.
                    hard.start_with(&soft, Moving::new(self.clock()), after, over);
                }
                soft
            }
        };
        Context {
            // What is done already has nothing above it that could be asked.
            limit: self.limit_below(&soft),
            token: Some(soft.into()),
            values: self.values_under(
                Grace {
                    hard,
                    period: Some(grace),
                    longest: grace,
                    is_shielded: self.is_shielded(),
                },
                self.chain,
            ),
            chain: Chain::new(Step::Grace),
        }
    }

    /// Creates a context with the values of this one for what has to be done after the cancel. It is done when the
    /// [grace](Self::with_grace) above this one is over; all shields under a grace share what is
    /// left of it. A shield can be cancelled on its own: `ctx.shield().with_cancel()` has a guard.
    ///
    /// Without a grace there is no time after the cancel, and a shield is a plain child. For a shield without a bound, use
    /// [`without_cancel`](Self::without_cancel).
    ///
    /// If the context was cancelled by a guard below the grace, which has not begun, the shield has as long as the
    /// grace would be, from this call; also while a cancel from above is still on its way. If a grace further out has begun and leaves
    /// less, it has that. What is made below such a shield, its own shields too, is within its bound.
    ///
    /// A callback whose registration was dropped stays on a shield as long as there is a context under the grace, or a token below a
    /// shield; once the grace has begun, until it is over.
    ///
    /// A shield, or a token below one, keeps the context that the grace was made for, which starts the clock. So a callback on that
    /// context, or above, that owns a shield or such a token, and whose registration was dropped, stays until that context is cancelled.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// # use std::time::Duration;
    /// let (server, shutdown) = Context::background().with_cancel();
    /// let ctx = server.with_grace(Duration::from_secs(5));
    /// shutdown.cancel();
    /// let cleanup = ctx.shield();
    /// assert!(ctx.is_done() && !cleanup.is_done());
    /// assert!(cleanup.remaining().unwrap() <= Duration::from_secs(5));
    /// ```
    #[doc(alias("NonCancellable", "CancelScope"))]
    pub fn shield(&self) -> Context {
        let grace = self.grace().filter(|_| self.token.is_some());
        let Some((grace, period)) = grace.and_then(|grace| Some((grace, grace.period?))) else {
            return self.child();
        };
        let token = grace.hard.child();
        let limit = if token.is_cancelled() {
            grace.hard.deadline(&self.clock()).0.into()
        } else {
            Limit::Asked
        };
        let shield = Context {
            token: Some(token.into()),
            limit,
            values: self.values_under(
                Grace {
                    is_shielded: true,
                    ..grace.clone()
                },
                self.chain,
            ),
            chain: Chain::new(Step::Shield),
        };
        // Also where a soft cancel is just on its way, or a worker is to go on with it: from now on there is a bound. The end that is
        // found may be that of a grace further out, and later than this one would be.
        let has_begun = || {
            let clock = grace.hard.clock();
            let end = grace.hard.deadline(&clock).0;
            // After that look: what has begun by then ends by the latter.
            let now = clock.map_or_else(Instant::now, |clock| clock.now_marked());
            let latest = now.checked_add(grace.longest);
            end.is_some_and(|end| latest.is_none_or(|latest| end <= latest))
        };
        match self.why_ended() {
            Some(first) if !shield.has_ended() && !has_begun() => {
                let now = self
                    .clock()
                    .map_or_else(|| self.now(), |clock| clock.now_marked());
                // A grace that ends beyond the clock never does.
                let Some(end) = now.checked_add(period) else {
                    return shield;
                };
                let (bounded, guard) = shield.with_deadline_cause(end, over(first));
                guard.detach();
                // What is made below it, its shields too, is within that bound.
                let Some(hard) = bounded.token.as_ref().map(|token| token.handle().clone()) else {
                    return bounded;
                };
                let under = Grace {
                    hard,
                    period: grace.period,
                    longest: Duration::ZERO,
                    is_shielded: true,
                };
                Context {
                    values: self.values_under(under, self.chain),
                    ..bounded
                }
            }
            _ => shield,
        }
    }

    /// Creates a context with the values of this one that is never done: for work that has to be finished
    /// after the request. It has no deadline and no cause either. (Go's `WithoutCancel`.)
    ///
    /// A name among the values is kept with them (feature `inspect`): the context with that name lives as long as this one, and once done
    /// it is shown as still held. Name this one, by [`with_name`](Self::with_name), to see what holds it.
    #[doc(alias("WithoutCancel", "detach"))]
    pub fn without_cancel(&self) -> Context {
        Context {
            token: None,
            limit: Limit::Never,
            values: self.values.clone(),
            chain: self.chain.then(Step::WithoutCancel),
        }
        .without_grace()
    }

    /// Returns `true` if the context, or one above, is a [shield](Self::shield) from the soft cancel.
    #[must_use]
    pub fn is_shielded(&self) -> bool {
        self.grace().is_some_and(|grace| grace.is_shielded)
    }

    fn grace(&self) -> Option<&Grace> {
        self.values.get::<Under>()?.0.as_ref()
    }

    fn values_under(&self, grace: Grace, chain: Chain) -> Values {
        self.values.with(Under(Some(grace)), chain)
    }

    /// For one that is done when any of the others is, too: under their graces as well as its own. Shields end with the first of
    /// these that is over.
    pub(super) fn with_graces_of(self, others: &[&Context]) -> Context {
        let own = self.grace();
        let others = others.iter().filter_map(|other| other.grace());
        let mut graces: Vec<&Grace> = own.into_iter().chain(others).collect();
        if graces.is_empty() {
            return self;
        }
        let is_shielded = graces.iter().any(|grace| grace.is_shielded);
        let period = graces.iter().filter_map(|grace| grace.period).min();
        let longest = graces.iter().map(|grace| grace.longest).max();
        if let Some(&over) = graces.iter().find(|grace| grace.hard.is_cancelled()) {
            // Shields are done, and say when this one was over.
            graces = [over].into();
        }
        graces.sort_by_key(|grace| grace.hard.address());
        graces.dedup_by_key(|grace| grace.hard.address());
        if let [one, other] = graces[..] {
            // What is within another one ends with it. That is for those that are near: in a long row, each over the one before, every look
            // would go over all of them, and both together say the same.
            if one.hard.is_below_within(NEAR, &other.hard) {
                graces.pop();
            } else if other.hard.is_below_within(NEAR, &one.hard) {
                graces.remove(0);
            }
        }
        let under = Grace {
            hard: match graces[..] {
                [one] => one.hard.clone(),
                _ => Handle::any_of(graces.iter().map(|grace| &grace.hard).enumerate()),
            },
            period,
            longest: longest.unwrap_or_default(),
            is_shielded,
        };
        if own.is_some_and(|own| own.is_as(&under)) {
            return self;
        }
        Context {
            values: self.values_under(under, self.chain),
            chain: Chain::new(Step::Grace),
            ..self
        }
    }

    /// For a context that is never done, and so has no grace.
    fn without_grace(self) -> Context {
        if self.grace().is_none() {
            return self;
        }
        Context {
            values: self.values.with(Under(None), self.chain),
            chain: Chain::none(),
            ..self
        }
    }

    /// For a group: a context below this one, and the right to cancel it, shields and all.
    pub(crate) fn with_hard_cancel(&self) -> (Context, CancelGuard) {
        let grace = self.grace().filter(|grace| grace.period.is_some());
        let Some((grace, above)) = grace.zip(self.token.as_ref()) else {
            return self.with_cancel();
        };
        let (hard, guard) = grace.hard.child_pair();
        let Some(soft) = above.handle().below_both(&hard) else {
            // Done already, and its shields are those of this one.
            drop((hard, guard));
            return self.with_cancel();
        };
        let ctx = Context {
            token: Some(soft.into()),
            limit: self.limit,
            values: self.values_under(
                Grace {
                    hard,
                    ..grace.clone()
                },
                self.chain,
            ),
            chain: Chain::new(Step::Cancel),
        };
        (ctx, CancelGuard::new(guard.into()))
    }

    /// For a server: this context, and the right to end the shields below it, those of graces that are made below too. It grants no grace: a shield
    /// without one is a plain child here, too, and a group's own end is no other.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn with_end_of_graces(&self) -> (Context, CancelGuard) {
        let (under, guard) = match self.grace() {
            Some(outer) => {
                let (hard, guard) = outer.hard.child_pair();
                let outer = outer.clone();
                (Grace { hard, ..outer }, guard)
            }
            None => {
                let (hard, guard) = Handle::root_pair();
                let under = Grace {
                    hard,
                    period: None,
                    longest: Duration::ZERO,
                    is_shielded: false,
                };
                (under, guard)
            }
        };
        let ctx = Context {
            values: self.values_under(under, self.chain),
            chain: Chain::none(),
            ..self.clone()
        };
        (ctx, CancelGuard::new(guard.into()))
    }
}

/// The cause of the hard cancel: what was cancelled had a [grace](Context::with_grace), and that is over. Its
/// [`source`](Error::source) is the cause of the first, soft cancel, and never another one of this type. Its kind is [`ContextError::DeadlineExceeded`].
#[derive(Clone, Debug)]
pub struct GraceOver {
    first: Cause,
}

impl GraceOver {
    /// Returns the cause of the soft cancel. If that was the end of another grace, it is the cause of that one's.
    #[must_use]
    pub fn first(&self) -> &Cause {
        &self.first
    }
}

impl fmt::Display for GraceOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the grace is over")
    }
}

impl Error for GraceOver {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.first)
    }
}
