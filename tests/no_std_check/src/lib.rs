//! Everything of the core that needs no std, called from a crate that has none.
#![no_std]

extern crate alloc;

use alloc::string::String;
use cancel_tree::{CancellationToken, Cause, ContextError, FutureExt, StaticToken};
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

static STOP: StaticToken = StaticToken::new();

/// What an interrupt handler may ask.
pub fn is_stopping() -> bool {
    STOP.is_cancelled()
}

/// A tree, a waiter, a callback, several parents, causes.
pub fn everything() -> Option<String> {
    let root = STOP.token().child_token();
    let weak = root.downgrade();
    let other = CancellationToken::new();
    let child = root.child_token();
    let either = CancellationToken::any_of([&child, &other]);
    let registration = either.on_cancel(|| ());
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = pin!(either.cancelled());
    assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
    let mut work = pin!(core::future::pending::<()>().with_cancellation_token(&root));
    assert_eq!(work.as_mut().poll(&mut context), Poll::Pending);
    let guard = other.clone().drop_guard();
    root.cancel_with(Cause::with_kind(ContextError::DeadlineExceeded, "late"));
    assert!(waiting.poll(&mut context).is_ready());
    assert!(!registration.stop());
    drop(guard);
    assert!(weak.upgrade().is_some());
    either.cause().map(|cause| alloc::format!("{cause}"))
}
