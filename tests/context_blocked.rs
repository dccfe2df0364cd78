//! Callbacks that block keep no others from being called. One test, so that no other one's callbacks have threads here.

use cancel_tree::Context;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How late the latest of so many callbacks is called, of which one comes every three milliseconds and none ends before all have been called.
fn latest(number: usize) -> Duration {
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let (say, begun) = mpsc::channel();
    for _ in 0..number {
        let (ctx, guard) = Context::background().with_cancel();
        let (held, say, given) = (held.clone(), say.clone(), Instant::now());
        drop(ctx.after_func(move || {
            say.send(given.elapsed()).unwrap();
            // All wait here, one of them for the channel and the others for that one.
            assert!(held.lock().unwrap().recv().is_err());
        }));
        guard.cancel();
        thread::sleep(Duration::from_millis(3));
    }
    let hear = |_| begun.recv_timeout(Duration::from_secs(60)).expect("called");
    let latest = (0..number).map(hear).max();
    drop(release);
    latest.unwrap()
}

#[test]
fn callbacks_that_block_keep_no_others_from_being_called() {
    // In one of the attempts, as other programs may keep the processors busy. Where the more are at work the fewer are sent, the
    // last ones are seconds late.
    let mut attempts = Vec::new();
    let is_good = |nth| {
        if nth != 0 {
            // Threads of the last attempt that are idle go after five seconds.
            thread::sleep(Duration::from_secs(7));
        }
        attempts.push(latest(300));
        attempts.last().unwrap() < &Duration::from_millis(500)
    };
    assert!((0..3).any(is_good), "{attempts:?}");
}
