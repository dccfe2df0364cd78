//! The service thread's loop as it is, with its workers: when they are sent and started. What is handed over and never taken leaves
//! the loop sleeping, or looking for ever.

use cancel_tree::{Canceller, Context, Service};
use cancel_tree_loom::{at_once, model, reached, spawn, ContextError, Runs};

/// With a callback for a worker.
fn cancellable(callback: impl FnOnce() + Send + 'static) -> Canceller {
    let (ctx, guard) = Context::background().with_cancel();
    drop(ctx.after_func(callback));
    let canceller = guard.canceller();
    guard.detach();
    canceller
}

/// The thread is on its way to sleep, and starts a worker for what comes.
#[test]
fn push_vs_sleep_and_the_start_of_a_worker() {
    model(Some(1), || {
        let runs = Runs::default();
        let mut service = Service::with_workers([true]);
        let canceller = cancellable(runs.callback());
        let pushing = spawn(move || {
            canceller.cancel();
            drop(canceller);
            Service::end_of_thread();
        });
        service.run_until_something_comes();
        pushing.join().unwrap();
        at_once(|| drop(service));
        assert_eq!(runs.count(), 1);
    });
}

/// A worker is on its way to sleep, by which it does not find what it is sent: it is woken for it, or another one is started.
#[test]
fn sending_vs_sleep_of_a_worker() {
    model(Some(1), || {
        let runs = Runs::default();
        let mut service = Service::with_workers([true]);
        // What comes before that is other models'.
        loom::stop_exploring();
        let second = cancellable(runs.callback());
        let first = cancellable(move || {
            second.cancel();
            drop(second);
            loom::explore();
        });
        first.cancel();
        service.run_until_so_much_comes(2);
        at_once(|| drop(service));
        assert_eq!(runs.count(), 1);
    });
}

/// No thread can be had, and a later look tries again, though nothing else is due for long.
#[test]
fn worker_vs_looks_after_a_start_that_has_failed() {
    model(Some(1), || {
        let runs = Runs::default();
        let mut service = Service::with_workers([false, true]);
        let (later, _guard) = Context::background().with_deadline(Service::at(1));
        at_once(|| cancellable(runs.callback()).cancel());
        // The deadline comes as well.
        service.run_until_so_much_comes(2);
        drop(later);
        at_once(|| drop(service));
        assert_eq!(runs.count(), 1);
    });
}

/// A deadline ends the sleep by itself, and the next sleep begins when all below it is marked, of which a step marks two.
#[test]
fn push_of_a_deadline_vs_sleep_until_it_has_passed() {
    model(Some(2), || {
        let mut service = Service::new();
        let setter = spawn(|| {
            let (ctx, guard) = Context::background().with_deadline(Service::soon());
            guard.detach();
            let below = at_once(|| [(); 3].map(|()| ctx.child_token()));
            Service::end_of_thread();
            (ctx, below)
        });
        service.run_until_so_much_comes(2);
        let (ctx, below) = setter.join().unwrap();
        assert_eq!(ctx.err(), Some(ContextError::DeadlineExceeded));
        below.iter().for_each(reached);
    });
}

/// A worker calls at a deadline whose context is dropped meanwhile.
#[test]
fn worker_at_a_deadline_vs_drop_of_the_context() {
    model(Some(1), || {
        let runs = Runs::default();
        let mut service = Service::with_workers([true]);
        let ctx = at_once(|| {
            let (ctx, guard) = Context::background().with_deadline(Service::soon());
            guard.detach();
            drop(ctx.on_cancel(runs.callback()));
            ctx
        });
        service.run_until_so_much_comes(2);
        drop(ctx);
        at_once(|| drop(service));
        assert_eq!(runs.count(), 1);
    });
}
