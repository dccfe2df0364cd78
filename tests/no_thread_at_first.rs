//! Where the timer's thread cannot be started once, that is made up for. One test: it takes the process's address space away for
//! a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;
mod own_threads;

use address_space::Limited;
use cancel_tree::Context;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// A task was polled once while there was no thread, and does not look again by itself. Whoever asks, waits, registers or makes a
/// deadline makes up for the thread: here a thread that makes one on a context of its own.
#[test]
fn a_task_is_woken_once_somebody_comes_by() {
    struct Bell(Thread);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let limited = Limited::to(64 << 10);
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(50));
    let token = ctx.child_token();
    let bell = Arc::new(Bell(thread::current()));
    let waker = Waker::from(bell.clone());
    let mut future = pin!(token.cancelled());
    let is_pending = future
        .as_mut()
        .poll(&mut std::task::Context::from_waker(&waker))
        .is_pending();
    drop(waker);
    drop(limited);
    assert!(is_pending, "the machine was too slow: nothing is seen");
    // Nobody has come by since.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(own_threads::names().len(), 0);
    assert_eq!(Arc::strong_count(&bell), 2, "it has been woken");

    drop(Context::background().with_timeout(Duration::from_secs(3600)));
    let begin = Instant::now();
    while Arc::strong_count(&bell) == 2 {
        assert!(begin.elapsed() < Duration::from_secs(30), "it sleeps on");
        thread::park_timeout(Duration::from_millis(100));
    }
    let mut cx = std::task::Context::from_waker(Waker::noop());
    assert_eq!(future.as_mut().poll(&mut cx), Poll::Ready(()));
}
