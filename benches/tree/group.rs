//! Groups beside tokio-util's `TaskTracker` with a child token for each task, and beside tokio's own `spawn` and `JoinSet`;
//! deadlines that move, and contexts below them or in a group, beside ones that are not.

use std::cell::RefCell;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context as TaskContext, Waker};
use std::time::{Duration, Instant};

use cancel_tree::{Context, Group};
use criterion::Criterion;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::machine::{cores, threads};
use crate::small::open;

pub fn all(c: &mut Criterion) {
    task(c);
    if cores::has_two() {
        task_two_threads(c);
    }
    task_on_tokio(c);
    join_100k(c);
    moving(c);
    contexts(c);
}

fn run(task: impl Future<Output = ()>) {
    let ready = pin!(task).poll(&mut TaskContext::from_waker(Waker::noop()));
    assert!(ready.is_ready());
}

fn ours(group: &Group) {
    // What it has is looked at where it is, as in `context`: to move it costs as much as a step of either side.
    let task = group.track_with(|ctx| async move {
        black_box(&ctx);
    });
    run(task.unwrap());
}

fn theirs(tracker: &TaskTracker, token: &CancellationToken) {
    let token = token.child_token();
    run(tracker.track_future(async move {
        black_box(&token);
    }));
}

/// A task that ends at once, made and gone, without a runtime.
fn task(c: &mut Criterion) {
    let mut bench = open(c, "task");
    let group = Group::new(&Context::background());
    bench.bench_function("cancel_tree", |b| b.iter(|| ours(black_box(&group))));
    bench.bench_function("cancel_tree_named", |b| {
        b.iter(|| {
            let task = black_box(&group).named("task").track(async {});
            run(task.unwrap());
        });
    });
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    bench.bench_function("task_tracker", |b| {
        b.iter(|| theirs(black_box(&tracker), black_box(&token)));
    });
    bench.finish();
}

fn task_two_threads(c: &mut Criterion) {
    let mut bench = open(c, "task_two_threads");
    let group = Group::new(&Context::background());
    threads::two_at_once(
        || ours(black_box(&group)),
        |both| {
            bench.bench_function("cancel_tree", |b| b.iter_custom(|iters| both.run(iters)));
        },
    );
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    threads::two_at_once(
        || theirs(black_box(&tracker), black_box(&token)),
        |both| {
            bench.bench_function("task_tracker", |b| b.iter_custom(|iters| both.run(iters)));
        },
    );
    bench.finish();
}

/// Spawned a thousand at a time on a runtime of one thread, and run.
fn task_on_tokio(c: &mut Criterion) {
    const AT_ONCE: u64 = 1000;
    let mut bench = open(c, "task_on_tokio");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let mut each = |name: &str, spawn: &dyn Fn(), after: &dyn Fn()| {
        bench.bench_function(name, |b| {
            b.iter_custom(|iters| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    let mut left = iters;
                    while left > 0 {
                        let now = left.min(AT_ONCE);
                        left -= now;
                        let begin = Instant::now();
                        (0..now).for_each(|_| spawn());
                        // The queue is first in, first out.
                        tokio::spawn(async {}).await.expect("a task");
                        after();
                        took += begin.elapsed();
                    }
                    took
                })
            });
        });
    };
    each("floor", &|| drop(tokio::spawn(async {})), &|| ());
    let group = Group::new(&Context::background());
    each(
        "cancel_tree",
        &|| group.spawn(|_ctx| async {}).expect("an open group"),
        &|| (),
    );
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    each(
        "task_tracker",
        &|| {
            let token = token.child_token();
            drop(tracker.spawn(async move { drop(token) }));
        },
        &|| (),
    );
    let set = RefCell::new(JoinSet::new());
    each(
        "join_set",
        &|| {
            let token = token.child_token();
            set.borrow_mut().spawn(async move { drop(token) });
        },
        // What has ended is there until it is taken.
        &|| while set.borrow_mut().try_join_next().is_some() {},
    );
    bench.finish();
}

/// From the cancel to the return of `join`, of tasks that wait for it.
fn join_100k(c: &mut Criterion) {
    const TASKS: usize = 100_000;
    let mut bench = open(c, "join_100k");
    bench.sample_size(10);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    bench.bench_function("cancel_tree", |b| {
        b.iter_custom(|iters| {
            runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..iters {
                    let group = Group::new(&Context::background());
                    for _ in 0..TASKS {
                        let task = group.spawn(|ctx| async move { _ = ctx.done().await });
                        task.expect("an open group");
                    }
                    tokio::spawn(async {}).await.expect("a task");
                    let begin = Instant::now();
                    group.cancel();
                    group.join().await.expect("no error");
                    took += begin.elapsed();
                }
                took
            })
        });
    });
    bench.bench_function("task_tracker", |b| {
        b.iter_custom(|iters| {
            runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..iters {
                    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
                    for _ in 0..TASKS {
                        let token = token.child_token();
                        drop(tracker.spawn(async move { token.cancelled().await }));
                    }
                    tokio::spawn(async {}).await.expect("a task");
                    let begin = Instant::now();
                    token.cancel();
                    tracker.close();
                    tracker.wait().await;
                    took += begin.elapsed();
                }
                took
            })
        });
    });
    bench.bench_function("join_set", |b| {
        b.iter_custom(|iters| {
            runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..iters {
                    let (mut set, token) = (JoinSet::new(), CancellationToken::new());
                    for _ in 0..TASKS {
                        let token = token.child_token();
                        set.spawn(async move { token.cancelled().await });
                    }
                    tokio::spawn(async {}).await.expect("a task");
                    let begin = Instant::now();
                    token.cancel();
                    while set.join_next().await.is_some() {}
                    took += begin.elapsed();
                }
                took
            })
        });
    });
    bench.finish();
}

/// The limit of a request.
const LIMIT: Duration = Duration::from_secs(30);

fn moving(c: &mut Criterion) {
    let (_ctx, idle) = Context::background().with_idle_timeout(LIMIT);
    let mut bench = open(c, "touch");
    bench.bench_function("floor", |b| b.iter(|| black_box(Instant::now())));
    bench.bench_function("cancel_tree", |b| b.iter(|| black_box(&idle).touch()));
    bench.finish();

    let now = Instant::now();
    let mut bench = open(c, "touch_at");
    bench.bench_function("cancel_tree", |b| {
        b.iter(|| black_box(&idle).touch_at(black_box(now)));
    });
    bench.finish();

    let (_ctx, guard) = Context::background().with_movable_deadline(now + LIMIT);
    let mut bench = open(c, "extend");
    bench.bench_function("cancel_tree", |b| {
        b.iter(|| black_box(&guard).extend(Duration::from_nanos(1)));
    });
    bench.finish();
}

/// In a group and below a movable deadline, beside the same without.
fn contexts(c: &mut Criterion) {
    let (plain, _plain) = Context::background().with_timeout(10 * LIMIT);
    let group = Group::new(&plain);
    let (movable, _movable) =
        Context::background().with_movable_deadline(Instant::now() + 10 * LIMIT);
    for (where_, above) in [("in_group", group.context()), ("movable", &movable)] {
        let mut bench = open(c, &format!("ctx_err_{where_}"));
        for (name, above) in [("floor", &plain), ("cancel_tree", above)] {
            let (ctx, _guard) = above.with_timeout(LIMIT);
            bench.bench_function(name, |b| b.iter(|| black_box(&ctx).err()));
        }
        bench.finish();
        let mut bench = open(c, &format!("ctx_timeout_drop_{where_}"));
        for (name, above) in [("floor", &plain), ("cancel_tree", above)] {
            bench.bench_function(name, |b| {
                b.iter(|| {
                    let pair = black_box(above).with_timeout(LIMIT);
                    black_box(&pair);
                });
            });
        }
        bench.finish();
    }
}
