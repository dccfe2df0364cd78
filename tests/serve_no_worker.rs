//! Where the timer's thread is there, and none of the workers that tell of what it marks can be started: what ends a server, or forces its end, does so all the
//! same. One test: it takes the process's address space away for a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;
mod own_threads;

use address_space::Limited;
use cancel_tree::integrations::serve::{Phase, Serve, ServerHandle, ServerReport};
use cancel_tree::integrations::signals::{Signal, Signals};
use cancel_tree::{Context, ContextError};
use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_secs(30);

struct Running(ServerHandle, JoinHandle<ServerReport>);

impl Running {
    /// One that ends when it is told, which it is as soon as there is a worker. (No thread ends before that, whose stack one could have.)
    fn new(serve: Serve) -> Running {
        let bound = 2 * LATE;
        let serve = serve.graceful(bound).cancelled(bound).dropped(bound);
        let server = serve.start().unwrap();
        let handle = server.handle();
        let graceful = server.graceful();
        let runs = thread::spawn(move || {
            futures::executor::block_on(server.run(async {
                graceful.await;
                Ok::<_, io::Error>(())
            }))
        });
        let running = Running(handle, runs);
        assert_eq!(running.reach(Phase::Serving), Phase::Serving);
        running
    }

    /// Where it is when it has come so far, or has not for long.
    fn reach(&self, phase: Phase) -> Phase {
        let begin = Instant::now();
        while self.0.phase() < phase && begin.elapsed() < LATE {
            thread::sleep(SOON);
        }
        self.0.phase()
    }
}

#[test]
fn what_is_marked_ends_a_server() {
    use Phase::{Cancelled, Graceful, LameDuck};
    let root = Context::background();
    let _far = root.with_timeout(100 * LATE);
    let (at, guard) = root.with_movable_deadline(None);
    let signals = Signals::new().install(&root).unwrap();
    let serve = |ctx: &Context| Serve::new(ctx).lame_duck(2 * LATE);
    let by_signals = Running::new(serve(&root).signals(&signals));
    // A context of the user's own below the signal's.
    let (below, _below) = signals.context().with_cancel();
    let by_below = Running::new(serve(&root).end_with(&below));
    let by_deadline = Running::new(serve(&root).end_with(&at));
    let forced = Running::new(serve(&root).lame_duck(Duration::ZERO).force_with(&at));
    let above = Running::new(serve(&at));
    // So that all have the memory that they begin with. Room for what is small; none for a thread's stack.
    thread::sleep(5 * SOON);
    let before = own_threads::names();
    let limited = Limited::to(1 << 20);
    // SAFETY: no memory is passed; there is a handler.
    let term = || assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
    term();
    let at_first = [&by_signals, &by_below].map(|running| running.reach(LameDuck));
    term();
    let at_second = by_signals.reach(Cancelled);
    forced.0.end("by hand");
    let ended = forced.reach(Graceful);
    guard.set(Instant::now() + SOON);
    let at_deadline = by_deadline.reach(LameDuck);
    let at_force = [&forced, &above].map(|running| running.reach(Cancelled));
    let after = own_threads::names();
    drop(limited);
    assert!(
        before.iter().any(|name| name == "cancel-tree"),
        "{before:?}"
    );
    let is_worker = |name: &String| name.contains("wor");
    assert!(
        !before.iter().chain(&after).any(is_worker),
        "{before:?} {after:?}"
    );
    assert_eq!(at_first, [LameDuck; 2]);
    assert_eq!(
        (at_second, ended, at_deadline),
        (Cancelled, Graceful, LameDuck)
    );
    assert_eq!(at_force, [Cancelled; 2]);
    for ends in [&by_below, &by_deadline] {
        ends.0.force("by hand");
    }
    let all = [LameDuck, Graceful, Cancelled];
    let ended = |running: Running, phases: &[Phase]| {
        let report = running.1.join().unwrap();
        let took = report.phases.iter().map(|(phase, _)| *phase);
        assert!(
            took.take(phases.len()).eq(phases.iter().copied()),
            "{report}"
        );
        assert!(report.is_clean(), "{report}");
        report.cause
    };
    let cause = ended(by_signals, &all);
    assert_eq!(cause.find(), Some(&Signal::TERM));
    let cause = ended(by_deadline, &all[..2]);
    assert_eq!(cause.kind(), ContextError::DeadlineExceeded);
    let cause = ended(by_below, &all[..2]);
    assert_eq!(cause.find(), Some(&Signal::TERM));
    let cause = ended(forced, &all[1..]);
    assert_eq!(cause.to_string(), "by hand");
    let cause = ended(above, &all[1..]);
    assert_eq!(cause.kind(), ContextError::DeadlineExceeded);
}
