//! Disks that hang, and slow ones: a file that was there when the files were listed is a pipe now, which is as slow as who writes to it.

mod common;

use common::{Answer, Dir, Server};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

fn tea() -> Dir {
    Dir::new(&[("a.txt", "tea"), ("hangs.txt", "tea")])
}

#[test]
fn a_disk_that_hangs() {
    let dir = tea();
    let server = Server::alone(&dir, &[]);
    // To open it is to wait for somebody who writes to it.
    let pipe = dir.pipe("hangs.txt");
    // A busy machine may take longer to get there.
    let hangs = ["500ms", "4s", "32s"].into_iter().any(|limit| {
        let mut page = server.events(&format!("/search?q=tea&timeout={limit}"));
        // The answer is there at the limit, and says who has not stopped.
        let end = page.wait_for("end");
        assert_eq!(end["ended"], "limit", "{end}");
        let missing = page.wait_for("stopped")["missing"].to_string();
        missing.contains("reads hangs.txt")
    });
    assert!(hangs, "{:?}", server.get("/debug/searches", ""));
    let works = server.get("/debug/searches", "").body;
    assert!(
        works.starts_with("searches: 1\n")
            && works.contains("search \"tea\": for ")
            && works.contains("told to stop")
            && works.contains("has not looked since the cancel")
            && works.contains("reads hangs.txt"),
        "{works}"
    );
    // The library says the same of the thread.
    let json = server.get("/debug/cancel?format=json", "").json();
    let nodes = json["nodes"].as_array().unwrap();
    let thread = nodes.iter().find(|node| node["situation"] == "not_looked");
    let thread = thread.unwrap_or_else(|| panic!("{json}"));
    let name = thread["name"].as_str().unwrap();
    assert!(name.starts_with("thread "), "{json}");
    // Also when nobody is left who could search: the others are not asked to wait longer than they wanted to.
    let more: Vec<_> = (0..2 * 64)
        .map(|_| server.send("/search?q=tea&timeout=500ms", ""))
        .collect();
    for stream in more {
        let answer = Answer::read(stream);
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        assert!(
            json["ended"] == "limit" || json["ended"] == "complete",
            "{json}"
        );
    }
    // The disk is back.
    drop(OpenOptions::new().write(true).open(&pipe).unwrap());
    server.wait_until("search_working", |count| count == 0);
    server.wait_until("search_tasks", |count| count == 0);
    assert_eq!(server.get("/debug/searches", "").body, "searches: 0\n");
}

#[test]
fn who_hangs_at_the_end_is_named() {
    let dir = tea();
    let args = ["--lame-duck", "0s", "--graceful", "100ms"];
    let server = Server::alone(&dir, &args);
    dir.pipe("hangs.txt");
    let header = "X-Request-Id: stays\r\n";
    // A busy machine may take longer to get there.
    let hangs = ["100ms", "3s", "32s"].into_iter().any(|limit| {
        let answer = server.get(&format!("/search?q=tea&timeout={limit}"), header);
        assert_eq!(answer.json()["ended"], "limit");
        let reads = || {
            let works = server.get("/debug/searches", "").body;
            works.contains("reads hangs.txt")
        };
        // Who is told to stop before it opens the file is gone in a moment.
        reads() && {
            thread::sleep(Duration::from_millis(100));
            reads()
        }
    });
    assert!(hangs, "{:?}", server.get("/debug/searches", ""));
    server.signal(libc::SIGTERM);
    let (code, said) = server.ended();
    // As if the signal had ended it.
    assert_eq!(code, Some(128 + libc::SIGTERM), "{said:#?}");
    for says in ["stuck: search stays \"tea\"", "reads hangs.txt"] {
        assert!(said.iter().any(|line| line.contains(says)), "{said:#?}");
    }
}

#[test]
fn a_slow_disk_keeps_nobody() {
    let dir = tea();
    let server = Server::alone(&dir, &[]);
    let pipe = dir.pipe("hangs.txt");
    // Both ways, so that nobody waits for the other side.
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true);
    let mut slow = options.custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
    /// Also when something fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        // A file without an end, a byte now and then.
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let _ = slow.write(b"x");
                thread::sleep(Duration::from_millis(10));
            }
        });
        let mut page = server.events("/search?q=tea&timeout=500ms");
        let end = page.wait_for("end");
        assert_eq!(end["ended"], "limit", "{end}");
        // In the middle of the file it is noticed that it is over.
        server.wait_until("search_working", |count| count == 0);
    });
}
