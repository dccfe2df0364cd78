//! Cancels that meet.

use cancel_tree::{Context, Service};
use cancel_tree_loom::{
    model, poll, reached, seed, spawn, ContextError, Probe, Token, UNBOUNDED, USUAL,
};

#[test]
fn cancel_vs_cancel_of_one_token() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let (root2, parent2, child2) = (root.clone(), parent.clone(), child.clone());
        let thread = spawn(move || {
            root2.cancel();
            // Also if the other one was first and is still on its way.
            reached(&parent2);
            reached(&child2);
        });
        root.cancel();
        reached(&parent);
        reached(&child);
        thread.join().unwrap();
    });
}

#[test]
fn cancel_vs_cancel_one_level_up() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let leaf = child.child_token();
        let (child2, leaf2) = (child.clone(), leaf.clone());
        let thread = spawn(move || {
            parent.cancel();
            reached(&child2);
            reached(&leaf2);
            drop((child2, leaf2));
            reached(&parent);
            parent
        });
        root.cancel();
        reached(&child);
        reached(&leaf);
        reached(&thread.join().unwrap());
    });
}

#[test]
fn cancels_at_two_levels_vs_creator_below() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        seed(&parent, 1);
        let (two, three) = (parent.clone(), parent.clone());
        let a = spawn(move || two.cancel());
        let b = spawn(move || three.child_token());
        root.cancel();
        a.join().unwrap();
        reached(&b.join().unwrap());
        reached(&parent);
    });
}

/// An inherited cancel found on the token: its canceller may not have come to what is below.
#[test]
fn cancel_of_a_token_that_an_ancestor_cancels() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let below = child.clone();
        let thread = spawn(move || {
            // Perhaps it is marked already, and the child is not.
            parent.cancel();
            reached(&below);
        });
        root.cancel();
        reached(&child);
        thread.join().unwrap();
    });
}

/// What a cancel finds done need not be walked again, but must be done.
#[test]
fn three_cancels_on_one_path() {
    // Three cancellers: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let leaf = child.child_token();
        let a = spawn(move || {
            parent.cancel();
            parent
        });
        let b = spawn(move || {
            child.cancel();
            child
        });
        root.cancel();
        reached(&leaf);
        reached(&a.join().unwrap());
        reached(&b.join().unwrap());
    });
}

/// Nested guards: the second cancel finds that the ancestor's is through.
#[test]
fn cancel_below_a_finished_cancel_vs_reader() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let canceller = root.clone();
        let thread = spawn(move || canceller.cancel());
        child.cancel();
        parent.cancel();
        reached(&child);
        thread.join().unwrap();
        root.cancel();
    });
}

/// The second canceller finds the creator's parent marked by the first, which may be on its way
/// still: what was made before the mark is cancelled when the second one returns.
#[test]
fn second_canceller_vs_creator_below_vs_first() {
    // Two cancellers and a creator: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let same = root.clone();
        let first = spawn(move || same.cancel());
        let creator = spawn(move || (parent.child_token(), parent));
        root.cancel();
        let (new, parent) = creator.join().unwrap();
        for token in [&new, &parent, &child] {
            reached(token);
        }
        first.join().unwrap();
    });
}

/// A cancel below notes on its way up that all is marked. Whoever has marked it still wakes there.
#[test]
fn cancel_below_notes_what_the_canceller_above_is_to_wake() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let _leaf = child.child_token();
        let probe = Probe::new();
        let mut waiting = Box::pin(child.clone().cancelled_owned());
        assert!(!poll(&mut waiting.as_mut(), &probe.waker()));
        let thread = spawn(move || {
            parent.cancel();
            parent
        });
        root.cancel();
        thread.join().unwrap();
        assert_eq!(probe.woken(), 1);
    });
}

/// Three on one path: what the one in the middle finds marked by the lowest, which has not cancelled it, is its to wake.
#[test]
fn what_a_helper_has_marked_is_woken() {
    // Three cancellers, four levels: bound 1.
    model(Some(1), || {
        let root = Token::new();
        let middle = root.child_token();
        let parent = middle.child_token();
        let child = parent.child_token();
        let probe = Probe::new();
        let mut waiting = Box::pin(child.clone().cancelled_owned());
        assert!(!poll(&mut waiting.as_mut(), &probe.waker()));
        let a = spawn(move || {
            middle.cancel();
            middle
        });
        let b = spawn(move || {
            parent.cancel();
            reached(&child);
            parent
        });
        root.cancel();
        a.join().unwrap();
        b.join().unwrap();
        assert_eq!(probe.woken(), 1);
    });
}

/// A cancel far below another one wakes only whom it has won: whoever waits there is woken by one of the two, once.
#[test]
fn cancel_far_below_vs_cancel() {
    model(Some(2), || {
        let root = Token::new();
        let far = (0..2).fold(root.clone(), |token, _| token.child_token());
        let child = far.child_token();
        let probe = Probe::new();
        let mut waiting = Box::pin(child.clone().cancelled_owned());
        assert!(!poll(&mut waiting.as_mut(), &probe.waker()));
        let thread = spawn(move || {
            far.cancel();
            reached(&child);
        });
        root.cancel();
        thread.join().unwrap();
        assert_eq!(probe.woken(), 1);
    });
}

/// Within another tree's callback a cancel wakes whom it has won: whichever of the two wins the token in the middle, who
/// waits below is woken.
#[test]
fn cancel_within_a_callback_vs_cancel_above() {
    model(USUAL, || {
        let root = Token::new();
        let middle = root.child_token();
        let child = middle.child_token();
        let probe = Probe::new();
        let mut waiting = Box::pin(child.clone().cancelled_owned());
        assert!(!poll(&mut waiting.as_mut(), &probe.waker()));
        let other = Token::new();
        drop(other.on_cancel(move || {
            middle.cancel();
            reached(&child);
        }));
        let thread = spawn(move || {
            root.cancel();
            root
        });
        other.cancel();
        thread.join().unwrap();
        assert_eq!(probe.woken(), 1);
    });
}

/// A deadline has marked all below, and nobody is woken yet. A cancel below finds that on its way up, before it has seen who
/// waits, and notes it: also at the token between, whose own canceller is still on its way down, and wakes what is there.
#[test]
fn cancel_of_a_token_between_vs_cancel_below_of_what_a_deadline_has_marked() {
    model(USUAL, || {
        let mut service = Service::new();
        let (ctx, guard) = Context::background().with_deadline(Service::at(1));
        guard.detach();
        let middle = ctx.child_token();
        let parent = middle.child_token();
        let between = parent.child_token();
        let child = between.child_token();
        let probe = Probe::new();
        let mut waiting = Box::pin(child.clone().cancelled_owned());
        assert!(!poll(&mut waiting, &probe.waker()));
        let thread = spawn(move || {
            middle.cancel();
            middle
        });
        let round = service.expire(Service::at(1));
        parent.cancel();
        round.fire();
        thread.join().unwrap();
        assert_eq!(probe.woken(), 1);
    });
}

/// A node's kind is that of the cancel whose cause it has, whoever has marked it.
#[test]
fn the_kind_is_that_of_the_cause_whoever_marks() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let context = parent.child_token().context();
        let beside = root.child_token().context();
        let thread = spawn(move || {
            parent.cancel_with(ContextError::DeadlineExceeded);
            parent
        });
        root.cancel();
        let kind = context.err().expect("a lost cancel");
        assert_eq!(context.cause().map(|cause| cause.kind()), Some(kind));
        assert_eq!(beside.err(), Some(ContextError::Cancelled));
        thread.join().unwrap();
        assert_eq!(context.err(), Some(kind));
    });
}
