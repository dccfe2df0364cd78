//! Where no thread can be started, neither can those that tell of a server's end: `run` ends all the same, after what is called for a server that is
//! stuck. One test, of one server: it takes the process's address space away for a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;

use address_space::Limited;
use cancel_tree::integrations::serve::{Serve, ServerFuture};
use cancel_tree::Context;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const SOON: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(30);

/// Whether the thread that keeps the server's time sleeps.
fn is_waiting() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.flat_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")));
    let mut ours = stats.filter(|stat| stat.contains("(cancel-tree ser"));
    ours.any(|stat| stat.contains(") S "))
}

#[test]
fn without_threads_a_run_ends() {
    let (say, hear) = mpsc::channel();
    let says = say.clone();
    let serve = Serve::new(&Context::background())
        .lame_duck(Duration::ZERO)
        .graceful(SOON)
        .cancelled(SOON)
        .dropped(SOON)
        .when_stuck(move |report| says.send(("stuck", report)).unwrap());
    let server = serve.start().unwrap();
    let handle = server.handle();
    let graceful = server.graceful();
    // By another crate's executor, which tries nothing again.
    thread::spawn(move || {
        let report = futures::executor::block_on(server.run(async {
            graceful.await;
            Ok::<_, io::Error>(())
        }));
        say.send(("run", report)).unwrap();
    });
    while !(is_waiting() && handle.is_ready()) {
        thread::sleep(SOON);
    }
    // So that all have the memory that they begin with. Room for what is small; none for a thread's stack.
    thread::sleep(5 * SOON);
    let limited = Limited::to(1 << 20);
    handle.end("now");
    let said = [(); 2].map(|()| hear.recv_timeout(LONG));
    drop(limited);
    for (said, who) in said.into_iter().zip(["stuck", "run"]) {
        let (says, report) = said.unwrap_or_else(|_| panic!("{who} is missing"));
        assert_eq!(says, who);
        assert!(matches!(report.server, ServerFuture::Stuck), "{report}");
    }
}
