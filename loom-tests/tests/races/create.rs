//! Making children against cancelling above them.

use cancel_tree_loom::{model, reached, seed, spawn, untouched, Token, UNBOUNDED, USUAL};

/// One thread makes a child while another cancels the parent; both are there to see the result.
fn create_and_cancel(root: Token) {
    let parent = root.clone();
    let creator = spawn(move || parent.child_token());
    root.cancel();
    let child = creator.join().unwrap();
    reached(&child);
    reached(&root.child_token());
}

#[test]
fn create_in_an_empty_list_vs_cancel() {
    model(UNBOUNDED, || create_and_cancel(Token::new()));
}

#[test]
fn create_in_a_free_node_vs_cancel() {
    model(UNBOUNDED, || {
        let root = Token::new();
        seed(&root, 1);
        create_and_cancel(root);
    });
}

#[test]
fn create_in_a_free_node_of_a_chunk_vs_cancel() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let first = root.child_token();
        // In the chunk of two, whose other node is free.
        let second = root.child_token();
        create_and_cancel(root);
        reached(&first);
        reached(&second);
    });
}

#[test]
fn create_of_a_new_chunk_vs_cancel() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let first = root.child_token();
        let parent = root.clone();
        let creator = spawn(move || (parent.child_token(), parent.child_token()));
        root.cancel();
        let (second, third) = creator.join().unwrap();
        assert_ne!(second, third);
        for child in [first, second, third] {
            reached(&child);
        }
    });
}

/// The same two levels below the canceller.
fn create_and_cancel_above(root: Token, parent: Token) {
    let creator = spawn(move || (parent.child_token(), parent));
    root.cancel();
    let (child, parent) = creator.join().unwrap();
    reached(&child);
    reached(&parent);
}

#[test]
fn create_in_an_empty_list_vs_cancel_of_the_grandparent() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let parent = root.child_token();
        create_and_cancel_above(root, parent);
    });
}

#[test]
fn create_in_a_free_node_vs_cancel_of_the_grandparent() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let parent = root.child_token();
        seed(&parent, 1);
        create_and_cancel_above(root, parent);
    });
}

#[test]
fn create_child_and_grandchild_vs_cancel() {
    model(USUAL, || {
        let root = Token::new();
        let parent = root.child_token();
        seed(&parent, 1);
        // Now the parent is free and has a free child.
        drop(parent);
        let above = root.clone();
        let creator = spawn(move || {
            let child = above.child_token();
            let first = child.child_token();
            let second = child.child_token();
            [child, first, second]
        });
        root.cancel();
        creator.join().unwrap().iter().for_each(reached);
    });
}

/// A creator has linked a chunk and not yet said so; another one finds the chunk's free node by
/// walking, and moves in; the canceller may have passed before both.
#[test]
fn create_in_a_chunk_just_linked_vs_cancel() {
    model(USUAL, || {
        let root = Token::new();
        let first = root.child_token();
        let (one, two) = (root.clone(), root.clone());
        let a = spawn(move || one.child_token());
        let b = spawn(move || two.child_token());
        root.cancel();
        let (a, b) = (a.join().unwrap(), b.join().unwrap());
        assert_ne!(a, b);
        for child in [first, a, b] {
            reached(&child);
        }
    });
}

/// The same where a parent gets its first children of all, by two threads.
#[test]
fn create_of_the_first_children_vs_cancel() {
    model(USUAL, || {
        let root = Token::new();
        let (one, two) = (root.clone(), root.clone());
        let a = spawn(move || one.child_token());
        let b = spawn(move || two.child_token());
        root.cancel();
        let (a, b) = (a.join().unwrap(), b.join().unwrap());
        assert_ne!(a, b);
        reached(&a);
        reached(&b);
    });
}

#[test]
fn create_vs_create_in_one_free_node() {
    model(UNBOUNDED, || {
        let root = Token::new();
        seed(&root, 1);
        let parent = root.clone();
        let creator = spawn(move || parent.child_token());
        let here = root.child_token();
        let there = creator.join().unwrap();
        assert_ne!(here, there);
        untouched(&here);
        // A cancel goes to one of them only.
        here.cancel();
        untouched(&there);
        untouched(&root);
    });
}

#[test]
fn three_creators_share_no_node() {
    // Three creators: bound 2.
    model(Some(2), || {
        let root = Token::new();
        seed(&root, 2);
        let (one, two) = (root.clone(), root.clone());
        let a = spawn(move || one.child_token());
        let b = spawn(move || two.child_token());
        let c = root.child_token();
        let (a, b) = (a.join().unwrap(), b.join().unwrap());
        assert!(a != b && a != c && b != c);
    });
}

/// A thread that offers a place passes on the hint that it finds; the one that gets it must be able to rely
/// on the node behind it.
#[test]
fn create_of_a_chunk_vs_drop_vs_creator_who_follows_both_hints() {
    // Three threads beside the main one: bound 1, which is enough to see the fault that it is about.
    model(Some(1), || {
        let root = Token::new();
        let child = root.child_token();
        let (one, two) = (root.clone(), root.clone());
        let a = spawn(move || one.child_token());
        let b = spawn(move || drop(child));
        let c = spawn(move || (two.child_token(), two.child_token()));
        let z = a.join().unwrap();
        b.join().unwrap();
        let (x, y) = c.join().unwrap();
        assert!(x != y && x != z && y != z);
    });
}

/// A claimer passes on the hint that it finds in the place.
#[test]
fn create_of_a_chunk_and_drop_vs_two_creators() {
    // Three threads beside the main one: bound 1, which is enough to see the fault that it is about.
    model(Some(1), || {
        let root = Token::new();
        let child = root.child_token();
        let (one, two, three) = (root.clone(), root.clone(), root.clone());
        let a = spawn(move || {
            let new = one.child_token();
            drop(child);
            new
        });
        let b = spawn(move || two.child_token());
        let c = spawn(move || three.child_token());
        let (a, b, c) = (a.join().unwrap(), b.join().unwrap(), c.join().unwrap());
        assert!(a != b && a != c && b != c);
    });
}

/// A hint leads to a chunk of one thread, and from there the list to a chunk of another.
#[test]
fn creator_who_walks_from_a_hint_vs_two_creators_of_chunks() {
    // Three creators: bound 1.
    model(Some(1), || {
        let root = Token::new();
        let child = root.child_token();
        let (one, two) = (root.clone(), root.clone());
        let a = spawn(move || {
            let new = one.child_token();
            drop(child);
            new
        });
        let b = spawn(move || two.child_token());
        let c = root.child_token();
        let (a, b) = (a.join().unwrap(), b.join().unwrap());
        assert!(a != b && a != c && b != c);
    });
}
