//! Deadlines that move, idle timeouts, grace and shields: who moves them, the timer, and who lets go.

use cancel_tree::{
    set_thread_number, CancelGuard, Context, DeadlineGuard, GraceOver, Group, Service, Stop,
};
use cancel_tree_loom::{
    model, model_in_all_orders, poll, reason_of_context as reason_of, ContextError, Probe, Reason,
    USUAL,
};
use loom::sync::Arc;
use loom::thread::JoinHandle;
use std::time::Duration;

const DEADLINE: Option<ContextError> = Some(ContextError::DeadlineExceeded);
/// A while and a half between two of the models' instants: counted from the real clock it is over before the first, from one of
/// them between the next but one and its neighbour.
const WHILE: Duration = Duration::from_secs(3000);

fn background() -> Context {
    Context::background()
}

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

/// Sets the deadline on a thread of its own, which stands still after its step, before it has told the timer.
fn set_and_stop(guard: &Arc<DeadlineGuard>, n: u64) -> (Stop, JoinHandle<bool>) {
    let (guard, stop) = (guard.clone(), Stop::new());
    let stopping = stop.clone();
    let thread = spawn(move || {
        stopping.before_push();
        guard.set(Service::at(n))
    });
    stop.wait();
    (stop, thread)
}

fn go_on((stop, thread): (Stop, JoinHandle<bool>)) {
    stop.go_on();
    assert!(thread.join().unwrap());
}

/// With a deadline at the first of the instants, which the wheel knows.
fn movable(service: &mut Service) -> (Context, DeadlineGuard) {
    let (ctx, guard) = background().with_movable_deadline(Service::at(1));
    service.turn(Service::at(0));
    (ctx, guard)
}

// ----- movable deadlines ----------------------------------------------------------------------

#[test]
fn extend_vs_fire() {
    model(USUAL, || {
        let mut service = Service::new();
        let (ctx, guard) = movable(&mut service);
        let timer = turn(service, 1);
        let in_time = guard.set(Service::at(2));
        let mut service = timer.join().unwrap();
        assert_eq!(ctx.err(), if in_time { None } else { DEADLINE });
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
        guard.into_guard().detach();
    });
}

#[test]
fn extend_vs_fire_of_one_that_waits() {
    model(Some(2), || {
        let probe = Probe::new();
        let mut service = Service::new();
        let (ctx, guard) = movable(&mut service);
        let mut done = ctx.clone().done_owned();
        assert!(!poll(&mut done, &probe.waker()));
        let timer = turn(service, 1);
        let in_time = guard.set(Service::at(2));
        let mut service = timer.join().unwrap();
        assert_eq!(probe.woken(), usize::from(!in_time));
        service.turn(Service::at(2));
        assert_eq!(probe.woken(), 1);
        guard.into_guard().detach();
    });
}

#[test]
fn take_away_vs_fire() {
    model(USUAL, || {
        let mut service = Service::new();
        let (ctx, guard) = movable(&mut service);
        let timer = turn(service, 1);
        let in_time = guard.take_away();
        let mut service = timer.join().unwrap();
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), if in_time { None } else { DEADLINE });
        guard.into_guard().detach();
    });
}

/// The entry is in the wheel for later, and the timer may look at it, or at the inbox, at any moment.
#[test]
fn set_earlier_vs_the_timers_look() {
    model(USUAL, || {
        let mut service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(Service::at(1));
        service.turn(Service::at(0));
        // Put off: the timer comes at the first instant, and finds it moved to the third.
        assert!(guard.set(Service::at(3)));
        let timer = turn(service, 1);
        assert!(guard.set(Service::at(2)));
        let mut service = timer.join().unwrap();
        assert!(!ctx.is_done());
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
        guard.into_guard().detach();
    });
}

/// Taken away, the timer drops it from the wheel when it comes by; set again, it must not be forgotten.
#[test]
fn set_after_taken_away_vs_the_timers_look() {
    model(USUAL, || {
        let mut service = Service::new();
        let (ctx, guard) = movable(&mut service);
        assert!(guard.take_away());
        let timer = turn(service, 1);
        assert!(guard.set(Service::at(2)));
        let mut service = timer.join().unwrap();
        assert!(!ctx.is_done());
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
        guard.into_guard().detach();
    });
}

#[test]
fn take_away_vs_extend_vs_fire() {
    model(Some(2), || {
        let mut service = Service::new();
        let (ctx, guard) = movable(&mut service);
        let guard = Arc::new(guard);
        let timer = turn(service, 1);
        let other = guard.clone();
        let thread = spawn(move || other.set(Service::at(2)));
        let taken = guard.take_away();
        let set = thread.join().unwrap();
        let mut service = timer.join().unwrap();
        assert_eq!(ctx.err(), if taken || set { None } else { DEADLINE });
        let is_left = ctx.deadline().is_some();
        service.turn(Service::at(2));
        assert_eq!(ctx.is_done(), is_left);
    });
}

/// Done at once, by who sets it or by the timer; the last of what was due is woken by a worker.
#[test]
fn set_to_the_past_vs_fire() {
    model(Some(2), || {
        let probe = Probe::new();
        let mut service = Service::new();
        let (ctx, guard) = movable(&mut service);
        let mut done = ctx.clone().done_owned();
        assert!(!poll(&mut done, &probe.waker()));
        let timer = turn(service, 1);
        let in_time = guard.set(std::time::Instant::now());
        if in_time {
            assert_eq!(ctx.err(), DEADLINE);
        }
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!((ctx.err(), probe.woken()), (DEADLINE, 1));
        assert!(ctx.is_own_deadline());
        drop(done);
        drop((ctx, guard));
        drop(service);
    });
}

/// The timer may be through with it before its setter looks again: it was in time all the same.
#[test]
fn set_to_the_past_where_there_was_none_vs_fire() {
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(None);
        let timer = turn(service, 1);
        assert!(guard.set(std::time::Instant::now()));
        assert_eq!(ctx.err(), DEADLINE);
        assert!(!guard.take_away());
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        drop((ctx, guard));
        drop(service);
    });
}

/// The one has queued it, and not yet pushed it, and need wake nobody for it; the other finds it queued, and the timer still
/// awake. Somebody has to wake the timer for the earlier one.
#[test]
fn set_vs_set_for_earlier_vs_sleep() {
    model(Some(2), || {
        let mut service = Service::new();
        // The thread has to move it down at 3.
        let (later, _later_guard) = background().with_deadline(Service::at(4));
        service.turn(Service::at(0));
        let (ctx, guard) = background().with_movable_deadline(None);
        let guard = Arc::new(guard);
        let thread = spawn(move || {
            service.run_until_something_comes();
            service
        });
        let other = guard.clone();
        let other = spawn(move || assert!(other.set(Service::at(6))));
        assert!(guard.set(Service::at(1)));
        other.join().unwrap();
        if ctx.deadline() != Some(Service::at(1)) {
            // It was the last, and the timer may sleep on.
            assert!(guard.set(Service::at(1)));
        }
        let mut service = thread.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!((ctx.err(), later.err()), (DEADLINE, None));
        drop((ctx, guard));
        drop(service);
    });
}

/// The one has queued it, and not yet pushed it: what the other sets is on time all the same.
#[test]
fn set_earlier_vs_set_earlier_still_and_its_time() {
    model(USUAL, || {
        let mut service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(None);
        let guard = Arc::new(guard);
        let other = guard.clone();
        let thread = spawn(move || other.set(Service::at(2)));
        assert!(guard.set(Service::at(1)));
        service.turn(Service::at(1));
        // Or the other one was the last.
        assert!(ctx.is_done() || ctx.deadline() == Some(Service::at(2)));
        thread.join().unwrap();
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
        drop((ctx, guard));
        drop(service);
    });
}

/// The same of one that the wheel has for later, where the first one is late with its push when all is over: the place is
/// given to another deadline by then.
#[test]
fn set_earlier_vs_set_earlier_still_and_its_time_and_the_next_deadline() {
    model(Some(2), || {
        let mut service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(Service::at(3));
        service.turn(Service::at(0));
        let guard = Arc::new(guard);
        let other = guard.clone();
        let thread = spawn(move || other.set(Service::at(2)));
        assert!(guard.set(Service::at(1)));
        service.turn(Service::at(1));
        assert!(ctx.is_done() || ctx.deadline() == Some(Service::at(2)));
        thread.join().unwrap();
        drop((ctx, guard));
        let (next, guard) = background().with_movable_deadline(Service::at(3));
        service.turn(Service::at(2));
        assert!(!next.is_done());
        service.turn(Service::at(3));
        assert_eq!(next.err(), DEADLINE);
        guard.into_guard().detach();
    });
}

/// What the wheel has is not forgotten because somebody is about to push it.
#[test]
fn set_earlier_vs_the_time_of_before() {
    model(USUAL, || {
        let mut service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(Service::at(2));
        service.turn(Service::at(0));
        let guard = Arc::new(guard);
        let other = guard.clone();
        let thread = spawn(move || other.set(Service::at(1)));
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
        thread.join().unwrap();
        drop((ctx, guard));
        drop(service);
    });
}

/// Nor because it is put off after that.
#[test]
fn set_earlier_vs_set_later_and_its_time() {
    model(USUAL, || {
        let mut service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(Service::at(2));
        service.turn(Service::at(0));
        let guard = Arc::new(guard);
        let other = guard.clone();
        let thread = spawn(move || other.set(Service::at(1)));
        assert!(guard.set(Service::at(3)));
        service.turn(Service::at(2));
        service.turn(Service::at(3));
        assert_eq!(ctx.err(), DEADLINE);
        thread.join().unwrap();
        drop((ctx, guard));
        drop(service);
    });
}

/// The stand-in comes up where the deadline has been put off: then the timer knows it.
#[test]
fn set_earlier_vs_set_earlier_still_and_later_again() {
    model(Some(2), || {
        let mut service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(None);
        let guard = Arc::new(guard);
        let other = guard.clone();
        let thread = spawn(move || other.set(Service::at(4)));
        assert!(guard.set(Service::at(1)));
        assert!(guard.set(Service::at(2)));
        service.turn(Service::at(1));
        assert!(!ctx.is_done());
        // One that has come up and is free again.
        assert!(guard.set(Service::at(3)));
        service.turn(Service::at(3));
        assert!(ctx.is_done() || ctx.deadline() == Some(Service::at(4)));
        thread.join().unwrap();
        drop((ctx, guard));
        drop(service);
    });
}

/// A thread stands still before its push, and another one before that of the stand-in: the third has one of its own. Both
/// pushes come after the end, and the place is another deadline's by then.
#[test]
fn set_earlier_by_three_and_its_time() {
    model(USUAL, || {
        let mut service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(None);
        let guard = Arc::new(guard);
        let first = set_and_stop(&guard, 4);
        assert!(guard.set(Service::at(3)));
        service.turn(Service::at(0));
        let second = set_and_stop(&guard, 2);
        assert!(guard.set(Service::at(1)));
        service.turn(Service::at(1));
        assert_eq!(ctx.err(), DEADLINE);
        go_on(first);
        go_on(second);
        drop((ctx, guard));
        let (next, guard) = background().with_movable_deadline(Service::at(3));
        service.turn(Service::at(2));
        assert!(!next.is_done());
        service.turn(Service::at(3));
        assert_eq!(next.err(), DEADLINE);
        guard.into_guard().detach();
    });
}

/// The one that makes a stand-in, and the other that finds it in the list and knows it from nowhere else.
#[test]
fn set_earlier_by_two_beside_one_that_stands_still() {
    model(Some(2), || {
        let mut service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(None);
        let guard = Arc::new(guard);
        let first = set_and_stop(&guard, 4);
        let other = guard.clone();
        let thread = spawn(move || other.set(Service::at(3)));
        assert!(guard.set(Service::at(2)));
        assert!(thread.join().unwrap());
        service.turn(Service::at(2));
        // Or the other one was the last.
        assert!(ctx.is_done() || ctx.deadline() == Some(Service::at(3)));
        service.turn(Service::at(3));
        assert_eq!(ctx.err(), DEADLINE);
        go_on(first);
        drop((ctx, guard));
        drop(service);
    });
}

/// The push comes while the timer looks, whoever was to be pushed.
#[test]
fn set_earlier_by_three_and_its_time_vs_the_pushes() {
    model(Some(2), || {
        let mut service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(None);
        let guard = Arc::new(guard);
        let first = set_and_stop(&guard, 4);
        assert!(guard.set(Service::at(3)));
        service.turn(Service::at(0));
        let second = set_and_stop(&guard, 2);
        first.0.go_on();
        second.0.go_on();
        assert!(guard.set(Service::at(1)));
        service.turn(Service::at(1));
        assert_eq!(ctx.err(), DEADLINE);
        first.1.join().unwrap();
        second.1.join().unwrap();
        drop((ctx, guard));
        drop(service);
    });
}

/// The stand-in comes up, on a thread of its own, when the last owner goes.
#[test]
fn a_stand_in_vs_the_last_owner() {
    model(USUAL, || {
        let service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(None);
        let guard = Arc::new(guard);
        let first = set_and_stop(&guard, 4);
        guard.set(Service::at(1));
        guard.set(Service::at(2));
        go_on(first);
        let timer = turn(service, 1);
        drop(guard);
        drop(ctx);
        drop(timer.join().unwrap());
    });
}

/// A stand-in is used again while the timer looks at it, and at what it stands for: then it is through, without a worker.
#[test]
fn set_earlier_by_a_stand_in_vs_the_timers_look() {
    model(USUAL, || {
        let mut service = Service::new();
        let (ctx, guard) = background().with_movable_deadline(None);
        let guard = Arc::new(guard);
        let first = set_and_stop(&guard, 4);
        assert!(guard.set(Service::at(1)));
        assert!(guard.set(Service::at(3)));
        let timer = spawn(move || {
            let due = service.expire(Service::at(1));
            assert!(due.share().is_taken());
            service
        });
        assert!(guard.set(Service::at(2)));
        service = timer.join().unwrap();
        assert!(!ctx.is_done());
        service.turn(Service::at(2));
        assert_eq!(ctx.err(), DEADLINE);
        go_on(first);
        drop((ctx, guard));
        drop(service);
    });
}

/// The first one's push is over, or not: the timer, about to sleep for longer, is woken by whoever has to.
#[test]
fn set_earlier_vs_the_end_of_a_push_vs_sleep() {
    model(Some(2), || {
        let mut service = Service::new();
        let (later, _later_guard) = background().with_deadline(Service::at(4));
        service.turn(Service::at(0));
        let (ctx, guard) = background().with_movable_deadline(None);
        let guard = Arc::new(guard);
        let first = set_and_stop(&guard, 6);
        let thread = spawn(move || {
            service.run_until_something_comes();
            service
        });
        first.0.go_on();
        assert!(guard.set(Service::at(1)));
        let mut service = thread.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!((ctx.err(), later.err()), (DEADLINE, None));
        first.1.join().unwrap();
        drop((ctx, guard));
        drop(service);
    });
}

#[test]
fn set_vs_cancel_of_the_parent() {
    model_in_all_orders(USUAL, || {
        let mut service = Service::new();
        let (parent, shutdown) = background().with_cancel();
        let (ctx, guard) = parent.with_movable_deadline(Service::at(1));
        service.turn(Service::at(0));
        let thread = spawn(move || shutdown.cancel());
        guard.set(Service::at(2));
        thread.join().unwrap();
        assert!(ctx.is_done() && !guard.set(Service::at(3)));
        drop((ctx, guard, parent));
        service.turn(Service::at(2));
    });
}

#[test]
fn extend_vs_fire_vs_the_last_context() {
    model(Some(2), || {
        let mut service = Service::new();
        let (ctx, guard) = movable(&mut service);
        let timer = turn(service, 1);
        let thread = spawn(move || drop(ctx));
        guard.set(Service::at(2));
        drop(guard);
        thread.join().unwrap();
        drop(timer.join().unwrap());
    });
}

// ----- idle timeouts --------------------------------------------------------------------------

#[test]
fn touch_vs_fire() {
    model_in_all_orders(USUAL, || {
        set_thread_number(1);
        let mut service = Service::new();
        let (ctx, guard) = background().with_idle_timeout(WHILE);
        service.turn(Service::at(0));
        let timer = turn(service, 1);
        guard.touch_at(Service::at(1));
        let mut service = timer.join().unwrap();
        // Whichever was first; if it was the touch, it is over a while after that.
        service.turn(Service::at(1));
        if !ctx.is_done() {
            assert_eq!(ctx.deadline(), Some(Service::at(1) + WHILE));
        }
        service.turn(Service::at(3));
        assert_eq!(ctx.err(), DEADLINE);
        guard.into_guard().detach();
    });
}

/// A touch that is too late moves nothing, not even what is shown.
#[test]
fn touch_vs_fire_by_what_is_shown() {
    model_in_all_orders(USUAL, || {
        set_thread_number(1);
        let mut service = Service::new();
        let (ctx, guard) = background().with_idle_timeout(WHILE);
        let begin = ctx.deadline();
        service.turn(Service::at(0));
        let timer = turn(service, 1);
        guard.touch_at(Service::at(1));
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        if ctx.is_done() {
            // Kept as the timer counts, if the touch came while it looked.
            let shown = ctx.deadline().unwrap();
            assert!(Some(shown) >= begin && shown <= Service::at(1));
            guard.touch_at(Service::at(2));
            assert_eq!(ctx.deadline(), Some(shown));
        }
        guard.into_guard().detach();
    });
}

/// Who finds that it has passed finds when.
#[test]
fn fire_of_one_that_was_put_off_vs_a_look_at_its_deadline() {
    model_in_all_orders(USUAL, || {
        set_thread_number(1);
        let mut service = Service::new();
        let (ctx, guard) = background().with_idle_timeout(WHILE);
        service.turn(Service::at(0));
        guard.touch_at(Service::at(1));
        service.turn(Service::at(1));
        let timer = turn(service, 3);
        assert_eq!(ctx.deadline(), Some(Service::at(1) + WHILE));
        drop(timer.join().unwrap());
        assert!(ctx.is_done());
        guard.into_guard().detach();
    });
}

/// Two threads touch: the later touch counts.
#[test]
fn touch_vs_touch() {
    model(USUAL, || {
        set_thread_number(1);
        let mut service = Service::new();
        let (ctx, guard) = background().with_idle_timeout(WHILE);
        let guard = Arc::new(guard);
        let other = guard.clone();
        let thread = spawn(move || {
            set_thread_number(2);
            other.touch_at(Service::at(1));
        });
        guard.touch_at(Service::at(0));
        guard.touch_at(Service::at(2));
        thread.join().unwrap();
        assert_eq!(ctx.deadline(), Some(Service::at(2) + WHILE));
        service.turn(Service::at(3));
        assert!(!ctx.is_done());
        service.turn(Service::at(4));
        assert!(ctx.is_done());
    });
}

/// Of threads that have no slot of their own, too.
#[test]
fn touch_vs_touch_without_slots() {
    model(USUAL, || {
        set_thread_number(1);
        let mut service = Service::new();
        let (ctx, guard) = background().with_idle_timeout(WHILE);
        guard.touch_at(Service::at(0));
        let guard = Arc::new(guard);
        let other = guard.clone();
        let thread = spawn(move || {
            set_thread_number(2);
            other.touch_at(Service::at(1));
        });
        set_thread_number(3);
        guard.touch_at(Service::at(2));
        thread.join().unwrap();
        assert_eq!(ctx.deadline(), Some(Service::at(2) + WHILE));
        service.turn(Service::at(3));
        assert!(!ctx.is_done());
    });
}

/// The timer has taken it, to put it off, when the last owner goes.
#[test]
fn put_off_vs_the_last_owner() {
    model(USUAL, || {
        set_thread_number(1);
        let mut service = Service::new();
        let (ctx, guard) = background().with_idle_timeout(WHILE);
        service.turn(Service::at(0));
        guard.touch_at(Service::at(1));
        let timer = turn(service, 1);
        drop(ctx);
        drop(guard);
        drop(timer.join().unwrap());
    });
}

// ----- grace ----------------------------------------------------------------------------------

/// The grace of a parent that is cancelled for the reason 1.
fn grace() -> (Context, CancelGuard) {
    let (parent, shutdown) = background().with_cancel();
    (parent.with_grace(WHILE), shutdown)
}

fn first_reason(ctx: &Context) -> usize {
    let cause = ctx.cause().unwrap();
    let over = cause.find::<GraceOver>().unwrap();
    over.first().find::<Reason>().unwrap().number()
}

#[test]
fn soft_vs_shield() {
    model(Some(2), || {
        let mut service = Service::new();
        let (ctx, shutdown) = grace();
        let thread = spawn(move || shutdown.cancel_with(Reason::cause(1)));
        let shield = ctx.shield();
        assert!(!shield.is_done());
        thread.join().unwrap();
        assert!(ctx.is_done() && !shield.is_done());
        service.turn(Service::at(1));
        assert_eq!(first_reason(&shield), 1);
    });
}

/// Of what is done the shield has a bound at once, however far the soft cancel has come.
#[test]
fn soft_vs_the_bound_of_a_shield() {
    model(Some(2), || {
        let mut service = Service::new();
        let (ctx, shutdown) = grace();
        let thread = spawn(move || {
            // A step that meets the cancel's.
            let (ctx, guard) = ctx.with_cancel();
            guard.detach();
            let shield = ctx.is_done().then(|| ctx.shield());
            if let Some(shield) = &shield {
                assert!(!shield.is_done() && shield.deadline().is_some());
            }
            shield
        });
        shutdown.cancel_with(Reason::cause(1));
        let shield = thread.join().unwrap();
        service.turn(Service::at(1));
        if let Some(shield) = shield {
            assert_eq!(first_reason(&shield), 1);
        }
    });
}

#[test]
fn shield_vs_the_end_of_the_grace() {
    model(Some(2), || {
        let service = Service::new();
        let (ctx, shutdown) = grace();
        shutdown.cancel_with(Reason::cause(1));
        let timer = turn(service, 1);
        let shield = ctx.shield();
        let _service = timer.join().unwrap();
        assert_eq!(first_reason(&shield), 1);
    });
}

#[test]
fn cancel_of_a_shielded_one_vs_the_end_of_the_grace() {
    model(Some(2), || {
        let service = Service::new();
        let (ctx, shutdown) = grace();
        let (cleanup, guard) = ctx.shield().with_cancel();
        shutdown.cancel_with(Reason::cause(1));
        let timer = turn(service, 1);
        let first = guard.cancel_with(Reason::cause(2));
        let _service = timer.join().unwrap();
        if first {
            assert_eq!(reason_of(&cleanup), 2);
        } else {
            assert_eq!(first_reason(&cleanup), 1);
        }
    });
}

#[test]
fn soft_vs_creation_of_the_grace() {
    // Too many executions at 2: bound 1.
    model(Some(1), || {
        let mut service = Service::new();
        let (parent, shutdown) = background().with_cancel();
        let thread = spawn(move || shutdown.cancel_with(Reason::cause(1)));
        let ctx = parent.with_grace(WHILE);
        let shield = ctx.shield();
        thread.join().unwrap();
        assert!(ctx.is_done() && !shield.is_done());
        service.turn(Service::at(1));
        assert_eq!(first_reason(&shield), 1);
    });
}

#[test]
fn soft_vs_hard() {
    model(Some(2), || {
        let (outer, shutdown) = grace();
        // Its own cancel, as an error in it, grants no grace.
        let group = Group::new(&outer);
        let shield = group.context().shield();
        let thread = spawn(move || shutdown.cancel_with(Reason::cause(1)));
        group.cancel_with(Reason::cause(2));
        assert_eq!(reason_of(&shield), 2);
        thread.join().unwrap();
        let stands = reason_of(group.context());
        assert!(stands == 1 || stands == 2);
        drop((group, shield, outer));
        drop(Service::new());
    });
}

#[test]
fn soft_vs_the_last_context_of_the_grace() {
    // Too many executions at 2: bound 1. All orders: what the last owner finds is no more than two loads.
    model_in_all_orders(Some(1), || {
        let mut service = Service::new();
        let (ctx, shutdown) = grace();
        let thread = spawn(move || shutdown.cancel_with(Reason::cause(1)));
        drop(ctx);
        thread.join().unwrap();
        // Nothing is left that is due.
        service.turn(Service::at(1));
    });
}

/// The shield is what is left of it: it keeps what starts the clock.
#[test]
fn soft_vs_all_but_the_shield() {
    model(Some(2), || {
        let mut service = Service::new();
        let (ctx, shutdown) = grace();
        let shield = ctx.shield();
        let thread = spawn(move || shutdown.cancel_with(Reason::cause(1)));
        drop(ctx);
        thread.join().unwrap();
        assert!(!shield.is_done());
        service.turn(Service::at(1));
        assert_eq!(first_reason(&shield), 1);
    });
}

/// A token below the shield is what is left of it: the hard token is kept by that, and keeps what starts its clock.
#[test]
fn soft_vs_all_but_a_token_below_the_shield() {
    // Too many executions at 2: bound 1.
    model(Some(1), || {
        let mut service = Service::new();
        let (ctx, shutdown) = grace();
        let token = ctx.shield().child_token();
        let thread = spawn(move || shutdown.cancel_with(Reason::cause(1)));
        drop(ctx);
        thread.join().unwrap();
        assert!(!token.is_cancelled());
        service.turn(Service::at(1));
        let cause = token.cause().unwrap();
        let over = cause.find::<GraceOver>().unwrap();
        assert_eq!(over.first().find::<Reason>().unwrap().number(), 1);
    });
}

#[test]
fn soft_vs_the_last_token_below_the_shield() {
    // Too many executions at 2: bound 1.
    model(Some(1), || {
        let (ctx, shutdown) = grace();
        let token = ctx.shield().child_token();
        drop(ctx);
        let thread = spawn(move || shutdown.cancel_with(Reason::cause(1)));
        drop(token);
        thread.join().unwrap();
        drop(Service::new());
    });
}

#[test]
fn the_end_of_the_grace_vs_the_last_shield() {
    // Too many executions at 2: bound 1.
    model(Some(1), || {
        let service = Service::new();
        let (ctx, shutdown) = grace();
        let shield = ctx.shield();
        shutdown.cancel();
        let timer = turn(service, 1);
        drop(ctx);
        drop(shield);
        drop(timer.join().unwrap());
    });
}

/// A grace below what is cancelled on its own, beside the cancel of all of it.
struct Nested {
    shutdown: CancelGuard,
    middle: CancelGuard,
    ctx: Context,
}

fn nested() -> Nested {
    let (root, shutdown) = background().with_cancel();
    let (below, middle) = root.with_cancel();
    let ctx = below.with_grace(WHILE);
    Nested {
        shutdown,
        middle,
        ctx,
    }
}

/// The grace begins for the reason that its context has, whichever of the two starts it.
#[test]
fn soft_vs_a_cancel_above_it() {
    model(Some(2), || {
        let mut service = Service::new();
        let Nested {
            shutdown,
            middle,
            ctx,
        } = nested();
        let shield = ctx.shield();
        let thread = spawn(move || _ = middle.cancel_with(Reason::cause(2)));
        shutdown.cancel_with(Reason::cause(1));
        thread.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(first_reason(&shield), reason_of(&ctx));
    });
}

/// The same of two on its way, both of which may be half way when the cancel of all comes by.
#[test]
fn soft_vs_two_cancels_above_it() {
    // Three threads: bound 1.
    model(Some(1), || {
        let mut service = Service::new();
        let (root, shutdown) = background().with_cancel();
        let (upper, guards_upper) = root.with_cancel();
        let (lower, guards_lower) = upper.with_cancel();
        let ctx = lower.with_grace(WHILE);
        let shield = ctx.shield();
        drop((root, upper, lower));
        let a = spawn(move || _ = guards_upper.cancel_with(Reason::cause(2)));
        let b = spawn(move || _ = guards_lower.cancel_with(Reason::cause(3)));
        shutdown.cancel_with(Reason::cause(1));
        a.join().unwrap();
        b.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(first_reason(&shield), reason_of(&ctx));
    });
}

/// The cause that is half way goes with its token, which nobody keeps but what is below.
#[test]
fn soft_vs_a_cancel_above_it_whose_token_goes() {
    model(Some(2), || {
        let Nested {
            shutdown,
            middle,
            ctx,
        } = nested();
        let thread = spawn(move || shutdown.cancel_with(Reason::cause(1)));
        middle.cancel_with(Reason::cause(2));
        drop(middle);
        drop(ctx);
        thread.join().unwrap();
        drop(Service::new());
    });
}

/// The same, and a token below the shield, which keeps it, goes on another thread.
#[test]
fn soft_vs_a_cancel_above_it_vs_the_last_token_below_the_shield() {
    // Three threads: bound 1.
    model(Some(1), || {
        let Nested {
            shutdown,
            middle,
            ctx,
        } = nested();
        let token = ctx.shield().child_token();
        drop(ctx);
        let thread = spawn(move || shutdown.cancel_with(Reason::cause(1)));
        let other = spawn(move || drop(token));
        middle.cancel_with(Reason::cause(2));
        drop(middle);
        thread.join().unwrap();
        other.join().unwrap();
        drop(Service::new());
    });
}
