//! How late a deadline is noticed, alone and whatever others do meanwhile: by a task of ours, and by one of tokio's.

use std::iter;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cancel_tree::{CancelGuard, Context, DoneOwned};
use futures::FutureExt;
use tokio::runtime::Runtime;
use tokio::time::{self, Sleep};

use crate::context::runtime;
use crate::machine::cores;

/// A row of the table.
pub struct Lateness {
    pub what: String,
    /// The aim of our p99, in milliseconds; infinite where there is none.
    pub limit: f64,
    pub ours: Quantiles,
    pub tokio: Quantiles,
    /// What tokio's are.
    pub which: &'static str,
}

/// In nanoseconds.
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

const NO_AIM: f64 = f64::INFINITY;

/// Of deadlines that are dropped before they pass, so many are alive.
const WINDOW: usize = 10_000;
const FAR: Duration = Duration::from_secs(10);
/// So many deadlines pass at one moment.
const BURST: usize = 100_000;
/// Until then they can be made. Not all machines make them in time, and then some have passed from the start.
const AHEAD: Duration = Duration::from_millis(75);
/// Until then they can be marked and woken, before the next ones take their places.
const AFTER: Duration = Duration::from_millis(25);
const BLOCKED: usize = 1000;

/// Of so many samples alone, and so many beside others.
pub fn all(alone: usize, beside: usize) -> Vec<Lateness> {
    let runtime = runtime();
    let _in_tokio = runtime.enter();
    let mut rows = vec![Lateness {
        what: format!("lateness: median / p99 / worst of {alone}"),
        limit: 1.0,
        ours: ours(alone),
        tokio: tokios(alone, &runtime),
        which: "tokio's sleep",
    }];
    if cores::has_two() {
        rows.push(beside_churn(beside, &runtime));
        rows.push(beside_bursts(beside, &runtime));
    }
    // The last, for the many threads that it leaves are idle for some seconds.
    rows.push(beside_blocked(beside, &runtime));
    rows
}

/// One deadline at a time, some milliseconds away, at no particular point of a millisecond.
fn measure(samples: usize, wait: impl Fn(Instant)) -> Quantiles {
    let mut late: Vec<f64> = (0..samples as u64)
        .map(|i| {
            let at = Instant::now() + Duration::from_micros(2000 + i * 37 % 1000);
            wait(at);
            let now = Instant::now();
            assert!(now >= at, "too early");
            (now - at).as_nanos() as f64
        })
        .collect();
    late.sort_by(f64::total_cmp);
    Quantiles {
        p50: late[late.len() / 2],
        p99: late[late.len() * 99 / 100],
        max: late[late.len() - 1],
    }
}

fn ours(samples: usize) -> Quantiles {
    measure(samples, |at| {
        let (ctx, _guard) = Context::background().with_deadline(at);
        futures::executor::block_on(ctx.done());
    })
}

fn tokios(samples: usize, runtime: &Runtime) -> Quantiles {
    measure(samples, |at| {
        runtime.block_on(async { time::sleep_until(at.into()).await });
    })
}

/// What comes of `measure` while another thread does `op` over and over. It is pinned to no core: a thread that is
/// started from it would be, too.
fn while_busy<T>(runtime: &Runtime, mut op: impl FnMut() + Send, measure: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _in_tokio = runtime.enter();
            while !stop.load(Ordering::Relaxed) {
                op();
            }
        });
        let measured = measure();
        stop.store(true, Ordering::Relaxed);
        measured
    })
}

fn beside_churn(samples: usize, runtime: &Runtime) -> Lateness {
    let make = || Context::background().with_timeout(FAR);
    let mut live: Vec<_> = iter::repeat_with(make).take(WINDOW).collect();
    let ours = while_busy(runtime, || live.fill_with(make), || ours(samples));
    drop(live);

    let mut live = sleeps(WINDOW);
    let tokio = while_busy(
        runtime,
        || live.iter_mut().for_each(|it| arm(it, Instant::now() + FAR)),
        || tokios(samples, runtime),
    );
    Lateness {
        what: format!(
            "… of {samples}, while another thread makes and drops `with_timeout(10 s)`, 10,000 of them alive"
        ),
        limit: NO_AIM,
        ours,
        tokio,
        which: "tokio's sleep, while another thread makes, polls and drops sleeps",
    }
}

fn beside_bursts(samples: usize, runtime: &Runtime) -> Lateness {
    let far = Instant::now() + FAR;
    let mut live: Vec<_> = iter::repeat_with(|| waited_for(far)).take(BURST).collect();
    let ours = while_busy(
        runtime,
        || burst(|at| live.fill_with(|| waited_for(at))),
        || ours(samples),
    );
    drop(live);

    let mut live = sleeps(BURST);
    let tokio = while_busy(
        runtime,
        || burst(|at| live.iter_mut().for_each(|it| arm(it, at))),
        || tokios(samples, runtime),
    );
    Lateness {
        what: format!(
            "… of {samples}, while 100,000 deadlines of another thread pass at one moment, every 100 ms"
        ),
        limit: NO_AIM,
        ours,
        tokio,
        which: "tokio's sleep, while as many sleeps end",
    }
}

fn burst(make: impl FnOnce(Instant)) {
    let at = Instant::now() + AHEAD;
    make(at);
    thread::sleep((at + AFTER).saturating_duration_since(Instant::now()));
}

/// Polled once, as tokio's is, which otherwise is not armed.
fn waited_for(at: Instant) -> (DoneOwned, CancelGuard) {
    let (ctx, guard) = Context::background().with_deadline(at);
    let mut done = ctx.done_owned();
    _ = (&mut done).now_or_never();
    (done, guard)
}

/// Boxed ahead, so that nobody's allocations are what a thread is busy with.
fn sleeps(n: usize) -> Vec<Pin<Box<Sleep>>> {
    iter::repeat_with(|| Box::pin(time::sleep(FAR)))
        .take(n)
        .collect()
}

fn arm(sleep: &mut Pin<Box<Sleep>>, at: Instant) {
    sleep.set(time::sleep_until(at.into()));
    _ = sleep.as_mut().now_or_never();
}

fn beside_blocked(samples: usize, runtime: &Runtime) -> Lateness {
    let (ctx, guard) = Context::background().with_cancel();
    let ours = while_blocked(
        |block| drop(ctx.after_func(block)),
        || {
            guard.cancel();
            ours(samples)
        },
    );
    let tokio = while_blocked(
        |block| drop(runtime.spawn_blocking(block)),
        || tokios(samples, runtime),
    );
    Lateness {
        what: format!("… of {samples}, while 1,000 `after_func` callbacks block"),
        limit: NO_AIM,
        ours,
        tokio,
        which: "tokio's sleep, while 512 of 1,000 tasks of `spawn_blocking` block: its limit, unless told",
    }
}

/// Each that is started waits until `measure` has returned, and this for each of them.
fn while_blocked<T>(start: impl Fn(Box<dyn FnOnce() + Send>), measure: impl FnOnce() -> T) -> T {
    let (held, all_gone) = mpsc::channel::<()>();
    let ends: Vec<_> = (0..BLOCKED)
        .map(|_| {
            let (end, ended) = mpsc::channel::<()>();
            let held = held.clone();
            start(Box::new(move || {
                _ = ended.recv();
                drop(held);
            }));
            end
        })
        .collect();
    drop(held);
    let measured = measure();
    drop(ends);
    _ = all_gone.recv();
    measured
}
