//! What a thread did before it cancelled is visible to everyone who has seen the cancel.

use cancel_tree::Context;
use cancel_tree_loom::{
    block_on, model, poll, reason_of, spawn, Data, Probe, Reason, Token, UNBOUNDED, USUAL,
};

#[test]
fn data_vs_reader_of_the_flag() {
    model(UNBOUNDED, || {
        let data = Data::new();
        let root = Token::new();
        let child = root.child_token();
        let (same, there) = (root.clone(), data.clone());
        let reader = spawn(move || {
            if child.is_cancelled() {
                there.read();
            }
            if same.is_cancelled() {
                there.read();
            }
        });
        data.write();
        root.cancel();
        reader.join().unwrap();
    });
}

#[test]
fn data_vs_reader_two_levels_below() {
    model(UNBOUNDED, || {
        let data = Data::new();
        let root = Token::new();
        let parent = root.child_token();
        let leaf = parent.child_token();
        let there = data.clone();
        let reader = spawn(move || {
            if leaf.is_cancelled() {
                there.read();
            }
        });
        data.write();
        root.cancel();
        reader.join().unwrap();
    });
}

/// To give up its old waker it has to look whether that was taken: by that look it learns of the cancel.
#[test]
fn data_vs_task_that_polls_with_another_waker() {
    model(UNBOUNDED, || {
        let data = Data::new();
        let (old, new) = (Probe::new(), Probe::new());
        let token = Token::new();
        let mut future = token.clone().cancelled_owned();
        assert!(!poll(&mut future, &old.waker()));
        let (waker, there) = (new.waker(), data.clone());
        let task = spawn(move || {
            if poll(&mut future, &waker) {
                there.read();
            }
        });
        data.write();
        token.cancel();
        task.join().unwrap();
    });
}

#[test]
fn data_vs_task() {
    model(UNBOUNDED, || {
        let data = Data::new();
        let root = Token::new();
        let child = root.child_token();
        let there = data.clone();
        let task = spawn(move || {
            block_on(child.cancelled());
            there.read();
        });
        data.write();
        root.cancel();
        task.join().unwrap();
    });
}

#[test]
fn data_vs_parked_thread() {
    model(UNBOUNDED, || {
        let data = Data::new();
        let token = Token::new();
        let (same, there) = (token.clone(), data.clone());
        let sleeper = spawn(move || {
            same.blocking_wait();
            there.read();
        });
        data.write();
        token.cancel();
        sleeper.join().unwrap();
    });
}

#[test]
fn data_vs_callback_of_another_canceller() {
    model(USUAL, || {
        let data = Data::new();
        let root = Token::new();
        let child = root.child_token();
        let (there, token, seen) = (data.clone(), child.clone(), data.clone());
        // Whoever runs it, with whichever cancel: the root's was first unless there is a cause.
        drop(child.on_cancel(move || {
            assert!(token.is_cancelled());
            if reason_of(&token) == 0 {
                seen.read();
            }
        }));
        let thread = spawn(move || {
            if !child.cancel_with(Reason::cause(1)) {
                // The cancel that was first is the root's.
                there.read();
            }
        });
        data.write();
        root.cancel();
        thread.join().unwrap();
    });
}

#[test]
fn data_vs_child_born_cancelled() {
    model(UNBOUNDED, || {
        let data = Data::new();
        let root = Token::new();
        let parent = root.child_token();
        let there = data.clone();
        let creator = spawn(move || {
            let child = parent.child_token();
            if child.is_cancelled() {
                there.read();
            }
        });
        data.write();
        root.cancel();
        creator.join().unwrap();
    });
}

#[test]
fn data_vs_canceller_who_is_second() {
    model(UNBOUNDED, || {
        let data = Data::new();
        let token = Token::new();
        let (same, there) = (token.clone(), data.clone());
        let second = spawn(move || {
            if !same.cancel_with(Reason::cause(1)) {
                there.read();
            }
        });
        data.write();
        token.cancel_with(Reason::cause(2));
        second.join().unwrap();
    });
}

#[test]
fn data_vs_reader_of_any_of() {
    model(USUAL, || {
        let data = Data::new();
        let (a, b) = (Token::new(), Token::new());
        let either = Token::any_of([&a, &b]);
        let there = data.clone();
        let reader = spawn(move || {
            if either.is_cancelled() {
                there.read();
            }
        });
        data.write();
        b.cancel();
        reader.join().unwrap();
    });
}

/// A canceller that comes later to a child of which the first walk is not through: it walks too, and what it
/// wakes has seen all that the first canceller wrote.
#[test]
fn data_vs_second_walk_that_wakes() {
    model(USUAL, || {
        let data = Data::new();
        let root = Token::new();
        let child = root.child_token();
        let there = data.clone();
        let same = root.clone();
        let task = spawn(move || {
            block_on(child.cancelled());
            there.read();
        });
        let second = spawn(move || {
            // Perhaps the first walk has not come to the child.
            if same.is_cancelled() {
                same.cancel();
            }
        });
        data.write();
        root.cancel();
        task.join().unwrap();
        second.join().unwrap();
    });
}

/// The drop of a guard cancels and gives up its handle in one step.
#[test]
fn data_vs_reader_of_a_context_whose_guard_is_dropped() {
    model(UNBOUNDED, || {
        let data = Data::new();
        let (ctx, guard) = Context::background().with_cancel();
        let there = data.clone();
        let reader = spawn(move || {
            if ctx.is_done() {
                there.read();
            }
        });
        data.write();
        drop(guard);
        reader.join().unwrap();
    });
}
