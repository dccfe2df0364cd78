//! tokio-util's tokens and our contexts, one below the other; tests/tokio_util/run.sh runs it with other versions of
//! tokio-util.

mod counting;
mod first_callback;

use cancel_tree::integrations::tokio_util::tokio_token;
use cancel_tree::{Context, ContextError};
use first_callback::is_told_before;
use std::sync::{mpsc, Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// One test at a time: what is counted is the process's.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For what workers do.
fn soon(mut is_so: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !is_so() {
        if begin.elapsed() > Duration::from_secs(20) {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Fails if `f` leaves memory behind, whoever has to free it.
fn leaves_nothing(f: impl Fn()) {
    const ROUNDS: isize = 200;
    let _alone = alone();
    // What is made once and kept.
    (0..ROUNDS).for_each(|_| f());
    thread::sleep(Duration::from_millis(50));
    // The least that a round could leave is 16 bytes. The test runner has some of its own, and begins tests meanwhile: so what is
    // left each time counts.
    let leaves = || {
        let before = counting::in_use();
        (0..ROUNDS).for_each(|_| f());
        let left = || counting::in_use() - before;
        (!soon(|| left() < ROUNDS * 16)).then(left)
    };
    let left: Vec<isize> = (0..3).map_while(|_| leaves()).collect();
    assert!(
        left.len() < 3,
        "{left:?} bytes are left by {ROUNDS} rounds each"
    );
}

#[test]
fn a_cancel_comes_through_from_theirs_to_ours() {
    leaves_nothing(|| {
        let theirs = CancellationToken::new();
        let ctx = Context::below(theirs.child_token());
        let (below, _guard) = ctx.with_cancel();
        assert!(!below.is_done());
        theirs.cancel();
        assert_eq!(below.err(), Some(ContextError::Cancelled));
        assert!(Context::below(theirs).is_done(), "cancelled before");
    });
}

#[test]
fn a_cancel_comes_through_from_ours_to_theirs() {
    leaves_nothing(|| {
        let (ctx, guard) = Context::background().with_cancel();
        let theirs = tokio_token(&ctx);
        let child = theirs.child_token();
        assert!(!child.is_cancelled());
        guard.cancel();
        assert!(child.is_cancelled());
        assert!(tokio_token(&ctx).is_cancelled(), "cancelled before");
    });
}

#[test]
fn what_is_handed_out_stays_connected() {
    leaves_nothing(|| {
        let (ctx, guard) = Context::background().with_cancel();
        let clone = tokio_token(&ctx).clone();
        let child = tokio_token(&ctx).child_token();
        // The middle stays: the trees of 0.7.0 and 0.7.1 leak one that goes before what is below it.
        let grandchild = child.child_token();
        let plain: CancellationToken = tokio_token(&ctx).into();
        let lent = tokio_token(&ctx).as_token().clone();
        let below = Context::below(tokio_token(&ctx));
        assert!(!clone.is_cancelled() && !plain.is_cancelled() && !below.is_done());
        guard.cancel();
        assert!(clone.is_cancelled() && grandchild.is_cancelled() && plain.is_cancelled());
        assert!(lent.is_cancelled());
        assert!(below.is_done());
        assert!(soon(|| below
            .blocking_wait_timeout(Duration::ZERO)
            .is_some()));
    });
    // A child that is cancelled by itself leaves the others.
    let (ctx, guard) = Context::background().with_cancel();
    let token = tokio_token(&ctx);
    let far_below = tokio_token(&ctx).child_token().child_token();
    token.child_token().cancel();
    assert!(!token.is_cancelled());
    // What was given away as a plain token costs a callback, and that goes with the context.
    leaves_nothing(|| {
        let below = ctx.with_cancel();
        let token = tokio_token(&below.0).into_token();
        assert!(!token.is_cancelled());
    });
    guard.cancel();
    assert!(token.is_cancelled() && far_below.is_cancelled());
}

/// As tasks and threads are woken, before the first callback: that may wait for them.
#[test]
fn theirs_are_told_before_the_first_callback() {
    let _alone = alone();
    is_told_before(Context::background().with_cancel(), tokio_token, |theirs| {
        futures::executor::block_on(theirs.cancelled())
    });
}

#[test]
fn ours_below_theirs_below_ours() {
    leaves_nothing(|| {
        let (top, guard) = Context::background().with_cancel();
        let middle = tokio_token(&top);
        let bottom = Context::below(middle.clone());
        let (say, hear) = mpsc::channel();
        let callback = bottom.on_cancel(move || say.send(()).unwrap());
        guard.cancel_with("from the top");
        assert!(bottom.is_done());
        assert_eq!(hear.recv_timeout(Duration::from_secs(20)), Ok(()));
        assert!(!callback.stop());
    });
}

#[test]
fn many_short_lived_ones_below_a_long_lived_one_leave_nothing() {
    let theirs = CancellationToken::new();
    leaves_nothing(|| {
        for _ in 0..10 {
            let ctx = Context::below(theirs.clone());
            assert!(!ctx.is_done());
        }
    });
    let (ours, _guard) = Context::background().with_cancel();
    leaves_nothing(|| {
        for _ in 0..10 {
            assert!(!tokio_token(&ours).is_cancelled());
        }
    });
}

#[test]
fn either_side_may_go_first() {
    leaves_nothing(|| {
        let theirs = CancellationToken::new();
        let ctx = Context::below(theirs.clone());
        let token = ctx.child_token();
        drop(ctx);
        theirs.cancel();
        assert!(token.is_cancelled(), "the token below keeps the connection");
        let theirs = CancellationToken::new();
        let ctx = Context::below(theirs.clone());
        drop(theirs);
        assert!(!ctx.is_done());
        let (ctx, guard) = Context::background().with_cancel();
        let theirs = tokio_token(&ctx);
        drop((ctx, guard));
        assert!(theirs.is_cancelled(), "the guard has cancelled");
    });
}

#[test]
fn cancel_against_drop_on_two_threads() {
    let _alone = alone();
    let rounds = 2000;
    for _ in 0..rounds {
        let theirs = CancellationToken::new();
        let ctx = Context::below(theirs.clone());
        let kept = Arc::new(());
        let inner = kept.clone();
        drop(ctx.on_cancel(move || drop(inner)));
        thread::scope(|scope| {
            scope.spawn(|| theirs.cancel());
            drop(ctx);
        });
        // Run or dropped unrun; its last reference may still be in the other thread's hands.
        assert!(soon(|| Arc::strong_count(&kept) == 1), "a callback is left");
    }
}

/// Runs `f` with a token of theirs, its child and a context below that, on a thread that may hang.
fn in_time(f: impl FnOnce(CancellationToken, Context) + Send + 'static) {
    let _alone = alone();
    let (say, hear) = mpsc::channel();
    thread::spawn(move || {
        let server = CancellationToken::new();
        let ctx = Context::below(server.child_token());
        f(server, ctx);
        say.send(()).unwrap();
    });
    let ended = hear.recv_timeout(Duration::from_secs(20));
    ended.expect("the cancel returns");
}

#[test]
fn what_is_woken_may_ask_their_tree() {
    in_time(|server, ctx| {
        let (say, hear) = mpsc::channel();
        let same = server.clone();
        let callback = ctx.on_cancel(move || {
            drop(same.child_token());
            say.send(same.is_cancelled()).unwrap();
        });
        server.cancel();
        assert!(ctx.is_done());
        assert_eq!(hear.recv_timeout(Duration::from_secs(20)), Ok(true));
        assert!(!callback.stop());
    });
}

#[test]
fn what_is_dropped_may_belong_to_their_tree() {
    in_time(|server, ctx| {
        // The last handle of our token and of theirs goes with the callback.
        let below = ctx.child_token();
        let (kept, same) = (Arc::new(()), server.clone());
        let with = (kept.clone(), same, ctx);
        drop(below.on_cancel(move || drop(with)));
        server.cancel();
        assert!(below.is_cancelled());
        assert!(soon(|| Arc::strong_count(&kept) == 1));
    });
}

#[test]
fn threads_and_tasks_below_are_woken() {
    in_time(|server, ctx| {
        let waiting = thread::spawn({
            let ctx = ctx.clone();
            move || ctx.blocking_wait()
        });
        thread::sleep(Duration::from_millis(5));
        server.cancel();
        assert_eq!(ctx.err(), Some(ContextError::Cancelled));
        assert_eq!(waiting.join().unwrap(), ContextError::Cancelled);
        assert_eq!(
            futures::executor::block_on(ctx.done()),
            ContextError::Cancelled
        );
    });
}

#[test]
fn through_any_of_too() {
    in_time(|server, ctx| {
        let (other, _guard) = Context::background().with_cancel();
        let either = Context::any_of([&other, &ctx]);
        let below = either.child_token();
        drop(ctx);
        server.cancel();
        assert!(below.is_cancelled() && either.is_done() && !other.is_done());
    });
}

#[test]
fn cancels_on_two_threads() {
    for _ in 0..500 {
        let _alone = alone();
        let (server, other) = (CancellationToken::new(), CancellationToken::new());
        let ctx = Context::below(server.child_token());
        let below = Context::below(other.clone());
        let either = Context::any_of([&ctx, &below]);
        thread::scope(|scope| {
            let one = scope.spawn(|| {
                server.cancel();
                assert!(ctx.is_done() && either.is_done());
            });
            other.cancel();
            assert!(below.is_done() && either.is_done());
            one.join().unwrap();
        });
    }
}
