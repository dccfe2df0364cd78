//! What nobody should do to a group, and many of what one does: none of it loses a task, a word of it, or the time of
//! those who wait.

use cancel_tree::{Cause, Closed, Context, Group, Member, Panicked};
use futures::executor::{block_on, LocalPool};
use futures::task::LocalSpawnExt;
use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

fn group() -> Group {
    Group::new(&Context::background())
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(Waker::noop()))
}

fn later() -> (Context, cancel_tree::CancelGuard) {
    Context::background().with_timeout(Duration::from_secs(20))
}

// ----- what was refused -----------------------------------------------------------------------

#[test]
fn what_is_refused_has_no_outcome_and_comes_back() {
    let group = group();
    let mut outcomes = group.outcomes::<u8>();
    group.close();
    let refused = outcomes.spawn_thread(|_ctx| Ok::<_, Cause>(7)).unwrap_err();
    assert!(refused.cause().downcast_ref::<Closed>().is_some());
    assert!(outcomes.next_blocking().is_none());
    assert_eq!(refused.into_inner()(Context::background()).unwrap(), 7);
    let mut race = group.race::<u8>();
    assert!(race.spawn_thread(|_ctx| Ok::<_, Cause>(7)).is_err());
    assert_eq!(
        block_on(race.winner()).unwrap_err().to_string(),
        "nobody took part"
    );
}

#[test]
fn a_group_inside_a_closed_one_says_that_it_is_closed() {
    let around = group();
    let inside = around.child("inside").child("further");
    assert!(!inside.is_closed());
    around.close();
    assert!(inside.is_closed());
    assert!(inside.enter().is_err());
    assert!(inside.join_blocking().is_ok());
}

// ----- order ----------------------------------------------------------------------------------

#[test]
fn who_gets_room_at_the_same_time_goes_on_in_order_of_arrival() {
    let group = Rc::new(group().limit(0));
    let order = Rc::new(RefCell::new(Vec::new()));
    let mut pool = LocalPool::new();
    let ctx = Context::background();
    for i in 0..10 {
        let (group, order, ctx) = (group.clone(), order.clone(), ctx.clone());
        let wait = async move {
            let member = group.enter_when(&ctx).await.unwrap();
            order.borrow_mut().push(i);
            drop(member);
        };
        pool.spawner().spawn_local(wait).unwrap();
    }
    pool.run_until_stalled();
    group.set_limit(10);
    pool.run_until_stalled();
    assert_eq!(*order.borrow(), (0..10).collect::<Vec<_>>());
}

// ----- errors and panics ----------------------------------------------------------------------

/// An error whose `source` or `Drop` panics.
#[derive(Debug)]
struct Hostile {
    source: bool,
    drop: bool,
}

impl fmt::Display for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hostile")
    }
}

impl Error for Hostile {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        assert!(!self.source, "source");
        None
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        assert!(!self.drop || thread::panicking(), "drop");
    }
}

#[test]
fn an_error_that_panics_when_it_is_looked_at_is_a_panic_of_the_task() {
    let group = group().keep_going();
    let task = group.track(async {
        Err::<(), _>(Cause::new(Hostile {
            source: true,
            drop: false,
        }))
    });
    group.cancel_with("enough");
    assert!(poll(pin!(task.unwrap())).is_ready());
    assert!(group.is_empty());
    assert!(catch_unwind(AssertUnwindSafe(|| group.join_blocking())).is_err());
    let cause = group.join_blocking().unwrap_err();
    assert!(cause.downcast_ref::<Panicked>().is_some(), "{cause}");
}

#[test]
fn an_error_whose_drop_panics_loses_nobody() {
    let group = group().keep_going();
    let fail = || {
        let error = Cause::new(Hostile {
            source: false,
            drop: true,
        });
        poll(pin!(group.track(async { Err::<(), _>(error) }).unwrap()))
    };
    assert!(fail().is_ready());
    // The second is dropped at once, as it is not the first.
    let second = catch_unwind(AssertUnwindSafe(fail));
    assert!(second.is_err() || second.unwrap().is_ready());
    assert!(group.is_empty());
    assert_eq!(group.join_blocking().unwrap_err().to_string(), "hostile");
    assert!(catch_unwind(AssertUnwindSafe(|| drop(group))).is_err());
}

/// The panic of an error that is shown is none of who shows the report: it is shown as far as it goes.
#[test]
fn reports_show_errors_that_panic_when_they_are_shown() {
    #[derive(Debug)]
    struct Unspeakable;
    impl fmt::Display for Unspeakable {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("it\nbegins")?;
            panic!("whoever shows it meets this")
        }
    }
    impl Error for Unspeakable {}
    let group = group().keep_going();
    let task = group.track(async { Err::<(), _>(Cause::new(Unspeakable)) });
    let stays = group.enter().unwrap();
    assert!(poll(pin!(task.unwrap())).is_ready());
    let (limit, guard) = Context::background().with_cancel();
    guard.cancel_with(Cause::new(Unspeakable));
    let unfinished = block_on(group.join_until(&limit)).unwrap_err();
    assert_eq!(unfinished.to_string(), "1 tasks are missing: it begins");
    let report = block_on(group.shutdown_with(&limit, Duration::ZERO));
    assert!(report.to_string().contains("; first error: it begins\n"));
    drop(stays);
}

/// A value of which there is another half, and whose drop panics.
struct Half(#[allow(dead_code)] Arc<()>);

impl Drop for Half {
    fn drop(&mut self) {
        assert!(thread::panicking(), "a half");
    }
}

#[test]
fn outcomes_whose_drops_panic_are_all_dropped() {
    let group = group();
    let come = |outcomes: &cancel_tree::Outcomes<Half>| {
        let half = Arc::new(());
        for _ in 0..3 {
            let value = Half(half.clone());
            let task = outcomes.track(async { Ok::<_, Cause>(value) }).unwrap();
            assert!(poll(pin!(task)).is_ready());
        }
        half
    };
    // Where nobody has asked for them, and where the reader has those that came first.
    for is_read in [false, true] {
        let mut outcomes = group.outcomes();
        let half = come(&outcomes);
        let first = is_read.then(|| outcomes.next_blocking().unwrap().unwrap());
        let other = come(&outcomes);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(outcomes))).is_err());
        assert_eq!(Arc::strong_count(&half), 1 + usize::from(is_read));
        assert_eq!(Arc::strong_count(&other), 1);
        assert_eq!(
            catch_unwind(AssertUnwindSafe(|| drop(first))).is_err(),
            is_read
        );
    }
    assert!(group.join_blocking().is_ok());
}

/// What a group has kept goes with it: a panic of one keeps no other.
#[test]
fn what_a_group_has_kept_is_all_dropped() {
    let half = Arc::new(());
    let group = group().keep_going();
    let error = Cause::new(Hostile {
        source: false,
        drop: true,
    });
    let fails = group.track(async { Err::<(), _>(error) }).unwrap();
    let payload = Half(half.clone());
    let panics = group.track(async { std::panic::panic_any(payload) as () });
    assert!(poll(pin!(fails)).is_ready());
    // Not with the error, so that nobody else has that.
    group.cancel();
    assert!(poll(pin!(panics.unwrap())).is_ready());
    assert_eq!(Arc::strong_count(&half), 2);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(group))).is_err());
    assert_eq!(Arc::strong_count(&half), 1);
}

// ----- many -----------------------------------------------------------------------------------

#[test]
fn groups_inside_groups_as_deep_as_you_like() {
    const DEEP: usize = 100_000;
    // Small stack: a walk that calls itself would end the process.
    let walk = || {
        let mut groups = vec![group()];
        for _ in 1..DEEP {
            let inner = groups[groups.len() - 1].child("");
            groups.push(inner);
        }
        let task = groups[DEEP - 1].enter().unwrap();
        assert_eq!(groups[0].len(), 1);
        drop(task);
        assert!(groups[0].join_blocking().is_ok());
        assert!(groups[DEEP - 1].enter().is_err());
        let last = groups.pop();
        drop(groups);
        drop(last);
    };
    thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(walk)
        .unwrap()
        .join()
        .unwrap();
}

/// The time of the processor that this thread has used.
fn used() -> Duration {
    match std::fs::read_to_string("/proc/thread-self/schedstat") {
        Ok(stat) => Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap()),
        Err(_) => {
            static BEGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
            BEGIN.elapsed()
        }
    }
}

/// How long `work` takes with so many, at best.
fn takes(many: usize, work: impl Fn(usize)) -> Duration {
    let once = || {
        let begin = used();
        work(many);
        used() - begin
    };
    (0..3).map(|_| once()).min().unwrap()
}

/// Ten times as many take about ten times as long, and not a hundred times.
fn is_linear(name: &str, few: usize, work: impl Fn(usize)) {
    let (one, ten) = (takes(few, &work), takes(10 * few, &work));
    println!("{few} {name}: {one:?}; {}: {ten:?}", 10 * few);
    assert!(
        ten < 50 * one.max(Duration::from_millis(4)),
        "{name}: {one:?}, {ten:?}"
    );
}

#[test]
fn what_many_do_takes_as_long_as_they_are_many() {
    is_linear("tasks", 10_000, |many| {
        let group = group();
        let tasks: Vec<_> = (0..many).map(|_| group.track(async {}).unwrap()).collect();
        let mut join = pin!(group.join());
        assert!(poll(join.as_mut()).is_pending());
        for task in tasks {
            assert!(poll(pin!(task)).is_ready());
        }
        assert!(poll(join).is_ready());
    });
    is_linear("joiners", 1_000, |many| {
        let group = group();
        let task = group.enter().unwrap();
        let mut joins: Vec<_> = (0..many).map(|_| Box::pin(group.join())).collect();
        for join in &mut joins {
            assert!(poll(join.as_mut()).is_pending());
        }
        drop(task);
        for join in &mut joins {
            assert!(poll(join.as_mut()).is_ready());
        }
    });
    is_linear("joiners that give up", 1_000, |many| {
        let group = group();
        let _task = group.enter().unwrap();
        let mut joins: Vec<_> = (0..many).map(|_| Box::pin(group.join())).collect();
        for join in &mut joins {
            assert!(poll(join.as_mut()).is_pending());
        }
        drop(joins);
    });
    is_linear("waits for room", 10_000, |many| {
        let group = group().limit(0);
        let ctx = Context::background();
        let mut waits: Vec<_> = (0..many)
            .map(|_| Some(Box::pin(group.enter_when(&ctx))))
            .collect();
        for wait in waits.iter_mut().flatten() {
            assert!(poll(wait.as_mut()).is_pending());
        }
        // Every second one in the middle gives up.
        for wait in waits[many / 4..3 * many / 4].iter_mut().step_by(2) {
            *wait = None;
        }
        group.set_limit(1);
        group.set_limit(0);
        group.set_limit(usize::MAX);
        for wait in waits.iter_mut().flatten() {
            assert!(poll(wait.as_mut()).is_ready());
        }
    });
    is_linear("outcomes", 10_000, |many| {
        let group = group();
        let mut outcomes = group.outcomes();
        let tasks: Vec<_> = (0..many)
            .map(|i| outcomes.track(async move { Ok::<_, Cause>(i) }).unwrap())
            .collect();
        for task in tasks {
            assert!(poll(pin!(task)).is_ready());
        }
        for i in 0..many {
            assert_eq!(outcomes.next_blocking().unwrap().unwrap(), i);
        }
        assert!(outcomes.next_blocking().is_none());
    });
    is_linear("groups inside one", 1_000, |many| {
        let around = group();
        let groups: Vec<_> = (0..many).map(|_| around.child("part")).collect();
        let tasks: Vec<_> = groups
            .iter()
            .map(|group| group.named("work").track(async {}).unwrap())
            .collect();
        let mut join = pin!(around.join());
        assert!(poll(join.as_mut()).is_pending());
        assert_eq!(around.running().len(), many);
        for task in tasks {
            assert!(poll(pin!(task)).is_ready());
        }
        assert!(poll(join).is_ready());
    });
}

/// Whoever starts tasks, and whoever ends them: the group keeps memory for those that were there at once.
#[test]
fn places_are_used_again_by_other_threads() {
    let group = Arc::new(group());
    for _ in 0..100 {
        let group = group.clone();
        let tasks = thread::spawn(move || {
            (0..1000)
                .map(|_| group.enter().unwrap())
                .collect::<Vec<Member>>()
        });
        let tasks = tasks.join().unwrap();
        drop(tasks);
    }
    assert!(group.is_empty());
}

// ----- races on real threads ------------------------------------------------------------------

#[test]
fn a_report_leaves_no_task_out() {
    for _ in 0..300 {
        let group = group();
        let go = Arc::new(Barrier::new(4));
        for _ in 0..3 {
            let go = go.clone();
            group
                .spawn_thread(move |ctx| {
                    ctx.blocking_wait();
                    go.wait();
                })
                .unwrap();
        }
        let (limit, guard) = later();
        let mut end = pin!(group.shutdown_with(&limit, Duration::from_secs(60)));
        assert!(poll(end.as_mut()).is_pending());
        guard.cancel();
        assert!(poll(end.as_mut()).is_pending());
        go.wait();
        let report = block_on(end);
        assert_eq!(report.cancelled, 3, "{report}");
    }
}

/// One that ends while the report is made is counted, or named, or both.
#[test]
fn a_report_leaves_no_task_out_that_ends_while_it_is_made() {
    const MANY: usize = 200_000;
    let group = group();
    let start = |_| group.track(futures::future::pending::<()>()).unwrap();
    let tasks: Vec<_> = (0..MANY).map(start).collect();
    let ctx = group.context().clone();
    let ends = thread::spawn(move || {
        ctx.blocking_wait();
        drop(tasks);
    });
    let (limit, guard) = later();
    guard.cancel();
    let report = block_on(group.shutdown_with(&limit, Duration::from_millis(2)));
    let counted = report.done + report.cancelled + report.forced;
    let named = report.stuck.len();
    assert!(counted + named >= MANY, "{counted} counted, {named} named");
    ends.join().unwrap();
}

/// The same of an outcome that comes while it is looked who is missing.
#[test]
fn an_outcome_that_comes_at_the_limit_is_there_or_its_task_is_missing() {
    const MANY: usize = 100_000;
    let group = group();
    let mut outcomes = group.outcomes();
    let start = |_| outcomes.track(async { Ok::<_, Cause>(()) }).unwrap();
    let tasks: Vec<_> = (0..MANY).map(start).collect();
    let go = Arc::new(Barrier::new(2));
    let (limit, guard) = later();
    guard.cancel();
    let polls = {
        let go = go.clone();
        thread::spawn(move || {
            go.wait();
            for task in tasks {
                assert!(poll(pin!(task)).is_ready());
            }
        })
    };
    go.wait();
    let partial = block_on(outcomes.join_until(&limit));
    let (came, missing) = (partial.outcomes.len(), partial.missing.len());
    assert!(came + missing >= MANY, "{came} came, {missing} missing");
    assert_eq!(partial.cause.is_some(), came < MANY);
    polls.join().unwrap();
}

#[test]
fn nothing_starts_after_either_of_two_joins() {
    for round in 0..300 {
        let group = Arc::new(group());
        // Many places: closing takes a while.
        drop((0..500).map(|_| group.enter().unwrap()).collect::<Vec<_>>());
        let started = Arc::new(AtomicUsize::new(0));
        let go = Arc::new(Barrier::new(2));
        let other = thread::spawn({
            let (group, go) = (group.clone(), go.clone());
            move || {
                go.wait();
                group.join_blocking().unwrap();
            }
        });
        go.wait();
        for _ in 0..round % 50 {
            std::hint::spin_loop();
        }
        group.join_blocking().unwrap();
        for _ in 0..600 {
            started.fetch_add(usize::from(group.enter().is_ok()), SeqCst);
        }
        assert_eq!(started.load(SeqCst), 0);
        other.join().unwrap();
    }
}

/// Nobody is to wait for room where nothing will be started any more.
#[test]
fn who_would_wait_for_room_in_a_group_inside_a_closed_one_is_refused() {
    let around = group();
    let inside = around.child("inside").limit(1);
    let held = inside.enter().unwrap();
    around.close();
    let (ctx, _guard) = later();
    let mut waits = std::pin::pin!(inside.enter_when(&ctx));
    let Poll::Ready(Err(refused)) = poll(waits.as_mut()) else {
        panic!("it waits, or has begun");
    };
    assert!(refused.cause().downcast_ref::<Closed>().is_some());
    drop(held);
}

/// It is not the panic of the task that ends the others by its success, which nobody loses.
#[test]
fn a_callback_that_panics_at_the_end_of_a_race_is_no_panic_of_the_winner() {
    for is_race in [true, false] {
        let group = group();
        drop(group.context().on_cancel(|| panic!("at the end")));
        let mut outcomes = match is_race {
            true => group.race(),
            false => group.outcomes(),
        };
        let task = outcomes.track(async { Ok::<_, Cause>(7) }).unwrap();
        assert!(poll(pin!(task)).is_ready());
        assert_eq!(group.context().is_done(), is_race);
        assert_eq!(block_on(outcomes.winner()).unwrap(), 7);
        assert!(group.context().is_done());
        let cause = group.join_blocking().unwrap_err();
        let panicked = cause.downcast_ref::<Panicked>().unwrap();
        assert_eq!(panicked.message, "at the end");
        assert!(panicked.spawned_at.is_none(), "{cause}");
    }
}

struct Panics;

impl task::Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker");
    }
}

/// A group says of it that something panicked which is no task's.
fn says_so(group: &Group) {
    let cause = group.join_blocking().unwrap_err();
    let panicked = cause.downcast_ref::<Panicked>().unwrap();
    assert_eq!(panicked.message, "a waker");
    assert!(panicked.spawned_at.is_none(), "{cause}");
}

/// Neither the task's error is lost by it, nor is anybody cancelled; and what is dropped is that, and has not panicked.
#[test]
fn a_readers_waker_that_panics_is_no_panic_of_the_task() {
    let waker = Waker::from(Arc::new(Panics));
    let mut cx = task::Context::from_waker(&waker);
    for is_race in [true, false] {
        let group = group().keep_going();
        let mut outcomes = match is_race {
            true => group.race(),
            false => group.outcomes(),
        };
        let fails = outcomes.track(async { Err::<u8, _>("disk full") });
        assert!(pin!(outcomes.next()).poll(&mut cx).is_pending());
        assert!(poll(pin!(fails.unwrap())).is_ready());
        assert!(!group.context().is_done());
        let came = outcomes.next_blocking().unwrap();
        assert_eq!(came.unwrap_err().to_string(), "disk full");
        match is_race {
            true => says_so(&group),
            false => {
                let cause = group.join_blocking().unwrap_err();
                assert_eq!(cause.to_string(), "disk full");
            }
        }
    }
    let group = group();
    let mut outcomes = group.outcomes();
    let forced = outcomes.track(async { Ok::<_, Cause>(7) });
    assert!(pin!(outcomes.next()).poll(&mut cx).is_pending());
    let (limit, _guard) = later();
    let mut shutdown = pin!(group.shutdown(&limit));
    assert!(poll(shutdown.as_mut()).is_pending());
    drop(forced);
    let Poll::Ready(report) = poll(shutdown.as_mut()) else {
        panic!("it waits on");
    };
    assert_eq!((report.forced, report.cancelled), (1, 0), "{report}");
    assert!(!group.context().is_done());
    says_so(&group);
}

/// What came when nobody read any more is dropped by a task that has nothing to do with it.
#[test]
fn outcomes_of_others_whose_drops_panic_are_no_panic_of_the_last_task() {
    let group = group();
    let half = Arc::new(());
    let outcomes = group.outcomes();
    let value = Half(half.clone());
    let one = outcomes.track(async { Ok::<_, Cause>(value) }).unwrap();
    let fails = outcomes.track(async { Err::<Half, _>("disk full") });
    drop(outcomes);
    assert!(poll(pin!(one)).is_ready());
    assert_eq!(Arc::strong_count(&half), 2);
    assert!(poll(pin!(fails.unwrap())).is_ready());
    assert_eq!(Arc::strong_count(&half), 1);
    let cause = group.join_blocking().unwrap_err();
    assert_eq!(cause.to_string(), "disk full");
}

/// Whoever waits for room may have such a waker: that is no panic of whoever closes the group because it waits for its end.
#[test]
fn wakers_that_panic_at_the_close_are_no_panic_of_who_joins() {
    let group = group().limit(0);
    let ctx = Context::background();
    let waker = Waker::from(Arc::new(Panics));
    let mut waits = pin!(group.enter_when(&ctx));
    let mut cx = task::Context::from_waker(&waker);
    assert!(waits.as_mut().poll(&mut cx).is_pending());
    says_so(&group);
    assert!(poll(waits).is_ready());
}

/// Whoever is given a task's room is woken when that task is gone: it may wait for that.
#[test]
fn who_is_given_room_is_woken_when_the_task_is_gone() {
    struct Looks(Group, Group, AtomicUsize);
    impl task::Wake for Looks {
        fn wake(self: Arc<Self>) {
            for group in [&self.0, &self.1] {
                assert!(group.is_empty());
                assert!(poll(pin!(group.wait_idle())).is_ready());
            }
            self.2.fetch_add(1, SeqCst);
        }
    }
    let around = group();
    let looks = Arc::new(Looks(
        around.child("inside").limit(1),
        around,
        AtomicUsize::new(0),
    ));
    let (ctx, _guard) = later();
    let waker = Waker::from(looks.clone());
    for is_watched in [false, true] {
        let held = looks.0.enter().unwrap();
        let mut waits = Box::pin(looks.0.enter_when(&ctx));
        let mut cx = task::Context::from_waker(&waker);
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        let mut idle = pin!(looks.0.wait_idle());
        assert!(!is_watched || poll(idle.as_mut()).is_pending());
        drop(held);
        assert_eq!(looks.2.load(SeqCst), 1 + usize::from(is_watched));
        let Poll::Ready(Ok(member)) = waits.as_mut().poll(&mut cx) else {
            panic!("there is room");
        };
        assert_eq!(looks.0.len(), 1);
        assert!(looks.0.enter().is_err());
        drop(member);
    }
}

/// The waker of whoever waits for the winner may panic: the others are ended.
#[test]
fn a_waker_that_panics_at_the_end_of_a_race_keeps_nobody_going() {
    let group = group();
    let mut race = group.race();
    let task = race.track(async { Ok::<_, Cause>(7) }).unwrap();
    {
        let waker = Waker::from(Arc::new(Panics));
        let mut winner = pin!(race.winner());
        let mut cx = task::Context::from_waker(&waker);
        assert!(winner.as_mut().poll(&mut cx).is_pending());
        assert!(poll(pin!(task)).is_ready());
        assert!(group.context().is_done());
    }
    assert_eq!(block_on(race.winner()).unwrap(), 7);
    let cause = group.join_blocking().unwrap_err();
    let panicked = cause.downcast_ref::<Panicked>().unwrap();
    assert_eq!(panicked.message, "a waker");
    assert!(panicked.spawned_at.is_none(), "{cause}");
}

/// A callback that panics at the cancel keeps no report back, and no stage from its turn.
#[test]
fn a_shutdown_goes_on_whatever_panics_at_the_cancel() {
    let groups = [group(), group()];
    for group in &groups {
        let asks = |ctx: Context| _ = ctx.blocking_wait();
        group.named("asks").spawn_thread(asks).unwrap();
        drop(group.context().on_cancel(|| panic!("at the end")));
    }
    let (limit, guard) = later();
    guard.cancel();
    let reports = block_on(Group::shutdown_stages(&[&groups[0], &groups[1]], &limit));
    for report in reports {
        assert_eq!(report.cancelled, 1, "{report}");
        let cause = report.cause.as_ref().unwrap();
        let panicked = cause.downcast_ref::<Panicked>().unwrap();
        assert_eq!(panicked.message, "at the end");
        assert!(report.stuck.is_empty() && !report.is_clean(), "{report}");
    }
}
