//! Operations on contexts and tokens, in any order, against the oracle: after every step every handle must say
//! what the oracle says, each waker and callback must have been called as often as it should. In the end nothing
//! may be left. Time is turned by hand.
//!
//! `fuzz/run.sh 1800 contexts`
#![no_main]

#[path = "contexts/groups.rs"]
mod groups;
#[path = "contexts/moving.rs"]
mod moving;

use arbitrary::Arbitrary;
use cancel_tree::{
    CancelGuard, CancellationToken, Canceller, Cause, Context, ContextError, DeadlineGuard,
    DoneOwned, DoneSignal, DropGuard, Due, ForeignContext, IdleGuard, Registration, Service,
    WaitForCancellationFutureOwned,
};
use cancel_tree_fuzz::oracle::{self, earlier, Action, Oracle, Span, Waiter};
use cancel_tree_fuzz::probes::{catching, on_a_worker, planned_panic, values_of, with_value};
use cancel_tree_fuzz::probes::{Bell, Reason, Value, GUARD_DROPPED, KINDS, OVER};
use cancel_tree_fuzz::{allocations, clock};
use libfuzzer_sys::fuzz_target;
use std::any::{Any, TypeId};
use std::collections::BTreeSet;
use std::future::{pending, Future};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Once};
use std::task::{self, Poll, Waker};
use std::time::{Duration, Instant};

/// Numbers are taken modulo what there is.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Root(Root),
    WithCancel(u8),
    WithDeadline(u8, When),
    WithDeadlineCause(u8, When, bool),
    WithTimeout(u8, When, bool),
    Forever(u8),
    WithValue(u8, u8),
    WithoutCancel(u8),
    AnyOf(Few, bool),
    Foreign(Outside, Option<When>, bool, bool),
    Signal(u8, bool),
    ForeignGone(u8),
    Clone(u8),
    Drop(u8),
    DropLast(u8),
    ChildToken(u8),
    Child(u8),
    Children(u8, u8),
    AnyOfTokens(Few, bool),
    TokenContext(u8),
    CloneToken(u8),
    DropToken(u8),
    DropLastTokens(u8),
    Cancel(u8, Option<bool>),
    Right(u8, Use),
    Wait(u8, Wait, bool),
    Poll(u8, Option<bool>),
    DropWaiter(u8),
    Briefly(u8, bool),
    WaitNow(u8),
    Register(u8, Register),
    OnToken(u8, Register),
    Unregister(u8, Unregister),
    Link(u8, bool),
    Unlink(u8),
    Turn(u8, u8),
    Expire(u8, u8),
    Fire(u8),
    Purge,
    EndOfThread,
    Movable(u8, Option<When>),
    Idle(u8, u8, u8),
    Move(u8, moving::Move),
    Touch(u8, When),
    WithGrace(u8, moving::Period),
    Shield(u8),
    Group(groups::Step),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Root {
    Background,
    Todo,
    Token,
}

/// How many, of which.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Few(u8, [u8; 3]);

#[derive(Arbitrary, Clone, Copy, Debug)]
enum When {
    /// So many ticks from now: the first, times a power of the second; and a bit.
    In(u8, u8, u8),
    /// As that context's, and a bit.
    Like(u8, u8),
    Past,
    InAges,
}

/// What a foreign context does with the signal.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Outside {
    Keeps,
    Signals,
    IsReady,
    Panics,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Use {
    Cancel(Option<bool>),
    Canceller,
    Drop,
    Detach,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Wait {
    Token,
    Done,
    RunOnToken,
    Run,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Register {
    off_thread: bool,
    work: Work,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Work {
    Nothing,
    Link(u8),
    Grow,
    Panic,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Unregister {
    Stop,
    AndWait,
    Async,
    OnDrop,
    Disarmed,
    Drop,
}

// ----- what there is ------------------------------------------------------------------------------

#[derive(Clone)]
struct Ctx {
    /// None: never done.
    fact: Option<usize>,
    limit: Limit,
    values: [Option<u32>; KINDS],
    shown: Shown,
    /// The grace that it is under.
    under: Option<moving::Under>,
    /// Which graces it keeps.
    keeps: Vec<usize>,
    ctx: Context,
}

/// Its deadline.
#[derive(Clone, Copy)]
enum Limit {
    Fixed(Option<Span>),
    /// One above moves: as it is at the moment.
    Asked,
}

/// The steps that led to a context, anew from each value on.
#[derive(Clone)]
struct Shown(Vec<Vec<String>>);

impl Shown {
    fn new(step: &str) -> Shown {
        Shown(vec![vec![step.to_owned()]])
    }

    fn then(&self, step: &str) -> Shown {
        let mut shown = self.clone();
        shown.0.last_mut().unwrap().push(step.to_owned());
        shown
    }

    fn with_value(&self, type_name: &str) -> Shown {
        let mut shown = self.clone();
        shown.0.push(vec![format!("with_value({type_name})")]);
        shown
    }

    /// The values are others from here on, and the step is no value's.
    fn anew(&self, step: Option<&str>) -> Shown {
        let mut shown = self.clone();
        shown
            .0
            .push(step.iter().map(|step| step.to_string()).collect());
        shown
    }

    /// Of more than 16 steps without a value, 15 are remembered.
    fn text(&self) -> String {
        let part = |steps: &Vec<String>| match steps.len() {
            0..=16 => steps.join("."),
            n => format!("….{}", steps[n - 15..].join(".")),
        };
        let parts = self.0.iter().filter(|steps| !steps.is_empty());
        parts.map(part).collect::<Vec<_>>().join(".")
    }
}

enum Right {
    Guard(CancelGuard),
    Deadline(DeadlineGuard),
    Idle(IdleGuard),
    Canceller(Canceller),
    DropGuard(DropGuard),
}

enum Waiting {
    Token(WaitForCancellationFutureOwned),
    Done(DoneOwned),
    Run(Pin<Box<dyn Future<Output = Option<ContextError>>>>),
}

/// A waiter of the oracle's.
struct Task {
    number: usize,
    waiting: Waiting,
    bell: Arc<Bell>,
    ready: bool,
    /// Which graces its context keeps.
    keeps: Vec<usize>,
}

/// A callback of the oracle's.
struct Callback {
    number: usize,
    runs: Arc<Bell>,
    registration: Option<Registration>,
}

struct Stopping {
    callback: usize,
    pending: bool,
    bell: Arc<Bell>,
    future: Pin<Box<dyn Future<Output = bool>>>,
}

/// A context of another crate.
struct Foreign {
    kind: Outside,
    deadline: Option<Instant>,
    value: Option<Value<0>>,
    inside: Arc<Inside>,
    life: Arc<()>,
}

#[derive(Default)]
struct Inside {
    signals: Mutex<Vec<DoneSignal>>,
    ready: Mutex<Option<Cause>>,
    waker: Mutex<Option<Waker>>,
}

impl ForeignContext for Foreign {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        let life = self.life.clone();
        let inside = self.inside.clone();
        match self.kind {
            Outside::Keeps => inside.signals.lock().unwrap().push(signal),
            Outside::Signals => {
                let cause = inside.ready.lock().unwrap().take();
                assert!(signal.cancel_with(cause.unwrap()));
            }
            Outside::IsReady => {
                let future = std::future::poll_fn(move |cx| {
                    let _keep = &life;
                    match inside.ready.lock().unwrap().take() {
                        Some(cause) => Poll::Ready(cause),
                        None => {
                            *inside.waker.lock().unwrap() = Some(cx.waker().clone());
                            Poll::Pending
                        }
                    }
                });
                // With a value it is of the kind that is woken once only.
                return match self.value {
                    Some(_) => signal.when_woken(future),
                    None => signal.when_ready(future),
                };
            }
            Outside::Panics => planned_panic(),
        }
        Box::new(life)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn value(&self, key: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        let value = self.value.as_ref()?;
        (key == TypeId::of::<Value<0>>()).then_some(value)
    }
}

struct Neighbour {
    fact: usize,
    kind: Outside,
    /// It is told by the waker itself, and not polled again.
    woken: bool,
    inside: Arc<Inside>,
}

type Link = Arc<Mutex<Option<CancellationToken>>>;

struct World {
    oracle: Oracle,
    service: Service,
    now: Instant,
    /// The kind of each cause.
    causes: Vec<ContextError>,
    /// Held by all causes, values, subscriptions.
    life: Arc<()>,
    contexts: Vec<Ctx>,
    tokens: Vec<(usize, CancellationToken)>,
    rights: Vec<(usize, Right)>,
    tasks: Vec<Task>,
    callbacks: Vec<Callback>,
    stopping: Vec<Stopping>,
    neighbours: Vec<Neighbour>,
    /// True: to be cancelled; false: to be dropped.
    links: Vec<(bool, Link)>,
    /// What has been marked and is still to be woken, and jobs.
    due: Vec<(Due, oracle::Due)>,
    /// Of sources of `any_of` that are cancelled in the end, so that callbacks may be left below.
    anchors: Vec<(usize, Right)>,
    /// By fact: no callback may be left here, for it could stay for ever.
    loses_callbacks: Vec<bool>,
    groups: groups::All,
    /// When this step began, by the real clock.
    since: Instant,
}

fn pick(len: usize, n: u8) -> Option<usize> {
    usize::from(n).checked_rem(len)
}

impl World {
    fn new(turned: bool) -> World {
        let now = clock::start();
        let mut world = World {
            oracle: Oracle::default(),
            service: Service::new(),
            now,
            causes: vec![
                ContextError::Cancelled,
                ContextError::DeadlineExceeded,
                // GUARD_DROPPED.
                ContextError::Cancelled,
                // IDLE.
                ContextError::DeadlineExceeded,
                // PANICKED.
                ContextError::Cancelled,
            ],
            life: Arc::new(()),
            contexts: Vec::new(),
            tokens: Vec::new(),
            rights: Vec::new(),
            tasks: Vec::new(),
            callbacks: Vec::new(),
            stopping: Vec::new(),
            neighbours: Vec::new(),
            links: Vec::new(),
            due: Vec::new(),
            anchors: Vec::new(),
            loses_callbacks: Vec::new(),
            groups: groups::All::default(),
            since: Instant::now(),
        };
        if turned {
            world.turn_to(now);
        }
        world
    }

    fn fact(&mut self, parents: Vec<usize>) -> usize {
        let loses = parents.iter().any(|&parent| self.loses_callbacks[parent]);
        self.loses_callbacks.push(loses);
        self.oracle.add(parents)
    }

    fn kind_of(&self, cause: u32) -> ContextError {
        match cause < OVER {
            true => self.causes[cause as usize],
            false => ContextError::DeadlineExceeded,
        }
    }

    /// A cause of its own, or none.
    fn cause(&mut self, kind: ContextError) -> (u32, Cause) {
        let number = self.causes.len() as u32;
        self.causes.push(kind);
        (number, Reason::cause(number, kind, &self.life))
    }

    /// True: a cause that says "deadline exceeded"; false: "cancelled"; none: no cause.
    fn some_cause(&mut self, which: Option<bool>) -> (u32, Option<Cause>) {
        let kind = match which {
            None => return (0, None),
            Some(false) => ContextError::Cancelled,
            Some(true) => ContextError::DeadlineExceeded,
        };
        let (number, cause) = self.cause(kind);
        (number, Some(cause))
    }

    fn ctx(&self, n: u8) -> Option<usize> {
        pick(self.contexts.len(), n)
    }

    fn token(&self, n: u8) -> Option<usize> {
        pick(self.tokens.len(), n)
    }

    // ----- contexts ---------------------------------------------------------------------------

    fn push(
        &mut self,
        from: Option<&Ctx>,
        fact: Option<usize>,
        limit: Limit,
        shown: Shown,
        ctx: Context,
    ) {
        let ctx = Ctx {
            fact,
            limit,
            values: from.map_or([None; KINDS], |from| from.values),
            shown,
            under: from.and_then(|from| from.under),
            keeps: from.map_or_else(Vec::new, |from| from.keeps.clone()),
            ctx,
        };
        self.contexts.push(ctx);
        self.show(self.contexts.len() - 1);
    }

    fn deadline_of(&self, ctx: &Ctx) -> Option<Span> {
        match (ctx.limit, ctx.fact) {
            (Limit::Fixed(deadline), _) => deadline,
            (Limit::Asked, fact) => self.oracle.deadline(fact.unwrap()).0,
        }
    }

    /// Of what is derived, without a deadline of its own.
    fn limit_below(&self, from: &Ctx, fact: usize) -> Limit {
        match from.limit {
            Limit::Asked if self.oracle.is_cancelled(fact) => Limit::Fixed(self.deadline_of(from)),
            limit => limit,
        }
    }

    /// Without how far a deadline is away.
    fn show(&mut self, i: usize) {
        let ctx = &self.contexts[i];
        let text = ctx.ctx.to_string();
        let mut parts = text.split("with_deadline(");
        let mut stripped = parts.next().unwrap().to_owned();
        for part in parts {
            let (inside, rest) = part.split_once(')').unwrap();
            stripped += "with_deadline";
            match inside {
                "later" => stripped += "(later)",
                _ => assert!(
                    inside.starts_with("in ") || inside.ends_with(" ago"),
                    "{text}"
                ),
            }
            stripped += rest;
        }
        assert_eq!(stripped, ctx.shown.text());
        let debug = format!("{:?}", ctx.ctx);
        assert_eq!(
            debug.contains("is_done: true"),
            ctx.ctx.is_done(),
            "{debug}"
        );
    }

    fn instant(&self, when: When) -> Instant {
        const BITS: [Duration; 4] = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_nanos(1 << 16),
            Duration::from_nanos((1 << 17) - 1),
        ];
        match when {
            When::In(n, power, bit) => {
                let ticks = u64::from(n) << (6 * (power % 6));
                self.now + ticks_long(ticks) + BITS[usize::from(bit % 4)]
            }
            When::Like(n, bit) => match self
                .ctx(n)
                .and_then(|i| self.deadline_of(&self.contexts[i]))
                .map(|like| like.1)
            {
                Some(like) if like >= clock::start() => like + BITS[usize::from(bit % 4)],
                // A bit more could be a bit too much for the real clock.
                Some(_) => clock::base(),
                None => self.now,
            },
            When::Past => clock::base(),
            When::InAges => clock::base() + Duration::from_secs(600 * 365 * 24 * 3600),
        }
    }

    /// A context with a deadline of its own.
    fn with_deadline(
        &mut self,
        i: usize,
        deadline: Instant,
        cause: Option<u32>,
        made: (Context, CancelGuard),
    ) {
        let from = self.contexts[i].clone();
        let fact = self.fact(Vec::from_iter(from.fact));
        let is_later = match from.limit {
            Limit::Fixed(Some(above)) => above.0 <= deadline,
            _ => false,
        };
        let (limit, shown) = if is_later {
            (self.limit_below(&from, fact), "with_deadline(later)")
        } else {
            self.expire_at(fact, deadline, cause.unwrap_or(1));
            let own = (deadline, deadline);
            let limit = match from.limit {
                Limit::Asked if !self.oracle.is_cancelled(fact) => Limit::Asked,
                Limit::Asked => Limit::Fixed(earlier(self.deadline_of(&from), Some(own))),
                Limit::Fixed(_) => Limit::Fixed(Some(own)),
            };
            (limit, "with_deadline")
        };
        let shown = from.shown.then(shown);
        self.push(Some(&from), Some(fact), limit, shown, made.0);
        self.rights.push((fact, Right::Guard(made.1)));
    }

    /// `is_own`: it can be told from a cancel.
    fn expire_at(&mut self, fact: usize, deadline: Instant, cause: u32) {
        if self.oracle.is_cancelled(fact) {
            return;
        }
        let at = (deadline, deadline);
        if deadline <= Instant::now() {
            self.oracle.expire_at_birth(fact, at, [cause]);
        } else {
            // Also one that is too far away for the timer: it is shown.
            self.oracle.set_deadline(fact, at, [cause]);
        }
    }

    fn with_timeout(&mut self, i: usize, when: When, with_cause: bool) {
        let deadline = self.instant(when);
        let timeout = deadline.saturating_duration_since(Instant::now());
        let (number, cause) = self.cause(ContextError::Cancelled);
        let before = Instant::now();
        let ctx = &self.contexts[i].ctx;
        let (made, number) = if with_cause {
            self.causes[number as usize] = ContextError::DeadlineExceeded;
            (ctx.with_timeout_cause(timeout, cause), Some(number))
        } else {
            (ctx.with_timeout(timeout), None)
        };
        let after = Instant::now();
        // The real clock has a part in it: what came of it is taken over.
        let own = match made.0.deadline() {
            // That of one above. Its own is not known to the nanosecond: those below may ask for it later.
            Some(seen) if seen >= before + timeout => seen,
            _ => return,
        };
        assert!(own <= after + timeout);
        self.with_deadline(i, own, number, made);
    }

    /// Of several sources, which can be cancelled in the end or not.
    fn any_of(&mut self, parents: Vec<usize>, anchored: bool) -> usize {
        let several = parents.len() > 1;
        let fact = self.fact(parents);
        self.loses_callbacks[fact] |= several && !anchored;
        fact
    }

    fn any_of_contexts(&mut self, Few(how_many, which): Few, anchored: bool) {
        let picks = which.iter().filter_map(|&n| self.ctx(n));
        let picks: Vec<usize> = picks.take(usize::from(how_many) % 4).collect();
        let mut sources: Vec<Ctx> = picks.iter().map(|&i| self.contexts[i].clone()).collect();
        if anchored {
            for source in &mut sources {
                let (ctx, guard) = source.ctx.with_cancel();
                let fact = self.fact(Vec::from_iter(source.fact));
                source.limit = self.limit_below(source, fact);
                source.fact = Some(fact);
                source.shown = source.shown.then("with_cancel");
                source.ctx = ctx;
                self.anchors.push((fact, Right::Guard(guard)));
            }
        }
        let parents = sources.iter().filter_map(|source| source.fact).collect();
        let fact = self.any_of(parents, anchored);
        let ctx = Context::any_of(sources.iter().map(|source| &source.ctx));
        let asks = sources
            .iter()
            .any(|source| matches!(source.limit, Limit::Asked));
        let limit = if asks && !self.oracle.is_cancelled(fact) {
            Limit::Asked
        } else {
            let deadlines = sources.iter().map(|source| self.deadline_of(source));
            Limit::Fixed(deadlines.fold(None, earlier))
        };
        let mut shown = sources
            .first()
            .map_or(Shown::new("any_of"), |first| first.shown.then("any_of"));
        let (under, is_new) = self.graces_of(&sources);
        if is_new {
            shown = shown.anew(Some("with_grace"));
        }
        self.push(sources.first(), Some(fact), limit, shown, ctx);
        let made = self.contexts.last_mut().unwrap();
        made.under = under;
        if let Some(under) = under {
            made.keeps.extend(self.oracle.graces_above(under.hard));
        }
    }

    fn any_of_tokens(&mut self, Few(how_many, which): Few, anchored: bool) {
        let picks = which.iter().filter_map(|&n| self.token(n));
        let picks: Vec<usize> = picks.take(usize::from(how_many) % 4).collect();
        let sources: Vec<_> = picks.iter().map(|&i| self.tokens[i].clone()).collect();
        let token = CancellationToken::any_of(sources.iter().map(|source| &source.1));
        let fact = self.any_of(sources.iter().map(|source| source.0).collect(), anchored);
        self.tokens.push((fact, token));
        if anchored {
            let guards = sources
                .into_iter()
                .map(|(fact, token)| (fact, Right::DropGuard(token.drop_guard())));
            self.anchors.extend(guards);
        }
    }

    fn foreign(&mut self, kind: Outside, when: Option<When>, with_value: bool, may_go: bool) {
        let deadline = when.map(|when| self.instant(when));
        let inside = Arc::<Inside>::default();
        let mut number = 0;
        if kind == Outside::Signals {
            let (n, cause) = self.cause(ContextError::Cancelled);
            *inside.ready.lock().unwrap() = Some(cause);
            number = n;
        }
        let value = with_value.then(|| Value::new(number, &self.life));
        let foreign = Foreign {
            kind,
            deadline,
            value,
            inside: inside.clone(),
            life: self.life.clone(),
        };
        let made = catching(|| Context::below(foreign));
        assert_eq!(made.is_none(), kind == Outside::Panics);
        let Some(ctx) = made else { return };
        let fact = self.fact(vec![]);
        self.loses_callbacks[fact] = may_go;
        if kind == Outside::Signals {
            self.oracle.cancel(fact, number);
        }
        if let Some(deadline) = deadline {
            self.expire_at(fact, deadline, 1);
        }
        let limit = Limit::Fixed(deadline.map(|deadline| (deadline, deadline)));
        let shown = Shown::new("foreign");
        self.push(None, Some(fact), limit, shown, ctx);
        self.contexts.last_mut().unwrap().values[0] = with_value.then_some(number);
        self.neighbours.push(Neighbour {
            fact,
            kind,
            woken: with_value,
            inside,
        });
    }

    fn signal(&mut self, i: usize, with_cause: Option<bool>) {
        let (number, cause) = self.some_cause(with_cause);
        let cause = cause.unwrap_or(ContextError::Cancelled.into());
        let Neighbour {
            fact, kind, woken, ..
        } = self.neighbours[i];
        let inside = self.neighbours[i].inside.clone();
        let first = !self.oracle.is_cancelled(fact);
        let held = self.is_held(fact);
        match kind {
            Outside::Keeps => {
                let signals = inside.signals.lock().unwrap().clone();
                if signals.is_empty() {
                    return;
                }
                self.oracle.cancel(fact, number);
                for signal in signals {
                    let was_first = catching(|| signal.cancel_with(cause.clone()));
                    if let Some(was_first) = was_first.filter(|_| held || !first) {
                        assert_eq!(was_first, first);
                    }
                }
            }
            Outside::IsReady => {
                let Some(waker) = inside.waker.lock().unwrap().take() else {
                    return;
                };
                if woken {
                    self.oracle.cancel_and_leave_the_rest(fact, 0);
                } else {
                    self.oracle.cancel_by_worker(fact, number);
                }
                // Taken by the worker's poll, if there is one. Whoever wakes holds a lock here.
                let mut ready = inside.ready.lock().unwrap();
                *ready = Some(cause);
                waker.wake();
            }
            _ => {}
        }
    }

    /// Somebody holds the fact, or something below it.
    fn is_held(&self, fact: usize) -> bool {
        let below = self.oracle.below(fact);
        let contexts = self.contexts.iter().filter_map(|ctx| ctx.fact);
        let tokens = self.tokens.iter().map(|token| token.0);
        let rights = self.rights.iter().map(|right| right.0);
        contexts
            .chain(tokens)
            .chain(rights)
            .any(|fact| below.contains(&fact))
    }

    // ----- waiting ----------------------------------------------------------------------------

    fn wait(&mut self, fact: Option<usize>, waiting: Waiting, panics: bool, keeps: Vec<usize>) {
        let waiter = Waiter {
            fact,
            pending: false,
            rings: 0,
        };
        self.oracle.waiters.push(waiter);
        self.tasks.push(Task {
            number: self.oracle.waiters.len() - 1,
            waiting,
            bell: Bell::new(panics),
            ready: false,
            keeps,
        });
        self.poll(self.tasks.len() - 1);
    }

    fn poll(&mut self, i: usize) {
        let task = &mut self.tasks[i];
        let waker = Waker::from(task.bell.clone());
        let cx = &mut task::Context::from_waker(&waker);
        let error = match &mut task.waiting {
            Waiting::Token(future) => Pin::new(future).poll(cx).map(|()| None),
            Waiting::Done(future) => Pin::new(future).poll(cx).map(Some),
            Waiting::Run(_) if task.ready => return,
            Waiting::Run(future) => future.as_mut().poll(cx),
        };
        task.ready = error.is_ready();
        let waiter = &mut self.oracle.waiters[task.number];
        waiter.pending = error.is_pending();
        match waiter.fact {
            None => assert!(error.is_pending()),
            Some(fact) => {
                assert_eq!(task.ready, self.oracle.is_cancelled(fact));
                if let Poll::Ready(Some(error)) = error {
                    let possible = self.oracle.verdict(fact);
                    let mut possible = possible.map(|cause| self.kind_of(cause));
                    assert!(possible.any(|kind| kind == error));
                }
            }
        }
    }

    /// A waiter on a child that goes with it, forgotten or not.
    fn wait_briefly(&mut self, i: usize, forget: bool) {
        let bell = Bell::new(false);
        let waker = Waker::from(bell.clone());
        let ready;
        {
            let (ctx, guard) = self.contexts[i].ctx.with_cancel();
            guard.detach();
            let cx = &mut task::Context::from_waker(&waker);
            let mut done = ctx.done();
            ready = Pin::new(&mut done).poll(cx).is_ready();
            if forget {
                std::mem::forget(done);
            }
        }
        drop(waker);
        assert_eq!(ready, self.contexts[i].ctx.is_done());
        assert_eq!(Arc::strong_count(&bell), 1, "a dropped waker is kept");
        assert_eq!(bell.rings(), 0);
    }

    // ----- callbacks --------------------------------------------------------------------------

    /// Registers by `with`, which is given what is to be called.
    fn register(
        &mut self,
        fact: usize,
        register: Register,
        with: impl FnOnce(Box<dyn FnOnce() + Send>) -> Registration,
    ) {
        let runs = Bell::new(false);
        let inner = runs.clone();
        let off_thread = register.off_thread;
        let nothing = (Action::Nothing, None);
        let (action, link) = match register.work {
            Work::Link(n) => pick(self.links.len(), n).map_or(nothing, |link| {
                let (cancels, shared) = self.links[link].clone();
                if cancels {
                    let (number, cause) = self.cause(ContextError::Cancelled);
                    (Action::Cancel(link, number), Some((shared, Some(cause))))
                } else {
                    (Action::Unlink(link), Some((shared, None)))
                }
            }),
            Work::Grow => {
                let link = pick(self.links.len(), 0).map(|link| self.links[link].1.clone());
                let work = move || {
                    inner.ring();
                    let token = link.and_then(|link| link.lock().unwrap().clone());
                    let token = token.unwrap_or_default();
                    let children = [(); 9].map(|()| token.child_token());
                    drop(token.child_token().context().with_cancel());
                    drop(children);
                };
                return self.registered(fact, off_thread, Action::Nothing, runs, || {
                    with(Box::new(work))
                });
            }
            // A panic of these has nowhere to go to.
            Work::Panic if !off_thread => {
                let work = move || {
                    inner.ring();
                    planned_panic();
                };
                return self.registered(fact, off_thread, Action::Nothing, runs, || {
                    with(Box::new(work))
                });
            }
            _ => nothing,
        };
        let work = move || {
            inner.ring();
            let Some((link, cause)) = link else { return };
            let act = || match cause {
                Some(cause) => {
                    let token = link.lock().unwrap().clone();
                    if let Some(token) = token {
                        token.cancel_with(cause);
                    }
                }
                None => drop(link.lock().unwrap().take()),
            };
            if off_thread {
                catching(act);
            } else {
                act();
            }
        };
        self.registered(fact, off_thread, action, runs, || with(Box::new(work)));
    }

    fn registered(
        &mut self,
        fact: usize,
        off_thread: bool,
        action: Action,
        runs: Arc<Bell>,
        with: impl FnOnce() -> Registration,
    ) {
        let cancelled = self.oracle.is_cancelled(fact);
        let registration = catching(with);
        assert!(registration.is_some() || cancelled);
        self.oracle.register(fact, off_thread, action);
        self.callbacks.push(Callback {
            number: self.oracle.callbacks.len() - 1,
            runs,
            registration,
        });
    }

    fn unregister(&mut self, i: usize, how: Unregister) {
        let known = &self.oracle.callbacks[self.callbacks[i].number];
        if known.registered && self.oracle.is_cancelled(known.fact) {
            // Nobody could say whether it has been called by now.
            self.settle();
        }
        let callback = &mut self.callbacks[i];
        let known = &mut self.oracle.callbacks[callback.number];
        let stays_for_ever = known.registered && self.loses_callbacks[known.fact];
        let waits_for_ever = known.queued;
        match how {
            Unregister::Drop if stays_for_ever => return,
            Unregister::AndWait if waits_for_ever => return,
            _ => {}
        }
        let Some(registration) = callback.registration.take() else {
            return;
        };
        match how {
            Unregister::Drop => return drop(registration),
            Unregister::Disarmed => {
                callback.registration = Some(registration.stop_on_drop().disarm());
                return;
            }
            Unregister::Stop => assert_eq!(registration.stop(), known.registered),
            Unregister::AndWait => assert_eq!(registration.stop_and_wait(), known.registered),
            Unregister::OnDrop => drop(registration.stop_on_drop()),
            Unregister::Async => {
                let mut future = Box::pin(registration.stop_async());
                let bell = Bell::new(false);
                let waker = Waker::from(bell.clone());
                let polled = future.as_mut().poll(&mut task::Context::from_waker(&waker));
                match polled {
                    Poll::Pending => assert!(waits_for_ever),
                    Poll::Ready(stopped) => assert_eq!(stopped, known.registered),
                }
                self.stopping.push(Stopping {
                    callback: callback.number,
                    pending: polled.is_pending(),
                    bell,
                    future,
                });
            }
        }
        known.registered = false;
    }

    // ----- time -------------------------------------------------------------------------------

    fn turn_to(&mut self, now: Instant) {
        self.note_held();
        self.now = now;
        let due = self.oracle.expire(clock::tick(now));
        self.oracle.fire(due);
        let service = &mut self.service;
        on_a_worker(|| service.turn(now));
    }

    fn expire_to(&mut self, now: Instant) {
        self.note_held();
        self.now = now;
        let known = self.oracle.expire(clock::tick(now));
        // Runs no user code.
        let due = self.service.expire(now);
        self.due.push((due, known));
    }

    fn fire(&mut self, i: usize) {
        self.note_held();
        let (due, known) = self.due.remove(i);
        self.oracle.fire(known);
        on_a_worker(|| due.fire());
    }

    // ----- steps ------------------------------------------------------------------------------

    fn step(&mut self, step: Step) {
        self.note_held();
        match step {
            Step::Root(Root::Background) => {
                let shown = Shown::new("background");
                let limit = Limit::Fixed(None);
                self.push(None, None, limit, shown, Context::background());
            }
            Step::Root(Root::Todo) => {
                let (limit, shown) = (Limit::Fixed(None), Shown::new("todo"));
                self.push(None, None, limit, shown, Context::todo());
            }
            Step::Root(Root::Token) => {
                let fact = self.fact(vec![]);
                self.tokens.push((fact, CancellationToken::new()));
            }
            Step::WithCancel(n) | Step::Forever(n) => {
                let Some(i) = self.ctx(n) else { return };
                let from = self.contexts[i].clone();
                let (ctx, guard) = match step {
                    Step::Forever(_) => from.ctx.with_timeout(Duration::MAX),
                    _ => from.ctx.with_cancel(),
                };
                let fact = self.fact(Vec::from_iter(from.fact));
                let shown = from.shown.then("with_cancel");
                let limit = self.limit_below(&from, fact);
                self.push(Some(&from), Some(fact), limit, shown, ctx);
                self.rights.push((fact, Right::Guard(guard)));
            }
            Step::WithDeadline(n, when) => {
                let Some(i) = self.ctx(n) else { return };
                let deadline = self.instant(when);
                let made = self.contexts[i].ctx.with_deadline(deadline);
                self.with_deadline(i, deadline, None, made);
            }
            Step::WithDeadlineCause(n, when, kind) => {
                let Some(i) = self.ctx(n) else { return };
                let deadline = self.instant(when);
                let (number, cause) = self.some_cause(Some(kind));
                // Whatever kind it had.
                self.causes[number as usize] = ContextError::DeadlineExceeded;
                let ctx = &self.contexts[i].ctx;
                let made = ctx.with_deadline_cause(deadline, cause.unwrap());
                self.with_deadline(i, deadline, Some(number), made);
            }
            Step::WithTimeout(n, when, with_cause) => {
                if let Some(i) = self.ctx(n) {
                    self.with_timeout(i, when, with_cause);
                }
            }
            Step::WithValue(n, kind) => {
                let Some(i) = self.ctx(n) else { return };
                let from = self.contexts[i].clone();
                let kind = usize::from(kind) % KINDS;
                // Any number that is not used twice.
                let number = self.causes.len() as u32 * 256 + self.contexts.len() as u32 % 256;
                let (ctx, type_name) = with_value(&from.ctx, kind, number, &self.life);
                let shown = from.shown.with_value(type_name);
                self.push(Some(&from), from.fact, from.limit, shown, ctx);
                self.contexts.last_mut().unwrap().values[kind] = Some(number);
            }
            Step::WithoutCancel(n) => {
                let Some(i) = self.ctx(n) else { return };
                let from = self.contexts[i].clone();
                let mut shown = from.shown.then("without_cancel");
                if from.under.is_some() {
                    shown = shown.anew(None);
                }
                let ctx = from.ctx.without_cancel();
                self.push(Some(&from), None, Limit::Fixed(None), shown, ctx);
                self.contexts.last_mut().unwrap().under = None;
            }
            Step::AnyOf(few, anchored) => self.any_of_contexts(few, anchored),
            Step::Foreign(kind, when, with_value, may_go) => {
                self.foreign(kind, when, with_value, may_go)
            }
            Step::Signal(n, with_cause) => {
                if let Some(i) = pick(self.neighbours.len(), n) {
                    self.signal(i, Some(with_cause));
                }
            }
            Step::ForeignGone(n) => {
                let Some(i) = pick(self.neighbours.len(), n) else {
                    return;
                };
                let Neighbour { fact, kind, .. } = self.neighbours[i];
                if kind == Outside::Keeps && self.loses_callbacks[fact] {
                    self.neighbours[i].inside.signals.lock().unwrap().clear();
                }
            }
            Step::Clone(n) => {
                if let Some(i) = self.ctx(n) {
                    self.contexts.push(self.contexts[i].clone());
                }
            }
            Step::Drop(n) => {
                if let Some(i) = self.ctx(n) {
                    self.contexts.swap_remove(i);
                }
            }
            Step::DropLast(n) => {
                let keep = self.contexts.len().saturating_sub(usize::from(n) % 16);
                self.contexts.truncate(keep);
            }
            Step::ChildToken(n) => {
                let Some(i) = self.ctx(n) else { return };
                let parents = Vec::from_iter(self.contexts[i].fact);
                let fact = self.fact(parents);
                let token = self.contexts[i].ctx.child_token();
                self.tokens.push((fact, token));
            }
            Step::Child(n) => {
                let Some(i) = self.token(n) else { return };
                let child = self.tokens[i].1.child_token();
                assert_ne!(child, self.tokens[i].1);
                let fact = self.fact(vec![self.tokens[i].0]);
                self.tokens.push((fact, child));
            }
            Step::Children(n, how_many) => {
                for _ in 0..how_many % 20 {
                    self.step(Step::Child(n));
                }
            }
            Step::AnyOfTokens(few, anchored) => self.any_of_tokens(few, anchored),
            Step::TokenContext(n) => {
                let Some(i) = self.token(n) else { return };
                let fact = Some(self.tokens[i].0);
                let ctx = self.tokens[i].1.context();
                // That of the contexts above the token.
                let limit = match self.oracle.deadline(self.tokens[i].0) {
                    (_, true) => Limit::Asked,
                    (deadline, false) => Limit::Fixed(deadline),
                };
                self.push(None, fact, limit, Shown::new("token"), ctx);
            }
            Step::CloneToken(n) => {
                let Some(i) = self.token(n) else { return };
                let clone = self.tokens[i].clone();
                assert_eq!(clone.1, self.tokens[i].1);
                self.tokens.push(clone);
            }
            Step::DropToken(n) => {
                if let Some(i) = self.token(n) {
                    self.tokens.swap_remove(i);
                }
            }
            Step::DropLastTokens(n) => {
                let keep = self.tokens.len().saturating_sub(usize::from(n) % 32);
                self.tokens.truncate(keep);
            }
            Step::Cancel(n, with_cause) => {
                let Some(i) = self.token(n) else { return };
                let fact = self.tokens[i].0;
                let (number, cause) = self.some_cause(with_cause);
                let first = !self.oracle.is_cancelled(fact);
                self.oracle.cancel(fact, number);
                let token = &self.tokens[i].1;
                let was_first = catching(|| match cause {
                    None => {
                        token.cancel();
                        first
                    }
                    Some(cause) => token.cancel_with(cause),
                });
                assert_eq!(was_first.unwrap_or(first), first);
            }
            Step::Right(n, how) => {
                if let Some(i) = pick(self.rights.len(), n) {
                    self.use_right(i, how);
                }
            }
            Step::Wait(n, how, panics) => {
                let mut keeps = Vec::new();
                let (fact, waiting) = match how {
                    Wait::Token | Wait::RunOnToken => {
                        let Some(i) = self.token(n) else { return };
                        let (fact, token) = self.tokens[i].clone();
                        let waiting = match how {
                            Wait::Token => Waiting::Token(token.cancelled_owned()),
                            _ => Waiting::Run(Box::pin(async move {
                                let run = token.run_until_cancelled_owned(pending::<()>());
                                assert_eq!(run.await, None);
                                None
                            })),
                        };
                        (Some(fact), waiting)
                    }
                    Wait::Done | Wait::Run => {
                        let Some(i) = self.ctx(n) else { return };
                        let Ctx { fact, ctx, .. } = self.contexts[i].clone();
                        keeps.clone_from(&self.contexts[i].keeps);
                        let waiting = match how {
                            Wait::Done => Waiting::Done(ctx.done_owned()),
                            _ => Waiting::Run(Box::pin(async move {
                                ctx.run(pending::<()>()).await.err()
                            })),
                        };
                        (fact, waiting)
                    }
                };
                self.wait(fact, waiting, panics, keeps);
            }
            Step::Poll(n, other) => {
                let Some(i) = pick(self.tasks.len(), n) else {
                    return;
                };
                match other {
                    None => self.poll(i),
                    Some(panics) => {
                        let old = std::mem::replace(&mut self.tasks[i].bell, Bell::new(panics));
                        let known = &mut self.oracle.waiters[self.tasks[i].number];
                        assert_eq!(old.rings(), known.rings);
                        known.rings = 0;
                        self.poll(i);
                        assert_eq!(Arc::strong_count(&old), 1, "a replaced waker is kept");
                    }
                }
            }
            Step::DropWaiter(n) => {
                let Some(i) = pick(self.tasks.len(), n) else {
                    return;
                };
                let task = self.tasks.swap_remove(i);
                let known = &mut self.oracle.waiters[task.number];
                known.pending = false;
                assert_eq!(task.bell.rings(), known.rings);
                drop(task.waiting);
                assert_eq!(Arc::strong_count(&task.bell), 1, "a dropped waker is kept");
            }
            Step::Briefly(n, forget) => {
                if let Some(i) = self.ctx(n) {
                    self.wait_briefly(i, forget);
                }
            }
            Step::WaitNow(n) => {
                // A thread that waits acts on a deadline that has passed by the real clock, or passes just now.
                let soon = Instant::now() + Duration::from_secs(60);
                let i = self.ctx(n).filter(|&i| {
                    let deadline = self.deadline_of(&self.contexts[i]);
                    !deadline.is_some_and(|deadline| deadline.0 <= soon)
                });
                if let Some(i) = i {
                    let ctx = &self.contexts[i].ctx;
                    assert_eq!(ctx.blocking_wait_timeout(Duration::ZERO), ctx.err());
                    assert_eq!(ctx.blocking_sleep(Duration::ZERO), ctx.check());
                    if let Some(error) = ctx.err() {
                        assert_eq!(ctx.blocking_wait(), error);
                    }
                }
                if let Some(i) = self.token(n) {
                    let token = &self.tokens[i].1;
                    assert_eq!(
                        token.blocking_wait_timeout(Duration::ZERO),
                        token.is_cancelled()
                    );
                    assert_eq!(
                        token.blocking_wait_deadline(clock::base()),
                        token.is_cancelled()
                    );
                }
            }
            Step::Register(n, register) => {
                let Some(i) = self.ctx(n) else { return };
                let Ctx { fact, ctx, .. } = self.contexts[i].clone();
                // What is never done has nothing that could be cancelled.
                let fact = fact.unwrap_or_else(|| self.fact(vec![]));
                self.register(fact, register, |work| match register.off_thread {
                    true => ctx.after_func(work),
                    false => ctx.on_cancel(work),
                });
            }
            Step::OnToken(n, register) => {
                let Some(i) = self.token(n) else { return };
                let (fact, token) = self.tokens[i].clone();
                let register = Register {
                    off_thread: false,
                    ..register
                };
                self.register(fact, register, |work| token.on_cancel(work));
            }
            Step::Unregister(n, how) => {
                if let Some(i) = pick(self.callbacks.len(), n) {
                    self.unregister(i, how);
                }
            }
            Step::Link(n, cancels) => {
                let Some(i) = self.token(n) else { return };
                let (fact, token) = self.tokens[i].clone();
                self.oracle.links.push(Some(fact));
                self.links
                    .push((cancels, Arc::new(Mutex::new(Some(token)))));
            }
            Step::Unlink(n) => {
                if let Some(i) = pick(self.links.len(), n) {
                    self.oracle.links[i] = None;
                    drop(self.links[i].1.lock().unwrap().take());
                }
            }
            Step::Turn(n, power) => self.turn_to(self.later(n, power)),
            Step::Expire(n, power) => self.expire_to(self.later(n, power)),
            Step::Fire(n) => {
                if let Some(i) = pick(self.due.len(), n) {
                    self.fire(i);
                }
            }
            Step::Purge => {
                // What was given up comes by the inbox: a look at it, while time stands still.
                let now = self.now;
                self.expire_to(now);
            }
            Step::EndOfThread => Service::end_of_thread(),
            Step::Movable(n, when) => {
                if let Some(i) = self.ctx(n) {
                    self.movable(i, when);
                }
            }
            Step::Idle(n, ticks, power) => {
                if let Some(i) = self.ctx(n) {
                    self.idle(i, ticks, power);
                }
            }
            Step::Move(n, how) => self.move_deadline(n, how),
            Step::Touch(n, when) => self.touch(n, when),
            Step::WithGrace(n, period) => {
                if let Some(i) = self.ctx(n) {
                    self.with_grace(i, period);
                }
            }
            Step::Shield(n) => {
                if let Some(i) = self.ctx(n) {
                    self.shield(i);
                }
            }
            Step::Group(step) => self.group_step(step),
        }
    }

    fn later(&self, n: u8, power: u8) -> Instant {
        self.instant(When::In(n, power, 0))
    }

    fn use_right(&mut self, i: usize, how: Use) {
        self.note_held();
        let fact = self.rights[i].0;
        let first = !self.oracle.is_cancelled(fact);
        match how {
            Use::Cancel(with_cause) => {
                let (number, cause) = self.some_cause(with_cause);
                self.oracle.cancel(fact, number);
                let right = &self.rights[i].1;
                let was_first = catching(|| match (right, cause) {
                    (Right::Guard(guard), None) => guard.cancel(),
                    (Right::Guard(guard), Some(cause)) => guard.cancel_with(cause),
                    (Right::Deadline(guard), None) => guard.cancel(),
                    (Right::Deadline(guard), Some(cause)) => guard.cancel_with(cause),
                    (Right::Idle(guard), None) => guard.cancel(),
                    (Right::Idle(guard), Some(cause)) => guard.cancel_with(cause),
                    (Right::Canceller(canceller), None) => canceller.cancel(),
                    (Right::Canceller(canceller), Some(cause)) => canceller.cancel_with(cause),
                    (Right::DropGuard(guard), None) => {
                        guard.token().cancel();
                        first
                    }
                    (Right::DropGuard(guard), Some(cause)) => guard.token().cancel_with(cause),
                });
                assert_eq!(was_first.unwrap_or(first), first);
            }
            Use::Canceller => {
                let right = match &self.rights[i].1 {
                    Right::Guard(guard) => Right::Canceller(guard.canceller()),
                    Right::Deadline(guard) => Right::Canceller(guard.canceller()),
                    Right::Idle(guard) => Right::Canceller(guard.canceller()),
                    Right::Canceller(canceller) => Right::Canceller(canceller.clone()),
                    Right::DropGuard(guard) => Right::DropGuard(guard.token().clone().drop_guard()),
                };
                self.rights.push((fact, right));
            }
            Use::Drop => {
                let right = self.rights.swap_remove(i).1;
                if !matches!(right, Right::Canceller(_)) {
                    self.oracle.cancel(fact, GUARD_DROPPED);
                }
                catching(|| drop(right));
            }
            Use::Detach => match self.rights.swap_remove(i).1 {
                Right::Guard(guard) => guard.detach(),
                Right::Deadline(guard) => guard.into_guard().detach(),
                Right::Idle(guard) => guard.into_guard().detach(),
                Right::Canceller(canceller) => drop(canceller),
                Right::DropGuard(guard) => self.tokens.push((fact, guard.disarm())),
            },
        }
    }

    // ----- what must hold ---------------------------------------------------------------------

    /// Which graces somebody has a context under: the others do not begin.
    fn note_held(&mut self) {
        self.oracle.note_when(self.since);
        self.since = Instant::now();
        let contexts = self.contexts.iter().map(|ctx| &ctx.keeps);
        let tasks = self.tasks.iter().map(|task| &task.keeps);
        let held = contexts.chain(tasks).chain(self.groups.keep());
        let held: BTreeSet<usize> = held.flatten().copied().collect();
        self.oracle.set_held(|grace| held.contains(&grace));
    }

    fn check(&mut self) {
        self.catch_up();
        self.oracle.note_when(self.since);
        while self.oracle.has_grace_to_begin() {
            // Nobody could say whether it has begun by now.
            self.settle();
            self.oracle.note_when(self.since);
        }
        for ctx in &self.contexts {
            let cause = ctx.ctx.cause();
            let number = cause.as_ref().map(Reason::number_of);
            let kind = number.map(|number| self.kind_of(number));
            assert_eq!(cause.map(|cause| cause.kind()), kind);
            assert_eq!(ctx.ctx.err(), kind);
            assert_eq!(ctx.ctx.is_done(), kind.is_some());
            assert_eq!(ctx.ctx.check().err(), kind);
            match (ctx.ctx.deadline(), self.deadline_of(ctx)) {
                (None, None) => {}
                (Some(seen), Some((from, to))) if from <= seen && seen <= to => {}
                (seen, known) => {
                    panic!("the deadline {seen:?} was seen, not {known:?}: {}", ctx.ctx)
                }
            }
            assert_eq!(
                ctx.ctx.is_shielded(),
                ctx.under.is_some_and(|u| u.is_shielded)
            );
            assert_eq!(values_of(&ctx.ctx), ctx.values);
            let is_own = ctx.ctx.is_own_deadline();
            match ctx.fact {
                Some(fact) => self.oracle.observe(fact, number, Some(is_own)),
                None => assert_eq!((number, is_own), (None, false)),
            }
        }
        for (fact, token) in &self.tokens {
            let cause = token.cause();
            let number = cause.as_ref().map(Reason::number_of);
            let kind = number.map(|number| self.kind_of(number));
            assert_eq!(cause.map(|cause| cause.kind()), kind);
            assert_eq!(token.is_cancelled(), kind.is_some());
            self.oracle.observe(*fact, number, None);
        }
        self.check_groups();
        for task in &self.tasks {
            let known = &self.oracle.waiters[task.number];
            // Marked, and a worker is still to wake it: a cancel from above may have been faster.
            let is_marked = known
                .fact
                .is_some_and(|fact| self.oracle.is_cancelled(fact));
            let may_be_early = known.pending && is_marked;
            let known = &mut self.oracle.waiters[task.number];
            if may_be_early && task.bell.rings() == known.rings + 1 {
                known.rings += 1;
                known.pending = false;
            }
            assert_eq!(task.bell.rings(), known.rings, "wake-ups");
        }
        for callback in &self.callbacks {
            let known = &self.oracle.callbacks[callback.number];
            assert_eq!(callback.runs.rings(), known.runs, "runs of a callback");
            if !known.registered && !known.queued {
                assert_eq!(Arc::strong_count(&callback.runs), 1, "a callback is kept");
            }
        }
        for stopping in &mut self.stopping {
            let known = &self.oracle.callbacks[stopping.callback];
            let over = stopping.pending && !known.queued;
            assert_eq!(stopping.bell.rings(), usize::from(over));
            if over {
                let cx = &mut task::Context::from_waker(Waker::noop());
                assert_eq!(stopping.future.as_mut().poll(cx), Poll::Ready(false));
            }
        }
    }

    /// Callbacks that were a worker's to call, and that others have called first.
    fn catch_up(&mut self) {
        loop {
            let runs = |callback: &Callback| (callback.number, callback.runs.rings());
            if !self
                .oracle
                .were_called_early(self.callbacks.iter().map(runs))
            {
                return;
            }
        }
    }

    /// Nothing is left that is marked and for workers to wake and call.
    fn settle(&mut self) {
        let now = self.now;
        self.expire_to(now);
        self.fire_all();
        self.catch_up();
    }

    /// All that there is goes, in one of several orders.
    fn end(mut self, order: u8) {
        self.end_groups(order & 32 != 0);
        let end = self.instant(When::InAges).max(self.now);
        if order & 1 != 0 {
            self.turn_to(end);
            self.check();
        }
        if order & 2 != 0 {
            self.fire_all();
            self.check();
        }
        // What could keep callbacks for ever.
        for i in 0..self.neighbours.len() {
            self.signal(i, Some(false));
            self.check();
        }
        while let Some((fact, right)) = self.anchors.pop() {
            self.oracle.cancel(fact, GUARD_DROPPED);
            catching(|| drop(right));
            self.check();
        }
        if order & 4 != 0 {
            self.tasks.clear();
            self.tokens.clear();
        }
        self.contexts.clear();
        while !self.rights.is_empty() {
            let last = self.rights.len() - 1;
            let how = match order & 8 {
                0 => Use::Detach,
                _ => Use::Drop,
            };
            self.use_right(last, how);
        }
        self.tokens.clear();
        for i in 0..self.callbacks.len() {
            // A registration keeps its token, and with it what else waits there.
            self.unregister(i, Unregister::Stop);
        }
        for (_, link) in &self.links {
            drop(link.lock().unwrap().take());
        }
        self.oracle.links.fill(None);
        if order & 16 != 0 {
            Service::end_of_thread();
        }
        self.turn_to(end);
        self.fire_all();
        self.tasks.clear();
        // What callbacks did.
        self.turn_to(end);
        self.check();
        Service::end_of_thread();
        drop(self.service);
        self.stopping.clear();
        self.neighbours.clear();
        self.links.clear();
        for callback in &self.callbacks {
            assert_eq!(Arc::strong_count(&callback.runs), 1, "a callback is left");
        }
        assert_eq!(Arc::strong_count(&self.life), 1, "user data is left");
    }

    fn fire_all(&mut self) {
        while !self.due.is_empty() {
            self.fire(0);
        }
    }
}

fn ticks_long(ticks: u64) -> Duration {
    Duration::from_nanos(ticks * clock::TICK.as_nanos() as u64)
}

#[derive(Arbitrary, Debug)]
struct Input {
    turned: bool,
    order: u8,
    steps: Vec<Step>,
}

fn run(input: &Input) {
    let mut world = World::new(input.turned);
    for &step in &input.steps {
        world.step(step);
        world.check();
    }
    world.end(input.order);
}

/// What a thread keeps for ever is there before anything is counted.
fn warm_up() {
    CancellationToken::new().blocking_wait_timeout(Duration::from_nanos(1));
    let (ctx, guard) = Context::background().with_deadline(clock::start());
    drop(guard);
    drop(ctx.after_func(|| ()));
    drop(ctx);
    Service::end_of_thread();
    drop(Service::new());
}

fuzz_target!(|input: Input| {
    static WARM: Once = Once::new();
    WARM.call_once(warm_up);
    let before = allocations::live();
    run(&input);
    assert_eq!(allocations::live(), before, "memory is left");
});
