//! Threads that wait for a context and wake up at its deadline: others do not depend on them, nor what has passed before.

#![cfg(not(any(miri, cancel_tree_by_hand)))]

use cancel_tree::{CancellationToken, Context};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::pending;
use std::sync::{mpsc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

thread_local! {
    /// From then on the thread is stopped where it allocates, once.
    static STOPS: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Held by the test while the thread is to be stopped.
static GATE: Mutex<()> = Mutex::new(());

struct Stopping;

// SAFETY: the system's.
unsafe impl GlobalAlloc for Stopping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let stops = STOPS.try_with(Cell::get).ok().flatten();
        if stops.is_some_and(|from| from <= Instant::now()) {
            STOPS.set(None);
            drop(GATE.lock());
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: Stopping = Stopping;

const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(10);

/// Whoever is stopped is so until somebody else was woken, or has waited in vain.
fn is_told_beside_one_that_is_stopped(ctx: &Context, deadline: Instant, wait: fn(&Context)) {
    let token: CancellationToken = ctx.child_token();
    let (say, hear) = mpsc::channel();
    let gate = GATE.lock().unwrap();
    let waiter = thread::spawn(move || {
        token.blocking_wait();
        say.send(()).unwrap();
    });
    let stopped = {
        let ctx = ctx.clone();
        thread::spawn(move || {
            STOPS.set(Some(deadline));
            wait(&ctx);
            STOPS.set(None);
        })
    };
    let told = hear.recv_timeout(LONG);
    drop(gate);
    stopped.join().unwrap();
    waiter.join().unwrap();
    assert!(told.is_ok(), "{ctx:?}");
}

#[test]
fn whoever_is_stopped_at_a_deadline_holds_up_nobody() {
    // The timer's threads are there.
    let (first, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    first.child_token().blocking_wait();
    let waits: [fn(&Context); 2] = [
        |ctx| _ = ctx.blocking_wait(),
        |ctx| _ = ctx.block_on(pending::<()>()),
    ];
    for wait in waits {
        let deadline = Instant::now() + SOON;
        let (fixed, _fixed) = Context::background().with_deadline(deadline);
        is_told_beside_one_that_is_stopped(&fixed, deadline, wait);
        let deadline = Instant::now() + SOON;
        let (movable, _movable) = Context::background().with_movable_deadline(deadline);
        is_told_beside_one_that_is_stopped(&movable, deadline, wait);
        let deadline = Instant::now() + SOON;
        let (idle, _idle) = Context::background().with_idle_timeout(SOON);
        is_told_beside_one_that_is_stopped(&idle, deadline, wait);
    }
}

/// A deadline below it passed some microseconds earlier. Where the timer is not running for a millisecond, for others keep the
/// processors busy, it may be otherwise: seldom.
#[test]
fn what_has_passed_before_was_first() {
    let is_its_own = |n: u64| {
        let sooner = Instant::now() + Duration::from_micros(1500);
        let later = sooner + Duration::from_micros(20 + n % 100);
        let (above, _above) = Context::background().with_deadline_cause(later, "later");
        let (ctx, _guard) = above.with_deadline_cause(sooner, "sooner");
        above.blocking_wait();
        ctx.cause()
            .is_some_and(|cause| cause.to_string() == "sooner")
    };
    let mut attempts = Vec::new();
    let is_good = |_| {
        let many = (0..200).filter(|n| is_its_own(*n)).count();
        attempts.push(many);
        many > 180
    };
    assert!((0..5).any(is_good), "{attempts:?}");
}
