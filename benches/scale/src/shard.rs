//! Threads that make their children in one shard.

use std::sync::Barrier;
use std::thread;

use cancel_tree::CancellationToken;

/// So many a contended parent has, and the number of a thread modulo it says which one is the thread's: see
/// `src/tree/children.rs`.
pub const SHARDS: usize = 64;

/// Gives the calling thread, one of two without a number, one that leads it to the other's shard. The two are the
/// only ones that take numbers meanwhile.
pub fn same(me: usize, both: &Barrier) {
    if me == 0 {
        take_number();
        for _ in 1..SHARDS {
            thread::spawn(take_number)
                .join()
                .expect("it does not panic");
        }
    }
    both.wait();
    if me == 1 {
        take_number();
    }
}

/// A thread has its number, counted up, from when it is first asked for it: here, by a callback.
fn take_number() {
    let token = CancellationToken::new();
    token.cancel();
    drop(token.on_cancel(|| ()));
}
