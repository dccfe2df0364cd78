//! Groups on tokio.

use cancel_tree::{CancellationToken, Cause, Context, ContextError, Group, Panicked};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::unconstrained;

fn group() -> Group {
    Group::new(&Context::background())
}

#[tokio::test]
async fn without_a_runtime_the_work_comes_back() {
    let group = group();
    let refused = std::thread::spawn(move || {
        let refused = group.spawn(|_ctx| async {}).is_err();
        assert!(group.is_empty());
        refused
    });
    assert!(refused.join().unwrap());
}

/// The seeds' tracker, for tasks: nothing is lost, and nobody waits for ever.
#[tokio::test]
async fn the_tracker() {
    struct Tracker(Group, Arc<AtomicUsize>);
    impl Tracker {
        fn event(&self, takes: Duration) {
            let sent = self.1.clone();
            let task = self.0.named("event").spawn(move |ctx| async move {
                let done = ctx.run(tokio::time::sleep(takes)).await;
                sent.fetch_add(usize::from(done.is_ok()), SeqCst);
                done
            });
            task.unwrap();
        }
    }
    let tracker = Tracker(group(), Arc::default());
    for _ in 0..5 {
        tracker.event(Duration::from_millis(5));
    }
    tracker.event(Duration::from_secs(3600));
    let (limit, guard) = Context::background().with_movable_deadline(None);
    let shutdown = tracker.0.shutdown(&limit);
    let all_sent = async {
        while tracker.0.len() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(guard.set_timeout(Duration::from_millis(5)));
    };
    let (report, ()) = tokio::join!(shutdown, all_sent);
    assert_eq!(tracker.1.load(SeqCst), 5);
    assert_eq!((report.done, report.cancelled), (5, 1), "{report}");
    assert!(report.stuck.is_empty());
    assert_eq!(limit.err(), Some(ContextError::DeadlineExceeded));
}

#[tokio::test]
async fn three_watchers_stop_at_one_cancel() {
    let group = group();
    for _ in 0..3 {
        group
            .spawn(|ctx| async move { _ = ctx.done().await })
            .unwrap();
    }
    assert_eq!(group.len(), 3);
    group.cancel();
    assert!(group.join().await.is_ok());
}

/// Backends in parallel: the first error, or the deadline, ends the rest.
#[tokio::test]
async fn the_search() {
    let group = group();
    let mut found = group.outcomes();
    for word in ["web", "images"] {
        let task = found.track(async move {
            tokio::task::yield_now().await;
            Ok::<_, &str>(word.len())
        });
        tokio::spawn(task.unwrap());
    }
    let mut sum = 0;
    while let Some(hits) = found.next().await {
        sum += hits.unwrap();
    }
    assert_eq!(sum, 9);
    group
        .spawn(|_ctx| async { Err::<(), _>("backend gone") })
        .unwrap();
    group
        .spawn(|ctx| async move { Err::<(), _>(ctx.done().await) })
        .unwrap_or(());
    assert_eq!(group.join().await.unwrap_err().to_string(), "backend gone");
}

#[tokio::test]
async fn a_task_that_is_aborted_has_left() {
    let group = group();
    let task = tokio::spawn(group.track(std::future::pending::<()>()).unwrap());
    let unpolled = tokio::spawn(group.track(std::future::pending::<()>()).unwrap());
    unpolled.abort();
    task.abort();
    assert!(group.join().await.is_ok());
}

#[test]
fn tasks_of_a_runtime_that_goes_have_left() {
    let group = group();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        group.spawn(|_ctx| std::future::pending::<()>()).unwrap();
        let (keep, wait) = std::sync::mpsc::channel::<()>();
        group.spawn_blocking(move |_ctx| _ = wait.recv()).unwrap();
        drop(keep);
    });
    drop(runtime);
    assert!(group.join_blocking().is_ok());
}

#[tokio::test]
async fn a_panic_of_a_task_is_raised_by_join() {
    let group = Arc::new(group());
    let (say, hear) = oneshot::channel();
    group
        .spawn(|ctx| async move {
            ctx.done().await;
            let _ = say.send(ctx.cause());
        })
        .unwrap();
    group
        .spawn_blocking(|_ctx| {
            if true {
                panic!("oh no");
            }
        })
        .unwrap();
    let cause = hear.await.unwrap().unwrap();
    assert!(cause.downcast_ref::<Panicked>().is_some());
    let joined = tokio::spawn(async move { group.join().await });
    assert!(joined.await.unwrap_err().is_panic());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_limit_run_at_once() {
    let group = group().limit(4);
    let ctx = Context::background();
    let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let two = Arc::new(tokio::sync::Barrier::new(2));
    for number in 0..1000 {
        let (now, peak, two) = (now.clone(), peak.clone(), two.clone());
        let task = group.spawn_when(&ctx, move |_ctx| async move {
            peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            // The first two are there at once, or not at all.
            if number < 2 {
                let _ = tokio::time::timeout(Duration::from_secs(30), two.wait()).await;
            }
            tokio::task::yield_now().await;
            now.fetch_sub(1, SeqCst);
        });
        task.await.unwrap();
    }
    group.join().await.unwrap();
    assert!(peak.load(SeqCst) <= 4);
    assert!(peak.load(SeqCst) > 1);
}

#[tokio::test]
async fn a_full_group_refuses_what_does_not_wait() {
    let group = group().limit(1);
    group
        .try_spawn(|ctx| async move { _ = ctx.done().await })
        .unwrap();
    assert!(group.try_spawn(|_ctx| async {}).unwrap_err().is_full());
    // From inside, too.
    let spawner = group.spawner();
    group.set_limit(2);
    let (say, hear) = oneshot::channel();
    group
        .spawn(|ctx| async move {
            let inside = spawner.spawn_when(&ctx, |_ctx| async {}).await;
            let _ = say.send(inside.is_err());
        })
        .unwrap();
    assert!(hear.await.unwrap());
    group.cancel();
    group.join().await.unwrap();
}

#[tokio::test]
async fn outcomes_of_tasks_that_were_spawned() {
    let group = group().keep_going();
    let mut outcomes = group.outcomes();
    outcomes.spawn(|_ctx| async { Ok::<_, Cause>(1) }).unwrap();
    outcomes.spawn_blocking(|_ctx| Ok::<_, Cause>(2)).unwrap();
    outcomes
        .spawn(|ctx| async move { Err::<i32, _>(ctx.done().await) })
        .unwrap();
    outcomes
        .spawn(|_ctx| async {
            if true {
                panic!("oh no");
            }
            Ok::<_, Cause>(4)
        })
        .unwrap();
    let (mut sum, mut errors) = (0, 0);
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(n) => sum += n,
            Err(_) => errors += 1,
        }
    }
    assert_eq!((sum, errors), (3, 2));
    let refused = outcomes.spawn_blocking(|_ctx| Ok::<_, Cause>(7));
    assert_eq!(
        refused.unwrap_err().into_inner()(Context::background()).unwrap(),
        7
    );
    assert!(outcomes.next().await.is_none());
    let joined = tokio::spawn(async move { group.join().await });
    assert!(joined.await.unwrap_err().is_panic());
}

#[tokio::test]
async fn the_first_success_of_a_race_of_tasks_ends_the_rest() {
    let group = group();
    let mut race = group.race();
    race.spawn(|ctx| async move { Err::<&str, _>(ctx.done().await) })
        .unwrap();
    race.spawn(|_ctx| async { Ok::<_, Cause>("tea") }).unwrap();
    // Not by who asks for the winner.
    group.context().done().await;
    assert_eq!(race.winner().await.unwrap(), "tea");
    group.join().await.unwrap();
}

#[test]
fn without_a_runtime_there_is_no_outcome() {
    let group = group();
    let mut outcomes = group.outcomes();
    let refused = outcomes.spawn(|_ctx| async { Ok::<_, Cause>(7) });
    assert!(refused.is_err());
    assert!(outcomes.spawn_blocking(|_ctx| Ok::<_, Cause>(7)).is_err());
    assert!(group.is_empty());
    assert!(outcomes.next_blocking().is_none());
}

/// The runtime ends first: what was to run is dropped, and has left.
#[test]
fn blocking_work_that_never_ran_has_left() {
    let group = group();
    let mut outcomes = group.outcomes();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let owned = Arc::new(());
    let _inside = runtime.handle().clone();
    let _inside = _inside.enter();
    // Its blocking threads are no more, but there is one to ask.
    runtime.shutdown_background();
    let (counts, keeps) = (ran.clone(), owned.clone());
    group
        .named("flush")
        .spawn_blocking(move |_ctx| {
            counts.fetch_add(1, SeqCst);
            drop(keeps);
        })
        .unwrap();
    let (counts, keeps) = (ran.clone(), owned.clone());
    outcomes
        .spawn_blocking(move |_ctx| {
            counts.fetch_add(1, SeqCst);
            drop(keeps);
            Ok::<_, Cause>(7)
        })
        .unwrap();
    assert_eq!(ran.load(SeqCst), 0);
    assert_eq!(Arc::strong_count(&owned), 1, "what it owned is kept");
    assert!(group.is_empty());
    // One for the one task that was started, and it says that nothing came of it.
    let told = outcomes.next_blocking().unwrap().unwrap_err();
    assert_eq!(told.to_string(), "the task did not come to its end");
    assert!(outcomes.next_blocking().is_none());
    assert!(group.join_blocking().is_ok(), "an error that nobody made");
}

/// The outcome of work that is dropped unrun comes when what it owned is gone.
#[test]
fn who_reads_outcomes_finds_nothing_of_work_that_never_ran() {
    struct Looks(Arc<()>, AtomicUsize);
    impl std::task::Wake for Looks {
        fn wake(self: Arc<Looks>) {
            self.1.store(Arc::strong_count(&self.0), SeqCst);
        }
    }

    let group = group();
    let mut outcomes = group.outcomes();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let inside = runtime.handle().clone();
    let _inside = inside.enter();
    runtime.shutdown_background();
    let waits = outcomes.track(std::future::pending::<Result<(), Cause>>());
    for is_future in [true, false] {
        let owned = Arc::new(());
        let looks = Arc::new(Looks(owned.clone(), AtomicUsize::new(0)));
        let waker = looks.clone().into();
        {
            let next = std::pin::pin!(outcomes.next());
            let cx = &mut std::task::Context::from_waker(&waker);
            assert!(next.poll(cx).is_pending());
        }
        let started = match is_future {
            true => {
                let work = |_ctx| async move {
                    drop(owned);
                    Ok::<_, Cause>(())
                };
                outcomes.spawn(work).is_ok()
            }
            false => {
                let work = move |_ctx| {
                    drop(owned);
                    Ok::<_, Cause>(())
                };
                outcomes.spawn_blocking(work).is_ok()
            }
        };
        assert!(started);
        assert!(outcomes.next_blocking().unwrap().is_err());
        // Its own alone.
        assert_eq!(looks.1.load(SeqCst), 1, "{is_future}: the word came first");
    }
    drop(waits);
}

/// The same while somebody waits for them: the report counts them as forced, or as done if the runtime ran them after
/// all, and each once.
#[test]
fn blocking_work_of_a_runtime_that_goes_is_in_the_report() {
    let group = group();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let (release, hold) = std::sync::mpsc::channel::<()>();
    let ran = Arc::new(AtomicUsize::new(0));
    let inside = runtime.enter();
    group.spawn_blocking(move |_ctx| _ = hold.recv()).unwrap();
    for _ in 0..3 {
        let counts = ran.clone();
        group
            .spawn_blocking(move |_ctx| _ = counts.fetch_add(1, SeqCst))
            .unwrap();
    }
    drop(inside);
    let (limit, _guard) = Context::background().with_timeout(Duration::from_secs(30));
    let mut shutdown = Box::pin(group.shutdown(&limit));
    let waits = &mut std::task::Context::from_waker(std::task::Waker::noop());
    assert!(shutdown.as_mut().poll(waits).is_pending());
    runtime.shutdown_background();
    release.send(()).unwrap();
    let report = futures::executor::block_on(shutdown);
    let ran = ran.load(SeqCst);
    assert_eq!((report.done, report.forced), (1 + ran, 3 - ran), "{report}");
    assert!(
        report.stuck.is_empty() && report.cause.is_none(),
        "{report}"
    );
}

/// As the docs of `run_until_cancelled` say: in the poll in which a task uses up its budget, what is ready does not show.
#[tokio::test]
async fn what_a_used_up_budget_hides_is_found_without_constraint() {
    async fn race(is_constrained: bool) -> [bool; 2] {
        let token = CancellationToken::new();
        let (ctx, guard) = Context::background().with_cancel();
        let (sender, mut messages) = tokio::sync::mpsc::unbounded_channel();
        let (first, second) = (oneshot::channel(), oneshot::channel());
        let busy = async { while messages.recv().await.is_some() {} };
        let own = token.clone();
        let race = async move {
            match is_constrained {
                true => {
                    let all = tokio::join!(biased; busy, own.run_until_cancelled(first.1), ctx.run(second.1));
                    [all.1.is_some(), all.2.is_ok()]
                }
                false => {
                    let (first, second) = (unconstrained(first.1), unconstrained(second.1));
                    let all =
                        tokio::join!(biased; busy, own.run_until_cancelled(first), ctx.run(second));
                    [all.1.is_some(), all.2.is_ok()]
                }
            }
        };
        let outside = async {
            (0..1000).for_each(|i| sender.send(i).unwrap());
            drop(sender);
            assert!(first.0.send(()).is_ok() && second.0.send(()).is_ok());
            token.cancel();
            guard.cancel();
        };
        // The first poll is before all of that.
        tokio::join!(biased; race, outside).0
    }
    assert_eq!(tokio::spawn(race(false)).await.unwrap(), [true; 2]);
    assert_eq!(tokio::spawn(race(true)).await.unwrap(), [false; 2]);
}
