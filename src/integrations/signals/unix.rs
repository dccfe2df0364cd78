//! `sigaction`, and a pair of sockets as a pipe.

use super::received::Received;
use super::{receive, Signal};
use alloc::boxed::Box;
use core::ffi::{c_int, c_void};
use core::mem::{self, MaybeUninit};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use libc::{sigaction, siginfo_t};
use std::io::{self, Read};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

// The atomics of this file are core's in all worlds: the system calls what uses them, and no model does.

/// The write end of the pipe; -1 before there is one. Never closed: a handler may have read the number long ago.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// Whose pipe and dispatcher that are: the child of a `fork` has neither. 0: nobody's.
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// Our handler is one function for each level: one that has stayed below others may be called by them, so one that is installed above
/// these is another. Each calls what there was before it, and one of them counts the signal: so there is no circle, and nothing counts twice.
struct Level {
    /// What there was before for each [`Signal`], by number; null if this handler was never there. Never freed, if it is not [`DEFAULT`]: a
    /// handler may be using it. (The same is not kept twice, unless it is one that is called once: that is kept each time it is
    /// found again after its call.)
    before: [AtomicPtr<sigaction>; 16],
    /// By number: which handler was on top when the guard was dropped, so that this one has stayed below it. 0: it has not.
    stayed: [AtomicUsize; 16],
}

const LEVELS: usize = 4;

static LEVEL: [Level; LEVELS] = [const {
    Level {
        before: [const { AtomicPtr::new(ptr::null_mut()) }; 16],
        stayed: [const { AtomicUsize::new(0) }; 16],
    }
}; LEVELS];

/// Which one counts, by the signal's number.
static COUNTS: [AtomicUsize; 16] = [const { AtomicUsize::new(0) }; 16];

/// What a handler leaves that is called once: what the system does by default.
// SAFETY: all zero is a value of it.
static DEFAULT: sigaction = unsafe { mem::zeroed() };

fn process() -> i32 {
    // SAFETY: no memory is passed.
    unsafe { libc::getpid() }
}

/// The dispatcher's end of the pipe.
pub(super) struct Sleep(Option<UnixStream>);

impl Sleep {
    /// Until `wake` has been called since the last time, or for so long at most.
    pub(super) fn sleep(&mut self, longest: Option<Duration>) {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        let read = self.0.as_mut().map(|pipe| {
            let _ = pipe.set_read_timeout(longest);
            pipe.read(&mut [0; 64])
        });
        match read {
            // Many wakes are one.
            Some(Ok(1..)) => {}
            // A wake too many, or the time is over.
            Some(Err(error)) if [Interrupted, TimedOut, WouldBlock].contains(&error.kind()) => {}
            // Somebody has closed every descriptor of the process, as daemons do. The numbers are others' from now on, and
            // this looks every so often.
            _ => {
                // Relaxed: nothing goes with it.
                PIPE.store(-1, Ordering::Relaxed);
                mem::forget(self.0.take());
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Starts the dispatcher, once in a process. One caller at a time, which has the epoch.
pub(super) fn start(run: fn(Sleep)) -> io::Result<()> {
    // Relaxed: set by a caller before this one, which had the epoch.
    if PROCESS.load(Ordering::Relaxed) == process() {
        return Ok(());
    }
    let (reader, writer) = UnixStream::pair()?;
    writer.set_nonblocking(true)?;
    let thread = thread::Builder::new().name("cancel-tree signals".into());
    thread.spawn(move || run(Sleep(Some(reader))))?;
    // Release, both: pair with the handler, which finds the pipe if it finds the process.
    PIPE.store(writer.into_raw_fd(), Ordering::Release);
    PROCESS.store(process(), Ordering::Release);
    Ok(())
}

/// Async-signal-safe: an atomic load, and `write`, which does not block: a pipe that is full wakes as well.
pub(super) fn wake() {
    // Acquire: from `start`.
    let pipe = PIPE.load(Ordering::Acquire);
    // SAFETY: one byte, which is there; the descriptor is ours, until somebody closes all of them, or -1, which is an error.
    unsafe { libc::write(pipe, [1_u8].as_ptr().cast(), 1) };
}

fn before(level: usize, number: c_int) -> &'static AtomicPtr<sigaction> {
    &LEVEL[level].before[number as usize & 15]
}

fn stayed(level: usize, number: c_int) -> &'static AtomicUsize {
    &LEVEL[level].stayed[number as usize & 15]
}

fn counts(number: c_int) -> &'static AtomicUsize {
    &COUNTS[number as usize & 15]
}

fn ours(level: usize) -> usize {
    let all: [extern "C" fn(_, _, _); LEVELS] =
        [handler::<0>, handler::<1>, handler::<2>, handler::<3>];
    all[level] as *const () as usize
}

/// Which one of ours that is, if it is one.
fn level_of(action: &sigaction) -> Option<usize> {
    (0..LEVELS).find(|&level| ours(level) == action.sa_sigaction)
}

/// What is there now.
fn current(number: c_int) -> io::Result<sigaction> {
    exchange(number, None)
}

/// Returns what was there.
fn exchange(number: c_int, new: Option<&sigaction>) -> io::Result<sigaction> {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    let mut was = MaybeUninit::uninit();
    // SAFETY: the first is null or read, and the second written if there is no error. What a handler of ours does is safe there, and
    // any other was there before.
    unsafe {
        match sigaction(number, new, was.as_mut_ptr()) {
            0 => Ok(was.assume_init()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Puts what was there before in the place of this handler. False: another one is on top, and stays.
fn restore(number: c_int, handler: usize, noted: &sigaction) -> bool {
    let is_it = |action: &sigaction| action.sa_sigaction == handler;
    if !current(number).is_ok_and(|now| is_it(&now)) {
        return false;
    }
    match exchange(number, Some(noted)) {
        // It has come since the look.
        Ok(replaced) if !is_it(&replaced) => {
            let _ = exchange(number, Some(&replaced));
            false
        }
        _ => true,
    }
}

fn is_function(action: &sigaction) -> bool {
    action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN
}

/// Of whatever type they are on this system.
#[allow(clippy::unnecessary_cast)]
fn flags(action: &sigaction) -> c_int {
    action.sa_flags as c_int
}

/// Notes what there was before.
fn note(level: usize, number: c_int, was: sigaction) {
    let before = before(level, number);
    // Relaxed: one caller at a time, which has the epoch.
    let noted = before.load(Ordering::Relaxed);
    // SAFETY: of the Box below, which is never freed, or `DEFAULT`.
    let is_same = unsafe { noted.as_ref() }.is_some_and(|noted| {
        noted.sa_sigaction == was.sa_sigaction && noted.sa_flags == was.sa_flags
    });
    if !is_same {
        // Release: pairs with the handler.
        before.store(Box::into_raw(Box::new(was)), Ordering::Release);
    }
}

/// All that was above that one of ours is gone.
fn forget(level: usize, number: c_int) {
    // Relaxed: as in `note`.
    (level..LEVELS).for_each(|level| stayed(level, number).store(0, Ordering::Relaxed));
}

/// The caller has the epoch.
pub(super) fn install(signal: Signal) -> io::Result<()> {
    let number = signal.number();
    let was = current(number)?;
    // Relaxed, here and below: as in `note`.
    let is_below_it =
        |&level: &usize| stayed(level, number).load(Ordering::Relaxed) == was.sa_sigaction;
    let there = match is_function(&was) {
        // The one on top calls ours, or never will.
        true => level_of(&was).or_else(|| (0..LEVELS).find(is_below_it)),
        false => None,
    };
    match there {
        Some(level) => forget(level, number),
        None if !is_function(&was) => forget(0, number),
        None => {}
    }
    let is_free = |&level: &usize| stayed(level, number).load(Ordering::Relaxed) == 0;
    let Some(level) = there.or_else(|| (0..LEVELS).find(is_free)) else {
        return Err(io::Error::other(
            "too many handlers have come above former ones of this crate",
        ));
    };
    // Release: pairs with the handler.
    counts(number).store(level, Ordering::Release);
    if there.is_some() {
        return Ok(());
    }
    // First, so that the handler always finds it.
    note(level, number, was);
    // SAFETY: all zero is a value of it.
    let mut new: sigaction = unsafe { mem::zeroed() };
    new.sa_sigaction = ours(level);
    new.sa_mask = was.sa_mask;
    let new_flags = if is_function(&was) {
        // As that one wants to be called.
        flags(&was) & !libc::SA_RESETHAND | libc::SA_SIGINFO
    } else {
        libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK
    };
    new.sa_flags = new_flags as _;
    let replaced = exchange(number, Some(&new))?;
    if replaced.sa_sigaction != was.sa_sigaction {
        // Another one came in between.
        note(level, number, replaced);
    }
    Ok(())
}

/// Puts back what was there before. If another handler was installed on top, ours stays below it, and only calls the one before.
pub(super) fn undo(signal: Signal) {
    let number = signal.number();
    let now = current(number).ok();
    // Relaxed, here and below: as in `note`. Others that have gone may have put another one of ours on top than was there.
    let level = now.as_ref().and_then(level_of);
    let level = level.unwrap_or_else(|| counts(number).load(Ordering::Relaxed));
    // Or `DEFAULT`, which was always there.
    // SAFETY: of `note`'s Box, which is never freed, or `DEFAULT`.
    let noted = || unsafe { before(level, number).load(Ordering::Relaxed).as_ref() };
    let was = noted();
    let is_restored = was.is_some_and(|was| restore(number, ours(level), was));
    if is_restored {
        forget(level, number);
        // Called meanwhile by ours, one that is called once is not to be there any more: see `take`.
        if let (Some(was), Some(now)) = (was, noted()) {
            if !ptr::eq(was, now) {
                restore(number, was.sa_sigaction, now);
            }
        }
    } else if let Ok(now) = current(number) {
        stayed(level, number).store(now.sa_sigaction, Ordering::Relaxed);
    }
}

/// All that it does is async-signal-safe (POSIX, 2.4.3): atomics that are lock-free, `getpid`, `write`, `_exit`, `sigaction`, `raise`. It takes no
/// lock, allocates nothing, touches no thread-local but `errno`, and does not panic.
extern "C" fn handler<const LEVEL: usize>(number: c_int, info: *mut siginfo_t, data: *mut c_void) {
    // SAFETY: the pointer is this thread's own.
    let saved = unsafe { *errno() };
    if let Some(noted) = take(LEVEL, number) {
        if is_function(noted) {
            call(noted, number, info, data);
        }
        // Acquire: from `install`. Or others have gone, and have put this one on top again.
        let counts = counts(number).load(Ordering::Acquire) == LEVEL
            || current(number).is_ok_and(|now| now.sa_sigaction == ours(LEVEL));
        // Acquire: from `start`. In the child of a `fork` the word is a copy, and nobody reads it.
        let received = match counts && PROCESS.load(Ordering::Acquire) == process() {
            true => receive(Signal(number as u8)),
            false => Received::Inactive,
        };
        match received {
            Received::Counted => {}
            // SAFETY: it ends the process, and runs nothing of it.
            Received::Ends => unsafe { libc::_exit(128 + number) },
            Received::Inactive => default(LEVEL, number, noted),
        }
    }
    // SAFETY: as above.
    unsafe { *errno() = saved };
}

/// What there was before, for a signal that has come. One that is called once leaves the default, as the system would have it, before it is called:
/// it may raise its signal again. Each turn but the last is another thread's that has taken it, or noted another.
fn take(level: usize, number: c_int) -> Option<&'static sigaction> {
    let before = before(level, number);
    // Acquire: from `note`.
    let mut noted = before.load(Ordering::Acquire);
    loop {
        // SAFETY: of `note`'s Box, which is never freed, or `DEFAULT`.
        let action = unsafe { noted.as_ref() }?;
        if !is_function(action) || flags(action) & libc::SA_RESETHAND == 0 {
            return Some(action);
        }
        let default = (&raw const DEFAULT).cast_mut();
        // Relaxed: `DEFAULT` was always there. Acquire: from `note`.
        match before.compare_exchange(noted, default, Ordering::Relaxed, Ordering::Acquire) {
            Ok(_) => {
                // Put back meanwhile, it would be called once more. (`undo` looks as well: of both, the later sees the earlier.)
                restore(number, action.sa_sigaction, &DEFAULT);
                return Some(action);
            }
            Err(now) => noted = now,
        }
    }
}

/// Calls the handler that was there before.
fn call(noted: &sigaction, number: c_int, info: *mut siginfo_t, data: *mut c_void) {
    let function = noted.sa_sigaction as *const ();
    // SAFETY: the flag says which of the two it is; it was this signal's handler.
    unsafe {
        if flags(noted) & libc::SA_SIGINFO == 0 {
            mem::transmute::<*const (), extern "C" fn(c_int)>(function)(number);
        } else {
            type Full = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
            mem::transmute::<*const (), Full>(function)(number, info, data);
        }
    }
}

/// Nobody is here for the signal (it has come while the guard was dropped, or in the child of a `fork`, or the guard has not asked for it): what the system would have done, if
/// there is no handler but ours, or none any more. One that is above ours knows better.
fn default(level: usize, number: c_int, noted: &sigaction) {
    if noted.sa_sigaction != libc::SIG_DFL {
        return;
    }
    let is_default = |now: sigaction| now.sa_sigaction == libc::SIG_DFL;
    if restore(number, ours(level), noted) || current(number).is_ok_and(is_default) {
        // SAFETY: no memory is passed. The signal is blocked until the handler has returned.
        unsafe { libc::raise(number) };
    }
}

#[cfg(any(target_os = "solaris", target_os = "illumos"))]
use libc::___errno as errno;
#[cfg(any(
    target_os = "android",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "cygwin"
))]
use libc::__errno as errno;
#[cfg(any(
    target_os = "linux",
    target_os = "emscripten",
    target_os = "dragonfly",
    target_os = "hurd"
))]
use libc::__errno_location as errno;
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
use libc::__error as errno;
