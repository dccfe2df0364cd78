//! The console's events. The system calls the handler on a thread of its own, so what it does need not be async-signal-safe.

use super::received::Received;
use super::{receive, Signal};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::io;
use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::Duration;

// The atomics of this file are core's in all worlds: the system calls what uses them, and no model does.

#[link(name = "kernel32")]
extern "system" {
    fn SetConsoleCtrlHandler(handler: Option<extern "system" fn(u32) -> i32>, add: i32) -> i32;
    fn GetCurrentProcess() -> *mut core::ffi::c_void;
    fn TerminateProcess(process: *mut core::ffi::c_void, code: u32) -> i32;
}

const CTRL_C: u32 = 0;
const CTRL_BREAK: u32 = 1;
const CTRL_CLOSE: u32 = 2;
const CTRL_SHUTDOWN: u32 = 6;

static DISPATCHER: OnceLock<Thread> = OnceLock::new();
static IS_WOKEN: AtomicBool = AtomicBool::new(false);
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
/// Which signals are caught, as bits.
static CAUGHT: AtomicUsize = AtomicUsize::new(0);

pub(super) struct Sleep;

impl Sleep {
    /// Until `wake` has been called since the last time, or for so long at most.
    #[allow(clippy::unused_self)]
    pub(super) fn sleep(&mut self, longest: Option<Duration>) {
        // Acquire: from `wake`.
        while !IS_WOKEN.swap(false, Ordering::Acquire) {
            match longest {
                None => thread::park(),
                Some(longest) => return thread::park_timeout(longest),
            }
        }
    }
}

pub(super) fn start(run: fn(Sleep)) -> io::Result<()> {
    if DISPATCHER.get().is_none() {
        let thread = thread::Builder::new().name("cancel-tree signals".into());
        let thread = thread.spawn(move || run(Sleep))?.thread().clone();
        // Once: the caller has the epoch.
        let _ = DISPATCHER.set(thread);
    }
    Ok(())
}

pub(super) fn wake() {
    // Release: to `sleep`.
    IS_WOKEN.store(true, Ordering::Release);
    if let Some(thread) = DISPATCHER.get() {
        thread.unpark();
    }
}

/// One caller at a time, which has the epoch.
pub(super) fn install(signal: Signal) -> io::Result<()> {
    // Relaxed, both, here and below: the handler comes before or after, and nothing goes with it.
    if !IS_INSTALLED.load(Ordering::Relaxed) {
        // For good: to take it out is to wait until it has returned, which it never does once the console is closed.
        // SAFETY: no memory is passed; the handler is a function.
        if unsafe { SetConsoleCtrlHandler(Some(handler), 1) } == 0 {
            return Err(io::Error::last_os_error());
        }
        IS_INSTALLED.store(true, Ordering::Relaxed);
    }
    CAUGHT.fetch_or(1 << signal.0, Ordering::Relaxed);
    Ok(())
}

pub(super) fn undo(signal: Signal) {
    // Relaxed: as in `install`.
    CAUGHT.fetch_and(!(1 << signal.0), Ordering::Relaxed);
}

/// Returns 1 if the event is handled; after 0 the system asks the next handler, the last of which ends the process.
extern "system" fn handler(event: u32) -> i32 {
    let signal = match event {
        CTRL_C | CTRL_BREAK => Signal::INT,
        CTRL_CLOSE | CTRL_SHUTDOWN => Signal::TERM,
        // A log-off, of whatever user: services alone are told of it, and it does not end them.
        _ => return 0,
    };
    // Relaxed: as in `install`.
    if CAUGHT.load(Ordering::Relaxed) & 1 << signal.0 == 0 {
        return 0;
    }
    match receive(signal) {
        Received::Inactive => 0,
        // The process ends when this returns, or some seconds after the event: that time is the program's.
        Received::Counted if signal == Signal::TERM => loop {
            thread::park();
        },
        Received::Counted => 1,
        Received::Ends => {
            // SAFETY: the handle is the process's own, and needs no closing.
            unsafe { TerminateProcess(GetCurrentProcess(), signal.exit_code() as u32) };
            1
        }
    }
}
