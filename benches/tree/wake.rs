//! From `cancel()` in one thread to the return of `wait()` in another.

use std::iter;
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};
use crossbeam_utils::sync::Parker;

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

fn floor(group: &mut Group, other: usize) {
    group.bench_function("floor", |b| {
        b.iter_custom(|iters| {
            let (ping, pong) = (Parker::new(), Parker::new());
            let (wake_ping, wake_pong) = (ping.unparker().clone(), pong.unparker().clone());
            ping_pong(
                iters,
                other,
                move |_| {
                    wake_pong.unpark();
                    ping.park();
                },
                move |_| {
                    pong.park();
                    wake_ping.unpark();
                },
            )
        });
    });
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
