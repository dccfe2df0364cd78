//! How a server has ended.

use crate::group::{in_line, Report};
use crate::integrations::signals::Signal;
use crate::sync::Panics;
use crate::tree::Cause;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// Where a server is, on its way to its end; see [the module](super) for what happens in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// [`run`](super::Server::run) was not polled yet.
    Starting,
    /// Requests are served.
    Serving,
    /// Not ready any more, but serving.
    LameDuck,
    /// No new connections; requests finish.
    Graceful,
    /// The requests' contexts are cancelled.
    Cancelled,
    /// The server's future is dropped.
    Dropped,
    /// There is a report.
    Ended,
}

impl Phase {
    pub(super) fn of(number: u8) -> Phase {
        use Phase::{Cancelled, Dropped, Ended, Graceful, LameDuck, Serving, Starting};
        [
            Starting, Serving, LameDuck, Graceful, Cancelled, Dropped, Ended,
        ][usize::from(number)]
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::LameDuck => "lame duck",
            Phase::Graceful => "graceful",
            Phase::Cancelled => "cancelled",
            Phase::Dropped => "dropped",
            Phase::Ended => "ended",
        })
    }
}

/// What has become of the server's future.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerFuture {
    /// It ended by itself.
    Ended,
    /// It ended with an error, or a panic ([`Panicked`](crate::Panicked)).
    Failed(Cause),
    /// It had to be dropped: connections did not end.
    Dropped,
    /// It was not polled when it should have been dropped: the executor is stuck. Or it was never run, or given [no time](super::Serve::dropped);
    /// or no thread could be started that tells it.
    Stuck,
}

impl fmt::Display for ServerFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerFuture::Ended => f.write_str("the server ended by itself"),
            ServerFuture::Failed(cause) => {
                write!(f, "the server failed: {}", in_line(cause))
            }
            ServerFuture::Dropped => f.write_str("the server was dropped"),
            ServerFuture::Stuck => {
                f.write_str("the server is stuck: its executor does not poll it")
            }
        }
    }
}

/// How a server has ended; made by [`Server::run`](super::Server::run).
///
/// A request has ended when the last frame of its answer is taken. If the server's future has ended by itself, all of them are written; if it had to
/// be dropped, the last one may be on its way: a process that ends at once may cut it off.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerReport {
    /// Why the end began: a [`Signal`], the cause of another context, or that the server's future ended.
    pub cause: Cause,
    /// What has become of the server's future.
    pub server: ServerFuture,
    /// The phases from the beginning of the end, and how long each took. What is not here was skipped.
    pub phases: Vec<(Phase, Duration)>,
    /// The requests, and the other tasks of their group: those that are stuck, by name. It counts those that were there when `Graceful` began, or were
    /// met later.
    pub tasks: Report,
    /// From the beginning of the end.
    pub took: Duration,
}

impl ServerReport {
    /// Returns `true` if everything has ended by itself: the server and the requests that were there.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(self.server, ServerFuture::Ended) && self.tasks.is_clean()
    }

    /// Returns the code for `std::process::exit`: 0 if the server ended by itself and no task is left, whether requests had to be cancelled or not. Otherwise that of the
    /// signal, 128 + n, or 1 if there was none.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        if matches!(self.server, ServerFuture::Ended) && self.tasks.stuck.is_empty() {
            return 0;
        }
        signal_in(&self.cause).map_or(1, Signal::exit_code)
    }
}

/// The signal that a cause is or has among its sources. These are user code: one that panics is none.
pub(super) fn signal_in(cause: &Cause) -> Option<Signal> {
    let mut signal = None;
    let mut panics = Panics::default();
    panics.catch(|| signal = cause.find().copied());
    panics.swallow();
    signal
}

impl fmt::Display for ServerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = in_line(&self.cause);
        write!(f, "{cause}: ended in {:.1?} (", self.took)?;
        for (i, (phase, took)) in self.phases.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{phase} {took:.1?}")?;
        }
        write!(f, "); {}; {}", self.server, self.tasks)
    }
}
