//! Two or three threads, each with operations of its own, on one small tree. What they did and saw is recorded, and
//! checked for what must hold whatever the order was. In the end nothing may be left. Time is turned by hand, by the
//! first of the threads.
//!
//! `fuzz/run.sh 1800 threads`
#![no_main]

#[path = "threads/groups.rs"]
mod groups;

use arbitrary::Arbitrary;
use cancel_tree::{
    CancelGuard, CancellationToken, Canceller, Cause, Context, ContextError, DeadlineGuard,
    DoneSignal, ForeignContext, IdleGuard, Registration, Service, WaitForCancellationFutureOwned,
};
use cancel_tree_fuzz::history::{Event, History, Moved, Seen, Told};
use cancel_tree_fuzz::pool::Pool;
use cancel_tree_fuzz::probes::{Reason, FIRST_CAUSE, GUARD_DROPPED};
use cancel_tree_fuzz::span::{stamp, Span};
use cancel_tree_fuzz::{allocations, clock};
use libfuzzer_sys::fuzz_target;
use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{self, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Numbers are taken modulo what there is.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Make {
    Root,
    Child(u8),
    Context(u8),
    Deadline(u8, u8, bool),
    AnyOf(u8, u8),
    Foreign,
    Movable(u8, Option<u8>),
    Idle(u8, u8),
    /// That ends at once, or never.
    Grace(u8, bool),
    Shield(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Move {
    Set(u8),
    Extend(u8),
    TakeAway,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Make(Make),
    Churn(u8, u8),
    Clone(u8),
    Drop(u8),
    Cancel(u8, bool),
    Look(u8),
    LookWhy(u8),
    Wait(u8),
    Poll(u8, bool),
    DropWaiter(u8),
    Park(u8),
    Register(u8, bool),
    Stop(u8),
    StopAndWait(u8),
    Detach(u8),
    Give(u8, u8),
    Take(u8),
    /// Of the first thread; the others are idle for a while.
    Turn(u8),
    Move(u8, Move),
    Touch(u8, u8),
    Group(groups::Step),
}

#[derive(Arbitrary, Debug)]
struct Input {
    /// What is there at first, and which threads have it.
    tree: Vec<(Make, u8)>,
    groups: Vec<groups::New>,
    third: bool,
    turn_at_the_end: bool,
    programs: [Vec<Step>; 3],
}

const TREE: usize = 12;
const GROUPS: usize = 3;
const STEPS: usize = 40;
const BOXES: usize = 3;

/// What the threads share beside the tree.
struct Shared {
    facts: AtomicUsize,
    causes: AtomicU32,
    boxes: [Mutex<Option<Held>>; BOXES],
    /// Held by all causes.
    life: Arc<()>,
}

/// Counts, and knows when.
#[derive(Default)]
struct Bell {
    rings: AtomicUsize,
    first: AtomicU64,
    /// A callback's end.
    over: AtomicU64,
}

impl Bell {
    fn ring(&self) {
        // Before it is counted: who finds it counted asks when.
        let _ = self
            .first
            .compare_exchange(0, stamp(), Ordering::AcqRel, Ordering::Relaxed);
        self.rings.fetch_add(1, Ordering::AcqRel);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

enum Handle {
    Token(CancellationToken),
    Guarded(Context, CancelGuard),
    Cancellable(Context, Canceller),
    Foreign(Context, DoneSignal),
    Movable(Context, Arc<DeadlineGuard>),
    Idle(Context, Arc<IdleGuard>),
    /// Without a right to cancel.
    Plain(Context),
}

/// The grace that a context is under.
#[derive(Clone)]
struct Under {
    hard: usize,
    is_long: bool,
    /// The other hard ones that end this one.
    above: Vec<usize>,
}

impl Under {
    /// Within that one, if there is one.
    fn within(hard: usize, is_long: bool, outer: Option<Under>) -> Under {
        let above = outer.map(|outer| outer.all().collect());
        Under {
            hard,
            is_long,
            above: above.unwrap_or_default(),
        }
    }

    fn all(&self) -> impl Iterator<Item = usize> + '_ {
        self.above.iter().copied().chain([self.hard])
    }

    fn is_within(&self, other: &Under) -> bool {
        self.all().any(|hard| hard == other.hard)
    }
}

/// A handle of a fact.
struct Held {
    fact: usize,
    handle: Handle,
    /// A callback that is left here could stay for ever.
    loses_callbacks: bool,
    /// The context's.
    under: Option<Under>,
    /// A deadline above it moves.
    asks: bool,
}

impl Clone for Held {
    fn clone(&self) -> Held {
        let handle = match &self.handle {
            Handle::Token(token) => Handle::Token(token.clone()),
            Handle::Guarded(ctx, guard) => Handle::Cancellable(ctx.clone(), guard.canceller()),
            Handle::Cancellable(ctx, right) => Handle::Cancellable(ctx.clone(), right.clone()),
            Handle::Foreign(ctx, signal) => Handle::Foreign(ctx.clone(), signal.clone()),
            Handle::Movable(ctx, guard) => Handle::Movable(ctx.clone(), guard.clone()),
            Handle::Idle(ctx, guard) => Handle::Idle(ctx.clone(), guard.clone()),
            Handle::Plain(ctx) => Handle::Plain(ctx.clone()),
        };
        let under = self.under.clone();
        Held {
            handle,
            under,
            ..*self
        }
    }
}

impl Held {
    /// The context, if it is none of a token.
    fn own_ctx(&self) -> Result<&Context, &CancellationToken> {
        match &self.handle {
            Handle::Token(token) => Err(token),
            Handle::Guarded(ctx, _)
            | Handle::Cancellable(ctx, _)
            | Handle::Foreign(ctx, _)
            | Handle::Movable(ctx, _)
            | Handle::Idle(ctx, _)
            | Handle::Plain(ctx) => Ok(ctx),
        }
    }

    fn ctx(&self) -> Context {
        match self.own_ctx() {
            Err(token) => token.context(),
            Ok(ctx) => ctx.clone(),
        }
    }

    fn child_token(&self) -> CancellationToken {
        match self.own_ctx() {
            Err(token) => token.child_token(),
            Ok(ctx) => ctx.child_token(),
        }
    }

    fn is_done(&self) -> bool {
        match self.own_ctx() {
            Err(token) => token.is_cancelled(),
            Ok(ctx) => ctx.is_done(),
        }
    }

    fn cause(&self) -> Option<Cause> {
        match self.own_ctx() {
            Err(token) => token.cause(),
            Ok(ctx) => {
                let error = ctx.err();
                let cause = ctx.cause();
                if let Some(error) = error {
                    assert_eq!(cause.as_ref().map(Cause::kind), Some(error));
                }
                cause
            }
        }
    }

    /// Whether it was the first one, where that is said.
    fn cancel(&self, cause: Option<Cause>) -> Option<bool> {
        match (&self.handle, cause) {
            (Handle::Token(token), None) => {
                token.cancel();
                None
            }
            (Handle::Token(token), Some(cause)) => Some(token.cancel_with(cause)),
            (Handle::Guarded(_, guard), None) => Some(guard.cancel()),
            (Handle::Guarded(_, guard), Some(cause)) => Some(guard.cancel_with(cause)),
            (Handle::Cancellable(_, right), None) => Some(right.cancel()),
            (Handle::Cancellable(_, right), Some(cause)) => Some(right.cancel_with(cause)),
            (Handle::Foreign(_, signal), None) => Some(signal.cancel()),
            (Handle::Foreign(_, signal), Some(cause)) => Some(signal.cancel_with(cause)),
            (Handle::Movable(_, guard), None) => Some(guard.cancel()),
            (Handle::Movable(_, guard), Some(cause)) => Some(guard.cancel_with(cause)),
            (Handle::Idle(_, guard), None) => Some(guard.cancel()),
            (Handle::Idle(_, guard), Some(cause)) => Some(guard.cancel_with(cause)),
            (Handle::Plain(_), _) => None,
        }
    }
}

struct Outside(Arc<Mutex<Option<DoneSignal>>>);

impl ForeignContext for Outside {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        *self.0.lock().unwrap() = Some(signal);
        Box::new(self.0.clone())
    }
}

struct Task {
    fact: usize,
    future: WaitForCancellationFutureOwned,
    bell: Arc<Bell>,
    since: Span,
    pending: bool,
}

struct Callback {
    fact: usize,
    runs: Arc<Bell>,
    registration: Option<Registration>,
    registered: Span,
    off_thread: bool,
    stopped: bool,
    loses_callbacks: bool,
}

/// What one thread has.
struct Thread {
    shared: Arc<Shared>,
    history: History,
    handles: Vec<Held>,
    tasks: Vec<Task>,
    callbacks: Vec<Callback>,
    groups: groups::Own,
    facts_of_groups: Vec<usize>,
    /// The first thread's, and up to where it has been turned.
    service: Option<(Service, Instant)>,
}

fn pick(len: usize, n: u8) -> Option<usize> {
    usize::from(n).checked_rem(len)
}

fn deadline(n: u8) -> Instant {
    clock::start() + clock::TICK * u32::from(n % 16)
}

impl Thread {
    fn new(shared: &Arc<Shared>) -> Thread {
        Thread {
            shared: shared.clone(),
            history: History::default(),
            handles: Vec::new(),
            tasks: Vec::new(),
            callbacks: Vec::new(),
            groups: groups::Own::default(),
            facts_of_groups: Vec::new(),
            service: None,
        }
    }

    fn handle(&self, n: u8) -> Option<usize> {
        pick(self.handles.len(), n)
    }

    fn cause(&self, kind: ContextError) -> (u32, Cause) {
        let number = self.shared.causes.fetch_add(1, Ordering::Relaxed);
        (number, Reason::cause(number, kind, &self.shared.life))
    }

    fn fact(&self) -> usize {
        self.shared.facts.fetch_add(1, Ordering::Relaxed)
    }

    fn make(&mut self, what: Make) {
        let first = match what {
            Make::Root | Make::Foreign => None,
            Make::Child(n)
            | Make::Context(n)
            | Make::Deadline(n, ..)
            | Make::AnyOf(n, _)
            | Make::Movable(n, _)
            | Make::Idle(n, _)
            | Make::Grace(n, _)
            | Make::Shield(n) => {
                let Some(i) = self.handle(n) else { return };
                Some(self.handles[i].clone())
            }
        };
        let mut parents: Vec<usize> = first.iter().map(|first| first.fact).collect();
        let mut loses_callbacks = first.as_ref().is_some_and(|first| first.loses_callbacks);
        let mut own_deadline = None;
        let mut under = first.as_ref().and_then(|first| first.under.clone());
        let mut asks = first.as_ref().is_some_and(|first| first.asks);
        // What is said of the new fact besides.
        let mut what_else: Option<Box<dyn Fn(usize) -> Event>> = None;
        let parent = first.as_ref();
        let (span, handle) = match what {
            Make::Root => Span::of(|| Handle::Token(CancellationToken::new())),
            Make::Child(_) => {
                under = None;
                Span::of(|| Handle::Token(parent.unwrap().child_token()))
            }
            Make::Context(_) => {
                let ctx = parent.unwrap().ctx();
                let (span, (ctx, guard)) = Span::of(|| ctx.with_cancel());
                (span, Handle::Guarded(ctx, guard))
            }
            Make::Deadline(_, n, with_cause) => {
                let ctx = parent.unwrap().ctx();
                let deadline = deadline(n);
                if asks || ctx.deadline().is_none_or(|above| deadline < above) {
                    own_deadline = Some((clock::tick(deadline), 1));
                }
                let (span, (ctx, guard)) = if with_cause {
                    let (number, cause) = self.cause(ContextError::Cancelled);
                    own_deadline = own_deadline.map(|(tick, _)| (tick, number));
                    Span::of(|| ctx.with_deadline_cause(deadline, cause))
                } else {
                    Span::of(|| ctx.with_deadline(deadline))
                };
                (span, Handle::Guarded(ctx, guard))
            }
            Make::AnyOf(_, other) => {
                let other = self.handles[self.handle(other).unwrap()].clone();
                parents.push(other.fact);
                asks |= other.asks;
                loses_callbacks = true;
                let sources = [parent.unwrap().ctx(), other.ctx()];
                let (span, (ctx, right)) = Span::of(|| {
                    let ctx = Context::any_of(&sources);
                    // A right to cancel needs a fact of its own.
                    let (below, guard) = ctx.with_cancel();
                    let right = guard.canceller();
                    guard.detach();
                    (below, right)
                });
                under = self.under_both(span, under, other.under);
                (span, Handle::Cancellable(ctx, right))
            }
            Make::Foreign => {
                let signal = Arc::new(Mutex::new(None));
                let (span, ctx) = Span::of(|| Context::below(Outside(signal.clone())));
                loses_callbacks = true;
                let signal = signal.lock().unwrap().take();
                (span, Handle::Foreign(ctx, signal.unwrap()))
            }
            Make::Movable(_, n) => {
                let ctx = parent.unwrap().ctx();
                let at = n.map(deadline);
                let (span, (ctx, guard)) = Span::of(|| ctx.with_movable_deadline(at));
                asks = true;
                let deadline = at.map(clock::tick);
                what_else = Some(Box::new(move |fact| Event::Movable { fact, deadline }));
                (span, Handle::Movable(ctx, Arc::new(guard)))
            }
            Make::Idle(_, ticks) => {
                let ctx = parent.unwrap().ctx();
                let ticks = u64::from(ticks % 8);
                let timeout = clock::TICK * ticks as u32;
                let (span, (ctx, guard)) = Span::of(|| ctx.with_idle_timeout(timeout));
                asks = true;
                what_else = Some(Box::new(move |fact| Event::Idle { fact, ticks }));
                (span, Handle::Idle(ctx, Arc::new(guard)))
            }
            Make::Grace(_, is_long) => {
                let ctx = parent.unwrap().ctx();
                let period = if is_long {
                    Duration::MAX
                } else {
                    Duration::ZERO
                };
                let (span, ctx) = Span::of(|| ctx.with_grace(period));
                let hard = self.fact();
                self.history.note(
                    span,
                    Event::Made {
                        fact: hard,
                        parents: under.iter().map(|under| under.hard).collect(),
                        deadline: None,
                    },
                );
                parents.push(hard);
                under = Some(Under::within(hard, is_long, under));
                (asks, loses_callbacks) = (true, true);
                what_else = Some(Box::new(move |soft| Event::Grace {
                    hard,
                    soft,
                    is_long,
                }));
                (span, Handle::Plain(ctx))
            }
            Make::Shield(_) => {
                let (of, ctx) = (parent.unwrap().fact, parent.unwrap().ctx());
                let (span, ctx) = Span::of(|| ctx.shield());
                if let Some(under) = &under {
                    parents = vec![under.hard];
                    if !under.is_long {
                        what_else = Some(Box::new(move |fact| Event::Shield { fact, of }));
                    }
                }
                (span, Handle::Plain(ctx))
            }
        };
        // The parents' numbers are smaller: they were there before.
        let fact = self.fact();
        if let (Make::Shield(_), Some(outer)) = (what, under.clone()) {
            // If it has a bound of its own, all that is made below is within that; else nobody but the outer one ends it.
            under = Some(Under::within(fact, outer.is_long, Some(outer)));
        }
        if let Some(what_else) = what_else {
            self.history.note(span, what_else(fact));
        }
        self.history.note(
            span,
            Event::Made {
                fact,
                parents,
                deadline: own_deadline,
            },
        );
        self.handles.push(Held {
            fact,
            handle,
            loses_callbacks,
            under,
            asks,
        });
    }

    /// What an `any_of` is under.
    fn under_both(
        &mut self,
        span: Span,
        one: Option<Under>,
        other: Option<Under>,
    ) -> Option<Under> {
        let (one, other) = match (one, other) {
            (Some(one), Some(other)) => (one, other),
            (one, other) => return one.or(other),
        };
        let is_long = one.is_long && other.is_long;
        if one.is_within(&other) {
            return Some(Under { is_long, ..one });
        }
        if other.is_within(&one) {
            return Some(Under { is_long, ..other });
        }
        let hard = self.fact();
        self.history.note(
            span,
            Event::Made {
                fact: hard,
                parents: vec![one.hard, other.hard],
                deadline: None,
            },
        );
        Some(Under {
            hard,
            is_long,
            above: one.all().chain(other.all()).collect(),
        })
    }

    /// Moves the deadline of one of those that can be moved.
    fn move_deadline(&mut self, n: u8, how: Move) {
        let guards = self.handles.iter().filter_map(|held| match &held.handle {
            Handle::Movable(_, guard) => Some((held.fact, guard)),
            _ => None,
        });
        let guards: Vec<_> = guards.collect();
        let Some((fact, guard)) = pick(guards.len(), n).map(|i| guards[i]) else {
            return;
        };
        let (to, (span, in_time)) = match how {
            Move::Set(n) => {
                let to = deadline(n);
                let to_tick = Moved::To(Some(clock::tick(to)));
                (to_tick, Span::of(|| guard.set(to)))
            }
            Move::Extend(n) => {
                let by = clock::TICK * u32::from(n % 16);
                (Moved::Later, Span::of(|| guard.extend(by)))
            }
            Move::TakeAway => (Moved::To(None), Span::of(|| guard.take_away())),
        };
        self.history.note(span, Event::Moved { fact, to, in_time });
    }

    fn touch(&mut self, n: u8, at: u8) {
        let guards = self.handles.iter().filter_map(|held| match &held.handle {
            Handle::Idle(_, guard) => Some((held.fact, guard)),
            _ => None,
        });
        let guards: Vec<_> = guards.collect();
        let Some((fact, guard)) = pick(guards.len(), n).map(|i| guards[i]) else {
            return;
        };
        let now = deadline(at);
        let (span, ()) = Span::of(|| guard.touch_at(now));
        let at = clock::tick(now);
        self.history.note(span, Event::Touched { fact, at });
    }

    fn cancel(&mut self, held: &Held, with_cause: bool) {
        if matches!(held.handle, Handle::Plain(_)) {
            return;
        }
        let (number, cause) = match with_cause {
            true => {
                let (number, cause) = self.cause(ContextError::Cancelled);
                (number, Some(cause))
            }
            false => (0, None),
        };
        let (span, first) = Span::of(|| held.cancel(cause));
        let event = Event::Cancel {
            fact: held.fact,
            cause: number,
            first,
        };
        self.history.note(span, event);
    }

    /// Dropping a guard is a cancel.
    fn drop_handle(&mut self, held: Held) {
        let fact = held.fact;
        match held.handle {
            Handle::Guarded(ctx, guard) => {
                drop(ctx);
                let (span, ()) = Span::of(|| drop(guard));
                let event = Event::Cancel {
                    fact,
                    cause: GUARD_DROPPED,
                    first: None,
                };
                self.history.note(span, event);
            }
            Handle::Movable(..) | Handle::Idle(..) => {
                let guard = match held.handle {
                    Handle::Movable(_, guard) => Arc::into_inner(guard).map(|g| g.into_guard()),
                    Handle::Idle(_, guard) => Arc::into_inner(guard).map(|g| g.into_guard()),
                    _ => None,
                };
                let Some(guard) = guard else { return };
                let (span, ()) = Span::of(|| drop(guard));
                let event = Event::Cancel {
                    fact,
                    cause: GUARD_DROPPED,
                    first: None,
                };
                self.history.note(span, event);
            }
            other => drop(other),
        }
    }

    fn look(&mut self, held: &Held) {
        let (span, done) = Span::of(|| held.is_done());
        self.saw(span, held.fact, if done { Seen::Done } else { Seen::Live });
    }

    fn look_why(&mut self, held: &Held) {
        let (span, cause) = Span::of(|| held.cause());
        let seen = cause.map_or(Seen::Live, |cause| Seen::Because(Reason::number_of(&cause)));
        self.saw(span, held.fact, seen);
    }

    fn saw(&mut self, span: Span, fact: usize, seen: Seen) {
        self.history.note(span, Event::Seen { fact, seen });
    }

    fn poll(&mut self, i: usize, other_waker: bool) {
        if other_waker {
            let bell = std::mem::take(&mut self.tasks[i].bell);
            self.told(i, bell, true);
        }
        let task = &mut self.tasks[i];
        let waker = Waker::from(task.bell.clone());
        let future = Pin::new(&mut task.future);
        let (span, polled) = Span::of(|| future.poll(&mut task::Context::from_waker(&waker)));
        let done = polled.is_ready();
        // With the same waker it waits since the first time.
        if !task.pending || other_waker {
            task.since = span;
        }
        task.pending = !done;
        let fact = task.fact;
        self.saw(span, fact, if done { Seen::Done } else { Seen::Live });
    }

    /// What became of a waker.
    fn told(&mut self, i: usize, bell: Arc<Bell>, given_up: bool) {
        let task = &self.tasks[i];
        if !task.pending && bell.rings.load(Ordering::Acquire) == 0 {
            return;
        }
        let told = Told {
            fact: task.fact,
            how_often: bell.rings.load(Ordering::Acquire),
            first: bell.first.load(Ordering::Acquire),
            given_up,
            is_callback: false,
            off_thread: false,
        };
        self.history.note(task.since, Event::Told(told));
    }

    fn register(&mut self, i: usize, off_thread: bool) {
        let held = self.handles[i].clone();
        let runs = Arc::<Bell>::default();
        let inner = runs.clone();
        let shared = self.shared.clone();
        let work = move || {
            inner.ring();
            // Something of the tree goes meanwhile.
            let other = shared.boxes[0].try_lock().ok().and_then(|mut b| b.take());
            drop(other);
            // Long enough to be found running.
            thread::yield_now();
            for _ in 0..200 {
                std::hint::spin_loop();
            }
            inner.over.store(stamp(), Ordering::Release);
        };
        let (registered, registration) = match &held.handle {
            Handle::Token(token) => Span::of(|| token.on_cancel(work)),
            _ if off_thread => {
                let ctx = held.ctx();
                Span::of(|| ctx.after_func(work))
            }
            _ => {
                let ctx = held.ctx();
                Span::of(|| ctx.on_cancel(work))
            }
        };
        self.callbacks.push(Callback {
            fact: held.fact,
            runs,
            registration: Some(registration),
            registered,
            off_thread: off_thread && !matches!(held.handle, Handle::Token(_)),
            stopped: false,
            loses_callbacks: held.loses_callbacks,
        });
    }

    fn turn(&mut self, n: u8) {
        let Some((service, turned)) = &mut self.service else {
            for _ in 0..n {
                std::hint::spin_loop();
            }
            return;
        };
        *turned = deadline(n).max(*turned);
        let now = *turned;
        let (span, ()) = Span::of(|| service.turn(now));
        let tick = clock::tick(now);
        self.history.note(span, Event::Turn { tick });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Make(what) => self.make(what),
            Step::Churn(n, how_many) => {
                let Some(i) = self.handle(n) else { return };
                let how_many = usize::from(how_many) % 32;
                let some: Vec<_> = (0..how_many)
                    .map(|_| self.handles[i].child_token())
                    .collect();
                drop(some);
            }
            Step::Clone(n) => {
                if let Some(i) = self.handle(n) {
                    self.handles.push(self.handles[i].clone());
                }
            }
            Step::Drop(n) => {
                let Some(i) = self.handle(n) else { return };
                let held = self.handles.swap_remove(i);
                self.drop_handle(held);
            }
            Step::Cancel(n, with_cause) => {
                let Some(i) = self.handle(n) else { return };
                // Out and in again: no handle more than there is.
                let held = self.handles.swap_remove(i);
                self.cancel(&held, with_cause);
                self.handles.push(held);
            }
            Step::Look(n) | Step::LookWhy(n) => {
                let Some(i) = self.handle(n) else { return };
                let held = self.handles.swap_remove(i);
                match step {
                    Step::Look(_) => self.look(&held),
                    _ => self.look_why(&held),
                }
                self.handles.push(held);
            }
            Step::Wait(n) => {
                let Some(i) = self.handle(n) else { return };
                let (fact, token) = match &self.handles[i].handle {
                    Handle::Token(token) => (self.handles[i].fact, token.clone()),
                    _ => {
                        self.make(Make::Child(n));
                        let Some(Held { fact, handle, .. }) = self.handles.pop() else {
                            return;
                        };
                        let Handle::Token(token) = handle else { return };
                        (fact, token)
                    }
                };
                self.tasks.push(Task {
                    fact,
                    future: token.cancelled_owned(),
                    bell: Arc::default(),
                    since: Span { begin: 0, end: 0 },
                    pending: false,
                });
                self.poll(self.tasks.len() - 1, false);
            }
            Step::Poll(n, other_waker) => {
                if let Some(i) = pick(self.tasks.len(), n) {
                    self.poll(i, other_waker);
                }
            }
            Step::DropWaiter(n) => {
                let Some(i) = pick(self.tasks.len(), n) else {
                    return;
                };
                let bell = self.tasks[i].bell.clone();
                self.told(i, bell, true);
                self.tasks.swap_remove(i);
            }
            Step::Park(n) => {
                let Some(i) = self.handle(n) else { return };
                let ctx = self.handles[i].ctx();
                let limit = Duration::from_micros(u64::from(n));
                let (span, error) = Span::of(|| ctx.blocking_wait_timeout(limit));
                self.history.note(span, Event::Slept);
                let seen = error.map_or(Seen::Live, |_| Seen::Done);
                self.saw(span, self.handles[i].fact, seen);
            }
            Step::Register(n, off_thread) => {
                if let Some(i) = self.handle(n) {
                    self.register(i, off_thread);
                }
            }
            Step::Stop(n) | Step::StopAndWait(n) => {
                let Some(i) = pick(self.callbacks.len(), n) else {
                    return;
                };
                let waits = matches!(step, Step::StopAndWait(_));
                self.stop(i, waits);
            }
            Step::Detach(n) => {
                let Some(i) = pick(self.callbacks.len(), n) else {
                    return;
                };
                if !self.callbacks[i].loses_callbacks {
                    drop(self.callbacks[i].registration.take());
                }
            }
            Step::Give(n, to) => {
                let Some(i) = self.handle(n) else { return };
                let mut held = self.handles.swap_remove(i);
                // Whoever drops it there has no history.
                held = match held.handle {
                    // The last of these cancels, too.
                    Handle::Movable(..) | Handle::Idle(..) => {
                        self.handles.push(held);
                        return;
                    }
                    Handle::Guarded(ctx, guard) => {
                        let right = guard.canceller();
                        guard.detach();
                        Held {
                            handle: Handle::Cancellable(ctx, right),
                            ..held
                        }
                    }
                    _ => held,
                };
                let mut place = self.shared.boxes[usize::from(to) % BOXES].lock().unwrap();
                let before = place.replace(held);
                drop(place);
                self.handles.extend(before);
            }
            Step::Take(from) => {
                let taken = self.shared.boxes[usize::from(from) % BOXES]
                    .lock()
                    .unwrap()
                    .take();
                self.handles.extend(taken);
            }
            Step::Turn(n) => self.turn(n),
            Step::Move(n, how) => self.move_deadline(n, how),
            Step::Touch(n, at) => self.touch(n, at),
            Step::Group(step) => self.step_of_groups(step),
        }
    }

    fn stop(&mut self, i: usize, waits: bool) {
        let callback = &mut self.callbacks[i];
        let Some(registration) = callback.registration.take() else {
            return;
        };
        // One off the thread may have to wait for the service, which may be us.
        let waits = waits && !callback.off_thread;
        callback.stopped = match waits {
            true => registration.stop_and_wait(),
            false => registration.stop(),
        };
        if waits && !callback.stopped {
            let over = callback.runs.over.load(Ordering::Acquire);
            assert_ne!(over, 0, "did not wait for a callback that runs");
        }
    }

    /// When all threads are through: what is to be seen then.
    fn look_around(&mut self) {
        for held in std::mem::take(&mut self.handles) {
            self.look(&held);
            self.look_why(&held);
            self.handles.push(held);
        }
    }

    /// What became of wakers.
    fn sum_up_waiters(&mut self) {
        for i in 0..self.tasks.len() {
            let bell = self.tasks[i].bell.clone();
            self.told(i, bell, false);
        }
        self.tasks.clear();
    }

    /// What became of callbacks: those that were left have gone with the last waiter, of whatever thread.
    fn sum_up_callbacks(&mut self) {
        for callback in self.callbacks.drain(..) {
            let runs = &callback.runs;
            let told = Told {
                fact: callback.fact,
                how_often: runs.rings.load(Ordering::Acquire),
                first: runs.first.load(Ordering::Acquire),
                given_up: callback.stopped,
                is_callback: true,
                off_thread: callback.off_thread,
            };
            assert_eq!(Arc::strong_count(runs), 1, "a callback is left");
            self.history.note(callback.registered, Event::Told(told));
        }
    }
}

fn run(pool: &Pool, input: &Input) {
    let shared = Arc::new(Shared {
        facts: AtomicUsize::new(0),
        // 0 and 1 are the kinds without a cause.
        causes: AtomicU32::new(FIRST_CAUSE),
        boxes: Default::default(),
        life: Arc::new(()),
    });
    let mut main = Thread::new(&shared);
    let mut who_has = Vec::new();
    for &(what, holders) in input.tree.iter().take(TREE) {
        let before = main.handles.len();
        main.make(what);
        who_has.extend((before..main.handles.len()).map(|_| holders));
    }
    for &new in input.groups.iter().take(GROUPS) {
        main.new_group(new);
    }
    let facts_of_groups: Vec<usize> = main.history.groups.iter().map(|g| g.fact).collect();
    main.facts_of_groups.clone_from(&facts_of_groups);
    let mut threads: Vec<Thread> = Vec::new();
    threads.resize_with(2 + usize::from(input.third), || {
        let mut thread = Thread::new(&shared);
        thread.facts_of_groups.clone_from(&facts_of_groups);
        thread
    });
    let n = threads.len();
    let groups = std::mem::take(&mut main.groups.handles);
    for group in &groups {
        for thread in (0..n).filter(|i| group.holders >> i & 1 != 0) {
            threads[thread].groups.handles.push(group.clone());
        }
    }
    for (held, holders) in main.handles.drain(..).zip(who_has) {
        let mut holders: Vec<usize> = (0..n).filter(|i| holders >> i & 1 != 0).collect();
        let last = holders.pop().unwrap_or(held.fact % n);
        for i in holders {
            threads[i].handles.push(held.clone());
        }
        threads[last].handles.push(held);
    }
    threads[0].service = Some((Service::new(), clock::start()));

    let jobs = threads.into_iter().zip(&input.programs);
    let jobs = jobs.map(|(mut thread, program)| {
        let program: Vec<Step> = program.iter().copied().take(STEPS).collect();
        move || {
            for step in program {
                thread.step(step);
            }
            Service::end_of_thread();
            thread
        }
    });
    let mut threads = pool.run(jobs.collect());

    for thread in &mut threads {
        thread.look_around();
    }
    for thread in &mut threads {
        thread.end_tasks();
    }
    loop {
        let mut again = false;
        for thread in &mut threads {
            again |= thread.end_waits();
            thread.end_tasks();
        }
        if !again {
            break;
        }
    }
    for thread in &threads {
        assert_eq!(thread.sleeps(), 0, "somebody waits for a group for ever");
    }
    for group in &groups {
        main.check_room(group);
    }
    drop(groups);
    for thread in &mut threads {
        thread.groups = groups::Own::default();
    }
    if input.turn_at_the_end {
        threads[0].turn(15);
        for thread in &mut threads {
            thread.look_around();
        }
    }
    for thread in &mut threads {
        for i in 0..thread.callbacks.len() {
            thread.stop(i, false);
        }
    }
    // Guards cancel.
    for thread in &mut threads {
        for held in std::mem::take(&mut thread.handles) {
            thread.drop_handle(held);
        }
    }
    for place in &shared.boxes {
        drop(place.lock().unwrap().take());
    }
    threads[0].turn(15);
    // What callbacks did.
    threads[0].turn(15);
    for thread in &mut threads {
        thread.sum_up_waiters();
    }
    for thread in &mut threads {
        thread.sum_up_callbacks();
        main.history.events.append(&mut thread.history.events);
    }
    // The last deadlines have gone with the waiters.
    Service::end_of_thread();
    drop(threads[0].service.take());
    main.history.check();
    drop((main.history, threads));
    assert_eq!(Arc::strong_count(&shared.life), 1, "a cause is left");
}

/// What a thread keeps for ever is there before anything is counted.
fn warm_up() {
    CancellationToken::new().blocking_wait_timeout(Duration::from_nanos(1));
    let (ctx, guard) = Context::background().with_deadline(clock::start());
    drop(guard);
    drop(ctx.after_func(|| ()));
    drop(ctx);
    Service::end_of_thread();
}

fuzz_target!(|input: Input| {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let pool = Pool::new(2, warm_up);
        drop(Service::new());
        pool
    });
    let before = allocations::live();
    run(pool, &input);
    assert_eq!(allocations::live(), before, "memory is left");
});
