//! In a child process made by `fork`, where no worker is to be had, a report leaves nothing behind of what it has met.
#![cfg(unix)]

mod forked;

use cancel_tree::{Cause, Context, Group};
use forked::status_of;
use futures::executor::block_on;
use std::error::Error;
use std::ffi::c_int;
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

static GONE: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Counted;

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counted")
    }
}

impl Error for Counted {}

impl Drop for Counted {
    fn drop(&mut self) {
        GONE.fetch_add(1, Relaxed);
    }
}

/// Makes reports of so many ends, each of which meets a context that has a cause.
fn reports(many: usize) {
    for _ in 0..many {
        let (ctx, guard) = Context::background().with_cancel();
        let ctx = ctx.with_name("request");
        guard.cancel_with(Cause::new(Counted));
        let group = Group::new(&Context::background());
        let task = group.named("stuck").track(pending::<()>()).unwrap();
        let (limit, over) = Context::background().with_cancel();
        over.cancel();
        let report = block_on(group.shutdown_with(&limit, Duration::ZERO));
        assert!(report.tree.is_some());
        drop((report, ctx, guard, task));
    }
}

#[test]
fn reports_in_a_forked_child_let_go_of_what_they_have_met() {
    const MANY: usize = 16;
    assert_eq!(
        status_of(|| {
            reports(MANY);
            (MANY - GONE.load(Relaxed)) as c_int
        }),
        0,
        "as waitpid tells it: how many are left << 8, or a signal"
    );
}
