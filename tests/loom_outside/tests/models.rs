//! What a program outside can model by what is documented, and that its mistakes show.
#![cfg(cancel_tree_loom)]

use cancel_tree::models::{self, Service};
use cancel_tree::{CancellationToken, Context, ContextError};
use loom::thread::spawn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

/// Runs the model in a bound that ends soon.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = Some(2);
    builder.check(model);
}

/// Which of two outcomes any execution had. A real atomic: it outlives them.
#[derive(Clone, Default)]
struct Seen(Arc<[AtomicBool; 2]>);

impl Seen {
    fn note(&self, outcome: bool) {
        self.0[usize::from(outcome)].store(true, Relaxed);
    }

    #[track_caller]
    fn both(&self) {
        let [no, yes] = &*self.0;
        assert!(no.load(Relaxed), "never false");
        assert!(yes.load(Relaxed), "never true");
    }
}

/// By loom's plainest call, without any setting.
#[test]
fn cancel_vs_is_cancelled() {
    let seen = Seen::default();
    let note = seen.clone();
    loom::model(move || {
        let token = CancellationToken::new();
        let canceller = token.clone();
        let thread = spawn(move || canceller.cancel());
        note.note(token.is_cancelled());
        thread.join().unwrap();
        assert!(token.is_cancelled());
    });
    seen.both();
}

#[test]
#[should_panic(expected = "a wrong belief")]
fn a_wrong_assertion_fails() {
    loom::model(|| {
        let token = CancellationToken::new();
        let canceller = token.clone();
        let thread = spawn(move || canceller.cancel());
        assert!(!token.is_cancelled(), "a wrong belief");
        thread.join().unwrap();
    });
}

/// On this OS thread only, and until it is set again.
#[test]
fn without_all_orders_there_are_fewer_executions() {
    let count = |all| {
        models::set_all_orders(all);
        let executions = Arc::new(AtomicUsize::new(0));
        let counted = executions.clone();
        check(move || {
            counted.fetch_add(1, Relaxed);
            let token = CancellationToken::new();
            let canceller = token.clone();
            let thread = spawn(move || canceller.cancel());
            let _ = token.is_cancelled();
            thread.join().unwrap();
        });
        models::set_all_orders(true);
        executions.load(Relaxed)
    };
    assert!(count(false) < count(true));
}

/// What a callback writes, without any order of its own: loom looks whether there is one.
struct Plain(loom::cell::UnsafeCell<u32>);

// SAFETY: loom stops the model where two threads are at it without an order.
unsafe impl Sync for Plain {}

impl Plain {
    fn write(&self, new: u32) {
        // SAFETY: as above.
        self.0.with_mut(|value| unsafe { *value = new });
    }

    fn read(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|value| unsafe { *value })
    }
}

/// When it answers that it came too late, the callback is over and what it wrote is there to be read.
#[test]
fn stop_and_wait_waits() {
    let seen = Seen::default();
    let note = seen.clone();
    check(move || {
        let token = CancellationToken::new();
        let written = loom::sync::Arc::new(Plain(loom::cell::UnsafeCell::new(0)));
        let to = written.clone();
        let registration = token.on_cancel(move || to.write(7));
        let canceller = token.clone();
        let thread = spawn(move || canceller.cancel());
        let stopped = registration.stop_and_wait();
        note.note(stopped);
        assert_eq!(written.read(), if stopped { 0 } else { 7 });
        thread.join().unwrap();
    });
    seen.both();
}

/// A thread that gives up at its end what it has kept for its next contexts.
fn turn(mut service: Service) -> loom::thread::JoinHandle<Service> {
    spawn(move || {
        service.turn(Service::at(1));
        Service::end_of_thread();
        service
    })
}

#[test]
fn with_timeout_vs_cancel() {
    let seen = Seen::default();
    let note = seen.clone();
    check(move || {
        let service = Service::new();
        let (ctx, guard) = Context::background().with_timeout(Duration::from_millis(50));
        let timer = turn(service);
        let first = guard.cancel();
        note.note(first);
        let expected = if first {
            ContextError::Cancelled
        } else {
            ContextError::DeadlineExceeded
        };
        assert_eq!(ctx.err(), Some(expected));
        drop(timer.join().unwrap());
    });
    seen.both();
}

/// No time passes unless the service is turned; who waits is woken by it.
#[test]
fn with_timeout_vs_a_wait() {
    check(|| {
        let service = Service::new();
        let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(50));
        assert_eq!(ctx.err(), None);
        let timer = turn(service);
        loom::future::block_on(ctx.done());
        assert_eq!(ctx.err(), Some(ContextError::DeadlineExceeded));
        drop(timer.join().unwrap());
    });
}

/// The callback is a worker's: it runs when the service is turned after the cancel.
#[test]
fn after_func_vs_the_service() {
    let seen = Seen::default();
    let note = seen.clone();
    check(move || {
        let mut service = Service::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let (ctx, guard) = Context::background().with_cancel();
        let counted = runs.clone();
        let registration = ctx.after_func(move || {
            counted.fetch_add(1, Relaxed);
        });
        let thread = spawn(move || {
            guard.cancel();
            drop(guard);
            Service::end_of_thread();
        });
        service.turn(Service::at(1));
        note.note(runs.load(Relaxed) == 1);
        thread.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(runs.load(Relaxed), 1);
        assert!(!registration.stop_and_wait());
    });
    seen.both();
}
