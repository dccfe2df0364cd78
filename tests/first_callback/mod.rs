//! What has to be told before the first callback of a cancel, as tasks and threads are woken: a callback may wait for them.

// Not each test has a context of its own.
#![allow(dead_code)]

use cancel_tree::{CancelGuard, Context};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::Duration;

const LATE: Duration = Duration::from_secs(30);

/// What `make` makes of the context is told before two callbacks that wait until `wait` is over: one registered before it
/// and one after, for whichever of them the canceller meets first.
pub fn is_told_before<T: Send + 'static>(
    (ctx, guard): (Context, CancelGuard),
    make: impl FnOnce(&Context) -> T,
    wait: impl FnOnce(T) + Send + 'static,
) {
    let (told, hear) = mpsc::channel();
    let made = between_callbacks(&ctx, hear, make);
    let waiter = thread::spawn(move || {
        wait(made);
        (0..2).for_each(|_| told.send(()).unwrap());
    });
    let (say, over) = mpsc::channel();
    thread::spawn(move || {
        guard.cancel();
        say.send(()).unwrap();
    });
    over.recv_timeout(LATE).expect("it ends");
    waiter.join().unwrap();
}

/// Calls `make` between the registrations of two callbacks, each of which waits to hear something.
pub fn between_callbacks<T>(
    ctx: &Context,
    hear: mpsc::Receiver<()>,
    make: impl FnOnce(&Context) -> T,
) -> T {
    let hear = Arc::new(Mutex::new(hear));
    let waits = || {
        let hear = hear.clone();
        move || hear.lock().unwrap().recv_timeout(LATE).unwrap()
    };
    drop(ctx.on_cancel(waits()));
    let made = make(ctx);
    drop(ctx.on_cancel(waits()));
    made
}
