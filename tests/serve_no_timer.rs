//! Where no thread can be started, nobody but those who wait notices that a deadline has passed: the thread that keeps the time of a server's end
//! does, and leaves the callbacks at that deadline, which may block, to others. One test, of one server: it takes the process's address space away for
//! a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;
mod own_threads;

use address_space::Limited;
use cancel_tree::integrations::serve::{Phase, Serve, Server};
use cancel_tree::Context;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(20);
/// Of a thread, as std has it by default.
const STACK: u64 = 2 << 20;
const LATE: Duration = Duration::from_secs(30);

#[test]
fn a_callback_that_blocks_at_a_deadline_above_holds_up_no_end() {
    let (above, guard) = Context::background().with_movable_deadline(None);
    // Its drop would call what blocks.
    let guard = std::mem::ManuallyDrop::new(guard);
    let (say, hear) = mpsc::channel();
    let (says, tells) = (say.clone(), say.clone());
    drop(above.on_cancel(move || {
        let who = thread::current().name().unwrap_or("?").to_owned();
        let _ = tells.send((who, None));
        loop {
            thread::park();
        }
    }));
    // Room for the stack of the server's thread, and for what is small; none for another thread's.
    let (give, server) = mpsc::channel::<Server>();
    let runs = thread::spawn(move || {
        let never = std::future::pending::<io::Result<()>>();
        let report = futures::executor::block_on(server.recv().unwrap().run(never));
        say.send(("run".into(), Some(report))).unwrap();
    });
    // So that it has the memory that it begins with.
    thread::sleep(5 * SOON);
    let limited = Limited::to(STACK + (512 << 10));
    let server = Serve::new(&above)
        .lame_duck(LATE)
        .graceful(SOON)
        .cancelled(SOON)
        .dropped(SOON)
        .when_stuck(move |report| says.send(("stuck".into(), Some(report))).unwrap())
        .start()
        .unwrap();
    let handle = server.handle();
    give.send(server).unwrap();
    while !handle.is_ready() {
        thread::sleep(SOON);
    }
    assert!(!own_threads::names()
        .iter()
        .any(|name| name.contains("timer")));
    let begin = Instant::now();
    guard.set(begin + 5 * SOON);
    handle.end("now");
    let said = [(); 2].map(|()| hear.recv_timeout(LATE / 2));
    let took = begin.elapsed();
    drop(limited);
    for (said, who) in said.into_iter().zip(["stuck", "run"]) {
        let (says, report) = said.unwrap_or_else(|_| panic!("{who} is missing"));
        assert_eq!(says, who);
        let phases = report.unwrap().phases;
        let phases: Vec<_> = phases.into_iter().map(|(phase, _)| phase).collect();
        use Phase::{Cancelled, Dropped, Graceful, LameDuck};
        assert_eq!(phases, [LameDuck, Graceful, Cancelled, Dropped]);
    }
    assert!((5 * SOON..LATE / 2).contains(&took), "{took:?}");
    runs.join().unwrap();
}
