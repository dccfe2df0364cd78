//! Deadlines: the timer, and whoever it meets. `turn` is what the service thread and its workers do.

use cancel_tree::{notice, set_thread_number, Canceller, Context, Service};
use cancel_tree_loom::{
    model, model_in_all_orders, poll, reason_of_context as reason_of, ContextError, Data, Probe,
    Reason, Runs, Token, USUAL,
};
use loom::thread::JoinHandle;

const DEADLINE: Option<ContextError> = Some(ContextError::DeadlineExceeded);
const CANCELLED: Option<ContextError> = Some(ContextError::Cancelled);

/// A context that is done at the `n`th of the instants that models have; nobody else can cancel it.
fn timed(above: &Context, n: u64) -> Context {
    let (ctx, guard) = above.with_deadline(Service::at(n));
    guard.detach();
    ctx
}

/// The same, with a cause of that number.
fn timed_because(above: &Context, n: u64, reason: usize) -> Context {
    let (ctx, guard) = above.with_deadline_cause(Service::at(n), Reason::cause(reason));
    guard.detach();
    ctx
}

/// A context below, and the right to cancel it.
fn cancellable(above: &Context) -> (Context, Canceller) {
    let (ctx, guard) = above.with_cancel();
    let canceller = guard.canceller();
    guard.detach();
    (ctx, canceller)
}

fn background() -> Context {
    Context::background()
}

/// A thread that gives up what it has kept for its next contexts before it is joined.
fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    cancel_tree_loom::spawn(move || {
        let answer = f();
        Service::end_of_thread();
        answer
    })
}

/// Turns the service once on a thread of its own.
fn turn(mut service: Service, n: u64) -> JoinHandle<Service> {
    spawn(move || {
        service.turn(Service::at(n));
        service
    })
}

// ----- who is first ---------------------------------------------------------------------------

#[test]
fn deadline_vs_cancel() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let (ctx, guard) = background().with_deadline(Service::at(1));
        let timer = turn(service, 1);
        let first = guard.cancel();
        let seen = ctx.err();
        assert_eq!(seen, if first { CANCELLED } else { DEADLINE });
        let _service = timer.join().unwrap();
        assert_eq!(ctx.err(), seen);
    });
}

#[test]
fn deadline_with_a_cause_vs_cancel_with_another() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let (ctx, guard) = background().with_deadline_cause(Service::at(1), Reason::cause(1));
        let timer = turn(service, 1);
        let first = guard.cancel_with(Reason::cause(2));
        let stands = reason_of(&ctx);
        assert_eq!(stands, if first { 2 } else { 1 });
        assert_eq!(ctx.err(), if first { CANCELLED } else { DEADLINE });
        let _service = timer.join().unwrap();
        assert_eq!(reason_of(&ctx), stands);
    });
}

#[test]
fn deadline_vs_guard() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let (ctx, guard) = background().with_deadline(Service::at(1));
        let timer = turn(service, 1);
        drop(guard);
        let seen = ctx.err();
        assert!(seen.is_some());
        drop(ctx);
        drop(timer.join().unwrap());
    });
}

#[test]
fn deadline_vs_cancel_of_the_parent() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let (parent, canceller) = cancellable(&background());
        let ctx = timed_because(&parent, 1, 1);
        let timer = turn(service, 1);
        canceller.cancel_with(Reason::cause(2));
        let stands = reason_of(&ctx);
        assert!(stands == 1 || stands == 2);
        let _service = timer.join().unwrap();
        assert_eq!(reason_of(&ctx), stands);
        assert_eq!(reason_of(&parent), 2);
    });
}

/// Whoever returns first from a cancel of the context, everything below is cancelled by then.
#[test]
fn deadline_vs_cancel_with_a_token_below() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let (ctx, guard) = background().with_deadline(Service::at(1));
        let child = ctx.child_token();
        let timer = turn(service, 1);
        guard.cancel();
        assert!(child.is_cancelled());
        let _service = timer.join().unwrap();
    });
}

/// What was cancelled before the deadline above has passed stays what it is.
#[test]
fn deadline_above_vs_cancel() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let (ctx, canceller) = cancellable(&timed(&background(), 1));
        let timer = turn(service, 1);
        let first = canceller.cancel();
        let seen = ctx.err();
        assert_eq!(seen, if first { CANCELLED } else { DEADLINE });
        let _service = timer.join().unwrap();
        assert_eq!(ctx.err(), seen);
    });
}

#[test]
fn deadline_vs_deadline_of_the_parent() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let mut service = Service::new();
        let parent = timed_because(&background(), 2, 1);
        let ctx = timed_because(&parent, 1, 2);
        let first = service.expire(Service::at(1));
        let second = service.expire(Service::at(2));
        let one = spawn(move || first.fire());
        let two = spawn(move || second.fire());
        one.join().unwrap();
        let stands = reason_of(&ctx);
        two.join().unwrap();
        assert_eq!(reason_of(&ctx), stands);
        assert_eq!(reason_of(&parent), 1);
    });
}

// ----- readers and waiters ----------------------------------------------------------------------

#[test]
fn deadline_vs_reader() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let ctx = timed_because(&background(), 1, 1);
        let timer = turn(service, 1);
        if ctx.err().is_some() {
            assert_eq!(reason_of(&ctx), 1);
        }
        if let Some(cause) = ctx.cause() {
            assert_eq!(cause.kind(), ContextError::DeadlineExceeded);
            assert_eq!(ctx.err(), DEADLINE);
        }
        let _service = timer.join().unwrap();
        assert_eq!(reason_of(&ctx), 1);
    });
}

#[test]
fn deadline_vs_reader_below() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let above = timed_because(&background(), 1, 1);
        let (ctx, guard) = above.with_cancel();
        guard.detach();
        let timer = turn(service, 1);
        let seen = ctx.err();
        if seen.is_some() {
            assert_eq!(reason_of(&ctx), 1);
        }
        let _service = timer.join().unwrap();
        assert_eq!(reason_of(&ctx), 1);
    });
}

/// What was done before the cancel that was first is visible to who sees the context done.
#[test]
fn deadline_vs_cancel_vs_reader() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let data = Data::new();
        let (ctx, canceller) = cancellable(&timed(&background(), 1));
        let timer = turn(service, 1);
        let written = data.clone();
        let thread = spawn(move || {
            written.write();
            canceller.cancel();
        });
        if ctx.err() == CANCELLED {
            data.read();
        }
        thread.join().unwrap();
        let _service = timer.join().unwrap();
    });
}

#[test]
fn deadline_vs_first_poll() {
    model_in_all_orders(USUAL, || {
        let probe = Probe::new();
        let service = Service::new();
        let ctx = timed(&background(), 1);
        let timer = turn(service, 1);
        let mut done = ctx.done_owned();
        let ready = poll(&mut done, &probe.waker());
        let _service = timer.join().unwrap();
        assert_eq!(probe.woken(), !ready as usize);
        drop(done);
    });
}

#[test]
fn deadline_vs_future_that_gives_up() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let probe = Probe::new();
        let service = Service::new();
        let ctx = timed(&background(), 1);
        let mut done = ctx.done_owned();
        assert!(!poll(&mut done, &probe.waker()));
        let timer = turn(service, 1);
        drop(done);
        drop(timer.join().unwrap());
    });
}

#[test]
fn deadline_vs_blocked_thread() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let ctx = timed(&background(), 1);
        let timer = turn(service, 1);
        assert_eq!(ctx.blocking_wait(), ContextError::DeadlineExceeded);
        let _service = timer.join().unwrap();
    });
}

#[test]
fn deadline_vs_creation_below() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let ctx = timed_because(&background(), 1, 1);
        let timer = turn(service, 1);
        let (below, guard) = ctx.with_cancel();
        let _service = timer.join().unwrap();
        assert_eq!(reason_of(&below), 1);
        guard.detach();
    });
}

#[test]
fn deadline_vs_creation_of_a_timed_context_below() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let above = timed_because(&background(), 2, 1);
        let timer = turn(service, 2);
        // Earlier: has an entry of its own, which the timer finds now or at the next turn.
        let ctx = timed_because(&above, 1, 2);
        let mut service = timer.join().unwrap();
        let seen = reason_of(&ctx);
        assert!(seen == 1 || seen == 2);
        service.turn(Service::at(2));
        assert_eq!(reason_of(&ctx), seen);
        assert_eq!(reason_of(&above), 1);
    });
}

/// The timer is at it as soon as the deadline is armed: the cause has to be there.
#[test]
fn deadline_with_a_cause_vs_its_creation() {
    model(USUAL, || {
        let timer = turn(Service::new(), 1);
        let ctx = timed_because(&background(), 1, 1);
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(reason_of(&ctx), 1);
    });
}

/// The timer marks two things in each step here: somebody below cancels between two of them.
#[test]
fn deadline_of_many_vs_cancel_below() {
    model(Some(2), || {
        let probe = Probe::new();
        let service = Service::new();
        let ctx = timed(&background(), 1);
        let (parent, canceller) = cancellable(&ctx);
        let between = parent.child_token();
        let child = between.child_token();
        let mut waiting = Box::pin(child.clone().cancelled_owned());
        assert!(!poll(&mut waiting, &probe.waker()));
        let timer = turn(service, 1);
        canceller.cancel();
        assert!(child.is_cancelled());
        drop(timer.join().unwrap());
        assert_eq!((ctx.err(), probe.woken()), (DEADLINE, 1));
    });
}

/// The way back from the end of a chain is in steps too. Somebody in the chain cancels meanwhile; what comes after it inherits
/// from the deadline.
#[test]
fn deadline_of_a_chain_and_a_token_beside_it_vs_cancel_in_the_chain() {
    model(Some(1), || {
        let probe = Probe::new();
        let service = Service::new();
        let ctx = timed(&background(), 1);
        let beside = ctx.child_token();
        let (parent, canceller) = cancellable(&ctx);
        let child = parent.child_token().child_token().child_token();
        let mut waiting = Box::pin(beside.clone().cancelled_owned());
        assert!(!poll(&mut waiting, &probe.waker()));
        let timer = turn(service, 1);
        canceller.cancel();
        assert!(child.is_cancelled());
        drop(timer.join().unwrap());
        assert_eq!(
            beside.cause().unwrap().kind(),
            ContextError::DeadlineExceeded
        );
        assert_eq!(probe.woken(), 1);
    });
}

// ----- threads that notice it -------------------------------------------------------------------

/// It marks the way down to what it waits for, in the middle of the timer's marking.
#[test]
fn deadline_vs_a_thread_that_notices_it_below() {
    model(Some(2), || {
        let probe = Probe::new();
        let service = Service::new();
        let above = timed_because(&background(), 1, 1);
        let (between, canceller) = cancellable(&above);
        let (ctx, _canceller) = cancellable(&between);
        let beside = between.child_token();
        let below = ctx.child_token();
        let mut waits = Box::pin(beside.clone().cancelled_owned());
        assert!(!poll(&mut waits, &probe.waker()));
        let timer = turn(service, 1);
        notice(&ctx, Service::at(1));
        // It goes on as if all above were over, and what is below is.
        assert!(below.is_cancelled());
        assert_eq!(reason_of(&ctx), 1);
        assert_eq!(between.err(), DEADLINE);
        assert!(!canceller.cancel());
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        assert!(beside.is_cancelled());
        assert_eq!(probe.woken(), 1);
    });
}

/// Two of them, of which one is first: what that one begins, a worker brings to its end.
#[test]
fn two_threads_that_notice_a_deadline() {
    model(Some(2), || {
        let probe = Probe::new();
        let mut service = Service::new();
        let above = timed_because(&background(), 1, 1);
        let (one, _one) = cancellable(&above);
        let (other, _other) = cancellable(&above);
        let mut waits = Box::pin(above.child_token().cancelled_owned());
        assert!(!poll(&mut waits, &probe.waker()));
        let thread = spawn(move || {
            notice(&one, Service::at(1));
            reason_of(&one)
        });
        notice(&other, Service::at(1));
        assert_eq!(reason_of(&other), 1);
        assert_eq!(thread.join().unwrap(), 1);
        service.turn(Service::at(1));
        assert_eq!(probe.woken(), 1);
    });
}

/// What it marks is seen by others, from above to below.
#[test]
fn cancel_vs_a_thread_that_notices_a_deadline_below_vs_reader() {
    model(Some(2), || {
        let service = Service::new();
        let (above, guard) = background().with_deadline(Service::at(1));
        let canceller = guard.canceller();
        guard.detach();
        let (between, _between) = cancellable(&above);
        let (ctx, _ctx) = cancellable(&between);
        let reader = {
            let (between, ctx) = (between.clone(), ctx.clone());
            spawn(move || {
                if ctx.err().is_some() {
                    assert_eq!(between.err(), ctx.err());
                    let below = between.child_token();
                    assert_eq!(below.cause().map(|cause| cause.kind()), ctx.err());
                }
            })
        };
        let thread = {
            let ctx = ctx.clone();
            spawn(move || {
                notice(&ctx, Service::at(1));
                assert!(ctx.err().is_some());
            })
        };
        canceller.cancel();
        thread.join().unwrap();
        reader.join().unwrap();
        assert_eq!(between.err(), ctx.err());
        drop(service);
    });
}

// ----- callbacks --------------------------------------------------------------------------------

#[test]
fn deadline_vs_registration_of_a_callback() {
    model_in_all_orders(USUAL, || {
        let runs = Runs::default();
        let service = Service::new();
        let ctx = timed(&background(), 1);
        let timer = turn(service, 1);
        let registration = ctx.on_cancel(runs.callback());
        let _service = timer.join().unwrap();
        assert_eq!(runs.count(), 1);
        assert!(!registration.stop());
    });
}

#[test]
fn deadline_vs_registration_of_an_after_func() {
    model_in_all_orders(USUAL, || {
        let runs = Runs::default();
        let service = Service::new();
        let ctx = timed(&background(), 1);
        let timer = turn(service, 1);
        let registration = ctx.after_func(runs.callback());
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(runs.count(), 1);
        assert!(!registration.stop());
    });
}

#[test]
fn deadline_vs_stop() {
    model_in_all_orders(USUAL, || {
        let runs = Runs::default();
        let service = Service::new();
        let ctx = timed(&background(), 1);
        let registration = ctx.after_func(runs.callback());
        let timer = turn(service, 1);
        let stopped = registration.stop();
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(runs.count(), !stopped as usize);
    });
}

/// An `after_func` callback is handed over by the canceller and taken by the service.
#[test]
fn after_func_vs_two_cancels_and_the_service() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let runs = Runs::default();
        let mut service = Service::new();
        let (ctx, one) = cancellable(&background());
        let (below, two) = cancellable(&ctx);
        drop(ctx.after_func(runs.callback()));
        drop(below.after_func(runs.callback()));
        let thread = spawn(move || two.cancel());
        one.cancel();
        service.turn(Service::at(1));
        thread.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(runs.count(), 2);
    });
}

#[test]
fn after_func_that_is_waited_for_vs_the_service() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        set_thread_number(1);
        let data = Data::new();
        let service = Service::new();
        let (ctx, canceller) = cancellable(&background());
        let written = data.clone();
        let registration = ctx.after_func(move || written.write());
        canceller.cancel();
        let timer = turn(service, 1);
        assert!(!registration.stop_and_wait());
        data.read();
        let _service = timer.join().unwrap();
    });
}

/// Nobody can stop the callback, nobody holds the context: it waits for the deadline nevertheless.
#[test]
fn detached_callback_of_a_dropped_context_vs_deadline() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let runs = Runs::default();
        let service = Service::new();
        let ctx = timed(&background(), 1);
        drop(ctx.on_cancel(runs.callback()));
        let timer = turn(service, 1);
        drop(ctx);
        let _service = timer.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

#[test]
fn detached_callback_of_a_dropped_context_vs_deadline_and_cancel_of_the_parent() {
    // Too many executions in all orders, or at 3.
    model(Some(2), || {
        let runs = Runs::default();
        let service = Service::new();
        let (parent, canceller) = cancellable(&background());
        let ctx = timed_because(&parent, 1, 1);
        drop(ctx.on_cancel(runs.callback()));
        drop(ctx);
        let timer = turn(service, 1);
        canceller.cancel();
        drop((parent, canceller));
        let _service = timer.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

#[test]
fn detached_callback_vs_drop_of_the_context_vs_cancel_of_the_parent() {
    model_in_all_orders(USUAL, || {
        let runs = Runs::default();
        let mut service = Service::new();
        let (parent, canceller) = cancellable(&background());
        let ctx = timed(&parent, 1);
        drop(ctx.on_cancel(runs.callback()));
        let thread = spawn(move || drop(ctx));
        canceller.cancel();
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
        drop((parent, canceller));
        service.turn(Service::at(1));
        assert_eq!(service.scheduled(), 0);
    });
}

#[test]
fn detached_callback_vs_drop_of_all_vs_deadline() {
    // Too many executions in all orders, or at 3.
    model(Some(2), || {
        let runs = Runs::default();
        let service = Service::new();
        let (parent, guard) = background().with_cancel();
        guard.detach();
        let ctx = timed(&parent, 1);
        drop(ctx.on_cancel(runs.callback()));
        let thread = spawn(move || drop(ctx));
        let timer = turn(service, 1);
        drop(parent);
        thread.join().unwrap();
        let _service = timer.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

// ----- contexts that go -------------------------------------------------------------------------

#[test]
fn deadline_vs_drop() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let ctx = timed(&background(), 1);
        let timer = turn(service, 1);
        drop(ctx);
        drop(timer.join().unwrap());
    });
}

#[test]
fn deadline_with_a_cause_vs_drop() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let ctx = timed_because(&background(), 1, 1);
        let timer = turn(service, 1);
        drop(ctx);
        drop(timer.join().unwrap());
    });
}

#[test]
fn deadline_vs_drop_of_two_handles() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let ctx = timed_because(&background(), 1, 1);
        let same = ctx.clone();
        let timer = turn(service, 1);
        let thread = spawn(move || drop(same));
        drop(ctx);
        thread.join().unwrap();
        drop(timer.join().unwrap());
    });
}

/// The timer must not cancel who moves in after the context.
#[test]
fn deadline_vs_drop_and_creation() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let (parent, guard) = background().with_cancel();
        let ctx = timed(&parent, 1);
        let timer = turn(service, 1);
        drop(ctx);
        let (next, next_guard) = parent.with_cancel();
        let _service = timer.join().unwrap();
        assert_eq!(next.err(), None);
        assert_eq!(parent.err(), None);
        next_guard.detach();
        guard.detach();
    });
}

#[test]
fn deadline_with_a_cause_vs_drop_and_creation() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let (parent, guard) = background().with_cancel();
        let ctx = timed_because(&parent, 1, 1);
        let timer = turn(service, 1);
        drop(ctx);
        let (next, next_guard) = parent.with_cancel();
        let _service = timer.join().unwrap();
        assert_eq!(next.err(), None);
        next_guard.detach();
        guard.detach();
    });
}

#[test]
fn deadline_vs_drop_of_the_context_and_its_parent() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let (parent, guard) = background().with_cancel();
        guard.detach();
        let ctx = timed_because(&parent, 1, 1);
        let timer = turn(service, 1);
        drop(parent);
        drop(ctx);
        drop(timer.join().unwrap());
    });
}

#[test]
fn deadline_vs_drop_of_a_parent_with_a_timed_child() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let parent = timed_because(&background(), 1, 1);
        let ctx = timed_because(&parent, 2, 2);
        assert_eq!(ctx.deadline(), Some(Service::at(1)));
        let timer = turn(service, 1);
        drop(parent);
        let _service = timer.join().unwrap();
        assert_eq!(reason_of(&ctx), 1);
    });
}

#[test]
fn deadline_of_the_child_vs_drop_of_the_parent() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let parent = timed_because(&background(), 2, 1);
        let ctx = timed_because(&parent, 1, 2);
        let timer = turn(service, 1);
        drop(parent);
        let mut service = timer.join().unwrap();
        assert_eq!(reason_of(&ctx), 2);
        drop(ctx);
        service.turn(Service::at(2));
        assert_eq!(service.scheduled(), 0);
    });
}

#[test]
fn two_deadlines_vs_drop_of_child_and_parent() {
    // Too many executions in all orders, or at 3.
    model(Some(2), || {
        let service = Service::new();
        let parent = timed_because(&background(), 2, 1);
        let ctx = timed_because(&parent, 1, 2);
        let timer = turn(service, 2);
        drop(parent);
        drop(ctx);
        drop(timer.join().unwrap());
    });
}

#[test]
fn cancel_of_the_parent_vs_drop_of_a_timed_child() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let (parent, canceller) = cancellable(&background());
        let ctx = timed_because(&parent, 1, 1);
        let thread = spawn(move || {
            drop(ctx);
        });
        canceller.cancel();
        thread.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(service.scheduled(), 0);
        drop(parent);
    });
}

#[test]
fn deadline_vs_drop_vs_cancel_of_the_parent() {
    // Too many executions at 2.
    model_in_all_orders(Some(1), || {
        let service = Service::new();
        let (parent, canceller) = cancellable(&background());
        let ctx = timed_because(&parent, 1, 1);
        let thread = spawn(move || drop(ctx));
        let timer = turn(service, 1);
        canceller.cancel();
        drop((parent, canceller));
        thread.join().unwrap();
        drop(timer.join().unwrap());
    });
}

#[test]
fn deadline_of_a_source_vs_drop_of_the_any_of() {
    // Too many executions in all orders, or at 3.
    model(Some(2), || {
        let service = Service::new();
        let (other, guard) = background().with_cancel();
        let source = timed_because(&background(), 1, 1);
        let either = Context::any_of([&other, &source]);
        let timer = turn(service, 1);
        drop(either);
        drop(source);
        drop(timer.join().unwrap());
        assert_eq!(other.err(), None);
        guard.detach();
    });
}

/// The entry's place in the node is the extension's, whatever else comes into it.
#[test]
fn deadline_vs_token_below() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let ctx = timed(&background(), 1);
        let timer = turn(service, 1);
        let token: Token = ctx.child_token();
        drop(ctx);
        let _service = timer.join().unwrap();
        assert!(token.is_cancelled());
        assert!(token.cause().is_some());
    });
}

// ----- the entry, used again --------------------------------------------------------------------

/// The timer puts the entry back to where it belongs, while its owner uses it for another context.
#[test]
fn visit_of_an_armed_entry_vs_drop_and_an_earlier_deadline() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        drop(timed(&background(), 1));
        service.turn(Service::at(0));
        // The timer will look at the entry long before that.
        let ctx = timed(&background(), 3);
        let timer = turn(service, 1);
        drop(ctx);
        let ctx = timed(&background(), 2);
        let mut service = timer.join().unwrap();
        assert_eq!(ctx.err(), None);
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

#[test]
fn visit_of_an_armed_entry_vs_drop_and_a_later_deadline() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        drop(timed(&background(), 1));
        service.turn(Service::at(0));
        let ctx = timed(&background(), 2);
        let timer = turn(service, 1);
        drop(ctx);
        let ctx = timed(&background(), 3);
        let mut service = timer.join().unwrap();
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), None);
        service.turn(Service::at(3));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

#[test]
fn deadline_vs_drop_and_a_later_deadline() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let ctx = timed(&background(), 1);
        service.turn(Service::at(0));
        let timer = turn(service, 1);
        drop(ctx);
        let ctx = timed(&background(), 2);
        let mut service = timer.join().unwrap();
        assert_eq!(ctx.err(), None);
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

/// The word is the same then, but not the node: who takes the entry must see which it is for.
#[test]
fn deadline_vs_drop_and_the_same_deadline() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let ctx = timed(&background(), 1);
        service.turn(Service::at(0));
        let timer = turn(service, 1);
        drop(ctx);
        let ctx = timed(&background(), 1);
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

#[test]
fn deadline_vs_drop_and_an_earlier_deadline() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let ctx = timed(&background(), 2);
        service.turn(Service::at(0));
        let timer = turn(service, 2);
        drop(ctx);
        let ctx = timed(&background(), 1);
        let mut service = timer.join().unwrap();
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

/// Both below one parent, so the node is used again as well.
#[test]
fn deadline_vs_drop_and_a_later_deadline_in_the_same_node() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let (parent, guard) = background().with_cancel();
        let ctx = timed(&parent, 1);
        service.turn(Service::at(0));
        let timer = turn(service, 1);
        drop(ctx);
        let ctx = timed(&parent, 2);
        let mut service = timer.join().unwrap();
        assert_eq!(ctx.err(), None);
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
        assert_eq!(parent.err(), None);
        guard.detach();
    });
}

#[test]
fn visit_of_an_idle_entry_vs_a_later_deadline() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        drop(timed(&background(), 1));
        service.turn(Service::at(0));
        let timer = turn(service, 1);
        let ctx = timed(&background(), 2);
        let mut service = timer.join().unwrap();
        assert_eq!(ctx.err(), None);
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

#[test]
fn visit_of_an_idle_entry_vs_the_same_deadline() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        drop(timed(&background(), 1));
        service.turn(Service::at(0));
        let timer = turn(service, 1);
        let ctx = timed(&background(), 1);
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

/// Out of the inbox into the timer's hands, while its owner has other plans.
#[test]
fn entry_taken_in_vs_drop_and_a_later_deadline() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let ctx = timed(&background(), 1);
        let timer = turn(service, 1);
        drop(ctx);
        let ctx = timed(&background(), 2);
        let mut service = timer.join().unwrap();
        assert_eq!(ctx.err(), None);
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

#[test]
fn visit_vs_drop_and_the_end_of_the_thread() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let thread = spawn(move || drop(timed(&background(), 1)));
        service.turn(Service::at(1));
        thread.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(service.scheduled(), 0);
    });
}

#[test]
fn visit_of_an_armed_entry_vs_the_end_of_the_thread() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let ctx = timed(&background(), 2);
        let thread = spawn(move || drop(ctx));
        service.turn(Service::at(1));
        service.turn(Service::at(2));
        thread.join().unwrap();
        service.turn(Service::at(2));
        assert_eq!(service.scheduled(), 0);
    });
}

#[test]
fn visit_vs_a_full_cache() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let mut service = Service::new();
        let (one, two) = (timed(&background(), 1), timed(&background(), 1));
        service.turn(Service::at(0));
        let timer = turn(service, 1);
        drop(one);
        drop(two);
        let service = timer.join().unwrap();
        assert_eq!(service.scheduled(), 0);
    });
}

/// What is given up goes by the inbox, from where it is in the wheel.
#[test]
fn taking_in_vs_an_entry_that_is_given_up() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let ctx = timed(&background(), 1);
        service.turn(Service::at(0));
        assert_eq!(service.scheduled(), 1);
        let timer = turn(service, 0);
        let thread = spawn(move || drop(ctx));
        thread.join().unwrap();
        let mut service = timer.join().unwrap();
        // This thread's pool has it back, or its room was taken.
        Service::end_of_thread();
        service.turn(Service::at(0));
        assert_eq!(service.scheduled(), 0);
    });
}

/// It is in the wheel for later, and goes to the inbox once more.
#[test]
fn visit_vs_an_entry_that_is_armed_for_earlier() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        drop(timed(&background(), 2));
        service.turn(Service::at(0));
        let timer = turn(service, 2);
        let ctx = timed(&background(), 1);
        let mut service = timer.join().unwrap();
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

#[test]
fn taking_in_vs_an_entry_that_is_armed_for_earlier() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        drop(timed(&background(), 3));
        let timer = turn(service, 0);
        let ctx = timed(&background(), 1);
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(ctx.err(), DEADLINE);
        drop(ctx);
        let next = timed(&background(), 2);
        service.turn(Service::at(2));
        assert_eq!(next.err(), DEADLINE);
    });
}

/// It sleeps until the later deadline: who arms an entry in the inbox for an earlier one has to wake it.
#[test]
fn entry_armed_for_earlier_vs_sleep() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        // The thread has to move it down at 3.
        drop(timed(&background(), 4));
        service.turn(Service::at(0));
        let thread = spawn(move || {
            service.run_until_something_comes();
            service
        });
        let ctx = timed(&background(), 1);
        let mut service = thread.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

/// It is in the inbox, and nobody was woken for it, for its deadline was late: whoever arms it for an earlier one has to.
#[test]
fn entry_in_the_inbox_armed_for_earlier_vs_sleep() {
    model(Some(2), || {
        let mut service = Service::new();
        // The thread has to move it down at 3.
        let later = timed(&background(), 4);
        service.turn(Service::at(0));
        let thread = spawn(move || {
            service.run_until_something_comes();
            service
        });
        drop(timed(&background(), 4));
        let ctx = timed(&background(), 1);
        let mut service = thread.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!((ctx.err(), later.err()), (DEADLINE, None));
    });
}

/// It is pushed once, however often it is armed for earlier before the timer takes it in.
#[test]
fn taking_in_vs_an_entry_that_is_armed_for_earlier_twice() {
    model(USUAL, || {
        let mut service = Service::new();
        drop(timed(&background(), 3));
        service.turn(Service::at(0));
        let timer = turn(service, 0);
        drop(timed(&background(), 2));
        let ctx = timed(&background(), 1);
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

/// Fired on another thread than the timer's, as by a worker.
#[test]
fn worker_vs_drop_and_a_new_deadline_vs_the_timer() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let mut service = Service::new();
        let ctx = timed(&background(), 1);
        let due = service.expire(Service::at(1));
        let worker = spawn(move || due.fire());
        let timer = turn(service, 2);
        drop(ctx);
        let ctx = timed(&background(), 2);
        worker.join().unwrap();
        let mut service = timer.join().unwrap();
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

// ----- the way to the thread --------------------------------------------------------------------

/// The thread as it is: a lost wake-up leaves it sleeping.
#[test]
fn push_of_a_deadline_vs_sleep() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let thread = spawn(move || {
            service.run_until_something_comes();
            service
        });
        let ctx = timed(&background(), 1);
        let mut service = thread.join().unwrap();
        assert_eq!(service.scheduled(), 1);
        service.turn(Service::at(1));
        assert_eq!(ctx.err(), DEADLINE);
    });
}

#[test]
fn push_of_an_earlier_deadline_vs_sleep() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        // The thread has to move it down at 3.
        let later = timed(&background(), 4);
        service.turn(Service::at(0));
        let thread = spawn(move || {
            service.run_until_something_comes();
            service
        });
        let ctx = timed(&background(), 1);
        let mut service = thread.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(ctx.err(), DEADLINE);
        assert_eq!(later.err(), None);
    });
}

#[test]
fn push_of_two_deadlines_vs_sleep() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let mut service = Service::new();
        let other = spawn(|| timed(&background(), 4));
        let thread = spawn(move || {
            while service.scheduled() < 2 {
                service.run_until_something_comes();
            }
            service
        });
        // Later ones need not wake the thread, so the last is the earliest.
        let later = other.join().unwrap();
        let ctx = timed(&background(), 1);
        let mut service = thread.join().unwrap();
        service.turn(Service::at(4));
        assert_eq!((ctx.err(), later.err()), (DEADLINE, DEADLINE));
    });
}

#[test]
fn push_of_a_callback_vs_sleep() {
    model_in_all_orders(USUAL, || {
        let runs = Runs::default();
        let mut service = Service::new();
        let (ctx, canceller) = cancellable(&background());
        drop(ctx.after_func(runs.callback()));
        let thread = spawn(move || {
            service.run_until_something_comes();
            service
        });
        canceller.cancel();
        let _service = thread.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

#[test]
fn push_of_two_callbacks_vs_push_vs_taking() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let runs = Runs::default();
        let mut service = Service::new();
        let (one, first) = cancellable(&background());
        let (two, second) = cancellable(&background());
        drop(one.after_func(runs.callback()));
        drop(two.after_func(runs.callback()));
        let a = spawn(move || first.cancel());
        let b = spawn(move || second.cancel());
        service.turn(Service::at(1));
        a.join().unwrap();
        b.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(runs.count(), 2);
    });
}

#[test]
fn push_of_a_deadline_vs_push_vs_taking() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let mut service = Service::new();
        let a = spawn(|| timed(&background(), 1));
        let b = spawn(|| timed(&background(), 1));
        service.turn(Service::at(1));
        let (a, b) = (a.join().unwrap(), b.join().unwrap());
        service.turn(Service::at(1));
        assert_eq!((a.err(), b.err()), (DEADLINE, DEADLINE));
    });
}
