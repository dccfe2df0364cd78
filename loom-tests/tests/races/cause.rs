//! Whose cause stands, and who may read it.

use cancel_tree::GuardDropped;
use cancel_tree_loom::{
    model, reached, reason_of, seed, spawn, Cause, ContextError, Reason, Token, UNBOUNDED, USUAL,
};

#[test]
fn two_causes_vs_reader() {
    model(USUAL, || {
        let token = Token::new();
        let (one, two) = (token.clone(), token.clone());
        let a = spawn(move || {
            let first = one.cancel_with(Reason::cause(1));
            let stands = reason_of(&one);
            assert_eq!(first, stands == 1);
            stands
        });
        let b = spawn(move || {
            let first = two.cancel_with(Reason::cause(2));
            let stands = reason_of(&two);
            assert_eq!(first, stands == 2);
            stands
        });
        let early = token.cause().map(|_| reason_of(&token));
        let (a, b) = (a.join().unwrap(), b.join().unwrap());
        assert_eq!(a, b);
        assert_eq!(reason_of(&token), a);
        assert!(early.is_none_or(|early| early == a), "a cause that changed");
    });
}

#[test]
fn two_causes_on_one_token() {
    model(UNBOUNDED, || {
        let token = Token::new();
        let other = token.clone();
        let thread = spawn(move || other.cancel_with(Reason::cause(1)));
        let here = token.cancel_with(Reason::cause(2));
        // Also the loser returns with the token cancelled.
        let stands = reason_of(&token);
        let there = thread.join().unwrap();
        assert!(here != there, "one of them was first");
        assert_eq!(stands, if here { 2 } else { 1 });
    });
}

#[test]
fn a_cause_vs_a_plain_cancel_vs_a_cause() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let token = Token::new();
        let (one, two) = (token.clone(), token.clone());
        let a = spawn(move || (one.cancel_with(Reason::cause(1)), reason_of(&one)));
        let b = spawn(move || (two.cancel_with(ContextError::Cancelled), reason_of(&two)));
        let c = (token.cancel_with(Reason::cause(3)), reason_of(&token));
        let (a, b) = (a.join().unwrap(), b.join().unwrap());
        assert_eq!(a.0 as u8 + b.0 as u8 + c.0 as u8, 1, "one first");
        let stands = if a.0 {
            1
        } else if c.0 {
            3
        } else {
            0
        };
        assert_eq!([a.1, b.1, c.1], [stands; 3]);
    });
}

#[test]
fn a_cause_vs_the_cancel_of_an_ancestor() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let child = root.child_token();
        seed(&child, 1);
        let leaf = child.child_token();
        let thread = spawn(move || {
            let first = child.cancel_with(Reason::cause(1));
            let stands = reason_of(&child);
            assert_eq!(first, stands == 1);
            (stands, child)
        });
        root.cancel_with(Reason::cause(2));
        assert_eq!(reason_of(&root), 2);
        let early = reason_of(&leaf);
        let (stands, child) = thread.join().unwrap();
        assert_eq!(reason_of(&child), stands);
        assert_eq!(reason_of(&leaf), stands);
        assert!(early == stands || early == 2);
    });
}

#[test]
fn kinds_vs_reader() {
    model(UNBOUNDED, || {
        let token = Token::new();
        let child = token.child_token();
        let other = token.clone();
        let thread = spawn(move || {
            other.cancel_with(Cause::with_kind(
                ContextError::DeadlineExceeded,
                Reason::new(1),
            ))
        });
        let here = token.cancel_with(ContextError::Cancelled);
        let cause = child.cause().unwrap();
        let there = thread.join().unwrap();
        assert!(here != there);
        assert_eq!(cause.kind() == ContextError::DeadlineExceeded, there);
        assert_eq!(reason_of(&child), there as usize);
    });
}

#[test]
fn reader_of_an_inherited_cause() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let parent = root.child_token();
        let leaf = parent.child_token();
        drop(parent);
        let thread = spawn(move || {
            if leaf.is_cancelled() {
                assert_eq!(reason_of(&leaf), 1);
            }
            drop(leaf);
        });
        root.cancel_with(Reason::cause(1));
        drop(root);
        thread.join().unwrap();
    });
}

#[test]
fn creator_inherits_the_cause() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let parent = root.child_token();
        let creator = spawn(move || {
            let child = parent.child_token();
            if child.is_cancelled() {
                assert_eq!(reason_of(&child), 1);
            }
            (child, parent)
        });
        root.cancel_with(Reason::cause(1));
        drop(root);
        let (child, parent) = creator.join().unwrap();
        reached(&child);
        assert_eq!(reason_of(&child), 1);
        drop(parent);
    });
}

/// A cause that lost must not be seen by anybody, and goes once.
#[test]
fn cause_taken_back_vs_drop_of_the_token() {
    model(USUAL, || {
        let root = Token::new();
        let child = root.child_token();
        let other = child.clone();
        let thread = spawn(move || {
            other.cancel_with(Reason::cause(1));
            drop(other);
        });
        root.cancel();
        drop(child);
        drop(root);
        thread.join().unwrap();
    });
}

/// The node comes from a chain of free ones: its `link` was a hint a moment ago.
#[test]
fn cause_of_a_recycled_child_vs_cancel_above() {
    model(USUAL, || {
        let root = Token::new();
        seed(&root, 2);
        let parent = root.clone();
        let thread = spawn(move || {
            let child = parent.child_token();
            child.cancel_with(Reason::cause(1));
            let stands = reason_of(&child);
            drop(child);
            (stands, parent.child_token())
        });
        root.cancel();
        let (stands, next) = thread.join().unwrap();
        assert!(stands <= 1);
        assert_eq!(reason_of(&next), 0);
    });
}

#[test]
fn a_cause_vs_the_drop_of_a_guard() {
    model(UNBOUNDED, || {
        let token = Token::new();
        let guard = token.clone().drop_guard();
        let other = token.clone();
        let thread = spawn(move || {
            let first = other.cancel_with(Reason::cause(1));
            assert_eq!(first, !by_guard(&other));
            first
        });
        drop(guard);
        let early = by_guard(&token);
        let first = thread.join().unwrap();
        assert_eq!((early, by_guard(&token)), (!first, !first));
        assert_eq!(by_guard(&token.child_token()), !first);
    });
}

/// The guard's one step, where nobody looks closer.
#[test]
fn a_cause_vs_the_drop_of_a_contexts_guard() {
    model(UNBOUNDED, || {
        let (ctx, guard) = cancel_tree::Context::background().with_cancel();
        let canceller = guard.canceller();
        let thread = spawn(move || canceller.cancel_with(Reason::cause(1)));
        drop(guard);
        let cause = ctx.cause().unwrap();
        let first = thread.join().unwrap();
        for cause in [cause, ctx.cause().unwrap()] {
            assert_eq!(cause.downcast_ref::<GuardDropped>().is_some(), !first);
            assert_eq!(cause.downcast_ref::<Reason>().is_some(), first);
        }
    });
}

fn by_guard(token: &Token) -> bool {
    let cause = token.cause().unwrap();
    let by_guard = cause.downcast_ref::<GuardDropped>().is_some();
    assert_eq!(cause.downcast_ref::<Reason>().is_some(), !by_guard);
    by_guard
}
