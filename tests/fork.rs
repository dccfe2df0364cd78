//! A child process made by `fork` has no timer thread: who blocks there notices deadlines all the same.
#![cfg(unix)]

mod forked;

use cancel_tree::{Cause, Context, ContextError, DoneSignal, ForeignContext};
use forked::status_of;
use futures::task::AtomicWaker;
use std::any::Any;
use std::ffi::c_int;
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::task::Poll;
use std::thread;
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
    if ctx.block_on(pending::<()>()) != Err(PASSED) {
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
    let waiter = thread::spawn(move || below.blocking_wait());
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
        if ctx.block_on(pending::<()>()) != Err(PASSED) {
            return 22;
        }
    }
    if Arc::strong_count(&kept) != 1 {
        return 23;
    }
    // For a loop that asks in between.
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    while !ctx.remaining().unwrap().is_zero() {
        thread::sleep(SOON / 10);
    }
    if ctx.blocking_wait_timeout(Duration::ZERO) != Some(PASSED) {
        return 8;
    }
    // One that is set when the thread waits already, and one that is moved.
    let waits: [fn(&Context) -> Option<ContextError>; 3] = [
        |ctx| Some(ctx.blocking_wait()),
        |ctx| ctx.blocking_sleep(LATE).err(),
        |ctx| ctx.block_on(pending::<()>()).err(),
    ];
    for (number, wait) in (9..).zip(waits) {
        for timeout in [None, Some(LATE)] {
            let (ctx, guard) = Context::background()
                .with_movable_deadline(timeout.map(|timeout| Instant::now() + timeout));
            let below = ctx.with_value(number);
            let waiter = thread::spawn(move || wait(&below));
            thread::sleep(SOON);
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

/// What says so by a waker, and which way it is listened to.
#[derive(Clone)]
struct Event(Arc<(AtomicBool, AtomicWaker)>, Listen);

type Listen = fn(DoneSignal, Event) -> Box<dyn Any + Send>;

const LISTEN: [Listen; 2] = [
    |signal, event| signal.when_woken(event.happens()),
    |signal, event| signal.when_ready(event.happens()),
];

impl Event {
    async fn happens(self) -> ContextError {
        let (has_happened, waker) = &*self.0;
        poll_fn(|cx| {
            waker.register(cx.waker());
            match has_happened.load(SeqCst) {
                true => Poll::Ready(ContextError::Cancelled),
                false => Poll::Pending,
            }
        })
        .await
    }

    fn happen(&self) {
        self.0 .0.store(true, SeqCst);
        self.0 .1.wake();
    }
}

impl ForeignContext for Event {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        (self.1)(signal, self.clone())
    }
}

/// The number of the first wait that does not end as it should, or 0.
fn first_that_waits_on(listen: Listen) -> c_int {
    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(60);
    let waits: [fn(&Context) -> bool; 9] = [
        |ctx| ctx.blocking_wait() == ContextError::Cancelled,
        |ctx| ctx.blocking_sleep(LATE).is_err(),
        |ctx| ctx.block_on(pending::<()>()).is_err(),
        |ctx| ctx.with_timeout(LATE).0.blocking_wait() == ContextError::Cancelled,
        |ctx| ctx.with_idle_timeout(LATE).0.blocking_sleep(LATE).is_err(),
        |ctx| {
            let (other, _guard) = Context::background().with_cancel();
            Context::any_of([&other, ctx]).blocking_sleep(LATE).is_err()
        },
        |ctx| ctx.child_token().blocking_wait_timeout(LATE),
        |ctx| ctx.child_token().block_on(pending::<()>()).is_none(),
        // A loop that does something in between.
        |ctx| loop {
            match ctx.blocking_wait_timeout(Duration::ZERO) {
                None => thread::sleep(SOON / 10),
                Some(error) => return error == ContextError::Cancelled,
            }
        },
    ];
    for (number, wait) in (1..).zip(waits) {
        let event = Event(Arc::default(), listen);
        let ctx = Context::below(event.clone());
        let waiter = thread::spawn(move || wait(&ctx));
        thread::sleep(SOON);
        event.happen();
        if !waiter.join().unwrap() {
            return number;
        }
    }
    0
}

/// Whoever waits so, for whatever, sees to a task, and to who is told by a callback; but not to what is not to run where it may hold
/// anything up.
fn first_beside_a_wait_on(listen: Listen) -> c_int {
    let event = Event(Arc::default(), listen);
    let ctx = Context::below(event.clone());
    let (other, end_of_other) = Context::below(Event(Arc::default(), listen)).with_cancel();
    let waiter = thread::spawn(move || other.blocking_wait());
    let [called, called_elsewhere] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let [says, says_elsewhere] = [called.clone(), called_elsewhere.clone()];
    // Stays with who sees to it.
    drop(ctx.on_cancel(|| std::panic::resume_unwind(Box::new(()))));
    drop(ctx.on_cancel(move || says.store(true, SeqCst)));
    drop(ctx.after_func(move || says_elsewhere.store(true, SeqCst)));
    let below = ctx.clone();
    let task = thread::spawn(move || futures::executor::block_on(below.done()));
    thread::sleep(Duration::from_millis(50));
    event.happen();
    if task.join().unwrap() != ContextError::Cancelled {
        return 101;
    }
    while !called.load(SeqCst) {
        thread::yield_now();
    }
    // Some more looks.
    thread::sleep(Duration::from_millis(50));
    if called_elsewhere.load(SeqCst) {
        return 102;
    }
    end_of_other.cancel();
    if waiter.join().unwrap() != ContextError::Cancelled {
        return 103;
    }
    // One that waits alone sees to it before it goes on, unless it comes too late, or looks just between the two halves of that end.
    let is_seen_to = |n| {
        let event = Event(Arc::default(), listen);
        let ctx = Context::below(event.clone());
        let called = Arc::new(AtomicBool::new(false));
        let says = called.clone();
        drop(ctx.on_cancel(move || says.store(true, SeqCst)));
        let waiter = thread::spawn(move || ctx.blocking_wait());
        thread::sleep(Duration::from_millis(50) * n);
        event.happen();
        waiter.join().unwrap();
        called.load(SeqCst)
    };
    match (1..=6).any(is_seen_to) {
        true => 0,
        false => 104,
    }
}

/// A callback that waits for what a worker would have polled meanwhile.
fn a_callback_waits_for_another() -> c_int {
    let [first, second] = LISTEN.map(|listen| Event(Arc::default(), listen));
    let [ctx, other] = [&first, &second].map(|event| Context::below(event.clone()));
    let called = Arc::new(AtomicBool::new(false));
    let says = called.clone();
    drop(ctx.on_cancel(move || {
        other.blocking_wait();
        says.store(true, SeqCst);
    }));
    first.happen();
    second.happen();
    // Who waits for something else sees to both.
    let third = Context::below(Event(Arc::default(), LISTEN[0]));
    match third.blocking_wait_timeout(Duration::from_millis(50)) {
        None => c_int::from(!called.load(SeqCst)),
        Some(_) => 2,
    }
}

#[test]
fn a_callback_in_a_forked_child_may_wait_for_another_crates_context() {
    assert_eq!(status_of(a_callback_waits_for_another), 0);
}

#[test]
fn who_waits_below_another_crates_context_in_a_forked_child_is_told() {
    for (number, listen) in LISTEN.into_iter().enumerate() {
        let waits = status_of(|| first_that_waits_on(listen));
        let beside = status_of(|| first_beside_a_wait_on(listen));
        assert_eq!((number, waits, beside), (number, 0, 0), "as above");
    }
}
