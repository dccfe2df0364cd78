//! Threads that wait for other people's futures: `block_on` of contexts and of tokens.

use cancel_tree::{CancellationToken, Context, ContextError};
use futures::channel::{mpsc, oneshot};
use futures::StreamExt;
use std::future::{pending, poll_fn, Future};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_secs(3600);

#[test]
fn what_is_ready_is_given_back() {
    let (ctx, _guard) = Context::background().with_cancel();
    assert_eq!(ctx.block_on(async { 5 }), Ok(5));
    assert_eq!(Context::background().block_on(async { 5 }), Ok(5));
    assert_eq!(ctx.child_token().block_on(async { 5 }), Some(5));
}

#[test]
fn one_that_is_done_polls_nothing_and_drops_the_future() {
    struct Dropped<'a>(&'a AtomicUsize);
    impl Future for Dropped<'_> {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<()> {
            panic!("polled")
        }
    }
    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let drops = AtomicUsize::new(0);
    let (ctx, guard) = Context::background().with_cancel();
    let token = ctx.child_token();
    guard.cancel();
    assert_eq!(ctx.block_on(Dropped(&drops)), Err(ContextError::Cancelled));
    assert_eq!(token.block_on(Dropped(&drops)), None);
    assert_eq!(drops.load(Relaxed), 2);
}

#[test]
fn woken_by_another_thread() {
    let (ctx, _guard) = Context::background().with_timeout(LATE);
    let (say, mut hear) = mpsc::unbounded();
    let speaker = thread::spawn(move || {
        for n in 0..1000 {
            say.unbounded_send(n).unwrap();
        }
    });
    for n in 0..1000 {
        assert_eq!(ctx.block_on(hear.next()), Ok(Some(n)));
    }
    assert_eq!(ctx.block_on(hear.next()), Ok(None));
    speaker.join().unwrap();
}

#[test]
fn a_cancel_ends_it() {
    for _ in 0..200 {
        let (ctx, guard) = Context::background().with_cancel();
        let token = ctx.child_token();
        thread::scope(|s| {
            s.spawn(|| assert_eq!(ctx.block_on(pending::<()>()), Err(ContextError::Cancelled)));
            s.spawn(|| assert_eq!(token.block_on(pending::<()>()), None));
            s.spawn(|| guard.cancel());
        });
    }
}

#[test]
fn a_deadline_ends_it_and_not_early() {
    let begin = Instant::now();
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    let passed = Err(ContextError::DeadlineExceeded);
    assert_eq!(ctx.block_on(pending::<()>()), passed);
    assert!(begin.elapsed() >= SOON && begin.elapsed() < LATE / 2);
    // Below it, and whoever else waits.
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    let token = ctx.child_token();
    let of_both = Context::any_of([&ctx, &Context::background()]);
    thread::scope(|s| {
        s.spawn(|| assert_eq!(ctx.block_on(pending::<()>()), passed));
        s.spawn(|| assert_eq!(token.block_on(pending::<()>()), None));
        s.spawn(|| assert_eq!(of_both.block_on(pending::<()>()), passed));
    });
}

/// Whoever makes both true, in this order, is the last to touch them: what was ready first is not lost.
#[test]
fn ready_before_the_cancel_is_never_lost() {
    for round in 0..2000 {
        let (ctx, guard) = Context::background().with_cancel();
        let (say, hear) = oneshot::channel();
        thread::scope(|s| {
            s.spawn(|| {
                say.send(round).unwrap();
                guard.cancel();
            });
            // A context that was done at the call is another matter.
            if let Ok(heard) = ctx.block_on(async {
                let mut hear = hear;
                (&mut hear).await
            }) {
                assert_eq!(heard, Ok(round));
            } else {
                assert!(ctx.is_done());
            }
        });
    }
    // The same where it is known that it was polled before.
    for _ in 0..200 {
        let (ctx, guard) = Context::background().with_cancel();
        let (say, mut hear) = oneshot::channel();
        let (polled, was_polled) = std::sync::mpsc::channel();
        thread::scope(|s| {
            s.spawn(move || {
                was_polled.recv().unwrap();
                say.send(7).unwrap();
                guard.cancel();
            });
            let future = poll_fn(|cx| {
                let answer = Pin::new(&mut hear).poll(cx);
                polled.send(()).ok();
                answer
            });
            assert_eq!(ctx.block_on(future), Ok(Ok(7)));
        });
    }
}

#[test]
fn a_wait_within_the_wait() {
    let (outer, _outer) = Context::background().with_timeout(LATE);
    let (inner, _inner) = outer.with_timeout(SOON);
    let (say, hear) = oneshot::channel();
    let mut hear = Some(hear);
    let speaker = thread::spawn(move || {
        thread::sleep(SOON / 2);
        say.send("outer").unwrap();
    });
    let mut waited = false;
    let answer = outer.block_on(poll_fn(|cx| {
        let answer = Pin::new(hear.as_mut().unwrap()).poll(cx);
        if !waited {
            waited = true;
            // Longer than it takes the other one to be told.
            let passed = Err(ContextError::DeadlineExceeded);
            assert_eq!(inner.block_on(pending::<()>()), passed);
        }
        answer
    }));
    assert_eq!(answer, Ok(Ok("outer")));
    speaker.join().unwrap();
}

#[test]
fn unparks_that_mean_nothing_end_nothing() {
    let (ctx, guard) = Context::background().with_cancel();
    let polls = AtomicUsize::new(0);
    thread::scope(|s| {
        let waiting = s.spawn(|| {
            ctx.block_on(poll_fn(|_| {
                polls.fetch_add(1, Relaxed);
                Poll::<()>::Pending
            }))
        });
        for _ in 0..100 {
            waiting.thread().unpark();
            thread::yield_now();
        }
        guard.cancel();
        assert_eq!(waiting.join().unwrap(), Err(ContextError::Cancelled));
    });
    // One at the beginning, one before it is given up, and one for a cancel that comes between the look and the sleep.
    assert!(polls.load(Relaxed) <= 3, "{polls:?}");
}

#[test]
fn a_future_that_wakes_itself_is_polled_again() {
    let mut left = 1000;
    let answer = CancellationToken::new().block_on(poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready("there");
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
    assert_eq!(answer, Some("there"));
}

#[test]
fn a_panic_of_the_future_leaves_nothing_behind() {
    let (ctx, guard) = Context::background().with_cancel();
    let token = ctx.child_token();
    for _ in 0..3 {
        let mut polls = 0;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            ctx.block_on(poll_fn(|cx| {
                polls += 1;
                assert!(polls < 2, "meant to happen");
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            }))
        }));
        assert!(outcome.is_err());
        assert_eq!(token.block_on(async { 1 }), Some(1));
    }
    thread::scope(|s| {
        s.spawn(|| assert_eq!(ctx.block_on(pending::<()>()), Err(ContextError::Cancelled)));
        s.spawn(|| guard.cancel());
    });
}

#[test]
fn a_waker_that_was_kept_wakes_nobody_wrongly() {
    let kept = Arc::new(Mutex::new(None::<Waker>));
    let slot = kept.clone();
    let token = CancellationToken::new();
    thread::spawn(move || {
        let answer = token.block_on(poll_fn(|cx| {
            *slot.lock().unwrap() = Some(cx.waker().clone());
            Poll::Ready(1)
        }));
        assert_eq!(answer, Some(1));
        slot.lock().unwrap().as_ref().unwrap().wake_by_ref();
        assert!(!token.blocking_wait_timeout(SOON));
    })
    .join()
    .unwrap();
    // The thread is gone.
    kept.lock().unwrap().take().unwrap().wake();
}
