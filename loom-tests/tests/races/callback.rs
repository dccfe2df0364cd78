//! Callbacks, and the ways to unregister one.

use cancel_tree::{on_wake, set_thread_number};
use cancel_tree_loom::{
    block_on, model, reached, reason_of, seed, spawn, Cause, Data, Reason, Runs, Token, UNBOUNDED,
    USUAL,
};

#[test]
fn register_vs_cancel() {
    model(UNBOUNDED, || {
        let runs = Runs::default();
        let root = Token::new();
        let (token, callback) = (root.clone(), runs.callback());
        let thread = spawn(move || token.on_cancel(callback));
        root.cancel();
        let registration = thread.join().unwrap();
        assert_eq!(runs.count(), 1);
        assert!(!registration.stop());
    });
}

#[test]
fn register_vs_cancel_of_the_parent() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let (child, callback) = (root.child_token(), runs.callback());
        let thread = spawn(move || drop(child.on_cancel(callback)));
        root.cancel();
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
        drop(root);
    });
}

#[test]
fn stop_vs_cancel() {
    model(UNBOUNDED, || {
        let runs = Runs::default();
        let token = Token::new();
        let registration = token.on_cancel(runs.callback());
        let thread = spawn(move || registration.stop());
        token.cancel();
        drop(token);
        let stopped = thread.join().unwrap();
        assert_eq!(runs.count(), !stopped as usize);
    });
}

#[test]
fn stop_and_drop_of_the_token_vs_cancel_above() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let child = root.child_token();
        let registration = child.on_cancel(runs.callback());
        let thread = spawn(move || {
            drop(child);
            registration.stop()
        });
        root.cancel();
        let stopped = thread.join().unwrap();
        assert_eq!(runs.count(), !stopped as usize);
    });
}

/// When it returns, what the callback did is visible.
#[test]
fn stop_and_wait_vs_cancel() {
    model(USUAL, || {
        let data = Data::new();
        let token = Token::new();
        let written = data.clone();
        let registration = token.on_cancel(move || written.write());
        let thread = spawn(move || {
            set_thread_number(1);
            let stopped = registration.stop_and_wait();
            if !stopped {
                data.read();
            }
            drop(data);
        });
        set_thread_number(2);
        token.cancel();
        thread.join().unwrap();
    });
}

#[test]
fn stop_async_vs_cancel() {
    model(USUAL, || {
        let data = Data::new();
        let token = Token::new();
        let written = data.clone();
        let registration = token.on_cancel(move || written.write());
        let thread = spawn(move || {
            set_thread_number(1);
            let stopped = block_on(registration.stop_async());
            if !stopped {
                data.read();
            }
            drop(data);
        });
        set_thread_number(2);
        token.cancel();
        thread.join().unwrap();
    });
}

/// A callback that stops itself and waits would wait for ever, unless it is noticed.
#[test]
fn stop_and_wait_inside_the_callback_vs_cancel() {
    model(USUAL, || {
        let token = Token::new();
        let place = loom::sync::Arc::new(loom::sync::Mutex::new(None));
        let inside = place.clone();
        let registration = token.on_cancel(move || {
            let own: Option<cancel_tree::Registration> = inside.lock().unwrap().take();
            if let Some(own) = own {
                assert!(!own.stop_and_wait());
            }
        });
        let canceller = token.clone();
        let thread = spawn(move || {
            set_thread_number(1);
            canceller.cancel();
        });
        set_thread_number(2);
        *place.lock().unwrap() = Some(registration);
        token.cancel();
        thread.join().unwrap();
        // Put there too late to be found from inside.
        let late = place.lock().unwrap().take();
        if let Some(late) = late {
            assert!(!late.stop());
        }
    });
}

#[test]
fn detached_vs_cancel() {
    model(UNBOUNDED, || {
        let runs = Runs::default();
        let token = Token::new();
        let registration = token.on_cancel(runs.callback());
        let thread = spawn(move || drop(registration));
        token.cancel();
        drop(token);
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

#[test]
fn detached_callback_vs_last_drop_of_the_token() {
    model(UNBOUNDED, || {
        let runs = Runs::default();
        let token = Token::new();
        let registration = token.on_cancel(runs.callback());
        let thread = spawn(move || drop(registration));
        drop(token);
        thread.join().unwrap();
        assert_eq!(runs.count(), 0);
    });
}

#[test]
fn detached_callback_vs_last_drops_of_the_token_and_its_parent() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let child = root.child_token();
        let registration = child.on_cancel(runs.callback());
        let a = spawn(move || drop(registration));
        let b = spawn(move || drop(child));
        drop(root);
        a.join().unwrap();
        b.join().unwrap();
        assert_eq!(runs.count(), 0);
    });
}

/// The token is gone, its detached callback is not: it runs when the parent is cancelled.
#[test]
fn detached_callback_of_a_dropped_token_vs_cancel_above() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let child = root.child_token();
        drop(child.on_cancel(runs.callback()));
        let thread = spawn(move || drop(child));
        root.cancel();
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

#[test]
fn detached_callback_and_token_dropped_vs_cancel_above() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let child = root.child_token();
        let registration = child.on_cancel(runs.callback());
        let a = spawn(move || drop(registration));
        let b = spawn(move || drop(child));
        root.cancel();
        a.join().unwrap();
        b.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

/// A callback below a token that cancelled itself: the reset must not take it from a walker.
#[test]
fn detached_callback_of_a_cancelled_token_vs_cancel_above() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let child = root.child_token();
        drop(child.on_cancel(runs.callback()));
        let thread = spawn(move || {
            child.cancel();
            drop(child);
        });
        root.cancel();
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

#[test]
fn detached_callback_vs_creator_in_its_tokens_place() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let child = root.child_token();
        seed(&child, 1);
        let registration = child.on_cancel(runs.callback());
        let a = spawn(move || drop(registration));
        let b = spawn(move || drop(child));
        let next = root.child_token();
        let below = next.child_token();
        a.join().unwrap();
        b.join().unwrap();
        root.cancel();
        reached(&below);
        // Detached before the token went, or after.
        assert_eq!(runs.count(), 1);
    });
}

#[test]
fn stop_vs_drop_of_the_token_vs_drop_of_the_root() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let child = root.child_token();
        let registration = child.on_cancel(runs.callback());
        let a = spawn(move || registration.stop());
        let b = spawn(move || drop(child));
        drop(root);
        assert!(a.join().unwrap());
        b.join().unwrap();
        assert_eq!(runs.count(), 0);
    });
}

#[test]
fn callback_vs_two_cancels() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let child = root.child_token();
        drop(child.on_cancel(runs.callback()));
        let thread = spawn(move || child.cancel());
        root.cancel();
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

/// A callback may do anything: make children, cancel, drop.
#[test]
fn callback_that_works_on_the_tree_vs_drop() {
    model(USUAL, || {
        let root = Token::new();
        let child = root.child_token();
        let inner = root.clone();
        drop(root.on_cancel(move || {
            reached(&inner.child_token());
            inner.cancel();
            drop(inner);
        }));
        let thread = spawn(move || drop(child));
        root.cancel();
        drop(root);
        thread.join().unwrap();
    });
}

/// Whoever runs it, it has been told before.
#[test]
fn register_with_the_cause_vs_cancel() {
    model(UNBOUNDED, || {
        let runs = Runs::default();
        let root = Token::new();
        let (token, run) = (root.clone(), runs.callback());
        let thread = spawn(move || {
            token.on_cancel_with(move |cause| {
                assert!(cause.downcast_ref::<Reason>().is_some());
                run();
            })
        });
        root.cancel_with(Reason::cause(1));
        let registration = thread.join().unwrap();
        assert_eq!(runs.count(), 1);
        assert!(!registration.stop());
    });
}

#[test]
fn stop_of_one_with_the_cause_vs_cancel_above_and_drop_of_the_token() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let child = root.child_token();
        let run = runs.callback();
        let registration = child.on_cancel_with(move |cause| {
            assert!(cause.downcast_ref::<Reason>().is_some());
            run();
        });
        let thread = spawn(move || {
            drop(child);
            registration.stop()
        });
        root.cancel_with(Reason::cause(1));
        let stopped = thread.join().unwrap();
        assert_eq!(runs.count(), !stopped as usize);
    });
}

/// What a walk hands on is what `cause` says, also where another cancel is half way below it: of that one's own, and of what
/// comes after it.
#[test]
fn who_is_told_hears_what_the_cause_is_beside_another_cancel() {
    // Two callbacks: bound 2.
    model(Some(2), || {
        let root = Token::new();
        // The newer one is met first.
        let beside = root.child_token();
        let middle = root.child_token();
        let told = |token: &Token| {
            let (runs, at) = (Runs::default(), token.clone());
            let run = runs.callback();
            let registration = token.on_cancel_with(move |cause| {
                let said = at.cause().expect("told before it is cancelled");
                let number = |cause: &Cause| cause.downcast_ref::<Reason>().map(Reason::number);
                assert_eq!(number(&cause), number(&said));
                run();
            });
            (runs, registration)
        };
        let all = [told(&middle), told(&beside)];
        let thread = spawn(move || _ = middle.cancel_with(Reason::cause(2)));
        root.cancel_with(Reason::cause(1));
        thread.join().unwrap();
        for (runs, _) in &all {
            assert_eq!(runs.count(), 1);
        }
        assert_eq!(reason_of(&beside), 1);
    });
}

/// Who is below another cancel, half way, is told by that one: its cause goes with its last handle, which nothing that is
/// called keeps.
#[test]
fn who_is_told_vs_another_cancel_whose_token_goes() {
    model(Some(3), || {
        let root = Token::new();
        let middle = root.child_token();
        let runs = Runs::default();
        drop(middle.on_cancel_with(hears_a_reason(&runs)));
        let thread = spawn(move || {
            middle.cancel_with(Reason::cause(2));
            drop(middle);
        });
        root.cancel_with(Reason::cause(1));
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

/// The same where the registration goes then, and not before.
#[test]
fn who_is_told_vs_another_cancel_whose_registration_goes() {
    model(Some(3), || {
        let root = Token::new();
        let middle = root.child_token();
        let runs = Runs::default();
        let registration = middle.on_cancel_with(hears_a_reason(&runs));
        let thread = spawn(move || {
            middle.cancel_with(Reason::cause(2));
            drop(middle);
            drop(registration);
        });
        root.cancel_with(Reason::cause(1));
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

/// What either cancel was for, and not the kind alone.
fn hears_a_reason(runs: &Runs) -> impl FnOnce(Cause) + Send + 'static {
    let run = runs.callback();
    move |cause| {
        assert!(cause.downcast_ref::<Reason>().is_some(), "told {cause}");
        run();
    }
}

/// What wakes those that wait by other means runs before the first callback, which may wait for them.
#[test]
fn woken_before_called_vs_drop_of_the_token() {
    model(USUAL, || {
        let (woken, called) = (Runs::default(), Runs::default());
        let root = Token::new();
        let child = root.child_token();
        let wakes_first = || {
            let (woken, run) = (woken.clone(), called.callback());
            move || {
                assert_eq!(woken.count(), 1);
                run();
            }
        };
        // Whichever is met first.
        let before = root.on_cancel(wakes_first());
        let wakes = on_wake(&child, woken.callback());
        let after = root.on_cancel(wakes_first());
        let thread = spawn(move || drop(child));
        root.cancel();
        thread.join().unwrap();
        assert_eq!((woken.count(), called.count()), (1, 2));
        for registration in [before, wakes, after] {
            assert!(!registration.stop());
        }
    });
}

#[test]
fn register_of_one_that_is_woken_vs_cancel() {
    model(UNBOUNDED, || {
        let runs = Runs::default();
        let root = Token::new();
        let (token, callback) = (root.clone(), runs.callback());
        let thread = spawn(move || on_wake(&token, callback));
        root.cancel();
        let registration = thread.join().unwrap();
        assert_eq!(runs.count(), 1);
        assert!(!registration.stop());
    });
}

/// Its place is as good as any for what comes next.
#[test]
fn stop_of_one_that_is_woken_vs_cancel_above() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let child = root.child_token();
        let registration = on_wake(&child, runs.callback());
        let canceller = root.clone();
        let thread = spawn(move || canceller.cancel());
        let stopped = registration.stop();
        let next = child.child_token();
        drop(child);
        thread.join().unwrap();
        assert_eq!(runs.count(), !stopped as usize);
        assert!(next.is_cancelled());
    });
}

/// It keeps nothing, and hears of what comes from above.
#[test]
fn one_that_is_woken_is_detached_vs_cancel_above() {
    model(USUAL, || {
        let runs = Runs::default();
        let root = Token::new();
        let child = root.child_token();
        let registration = on_wake(&child, runs.callback());
        let thread = spawn(move || {
            drop(child);
            drop(registration);
        });
        root.cancel();
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
        drop(root);
    });
}
