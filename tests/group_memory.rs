//! What a group keeps of its tasks, counted by an allocator of this test's own: of one that lives a place and a node, of one
//! that has ended nothing. One test, for the count is the process's.

use cancel_tree::{Context, Group};
use std::alloc::{GlobalAlloc, Layout, System};
use std::future::{pending, Future};
use std::pin::pin;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use std::task::{self, Waker};

/// Counts the bytes in use, and their peak.
struct Counting;

static IN_USE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = layout.size() as isize;
        PEAK.fetch_max(IN_USE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as isize, Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How much is in use after `f`, and was at its peak, beyond what was before.
fn grows<R>(f: impl FnOnce() -> R) -> (R, isize, isize) {
    let before = IN_USE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let answer = f();
    (
        answer,
        IN_USE.load(Relaxed) - before,
        PEAK.load(Relaxed) - before,
    )
}

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
    let ((), left, peak) = grows(run);
    assert_eq!((left, peak), (0, 0), "one after the other");

    let waits = |ctx: Context| async move {
        ctx.done().await;
        pending::<()>().await;
    };
    let mut tasks = Vec::with_capacity(LIVING);
    let ((), living, _) = grows(|| {
        tasks.extend((0..LIVING).map(|_| group.track_with(waits).unwrap()));
    });
    let in_the_task = size_of_val(&tasks[0]) - of_the_future(waits);
    let each = living as f64 / LIVING as f64 + in_the_task as f64;
    println!("{each:.1} bytes for each that lives");
    assert!(each <= 128.0, "{each} bytes for each that lives");
    assert_eq!(group.len(), LIVING);

    // As many again take the places of those that are gone.
    let ((), left, peak) = grows(|| {
        tasks.clear();
        tasks.extend((0..LIVING).map(|_| group.track_with(waits).unwrap()));
    });
    assert_eq!((left, peak), (0, 0), "as many again");
    drop(tasks);
    group.join_blocking().unwrap();
}
