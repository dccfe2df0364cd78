//! Where nobody takes out of the timer's inbox, memory follows the contexts that live all the same: where its thread cannot be
//! started, and in the child of a `fork`. One test: it takes the process's address space away for a while, and the count is the process's.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;
mod counting;
mod forked;
mod own_threads;

use address_space::Limited;
use cancel_tree::{CancelGuard, Context};
use std::ffi::c_int;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

const LATE: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(30);
/// More than a pool has room for, with what others give back.
const MANY: usize = 3000;
/// What an entry takes, with what it is a part of.
const EACH: isize = 160;

type Pair = (Context, CancelGuard);

fn many() -> Vec<Pair> {
    (0..MANY)
        .map(|_| Context::background().with_timeout(LATE))
        .collect()
}

/// A thread that drops what it is sent, and says so.
fn dropper() -> (SyncSender<Vec<Pair>>, Receiver<()>) {
    let (send, receive) = mpsc::sync_channel::<Vec<Pair>>(0);
    let (say, hear) = mpsc::sync_channel(0);
    thread::spawn(move || {
        for pairs in receive {
            drop(pairs);
            say.send(()).unwrap();
        }
    });
    (send, hear)
}

/// How much more is in use after so many times than after the first.
fn left_by(times: usize, mut f: impl FnMut()) -> isize {
    f();
    counting::grows(|| (0..times).for_each(|_| f())).1
}

/// The child's exit code.
fn in_a_child() -> c_int {
    // What is left in the inbox before it is noticed that nobody takes it out.
    const ROOM: isize = 2 * 8192 * EACH;
    let here = left_by(30, || drop(many()));
    // Nobody uses again what a thread leaves that ends.
    let ended = left_by(30, || thread::spawn(|| drop(many())).join().unwrap());
    c_int::from(here > ROOM) + 2 * c_int::from(ended > ROOM)
}

#[test]
fn memory_follows_what_lives_where_nobody_frees_it() {
    let (send, hear) = dropper();
    // Room for what is small; none for a thread's stack.
    let limited = Limited::to(1 << 20);
    let here = left_by(1, || drop(many()));
    let elsewhere = left_by(1, || {
        send.send(many()).unwrap();
        hear.recv().unwrap();
    });
    let threads = own_threads::names().len();
    drop(limited);
    assert_eq!(threads, 0, "a thread was to be had");
    println!("a round leaves {here} bytes, and {elsewhere} where another thread drops");
    assert!(here < 100 * EACH, "{here} bytes stay");
    assert!(elsewhere < 100 * EACH, "{elsewhere} bytes stay");

    // When there is a thread, what the pool has no room for goes as it is used.
    let before = counting::in_use();
    let begin = Instant::now();
    let freed = || before - counting::in_use();
    while freed() < (MANY as isize - 1024 - 100) * EACH {
        assert!(begin.elapsed() < PATIENCE, "{} bytes are freed", freed());
        for _ in 0..MANY {
            drop(Context::background().with_timeout(LATE));
        }
        // The timer frees what it finds when it is awake.
        let (soon, _guard) = Context::background().with_timeout(Duration::from_millis(10));
        soon.blocking_wait();
    }
    assert_eq!(forked::status_of(in_a_child), 0, "the child's memory grows");
}
