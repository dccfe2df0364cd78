//! Hostile drops along a million: the stack does not grow with the tree. It does with what the user puts
//! inside of each other, as it does for a list of boxes.

use crate::kit::*;
use cancel_tree::{CancellationToken, Cause, Context};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const DEPTH: usize = if cfg!(miri) { 100 } else { 1_000_000 };
const STACK: usize = 128 << 10;

/// Its drop works on another tree; one of a thousand panics.
struct Busy {
    number: usize,
    elsewhere: CancellationToken,
    gone: Arc<AtomicUsize>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.elsewhere.child_token().cancel();
        self.gone.fetch_add(1, SeqCst);
        if self.number % 1000 == 0 {
            std::panic::panic_any(Meant);
        }
    }
}

impl std::fmt::Debug for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("busy")
    }
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("busy")
    }
}

impl std::error::Error for Busy {}

/// Builds something that has a million of them, on a small stack, and drops it: all of them go, and of their panics
/// one surfaces.
fn dropped<T>(build: impl FnOnce(&dyn Fn(usize) -> Busy) -> T + Send + 'static) {
    guarded("depth", move |_| {
        let thread = thread::Builder::new().stack_size(STACK).spawn(|| {
            let (elsewhere, gone) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
            let built = build(&|number| Busy {
                number,
                elsewhere: elsewhere.clone(),
                gone: gone.clone(),
            });
            assert_eq!(gone.load(SeqCst), 0);
            assert!(panics(|| drop(built)));
            assert_eq!(gone.load(SeqCst), DEPTH);
        });
        thread
            .expect("a thread")
            .join()
            .expect("a small stack is enough");
    });
}

#[test]
fn values_of_a_chain() {
    dropped(|busy| (0..DEPTH).fold(Context::background(), |ctx, i| ctx.with_value(busy(i))));
}

#[test]
fn causes_of_a_chain_that_hangs_by_its_leaf() {
    dropped(|busy| {
        let root = CancellationToken::new();
        let mut all = vec![root];
        for i in 1..DEPTH {
            all.push(all[i - 1].child_token());
        }
        // From the leaf on, so that each keeps its own.
        for (i, token) in all.iter().enumerate().rev() {
            assert!(token.cancel_with(Cause::new(busy(i))));
        }
        all.pop()
    });
}

#[test]
fn causes_of_deadlines_of_a_chain() {
    dropped(|busy| {
        let mut ctx = Context::background();
        let mut deadline = Instant::now() + FAR;
        for i in 0..DEPTH {
            // Each is sooner than the one above, so that it holds.
            deadline -= Duration::from_micros(1);
            let (below, guard) = ctx.with_deadline_cause(deadline, Cause::new(busy(i)));
            guard.detach();
            ctx = below;
        }
        ctx
    });
}

#[test]
fn callbacks_of_a_chain_that_never_run() {
    dropped(|busy| {
        let mut token = CancellationToken::new();
        for i in 0..DEPTH {
            let busy = busy(i);
            drop(token.on_cancel(move || drop(busy)));
            token = token.child_token();
        }
        token
    });
}

/// A value that has another context, whose value has another one …: a list of the user's own making. Each of its
/// drops is inside the one before; what that costs is printed, and bounded.
#[test]
fn contexts_inside_of_values_nest_as_boxes_do() {
    struct Next {
        _inside: Option<Context>,
        lowest: Arc<AtomicUsize>,
    }
    impl Drop for Next {
        fn drop(&mut self) {
            let here = 0_u8;
            self.lowest.fetch_min(&raw const here as usize, SeqCst);
        }
    }
    const LEVELS: usize = 200;
    let lowest = Arc::new(AtomicUsize::new(usize::MAX));
    let mut ctx = None;
    for _ in 0..LEVELS {
        // The fields go after the drop: the innermost is measured last.
        let next = Next {
            _inside: ctx.take(),
            lowest: lowest.clone(),
        };
        ctx = Some(Context::background().with_value(next));
    }
    let here = 0_u8;
    drop(ctx);
    let each = (&raw const here as usize).abs_diff(lowest.load(SeqCst)) / LEVELS;
    println!("{each} bytes of stack for each context inside of a value");
    assert!(each < 4096);
}
