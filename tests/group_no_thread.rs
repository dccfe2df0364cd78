//! Where no thread can be started, neither the timer's nor a task's: the work comes back, and a shutdown ends. One test: it
//! takes the process's address space away for a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

use cancel_tree::{Cause, Context, Group};
use std::ffi::c_int;
use std::time::{Duration, Instant};

const RLIMIT_AS: c_int = 9;
const NO_LIMIT: u64 = u64::MAX;

extern "C" {
    fn setrlimit(resource: c_int, limit: *const [u64; 2]) -> c_int;
}

fn limit(bytes: u64) {
    // SAFETY: a pointer to what the function asks for, on targets of 64 bits.
    assert_eq!(unsafe { setrlimit(RLIMIT_AS, &[bytes, NO_LIMIT]) }, 0);
}

fn in_use() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn without_threads_the_work_comes_back_and_a_shutdown_ends() {
    let group = Group::new(&Context::background()).limit(2);
    let mut outcomes = group.outcomes();
    let member = group.named("sits there").enter().unwrap();
    // Room for what is small; none for a thread's stack.
    limit(in_use() + (256 << 10));
    let refused = group.spawn_thread(|_ctx| ()).unwrap_err();
    let told = outcomes.spawn_thread(|_ctx| Ok::<_, Cause>(7)).unwrap_err();
    let (bound, _guard) = Context::background().with_timeout(Duration::from_millis(30));
    let begin = Instant::now();
    let full = group.enter().unwrap();
    let waited = group.enter_when_blocking(&bound).unwrap_err();
    drop(full);
    let report = group.shutdown_blocking(&bound);
    let took = begin.elapsed();
    limit(NO_LIMIT);
    refused.into_inner()(Context::background());
    assert_eq!(told.into_inner()(Context::background()).unwrap(), 7);
    assert!(outcomes.next_blocking().is_none());
    assert_eq!(waited.cause().kind(), bound.err().unwrap());
    assert_eq!(report.stuck.len(), 1, "{report}");
    assert_eq!(
        (report.done, report.cancelled, report.forced),
        (0, 0, 0),
        "{report}"
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(member);
    assert!(group.join_blocking().is_ok());
}
