//! From `cancel()` in one thread to the return of `wait()` in another.

use std::iter;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};

use crate::contenders::{each_contender, CancelTree};
use crate::machine::cores;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

pub fn all(c: &mut Criterion) {
    // On one core nothing but instructions counts, on two it is mostly the way between them.
    let mut group = open(c, "wake");
    floor(&mut group, 0);
    each_contender!(wake, &mut group, [Blocking, Children, Crowd]);
    group.finish();

    if cores::has_two() {
        let mut group = open(c, "wake_across");
        floor(&mut group, 1);
        each_contender!(wake_across, &mut group, [Blocking, Children, Crowd]);
        group.finish();
    }
}

fn open<'a>(c: &'a mut Criterion, name: &str) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    group
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    group
}

/// std's parking, with a number for each side.
fn floor(group: &mut Group, other: usize) {
    group.bench_function("floor", |b| {
        b.iter_custom(|iters| {
            let (was_pinged, was_ponged) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let (pinger, ponger) = (OnceLock::new(), OnceLock::new());
            ping_pong(
                iters,
                other,
                |i| {
                    _ = pinger.set(thread::current());
                    signal(&was_pinged, i, ponger.wait());
                    wait_for(&was_ponged, i);
                },
                |i| {
                    _ = ponger.set(thread::current());
                    wait_for(&was_pinged, i);
                    signal(&was_ponged, i, pinger.wait());
                },
            )
        });
    });
}

/// In time number `i`.
fn signal(times: &AtomicUsize, i: usize, thread: &Thread) {
    times.store(i + 1, Ordering::Release);
    thread.unpark();
}

fn wait_for(times: &AtomicUsize, i: usize) {
    while times.load(Ordering::Acquire) <= i {
        thread::park();
    }
}

fn wake<T: CancelTree>(group: &mut Group) {
    exchange::<T>(group, 0);
}

fn wake_across<T: CancelTree>(group: &mut Group) {
    exchange::<T>(group, 1);
}

/// Wakes a thread on core `other` from the first core, and the other way round.
fn exchange<T: CancelTree>(group: &mut Group, other: usize) {
    // A token can be cancelled only once, hence one for each time.
    group.bench_function(T::NAME, |b| {
        b.iter_custom(|iters| {
            let root = T::root();
            let tokens = || -> Vec<T> {
                iter::repeat_with(|| root.child())
                    .take(iters as usize + 1)
                    .collect()
            };
            let (ping, pong) = (tokens(), tokens());
            ping_pong(
                iters,
                other,
                |i| {
                    pong[i].cancel();
                    ping[i].wait();
                },
                |i| {
                    pong[i].wait();
                    ping[i].cancel();
                },
            )
        });
    });
}

/// The time of `iters` wake-ups, out of as many exchanges of two between a thread on the first
/// core and one on core `other`.
///
/// Each side parks at once after it has woken the other, which needs longer than that to run:
/// practically always it is a parked thread that is woken.
fn ping_pong(
    iters: u64,
    other: usize,
    ping: impl Fn(usize),
    pong: impl Fn(usize) + Send,
) -> Duration {
    let iters = iters as usize;
    thread::scope(|scope| {
        scope.spawn(move || {
            let _pinned = cores::pin(other);
            (0..=iters).for_each(pong);
        });
        let _pinned = cores::pin(0);
        // One exchange ahead, until when the other thread has started.
        ping(0);
        let start = Instant::now();
        (1..=iters).for_each(ping);
        start.elapsed() / 2
    })
}
