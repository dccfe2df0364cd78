//! What the models need: a runner that insists on having explored something, and user values
//! (wakers, causes, plain data) that notice when they are leaked, used twice or read too early.

#[cfg(not(cancel_tree_loom))]
compile_error!("run the models by loom-tests/run.sh, which sets the cfgs that they need");

mod heap;
mod probes;

pub use cancel_tree::{CancellationToken as Token, Cause, ContextError};
pub use loom::future::block_on;
pub use loom::thread::spawn;
pub use probes::{poll, reason_of, reason_of_context, Data, Probe, Reason, Runs};

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Instant;

/// The bound of a model that says nothing else: three preemptions find nearly everything.
pub const USUAL: Option<usize> = Some(3);

/// For models of two threads that finish: every interleaving.
pub const UNBOUNDED: Option<usize> = None;

/// How often a model switches threads at most, before loom takes it for an endless loop.
const BRANCHES: usize = 20_000;

/// Runs `f` once for each execution that loom finds, with at most `bound` preemptions each.
///
/// `CANCEL_TREE_PREEMPTIONS=n` replaces the bound of every model that has one, and
/// `CANCEL_TREE_PREEMPTIONS=none` takes it away; loom's own variables work as well.
/// `CANCEL_TREE_ALL_ORDERS=1` makes it the function below.
pub fn model<F: Fn() + Send + Sync + 'static>(bound: Option<usize>, f: F) {
    cancel_tree::models::set_all_orders(std::env::var_os("CANCEL_TREE_ALL_ORDERS").is_some());
    explore(bound, f);
}

/// The same, and tries all orders of the tree's atomic accesses. Those that loom takes for the same otherwise
/// may not be: it forgets a load by one thread when another one loads the same before it writes.
pub fn model_in_all_orders<F: Fn() + Send + Sync + 'static>(bound: Option<usize>, f: F) {
    cancel_tree::models::set_all_orders(true);
    explore(bound, f);
    cancel_tree::models::set_all_orders(false);
}

fn explore<F: Fn() + Send + Sync + 'static>(bound: Option<usize>, f: F) {
    let name = std::any::type_name::<F>();
    let mut builder = loom::model::Builder::new();
    if std::env::var_os("LOOM_MAX_BRANCHES").is_none() {
        builder.max_branches = BRANCHES;
    }
    if std::env::var_os("LOOM_CHECKPOINT_INTERVAL").is_none() {
        // Also how often LOOM_MAX_DURATION is looked at.
        builder.checkpoint_interval = 1_000;
    }
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = bound;
    }
    if bound.is_some() {
        match std::env::var("CANCEL_TREE_PREEMPTIONS").as_deref() {
            Err(_) => {}
            Ok("none") => builder.preemption_bound = None,
            Ok(n) => {
                builder.preemption_bound =
                    Some(n.parse().expect("CANCEL_TREE_PREEMPTIONS: a number"))
            }
        }
    }
    let executions = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let count = executions.clone();
    let bound = builder.preemption_bound;
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        f();
    });
    let executions = executions.load(Relaxed);
    // Without preemptions there may be one order only.
    assert!(
        executions > 1 || bound == Some(0),
        "{name}: nothing was explored"
    );
    // Straight to the stream: the test runner swallows what the print macros say.
    let _ = writeln!(
        std::io::stderr(),
        "explored {:<64} bound {:<4} {executions:>8} executions {:>7.2} s",
        name.trim_end_matches("::{{closure}}"),
        bound.map_or("none".into(), |n| n.to_string()),
        begin.elapsed().as_secs_f64(),
    );
}

/// Runs `f` as one step: no other thread comes in between. For what only has to have been done, no matter in which order:
/// so the orders that matter are found.
pub fn at_once<T>(f: impl FnOnce() -> T) -> T {
    loom::stop_exploring();
    let result = f();
    loom::explore();
    result
}

/// A step at which another thread may come in: before one that is run `at_once` there is none by itself, where what comes
/// before that is no step.
pub fn pause() {
    loom::sync::atomic::AtomicUsize::new(0).fetch_add(1, Relaxed);
}

/// Leaves `n` free nodes below `token`, or one more: chunks have one and two nodes here.
pub fn seed(token: &Token, n: usize) {
    let children: Vec<Token> = (0..n).map(|_| token.child_token()).collect();
    drop(children);
}

/// Fails if the cancel has not reached the token, or its cause cannot be read.
#[track_caller]
pub fn reached(token: &Token) {
    assert!(token.is_cancelled(), "a lost cancel");
    assert!(token.cause().is_some(), "cancelled without a cause");
}

/// Fails if a cancel has reached the token.
#[track_caller]
pub fn untouched(token: &Token) {
    assert!(!token.is_cancelled(), "a cancel that nobody asked for");
}
