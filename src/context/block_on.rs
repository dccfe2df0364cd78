//! Waiting for other people's futures as a thread.

use super::{done, Context};
use crate::token::{wait, CancellationToken};
use crate::tree::ContextError;
use core::future::Future;
use core::pin::pin;

/// # Waiting as a thread, for a future
impl Context {
    /// Parks the calling thread until the future is ready, or the context is done: then the future is dropped. It is
    /// [`run`](Self::run) for threads: if both are, the future goes first, also if it became ready after it was polled; and a
    /// context that is done at the call does not poll it.
    ///
    /// So a plain thread waits for a channel, a lock, an answer, of whatever crate, and stops when it is told to:
    ///
    /// ```
    /// # use cancel_tree::{Context, ContextError};
    /// # use futures::channel::mpsc;
    /// # use futures::StreamExt;
    /// # use std::thread;
    /// # use std::time::Duration;
    /// let (server, _guard) = Context::background().with_cancel();
    /// let (say, mut hear) = mpsc::unbounded();
    /// thread::spawn(move || {
    ///     say.unbounded_send("tea").unwrap();
    ///     thread::sleep(Duration::from_secs(3600)); // nobody says anything any more
    /// });
    /// assert_eq!(server.block_on(hear.next()), Ok(Some("tea")));
    /// let (ctx, _guard) = server.with_timeout(Duration::from_millis(50));
    /// assert_eq!(ctx.block_on(hear.next()), Err(ContextError::DeadlineExceeded));
    /// ```
    ///
    /// The future is polled on this thread, whenever it has been woken. Those of channels and locks need no more: flume, kanal,
    /// async-channel, tokio's and futures' channels. Those that need a reactor (tokio's sockets and timers) find it if it runs
    /// on other threads and the future was made there, or [`Handle::enter`](https://docs.rs/tokio/1/tokio/runtime/struct.Handle.html#method.enter)
    /// is in force here; on a thread that runs tasks itself it blocks all of these: they take [`run`](Self::run).
    ///
    /// A wait within a wait works: the future may itself call this. A thread that waits here does not need the timer: it
    /// sleeps until the deadline by itself, also in a child process made by `fork` (see [`blocking_wait`](Self::blocking_wait) for one
    /// that is moved). The thread sleeps by [`std::thread::park`], and what [`blocking_wait`](crate::CancellationToken::blocking_wait) says about permits holds.
    ///
    /// # Errors
    ///
    /// The context was done first.
    ///
    /// # Panics
    ///
    /// When the future does; nothing is left behind. And as [`blocking_wait`](Self::blocking_wait).
    ///
    /// # Cancel safety
    ///
    /// That of the future: what it has taken out of a channel when it is dropped is lost where its crate says so.
    ///
    /// Cost: a future that is ready at once is one poll. Otherwise 3 RMWs to register and 1 at the end, one `swap` for each
    /// look, and those of `park`. A thread allocates at its first wait only, and for a wait within a wait.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, ContextError> {
        let mut run = pin!(done::run(self, future));
        let token = self.token.as_ref().map(CancellationToken::handle);
        loop {
            let sleep = |until| wait::block_on(&[token], run.as_mut(), until);
            if let Some(outcome) = self.sleeping(None, sleep) {
                return outcome;
            }
        }
    }
}
