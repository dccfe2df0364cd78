//! Threads that wait for a context and wake up at its deadline: others do not depend on them, nor what has passed before.

#![cfg(not(any(miri, cancel_tree_by_hand)))]

#[cfg(all(target_os = "linux", feature = "signals"))]
mod cpu_time;

use cancel_tree::{CancellationToken, Context};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::pending;
use std::sync::{mpsc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

thread_local! {
    /// From then on the thread is stopped where it allocates, once.
    static STOPS: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// One test at a time: what another one costs or stops would be seen.
static ALONE: Mutex<()> = Mutex::new(());

/// Held by the test while the thread is to be stopped.
static GATE: Mutex<()> = Mutex::new(());

struct Stopping;

// SAFETY: the system's.
unsafe impl GlobalAlloc for Stopping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let stops = STOPS.try_with(Cell::get).ok().flatten();
        if stops.is_some_and(|from| from <= Instant::now()) {
            STOPS.set(None);
            drop(GATE.lock());
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: Stopping = Stopping;

const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(10);

/// Whoever is stopped is so until somebody else was woken, or has waited in vain. Also where the timer is so late that it was to act on the deadline itself: what it
/// needs of the allocator it has from before that.
fn is_told_beside_one_that_is_stopped(ctx: &Context, deadline: Instant, wait: fn(&Context)) {
    let token: CancellationToken = ctx.child_token();
    let (say, hear) = mpsc::channel();
    let gate = GATE.lock().unwrap();
    let waiter = thread::spawn(move || {
        token.blocking_wait();
        say.send(()).unwrap();
    });
    let stopped = {
        let ctx = ctx.clone();
        thread::spawn(move || {
            STOPS.set(Some(deadline));
            wait(&ctx);
            STOPS.set(None);
        })
    };
    let told = hear.recv_timeout(LONG);
    drop(gate);
    stopped.join().unwrap();
    waiter.join().unwrap();
    assert!(told.is_ok(), "{ctx:?}");
}

#[test]
fn whoever_is_stopped_at_a_deadline_holds_up_nobody() {
    let _alone = ALONE.lock();
    // The timer's threads are there.
    let (first, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    first.child_token().blocking_wait();
    let waits: [fn(&Context); 2] = [
        |ctx| _ = ctx.blocking_wait(),
        |ctx| _ = ctx.block_on(pending::<()>()),
    ];
    for wait in waits {
        let deadline = Instant::now() + SOON;
        let (fixed, _fixed) = Context::background().with_deadline(deadline);
        is_told_beside_one_that_is_stopped(&fixed, deadline, wait);
        let deadline = Instant::now() + SOON;
        let (movable, _movable) = Context::background().with_movable_deadline(deadline);
        is_told_beside_one_that_is_stopped(&movable, deadline, wait);
        let deadline = Instant::now() + SOON;
        let (idle, _idle) = Context::background().with_idle_timeout(SOON);
        is_told_beside_one_that_is_stopped(&idle, deadline, wait);
    }
}

/// A deadline below it passed some microseconds earlier. Where the timer is not running for a millisecond, for others keep the
/// processors busy, it may be otherwise: seldom.
#[test]
fn what_has_passed_before_was_first() {
    let _alone = ALONE.lock();
    let is_its_own = |n: u64| {
        let sooner = Instant::now() + Duration::from_micros(1500);
        let later = sooner + Duration::from_micros(20 + n % 100);
        let (above, _above) = Context::background().with_deadline_cause(later, "later");
        let (ctx, _guard) = above.with_deadline_cause(sooner, "sooner");
        above.blocking_wait();
        ctx.cause()
            .is_some_and(|cause| cause.to_string() == "sooner")
    };
    let mut attempts = Vec::new();
    let is_good = |_| {
        let many = (0..200).filter(|n| is_its_own(*n)).count();
        attempts.push(many);
        many > 180
    };
    assert!((0..5).any(is_good), "{attempts:?}");
}

/// With what only the system can do to a thread.
#[cfg(all(target_os = "linux", feature = "signals"))]
mod by_signals {
    use super::cpu_time::cpu_time;
    use super::*;
    use cancel_tree::CancelGuard;
    use std::any::Any;
    use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
    use std::sync::Arc;

    /// What a thread does about a deadline is as much as is above it, however much is below what another one is marking.
    #[test]
    fn many_that_wait_do_not_each_pass_what_is_below() {
        let _alone = ALONE.lock();
        let cost_with = |waiters: usize| {
            let (ctx, guard) = Context::background().with_movable_deadline(None);
            // Made earlier than the others, they are marked later.
            let waited: Vec<_> = (0..waiters).map(|_| ctx.with_cancel()).collect();
            let token = ctx.child_token();
            let others: Vec<_> = (0..300_000).map(|_| token.child_token()).collect();
            guard.set_timeout(10 * SOON);
            let wait = |(below, guard): (Context, CancelGuard)| {
                thread::spawn(move || {
                    let _guard = guard;
                    below.blocking_wait();
                })
            };
            let waiters: Vec<_> = waited.into_iter().map(wait).collect();
            thread::sleep(9 * SOON);
            let before = cpu_time();
            waiters
                .into_iter()
                .for_each(|waiter| waiter.join().unwrap());
            let cost = cpu_time() - before;
            drop(others);
            cost
        };
        let (few, many) = (cost_with(1), cost_with(50));
        assert!(many < 8 * few + SOON, "{few:?}, {many:?}");
    }

    /// Also where the rest is still being marked: what is below the context of a wait that is over is done.
    #[test]
    fn what_is_below_is_done_when_the_wait_is_over() {
        let _alone = ALONE.lock();
        for _ in 0..3 {
            let (ctx, deadline) = Context::background().with_movable_deadline(None);
            let (waited, _waited) = ctx.with_cancel();
            let (below, guard) = waited.with_cancel();
            let beside = ctx.child_token();
            let others: Vec<_> = (0..200_000).map(|_| beside.child_token()).collect();
            deadline.set_timeout(SOON);
            let waits = thread::spawn(move || {
                waited.blocking_wait();
                (below.is_done(), guard.cancel())
            });
            assert_eq!(waits.join().unwrap(), (true, false));
            drop(others);
        }
    }

    /// Nobody is called by what such a thread does, not by an edge either, before the rest is marked.
    #[test]
    fn nobody_is_called_before_all_is_marked() {
        let _alone = ALONE.lock();
        for _ in 0..3 {
            let (ctx, deadline) = Context::background().with_movable_deadline(None);
            // The oldest is marked last.
            let last = ctx.child_token();
            let (waited, _waited) = ctx.with_cancel();
            let [one, two, below] = [Context::background(), Context::background(), waited.clone()]
                .map(|above| above.with_cancel());
            let any = Context::any_of([&one.0, &two.0, &below.0]);
            let (say, hear) = mpsc::channel();
            drop(any.on_cancel(move || say.send(last.is_cancelled()).unwrap()));
            let beside = ctx.child_token();
            let others: Vec<_> = (0..200_000).map(|_| beside.child_token()).collect();
            deadline.set_timeout(SOON);
            thread::scope(|scope| {
                scope.spawn(|| waited.blocking_wait());
                assert!(hear.recv_timeout(LONG).unwrap());
            });
            drop(others);
        }
    }

    const STOPPED: Duration = Duration::from_millis(1500);

    extern "C" fn stand_still(_: libc::c_int) {
        // SAFETY: a signal handler may.
        unsafe { libc::usleep(STOPPED.as_micros() as libc::useconds_t) };
    }

    fn stop(thread: libc::pid_t) {
        // SAFETY: a signal that has a handler, to a thread of this process.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
    }

    fn timers_thread() -> libc::pid_t {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let is_it = |path: &std::path::Path| {
            std::fs::read_to_string(path.join("comm"))
                .is_ok_and(|name| name.trim() == "cancel-tree")
        };
        let mut paths = tasks.map(|task| task.unwrap().path());
        let path = paths.find(|path| is_it(path)).unwrap();
        path.file_name().unwrap().to_str().unwrap().parse().unwrap()
    }

    /// The timer's thread is stopped, and the thread that acts on the deadline in its place as well, in the middle of marking. None: it
    /// was through before it could be stopped; or the machine has been too slow for that deadline.
    fn lateness_beside_two_that_are_stopped(
        ctx: &Context,
        deadline: Instant,
        touch: impl FnOnce() -> Box<dyn Any>,
    ) -> Option<Duration> {
        // The oldest is marked last, the youngest first.
        let end = ctx.child_token();
        let (last, _guard) = ctx.with_cancel();
        let above = ctx.child_token();
        let between: Vec<_> = (0..200_000).map(|_| above.child_token()).collect();
        let first: CancellationToken = ctx.child_token();
        let thread = Arc::new(AtomicI32::new(0));
        let waiter = {
            let (ctx, thread) = (ctx.clone(), thread.clone());
            thread::spawn(move || {
                // SAFETY: always.
                thread.store(unsafe { libc::gettid() }, SeqCst);
                ctx.blocking_wait();
            })
        };
        let left = deadline.saturating_duration_since(Instant::now());
        thread::sleep(left.saturating_sub(SOON / 2));
        stop(timers_thread());
        // A token is not asked about the deadline.
        while !first.is_cancelled() {
            std::hint::spin_loop();
        }
        stop(thread.load(SeqCst));
        // Kept until all is over: no cancel by a guard is to help.
        let _guard = touch();
        let is_marked = end.is_cancelled();
        last.blocking_wait();
        let late = deadline.elapsed();
        waiter.join().unwrap();
        drop(between);
        (left > SOON && !is_marked).then_some(late)
    }

    #[test]
    fn whoever_is_stopped_while_it_marks_holds_up_nobody_who_waits() {
        let _alone = ALONE.lock();
        // SAFETY: the handler calls what it may.
        unsafe {
            libc::signal(
                libc::SIGUSR1,
                stand_still as *const () as libc::sighandler_t,
            )
        };
        // What comes too late is without effect.
        type New = fn(Duration) -> (Context, Box<dyn FnOnce() -> Box<dyn Any>>);
        let kinds: [(&str, New); 3] = [
            ("fixed", |long| {
                let (ctx, guard) = Context::background().with_timeout(long);
                (ctx, Box::new(move || Box::new(guard)))
            }),
            ("movable", |long| {
                let deadline = Instant::now() + long;
                let (ctx, guard) = Context::background().with_movable_deadline(deadline);
                let touch = move || {
                    guard.set_timeout(LONG);
                    Box::new(guard) as Box<dyn Any>
                };
                (ctx, Box::new(touch))
            }),
            ("idle", |long| {
                let (ctx, guard) = Context::background().with_idle_timeout(long);
                let touch = move || {
                    guard.touch();
                    Box::new(guard) as Box<dyn Any>
                };
                (ctx, Box::new(touch))
            }),
        ];
        for (kind, new) in kinds {
            let late = (0..5).find_map(|n| {
                let (ctx, touch) = new(Duration::from_secs(1 << n));
                let deadline = ctx.deadline().unwrap();
                lateness_beside_two_that_are_stopped(&ctx, deadline, touch)
            });
            assert!(
                late.is_some_and(|late| late < STOPPED / 3),
                "{kind}: {late:?}"
            );
        }
    }
}
