//! Where the timer's thread cannot be started, whoever asks or waits looks at the clock. One test: it takes the process's
//! address space away for a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;
mod own_threads;

use address_space::Limited;
use cancel_tree::{Context, ContextError};
use std::future::Future;
use std::pin::pin;
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn without_the_timers_thread_tokens_below_a_context_notice_its_deadline() {
    const SOON: Duration = Duration::from_millis(200);
    const LATE: Duration = Duration::from_secs(3600);
    let passed = Some(ContextError::DeadlineExceeded);
    let below = |within| {
        // Room for what is small; none for a thread's stack.
        let limited = Limited::to(64 << 10);
        let (ctx, guard) = Context::background().with_timeout(within);
        drop(limited);
        assert_eq!(own_threads::names().len(), 0, "a thread was to be had");
        (ctx.child_token(), guard)
    };
    let begin = Instant::now();
    // A machine may take so long for what comes before the deadlines.
    let is_late = || begin.elapsed() >= SOON;
    let (asked, _asked) = below(SOON);
    let (polled, _polled) = below(SOON);
    let (called, _called) = below(SOON);
    let (waited, _waited) = below(SOON);
    let (timed, _timed) = below(SOON);
    let (blocked, _blocked) = below(SOON);
    let (late, _late) = below(LATE);
    assert!(!asked.is_cancelled() || is_late());
    let mut future = pin!(polled.cancelled());
    let mut cx = std::task::Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_pending() || is_late());
    assert!(!waited.blocking_wait_timeout(Duration::from_millis(1)) || is_late());

    // Nobody else is there to end the wait.
    let begin = Instant::now();
    waited.blocking_wait();
    assert!(begin.elapsed() < LATE / 2);
    assert!(timed.blocking_wait_timeout(LATE));
    let never = std::future::pending::<()>;
    assert_eq!(blocked.block_on(never()), None);
    assert_eq!(
        blocked.context().block_on(never()),
        Err(ContextError::DeadlineExceeded)
    );
    thread::sleep(SOON);
    assert!(asked.is_cancelled());
    assert_eq!(asked.context().err(), passed);
    assert_eq!(future.as_mut().poll(&mut cx), Poll::Ready(()));
    assert!(!called.on_cancel(|| ()).stop(), "it has run");
    assert!(!late.is_cancelled() && !late.blocking_wait_timeout(Duration::from_millis(1)));
}
