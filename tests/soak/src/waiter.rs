//! Those who wait: tasks, parked threads, callbacks. Each leaves a mark when it has been told.

use crate::counts::{Counted, Figures, Kind};
use crate::fail;
use crate::load::{End, World};
use cancel_tree::{CancellationToken, Cause, Context, ContextError, Group};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::mpsc::Receiver;
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// The cause of a cancel here.
#[derive(Debug)]
pub struct Ended(#[allow(dead_code)] Counted);

impl Ended {
    pub fn cause(kind: ContextError) -> Cause {
        Cause::with_kind(kind, Ended(Counted::new(Kind::Cause)))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ended by its owner")
    }
}

impl std::error::Error for Ended {}

/// What can be said of a request that is in trouble.
pub struct Facts {
    pub number: u64,
    pub end: End,
    pub deadline: Option<Instant>,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {} (ends by {:?})", self.number, self.end)
    }
}

/// What is waited for.
pub enum Watched {
    Token(CancellationToken),
    Context(Context),
}

impl Watched {
    /// Who was told looks why, and whether it is time.
    fn check(&self, request: &Facts) {
        let cause = match self {
            Watched::Token(token) => token.cause(),
            Watched::Context(ctx) => ctx.cause(),
        };
        let Some(cause) = cause else {
            fail(&format!(
                "{request}: somebody was told, and there is no cause"
            ));
        };
        if cause.kind() == ContextError::DeadlineExceeded {
            let deadline = request.deadline;
            if deadline.is_none_or(|deadline| Instant::now() < deadline) {
                fail(&format!(
                    "{request}: its deadline is said to have passed: {deadline:?}"
                ));
            }
        }
    }
}

/// Left by a waiter that has been told, or stopped.
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

struct Alarm {
    woken: AtomicBool,
    _counted: Counted,
}

impl Alarm {
    fn new() -> Arc<Alarm> {
        Arc::new(Alarm {
            woken: AtomicBool::new(false),
            _counted: Counted::new(Kind::Waker),
        })
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Release);
    }
}

/// A future that is polled by hand, and only after its waker was called: so a call that is lost is noticed.
pub struct Task {
    watched: Watched,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    alarm: Arc<Alarm>,
}

impl Task {
    /// None: it was ready at once.
    pub fn new(watched: Watched, request: &Facts) -> Option<Task> {
        let mut task = Task {
            future: match &watched {
                Watched::Token(token) => Box::pin(token.clone().cancelled_owned()),
                Watched::Context(ctx) => {
                    let done = ctx.clone().done_owned();
                    Box::pin(async move {
                        let _ = done.await;
                    })
                }
            },
            watched,
            alarm: Alarm::new(),
        };
        (!task.is_ready(request)).then_some(task)
    }

    /// One of the request's group. None: it was ready at once, or the group takes none any more.
    pub fn of_group(group: &Group, request: &Facts) -> Option<Task> {
        let counted = Counted::new(Kind::Value);
        let tracked = group.track_with(|ctx| async move {
            let _counted = counted;
            // Handed back, it is no error.
            Err::<(), _>(ctx.done().await)
        });
        let mut task = Task {
            watched: Watched::Context(group.context().clone()),
            future: Box::pin(tracked.ok()?),
            alarm: Alarm::new(),
        };
        (!task.is_ready(request)).then_some(task)
    }

    fn is_ready(&mut self, request: &Facts) -> bool {
        let waker = Waker::from(self.alarm.clone());
        let polled = self
            .future
            .as_mut()
            .poll(&mut task::Context::from_waker(&waker));
        if polled == Poll::Ready(()) {
            self.watched.check(request);
        }
        polled.is_ready()
    }

    /// As a task that moves to another executor. True: it is over.
    pub fn is_ready_elsewhere(&mut self, request: &Facts) -> bool {
        self.alarm = Alarm::new();
        self.is_ready(request)
    }

    /// True: it has been woken, and is over.
    pub fn is_over(&mut self, request: &Facts) -> bool {
        let woken = self.alarm.woken.load(Acquire);
        if woken && !self.is_ready(request) {
            fail(&format!(
                "{request}: a task was woken, and its future is not ready"
            ));
        }
        woken
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
        let over = match (&job.watched, job.limit) {
            (Watched::Token(token), None) => {
                token.blocking_wait();
                true
            }
            (Watched::Token(token), Some(limit)) => token.blocking_wait_timeout(limit),
            (Watched::Context(ctx), None) => {
                ctx.blocking_wait();
                true
            }
            (Watched::Context(ctx), Some(limit)) => ctx.blocking_wait_timeout(limit).is_some(),
        };
        if over {
            job.watched.check(&job.request);
            figures.threads.add(1);
        } else {
            figures.given_up.add(1);
        }
        job.mark.set_over();
    }
}

/// A callback that runs once at most, and uses the tree, as callbacks do.
pub fn callback(mark: Arc<Mark>, world: Arc<World>) -> impl FnOnce() + Send + 'static {
    let counted = Counted::new(Kind::Callback);
    move || {
        let _counted = counted;
        let child = world.server.child_token();
        let grandchild = child.child_token();
        child.cancel();
        if !grandchild.is_cancelled() {
            fail("a callback's token is not cancelled");
        }
        world.figures.callbacks.add(1);
        if !mark.set_over() {
            fail("a callback ran twice, or after it was stopped");
        }
    }
}
