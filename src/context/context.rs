//! Contexts: a token, a deadline and values, passed down from caller to callee.

use super::chain::{Chain, Step};
use super::limit::Limit;
use super::origin::Origin;
use super::values::Values;
use super::{CancelGuard, DoneSignal, ForeignContext};
use crate::timer;
use crate::timer::clock::{self, Moment};
use crate::timer::testing::Clock;
use crate::token::CancellationToken;
use crate::tree::Handle;
use crate::tree::{Cause, ContextError};
use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::any::{Any, TypeId};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a request carries through a program: when to stop, and what belongs to it. The counterpart of Go's
/// `context.Context`.
///
/// It goes down from caller to callee as the first parameter, named `ctx`, by reference. Code that starts
/// something derives a context for it. A context tells whether to stop, but cannot stop others: that right is a
/// separate value, the [`CancelGuard`].
///
/// ```
/// use cancel_tree::{Context, ContextError};
/// use std::time::Duration;
///
/// fn lookup(ctx: &Context, key: &str) -> Result<usize, ContextError> {
///     for _ in 0..key.len() {
///         ctx.check()?; // stop here if the caller does not want it any more
///     }
///     Ok(key.len())
/// }
///
/// let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(30));
/// assert_eq!(lookup(&ctx, "tea"), Ok(3));
/// ```
///
/// Clones are the same context. Dropping a context does nothing to those derived from it.
///
/// # Deadlines
///
/// The deadline of a context is the earliest of its own and those above. When it passes, the context and
/// everything below are cancelled with [`ContextError::DeadlineExceeded`], never before the deadline, and
/// after it as soon as the process's timer thread gets to run: its resolution is an eighth of a
/// millisecond. Wakers and callbacks run on a worker thread then. Time is that of [`Instant`]: on Linux it stands
/// still while the machine is suspended.
///
/// A child process made by `fork` without `exec` has no timer thread: deadlines do not pass there for polling
/// code, but threads that block in [`blocking_wait`](Self::blocking_wait), [`blocking_sleep`](Self::blocking_sleep) or
/// [`block_on`](Self::block_on) notice them, and wake and call whoever waits for them. `after_func` callbacks do not run there.
/// That a parent of [another crate](Self::below) is done is noticed there by threads that block below it; see [`DoneSignal`](crate::DoneSignal).
/// The memory of deadlines is not all given back there.
///
/// Deadlines are noticed in their order as far as the timer keeps up: where more than some 250 pass within an eighth of a
/// millisecond, or sixteen when its thread comes late by some milliseconds, a later one above may be first, and give its cause.
/// Of very many of one moment the first are woken after a
/// millisecond, or when 16,384 are marked, though others are not marked yet.
///
/// # Memory ordering
///
/// As for [`CancellationToken`]: what a thread did before it cancelled is visible to every thread that has
/// seen the cancel.
///
/// # Cost
///
/// In atomic read-modify-writes (RMWs), in the steady state: [`with_cancel`](Self::with_cancel) 1, dropping what it
/// returns 2; a deadline 1 RMW and a reading of the clock more, and 1 more to drop it; no allocation for any of
/// these. Values add 1 to making and to dropping any context that has them. [`err`](Self::err), [`is_done`](Self::is_done) and [`deadline`](Self::deadline) are loads. `clone`
/// 1, or 2 with values.
#[derive(Clone)]
#[must_use]
pub struct Context {
    /// None: never cancelled.
    pub(super) token: Option<CancellationToken>,
    /// The earliest of this one's and those above.
    pub(super) limit: Limit,
    pub(super) values: Values,
    pub(super) chain: Chain,
}

// User code runs only when context and tree are in order, and values are only handed out shared.
impl core::panic::UnwindSafe for Context {}
impl core::panic::RefUnwindSafe for Context {}

/// # Roots, and contexts of another kind
impl Context {
    /// Returns the root of all contexts: never cancelled, no deadline, no values. For `main`, for tests, and where
    /// a request comes in.
    ///
    /// Cost: nothing; no allocation.
    #[doc(alias = "Background")]
    pub const fn background() -> Context {
        Context::root(Step::Background)
    }

    /// Returns the same as [`background`](Self::background), for places where it is not clear yet which context belongs
    /// there; the name makes them easy to find again.
    #[doc(alias = "TODO")]
    pub const fn todo() -> Context {
        Context::root(Step::Todo)
    }

    /// Creates a context below one of another kind: done when that is, with its deadline and values.
    ///
    /// No task and no thread stands behind it. When the context and all below it are gone, the
    /// foreign one is told so.
    ///
    /// A callback whose [`Registration`](crate::Registration) is dropped counts as something below: as long as the foreign context has the
    /// [`DoneSignal`](crate::DoneSignal) when the last handle goes, it keeps all this until the foreign one is done, also if that never happens,
    /// or gives the signal up later. [`stop_on_drop`](crate::Registration::stop_on_drop) leaves nothing.
    pub fn below(parent: impl ForeignContext) -> Context {
        let parent: Arc<dyn ForeignContext> = Arc::new(parent);
        let deadline = parent.deadline();
        let at = deadline.map(|deadline| (clock::at_or_after(deadline), deadline));
        let handle = Handle::below_foreign(at, |signal| parent.on_done(DoneSignal::new(signal)));
        if deadline.is_some_and(|deadline| deadline <= clock::now()) {
            handle.expire_foreign();
        }
        let chain = Chain::new(Step::Foreign);
        Context {
            token: Some(handle.into()),
            limit: deadline.into(),
            values: Values::of_foreign(parent, chain),
            chain,
        }
    }

    const fn root(step: Step) -> Context {
        Context {
            token: None,
            limit: Limit::Never,
            values: Values::none(),
            chain: Chain::new(step),
        }
    }

    /// A context that is done when the token is.
    pub(crate) fn of_token(token: CancellationToken, step: Step) -> Context {
        Context {
            token: Some(token),
            ..Context::root(step)
        }
    }
}

/// # Derived contexts
impl Context {
    /// Creates a context below this one, and the guard that cancels it. The guard also cancels when it is
    /// dropped, so everything started under the context is told to stop at the end of the scope at the latest. `let (ctx, _) = …` drops the guard at once;
    /// to keep both together, use a [`GuardedContext`](crate::GuardedContext).
    ///
    /// ```
    /// # use cancel_tree::{Context, ContextError};
    /// let (ctx, guard) = Context::background().with_cancel();
    /// assert!(!ctx.is_done());
    /// drop(guard);
    /// assert_eq!(ctx.err(), Some(ContextError::Cancelled));
    /// ```
    ///
    /// Cost: 1 RMW below another context, an allocation below [`background`](Self::background).
    #[doc(alias("WithCancel", "WithCancelCause"))]
    pub fn with_cancel(&self) -> (Context, CancelGuard) {
        let pair = self.child_pair();
        let limit = self.limit_below(&pair.0);
        self.derive(pair, limit, Step::Cancel)
    }

    /// Creates a context below this one that is done at `deadline`, if that is earlier than this one's. Otherwise
    /// this one's holds, with its cause. A deadline that has passed gives a context that is done (unless one above that has passed too is still to be noticed).
    ///
    /// An explicit cancel before the deadline gives [`ContextError::Cancelled`].
    ///
    /// Everything derived from it ends by then, so a context that is kept for long, in a static or a struct, should have no
    /// deadline; give each request its own.
    ///
    /// ```
    /// # use cancel_tree::{Context, ContextError};
    /// # use std::time::Instant;
    /// let (ctx, _guard) = Context::background().with_deadline(Instant::now());
    /// assert_eq!(ctx.err(), Some(ContextError::DeadlineExceeded));
    /// ```
    ///
    /// Cost: that of [`with_cancel`](Self::with_cancel), 1 RMW and a reading of the clock.
    #[doc(alias = "WithDeadline")]
    pub fn with_deadline(&self, deadline: Instant) -> (Context, CancelGuard) {
        self.at(Some(deadline), || self.now(), None)
    }

    /// Like [`with_deadline`](Self::with_deadline), with a cause. The cause answers to
    /// [`ContextError::DeadlineExceeded`] whatever kind it had.
    ///
    /// ```
    /// # use cancel_tree::{Context, ContextError};
    /// # use std::time::Instant;
    /// let (ctx, _guard) = Context::background().with_deadline_cause(Instant::now(), "too slow");
    /// let cause = ctx.cause().unwrap();
    /// assert_eq!(cause.to_string(), "too slow");
    /// assert_eq!(cause.kind(), ContextError::DeadlineExceeded);
    /// ```
    #[doc(alias = "WithDeadlineCause")]
    pub fn with_deadline_cause(
        &self,
        deadline: Instant,
        cause: impl Into<Cause>,
    ) -> (Context, CancelGuard) {
        self.at(Some(deadline), || self.now(), Some(cause.into()))
    }

    /// Like [`with_deadline`](Self::with_deadline), `timeout` from now. What the clock cannot express, as
    /// [`Duration::MAX`], is no deadline.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// # use std::time::Duration;
    /// let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(5));
    /// ctx.blocking_wait();
    /// assert!(ctx.remaining().unwrap().is_zero());
    /// ```
    #[doc(alias("WithTimeout", "timeout", "CancelAfter", "move_on_after", "fail_after"))]
    pub fn with_timeout(&self, timeout: Duration) -> (Context, CancelGuard) {
        self.with_timeout_from(self.now(), timeout)
    }

    /// `timeout` after the moment that the caller knows to be now.
    #[inline]
    pub(crate) fn with_timeout_from(
        &self,
        now: Instant,
        timeout: Duration,
    ) -> (Context, CancelGuard) {
        self.at(now.checked_add(timeout), || now, None)
    }

    /// Like [`with_deadline_cause`](Self::with_deadline_cause), `timeout` from now.
    #[doc(alias = "WithTimeoutCause")]
    pub fn with_timeout_cause(
        &self,
        timeout: Duration,
        cause: impl Into<Cause>,
    ) -> (Context, CancelGuard) {
        let now = self.now();
        self.at(now.checked_add(timeout), || now, Some(cause.into()))
    }

    /// A context below this one that nobody can cancel by itself.
    #[inline]
    pub(crate) fn child(&self) -> Context {
        let (token, limit) = self.plain_child();
        Context {
            token,
            values: self.values.clone(),
            limit,
            chain: self.chain.then(Step::Cancel),
        }
    }

    /// The token below, if there is one above, and its limit.
    #[inline]
    fn plain_child(&self) -> (Option<CancellationToken>, Limit) {
        let token = self.token().map(CancellationToken::child_token);
        let limit = match &token {
            Some(token) => self.limit_below(token.handle()),
            None => self.limit,
        };
        (token, limit)
    }

    fn at(
        &self,
        deadline: Option<Instant>,
        now: impl FnOnce() -> Instant,
        cause: Option<Cause>,
    ) -> (Context, CancelGuard) {
        let pair = self.child_pair();
        let own = deadline.filter(|own| match self.limit {
            Limit::Never => true,
            Limit::At(above) => *own < above,
            // The one above may be moved, and then this one counts again.
            Limit::Asked => true,
        });
        let Some(own) = own else {
            // User code, before there is a context to return: it would be lost by a panic.
            drop(cause);
            let step = if deadline.is_some() {
                Step::LaterDeadline
            } else {
                Step::Cancel
            };
            let limit = self.limit_below(&pair.0);
            return self.derive(pair, limit, step);
        };
        let token = &pair.0;
        if token.is_cancelled() {
            // A parent that is done decides. User code, as above.
            drop(cause);
        } else {
            let cause = cause.map(|cause| cause.of_kind(ContextError::DeadlineExceeded));
            if own <= now() {
                let cause = cause.unwrap_or(ContextError::DeadlineExceeded.into());
                token.expire_at_birth(cause);
                token.note_deadline(own);
            } else if let Some(clock) = self.clock() {
                token.set_deadline_by(clock, own, cause);
            } else {
                let deadline = clock::at_or_after(own);
                match cause {
                    None => token.set_deadline(deadline),
                    Some(cause) => token.set_deadline_because(deadline, cause),
                }
                token.note_deadline(own);
            }
        }
        let limit = match self.limit {
            Limit::Asked if !pair.0.is_cancelled() => Limit::Asked,
            Limit::Asked => Limit::At(self.deadline().map_or(own, |above| above.min(own))),
            _ => Limit::At(own),
        };
        self.derive(pair, limit, Step::Deadline)
    }

    /// What a token below has for its limit, besides one of its own. One that is cancelled from the beginning has nothing
    /// above that it could ask.
    #[inline]
    pub(super) fn limit_below(&self, token: &Handle) -> Limit {
        match self.limit {
            Limit::Asked if token.is_cancelled() => self.deadline().into(),
            limit => limit,
        }
    }

    pub(super) fn derive(
        &self,
        (own, guards): (Handle, Handle),
        limit: Limit,
        step: Step,
    ) -> (Context, CancelGuard) {
        let guard = CancelGuard::new(guards.into());
        let ctx = Context {
            token: Some(own.into()),
            limit,
            values: self.values.clone(),
            chain: self.chain.then(step),
        };
        (ctx, guard)
    }

    /// Creates a context with a value, found by its type: see [`value`](Self::value). It is done when this one
    /// is.
    ///
    /// Make a type of your own for each thing to be passed; of two values of one type, the nearest wins. The type is
    /// that of `value` as it is passed: a `String` is hidden by the next `String`, whatever they mean, and what was passed as
    /// `Arc<T>` is found as `Arc<T>`, not as `T`.
    /// Values are for what belongs to the request and crosses layers that have no use for it: its id, its user, its
    /// span. They are not a substitute for parameters.
    ///
    /// However long the chain of contexts is, its values are dropped one after the other, without recursion. A value that owns
    /// another context, whose value owns another, nests as boxes do: some hundred bytes of stack for each.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// #[derive(Debug, PartialEq)]
    /// struct RequestId(u64);
    ///
    /// let ctx = Context::background().with_value(RequestId(7));
    /// assert_eq!(ctx.value::<RequestId>(), Some(&RequestId(7)));
    /// ```
    ///
    /// Cost: 2 to 3 allocations (one less for a value without a size), and a copy of the table of the types that are there: 12 to 24 bytes for each.
    #[doc(alias = "WithValue")]
    pub fn with_value<T: Send + Sync + 'static>(&self, value: T) -> Context {
        Context {
            token: self.token.clone(),
            limit: self.limit,
            values: self.values.with(value, self.chain),
            chain: Chain::new(Step::Value),
        }
    }

    /// Creates a context below this one that has a name, by which `inspect::snapshot()` shows it if it does not stop (feature `inspect`). It
    /// has no guard: it is done when this one is.
    ///
    /// Without that feature it is a clone and costs no more, so libraries can give names, and the program decides whether they cost anything.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// let (server, _guard) = Context::background().with_cancel();
    /// let ingest = server.with_name("ingest");
    /// # let _ = ingest;
    /// ```
    #[cfg_attr(feature = "inspect", track_caller)]
    pub fn with_name(&self, name: impl Into<Cow<'static, str>>) -> Context {
        #[cfg(not(feature = "inspect"))]
        {
            let _ = name;
            self.clone()
        }
        #[cfg(feature = "inspect")]
        {
            let (token, limit) = self.plain_child();
            let at = core::panic::Location::caller();
            let deadline = self.fixed_deadline();
            let above = self.name_number();
            let mut record =
                super::name::Record::new(name.into(), at, token.clone(), deadline, above);
            if let Some((own, token)) = token.as_ref().zip(self.token()) {
                let origin = match self.name_origin() {
                    // What is made below what is done is a root.
                    _ if own.parent_id() != Some(token.id()) => Origin::Known {
                        is_own_deadline: self.has_own_deadline_passed(),
                        any_of_source: self.source(),
                    },
                    Origin::Above(steps) => Origin::Above(steps + 1),
                    known => known,
                };
                record = record.with_own(own.id(), origin);
            }
            Context {
                limit,
                token,
                values: self.values.with_name(record, self.chain),
                chain: Chain::none(),
            }
        }
    }

    /// The deadline, if it does not move and is no test's.
    #[cfg(feature = "inspect")]
    pub(crate) fn fixed_deadline(&self) -> Option<Instant> {
        match self.limit {
            Limit::At(deadline) if self.clock().is_none() => Some(deadline),
            _ => None,
        }
    }

    /// Which record has the name that it was given, or one that it was derived from.
    #[cfg(feature = "inspect")]
    pub(crate) fn name_number(&self) -> Option<super::registry::Number> {
        self.values.name().map(super::name::Record::number)
    }

    /// Creates a context that is done as soon as one of these is, with that one's cause. Its deadline is the
    /// earliest of theirs. **Its values are the first one's; those of the others are not found**: put the one with the
    /// values that matter first. A context of no sources is never done.
    ///
    /// [Graces](Self::with_grace) hold together: shields have time to clean up if any of the sources is under a grace, and end when the
    /// first of these is over, whichever source it was that is done.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// let (request, _request_guard) = Context::background().with_cancel();
    /// let (server, shutdown) = Context::background().with_cancel();
    /// let either = Context::any_of([&request, &server]);
    /// shutdown.cancel_with("shutting down");
    /// assert_eq!(either.cause().unwrap().to_string(), "shutting down");
    /// assert!(!request.is_done());
    /// ```
    ///
    /// Cost: that of [`CancellationToken::any_of`] and an allocation; where the sources are under more than one grace, of two such tokens
    /// and what a value costs. No task and no thread stands behind it.
    #[doc(alias("merge", "select"))]
    pub fn any_of<'a>(contexts: impl IntoIterator<Item = &'a Context>) -> Context {
        let contexts: Vec<&Context> = contexts.into_iter().collect();
        let handles = contexts.iter().enumerate().filter_map(|(i, ctx)| {
            let token = ctx.token.as_ref()?;
            Some((i, token.handle()))
        });
        let mut handles = handles.peekable();
        let first = contexts.first();
        // If none can be done, neither can this one.
        let token = (handles.peek().is_some()).then(|| Handle::any_of(handles));
        let clock = contexts.iter().find_map(|ctx| ctx.clock());
        // Deadlines of different clocks cannot be compared.
        let is_of_clock = |ctx: &&&Context| Clock::is_same(&ctx.clock(), &clock);
        let asks = |ctx: &&Context| ctx.limit == Limit::Asked;
        let asks = contexts.iter().filter(is_of_clock).any(asks);
        let ctx = Context {
            limit: match &token {
                Some(token) if asks && !token.is_cancelled() => Limit::Asked,
                _ => contexts
                    .iter()
                    .filter(is_of_clock)
                    .filter_map(|ctx| ctx.deadline())
                    .min()
                    .into(),
            },
            token: token.map(Into::into),
            values: first.map_or(Values::none(), |first| first.values.clone()),
            chain: first.map_or(Chain::new(Step::AnyOf), |first| {
                first.chain.then(Step::AnyOf)
            }),
        };
        ctx.under(&clock)
            .with_graces_of(contexts.get(1..).unwrap_or_default())
    }

    /// Creates a token below this context, for code that takes a [`CancellationToken`].
    #[must_use]
    pub fn child_token(&self) -> CancellationToken {
        match &self.token {
            Some(token) => token.child_token(),
            None => {
                let token = CancellationToken::new();
                if let Some(clock) = self.clock() {
                    token.handle().note_clock(clock);
                }
                token
            }
        }
    }

    /// One handle for the context, one for its guard.
    #[inline]
    pub(super) fn child_pair(&self) -> (Handle, Handle) {
        match &self.token {
            Some(token) => token.handle().child_pair(),
            // Apart: to look for a clock where there can be none costs a dozen instructions all the same.
            #[cfg(not(feature = "testing"))]
            None => Handle::root_pair(),
            #[cfg(feature = "testing")]
            None => {
                let pair = Handle::root_pair();
                if let Some(clock) = self.clock() {
                    pair.0.note_clock(clock);
                }
                pair
            }
        }
    }

    /// For a thread: what is looked up here, and in what is made of it, is noted.
    #[cfg(feature = "inspect")]
    pub(crate) fn watched(self, looks: Arc<super::Looks>) -> Context {
        Context {
            values: self.values.with_looks(looks, self.chain),
            chain: Chain::none(),
            ..self
        }
    }

    /// What it is done by; none: never.
    #[inline]
    pub(crate) fn token(&self) -> Option<&CancellationToken> {
        self.token.as_ref()
    }

    /// Whether it is known to be done: asked where no look at the clock may follow, and nothing be called.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        let token = self.token();
        token.is_some_and(|token| token.handle().is_cancelled())
    }

    /// Whether to ask if it is done is to look at the clock, as the timer has no thread: a deadline that has passed is found
    /// then, and what is called at that end is called by the thread that asks.
    #[inline]
    pub(crate) fn is_unattended(&self) -> bool {
        timer::is_missing() || (self.may_have_deadline() && !timer::is_running())
    }

    /// The cause of a context that is known to be done.
    pub(crate) fn marked_cause(&self) -> Option<Cause> {
        self.token().and_then(CancellationToken::cause)
    }

    /// The clock of tests that it is under.
    #[inline]
    pub(crate) fn clock(&self) -> Option<Clock> {
        self.values.clock()
    }

    /// Whether it has a deadline, or may be given one by what is above.
    #[inline]
    pub(crate) fn may_have_deadline(&self) -> bool {
        !matches!(self.limit, Limit::Never)
    }

    /// Whether the deadline may become an earlier one than it is.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn may_be_sooner(&self) -> bool {
        let token = self.token().filter(|_| self.limit == Limit::Asked);
        token.is_some_and(|token| token.handle().may_be_sooner())
    }

    /// The same context, and what is derived from it, under that clock. Its own deadline stays what it is.
    pub(crate) fn under(self, clock: &Option<Clock>) -> Context {
        if Clock::is_same(&self.clock(), clock) {
            return self;
        }
        let values = clock.as_ref();
        match values.map(|clock| self.values.with_clock(clock, self.chain)) {
            Some(values) => Context {
                values,
                chain: Chain::new(Step::Clock),
                ..self
            },
            None => self,
        }
    }
}

/// # What it says
impl Context {
    /// Returns `true` if the context is done: cancelled, or past its deadline. Wait-free.
    ///
    /// Cost: an acquire load, and while it is not done one or two relaxed loads more, of a static (with `std`). (While the timer's thread
    /// can't be started, see [`CancellationToken::is_cancelled`].)
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        let is_done = self.has_ended();
        #[cfg(feature = "inspect")]
        if is_done {
            self.values.note_look();
        }
        is_done
    }

    /// Whether it is done, asked by nobody who would stop then: that is not noted as a look.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        let Some(token) = &self.token else {
            return false;
        };
        token.is_cancelled() || self.has_expired_unseen(token.handle())
    }

    /// Why, asked in the same way.
    pub(super) fn why_ended(&self) -> Option<Cause> {
        if !self.has_ended() {
            return None;
        }
        self.token().and_then(CancellationToken::cause)
    }

    /// Returns `true` if the context can be done at all, now or later. [`background`](Self::background),
    /// [`todo`](Self::todo), what [`without_cancel`](Self::without_cancel) makes, and what only adds values to these
    /// cannot. (In Go, `ctx.Done() != nil`.) With a [grace](Self::with_grace) of its own a context is said to be able, whatever is above.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// let root = Context::background().with_value("a value");
    /// let (ctx, _guard) = root.with_cancel();
    /// assert!(!root.can_be_done() && ctx.can_be_done());
    /// assert!(!ctx.without_cancel().can_be_done());
    /// ```
    ///
    /// Cost: none.
    #[inline]
    #[must_use]
    pub fn can_be_done(&self) -> bool {
        self.token.is_some()
    }

    /// Without the service thread nobody else looks at the clock.
    #[inline]
    pub(super) fn has_expired_unseen(&self, token: &Handle) -> bool {
        self.may_have_deadline() && !timer::is_running() && self.expire_unseen(token)
    }

    #[cold]
    fn expire_unseen(&self, token: &Handle) -> bool {
        let deadline = self.waited_deadline();
        deadline.is_some_and(|deadline| expire_if_past(token, deadline, Handle::expire))
    }

    /// The deadline, for a thread that sleeps until then: of a clock of tests there is none, for that wakes what waits.
    #[inline]
    pub(crate) fn waited_deadline(&self) -> Option<Instant> {
        match self.clock() {
            None => self.deadline(),
            Some(_) => None,
        }
    }

    /// Returns why the context is done, as one of two kinds, or `None` while it is not. Once there is an
    /// error it stays, and [`done`](Self::done) is ready.
    ///
    /// Cost: that of [`is_done`](Self::is_done), and a load more once it is done.
    #[doc(alias = "Err")]
    #[inline]
    #[must_use]
    pub fn err(&self) -> Option<ContextError> {
        if !self.is_done() {
            return None;
        }
        self.token().and_then(|token| token.handle().kind())
    }

    /// Returns why the context is done: the cause given to the first cancel or deadline, here or
    /// above. Without one it is the kind itself (as Go's `context.Cause`), or [`GuardDropped`](crate::GuardDropped).
    #[doc(alias = "Cause")]
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        if !self.is_done() {
            return None;
        }
        self.token().and_then(CancellationToken::cause)
    }

    /// Returns [`err`](Self::err) as a `Result`, for the `?` operator.
    ///
    /// # Errors
    ///
    /// The context is done.
    #[doc(alias("ThrowIfCancellationRequested", "ensureActive"))]
    #[inline]
    pub fn check(&self) -> Result<(), ContextError> {
        self.err().map_or(Ok(()), Err)
    }

    /// Like [`check`](Self::check), but the error is the [cause](Self::cause).
    ///
    /// ```
    /// # use cancel_tree::{Cause, Context};
    /// fn step(ctx: &Context) -> Result<(), Cause> {
    ///     ctx.check_cause()?;
    ///     Ok(())
    /// }
    /// let (ctx, guard) = Context::background().with_cancel();
    /// guard.cancel_with("the page was closed");
    /// assert_eq!(step(&ctx).unwrap_err().to_string(), "the page was closed");
    /// ```
    ///
    /// Cost: that of [`check`](Self::check) while the context is not done.
    ///
    /// # Errors
    ///
    /// The context is done.
    #[inline]
    pub fn check_cause(&self) -> Result<(), Cause> {
        match self.err() {
            None => Ok(()),
            Some(error) => Err(self.cause_or(error)),
        }
    }

    /// A context that has an error has a cause, so there is nothing to fall back to but for the type's sake.
    pub(crate) fn cause_or(&self, error: ContextError) -> Cause {
        self.cause().unwrap_or_else(|| error.into())
    }

    /// Returns which source a context of [`any_of`](Self::any_of) is done by: its place in the order given, from 0. Adding a
    /// value changes nothing about that; of a context derived by a cancel or a deadline of its own it is `None`. See
    /// [`CancellationToken::any_of_source`].
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// let (request, _request_guard) = Context::background().with_cancel();
    /// let (server, shutdown) = Context::background().with_cancel();
    /// let either = Context::any_of([&request, &server]);
    /// shutdown.cancel();
    /// assert_eq!(either.any_of_source(), Some(1));
    /// ```
    #[must_use]
    pub fn any_of_source(&self) -> Option<usize> {
        if !self.is_done() {
            return None;
        }
        self.source()
    }

    fn source(&self) -> Option<usize> {
        match self.name_origin() {
            Origin::Above(steps) => self.token()?.handle().any_of_source(steps),
            #[cfg(feature = "inspect")]
            Origin::Known { any_of_source, .. } => any_of_source,
        }
    }

    /// Who knows how the context's token came to be done. A name has a token of its own, and changes no answer.
    fn name_origin(&self) -> Origin {
        #[cfg(feature = "inspect")]
        if let Some((token, name)) = self.token().zip(self.values.name()) {
            return name.origin(token.id()).unwrap_or(Origin::Above(0));
        }
        Origin::Above(0)
    }

    /// Returns when the context will be done at the latest. A cancel does not change it.
    ///
    /// Below a [movable deadline](Self::with_movable_deadline), an [idle timeout](Self::with_idle_timeout) and in a
    /// [shield](Self::shield) it is what those above say at the moment, also when this one is done and they are not.
    ///
    /// Cost: none; there, a climb to the root.
    #[doc(alias = "Deadline")]
    #[inline]
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.limit {
            Limit::Never => None,
            Limit::At(deadline) => Some(deadline),
            Limit::Asked => self.asked_deadline(),
        }
    }

    #[cold]
    fn asked_deadline(&self) -> Option<Instant> {
        self.token()?.handle().deadline(&self.clock()).0
    }

    /// Returns `true` if the context is done because its own deadline has passed: not one above, and not because
    /// it was cancelled. So code that sets a limit for a part of the work can tell that limit from the one for the whole. Adding
    /// a value, or cloning, does not change the answer; a context derived with a guard or deadline of its own has an answer of its own.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// # use std::time::Duration;
    /// let (request, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    /// let (step, _guard) = request.with_timeout(Duration::from_secs(30));
    /// step.blocking_wait();
    /// assert!(!step.is_own_deadline()); // the request is over, not only this step
    /// assert!(request.is_own_deadline());
    /// ```
    ///
    /// Cost: loads.
    #[must_use]
    pub fn is_own_deadline(&self) -> bool {
        self.is_done() && self.has_own_deadline_passed()
    }

    fn has_own_deadline_passed(&self) -> bool {
        let Some(token) = &self.token else {
            return false;
        };
        match self.name_origin() {
            Origin::Above(steps) => token.handle().is_expired_itself(steps),
            #[cfg(feature = "inspect")]
            Origin::Known {
                is_own_deadline, ..
            } => is_own_deadline,
        }
    }

    /// Returns the time until the deadline; zero if it has passed.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.deadline()?;
        Some(deadline.saturating_duration_since(now(&self.clock())))
    }

    /// Returns the time as this context sees it: [`Instant::now`], unless it is under a clock that a test advances (the
    /// feature `testing`). Code that computes deadlines from the time should ask here, so that it can be tested.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// # use std::time::Duration;
    /// # let ctx = Context::background();
    /// let (ctx, _guard) = ctx.with_deadline(ctx.now() + Duration::from_secs(5));
    /// ```
    #[inline]
    #[must_use]
    pub fn now(&self) -> Instant {
        match self.clock() {
            None => clock::now(),
            Some(clock) => clock.now(),
        }
    }

    /// Returns the nearest value of this type, here or above; also after the context is done.
    ///
    /// Cost: a comparison and a hashed look-up, however long the chain. Below a [parent of another kind](ForeignContext) a miss asks that too.
    #[doc(alias = "Value")]
    #[must_use]
    pub fn value<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.values.get()
    }

    /// Like [`value`](Self::value), for a type that is known only by its [`TypeId`]: for a layer of another kind that passes values on, as
    /// [`ForeignContext::value`] does.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// # use std::any::TypeId;
    /// let ctx = Context::background().with_value(7_u32);
    /// let value = ctx.value_by_id(TypeId::of::<u32>()).unwrap();
    /// assert_eq!(value.downcast_ref(), Some(&7_u32));
    /// ```
    #[must_use]
    pub fn value_by_id(&self, key: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        self.values.get_by_id(key)
    }
}

/// The time by that clock, or by the real one.
#[inline]
pub(super) fn now(clock: &Option<Clock>) -> Instant {
    match clock {
        None => Instant::now(),
        Some(clock) => clock.now(),
    }
}

/// What is done by `how` about a deadline of the token, or one above, if it has passed.
#[cold]
pub(super) fn expire_if_past(token: &Handle, deadline: Instant, how: fn(&Handle, Moment)) -> bool {
    timer::look();
    let mut now = Instant::now();
    if now < deadline {
        return false;
    }
    // What has the deadline is noticed a moment later at most, 64 ns: that is how it is kept. Nothing is cancelled before.
    let at = clock::at_or_after(deadline);
    while clock::at_or_before(now) < at {
        now = Instant::now();
    }
    how(token, clock::at_or_before(now));
    token.is_cancelled()
}

impl Default for Context {
    /// [`Context::background`].
    fn default() -> Context {
        Context::background()
    }
}

/// # As a context
impl CancellationToken {
    /// Creates a context that is done when this token is cancelled.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let token = CancellationToken::new();
    /// let ctx = token.context();
    /// token.cancel_with("enough");
    /// assert_eq!(ctx.cause().unwrap().to_string(), "enough");
    /// ```
    ///
    /// Its deadline is the earliest of those above the token; of a token that was made when what is above was
    /// cancelled already, there is none.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// # use std::time::Duration;
    /// let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(30));
    /// let token = ctx.child_token();
    /// assert_eq!(token.context().deadline(), ctx.deadline());
    /// ```
    ///
    /// Cost: 1 RMW, and a climb to the root.
    pub fn context(&self) -> Context {
        let clock = self.handle().clock();
        let limit = match self.handle().deadline(&clock) {
            (_, true) => Limit::Asked,
            (deadline, false) => deadline.into(),
        };
        let ctx = Context {
            limit,
            ..Context::of_token(self.clone(), Step::Token)
        };
        ctx.under(&clock)
    }
}
