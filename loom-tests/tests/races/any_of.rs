//! Tokens with several parents.

use cancel_tree_loom::{
    model, model_in_all_orders, poll, reached, reason_of, seed, spawn, untouched, ContextError,
    Probe, Reason, Runs, Token, UNBOUNDED, USUAL,
};
use std::sync::{Arc, Mutex};
use std::task::Wake;

#[test]
fn cancel_of_the_first_source_vs_drop() {
    model(UNBOUNDED, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let thread = spawn(move || drop(either));
        a.cancel();
        thread.join().unwrap();
        untouched(&b);
    });
}

#[test]
fn cancel_of_the_other_source_vs_drop() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let thread = spawn(move || drop(either));
        b.cancel_with(Reason::cause(1));
        drop(b);
        thread.join().unwrap();
        untouched(&a);
    });
}

#[test]
fn cancel_of_the_other_source_vs_drop_and_create() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let (a2, b2) = (a.clone(), b.clone());
        let thread = spawn(move || {
            drop(either);
            (a2.child_token(), b2.child_token())
        });
        b.cancel();
        let (x, y) = thread.join().unwrap();
        untouched(&x);
        reached(&y);
    });
}

#[test]
fn cancel_of_a_source_vs_drop_of_all_else() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let b2 = b.clone();
        let thread = spawn(move || {
            drop(either);
            drop(a);
            drop(b2);
        });
        b.cancel();
        drop(b);
        thread.join().unwrap();
    });
}

#[test]
fn two_sources_cancelled_at_once() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let child = either.child_token();
        let thread = spawn(move || {
            a.cancel_with(Reason::cause(1));
            a
        });
        b.cancel_with(Reason::cause(2));
        reached(&either);
        reached(&child);
        let a = thread.join().unwrap();
        let stands = reason_of(&either);
        assert!(stands == 1 || stands == 2);
        assert_eq!(reason_of(&child), stands);
        assert_eq!((reason_of(&a), reason_of(&b)), (1, 2));
    });
}

#[test]
fn two_other_sources_cancelled_at_once_vs_drop() {
    // Three threads and two edges: bound 2.
    model(Some(2), || {
        let (a, b, c) = (Token::new(), Token::new(), Token::new());
        let either = Token::any_of([&a, &b, &c]);
        let one = spawn(move || b.cancel());
        let two = spawn(move || drop(either));
        c.cancel();
        one.join().unwrap();
        two.join().unwrap();
        untouched(&a);
    });
}

#[test]
fn creation_vs_cancel_of_the_first_source() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let (a2, b2) = (a.clone(), b.clone());
        let thread = spawn(move || Token::any_of([&a2, &b2]));
        a.cancel_with(Reason::cause(1));
        let either = thread.join().unwrap();
        assert_eq!(reason_of(&either), 1);
        untouched(&b);
    });
}

#[test]
fn creation_vs_cancel_of_the_other_source() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let (a2, b2) = (a.clone(), b.clone());
        let thread = spawn(move || Token::any_of([&a2, &b2]));
        b.cancel_with(Reason::cause(1));
        let either = thread.join().unwrap();
        assert_eq!(reason_of(&either), 1);
        untouched(&a);
    });
}

#[test]
fn own_cancel_vs_cancel_of_a_source() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let thread = spawn(move || {
            either.cancel_with(Reason::cause(1));
            assert_ne!(reason_of(&either), 0);
            drop(either);
        });
        b.cancel_with(Reason::cause(2));
        thread.join().unwrap();
        untouched(&a);
    });
}

#[test]
fn waiter_on_any_of_vs_two_sources_cancelled() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let probe = Probe::new();
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let mut future = either.child_token().cancelled_owned();
        assert!(!poll(&mut future, &probe.waker()));
        let thread = spawn(move || a.cancel());
        b.cancel();
        thread.join().unwrap();
        assert_eq!(probe.woken(), 1);
        drop(future);
    });
}

#[test]
fn waiter_on_any_of_vs_cancel_of_the_other_source() {
    model(USUAL, || {
        let probe = Probe::new();
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let waker = probe.waker();
        let task = spawn(move || {
            let mut future = either.cancelled_owned();
            let ready = poll(&mut future, &waker);
            (ready, future)
        });
        b.cancel();
        let (ready, future) = task.join().unwrap();
        assert_eq!(probe.woken(), !ready as usize);
        drop(future);
    });
}

#[test]
fn nested_vs_cancel_of_the_innermost_source() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let (a, b, c) = (Token::new(), Token::new(), Token::new());
        let inner = Token::any_of([&a, &b]);
        let outer = Token::any_of([&c, &inner]);
        let thread = spawn(move || drop(inner));
        b.cancel_with(Reason::cause(1));
        thread.join().unwrap();
        drop(b);
        if outer.is_cancelled() {
            assert_eq!(reason_of(&outer), 1);
        }
        untouched(&a);
        untouched(&c);
    });
}

#[test]
fn nested_kept_vs_two_cancels() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let (a, b, c) = (Token::new(), Token::new(), Token::new());
        let inner = Token::any_of([&a, &b]);
        let outer = Token::any_of([&c, &inner]);
        let same = inner.clone();
        let thread = spawn(move || same.cancel_with(Reason::cause(2)));
        b.cancel_with(Reason::cause(1));
        reached(&inner);
        thread.join().unwrap();
        reached(&outer);
        assert_eq!(reason_of(&outer), reason_of(&inner));
        untouched(&c);
    });
}

#[test]
fn nested_dropped_vs_cancel() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let (a, b, c) = (Token::new(), Token::new(), Token::new());
        let inner = Token::any_of([&a, &b]);
        let outer = Token::any_of([&c, &inner]);
        let thread = spawn(move || {
            drop(inner);
            drop(outer);
        });
        b.cancel();
        drop(b);
        thread.join().unwrap();
    });
}

#[test]
fn source_in_the_same_tree_vs_cancel_of_the_root() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let (a, b) = (root.child_token(), root.child_token());
        let either = Token::any_of([&a, &b]);
        let thread = spawn(move || drop((a, b)));
        root.cancel();
        reached(&either);
        thread.join().unwrap();
    });
}

/// Nobody can stop the callback, nobody holds the token: it waits for all sources nevertheless.
#[test]
fn detached_callback_of_a_dropped_any_of_vs_cancel_of_the_other_source() {
    model(USUAL, || {
        let runs = Runs::default();
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        drop(either.on_cancel(runs.callback()));
        let thread = spawn(move || drop(either));
        b.cancel();
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
        untouched(&a);
    });
}

#[test]
fn detached_callback_of_a_dropped_any_of_vs_two_cancels() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let runs = Runs::default();
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        drop(either.on_cancel(runs.callback()));
        drop(either);
        let thread = spawn(move || a.cancel());
        b.cancel();
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

#[test]
fn stop_vs_drop_of_the_any_of_vs_cancel_of_a_source() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let runs = Runs::default();
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let registration = either.on_cancel(runs.callback());
        let one = spawn(move || registration.stop());
        let two = spawn(move || drop(either));
        b.cancel();
        let stopped = one.join().unwrap();
        two.join().unwrap();
        assert_eq!(runs.count(), !stopped as usize);
        untouched(&a);
    });
}

/// Whoever's cancel of a source has returned may rely on the token being cancelled, also if another's
/// was faster at the source.
#[test]
fn each_of_two_cancels_of_the_other_source_reaches_the_token() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let (b2, either2) = (b.clone(), either.clone());
        let thread = spawn(move || {
            b2.cancel();
            reached(&either2);
        });
        b.cancel();
        reached(&either);
        thread.join().unwrap();
        untouched(&a);
    });
}

#[test]
fn two_cancels_of_the_other_source_vs_drop() {
    // Three threads: bound 1.
    model(Some(1), || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let b2 = b.clone();
        let one = spawn(move || b2.cancel());
        let two = spawn(move || drop(either));
        b.cancel();
        one.join().unwrap();
        two.join().unwrap();
        untouched(&a);
    });
}

/// The last owner leaves its handle while two are at the edge: who is through last gives it up.
#[test]
fn two_cancels_of_the_other_source_vs_a_waker_that_drops_the_token() {
    struct Dropping(Mutex<Option<Token>>);

    impl Wake for Dropping {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }

    model(Some(2), || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let mut waiting = Box::pin(b.clone().cancelled_owned());
        let dropping = Dropping(Mutex::new(Some(either)));
        assert!(!poll(&mut waiting, &Arc::new(dropping).into()));
        let b2 = b.clone();
        let thread = spawn(move || b2.cancel());
        b.cancel();
        thread.join().unwrap();
        untouched(&a);
    });
}

#[test]
fn cancel_of_the_other_source_and_drop_vs_cancel() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let b2 = b.clone();
        let thread = spawn(move || {
            b2.cancel();
            drop(either);
        });
        b.cancel();
        thread.join().unwrap();
        untouched(&a);
    });
}

#[test]
fn each_of_two_cancels_reaches_what_is_nested() {
    // Too many executions at 2: bound 1.
    model(Some(1), || {
        let (a, b, c) = (Token::new(), Token::new(), Token::new());
        let inner = Token::any_of([&a, &b]);
        let outer = Token::any_of([&c, &inner]);
        drop(inner);
        let (b2, outer2) = (b.clone(), outer.clone());
        let thread = spawn(move || {
            b2.cancel();
            reached(&outer2);
        });
        b.cancel();
        reached(&outer);
        thread.join().unwrap();
        untouched(&c);
    });
}

/// Below a root that both cancel: one takes an edge that the other one needs, and finds its own again.
#[test]
fn two_cancels_above_all_sources() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let either = {
            let child = root.child_token();
            Token::any_of([&child, &root])
        };
        let (root2, either2) = (root.clone(), either.clone());
        let thread = spawn(move || {
            root2.cancel();
            reached(&either2);
        });
        root.cancel();
        reached(&either);
        thread.join().unwrap();
    });
}

/// A canceller who comes to the token from above counts itself among its handles while it looks at its edges.
#[test]
fn cancel_from_above_vs_drop_of_a_token_that_had_a_child() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        seed(&either, 1);
        let thread = spawn(move || drop(either));
        a.cancel();
        thread.join().unwrap();
        untouched(&b);
    });
}

/// The same, and the token has a cause of its own, which the last owner drops: that may be the canceller.
#[test]
fn cancel_from_above_vs_cancel_and_drop_of_a_token_with_a_child() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let child = either.child_token();
        let thread = spawn(move || {
            either.cancel_with(Reason::cause(1));
            drop(either);
        });
        a.cancel_with(Reason::cause(2));
        reached(&child);
        thread.join().unwrap();
        drop(child);
        untouched(&b);
    });
}

/// Two cancellers come to the same tokens, each on two ways. Each must have been at all of them when it returns.
#[test]
fn two_cancels_that_both_lead_to_a_token_and_one_below_it() {
    // Two nested tokens, two cancellers, two edges to each: bound 1.
    model(Some(1), || {
        let (a, b, c) = (Token::new(), Token::new(), Token::new());
        let outer = Token::any_of([&a, &b, &c]);
        let inner = Token::any_of([&outer, &b, &c]);
        let child = inner.child_token();
        let below = child.clone();
        let thread = spawn(move || {
            b.cancel();
            reached(&below);
        });
        c.cancel();
        reached(&child);
        thread.join().unwrap();
        untouched(&a);
    });
}

/// Who waits below a token that is reached on two ways by two cancellers is woken, once.
#[test]
fn waiter_below_a_token_that_two_cancels_reach_from_above_and_by_an_edge() {
    // Bound 2.
    model(Some(2), || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let child = either.child_token();
        let probe = Probe::new();
        let mut waiting = Box::pin(child.clone().cancelled_owned());
        assert!(!poll(&mut waiting.as_mut(), &probe.waker()));
        let thread = spawn(move || {
            b.cancel();
            b
        });
        a.cancel();
        reached(&child);
        thread.join().unwrap();
        assert_eq!(probe.woken(), 1);
    });
}

/// Which source it was, for a token that has been cancelled: by one of these, whose causes have their numbers.
#[track_caller]
fn source_of(token: &Token) -> Option<usize> {
    reached(token);
    let source = token.any_of_source();
    assert_eq!(reason_of(token), source.map_or(0, |source| source + 1));
    source
}

#[test]
fn which_of_two_sources_that_are_cancelled_at_once() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let same = either.clone();
        let thread = spawn(move || {
            a.cancel_with(Reason::cause(1));
            source_of(&same)
        });
        b.cancel_with(Reason::cause(2));
        let source = source_of(&either);
        assert!(source.is_some());
        assert_eq!(thread.join().unwrap(), source);
    });
}

/// Neither is the one that the token is below.
#[test]
fn which_of_two_other_sources_that_are_cancelled_at_once() {
    // Two edges: bound 2.
    model_in_all_orders(Some(2), || {
        let (a, b, c) = (Token::new(), Token::new(), Token::new());
        let either = Token::any_of([&a, &b, &c]);
        let same = either.clone();
        let thread = spawn(move || {
            b.cancel_with(Reason::cause(2));
            source_of(&same)
        });
        c.cancel_with(Reason::cause(3));
        let source = source_of(&either);
        assert!(source.is_some());
        assert_eq!(thread.join().unwrap(), source);
        untouched(&a);
    });
}

/// The kind tells them apart, and nothing is counted.
#[test]
fn which_of_two_other_sources_without_a_cause_of_their_own() {
    model_in_all_orders(Some(2), || {
        let (a, b, c) = (Token::new(), Token::new(), Token::new());
        let either = Token::any_of([&a, &b, &c]);
        let same = either.clone();
        let thread = spawn(move || b.cancel_with(ContextError::DeadlineExceeded));
        c.cancel();
        let source = either.any_of_source();
        let late = either.cause().unwrap() == ContextError::DeadlineExceeded;
        assert_eq!(source, Some(if late { 1 } else { 2 }));
        thread.join().unwrap();
        assert_eq!(same.any_of_source(), source);
        untouched(&a);
    });
}

/// Whoever sees the cancel sees at once which source it was.
#[test]
fn which_source_vs_cancel_of_the_other_source() {
    model_in_all_orders(UNBOUNDED, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let thread = spawn(move || b.cancel());
        if either.is_cancelled() {
            assert_eq!(either.any_of_source(), Some(1));
        }
        thread.join().unwrap();
        assert_eq!(either.any_of_source(), Some(1));
        untouched(&a);
    });
}

/// The same with a cause, which may be another canceller's of the same source.
#[test]
fn which_source_vs_two_cancels_of_the_other_source() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let (b2, same) = (b.clone(), either.clone());
        let thread = spawn(move || {
            b2.cancel_with(Reason::cause(2));
            assert_eq!(same.any_of_source(), Some(1));
            reason_of(&same)
        });
        b.cancel_with(Reason::cause(3));
        assert_eq!(either.any_of_source(), Some(1));
        let reason = reason_of(&either);
        assert_eq!(thread.join().unwrap(), reason);
        untouched(&a);
    });
}

#[test]
fn which_source_vs_own_cancel_with_a_cause() {
    model_in_all_orders(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let same = either.clone();
        let thread = spawn(move || {
            let first = same.cancel_with(Reason::cause(1));
            assert_eq!(same.any_of_source().is_none(), first);
            first
        });
        b.cancel_with(Reason::cause(2));
        let source = either.any_of_source();
        assert_eq!(reason_of(&either), source.map_or(1, |_| 2));
        let first = thread.join().unwrap();
        assert_eq!(source, (!first).then_some(1));
        untouched(&a);
    });
}

/// What has been placed for the edge must not be taken for the source of a cancel that has none.
#[test]
fn which_source_vs_own_plain_cancel() {
    model_in_all_orders(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let same = either.clone();
        let thread = spawn(move || {
            same.cancel();
            same.any_of_source()
        });
        b.cancel_with(Reason::cause(2));
        let source = either.any_of_source();
        assert_eq!(reason_of(&either), source.map_or(0, |_| 2));
        assert_eq!(thread.join().unwrap(), source);
        untouched(&a);
    });
}

#[test]
fn which_source_vs_creation() {
    model(USUAL, || {
        let (a, b, c) = (Token::new(), Token::new(), Token::new());
        let (a2, b2, c2) = (a.clone(), b.clone(), c.clone());
        let thread = spawn(move || Token::any_of([&a2, &b2, &c2]));
        c.cancel_with(Reason::cause(3));
        b.cancel_with(Reason::cause(2));
        let either = thread.join().unwrap();
        let source = source_of(&either);
        assert!(matches!(source, Some(1 | 2)));
        untouched(&a);
    });
}

#[test]
fn which_source_vs_creation_below_one_that_is_cancelled() {
    model_in_all_orders(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let (a2, b2) = (a.clone(), b.clone());
        let thread = spawn(move || Token::any_of([&a2, &b2]));
        a.cancel_with(Reason::cause(1));
        let either = thread.join().unwrap();
        assert_eq!(source_of(&either), Some(0));
        untouched(&b);
    });
}
