//! What a group keeps of those that wait for it follows how many wait at once, and not how often. One test, for the count is the
//! process's.

mod counting;

use cancel_tree::{Context, Group};
use std::future::Future;
use std::pin::{pin, Pin};
use std::task::{self, Poll, Waker};

fn begins_to_wait<F: Future>(wait: F) -> Pin<Box<F>> {
    let mut wait = Box::pin(wait);
    let cx = &mut task::Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(cx).is_pending());
    wait
}

/// Some wait all the time, and one more again and again.
fn short_waits_beside_long_ones(long: usize) {
    let group = Group::new(&Context::background());
    let _member = group.enter().unwrap();
    let _waits: Vec<_> = (0..long)
        .map(|_| begins_to_wait(group.wait_idle()))
        .collect();
    let cx = &mut task::Context::from_waker(Waker::noop());
    let mut wait_shortly = || assert_eq!(pin!(group.wait_idle()).poll(cx), Poll::Pending);
    // Some seats that stand free are made first, so that one is soon found.
    (0..10 * long).for_each(|_| wait_shortly());
    let what = format!("one after the other, beside {long}");
    counting::grows_by_nothing(&what, false, || {
        (0..100_000).for_each(|_| wait_shortly());
    });
}

/// If each of them looked at all the others' seats, this would take minutes.
fn many_wait_at_once() {
    let group = Group::new(&Context::background());
    let _member = group.enter().unwrap();
    let all_wait = || {
        let waits: Vec<_> = (0..100_000)
            .map(|_| begins_to_wait(group.wait_idle()))
            .collect();
        drop(waits);
    };
    all_wait();
    counting::grows_by_nothing("as many again", false, all_wait);
}

#[test]
fn a_group_keeps_seats_for_those_that_wait_at_once() {
    for long in [15, 16, 100, 1000] {
        short_waits_beside_long_ones(long);
    }
    many_wait_at_once();
}
