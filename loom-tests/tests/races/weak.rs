//! Handles that do not keep their token.

use cancel_tree_loom::{
    model, model_in_all_orders, reached, reason_of, spawn, untouched, Reason, Token, USUAL,
};

#[test]
fn upgrade_vs_drop_of_the_last_handle() {
    model_in_all_orders(USUAL, || {
        let token = Token::new();
        let weak = token.downgrade();
        let thread = spawn(move || drop(token));
        if let Some(token) = weak.upgrade() {
            untouched(&token);
            token.cancel_with(Reason::cause(1));
            assert_eq!(reason_of(&token), 1);
        }
        thread.join().unwrap();
        assert!(weak.upgrade().is_none());
    });
}

/// The upgraded handle is gone before the last owner looks again.
#[test]
fn upgrade_and_drop_vs_drop() {
    model_in_all_orders(USUAL, || {
        let token = Token::new();
        let weak = token.downgrade();
        let thread = spawn(move || drop(token));
        drop(weak.upgrade());
        drop(weak.upgrade());
        thread.join().unwrap();
        assert!(weak.upgrade().is_none());
    });
}

/// Whoever has a handle gets more of them.
#[test]
fn no_false_none_vs_drop() {
    model_in_all_orders(USUAL, || {
        let token = Token::new();
        let weak = token.downgrade();
        let thread = spawn(move || drop(token));
        if let Some(first) = weak.upgrade() {
            let second = weak.upgrade();
            assert!(second.is_some());
            drop(first);
            assert!(weak.upgrade().is_some());
        }
        thread.join().unwrap();
    });
}

#[test]
fn two_upgrades_vs_drop() {
    // Three threads: bound 2.
    model(Some(2), || {
        let token = Token::new();
        let weak = token.downgrade();
        let other = weak.clone();
        let one = spawn(move || drop(token));
        let two = spawn(move || {
            let mine = other.upgrade();
            assert!(mine.is_none() || other.upgrade().is_some());
        });
        let mine = weak.upgrade();
        assert!(mine.is_none() || weak.upgrade().is_some());
        drop(mine);
        one.join().unwrap();
        two.join().unwrap();
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn upgrade_vs_drop_of_two_handles() {
    // Three threads: bound 2.
    model(Some(2), || {
        let token = Token::new();
        let weak = token.downgrade();
        let same = token.clone();
        let one = spawn(move || drop(token));
        let two = spawn(move || drop(same));
        if let Some(token) = weak.upgrade() {
            untouched(&token);
        }
        one.join().unwrap();
        two.join().unwrap();
        assert!(weak.upgrade().is_none());
    });
}

/// The next child moves in where the last one was; a weak handle of that one is not one of its.
#[test]
fn upgrade_vs_drop_and_create() {
    model(USUAL, || {
        let parent = Token::new();
        let token = parent.child_token();
        let weak = token.downgrade();
        let thread = spawn(move || {
            drop(token);
            let next = parent.child_token();
            next.cancel();
            (parent, next)
        });
        if let Some(token) = weak.upgrade() {
            untouched(&token);
            untouched(&token.child_token());
        }
        let (parent, next) = thread.join().unwrap();
        assert!(weak.upgrade().is_none());
        reached(&next);
        untouched(&parent);
    });
}

/// A child keeps the memory, and not the token; a cancel from above reaches whoever upgrades.
#[test]
fn upgrade_of_a_parent_vs_drop_vs_cancel_from_above() {
    // Three threads: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let weak = parent.downgrade();
        let one = spawn(move || drop(parent));
        let two = spawn(move || root.cancel());
        let upgraded = weak.upgrade();
        two.join().unwrap();
        reached(&child);
        upgraded.iter().for_each(reached);
        drop(upgraded);
        one.join().unwrap();
        assert!(weak.upgrade().is_none());
        drop(child);
    });
}

#[test]
fn upgrade_vs_drop_of_an_any_of_vs_cancel_of_the_other_source() {
    // Three threads: bound 1.
    model(Some(1), || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let weak = either.downgrade();
        let one = spawn(move || drop(either));
        let two = spawn(move || b.cancel());
        let upgraded = weak.upgrade();
        two.join().unwrap();
        upgraded.iter().for_each(reached);
        drop(upgraded);
        one.join().unwrap();
        assert!(weak.upgrade().is_none());
        untouched(&a);
    });
}

#[test]
fn two_downgrades() {
    model(USUAL, || {
        let token = Token::new();
        let same = token.clone();
        let thread = spawn(move || {
            let weak = same.downgrade();
            assert!(weak.upgrade().is_some());
            weak
        });
        let weak = token.downgrade();
        assert_eq!(weak.upgrade(), Some(token.clone()));
        let other = thread.join().unwrap();
        assert_eq!(other.upgrade(), Some(token.clone()));
        drop(token);
        assert!(weak.upgrade().is_none() && other.upgrade().is_none());
    });
}

/// The cause moves from where it is to beside the weak handles, whether it stands or not.
#[test]
fn downgrade_vs_cancel_with_a_cause() {
    model_in_all_orders(USUAL, || {
        let token = Token::new();
        let same = token.clone();
        let thread = spawn(move || {
            assert!(same.cancel_with(Reason::cause(1)));
            assert_eq!(reason_of(&same), 1);
        });
        let weak = token.downgrade();
        if token.is_cancelled() {
            assert_eq!(reason_of(&token), 1);
        }
        thread.join().unwrap();
        assert_eq!(reason_of(&weak.upgrade().unwrap()), 1);
    });
}

#[test]
fn downgrade_vs_a_cause_that_is_taken_back() {
    // Three threads: bound 2.
    model(Some(2), || {
        let token = Token::new();
        let (one, two) = (token.clone(), token.clone());
        let one = spawn(move || one.cancel_with(Reason::cause(1)));
        let two = spawn(move || two.cancel());
        let weak = token.downgrade();
        let first = one.join().unwrap();
        two.join().unwrap();
        assert_eq!(reason_of(&token), usize::from(first));
        drop(token);
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn downgrade_vs_cancel_from_above_and_a_cause() {
    // Three threads: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let token = root.child_token();
        let same = token.clone();
        let one = spawn(move || same.cancel_with(Reason::cause(1)));
        let two = spawn(move || root.cancel_with(Reason::cause(2)));
        let weak = token.downgrade();
        let first = one.join().unwrap();
        two.join().unwrap();
        let token = weak.upgrade().unwrap();
        assert_eq!(reason_of(&token), if first { 1 } else { 2 });
    });
}

#[test]
fn downgrade_vs_a_reader_of_the_cause() {
    model_in_all_orders(USUAL, || {
        let token = Token::new();
        token.cancel_with(Reason::cause(1));
        let same = token.clone();
        let thread = spawn(move || assert_eq!(reason_of(&same), 1));
        let weak = token.downgrade();
        thread.join().unwrap();
        assert_eq!(reason_of(&weak.upgrade().unwrap()), 1);
        drop(token);
        assert!(weak.upgrade().is_none());
    });
}
