//! A cancel that rests half way, as the timer's do, and others meanwhile, on one thread: so whoever is woken was woken by these.

use super::Cancel;
use crate::tree::cause::ContextError;
use crate::CancellationToken;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use core::task::{Context, Waker};
use std::task::Wake;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// One below notes as marked what inherits; the other one helps, and runs a callback: not before it has woken whoever waits there.
#[test]
fn who_helps_wakes_below_what_others_have_noted_before_it_calls() {
    let root = CancellationToken::new();
    let token = root.child_token();
    let child = token.child_token();
    let woken = Arc::new(Count::default());
    let waker = Waker::from(woken.clone());
    let mut waiting = Box::pin(child.clone().cancelled_owned());
    let poll = waiting.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(poll.is_pending());
    let (ran, there) = (Arc::new(Count::default()), woken.clone());
    let run = ran.clone();
    drop(root.on_cancel(move || {
        assert_eq!(there.0.load(SeqCst), 1);
        run.wake();
    }));

    let node = NonNull::from(root.handle().node());
    // SAFETY: the token is kept until the end.
    let mut first = unsafe { Cancel::begin(node, ContextError::Cancelled.into()) };
    while !child.is_cancelled() {
        assert!(!first.mark(1));
    }
    token.cancel();
    assert_eq!(
        woken.0.load(SeqCst),
        0,
        "what it inherits is the other one's"
    );
    root.cancel();
    assert_eq!(ran.0.load(SeqCst), 1);

    let mut panics = crate::sync::Panics::default();
    first.finish(&mut panics);
    panics.resume();
    assert_eq!((woken.0.load(SeqCst), ran.0.load(SeqCst)), (1, 1));
}
