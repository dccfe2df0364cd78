//! Phases, shields, and deadlines that move, rule by rule.

use cancel_tree::{
    CancelGuard, CancellationToken, Context, ContextError, DoneSignal, ForeignContext, GraceOver,
    Group, IdleTimeout,
};
use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::sync::{mpsc, Arc, Mutex};
use std::task::{self, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Option<ContextError> = Some(ContextError::DeadlineExceeded);
const CANCELLED: Option<ContextError> = Some(ContextError::Cancelled);
const LONG: Duration = Duration::from_secs(600);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Long enough for what must come, short enough for a test that fails.
fn comes(ctx: &Context) -> ContextError {
    ctx.blocking_wait_timeout(Duration::from_secs(60))
        .expect("it must be done by now")
}

/// For what has to be seen before a time is over. A machine may take longer than that for it: then nothing was seen, the
/// attempt ends with `None`, and begins anew with twice the time.
fn in_time(unit: Duration, attempt: impl Fn(Duration) -> Option<()>) {
    (0..10)
        .find_map(|n| attempt(unit * (1 << n)))
        .expect("no attempt was in time");
}

/// What has been done by now has been done before that.
fn before(end: Instant) -> Option<()> {
    (Instant::now() < end).then_some(())
}

// ----- movable deadlines ----------------------------------------------------------------------

#[test]
fn a_movable_deadline_passes() {
    let start = Instant::now();
    let (ctx, guard) = Context::background().with_movable_deadline(start + ms(20));
    let (below, _below) = ctx.with_cancel();
    assert_eq!(comes(&below), ContextError::DeadlineExceeded);
    assert!(start.elapsed() >= ms(20));
    assert_eq!(ctx.err(), DEADLINE);
    assert!(ctx.is_own_deadline() && !below.is_own_deadline());
    assert!(!guard.set(Instant::now() + LONG));
    assert!(!guard.extend(LONG));
    assert!(!guard.take_away());
    assert_eq!(ctx.deadline(), Some(start + ms(20)));
}

#[test]
fn without_a_waiter_the_timer_notices() {
    let (ctx, _guard) = Context::background().with_movable_deadline(Instant::now() + ms(5));
    let (say, hear) = mpsc::channel();
    let _registration = ctx.on_cancel(move || say.send(()).unwrap());
    hear.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(ctx.err(), DEADLINE);
}

#[test]
fn extended_it_passes_later() {
    in_time(ms(30), |unit| {
        let start = Instant::now();
        let (ctx, guard) = Context::background().with_movable_deadline(start + unit);
        let extended = guard.extend(2 * unit);
        before(start + unit)?;
        assert!(extended);
        assert_eq!(ctx.deadline(), Some(start + 3 * unit));
        assert_eq!(comes(&ctx), ContextError::DeadlineExceeded);
        assert!(start.elapsed() >= 3 * unit);
        Some(())
    });
}

#[test]
fn extended_while_a_thread_waits() {
    in_time(ms(50), |unit| {
        let start = Instant::now();
        let (ctx, guard) = Context::background().with_movable_deadline(start + unit);
        let waiter = thread::spawn({
            let ctx = ctx.clone();
            move || (comes(&ctx), Instant::now())
        });
        thread::sleep(unit / 5);
        let extended = guard.extend(unit);
        before(start + unit)?;
        assert!(extended);
        let (error, when) = waiter.join().unwrap();
        assert_eq!(error, ContextError::DeadlineExceeded);
        assert!(when - start >= 2 * unit);
        Some(())
    });
}

#[test]
fn set_earlier_it_passes_earlier() {
    let (ctx, guard) = Context::background().with_movable_deadline(Instant::now() + LONG);
    let waiter = thread::spawn({
        let ctx = ctx.clone();
        move || comes(&ctx)
    });
    thread::sleep(ms(5));
    assert!(guard.set_timeout(ms(20)));
    assert_eq!(waiter.join().unwrap(), ContextError::DeadlineExceeded);
}

#[test]
fn set_to_the_past_it_is_done() {
    let (ctx, guard) = Context::background().with_movable_deadline(None);
    assert_eq!(ctx.deadline(), None);
    assert!(guard.set(Instant::now()));
    assert_eq!(ctx.err(), DEADLINE);
    let (ctx, guard) = Context::background().with_movable_deadline(Instant::now() + LONG);
    assert!(guard.set(Instant::now() - ms(1)));
    assert_eq!(ctx.err(), DEADLINE);
}

/// The timer's thread may be through with it before `set` returns: the answer is the same.
#[test]
fn set_to_the_past_beside_the_timer() {
    for round in 0..5_000 {
        let (ctx, guard) = Context::background().with_movable_deadline(None);
        assert!(guard.set(Instant::now()), "round {round}");
        assert_eq!(ctx.err(), DEADLINE);
        assert!(!guard.set_timeout(LONG));
    }
}

#[test]
fn it_is_kept_to_the_nanosecond() {
    let (ctx, guard) = Context::background().with_movable_deadline(None);
    let hour = Instant::now() + Duration::from_secs(3600);
    // Where seconds turn over, and up to a hundred years away.
    let turns = (0..20).map(|n| Duration::from_nanos(n * 99_999_999));
    let far = (0..62).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]);
    for after in turns.chain(far.map(Duration::from_nanos)) {
        let Some(deadline) = hour.checked_add(after) else {
            continue;
        };
        assert!(guard.set(deadline));
        assert_eq!(ctx.deadline(), Some(deadline), "{after:?} later");
    }
}

/// In a process of its own: in this one other tests use the clock.
#[test]
fn one_that_has_passed_before_the_first_use_is_shown_as_it_was_said() {
    const ALONE: &str = "CANCEL_TREE_FIRST_USE";
    if std::env::var_os(ALONE).is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .arg("one_that_has_passed_before_the_first_use_is_shown_as_it_was_said")
            .env(ALONE, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        return;
    }
    let Some(past) = Instant::now().checked_sub(ms(900)) else {
        return; // A clock that has just begun.
    };
    let (ctx, guard) = Context::background().with_movable_deadline(past);
    assert_eq!((ctx.err(), ctx.deadline()), (DEADLINE, Some(past)));
    assert!(!guard.set_timeout(LONG));
    assert_eq!(ctx.deadline(), Some(past));
}

#[test]
fn taken_away_it_does_not_pass() {
    in_time(ms(20), |unit| {
        let end = Instant::now() + unit;
        let (ctx, guard) = Context::background().with_movable_deadline(end);
        let taken = guard.take_away();
        before(end)?;
        assert!(taken);
        assert_eq!(ctx.deadline(), None);
        assert_eq!(ctx.blocking_wait_timeout(3 * unit), None);
        // Nor does one that there is none of become later.
        assert!(guard.extend(ms(1)));
        assert_eq!(ctx.deadline(), None);
        assert!(guard.set_timeout(ms(10)));
        assert_eq!(comes(&ctx), ContextError::DeadlineExceeded);
        Some(())
    });
}

#[test]
fn moved_back_and_forth() {
    let (ctx, guard) = Context::background().with_movable_deadline(None);
    let start = Instant::now();
    for round in 0..2_000 {
        assert!(guard.set_timeout(match round % 4 {
            0 => LONG,
            1 => Duration::from_secs(50),
            2 => Duration::from_secs(1000),
            _ => Duration::from_secs(30),
        }));
        if round % 7 == 0 {
            assert!(guard.take_away());
        }
    }
    assert!(guard.set(start + ms(60)));
    assert_eq!(ctx.deadline(), Some(start + ms(60)));
    assert_eq!(comes(&ctx), ContextError::DeadlineExceeded);
    assert!(start.elapsed() >= ms(60));
}

#[test]
fn moving_what_is_cancelled_is_too_late() {
    let (ctx, guard) = Context::background().with_movable_deadline(Instant::now() + LONG);
    guard.cancel();
    assert!(!guard.extend(LONG) && !guard.take_away() && !guard.set_timeout(LONG));
    assert_eq!(ctx.err(), CANCELLED);
    assert!(!ctx.is_own_deadline());
    let (ctx, guard) = ctx.with_movable_deadline(Instant::now());
    assert!(!guard.set_timeout(LONG));
    assert_eq!(ctx.err(), CANCELLED);
}

#[test]
fn dropping_the_guard_cancels() {
    let (ctx, guard) = Context::background().with_movable_deadline(Instant::now() + LONG);
    drop(guard);
    assert_eq!(ctx.err(), CANCELLED);
    let (ctx, guard) = Context::background().with_idle_timeout(LONG);
    drop(guard);
    assert_eq!(ctx.err(), CANCELLED);
}

#[test]
fn below_it_a_later_deadline_counts_again() {
    in_time(ms(30), |unit| {
        let start = Instant::now();
        let (ctx, guard) = Context::background().with_movable_deadline(start + unit);
        let (below, _below) = ctx.with_deadline(start + 3 * unit);
        let with_value = below.with_value(7);
        assert_eq!(with_value.deadline(), Some(start + unit));
        let set = guard.set(start + LONG);
        before(start + unit)?;
        assert!(set);
        assert_eq!(with_value.deadline(), Some(start + 3 * unit));
        assert_eq!(comes(&with_value), ContextError::DeadlineExceeded);
        assert!(start.elapsed() >= 3 * unit);
        assert!(with_value.is_own_deadline() && !ctx.is_done());
        Some(())
    });
}

#[test]
fn those_below_ask_whatever_is_in_between() {
    let start = Instant::now();
    let (ctx, guard) = Context::background().with_movable_deadline(start + LONG);
    let (far, _far) = Context::background().with_deadline(start + 3 * LONG);
    let asked = [
        ctx.with_cancel().0,
        Context::any_of([&far, &ctx]),
        ctx.child_token().child_token().context(),
        ctx.with_deadline(start + 2 * LONG).0.with_value(1),
    ];
    assert!(guard.extend(ms(1500)));
    for (i, ctx) in asked.iter().enumerate() {
        // The guards of two of them are gone: they are done, and that changes no deadline.
        assert_eq!(ctx.deadline(), Some(start + LONG + ms(1500)), "{i}");
    }
    assert_eq!(ctx.without_cancel().deadline(), None);
    drop(guard);
    let (born, _born) = ctx.with_cancel();
    assert_eq!(born.deadline(), Some(start + LONG + ms(1500)));
}

#[test]
fn a_moving_deadline_keeps_no_token() {
    let (ctx, guard) = Context::background().with_movable_deadline(Instant::now() + LONG);
    let weak = ctx.child_token();
    let held = weak.downgrade();
    drop((ctx, weak));
    guard.into_guard().detach();
    assert!(held.upgrade().is_none());
    let (ctx, guard) = Context::background().with_idle_timeout(LONG);
    let token = ctx.child_token();
    let held = token.downgrade();
    drop(ctx);
    drop(token);
    guard.into_guard().detach();
    assert!(held.upgrade().is_none());
}

#[test]
fn movers_and_the_timer() {
    // Whoever is told that it was in time has moved it: then it has not passed.
    for round in 0..300 {
        let due = Instant::now() + Duration::from_micros(200 + round % 10 * 20);
        let (ctx, guard) = Context::background().with_movable_deadline(due);
        let answers: Vec<bool> = thread::scope(|scope| {
            let movers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        while Instant::now() < due {
                            std::hint::spin_loop();
                        }
                        guard.extend(LONG)
                    })
                })
                .collect();
            movers.into_iter().map(|m| m.join().unwrap()).collect()
        });
        if answers.contains(&true) {
            assert_eq!(ctx.blocking_wait_timeout(ms(1)), None);
        } else {
            assert_eq!(comes(&ctx), ContextError::DeadlineExceeded);
        }
    }
}

// ----- idle timeouts --------------------------------------------------------------------------

#[test]
fn idle_it_ends() {
    let start = Instant::now();
    let (ctx, _guard) = Context::background().with_idle_timeout(ms(20));
    assert_eq!(comes(&ctx), ContextError::DeadlineExceeded);
    assert!(start.elapsed() >= ms(20));
    let cause = ctx.cause().unwrap();
    assert_eq!(cause.kind(), ContextError::DeadlineExceeded);
    assert_eq!(
        cause.downcast_ref::<IdleTimeout>().unwrap().timeout(),
        ms(20)
    );
    assert!(ctx.is_own_deadline());
}

#[test]
fn touched_it_goes_on() {
    in_time(ms(200), |unit| {
        let mut last = Instant::now();
        let (ctx, guard) = Context::background().with_idle_timeout(unit);
        for _ in 0..20 {
            thread::sleep(unit / 10);
            let now = Instant::now();
            guard.touch();
            before(last + unit)?;
            last = now;
        }
        let done = ctx.is_done();
        before(last + unit)?;
        assert!(!done);
        assert!(ctx.deadline().unwrap() >= last + unit);
        assert_eq!(comes(&ctx), ContextError::DeadlineExceeded);
        assert!(last.elapsed() >= unit);
        Some(())
    });
}

#[test]
fn touched_by_others() {
    let (ctx, guard) = Context::background().with_idle_timeout(LONG);
    let late = Instant::now();
    for _ in 0..6 {
        thread::scope(|scope| _ = scope.spawn(|| guard.touch()));
    }
    assert!(ctx.deadline().unwrap() >= late + LONG);
    // One that was stopped on its way is not heard instead of those that came later.
    let before = ctx.deadline();
    thread::scope(|scope| {
        scope.spawn(|| guard.touch_at(late));
    });
    assert_eq!(ctx.deadline(), before);
}

#[test]
fn an_idle_timeout_that_never_ends() {
    let (ctx, guard) = Context::background().with_idle_timeout(Duration::MAX);
    guard.touch();
    assert_eq!(ctx.deadline(), None);
    assert_eq!(ctx.blocking_wait_timeout(ms(5)), None);
}

#[test]
fn touched_for_a_time_that_will_not_come_it_does_not_end() {
    let far = Instant::now() + Duration::from_secs(600 * 365 * 24 * 3600);
    in_time(ms(5), |unit| {
        let start = Instant::now();
        // By the timer, and by a thread that waits.
        let (ctx, guard) = Context::background().with_idle_timeout(unit);
        let (other, other_guard) = Context::background().with_idle_timeout(unit);
        guard.touch_at(far);
        other_guard.touch_at(far);
        before(start + unit)?;
        assert_eq!((ctx.deadline(), other.deadline()), (None, None));
        assert_eq!(ctx.blocking_wait_timeout(10 * unit), None);
        assert!(!other.is_done());
        Some(())
    });
}

#[test]
fn an_idle_timeout_of_nothing() {
    let (ctx, _guard) = Context::background().with_idle_timeout(Duration::ZERO);
    assert_eq!(comes(&ctx), ContextError::DeadlineExceeded);
}

#[test]
fn many_idle_connections() {
    in_time(ms(100), |unit| {
        let mut last = Instant::now();
        let all: Vec<_> = (0..500)
            .map(|i| Context::background().with_idle_timeout(unit + ms(i % 7)))
            .collect();
        for _ in 0..20 {
            thread::sleep(unit / 10);
            let now = Instant::now();
            all.iter().step_by(2).for_each(|(_, guard)| guard.touch());
            before(last + unit)?;
            last = now;
        }
        for (ctx, _) in all.iter().skip(1).step_by(2) {
            assert_eq!(comes(ctx), ContextError::DeadlineExceeded);
        }
        for (ctx, _) in all.iter().step_by(2) {
            assert_eq!(comes(ctx), ContextError::DeadlineExceeded);
            assert!(last.elapsed() >= unit);
        }
        Some(())
    });
}

// ----- whose deadline -------------------------------------------------------------------------

#[test]
fn whose_deadline_it_was() {
    let (outer, _outer) = Context::background().with_timeout(ms(10));
    let (inner, _inner) = outer.with_timeout(LONG);
    comes(&inner);
    assert!(outer.is_own_deadline() && !inner.is_own_deadline());

    let (outer, _outer) = Context::background().with_timeout(LONG);
    let (inner, _inner) = outer.with_timeout_cause(ms(10), "too slow");
    let (below, _below) = inner.with_timeout(LONG);
    comes(&below);
    assert!(inner.is_own_deadline() && inner.with_value(3).is_own_deadline());
    assert!(!below.is_own_deadline() && !outer.is_own_deadline());

    // In the past from the beginning.
    let (past, _past) = outer.with_deadline(Instant::now());
    assert!(past.is_own_deadline());
    let (below, _below) = past.with_deadline(Instant::now());
    assert!(!below.is_own_deadline());

    // The same of a parent of another kind, whether the timer is faster or not.
    struct Theirs(Option<Instant>);
    impl ForeignContext for Theirs {
        fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
            if self.0.is_none() {
                signal.cancel_with(ContextError::DeadlineExceeded);
            }
            Box::new(signal)
        }
        fn deadline(&self) -> Option<Instant> {
            self.0
        }
    }
    for _ in 0..100 {
        assert!(Context::below(Theirs(Some(Instant::now()))).is_own_deadline());
    }
    assert!(!Context::below(Theirs(None)).is_own_deadline());

    // Somebody says so, which is no deadline of the context's.
    let (ctx, guard) = outer.with_timeout(LONG);
    guard.cancel_with(ContextError::DeadlineExceeded);
    assert_eq!(ctx.err(), DEADLINE);
    assert!(!ctx.is_own_deadline());
    assert!(!Context::background().is_own_deadline());
}

#[test]
fn noticed_by_the_timer_it_is_own_too() {
    let (ctx, _guard) = Context::background().with_timeout(ms(5));
    while !ctx.is_done() {
        thread::yield_now();
    }
    assert!(ctx.is_own_deadline());
}

#[test]
fn what_is_ready_is_not_lost() {
    let (ctx, _guard) = Context::background().with_movable_deadline(Instant::now() + ms(10));
    let (send, receive) = futures::channel::oneshot::channel();
    let _registration = ctx.on_cancel(move || send.send(7).unwrap());
    let outcome = futures::executor::block_on(ctx.run(async {
        let value = receive.await;
        value.unwrap()
    }));
    // Either it came first, or it was not there yet; what has been sent before the end is not lost.
    assert!(matches!(
        outcome,
        Ok(7) | Err(ContextError::DeadlineExceeded)
    ));
    let (ctx, guard) = Context::background().with_movable_deadline(None);
    let mut polls = 0;
    let ready_at_last = std::future::poll_fn(|_| {
        polls += 1;
        if polls == 1 {
            guard.set(Instant::now());
            return task::Poll::Pending;
        }
        task::Poll::Ready(polls)
    });
    assert_eq!(futures::executor::block_on(ctx.run(ready_at_last)), Ok(2));
}

// ----- grace and shields ----------------------------------------------------------------------

#[test]
fn soft_first_then_hard() {
    in_time(ms(60), |unit| {
        let (server, shutdown) = Context::background().with_cancel();
        let ctx = server.with_grace(unit);
        let (request, _request) = ctx.with_cancel();
        let early = request.shield();
        assert!(early.is_shielded() && !request.is_shielded());
        assert_eq!(early.deadline(), None);
        let start = Instant::now();
        shutdown.cancel_with("shutting down");
        assert_eq!(request.err(), CANCELLED);
        let late = request.shield();
        let hard = early.is_done() || late.is_done();
        before(start + unit)?;
        assert!(!hard);
        let until = early.deadline().unwrap();
        assert!(until >= start + unit);
        assert_eq!(late.deadline(), Some(until));
        assert_eq!(comes(&late), ContextError::DeadlineExceeded);
        assert!(start.elapsed() >= unit && early.is_done());
        let cause = early.cause().unwrap();
        assert_eq!(cause.to_string(), "the grace is over");
        let over = cause.downcast_ref::<GraceOver>().unwrap();
        assert_eq!(over.first().to_string(), "shutting down");
        assert_eq!(over.source().unwrap().to_string(), "shutting down");
        // What is soft keeps its own cause.
        assert_eq!(request.cause().unwrap().to_string(), "shutting down");
        assert!(request.shield().is_done());
        Some(())
    });
}

#[test]
fn the_outer_is_hard_so_is_the_inner() {
    in_time(ms(30), |unit| {
        let (server, shutdown) = Context::background().with_cancel();
        let outer = server.with_grace(unit);
        let inner = outer.with_grace(LONG);
        let shield = inner.shield();
        let of_outer = outer.shield();
        // Below a shield there may be a grace too.
        let deeper = of_outer.with_grace(LONG).shield();
        let start = Instant::now();
        shutdown.cancel();
        let hard = shield.is_done();
        before(start + unit)?;
        assert!(inner.is_done() && !hard);
        comes(&shield);
        comes(&of_outer);
        comes(&deeper);
        assert!(shield.cause().unwrap().find::<GraceOver>().is_some());
        Some(())
    });
}

#[test]
fn a_grace_begins_with_a_deadline_too() {
    in_time(ms(30), |unit| {
        let (server, _guard) = Context::background().with_timeout(ms(20));
        let ctx = server.with_grace(unit);
        assert_eq!(ctx.deadline(), server.deadline());
        let shield = ctx.shield();
        assert_eq!(comes(&ctx), ContextError::DeadlineExceeded);
        let hard = shield.is_done();
        before(server.deadline().unwrap() + unit)?;
        assert!(!hard);
        comes(&shield);
        let cause = shield.cause().unwrap();
        let over = cause.downcast_ref::<GraceOver>().unwrap();
        assert_eq!(over.first().kind(), ContextError::DeadlineExceeded);
        Some(())
    });
}

#[test]
fn one_that_is_done_already_has_its_grace() {
    let (server, shutdown) = Context::background().with_cancel();
    shutdown.cancel_with("before");
    in_time(ms(40), |unit| {
        let start = Instant::now();
        let ctx = server.with_grace(unit);
        assert_eq!(ctx.cause().unwrap().to_string(), "before");
        let shield = ctx.shield();
        assert_eq!(ctx.shield().deadline(), shield.deadline(), "they share it");
        let hard = shield.is_done();
        before(start + unit)?;
        assert!(!hard);
        comes(&shield);
        let cause = shield.cause().unwrap();
        assert_eq!(
            cause.find::<GraceOver>().unwrap().first().to_string(),
            "before"
        );
        Some(())
    });
}

#[test]
fn shields_share_what_is_left() {
    in_time(ms(60), |unit| {
        let (server, shutdown) = Context::background().with_cancel();
        let ctx = server.with_grace(unit);
        let start = Instant::now();
        shutdown.cancel();
        let until = ctx.shield().deadline();
        let mut rounds = 0;
        loop {
            let shield = ctx.shield();
            if shield.is_done() {
                break;
            }
            assert_eq!(shield.deadline(), until);
            let _ = shield.blocking_wait_timeout(unit / 6);
            rounds += 1;
        }
        assert!(Instant::now() >= until.unwrap() && until.unwrap() >= start + unit);
        assert!(ctx.shield().shield().is_done());
        (rounds >= 2).then_some(())
    });
}

#[test]
fn a_cancel_of_the_shielded_counts() {
    let (server, shutdown) = Context::background().with_cancel();
    let ctx = server.with_grace(LONG);
    let (cleanup, guard) = ctx.shield().with_cancel();
    let (timed, _timed) = ctx.shield().with_timeout(ms(10));
    shutdown.cancel();
    assert!(!cleanup.is_done() && cleanup.is_shielded());
    guard.cancel_with("enough");
    assert_eq!(cleanup.cause().unwrap().to_string(), "enough");
    assert_eq!(comes(&timed), ContextError::DeadlineExceeded);
    assert!(timed.is_own_deadline());
}

#[test]
fn what_is_made_below_a_bounded_shield_is_within_its_bound() {
    let (server, shutdown) = Context::background().with_cancel();
    let server = server.with_grace(ms(100));
    let (request, _request) = server.with_timeout(ms(5));
    comes(&request);
    let shield = request.shield();
    let bound = shield.deadline();
    assert!(bound.is_some());
    let (below, guard) = shield.with_cancel();
    guard.cancel();
    let group = Group::new(&shield);
    let grace = shield.with_grace(LONG);
    let shields = [
        shield.shield(),
        shield.shield().shield(),
        below.shield(),
        group.context().shield(),
        grace.shield(),
    ];
    for (i, shield) in shields.iter().enumerate() {
        assert!(!shield.is_done() && shield.is_shielded(), "{i}");
        assert_eq!(shield.deadline(), bound, "{i}");
    }
    // Another one of the request's has a while of its own.
    assert!(request.shield().deadline() > bound);
    for shield in shields.iter().chain([&shield]) {
        comes(shield);
        let cause = shield.cause().unwrap();
        assert!(cause.downcast_ref::<GraceOver>().is_some());
    }
    assert!(grace.shield().is_done() && !server.is_done());
    drop(shutdown);
}

#[test]
fn an_any_of_is_under_the_graces_of_all() {
    let (server, shutdown) = Context::background().with_cancel();
    let server = server.with_grace(LONG);
    let (plain, _plain) = Context::background().with_cancel();
    let brief = plain.with_grace(ms(5));
    let never = Context::background();
    let all = [
        Context::any_of([&plain, &server]),
        Context::any_of([&server, &plain]),
        Context::any_of([&never, &server]),
        Context::any_of([&server, &server.with_value(1)]),
        Context::any_of([&plain, &server.with_grace(LONG), &server]),
    ];
    let with_brief = Context::any_of([&server, &brief, &plain]);
    let early = with_brief.shield();
    shutdown.cancel();
    for (i, ctx) in all.iter().enumerate() {
        let shield = ctx.shield();
        assert!(ctx.is_done() && !shield.is_done(), "{i}");
        assert!(shield.remaining().is_some_and(|left| left <= LONG), "{i}");
    }
    // What has begun is the longer one; the other has not.
    for shield in [&early, &with_brief.shield()] {
        assert!(!shield.is_done() && shield.remaining().is_some());
    }
}

#[test]
fn a_shield_of_an_any_of_has_the_shortest_time() {
    let (server, _shutdown) = Context::background().with_cancel();
    let long = server.with_grace(LONG);
    let brief = server.with_grace(ms(50));
    // No clock has begun for it, but there is a bound.
    let (request, guard) = long.with_cancel();
    guard.cancel();
    let bounded = request.shield();
    let sources: [&[&Context]; 5] = [
        &[&long, &brief],
        &[&brief.with_grace(LONG), &brief],
        &[&brief, &brief.with_grace(LONG)],
        &[&bounded, &brief],
        &[&brief, &bounded],
    ];
    for (i, sources) in sources.iter().enumerate() {
        let (either, guard) = Context::any_of(sources.iter().copied()).with_cancel();
        guard.cancel();
        let left = either.shield().remaining();
        assert!(left.is_some_and(|left| left <= ms(50)), "{i}: {left:?}");
    }
}

#[test]
fn an_any_of_of_what_is_over_says_when_that_was() {
    let (server, shutdown) = Context::background().with_cancel();
    let over = server.with_grace(ms(1));
    shutdown.cancel();
    comes(&over.shield());
    let end = over.shield().deadline();
    assert!(end.is_some());
    let other = Context::background().with_cancel().0.with_grace(LONG);
    for either in [
        Context::any_of([&over, &other]),
        Context::any_of([&other, &over]),
    ] {
        let shield = either.shield();
        assert!(shield.is_done());
        assert_eq!(shield.deadline(), end);
    }
}

/// Each over the one before.
#[test]
fn a_row_of_any_of_under_graces_is_linear() {
    let (above, _guard) = Context::background().with_cancel();
    let time = |n: usize| {
        let start = Instant::now();
        let mut all = above.with_grace(LONG);
        for _ in 0..n {
            all = Context::any_of([&all, &above.with_grace(LONG)]);
        }
        start.elapsed()
    };
    time(100);
    let short = (0..5).map(|_| time(200)).min().unwrap();
    let long = (0..3).map(|_| time(3200)).min().unwrap();
    assert!(long < 16 * 6 * short, "{short:?}, {long:?}");
}

#[test]
fn an_any_of_ends_with_the_first_of_its_graces() {
    let (server, _shutdown) = Context::background().with_cancel();
    let (other, end) = Context::background().with_cancel();
    let either = Context::any_of([&server.with_grace(LONG), &other.with_grace(ms(5))]);
    let shields = [either.shield(), either.with_value(1).shield()];
    end.cancel();
    let late = either.shield();
    for shield in shields.iter().chain([&late]) {
        comes(shield);
    }
    assert!(!server.is_done());
}

#[test]
fn a_shield_has_the_values() {
    let (server, shutdown) = Context::background().with_cancel();
    let ctx = server.with_value("outer").with_grace(LONG).with_value(7);
    shutdown.cancel();
    let shield = ctx.shield();
    assert_eq!(shield.value::<i32>(), Some(&7));
    assert_eq!(shield.value::<&str>(), Some(&"outer"));
    // Also of what is derived when all is over.
    let (late, _late) = ctx.with_cancel();
    assert!(late.is_done() && !late.shield().is_done());
}

#[test]
fn without_a_grace_a_shield_shields_from_nothing() {
    let (ctx, guard) = Context::background().with_cancel();
    let shield = ctx.shield();
    assert!(!shield.is_shielded());
    guard.cancel();
    assert!(shield.is_done());
    assert!(!Context::background().shield().can_be_done());
}

#[test]
fn what_is_detached_is_under_no_grace() {
    let (server, shutdown) = Context::background().with_cancel();
    let ctx = server.with_value(1).with_grace(ms(10));
    let detached = ctx.without_cancel();
    assert_eq!(detached.value::<i32>(), Some(&1));
    let (own, guard) = detached.with_cancel();
    let shield = own.shield();
    assert!(!shield.is_shielded() && !ctx.shield().without_cancel().is_shielded());
    shutdown.cancel();
    comes(&ctx.shield());
    assert!(!shield.is_done());
    guard.cancel();
    assert!(shield.is_done());
}

#[test]
fn a_guard_of_ones_own_leaves_a_bound() {
    in_time(ms(20), |unit| {
        let (server, _shutdown) = Context::background().with_cancel();
        let ctx = server.with_grace(unit);
        let (request, guard) = ctx.with_cancel();
        let start = Instant::now();
        guard.cancel_with("closed");
        let cleanup = request.shield();
        let hard = cleanup.is_done();
        before(start + unit)?;
        assert!(!hard && !ctx.is_done());
        comes(&cleanup);
        let cause = cleanup.cause().unwrap();
        assert_eq!(
            cause.find::<GraceOver>().unwrap().first().to_string(),
            "closed"
        );
        assert!(!ctx.shield().is_done());
        Some(())
    });
}

/// Also where a longer grace further out has begun, in which the inner one was made.
#[test]
fn a_shield_has_as_long_as_its_own_grace_and_not_as_one_further_out() {
    let (server, shutdown) = Context::background().with_cancel();
    let cleanup = server.with_grace(LONG).shield();
    shutdown.cancel();
    let inner = cleanup.with_grace(LONG / 2);
    let (ctx, guard) = inner.with_cancel();
    guard.cancel();
    let shield = ctx.shield();
    let latest = Instant::now() + LONG / 2;
    assert!(!shield.is_done() && shield.deadline().unwrap() <= latest);
    assert!(cleanup.deadline().unwrap() > shield.deadline().unwrap());
    // One that is longer than what is left further out has what is left.
    let inner = cleanup.with_grace(LONG * 2);
    let (ctx, guard) = inner.with_cancel();
    guard.cancel();
    assert_eq!(ctx.shield().deadline(), cleanup.deadline());
    let inner = cleanup.with_grace(Duration::MAX);
    let (ctx, guard) = inner.with_cancel();
    guard.cancel();
    assert_eq!(ctx.shield().deadline(), cleanup.deadline());
    // And of one that has begun itself all shields have the same.
    let (step, guard) = cleanup.with_cancel();
    let ctx = step.with_grace(LONG / 2);
    guard.cancel();
    assert_eq!(ctx.shield().deadline(), ctx.shield().deadline());
}

#[test]
fn a_shield_alone_is_bounded() {
    in_time(ms(20), |unit| {
        let (server, shutdown) = Context::background().with_cancel();
        let shield = server.with_grace(unit).shield();
        let start = Instant::now();
        shutdown.cancel();
        let hard = shield.is_done();
        before(start + unit)?;
        assert!(!hard);
        comes(&shield);
        Some(())
    });
}

#[test]
fn a_failing_task_grants_no_grace() {
    let (server, shutdown) = Context::background().with_cancel();
    let ctx = server.with_grace(LONG);
    let group = Group::new(&ctx);
    let shield = group.context().shield();
    assert!(!shield.is_done());
    group.spawn_thread(|_| Err::<(), _>("broken")).unwrap();
    comes(&shield);
    assert_eq!(shield.cause().unwrap().to_string(), "broken");
    assert_eq!(group.context().cause().unwrap().to_string(), "broken");
    assert!(!ctx.is_done());

    // From above, it has one.
    let group = Group::new(&ctx);
    let shield = group.context().shield();
    shutdown.cancel();
    assert!(group.context().is_done() && !shield.is_done());
    group.cancel();
    assert!(shield.is_done());
}

#[test]
fn nothing_is_kept_of_a_grace() {
    let (server, _shutdown) = Context::background().with_cancel();
    let token = CancellationToken::new();
    let weak = token.downgrade();
    for _ in 0..3 {
        let ctx = server.with_value(token.clone()).with_grace(LONG);
        let shield = ctx.shield();
        let inner = shield.with_grace(LONG);
        drop(ctx);
        drop((shield, inner));
    }
    let ctx = server.with_grace(LONG);
    let below = ctx.shield().child_token().downgrade();
    drop(ctx);
    assert!(below.upgrade().is_none());
    drop(token);
    assert!(weak.upgrade().is_none());
}

#[test]
fn they_show_how_they_came_to_be() {
    let (server, _guard) = Context::background().with_cancel();
    let ctx = server.with_grace(LONG);
    assert_eq!(ctx.to_string(), "background.with_cancel.with_grace");
    assert_eq!(
        ctx.shield().without_cancel().to_string(),
        "background.with_cancel.with_grace.shield.without_cancel"
    );
    let (ctx, _guard) = server.with_idle_timeout(LONG);
    assert_eq!(
        ctx.to_string(),
        "background.with_cancel.with_movable_deadline"
    );
}

/// A later touch counts, whichever comes first; also of one thread, and of those that have no place of their own.
#[test]
fn an_earlier_touch_that_is_told_later_changes_nothing() {
    let start = Instant::now();
    let (ctx, guard) = Context::background().with_idle_timeout(LONG);
    guard.touch_at(start + ms(500));
    guard.touch_at(start + ms(200));
    assert_eq!(ctx.deadline(), Some(start + ms(500) + LONG));
    for n in 1..6 {
        thread::scope(|scope| {
            let touch = || {
                guard.touch_at(start + ms(500 + n));
                guard.touch_at(start + ms(300));
            };
            scope.spawn(touch).join().unwrap();
        });
        assert_eq!(ctx.deadline(), Some(start + ms(500 + n) + LONG));
    }
}

/// What is below a context that is done has the deadline that this one had.
#[test]
fn a_grace_of_what_is_done_changes_no_deadline() {
    let end = Instant::now() + LONG;
    let (ctx, guard) = Context::background().with_movable_deadline(end);
    guard.cancel();
    let below = ctx.with_grace(ms(1));
    assert_eq!((ctx.deadline(), below.deadline()), (Some(end), Some(end)));
    assert!(below.shield().deadline().unwrap() < end);
}

/// The end of the grace is the shields', and no deadline of what was done before.
#[test]
fn a_soft_cancel_changes_no_deadline() {
    let end = Instant::now() + LONG;
    let (above, guard) = Context::background().with_movable_deadline(end);
    let ctx = above.with_grace(ms(1));
    let (below, _below) = ctx.with_cancel();
    let group = Group::new(&ctx);
    let inner = group.context().with_grace(ms(1));
    guard.cancel();
    let shield = below.shield();
    assert!(shield.deadline().unwrap() < end);
    for ctx in [&ctx, &below, group.context(), &inner] {
        assert!(ctx.is_done());
        assert_eq!(ctx.deadline(), Some(end), "{ctx:?}");
    }
    assert_eq!(comes(&shield), ContextError::DeadlineExceeded);
    assert_eq!(below.deadline(), Some(end));
}

/// What is above a context's token is what it was derived from, whatever there is beside for shields.
#[test]
fn a_grace_stands_in_no_way() {
    let token = CancellationToken::new().child_token().child_token();
    let ctx = token.context().with_grace(LONG);
    let below = ctx.child_token();
    assert!(below.is_below(&token));
    assert_eq!(below.depth(), token.depth() + 2);
    let group = Group::new(&ctx);
    assert_eq!(group.context().child_token().depth(), token.depth() + 3);
    drop((ctx, group));
    assert!(!below.is_cancelled());
    token.cancel();
    assert!(below.is_cancelled());
}

/// As below a context without a grace: it goes when nobody is left who could cancel.
#[test]
fn a_callback_that_is_left_under_a_grace_goes_with_the_last_who_could_cancel() {
    let (above, guard) = Context::background().with_cancel();
    let ctx = above.with_grace(LONG);
    let kept = Arc::new(());
    let seen = Arc::downgrade(&kept);
    drop(ctx.on_cancel(move || drop(kept)));
    drop(ctx);
    assert!(seen.upgrade().is_some(), "the guard is there");
    guard.detach();
    drop(above);
    assert!(seen.upgrade().is_none());
}

#[test]
fn a_callback_that_is_left_under_a_grace_runs() {
    let (above, guard) = Context::background().with_cancel();
    let (say, hear) = mpsc::channel();
    drop(
        above
            .with_grace(LONG)
            .on_cancel(move || say.send(()).unwrap()),
    );
    guard.cancel();
    hear.try_recv().unwrap();
}

/// Whatever is left below a shield is done when the grace is over.
#[test]
fn what_is_below_a_shield_ends_when_no_context_is_left() {
    let (server, shutdown) = Context::background().with_cancel();
    let (other, _other) = Context::background().with_cancel();
    let (token, either) = {
        let shield = server.with_grace(ms(20)).shield();
        (shield.child_token(), Context::any_of([&other, &shield]))
    };
    let alone = server.with_grace(ms(20)).shield().child_token();
    shutdown.cancel_with("the end");
    assert!(!alone.is_cancelled() || alone.cause().unwrap().find::<GraceOver>().is_some());
    assert_eq!(comes(&either), ContextError::DeadlineExceeded);
    for token in [token, alone] {
        assert!(token.blocking_wait_timeout(Duration::from_secs(20)));
        let cause = token.cause().unwrap();
        assert_eq!(
            cause.find::<GraceOver>().unwrap().first().to_string(),
            "the end"
        );
    }
}

/// However far whoever has cancelled has come with telling others.
#[test]
fn a_shield_of_what_is_done_has_a_bound() {
    // A waker that stands still, before that of the grace.
    struct Still(mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>);
    impl Wake for Still {
        fn wake(self: Arc<Self>) {
            self.0.send(()).unwrap();
            self.1.lock().unwrap().recv().unwrap();
        }
    }
    let (server, shutdown) = Context::background().with_cancel();
    let (stands, has_come) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let waker = Waker::from(Arc::new(Still(stands, Mutex::new(may_go))));
    let mut done = pin!(server.done());
    assert!(done
        .as_mut()
        .poll(&mut task::Context::from_waker(&waker))
        .is_pending());
    let ctx = server.with_grace(ms(20));
    thread::scope(|scope| {
        scope.spawn(move || shutdown.cancel_with("the end"));
        has_come.recv().unwrap();
        let shield = ctx.shield();
        assert!(ctx.is_done() && shield.deadline().is_some());
        assert_eq!(comes(&shield), ContextError::DeadlineExceeded);
        let cause = shield.cause().unwrap();
        assert_eq!(
            cause.find::<GraceOver>().unwrap().first().to_string(),
            "the end"
        );
        go.send(()).unwrap();
    });
    // A thread that notices the deadline itself goes on before a worker has told anybody.
    for _ in 0..20 {
        let (ctx, _guard) = Context::background().with_timeout(ms(1));
        let ctx = ctx.with_grace(LONG);
        ctx.blocking_wait();
        assert!(ctx.shield().remaining().unwrap() <= LONG);
    }
}

/// The end of one grace after the other is the end of the first.
#[test]
fn shields_of_what_is_over_name_the_first_cause() {
    const MANY: usize = if cfg!(miri) { 50 } else { 100_000 };
    let (server, _shutdown) = Context::background().with_cancel();
    let (mut ctx, guard) = server.with_grace(Duration::ZERO).with_cancel();
    guard.cancel_with("the end");
    for _ in 0..MANY {
        ctx = ctx.shield();
    }
    let cause = ctx.cause().unwrap();
    let over = cause.downcast_ref::<GraceOver>().unwrap();
    assert_eq!(over.first().to_string(), "the end");
}

/// Guards go from the innermost on, below a cancel that wakes: each grace begins, and none climbs for its cause.
#[test]
fn graces_begin_along_a_chain_that_is_cancelled_again() {
    const MANY: usize = if cfg!(miri) { 50 } else { 40_000 };
    struct Guards(Mutex<Vec<CancelGuard>>);
    impl Wake for Guards {
        fn wake(self: Arc<Self>) {
            while let Some(guard) = { self.0.lock().unwrap().pop() } {
                drop(guard);
            }
        }
    }
    let (root, shutdown) = Context::background().with_cancel();
    let (mut at, mut guards, mut graces) = (root.clone(), vec![], vec![]);
    for _ in 0..MANY {
        let (ctx, guard) = at.with_cancel();
        graces.push(ctx.with_grace(LONG));
        guards.push(guard);
        at = ctx;
    }
    let shields: Vec<_> = graces.iter().map(Context::shield).collect();
    let waker = Waker::from(Arc::new(Guards(Mutex::new(guards))));
    let mut done = pin!(root.done());
    assert!(done
        .as_mut()
        .poll(&mut task::Context::from_waker(&waker))
        .is_pending());
    let start = Instant::now();
    shutdown.cancel();
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(shields.iter().all(|shield| shield.deadline().is_some()));
}

/// A way up that many others join is gone once.
#[test]
fn the_deadline_of_many_sources_below_a_chain_is_linear_to_ask_for() {
    let (ctx, _guard) = Context::background().with_movable_deadline(Instant::now() + LONG);
    let mut chain = vec![ctx.child_token()];
    for i in 0..20_000 {
        chain.push(chain[i].child_token());
    }
    let sources: Vec<_> = (0..20_000).map(|_| chain[20_000].child_token()).collect();
    let either = CancellationToken::any_of(&sources);
    let start = Instant::now();
    assert_eq!(either.context().deadline(), ctx.deadline());
    assert!(either.is_below(&chain[0]) && !chain[0].is_below(&either));
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "it is a minute if it is not linear"
    );
}

/// By the timer, and by a thread that waits.
#[test]
fn touched_after_the_timeout_it_shows_what_has_passed() {
    for waits in [false, true] {
        let start = Instant::now();
        let (ctx, guard) = Context::background().with_idle_timeout(ms(20));
        guard.touch();
        if waits {
            comes(&ctx);
        } else {
            let (say, hear) = mpsc::channel();
            let _registration = ctx.on_cancel(move || say.send(()).unwrap());
            hear.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        let shown = ctx.deadline().unwrap();
        assert!(shown >= start + ms(20) && shown <= Instant::now());
        guard.touch();
        guard.touch_at(Instant::now() + LONG);
        assert_eq!(ctx.deadline(), Some(shown));
        assert_eq!(ctx.with_cancel().0.deadline(), Some(shown));
    }
}

/// The one thing that a touch does after a cancel. To ask for the cancel would cost every touch.
#[test]
fn touched_after_a_cancel_it_shows_so() {
    let (ctx, guard) = Context::background().with_idle_timeout(LONG);
    guard.cancel();
    let later = Instant::now() + LONG;
    guard.touch_at(later);
    assert_eq!(ctx.deadline(), Some(later + LONG));
    assert_eq!(ctx.err(), CANCELLED);
}

/// The timer counts 584 years. What is later is shown where it is said, and none where it is moved.
#[test]
fn a_deadline_in_a_thousand_years() {
    let Some(far) = Instant::now().checked_add(Duration::from_secs(1000 * 365 * 24 * 3600)) else {
        return; // A clock that does not get so far.
    };
    let (above, moves) = Context::background().with_movable_deadline(None);
    let (ctx, _guard) = above.with_deadline(far);
    let (with_cause, _guard) = above.with_deadline_cause(far, "the sun");
    let tokens = ctx.child_token().context();
    let soon = Instant::now() + LONG;
    for ctx in [&ctx, &with_cause, &tokens] {
        assert_eq!(ctx.deadline(), Some(far));
        assert!(moves.set(soon));
        assert_eq!(ctx.deadline(), Some(soon));
        assert!(moves.set(far));
        assert_eq!((ctx.deadline(), above.deadline()), (Some(far), None));
    }
    let (fixed, _guard) = Context::background().with_deadline(far);
    assert_eq!(fixed.child_token().context().deadline(), Some(far));
}
