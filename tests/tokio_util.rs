//! tokio-util's tokens and our contexts, one below the other.

use cancel_tree::integrations::tokio_util::tokio_token;
use cancel_tree::{Context, ContextError};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Counts the bytes that each thread has in use.
struct Counting;

thread_local! {
    static IN_USE: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let _ = IN_USE.try_with(|n| n.set(n.get() + bytes));
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Fails if `f`, which stays on this thread, leaves memory behind.
fn leaves_nothing(f: impl Fn()) {
    // What is made once and kept.
    f();
    let before = IN_USE.get();
    f();
    assert_eq!(IN_USE.get(), before, "bytes are left");
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
fn ours_below_theirs_below_ours() {
    leaves_nothing(|| {
        let (top, guard) = Context::background().with_cancel();
        let middle = tokio_token(&top);
        let bottom = Context::below(middle.clone());
        let callback = bottom.on_cancel(|| ());
        guard.cancel_with("from the top");
        assert!(bottom.is_done());
        assert!(!callback.stop());
    });
}

#[test]
fn many_short_lived_ones_below_a_long_lived_one_leave_nothing() {
    let theirs = CancellationToken::new();
    leaves_nothing(|| {
        for _ in 0..1000 {
            let ctx = Context::below(theirs.clone());
            assert!(!ctx.is_done());
        }
    });
    let (ours, _guard) = Context::background().with_cancel();
    leaves_nothing(|| {
        for _ in 0..1000 {
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
        let begin = std::time::Instant::now();
        while Arc::strong_count(&kept) > 1 {
            assert!(
                begin.elapsed() < Duration::from_secs(10),
                "a callback is left"
            );
        }
    }
}
