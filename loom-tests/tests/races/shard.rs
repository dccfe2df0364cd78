//! A parent of which several threads make children at once.

use cancel_tree::set_thread_number;
use cancel_tree_loom::{model, poll, reached, seed, spawn, untouched, Probe, Token, USUAL};

/// Two threads want the one free node: one of them puts shards under the parent, if it is
/// allowed to.
fn contended(root: &Token, threads: usize) -> Vec<loom::thread::JoinHandle<Token>> {
    (1..=threads)
        .map(|number| {
            let parent = root.clone();
            spawn(move || {
                set_thread_number(number);
                parent.child_token()
            })
        })
        .collect()
}

fn two_children(threads: Vec<loom::thread::JoinHandle<Token>>) -> [Token; 2] {
    let children: Vec<Token> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    <[Token; 2]>::try_from(children).unwrap()
}

/// A parent that has shards already: two threads have met here.
fn sharded() -> Token {
    // The numbers are those of this thread, which loses no race: so it is done by the book, with
    // two threads, and what did not become sharded is an execution like any other.
    let root = Token::new();
    seed(&root, 1);
    drop(two_children(contended(&root, 2)));
    root
}

#[test]
fn growth_vs_create() {
    model(USUAL, || {
        let root = Token::new();
        seed(&root, 1);
        let [a, b] = two_children(contended(&root, 2));
        assert_ne!(a, b);
        let c = root.child_token();
        assert!(c != a && c != b);
        for token in [&a, &b, &c] {
            untouched(token);
        }
        root.cancel();
        for token in [&a, &b, &c] {
            reached(token);
        }
    });
}

#[test]
fn growth_vs_create_vs_cancel() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        seed(&root, 1);
        let threads = contended(&root, 2);
        root.cancel();
        two_children(threads).iter().for_each(reached);
    });
}

#[test]
fn growth_vs_create_vs_cancel_of_the_grandparent() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let parent = root.child_token();
        seed(&parent, 1);
        let threads = contended(&parent, 2);
        root.cancel();
        two_children(threads).iter().for_each(reached);
    });
}

#[test]
fn growth_vs_growth() {
    // Three creators: bound 2.
    model(Some(2), || {
        let root = Token::new();
        seed(&root, 1);
        let threads = contended(&root, 2);
        set_thread_number(3);
        let c = root.child_token();
        let [a, b] = two_children(threads);
        assert!(a != b && a != c && b != c);
        root.cancel();
        reached(&a);
        reached(&b);
        reached(&c);
    });
}

#[test]
fn growth_vs_a_cause() {
    use cancel_tree_loom::{reason_of, Reason};
    // Two creators, shards and a cause: bound 2.
    model(Some(2), || {
        let root = Token::new();
        seed(&root, 1);
        let threads = contended(&root, 2);
        root.cancel_with(Reason::cause(1));
        for child in two_children(threads) {
            reached(&child);
            assert_eq!(reason_of(&child), 1);
        }
    });
}

#[test]
fn sharded_parent_dropped_with_living_children() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let parent = root.child_token();
        seed(&parent, 1);
        let [a, b] = two_children(contended(&parent, 2));
        let thread = spawn(move || drop(a));
        drop(parent);
        drop(b);
        let next = root.child_token();
        untouched(&next);
        untouched(&next.child_token());
        thread.join().unwrap();
    });
}

#[test]
fn sharded_parent_dropped_with_living_children_vs_cancel_above() {
    // Two growers, then three threads: bound 1.
    model(Some(1), || {
        let root = Token::new();
        let parent = root.child_token();
        seed(&parent, 1);
        let [a, b] = two_children(contended(&parent, 2));
        drop(b);
        let thread = spawn(move || drop(parent));
        root.cancel();
        reached(&a);
        drop(a);
        thread.join().unwrap();
    });
}

#[test]
fn sharded_root_dropped_vs_children_dropped() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        seed(&root, 1);
        let [a, b] = two_children(contended(&root, 2));
        let thread = spawn(move || drop(a));
        drop(root);
        drop(b);
        thread.join().unwrap();
    });
}

#[test]
fn churn_in_a_shard_vs_cancel() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = sharded();
        let parent = root.clone();
        let thread = spawn(move || {
            set_thread_number(1);
            drop(parent.child_token());
            parent.child_token()
        });
        root.cancel();
        reached(&thread.join().unwrap());
    });
}

/// A child of one shard is dropped while a thread of the other looks for a place there.
#[test]
fn drop_in_one_shard_vs_create_from_the_other() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        seed(&root, 1);
        let [a, b] = two_children(contended(&root, 2));
        let parent = root.clone();
        let thread = spawn(move || {
            set_thread_number(2);
            (parent.child_token(), parent.child_token())
        });
        drop(a);
        let (c, d) = thread.join().unwrap();
        assert!(b != c && b != d && c != d);
        root.cancel();
        reached(&b);
        reached(&c);
        reached(&d);
    });
}

#[test]
fn waiter_on_a_sharded_token_vs_cancel() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let probe = Probe::new();
        let root = sharded();
        let (other, waker) = (root.clone(), probe.waker());
        let task = spawn(move || {
            let mut future = other.cancelled_owned();
            let ready = poll(&mut future, &waker);
            (ready, future)
        });
        root.cancel();
        let (ready, future) = task.join().unwrap();
        assert_eq!(probe.woken(), !ready as usize);
        drop(future);
    });
}

/// A token that has an extension already gets its shards by another way.
#[test]
fn growth_below_any_of_vs_growth() {
    // Three creators: bound 2.
    model(Some(2), || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        seed(&either, 1);
        let threads = contended(&either, 2);
        set_thread_number(3);
        let z = either.child_token();
        let [x, y] = two_children(threads);
        assert!(x != y && x != z && y != z);
    });
}

/// The same way, and a cancel.
#[test]
fn growth_below_any_of_vs_creator() {
    model(USUAL, || {
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        seed(&either, 1);
        let one = either.clone();
        let grower = spawn(move || {
            set_thread_number(1);
            one.child_token()
        });
        let two = either.clone();
        let creator = spawn(move || {
            set_thread_number(2);
            (two.child_token(), two.child_token())
        });
        let x = grower.join().unwrap();
        let (y, z) = creator.join().unwrap();
        assert!(x != y && x != z && y != z);
        b.cancel();
        for token in [&x, &y, &z] {
            reached(token);
        }
    });
}
