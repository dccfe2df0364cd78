//! A signal ends a server, and the next one forces it, where no thread can be started, neither the timer's, which nobody has needed before, nor a worker's. One
//! test, of one server: it takes the process's address space away for a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;
mod cpu_time;
mod own_threads;

use address_space::Limited;
use cancel_tree::integrations::serve::{Phase, Serve};
use cancel_tree::integrations::signals::{Signal, Signals};
use cancel_tree::Context;
use cpu_time::cpu_time;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_secs(30);

#[test]
fn signals_end_a_server() {
    let root = Context::background();
    let signals = Signals::new().install(&root).unwrap();
    let server = Serve::new(&root)
        .signals(&signals)
        .lame_duck(2 * LATE)
        .graceful(2 * LATE)
        .cancelled(SOON)
        .dropped(SOON)
        .start()
        .unwrap();
    let handle = server.handle();
    let runs = thread::spawn(move || {
        futures::executor::block_on(server.run(std::future::pending::<io::Result<()>>()))
    });
    let reach = |phase| {
        let begin = Instant::now();
        while handle.phase() < phase && begin.elapsed() < LATE {
            thread::sleep(SOON);
        }
        handle.phase()
    };
    reach(Phase::Serving);
    // So that all have the memory that they begin with. Room for what is small; none for a thread's stack.
    thread::sleep(5 * SOON);
    let before = own_threads::names();
    let limited = Limited::to(1 << 20);
    let signal = |phase| {
        // SAFETY: no memory is passed; there is a handler.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
        reach(phase)
    };
    let first = signal(Phase::LameDuck);
    // Nobody asks for a thread all the time meanwhile.
    let (begin, idle) = (Instant::now(), cpu_time());
    thread::sleep(50 * SOON);
    let (took, busy) = (begin.elapsed(), cpu_time() - idle);
    let reached = [first, signal(Phase::Ended)];
    drop(limited);
    assert!(busy < took / 5, "{busy:?} of {took:?}");
    assert_eq!(before.len(), 2, "{before:?}");
    assert_eq!(reached, [Phase::LameDuck, Phase::Ended]);
    let report = runs.join().unwrap();
    assert_eq!(report.cause.find(), Some(&Signal::TERM));
    assert_eq!(report.exit_code(), 143);
}
