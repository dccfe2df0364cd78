//! A deadline that is moved while it passes; a soft cancel, its shields, and the hard one.

use crate::probes::{draw, operation, Alarm, Shared, Turns};
use cancel_tree::{Context, ContextError, GraceOver, Group, Service};
use shuttle::thread;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task;
use std::time::Duration;

const TIMES: u64 = 12;

fn turn(service: &mut Service, turns: &Turns, time: u64) {
    operation();
    turns.turn(time, || match draw(4) {
        0 => {
            let due = service.expire(Service::at(time));
            thread::spawn(move || due.fire()).join().unwrap();
        }
        _ => service.turn(Service::at(time)),
    });
}

/// One moves it, others look, wait and derive. A `true` of the mover means that the deadline that was does not pass.
pub fn run() {
    let turns = Arc::new(Turns::default());
    let mut service = Service::new();
    let (ctx, guard) = Context::background().with_movable_deadline(Service::at(2));
    let step = Service::at(3) - Service::at(2);
    let mover = {
        let (ctx, turns) = (ctx.clone(), turns.clone());
        thread::spawn(move || {
            let mut deadline = Some(2);
            let mut is_over = false;
            for _ in 0..30 {
                operation();
                let now = turns.begun_at();
                let (to, in_time) = match draw(6) {
                    0 => (None, guard.take_away()),
                    1..=2 => {
                        let by = 1 + draw(3) as u64;
                        (deadline.map(|d| d + by), guard.extend(step * by as u32))
                    }
                    _ => {
                        let to = now + 1 + draw(4) as u64;
                        (Some(to), guard.set(Service::at(to)))
                    }
                };
                if in_time {
                    assert!(!is_over, "moved what was over");
                    deadline = to;
                } else {
                    // About to be done, at least.
                    is_over = true;
                }
                let is_done = ctx.is_done();
                let is_due = deadline.is_some_and(|at| at <= turns.begun_at());
                assert!(
                    !is_done || is_due,
                    "a deadline that was replaced has passed"
                );
                assert!(
                    !is_over || is_due,
                    "too late for a move, too early for the end"
                );
            }
            (guard, deadline, is_over)
        })
    };
    let others: Vec<_> = (0..2)
        .map(|_| {
            let ctx = ctx.clone();
            thread::spawn(move || {
                let mut tasks = Vec::new();
                for _ in 0..25 {
                    operation();
                    match draw(4) {
                        0 => drop(ctx.deadline()),
                        1 => {
                            // Later, or as it may be: only what is above ends it early.
                            let (below, _guard) = ctx.with_deadline(Service::at(TIMES + 9));
                            assert!(below.deadline() <= Some(Service::at(TIMES + 9)));
                            assert!(!below.is_done() || ctx.is_done());
                        }
                        2 => {
                            let mut future = Box::pin(ctx.clone().done_owned());
                            let alarm = Alarm::new();
                            let waker = alarm.waker();
                            let cx = &mut task::Context::from_waker(&waker);
                            if Pin::new(&mut future).poll(cx).is_pending() {
                                alarm.set_polled();
                                tasks.push((future, alarm));
                            }
                        }
                        _ if !tasks.is_empty() => drop(tasks.swap_remove(draw(tasks.len()))),
                        _ => {}
                    }
                }
                tasks
            })
        })
        .collect();
    let mut time = 1;
    for _ in 0..draw(40) {
        time = (time + u64::from(draw(3) == 0)).min(TIMES);
        turn(&mut service, &turns, time);
    }
    let (guard, deadline, is_over) = mover.join().unwrap();
    let tasks: Vec<_> = others.into_iter().map(|t| t.join().unwrap()).collect();
    turn(&mut service, &turns, time);
    let is_due = deadline.is_some_and(|at| at <= time);
    assert_eq!(ctx.is_done(), is_due, "{deadline:?} at {time}");
    assert!(is_due || !is_over);
    if is_due {
        assert_eq!(ctx.err(), Some(ContextError::DeadlineExceeded));
        assert!(ctx.is_own_deadline());
        assert!(!guard.take_away(), "moved what was over");
    }
    for (_, alarm) in tasks.iter().flatten() {
        assert_eq!(alarm.has_rung(), is_due, "a waker");
    }
    drop(tasks);
    drop((ctx, guard));
    Service::end_of_thread();
    drop(service);
}

/// What has been done of a soft cancel.
#[derive(Default)]
struct Soft {
    has_begun: bool,
    has_returned: bool,
}

/// A soft cancel, shields that are taken while it comes, a hard cancel of one group, and the end of the grace.
pub fn phases() {
    let turns = Arc::new(Turns::default());
    let mut service = Service::new();
    let (server, shutdown) = Context::background().with_cancel();
    let ctx = server.with_grace(Duration::ZERO);
    let group = Group::new(&ctx);
    let in_group = group.context().clone();
    let soft = Arc::new(Shared::new(Soft::default()));
    let hard = Arc::new(Shared::new(false));
    let canceller = {
        let soft = soft.clone();
        thread::spawn(move || {
            for _ in 0..draw(60) {
                thread::yield_now();
            }
            operation();
            soft.with(|soft| soft.has_begun = true);
            shutdown.cancel_with("soft");
            soft.with(|soft| soft.has_returned = true);
        })
    };
    let failing = {
        let hard = hard.clone();
        thread::spawn(move || {
            for _ in 0..draw(60) {
                thread::yield_now();
            }
            if draw(2) == 0 {
                operation();
                hard.with(|hard| *hard = true);
                group.cancel_with("hard");
                assert!(group.context().is_done());
                assert!(
                    group.context().shield().is_done(),
                    "a group's own end is hard"
                );
            }
            group
        })
    };
    let shields: Vec<_> = (0..2)
        .map(|_| {
            let (ctx, in_group) = (ctx.clone(), in_group.clone());
            let (soft, hard) = (soft.clone(), hard.clone());
            thread::spawn(move || {
                let mut shields = Vec::new();
                for _ in 0..20 {
                    operation();
                    let of_group = draw(2) == 0;
                    let of = if of_group { &in_group } else { &ctx };
                    let must = soft.with(|soft| soft.has_returned);
                    assert!(of.is_done() || !must, "a lost soft cancel");
                    let shield = of.shield();
                    assert!(shield.is_shielded());
                    let (below, guard) = shield.with_cancel();
                    guard.detach();
                    let is_done = below.is_done();
                    // There is no time in the grace: so also what is bounded apart, while the soft cancel is on its way, may be over.
                    let may = soft.with(|soft| soft.has_begun);
                    let may = may || of_group && hard.with(|hard| *hard);
                    assert!(!is_done || may, "a shield that is over too early");
                    shields.push((of_group, shield, below));
                }
                shields
            })
        })
        .collect();
    for _ in 0..draw(30) {
        turn(&mut service, &turns, 1);
        thread::yield_now();
    }
    canceller.join().unwrap();
    let group = failing.join().unwrap();
    let shields = shields.into_iter().flat_map(|t| t.join().unwrap());
    let shields: Vec<_> = shields.collect();
    turn(&mut service, &turns, 2);
    assert!(ctx.is_done() && in_group.is_done());
    for (of_group, shield, below) in &shields {
        for ctx in [shield, below] {
            let cause = ctx.cause().expect("the grace is over");
            match cause.find::<GraceOver>() {
                Some(over) => assert!(over.first().to_string() == "soft" || *of_group),
                None => assert!(*of_group && cause.to_string() == "hard", "{cause}"),
            }
        }
    }
    drop((shields, group, in_group, ctx, server));
    Service::end_of_thread();
    drop(service);
}
