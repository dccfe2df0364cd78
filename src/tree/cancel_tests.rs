//! A cancel that rests half way, as the timer's do, and others meanwhile, on one thread: so whoever is woken was woken by these.

use super::Cancel;
use crate::tree::cause::{Cause, ContextError};
use crate::CancellationToken;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
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

/// Edges in a chain below what another cancel is in the middle of, and more edges below their targets: whose the cause is has to be
/// found for each.
#[test]
fn edges_below_another_cancel_that_rests_take_a_few_steps_each() {
    const N: usize = 3_000;
    let [root, source, x] = [0; 3].map(|_| CancellationToken::new());
    let mut chain = vec![root.child_token()];
    for i in 1..N {
        chain.push(chain[i - 1].child_token());
    }
    let targets: Vec<_> = chain
        .iter()
        .map(|token| CancellationToken::any_of([token, &source]))
        .collect();
    let behind: Vec<_> = targets
        .iter()
        .map(|target| CancellationToken::any_of([&x, target]))
        .collect();

    // SAFETY: the tokens are kept until the end.
    let begin = |token: &CancellationToken, cause: Cause| unsafe {
        Cancel::begin(NonNull::from(token.handle().node()), cause)
    };
    let mut first = begin(&root, ContextError::DeadlineExceeded.into());
    while !targets.iter().all(CancellationToken::is_cancelled) {
        assert!(!first.mark(N));
    }
    assert!(!behind.iter().any(CancellationToken::is_cancelled));
    let mut second = begin(&source, ContextError::Cancelled.into());
    let mut steps = 1;
    while !second.mark(1) {
        steps += 1;
    }
    assert!(steps < 60 * N, "{steps}");
    for token in &behind {
        assert_eq!(
            token.cause().map(|c| c.kind()),
            Some(ContextError::DeadlineExceeded)
        );
    }
    let mut panics = crate::sync::Panics::default();
    second.finish(&mut panics);
    first.finish(&mut panics);
    panics.resume();
}
