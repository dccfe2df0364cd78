//! One thread's share of the load: it keeps some requests in flight, each with children and waiters,
//! ends them in one way or another, and looks that everybody has heard of it.

use crate::census::{Counted, Kind, Live};
use crate::fail;
use crate::figures::Figures;
use crate::waiter::{callback, Ended, Facts, Mark, Parking, Task, Watched};
use cancel_tree::{CancelGuard, CancellationToken, Context, ContextError, Registration};
use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

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
    /// How long after its request's end a waiter may take.
    pub limit: Duration,
    pub threads: Vec<Shared>,
    number: AtomicU64,
}

/// What others see of a thread.
#[derive(Default)]
pub struct Shared {
    errands: Mutex<Vec<Errand>>,
    /// Counts up while the thread gets on.
    pub turns: AtomicU64,
    /// Of `STEPS`.
    step: AtomicUsize,
}

const STEPS: [&str; 7] = [
    "making a request",
    "changing a request",
    "cancelling",
    "looking after waiters",
    "stopping callbacks",
    "dropping",
    "running an errand",
];
const [MAKE, CHANGE, CANCEL, LOOK, STOP, DROP, ERRAND]: [usize; 7] = [0, 1, 2, 3, 4, 5, 6];

impl Shared {
    fn goes_on(&self, step: usize) {
        self.step.store(step, Relaxed);
    }

    pub fn step(&self) -> &'static str {
        STEPS[self.step.load(Relaxed)]
    }
}

/// What another thread does for a request.
enum Errand {
    Cancel(CancelGuard, bool),
    /// Cancels by that.
    DropGuard(CancelGuard),
    Drop(#[allow(dead_code)] Vec<Leaving>),
}

/// Something that another thread drops.
#[allow(dead_code)]
enum Leaving {
    Token(Token),
    Task(Task),
    Context(Context),
    Request(Box<Request>),
}

type Token = Live<CancellationToken>;
struct RequestId(u64, #[allow(dead_code)] Counted);
struct Peer(usize, #[allow(dead_code)] Counted);

impl World {
    pub fn new(server: Context, threads: usize, limit: Duration) -> World {
        World {
            server,
            figures: Figures::default(),
            stop: AtomicBool::new(false),
            limit,
            threads: (0..threads).map(|_| Shared::default()).collect(),
            number: AtomicU64::new(0),
        }
    }

    fn run(&self, errand: Errand) {
        match errand {
            Errand::Cancel(guard, with_cause) => self.cancel(&guard, with_cause),
            Errand::DropGuard(guard) => drop(guard),
            Errand::Drop(leaving) => drop(leaving),
        }
    }

    fn cancel(&self, guard: &CancelGuard, with_cause: bool) {
        let first = if with_cause {
            guard.cancel_with(Ended::now())
        } else {
            guard.cancel()
        };
        self.figures.cancels.add(u64::from(first));
    }
}

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// How a request ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Cancel,
    CancelWithCause,
    Guard,
    OtherCancels,
    OtherCancelsWithCause,
    OtherDropsGuard,
    Connection,
    Deadline,
}

const ENDS: [(End, &str); 8] = [
    (End::Cancel, "ends by a cancel"),
    (End::CancelWithCause, "ends by a cancel with a cause"),
    (End::Guard, "ends by the drop of its guard"),
    (End::OtherCancels, "ends by another thread's cancel"),
    (End::OtherCancelsWithCause, "ends by another thread's cancel with a cause"),
    (End::OtherDropsGuard, "ends by another thread's drop of its guard"),
    (End::Connection, "ends by the cancel of its connection"),
    (End::Deadline, "ends by its deadline"),
];

struct Connection {
    ctx: Context,
    guard: CancelGuard,
    requests: u64,
}

struct Request {
    facts: Arc<Facts>,
    ctx: Context,
    guard: Option<CancelGuard>,
    how: End,
    /// Since when it is certain to end, or has.
    ends: Option<Instant>,
    tokens: Vec<Token>,
    tasks: Vec<Task>,
    /// Of parked threads, and of callbacks that nobody will stop.
    marks: Vec<Arc<Mark>>,
    callbacks: Vec<(Registration, Arc<Mark>)>,
    _counted: Counted,
}

pub struct Load {
    pub world: Arc<World>,
    pub me: usize,
    pub random: Random,
    pub parkers: Vec<SyncSender<Parking>>,
}

impl Load {
    /// Until the world stops, and all that was begun has ended.
    pub fn run(mut self) {
        let world = self.world.clone();
        let mut connections: VecDeque<Connection> = VecDeque::new();
        let mut flying: Vec<Request> = Vec::new();
        loop {
            let stopping = world.stop.load(Relaxed);
            while connections.len() < CONNECTIONS {
                connections.push_back(self.connect());
            }
            for at in 0..connections.len() {
                if stopping || connections[at].requests >= OF_ONE_CONNECTION {
                    self.goes_on(CANCEL);
                    let new = self.connect();
                    let old = mem::replace(&mut connections[at], new);
                    self.disconnect(old);
                }
            }
            self.run_errands();
            while !stopping && flying.len() < IN_FLIGHT {
                self.goes_on(MAKE);
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
            if stopping && flying.is_empty() {
                break;
            }
        }
        connections.into_iter().for_each(|old| self.disconnect(old));
    }

    fn goes_on(&self, step: usize) {
        let shared = &self.world.threads[self.me];
        shared.goes_on(step);
        shared.turns.fetch_add(1, Relaxed);
    }

    /// What others have left for this thread. After the last turn: `left_errands`.
    fn run_errands(&self) {
        let errands = mem::take(&mut *self.world.threads[self.me].errands.lock().unwrap());
        for errand in errands {
            self.goes_on(ERRAND);
            self.world.run(errand);
            self.world.figures.errands.add(1);
        }
    }

    fn leave_to_another(&mut self, errand: Errand) {
        let threads = &self.world.threads;
        let others = self.random.below(threads.len().max(2) - 1) + 1;
        let other = &threads[(self.me + others) % threads.len()];
        let mut errands = other.errands.lock().unwrap();
        if errands.len() < ERRANDS && !self.world.stop.load(Relaxed) {
            errands.push(errand);
        } else {
            drop(errands);
            self.world.run(errand);
        }
    }

    fn connect(&mut self) -> Connection {
        let peer = Peer(self.me, Counted::new(Kind::Value));
        let (ctx, guard) = self.world.server.with_value(peer).with_cancel();
        Connection {
            ctx,
            guard,
            requests: 0,
        }
    }

    fn disconnect(&mut self, connection: Connection) {
        let with_cause = self.random.one_in(2);
        self.world.cancel(&connection.guard, with_cause);
        if !self.random.one_in(4) {
            self.leave_to_another(Errand::Drop(vec![Leaving::Context(connection.ctx)]));
        }
    }

    // ----- a request's life ---------------------------------------------------------------------

    fn request(&mut self, connection: &Context) -> Request {
        let number = self.world.number.fetch_add(1, Relaxed);
        let (how, end) = ENDS[match self.random.below(32) {
            0..26 => self.random.below(6),
            26..29 => 6,
            _ => 7,
        }];
        let ctx = connection.with_value(RequestId(number, Counted::new(Kind::Value)));
        let deadline = OnceLock::new();
        let (ctx, guard) = match self.random.below(4) {
            _ if how == End::Deadline => {
                let soon = Instant::now() + Duration::from_micros(self.random.below(20_000) as u64);
                let _ = deadline.set(soon);
                if self.random.one_in(4) {
                    ctx.with_deadline_cause(soon, Ended::now())
                } else {
                    ctx.with_deadline(soon)
                }
            }
            0 => ctx.with_cancel(),
            // Never passes: the request is cancelled long before. Some are far, some near.
            1 => ctx.with_timeout_cause(Duration::from_secs(3600), Ended::now()),
            n => ctx.with_timeout(self.world.limit * 2 * n as u32),
        };
        let facts = Arc::new(Facts {
            number,
            end,
            deadline,
        });
        let mut request = Request {
            facts,
            ctx,
            guard: Some(guard),
            how,
            ends: None,
            tokens: Vec::new(),
            tasks: Vec::new(),
            marks: Vec::new(),
            callbacks: Vec::new(),
            _counted: Counted::new(Kind::Request),
        };
        self.add_children(&mut request);
        for _ in 0..self.random.below(4) {
            self.add_waiter(&mut request);
        }
        request
    }

    fn add_children(&mut self, request: &mut Request) {
        let new = |parent: &CancellationToken| Live::new(Kind::Token, parent.child_token());
        let tokens = &mut request.tokens;
        let before = tokens.len();
        tokens.push(Live::new(Kind::Token, request.ctx.child_token()));
        match self.random.below(1024) {
            0 => (0..2_000).for_each(|_| tokens.push(new(&tokens[before].it))),
            1 => (0..500).for_each(|_| tokens.push(new(&tokens[tokens.len() - 1].it))),
            _ => {
                for _ in 0..self.random.below(6) {
                    let parent = self.random.below(tokens.len());
                    tokens.push(new(&tokens[parent].it));
                }
            }
        }
        self.world.figures.tokens.add((tokens.len() - before) as u64);
    }

    /// The request itself, something below it, or that and something else.
    fn watched(&mut self, request: &Request) -> Watched {
        match self.random.below(8) {
            0..3 => Watched::Context(request.ctx.clone()),
            3 => {
                let server = &self.world.server;
                Watched::Context(Context::any_of([&request.ctx, server]))
            }
            4 if !request.tokens.is_empty() => {
                let token = &self.random.of(&request.tokens).it;
                let other = self.world.server.child_token();
                Watched::Token(CancellationToken::any_of([&other, token]))
            }
            5 => Watched::Context(request.ctx.with_cancel_detached()),
            _ => match request.tokens.is_empty() {
                false => Watched::Token(self.random.of(&request.tokens).it.clone()),
                true => Watched::Token(request.ctx.child_token()),
            },
        }
    }

    fn add_waiter(&mut self, request: &mut Request) {
        let watched = self.watched(request);
        let figures = &self.world.figures;
        match self.random.below(16) {
            0..9 => match Task::new(&watched) {
                Some(task) => request.tasks.push(task),
                None => figures.tasks.add(1),
            },
            9 => {
                let limit = self.random.one_in(4);
                let mark = Mark::new("a parked thread");
                let job = Parking {
                    watched,
                    request: request.facts.clone(),
                    mark: mark.clone(),
                    limit: limit.then(|| Duration::from_micros(self.random.below(1_000) as u64)),
                };
                // As long as all of them are busy: not.
                if self.random.of(&self.parkers).try_send(job).is_ok() {
                    request.marks.push(mark);
                }
            }
            _ => self.add_callback(request, &watched),
        }
    }

    fn add_callback(&mut self, request: &mut Request, watched: &Watched) {
        let off_thread = self.random.one_in(3);
        let mark = Mark::new(if off_thread {
            "an after_func callback"
        } else {
            "an on_cancel callback"
        });
        let f = callback(mark.clone(), &self.world.server);
        let registration = match watched {
            Watched::Token(token) => token.on_cancel(f),
            Watched::Context(ctx) if off_thread => ctx.after_func(f),
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
        match request.ends {
            None if stopping || self.random.one_in(2) => {
                self.goes_on(CANCEL);
                self.end(request);
            }
            None => {
                self.goes_on(CHANGE);
                self.change(request);
            }
            Some(_) => {}
        }
        self.goes_on(LOOK);
        self.look_after(request)
    }

    fn change(&mut self, request: &mut Request) {
        match self.random.below(8) {
            0 => self.add_children(request),
            1 | 2 => self.add_waiter(request),
            3 => {
                let keep = self.random.below(request.tokens.len() + 1);
                request.tokens.truncate(keep);
            }
            4 => {
                let some = request.tokens.len() / 2;
                let leaving = request.tokens.drain(some..).map(Leaving::Token);
                let mut leaving: Vec<_> = leaving.collect();
                if let Some(task) = request.tasks.pop() {
                    self.world.figures.given_up.add(1);
                    leaving.push(Leaving::Task(task));
                }
                self.leave_to_another(Errand::Drop(leaving));
            }
            5 => {
                if let Some(mut task) = request.tasks.pop() {
                    if task.poll_with_another_waker() {
                        self.world.figures.tasks.add(1);
                    } else {
                        request.tasks.push(task);
                    }
                }
            }
            6 => self.stop_one(request),
            _ => {
                // Cancelled by itself: what is above does not notice.
                if let Some(token) = request.tokens.pop() {
                    let alone = token.it.child_token();
                    alone.cancel_with(Ended::now());
                }
                let id = request.ctx.value::<RequestId>().map(|id| id.0);
                let peer = request.ctx.value::<Peer>().map(|peer| peer.0);
                if id != Some(request.facts.number) || peer != Some(self.me) {
                    fail(&format!("{}: has the values of another", request.facts));
                }
            }
        }
    }

    fn end(&mut self, request: &mut Request) {
        request.ends = Some(Instant::now());
        let Some(guard) = request.guard.take() else {
            return;
        };
        match request.how {
            End::Cancel => self.world.cancel(&guard, false),
            End::CancelWithCause => self.world.cancel(&guard, true),
            End::Guard => drop(guard),
            End::OtherCancels => self.leave_to_another(Errand::Cancel(guard, false)),
            End::OtherCancelsWithCause => self.leave_to_another(Errand::Cancel(guard, true)),
            End::OtherDropsGuard => self.leave_to_another(Errand::DropGuard(guard)),
            End::Connection => guard.detach(),
            End::Deadline => {
                request.ends = request.facts.deadline.get().copied();
                guard.detach();
            }
        }
    }

    /// True: nobody waits any more.
    fn look_after(&self, request: &mut Request) -> bool {
        let (facts, figures) = (&*request.facts, &self.world.figures);
        let before = request.tasks.len();
        request.tasks.retain_mut(|task| !task.is_over(facts, figures));
        figures.tasks.add((before - request.tasks.len()) as u64);
        request.marks.retain(|mark| !mark.is_over());
        let Some(ends) = request.ends else {
            return false;
        };
        let done = request.ctx.is_done();
        if done && request.tasks.is_empty() && request.marks.is_empty() {
            return true;
        }
        // A deadline is in the future at first, and a connection lives for a while.
        if ends.elapsed() > self.world.limit {
            let mut waiting: Vec<_> = request.marks.iter().map(|mark| mark.what).collect();
            waiting.extend(request.tasks.iter().map(|_| "a task"));
            fail(&format!(
                "{facts}: {:.1?} after its end its context is {}done, and these still wait: {}",
                ends.elapsed(),
                if done { "" } else { "not " },
                waiting.join(", "),
            ));
        }
        false
    }

    /// One that is stopped never runs, one that cannot be stopped runs.
    fn stop_one(&mut self, request: &mut Request) {
        let Some((registration, mark)) = request.callbacks.pop() else {
            return;
        };
        self.goes_on(STOP);
        let figures = &self.world.figures;
        match self.random.below(4) {
            0 => drop(registration.stop_on_drop()),
            1 => {
                if registration.stop_and_wait() {
                    figures.given_up.add(1);
                    self.never_runs(&request.facts, &mark);
                } else if mark.is_over() {
                    figures.callbacks.add(1);
                } else {
                    fail(&format!("{}: waited for {}, and it has not run", request.facts, mark.what));
                }
            }
            _ => {
                if registration.stop() {
                    figures.given_up.add(1);
                    self.never_runs(&request.facts, &mark);
                } else {
                    figures.callbacks.add(1);
                    request.marks.push(mark);
                }
            }
        }
    }

    fn never_runs(&self, facts: &Facts, mark: &Mark) {
        // If it runs after this, it says so.
        if !mark.set_over() {
            fail(&format!("{facts}: {} was stopped, and has run", mark.what));
        }
    }

    /// The callbacks that can still be stopped have to have run as well, or are about to.
    fn finish(&mut self, mut request: Request) {
        let figures = &self.world.figures;
        figures.requests.add(1);
        let error = request.ctx.err();
        figures.deadlines.add(u64::from(error == Some(ContextError::DeadlineExceeded)));
        while !request.callbacks.is_empty() {
            self.stop_one(&mut request);
        }
        self.goes_on(DROP);
        if self.random.one_in(2) {
            let leaving = Leaving::Request(Box::new(request));
            self.leave_to_another(Errand::Drop(vec![leaving]));
        }
    }
}
