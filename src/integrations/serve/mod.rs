//! A server's end (feature `serve`): in phases, each of them bounded, with a report of what did not stop. Around any server future that
//! takes a graceful signal: axum's, hyper's, tonic's. No runtime is needed, and none is known.
//!
//! ```no_run
//! use cancel_tree::integrations::serve::Serve;
//! use cancel_tree::integrations::signals::Signals;
//! use cancel_tree::Context;
//! use std::io::Write;
//! # use std::future::Future;
//! # async fn axum_serve(_: impl Future<Output = ()>) -> std::io::Result<()> { Ok(()) }
//!
//! # async fn main_() -> std::io::Result<()> {
//! let signals = Signals::new().install(&Context::background())?;
//! let server = Serve::new(&Context::background())
//!     .signals(&signals)
//!     .when_stuck(|report| {
//!         // Not by `eprintln!`, which panics where nobody reads, and then the process would not end.
//!         let _ = writeln!(std::io::stderr(), "{report}");
//!         std::process::exit(report.exit_code());
//!     })
//!     .start()?;
//! // Requests: `.layer(ContextLayer::new(&ctx).in_group(server.handle().requests()).named())` (feature `tower`).
//! // The readiness route asks `handle.is_ready()`, SSE and websockets end with `handle.closing()`.
//! let graceful = server.graceful();
//! let report = server.run(axum_serve(graceful)).await; // axum::serve(listener, app).with_graceful_shutdown(graceful)
//! let _ = writeln!(std::io::stderr(), "{report}");
//! std::process::exit(report.exit_code());
//! # }
//! ```
//!
//! | [phase](Phase) | what | ends when | bound |
//! | --- | --- | --- | --- |
//! | `Serving` | requests are served | a signal, or another of [`end_with`](Serve::end_with); the server's future ends | none |
//! | `LameDuck` | not [ready](ServerHandle::is_ready) any more, so that no new clients are sent here; all requests that come are served. Not after a SIGINT | the server's future has ended | 5 s |
//! | `Graceful` | [`graceful`](Server::graceful) says so to the server, [`closing`](ServerHandle::closing) to routes without an end of their own | the future has ended and all tasks are gone | 15 s |
//! | `Cancelled` | nothing new is taken; the requests' contexts are cancelled, with [`Shutdown`] as the cause, but not yet their [shields](Context::shield), if these have a grace: that of the context of [`Serve::new`], or one of their own | the same | 5 s |
//! | `Dropped` | the server's future is dropped; all shields are cancelled | the same | 1 s |
//! | `Ended` | [`run`](Server::run) returns the [report](ServerReport) | | |
//!
//! That makes 26 s, of the 30 that Kubernetes gives. The second signal skips to `Cancelled`, and the third [ends the process](super::signals). A thread of its own
//! keeps the time, so that the phases go on if the executor is stuck. A bound of zero skips the wait, `Duration::MAX` is none. Under a test's clock (of the
//! context that [`Serve::new`] is given) all bounds are by that clock.
//!
//! # What cannot be done
//!
//! - A thread that does not return cannot be stopped, and a future that is being polled cannot be dropped. If the executor hangs, `run` does not
//!   return; then, when all bounds are over, [`when_stuck`](Serve::when_stuck) is called, on a thread of this crate, with the same report. It can end the
//!   process, and nothing else will.
//! - axum and tonic spawn their connections: dropping their future drops none of these. Their requests are told by their contexts, and named if they do not stop. A
//!   connection that has no request has no name; where it held the server's future up (as an HTTP/2 connection without its preface does), the report
//!   says that the future had to be dropped. Code that accepts its own connections gives each a name: `requests().named(peer).track(connection)`.
//! - A runtime that is dropped may wait for its blocking threads for ever: end by `std::process::exit`, and not by a return from `main`.

mod conduct;
mod report;

pub use super::shutdown::Shutdown;
pub use report::{Phase, ServerFuture, ServerReport};

use crate::context::{CancelGuard, CancelledOwned, Canceller, Context};
use crate::group::{Group, Panicked, Spawner};
use crate::integrations::signals::{can_be_told, SignalGuard};
use crate::sync::{Acquire, AtomicU8, OfUser, Panics, Relaxed, Release};
use crate::token::CancellationToken;
use crate::tree::Cause;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use conduct::{Conductor, Watched};
use core::any::Any;
use core::error::Error;
use core::fmt;
use core::future::{poll_fn, Future, IntoFuture};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::OnceLock;
use std::thread;

/// How long each phase may take.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    lame_duck: Duration,
    graceful: Duration,
    cancelled: Duration,
    dropped: Duration,
}

type WhenStuck = OfUser<Box<dyn FnOnce(ServerReport) + Send>>;

/// How a server is to end; see [the module](self) for the phases.
#[must_use = "nothing is started yet"]
pub struct Serve {
    ctx: Context,
    end_with: Vec<Context>,
    force_with: Vec<Context>,
    bounds: Bounds,
    limit: usize,
    when_stuck: Option<WhenStuck>,
}

// SAFETY: `when_stuck` is all that is not Sync, and it is only ever moved.
unsafe impl Sync for Serve {}

// It runs when all else is through.
impl core::panic::UnwindSafe for Serve {}
impl core::panic::RefUnwindSafe for Serve {}

impl Serve {
    /// Prepares the end of a server whose requests are below `ctx`. If that is done, so are they, and the server ends; so do not pass the context that a signal cancels, which goes to
    /// [`signals`](Self::signals) or [`end_with`](Self::end_with). If it has a [grace](Context::with_grace), a request that is cancelled has that for its
    /// [shield](Context::shield), but not longer than until `Dropped`. If it has none, such a shield is a plain child, done at `Cancelled`. A grace that is
    /// made for a request, or by its handler, is over at `Dropped`, too, in either case; and when the server has ended, at the latest: what is to have its
    /// time has to be a task of [`requests`](ServerHandle::requests).
    pub fn new(ctx: &Context) -> Serve {
        Serve {
            ctx: ctx.clone(),
            end_with: Vec::new(),
            force_with: Vec::new(),
            bounds: Bounds {
                lame_duck: Duration::from_secs(5),
                graceful: Duration::from_secs(15),
                cancelled: Duration::from_secs(5),
                dropped: Duration::from_secs(1),
            },
            limit: usize::MAX,
            when_stuck: None,
        }
    }

    /// The first signal begins the end, the second skips to `Cancelled`. Keep the guard until the report is there: dropping it begins the end, and forces it, as two signals do.
    pub fn signals(self, signals: &SignalGuard) -> Serve {
        self.end_with(signals.context())
            .force_with(signals.forced())
    }

    /// The end begins when this context is done; of several, the first counts.
    pub fn end_with(mut self, ctx: &Context) -> Serve {
        self.end_with.push(ctx.clone());
        self
    }

    /// When this context is done, `Cancelled` begins at once.
    pub fn force_with(mut self, ctx: &Context) -> Serve {
        self.force_with.push(ctx.clone());
        self
    }

    /// Sets for how long the server is not ready, but serves: the time that it takes until no more clients are sent here. 5 seconds by default. It is
    /// skipped if the cause is a SIGINT, which comes from a person at a terminal.
    pub fn lame_duck(mut self, bound: Duration) -> Serve {
        self.bounds.lame_duck = bound;
        self
    }

    /// Sets for how long requests may finish: 15 seconds by default.
    pub fn graceful(mut self, bound: Duration) -> Serve {
        self.bounds.graceful = bound;
        self
    }

    /// Sets how long requests have after they were cancelled: 5 seconds by default.
    pub fn cancelled(mut self, bound: Duration) -> Serve {
        self.bounds.cancelled = bound;
        self
    }

    /// Sets how long the executor has to drop the server's future, and again to take the report: 1 second by default. If this is zero,
    /// the drop is not waited for, and the report has a second.
    pub fn dropped(mut self, bound: Duration) -> Serve {
        self.bounds.dropped = bound;
        self
    }

    /// Allows at most `tasks` tasks at once in the group of [`requests`](ServerHandle::requests), as [`Group::limit`] does: against clients that start
    /// handlers without end. By default there is no limit. It can be changed by [`set_limit`](ServerHandle::set_limit).
    ///
    /// What is too much is refused ([`Full`](crate::Full)): the layers of [`tower`](crate::integrations::tower) answer with 503, or gRPC's 8. What calls the group itself
    /// has its work back, or waits for room by the methods `…_when`. All tasks of that group count, also a connection that was tracked there.
    /// A request counts once, however many layers of that group are around each other.
    ///
    /// ```
    /// use cancel_tree::integrations::serve::Serve;
    /// use cancel_tree::Context;
    ///
    /// let server = Serve::new(&Context::background()).limit(1000).start()?;
    /// // `ContextLayer::new(&ctx).in_group(handle.requests())`, or as here, without a layer:
    /// let handle = server.handle();
    /// let requests: Vec<_> = (0..1000).map(|_| handle.requests().enter().unwrap()).collect();
    /// assert!(handle.requests().enter().unwrap_err().is_full());
    /// drop(requests);
    /// assert!(handle.requests().enter().is_ok());
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// Cost: 2 RMWs more for each task, on a word that all share.
    pub fn limit(mut self, tasks: usize) -> Serve {
        self.limit = tasks;
        self
    }

    /// Sets what is called, on a thread of this crate, when all bounds are over and the executor has not taken the report: to say so, and to end the process. By
    /// default nothing is done.
    pub fn when_stuck(mut self, f: impl FnOnce(ServerReport) + Send + 'static) -> Serve {
        self.when_stuck = Some(OfUser::new(Box::new(f)));
        self
    }

    /// Starts the thread that keeps the time. From now on the end can begin, even before there is a server.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] in the child of a `fork` whose parent had this crate's timer thread. Other errors mean that no thread could be started.
    pub fn start(self) -> io::Result<Server> {
        can_be_told()?;
        // An error of one task is not the end of the others.
        let (serving, cancel) = self.ctx.with_cancel();
        let (serving, end_graces) = serving.with_end_of_graces();
        let group = Group::new(&serving).keep_going().limit(self.limit);
        let (closing, close) = Context::background().with_cancel();
        let (ending, end) = Context::background().with_cancel();
        let (forced, force) = Context::background().with_cancel();
        let shared = Arc::new(Shared {
            phase: AtomicU8::new(Phase::Starting as u8),
            requests: group.spawner(),
            closing,
            end: end.canceller(),
            force: force.canceller(),
            gone: CancellationToken::new(),
            drop_now: CancellationToken::new(),
            ended: CancellationToken::new(),
            taken: CancellationToken::new(),
            future: OnceLock::new(),
            report: OnceLock::new(),
        });
        let mut force_with = self.force_with;
        force_with.extend([forced, group.context().clone()]);
        let mut end_with = self.end_with;
        end_with.push(ending);
        end_with.extend(force_with.iter().cloned());
        let conductor = Conductor {
            shared: shared.clone(),
            group,
            cancel: cancel.canceller(),
            end_graces: end_graces.cause_on_drop(Shutdown),
            close,
            begin: Watched::new(&end_with),
            force: Watched::new(&force_with),
            bounds: self.bounds,
            when_stuck: self.when_stuck,
        };
        let thread = thread::Builder::new().name("cancel-tree serve".into());
        thread.spawn(move || conductor.run())?;
        // The group is cancelled when it is dropped.
        cancel.detach();
        end.detach();
        let handle = ServerHandle(shared);
        Ok(Server {
            handle,
            _force: force,
        })
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("ctx", &self.ctx)
            .field("bounds", &self.bounds)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// What all handles, the future and the conductor have in common.
struct Shared {
    /// Goes up only.
    phase: AtomicU8,
    requests: Spawner,
    closing: Context,
    end: Canceller,
    force: Canceller,
    /// The server's future has ended, or is dropped.
    gone: CancellationToken,
    /// It is to be dropped.
    drop_now: CancellationToken,
    /// There is a report…
    ended: CancellationToken,
    /// …and nobody has to be told any more.
    taken: CancellationToken,
    /// Set before `gone`.
    future: OnceLock<ServerFuture>,
    /// Set before `ended`.
    report: OnceLock<ServerReport>,
}

impl Shared {
    fn advance(&self, phase: Phase) {
        // Relaxed, here and on failure: a step goes on with the release sequence of the one before it.
        let mut seen = self.phase.load(Relaxed);
        while seen < phase as u8 {
            // Release: pairs with the load in `phase`; what was done before that phase is seen in it.
            match self
                .phase
                .compare_exchange(seen, phase as u8, Release, Relaxed)
            {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

/// A server that can be run and ended; made by [`Serve::start`].
///
/// Dropping it, or the future of [`run`](Self::run), cancels its requests, and ends it.
#[must_use = "dropped at once it ends at once"]
pub struct Server {
    handle: ServerHandle,
    /// When it is dropped nobody waits for anything any more.
    _force: CancelGuard,
}

/// A handle for routes: says where the server is, and can end it. Clones are of the same server.
#[derive(Clone)]
pub struct ServerHandle(Arc<Shared>);

impl core::panic::UnwindSafe for ServerHandle {}
impl core::panic::RefUnwindSafe for ServerHandle {}

impl ServerHandle {
    /// Returns what the readiness route should say: `true` from the first poll of [`Server::run`] until the end begins.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Serving
    }

    /// Returns the phase that the server is in.
    #[must_use]
    pub fn phase(&self) -> Phase {
        // Acquire: from `advance`.
        Phase::of(self.0.phase.load(Acquire))
    }

    /// Returns a context that is done when `Graceful` begins, with the cause of the end: for what would go on for ever, such as server-sent events and websockets. Requests are not
    /// below it.
    pub fn closing(&self) -> &Context {
        &self.0.closing
    }

    /// Returns the group whose tasks the requests are: for [`ContextLayer::in_group`](crate::integrations::tower::ContextLayer::in_group) and for what they leave behind. Errors of
    /// its tasks cancel nothing. A panic of a task that was spawned in it does, and ends the server. How many there may be at once is set by [`Serve::limit`].
    #[must_use]
    pub fn requests(&self) -> &Spawner {
        &self.0.requests
    }

    /// Changes the [limit](Serve::limit) while the server runs, as [`Group::set_limit`](crate::Group::set_limit) does. `usize::MAX` means no limit.
    pub fn set_limit(&self, tasks: usize) {
        self.0.requests.set_limit_of_group(tasks);
    }

    /// Begins the end, with this cause. Returns `true` if this call was the first of `end`; the end may have begun all the same, by a signal or by itself.
    pub fn end(&self, cause: impl Into<Cause>) -> bool {
        self.0.end.cancel_with(cause)
    }

    /// Skips to `Cancelled`, which also begins the end, with this cause. Returns `true` if this call was the first of `force`, and the [`Server`] was not dropped.
    pub fn force(&self, cause: impl Into<Cause>) -> bool {
        self.0.force.cancel_with(cause)
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle")
            .field("phase", &self.phase())
            .field("requests", &self.0.requests)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// For handlers.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Returns a future that is ready when no new connections should be taken: for `with_graceful_shutdown` and the like. It is `Send`, `Sync` and `'static`, with the output
    /// `()`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub fn graceful(&self) -> CancelledOwned {
        self.handle.0.closing.clone().cancelled_owned()
    }

    /// Runs the server's future until it and everything that was started for its requests has ended, by itself or by force, or the bounds are over.
    ///
    /// It always ends, as long as it is polled. A panic of the future is in the report. If the future ends by itself, without a signal or another request to end, the requests have
    /// the time of `Graceful` and `Cancelled`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the server's future and cancels the requests; the report is lost.
    pub async fn run<F, T, E>(self, server: F) -> ServerReport
    where
        F: IntoFuture<Output = Result<T, E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let shared = &*self.handle.0;
        shared.advance(Phase::Serving);
        let end = until_its_end(server, &shared.drop_now).await;
        // Nobody has set it: this is the only run, and the drop comes later.
        let _ = shared.future.set(end);
        shared.gone.cancel();
        shared.ended.cancelled().await;
        shared.taken.cancel();
        match shared.report.get() {
            Some(report) => report.clone(),
            None => unreachable!("it is set before `ended`"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let shared = &*self.handle.0;
        // Already set, if it has run to its end.
        let _ = shared.future.set(ServerFuture::Dropped);
        // Nobody waits there but the conductor.
        shared.gone.cancel();
        shared.taken.cancel();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.handle).finish()
    }
}

async fn until_its_end<F, T, E>(server: F, drop_now: &CancellationToken) -> ServerFuture
where
    F: IntoFuture<Output = Result<T, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let of_panic = |payload: Box<dyn Any + Send>| {
        let panicked = Panicked::of(&*payload, Some("the server's future"), None);
        let failed = ServerFuture::Failed(Cause::new(panicked));
        // The payload is user code too.
        let mut panics = Panics::default();
        panics.catch(|| drop(payload));
        panics.swallow();
        failed
    };
    // AssertUnwindSafe: it is not used again, but to be dropped.
    let future = match catch_unwind(AssertUnwindSafe(|| server.into_future())) {
        Ok(future) => future,
        Err(payload) => return of_panic(payload),
    };
    let mut future = Box::pin(future);
    let mut drop_now = pin!(drop_now.cancelled());
    let end = poll_fn(|cx| {
        // What it returns is user code too: dropped in here, or made an error. AssertUnwindSafe: as above.
        let poll = catch_unwind(AssertUnwindSafe(|| {
            future.as_mut().poll(cx).map(|end| match end {
                Ok(output) => {
                    drop(output);
                    ServerFuture::Ended
                }
                Err(error) => ServerFuture::Failed(Cause::new(error)),
            })
        }));
        Poll::Ready(match poll {
            Ok(Poll::Ready(end)) => end,
            Err(payload) => of_panic(payload),
            Ok(Poll::Pending) => match drop_now.as_mut().poll(cx) {
                Poll::Ready(()) => ServerFuture::Dropped,
                Poll::Pending => return Poll::Pending,
            },
        })
    })
    .await;
    let mut panics = Panics::default();
    panics.catch(|| drop(future));
    panics.swallow();
    end
}
