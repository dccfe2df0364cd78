//! Large thread-locals of other code.

use cancel_tree::Context;
use std::cell::RefCell;
use std::thread;
use std::time::Duration;

const MOMENT: Duration = Duration::from_millis(1);

/// glibc takes them out of each thread's stack.
#[test]
fn they_leave_the_timer_a_stack() {
    thread_local! {
        static LARGE: RefCell<[u8; 512 << 10]> = const { RefCell::new([0; 512 << 10]) };
    }
    LARGE.with_borrow_mut(|large| large.fill(1));
    let (ctx, _guard) = Context::background().with_timeout(MOMENT);
    ctx.blocking_wait();
    assert!(ctx.is_done());
    // By the timer: nobody else looks.
    let (ctx, _guard) = Context::background().with_timeout(MOMENT);
    while !ctx.is_done() {
        thread::yield_now();
    }
}
