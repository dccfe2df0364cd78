//! What groups promise, without a runtime: each test is named by its rule.

use cancel_tree::{Cause, Closed, Context, ContextError, Full, Group, Panicked};
use futures::executor::block_on;
use futures::future::{join, pending, ready};
use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::Arc;
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

fn group() -> Group {
    Group::new(&Context::background())
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(Waker::noop()))
}

fn soon() -> (Context, cancel_tree::CancelGuard) {
    Context::background().with_timeout(Duration::from_millis(20))
}

fn later() -> (Context, cancel_tree::CancelGuard) {
    Context::background().with_timeout(Duration::from_secs(60))
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("the destructor");
    }
}

/// An error type of a user's.
#[derive(Debug)]
struct Broken(&'static str);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

impl From<Broken> for Cause {
    fn from(broken: Broken) -> Cause {
        Cause::new(broken)
    }
}

/// An error that has another as its source.
#[derive(Debug)]
struct Wrapped(Cause);

impl std::fmt::Display for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("wrapped")
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

// ----- counting -------------------------------------------------------------------------------

#[test]
fn a_group_without_tasks_joins_at_once() {
    assert!(group().join_blocking().is_ok());
    assert!(block_on(group().join()).is_ok());
}

#[test]
fn a_task_is_counted_before_its_first_poll_and_until_it_is_dropped() {
    let group = group();
    let task = group.track(pending::<()>()).unwrap();
    assert_eq!(group.len(), 1);
    let mut idle = Box::pin(group.wait_idle());
    assert!(poll(idle.as_mut()).is_pending());
    drop(task);
    assert_eq!(group.len(), 0);
    assert!(poll(idle.as_mut()).is_ready());
}

/// python/cpython#155418, kaspanet/rusty-kaspa#1032: who was cancelled before it began was counted for ever.
#[test]
fn a_task_that_is_dropped_unpolled_has_left() {
    let group = group();
    drop(group.track(async {}).unwrap());
    drop(group.track_with(|_ctx| pending::<()>()).unwrap());
    drop(group.enter().unwrap());
    assert!(group.join_blocking().is_ok());
}

#[test]
fn what_a_task_owns_is_dropped_before_it_is_gone() {
    struct Slow(Arc<AtomicBool>);
    impl Drop for Slow {
        fn drop(&mut self) {
            thread::sleep(Duration::from_millis(20));
            self.0.store(true, SeqCst);
        }
    }
    let group = group();
    for dropped in [false, true] {
        let gone = Arc::new(AtomicBool::new(false));
        let own = Slow(gone.clone());
        let task = group
            .track(async move {
                let _own = own;
                if dropped {
                    pending::<()>().await;
                }
            })
            .unwrap();
        let runner = thread::spawn(move || {
            let mut task = Box::pin(task);
            let _ = poll(task.as_mut());
        });
        block_on(group.wait_idle());
        assert!(gone.load(SeqCst));
        runner.join().unwrap();
    }
    let gone = Arc::new(AtomicBool::new(false));
    let own = Slow(gone.clone());
    group.spawn_thread(move |_ctx| drop(own)).unwrap();
    group.join_blocking().unwrap();
    assert!(gone.load(SeqCst));
}

#[test]
fn a_tracked_future_stays_ready() {
    let group = group();
    let mut task = pin!(group.track(async {}).unwrap());
    assert!(poll(task.as_mut()).is_ready());
    assert!(poll(task.as_mut()).is_ready());
    assert!(group.join_blocking().is_ok());
}

/// parasitepool/para#465: a group that lives as long as the server kept something of each task.
#[test]
fn nothing_is_kept_of_a_task_that_has_ended() {
    let group = group();
    for _ in 0..100_000 {
        let mut task = pin!(group.track(ready(())).unwrap());
        assert!(poll(task.as_mut()).is_ready());
    }
    assert!(group.is_empty());
    // Its end is late, and those of others come between: also the places of named tasks come back.
    let long = group.named("long").enter().unwrap();
    for _ in 0..1000 {
        drop(group.named("short").enter().unwrap());
    }
    assert_eq!(group.running().len(), 1);
    drop(long);
    assert!(group.join_blocking().is_ok());
}

#[test]
fn a_context_that_is_kept_does_not_keep_the_task() {
    let group = group();
    let (say, hear) = mpsc::channel();
    group
        .spawn_thread(move |ctx| say.send(ctx).unwrap())
        .unwrap();
    let ctx = hear.recv().unwrap();
    group.join_blocking().unwrap();
    assert!(!ctx.is_done());
    drop(group);
    assert!(ctx.is_done());
}

#[test]
fn wait_idle_closes_nothing() {
    let group = group();
    block_on(group.wait_idle());
    group.spawn_thread(|_ctx| {}).unwrap();
    block_on(group.wait_idle());
    assert!(!group.is_closed());
    group.spawn_thread(|_ctx| {}).unwrap();
    group.join_blocking().unwrap();
    assert!(group.is_closed());
}

#[test]
fn join_waits_for_tasks_that_tasks_start() {
    let group = group();
    let count = Arc::new(AtomicUsize::new(0));
    fn grow(spawner: cancel_tree::Spawner, count: Arc<AtomicUsize>, depth: usize) {
        count.fetch_add(1, SeqCst);
        if depth > 0 {
            for _ in 0..2 {
                let (next, count) = (spawner.clone(), count.clone());
                spawner
                    .spawn_thread(move |_ctx| grow(next, count, depth - 1))
                    .unwrap();
            }
        }
    }
    grow(group.spawner(), count.clone(), 5);
    group.join_blocking().unwrap();
    assert_eq!(count.load(SeqCst), 63);
}

#[test]
fn several_may_join() {
    let group = Arc::new(group());
    let member = group.enter().unwrap();
    let joiners: Vec<_> = (0..4)
        .map(|_| {
            let group = group.clone();
            thread::spawn(move || group.join_blocking().is_ok())
        })
        .collect();
    thread::sleep(Duration::from_millis(10));
    drop(member);
    for joiner in joiners {
        assert!(joiner.join().unwrap());
    }
}

// ----- errors ---------------------------------------------------------------------------------

#[test]
fn the_first_error_cancels_and_is_the_cause() {
    let group = group();
    group
        .spawn_thread(|ctx| {
            block_on(ctx.done());
            Err::<(), _>(ctx.cause().unwrap())
        })
        .unwrap();
    group
        .spawn_thread(|_ctx| Err::<(), _>(Broken("disk full")))
        .unwrap();
    let cause = group.join_blocking().unwrap_err();
    assert_eq!(cause.downcast_ref::<Broken>().unwrap().0, "disk full");
    let cause = group.context().cause().unwrap();
    assert!(cause.downcast_ref::<Broken>().is_some());
    // Again, the same.
    assert!(group.join_blocking().is_err());
}

/// A comment in golang/go#27837: the error of the group was "context canceled", and the real one was lost.
#[test]
fn the_groups_own_end_handed_back_replaces_no_error() {
    type Back = fn(&Context) -> Cause;
    let backs: [Back; 4] = [
        |_| ContextError::Cancelled.into(),
        |_| ContextError::DeadlineExceeded.into(),
        |ctx| ctx.cause().unwrap(),
        |ctx| Cause::new(Wrapped(ctx.cause().unwrap())),
    ];
    for back in backs {
        let group = group();
        let ctx = group.context().clone();
        let echo = async move {
            ctx.done().await;
            Err::<(), _>(back(&ctx))
        };
        let echo = group.track(echo).unwrap();
        group.cancel_with("stop");
        block_on(echo);
        // Only an echo: join says why the group ended.
        assert_eq!(group.join_blocking().unwrap_err().to_string(), "stop");
    }
    for back in backs {
        let group = group();
        let ctx = group.context().clone();
        let mut echo = Box::pin(
            group
                .track(async move {
                    ctx.done().await;
                    Err::<(), _>(back(&ctx))
                })
                .unwrap(),
        );
        let real = group.track(async { Err::<(), _>(Broken("real")) }).unwrap();
        group.cancel_with("stop");
        assert!(poll(echo.as_mut()).is_ready());
        assert!(poll(pin!(real)).is_ready());
        let cause = group.join_blocking().unwrap_err();
        assert!(cause.downcast_ref::<Broken>().is_some(), "{cause}");
    }
}

#[test]
fn an_inner_deadline_is_an_error_of_its_own() {
    let group = group();
    let task = group
        .track(async { Err::<(), _>(ContextError::DeadlineExceeded) })
        .unwrap();
    assert!(poll(pin!(task)).is_ready());
    assert!(group.context().is_done());
    let cause = group.join_blocking().unwrap_err();
    assert_eq!(cause.kind(), ContextError::DeadlineExceeded);
}

#[test]
fn a_group_whose_tasks_return_well_joins_well() {
    let group = group();
    let task = group.track(async { Ok::<_, Cause>(5) }).unwrap();
    assert!(poll(pin!(task)).is_ready());
    group.cancel();
    assert!(group.join_blocking().is_ok());
}

#[test]
fn keep_going_keeps_the_first_error_and_cancels_nothing() {
    let group = group().keep_going();
    for text in ["first", "second"] {
        let task = group.track(async move { Err::<(), _>(text) }).unwrap();
        assert!(poll(pin!(task)).is_ready());
    }
    assert!(!group.context().is_done());
    assert_eq!(group.join_blocking().unwrap_err().to_string(), "first");
}

// ----- panics ---------------------------------------------------------------------------------

/// sourcegraph/conc#106: a panic was kept until somebody waited, and the others went on.
#[test]
fn a_panic_cancels_at_once_and_is_raised_by_join() {
    for keeps_going in [false, true] {
        let mut group = group();
        if keeps_going {
            group = group.keep_going();
        }
        let (say, hear) = mpsc::channel();
        group
            .spawn_thread(move |ctx| {
                block_on(ctx.done());
                say.send(ctx.cause().unwrap()).unwrap();
            })
            .unwrap();
        group
            .named("bad")
            .spawn_thread(|_ctx| {
                if true {
                    panic!("oh no");
                }
            })
            .unwrap();
        let cause = hear.recv_timeout(Duration::from_secs(20)).unwrap();
        let panicked = cause.downcast_ref::<Panicked>().unwrap();
        assert_eq!(panicked.message, "oh no");
        assert_eq!(panicked.name.as_deref(), Some("bad"));
        assert!(panicked
            .spawned_at
            .unwrap()
            .file()
            .ends_with("group_rules.rs"));
        let raised = catch_unwind(AssertUnwindSafe(|| group.join_blocking())).unwrap_err();
        assert_eq!(*raised.downcast_ref::<&str>().unwrap(), "oh no");
        // Once; then it is an error.
        assert!(group
            .join_blocking()
            .unwrap_err()
            .downcast_ref::<Panicked>()
            .is_some());
    }
}

#[test]
fn a_panic_of_a_tracked_future_does_not_reach_who_polls_it() {
    let group = group();
    let task = group
        .track(async {
            if true {
                panic!("poll");
            }
        })
        .unwrap();
    assert!(poll(pin!(task)).is_ready());
    assert!(group.context().is_done());
    assert!(catch_unwind(AssertUnwindSafe(|| group.join_blocking())).is_err());
}

#[test]
fn a_panic_of_a_tasks_drop_is_a_panic_of_the_task() {
    let group = group();
    let fails = PanicsInDrop;
    drop(group.track(async move { drop(fails) }).unwrap());
    assert!(group.context().is_done());
    let raised = catch_unwind(AssertUnwindSafe(|| group.join_blocking())).unwrap_err();
    assert_eq!(*raised.downcast_ref::<&str>().unwrap(), "the destructor");
}

#[test]
fn a_panic_in_what_makes_the_future_gives_the_place_back() {
    let group = group();
    let made = catch_unwind(AssertUnwindSafe(|| {
        group.track_with(|_ctx| -> std::future::Ready<()> { panic!("no future") })
    }));
    assert!(made.is_err());
    assert!(group.join_blocking().is_ok());
}

// ----- refusing -------------------------------------------------------------------------------

#[test]
fn a_closed_group_gives_the_work_back() {
    let group = group();
    let member = group.enter().unwrap();
    group.close();
    let refused = group.track_with(|_ctx| async {}).unwrap_err();
    assert!(refused.cause().downcast_ref::<Closed>().is_some());
    let _work = refused.into_inner();
    assert!(group.spawn_thread::<_, ()>(|_ctx| panic!("runs")).is_err());
    assert!(group.enter().is_err());
    assert!(!group.context().is_done());
    drop(member);
    assert!(group.join_blocking().is_ok());
}

#[test]
fn a_cancelled_group_gives_the_work_back_with_its_cause() {
    let group = group();
    group.cancel_with("enough");
    let refused = group
        .spawn_thread::<_, ()>(|_ctx| panic!("runs"))
        .map_err(|r| r.cause().to_string());
    assert_eq!(refused.unwrap_err(), "enough");
    let text = String::from("untouched");
    let refused = group.track(async move { drop(text) }).unwrap_err();
    assert_eq!(Cause::from(refused).to_string(), "enough");
}

#[test]
fn a_spawner_keeps_nothing_going() {
    let group = group();
    let spawner = group.spawner();
    let ctx = group.context().clone();
    drop(group);
    assert!(ctx.is_done());
    assert!(spawner.spawn_thread(|_ctx| {}).is_err());
}

#[test]
fn dropping_a_group_cancels_and_neither_blocks_nor_aborts() {
    let group = group();
    let (say, hear) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    group
        .spawn_thread(move |ctx| {
            block_on(ctx.done());
            wait.recv().unwrap();
            say.send("to the end").unwrap();
        })
        .unwrap();
    drop(group);
    assert!(hear.try_recv().is_err());
    go.send(()).unwrap();
    assert_eq!(hear.recv(), Ok("to the end"));
}

// ----- the limit ------------------------------------------------------------------------------

#[test]
fn a_full_group_refuses_what_does_not_wait() {
    let group = group().limit(2);
    let first = group.enter().unwrap();
    let _second = group.enter().unwrap();
    let refused = group.track(async {}).unwrap_err();
    assert!(refused.is_full());
    assert!(refused.cause().downcast_ref::<Full>().is_some());
    drop(first);
    assert!(group.track(async {}).is_ok());
}

#[test]
fn who_waits_for_room_gets_it_in_order_of_arrival() {
    let group = group().limit(1);
    let ctx = Context::background();
    let first = group.enter().unwrap();
    let mut waits: Vec<_> = (0..3).map(|_| Box::pin(group.enter_when(&ctx))).collect();
    for wait in &mut waits {
        assert!(poll(wait.as_mut()).is_pending());
    }
    // The second of them gives up.
    drop(waits.remove(1));
    drop(first);
    // Who comes now must not overtake.
    assert!(group.enter().unwrap_err().is_full());
    assert!(poll(waits[1].as_mut()).is_pending());
    let Poll::Ready(Ok(member)) = poll(waits[0].as_mut()) else {
        panic!("the first has room");
    };
    assert!(poll(waits[1].as_mut()).is_pending());
    drop(member);
    assert!(matches!(poll(waits[1].as_mut()), Poll::Ready(Ok(_))));
    drop(waits);
    assert!(group.enter().is_ok());
}

#[test]
fn a_wait_for_room_ends_with_the_group_and_with_the_context() {
    let group = group().limit(1);
    let _member = group.enter().unwrap();
    let (ctx, guard) = Context::background().with_cancel();
    let never = Context::background();
    let mut by_ctx = Box::pin(group.enter_when(&ctx));
    let mut by_close = Box::pin(group.enter_when(&never));
    assert!(poll(by_ctx.as_mut()).is_pending());
    assert!(poll(by_close.as_mut()).is_pending());
    guard.cancel_with("not any more");
    let Poll::Ready(Err(refused)) = poll(by_ctx.as_mut()) else {
        panic!("ended");
    };
    assert_eq!(refused.cause().to_string(), "not any more");
    group.close();
    let Poll::Ready(Err(refused)) = poll(by_close.as_mut()) else {
        panic!("ended");
    };
    assert!(refused.cause().downcast_ref::<Closed>().is_some());

    let group = Group::new(&Context::background()).limit(1);
    let _member = group.enter().unwrap();
    let mut by_cancel = Box::pin(group.enter_when(&never));
    assert!(poll(by_cancel.as_mut()).is_pending());
    group.cancel_with("enough");
    let Poll::Ready(Err(refused)) = poll(by_cancel.as_mut()) else {
        panic!("ended");
    };
    assert_eq!(refused.cause().to_string(), "enough");
}

#[test]
fn a_wait_that_is_dropped_after_it_was_granted_gives_the_room_on() {
    let group = group().limit(1);
    let ctx = Context::background();
    let first = group.enter().unwrap();
    let mut a = Box::pin(group.enter_when(&ctx));
    let mut b = Box::pin(group.enter_when(&ctx));
    assert!(poll(a.as_mut()).is_pending());
    assert!(poll(b.as_mut()).is_pending());
    drop(first);
    drop(a);
    assert!(matches!(poll(b.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn who_has_given_up_waiting_stands_in_nobodys_way() {
    let group = group().limit(2);
    let ctx = Context::background();
    let first = group.enter().unwrap();
    let _second = group.enter().unwrap();
    let mut wait = Box::pin(group.enter_when(&ctx));
    assert!(poll(wait.as_mut()).is_pending());
    drop(wait);
    drop(first);
    assert!(group.enter().is_ok());
}

#[test]
fn the_limit_may_change_while_tasks_run() {
    let group = group().limit(1);
    let ctx = Context::background();
    let first = group.enter().unwrap();
    let mut a = Box::pin(group.enter_when(&ctx));
    assert!(poll(a.as_mut()).is_pending());
    group.set_limit(2);
    let Poll::Ready(Ok(second)) = poll(a.as_mut()) else {
        panic!("there is room");
    };
    group.set_limit(1);
    drop(first);
    assert!(group.enter().unwrap_err().is_full());
    drop(second);
    let third = group.enter().unwrap();
    let mut b = Box::pin(group.enter_when(&ctx));
    assert!(poll(b.as_mut()).is_pending());
    group.set_limit(usize::MAX);
    assert!(matches!(poll(b.as_mut()), Poll::Ready(Ok(_))));
    drop(third);
    drop(b);
    assert!(group.join_blocking().is_ok());
}

#[test]
fn no_more_than_the_limit_run_at_once() {
    let group = group().limit(3);
    let ctx = Context::background();
    let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..200 {
        let member = group.enter_when_blocking(&ctx).unwrap();
        let (now, peak) = (now.clone(), peak.clone());
        thread::spawn(move || {
            member.run(|_ctx| {
                peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                thread::yield_now();
                now.fetch_sub(1, SeqCst);
            })
        });
    }
    group.join_blocking().unwrap();
    assert!(peak.load(SeqCst) <= 3);
}

/// sourcegraph/conc#88, alitto/pond#61: tasks that wait for each other's places wait for ever.
#[test]
fn a_task_of_a_full_group_is_refused_and_does_not_wait_for_itself() {
    let group = group().limit(1);
    let spawner = group.spawner();
    let refused = Arc::new(AtomicBool::new(false));
    let task = group
        .track({
            let refused = refused.clone();
            async move {
                let ctx = Context::background();
                let inside = spawner.track_when(&ctx, async {}).await;
                refused.store(inside.unwrap_err().is_full(), SeqCst);
            }
        })
        .unwrap();
    block_on(task);
    assert!(refused.load(SeqCst));
    let (say, hear) = mpsc::channel();
    let spawner = group.spawner();
    group
        .spawn_thread(move |ctx| {
            say.send(spawner.enter_when_blocking(&ctx).is_err())
                .unwrap()
        })
        .unwrap();
    assert!(hear.recv().unwrap());
    group.join_blocking().unwrap();
}

// ----- shutting down --------------------------------------------------------------------------

#[test]
fn a_shutdown_waits_for_all_that_end_in_time() {
    let group = group();
    let sent = Arc::new(AtomicUsize::new(0));
    let (closed, is_closed) = mpsc::channel::<()>();
    let is_closed = Arc::new(std::sync::Mutex::new(is_closed));
    for _ in 0..5 {
        let (sent, is_closed) = (sent.clone(), is_closed.clone());
        group
            .spawn_thread(move |_ctx| {
                assert!(is_closed.lock().unwrap().recv().is_err());
                sent.fetch_add(1, SeqCst);
            })
            .unwrap();
    }
    let (limit, _guard) = later();
    let mut shutdown = Box::pin(group.shutdown(&limit));
    assert!(poll(shutdown.as_mut()).is_pending());
    drop(closed);
    let report = block_on(shutdown);
    assert_eq!(sent.load(SeqCst), 5);
    assert_eq!((report.done, report.stuck.len()), (5, 0));
    assert!(report.is_clean());
    assert!(group.enter().is_err());
}

#[test]
fn a_shutdown_cancels_who_is_late_and_names_who_does_not_stop() {
    // Long enough for a thread to end on a busy machine, in one of the attempts.
    (0..6)
        .find(|n| stuck_beside_who_stops(Duration::from_secs(1 << n)))
        .expect("who stops is counted");
}

/// Whether the grace was long enough for those that stop.
fn stuck_beside_who_stops(grace: Duration) -> bool {
    let group = group();
    let (go, wait) = mpsc::channel::<()>();
    group.spawn_thread(|ctx| _ = block_on(ctx.done())).unwrap();
    let aborted = Arc::new(std::sync::Mutex::new(Some(Box::pin(
        group.track(pending::<()>()).unwrap(),
    ))));
    drop(group.context().on_cancel({
        let aborted = aborted.clone();
        move || drop(aborted.lock().unwrap().take())
    }));
    let line = line!() + 3;
    group
        .named("deaf")
        .spawn_thread(move |_ctx| _ = wait.recv())
        .unwrap();
    let (limit, _guard) = soon();
    let begin = Instant::now();
    let report = block_on(group.shutdown_with(&limit, grace));
    assert!(begin.elapsed() >= grace);
    if report.stuck.len() == 2 {
        go.send(()).unwrap();
        return false;
    }
    assert_eq!((report.done, report.cancelled, report.forced), (0, 1, 1));
    let [deaf] = &report.stuck[..] else {
        panic!("{report}");
    };
    assert_eq!(deaf.name.as_deref(), Some("deaf"));
    assert_eq!(deaf.spawned_at.line(), line);
    assert!(deaf.since.unwrap() < begin);
    assert!(report.to_string().contains("stuck: deaf"), "{report}");
    go.send(()).unwrap();
    // It can be asked again.
    let (limit, _guard) = later();
    let report = group.shutdown_blocking(&limit);
    assert!(report.stuck.is_empty());
    true
}

/// A name may be another's words, as the path of a request is: what ends a line, or turns it around, is not shown as it came.
#[test]
fn names_stay_in_their_line() {
    let group = group();
    let name = "GET /\n\u{1b}[2J\u{85}\u{2028}\u{2029}\u{202e}\u{2066}\u{9b}é";
    let line = "GET /  [2J      é";
    let place = group.named(name).enter().unwrap();
    let there = group.running();
    assert_eq!(there[0].name.as_deref(), Some(name));
    assert!(there[0].to_string().starts_with(line), "{}", there[0]);
    let (limit, _guard) = soon();
    let report = block_on(group.shutdown_with(&limit, Duration::ZERO));
    assert!(report.to_string().contains(line), "{report}");
    drop(place);

    let group = self::group();
    let panics = async { assert_eq!(line, name, "it is not") };
    let panics = group.named(name).track(panics).unwrap();
    assert!(poll(pin!(panics)).is_ready());
    let cause = group.context().cause().unwrap().to_string();
    assert!(cause.contains(&format!("({line})")), "{cause}");
}

#[test]
fn a_shutdown_reports_panics_and_errors() {
    let group = group();
    let task = group.track(async { Err::<(), _>("lost") }).unwrap();
    assert!(poll(pin!(task)).is_ready());
    let (limit, _guard) = later();
    let report = group.shutdown_blocking(&limit);
    assert_eq!(report.cause.unwrap().to_string(), "lost");
}

#[test]
fn join_until_says_who_is_missing() {
    let group = group();
    let member = group.named("slow").enter().unwrap();
    let (limit, _guard) = soon();
    let unfinished = block_on(group.join_until(&limit)).unwrap_err();
    assert_eq!(unfinished.missing[0].name.as_deref(), Some("slow"));
    assert_eq!(unfinished.cause.kind(), ContextError::DeadlineExceeded);
    assert!(!group.is_closed());
    drop(member);
    let (limit, _guard) = later();
    assert!(block_on(group.join_until(&limit)).unwrap().is_ok());
}

#[test]
fn a_wait_that_is_dropped_leaves_nothing() {
    let group = group();
    let member = group.enter().unwrap();
    for _ in 0..1000 {
        let mut idle = Box::pin(group.wait_idle());
        assert!(poll(idle.as_mut()).is_pending());
    }
    drop(member);
    assert!(group.join_blocking().is_ok());
}

#[test]
fn stages_share_the_time() {
    let (first, second) = (group(), group());
    let (_a, _b) = (first.enter().unwrap(), second.enter().unwrap());
    let (limit, _guard) = Context::background().with_timeout(Duration::from_millis(40));
    let reports = block_on(Group::shutdown_stages(&[&first, &second], &limit));
    assert_eq!(reports.len(), 2);
    assert!(reports.iter().all(|report| report.stuck.len() == 1));
}

// ----- groups in groups -----------------------------------------------------------------------

#[test]
fn tasks_of_a_child_group_count_above() {
    let group = group();
    let db = group.child("db");
    let member = db.named("flush").enter().unwrap();
    let names: Vec<_> = group.running().into_iter().map(|task| task.name).collect();
    assert_eq!(names, [Some("db/flush".to_string())]);
    let mut idle = Box::pin(group.wait_idle());
    assert!(poll(idle.as_mut()).is_pending());
    drop(member);
    assert!(poll(idle.as_mut()).is_ready());
    // The handle of the child keeps nobody waiting.
    assert!(group.join_blocking().is_ok());
    let refused = db.enter().unwrap_err();
    assert!(refused.cause().downcast_ref::<Closed>().is_some());
}

#[test]
fn a_child_group_fails_alone() {
    let group = group();
    let db = group.child("db");
    let task = db.track(async { Err::<(), _>("db") }).unwrap();
    assert!(poll(pin!(task)).is_ready());
    assert!(db.context().is_done());
    assert!(!group.context().is_done());
    assert!(db.join_blocking().is_err());
    assert!(group.join_blocking().is_ok());
    group.cancel();
}

#[test]
fn tasks_of_a_child_group_outlive_its_handles_and_those_above() {
    let group = group();
    let db = group.child("db");
    let pool = db.child("pool");
    let member = pool.enter().unwrap();
    drop(pool);
    drop(db);
    drop(group);
    assert!(member.context().is_done());
    drop(member);
}

// ----- typed outcomes -------------------------------------------------------------------------

#[test]
fn outcomes_come_one_by_one() {
    let group = group().keep_going();
    let mut outcomes = group.outcomes();
    let a = outcomes.track(async { Ok::<_, Cause>(1) }).unwrap();
    let b = outcomes.track(async { Err::<i32, _>("two") }).unwrap();
    let c = outcomes.track(pending::<Result<i32, Cause>>()).unwrap();
    let mut next = Box::pin(outcomes.next());
    assert!(poll(next.as_mut()).is_pending());
    drop(next);
    assert!(poll(pin!(b)).is_ready());
    assert!(poll(pin!(a)).is_ready());
    assert_eq!(
        outcomes.next_blocking().unwrap().unwrap_err().to_string(),
        "two"
    );
    assert_eq!(outcomes.next_blocking().unwrap().unwrap(), 1);
    drop(c);
    assert!(outcomes.next_blocking().unwrap().is_err());
    assert!(outcomes.next_blocking().is_none());
    assert_eq!(group.join_blocking().unwrap_err().to_string(), "two");
}

#[test]
fn the_first_success_of_a_race_ends_the_rest() {
    let group = group();
    let mut race = group.race();
    let (gone, ended) = mpsc::channel();
    race.spawn_thread(|_ctx| Err::<i32, _>("lame")).unwrap();
    race.spawn_thread(move |ctx| {
        block_on(ctx.done());
        gone.send(()).unwrap();
        Err(Cause::from("late"))
    })
    .unwrap();
    race.spawn_thread(|_ctx| {
        thread::sleep(Duration::from_millis(20));
        Ok::<_, Cause>(3)
    })
    .unwrap();
    assert_eq!(block_on(race.winner()).unwrap(), 3);
    assert!(group.join_blocking().is_ok());
    assert!(ended.recv().is_ok());
    let group = self::group();
    let mut race = group.race::<()>();
    race.spawn_thread(|_ctx| Err("all lost")).unwrap();
    assert_eq!(block_on(race.winner()).unwrap_err().to_string(), "all lost");
}

#[test]
fn a_race_is_over_at_its_first_success_and_not_at_the_join() {
    let group = group();
    let mut race = group.race();
    let lame = race.track(async { Err::<i32, _>("lame") }).unwrap();
    let slow = race
        .track_with(|ctx| async move { Err::<i32, _>(ctx.done().await) })
        .unwrap();
    let first = race.track_with(|_ctx| ready(Ok::<_, Cause>(3))).unwrap();
    let mut slow = pin!(slow);
    assert!(poll(pin!(lame)).is_ready());
    assert!(poll(slow.as_mut()).is_pending());
    assert!(!group.context().is_done());
    // Nobody has asked for the winner yet, nor joins.
    assert!(poll(pin!(first)).is_ready());
    assert!(group.context().is_done());
    assert!(race.track(pending::<Result<i32, Cause>>()).is_err());
    assert!(poll(slow.as_mut()).is_ready());
    assert_eq!(block_on(race.winner()).unwrap(), 3);
    assert!(group.join_blocking().is_ok());
}

#[test]
fn outcomes_of_futures_that_are_given_a_context() {
    let group = group();
    let mut outcomes = group.outcomes();
    let mut one = Box::pin(
        outcomes
            .track_with(|ctx| async move { Err::<u8, _>(ctx.done().await) })
            .unwrap(),
    );
    assert!(poll(one.as_mut()).is_pending());
    // A panic of what makes the future gives the place back, and is no outcome.
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let made = outcomes
            .track_with(|_ctx| -> std::future::Ready<Result<u8, Cause>> { panic!("no future") });
        drop(made);
    }));
    assert!(panicked.is_err());
    assert_eq!(group.len(), 1);
    group.cancel();
    assert!(poll(one.as_mut()).is_ready());
    let told = outcomes.next_blocking().unwrap().unwrap_err();
    assert_eq!(told.kind(), ContextError::Cancelled);
    assert!(outcomes.next_blocking().is_none());
    let refused = outcomes.track_with(|_ctx| ready(Ok::<u8, Cause>(7)));
    let work = refused.map(drop).unwrap_err().into_inner();
    assert_eq!(block_on(work(Context::background())).unwrap(), 7);
    assert!(outcomes.next_blocking().is_none());
}

#[test]
fn what_has_come_by_the_limit_is_not_lost() {
    // The limit is there when it is looked for again, or comes later.
    for later in [Duration::ZERO, Duration::from_millis(20)] {
        let group = group();
        let mut outcomes = group.outcomes();
        let quick = outcomes.track(async { Ok::<_, Cause>(1) }).unwrap();
        let _slow = outcomes.track(pending::<Result<i32, Cause>>()).unwrap();
        let (limit, guard) = Context::background().with_movable_deadline(None);
        let comes = async {
            quick.await;
            assert!(guard.set_timeout(later));
        };
        let (partial, ()) = block_on(join(outcomes.join_until(&limit), comes));
        assert_eq!(partial.outcomes.len(), 1);
        assert_eq!(partial.missing.len(), 1);
        assert!(partial.cause.is_some());
    }
}

// ----- scopes ---------------------------------------------------------------------------------

#[test]
fn a_scope_borrows_and_is_over_when_all_are_gone() {
    let mut words = vec!["a".to_string(), "b".to_string()];
    let answer = Group::scope(&Context::background(), |g| {
        for word in &mut words {
            let inner = g.clone();
            g.spawn_thread(move |_ctx| {
                word.push('!');
                inner.spawn_thread(|_ctx| {}).unwrap();
            })
            .unwrap();
        }
        7
    });
    assert_eq!(answer.unwrap(), 7);
    assert_eq!(words, ["a!", "b!"]);
}

#[test]
fn a_panic_in_a_scope_cancels_and_waits() {
    let ended = AtomicBool::new(false);
    let raised = catch_unwind(AssertUnwindSafe(|| {
        Group::scope(&Context::background(), |g| {
            g.spawn_thread(|ctx| {
                block_on(ctx.done());
                ended.store(true, SeqCst);
            })
            .unwrap();
            panic!("in the scope");
        })
    }));
    assert_eq!(
        *raised
            .map(|_: Result<(), _>| ())
            .unwrap_err()
            .downcast_ref::<&str>()
            .unwrap(),
        "in the scope"
    );
    assert!(ended.load(SeqCst));
    let failed = Group::scope(&Context::background(), |g| {
        g.spawn_thread(|_ctx| Err::<(), _>("thread")).unwrap();
        g.spawn_thread(|ctx| _ = block_on(ctx.done())).unwrap_or(());
    });
    assert_eq!(failed.unwrap_err().to_string(), "thread");
}

// ----- everything at once ---------------------------------------------------------------------

#[test]
fn tasks_come_and_go_on_four_threads_while_others_wait_and_look() {
    let group = Arc::new(group());
    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicUsize::new(0));
    let makers: Vec<_> = (0..4)
        .map(|i| {
            let (group, stop) = (group.clone(), stop.clone());
            let (made, ended) = (made.clone(), ended.clone());
            thread::spawn(move || {
                let mut kept = Vec::new();
                while !stop.load(SeqCst) {
                    let member = match i % 2 {
                        0 => group.enter(),
                        _ => group.named("n").enter(),
                    };
                    let Ok(member) = member else { break };
                    made.fetch_add(1, SeqCst);
                    kept.push(member);
                    if kept.len() > 50 * (i + 1) {
                        ended.fetch_add(kept.len(), SeqCst);
                        kept.clear();
                    }
                }
                ended.fetch_add(kept.len(), SeqCst);
                drop(kept);
            })
        })
        .collect();
    let looker = thread::spawn({
        let (group, stop) = (group.clone(), stop.clone());
        move || {
            while !stop.load(SeqCst) {
                for task in group.running() {
                    assert!(task.spawned_at.file().ends_with("group_rules.rs"));
                    assert!(task.name.is_none_or(|name| name == "n"));
                }
                let mut idle = Box::pin(group.wait_idle());
                let _ = poll(idle.as_mut());
            }
        }
    });
    thread::sleep(Duration::from_millis(300));
    stop.store(true, SeqCst);
    let (limit, _guard) = later();
    let report = group.shutdown_blocking(&limit);
    assert!(report.stuck.is_empty());
    assert_eq!(made.load(SeqCst), ended.load(SeqCst));
    for maker in makers {
        maker.join().unwrap();
    }
    looker.join().unwrap();
    assert!(group.running().is_empty());
}

/// Those who wait for the last task may block in their wakers: whoever has the permit knows of it by then.
#[test]
fn who_has_room_is_woken_before_those_who_join() {
    struct Note(&'static str, mpsc::Sender<&'static str>);
    impl task::Wake for Note {
        fn wake(self: Arc<Self>) {
            self.1.send(self.0).unwrap();
        }
    }
    let (sender, woken) = mpsc::channel();
    let waker = |name| Waker::from(Arc::new(Note(name, sender.clone())));
    for name in [None, Some("task")] {
        let group = group().limit(1);
        let first = match name {
            Some(name) => group.named(name).enter().unwrap(),
            None => group.enter().unwrap(),
        };
        let ctx = Context::background();
        let (idle, room) = (waker("idle"), waker("room"));
        let mut joins = pin!(group.wait_idle());
        let mut starts = pin!(group.enter_when(&ctx));
        let mut cx = task::Context::from_waker(&idle);
        assert!(joins.as_mut().poll(&mut cx).is_pending());
        let mut cx = task::Context::from_waker(&room);
        assert!(starts.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert_eq!(woken.try_iter().collect::<Vec<_>>(), ["room", "idle"]);
        assert!(poll(starts).is_ready());
    }
}

/// What has panicked in its destructor was dropped all the same: the report counts it as forced, and has the panic beside that.
#[test]
fn a_future_whose_destructor_panics_is_forced() {
    for is_polled in [false, true] {
        let group = group();
        let fails = PanicsInDrop;
        let task = group.track(async move {
            let _fails = fails;
            pending::<()>().await;
        });
        let mut task = Box::pin(task.unwrap());
        if is_polled {
            assert!(poll(task.as_mut()).is_pending());
        }
        let (limit, _guard) = later();
        let mut shutdown = Box::pin(group.shutdown(&limit));
        assert!(poll(shutdown.as_mut()).is_pending());
        drop(task);
        let report = block_on(shutdown);
        assert_eq!((report.cancelled, report.forced), (0, 1), "{report}");
        let cause = report.cause.unwrap();
        assert!(cause.find::<Panicked>().is_some(), "{cause}");
    }
}
