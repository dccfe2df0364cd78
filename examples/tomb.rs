//! A tomb: something that is alive, then *dying*, and *dead* once the last of those who work for it has gone.
//! (After Go's package tomb: Kill, Dying, Dead, Wait.)
//!
//! Dying is a context, so everything that takes one stops with the tomb; dead is another one. And a tomb is a
//! context of its own kind: it can be the parent of ours (`ForeignContext`), and a child of ours (`below`).
//!
//!     cargo run --example tomb

use cancel_tree::{
    CancelGuard, Cause, Context, ContextError, DoneSignal, ForeignContext, Registration,
};
use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

#[derive(Clone)]
struct Tomb(Arc<Inner>);

struct Inner {
    dying: Context,
    kill: CancelGuard,
    dead: Context,
    bury: CancelGuard,
    /// How many work for it, and one for being alive.
    alive: AtomicUsize,
    /// Keeps it below the context that it was made for.
    above: Mutex<Option<Registration>>,
}

impl Tomb {
    fn new() -> Tomb {
        let (dying, kill) = Context::background().with_cancel();
        let (dead, bury) = Context::background().with_cancel();
        Tomb(Arc::new(Inner {
            dying,
            kill,
            dead,
            bury,
            alive: AtomicUsize::new(1),
            above: Mutex::new(None),
        }))
    }

    /// A tomb that dies when the context is done. Neither keeps the other.
    fn below(ctx: &Context) -> Tomb {
        let tomb = Tomb::new();
        let weak = Arc::downgrade(&tomb.0);
        let registration = ctx.on_cancel_with(move |cause| {
            if let Some(inner) = Weak::upgrade(&weak) {
                Tomb(inner).kill(cause);
            }
        });
        *tomb.0.above.lock().unwrap() = Some(registration);
        tomb
    }

    /// Starts a thread that works for the tomb. Its error kills the tomb.
    fn go<F>(&self, work: F)
    where
        F: FnOnce(&Context) -> Result<(), Cause> + Send + 'static,
    {
        self.0.alive.fetch_add(1, Ordering::Relaxed);
        let tomb = self.clone();
        thread::spawn(move || {
            /// Also when the work panics.
            struct Leave(Tomb);
            impl Drop for Leave {
                fn drop(&mut self) {
                    self.0.leave();
                }
            }
            let leave = Leave(tomb);
            if let Err(cause) = work(&leave.0 .0.dying) {
                leave.0.kill(cause);
            }
        });
    }

    /// Asks all to stop; the first reason stands.
    fn kill(&self, reason: impl Into<Cause>) -> bool {
        let first = self.0.kill.cancel_with(reason);
        if first {
            self.leave();
        }
        first
    }

    fn leave(&self) {
        // AcqRel: what all did is visible to who finds the tomb dead.
        if self.0.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.bury.cancel();
        }
    }

    fn is_dying(&self) -> bool {
        self.0.dying.is_done()
    }

    fn is_dead(&self) -> bool {
        self.0.dead.is_done()
    }

    /// Waits until the last one has gone; why.
    fn wait(&self) -> Cause {
        self.0.dead.blocking_wait();
        self.0.dying.cause().expect("dead, so killed")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The context above forgets this tomb.
        if let Some(registration) = self.above.get_mut().unwrap().take() {
            registration.stop();
        }
    }
}

impl ForeignContext for Tomb {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        let registration = self.0.dying.on_cancel_with(move |cause| {
            signal.cancel_with(cause);
        });
        Box::new(registration.stop_on_drop())
    }
}

fn main() {
    // Dying and dead are two states.
    let tomb = Tomb::new();
    let (finish, may_finish) = std::sync::mpsc::channel::<()>();
    tomb.go(move |ctx| {
        ctx.blocking_wait();
        let _ = may_finish.recv(); // it takes a while to clean up
        Ok(())
    });
    assert!(!tomb.is_dying());
    assert!(tomb.kill("no longer needed"));
    assert!(!tomb.kill("too late"));
    assert!(tomb.is_dying() && !tomb.is_dead());
    println!("dying: {}", tomb.0.dying.cause().unwrap());
    drop(finish);
    println!("dead: {}", tomb.wait());
    assert!(tomb.is_dead());

    // The error of one stops the others, and everything in contexts below the tomb.
    let tomb = Tomb::new();
    let (below, _guard) = Context::below(tomb.clone()).with_timeout(Duration::from_secs(60));
    tomb.go(|ctx| {
        ctx.blocking_wait();
        Ok(())
    });
    tomb.go(|_| Err("the disk is full".into()));
    assert_eq!(below.blocking_wait(), ContextError::Cancelled);
    assert_eq!(below.cause().unwrap().to_string(), "the disk is full");
    println!("dead: {}", tomb.wait());

    // A tomb below a context dies with it.
    let (ctx, guard) = Context::background().with_cancel();
    let tomb = Tomb::below(&ctx);
    tomb.go(|ctx| {
        ctx.blocking_wait();
        Ok(())
    });
    guard.cancel_with("shutting down");
    assert_eq!(tomb.wait().to_string(), "shutting down");
    println!("dead: shutting down");

    // Nothing is left, whichever side goes first.
    let (ctx, _guard) = Context::background().with_cancel();
    let tomb = Tomb::below(&ctx);
    let inner = Arc::downgrade(&tomb.0);
    drop(tomb);
    assert_eq!(inner.strong_count(), 0, "the context keeps a tomb");

    let tomb = Tomb::new();
    let weight = Arc::new(());
    for _ in 0..1000 {
        let ctx = Context::below(tomb.clone()).with_value(weight.clone());
        drop(ctx.on_cancel(|| ()).stop_on_drop());
    }
    assert_eq!(
        Arc::strong_count(&weight),
        1,
        "contexts that are gone are still there"
    );
    let ctx = Context::below(tomb.clone());
    drop(tomb);
    assert!(!ctx.is_done());
    println!("nothing is left");
}
