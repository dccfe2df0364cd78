//! What does not stop, and what it does instead: each test builds one situation.

use cancel_tree::inspect::{Situation, Work};
use cancel_tree::{Context, Group, TaskInfo};
use std::future::{pending, poll_fn, Future};
use std::pin::{pin, Pin};
use std::sync::mpsc;
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(30);

fn group() -> Group {
    Group::new(&Context::background())
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(Waker::noop()))
}

/// The only task of the group.
fn only(group: &Group) -> TaskInfo {
    let mut running = group.running();
    assert_eq!(running.len(), 1);
    running.remove(0)
}

/// Waits for what another thread is about to do.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_future_that_is_not_polled_since_the_cancel_says_so() {
    let group = group();
    let mut task = pin!(group.named("flush").track(pending::<()>()).unwrap());
    for _ in 0..3 {
        assert!(poll(task.as_mut()).is_pending());
    }
    let before = only(&group).progress.unwrap();
    assert_eq!((before.work, before.polls), (Work::Future, 3));
    assert!(before.since_cancel.is_none());
    assert_eq!(only(&group).situation(), None);
    group.cancel();
    let after = only(&group);
    assert_eq!(after.situation(), Some(Situation::NotPolled));
    assert_eq!(after.progress.unwrap().since_cancel.unwrap().times, 0);
    assert!(after.to_string().contains("flush"));
    assert!(after.to_string().contains("not polled since the cancel"));
}

#[test]
fn a_future_that_was_never_polled_is_not_polled_since_the_cancel() {
    let group = group();
    let _task = group.named("lost").track(pending::<()>()).unwrap();
    group.cancel();
    assert_eq!(only(&group).situation(), Some(Situation::NotPolled));
}

#[test]
fn a_future_that_is_polled_and_goes_on_says_how_often_and_when() {
    let group = group();
    let mut task = pin!(group.named("deaf").track(pending::<()>()).unwrap());
    assert!(poll(task.as_mut()).is_pending());
    let begin = Instant::now();
    group.cancel();
    assert!(poll(task.as_mut()).is_pending());
    assert!(poll(task.as_mut()).is_pending());
    let end = Instant::now();
    let info = only(&group);
    assert_eq!(info.situation(), Some(Situation::GoesOn));
    let progress = info.progress.unwrap();
    assert_eq!((progress.polls, progress.is_polling), (3, false));
    let since = progress.since_cancel.unwrap();
    assert_eq!(since.times, 2);
    let (first, last) = (since.first.unwrap(), since.last.unwrap());
    // Kept to the nanosecond, of which the last may be a bit too large.
    let close = Duration::from_nanos(1);
    assert!(begin <= first + close && first <= last && last <= end + close);
}

/// The poll began before: so it is not one since the cancel.
#[test]
fn a_future_that_is_in_a_poll_from_before_the_cancel_is_not_polled_since() {
    let group = group();
    let mut seen = None;
    let future = poll_fn(|_| {
        group.cancel();
        seen = Some(only(&group));
        Poll::Ready(())
    });
    assert!(poll(pin!(group.named("blocks").track(future).unwrap())).is_ready());
    let seen = seen.unwrap();
    assert_eq!(seen.situation(), Some(Situation::NotPolled));
    assert!(seen.progress.unwrap().is_polling);
    assert!(seen.to_string().contains("in a poll"));
}

#[test]
fn a_thread_that_has_not_looked_says_so_until_it_looks() {
    let group = group();
    let (go, gone) = mpsc::channel();
    let (looked, has_looked) = mpsc::channel();
    let run = move |ctx: Context| {
        // Before the cancel: not counted, and of no interest.
        assert!(!ctx.is_done());
        looked.send(()).unwrap();
        gone.recv().unwrap();
        // By a context that is made from its own, too.
        let (below, _guard) = ctx.with_timeout(LONG);
        assert!(below.is_done());
        looked.send(()).unwrap();
        gone.recv().unwrap();
    };
    group.named("reader").spawn_thread(run).unwrap();
    has_looked.recv_timeout(LONG).unwrap();
    assert_eq!(only(&group).situation(), None);
    group.cancel();
    let info = only(&group);
    assert_eq!(info.situation(), Some(Situation::NotLooked));
    assert_eq!(info.progress.unwrap().work, Work::Thread);
    go.send(()).unwrap();
    has_looked.recv_timeout(LONG).unwrap();
    let info = only(&group);
    assert_eq!(info.situation(), Some(Situation::GoesOn));
    let since = info.progress.unwrap().since_cancel.unwrap();
    assert!(since.times >= 1 && since.first.is_some() && since.first <= since.last);
    go.send(()).unwrap();
    group.join_blocking().unwrap();
}

/// A step of its own that has ended, by a deadline or by its guard, is not what tells the thread to stop.
#[test]
fn looks_at_what_had_ended_before_the_cancel_do_not_count() {
    let group = group();
    let (go, gone) = mpsc::channel::<()>();
    let (looked, has_looked) = mpsc::channel();
    let run = move |ctx: Context| {
        let (step, _guard) = ctx.with_timeout(Duration::from_millis(1));
        step.blocking_wait();
        assert!(step.is_done());
        let (step, guard) = ctx.with_cancel();
        drop(guard);
        assert!(step.is_done());
        looked.send(()).unwrap();
        gone.recv().unwrap();
    };
    group.named("hangs").spawn_thread(run).unwrap();
    has_looked.recv_timeout(LONG).unwrap();
    group.cancel();
    let info = only(&group);
    assert_eq!(info.situation(), Some(Situation::NotLooked));
    assert_eq!(info.progress.unwrap().since_cancel.unwrap().times, 0);
    go.send(()).unwrap();
    group.join_blocking().unwrap();
}

/// What another thread finds out by the same context says nothing about this one.
#[test]
fn a_look_by_another_thread_is_not_this_threads() {
    let group = group();
    let (go, gone) = mpsc::channel::<()>();
    let (hand, handed) = mpsc::channel();
    let run = move |ctx: Context| {
        hand.send(ctx.clone()).unwrap();
        gone.recv().unwrap();
    };
    group.named("reader").spawn_thread(run).unwrap();
    let ctx = handed.recv_timeout(LONG).unwrap();
    group.cancel();
    assert!(ctx.is_done());
    assert_eq!(only(&group).situation(), Some(Situation::NotLooked));
    go.send(()).unwrap();
}

#[test]
fn a_thread_that_waits_by_its_context_has_looked() {
    let group = group();
    let (go, gone) = mpsc::channel::<()>();
    let run = move |ctx: Context| {
        ctx.blocking_wait();
        gone.recv().unwrap();
    };
    group.named("waiter").spawn_thread(run).unwrap();
    group.cancel();
    until("it has looked", || {
        only(&group).situation() == Some(Situation::GoesOn)
    });
    go.send(()).unwrap();
}

#[test]
fn a_place_that_is_held_by_hand_after_the_cancel_is_still_held() {
    let group = group();
    let member = group.named("connection").enter().unwrap();
    assert_eq!(only(&group).situation(), None);
    group.cancel();
    assert_eq!(only(&group).situation(), Some(Situation::StillHeld));
    drop(member);
    assert!(group.running().is_empty());
}

#[test]
fn of_a_task_without_a_name_nothing_is_known() {
    let group = group();
    let mut task = pin!(group.track(pending::<()>()).unwrap());
    group.cancel();
    assert!(poll(task.as_mut()).is_pending());
    let info = only(&group);
    assert!(info.progress.is_none() && info.situation().is_none());
}

/// The report of a shutdown says it of each that is stuck.
#[test]
fn a_report_says_what_the_stuck_ones_do() {
    let group = group();
    let _task = group.named("lost").track(pending::<()>()).unwrap();
    let (go, gone) = mpsc::channel::<()>();
    group
        .named("reader")
        .spawn_thread(move |_ctx| gone.recv().unwrap())
        .unwrap();
    until("the thread runs", || {
        let running = group.running();
        running
            .iter()
            .any(|t| t.progress.is_some_and(|p| p.work == Work::Thread))
    });
    let (limit, guard) = Context::background().with_cancel();
    guard.cancel();
    let report = futures::executor::block_on(group.shutdown_with(&limit, Duration::ZERO));
    let text = report.to_string();
    assert!(
        text.contains("stuck: lost (") && text.contains(": not polled since the cancel"),
        "{text}"
    );
    assert!(
        text.contains("stuck: reader (") && text.contains(": has not looked since the cancel"),
        "{text}"
    );
    go.send(()).unwrap();
}

/// The steps of a context as people read them are as without the feature.
#[test]
fn a_named_threads_context_shows_itself_as_any_other() {
    let group = group();
    let (say, said) = mpsc::channel();
    let named = say.clone();
    group
        .named("a")
        .spawn_thread(move |ctx| named.send(ctx.to_string()).unwrap())
        .unwrap();
    group
        .spawn_thread(move |ctx| say.send(ctx.to_string()).unwrap())
        .unwrap();
    let (one, other) = (
        said.recv_timeout(LONG).unwrap(),
        said.recv_timeout(LONG).unwrap(),
    );
    assert_eq!(one, other);
}

/// What a task is is known before any of its code runs.
#[test]
fn a_task_that_is_being_started_is_no_place_that_is_held() {
    // Before its thread has begun, or after.
    for _ in 0..200 {
        let group = group();
        let (release, wait) = mpsc::channel::<()>();
        let task = move |_: Context| _ = wait.recv();
        group.named("thread").spawn_thread(task).unwrap();
        assert_eq!(only(&group).progress.unwrap().work, Work::Thread);
        drop(release);
        group.join_blocking().unwrap();
    }
    // While the closure makes the future.
    let group = group();
    let made = group.named("future").track_with(|_| {
        group.cancel();
        assert_eq!(only(&group).situation(), Some(Situation::NotPolled));
        pending::<()>()
    });
    drop(made.unwrap());
}

#[cfg(feature = "tokio")]
#[test]
fn a_task_that_is_being_spawned_is_no_place_that_is_held() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let group = group();
    let _inside = runtime.enter();
    let spawned = group.named("future").spawn(|ctx| {
        group.cancel();
        assert_eq!(only(&group).situation(), Some(Situation::NotPolled));
        async move {
            ctx.done().await;
        }
    });
    spawned.unwrap();
}
