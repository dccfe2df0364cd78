//! A child process under a context (feature `process`, unix). The counterpart of Go's `exec.CommandContext`, with
//! `Cancel` and `WaitDelay` set.
//!
//! ```
//! use cancel_tree::integrations::process::Supervised;
//! use cancel_tree::Context;
//! use std::process::Command;
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(500));
//! let mut command = Command::new("sh");
//! command.args(["-c", "echo begun; sleep 3600; echo over"]);
//! let ended = Supervised::new(command).blocking_output(&ctx)?;
//! assert!(!ended.stdout.ends_with(b"over\n"));
//! assert!(ended.stopped.is_some() && !ended.success());
//! # Ok(())
//! # }
//! ```
//!
//! # How it ends
//!
//! The child leads a process group of its own: what it starts belongs to that, unless it leaves it. (So a terminal's Ctrl-C
//! does not reach it: cancel the context then.) When the context is done,
//!
//! 1. the group gets a signal ([`signal`](Supervised::signal), SIGTERM), and SIGCONT, for one that is stopped hears of nothing else;
//! 2. when the child has ended, or the grace ([`grace`](Supervised::grace), 5 s) is over, the group gets SIGKILL;
//! 3. when the child has ended, its pipes are read until their other ends are all closed, but not for longer than
//!    [`pipe_delay`](Supervised::pipe_delay), 1 s: processes that left the group may hold them for ever.
//!
//! It leads the group before its own code runs, that of `pre_exec` too: `setsid` fails there (`EPERM`), as it does for any leader.
//!
//! A child that has left the group gets the signals by its own number. One that may not be told (it has become another user's) is waited for until the
//! grace is over, and left to itself then: an error. Nobody reaps it after that, and what it has written is lost.
//!
//! The group is none that a terminal reads for: a child that reads from an inherited terminal is stopped (SIGTTIN) until the context is
//! done. Give it another stdin.
//!
//! A child that ends by itself is not stopped, and what it has left behind goes on; but the third step holds for it as well:
//! a daemon that has inherited its pipes does not hold up the wait. A context that is done meanwhile ends its group.
//!
//! The child is reaped after the last signal, by the thread that sends it: until then its number, which is the group's, cannot
//! be taken by another process. A process whose children are reaped by others (SIGCHLD ignored, `waitpid(-1)` in another thread) has no
//! such order: a call that finds its child gone gets an error, and sends nothing.
//!
//! One thread does it all, in `poll`: no thread for a pipe, and none is left behind. On Linux it is woken by the
//! child's end (a pidfd); elsewhere it looks every few milliseconds.

use super::fd::DoneFd;
#[cfg(feature = "tokio")]
use super::tokio::try_blocking;
use crate::context::Context;
use crate::tree::Cause;
#[cfg(feature = "tokio")]
use alloc::sync::Arc;
use alloc::vec::Vec;
#[cfg(feature = "tokio")]
use core::{
    future::{poll_fn, Future},
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::Poll,
};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
#[cfg(feature = "tokio")]
use tokio::runtime::Handle;

/// A command that is to run under a context.
#[doc(alias("CommandContext", "exec.CommandContext"))]
#[derive(Debug)]
#[must_use = "nothing runs yet"]
pub struct Supervised {
    command: Command,
    limits: Limits,
}

// A command's own code runs in the child only.
impl core::panic::UnwindSafe for Supervised {}
impl core::panic::RefUnwindSafe for Supervised {}

#[derive(Clone, Copy, Debug)]
struct Limits {
    signal: i32,
    grace: Duration,
    pipe_delay: Duration,
}

/// How a child process has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The child's exit status, however it ended.
    pub status: ExitStatus,
    /// What was read, if it was piped.
    pub stdout: Vec<u8>,
    /// The same of its errors.
    pub stderr: Vec<u8>,
    /// The context's cause, if it was done before the child had ended and its pipes were closed: the group got a signal. Whatever the status
    /// says: a child may take the signal and exit with 0, or have left its pipes to others.
    pub stopped: Option<Cause>,
    /// The child was still there when the grace was over, and was killed. (What a child that obeys leaves behind in its group is killed too, which
    /// is not said here.)
    pub killed: bool,
    /// Another process still held a pipe, and was not waited for: output may be missing.
    pub pipes_held: bool,
}

impl Ended {
    /// Returns `true` if the child has ended successfully, and the context stopped neither it nor what it has left behind.
    #[must_use]
    pub fn success(&self) -> bool {
        self.stopped.is_none() && self.status.success()
    }
}

impl Supervised {
    /// Takes a command, to be run in a process group of its own.
    pub fn new(mut command: Command) -> Supervised {
        command.process_group(0);
        let limits = Limits {
            signal: libc::SIGTERM,
            grace: Duration::from_secs(5),
            pipe_delay: Duration::from_secs(1),
        };
        Supervised { command, limits }
    }

    /// Sets what the group gets first: SIGTERM by default.
    pub fn signal(mut self, signal: i32) -> Supervised {
        self.limits.signal = signal;
        self
    }

    /// Sets how long the child has after the signal: 5 seconds by default. With zero it is killed at once.
    pub fn grace(mut self, grace: Duration) -> Supervised {
        self.limits.grace = grace;
        self
    }

    /// Sets for how long pipes are read that others hold after the child's end: 1 second by default.
    #[doc(alias = "WaitDelay")]
    pub fn pipe_delay(mut self, delay: Duration) -> Supervised {
        self.limits.pipe_delay = delay;
        self
    }

    /// Runs it, and parks the calling thread until it has ended, or has been ended. What the command has piped is read; a
    /// piped stdin is closed.
    ///
    /// # Errors
    ///
    /// As for [`spawn`](Self::spawn) and [`Running::blocking_wait`]. That the context ended it is no error:
    /// [`Ended::stopped`].
    pub fn blocking_run(self, ctx: &Context) -> io::Result<Ended> {
        self.spawn(ctx)?.blocking_wait()
    }

    /// Like [`blocking_run`](Self::blocking_run), with stdout and stderr piped, and no stdin.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn blocking_output(self, ctx: &Context) -> io::Result<Ended> {
        self.piped().blocking_run(ctx)
    }

    fn piped(mut self) -> Supervised {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self
    }

    /// Starts it. Nothing watches the context until [`Running::blocking_wait`] is called.
    ///
    /// # Errors
    ///
    /// The context is done already (nothing was started; [`get_ref`](io::Error::get_ref) is its cause), there is no
    /// descriptor left, or the command could not be started.
    pub fn spawn(mut self, ctx: &Context) -> io::Result<Running> {
        if let Some(cause) = ctx.cause() {
            return Err(cause.into());
        }
        // Before there is a child that one would have to be rid of.
        let done = ctx.done_fd()?;
        Ok(Running {
            child: self.command.spawn()?,
            reaped: false,
            ctx: ctx.clone(),
            done,
            limits: self.limits,
        })
    }
}

/// # As a task, on the runtime of the caller (feature `tokio`)
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(all(feature = "process", feature = "tokio"))))]
impl Supervised {
    /// Like [`blocking_run`](Self::blocking_run), for tasks of tokio, on one of the runtime's threads for what blocks.
    ///
    /// # Errors
    ///
    /// As there; or the runtime is shutting down, or has no thread for it, and gets none. (tokio panics then, which is caught: a panic hook
    /// is told of it, and a program that aborts at panics ends.) A context that is done before one of these threads is free is an error too,
    /// and nothing is started.
    ///
    /// # Panics
    ///
    /// Where no runtime of tokio's is entered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the child as the end of the context does, and does not wait for it.
    pub async fn run(self, ctx: &Context) -> io::Result<Ended> {
        let (below, guard) = ctx.with_cancel();
        // Taken by whichever is first: a thread that begins, or the task that does not wait for one any more.
        let turn = Arc::new(AtomicBool::new(true));
        let theirs = turn.clone();
        let work = move || {
            // Relaxed, here and below: who has it is all that is to be known.
            theirs
                .swap(false, Relaxed)
                .then(|| self.blocking_run(&below))
        };
        let mut thread = match try_blocking(&Handle::current(), work) {
            Ok(thread) => thread,
            // Whoever comes to it later finds the context done, for the guard goes here.
            Err(why) => return Err(io::Error::other(why)),
        };
        let mut done = ctx.done();
        let mut has_begun = false;
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(outcome) = Pin::new(&mut thread).poll(cx) {
                return Poll::Ready(Ok(outcome));
            }
            if !has_begun {
                if let Poll::Ready(error) = Pin::new(&mut done).poll(cx) {
                    if turn.swap(false, Relaxed) {
                        return Poll::Ready(Err(error));
                    }
                    // It sees to the child's end.
                    has_begun = true;
                }
            }
            Poll::Pending
        })
        .await;
        drop(guard);
        let outcome = match outcome {
            Ok(outcome) => outcome.map_err(tokio::task::JoinError::try_into_panic),
            Err(error) => return Err(ctx.cause_or(error).into()),
        };
        match outcome {
            Ok(ended) => ended.unwrap_or_else(|| unreachable!("the task has given it up")),
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(gone)) => Err(io::Error::other(gone)),
        }
    }

    /// Like [`blocking_output`](Self::blocking_output), for tasks of tokio.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    ///
    /// # Panics
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn output(self, ctx: &Context) -> io::Result<Ended> {
        self.piped().run(ctx).await
    }
}

/// A child that has been started; made by [`Supervised::spawn`].
///
/// Dropping it kills its group, and waits for the child's end, unless that may not be killed: nobody reaps such a child.
#[derive(Debug)]
#[must_use = "dropped at once it is killed at once"]
pub struct Running {
    child: Child,
    /// Its number, which is its group's as well, may be somebody else's.
    reaped: bool,
    ctx: Context,
    done: DoneFd,
    limits: Limits,
}

impl Running {
    /// Returns the child's number, which is its group's.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Takes the pipe to the child's stdin, if the command has one, once. [`blocking_wait`](Self::blocking_wait) closes one that was not taken.
    #[must_use]
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Parks the calling thread until the child has ended, or the context has ended it.
    ///
    /// Where the timer's thread could not be started, this thread notices a deadline itself, and calls the callbacks at that end before it sends the
    /// first signal: one that blocks holds that up, and one that panics ends the wait, and the group with it. (See
    /// [`is_cancelled`](crate::CancellationToken::is_cancelled).)
    ///
    /// # Errors
    ///
    /// The child was reaped elsewhere in the process; it may not be killed, and goes on after the grace (`EPERM`), with nobody to reap it, and what it has written is
    /// lost; or a system call failed that never should, and the child's group was killed.
    pub fn blocking_wait(mut self) -> io::Result<Ended> {
        let pid = self.child.id() as libc::pid_t;
        drop(self.child.stdin.take());
        let mut stdout = Pipe::new(self.child.stdout.take())?;
        let mut stderr = Pipe::new(self.child.stderr.take())?;
        let mut exit = pidfd(pid);
        let mut done = Some(self.done.as_raw_fd());
        let mut look = SHORTEST_LOOK;
        let mut ended = None;
        let mut stopped: Option<(Instant, Cause)> = None;
        let (mut is_swept, mut killed, mut pipes_held) = (false, false, false);
        loop {
            let now = Instant::now();
            if ended.is_none() && self.has_ended()? {
                ended = Some(now);
                // What it has written is there, however short the delay for what others write.
                stdout.read_all()?;
                stderr.read_all()?;
            }
            if ended.is_some() && stdout.is_closed() && stderr.is_closed() {
                break;
            }
            if stopped.is_none() {
                if let Some(cause) = self.cause(now) {
                    if ended.is_none() {
                        // One that may not be told may end in time.
                        let _ = self.signal(self.limits.signal);
                        let _ = self.signal(libc::SIGCONT);
                    }
                    stopped = Some((now, cause));
                }
            }
            let grace_ends = stopped
                .as_ref()
                .and_then(|(at, _)| at.checked_add(self.limits.grace));
            if stopped.is_some() && !is_swept {
                let over = grace_ends.is_some_and(|end| end <= now);
                if over || ended.is_some() {
                    self.kill()?;
                    is_swept = true;
                    killed = ended.is_none();
                }
            }
            let given_up = ended.and_then(|at| at.checked_add(self.limits.pipe_delay));
            if given_up.is_some_and(|at| at <= now) {
                pipes_held = true;
                break;
            }

            let mut until = given_up;
            let mut at_most =
                |limit: Option<Instant>| until = [until, limit].into_iter().flatten().min();
            if stopped.is_none() {
                // One that has passed, and is not noticed yet, will be in a moment.
                let soon = now + Duration::from_millis(1);
                at_most(
                    self.ctx
                        .waited_deadline()
                        .map(|deadline| deadline.max(soon)),
                );
                at_most(self.ctx.look_again());
            } else if !is_swept {
                at_most(grace_ends);
            }
            let is_told =
                (ended.is_some() || exit.is_some()) && (stopped.is_some() || done.is_some());
            if !is_told {
                at_most(Some(now + look));
                look = (look * 2).min(LONGEST_LOOK);
            }
            let [.., is_done, has_exited] = poll(
                [
                    stdout.fd(),
                    stderr.fd(),
                    done.filter(|_| stopped.is_none()),
                    exit.as_ref()
                        .filter(|_| ended.is_none())
                        .map(OwnedFd::as_raw_fd),
                ],
                until,
            )?;
            // Ready for nothing, it would be so for ever, and no sleep were one: this looks by itself then. A forked child has cancelled its
            // copy of the tree;
            if is_done && self.ctx.cause().is_none() {
                done = None;
            }
            // or somebody who traces the child has its end first.
            if has_exited && !self.has_ended()? {
                exit = None;
            }
            stdout.read()?;
            stderr.read()?;
        }
        if stopped.is_some() && !is_swept {
            // What the child has left behind.
            let _ = self.signal(libc::SIGKILL);
        }
        self.reaped = true;
        Ok(Ended {
            status: self.child.wait()?,
            stdout: stdout.bytes,
            stderr: stderr.bytes,
            stopped: stopped.map(|(_, cause)| cause),
            killed,
            pipes_held,
        })
    }

    fn cause(&self, now: Instant) -> Option<Cause> {
        if self
            .ctx
            .waited_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            // Also where there is no timer to notice it.
            let _ = self.ctx.blocking_wait_timeout(Duration::ZERO);
        }
        self.ctx.cause()
    }

    /// Whether the child has ended. It is not reaped: the number stays taken.
    fn has_ended(&mut self) -> io::Result<bool> {
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        loop {
            // SAFETY: all zeroes is a siginfo_t, as `waitid` leaves it when there is nothing to tell.
            let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
            // SAFETY: `info` is there to be written.
            let answer = unsafe { libc::waitid(libc::P_PID, self.child.id(), &mut info, flags) };
            if answer == 0 {
                // SAFETY: what is read is zero or was written by `waitid`.
                return Ok(unsafe { info.si_pid() } != 0);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                // Reaped by somebody else: its number may be anybody's.
                self.reaped = true;
                return Err(error);
            }
        }
    }

    /// To the group, whose leader has not been reaped: nobody else's has its number. And to the leader, if it has left the group. Whether
    /// that may be told: an error, if not.
    fn signal(&self, signal: i32) -> io::Result<()> {
        if self.reaped {
            return Ok(());
        }
        let pid = self.child.id() as libc::pid_t;
        // There may be no such process any more, or none that may be told.
        // SAFETY: no memory is passed.
        let _ = unsafe { libc::killpg(pid, signal) };
        // Not twice: a second signal may mean something else.
        // SAFETY: as above.
        let has_left = unsafe { libc::getpgid(pid) } != pid;
        // SAFETY: as above. It has not been reaped, so the number is its own; 0 is no signal, but says whether one may be sent.
        let answer = unsafe { libc::kill(pid, if has_left { signal } else { 0 }) };
        match io::Error::last_os_error() {
            error if answer < 0 && error.raw_os_error() == Some(libc::EPERM) => Err(error),
            _ => Ok(()),
        }
    }

    /// The last signal. An error: the child is still there and may not be told, so waiting for it has no end.
    fn kill(&mut self) -> io::Result<()> {
        match self.signal(libc::SIGKILL) {
            Err(error) if !self.has_ended()? => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Somebody else may have reaped it, or nobody may kill it.
        if !self.reaped && self.has_ended().is_ok() && self.kill().is_ok() {
            let _ = self.child.wait();
        }
    }
}

/// How long a thread sleeps that nobody tells of the child's end.
const SHORTEST_LOOK: Duration = Duration::from_micros(500);
const LONGEST_LOOK: Duration = Duration::from_millis(20);

/// A descriptor that is readable when the child has ended.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn pidfd(pid: libc::pid_t) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: no memory is passed. The child has not been reaped, so it is the one that is meant.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: new, and nobody else's. The kernel closes it at `exec`.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn pidfd(_: libc::pid_t) -> Option<OwnedFd> {
    None
}

/// Sleeps until one of these is ready, or until then. Which are.
fn poll(fds: [Option<RawFd>; 4], until: Option<Instant>) -> io::Result<[bool; 4]> {
    let mut fds = fds.map(|fd| libc::pollfd {
        // One that is negative is passed over.
        fd: fd.unwrap_or(-1),
        events: libc::POLLIN,
        revents: 0,
    });
    let timeout = until.map_or(-1, |until| {
        let left = until.saturating_duration_since(Instant::now());
        // Up: not to come back a little early, again and again.
        i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    });
    // SAFETY: as many entries as is said.
    let answer = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout) };
    match io::Error::last_os_error() {
        error if answer < 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(fds.map(|fd| answer > 0 && fd.revents != 0)),
    }
}

/// How much is read of a pipe between two looks at the context.
const AT_ONCE: usize = 1 << 20;

/// How much a pipe can hold.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn holds(pipe: RawFd) -> usize {
    // SAFETY: no memory is passed.
    let size = unsafe { libc::fcntl(pipe, libc::F_GETPIPE_SZ) };
    usize::try_from(size).unwrap_or(AT_ONCE)
}

/// No more than this, on other systems.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn holds(_: RawFd) -> usize {
    AT_ONCE
}

/// What is read of a pipe, without ever waiting for it.
struct Pipe<R> {
    /// None: closed, or never there.
    from: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsRawFd> Pipe<R> {
    fn new(from: Option<R>) -> io::Result<Pipe<R>> {
        if let Some(from) = &from {
            // The flag is this end's alone: the child's end is another file description.
            // SAFETY: no memory is passed.
            let flags = unsafe { libc::fcntl(from.as_raw_fd(), libc::F_GETFL) };
            let flags = flags | libc::O_NONBLOCK;
            // SAFETY: as above.
            if unsafe { libc::fcntl(from.as_raw_fd(), libc::F_SETFL, flags) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let bytes = Vec::new();
        Ok(Pipe { from, bytes })
    }

    fn fd(&self) -> Option<RawFd> {
        self.from.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn is_closed(&self) -> bool {
        self.from.is_none()
    }

    /// What is there, up to a bound: a child that never stops writing does not keep the context from being looked at.
    fn read(&mut self) -> io::Result<()> {
        self.read_up_to(AT_ONCE)
    }

    /// All that is there, and the end of it, which is found by one more look.
    fn read_all(&mut self) -> io::Result<()> {
        self.read_up_to(self.fd().map_or(0, holds).saturating_add(1))
    }

    fn read_up_to(&mut self, bound: usize) -> io::Result<()> {
        let Some(from) = &mut self.from else {
            return Ok(());
        };
        let mut left = bound;
        let mut buffer = [0; 16 << 10];
        while left > 0 {
            match from.read(&mut buffer) {
                Ok(0) => {
                    self.from = None;
                    return Ok(());
                }
                Ok(n) => {
                    self.bytes.extend_from_slice(&buffer[..n]);
                    left = left.saturating_sub(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
