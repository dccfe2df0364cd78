//! Operations of some nanoseconds: what a program does with its tokens all day.

use std::future::Future;
use std::hint::black_box;
use std::pin::{pin, Pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};

use crate::contenders::{each_contender, CancelTree};
use crate::machine::floor::Flag;
use crate::machine::{cores, threads};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

pub fn all(c: &mut Criterion) {
    of_one_thread(c);
    if cores::has_two() {
        of_two_threads(c);
    }
}

fn of_two_threads(c: &mut Criterion) {
    let mut group = open(c, "read_busy");
    read_busy_floor(&mut group);
    each_contender!(read_busy, &mut group, [Children, Churn]);
    group.finish();

    let mut group = open(c, "create_drop_two_threads");
    each_contender!(create_drop_two_threads, &mut group, [Children, Churn]);
    group.finish();

    let mut group = open(c, "first_poll_two_threads");
    each_contender!(first_poll_two_threads, &mut group, [Async]);
    group.finish();
}

fn of_one_thread(c: &mut Criterion) {
    let mut group = open(c, "read");
    group.bench_function("floor", |b| {
        let flag = Flag::new();
        b.iter(|| black_box(&flag).is_set());
    });
    each_contender!(read, &mut group, []);
    group.finish();

    let mut group = open(c, "read_deep");
    each_contender!(read_deep, &mut group, [Children]);
    group.finish();

    let mut group = open(c, "create_drop_among_100k");
    each_contender!(create_drop_among_100k, &mut group, [Children, Churn, Crowd]);
    group.finish();

    let mut group = open(c, "create_drop");
    each_contender!(create_drop, &mut group, [Children, Churn]);
    group.finish();

    let mut group = open(c, "create_cancel_drop");
    each_contender!(create_cancel_drop, &mut group, [Children, Churn]);
    group.finish();

    let mut group = open(c, "request");
    each_contender!(request, &mut group, [Children, Churn]);
    group.finish();

    let mut group = open(c, "clone_drop");
    each_contender!(clone_drop, &mut group, [CloneToCancel]);
    group.finish();

    let mut group = open(c, "first_poll");
    each_contender!(first_poll, &mut group, [Async]);
    group.finish();

    let mut group = open(c, "first_poll_second_waiter");
    each_contender!(first_poll_second_waiter, &mut group, [Async]);
    group.finish();

    let mut group = open(c, "first_poll_deep");
    each_contender!(first_poll_deep, &mut group, [Children, Async]);
    group.finish();

    let mut group = open(c, "poll_again");
    each_contender!(poll_again, &mut group, [Async]);
    group.finish();

    let mut group = open(c, "wait_cancel");
    each_contender!(wait_cancel, &mut group, [Children, Churn, Async]);
    group.finish();
}

pub fn open<'a>(c: &'a mut Criterion, name: &str) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    group
        // Samples of one length: the report takes their median, and a short one is at the mercy
        // of whatever else the machine does.
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500));
    group
}

fn read<T: CancelTree>(group: &mut Group) {
    let token = T::root();
    group.bench_function(T::NAME, |b| {
        b.iter(|| black_box(&token).is_cancelled());
    });
}

/// The second core is as busy as it is for `cancel_tree`, but with a token of its own.
fn read_busy_floor(group: &mut Group) {
    let flag = Flag::new();
    let parent = <cancel_tree::CancellationToken as CancelTree>::root();
    threads::while_busy(
        || drop(black_box(parent.child())),
        || {
            group.bench_function("floor", |b| b.iter(|| black_box(&flag).is_set()));
        },
    );
}

fn read_busy<T: CancelTree>(group: &mut Group) {
    let token = T::root();
    threads::while_busy(
        || drop(black_box(token.child())),
        || {
            group.bench_function(T::NAME, |b| {
                b.iter(|| black_box(&token).is_cancelled());
            });
        },
    );
}

/// A hundred levels below the root: who cancels without a look at what is below pays here.
fn read_deep<T: CancelTree>(group: &mut Group) {
    let token = deep::<T>();
    group.bench_function(T::NAME, |b| {
        b.iter(|| black_box(&token).is_cancelled());
    });
}

fn deep<T: CancelTree>() -> T {
    (0..100).fold(T::root(), |token, _| token.child())
}

fn create_drop<T: CancelTree>(group: &mut Group) {
    let parent = T::root();
    group.bench_function(T::NAME, |b| {
        b.iter(|| drop(black_box(black_box(&parent).child())));
    });
}

fn create_drop_among_100k<T: CancelTree>(group: &mut Group) {
    let parent = T::root();
    let _siblings: Vec<T> = (0..100_000).map(|_| parent.child()).collect();
    group.bench_function(T::NAME, |b| {
        b.iter(|| drop(black_box(black_box(&parent).child())));
    });
}

fn create_drop_two_threads<T: CancelTree>(group: &mut Group) {
    let parent = T::root();
    threads::two_at_once(
        || drop(black_box(black_box(&parent).child())),
        |both| {
            group.bench_function(T::NAME, |b| b.iter_custom(|iters| both.run(iters)));
        },
    );
}

fn create_cancel_drop<T: CancelTree>(group: &mut Group) {
    let parent = T::root();
    group.bench_function(T::NAME, |b| {
        b.iter(|| {
            let child = black_box(&parent).child();
            black_box(&child).cancel();
        });
    });
}

/// A request's token, one for each of three tasks that work for it, and the end of them all.
fn request<T: CancelTree>(group: &mut Group) {
    let server = T::root();
    group.bench_function(T::NAME, |b| {
        b.iter(|| {
            let request = black_box(&server).child();
            let tasks = black_box([request.child(), request.child(), request.child()]);
            request.cancel();
            drop(tasks);
        });
    });
}

fn clone_drop<T: CancelTree>(group: &mut Group) {
    let token = T::root();
    group.bench_function(T::NAME, |b| {
        b.iter(|| drop(black_box(black_box(&token).clone())));
    });
}

fn first_poll<T: CancelTree>(group: &mut Group) {
    let token = T::root();
    group.bench_function(T::NAME, |b| b.iter(|| poll_and_drop(&token)));
}

fn first_poll_second_waiter<T: CancelTree>(group: &mut Group) {
    let token = T::root();
    let mut first = pin!(token.cancelled());
    assert!(poll(first.as_mut()).is_pending());
    group.bench_function(T::NAME, |b| b.iter(|| poll_and_drop(&token)));
    assert!(poll(first).is_pending());
}

fn first_poll_deep<T: CancelTree>(group: &mut Group) {
    let token = deep::<T>();
    group.bench_function(T::NAME, |b| b.iter(|| poll_and_drop(&token)));
}

fn first_poll_two_threads<T: CancelTree>(group: &mut Group) {
    let token = T::root();
    threads::two_at_once(
        || {
            black_box(poll_and_drop(&token));
        },
        |both| {
            group.bench_function(T::NAME, |b| b.iter_custom(|iters| both.run(iters)));
        },
    );
}

fn poll_again<T: CancelTree>(group: &mut Group) {
    let token = T::root();
    let mut future = pin!(token.cancelled());
    assert!(poll(future.as_mut()).is_pending());
    group.bench_function(T::NAME, |b| {
        b.iter(|| poll(black_box(&mut future).as_mut()))
    });
}

/// A task that waits until it is cancelled, without the runtime.
fn wait_cancel<T: CancelTree>(group: &mut Group) {
    let parent = T::root();
    group.bench_function(T::NAME, |b| {
        b.iter(|| {
            let token = black_box(&parent).child();
            let mut future = pin!(token.cancelled());
            let waits = poll(future.as_mut()).is_pending();
            black_box(&token).cancel();
            waits && poll(future).is_ready()
        });
    });
}

#[inline]
pub fn poll_and_drop<T: CancelTree>(token: &T) -> bool {
    poll(pin!(black_box(token).cancelled())).is_ready()
}

/// With a waker that is free to clone and to drop: a runtime's reference counting would only
/// blur the difference.
#[inline]
fn poll(future: Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
