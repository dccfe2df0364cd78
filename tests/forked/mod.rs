//! A child process made by `fork`, in which there is no timer thread.

use super::Context;
use std::ffi::c_int;
use std::time::Duration;

extern "C" {
    fn fork() -> c_int;
    fn waitpid(process: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn alarm(seconds: u32) -> u32;
    fn _exit(status: c_int) -> !;
}

/// What `waitpid` tells of a child that has run this: the exit code that it answers << 8, or a signal.
pub fn status_of(child: impl FnOnce() -> c_int) -> c_int {
    // So that the parent has a timer thread, which the child lacks.
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    ctx.blocking_wait();
    // SAFETY: the child uses this crate and the allocator, which glibc and macOS make ready for that, and exits
    // without running what is registered for the end of the process.
    let process = unsafe {
        let process = fork();
        if process == 0 {
            alarm(20);
            _exit(child());
        }
        process
    };
    assert!(process > 0, "no process to be had");
    let mut status = 0;
    // SAFETY: the pointer is to a number of our own.
    assert_eq!(unsafe { waitpid(process, &mut status, 0) }, process);
    status
}
