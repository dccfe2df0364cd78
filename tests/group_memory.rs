//! What a group keeps of its tasks, counted: of one that lives a place and a node, of one
//! that has ended nothing. One test, for the count is the process's.

mod counting;

use cancel_tree::{Context, Group};
use std::future::{pending, Future};
use std::pin::pin;
use std::task::{self, Waker};

fn ends_at_once(task: impl Future<Output = ()>) {
    let cx = &mut task::Context::from_waker(Waker::noop());
    assert!(pin!(task).poll(cx).is_ready());
}

/// The whole of a task that is one pointer wide, and of what the group adds to it.
fn of_the_future<F: Future>(_: impl FnOnce(Context) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_group_keeps_nothing_of_those_that_have_ended() {
    const LIVING: usize = 10_000;
    let (server, _guard) = Context::background().with_cancel();
    let group = Group::new(&server);
    let one = |group: &Group| {
        let task = group.track_with(|ctx| async move { assert!(!ctx.is_done()) });
        ends_at_once(task.unwrap());
    };
    // Places, nodes, and whatever is set up by the first use.
    (0..100).for_each(|_| one(&group));

    let run = || (0..1_000_000).for_each(|_| one(&group));
    counting::grows_by_nothing("one after the other", true, run);

    let waits = |ctx: Context| async move {
        ctx.done().await;
        pending::<()>().await;
    };
    let mut tasks = Vec::with_capacity(LIVING);
    let ((), living, _) = counting::grows(|| {
        tasks.extend((0..LIVING).map(|_| group.track_with(waits).unwrap()));
    });
    let in_the_task = size_of_val(&tasks[0]) - of_the_future(waits);
    let each = living as f64 / LIVING as f64 + in_the_task as f64;
    println!("{each:.1} bytes for each that lives");
    assert!(each <= 128.0, "{each} bytes for each that lives");
    assert_eq!(group.len(), LIVING);

    // As many again take the places of those that are gone.
    counting::grows_by_nothing("as many again", true, || {
        tasks.clear();
        tasks.extend((0..LIVING).map(|_| group.track_with(waits).unwrap()));
    });
    drop(tasks);
    group.join_blocking().unwrap();
}
