//! Where no thread can be started, a signal's contexts are done all the same; who is told of it is told as soon as a thread can be had, though nobody
//! but the thread that waits for signals tries again. One test: it takes the process's address space away for a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;

use address_space::Limited;
use cancel_tree::integrations::signals::{Signal, Signals};
use cancel_tree::Context;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_secs(30);

#[test]
fn a_signal_is_told_as_soon_as_a_thread_can_be_had() {
    let signals = Signals::new().install(&Context::background()).unwrap();
    let (say, hear) = mpsc::channel();
    drop(signals.context().after_func_with(move |cause| {
        say.send(cause.find::<Signal>().copied()).unwrap();
    }));
    // So that the other thread has the memory that it begins with. Room for what is small; none for a thread's stack.
    thread::sleep(5 * SOON);
    let limited = Limited::to(1 << 20);
    // SAFETY: no memory is passed; there is a handler.
    assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
    let begin = Instant::now();
    while !signals.context().is_done() && begin.elapsed() < LATE {
        thread::sleep(SOON);
    }
    let is_done = signals.context().is_done();
    let is_forced = signals.forced().is_done();
    let told = hear.recv_timeout(5 * SOON);
    drop(limited);
    assert!(is_done && !is_forced);
    assert!(told.is_err(), "{told:?}");
    // From here on this thread asks for nothing.
    assert_eq!(hear.recv_timeout(LATE), Ok(Some(Signal::TERM)));
}
