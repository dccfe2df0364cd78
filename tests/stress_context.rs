//! Contexts, everything at once, from several real threads: deadlines that pass while contexts are
//! cancelled, derived, waited for and dropped. Nothing is early, nobody who waits sleeps on, and all that was
//! registered is gone once the contexts are.
//!
//! `STRESS_SECONDS` says how long (2 by default), `STRESS_THREADS` how many (4).

use cancel_tree::{CancelGuard, Context, ContextError, DoneOwned, Registration};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{self, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// How late a deadline may be on a machine that is busy with this.
const LATE: Duration = Duration::from_secs(5);
/// For what comes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// One that is counted.
struct Counted(Arc<AtomicIsize>);

impl Counted {
    fn new(count: &Arc<AtomicIsize>) -> Counted {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counted")
    }
}

impl std::error::Error for Counted {}

struct Alarm {
    woken: AtomicBool,
    _counted: Counted,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
    }
}

#[derive(Default)]
struct World {
    /// Contexts that any thread may take, use, or put back.
    shared: Mutex<Vec<(Context, Option<CancelGuard>)>>,
    stop: AtomicBool,
    fired: AtomicUsize,
    expired: AtomicUsize,
    counted: Arc<AtomicIsize>,
}

struct Waiting {
    future: Pin<Box<DoneOwned>>,
    alarm: Arc<Alarm>,
    deadline: Option<Instant>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        (self.0 >> 33) % n
    }
}

fn derive(world: &World, ctx: &Context, random: &mut Random) -> (Context, Option<CancelGuard>) {
    let soon = Duration::from_micros(random.below(20_000));
    match random.below(9) {
        0..3 => some(ctx.with_timeout(soon)),
        3 => some(ctx.with_timeout(Duration::from_secs(30))),
        4 => some(
            ctx.with_timeout_cause(soon, cancel_tree::Cause::new(Counted::new(&world.counted))),
        ),
        5 => some(ctx.with_cancel()),
        6 => (ctx.with_value(Counted::new(&world.counted)), None),
        7 => {
            let (other, guard) = Context::background().with_timeout(soon);
            (Context::any_of([ctx, &other]), Some(guard))
        }
        // (A token does not tell of a deadline above, so contexts below one are not among these.)
        _ => some(ctx.without_cancel().with_timeout(soon)),
    }
}

fn some((ctx, guard): (Context, CancelGuard)) -> (Context, Option<CancelGuard>) {
    (ctx, Some(guard))
}

/// What every callback checks: it is not early, and the context knows why it is done.
fn check(ctx: &Context, deadline: Option<Instant>) {
    let error = ctx.err().expect("a callback without an error");
    assert_eq!(ctx.cause().map(|cause| cause.kind()), Some(error));
    if let (ContextError::DeadlineExceeded, Some(deadline)) = (error, deadline) {
        assert!(Instant::now() >= deadline, "too early");
    }
}

fn register(world: &Arc<World>, ctx: &Context, random: &mut Random) -> Registration {
    let counted = Counted::new(&world.counted);
    let (mine, w) = (world.clone(), ctx.clone());
    let deadline = ctx.deadline();
    let f = move || {
        check(&w, deadline);
        drop(counted);
        mine.fired.fetch_add(1, Ordering::Relaxed);
    };
    if random.below(2) == 0 {
        ctx.after_func(f)
    } else {
        ctx.on_cancel(f)
    }
}

fn work(world: &Arc<World>, seed: u64) {
    let mut random = Random(seed);
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut registrations: Vec<Registration> = Vec::new();
    let root = Context::background();
    while !world.stop.load(Ordering::Relaxed) {
        let picked = {
            let mut shared = world.shared.lock().unwrap();
            let n = shared.len() as u64;
            (n > 0).then(|| shared.swap_remove(random.below(n) as usize))
        };
        let (ctx, mut guard) = picked.unwrap_or_else(|| some(root.with_cancel()));
        match random.below(12) {
            0..4 => {
                let new = derive(world, &ctx, &mut random);
                world.shared.lock().unwrap().push(new);
            }
            4 | 5 => {
                let alarm = Arc::new(Alarm {
                    woken: AtomicBool::new(false),
                    _counted: Counted::new(&world.counted),
                });
                let deadline = ctx.deadline();
                let mut future = Box::pin(ctx.clone().done_owned());
                let waker = Waker::from(alarm.clone());
                let polled = future.as_mut().poll(&mut task::Context::from_waker(&waker));
                drop(waker);
                if polled.is_pending() {
                    waiting.push(Waiting {
                        future,
                        alarm,
                        deadline,
                    });
                }
            }
            6 => registrations.push(register(world, &ctx, &mut random)),
            // A callback that owns its context keeps it until something cancels it.
            7 if ctx.deadline().is_some_and(|at| at < Instant::now() + LATE) => {
                drop(register(world, &ctx, &mut random));
            }
            8 => {
                if let Some(guard) = &guard {
                    guard.cancel_with(cancel_tree::Cause::new(Counted::new(&world.counted)));
                }
            }
            9 => drop(guard.take()),
            10 => {
                let limit = Duration::from_micros(random.below(500));
                if ctx.blocking_wait_timeout(limit) == Some(ContextError::DeadlineExceeded) {
                    world.expired.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {
                if let Some(guard) = guard.take() {
                    guard.detach();
                }
            }
        }
        if random.below(3) > 0 {
            let mut shared = world.shared.lock().unwrap();
            if shared.len() < 300 {
                shared.push((ctx, guard));
            }
        }
        if waiting.len() > 50 {
            let one = waiting.swap_remove(random.below(50) as usize);
            check_waiting(one);
        }
        if registrations.len() > 50 {
            let one = registrations.swap_remove(random.below(50) as usize);
            one.stop();
        }
    }
    for one in waiting {
        check_waiting(one);
    }
    for one in registrations {
        one.stop();
    }
}

/// Who waits past the deadline has been woken, or will be.
fn check_waiting(one: Waiting) {
    let now = Instant::now();
    if one.deadline.is_none_or(|at| at > now) {
        return;
    }
    while !one.alarm.woken.load(Ordering::Acquire) {
        assert!(
            now.elapsed() < PATIENCE,
            "a waiter sleeps past the deadline"
        );
        thread::sleep(Duration::from_micros(100));
    }
    let mut future = one.future;
    let waker = Waker::noop();
    let polled = future.as_mut().poll(&mut task::Context::from_waker(waker));
    assert!(polled.is_ready(), "woken, and not done");
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().expect(name))
}

#[test]
fn everything_at_once() {
    let world = Arc::new(World::default());
    let threads: Vec<_> = (0..number("STRESS_THREADS", 4))
        .map(|seed| {
            let world = world.clone();
            thread::spawn(move || work(&world, seed + 1))
        })
        .collect();
    thread::sleep(Duration::from_secs(number("STRESS_SECONDS", 2)));
    world.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    // Outside of the lock: what goes with them may do anything.
    let all = std::mem::take(&mut *world.shared.lock().unwrap());
    drop(all);
    // Callbacks that were left run at their deadlines.
    let begin = Instant::now();
    while world.counted.load(Ordering::Relaxed) != 0 {
        let left = world.counted.load(Ordering::Relaxed);
        assert!(
            begin.elapsed() < LATE + PATIENCE,
            "{left} are never dropped"
        );
        thread::sleep(Duration::from_millis(1));
    }
    let (fired, expired) = (&world.fired, &world.expired);
    assert!(fired.load(Ordering::Relaxed) > 0, "no callback has run");
    assert!(
        expired.load(Ordering::Relaxed) > 0,
        "nobody waited past a deadline"
    );
}
