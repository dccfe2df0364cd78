//! The snapshot: what is in it, and that it is a tree. Each test finds its own by names that nobody else gives.

use cancel_tree::inspect::{snapshot, Kind, Node, Situation, Snapshot};
use cancel_tree::{Context, ContextError, Group};
use std::collections::HashSet;
use std::future::{pending, Future};
#[cfg(target_os = "linux")]
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(30);

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(Waker::noop()))
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Node {
    let mut found = snapshot.nodes().iter().filter(|node| named(node, name));
    let first = found.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(found.next().is_none(), "{name} is there twice");
    first
}

fn named(node: &Node, name: &str) -> bool {
    node.name.as_deref() == Some(name)
}

fn situation(name: &str) -> Option<Situation> {
    find(&snapshot(), name).situation
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
fn each_stands_below_the_nearest_above() {
    let (root, _guard) = Context::background().with_cancel();
    let server = root.with_name("a-server");
    let group = Group::new(&server.with_value(7));
    let inner = group.child("a-db");
    let (request, _request_guard) = group.context().with_timeout(LONG);
    let part = request.with_name("a-part");
    let _task = group.named("a-task").track(pending::<()>()).unwrap();
    let _query = inner.named("a-query").track(pending::<()>()).unwrap();
    let now = snapshot();
    let above = |name: &str| now.above(find(&now, name));
    assert!(above("a-server").is_none());
    let own = above("a-task").unwrap();
    assert_eq!(own.kind, Kind::Group);
    assert_eq!(now.above(own).unwrap().id, find(&now, "a-server").id);
    assert_eq!(above("a-db").unwrap().id, own.id);
    // Met once, in the group that it was started in.
    assert_eq!(above("a-query").unwrap().id, find(&now, "a-db").id);
    assert!(!now.nodes().iter().any(|node| named(node, "a-db/a-query")));
    assert_eq!(above("a-part").unwrap().id, own.id);
    assert!(own.at.file().ends_with("inspect_tree.rs"));
    // The same next time.
    let next = snapshot();
    assert_eq!(find(&next, "a-query").id, find(&now, "a-query").id);
    drop(part);
    assert!(!snapshot().nodes().iter().any(|node| named(node, "a-part")));
}

/// Nothing above it by tokens: what it was derived from.
#[test]
fn what_nobody_cancels_stands_below_what_it_was_made_of() {
    let (root, _guard) = Context::background().with_cancel();
    let request = root.with_name("b-request");
    let cleanup = request.without_cancel().with_name("b-cleanup");
    let log = Context::background().with_name("b-log");
    let now = snapshot();
    assert_eq!(
        now.above(find(&now, "b-cleanup")).unwrap().id,
        find(&now, "b-request").id
    );
    assert!(now.above(find(&now, "b-log")).is_none());
    drop((cleanup, log));
}

#[test]
fn it_says_who_cancelled_when_and_why() {
    let (root, guard) = Context::background().with_cancel();
    let ctx = root.with_name("c-ctx");
    let group = Group::new(&ctx);
    let inner = group.child("c-inner");
    assert!(find(&snapshot(), "c-ctx").done.is_none());
    inner.cancel_with("enough of it");
    let begin = Instant::now();
    let canceller = thread::Builder::new().name("c-canceller".into());
    let cancel = move || _ = guard.cancel_with("the page was closed");
    canceller.spawn(cancel).unwrap().join().unwrap();
    let now = snapshot();
    let done = find(&now, "c-ctx").done.as_ref().unwrap();
    assert_eq!(done.kind, ContextError::Cancelled);
    assert_eq!(done.cause.to_string(), "the page was closed");
    assert_eq!(done.by.as_deref(), Some("c-canceller"));
    assert!(!done.is_own);
    let close = Duration::from_nanos(1);
    assert!(begin <= done.at.unwrap() + close && done.at.unwrap() <= Instant::now());
    let done = find(&now, "c-inner").done.as_ref().unwrap();
    assert!(done.is_own && done.cause.to_string() == "enough of it");
    let text = now.to_string();
    assert!(
        text.contains("by c-canceller: the page was closed"),
        "{text}"
    );
}

/// Where it has dropped all its locals, std has no name for a thread any more, and panics. What is noted beside the name is noted.
#[cfg(target_os = "linux")]
#[test]
fn who_cancels_may_be_a_thread_that_is_almost_gone() {
    use cancel_tree::CancelGuard;
    use std::ffi::{c_int, c_uint, c_void};

    extern "C" {
        fn pthread_key_create(key: *mut c_uint, drop: extern "C" fn(*mut c_void)) -> c_int;
        fn pthread_setspecific(key: c_uint, value: *const c_void) -> c_int;
    }

    struct Last {
        key: c_uint,
        rounds: usize,
        guard: CancelGuard,
        says: mpsc::Sender<(bool, thread::Result<bool>)>,
    }

    extern "C" fn cancel(last: *mut c_void) {
        // SAFETY: of a Box, and given to this thread alone.
        let mut this = unsafe { Box::from_raw(last.cast::<Last>()) };
        this.rounds += 1;
        // The system makes four rounds, and std lets its thread go in the second.
        if this.rounds == 3 {
            let Last { guard, says, .. } = *this;
            return cancel_now(guard, &says);
        }
        let (key, last) = (this.key, Box::into_raw(this));
        // SAFETY: as where it was set first.
        assert_eq!(unsafe { pthread_setspecific(key, last.cast()) }, 0);
    }

    fn cancel_now(guard: CancelGuard, says: &mpsc::Sender<(bool, thread::Result<bool>)>) {
        let has_no_name = catch_unwind(|| _ = thread::current()).is_err();
        let cancelled = catch_unwind(AssertUnwindSafe(|| guard.cancel()));
        _ = says.send((has_no_name, cancelled));
    }

    let (root, guard) = Context::background().with_cancel();
    let ctx = root.with_name("l-ctx");
    let (says, told) = mpsc::channel();
    let at_the_end = move || {
        let mut key = 0;
        // SAFETY: there is room for a key, which nothing else makes.
        assert_eq!(unsafe { pthread_key_create(&mut key, cancel) }, 0);
        let rounds = 0;
        let last = Box::into_raw(Box::new(Last {
            key,
            rounds,
            guard,
            says,
        }));
        // SAFETY: the function above takes the Box back.
        assert_eq!(unsafe { pthread_setspecific(key, last.cast()) }, 0);
    };
    let thread = thread::Builder::new().name("l-thread".into());
    thread.spawn(at_the_end).unwrap().join().unwrap();
    let (has_no_name, cancelled) = told.recv().unwrap();
    assert!(cancelled.expect("the name's panic"));
    let now = snapshot();
    let done = find(&now, "l-ctx").done.as_ref().unwrap();
    assert!(done.at.is_some());
    if has_no_name {
        assert_eq!(done.by, None);
    } else {
        eprintln!("SKIPPED: std has a name for it, or says that it has none");
    }
    drop(ctx);
}

/// Who makes something below what is done has not cancelled it.
#[test]
fn what_was_born_done_was_cancelled_by_nobody_that_is_known() {
    let (root, guard) = Context::background().with_cancel();
    guard.cancel_with("long ago");
    let ctx = root.with_name("d-ctx");
    let group = Group::new(&ctx);
    let now = snapshot();
    let done = find(&now, "d-ctx").done.as_ref().unwrap();
    assert!(done.at.is_none() && done.by.is_none() && !done.is_own);
    assert_eq!(done.cause.to_string(), "long ago");
    drop(group);
}

#[test]
fn a_context_that_is_done_and_held_says_so_if_nothing_is_below() {
    let (root, guard) = Context::background().with_cancel();
    let ctx = root.with_name("e-ctx");
    let group = Group::new(&ctx);
    guard.cancel();
    assert_eq!(situation("e-ctx"), None);
    let held = snapshot();
    let below = |node: &&Node| held.above(node).is_some_and(|above| named(above, "e-ctx"));
    let below = held.nodes().iter().find(below).unwrap();
    assert_eq!(
        (below.kind, below.situation),
        (Kind::Group, Some(Situation::StillHeld))
    );
    drop(group);
    assert_eq!(situation("e-ctx"), Some(Situation::StillHeld));
    let derived = ctx.with_value("it is kept by what was derived from it");
    drop(ctx);
    assert_eq!(situation("e-ctx"), Some(Situation::StillHeld));
    drop(derived);
    assert!(!snapshot().nodes().iter().any(|node| named(node, "e-ctx")));
}

/// A task of a group inside another one was told by its own group, whoever asks.
#[test]
fn a_task_of_an_inner_group_says_the_same_in_both() {
    let group = Group::new(&Context::background());
    let inner = group.child("f-inner");
    let mut task = pin!(inner.named("f-task").track(pending::<()>()).unwrap());
    assert!(poll(task.as_mut()).is_pending());
    inner.cancel();
    for of in [&inner, &group] {
        assert_eq!(of.running()[0].situation(), Some(Situation::NotPolled));
    }
    assert!(poll(task.as_mut()).is_pending());
    for of in [&inner, &group] {
        let running = of.running();
        assert_eq!(running[0].situation(), Some(Situation::GoesOn));
        assert_eq!(running[0].progress.unwrap().polls, 2);
    }
    assert_eq!(situation("f-task"), Some(Situation::GoesOn));
}

#[test]
fn a_report_shows_the_tree_below_its_group() {
    let group = Group::new(&Context::background().with_name("g-server"));
    let part = group.context().with_name("g-part");
    let _task = group.named("g-task").track(pending::<()>()).unwrap();
    let (limit, guard) = Context::background().with_cancel();
    guard.cancel();
    let report = futures::executor::block_on(group.shutdown_with(&limit, Duration::ZERO));
    let tree = report.tree.as_ref().unwrap();
    assert_eq!(tree.nodes()[0].kind, Kind::Group);
    assert_eq!(tree.nodes().len(), 3);
    assert_eq!(
        tree.above(find(tree, "g-part")).unwrap().id,
        tree.nodes()[0].id
    );
    assert!(report.to_string().contains("├─ g-task (task"), "{report}");
    drop(part);
}

#[test]
fn text_json_and_dot_show_names_and_causes_and_no_values() {
    #[derive(Debug)]
    struct Secret(#[allow(dead_code)] &'static str);
    let (root, guard) = Context::background()
        .with_value(Secret("h-secret"))
        .with_cancel();
    let ctx = root.with_name("h \"quoted\"\n<b>\\");
    // What else ends a line, or turns it around: clients choose paths.
    let path = root.with_name("h-path\u{85}\u{2028}\u{2029}\u{202e}\u{2066}\u{9b}31m/");
    guard.cancel_with("a \"cause\"\u{1}");
    let now = snapshot();
    let (text, json, dot) = (now.to_string(), now.json(), now.dot());
    assert!(text.contains("h \"quoted\" <b>\\ (context, "), "{text}");
    let line = "h-path      31m/";
    assert!(text.contains(line) && dot.contains(line), "{text}");
    assert!(json.contains(r#""name":"h \"quoted\"\n<b>\\""#), "{json}");
    assert!(json.contains(r#""cause":"a \"cause\"\u0001""#), "{json}");
    assert!(
        dot.contains(r#"[shape=ellipse, label="h \"quoted\"\n<b>\\\n"#),
        "{dot}"
    );
    for all in [text, json, dot] {
        assert!(!all.contains("secret") && !all.contains("Secret"));
    }
    drop((ctx, path));
}

/// The panic of a cause that is shown is none of who looks.
#[test]
fn a_cause_that_panics_is_shown_as_far_as_it_goes() {
    #[derive(Debug)]
    struct Panics;
    impl std::fmt::Display for Panics {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("i-begins")?;
            panic!("on purpose");
        }
    }
    impl std::error::Error for Panics {}
    let (root, guard) = Context::background().with_cancel();
    let ctx = root.with_name("i-ctx");
    guard.cancel_with(cancel_tree::Cause::new(Panics));
    assert!(snapshot().json().contains(r#""cause":"i-begins""#));
    drop(ctx);
}

/// Steady ones are met once each, in every snapshot, whatever comes and goes beside them; nobody is met twice, and whatever is met has
/// what is above it before it.
#[test]
fn each_is_met_once_beside_churn() {
    const STEADY: usize = 50;
    let (root, _guard) = Context::background().with_cancel();
    let home = root.with_name("j-home");
    let group = Group::new(&home);
    let tasks: Vec<_> = (0..STEADY)
        .map(|_| group.named("j-steady").track(pending::<()>()).unwrap())
        .collect();
    let contexts: Vec<_> = (0..STEADY).map(|_| home.with_name("j-ctx")).collect();
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let ctx = home.with_name("j-passing");
                    let other = Group::new(&ctx);
                    let inner = other.child("j-inner");
                    let first = group.named("j-comes").track(pending::<()>()).unwrap();
                    let second = inner.named("j-goes").track(pending::<()>()).unwrap();
                    inner.cancel();
                    drop((first, other, ctx, inner, second));
                    rounds.fetch_add(1, Relaxed);
                }
            });
        }
        let mut snapshots = 0;
        let begin = Instant::now();
        while (snapshots < 200 || rounds.load(Relaxed) < 200) && begin.elapsed() < LONG {
            let now = snapshot();
            let count = |name| now.nodes().iter().filter(|node| named(node, name)).count();
            assert_eq!((count("j-steady"), count("j-ctx")), (STEADY, STEADY));
            let mut met = HashSet::new();
            for node in now.nodes() {
                assert!(met.insert(node.id), "twice: {}", node.id);
                assert!(now.above(node).is_none_or(|above| met.contains(&above.id)));
                assert!(node.name.as_deref() != Some("j-inner/j-goes"));
            }
            let is_below =
                |node: &Node| now.above(node).is_some_and(|above| named(above, "j-home"));
            assert!(now
                .nodes()
                .iter()
                .filter(|node| named(node, "j-ctx"))
                .all(is_below));
            snapshots += 1;
        }
        stop.store(true, Relaxed);
    });
    drop((tasks, contexts));
}

// ----- the five, with threads and with tokio: those that are not in tests/inspect.rs ------------------------------------

/// A context whose guard was given up, and that nobody else holds: nobody is left who could cancel it.
fn lost(name: &'static str) -> Context {
    let (ctx, guard) = Context::background().with_cancel();
    guard.detach();
    let (below, guard) = ctx.with_cancel();
    guard.detach();
    below.with_value(1).with_name("k-between").with_name(name)
}

#[test]
fn a_thread_that_waits_where_nobody_can_cancel_can_never_be_woken() {
    let ctx = lost("k-lost");
    // Nobody waits.
    assert_eq!(situation("k-lost"), None);
    // It ends with the process.
    thread::spawn(move || ctx.blocking_wait());
    until("it waits", || {
        situation("k-lost") == Some(Situation::NeverWoken)
    });
}

#[test]
fn a_thread_that_somebody_can_still_wake_is_not_lost() {
    // By a guard, by a deadline, by a token.
    let (guarded, guard) = Context::background().with_cancel();
    let (timed, timer) = Context::background().with_timeout(LONG);
    timer.detach();
    let token = cancel_tree::CancellationToken::new();
    let all = [
        guarded.with_name("l-guarded"),
        timed.with_name("l-timed"),
        token.context().with_name("l-token"),
    ];
    drop((guarded, timed));
    thread::scope(|scope| {
        let threads: Vec<_> = all
            .iter()
            .map(|ctx| {
                scope.spawn(|| {
                    // Waits as a task does, so that it is seen to wait.
                    let mut done = pin!(ctx.done());
                    assert!(poll(done.as_mut()).is_pending());
                    for name in ["l-guarded", "l-timed", "l-token"] {
                        assert_eq!(situation(name), None);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    drop(guard);
}

/// Below a shield all is gone but a token, and that of a name. The soft cancel comes yet, and starts the grace.
#[test]
fn what_a_grace_will_end_can_be_woken() {
    let (server, guard) = Context::background().with_cancel();
    let ctx = server.with_grace(Duration::from_millis(10));
    let token = ctx.shield().child_token();
    drop(ctx);
    let named = token.context().with_name("s-cleanup");
    drop(token);
    let mut done = Box::pin(named.clone().done_owned());
    assert!(poll(done.as_mut()).is_pending());
    assert_eq!(situation("s-cleanup"), None);
    guard.cancel_with("it ends");
    assert_eq!(named.blocking_wait(), ContextError::DeadlineExceeded);
}

#[tokio::test]
async fn a_task_that_waits_where_nobody_can_cancel_can_never_be_woken() {
    let ctx = lost("m-lost");
    let task = tokio::spawn(async move { ctx.done().await });
    while situation("m-lost") != Some(Situation::NeverWoken) {
        tokio::task::yield_now().await;
    }
    task.abort();
}

/// Many: then they sit in rooms.
#[tokio::test]
async fn many_tasks_that_wait_where_nobody_can_cancel_can_never_be_woken() {
    let ctx = lost("n-lost");
    let wait = |ctx: Context| tokio::spawn(async move { ctx.done().await });
    let tasks: Vec<_> = (0..50).map(|_| wait(ctx.clone())).collect();
    drop(ctx);
    while situation("n-lost") != Some(Situation::NeverWoken) {
        tokio::task::yield_now().await;
    }
    for task in &tasks {
        task.abort();
    }
    for task in tasks {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    assert!(!snapshot().nodes().iter().any(|node| named(node, "n-lost")));
}

/// Of one runtime with one thread, which is held up: nothing is polled.
#[tokio::test]
async fn a_tokio_task_is_not_polled_while_its_thread_is_held_up_then_goes_on() {
    let group = Group::new(&Context::background());
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel::<()>();
    let work = async move { while said.recv().await.is_some() {} };
    let task = tokio::spawn(group.named("o-task").track(work).unwrap());
    tokio::task::yield_now().await;
    group.cancel();
    // This thread is the only one, and does not give it to anybody.
    assert_eq!(situation("o-task"), Some(Situation::NotPolled));
    say.send(()).unwrap();
    while situation("o-task") != Some(Situation::GoesOn) {
        tokio::task::yield_now().await;
    }
    drop(say);
    task.await.unwrap();
}

#[tokio::test]
async fn a_blocking_task_of_tokio_that_has_not_looked_says_so() {
    let group = Group::new(&Context::background());
    let (go, gone) = mpsc::channel::<()>();
    let member = group.named("p-blocking").enter().unwrap();
    let task = tokio::task::spawn_blocking(move || {
        member.run(move |ctx| {
            gone.recv().unwrap();
            assert!(ctx.is_done());
            gone.recv().unwrap();
        })
    });
    until("it runs", || {
        find(&snapshot(), "p-blocking").kind == Kind::Thread
    });
    group.cancel();
    assert_eq!(situation("p-blocking"), Some(Situation::NotLooked));
    go.send(()).unwrap();
    until("it looks", || {
        situation("p-blocking") == Some(Situation::GoesOn)
    });
    go.send(()).unwrap();
    task.await.unwrap();
}

/// A pool without a free thread: it is no place that somebody holds.
#[test]
fn a_blocking_task_that_waits_for_a_thread_has_not_looked() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let group = Group::new(&Context::background());
    let (go, gone) = mpsc::channel::<()>();
    let busy = runtime.spawn_blocking(move || gone.recv().unwrap());
    let named = group.named("t-waits");
    let _inside = runtime.enter();
    named.spawn_blocking(|_| ()).unwrap();
    assert_eq!(find(&snapshot(), "t-waits").kind, Kind::Thread);
    group.cancel();
    assert_eq!(situation("t-waits"), Some(Situation::NotLooked));
    go.send(()).unwrap();
    runtime.block_on(busy).unwrap();
    until("it has run", || group.is_empty());
}

#[tokio::test]
async fn a_context_that_a_tokio_task_holds_when_it_is_done_is_still_held() {
    let (root, guard) = Context::background().with_cancel();
    let ctx = root.with_name("q-ctx");
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        gone.await.unwrap();
        drop(ctx);
    });
    guard.cancel();
    assert_eq!(situation("q-ctx"), Some(Situation::StillHeld));
    go.send(()).unwrap();
    task.await.unwrap();
    assert!(!snapshot().nodes().iter().any(|node| named(node, "q-ctx")));
}

/// Chunks of places that are pushed during a walk shift no number.
#[test]
fn ids_are_one_for_each_while_a_group_grows() {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                let group = Group::new(&Context::background());
                let task = || group.named("m-task").track(pending::<()>()).unwrap();
                drop((0..3_000).map(|_| task()).collect::<Vec<_>>());
            }
            done.store(true, Relaxed);
        });
        while !done.load(Relaxed) {
            let now = snapshot();
            let mut met = HashSet::new();
            assert!(now.nodes().iter().all(|node| met.insert(node.id)));
        }
    });
}

/// Many threads have made its children, so each has a list of its own, and its waiters are there.
#[test]
fn those_who_wait_at_a_contended_context_are_found() {
    let ctx = lost("r-lost");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(100) {
                    drop(ctx.child_token());
                }
                let mut waits: Vec<_> = (0..50).map(|_| Box::pin(ctx.done())).collect();
                assert!(waits
                    .iter_mut()
                    .all(|wait| poll(wait.as_mut()).is_pending()));
                while !done.load(Relaxed) {
                    thread::yield_now();
                }
            });
        }
        until("they wait", || {
            situation("r-lost") == Some(Situation::NeverWoken)
        });
        done.store(true, Relaxed);
    });
}

/// A child with one handle is no waiter: whoever has it may cancel it.
#[test]
fn who_waits_at_a_token_of_its_own_is_not_lost() {
    let ctx = lost("s-lost");
    let stop = ctx.child_token();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| stop.blocking_wait());
        thread::sleep(Duration::from_millis(50));
        assert_eq!(situation("s-lost"), None);
        stop.cancel();
        waiter.join().unwrap();
    });
}

/// A line is no longer than a page is wide, however deep the tree.
#[test]
fn text_grows_with_what_is_there_and_not_with_its_depth() {
    let (root, _guard) = Context::background().with_cancel();
    let mut all = vec![root.with_name("p-deep")];
    for _ in 0..2_000 {
        all.push(all[all.len() - 1].with_name("p-deep"));
    }
    let text = snapshot().to_string();
    let lines = text.lines().filter(|line| line.contains("p-deep"));
    assert_eq!(lines.clone().count(), 2_001);
    assert!(lines.clone().all(|line| line.len() < 300));
    assert!(lines.clone().any(|line| line.contains("[level 2000]")));
}

/// A name is for who looks on: the program's answers are the same with it.
#[test]
fn a_name_changes_no_answer() {
    let (step, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    let named = step.with_name("step").with_name("once more").with_value(1);
    step.blocking_wait();
    assert!(step.is_own_deadline() && named.is_own_deadline());
    // It is done already.
    let late = step.with_name("late").with_name("later");
    assert!(late.is_own_deadline());
    let (below, _guard) = named.with_cancel();
    assert!(below.is_done() && !below.is_own_deadline());

    let (request, _request) = Context::background().with_cancel();
    let (server, shutdown) = Context::background().with_cancel();
    let either = Context::any_of([&request, &server]).with_name("either");
    let (below, _guard) = either.with_cancel();
    shutdown.cancel();
    assert_eq!(
        (either.any_of_source(), below.any_of_source()),
        (Some(1), None)
    );
    assert_eq!(either.with_name("late").any_of_source(), Some(1));
}
