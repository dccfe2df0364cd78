//! The service's threads: rounds, workers' mailboxes, pools.

use cancel_tree::{Context, Hand, Service, Shared};
use cancel_tree_loom::{
    model, model_in_all_orders, poll, reason_of_context as reason_of, ContextError, Data, Probe,
    Reason, Runs, USUAL,
};
use loom::sync::Notify;
use loom::thread::JoinHandle;
use std::sync::Arc;
use std::task::Wake;

const DEADLINE: Option<ContextError> = Some(ContextError::DeadlineExceeded);

fn timed(n: u64) -> Context {
    let (ctx, guard) = Context::background().with_deadline(Service::at(n));
    guard.detach();
    ctx
}

fn timed_because(n: u64, reason: usize) -> Context {
    let cause = Reason::cause(reason);
    let (ctx, guard) = Context::background().with_deadline_cause(Service::at(n), cause);
    guard.detach();
    ctx
}

fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    cancel_tree_loom::spawn(move || {
        let answer = f();
        Service::end_of_thread();
        answer
    })
}

// ----- rounds -----------------------------------------------------------------------------------

/// Of two workers, each thing is woken and run by one; what one still wakes when its callbacks' turn comes is left to it.
#[test]
fn worker_vs_worker() {
    model_in_all_orders(USUAL, || {
        let probe = Probe::new();
        let mut service = Service::new();
        let ctx = timed(1);
        let mut done = ctx.done_owned();
        assert!(!poll(&mut done, &probe.waker()));
        let round = service.expire(Service::at(1)).share();
        let other = round.clone();
        let thread = spawn(move || other.serve());
        round.serve();
        thread.join().unwrap();
        assert_eq!(probe.woken(), 1);
    });
}

#[test]
fn worker_vs_worker_vs_drop_of_the_context() {
    // Too many executions in all orders, or at 3.
    model(Some(2), || {
        let mut service = Service::new();
        let ctx = timed(1);
        let round = service.expire(Service::at(1)).share();
        let other = round.clone();
        let thread = spawn(move || other.serve());
        let dropping = spawn(move || drop(ctx));
        round.serve();
        thread.join().unwrap();
        dropping.join().unwrap();
    });
}

/// What the worker that wakes has written is visible to who runs the callbacks.
#[test]
fn worker_vs_worker_with_two_deadlines() {
    model(Some(2), || {
        let mut service = Service::new();
        let (one, two) = (timed(1), timed(1));
        let round = service.expire(Service::at(1)).share();
        let other = round.clone();
        let thread = spawn(move || other.serve());
        round.serve();
        thread.join().unwrap();
        assert_eq!((one.err(), two.err()), (DEADLINE, DEADLINE));
    });
}

/// A worker that is through with one round finds the next, or the timer has to send somebody.
#[test]
fn end_of_a_round_vs_the_next_one() {
    model_in_all_orders(USUAL, || {
        let runs = Runs::default();
        let mut service = Service::new();
        let ctx = timed(2);
        drop(ctx.after_func(runs.callback()));
        let first = service.expire(Service::at(1)).share();
        let second = service.expire(Service::at(2)).share();
        let (round, next) = (first.clone(), second.clone());
        let thread = spawn(move || round.serve());
        first.set_next(&next);
        drop(first);
        thread.join().unwrap();
        if !second.is_taken() {
            second.serve();
        }
        assert_eq!(ctx.err(), DEADLINE);
        // The callback was handed over when the context was woken.
        service.turn(Service::at(2));
        assert_eq!(runs.count(), 1);
    });
}

/// A worker that is at one thing for long is led on by the timer: each round's count is then somebody's, and the worker goes
/// on with one that was not there when it began. Nobody else has the first round: who leads on may free it, after all looks
/// at it.
#[test]
fn worker_vs_who_leads_it_on() {
    // Too many executions at 2, at which `mutate.py` asks it for some seconds.
    model(Some(1), || {
        let mut service = Service::new();
        let hand = Hand::new(&service.expire(Service::at(0)).share());
        let ctx = timed(1);
        let first = service.expire(Service::at(1)).share();
        let (worker, round) = (hand.clone(), first.clone());
        let timer = spawn(move || {
            let second = service.expire(Service::at(1)).share();
            first.set_next(&second);
            // What is seen twice is led on, and never past what nobody has taken.
            hand.lead_on(&first);
            if first.is_taken() {
                drop(first);
                hand.lead_on(&second);
            }
            service
        });
        worker.serve(round);
        drop(timer.join().unwrap());
        assert_eq!(ctx.err(), DEADLINE);
    });
}

/// What is in the next round was not there yet when the worker began: it sees it by the way it got there.
#[test]
fn end_of_a_round_vs_the_making_of_the_next_one() {
    model_in_all_orders(Some(2), || {
        let mut service = Service::new();
        let first = service.expire(Service::at(0)).share();
        let round = first.clone();
        let thread = spawn(move || round.serve());
        let ctx = timed_because(1, 1);
        let second = service.expire(Service::at(1)).share();
        first.set_next(&second);
        thread.join().unwrap();
        if !second.is_taken() {
            second.serve();
        }
        assert_eq!(reason_of(&ctx), 1);
    });
}

/// What a task's waker has done is there when the callbacks run, whichever worker runs them.
#[test]
fn wakers_of_one_worker_vs_callbacks_of_another() {
    struct Writing(Data);

    impl Wake for Writing {
        fn wake(self: Arc<Self>) {
            self.0.write();
        }
    }

    model(USUAL, || {
        let data = Data::new();
        let mut service = Service::new();
        let ctx = timed(1);
        let mut done = ctx.clone().done_owned();
        assert!(!poll(&mut done, &Arc::new(Writing(data.clone())).into()));
        let read = data.clone();
        drop(ctx.on_cancel(move || read.read()));
        let round = service.expire(Service::at(1)).share();
        let other = round.clone();
        let thread = spawn(move || other.serve());
        round.serve();
        thread.join().unwrap();
        data.read();
    });
}

// ----- mailboxes ----------------------------------------------------------------------------------

/// A worker goes when it is woken for nothing, as often as it takes.
fn let_go(hand: &Hand) {
    while !hand.is_gone() {
        hand.let_go();
        loom::thread::yield_now();
    }
}

/// A round that is sent is served, whether the worker was about to sleep or to go; otherwise the sender knows.
#[test]
fn sending_vs_a_worker_that_goes() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let nothing: Shared = service.expire(Service::at(0)).share();
        let ctx = timed(1);
        let round = service.expire(Service::at(1)).share();
        let hand = Hand::new(&nothing);
        let worker = hand.clone();
        let thread = spawn(move || worker.work());
        let sent = hand.send_if_idle(&round);
        let_go(&hand);
        thread.join().unwrap();
        assert_eq!(round.is_taken(), sent);
        round.serve();
        assert_eq!(ctx.err(), DEADLINE);
        assert!(hand.is_gone());
    });
}

/// A worker that sleeps, or is about to, is woken for what it is sent, and sees what that is.
#[test]
fn sending_vs_a_worker_that_sleeps() {
    model(Some(2), || {
        let mut service = Service::new();
        let hand = Hand::new(&service.expire(Service::at(0)).share());
        let worker = hand.clone();
        let thread = spawn(move || worker.work());
        let ctx = timed_because(1, 1);
        let served = Arc::new(Notify::new());
        let serving = served.clone();
        drop(ctx.on_cancel(move || serving.notify()));
        let round = service.expire(Service::at(1)).share();
        let mut sent = hand.send_if_idle(&round);
        while !sent && !hand.is_gone() {
            loom::thread::yield_now();
            sent = hand.send_if_idle(&round);
        }
        if sent {
            served.wait();
        }
        let_go(&hand);
        thread.join().unwrap();
        assert_eq!(round.is_taken(), sent);
        round.serve();
        assert_eq!(reason_of(&ctx), 1);
    });
}

// ----- pools --------------------------------------------------------------------------------------

/// The place of an entry comes back to who makes contexts.
#[test]
fn return_vs_taking() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let ctx = timed(1);
        let thread = spawn(move || drop(ctx));
        let next = timed(1);
        thread.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(next.err(), DEADLINE);
        drop(next);
        let last = timed(2);
        service.turn(Service::at(2));
        assert_eq!(last.err(), DEADLINE);
    });
}

#[test]
fn return_vs_the_end_of_the_thread() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let ctx = timed(1);
        service.turn(Service::at(0));
        let thread = spawn(move || drop(ctx));
        Service::end_of_thread();
        thread.join().unwrap();
        service.turn(Service::at(0));
        assert_eq!(service.scheduled(), 0);
    });
}

#[test]
fn return_vs_return_vs_taking() {
    model(Some(2), || {
        let mut service = Service::new();
        let (one, two) = (timed(1), timed(1));
        let first = spawn(move || drop(one));
        let second = spawn(move || drop(two));
        let next = timed(1);
        first.join().unwrap();
        second.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(next.err(), DEADLINE);
    });
}
