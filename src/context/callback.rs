//! Callbacks.

use super::Context;
use crate::token::{CancellationToken, Registration};
use crate::tree::{Cause, Handle};

/// # Callbacks
impl Context {
    /// Runs `f` once when the context is done, on a worker thread of this crate; at once if it is done
    /// already. Neither the canceller nor another callback waits for it. (Go's `context.AfterFunc`.)
    ///
    /// The returned [`Registration`] can unregister `f`. Dropping it leaves `f` registered, also after the
    /// last handle of this context is gone: with a deadline it runs at that; without one it stays for as long as
    /// something above can be cancelled, and is then dropped without running. (Below another crate's context: see [`below`](Self::below).)
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// # use std::sync::mpsc;
    /// let (ctx, guard) = Context::background().with_cancel();
    /// let (say, hear) = mpsc::channel();
    /// let registration = ctx.after_func(move || say.send("cleaning up").unwrap());
    /// guard.cancel();
    /// assert_eq!(hear.recv(), Ok("cleaning up"));
    /// assert!(!registration.stop()); // too late
    /// ```
    ///
    /// At the end of `main` the process ends, whether `f` has run or not: wait for what it does, or take
    /// [`on_cancel`](Self::on_cancel).
    ///
    /// A panic of `f` ends there; the panic hook tells of it.
    ///
    /// A worker is given `f` after tasks and threads were woken, in turn with the callbacks of [`on_cancel`](Self::on_cancel): one of these must not wait for
    /// an `f` of the same context, which it may have kept from being handed over.
    ///
    /// Cost: that of [`CancellationToken::on_cancel`].
    #[doc(alias = "AfterFunc")]
    pub fn after_func<F: FnOnce() + Send + 'static>(&self, f: F) -> Registration {
        self.register(|token| Registration::off_thread(token, f))
    }

    /// Runs `f` once when the context is done, on the thread that cancels it, after all state below is set; at
    /// once and here if it is done already. At a deadline that is a worker thread of this crate. The canceller waits for
    /// `f`: if `f` takes a lock that the canceller holds, for ever. See [`CancellationToken::on_cancel`].
    pub fn on_cancel<F: FnOnce() + Send + 'static>(&self, f: F) -> Registration {
        self.register(|token| Registration::new(token, f))
    }

    /// Like [`after_func`](Self::after_func), but passes the cause to `f`, so that `f` need not own a context to ask for it.
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// # use std::sync::mpsc;
    /// let (ctx, guard) = Context::background().with_cancel();
    /// let (say, hear) = mpsc::channel();
    /// let registration = ctx.after_func_with(move |cause| say.send(cause.to_string()).unwrap());
    /// guard.cancel_with("the page was closed");
    /// assert_eq!(hear.recv().unwrap(), "the page was closed");
    /// # drop(registration);
    /// ```
    pub fn after_func_with<F: FnOnce(Cause) + Send + 'static>(&self, f: F) -> Registration {
        self.register(|token| Registration::off_thread_with_cause(token, f))
    }

    /// Like [`on_cancel`](Self::on_cancel), but passes the cause to `f`: see [`CancellationToken::on_cancel_with`].
    pub fn on_cancel_with<F: FnOnce(Cause) + Send + 'static>(&self, f: F) -> Registration {
        self.register(|token| Registration::with_cause(token, f))
    }

    /// As [`CancellationToken::on_wake`].
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn on_wake<F: FnOnce() + Send + 'static>(&self, f: F) -> Registration {
        self.register(|token| Registration::woken(token, f))
    }

    fn register(&self, with: impl FnOnce(&Handle) -> Registration) -> Registration {
        match &self.token {
            Some(token) => {
                self.has_expired_unseen(token.handle());
                with(token.handle())
            }
            // Never done: a token that nobody can cancel, and that goes with the registration.
            None => with(CancellationToken::new().handle()),
        }
    }
}
