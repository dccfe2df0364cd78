//! Those who wait: tasks, parked threads, callbacks. Each leaves a mark when it has been told.

use crate::census::{Counted, Kind, Live};
use crate::figures::Figures;
use crate::fail;
use cancel_tree::{CancellationToken, Cause, Context, ContextError};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::task::{self, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// The cause of a cancel here: it says when.
#[derive(Debug)]
pub struct Ended {
    at: Instant,
    _counted: Counted,
}

impl Ended {
    pub fn now() -> Cause {
        Cause::new(Ended {
            at: Instant::now(),
            _counted: Counted::new(Kind::Cause),
        })
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ended by its owner")
    }
}

impl std::error::Error for Ended {}

/// What is waited for.
#[derive(Clone)]
pub enum Watched {
    Token(CancellationToken),
    Context(Context),
}

impl Watched {
    pub fn is_done(&self) -> bool {
        match self {
            Watched::Token(token) => token.is_cancelled(),
            Watched::Context(ctx) => ctx.is_done(),
        }
    }

    fn cause(&self) -> Option<Cause> {
        match self {
            Watched::Token(token) => token.cause(),
            Watched::Context(ctx) => ctx.cause(),
        }
    }

    fn future(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match self.clone() {
            Watched::Token(token) => Box::pin(token.cancelled_owned()),
            Watched::Context(ctx) => Box::pin(async move {
                ctx.done().await;
            }),
        }
    }

    /// Who was told at `when` checks why, and whether that is in time.
    fn check(&self, request: &Facts, when: Instant) -> Told {
        let Some(cause) = self.cause() else {
            fail(&format!("{request}: somebody was told, and there is no cause"));
        };
        match (cause.kind(), request.deadline.get()) {
            (ContextError::DeadlineExceeded, Some(deadline)) => {
                if when < *deadline {
                    fail(&format!("{request}: told {:?} early", *deadline - when));
                }
                Told::Late(when - *deadline)
            }
            (ContextError::DeadlineExceeded, None) => {
                fail(&format!("{request}: a deadline that nobody set"))
            }
            (ContextError::Cancelled, _) => match cause.downcast_ref::<Ended>() {
                Some(ended) => Told::Cancelled(when.saturating_duration_since(ended.at)),
                None => Told::Somehow,
            },
        }
    }
}

/// How long after what.
enum Told {
    Cancelled(Duration),
    Late(Duration),
    Somehow,
}

/// What can be said of a request that is in trouble.
pub struct Facts {
    pub number: u64,
    pub end: &'static str,
    pub deadline: OnceLock<Instant>,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {} ({})", self.number, self.end)
    }
}

/// Left by a waiter that has been told.
pub struct Mark {
    pub what: &'static str,
    over: AtomicBool,
}

impl Mark {
    pub fn new(what: &'static str) -> Arc<Mark> {
        Arc::new(Mark {
            what,
            over: AtomicBool::new(false),
        })
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Acquire)
    }

    /// True: for the first time.
    pub fn set_over(&self) -> bool {
        !self.over.swap(true, AcqRel)
    }
}

/// When the process began, for instants in an atomic.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// A task's waker, which is counted: as many as tasks are alive, and each with as many counts as it has clones.
struct Alarm {
    /// When it was woken, in nanoseconds since the epoch, plus 1.
    woken: AtomicU64,
    _counted: Counted,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        let now = epoch().elapsed().as_nanos() as u64;
        self.woken.store(now + 1, Release);
    }
}

/// A future that is polled by hand: only after its waker was called, so a call that is lost is noticed.
pub struct Task {
    watched: Watched,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    alarm: Arc<Alarm>,
}

impl Task {
    /// None: it was ready at once.
    pub fn new(watched: &Watched) -> Option<Task> {
        let mut task = Task {
            watched: watched.clone(),
            future: watched.future(),
            alarm: Task::alarm(),
        };
        match task.poll() {
            Poll::Pending => Some(task),
            Poll::Ready(()) if watched.is_done() => None,
            Poll::Ready(()) => fail("a future is ready, and nobody has cancelled"),
        }
    }

    fn alarm() -> Arc<Alarm> {
        epoch();
        Arc::new(Alarm {
            woken: AtomicU64::new(0),
            _counted: Counted::new(Kind::Waker),
        })
    }

    fn poll(&mut self) -> Poll<()> {
        let waker = Waker::from(self.alarm.clone());
        self.future.as_mut().poll(&mut task::Context::from_waker(&waker))
    }

    /// As a task that moves to another executor. True: it was ready, and is over.
    pub fn poll_with_another_waker(&mut self) -> bool {
        self.alarm = Task::alarm();
        self.poll().is_ready()
    }

    /// True: it has been woken, and is over.
    pub fn is_over(&mut self, request: &Facts, figures: &Figures) -> bool {
        let woken = self.alarm.woken.load(Acquire);
        if woken == 0 {
            return false;
        }
        if self.poll().is_pending() {
            fail(&format!("{request}: a task was woken, and its future is not ready"));
        }
        let when = epoch() + Duration::from_nanos(woken - 1);
        match self.watched.check(request, when) {
            Told::Cancelled(after) => figures.wake_task.note(after),
            Told::Late(by) => figures.late.note(by),
            Told::Somehow => {}
        }
        true
    }
}

/// A wait for a thread that does nothing else.
pub struct Parking {
    pub watched: Watched,
    pub request: Arc<Facts>,
    pub mark: Arc<Mark>,
    /// Gives up after this.
    pub limit: Option<Duration>,
}

pub fn park(jobs: Receiver<Parking>, figures: &Figures) {
    for job in jobs {
        let cancelled = match (&job.watched, job.limit) {
            (Watched::Token(token), None) => {
                token.wait();
                true
            }
            (Watched::Token(token), Some(limit)) => token.wait_timeout(limit),
            (Watched::Context(ctx), None) => {
                ctx.wait();
                true
            }
            (Watched::Context(ctx), Some(limit)) => ctx.wait_timeout(limit).is_some(),
        };
        if cancelled {
            let told = job.watched.check(&job.request, Instant::now());
            if let Told::Cancelled(after) = told {
                figures.wake_thread.note(after);
            }
            figures.threads.add(1);
        }
        let mark = job.mark.clone();
        // What it holds goes before the request may.
        drop(job);
        mark.set_over();
    }
}

/// A callback that runs once at most and uses the tree, as callbacks do.
pub fn callback(mark: Arc<Mark>, server: &Context) -> impl FnOnce() + Send + 'static {
    let live = Live::new(Kind::Callback, (mark, server.clone()));
    move || {
        let (mark, server) = &live.it;
        let child = server.child_token();
        let grandchild = child.child_token();
        child.cancel();
        if !grandchild.is_cancelled() {
            fail("a callback's token is not cancelled");
        }
        if !mark.set_over() {
            fail("a callback ran twice, or after it was stopped");
        }
    }
}
