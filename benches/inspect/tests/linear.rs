//! What a cancel, a snapshot and a report cost is linear in what is there, whatever its shape: by counts of accesses to shared
//! memory, which no load of the machine changes. run.sh builds it with `--cfg cancel_tree_counting`.
#![cfg(all(cancel_tree_counting, feature = "inspect"))]

use cancel_tree::counting::accesses;
use cancel_tree::inspect::{snapshot, Kind, Situation};
use cancel_tree::{CancelGuard, CancellationToken, Context, Group, StopOnDrop};
use std::any::Any;
use std::future::{pending, Future};
use std::pin::pin;
use std::sync::Mutex;
use std::task::{self, Waker};
use std::time::Duration;

/// A snapshot meets what the other tests have made.
static ALONE: Mutex<()> = Mutex::new(());

/// Counts at one length and at twice that, from short ones on, so that what grows as a square fails early: each costs no more
/// than twice the last and a tenth.
fn is_linear(what: &str, mut count: impl FnMut(usize) -> usize) {
    let _alone = ALONE.lock();
    let mut last = count(250);
    for length in [500, 1_000, 2_000, 4_000, 10_000, 20_000] {
        let now = count(length);
        let most = last as f64 * 2.2 * if length == 10_000 { 1.25 } else { 1.0 };
        println!("{what}: {now} accesses at {length}");
        assert!(now as f64 <= most, "{what}: {last}, and {now} at {length}");
        last = now;
    }
}

/// Names one below the other.
fn chain(length: usize) -> (Vec<Context>, CancelGuard) {
    let (root, guard) = Context::background().with_cancel();
    let mut all = vec![root];
    for _ in 0..length {
        let below = all[all.len() - 1].with_name("link");
        all.push(below);
    }
    (all, guard)
}

/// The ones below before those above, without a recursion.
fn drop_chain<T>(mut all: Vec<T>) {
    while all.pop().is_some() {}
}

#[test]
fn a_cancel_of_names_below_one_another() {
    is_linear("a cancel", |length| {
        let (all, guard) = chain(length);
        let count = accesses(|| drop(guard)).len();
        drop_chain(all);
        count
    });
}

/// Who is told the cause hangs at each level of a chain of tokens, made before what is below or after it.
#[test]
fn a_cancel_of_callbacks_that_are_told_why() {
    for is_before in [true, false] {
        is_linear("a cancel that tells why", |length| {
            let root = CancellationToken::new();
            let mut all = vec![root.clone()];
            let mut told: Vec<StopOnDrop> = Vec::new();
            for _ in 0..length {
                let last = all[all.len() - 1].clone();
                let tell = || last.on_cancel_with(drop).stop_on_drop();
                let mut own = is_before.then(tell);
                all.push(last.child_token());
                told.extend(own.take().or_else(|| (!is_before).then(tell)));
            }
            let count = accesses(|| root.cancel()).len();
            drop(told);
            drop_chain(all);
            count
        });
    }
}

/// Graces one in another: none looks for its cause up to the token that was cancelled.
fn a_cancel_of_graces(what: &str, mut inner: impl FnMut(&Context) -> (Context, Vec<Box<dyn Any>>)) {
    is_linear(what, |length| {
        let (root, guard) = Context::background().with_cancel();
        let mut all = vec![(root.with_grace(Duration::MAX), Vec::new())];
        for _ in 0..length {
            let last = inner(&all[all.len() - 1].0);
            all.push(last);
        }
        let count = accesses(|| _ = guard.cancel_with("all of it")).len();
        drop_chain(all);
        count
    });
}

#[test]
fn a_cancel_of_graces_one_in_another() {
    a_cancel_of_graces("a cancel of graces", |ctx| {
        (ctx.with_grace(Duration::MAX), Vec::new())
    });
}

/// One each, and so many that some sit in a room.
#[test]
fn a_cancel_of_graces_that_tasks_wait_for() {
    for waiters in [1, 12] {
        let what = format!("a cancel of graces with {waiters} waiters each");
        a_cancel_of_graces(&what, |ctx| {
            let ctx = ctx.with_grace(Duration::MAX);
            let wait = || {
                let mut done = Box::pin(ctx.clone().done_owned());
                let cx = &mut task::Context::from_waker(Waker::noop());
                assert!(done.as_mut().poll(cx).is_pending());
                Box::new(done) as Box<dyn Any>
            };
            let waits = (0..waiters).map(|_| wait()).collect();
            (ctx, waits)
        });
    }
}

#[test]
fn a_cancel_of_graces_within_groups() {
    a_cancel_of_graces("a cancel of graces within groups", |ctx| {
        let group = Group::new(ctx);
        let ctx = group.context().with_grace(Duration::MAX);
        (ctx, vec![Box::new(group)])
    });
}

/// Not one in another, but all at the end of a chain of tokens.
#[test]
fn a_cancel_of_graces_far_below() {
    is_linear("a cancel of graces far below", |length| {
        let (mut all, guard) = chain(length);
        for _ in 0..length {
            let grace = all[length].with_grace(Duration::MAX);
            all.push(grace);
        }
        let count = accesses(|| _ = guard.cancel_with("all of it")).len();
        drop_chain(all);
        count
    });
}

#[test]
fn a_snapshot_of_names_below_one_another() {
    is_linear("a snapshot", |length| {
        let (all, guard) = chain(length);
        let mut met = 0;
        let mut count = accesses(|| met = snapshot().nodes().len()).len();
        assert_eq!(met, length);
        guard.cancel_with("enough");
        count += accesses(|| {
            let now = snapshot();
            let done = now.nodes().iter().filter_map(|node| node.done.as_ref());
            assert!(done.clone().all(|done| done.cause.to_string() == "enough"));
            met = done.count();
        })
        .len();
        assert_eq!(met, length);
        drop_chain(all);
        count
    });
}

/// Of a chain whose end somebody waits at, and which nobody can cancel.
#[test]
fn a_snapshot_of_names_that_nobody_can_cancel() {
    is_linear("a snapshot out of reach", |length| {
        let (all, guard) = chain(length);
        guard.detach();
        let last = all[length].clone();
        let mut wait = pin!(last.done());
        let cx = &mut task::Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(cx).is_pending());
        // What is above is held by nobody but those below.
        let mut all = all;
        drop(all.remove(0));
        let mut lost = 0;
        let count = accesses(|| {
            let now = snapshot();
            let of_it = |situation| situation == Some(Situation::NeverWoken);
            lost = now.nodes().iter().filter(|n| of_it(n.situation)).count();
        })
        .len();
        assert!(lost > 0);
        drop_chain(all);
        count
    });
}

/// A report of a small group beside a large one: the other's tasks are not walked.
#[test]
fn a_report_of_a_group_beside_many_tasks() {
    let _alone = ALONE.lock();
    let mut counts = [0, 10_000].map(|many| {
        let large = Group::new(&Context::background());
        let others: Vec<_> = (0..many)
            .map(|_| large.named("other").track(pending::<()>()).unwrap())
            .collect();
        let group = Group::new(&Context::background());
        let inner = group.child("inner");
        let task = inner.named("stuck").track(pending::<()>()).unwrap();
        let (limit, guard) = Context::background().with_cancel();
        guard.cancel();
        let mut report = None;
        let count = accesses(|| report = Some(group.shutdown_blocking(&limit))).len();
        let tree = report.unwrap().tree.unwrap();
        let kinds: Vec<Kind> = tree.nodes().iter().map(|node| node.kind).collect();
        assert_eq!(kinds, [Kind::Group, Kind::Group, Kind::Task]);
        drop((task, others));
        count
    });
    counts.sort_unstable();
    assert!(counts[1] - counts[0] < 200, "{counts:?}");
}
