//! The clock that tests advance: who moves the time, who sets, moves and drops deadlines, and who waits.

use cancel_tree::{set_thread_number, Context, DeadlineGuard, TestClock};
use cancel_tree_loom::{
    block_on, model, model_in_all_orders, poll, reason_of_context as reason_of, spawn,
    ContextError, Data, Probe, Reason, Runs, USUAL,
};
use loom::sync::Arc;
use loom::thread::JoinHandle;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

const DEADLINE: Option<ContextError> = Some(ContextError::DeadlineExceeded);
const CANCELLED: Option<ContextError> = Some(ContextError::Cancelled);
const SECOND: Duration = Duration::from_secs(1);

fn under() -> (TestClock, Context) {
    let clock = TestClock::new();
    let ctx = Context::background().with_clock(&clock);
    (clock, ctx)
}

/// A context that is done after a second, and nobody else can cancel.
fn timed(root: &Context) -> Context {
    let (ctx, guard) = root.with_timeout(SECOND);
    guard.detach();
    ctx
}

fn movable(root: &Context) -> (Context, DeadlineGuard) {
    root.with_movable_deadline(root.now() + SECOND)
}

fn advance(clock: &TestClock, by: Duration) -> JoinHandle<()> {
    let clock = clock.clone();
    spawn(move || clock.advance(by))
}

#[test]
fn advance_vs_set() {
    model_in_all_orders(USUAL, || {
        let (clock, root) = under();
        let at = clock.now() + SECOND;
        let time = advance(&clock, SECOND);
        let (ctx, guard) = root.with_deadline_cause(at, Reason::cause(1));
        guard.detach();
        time.join().unwrap();
        assert_eq!((ctx.err(), reason_of(&ctx)), (DEADLINE, 1));
        assert!(ctx.is_own_deadline());
        assert_eq!(clock.deadlines(), 0);
    });
}

#[test]
fn advance_vs_the_last_owner() {
    model_in_all_orders(USUAL, || {
        let (clock, root) = under();
        let ctx = timed(&root);
        let time = advance(&clock, SECOND);
        drop(ctx);
        time.join().unwrap();
        assert_eq!(clock.deadlines(), 0);
    });
}

/// The entry of what is dropped is in the clock, after another one, whose turn comes first.
#[test]
fn advance_past_two_vs_the_last_owner_of_one() {
    model(Some(2), || {
        let probe = Probe::new();
        let (clock, root) = under();
        let (first, second) = (timed(&root), timed(&root));
        let mut done = first.done_owned();
        assert!(!poll(&mut done, &probe.waker()));
        let time = advance(&clock, SECOND);
        drop(second);
        time.join().unwrap();
        assert_eq!((probe.woken(), clock.deadlines()), (1, 0));
    });
}

#[test]
fn advance_vs_the_last_owner_of_a_callback_that_stays() {
    model(USUAL, || {
        let runs = Runs::default();
        let (clock, root) = under();
        let ctx = timed(&root);
        drop(ctx.on_cancel(runs.callback()));
        let time = advance(&clock, SECOND);
        drop(ctx);
        time.join().unwrap();
        assert_eq!((runs.count(), clock.deadlines()), (1, 0));
    });
}

#[test]
fn advance_vs_cancel() {
    model_in_all_orders(USUAL, || {
        let (clock, root) = under();
        let (ctx, guard) = root.with_timeout(SECOND);
        let time = advance(&clock, SECOND);
        let first = guard.cancel();
        let seen = ctx.err();
        assert_eq!(seen, if first { CANCELLED } else { DEADLINE });
        time.join().unwrap();
        assert_eq!(ctx.err(), seen);
        assert_eq!(ctx.is_own_deadline(), !first);
    });
}

#[test]
fn advance_vs_extend() {
    model(USUAL, || {
        let probe = Probe::new();
        let (clock, root) = under();
        let (ctx, guard) = movable(&root);
        let mut done = ctx.clone().done_owned();
        assert!(!poll(&mut done, &probe.waker()));
        let time = advance(&clock, SECOND);
        let in_time = guard.extend(SECOND);
        time.join().unwrap();
        assert_eq!(ctx.err(), if in_time { None } else { DEADLINE });
        assert_eq!(probe.woken(), usize::from(!in_time));
        clock.advance(SECOND);
        assert_eq!((ctx.err(), probe.woken()), (DEADLINE, 1));
        guard.into_guard().detach();
    });
}

#[test]
fn advance_vs_take_away() {
    model(USUAL, || {
        let (clock, root) = under();
        let (ctx, guard) = movable(&root);
        let time = advance(&clock, SECOND);
        let in_time = guard.take_away();
        time.join().unwrap();
        clock.advance(SECOND);
        assert_eq!(ctx.err(), if in_time { None } else { DEADLINE });
        assert_eq!(clock.deadlines(), 0);
        guard.into_guard().detach();
    });
}

/// To what is past by then, or not yet.
#[test]
fn advance_vs_set_earlier() {
    model(USUAL, || {
        let (clock, root) = under();
        let at = clock.now() + SECOND;
        let (ctx, guard) = root.with_movable_deadline(at + SECOND);
        let time = advance(&clock, SECOND);
        assert!(guard.set(at));
        time.join().unwrap();
        assert_eq!(ctx.err(), DEADLINE);
        guard.into_guard().detach();
    });
}

/// Two graces that are over at once, of which the second begins with the end of the first, within the same call.
#[test]
fn advance_vs_cancel_through_two_graces() {
    model(USUAL, || {
        let probe = Probe::new();
        let (clock, root) = under();
        let (root, guard) = root.with_cancel();
        let below = |ctx: &Context| ctx.with_grace(Duration::ZERO).shield();
        let ctx = below(&below(&root).child_token().context());
        let mut done = ctx.clone().done_owned();
        assert!(!poll(&mut done, &probe.waker()));
        let time = advance(&clock, SECOND);
        guard.cancel();
        time.join().unwrap();
        assert_eq!((ctx.err(), probe.woken()), (DEADLINE, 1));
        assert_eq!(clock.deadlines(), 0);
    });
}

#[test]
fn extend_vs_take_away() {
    model(USUAL, || {
        let (clock, root) = under();
        let (ctx, guard) = movable(&root);
        let guard = Arc::new(guard);
        let other = guard.clone();
        let thread = spawn(move || assert!(other.set_timeout(2 * SECOND)));
        assert!(guard.take_away());
        thread.join().unwrap();
        let is_left = ctx.deadline().is_some();
        assert_eq!(clock.deadlines(), usize::from(is_left));
        clock.advance(2 * SECOND);
        assert_eq!(ctx.is_done(), is_left);
    });
}

#[test]
fn advance_vs_extend_vs_the_last_context() {
    model(Some(2), || {
        let (clock, root) = under();
        let (ctx, guard) = movable(&root);
        let time = advance(&clock, SECOND);
        let thread = spawn(move || drop(ctx));
        guard.extend(SECOND);
        drop(guard);
        thread.join().unwrap();
        time.join().unwrap();
        assert_eq!(clock.deadlines(), 0);
    });
}

#[test]
fn advance_vs_touch() {
    model_in_all_orders(USUAL, || {
        set_thread_number(1);
        let (clock, root) = under();
        let (ctx, guard) = root.with_idle_timeout(2 * SECOND);
        let at = clock.now() + SECOND;
        let time = advance(&clock, 2 * SECOND);
        guard.touch_at(at);
        time.join().unwrap();
        if !ctx.is_done() {
            assert_eq!(ctx.deadline(), Some(at + 2 * SECOND));
        }
        clock.advance(SECOND);
        assert_eq!(ctx.err(), DEADLINE);
        guard.into_guard().detach();
    });
}

/// Each moves the time by what it says, all is met once, and who returns finds what is due by then done.
#[test]
fn advance_vs_advance() {
    model(Some(2), || {
        let probe = Probe::new();
        let (clock, root) = under();
        let begin = clock.now();
        let (first, second) = (timed(&root), root.with_timeout(2 * SECOND));
        let mut done = first.clone().done_owned();
        assert!(!poll(&mut done, &probe.waker()));
        let time = advance(&clock, SECOND);
        clock.advance(SECOND);
        assert_eq!(first.err(), DEADLINE);
        time.join().unwrap();
        assert_eq!(clock.now(), begin + 2 * SECOND);
        assert_eq!(second.0.err(), DEADLINE);
        assert_eq!(probe.woken(), 1);
    });
}

/// Who sees the time sees what it has ended, and what was done before.
#[test]
fn advance_vs_a_look_at_the_time() {
    model_in_all_orders(USUAL, || {
        let (clock, root) = under();
        let at = clock.now() + SECOND;
        let ctx = timed(&root);
        let data = Arc::new(Data::new());
        let (other, written) = (clock.clone(), data.clone());
        let time = spawn(move || {
            written.write();
            other.advance(SECOND);
        });
        if clock.now() >= at {
            assert!(ctx.is_done());
            data.read();
        }
        time.join().unwrap();
    });
}

#[test]
fn set_vs_a_wait_for_deadlines() {
    model_in_all_orders(USUAL, || {
        let (clock, root) = under();
        let other = root.clone();
        let setter = spawn(move || timed(&other));
        block_on(clock.wait_for_deadlines(1));
        assert_eq!(clock.deadlines(), 1);
        drop(setter.join().unwrap());
    });
}

#[test]
fn set_vs_the_end_of_a_wait_for_deadlines() {
    model(USUAL, || {
        let probe = Probe::new();
        let (clock, root) = under();
        let mut wait = clock.wait_for_deadlines(1);
        assert!(!poll(&mut wait, &probe.waker()));
        let setter = spawn(move || timed(&root));
        drop(wait);
        drop(setter.join().unwrap());
        assert!(probe.woken() <= 1);
    });
}

/// A thread that sleeps, and the test that waits until it does.
#[test]
fn advance_vs_a_threads_sleep() {
    // Too many executions at 2: bound 1.
    model(Some(1), || {
        let (clock, root) = under();
        let sleeper = spawn(move || root.blocking_sleep(SECOND));
        clock.blocking_wait_for_deadlines(1);
        clock.advance(SECOND);
        assert_eq!(sleeper.join().unwrap(), Ok(()));
        assert_eq!(clock.deadlines(), 0);
    });
}

/// It may have passed before the thread comes.
#[test]
fn advance_vs_a_threads_wait() {
    model(USUAL, || {
        let (clock, root) = under();
        let token = root.child_token();
        let at = clock.now() + SECOND;
        let time = advance(&clock, SECOND);
        assert!(!token.blocking_wait_deadline(at));
        time.join().unwrap();
    });
}

/// The grace begins when the deadline is met, and the time goes on.
#[test]
fn advance_through_a_grace_vs_shield() {
    model(Some(1), || {
        let (clock, root) = under();
        let ctx = timed(&root).with_grace(SECOND);
        let time = advance(&clock, 2 * SECOND);
        let shield = ctx.shield();
        time.join().unwrap();
        assert!(ctx.is_done() && shield.is_done());
    });
}

/// Woken before the thread sleeps or after: what was done before that is seen by the next poll. While it is woken the time
/// stands.
#[test]
fn wake_vs_a_future_that_the_clock_runs() {
    model_in_all_orders(USUAL, || {
        let (clock, root) = under();
        let begin = clock.now();
        let _ctx = timed(&root);
        let data = Arc::new(Data::new());
        let (mut polls, mut waker) = (0, None);
        clock.block_on(poll_fn(|cx| {
            polls += 1;
            match polls {
                1 => cx.waker().wake_by_ref(),
                2 => {
                    assert_eq!(clock.now(), begin);
                    let (written, other) = (data.clone(), cx.waker().clone());
                    waker = Some(spawn(move || {
                        written.write();
                        other.wake();
                    }));
                }
                _ => {
                    data.read();
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        }));
        waker.unwrap().join().unwrap();
    });
}
