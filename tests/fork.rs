//! A child process made by `fork` has no timer thread: who blocks there notices deadlines all the same.
#![cfg(unix)]

mod forked;

use cancel_tree::{Cause, Context, ContextError};
use forked::status_of;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Late(#[allow(dead_code, reason = "it is counted")] Arc<()>);

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "late")
    }
}

impl std::error::Error for Late {}

/// The number of the first that does not end as it should, or 0.
fn first_wrong() -> c_int {
    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(60);
    const PASSED: ContextError = ContextError::DeadlineExceeded;

    let (ctx, _guard) = Context::background().with_timeout(SOON);
    if ctx.blocking_wait() != PASSED {
        return 1;
    }
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    if ctx.blocking_sleep(LATE) != Err(PASSED) {
        return 2;
    }
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    if ctx.block_on(std::future::pending::<()>()) != Err(PASSED) {
        return 6;
    }
    // Of several parents, whichever has the deadline, and however far above.
    let (late, _late) = Context::background().with_timeout(LATE);
    let any_of: [fn(&Context, &Context) -> Context; 3] = [
        |late, early| Context::any_of([early, late]),
        |late, early| Context::any_of([late, early]),
        |late, early| {
            let (below, guard) = early.with_cancel();
            guard.detach();
            (0..40).fold(below, |ctx, _| Context::any_of([late, &ctx, &ctx]))
        },
    ];
    // What begins with a deadline, and is started by what no worker gets to here.
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    let ctx = ctx.with_grace(SOON);
    if ctx.blocking_wait() != PASSED || ctx.shield().blocking_wait() != PASSED {
        return 7;
    }
    // The same, for a shield from before, and for one who waits below and a callback: whoever notices the deadline sees to all of it.
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    let shield = ctx.with_grace(SOON).shield();
    let called = Arc::new(AtomicBool::new(false));
    let says = called.clone();
    drop(ctx.on_cancel(move || says.store(true, SeqCst)));
    let below = ctx.child_token();
    let waiter = std::thread::spawn(move || below.blocking_wait());
    if ctx.blocking_wait() != PASSED || !called.load(SeqCst) {
        return 20;
    }
    if shield.blocking_wait_timeout(LATE / 6) != Some(PASSED) {
        return 21;
    }
    waiter.join().unwrap();
    // And nothing is kept of it.
    let kept = Arc::new(());
    for _ in 0..10 {
        let late = Late(kept.clone());
        let (ctx, _guard) = Context::background().with_timeout_cause(SOON / 50, Cause::new(late));
        if ctx.block_on(std::future::pending::<()>()) != Err(PASSED) {
            return 22;
        }
    }
    if Arc::strong_count(&kept) != 1 {
        return 23;
    }
    // For a loop that asks in between.
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    while !ctx.remaining().unwrap().is_zero() {
        std::thread::sleep(SOON / 10);
    }
    if ctx.blocking_wait_timeout(Duration::ZERO) != Some(PASSED) {
        return 8;
    }
    // One that is set when the thread waits already, and one that is moved.
    let waits: [fn(&Context) -> Option<ContextError>; 3] = [
        |ctx| Some(ctx.blocking_wait()),
        |ctx| ctx.blocking_sleep(LATE).err(),
        |ctx| ctx.block_on(std::future::pending::<()>()).err(),
    ];
    for (number, wait) in (9..).zip(waits) {
        for timeout in [None, Some(LATE)] {
            let (ctx, guard) = Context::background()
                .with_movable_deadline(timeout.map(|timeout| Instant::now() + timeout));
            let below = ctx.with_value(number);
            let waiter = std::thread::spawn(move || wait(&below));
            std::thread::sleep(SOON);
            guard.set_timeout(SOON);
            if waiter.join().unwrap() != Some(PASSED) {
                return number;
            }
        }
    }
    for (number, any_of) in (3..).zip(any_of) {
        let (early, _early) = Context::background().with_timeout(SOON);
        let ctx = any_of(&late, &early);
        if ctx.blocking_wait() != PASSED || late.is_done() {
            return number;
        }
    }
    0
}

#[test]
fn deadlines_pass_for_those_who_wait_in_a_forked_child() {
    assert_eq!(
        status_of(first_wrong),
        0,
        "as waitpid tells it: the exit code << 8, or a signal"
    );
}
