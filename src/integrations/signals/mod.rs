//! Signals of the process as the causes of contexts (feature `signals`; unix, and Windows' console events). No runtime is needed. The
//! counterpart of Go's `signal.NotifyContext`, with a second and a third signal.
//!
//! ```
//! use cancel_tree::integrations::signals::{Signal, Signals};
//! use cancel_tree::Context;
//!
//! # fn main() -> std::io::Result<()> {
//! let signals = Signals::new().install(&Context::background())?;
//! # #[cfg(unix)] {
//! # // SAFETY: to ourselves, where there is a handler.
//! # unsafe { libc::raise(libc::SIGTERM) };
//! signals.context().blocking_wait(); // until SIGTERM, or SIGINT
//! let cause = signals.context().cause().unwrap();
//! let signal = cause.find::<Signal>().unwrap();
//! assert_eq!((signal.name(), signal.exit_code()), ("SIGTERM", 143));
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! | signal | what it does |
//! | --- | --- |
//! | the first | [`SignalGuard::context`] is cancelled, with a [`Signal`] as its cause |
//! | the second | [`SignalGuard::forced`] is cancelled too |
//! | the third, or [another](Signals::end_at) | the process ends, inside the handler, with 128 + n: also if every thread hangs |
//!
//! Signals of one kind that come before the system has delivered the first are one.
//!
//! # Beside others
//!
//! A handler that was installed before is kept, and called first; once only, if it is to be (`SA_RESETHAND`). A handler that is installed later and calls the former one, as those of tokio and signal-hook do, calls
//! this one. Dropping the guard restores what was there before or, if another handler was installed on top meanwhile, stays silently below it. So if
//! there is no other handler, the next signal ends the process, as it does by default. (The crate signal-hook-registry, which tokio uses, has no way back
//! to the default; that is why this module uses `sigaction` itself.) A handler that is installed later and does not call the former one, as
//! ctrlc's `set_handler`, is the only one from then on.
//!
//! One that is called once, and sets itself again, may be lost if it does so while the guard is dropped: the default is in its place then.
//!
//! A signal that was ignored (`nohup`, a shell's `&`) is caught, since it was asked for, and is ignored again after that.
//!
//! In the child of a `fork` without `exec` signals do what they did before, and [`install`](Signals::install) returns an error while there is a copy of the
//! parent's guard, and if the parent had the timer thread. All but the copy goes by the process's number: not so if the child has its parent's
//! again, in a new PID namespace. A thread that blocks a signal does not get it; if all threads do, it is not
//! delivered.
//!
//! # In the handler
//!
//! It calls what was there before, counts by atomics, and writes a byte into a pipe; or ends the process by `_exit`, which runs nothing. Where nobody is there for
//! the signal, or a handler is called once, it puts back what belongs there (`sigaction`). A thread of this
//! crate reads the pipe, runs no user code, and so is never held up; what is woken and runs at the cancels is on
//! worker threads, as with [`Context::after_func`]. (If no thread is to be had at that moment, the contexts are done all the same, and these run as soon as one is.)
//!
//! # Windows
//!
//! Ctrl-C and Ctrl-Break are [`Signal::INT`]; the console's close and the system's shutdown are [`Signal::TERM`], after which Windows
//! ends the process by itself within some seconds. A log-off, of which services alone are told, is left to the others. It calls handlers one after the other until one has handled the event: those that were there before
//! are not called. This part is compiled by CI where the target is there, and not run.

use crate::context::{CancelGuard, Canceller, Context};
use crate::sync::Panics;
use crate::timer;
use crate::token::wait::SLICE;
use crate::token::StopOnDrop;
use crate::tree::Cause;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;
use std::io;

mod received;
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod system;

use received::{Inbox, Letter, Received, Word};

/// For models.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub mod models {
    pub use super::received::{dispatch, Inbox, Letter, Received, Word};
}

crate::sync::global! {
    static WORD: Word = Word::new();
}
crate::sync::global! {
    static INBOX: Inbox<Letter<Told>> = Inbox::new();
}

/// What the dispatcher cancels: for the first signal and for the second. Nobody waits on these but callbacks of our own, which
/// mark what the guard is of and leave the rest to workers, so it never meets user code.
type Told = [Canceller; 2];

/// A signal that came; the cause of a [`SignalGuard`]'s contexts. Its kind is [`ContextError::Cancelled`](crate::ContextError::Cancelled).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(u8);

impl Signal {
    /// SIGINT: Ctrl-C.
    pub const INT: Signal = Signal(2);
    /// SIGTERM: what asks a program to end.
    pub const TERM: Signal = Signal(15);
    /// SIGHUP: the terminal is gone.
    #[cfg(unix)]
    pub const HUP: Signal = Signal(1);
    /// SIGQUIT: Ctrl-\.
    #[cfg(unix)]
    pub const QUIT: Signal = Signal(3);

    /// As in `SIGTERM`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            1 => "SIGHUP",
            2 => "SIGINT",
            3 => "SIGQUIT",
            _ => "SIGTERM",
        }
    }

    /// As in 15.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0 as i32
    }

    /// 128 + n: what a shell says of a process that the signal has ended.
    #[must_use]
    pub const fn exit_code(self) -> i32 {
        128 + self.number()
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Error for Signal {}

impl From<Signal> for Cause {
    fn from(signal: Signal) -> Cause {
        Cause::new(signal)
    }
}

/// Which signals are caught, and how many a program survives.
#[doc(alias("NotifyContext", "signal.NotifyContext", "ctrl_c", "SIGTERM", "SIGINT"))]
#[derive(Clone, Debug)]
#[must_use = "nothing is installed yet"]
pub struct Signals {
    which: Vec<Signal>,
    ends_at: u8,
    #[cfg(feature = "inspect")]
    shows: bool,
}

impl Default for Signals {
    fn default() -> Signals {
        Signals::new()
    }
}

impl Signals {
    /// Catches SIGTERM and SIGINT; the third signal, of both together, ends the process.
    pub fn new() -> Signals {
        Signals {
            which: [Signal::TERM, Signal::INT].into(),
            ends_at: 3,
            #[cfg(feature = "inspect")]
            shows: false,
        }
    }

    /// Also catches this signal.
    pub fn also(mut self, signal: Signal) -> Signals {
        if !self.which.contains(&signal) {
            self.which.push(signal);
        }
        self
    }

    /// Sets which signal ends the process at once, inside the handler: the third by default, none with 0. With 2, no signal forces.
    pub fn end_at(mut self, nth: u8) -> Signals {
        self.ends_at = nth;
        self
    }

    /// Writes what does not stop to stderr at the second signal: the [snapshot](crate::inspect::snapshot) as text, by a worker thread of
    /// this crate. (Feature `inspect`.)
    ///
    /// It is written beside what the program does at that signal, and not waited for: a program that exits as soon as
    /// [`forced`](SignalGuard::forced) is done may be gone before. With [`end_at`](Self::end_at) 2 the second ends the process, and nothing is written.
    #[cfg(feature = "inspect")]
    pub fn show_at_second(mut self) -> Signals {
        self.shows = true;
        self
    }

    /// Installs the handlers; their contexts are below `ctx`.
    ///
    /// The first call in a process starts a thread, which stays, and takes two descriptors.
    ///
    /// If another handler was on top when a guard before was dropped, and still is, nothing is installed anew, for ours is below that one. If it does not call
    /// the former one, its signal never comes here. If yet another one is there by now, ours is installed on top of that as well; a signal that
    /// comes both ways counts once.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::ResourceBusy`] if there is a [`SignalGuard`] in this process already: there is one count of signals.
    /// [`io::ErrorKind::Unsupported`] in the child of a `fork` whose parent had this crate's timer thread, which the child lacks: nothing could be told. Other errors mean that there is
    /// no thread or no descriptor left, or that ours has stayed below four others of one signal, one above the other.
    pub fn install(self, ctx: &Context) -> io::Result<SignalGuard> {
        can_be_told()?;
        let which = self.which.iter().map(|signal| signal.0);
        let Some(epoch) = WORD.open(self.ends_at, which) else {
            let busy = "signals are caught by another guard of this process";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, busy));
        };
        // From here on its drop undoes all.
        let mut installed = Installed(Some(Vec::new()));
        system::start(run)?;
        let (forced, force) = ctx.with_cancel();
        let (context, cancel) = forced.with_cancel();
        #[cfg(feature = "inspect")]
        if self.shows && !ctx.is_done() {
            drop(forced.after_func_with(show));
        }
        let (first, forward_first) = forward(&cancel);
        let (second, forward_second) = forward(&force);
        let to = [first, second];
        INBOX.put(Letter { epoch, to });
        // A signal may have come before the letter, where our handler has stayed below another.
        system::wake();
        installed.all(&self.which)?;
        Ok(SignalGuard {
            context,
            cancel,
            forced,
            force,
            _forwards: [forward_first, forward_second],
            installed,
        })
    }
}

/// Writes down what does not stop, if it was a signal and not the end of what is above.
#[cfg(feature = "inspect")]
fn show(cause: Cause) {
    use std::io::Write;
    if let Some(signal) = cause.find::<Signal>() {
        let (snapshot, panics) = crate::group::snapshot::all(Panics::default());
        // Nobody here would learn anything from a panic of others.
        panics.swallow();
        let text = alloc::format!("{signal}, the second: {snapshot}");
        // Whoever has closed it does not want to read it.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// An error if no worker runs what is to be told, and never will.
pub(super) fn can_be_told() -> io::Result<()> {
    #[cfg(unix)]
    if timer::is_in_parent() {
        let lacks = "the child of a fork lacks the timer thread that its parent had";
        return Err(io::Error::new(io::ErrorKind::Unsupported, lacks));
    }
    Ok(())
}

/// What the dispatcher cancels, so that what the guard is of is marked, and told by a worker.
fn forward(guard: &CancelGuard) -> (Canceller, StopOnDrop) {
    let (ctx, told) = Context::background().with_cancel();
    let canceller = guard.canceller();
    let registration = ctx.on_cancel_with(move |cause| canceller.cancel_by_worker(cause));
    let to = told.canceller();
    told.detach();
    (to, registration.stop_on_drop())
}

/// Catches signals until it is dropped; made by [`Signals::install`].
///
/// Dropping it restores the former handlers, and cancels the contexts: with the signal that has come, or else as other guards do.
#[must_use = "dropped at once it catches nothing"]
pub struct SignalGuard {
    context: Context,
    cancel: CancelGuard,
    forced: Context,
    force: CancelGuard,
    _forwards: [StopOnDrop; 2],
    installed: Installed,
}

impl SignalGuard {
    /// Returns the context that is done with the first signal: to end gracefully.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Returns the context that is done with the second signal: to end at once. It is above [`context`](Self::context).
    pub fn forced(&self) -> &Context {
        &self.forced
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        let [first, second] = self.installed.undo();
        // What has come and was not told yet, for nobody else will; the second one too if a callback panics at the first.
        let mut panics = Panics::default();
        if let Some(signal) = first {
            panics.catch(|| _ = self.cancel.cancel_with(Signal(signal)));
        }
        if let Some(signal) = second {
            panics.catch(|| _ = self.force.cancel_with(Signal(signal)));
        }
        panics.resume();
    }
}

impl fmt::Debug for SignalGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalGuard")
            .field("context", &self.context)
            .field("forced", &self.forced)
            .finish_non_exhaustive()
    }
}

/// The handlers of the epoch that is open, which ends with them. None: undone.
struct Installed(Option<Vec<Signal>>);

impl Installed {
    fn all(&mut self, which: &[Signal]) -> io::Result<()> {
        let installed = self.0.get_or_insert_default();
        for signal in which {
            system::install(*signal)?;
            installed.push(*signal);
        }
        Ok(())
    }

    fn undo(&mut self) -> [Option<u8>; 2] {
        let Some(installed) = self.0.take() else {
            return [None; 2];
        };
        for signal in installed {
            system::undo(signal);
        }
        WORD.close().signals()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.undo();
    }
}

/// The handler's own part. Async-signal-safe: see [`Word::receive`] and [`system::wake`].
fn receive(signal: Signal) -> Received {
    let received = WORD.receive(signal.0);
    if received == Received::Counted {
        system::wake();
    }
    received
}

/// The dispatcher: it is never held up.
fn run(mut sleep: system::Sleep) {
    let mut letter: Option<Box<Letter<Told>>> = None;
    loop {
        // If a thread cannot be had for what is to be told, nobody else may try again.
        timer::look();
        sleep.sleep(timer::is_missing().then_some(SLICE));
        if let Some((told, signals)) = received::dispatch(&WORD, &INBOX, &mut letter) {
            for (token, signal) in told.iter().zip(signals) {
                if let Some(signal) = signal {
                    token.cancel_with(Signal(signal));
                }
            }
        }
    }
}
