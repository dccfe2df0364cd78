//! Where the timer's thread cannot be started, a look is what notices a deadline, and calls what is left for that end. Its panic is not
//! the task's that looks, and loses neither a place nor an error. One test: it takes the process's address space away for a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;

use address_space::Limited;
use cancel_tree::{Cause, Context, Group, Panicked};
use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::task::{self, Poll, Waker};
use std::time::Duration;

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(Waker::noop()))
}

#[test]
fn what_is_called_by_the_look_at_a_deadline_takes_no_place() {
    // Room for what is small; none for the stack of the timer's thread.
    let limited = Limited::to(256 << 10);
    let checks = with_hardly_any_memory();
    drop(limited);
    for check in checks {
        check();
    }
}

/// Returns what is to be looked at afterwards.
fn with_hardly_any_memory() -> Vec<Box<dyn FnOnce()>> {
    let made = || {
        let (above, deadline) = Context::background().with_movable_deadline(None);
        let group = Group::new(&above);
        drop(group.context().on_cancel(|| panic!("a callback")));
        (group, deadline)
    };
    let panicked = |cause: &Cause| {
        let panicked = cause.downcast_ref::<Panicked>();
        panicked.is_some_and(|of| of.message == "a callback" && of.spawned_at.is_none())
    };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));

    // A task that is watched; one that fails; one that is to start in a group inside, under a limit.
    let (ends, deadline) = made();
    let member = ends.enter().unwrap();
    let mut idle = Box::pin(async move {
        ends.wait_idle().await;
        ends
    });
    assert!(poll(idle.as_mut()).is_pending());
    let (fails, of_fails) = made();
    let task = fails.track(async { Err::<(), _>("disk full") }).unwrap();
    let (around, of_around) = made();
    let inside = around.child("inside").limit(1);
    // And tasks that come late, with a name and without one: the caller keeps what it wanted to start.
    let (named, of_named) = made();
    let (plain, of_plain) = made();
    let deadlines = [deadline, of_fails, of_around, of_named, of_plain];
    for deadline in &deadlines {
        assert!(deadline.set_timeout(Duration::from_secs(2)));
    }
    std::thread::sleep(Duration::from_secs(2));

    let ended = catch_unwind(AssertUnwindSafe(|| drop(member)));
    let Poll::Ready(ends) = poll(idle.as_mut()) else {
        panic!("the place is lost");
    };
    let failed = catch_unwind(AssertUnwindSafe(|| poll(pin!(task)).is_ready()));
    let refused = catch_unwind(AssertUnwindSafe(|| inside.named("late").enter().is_err()));
    let late_named = catch_unwind(AssertUnwindSafe(|| named.named("late").enter().is_err()));
    let late_plain = catch_unwind(AssertUnwindSafe(|| {
        plain.track(std::future::pending::<()>()).is_err()
    }));
    std::panic::set_hook(hook);
    vec![
        Box::new(move || {
            assert!(ended.is_ok() && ends.is_empty());
            // Its panic is this drop's, unless the timer has its thread by now.
            drop(catch_unwind(AssertUnwindSafe(|| drop(ends))));
        }),
        Box::new(move || {
            assert!(failed.unwrap() && fails.is_empty());
            let cause = fails.join_blocking().unwrap_err();
            // What was called is noted, and takes no error's place.
            assert_eq!(cause.to_string(), "disk full");
        }),
        Box::new(move || {
            assert!(refused.unwrap() && around.is_empty() && inside.is_empty());
            assert!(panicked(&inside.join_blocking().unwrap_err()));
            drop(deadlines);
        }),
        Box::new(move || {
            for (late, group) in [(late_named, named), (late_plain, plain)] {
                assert!(late.expect("the task is lost") && group.is_empty());
                assert!(panicked(&group.join_blocking().unwrap_err()));
            }
        }),
    ]
}
