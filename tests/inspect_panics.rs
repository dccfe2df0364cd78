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
    let reports = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let group = Group::new(&Context::background().with_value(PanicsInDrop));
                _ = catch_unwind(AssertUnwindSafe(|| drop(group)));
            }
        });
        let report = |_| {
            let group = Group::new(&Context::background());
            let task = group.named("stuck").track(pending::<()>()).unwrap();
            let (limit, _guard) = Context::background().with_timeout(Duration::ZERO);
            let report = catch_unwind(AssertUnwindSafe(|| group.shutdown_blocking(&limit)));
            drop(task);
            report.is_ok_and(|report| report.stuck.len() == 1 && report.tree.is_some())
        };
        let reports: Vec<bool> = (0..20).map(report).collect();
        done.store(true, Relaxed);
        reports
    });
    assert!(reports.into_iter().all(|is_whole| is_whole));
}
