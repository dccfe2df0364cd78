//! The clock that tests advance, rule by rule.

use cancel_tree::{
    CancelGuard, CancellationToken, Context, ContextError, GraceOver, Group, IdleTimeout, TestClock,
};
use futures::executor::block_on;
use futures::task::noop_waker;
use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{mpsc, Arc, Mutex};
use std::task;
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Option<ContextError> = Some(ContextError::DeadlineExceeded);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// For what has to come on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn under() -> (TestClock, Context) {
    let clock = TestClock::new();
    let ctx = Context::background().with_clock(&clock);
    (clock, ctx)
}

/// A context that is done after so long, and nobody can cancel.
fn after(ctx: &Context, timeout: Duration) -> Context {
    let (ctx, guard) = ctx.with_timeout(timeout);
    guard.detach();
    ctx
}

/// What has happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn say(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn on_cancel(&self, ctx: &Context, what: &str) {
        let (log, what) = (self.clone(), what.to_string());
        drop(ctx.on_cancel(move || log.say(what)));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn is_ready(future: impl Future) -> bool {
    let waker = noop_waker();
    pin!(future)
        .poll(&mut task::Context::from_waker(&waker))
        .is_ready()
}

// ----- when -----------------------------------------------------------------------------------

#[test]
fn a_deadline_is_met_to_the_nanosecond() {
    let (clock, root) = under();
    for nanos in [1, 63, 64, 65, 1_000, 131_071, 131_072, 1_000_000_007] {
        let ctx = after(&root, Duration::from_nanos(nanos));
        clock.advance(Duration::from_nanos(nanos - 1));
        assert!(!ctx.is_done(), "{nanos} ns");
        assert_eq!(ctx.remaining(), Some(Duration::from_nanos(1)));
        clock.advance(Duration::from_nanos(1));
        assert_eq!(ctx.err(), DEADLINE, "{nanos} ns");
        assert_eq!(ctx.remaining(), Some(Duration::ZERO));
    }
}

#[test]
fn the_time_stands_until_it_is_advanced() {
    let (clock, root) = under();
    let begin = clock.now();
    let ctx = after(&root, Duration::from_millis(1));
    thread::sleep(Duration::from_millis(20));
    assert_eq!((clock.now(), root.now(), ctx.now()), (begin, begin, begin));
    assert!(!ctx.is_done());
    clock.advance(3 * HOUR);
    assert_eq!(clock.now(), begin + 3 * HOUR);
    assert_eq!(root.now(), clock.now());
}

#[test]
fn a_deadline_that_has_passed_is_done_at_birth() {
    let (clock, root) = under();
    for ctx in [
        after(&root, Duration::ZERO),
        root.with_deadline(clock.now()).0,
        after(&after(&root, HOUR), Duration::ZERO),
    ] {
        assert!(ctx.is_done());
    }
    let (ctx, _guard) = root.with_deadline_cause(clock.now(), "too late");
    assert_eq!(ctx.cause().unwrap().to_string(), "too late");
    assert_eq!(ctx.err(), DEADLINE);
    assert!(ctx.is_own_deadline());
    assert_eq!(clock.deadlines(), 0);
}

#[test]
fn what_cannot_be_expressed_is_no_deadline() {
    let (clock, root) = under();
    let ctx = after(&root, Duration::MAX);
    assert_eq!(ctx.deadline(), None);
    clock.advance(HOUR);
    clock.advance(Duration::MAX);
    clock.advance(Duration::MAX);
    assert!(!ctx.is_done());
    assert!(clock.now() > Instant::now() + 1000 * HOUR);
}

#[test]
fn an_hour_takes_no_time_and_is_the_same_a_thousand_times() {
    fn run() -> (Vec<String>, Duration) {
        let (clock, root) = under();
        let (begin, log) = (clock.now(), Log::default());
        let mut keep = Vec::new();
        for i in 0..20_u64 {
            let (ctx, guard) = root.with_timeout(Duration::from_secs(i * 7 % 11 * 300));
            log.on_cancel(&ctx, &format!("{i}"));
            let (again, above) = (log.clone(), root.clone());
            let at = clock.clone();
            drop(ctx.on_cancel(move || {
                let next = after(&above, SECOND * (i as u32 % 3 + 1));
                let seen = at.clone();
                drop(next.on_cancel(move || {
                    again.say(format!("{i} at {:?}", seen.now() - begin));
                }));
            }));
            keep.push((ctx, guard));
        }
        clock.advance(HOUR);
        (log.take(), clock.now() - begin)
    }
    let first = run();
    assert_eq!(first.1, HOUR);
    // Those of 0 s are done at birth, and their callbacks run there.
    assert_eq!(first.0.len(), 40);
    for _ in 0..1000 {
        assert_eq!(run(), first);
    }
}

// ----- in which order ---------------------------------------------------------------------------

#[test]
fn earlier_deadlines_are_first_and_equal_ones_as_they_were_set() {
    let (clock, root) = under();
    let log = Log::default();
    for (name, secs) in [("c", 3), ("a", 1), ("b1", 2), ("d", 3), ("b2", 2)] {
        log.on_cancel(&after(&root, Duration::from_secs(secs)), name);
    }
    clock.advance(HOUR);
    assert_eq!(log.take(), ["a", "b1", "b2", "c", "d"]);
}

#[test]
fn a_deadline_that_is_moved_is_set_anew() {
    let (clock, root) = under();
    let log = Log::default();
    let at = clock.now() + SECOND;
    let (one, first) = root.with_movable_deadline(at);
    let (two, second) = root.with_movable_deadline(at);
    log.on_cancel(&one, "one");
    log.on_cancel(&two, "two");
    assert!(first.set(at));
    clock.advance(SECOND);
    assert_eq!(log.take(), ["two", "one"]);
    drop((first, second));
}

#[test]
fn at_one_instant_all_is_marked_then_tasks_then_callbacks() {
    struct Say(Log, Context);
    impl task::Wake for Say {
        fn wake(self: Arc<Say>) {
            self.0
                .say(format!("woken, the other is done: {}", self.1.is_done()));
        }
    }
    let (clock, root) = under();
    let log = Log::default();
    let (one, two) = (after(&root, SECOND), after(&root, SECOND));
    let third = after(&root, 2 * SECOND);
    log.on_cancel(&one, "called");
    let waker = task::Waker::from(Arc::new(Say(log.clone(), two.clone())));
    let mut done = pin!(one.done());
    assert!(done
        .as_mut()
        .poll(&mut task::Context::from_waker(&waker))
        .is_pending());
    let waker = task::Waker::from(Arc::new(Say(log.clone(), one.clone())));
    let mut done = pin!(two.done());
    assert!(done
        .as_mut()
        .poll(&mut task::Context::from_waker(&waker))
        .is_pending());
    let later = log.clone();
    drop(third.on_cancel(move || later.say("later")));
    clock.advance(HOUR);
    let woken = "woken, the other is done: true";
    assert_eq!(log.take(), [woken, woken, "called", "later"]);
}

#[test]
fn a_callback_runs_at_its_deadlines_time_on_the_thread_that_advances() {
    let (clock, root) = under();
    let begin = clock.now();
    let (say, hear) = mpsc::channel();
    for secs in [5, 2] {
        let (clock, say) = (clock.clone(), say.clone());
        drop(after(&root, secs * SECOND).on_cancel(move || {
            say.send((clock.now() - begin, thread::current().id()))
                .unwrap();
        }));
    }
    clock.advance(HOUR);
    let here = thread::current().id();
    assert_eq!(hear.try_recv(), Ok((2 * SECOND, here)));
    assert_eq!(hear.try_recv(), Ok((5 * SECOND, here)));
}

#[test]
fn a_callback_sets_a_deadline_that_is_met_on_the_way() {
    let (clock, root) = under();
    let log = Log::default();
    let (above, said) = (root.clone(), log.clone());
    drop(after(&root, SECOND).on_cancel(move || {
        said.on_cancel(&after(&above, SECOND), "at two");
        said.on_cancel(&after(&above, HOUR), "at an hour and one second");
    }));
    clock.advance(2 * SECOND);
    assert_eq!(log.take(), ["at two"]);
    clock.advance(HOUR - SECOND);
    assert_eq!(log.take(), ["at an hour and one second"]);
}

#[test]
fn what_a_callback_advances_comes_on_top() {
    let (clock, root) = under();
    let begin = clock.now();
    let log = Log::default();
    let (inner, said) = (clock.clone(), log.clone());
    drop(after(&root, SECOND).on_cancel(move || {
        inner.advance(SECOND);
        said.say(format!("{:?}", inner.now() - begin));
    }));
    log.on_cancel(&after(&root, 2 * SECOND), "two");
    clock.advance(3 * SECOND);
    assert_eq!(log.take(), ["two", "2s"]);
    assert_eq!(clock.now(), begin + 4 * SECOND);
}

#[test]
fn threads_that_advance_at_once_add_up() {
    let (clock, root) = under();
    let begin = clock.now();
    let met = Arc::new(AtomicUsize::new(0));
    for ms in 1..=400 {
        let met = met.clone();
        drop(after(&root, Duration::from_millis(ms)).on_cancel(move || {
            met.fetch_add(1, Relaxed);
        }));
    }
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let at_least = clock.now() + Duration::from_millis(1);
                    clock.advance(Duration::from_millis(1));
                    assert!(clock.now() >= at_least);
                }
            });
        }
    });
    assert_eq!(clock.now(), begin + Duration::from_millis(400));
    assert_eq!(met.load(Relaxed), 400);
}

#[test]
fn deadlines_that_are_set_while_the_time_moves_are_all_met() {
    let (clock, root) = under();
    let made = thread::scope(|scope| {
        let makers: Vec<_> = (0..3)
            .map(|i| {
                let root = &root;
                scope.spawn(move || {
                    (0..500)
                        .map(|n| after(root, Duration::from_nanos(n * 3 + i)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for _ in 0..2000 {
            clock.advance(Duration::from_nanos(1));
        }
        makers
            .into_iter()
            .flat_map(|m| m.join().unwrap())
            .collect::<Vec<_>>()
    });
    for ctx in &made {
        assert_eq!(ctx.is_done(), ctx.deadline().unwrap() <= clock.now());
    }
    clock.advance(SECOND);
    assert!(made.iter().all(Context::is_done));
}

#[test]
fn a_panic_keeps_no_other_and_reaches_who_advances() {
    let (clock, root) = under();
    let begin = clock.now();
    let log = Log::default();
    drop(after(&root, SECOND).on_cancel(|| panic!("of the callback")));
    log.on_cancel(&after(&root, SECOND), "beside");
    log.on_cancel(&after(&root, 2 * SECOND), "later");
    let caught = catch_unwind(AssertUnwindSafe(|| clock.advance(HOUR))).unwrap_err();
    assert_eq!(caught.downcast_ref(), Some(&"of the callback"));
    assert_eq!(log.take(), ["beside", "later"]);
    assert_eq!(clock.now(), begin + HOUR);
}

#[test]
fn after_func_runs_on_a_worker() {
    let (clock, root) = under();
    let (say, hear) = mpsc::channel();
    drop(after(&root, SECOND).after_func(move || say.send(thread::current().id()).unwrap()));
    clock.advance(SECOND);
    assert_ne!(hear.recv_timeout(PATIENCE).unwrap(), thread::current().id());
}

// ----- who is under it ----------------------------------------------------------------------------

/// Whether its deadlines are the clock's.
fn is_under(ctx: &Context, clock: &TestClock) -> bool {
    let begin = clock.now();
    let (ctx, _guard) = ctx.with_timeout(HOUR);
    let says = ctx.deadline() == Some(begin + HOUR) && ctx.remaining() == Some(HOUR);
    clock.advance(HOUR);
    assert_eq!(says, ctx.is_done());
    says
}

#[test]
fn everything_derived_is_under_it() {
    let (clock, root) = under();
    assert!(!is_under(&Context::background(), &clock));
    let (cancellable, _guard) = root.with_cancel();
    let (timed, _guard) = root.with_timeout(1000 * HOUR);
    let (other, _guard) = Context::background().with_cancel();
    let (movable, _guard) = root.with_movable_deadline(None);
    let (idle, _guard) = root.with_idle_timeout(1000 * HOUR);
    let group = Group::new(&root);
    let below_graced = root.with_grace(SECOND).child_token();
    for (i, ctx) in [
        root.clone(),
        root.with_value(7),
        root.with_value(7).with_value("eight"),
        root.without_cancel(),
        cancellable.without_cancel(),
        cancellable.with_value(7).with_cancel().0.without_cancel(),
        timed.clone(),
        movable.clone(),
        idle.clone(),
        root.with_grace(SECOND),
        root.with_grace(SECOND).shield(),
        root.child_token().context(),
        cancellable.child_token().context(),
        timed.child_token().child_token().context(),
        root.child_token().child_token().context().with_cancel().0,
        movable.child_token().context(),
        cancellable
            .with_grace(SECOND)
            .shield()
            .child_token()
            .context(),
        below_graced.context(),
        Context::any_of([&root, &other]),
        Context::any_of([&other, &cancellable]),
        Context::any_of([&other, &cancellable])
            .child_token()
            .context(),
        CancellationToken::any_of([&other.child_token(), &root.child_token()]).context(),
        group.context().clone(),
        group.child("inner").context().without_cancel(),
        other.with_clock(&clock),
        other.with_clock(&clock).child_token().context(),
        root.with_clock(&clock),
    ]
    .iter()
    .enumerate()
    {
        assert!(is_under(ctx, &clock), "{i}: {ctx}");
    }
    assert!(!is_under(&other, &clock));
    assert!(!is_under(&Context::any_of([&other]), &clock));
}

#[test]
fn the_nearest_clock_counts() {
    let (outer, root) = under();
    let inner = TestClock::new();
    let (timed, _guard) = root.with_timeout(HOUR);
    let (ctx, _guard) = timed.with_clock(&inner).with_timeout(2 * HOUR);
    assert!(is_under(
        &ctx.child_token().context().without_cancel(),
        &inner
    ));
    assert_eq!(ctx.child_token().context().remaining(), Some(HOUR));
    assert!(!ctx.is_done());
    outer.advance(HOUR);
    // What was set above is of the other clock, and ends it as ever.
    assert!(ctx.is_done() && timed.is_done());
}

#[test]
fn a_deadline_from_above_is_of_its_own_clock() {
    let (real, guard) = Context::background().with_movable_deadline(None);
    guard.set_timeout(HOUR);
    let clock = TestClock::new();
    let ctx = real.with_clock(&clock);
    assert_eq!(ctx.deadline(), None);
    let (ctx, _guard) = ctx.with_timeout(HOUR);
    assert_eq!(ctx.remaining(), Some(HOUR));
    assert_eq!(ctx.child_token().context().remaining(), Some(HOUR));
    // The real time passes, and the clock stands.
    guard.set_timeout(Duration::from_millis(5));
    assert_eq!(ctx.blocking_wait(), ContextError::DeadlineExceeded);
    assert!(!ctx.is_own_deadline() && real.is_own_deadline());
    assert_eq!(ctx.remaining(), Some(HOUR));
}

#[test]
fn any_of_both_is_done_by_either() {
    let (clock, root) = under();
    let (long, _guard) = Context::background().with_timeout(HOUR);
    let (short, _guard) = Context::background().with_timeout(Duration::from_millis(10));
    let tested = after(&root, SECOND);
    let by_clock = Context::any_of([&long, &tested]);
    assert_eq!(by_clock.remaining(), Some(SECOND));
    let by_time = Context::any_of([&tested, &short]);
    assert_eq!(by_time.blocking_wait(), ContextError::DeadlineExceeded);
    assert_eq!(by_time.any_of_source(), Some(1));
    assert!(!by_clock.is_done());
    clock.advance(SECOND);
    assert_eq!(by_clock.any_of_source(), Some(1));
}

#[test]
fn contexts_beside_it_are_as_ever() {
    let (_clock, root) = under();
    let tested = after(&root, Duration::from_millis(1));
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(5));
    assert_eq!(block_on(ctx.done()), ContextError::DeadlineExceeded);
    assert!(!tested.is_done());
}

#[test]
fn parents_and_causes_are_as_ever() {
    let (clock, root) = under();
    let (outer, _guard) = root.with_timeout_cause(SECOND, "the request");
    let (later, _guard) = outer.with_timeout_cause(HOUR, "the step");
    let (cancelled, guard) = outer.with_timeout(SECOND / 2);
    guard.cancel_with("by hand");
    assert_eq!(later.deadline(), outer.deadline());
    clock.advance(SECOND);
    assert_eq!(later.cause().unwrap().to_string(), "the request");
    assert_eq!(cancelled.cause().unwrap().to_string(), "by hand");
    assert_eq!(cancelled.err(), Some(ContextError::Cancelled));
    assert!(outer.is_own_deadline() && !later.is_own_deadline());
}

#[test]
fn it_shows_in_the_chain() {
    let (_clock, root) = under();
    assert_eq!(root.to_string(), "background.with_clock");
    let ctx = after(&root, 90 * SECOND).with_value(7);
    assert_eq!(
        ctx.to_string(),
        "background.with_clock.with_deadline(in 90.0s).with_value(i32)"
    );
    assert_eq!(root.child_token().context().to_string(), "token.with_clock");
    assert!(!root.can_be_done() && ctx.can_be_done());
}

// ----- waiting --------------------------------------------------------------------------------------

#[test]
fn tasks_sleep_by_it() {
    let (clock, root) = under();
    let limited = after(&root, 2 * SECOND);
    let (mut short, mut long) = (Box::pin(root.sleep(SECOND)), Box::pin(limited.sleep(HOUR)));
    assert!(!is_ready(&mut short) && !is_ready(&mut long));
    clock.advance(SECOND);
    assert!(is_ready(&mut short) && !is_ready(&mut long));
    clock.advance(SECOND);
    assert_eq!(block_on(long), Err(ContextError::DeadlineExceeded));
}

/// Runs it on a thread that waits, advances by so much, and gives its answer. Once there are so many deadlines it waits.
fn waited<T: Send + 'static>(
    clock: &TestClock,
    deadlines: usize,
    by: Duration,
    wait: impl FnOnce() -> T + Send + 'static,
) -> T {
    let thread = thread::spawn(wait);
    clock.blocking_wait_for_deadlines(deadlines);
    clock.advance(by - Duration::from_nanos(1));
    thread::sleep(Duration::from_millis(2));
    assert!(!thread.is_finished(), "too early");
    clock.advance(Duration::from_nanos(1));
    thread.join().unwrap()
}

#[test]
fn threads_sleep_by_it() {
    let (clock, root) = under();
    let ctx = root.clone();
    assert_eq!(
        waited(&clock, 1, HOUR, move || ctx.blocking_sleep(HOUR)),
        Ok(())
    );
    let (ctx, _guard) = root.with_cancel();
    let at = ctx.now() + HOUR;
    assert_eq!(
        waited(&clock, 1, HOUR, move || ctx.blocking_wait_deadline(at)),
        None
    );
    let ctx = after(&root, SECOND);
    assert_eq!(
        waited(&clock, 1, SECOND, move || ctx.blocking_sleep(HOUR)),
        Err(ContextError::DeadlineExceeded)
    );
    let ctx = after(&root, HOUR);
    assert_eq!(
        waited(&clock, 1, HOUR, move || ctx.blocking_wait()),
        ContextError::DeadlineExceeded
    );
    let ctx = after(&root, HOUR);
    assert_eq!(
        waited(&clock, 1, HOUR, move || ctx
            .block_on(std::future::pending::<()>())),
        Err(ContextError::DeadlineExceeded)
    );
    let (ctx, guard) = root.with_movable_deadline(clock.now() + SECOND);
    let other = ctx.clone();
    assert_eq!(
        waited(&clock, 1, SECOND, move || other.blocking_wait_timeout(HOUR)),
        DEADLINE
    );
    drop(guard);
    assert_eq!(clock.deadlines(), 0);
}

#[test]
fn threads_that_have_a_token_wait_by_it() {
    let (clock, root) = under();
    let token = root.child_token();
    let at = clock.now() + HOUR;
    assert!(!token.blocking_wait_deadline(clock.now()));
    let waits = token.clone();
    assert!(!waited(&clock, 1, HOUR, move || waits.blocking_wait_deadline(at)));
    let waits = token.child_token();
    assert!(!waited(&clock, 1, HOUR, move || waits.blocking_wait_timeout(HOUR)));
    let (timed, _guard) = root.with_timeout(SECOND);
    let waits = timed.child_token();
    assert!(waited(&clock, 1, SECOND, move || waits.blocking_wait_timeout(HOUR)));
    token.cancel();
    assert!(token.blocking_wait_timeout(HOUR) && token.blocking_wait_deadline(at));
}

#[test]
fn a_cancel_ends_a_threads_sleep() {
    let (clock, root) = under();
    let (ctx, guard) = root.with_cancel();
    let thread = thread::spawn(move || ctx.blocking_sleep(HOUR));
    clock.blocking_wait_for_deadlines(1);
    guard.cancel();
    assert_eq!(thread.join().unwrap(), Err(ContextError::Cancelled));
    assert_eq!(clock.deadlines(), 0);
}

#[test]
fn a_future_is_run_from_one_deadline_to_the_next() {
    let (clock, root) = under();
    let begin = clock.now();
    let log = Log::default();
    let worker = async {
        let ctx = after(&root, HOUR);
        while ctx.sleep(25 * 60 * SECOND).await.is_ok() {
            log.say(format!("{:?}", clock.now() - begin));
        }
        "over"
    };
    let other = async {
        root.sleep(1600 * SECOND).await.unwrap();
        log.say("other");
    };
    assert_eq!(
        clock.block_on(async { futures::join!(worker, other).0 }),
        "over"
    );
    assert_eq!(log.take(), ["1500s", "other", "3000s"]);
    assert_eq!(clock.now(), begin + HOUR);
}

#[test]
fn a_future_that_yields_is_polled_before_the_time_goes_on() {
    let (clock, root) = under();
    let begin = clock.now();
    let _ctx = after(&root, SECOND);
    clock.block_on(async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let mut polls = 0;
        std::future::poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            match polls {
                10 => task::Poll::Ready(()),
                _ => task::Poll::Pending,
            }
        })
        .await;
    });
    assert_eq!(clock.now(), begin);
}

#[test]
fn a_future_that_waits_for_others_is_waited_for() {
    let (clock, root) = under();
    let (say, hear) = futures::channel::oneshot::channel();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        say.send(7).unwrap();
    });
    // No deadline is there: so the thread sleeps.
    assert_eq!(clock.block_on(hear), Ok(7));
    assert!(!root.is_done());
    thread.join().unwrap();
}

// ----- deadlines that move --------------------------------------------------------------------------

#[test]
fn a_deadline_is_set_extended_and_taken_away() {
    let (clock, root) = under();
    let (ctx, guard) = root.with_movable_deadline(clock.now() + SECOND);
    let (step, _guard) = ctx.with_timeout(HOUR);
    assert_eq!(step.remaining(), Some(SECOND));
    assert!(guard.extend(SECOND));
    clock.advance(SECOND);
    assert!(!ctx.is_done());
    assert_eq!(ctx.child_token().context().remaining(), Some(SECOND));
    assert!(guard.take_away());
    assert_eq!(step.remaining(), Some(HOUR - SECOND));
    clock.advance(10 * SECOND);
    assert!(!ctx.is_done());
    assert!(guard.set_timeout(SECOND));
    assert_eq!(step.remaining(), Some(SECOND));
    clock.advance(SECOND);
    assert_eq!((ctx.err(), step.err()), (DEADLINE, DEADLINE));
    assert!(ctx.is_own_deadline());
    assert!(!guard.extend(SECOND) && !guard.take_away());
    assert!(!guard.set(clock.now() + HOUR));
    assert_eq!(clock.deadlines(), 0);
}

#[test]
fn an_earlier_one_counts_and_one_that_is_past_is_met_at_once() {
    let (clock, root) = under();
    let (ctx, guard) = root.with_movable_deadline(clock.now() + HOUR);
    assert!(guard.set_timeout(SECOND));
    assert_eq!(clock.next_deadline(), Some(clock.now() + SECOND));
    let log = Log::default();
    log.on_cancel(&ctx, "called");
    assert!(guard.set(clock.now()));
    assert_eq!(
        (ctx.err(), log.take()),
        (DEADLINE, vec!["called".to_string()])
    );
    let (ctx, guard) = root.with_movable_deadline(None);
    assert!(guard.set_timeout(Duration::ZERO));
    assert_eq!(ctx.err(), DEADLINE);
}

#[test]
fn an_idle_timeout_counts_from_the_last_touch() {
    let (clock, root) = under();
    let (ctx, guard) = root.with_idle_timeout(30 * SECOND);
    for _ in 0..10 {
        clock.advance(20 * SECOND);
        guard.touch();
        assert_eq!(ctx.remaining(), Some(30 * SECOND));
    }
    assert_eq!(clock.next_deadline(), ctx.deadline());
    clock.advance(30 * SECOND - Duration::from_nanos(1));
    assert!(!ctx.is_done());
    clock.advance(Duration::from_nanos(1));
    assert_eq!(ctx.err(), DEADLINE);
    assert!(ctx.cause().unwrap().downcast_ref::<IdleTimeout>().is_some());
    let (ctx, guard) = root.with_idle_timeout(SECOND);
    guard.touch_at(clock.now() + HOUR);
    assert_eq!(clock.advance_to_next(), Some(HOUR + SECOND));
    assert!(ctx.is_done());
}

// ----- graces, groups -------------------------------------------------------------------------------

#[test]
fn a_grace_counts_from_the_soft_cancel() {
    let (clock, root) = under();
    let (server, shutdown) = root.with_cancel();
    let request = after(&server.with_grace(5 * SECOND), HOUR);
    let early = request.shield();
    clock.advance(SECOND);
    shutdown.cancel_with("shutting down");
    assert!(request.is_done() && !early.is_done());
    let late = request.shield();
    assert_eq!(
        (early.remaining(), late.remaining()),
        (Some(5 * SECOND), Some(5 * SECOND))
    );
    clock.advance(5 * SECOND - Duration::from_nanos(1));
    assert!(!early.is_done() && !late.is_done());
    clock.advance(Duration::from_nanos(1));
    for shield in [early, late] {
        let cause = shield.cause().unwrap();
        let over = cause.downcast_ref::<GraceOver>().unwrap();
        assert_eq!(over.first().to_string(), "shutting down");
    }
}

#[test]
fn a_deadline_starts_a_grace() {
    let (clock, root) = under();
    let ctx = after(&root, SECOND).with_grace(SECOND);
    let shield = ctx.shield();
    clock.advance(SECOND + SECOND / 2);
    assert!(ctx.is_done() && !shield.is_done());
    assert_eq!(shield.remaining(), Some(SECOND / 2));
    clock.advance(SECOND / 2);
    assert!(shield.is_done());
    // All of it at one go, and no grace at all.
    let shield = after(&root, SECOND).with_grace(SECOND).shield();
    let none = after(&root, SECOND).with_grace(Duration::ZERO).shield();
    clock.advance(SECOND);
    assert!(none.is_done() && !shield.is_done());
    clock.advance(HOUR);
    assert!(shield.is_done());
}

/// Each grace names the cause that its own context has: that of the nearest token above which was cancelled itself.
#[test]
fn graces_one_in_another_name_the_cause_of_what_was_cancelled() {
    const LEVELS: u32 = 6;
    for (waiters, is_own) in [(0, false), (0, true), (1, true), (20, false), (20, true)] {
        let (clock, root) = under();
        let (other, other_guard) = Context::background().with_clock(&clock).with_cancel();
        let (first, guard) = root.with_cancel();
        let mut ctx = Context::any_of([&first, &other]);
        let (mut all, mut waits, mut guards, mut groups) = (vec![], vec![], vec![], vec![]);
        for level in 0..LEVELS {
            // The ones further in end first: so each ends by its own.
            ctx = ctx.with_grace((LEVELS - level) * SECOND);
            all.push((ctx.clone(), ctx.shield()));
            for _ in 0..waiters {
                let mut wait = Box::pin(ctx.clone().done_owned());
                let waker = noop_waker();
                assert!(wait
                    .as_mut()
                    .poll(&mut task::Context::from_waker(&waker))
                    .is_pending());
                waits.push(wait);
            }
            let below = ctx.with_cancel();
            ctx = below.0;
            guards.push(below.1);
            if level == 1 {
                let group = Group::new(&ctx);
                ctx = group.context().clone();
                groups.push(group);
            }
        }
        if is_own {
            guards[3].cancel_with("a part");
        }
        // By an edge, or by the first source.
        match waiters {
            1 => other_guard.cancel_with("all of it"),
            _ => guard.cancel_with("all of it"),
        };
        assert!(all.iter().all(|(_, shield)| !shield.is_done()));
        clock.advance(LEVELS * SECOND);
        for (level, (ctx, shield)) in all.iter().enumerate() {
            let expected = match is_own && level > 3 {
                true => "a part",
                false => "all of it",
            };
            assert_eq!(ctx.cause().unwrap().to_string(), expected);
            let cause = shield.cause().unwrap();
            let over = cause.downcast_ref::<GraceOver>().unwrap();
            assert_eq!(over.first().to_string(), expected, "level {level}");
        }
    }
}

#[test]
fn a_group_is_shut_down_by_it() {
    let (clock, root) = under();
    let group = Group::new(&root);
    let stuck = group.named("stuck").enter().unwrap();
    let limit = after(&root, 10 * SECOND);
    let begin = clock.now();
    let report = clock.block_on(group.shutdown_with(&limit, 5 * SECOND));
    assert_eq!(clock.now(), begin + 15 * SECOND);
    assert_eq!((report.took, report.stuck.len()), (15 * SECOND, 1));
    assert!(group.context().is_done());
    drop(stuck);
}

#[test]
fn a_group_is_shut_down_by_a_thread() {
    let (clock, root) = under();
    let group = Group::new(&root);
    let member = group.enter().unwrap();
    let limit = after(&root, 10 * SECOND);
    let spawner = group.spawner();
    let thread = thread::spawn(move || group.shutdown_blocking(&limit));
    while !spawner.is_closed() {
        thread::yield_now();
    }
    clock.advance(10 * SECOND);
    // The bound after it.
    clock.blocking_wait_for_deadlines(1);
    clock.advance(SECOND);
    let report = thread.join().unwrap();
    assert_eq!((report.took, report.stuck.len()), (11 * SECOND, 1));
    drop(member);
}

#[test]
fn a_groups_own_clock_counts_where_the_limit_has_none() {
    let (clock, root) = under();
    let group = Group::new(&root);
    let member = group.enter().unwrap();
    let (limit, over) = Context::background().with_cancel();
    over.cancel();
    let report = clock.block_on(group.shutdown(&limit));
    assert_eq!(report.took, SECOND);
    drop(member);
}

#[test]
fn stages_share_its_time() {
    let (clock, root) = under();
    let groups: Vec<Group> = (0..2).map(|_| Group::new(&root)).collect();
    let members: Vec<_> = groups.iter().map(|g| g.enter().unwrap()).collect();
    let limit = after(&root, 10 * SECOND);
    let stages: Vec<&Group> = groups.iter().collect();
    let reports = clock.block_on(Group::shutdown_stages(&stages, &limit));
    // Half of ten, of which the last second is after the cancel; and what is left of ten.
    let took: Vec<Duration> = reports.iter().map(|r| r.took).collect();
    assert_eq!(took, [5 * SECOND, 5 * SECOND]);

    // Of little time, a quarter is after the cancel; where none is left, each is cancelled all the same.
    for (limit, times) in [
        (2 * SECOND, [SECOND, SECOND]),
        (Duration::ZERO, [Duration::ZERO; 2]),
    ] {
        let groups: Vec<Group> = (0..2).map(|_| Group::new(&root)).collect();
        let members: Vec<_> = groups.iter().map(|g| g.enter().unwrap()).collect();
        let cancelled = groups.iter().map(|g| {
            let (says, when) = mpsc::channel();
            let now = root.clone();
            drop(g.context().on_cancel(move || says.send(now.now()).unwrap()));
            when
        });
        let cancelled: Vec<_> = cancelled.collect();
        let begin = root.now();
        let limit = after(&root, limit);
        let stages: Vec<&Group> = groups.iter().collect();
        let reports = clock.block_on(Group::shutdown_stages(&stages, &limit));
        let took: Vec<Duration> = reports.iter().map(|r| r.took).collect();
        assert_eq!(took, times);
        let at: Vec<Duration> = cancelled
            .iter()
            .map(|when| when.recv().unwrap() - begin)
            .collect();
        assert_eq!(at, [times[0] * 3 / 4, times[0] + times[1] * 3 / 4]);
        assert!(reports.iter().all(|report| report.stuck.len() == 1));
        drop(members);
    }
    drop(members);

    // Whoever comes late to the end of its part has less after the cancel.
    let group = Group::new(&root);
    let member = group.enter().unwrap();
    let limit = after(&root, 5 * SECOND);
    let stages = [&group];
    let mut shutdown = pin!(Group::shutdown_stages(&stages, &limit));
    let mut cx = task::Context::from_waker(task::Waker::noop());
    assert!(shutdown.as_mut().poll(&mut cx).is_pending());
    for (by, is_done) in [(4800, false), (100, false), (100, true)] {
        clock.advance(Duration::from_millis(by));
        assert_eq!(shutdown.as_mut().poll(&mut cx).is_ready(), is_done);
        assert!(group.context().is_done());
    }
    drop(member);

    // Without a deadline there is no share: each has a second after the cancel. And no more if a deadline is far.
    for (limit, over) in [root.with_cancel(), root.with_timeout(HOUR)] {
        let group = Group::new(&root);
        let member = group.enter().unwrap();
        over.cancel();
        let reports = clock.block_on(Group::shutdown_stages(&[&group], &limit));
        assert_eq!(reports[0].took, SECOND);
        drop(member);
    }
}

#[test]
fn a_wait_for_room_ends_by_it() {
    let (clock, root) = under();
    let group = Group::new(&root).limit(1);
    let member = group.enter().unwrap();
    let limit = after(&root, SECOND);
    let spawner = group.spawner();
    let refused = waited(&clock, 1, SECOND, move || {
        spawner.enter_when_blocking(&limit).is_err()
    });
    assert!(refused);
    drop(member);
    let limit = after(&root, SECOND);
    assert!(block_on(group.join_until(&limit)).is_ok());
}

// ----- what is left -----------------------------------------------------------------------------------

#[test]
fn what_is_dropped_leaves_nothing() {
    let (clock, root) = under();
    let (ctx, guard) = root.with_timeout(SECOND);
    let (idle, idle_guard) = root.with_idle_timeout(SECOND);
    let (movable, movable_guard) = root.with_movable_deadline(clock.now() + SECOND);
    let graced = after(&root, SECOND).with_grace(SECOND);
    assert_eq!(clock.deadlines(), 4);
    guard.cancel();
    assert_eq!(clock.deadlines(), 3, "cancelled, and still held");
    drop((ctx, guard, idle, idle_guard, movable, movable_guard, graced));
    assert_eq!((clock.deadlines(), clock.next_deadline()), (0, None));
    assert_eq!(clock.advance_to_next(), None);
}

#[test]
fn a_callback_that_is_left_behind_runs_at_the_deadline() {
    let (clock, root) = under();
    let log = Log::default();
    log.on_cancel(&after(&root, SECOND), "called");
    assert_eq!(clock.deadlines(), 1);
    clock.advance(SECOND);
    assert_eq!((log.take().len(), clock.deadlines()), (1, 0));
}

#[test]
fn a_token_below_outlives_its_context() {
    let (clock, root) = under();
    let token = after(&root, SECOND).child_token();
    clock.advance(SECOND);
    assert!(token.is_cancelled());
}

#[test]
fn nobody_advances_a_clock_that_is_gone() {
    let (clock, root) = under();
    let ctx = after(&root, SECOND);
    drop(clock);
    assert!(!ctx.is_done());
    drop((ctx, root));
}

#[test]
fn deadlines_can_be_waited_for() {
    let (clock, root) = under();
    let mut two = clock.wait_for_deadlines(2);
    assert!(is_ready(clock.wait_for_deadlines(0)) && !is_ready(&mut two));
    let one = after(&root, HOUR);
    assert!(!is_ready(&mut two));
    let other = after(&root, HOUR);
    assert!(is_ready(&mut two));
    drop((one, other));
    assert!(is_ready(&mut two), "what was ready stays so");
    // It is woken, and forgets who waits no more.
    drop(clock.wait_for_deadlines(1));
    let ctx = root.clone();
    let thread = thread::spawn(move || drop(after(&ctx, HOUR).on_cancel(|| ())));
    clock.blocking_wait_for_deadlines(1);
    thread.join().unwrap();
    // The callback that was left keeps its context until then.
    clock.advance(HOUR);
    assert_eq!(clock.deadlines(), 0);
}

#[test]
fn advance_to_next_says_by_how_much() {
    let (clock, root) = under();
    let contexts: Vec<Context> = [3, 1, 3].map(|secs| after(&root, secs * SECOND)).into();
    let seen = || contexts.iter().map(Context::is_done).collect::<Vec<_>>();
    assert_eq!(clock.advance_to_next(), Some(SECOND));
    assert_eq!(seen(), [false, true, false]);
    assert_eq!(clock.advance_to_next(), Some(2 * SECOND));
    assert_eq!(seen(), [true, true, true]);
    assert_eq!(clock.advance_to_next(), None);
}

/// Guards that are kept cancel nothing.
#[test]
fn guards_are_as_ever() {
    let (clock, root) = under();
    let (ctx, guard): (Context, CancelGuard) = root.with_timeout(HOUR);
    drop(guard);
    assert_eq!(ctx.err(), Some(ContextError::Cancelled));
    assert_eq!(clock.deadlines(), 0);
}

#[test]
fn touched_after_the_timeout_it_shows_what_has_passed() {
    let clock = TestClock::new();
    let begin = clock.now();
    let ctx = Context::background().with_clock(&clock);
    let (ctx, guard) = ctx.with_idle_timeout(10 * SECOND);
    clock.advance(4 * SECOND);
    guard.touch();
    clock.advance(20 * SECOND);
    assert!(ctx.is_done());
    guard.touch();
    assert_eq!(ctx.deadline(), Some(begin + 14 * SECOND));
}

#[test]
fn it_is_linear_to_wait_for_many_deadlines() {
    const MANY: usize = 40_000;
    let (clock, ctx) = under();
    let mut waits = pin!(clock.wait_for_deadlines(MANY));
    assert!(!is_ready(&mut waits));
    let start = Instant::now();
    let all: Vec<_> = (1..=MANY as u64)
        .map(|i| after(&ctx, Duration::from_secs(i)))
        .collect();
    assert!(
        start.elapsed() < PATIENCE,
        "it is minutes if it is not linear"
    );
    assert!(is_ready(&mut waits));
    clock.advance(HOUR);
    assert_eq!(all.iter().filter(|ctx| ctx.is_done()).count(), 3600);
}

/// Their places are looked at once, however many deadlines are set after that.
#[test]
fn it_is_linear_to_wait_for_deadlines_beside_many_cancelled_ones_that_are_held() {
    const MANY: usize = 30_000;
    const FEW: usize = 1000;
    let (clock, ctx) = under();
    let start = Instant::now();
    let cancelled: Vec<_> = (0..MANY).map(|_| ctx.with_timeout(HOUR).0).collect();
    let took = start.elapsed();
    let mut waits = pin!(clock.wait_for_deadlines(FEW));
    assert!(!is_ready(&mut waits));
    let start = Instant::now();
    let all: Vec<_> = (1..FEW).map(|_| after(&ctx, HOUR)).collect();
    assert!(
        start.elapsed() < 5 * took,
        "{:?}, {took:?}",
        start.elapsed()
    );
    assert!(!is_ready(&mut waits));
    let last = after(&ctx, HOUR);
    assert!(is_ready(&mut waits));
    assert_eq!(clock.deadlines(), FEW);
    drop((cancelled, all, last));
    assert_eq!(clock.deadlines(), 0);
}

#[test]
fn it_stands_still_at_its_end() {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let (clock, ctx) = under();
    let begin = clock.now();
    let ctx = after(&ctx, 400 * YEAR);
    clock.advance(500 * YEAR);
    let end = clock.now();
    assert!(end - begin < 293 * YEAR && !ctx.is_done());
    assert_eq!(clock.advance_to_next(), None);
    clock.advance(YEAR);
    assert_eq!(clock.now(), end);
}

/// Each grace begins with the end of the one before it, and its cause is that of the first. The stack does not grow with them: neither
/// when they are over, nor when they go.
#[test]
fn a_long_chain_of_graces_that_are_over_on_a_small_stack() {
    const N: u32 = 5_000;
    let test = || {
        let (clock, ctx) = under();
        let (mut ctx, guard) = ctx.with_cancel();
        for _ in 0..N {
            ctx = ctx.with_grace(SECOND).shield().child_token().context();
        }
        guard.cancel_with("the end");
        clock.advance(SECOND * N);
        let cause = ctx.cause().unwrap();
        let over = cause.downcast_ref::<GraceOver>().unwrap();
        assert_eq!(over.first().to_string(), "the end");
        assert_eq!(cause.kind(), ContextError::DeadlineExceeded);
    };
    let thread = thread::Builder::new().stack_size(128 << 10).spawn(test);
    thread.unwrap().join().unwrap();
}

/// A thread that stands still in a callback keeps no other's deadline.
#[test]
fn each_thread_calls_what_it_has_moved_to_what_is_past() {
    let (clock, ctx) = under();
    let log = Log::default();
    let (first, first_guard) = ctx.with_movable_deadline(clock.now() + HOUR);
    let (second, second_guard) = ctx.with_movable_deadline(clock.now() + HOUR);
    let (started, has_started) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    drop(first.on_cancel(move || {
        started.send(()).unwrap();
        may_go.recv_timeout(PATIENCE).unwrap();
    }));
    log.on_cancel(&second, "second");
    let now = clock.now();
    let thread = thread::spawn(move || first_guard.set(now));
    has_started.recv_timeout(PATIENCE).unwrap();
    second_guard.set(now);
    assert_eq!(log.take(), ["second"]);
    go.send(()).unwrap();
    thread.join().unwrap();
}
