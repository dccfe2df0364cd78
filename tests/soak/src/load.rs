//! One thread's share of the load: it keeps some requests in flight, each with children and waiters, ends them in
//! one way or another, and looks that everybody has heard of it.

use crate::counts::{Counted, Figures, Kind};
use crate::fail;
use crate::waiter::{callback, Ended, Facts, Mark, Parking, Task, Watched};
use cancel_tree::ContextError::{Cancelled, DeadlineExceeded};
use cancel_tree::{CancelGuard, CancellationToken, Context, DeadlineGuard, Registration};
use cancel_tree::{GraceOver, Group};
use std::future::Future;
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, Waker};
use std::time::{Duration, Instant};

/// A waiter that has not heard of its request's end for so long is lost.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Requests of one thread at a time, of one connection in all, and connections of one thread at a time.
const IN_FLIGHT: usize = 256;
const OF_ONE_CONNECTION: u64 = 200;
const CONNECTIONS: usize = 4;
/// Errands that may wait for another thread; more are run by who has them.
const ERRANDS: usize = 1000;

/// What all threads have.
pub struct World {
    pub server: Context,
    pub figures: Figures,
    pub stop: AtomicBool,
    pub threads: Vec<Shared>,
    /// When the deadlines pass that no request lives to see: after the stop.
    pub never: Instant,
    number: AtomicU64,
}

/// What others see of a thread.
#[derive(Default)]
pub struct Shared {
    /// Cancels and drops that others have left to it.
    errands: Mutex<Vec<Errand>>,
    /// Counts up while the thread gets on.
    pub turns: AtomicU64,
    /// What it is at.
    pub step: Mutex<&'static str>,
}

type Errand = Box<dyn FnOnce() + Send>;

impl Shared {
    pub fn run_errands(&self) -> usize {
        let errands = mem::take(&mut *self.errands.lock().unwrap());
        let n = errands.len();
        errands.into_iter().for_each(|errand| errand());
        n
    }
}

impl World {
    pub fn new(server: Context, threads: usize, never: Instant) -> World {
        World {
            server,
            figures: Figures::default(),
            stop: AtomicBool::new(false),
            threads: (0..threads).map(|_| Shared::default()).collect(),
            never,
            number: AtomicU64::new(0),
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn micros(&mut self, n: usize) -> Duration {
        Duration::from_micros(self.below(n) as u64)
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Values.
struct RequestId(u64, #[allow(dead_code)] Counted);
struct Peer(usize, #[allow(dead_code)] Counted);

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Cancel,
    CancelWithCause,
    DropOfGuard,
    CancelOfConnection,
    Deadline,
}

struct Connection {
    ctx: Context,
    guard: CancelGuard,
    requests: u64,
}

struct Request {
    facts: Arc<Facts>,
    ctx: Context,
    guard: Option<Guard>,
    /// Some have one.
    group: Option<Group>,
    /// Since when it is certain to end, or has.
    ends: Option<Instant>,
    tokens: Vec<CancellationToken>,
    tasks: Vec<Task>,
    /// Of parked threads, and of callbacks that nobody will stop.
    marks: Vec<Arc<Mark>>,
    callbacks: Vec<(Registration, Arc<Mark>)>,
}

/// The right to cancel a request, and perhaps to move its deadline.
enum Guard {
    Plain(CancelGuard),
    Moves(DeadlineGuard),
}

impl Guard {
    fn into_plain(self) -> CancelGuard {
        match self {
            Guard::Plain(guard) => guard,
            Guard::Moves(guard) => guard.into_guard(),
        }
    }
}

/// What a request leaves behind, and since when.
enum Rest {
    Group(Group),
    /// What cleans up after it.
    Shield(Context),
}

/// So long shields have, when a connection is cancelled.
const GRACE: Duration = Duration::from_millis(10);

pub struct Load {
    world: Arc<World>,
    me: usize,
    random: Random,
    parkers: Vec<SyncSender<Parking>>,
    rests: Vec<(Rest, Arc<Facts>, Instant)>,
}

impl Load {
    pub fn new(world: Arc<World>, me: usize, parkers: Vec<SyncSender<Parking>>) -> Load {
        let seed = (me as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Load {
            world,
            me,
            random: Random(seed),
            parkers,
            rests: Vec::new(),
        }
    }

    /// Until the world stops, and all that was begun has ended.
    pub fn run(mut self) {
        let mut connections: [Connection; CONNECTIONS] = std::array::from_fn(|_| self.connect());
        let mut flying: Vec<Request> = Vec::new();
        loop {
            let stopping = self.world.stop.load(Relaxed);
            for connection in &mut connections {
                if stopping || connection.requests >= OF_ONE_CONNECTION {
                    let old = mem::replace(connection, self.connect());
                    self.disconnect(old);
                }
            }
            self.goes_on("running errands");
            let errands = self.world.threads[self.me].run_errands();
            self.world.figures.errands.add(errands);
            while !stopping && flying.len() < IN_FLIGHT {
                self.goes_on("making a request");
                let connection = &mut connections[self.random.below(CONNECTIONS)];
                connection.requests += 1;
                flying.push(self.request(&connection.ctx));
            }
            let mut at = 0;
            while at < flying.len() {
                if self.visit(&mut flying[at], stopping) {
                    let gone = flying.swap_remove(at);
                    self.finish(gone);
                } else {
                    at += 1;
                }
            }
            self.goes_on("looking after what requests have left");
            self.look_after_rests();
            if stopping && flying.is_empty() {
                if self.rests.is_empty() {
                    return;
                }
                // What is theirs may be what a group of ours waits for, and they may be gone.
                let world = self.world.clone();
                world.threads.iter().for_each(|other| {
                    other.run_errands();
                });
            }
        }
    }

    fn goes_on(&self, step: &'static str) {
        let shared = &self.world.threads[self.me];
        *shared.step.lock().unwrap() = step;
        shared.turns.fetch_add(1, Relaxed);
    }

    fn leave_to_another(&mut self, errand: impl FnOnce() + Send + 'static) {
        let threads = &self.world.threads;
        let others = self.random.below(threads.len().max(2) - 1) + 1;
        let other = &threads[(self.me + others) % threads.len()];
        let mut errands = other.errands.lock().unwrap();
        if errands.len() < ERRANDS && !self.world.stop.load(Relaxed) {
            errands.push(Box::new(errand));
        } else {
            drop(errands);
            errand();
        }
    }

    fn connect(&mut self) -> Connection {
        let peer = Peer(self.me, Counted::new(Kind::Value));
        let (ctx, guard) = self.world.server.with_value(peer).with_cancel();
        Connection {
            ctx: ctx.with_grace(GRACE),
            guard,
            requests: 0,
        }
    }

    fn disconnect(&mut self, connection: Connection) {
        self.goes_on("cancelling");
        if self.random.one_in(2) {
            connection.guard.cancel_with(Ended::cause(Cancelled));
        }
        self.leave_to_another(move || drop(connection));
    }

    // ----- a request's life -------------------------------------------------------------------------------------

    fn request(&mut self, connection: &Context) -> Request {
        let number = self.world.number.fetch_add(1, Relaxed);
        let end = match self.random.below(32) {
            0..9 => End::Cancel,
            9..18 => End::CancelWithCause,
            18..26 => End::DropOfGuard,
            26..29 => End::CancelOfConnection,
            _ => End::Deadline,
        };
        let deadline = match end {
            End::Deadline => Some(Instant::now() + self.random.micros(20_000)),
            _ if self.random.one_in(2) => Some(self.world.never + self.random.micros(1_000_000)),
            _ => None,
        };
        let ctx = connection.with_value(RequestId(number, Counted::new(Kind::Value)));
        let plain = |(ctx, guard)| (ctx, Guard::Plain(guard));
        let (ctx, guard) = match (deadline, self.random.below(4)) {
            (_, 0) => {
                // Set some times, and then as it is to stay for a while.
                let (ctx, guard) = ctx.with_movable_deadline(Some(self.world.never));
                let mut moves = usize::from(guard.take_away());
                moves += usize::from(guard.set(self.world.never + self.random.micros(1_000_000)));
                moves += usize::from(guard.extend(self.random.micros(1_000_000)));
                moves += usize::from(match deadline {
                    Some(deadline) => guard.set(deadline),
                    None => guard.take_away(),
                });
                self.world.figures.moves.add(moves);
                (ctx, Guard::Moves(guard))
            }
            (None, _) => plain(ctx.with_cancel()),
            (Some(deadline), 1) => {
                plain(ctx.with_deadline_cause(deadline, Ended::cause(DeadlineExceeded)))
            }
            (Some(deadline), _) => plain(ctx.with_deadline(deadline)),
        };
        let group = self.random.one_in(4).then(|| Group::new(&ctx));
        let mut request = Request {
            facts: Arc::new(Facts {
                number,
                end,
                deadline,
            }),
            ctx,
            guard: Some(guard),
            group,
            ends: None,
            tokens: Vec::new(),
            tasks: Vec::new(),
            marks: Vec::new(),
            callbacks: Vec::new(),
        };
        self.add_tokens(&mut request);
        for _ in 0..self.random.below(4) {
            self.add_waiter(&mut request);
        }
        request
    }

    fn add_tokens(&mut self, request: &mut Request) {
        let tokens = &mut request.tokens;
        let before = tokens.len();
        tokens.push(request.ctx.child_token());
        match self.random.below(1024) {
            0 => (0..2_000).for_each(|_| tokens.push(tokens[before].child_token())),
            1 => (0..500).for_each(|_| tokens.push(tokens[tokens.len() - 1].child_token())),
            _ => {
                for _ in 0..self.random.below(6) {
                    tokens.push(self.random.of(tokens).child_token());
                }
            }
        }
        self.world.figures.tokens.add(tokens.len() - before);
    }

    /// The request itself, something below it, or that and something else.
    fn watched(&mut self, request: &Request) -> Watched {
        let server = &self.world.server;
        match (self.random.below(8), &request.tokens[..]) {
            (0..3, _) => Watched::Context(request.ctx.clone()),
            (3, _) => Watched::Context(Context::any_of([&request.ctx, server])),
            (_, []) => Watched::Token(request.ctx.child_token()),
            (4, tokens) => {
                let token = self.random.of(tokens);
                Watched::Token(CancellationToken::any_of([&server.child_token(), token]))
            }
            (_, tokens) => Watched::Token(self.random.of(tokens).clone()),
        }
    }

    fn add_waiter(&mut self, request: &mut Request) {
        if let Some(group) = request.group.as_ref().filter(|_| self.random.one_in(2)) {
            match Task::of_group(group, &request.facts) {
                Some(task) => request.tasks.push(task),
                None => self.world.figures.tasks.add(1),
            }
            return;
        }
        let watched = self.watched(request);
        match self.random.below(16) {
            0..9 => match Task::new(watched, &request.facts) {
                Some(task) => request.tasks.push(task),
                None => self.world.figures.tasks.add(1),
            },
            9 => {
                let gives_up = self.random.one_in(4);
                let mark = Mark::new("a parked thread");
                let job = Parking {
                    watched,
                    request: request.facts.clone(),
                    mark: mark.clone(),
                    limit: gives_up.then(|| self.random.micros(1_000)),
                };
                // Only to one that is idle.
                if self.random.of(&self.parkers).try_send(job).is_ok() {
                    request.marks.push(mark);
                }
            }
            _ => self.add_callback(request, &watched),
        }
    }

    fn add_callback(&mut self, request: &mut Request, watched: &Watched) {
        let mark = Mark::new("a callback");
        let f = callback(mark.clone(), self.world.clone());
        let registration = match watched {
            Watched::Token(token) => token.on_cancel(f),
            Watched::Context(ctx) if self.random.one_in(2) => ctx.after_func(f),
            Watched::Context(ctx) => ctx.on_cancel(f),
        };
        if self.random.one_in(3) {
            // Left there, to hear of the end though its token may be gone by then.
            drop(registration);
            request.marks.push(mark);
        } else {
            request.callbacks.push((registration, mark));
        }
    }

    /// True: it is over, and everybody knows.
    fn visit(&mut self, request: &mut Request, stopping: bool) -> bool {
        if request.ends.is_none() {
            if stopping || self.random.one_in(2) {
                self.goes_on("cancelling");
                self.end(request);
            } else {
                self.goes_on("changing a request");
                self.change(request);
            }
        }
        self.goes_on("looking after waiters");
        self.look_after(request)
    }

    fn change(&mut self, request: &mut Request) {
        match self.random.below(9) {
            0 => self.add_tokens(request),
            8 => self.move_deadline(request),
            1 | 2 => self.add_waiter(request),
            3 => {
                let keep = self.random.below(request.tokens.len() + 1);
                request.tokens.truncate(keep);
            }
            4 => {
                let tokens = request.tokens.split_off(request.tokens.len() / 2);
                let task = request.tasks.pop();
                self.world.figures.given_up.add(task.iter().len());
                self.leave_to_another(move || drop((tokens, task)));
            }
            5 => {
                if let Some(mut task) = request.tasks.pop() {
                    if task.is_ready_elsewhere(&request.facts) {
                        self.world.figures.tasks.add(1);
                    } else {
                        request.tasks.push(task);
                    }
                }
            }
            6 => self.stop_one(request),
            _ => {
                // Below the request: it does not notice.
                request
                    .ctx
                    .child_token()
                    .cancel_with(Ended::cause(Cancelled));
                let id = request.ctx.value::<RequestId>().map(|id| id.0);
                let peer = request.ctx.value::<Peer>().map(|peer| peer.0);
                if id != Some(request.facts.number) || peer != Some(self.me) {
                    fail(&format!("{}: has the values of another", request.facts));
                }
            }
        }
    }

    /// Not that by which the request is to end.
    fn move_deadline(&mut self, request: &mut Request) {
        let Some(Guard::Moves(guard)) = &request.guard else {
            return;
        };
        if request.facts.end == End::Deadline {
            return;
        }
        let moved = match (request.facts.deadline, self.random.below(3)) {
            (None, _) => guard.extend(self.random.micros(1_000)),
            (Some(_), 0) => guard.take_away(),
            (Some(deadline), 1) => guard.set(deadline),
            (Some(_), _) => guard.extend(self.random.micros(1_000)),
        };
        if moved {
            self.world.figures.moves.add(1);
        } else if !request.ctx.is_done() {
            fail(&format!(
                "{}: it lives, and its deadline was not moved",
                request.facts
            ));
        }
    }

    fn end(&mut self, request: &mut Request) {
        request.ends = Some(Instant::now());
        let Some(guard) = request.guard.take() else {
            return;
        };
        let guard = guard.into_plain();
        let end = request.facts.end;
        match end {
            End::CancelOfConnection => return guard.detach(),
            End::Deadline => {
                request.ends = request.facts.deadline;
                return guard.detach();
            }
            _ => {}
        }
        let cancel = move || {
            match end {
                End::Cancel => drop(guard.cancel()),
                End::CancelWithCause => drop(guard.cancel_with(Ended::cause(Cancelled))),
                _ => {}
            }
            drop(guard);
        };
        if self.random.one_in(2) {
            self.leave_to_another(cancel);
        } else {
            cancel();
        }
    }

    /// True: it has ended, and nobody waits any more.
    fn look_after(&self, request: &mut Request) -> bool {
        let facts = &*request.facts;
        let before = request.tasks.len();
        request.tasks.retain_mut(|task| !task.is_over(facts));
        self.world.figures.tasks.add(before - request.tasks.len());
        request.marks.retain(|mark| !mark.is_over());
        let Some(ends) = request.ends else {
            return false;
        };
        let done = request.ctx.is_done();
        // A deadline is in the future at first, and a connection lives for a while.
        if ends.elapsed() > LIMIT {
            let marks = request.marks.iter().map(|mark| mark.what);
            let waiting: Vec<_> = marks
                .chain(request.tasks.iter().map(|_| "a task"))
                .collect();
            if !done || !waiting.is_empty() {
                fail(&format!(
                    "{facts}: {LIMIT:?} after its end its context is {}done, and these still wait: [{}]",
                    if done { "" } else { "not " },
                    waiting.join(", "),
                ));
            }
        }
        done && request.tasks.is_empty() && request.marks.is_empty()
    }

    /// What is stopped never runs, what cannot be stopped runs.
    fn stop_one(&mut self, request: &mut Request) {
        let Some((registration, mark)) = request.callbacks.pop() else {
            return;
        };
        self.goes_on("stopping a callback");
        let waits = self.random.one_in(3);
        let stopped = match self.random.below(3) {
            // Whether it has run, it does not say.
            0 => return drop(registration.stop_on_drop()),
            _ if waits => registration.stop_and_wait(),
            _ => registration.stop(),
        };
        if stopped {
            self.world.figures.given_up.add(1);
            // If it runs after this, it says so.
            if !mark.set_over() {
                fail(&format!(
                    "{}: a callback was stopped, and has run",
                    request.facts
                ));
            }
        } else if waits && !mark.is_over() {
            fail(&format!(
                "{}: a callback was waited for, and has not run",
                request.facts
            ));
        } else {
            request.marks.push(mark);
        }
    }

    /// Groups that are to be empty, and shields that are to be over.
    fn look_after_rests(&mut self) {
        let figures = &self.world.figures;
        self.rests.retain(|(rest, facts, since)| {
            let is_over = match rest {
                Rest::Group(group) => {
                    let cx = &mut task::Context::from_waker(Waker::noop());
                    match pin!(group.join()).poll(cx) {
                        Poll::Pending => false,
                        Poll::Ready(Ok(())) => true,
                        // Handed back by a task that was told.
                        Poll::Ready(Err(cause)) => {
                            let own = group.context().cause().map(|own| own.kind());
                            if Some(cause.kind()) != own {
                                fail(&format!("{facts}: its group says {cause:?}"));
                            }
                            true
                        }
                    }
                }
                Rest::Shield(shield) => shield.cause().is_some_and(|cause| {
                    if cause.find::<GraceOver>().is_none() {
                        fail(&format!("{facts}: its shield was cancelled by {cause:?}"));
                    }
                    true
                }),
            };
            match rest {
                Rest::Group(_) => figures.groups.add(usize::from(is_over)),
                Rest::Shield(_) => figures.shields.add(usize::from(is_over)),
            }
            if !is_over && since.elapsed() > LIMIT {
                let what = match rest {
                    Rest::Group(group) => format!("its group has {} tasks", group.len()),
                    Rest::Shield(_) => "its shield is not over".to_owned(),
                };
                fail(&format!("{facts}: {LIMIT:?} after its end {what}"));
            }
            !is_over
        });
    }

    fn finish(&mut self, mut request: Request) {
        let now = Instant::now();
        if self.random.one_in(8) {
            let shield = request.ctx.shield();
            if !shield.is_shielded() {
                fail(&format!("{}: there is no shield", request.facts));
            }
            self.rests
                .push((Rest::Shield(shield), request.facts.clone(), now));
        }
        if let Some(group) = request.group.take() {
            self.rests
                .push((Rest::Group(group), request.facts.clone(), now));
        }
        while !request.callbacks.is_empty() {
            self.stop_one(&mut request);
        }
        self.goes_on("dropping a request");
        let figures = &self.world.figures;
        figures.requests.add(1);
        figures
            .deadlines
            .add(usize::from(request.ctx.err() == Some(DeadlineExceeded)));
        if self.random.one_in(2) {
            self.leave_to_another(move || drop(request));
        }
    }
}
