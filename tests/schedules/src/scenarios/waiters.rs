//! Parked threads and tasks that wait for one token after another, while others cancel them and poll and leave
//! there. A wake-up that is lost leaves a thread asleep for ever, which shuttle reports.

use crate::probes::{draw, operation, Alarm, Record};
use cancel_tree::CancellationToken;
use shuttle::{future, thread};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

const ROUNDS: usize = 40;

type Known = (CancellationToken, Record);

pub fn run() {
    let (root, record) = (CancellationToken::new(), Record::root());
    let rounds: Arc<Vec<Known>> = Arc::new(
        (0..ROUNDS)
            .map(|_| (root.child_token(), Record::below(&[&record])))
            .collect(),
    );
    let with = |f: fn(&Known)| {
        let rounds = rounds.clone();
        thread::spawn(move || {
            for round in rounds.iter() {
                operation();
                f(round);
            }
        })
    };
    let threads = [with(wait), with(wait), with(wait), with(visit)];
    // The fifth: cancels in order, and the rest by one cancel.
    let alone = draw(ROUNDS + 1);
    for (token, record) in &rounds[..alone] {
        operation();
        record.cancel(token, |cause| token.cancel_with(cause));
    }
    record.cancel(&root, |cause| root.cancel_with(cause));
    for thread in threads {
        thread.join().unwrap();
    }
    for (token, record) in rounds.iter() {
        record.check(token);
    }
}

/// Until it is cancelled, in one way or another.
fn wait((token, record): &Known) {
    match draw(6) {
        0 | 1 => token.blocking_wait(),
        2 => token.child_token().blocking_wait(),
        3 => future::block_on(token.cancelled()),
        4 => future::block_on(token.child_token().cancelled_owned()),
        _ => {
            let other = CancellationToken::new();
            CancellationToken::any_of([&other, token]).blocking_wait();
        }
    }
    assert!(record.may_be_done(), "woken for nothing");
    record.check(token);
}

/// Comes, is polled, and leaves.
fn visit((token, _): &Known) {
    let alarm = Alarm::new();
    let mut future = token.clone().cancelled_owned();
    for _ in 0..draw(3) {
        let waker = alarm.waker();
        let _ = Pin::new(&mut future).poll(&mut Context::from_waker(&waker));
    }
}
