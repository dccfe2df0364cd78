//! Dropping children, and moving into what they leave, against cancelling above them.

use cancel_tree_loom::{
    model, poll, reached, reason_of, seed, spawn, untouched, Probe, Reason, Token, UNBOUNDED, USUAL,
};

/// A child of `above` that has a free child of its own and was cancelled by itself: resetting it
/// takes the long way.
fn cancelled_parent(above: &Token) -> Token {
    let token = above.child_token();
    seed(&token, 1);
    token.cancel();
    token
}

#[test]
fn drop_vs_cancel() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let (first, second) = (root.child_token(), root.child_token());
        let dropper = spawn(move || drop(first));
        root.cancel();
        reached(&second);
        dropper.join().unwrap();
    });
}

#[test]
fn drop_and_create_vs_cancel() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let child = root.child_token();
        let parent = root.clone();
        let churner = spawn(move || {
            drop(child);
            parent.child_token()
        });
        root.cancel();
        reached(&churner.join().unwrap());
    });
}

#[test]
fn churn_vs_cancel() {
    model(USUAL, || {
        let root = Token::new();
        seed(&root, 1);
        let parent = root.clone();
        let churner = spawn(move || {
            drop(parent.child_token());
            drop(parent.child_token());
            parent.child_token()
        });
        root.cancel();
        reached(&churner.join().unwrap());
    });
}

#[test]
fn cancel_drop_and_create_vs_cancel_above() {
    model(USUAL, || {
        let root = Token::new();
        let child = root.child_token();
        let parent = root.clone();
        let churner = spawn(move || {
            child.cancel_with(Reason::cause(1));
            let seen = reason_of(&child);
            assert!(seen <= 1);
            drop(child);
            parent.child_token()
        });
        root.cancel();
        let next = churner.join().unwrap();
        assert_eq!(reason_of(&next), 0, "the cause of the node's last occupant");
    });
}

#[test]
fn dropped_by_one_thread_claimed_by_another() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let parent = root.clone();
        let churner = spawn(move || drop(parent.child_token()));
        let child = root.child_token();
        drop(root.child_token());
        untouched(&child);
        child.cancel_with(Reason::cause(1));
        drop((child, root));
        churner.join().unwrap();
    });
}

/// What the last occupant left below (free children, a hint) must be there for the next one.
#[test]
fn parent_dropped_by_one_thread_claimed_with_its_children_by_another() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let old = root.child_token();
        let above = root.clone();
        let creator = spawn(move || {
            let new = above.child_token();
            let (a, b) = (new.child_token(), new.child_token());
            assert_ne!(a, b);
            (a, b, new)
        });
        seed(&old, 1);
        drop(old);
        let (a, b, _new) = creator.join().unwrap();
        untouched(&a);
        untouched(&b);
    });
}

#[test]
fn parent_and_child_dropped_vs_cancel() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let a = spawn(move || drop(parent));
        let b = spawn(move || drop(child));
        root.cancel();
        a.join().unwrap();
        b.join().unwrap();
        reached(&root.child_token());
    });
}

#[test]
fn parent_dropped_while_its_child_creates_vs_cancel() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let same = child.clone();
        let a = spawn(move || drop(parent));
        let b = spawn(move || same.child_token());
        root.cancel();
        a.join().unwrap();
        let grandchild = b.join().unwrap();
        reached(&child);
        reached(&grandchild);
    });
}

/// A reset that ends with a plain store loses a cancel that came meanwhile.
#[test]
fn cancelled_parent_dropped_vs_cancel_above_vs_creator() {
    model(USUAL, || {
        let root = Token::new();
        let old = cancelled_parent(&root);
        let above = root.clone();
        let a = spawn(move || drop(old));
        let b = spawn(move || above.child_token());
        root.cancel();
        a.join().unwrap();
        reached(&b.join().unwrap());
    });
}

#[test]
fn cancelled_parent_dropped_and_its_place_taken_vs_cancel_above() {
    model(USUAL, || {
        let root = Token::new();
        let old = cancelled_parent(&root);
        let above = root.clone();
        let churner = spawn(move || {
            drop(old);
            let child = above.child_token();
            let grandchild = child.child_token();
            [child, grandchild]
        });
        root.cancel();
        churner.join().unwrap().iter().for_each(reached);
    });
}

/// As before, with nobody who cancels above: the reset must be visible to the next occupant.
#[test]
fn cancelled_parent_dropped_vs_creator() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let old = cancelled_parent(&root);
        let above = root.clone();
        let creator = spawn(move || {
            let new = above.child_token();
            let (x, y) = (new.child_token(), new.child_token());
            assert_ne!(x, y);
            (x, y, new)
        });
        drop(old);
        let (x, y, new) = creator.join().unwrap();
        for token in [&x, &y, &new] {
            untouched(token);
        }
    });
}

/// The reset frees what the cancelled parent's own canceller may still be walking over.
#[test]
fn two_cancellers_of_a_parent_that_is_dropped_vs_creator() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let old = root.child_token();
        let child = old.child_token();
        let same = old.clone();
        let a = spawn(move || {
            old.cancel();
            drop(old);
        });
        let b = spawn(move || {
            same.cancel();
            reached(&child);
            drop((child, same));
        });
        let new = root.child_token();
        untouched(&new);
        a.join().unwrap();
        b.join().unwrap();
    });
}

/// The creator has looked at the parent before the cancel, and claims after the drop: what was
/// marked must stay marked.
#[test]
fn marked_child_dropped_vs_creator_with_an_old_view() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let child = root.child_token();
        let above = root.clone();
        let creator = spawn(move || above.child_token());
        root.cancel();
        drop(child);
        reached(&creator.join().unwrap());
    });
}

/// The same where the child goes the long way, having children of its own.
#[test]
fn marked_parent_dropped_vs_creator_with_an_old_view() {
    model(USUAL, || {
        let root = Token::new();
        let child = root.child_token();
        seed(&child, 1);
        let above = root.clone();
        let creator = spawn(move || {
            let child = above.child_token();
            (child.child_token(), child)
        });
        root.cancel();
        drop(child);
        let (grandchild, child) = creator.join().unwrap();
        reached(&child);
        reached(&grandchild);
    });
}

#[test]
fn parent_and_child_dropped_vs_creator_with_an_old_view_vs_cancel() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let above = root.clone();
        let a = spawn(move || drop((parent, child)));
        let b = spawn(move || {
            let child = above.child_token();
            child.child_token()
        });
        root.cancel();
        a.join().unwrap();
        reached(&b.join().unwrap());
    });
}

#[test]
fn parent_and_child_dropped_vs_creator() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let above = root.clone();
        let a = spawn(move || drop(parent));
        let b = spawn(move || {
            let child = above.child_token();
            (child.child_token(), child)
        });
        drop(child);
        a.join().unwrap();
        let (x, y) = b.join().unwrap();
        let z = root.child_token();
        assert!(x != y && x != z && y != z);
        for token in [x, y, z] {
            untouched(&token);
        }
    });
}

/// A parent cancels itself and goes, its child goes, and the cancel comes from above as well.
#[test]
fn parent_cancelled_and_dropped_vs_child_dropped_vs_cancel_above() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let a = spawn(move || {
            parent.cancel();
            drop(parent);
        });
        let b = spawn(move || drop(child));
        root.cancel();
        a.join().unwrap();
        b.join().unwrap();
    });
}

#[test]
fn parent_cancelled_and_dropped_vs_child_dropped_and_place_taken() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        let above = root.clone();
        let a = spawn(move || {
            parent.cancel_with(Reason::cause(1));
            drop(parent);
        });
        let b = spawn(move || {
            drop(child);
            above.child_token()
        });
        a.join().unwrap();
        let x = b.join().unwrap();
        let y = root.child_token();
        let z = y.child_token();
        assert!(x != y);
        for token in [x, y, z] {
            untouched(&token);
        }
    });
}

/// The reset of one level vs the death of the next one above it vs a walk from the root.
#[test]
fn cancelled_parent_dropped_vs_its_parent_dropped_vs_cancel() {
    model(USUAL, || {
        let root = Token::new();
        let middle = root.child_token();
        let lower = cancelled_parent(&middle);
        let a = spawn(move || drop(lower));
        let b = spawn(move || drop(middle));
        root.cancel();
        a.join().unwrap();
        b.join().unwrap();
    });
}

/// A chain that only its leaf keeps alive goes, and its places are taken again, top to bottom.
#[test]
fn chain_dropped_and_places_taken_vs_cancel() {
    model(USUAL, || {
        let root = Token::new();
        let a = root.child_token();
        let b = a.child_token();
        let leaf = b.child_token();
        drop(a);
        let above = root.clone();
        let churner = spawn(move || {
            drop(b);
            drop(leaf);
            let x = above.child_token();
            let y = x.child_token();
            drop(x);
            let z = y.child_token();
            [y, z]
        });
        root.cancel();
        churner.join().unwrap().iter().for_each(reached);
    });
}

#[test]
fn cancelled_parent_dropped_vs_child_dropped_vs_creator_vs_cancel() {
    // Four threads: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        parent.cancel();
        let above = root.clone();
        let a = spawn(move || drop(parent));
        let b = spawn(move || drop(child));
        let c = spawn(move || {
            let child = above.child_token();
            let grandchild = child.child_token();
            [child, grandchild]
        });
        root.cancel();
        a.join().unwrap();
        b.join().unwrap();
        c.join().unwrap().iter().for_each(reached);
    });
}

/// A place with a child's place that an earlier occupant has left.
fn place_with_places(above: &Token) {
    let token = above.child_token();
    seed(&token, 1);
}

/// The first child is announced before it moves in: the place was known before, but not that there is a child.
#[test]
fn first_child_in_a_place_with_places_vs_cancel() {
    model(UNBOUNDED, || {
        let root = Token::new();
        place_with_places(&root);
        let token = root.child_token();
        let creator = token.clone();
        let thread = spawn(move || creator.child_token());
        token.cancel();
        reached(&thread.join().unwrap());
        untouched(&root);
    });
}

#[test]
fn place_with_places_taken_with_a_first_child_vs_cancel_above() {
    model(USUAL, || {
        let root = Token::new();
        place_with_places(&root);
        let above = root.clone();
        let thread = spawn(move || {
            let token = above.child_token();
            (token.child_token(), token)
        });
        root.cancel();
        let (child, token) = thread.join().unwrap();
        reached(&token);
        reached(&child);
    });
}

#[test]
fn two_first_children_in_a_place_with_places_vs_cancel() {
    // Three threads: bound 2.
    model(Some(2), || {
        let root = Token::new();
        place_with_places(&root);
        let token = root.child_token();
        let (one, two) = (token.clone(), token.clone());
        let a = spawn(move || one.child_token());
        let b = spawn(move || two.child_token());
        token.cancel();
        reached(&a.join().unwrap());
        reached(&b.join().unwrap());
    });
}

/// The second waiter is the first child of its token, and moves into what an earlier occupant has left.
#[test]
fn second_waiter_in_a_place_with_places_vs_cancel() {
    model(USUAL, || {
        let root = Token::new();
        place_with_places(&root);
        let token = root.child_token();
        let (first, second) = (Probe::new(), Probe::new());
        let mut one = Box::pin(token.clone().cancelled_owned());
        assert!(!poll(&mut one, &first.waker()));
        let (same, waker) = (token.clone(), second.waker());
        let thread = spawn(move || {
            let mut two = Box::pin(same.cancelled_owned());
            (poll(&mut two, &waker), two)
        });
        token.cancel();
        let (ready, two) = thread.join().unwrap();
        assert_eq!((first.woken(), second.woken()), (1, !ready as usize));
        drop((one, two));
    });
}

/// A childless occupant comes and goes without a look at what is below.
#[test]
fn childless_in_a_place_with_places_dropped_vs_cancel_above_vs_creator() {
    // Three threads: bound 2.
    model(Some(2), || {
        let root = Token::new();
        place_with_places(&root);
        let token = root.child_token();
        let above = root.clone();
        let dropper = spawn(move || {
            token.cancel();
            drop(token);
        });
        let creator = spawn(move || {
            let token = above.child_token();
            (token.child_token(), token)
        });
        root.cancel();
        dropper.join().unwrap();
        let (child, token) = creator.join().unwrap();
        reached(&token);
        reached(&child);
    });
}
