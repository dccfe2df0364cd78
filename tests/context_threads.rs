//! How many threads the library takes for callbacks. One test, so that no other one's callbacks have left idle
//! threads here.

use cancel_tree::Context;
use std::collections::HashSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

#[test]
fn callbacks_that_end_at_once_share_a_few_threads() {
    let (say, hear) = mpsc::channel();
    let round = || {
        let (ctx, guard) = Context::background().with_cancel();
        for _ in 0..1000 {
            let say = say.clone();
            drop(ctx.after_func(move || say.send(thread::current().id()).unwrap()));
        }
        guard.cancel();
        let threads = (0..1000).map(|_| hear.recv_timeout(Duration::from_secs(60)).unwrap());
        threads.collect::<HashSet<_>>().len()
    };
    // The middle of many, in one of the attempts: where other programs keep the processors busy, threads seem to be stuck
    // that only wait for one, and others are sent. What sends too many for no such reason does it in all of them.
    let mut attempts = Vec::new();
    let is_good = |_| {
        let mut rounds: Vec<usize> = (0..20).map(|_| round()).collect();
        rounds.sort();
        let is_good = rounds[10] < 15;
        attempts.push(rounds);
        is_good
    };
    assert!((0..5).any(is_good), "{attempts:?}");
}
