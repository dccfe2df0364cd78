//! The rules of contexts, one by one: Go's where we follow, ours where not. Each test is named by its
//! rule; those about tokens alone are in rules.rs.

use cancel_tree::{
    CancelGuard, CancellationToken, Canceller, Cause, Context, ContextError, DoneSignal,
    ForeignContext, GuardDropped, GuardedContext, Registration,
};
use futures::executor::block_on;
use std::alloc::{GlobalAlloc, Layout, System};
use std::any::{Any, TypeId};
use std::cell::Cell;
use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Barrier, RwLock};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use ContextError::{Cancelled, DeadlineExceeded};

const MS: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_millis(20);
const FAR: Duration = Duration::from_secs(3600);
/// For what comes in time on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts this thread's allocations.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of(f: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

fn cancellable() -> (Context, CancelGuard) {
    Context::background().with_cancel()
}

/// A callback that says so, and the ear for it.
fn bell() -> (impl FnOnce() + Send + 'static, mpsc::Receiver<()>) {
    let (say, hear) = mpsc::channel();
    let ring = move || {
        // Nobody may be listening any more.
        let _ = say.send(());
    };
    (ring, hear)
}

fn hears(ear: &mpsc::Receiver<()>) -> bool {
    ear.recv_timeout(PATIENCE).is_ok()
}

/// Nothing was heard, and nothing will be: the callback is gone.
fn never_hears(ear: &mpsc::Receiver<()>) -> bool {
    ear.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Disconnected)
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(Waker::noop()))
}

// ----- first cancel wins, state and cause together ---------------------------------------------

#[test]
fn first_cancel_wins_state_and_cause_together() {
    let (ctx, guard) = cancellable();
    assert!(guard.cancel_with("first"));
    assert!(!guard.cancel_with("second"));
    assert!(!guard.cancel());
    assert!(!guard.canceller().cancel_with("third"));
    assert_eq!(ctx.err(), Some(Cancelled));
    assert_eq!(ctx.cause().unwrap().to_string(), "first");
}

#[test]
fn of_many_cancels_at_once_and_a_deadline_one_wins() {
    for round in 0..300 {
        let deadline = Instant::now() + Duration::from_micros(round % 40 * 10);
        let (ctx, guard) = Context::background().with_deadline_cause(deadline, "late");
        let barrier = Barrier::new(3);
        let (a, b) = (guard.canceller(), guard.canceller());
        let (wins, seen) = thread::scope(|scope| {
            let cancel = |canceller: Canceller, cause: &'static str| {
                barrier.wait();
                canceller.cancel_with(cause)
            };
            let a = scope.spawn(move || cancel(a, "a"));
            let b = scope.spawn(move || cancel(b, "b"));
            barrier.wait();
            let seen = ctx.blocking_wait();
            let text = ctx.cause().unwrap().to_string();
            assert_eq!(seen == DeadlineExceeded, text == "late");
            (
                usize::from(a.join().unwrap()) + usize::from(b.join().unwrap()),
                seen,
            )
        });
        assert_eq!(wins, usize::from(seen == Cancelled), "one transition");
        assert_eq!(ctx.err(), Some(seen));
    }
}

// ----- when cancel() returns ------------------------------------------------------------------

#[test]
fn when_cancel_returns_every_descendant_is_done_and_every_waiter_woken() {
    struct Alarm(AtomicBool);
    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }
    let (root, guard) = cancellable();
    let mut contexts = vec![root.clone()];
    for i in 0..40 {
        let above = &contexts[i / 3];
        let (ctx, below) = match i % 3 {
            0 => above.with_cancel(),
            1 => above.with_timeout(FAR),
            _ => above.with_value(i).with_timeout_cause(FAR, "late"),
        };
        below.detach();
        contexts.push(ctx);
    }
    let mut futures: Vec<_> = contexts.iter().map(|ctx| Box::pin(ctx.done())).collect();
    let alarms: Vec<_> = futures
        .iter_mut()
        .map(|future| {
            let alarm = Arc::new(Alarm(AtomicBool::new(false)));
            let waker = Waker::from(alarm.clone());
            let mut cx = std::task::Context::from_waker(&waker);
            assert!(future.as_mut().poll(&mut cx).is_pending());
            alarm
        })
        .collect();
    guard.cancel_with("enough");
    for (ctx, alarm) in contexts.iter().zip(alarms) {
        assert_eq!(ctx.err(), Some(Cancelled));
        assert_eq!(ctx.cause().unwrap().to_string(), "enough");
        assert!(alarm.0.load(SeqCst));
    }
}

#[test]
fn all_state_is_set_before_the_first_callback() {
    let (root, guard) = cancellable();
    let below: Arc<Vec<Context>> = Arc::new(
        (0..50)
            .map(|_| {
                let (ctx, guard) = root.with_timeout(FAR);
                guard.detach();
                ctx
            })
            .collect(),
    );
    let wrong = Arc::new(AtomicUsize::new(0));
    for ctx in below.iter() {
        let (below, wrong) = (below.clone(), wrong.clone());
        drop(ctx.on_cancel(move || {
            wrong.fetch_add(below.iter().filter(|ctx| !ctx.is_done()).count(), SeqCst);
        }));
    }
    guard.cancel();
    assert_eq!(wrong.load(SeqCst), 0);
}

#[test]
fn all_state_is_set_before_the_first_callback_also_at_a_deadline() {
    let (root, _guard) = Context::background().with_timeout(SOON);
    let below: Arc<Vec<Context>> = Arc::new((0..50).map(|i| root.with_value(i)).collect());
    let (say, hear) = mpsc::channel();
    let inner = below.clone();
    let registration = root.with_cancel().0.on_cancel(|| ());
    drop(registration);
    drop(root.on_cancel(move || say.send(inner.iter().all(Context::is_done)).unwrap()));
    assert_eq!(hear.recv_timeout(PATIENCE), Ok(true));
}

// ----- born cancelled -------------------------------------------------------------------------

#[test]
fn a_child_of_a_cancelled_parent_is_born_cancelled_with_its_error_and_cause() {
    let (parent, guard) = cancellable();
    guard.cancel_with("gone");
    let children = [
        parent.with_cancel(),
        parent.with_timeout(FAR),
        parent.with_deadline(Instant::now()),
        parent.with_timeout_cause(Duration::ZERO, "other"),
    ];
    for (child, _guard) in &children {
        assert_eq!(child.err(), Some(Cancelled));
        assert_eq!(child.cause().unwrap().to_string(), "gone");
    }
    assert!(parent.child_token().is_cancelled());
}

#[test]
fn a_child_is_born_cancelled_also_when_creation_races_the_cancel() {
    for _ in 0..500 {
        let (parent, guard) = cancellable();
        let barrier = Barrier::new(2);
        let child = thread::scope(|scope| {
            let child = scope.spawn(|| {
                barrier.wait();
                let (child, guard) = parent.with_timeout(FAR);
                guard.detach();
                child
            });
            barrier.wait();
            guard.cancel_with("gone");
            child.join().unwrap()
        });
        assert_eq!(child.cause().unwrap().to_string(), "gone");
    }
}

// ----- who reaches whom -----------------------------------------------------------------------

#[test]
fn a_childs_cancel_never_reaches_parent_or_siblings() {
    let (parent, _guard) = cancellable();
    let (child, child_guard) = parent.with_timeout(FAR);
    let (sibling, _sibling_guard) = parent.with_cancel();
    child_guard.cancel();
    let (late, _late_guard) = parent.with_timeout(Duration::ZERO);
    assert!(child.is_done() && late.is_done());
    assert!(!parent.is_done() && !sibling.is_done());
}

#[test]
fn parent_first_the_child_takes_its_error_and_cause_child_first_it_keeps_its_own() {
    let (parent, guard) = cancellable();
    let (first, first_guard) = parent.with_cancel();
    let (late, _late_guard) = parent.with_timeout_cause(Duration::ZERO, "late");
    let (other, _other_guard) = parent.with_timeout(FAR);
    first_guard.cancel_with("child");
    guard.cancel_with("parent");
    assert_eq!(first.cause().unwrap().to_string(), "child");
    assert_eq!(late.cause().unwrap().to_string(), "late");
    assert_eq!(late.err(), Some(DeadlineExceeded));
    assert_eq!(other.cause().unwrap().to_string(), "parent");
    assert_eq!(other.err(), Some(Cancelled));
}

// ----- error and cause ------------------------------------------------------------------------

#[test]
fn while_live_no_error_and_no_cause() {
    let (ctx, _guard) = Context::background().with_timeout_cause(FAR, "late");
    assert!(!ctx.is_done());
    assert_eq!(ctx.err(), None);
    assert!(ctx.cause().is_none());
    assert_eq!(ctx.check(), Ok(()));
    assert!(poll_once(pin!(ctx.done())).is_pending());
}

#[test]
fn without_a_cause_it_is_the_kind_itself() {
    let (ctx, guard) = cancellable();
    guard.cancel();
    assert_eq!(ctx.cause().unwrap().downcast_ref(), Some(&Cancelled));
    assert_eq!(ctx.check(), Err(Cancelled));
    let (ctx, _guard) = Context::background().with_timeout(Duration::ZERO);
    assert_eq!(ctx.cause().unwrap().downcast_ref(), Some(&DeadlineExceeded));
    assert_eq!(ctx.check(), Err(DeadlineExceeded));
}

#[test]
fn every_cause_still_answers_to_its_kind() {
    let error = || Cause::new(std::io::Error::other("disk"));
    let (ctx, guard) = cancellable();
    guard.cancel_with(error());
    assert_eq!(ctx.cause().unwrap().kind(), Cancelled);
    let (ctx, _guard) = Context::background().with_timeout_cause(SOON, error());
    assert_eq!(ctx.blocking_wait(), DeadlineExceeded);
    let cause = ctx.cause().unwrap();
    assert_eq!(cause.kind(), DeadlineExceeded);
    assert!(cause.downcast_ref::<std::io::Error>().is_some());
}

// ----- deadlines ------------------------------------------------------------------------------

#[test]
fn the_effective_deadline_is_the_earliest_of_its_own_and_its_ancestors() {
    let now = Instant::now();
    let (parent, _a) = Context::background().with_deadline(now + FAR);
    let (earlier, _b) = parent.with_deadline(now + FAR / 2);
    let (later, _c) = parent.with_deadline(now + FAR * 2);
    let (plain, _d) = earlier.with_cancel();
    assert_eq!(parent.deadline(), Some(now + FAR));
    assert_eq!(earlier.deadline(), Some(now + FAR / 2));
    assert_eq!(later.deadline(), Some(now + FAR));
    assert_eq!(plain.with_value(1).deadline(), Some(now + FAR / 2));
    assert!(plain.remaining().unwrap() <= FAR / 2);
}

#[test]
fn a_deadline_already_past_is_done_at_birth() {
    let past = Instant::now();
    for (ctx, _guard) in [
        Context::background().with_deadline(past),
        Context::background().with_timeout(Duration::ZERO),
        cancellable().0.with_deadline_cause(past, "late"),
    ] {
        assert_eq!(poll_once(pin!(ctx.done())), Poll::Ready(DeadlineExceeded));
        assert_eq!(ctx.err(), Some(DeadlineExceeded));
    }
}

#[test]
fn an_explicit_cancel_before_the_deadline_gives_cancelled_also_with_a_deadline_cause() {
    let (ctx, guard) = Context::background().with_timeout_cause(FAR, "late");
    guard.cancel();
    assert_eq!(ctx.err(), Some(Cancelled));
    assert_eq!(ctx.cause().unwrap().downcast_ref(), Some(&Cancelled));
}

#[test]
fn a_cancel_after_the_deadline_changes_nothing() {
    let (ctx, guard) = Context::background().with_timeout_cause(MS, "late");
    let (parent, parent_guard) = cancellable();
    let (child, _child_guard) = parent.with_timeout(MS);
    // Nobody waits there; to look is no more than a load.
    let begin = Instant::now();
    while !(ctx.is_done() && child.is_done()) {
        assert!(begin.elapsed() < PATIENCE);
        thread::sleep(MS);
    }
    assert!(!guard.cancel());
    parent_guard.cancel();
    assert_eq!(ctx.err(), Some(DeadlineExceeded));
    assert_eq!(ctx.cause().unwrap().to_string(), "late");
    assert_eq!(child.err(), Some(DeadlineExceeded));
}

#[test]
fn deadline_does_not_change_on_cancel() {
    let (ctx, guard) = Context::background().with_timeout(FAR);
    let deadline = ctx.deadline();
    guard.cancel();
    assert!(deadline.is_some());
    assert_eq!(ctx.deadline(), deadline);
}

#[test]
fn an_own_deadline_later_than_the_parents_leaves_the_parents_cause() {
    let (parent, _guard) = Context::background().with_timeout_cause(SOON, "parent");
    let (child, _child_guard) = parent.with_timeout_cause(FAR, "child");
    assert_eq!(child.blocking_wait(), DeadlineExceeded);
    assert_eq!(child.cause().unwrap().to_string(), "parent");
}

#[test]
fn a_deadline_that_timer_and_waiters_notice_at_once_is_not_taken_for_the_parents() {
    let (parent, _guard) = Context::background().with_timeout(FAR);
    for _ in 0..1000 {
        let (child, _guard) = parent.with_timeout(MS);
        let below = child.with_cancel();
        thread::scope(|scope| {
            for i in 0..12 {
                let ctx = if i % 2 == 0 { &child } else { &below.0 };
                scope.spawn(|| assert_eq!(ctx.blocking_wait(), DeadlineExceeded));
            }
        });
        assert_eq!(parent.err(), None);
    }
}

#[test]
fn never_no_error_after_an_error_never_an_error_before_done_is_ready() {
    for _ in 0..50 {
        let (ctx, _guard) = Context::background().with_timeout(2 * MS);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| loop {
                    let before = ctx.err();
                    let ready = poll_once(pin!(ctx.done())).is_ready();
                    let after = ctx.err();
                    assert!(before.is_none() || ready, "an error, and done is not ready");
                    assert!(!ready || after.is_some(), "done is ready, and no error");
                    if after.is_some() {
                        assert!(Instant::now() >= ctx.deadline().unwrap(), "too early");
                        assert_eq!(after, Some(DeadlineExceeded));
                        break;
                    }
                });
            }
            ctx.blocking_wait();
        });
    }
}

#[test]
fn a_token_below_is_cancelled_at_the_deadline_though_nobody_polls() {
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    let token = ctx.child_token();
    let begin = Instant::now();
    while !token.is_cancelled() {
        assert!(begin.elapsed() < PATIENCE);
        thread::sleep(MS);
    }
    assert!(Instant::now() >= ctx.deadline().unwrap());
    assert_eq!(token.cause().unwrap().kind(), DeadlineExceeded);
}

#[test]
fn a_callback_fires_at_the_deadline_though_all_handles_are_dropped() {
    let (f, ear) = bell();
    let (g, other_ear) = bell();
    let (ctx, guard) = Context::background().with_timeout(SOON);
    drop(ctx.after_func(f));
    drop(ctx.on_cancel(g));
    guard.detach();
    drop(ctx);
    assert!(hears(&ear) && hears(&other_ear));
}

#[test]
fn never_early_and_not_late() {
    // A machine may be busy, but not all the time.
    let mut attempts = Vec::new();
    let is_good = |_| {
        let late = least_late();
        attempts.push(late);
        late.iter().all(|late| *late < 5 * MS)
    };
    assert!((0..5).any(is_good), "{attempts:?}");
}

/// The best of some tasks, threads and callbacks. None is early.
fn least_late() -> [Duration; 3] {
    let mut least = [Duration::MAX; 3];
    for i in 0..40 {
        let (ctx, _guard) =
            Context::background().with_timeout(Duration::from_micros(1000 + 97 * i));
        let deadline = ctx.deadline().unwrap();
        let kind = i as usize % 3;
        match kind {
            0 => assert_eq!(block_on(ctx.done()), DeadlineExceeded),
            1 => assert_eq!(ctx.blocking_wait(), DeadlineExceeded),
            _ => {
                let (f, ear) = bell();
                drop(ctx.on_cancel(f));
                assert!(hears(&ear));
            }
        }
        let late = Instant::now().checked_duration_since(deadline);
        least[kind] = least[kind].min(late.expect("too early"));
    }
    least
}

#[test]
fn one_hundred_thousand_deadlines_at_one_instant() {
    let at = Instant::now() + 100 * MS;
    let (root, _guard) = cancellable();
    let fired = Arc::new(AtomicUsize::new(0));
    let all: Vec<_> = (0..100_000)
        .map(|i| {
            let pair = root.with_deadline(at);
            if i % 10 == 0 {
                let fired = fired.clone();
                drop(pair.0.on_cancel(move || {
                    fired.fetch_add(1, SeqCst);
                }));
            }
            pair
        })
        .collect();
    for (ctx, _) in &all {
        assert_eq!(ctx.blocking_wait(), DeadlineExceeded);
    }
    let begin = Instant::now();
    while fired.load(SeqCst) < 10_000 {
        assert!(begin.elapsed() < PATIENCE);
        thread::sleep(MS);
    }
}

#[test]
fn a_callback_that_blocks_at_a_deadline_delays_no_other_deadline() {
    let (slow, guard) = Context::background().with_movable_deadline(None);
    let (let_go, blocked) = mpsc::channel::<()>();
    let (running, is_running) = mpsc::channel();
    drop(slow.on_cancel(move || {
        running.send(()).unwrap();
        let _ = blocked.recv();
    }));
    assert!(guard.set_timeout(MS));
    is_running.recv_timeout(PATIENCE).unwrap();
    for _ in 0..20 {
        let (ctx, _guard) = Context::background().with_timeout(MS);
        // By the timer: this task does not look at the clock.
        assert_eq!(block_on(ctx.done()), DeadlineExceeded);
    }
    drop(let_go);
}

#[test]
fn many_callbacks_that_block_delay_no_other_deadline() {
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap();
    for _ in 0..100 {
        let (ctx, guard) = Context::background().with_timeout(MS);
        let gate = gate.clone();
        drop(ctx.after_func(move || drop(gate.read())));
        guard.detach();
    }
    // The middle of many, as other programs may keep the processors busy.
    let mut late = Vec::new();
    for _ in 0..40 {
        let (ctx, _guard) = Context::background().with_timeout(MS);
        // By the timer: this task does not look at the clock.
        assert_eq!(block_on(ctx.done()), DeadlineExceeded);
        late.push(ctx.deadline().unwrap().elapsed());
    }
    drop(closed);
    late.sort();
    assert!(late[20] < 50 * MS, "{late:?}");
}

/// A context of another kind that is told by a waker.
struct Told(std::sync::Mutex<Option<futures::channel::oneshot::Receiver<()>>>);

impl ForeignContext for Told {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        let told = self.0.lock().unwrap().take().unwrap();
        signal.when_woken(async move {
            let _ = told.await;
        })
    }
}

/// Callbacks that block, and behind them very many that take 20 ms each. Then `begin` has threads wait that are woken by a job:
/// of so many callbacks, how many have begun when the last of these threads has said that it is awake.
const CALLBACKS: usize = 30_000;

fn callbacks_before_the_waking(begin: impl FnOnce(&mpsc::Sender<()>)) -> usize {
    let held = Arc::new(RwLock::new(()));
    let (over, begun) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (done, guard) = cancellable();
    guard.cancel();
    let blocks = held.write().unwrap();
    for _ in 0..140 {
        let held = held.clone();
        drop(done.after_func(move || drop(held.read())));
    }
    for _ in 0..CALLBACKS {
        let (over, begun) = (over.clone(), begun.clone());
        drop(done.after_func(move || {
            begun.fetch_add(1, SeqCst);
            if !over.load(SeqCst) {
                thread::sleep(20 * MS);
            }
        }));
    }
    let (say, awake) = mpsc::channel();
    begin(&say);
    drop(say);
    // Until all have said so, and are gone.
    assert_eq!(
        awake.recv_timeout(4 * PATIENCE),
        Err(RecvTimeoutError::Disconnected)
    );
    let before = begun.load(SeqCst);
    over.store(true, SeqCst);
    drop(blocks);
    before
}

/// Jobs are taken in turn: behind the callbacks of others, all of these would have begun. A machine that is busy may take long for
/// it: one attempt that is in time is enough.
fn is_woken_before_callbacks(begin: impl Fn(&mpsc::Sender<()>)) {
    let mut attempts = (0..5).map(|_| callbacks_before_the_waking(&begin));
    assert!(attempts.any(|before| before < CALLBACKS / 2));
}

#[test]
fn what_waiters_notice_wakes_others_before_callbacks_that_have_come_before() {
    is_woken_before_callbacks(|say| {
        // Many: where the timer is first for once, it wakes them.
        for _ in 0..20 {
            let (ctx, guard) = Context::background().with_timeout(50 * MS);
            guard.detach();
            let (below, awake) = (ctx.child_token(), say.clone());
            thread::spawn(move || {
                below.blocking_wait();
                drop(awake);
            });
            thread::spawn(move || ctx.blocking_wait());
        }
    });
}

#[test]
fn what_a_foreign_waker_cancels_is_woken_before_callbacks_that_have_come_before() {
    is_woken_before_callbacks(|say| {
        let (tell, told) = futures::channel::oneshot::channel();
        let ctx = Context::below(Told(std::sync::Mutex::new(Some(told))));
        let awake = say.clone();
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            let mut done = ctx.done_owned();
            let waits = block_on(std::future::poll_fn(|cx| {
                Poll::Ready(pin!(&mut done).poll(cx))
            }));
            ready.send(waits.is_pending()).unwrap();
            block_on(done);
            drop(awake);
        });
        assert!(is_ready.recv().unwrap());
        tell.send(()).unwrap();
    });
}

#[test]
fn callbacks_at_a_deadline_never_run_on_a_thread_that_waits_for_it() {
    let mut rounds = 0;
    while rounds < 50 {
        let (ctx, _guard) = Context::background().with_timeout(MS);
        let waiter = thread::current().id();
        let (say, hear) = mpsc::channel();
        // Nobody hears it where the round is given up.
        drop(ctx.on_cancel(move || _ = say.send(thread::current().id())));
        if ctx.is_done() {
            // On a busy machine: it was late already, and a callback that comes late runs on the spot, or where the guard goes.
            continue;
        }
        assert_eq!(ctx.blocking_wait(), DeadlineExceeded);
        assert_ne!(hear.recv_timeout(PATIENCE).unwrap(), waiter);
        rounds += 1;
    }
}

#[test]
fn a_callback_at_a_deadline_may_join_the_threads_that_wait_for_it() {
    for _ in 0..20 {
        let (ctx, _guard) = Context::background().with_timeout(10 * MS);
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                thread::spawn({
                    let ctx = ctx.clone();
                    move || ctx.blocking_sleep(PATIENCE)
                })
            })
            .collect();
        let (f, ear) = bell();
        drop(ctx.on_cancel(move || {
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), Err(DeadlineExceeded));
            }
            f();
        }));
        assert!(hears(&ear));
    }
}

#[test]
fn a_callback_at_a_deadline_may_wait_for_another_deadline() {
    let (ctx, _guard) = Context::background().with_timeout(MS);
    let (f, ear) = bell();
    drop(ctx.on_cancel(move || {
        let (other, _guard) = Context::background().with_timeout(MS);
        block_on(other.done());
        f();
    }));
    assert!(hears(&ear));
}

#[test]
fn a_timeout_costs_no_allocation_once_there_was_one() {
    let (parent, _guard) = cancellable();
    drop(parent.with_timeout(FAR));
    let allocations = allocations_of(|| {
        for _ in 0..10_000 {
            let (ctx, guard) = parent.with_timeout(FAR);
            assert!(!ctx.is_done());
            drop((ctx, guard));
        }
    });
    assert_eq!(allocations, 0);
}

#[test]
fn nor_does_it_where_many_long_ones_came_and_went() {
    let (parent, _guard) = cancellable();
    // More than the thread keeps.
    drop(Vec::from_iter((0..5000).map(|_| parent.with_timeout(FAR))));
    let allocations = allocations_of(|| {
        for i in 0..10_000 {
            drop(parent.with_timeout([PATIENCE, 5000 * MS, 100 * MS][i % 3]));
        }
    });
    assert_eq!(allocations, 0);
}

// ----- values ---------------------------------------------------------------------------------

struct Id(u32);
struct User(&'static str);

#[test]
fn the_nearest_value_wins() {
    let ctx = Context::background()
        .with_value(Id(1))
        .with_value(User("u"));
    let below = ctx.with_cancel().0.with_value(Id(2));
    assert_eq!(ctx.value::<Id>().map(|id| id.0), Some(1));
    assert_eq!(below.value::<Id>().map(|id| id.0), Some(2));
    assert_eq!(below.value::<User>().map(|user| user.0), Some("u"));
    assert!(below.value::<String>().is_none());
}

#[test]
fn a_lookup_works_after_a_cancel() {
    let (ctx, guard) = cancellable();
    let ctx = ctx.with_value(Id(1));
    guard.cancel();
    assert!(ctx.is_done());
    assert_eq!(ctx.value::<Id>().map(|id| id.0), Some(1));
}

#[test]
fn values_are_dropped_with_the_last_context_that_has_them() {
    let value = Arc::new(());
    let ctx = Context::background().with_value(value.clone());
    let below = ctx.with_value(Id(1)).with_cancel().0;
    drop(ctx);
    assert_eq!(Arc::strong_count(&value), 2);
    drop(below);
    assert_eq!(Arc::strong_count(&value), 1);
}

fn on_a_small_stack(f: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(128 << 10).spawn(f);
    thread.unwrap().join().unwrap();
}

#[test]
fn a_million_values_and_a_million_cancels_on_a_small_stack() {
    on_a_small_stack(|| {
        let mut ctx = Context::background();
        for i in 0..1_000_000 {
            ctx = ctx.with_value(Id(i));
        }
        assert_eq!(ctx.value::<Id>().map(|id| id.0), Some(999_999));
        assert!(ctx.value::<User>().is_none());
        let mut guards = Vec::new();
        for _ in 0..1_000_000 {
            let guard;
            (ctx, guard) = ctx.with_cancel();
            guards.push(guard);
        }
        guards[0].cancel();
        assert!(ctx.is_done());
        drop((ctx, guards));
    });
}

/// Each grace is below a shield of the one before it, and keeps what it was made for; with the values handed on, and without.
#[test]
fn a_long_chain_of_graces_on_a_small_stack() {
    on_a_small_stack(|| {
        let ways: [fn(&Context) -> Context; 2] = [
            |ctx| ctx.with_grace(FAR).shield().child_token().context(),
            |ctx| ctx.with_grace(FAR).shield(),
        ];
        for below in ways {
            for is_cancelled in [false, true] {
                let (mut ctx, guard) = Context::background().with_cancel();
                for _ in 0..5_000 {
                    ctx = below(&ctx);
                }
                if is_cancelled {
                    // The first grace begins.
                    guard.cancel();
                    assert!(!ctx.is_done());
                }
                drop(ctx);
            }
        }
    });
}

// ----- without_cancel, background, todo, any_of -------------------------------------------------

#[test]
fn without_cancel_keeps_the_values_and_drops_cancel_deadline_and_cause() {
    let (ctx, guard) = Context::background().with_value(Id(1)).with_timeout(FAR);
    let free = ctx.without_cancel();
    guard.cancel_with("gone");
    assert!(!free.is_done());
    assert_eq!((free.err(), free.deadline()), (None, None));
    assert!(free.cause().is_none());
    assert_eq!(free.value::<Id>().map(|id| id.0), Some(1));
}

#[test]
fn background_and_todo_are_never_done_and_allocate_nothing() {
    let allocations = allocations_of(|| {
        for ctx in [Context::background(), Context::todo(), Context::default()] {
            assert!(!ctx.is_done());
            assert_eq!(
                (ctx.err(), ctx.deadline(), ctx.remaining()),
                (None, None, None)
            );
            assert!(ctx.value::<Id>().is_none());
            assert!(poll_once(pin!(ctx.done())).is_pending());
            assert_eq!(ctx.clone().without_cancel().check(), Ok(()));
        }
    });
    assert_eq!(allocations, 0);
    assert_eq!(Context::background().blocking_wait_timeout(MS), None);
    assert_eq!(Context::background().blocking_sleep(MS), Ok(()));
}

#[test]
fn any_of_is_done_with_the_first_ones_cause_and_has_the_earliest_deadline() {
    let (a, _a_guard) = Context::background().with_value(Id(1)).with_timeout(FAR);
    let (b, b_guard) = Context::background()
        .with_value(Id(2))
        .with_timeout(FAR / 2);
    let either = Context::any_of([&a, &b]);
    assert_eq!(either.deadline(), b.deadline());
    assert_eq!(either.value::<Id>().map(|id| id.0), Some(1));
    assert!(!either.is_done());
    b_guard.cancel_with("b");
    assert_eq!(either.cause().unwrap().to_string(), "b");
    assert_eq!(either.any_of_source(), Some(1));
    assert!(!a.is_done());
    assert!(!Context::any_of([]).is_done());
    assert!(!Context::any_of([&Context::background()]).is_done());
}

#[test]
fn can_be_done() {
    let background = Context::background();
    let (ctx, _guard) = background.with_cancel();
    let (later, _later_guard) = background.with_timeout(FAR);
    let never = [
        Context::todo(),
        background.with_value(Id(1)),
        ctx.without_cancel(),
        Context::any_of([]),
        Context::any_of([&background, &Context::todo()]),
        background,
    ];
    assert!(never.iter().all(|ctx| !ctx.can_be_done() && !ctx.is_done()));
    let once = [
        ctx.with_value(Id(1)),
        later,
        Context::any_of([&never[0], &ctx]),
        CancellationToken::new().context(),
        ctx,
    ];
    assert!(once.iter().all(Context::can_be_done));
}

#[test]
fn values_are_found_by_the_id_of_their_type() {
    let ctx = Context::background().with_value(Id(1)).with_value("text");
    let ctx = ctx.with_value(Id(2));
    let value = ctx.value_by_id(TypeId::of::<Id>()).unwrap();
    assert_eq!(value.downcast_ref::<Id>().map(|id| id.0), Some(2));
    assert!(ctx.value_by_id(TypeId::of::<&str>()).is_some());
    assert!(ctx.value_by_id(TypeId::of::<String>()).is_none());
    assert!(Context::background()
        .value_by_id(TypeId::of::<Id>())
        .is_none());
}

/// Contexts that are never done have their places, too.
#[test]
fn any_of_says_which_context_it_was() {
    let (background, todo) = (Context::background(), Context::todo());
    let (a, _a_guard) = Context::background().with_cancel();
    let (b, b_guard) = Context::background().with_cancel();
    let either = Context::any_of([&background, &a, &todo, &b]);
    assert_eq!(either.any_of_source(), None);
    b_guard.cancel();
    assert_eq!(either.any_of_source(), Some(3));
    assert_eq!(either.with_value(Id(1)).any_of_source(), Some(3));
    assert_eq!(either.child_token().any_of_source(), None);
    assert_eq!(either.without_cancel().any_of_source(), None);
    assert_eq!(background.any_of_source(), None);
    let one = Context::any_of([&background, &b]);
    assert_eq!(one.any_of_source(), Some(1));
    let late = Context::any_of([&background, &a, &either]);
    assert_eq!(late.any_of_source(), Some(2));
    // By a deadline that a source has, and by one of its own.
    let (c, _c_guard) = Context::background().with_timeout(SOON);
    let late = Context::any_of([&a, &c]);
    let (own, _own_guard) = Context::any_of([&a, &todo]).with_timeout(SOON);
    assert_eq!(
        (late.blocking_wait(), own.blocking_wait()),
        (DeadlineExceeded, DeadlineExceeded)
    );
    assert_eq!((late.any_of_source(), own.any_of_source()), (Some(1), None));
}

#[test]
fn any_of_is_done_at_the_earliest_deadline() {
    let (a, _a_guard) = Context::background().with_timeout_cause(FAR, "a");
    let (b, _b_guard) = Context::background().with_timeout_cause(SOON, "b");
    let either = Context::any_of([&a, &b]);
    assert_eq!(either.blocking_wait(), DeadlineExceeded);
    assert_eq!(either.cause().unwrap().to_string(), "b");
    assert!(!a.is_done());
}

// ----- after_func, on_cancel ------------------------------------------------------------------

#[test]
fn after_func_runs_once_off_the_cancelling_thread() {
    let (ctx, guard) = cancellable();
    let (say, hear) = mpsc::channel();
    drop(ctx.after_func(move || say.send(thread::current().id()).unwrap()));
    guard.cancel();
    assert_ne!(hear.recv_timeout(PATIENCE).unwrap(), thread::current().id());
    assert_eq!(
        hear.recv_timeout(PATIENCE),
        Err(RecvTimeoutError::Disconnected)
    );
}

#[test]
fn after_func_runs_at_once_if_already_cancelled() {
    let (ctx, guard) = cancellable();
    guard.cancel();
    let (f, ear) = bell();
    let registration = ctx.after_func(f);
    assert!(hears(&ear));
    assert!(!registration.stop());
}

#[test]
fn cancel_never_waits_for_after_func_and_a_slow_one_delays_no_other() {
    let (ctx, guard) = cancellable();
    let (let_go, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    for _ in 0..20 {
        let blocked = blocked.clone();
        drop(ctx.after_func(move || {
            let _ = blocked.lock().unwrap().recv();
        }));
    }
    let (f, ear) = bell();
    drop(ctx.after_func(f));
    guard.cancel(); // returns although 20 of them never end by themselves
    assert!(hears(&ear));
    drop(let_go);
}

#[test]
fn after_func_callbacks_may_wait_for_one_another() {
    const ALL: usize = 100;
    let (ctx, guard) = cancellable();
    let barrier = Arc::new(Barrier::new(ALL));
    let (say, hear) = mpsc::channel();
    for _ in 0..ALL {
        let (barrier, say) = (barrier.clone(), say.clone());
        drop(ctx.after_func(move || {
            barrier.wait();
            say.send(()).unwrap();
        }));
    }
    guard.cancel();
    (0..ALL).for_each(|_| hear.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn stop_returns_true_exactly_once_only_if_it_kept_f_from_running() {
    for off_thread in [false, true] {
        for _ in 0..300 {
            let (ctx, guard) = cancellable();
            let (f, ear) = bell();
            let registration = if off_thread {
                ctx.after_func(f)
            } else {
                ctx.on_cancel(f)
            };
            let barrier = Barrier::new(2);
            let stopped = thread::scope(|scope| {
                let stop = scope.spawn(|| {
                    barrier.wait();
                    registration.stop()
                });
                barrier.wait();
                guard.cancel();
                stop.join().unwrap()
            });
            assert_eq!(stopped, !hears(&ear), "stopped or run, not both");
        }
    }
}

#[test]
fn stop_and_wait_waits_for_a_running_f_but_not_for_itself() {
    let (ctx, guard) = cancellable();
    let over = Arc::new(AtomicBool::new(false));
    let (f, running) = bell();
    let o = over.clone();
    let registration = ctx.after_func(move || {
        f();
        thread::sleep(SOON);
        o.store(true, SeqCst);
    });
    guard.cancel();
    assert!(hears(&running));
    assert!(!registration.stop_and_wait());
    assert!(over.load(SeqCst));

    let (ctx, guard) = cancellable();
    let (give, take) = mpsc::channel::<Registration>();
    let (say, hear) = mpsc::channel();
    let registration = ctx.after_func(move || {
        let me = take.recv().unwrap();
        say.send(me.stop_and_wait()).unwrap();
    });
    give.send(registration).unwrap();
    guard.cancel();
    assert_eq!(hear.recv_timeout(PATIENCE), Ok(false));
}

#[test]
fn a_third_form_of_stop_is_async() {
    let (ctx, guard) = cancellable();
    let over = Arc::new(AtomicBool::new(false));
    let (f, running) = bell();
    let o = over.clone();
    let registration = ctx.after_func(move || {
        f();
        thread::sleep(SOON);
        o.store(true, SeqCst);
    });
    guard.cancel();
    assert!(hears(&running));
    assert!(!block_on(registration.stop_async()));
    assert!(over.load(SeqCst));
}

#[test]
fn on_cancel_runs_on_the_cancelling_thread_and_a_panic_keeps_no_other_from_running() {
    let (ctx, guard) = cancellable();
    let ran = Arc::new(AtomicUsize::new(0));
    for i in 0..10 {
        let (ran, me) = (ran.clone(), thread::current().id());
        drop(ctx.on_cancel(move || {
            assert_eq!(thread::current().id(), me);
            ran.fetch_add(1, SeqCst);
            if i % 3 == 0 {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
        }));
    }
    let panic = catch_unwind(AssertUnwindSafe(|| guard.cancel()));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(ran.load(SeqCst), 10);
}

#[test]
fn panics_at_a_deadline_keep_no_other_from_running() {
    let (ctx, guard) = Context::background().with_movable_deadline(None);
    for _ in 0..5 {
        drop(ctx.on_cancel(|| std::panic::resume_unwind(Box::new("on purpose"))));
        drop(ctx.after_func(|| std::panic::resume_unwind(Box::new("on purpose"))));
    }
    let (f, ear) = bell();
    drop(ctx.on_cancel(f));
    assert!(guard.set_timeout(SOON));
    assert!(hears(&ear));
    let (next, _guard) = Context::background().with_timeout(MS);
    assert_eq!(block_on(next.done()), DeadlineExceeded);
}

#[test]
fn callbacks_on_a_context_that_is_never_done_are_dropped_unrun() {
    for registration in [false, true] {
        let (f, ear) = bell();
        let kept = Context::background().after_func(f);
        if registration {
            assert!(kept.stop());
        } else {
            drop(kept);
        }
        assert!(never_hears(&ear));
    }
}

// ----- guards and cancellers ------------------------------------------------------------------

#[test]
fn dropping_a_guard_cancels_detach_gives_that_up_a_canceller_does_nothing_on_drop() {
    let (ctx, guard) = cancellable();
    drop(guard.canceller());
    assert!(!ctx.is_done());
    drop(guard);
    assert_eq!(ctx.err(), Some(Cancelled));
    let (ctx, guard) = cancellable();
    let canceller = guard.canceller();
    guard.detach();
    assert!(!ctx.is_done());
    assert!(canceller.clone().cancel());
    assert!(ctx.is_done());
}

#[test]
fn dropping_every_handle_of_a_child_frees_its_place() {
    let (parent, _guard) = cancellable();
    for _ in 0..100 {
        parent.with_timeout(FAR).1.detach();
    }
    let allocations = allocations_of(|| {
        for _ in 0..10_000 {
            parent.with_timeout(FAR).1.detach();
            let (ctx, guard) = parent.with_cancel();
            drop(guard.canceller());
            drop((ctx, guard));
        }
    });
    assert_eq!(allocations, 0);
}

// ----- waiting --------------------------------------------------------------------------------

#[test]
fn run_ends_with_the_future_or_with_the_context() {
    block_on(async {
        let (ctx, _guard) = Context::background().with_timeout(FAR);
        assert_eq!(ctx.run(async { 5 }).await, Ok(5));
        let (ctx, guard) = Context::background().with_timeout(SOON);
        assert_eq!(
            ctx.run(std::future::pending::<()>()).await,
            Err(DeadlineExceeded)
        );
        drop(guard);
        let polled = AtomicBool::new(false);
        let run = ctx.run(async { polled.store(true, SeqCst) }).await;
        assert_eq!((run, polled.load(SeqCst)), (Err(DeadlineExceeded), false));
        assert_eq!(ctx.clone().done_owned().await, DeadlineExceeded);
    });
}

#[test]
fn a_sleep_that_is_ready_stays_ready() {
    use futures::task::noop_waker;
    let (ctx, guard) = Context::background().with_cancel();
    let mut sleep = std::pin::pin!(ctx.sleep(MS));
    assert_eq!(block_on(sleep.as_mut()), Ok(()));
    let waker = noop_waker();
    let mut cx = std::task::Context::from_waker(&waker);
    assert_eq!(sleep.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
    // Whoever looks late sees it.
    guard.cancel();
    let late = Poll::Ready(Err(Cancelled));
    assert_eq!(sleep.as_mut().poll(&mut cx), late);
}

#[test]
fn sleep_ends_early_and_says_why() {
    let (ctx, guard) = cancellable();
    let canceller = guard.canceller();
    let begin = Instant::now();
    let sleeper = thread::spawn(move || ctx.blocking_sleep(FAR));
    thread::sleep(SOON);
    canceller.cancel();
    assert_eq!(sleeper.join().unwrap(), Err(Cancelled));
    assert!(begin.elapsed() < PATIENCE);
    let (ctx, _guard) = Context::background().with_timeout(FAR);
    assert_eq!(ctx.blocking_sleep(MS), Ok(()));
    assert_eq!(block_on(ctx.sleep(MS)), Ok(()));
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    assert_eq!(block_on(ctx.sleep(FAR)), Err(DeadlineExceeded));
    assert_eq!(ctx.blocking_wait_timeout(FAR), Some(DeadlineExceeded));
}

#[test]
fn a_future_polled_after_it_was_ready_stays_ready() {
    let (ctx, guard) = cancellable();
    let mut done = pin!(ctx.done());
    assert!(poll_once(done.as_mut()).is_pending());
    guard.cancel();
    assert_eq!(poll_once(done.as_mut()), Poll::Ready(Cancelled));
    assert_eq!(poll_once(done.as_mut()), Poll::Ready(Cancelled));
}

// ----- bad input ------------------------------------------------------------------------------

#[test]
fn what_the_clock_cannot_express_is_no_deadline_of_its_own() {
    let (ctx, _guard) = Context::background().with_timeout(Duration::MAX);
    assert_eq!((ctx.err(), ctx.deadline()), (None, None));
    let (parent, _parent_guard) = Context::background().with_timeout(FAR);
    let (ctx, _ctx_guard) = parent.with_timeout_cause(Duration::MAX, "late");
    assert_eq!(ctx.deadline(), parent.deadline());
    assert_eq!(ctx.blocking_wait_timeout(MS), None);
    let thread = {
        let (ctx, guard) = cancellable();
        let thread = thread::spawn(move || ctx.blocking_wait_timeout(Duration::MAX));
        drop(guard);
        thread
    };
    assert_eq!(thread.join().unwrap(), Some(Cancelled));
    // The clock can express it, the timer's ticks cannot.
    let far = Duration::from_secs(1 << 40);
    if let Some(deadline) = Instant::now().checked_add(far) {
        let (ctx, _guard) = Context::background().with_deadline(deadline);
        assert_eq!((ctx.err(), ctx.deadline()), (None, Some(deadline)));
    }
}

// ----- how they look ---------------------------------------------------------------------------

#[test]
fn display_shows_the_chain_and_never_a_value() {
    struct Secret(#[allow(dead_code)] &'static str);
    let (ctx, _a) = Context::background().with_cancel();
    let (ctx, _b) = ctx.with_value(Secret("hunter2")).with_timeout(FAR);
    let (ctx, guard) = ctx.without_cancel().with_cancel();
    let text = ctx.to_string();
    assert!(
        text.starts_with("background.with_cancel.with_value("),
        "{text}"
    );
    assert!(text.ends_with(".without_cancel.with_cancel"), "{text}");
    assert!(
        text.contains("Secret") && !text.contains("hunter2"),
        "{text}"
    );
    guard.cancel();
    let debug = format!("{ctx:?}");
    assert!(debug.contains("err: Cancelled") && !debug.contains("hunter2"));
    assert_eq!(Context::todo().to_string(), "todo");
    let (timed, _c) = Context::todo().with_timeout(FAR);
    assert!(
        timed.to_string().starts_with("todo.with_deadline(in 3"),
        "{timed}"
    );
    // Long chains are cut at the far end.
    let mut ctx = timed;
    for _ in 0..100 {
        let guard;
        (ctx, guard) = ctx.with_cancel();
        guard.detach();
    }
    assert!(ctx.to_string().starts_with("…."), "{ctx}");
}

#[test]
fn debug_says_whether_it_is_done_and_why() {
    assert_eq!(
        format!("{:?}", Context::background()),
        "Context { chain: background, is_done: false }"
    );

    let token = CancellationToken::new();
    let ctx = token.context();
    let id = token.id();
    assert_eq!(
        format!("{ctx:?}"),
        format!("Context {{ chain: token, is_done: false, id: {id:?} }}")
    );
    token.cancel_with("enough");
    assert_eq!(
        format!("{ctx:?}"),
        format!("Context {{ chain: token, is_done: true, err: Cancelled, cause: \"enough\", id: {id:?} }}")
    );

    let (late, _a) = Context::background().with_deadline_cause(Instant::now(), "too slow");
    let debug = format!("{late:?}");
    let why = "is_done: true, err: DeadlineExceeded, cause: \"too slow\", remaining: 0ns, id: ";
    assert!(debug.contains(why), "{debug}");

    let (running, _b) = Context::background().with_timeout(FAR);
    let debug = format!("{running:?}");
    assert!(debug.contains("is_done: false, remaining: 3"), "{debug}");
}

#[test]
fn a_token_has_a_context_and_a_context_a_token() {
    let token = CancellationToken::new();
    let ctx = token.context();
    let below = ctx.child_token();
    assert!(!below.is_cancelled());
    token.cancel_with("enough");
    assert_eq!(ctx.cause().unwrap().to_string(), "enough");
    assert_eq!(below.cause().unwrap().to_string(), "enough");
}

// ----- smaller rules of waiting -------------------------------------------------------------------

#[test]
fn sleep_counts_from_the_call() {
    let ctx = Context::background();
    let mut nap = pin!(ctx.sleep(5 * SOON));
    thread::sleep(20 * SOON);
    let mut cx = std::task::Context::from_waker(Waker::noop());
    assert_eq!(nap.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
    let (ctx, guard) = cancellable();
    drop(ctx.sleep(FAR));
    let nap = ctx.sleep(FAR);
    guard.cancel();
    assert_eq!(block_on(nap), Err(Cancelled));
}

/// Pending once; does something then, after which it is ready.
fn ready_after(first: impl FnOnce()) -> impl Future<Output = &'static str> {
    let mut first = Some(first);
    futures::future::poll_fn(move |_| match first.take() {
        None => Poll::Ready("ready"),
        Some(first) => {
            first();
            Poll::Pending
        }
    })
}

#[test]
fn of_a_future_that_became_ready_meanwhile_and_a_cancel_the_future_goes_first() {
    let (ctx, guard) = cancellable();
    let future = ready_after(move || _ = guard.cancel());
    assert_eq!(block_on(ctx.run(future)), Ok("ready"));
    let (ctx, guard) = cancellable();
    let future = async {
        ready_after(move || _ = guard.cancel()).await;
        std::future::pending::<()>().await;
    };
    assert_eq!(block_on(ctx.run(future)), Err(Cancelled));
    let token = CancellationToken::new();
    let run = token.run_until_cancelled(ready_after(|| token.cancel()));
    assert_eq!(block_on(run), Some("ready"));
    // Not one that is cancelled before.
    let run = token.run_until_cancelled(async { "not polled" });
    assert_eq!(block_on(run), None);
}

#[test]
fn a_token_below_a_context_knows_the_deadline_when_it_becomes_a_context_again() {
    let (ctx, _guard) = Context::background().with_timeout(FAR);
    let deadline = ctx.deadline();
    assert!(deadline.is_some());
    let token = ctx.child_token().child_token();
    let again = token.context();
    assert_eq!(again.deadline(), deadline);
    assert_eq!(again.with_timeout(2 * FAR).0.deadline(), deadline);
    // By all ways up, the earliest.
    let (sooner, _guard) = Context::background().with_timeout(FAR / 2);
    let (later, _guard) = Context::background().with_timeout(2 * FAR);
    let tokens = [&later, &sooner, &ctx].map(Context::child_token);
    let either = CancellationToken::any_of(&tokens).child_token();
    assert_eq!(either.context().deadline(), sooner.deadline());
    // Of the nearest and those above, too.
    let (nearer, _guard) = sooner.with_timeout(FAR);
    assert_eq!(nearer.child_token().context().deadline(), sooner.deadline());
    assert_eq!(CancellationToken::new().context().deadline(), None);
    // An earlier occupant's deadline is gone with it.
    let (ctx, guard) = cancellable();
    drop(ctx.with_timeout(FAR));
    assert_eq!(ctx.child_token().context().deadline(), None);
    // Also after the deadline, and after the context is gone.
    let (ctx, passing) = ctx.with_timeout(MS);
    let (deadline, token) = (ctx.deadline(), ctx.child_token());
    ctx.blocking_wait();
    drop((ctx, guard, passing));
    assert_eq!(token.context().deadline(), deadline);
}

#[test]
fn cancelled_owned_is_a_future_without_output() {
    fn serve(shutdown: impl Future<Output = ()> + Send + Sync + 'static) {
        block_on(shutdown);
    }
    let (ctx, guard) = cancellable();
    let server = thread::spawn({
        let ctx = ctx.clone();
        move || serve(ctx.cancelled_owned())
    });
    guard.cancel();
    server.join().unwrap();
    serve(ctx.cancelled_owned());
    let mut never = pin!(Context::background().cancelled_owned());
    let mut cx = std::task::Context::from_waker(Waker::noop());
    assert!(never.as_mut().poll(&mut cx).is_pending());
}

// ----- futures of other kinds of contexts ---------------------------------------------------------

/// A context that is done when a future is ready.
struct When<F>(std::sync::Mutex<Option<F>>);

impl<F> ForeignContext for When<F>
where
    F: Future<Output = Cause> + Send + 'static,
{
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        let future = self.0.lock().unwrap().take().unwrap();
        signal.when_ready(future)
    }
}

fn when<F: Future<Output = Cause> + Send + 'static>(future: F) -> Context {
    Context::below(When(std::sync::Mutex::new(Some(future))))
}

/// A context that gives its signal to a function.
struct Gives<F>(F);

impl<F, T> ForeignContext for Gives<F>
where
    F: Fn(DoneSignal) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        Box::new((self.0)(signal))
    }
}

#[test]
fn a_callback_left_below_a_foreign_context_goes_with_ours_if_nobody_has_the_signal() {
    fn left(ctx: Context) -> Arc<()> {
        let seen = Arc::new(());
        let captured = seen.clone();
        drop(ctx.after_func(move || {
            let _captured = captured;
            unreachable!("nobody says that it is done");
        }));
        assert_eq!(Arc::strong_count(&seen), 2);
        drop(ctx);
        seen
    }
    let given_up = left(Context::below(Gives(drop::<DoneSignal>)));
    assert_eq!(Arc::strong_count(&given_up), 1);
    // What has no waker of it is never woken.
    let forgotten = left(Context::below(Gives(|signal: DoneSignal| {
        signal.when_woken(std::future::pending::<()>())
    })));
    assert_eq!(Arc::strong_count(&forgotten), 1);
    // What has panicked is driven no more.
    let (say_waker, hear_waker) = mpsc::channel();
    let is_there = Arc::new(());
    let there = is_there.clone();
    let ctx = when(async move {
        let _there = there;
        let mut polled = false;
        std::future::poll_fn(|cx| match std::mem::replace(&mut polled, true) {
            false => {
                say_waker.send(cx.waker().clone()).unwrap();
                Poll::<()>::Pending
            }
            true => std::panic::resume_unwind(Box::new("on purpose")),
        })
        .await;
        unreachable!("it has panicked")
    });
    let waker = hear_waker.recv().unwrap();
    waker.wake_by_ref();
    let begin = Instant::now();
    while Arc::strong_count(&is_there) > 1 && begin.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(Arc::strong_count(&left(ctx)), 1);
    drop(waker);
    // Somebody has it still.
    let (say, hear) = mpsc::channel();
    let ctx = Context::below(Gives(move |signal| say.send(signal).unwrap()));
    let (f, ear) = bell();
    drop(ctx.after_func(f));
    drop(ctx);
    hear.recv().unwrap().cancel();
    assert!(hears(&ear));
}

/// The plainest event: wakers in a mutex, woken and dropped with the mutex held.
#[derive(Clone, Default)]
struct Flag(Arc<std::sync::Mutex<(bool, Vec<Waker>)>>);

impl Flag {
    fn wait(&self) -> impl Future<Output = Cause> + Send + 'static {
        /// Takes the lock when it is dropped, as the futures of most events.
        struct Leave(Flag);
        impl Drop for Leave {
            fn drop(&mut self) {
                self.0 .0.lock().unwrap().1.clear();
            }
        }
        let leave = Leave(self.clone());
        futures::future::poll_fn(move |cx| {
            let mut state = leave.0 .0.lock().unwrap();
            if state.0 {
                return Poll::Ready("set".into());
            }
            state.1.push(cx.waker().clone());
            Poll::Pending
        })
    }

    fn set(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        let wakers = std::mem::take(&mut state.1);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[test]
fn a_future_may_be_woken_with_its_lock_held() {
    let flag = Flag::default();
    let ctx = when(flag.wait());
    assert!(!ctx.is_done());
    flag.set();
    assert_eq!(ctx.blocking_wait_timeout(PATIENCE), Some(Cancelled));
    assert_eq!(ctx.cause().unwrap().to_string(), "set");
    assert_eq!(when(flag.wait()).err(), Some(Cancelled), "ready at once");
    // The context goes while it is woken.
    for _ in 0..200 {
        let flag = Flag::default();
        let ctx = when(flag.wait());
        thread::scope(|scope| {
            scope.spawn(|| flag.set());
            drop(ctx);
        });
    }
}

#[test]
fn futures_of_other_crates_that_wake_with_a_lock_held() {
    use futures::FutureExt as _;
    let (send, receive) = futures::channel::oneshot::channel::<()>();
    let ctx = when(receive.shared().map(|_| "shared".into()));
    send.send(()).unwrap();
    assert_eq!(ctx.blocking_wait_timeout(PATIENCE), Some(Cancelled));

    let lock = Arc::new(futures::lock::Mutex::new(()));
    let held = lock.try_lock_owned().unwrap();
    let ctx = when(async move {
        lock.lock().await;
        "locked".into()
    });
    drop(held);
    assert_eq!(ctx.blocking_wait_timeout(PATIENCE), Some(Cancelled));

    let event = event_listener::Event::new();
    let listener = event.listen();
    let ctx = when(async move {
        listener.await;
        "notified".into()
    });
    event.notify(usize::MAX);
    assert_eq!(ctx.blocking_wait_timeout(PATIENCE), Some(Cancelled));
}

#[test]
fn each_wake_up_of_a_future_is_one_poll() {
    let polls = Arc::new(AtomicUsize::new(0));
    let waker = Arc::new(std::sync::Mutex::new(None::<Waker>));
    let (count, leave) = (polls.clone(), waker.clone());
    let ctx = when(futures::future::poll_fn(move |cx| {
        *leave.lock().unwrap() = Some(cx.waker().clone());
        match count.fetch_add(1, SeqCst) {
            0..=2 => Poll::Pending,
            _ => Poll::Ready("ready".into()),
        }
    }));
    for done in 1..=3 {
        assert_eq!(polls.load(SeqCst), done);
        assert!(!ctx.is_done());
        let waker = waker.lock().unwrap().clone().unwrap();
        waker.wake_by_ref();
        let begin = Instant::now();
        while polls.load(SeqCst) == done && begin.elapsed() < PATIENCE {
            thread::sleep(MS);
        }
        thread::sleep(5 * MS);
    }
    assert_eq!(ctx.blocking_wait_timeout(PATIENCE), Some(Cancelled));
    assert_eq!(polls.load(SeqCst), 4);
    waker.lock().unwrap().take().unwrap().wake();
}

#[test]
fn a_future_that_yields_keeps_nobody_from_anything() {
    let set = Arc::new(AtomicBool::new(false));
    let seen = set.clone();
    let ctx = when(futures::future::poll_fn(move |cx| {
        if seen.load(SeqCst) {
            return Poll::Ready("set".into());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
    // Others of the workers' jobs come between.
    let (say, hear) = mpsc::channel();
    let (other, guard) = cancellable();
    drop(other.after_func(move || say.send(()).unwrap()));
    guard.cancel();
    assert_eq!(hear.recv_timeout(PATIENCE), Ok(()));
    assert!(!ctx.is_done());
    set.store(true, SeqCst);
    assert_eq!(ctx.blocking_wait_timeout(PATIENCE), Some(Cancelled));
}

#[test]
fn a_future_that_panics_is_not_polled_again() {
    let flag = Flag::default();
    let (inner, dropped) = (flag.wait(), Arc::new(()));
    let kept = dropped.clone();
    let ctx = when(async move {
        let _kept = kept;
        inner.await;
        panic!("on a worker");
    });
    flag.set();
    let begin = Instant::now();
    while Arc::strong_count(&dropped) > 1 && begin.elapsed() < PATIENCE {
        thread::sleep(MS);
    }
    assert_eq!(Arc::strong_count(&dropped), 1, "dropped");
    assert!(!ctx.is_done());
    let at_once = || when(futures::future::poll_fn(|_| panic!("at once")));
    assert!(catch_unwind(AssertUnwindSafe(at_once)).is_err());
}

#[test]
fn a_future_goes_with_its_context() {
    let flag = Flag::default();
    let (inner, kept) = (flag.wait(), Arc::new(()));
    let same = kept.clone();
    let ctx = when(async move {
        let _same = same;
        inner.await
    });
    let below = ctx.child_token();
    drop(ctx);
    assert_eq!(Arc::strong_count(&kept), 2);
    drop(below);
    assert_eq!(Arc::strong_count(&kept), 1);
    flag.set();
}

/// Whether the cause is that a guard was dropped.
fn by_guard(cause: Option<Cause>) -> bool {
    let cause = cause.expect("cancelled");
    assert_eq!(cause.kind(), Cancelled);
    cause.downcast_ref::<GuardDropped>().is_some()
}

#[test]
fn the_drop_of_a_guard_is_a_cause_of_its_own() {
    let (root, root_guard) = Context::background().with_cancel();
    for parent in [Context::background(), root.clone()] {
        // Nothing below and nobody waiting, a child, a waiter, and a place that was another's before.
        let (ctx, guard) = parent.with_cancel();
        drop(guard);
        assert!(by_guard(ctx.cause()));
        let (late, _guard) = ctx.with_timeout(FAR);
        assert!(by_guard(late.cause()), "born cancelled");
        drop(ctx);

        let (ctx, guard) = parent.with_timeout(FAR);
        let (below, _below) = ctx.with_cancel();
        let either = Context::any_of([&Context::background(), &below]);
        drop(guard);
        assert!(by_guard(ctx.cause()) && by_guard(below.cause()) && by_guard(either.cause()));

        let (ctx, guard) = parent.with_cancel();
        let waits = Box::pin(ctx.clone().done_owned());
        let waiter = thread::spawn(move || block_on(waits));
        drop(guard);
        assert_eq!(waiter.join().unwrap(), Cancelled);
        assert!(by_guard(ctx.cause()));
    }

    // Who cancels says so, and the drop that comes after changes nothing.
    let (ctx, guard) = root.with_cancel();
    guard.cancel();
    drop(guard);
    assert!(!by_guard(ctx.cause()));
    let (ctx, guard) = root.with_cancel();
    guard.cancel_with("enough");
    drop(guard);
    assert_eq!(ctx.cause().unwrap().to_string(), "enough");
    // … and the other way round.
    let (ctx, guard) = root.with_cancel();
    let canceller = guard.canceller();
    drop(guard);
    assert!(!canceller.cancel_with("too late"));
    assert!(by_guard(ctx.cause()));
    // Of a deadline nothing is said by a guard, and below one that is cancelled the cancel decides.
    let (ctx, guard) = root.with_timeout(Duration::ZERO);
    drop(guard);
    assert_eq!(ctx.cause().unwrap(), DeadlineExceeded);
    let (ctx, guard) = root.with_cancel();
    root_guard.cancel();
    drop(guard);
    assert!(!by_guard(ctx.cause()));
}

#[test]
fn a_dropped_guard_handed_back_as_an_error_is_the_same_cause() {
    let boxed: Box<dyn std::error::Error + Send + Sync> = GuardDropped.into();
    for cause in [
        Cause::from(GuardDropped),
        Cause::new(GuardDropped),
        Cause::new(boxed),
    ] {
        assert!(by_guard(Some(cause.clone())));
        assert!(by_guard(Some(Cause::new(cause.clone()))));
        assert_eq!(format!("{cause:?}"), "Cause(GuardDropped)");
        let token = CancellationToken::new();
        token.cancel_with(cause);
        assert!(by_guard(token.cause()));
    }
    let late = Cause::with_kind(DeadlineExceeded, GuardDropped);
    assert!(late.kind() == DeadlineExceeded && late.downcast_ref::<GuardDropped>().is_some());
    let (ctx, _guard) = Context::background().with_deadline_cause(Instant::now(), GuardDropped);
    let cause = ctx.cause().unwrap();
    assert!(cause.kind() == DeadlineExceeded && cause.downcast_ref::<GuardDropped>().is_some());
}

#[test]
fn a_guard_can_be_told_which_cause_its_drop_gives() {
    let (ctx, guard) = Context::background().with_cancel();
    let guard = guard.cause_on_drop("the handler returned");
    assert!(!ctx.is_done());
    drop(guard);
    assert_eq!(ctx.cause().unwrap().to_string(), "the handler returned");

    // It is the guard, and a cancel goes first.
    let (ctx, guard) = Context::background().with_cancel();
    let guard = guard.cause_on_drop("the handler returned");
    assert!(guard.cancel_with("failed"));
    drop(guard);
    assert_eq!(ctx.cause().unwrap().to_string(), "failed");

    // Given back, it does not say so any more; nor does it keep the cause.
    let kept = Arc::new(Failed);
    let (ctx, guard) = Context::background().with_cancel();
    let guard = guard.cause_on_drop(Cause::new(kept.clone())).into_guard();
    assert_eq!(Arc::strong_count(&kept), 1);
    assert!(!ctx.is_done());
    drop(guard);
    assert!(by_guard(ctx.cause()));
}

#[derive(Debug)]
struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Failed {}

#[test]
fn a_context_with_its_guard_lives_as_long_as_both() {
    fn made(parent: &Context) -> GuardedContext {
        parent.with_value(7_u8).with_timeout(FAR).into()
    }
    let ctx = made(&Context::background());
    assert_eq!((ctx.value::<u8>(), ctx.err()), (Some(&7), None));
    let (seen, below) = (ctx.clone(), ctx.child_token());
    drop(ctx);
    assert!(by_guard(seen.cause()) && below.is_cancelled());

    let ctx = made(&Context::background());
    assert!(ctx.guard().cancel_with("enough"));
    assert_eq!(ctx.check_cause().unwrap_err().to_string(), "enough");

    let (ctx, guard) = made(&Context::background()).split();
    assert!(!ctx.is_done());
    guard.detach();
    assert!(!ctx.is_done());
}

#[test]
fn run_and_check_can_answer_with_the_cause() {
    let (ctx, guard) = Context::background().with_cancel();
    assert_eq!(block_on(ctx.run_or_cause(async { 7 })).unwrap(), 7);
    assert!(ctx.check_cause().is_ok());
    guard.cancel_with("enough");
    let never = std::future::pending::<()>();
    let cause = block_on(ctx.run_or_cause(never)).unwrap_err();
    assert_eq!(cause.to_string(), "enough");
    assert_eq!(ctx.check_cause().unwrap_err().to_string(), "enough");

    let (ctx, _guard) = Context::background().with_timeout(MS);
    let cause = block_on(ctx.run_or_cause(std::future::pending::<()>())).unwrap_err();
    assert_eq!(cause, DeadlineExceeded);
}

#[test]
fn a_thread_waits_until_an_instant() {
    let soon = || Instant::now() + MS;
    assert_eq!(Context::background().blocking_wait_deadline(soon()), None);
    let (ctx, guard) = Context::background().with_timeout(FAR);
    assert_eq!(ctx.blocking_wait_deadline(soon()), None);
    let (late, _guard) = ctx.with_timeout(MS);
    let limit = Instant::now() + FAR;
    assert_eq!(late.blocking_wait_deadline(limit), Some(DeadlineExceeded));
    guard.cancel();
    assert_eq!(ctx.blocking_wait_deadline(limit), Some(Cancelled));
}

#[test]
fn a_callback_can_be_handed_the_cause() {
    let (say, hear) = mpsc::channel();
    let tell = |name: &'static str| {
        let say = say.clone();
        move |cause: Cause| say.send((name, cause)).unwrap()
    };
    let heard = || hear.recv_timeout(PATIENCE).unwrap();

    // On the thread that cancels and on a worker, from above, from an any_of's source, and of a token.
    let (ctx, guard) = Context::background().with_cancel();
    let (below, _below) = ctx.with_cancel();
    let either = Context::any_of([&Context::background(), &below]);
    drop(ctx.on_cancel_with(tell("here")));
    drop(below.after_func_with(tell("off")));
    drop(either.on_cancel_with(tell("either")));
    drop(either.child_token().on_cancel_with(tell("token")));
    let stopped = below.on_cancel_with(tell("stopped"));
    assert!(stopped.stop());
    guard.cancel_with("enough");
    let mut names = Vec::new();
    for _ in 0..4 {
        let (name, cause) = heard();
        assert_eq!(cause.to_string(), "enough");
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["either", "here", "off", "token"]);

    // At once if it is cancelled already.
    drop(below.on_cancel_with(tell("at once")));
    assert_eq!(heard().1.to_string(), "enough");
    drop(below.after_func_with(tell("at once")));
    assert_eq!(heard().1.to_string(), "enough");

    // A deadline, and a guard.
    let (ctx, _guard) = Context::background().with_timeout_cause(MS, "too slow");
    drop(ctx.on_cancel_with(tell("deadline")));
    let (_, cause) = heard();
    assert_eq!(
        (cause.kind(), &*cause.to_string()),
        (DeadlineExceeded, "too slow")
    );
    let (ctx, guard) = Context::background().with_cancel();
    drop(ctx.after_func_with(tell("guard")));
    drop(guard);
    assert!(by_guard(Some(heard().1)));

    // Never cancelled, never run; and it keeps nothing alive.
    let kept = Arc::new(());
    let (ctx, guard) = Context::background().with_cancel();
    let inner = kept.clone();
    drop(ctx.on_cancel_with(move |_| drop(inner)));
    guard.detach();
    drop(ctx);
    assert_eq!(Arc::strong_count(&kept), 1);
    let inner = kept.clone();
    drop(Context::background().on_cancel_with(move |_| drop(inner)));
    assert_eq!(Arc::strong_count(&kept), 1);
    assert!(hear.try_recv().is_err());
}

#[test]
fn the_drop_of_a_guard_is_the_cause_also_through_any_of() {
    for which in 0..3 {
        let sources = [(); 3].map(|()| Context::background().with_cancel());
        let any = Context::any_of(sources.iter().map(|source| &source.0));
        let below = any.child_token();
        let mut guards = Vec::from_iter(sources.into_iter().map(|source| Some(source.1)));
        drop(guards[which].take());
        assert_eq!(any.any_of_source(), Some(which));
        for cause in [any.cause().unwrap(), below.cause().unwrap()] {
            assert!(cause.downcast_ref::<GuardDropped>().is_some(), "{cause:?}");
            assert_eq!(cause.kind(), Cancelled);
        }
        let late = Context::any_of([&Context::background(), &any]);
        assert_eq!(late.any_of_source(), Some(1));
        assert!(late
            .cause()
            .unwrap()
            .downcast_ref::<GuardDropped>()
            .is_some());
    }
}

#[test]
fn what_a_token_of_any_of_leaves_behind_says_nothing_of_the_next_context() {
    for born in [true, false] {
        for _ in 0..100 {
            let (one, other) = (
                Context::background().with_cancel(),
                Context::background().with_cancel(),
            );
            if born {
                other.1.cancel();
            }
            drop(Context::any_of([&one.0, &other.0]));
            drop(Context::any_of([&one.0]));
        }
        let made = Vec::from_iter((0..300).map(|_| {
            let (ctx, guard) = Context::background().with_timeout(Duration::from_secs(3600));
            guard.cancel();
            ctx
        }));
        assert!(made
            .iter()
            .all(|ctx| ctx.is_done() && ctx.any_of_source().is_none()));
        let (root, guard) = Context::background().with_cancel();
        let made = Vec::from_iter((0..300).map(|_| {
            let (ctx, guard) = root.with_timeout(Duration::from_secs(3600));
            guard.detach();
            ctx
        }));
        guard.cancel();
        assert!(made
            .iter()
            .all(|ctx| ctx.is_done() && ctx.any_of_source().is_none()));
    }
}
