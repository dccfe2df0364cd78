//! The receiver that disconnects when a context is done.

mod first_callback;

use cancel_tree::integrations::crossbeam_channel::DoneReceiver;
use cancel_tree::{CancellationToken, Context};
use crossbeam_channel::{select, unbounded, RecvTimeoutError, Select, TryRecvError};
use first_callback::is_told_before;
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_secs(3600);

#[test]
fn it_disconnects_when_the_context_is_done_and_not_before() {
    let (ctx, guard) = Context::background().with_cancel();
    let done = ctx.done_receiver();
    assert_eq!(done.receiver().try_recv().unwrap_err(), TryRecvError::Empty);
    guard.cancel();
    // Before `cancel` returns, for all, for good.
    for done in [done.clone(), done, ctx.done_receiver()] {
        assert_eq!(
            done.receiver().try_recv().unwrap_err(),
            TryRecvError::Disconnected
        );
        assert!(done.receiver().recv().is_err());
    }
}

/// As threads are woken that wait by themselves, before the first callback: that may wait for them.
#[test]
fn it_disconnects_before_the_first_callback() {
    let (other, _other) = Context::background().with_cancel();
    let of: [fn(&Context, &Context) -> DoneReceiver; 3] = [
        |ctx, _| ctx.done_receiver(),
        |ctx, _| ctx.child_token().done_receiver(),
        |ctx, other| Context::any_of([other, ctx]).done_receiver(),
    ];
    for done in of {
        is_told_before(
            Context::background().with_cancel(),
            |ctx| done(ctx, &other),
            |done| assert!(done.receiver().recv().is_err()),
        );
    }
}

#[test]
fn a_deadline_disconnects() {
    let begin = Instant::now();
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    assert!(ctx.done_receiver().receiver().recv().is_err());
    assert!(begin.elapsed() >= SOON && ctx.is_done());
}

#[test]
fn select_in_many_threads() {
    let token = CancellationToken::new();
    let (say, hear) = unbounded::<u32>();
    let done = token.done_receiver();
    thread::scope(|s| {
        for _ in 0..8 {
            let (hear, done) = (hear.clone(), done.clone());
            s.spawn(move || loop {
                select! {
                    recv(hear) -> n => assert!(n.is_ok()),
                    recv(done.receiver()) -> never => return assert!(never.is_err()),
                }
            });
        }
        drop(done);
        for n in 0..1000 {
            say.send(n).unwrap();
        }
        token.cancel();
    });
}

#[test]
fn select_of_a_number_that_is_known_late() {
    let contexts: Vec<_> = (0..5)
        .map(|_| Context::background().with_cancel())
        .collect();
    let done: Vec<_> = contexts
        .iter()
        .map(|(ctx, _)| ctx.done_receiver())
        .collect();
    let mut select = Select::new();
    for done in &done {
        select.recv(done.receiver());
    }
    assert!(select.try_ready().is_err());
    contexts[3].1.cancel();
    assert_eq!(select.ready(), 3);
}

/// What goes without a cancel is not taken for one.
#[test]
fn the_end_of_the_context_is_no_cancel() {
    let timeout = Some(RecvTimeoutError::Timeout);
    let (ctx, guard) = Context::background().with_cancel();
    let done = ctx.done_receiver();
    guard.detach();
    drop(ctx);
    assert_eq!(done.receiver().recv_timeout(SOON).err(), timeout);
    // Nor is the end of a clone, of the first, of the one that a thread waits on.
    let first = CancellationToken::new().done_receiver();
    let second = first.clone();
    let waiting = thread::spawn(move || second.receiver().recv_timeout(SOON * 5).err());
    thread::sleep(SOON);
    drop(first);
    assert_eq!(waiting.join().unwrap(), timeout);
    // And what never can be done.
    let never = Context::background().done_receiver();
    assert_eq!(never.receiver().recv_timeout(SOON).err(), timeout);
}

/// What is above may still cancel it when the context's last handle is gone.
#[test]
fn a_cancel_from_above_reaches_it_without_a_handle_of_the_context() {
    let parent = CancellationToken::new();
    let done = parent.child_token().done_receiver();
    parent.cancel();
    assert!(done.receiver().recv_timeout(LATE).is_err());
}

#[test]
fn nothing_stays_registered_of_those_that_are_gone() {
    let cancel_of_20_000 = |stay: bool| {
        let (ctx, guard) = Context::background().with_cancel();
        let mut there = Vec::new();
        for _ in 0..20_000 {
            let done = ctx.done_receiver();
            let clone = done.clone();
            drop(done);
            assert!(clone.receiver().is_empty());
            if stay {
                there.push(clone);
            }
        }
        let begin = Instant::now();
        guard.cancel();
        begin.elapsed()
    };
    // Whatever the machine does beside this, in one of ten attempts.
    assert!((0..10).any(|_| cancel_of_20_000(false) < cancel_of_20_000(true) / 10));
}

#[test]
fn the_drop_of_the_last_clone_meets_the_cancel() {
    for _ in 0..2000 {
        let (ctx, guard) = Context::background().with_cancel();
        let done = ctx.done_receiver();
        let other = done.clone();
        thread::scope(|s| {
            s.spawn(|| guard.cancel());
            s.spawn(move || {
                if other.receiver().try_recv() == Err(TryRecvError::Disconnected) {
                    assert!(ctx.is_done());
                }
                drop(other);
            });
            drop(done);
        });
    }
}
