//! In a child process made by `fork`, where no worker is to be had, a report leaves nothing behind of what it has met.
#![cfg(unix)]

use cancel_tree::{Cause, Context, Group};
use futures::executor::block_on;
use std::error::Error;
use std::ffi::c_int;
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

extern "C" {
    fn fork() -> c_int;
    fn waitpid(process: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn alarm(seconds: u32) -> u32;
    fn _exit(status: c_int) -> !;
}

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
    // So that the parent has a timer thread, which the child lacks.
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    ctx.blocking_wait();
    // SAFETY: the child uses this crate and the allocator, which glibc and macOS make ready for that, and exits
    // without running what is registered for the end of the process.
    let child = unsafe {
        let child = fork();
        if child == 0 {
            alarm(20);
            reports(MANY);
            _exit((MANY - GONE.load(Relaxed)) as c_int);
        }
        child
    };
    assert!(child > 0, "no process to be had");
    let mut status = 0;
    // SAFETY: the pointer is to a number of our own.
    assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
    assert_eq!(
        status, 0,
        "as waitpid tells it: how many are left << 8, or a signal"
    );
}
