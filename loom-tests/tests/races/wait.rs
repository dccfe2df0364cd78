//! Waiters: tasks and parked threads.

use cancel_tree_loom::{
    block_on, model, model_in_all_orders, poll, reached, reason_of, spawn, Probe, Reason, Token,
    UNBOUNDED, USUAL,
};
use std::mem;

/// A lost wake-up is a deadlock here, which loom reports.
#[test]
fn await_vs_cancel() {
    model(UNBOUNDED, || {
        let token = Token::new();
        let other = token.clone();
        let task = spawn(move || block_on(other.cancelled()));
        token.cancel();
        task.join().unwrap();
    });
}

#[test]
fn await_vs_cancel_of_the_grandparent() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let parent = root.child_token();
        let child = parent.child_token();
        drop(parent);
        let task = spawn(move || block_on(child.cancelled_owned()));
        root.cancel();
        drop(root);
        task.join().unwrap();
    });
}

#[test]
fn first_poll_vs_cancel() {
    model(UNBOUNDED, || {
        let probe = Probe::new();
        let token = Token::new();
        let other = token.clone();
        let waker = probe.waker();
        let task = spawn(move || {
            let mut future = other.cancelled_owned();
            let ready = poll(&mut future, &waker);
            (ready, future)
        });
        token.cancel();
        let (ready, mut future) = task.join().unwrap();
        assert_eq!(probe.woken(), !ready as usize);
        let again = Probe::new();
        assert!(poll(&mut future, &again.waker()));
        drop(future);
    });
}

#[test]
fn poll_again_with_the_same_waker_vs_cancel() {
    model(UNBOUNDED, || {
        let probe = Probe::new();
        let token = Token::new();
        let waker = probe.waker();
        let mut future = token.clone().cancelled_owned();
        assert!(!poll(&mut future, &waker));
        let task = spawn(move || (poll(&mut future, &waker), future));
        token.cancel();
        let (_, future) = task.join().unwrap();
        // A poll that has seen the cancel may have taken the waker back.
        assert!(probe.woken() <= 1);
        drop(future);
    });
}

#[test]
fn poll_again_with_another_waker_vs_cancel() {
    model(UNBOUNDED, || {
        let (old, new) = (Probe::new(), Probe::new());
        let token = Token::new();
        let mut future = token.clone().cancelled_owned();
        assert!(!poll(&mut future, &old.waker()));
        let waker = new.waker();
        let task = spawn(move || {
            let ready = poll(&mut future, &waker);
            (ready, future)
        });
        token.cancel();
        let (ready, future) = task.join().unwrap();
        if ready {
            assert!(old.woken() <= 1);
            assert_eq!(new.woken(), 0);
        } else {
            // The new waker took the old one's place in time.
            assert_eq!((old.woken(), new.woken()), (0, 1));
        }
        drop(future);
    });
}

#[test]
fn future_dropped_vs_cancel() {
    model(UNBOUNDED, || {
        let probe = Probe::new();
        let token = Token::new();
        let mut future = token.clone().cancelled_owned();
        assert!(!poll(&mut future, &probe.waker()));
        let task = spawn(move || drop(future));
        token.cancel();
        drop(token);
        task.join().unwrap();
        assert!(probe.woken() <= 1);
    });
}

/// The waiter gives up, and another one takes its place in the slot.
#[test]
fn future_dropped_vs_other_waiter_on_the_token() {
    model(UNBOUNDED, || {
        let (one, two) = (Probe::new(), Probe::new());
        let token = Token::new();
        let mut future = token.clone().cancelled_owned();
        assert!(!poll(&mut future, &one.waker()));
        let task = spawn(move || drop(future));
        let mut other = token.clone().cancelled_owned();
        assert!(!poll(&mut other, &two.waker()));
        task.join().unwrap();
        token.cancel();
        assert_eq!((one.woken(), two.woken()), (0, 1));
    });
}

#[test]
fn future_dropped_vs_other_waiter_vs_cancel() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let (one, two) = (Probe::new(), Probe::new());
        let token = Token::new();
        let mut future = token.clone().cancelled_owned();
        assert!(!poll(&mut future, &one.waker()));
        let a = spawn(move || drop(future));
        let (other, waker) = (token.clone(), two.waker());
        let b = spawn(move || {
            let mut future = other.cancelled_owned();
            let ready = poll(&mut future, &waker);
            (ready, future)
        });
        token.cancel();
        a.join().unwrap();
        let (ready, future) = b.join().unwrap();
        assert!(one.woken() <= 1);
        assert_eq!(two.woken(), !ready as usize);
        drop(future);
    });
}

#[test]
fn two_waiters_on_one_token_vs_cancel() {
    // Too many executions at 3 (three million): bound 2.
    model(Some(2), || {
        let token = Token::new();
        let (one, two) = (token.clone(), token.clone());
        let a = spawn(move || block_on(one.cancelled()));
        let b = spawn(move || block_on(two.cancelled()));
        token.cancel();
        a.join().unwrap();
        b.join().unwrap();
    });
}

#[test]
fn second_waiter_vs_cancel() {
    model(USUAL, || {
        let (one, two) = (Probe::new(), Probe::new());
        let token = Token::new();
        let mut first = token.clone().cancelled_owned();
        assert!(!poll(&mut first, &one.waker()));
        let (other, waker) = (token.clone(), two.waker());
        let task = spawn(move || {
            let mut second = other.cancelled_owned();
            let ready = poll(&mut second, &waker);
            (ready, second)
        });
        token.cancel();
        let (ready, second) = task.join().unwrap();
        assert_eq!((one.woken(), two.woken()), (1, !ready as usize));
        drop((first, second));
    });
}

#[test]
fn second_waiter_dropped_vs_cancel() {
    model(USUAL, || {
        let (one, two) = (Probe::new(), Probe::new());
        let token = Token::new();
        let mut first = token.clone().cancelled_owned();
        assert!(!poll(&mut first, &one.waker()));
        let mut second = token.clone().cancelled_owned();
        assert!(!poll(&mut second, &two.waker()));
        let task = spawn(move || drop(second));
        token.cancel();
        task.join().unwrap();
        assert_eq!(one.woken(), 1);
        assert!(two.woken() <= 1);
    });
}

#[test]
fn second_waiter_dropped_vs_next_child_cancelled_for_a_cause() {
    model_in_all_orders(USUAL, || {
        let (one, two) = (Probe::new(), Probe::new());
        let token = Token::new();
        let mut first = token.clone().cancelled_owned();
        assert!(!poll(&mut first, &one.waker()));
        let mut second = token.clone().cancelled_owned();
        assert!(!poll(&mut second, &two.waker()));
        let task = spawn(move || drop(second));
        let child = token.child_token();
        child.cancel_with(Reason::cause(1));
        task.join().unwrap();
        assert_eq!(reason_of(&child), 1);
    });
}

#[test]
fn parked_thread_vs_cancel() {
    model(UNBOUNDED, || {
        let token = Token::new();
        let other = token.clone();
        let sleeper = spawn(move || {
            other.blocking_wait();
            reached(&other);
        });
        token.cancel();
        sleeper.join().unwrap();
    });
}

#[test]
fn parked_thread_vs_cancel_of_the_parent() {
    model(UNBOUNDED, || {
        let root = Token::new();
        let child = root.child_token();
        let sleeper = spawn(move || child.blocking_wait());
        root.cancel();
        drop(root);
        sleeper.join().unwrap();
    });
}

#[test]
fn parked_thread_vs_task_vs_cancel() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let root = Token::new();
        let (one, two) = (root.clone(), root.clone());
        let sleeper = spawn(move || one.blocking_wait());
        let task = spawn(move || block_on(two.cancelled()));
        root.cancel();
        sleeper.join().unwrap();
        task.join().unwrap();
    });
}

/// Armed and kept: woken exactly once, by one of two cancels.
#[test]
fn first_poll_vs_cancels_at_two_levels() {
    model(USUAL, || {
        let probe = Probe::new();
        let root = Token::new();
        let parent = root.child_token();
        let leaf = parent.child_token();
        let waker = probe.waker();
        let task = spawn(move || {
            let mut future = leaf.cancelled_owned();
            let ready = poll(&mut future, &waker);
            (ready, future)
        });
        let canceller = spawn(move || {
            parent.cancel();
            parent
        });
        root.cancel();
        let (ready, future) = task.join().unwrap();
        let parent = canceller.join().unwrap();
        reached(&parent);
        assert_eq!(probe.woken(), !ready as usize);
        drop(future);
    });
}

#[test]
fn armed_waiter_vs_two_cancels() {
    model(UNBOUNDED, || {
        let probe = Probe::new();
        let root = Token::new();
        let child = root.child_token();
        let mut future = child.clone().cancelled_owned();
        assert!(!poll(&mut future, &probe.waker()));
        let thread = spawn(move || child.cancel());
        root.cancel();
        thread.join().unwrap();
        assert_eq!(probe.woken(), 1);
        drop(future);
    });
}

/// A forgotten future leaves its waker: the last drop takes it, or a canceller.
#[test]
fn forgotten_future_dropped_token_and_next_waiter_vs_cancel() {
    model(USUAL, || {
        let (old, new) = (Probe::new(), Probe::new());
        let root = Token::new();
        let child = root.child_token();
        {
            let mut future = child.cancelled();
            assert!(!poll(&mut future, &old.waker()));
            mem::forget(future);
        }
        let (above, waker) = (root.clone(), new.waker());
        let thread = spawn(move || {
            drop(child);
            let mut future = above.child_token().cancelled_owned();
            let ready = poll(&mut future, &waker);
            (ready, future)
        });
        root.cancel();
        let (ready, future) = thread.join().unwrap();
        assert!(old.woken() <= 1);
        assert_eq!(new.woken(), !ready as usize);
        drop(future);
    });
}

#[test]
fn forgotten_future_of_a_root_vs_last_drops() {
    model(UNBOUNDED, || {
        let probe = Probe::new();
        let root = Token::new();
        let child = root.child_token();
        for token in [&root, &child] {
            let mut future = token.cancelled();
            assert!(!poll(&mut future, &probe.waker()));
            mem::forget(future);
        }
        let thread = spawn(move || drop(child));
        drop(root);
        thread.join().unwrap();
        assert_eq!(probe.woken(), 0);
    });
}

#[test]
fn poll_drop_and_create_vs_cancel() {
    model(USUAL, || {
        let probe = Probe::new();
        let root = Token::new();
        let child = root.child_token();
        let (above, waker) = (root.clone(), probe.waker());
        let thread = spawn(move || {
            let mut future = child.cancelled_owned();
            let ready = poll(&mut future, &waker);
            drop(future);
            (ready, above.child_token())
        });
        root.cancel();
        let (ready, next) = thread.join().unwrap();
        reached(&next);
        assert!(probe.woken() <= !ready as usize);
    });
}

#[test]
fn armed_leaf_and_parent_dropped_vs_cancels_at_two_levels() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let probe = Probe::new();
        let root = Token::new();
        let parent = root.child_token();
        let mut future = parent.child_token().cancelled_owned();
        assert!(!poll(&mut future, &probe.waker()));
        let other = parent.clone();
        let a = spawn(move || {
            drop(future);
            drop(parent);
        });
        let b = spawn(move || other.cancel());
        root.cancel();
        a.join().unwrap();
        b.join().unwrap();
        assert!(probe.woken() <= 1);
    });
}

/// The waker's clone is user code; the waiter goes on as one who waits for both wakers' sake.
#[test]
fn waiter_moves_to_another_thread_vs_cancel() {
    model(UNBOUNDED, || {
        let token = Token::new();
        let mut future = token.clone().cancelled_owned();
        let probe = Probe::new();
        assert!(!poll(&mut future, &probe.waker()));
        let task = spawn(move || block_on(future));
        token.cancel();
        task.join().unwrap();
        assert!(probe.woken() <= 1);
    });
}

/// The slot has another content for a moment, and then is as empty as before.
#[test]
fn waiter_comes_and_goes_vs_other_waiter() {
    model(USUAL, || {
        let (one, two) = (Probe::new(), Probe::new());
        let token = Token::new();
        let (other, waker) = (token.clone(), one.waker());
        let task = spawn(move || {
            let mut future = other.cancelled_owned();
            assert!(!poll(&mut future, &waker));
        });
        let mut future = token.clone().cancelled_owned();
        assert!(!poll(&mut future, &two.waker()));
        task.join().unwrap();
        token.cancel();
        assert_eq!((one.woken(), two.woken()), (0, 1));
        drop(future);
    });
}
