//! Large thread-locals of other code.

use cancel_tree::Context;
use std::cell::RefCell;
use std::sync::mpsc;
use std::time::Duration;

/// glibc takes them out of each thread's stack.
#[test]
fn they_leave_the_timer_a_stack() {
    thread_local! {
        static LARGE: RefCell<[u8; 512 << 10]> = const { RefCell::new([0; 512 << 10]) };
    }
    LARGE.with_borrow_mut(|large| large.fill(1));
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    // Nobody but its threads runs these.
    let (sender, receiver) = mpsc::channel();
    drop(ctx.after_func(move || sender.send(()).unwrap()));
    assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(()));
}
