//! In a process of its own, for `snapshot` lets the panics of others' destructors go on, as it says.

use cancel_tree::{Cause, Context, Group};
use futures::executor::block_on;
use std::error::Error;
use std::fmt;
use std::future::pending;
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a destructor of others");
        }
    }
}

/// What others drop meanwhile, and panics, is not the end's panic.
#[test]
fn a_report_is_not_lost_to_a_destructor_of_others() {
    set_hook(Box::new(|_| ()));
    let done = AtomicBool::new(false);
    let report = || {
        let group = Group::new(&Context::background());
        let task = group.named("stuck").track(pending::<()>()).unwrap();
        let (limit, _guard) = Context::background().with_timeout(Duration::ZERO);
        let report = catch_unwind(AssertUnwindSafe(|| group.shutdown_blocking(&limit)));
        drop(task);
        report.is_ok_and(|report| report.stuck.len() == 1 && report.tree.is_some())
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let group = Group::new(&Context::background().with_value(PanicsInDrop));
                // So that it takes a while to read.
                let task = |_| group.track(pending::<()>()).unwrap();
                drop((0..1_000).map(task).collect::<Vec<_>>());
                _ = catch_unwind(AssertUnwindSafe(|| drop(group)));
            }
        });
        let many = || (0..4).all(|_| report());
        let reports: Vec<_> = (0..64).map(|_| scope.spawn(many)).collect();
        let are_whole = reports.into_iter().all(|thread| thread.join().unwrap());
        done.store(true, Relaxed);
        assert!(are_whole);
    });
}

/// The thread that makes reports; and how often it had to do with others' destructors, which might as well block.
const REPORTER: &str = "reporter";
static HELD_UP: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct MayBlockInDrop;

impl fmt::Display for MayBlockInDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("others' cause")
    }
}

impl Error for MayBlockInDrop {}

impl Drop for MayBlockInDrop {
    fn drop(&mut self) {
        if thread::current().name() == Some(REPORTER) {
            HELD_UP.fetch_add(1, Relaxed);
        }
    }
}

/// What has ended while a report was made, and is let go with it, holds up no end.
#[test]
fn a_report_waits_for_no_destructor_of_others() {
    // So that it takes a while.
    let (server, _guard) = Context::background().with_cancel();
    let names: Vec<_> = (0..2_000).map(|_| server.with_name("name")).collect();
    let done = AtomicBool::new(false);
    let report = || {
        let group = Group::new(&Context::background());
        let task = group.named("stuck").track(pending::<()>()).unwrap();
        let (limit, guard) = Context::background().with_cancel();
        guard.cancel();
        let report = block_on(group.shutdown_with(&limit, Duration::ZERO));
        assert!(report.tree.is_some());
        drop(task);
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let (request, guard) = Context::background().with_cancel();
                let request = request.with_name("request");
                guard.cancel_with(Cause::new(MayBlockInDrop));
                drop(guard);
                drop(request);
            }
        });
        let reporter = thread::Builder::new().name(REPORTER.into());
        let reports = reporter
            .spawn_scoped(scope, || (0..20).for_each(|_| report()))
            .unwrap();
        let is_through = reports.join().is_ok();
        done.store(true, Relaxed);
        assert!(is_through);
    });
    assert_eq!(HELD_UP.load(Relaxed), 0);
    drop(names);
}
