//! In a process of its own, for `snapshot` lets the panics of others' destructors go on, as it says.

use cancel_tree::{Context, Group};
use std::future::pending;
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
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
