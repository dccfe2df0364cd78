//! Who is the last one, and frees: nobody joins before all is gone.

use cancel_tree::Context;
use cancel_tree_loom::{
    model, model_in_all_orders, reached, reason_of, spawn, untouched, Reason, Token, UNBOUNDED,
    USUAL,
};

#[test]
fn clone_vs_last_drop() {
    model(UNBOUNDED, || {
        let token = Token::new();
        let other = token.clone();
        let thread = spawn(move || {
            let another = other.clone();
            drop(other);
            untouched(&another);
        });
        drop(token);
        thread.join().unwrap();
    });
}

#[test]
fn clone_of_a_child_vs_its_last_drop_vs_creator() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let child = root.child_token();
        let other = child.clone();
        let a = spawn(move || drop(other.clone()));
        let b = spawn(move || drop(child));
        let new = root.child_token();
        untouched(&new);
        drop(root);
        a.join().unwrap();
        b.join().unwrap();
    });
}

#[test]
fn handles_of_root_and_child_dropped_by_two_threads() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let child = root.child_token();
        let (root2, child2) = (root.clone(), child.clone());
        let thread = spawn(move || {
            untouched(&root2);
            drop(child2);
            drop(root2);
        });
        untouched(&child);
        drop(child);
        drop(root);
        thread.join().unwrap();
    });
}

/// Who gives up a handle has read the token before; the last owner frees it after that.
#[test]
fn reading_and_dropping_vs_freeing() {
    model(UNBOUNDED, || {
        let token = Token::new();
        let other = token.clone();
        let thread = spawn(move || {
            other.cancel_with(Reason::cause(1));
            drop(other);
        });
        if token.is_cancelled() {
            assert_eq!(reason_of(&token), 1);
        }
        drop(token);
        thread.join().unwrap();
    });
}

#[test]
fn clones_dropped_vs_creator_vs_cancel() {
    model(USUAL, || {
        let root = Token::new();
        let child = root.child_token();
        let other = child.clone();
        let above = root.clone();
        let a = spawn(move || {
            drop(child);
            above.child_token()
        });
        let b = spawn(move || drop(other));
        root.cancel();
        reached(&a.join().unwrap());
        b.join().unwrap();
    });
}

#[test]
fn parent_dropped_vs_last_child_dropped() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let thread = spawn(move || drop(child));
        drop(parent);
        drop(root);
        thread.join().unwrap();
    });
}

#[test]
fn root_dropped_vs_last_child_dropped() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let child = root.child_token();
        let thread = spawn(move || drop(child));
        drop(root);
        thread.join().unwrap();
    });
}

#[test]
fn root_dropped_vs_last_child_reads_and_drops() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let child = root.child_token();
        root.cancel_with(Reason::cause(1));
        let thread = spawn(move || assert_eq!(reason_of(&child), 1));
        assert_eq!(reason_of(&root), 1);
        drop(root);
        thread.join().unwrap();
    });
}

#[test]
fn parent_dropped_vs_last_child_dropped_vs_root_cancelled() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let a = spawn(move || drop(parent));
        let b = spawn(move || drop(child));
        root.cancel();
        drop(root);
        a.join().unwrap();
        b.join().unwrap();
    });
}

#[test]
fn parent_dropped_vs_child_cancelled_and_dropped() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let thread = spawn(move || {
            child.cancel_with(Reason::cause(1));
            assert_eq!(reason_of(&child), 1);
            drop(child);
        });
        drop(parent);
        drop(root);
        thread.join().unwrap();
    });
}

/// The orphan's handle is given up by a thread that was never on the parent's; what it does up
/// there includes freeing the root.
#[test]
fn parent_cancelled_and_dropped_vs_root_dropped_vs_leaf_last() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let parent = root.child_token();
        let leaf = parent.child_token();
        let a = spawn(move || {
            parent.cancel_with(Reason::cause(1));
            drop(parent);
        });
        let b = spawn(move || {
            let _ = leaf.cause();
            drop(leaf);
        });
        drop(root);
        a.join().unwrap();
        b.join().unwrap();
    });
}

#[test]
fn orphan_makes_children_vs_parent_dropped() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let thread = spawn(move || drop(child.child_token()));
        drop(parent);
        let next = root.child_token();
        untouched(&next);
        drop((root, next));
        thread.join().unwrap();
    });
}

// The three that the suite of tokio-util has to leave out.

#[test]
fn drop_token_with_children_from_three_threads() {
    model(USUAL, || {
        let root = Token::new();
        let (first, second) = (root.child_token(), root.child_token());
        let a = spawn(move || drop(first));
        let b = spawn(move || drop(second));
        drop(root);
        a.join().unwrap();
        b.join().unwrap();
    });
}

#[test]
fn drop_and_cancel_and_child_drop() {
    model(USUAL, || {
        let root = Token::new();
        let child = root.child_token();
        let same = root.clone();
        let a = spawn(move || drop(child));
        let b = spawn(move || same.cancel());
        drop(root);
        a.join().unwrap();
        b.join().unwrap();
    });
}

#[test]
fn cancel_parent_and_child_while_a_clone_is_dropped() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let child = root.child_token();
        let same = child.clone();
        let a = spawn(move || {
            child.cancel();
            reached(&child);
        });
        let b = spawn(move || drop(same));
        root.cancel();
        drop(root);
        a.join().unwrap();
        b.join().unwrap();
    });
}

#[test]
fn three_levels_dropped_by_three_threads() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let sibling = parent.child_token();
        let a = spawn(move || drop(parent));
        let b = spawn(move || drop(child));
        drop(sibling);
        drop(root);
        a.join().unwrap();
        b.join().unwrap();
    });
}

#[test]
fn guard_dropped_vs_context_dropped() {
    model(UNBOUNDED, || {
        let (ctx, guard) = Context::background().with_cancel();
        let thread = spawn(move || drop(guard));
        drop(ctx);
        thread.join().unwrap();
    });
}

#[test]
fn guard_dropped_vs_context_dropped_child_below() {
    model_in_all_orders(USUAL, || {
        let (ctx, guard) = Context::background().with_cancel();
        let child = ctx.child_token();
        let thread = spawn(move || drop(ctx));
        drop(guard);
        reached(&child);
        thread.join().unwrap();
    });
}
