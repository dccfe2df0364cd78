//! Operations on groups and on deadlines that move, which this crate alone has.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task;
use std::task::Waker;
use std::time::{Duration, Instant};

use cancel_tree::{CancelGuard, Context, DeadlineGuard, Group, IdleGuard};

use super::{operations, Measure, Operation};

/// As long as a server's limits are.
const LIMIT: Duration = Duration::from_secs(30);

operations! {
    Track, "task", "a task that ends at once: `track_with`, one poll, drop", Group::new(&Context::background()),
    |group: &Group, measure| measure.again(|| {
        let task = black_box(group).track_with(|ctx| async move {
            black_box(&ctx);
        });
        poll(task.expect("an open group"));
    });

    TrackNamed, "task_named", "… with a name", Group::new(&Context::background()),
    |group: &Group, measure| measure.again(|| {
        let task = black_box(group).named("task").track(async {});
        poll(task.expect("an open group"));
    });

    Touch, "touch", "`touch()`, with its reading of the clock", Context::background().with_idle_timeout(LIMIT),
    |shared: &(Context, IdleGuard), measure| measure.again(|| black_box(&shared.1).touch());

    TouchAt, "touch_at", "`touch_at()`", Context::background().with_idle_timeout(LIMIT),
    |shared: &(Context, IdleGuard), measure| {
        let now = Instant::now();
        measure.again(|| black_box(&shared.1).touch_at(black_box(now)));
    };

    Extend, "extend", "`extend()` a deadline", movable(),
    |shared: &(Context, DeadlineGuard), measure| measure.again(|| {
        black_box(black_box(&shared.1).extend(Duration::from_millis(1)));
    });

    ErrMovable, "ctx_err_movable", "`err()` below a movable deadline", below_movable(),
    |shared: &((Context, DeadlineGuard), (Context, CancelGuard)), measure| measure.again(|| {
        black_box(black_box(&shared.1.0).err());
    });

    TimeoutMovable, "ctx_timeout_drop_movable", "`with_timeout(30 s)` + drop below a movable deadline", movable(),
    |shared: &(Context, DeadlineGuard), measure| measure.again(|| {
        let (context, _guard) = black_box(&shared.0).with_timeout(LIMIT);
        black_box(&context);
    });

    TimeoutInGroup, "ctx_timeout_drop_in_group", "… inside a group", Group::new(&Context::background()),
    |group: &Group, measure| measure.again(|| {
        let (context, _guard) = black_box(group.context()).with_timeout(LIMIT);
        black_box(&context);
    });
}

fn poll(task: impl Future<Output = ()>) {
    let ready = pin!(task).poll(&mut task::Context::from_waker(Waker::noop()));
    assert!(ready.is_ready());
}

/// Later than what is made below it.
fn movable() -> (Context, DeadlineGuard) {
    Context::background().with_movable_deadline(Instant::now() + 10 * LIMIT)
}

fn below_movable() -> ((Context, DeadlineGuard), (Context, CancelGuard)) {
    let movable = movable();
    let below = movable.0.with_timeout(LIMIT);
    (movable, below)
}
