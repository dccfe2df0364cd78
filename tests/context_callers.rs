//! No user code runs on the timer's thread, whether a worker can be had or not. One test: it looks at the threads that are there,
//! and takes the process's address space away for a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;
mod own_threads;

use address_space::Limited;
use cancel_tree::{CancelGuard, Context, DoneSignal, ForeignContext};
use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const FAR: Duration = Duration::from_secs(3600);
const TIMER: &str = "cancel-tree";

/// What was run, and the name of the thread that it was run on.
type Heard = (&'static str, String);

/// Says where it runs, when it is woken, and when it is dropped.
struct Says(&'static str, Sender<Heard>);

impl Says {
    fn say(&self, what: &'static str) {
        let name = thread::current().name().unwrap_or_default().into();
        // Nobody may be listening any more.
        let _ = self.1.send((what, name));
    }
}

impl Wake for Says {
    fn wake(self: Arc<Self>) {
        self.say("waker");
    }
}

impl Drop for Says {
    fn drop(&mut self) {
        self.say(self.0);
    }
}

/// Gives a subscription that says where it is dropped.
struct Foreign(Sender<Heard>);

impl ForeignContext for Foreign {
    fn on_done(&self, _signal: DoneSignal) -> Box<dyn Any + Send> {
        Box::new(Says("drop of a subscription", self.0.clone()))
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A deadline with user code of each kind; and what has to be kept until then.
fn with_user_code(within: Duration, say: &Sender<Heard>) -> (CancelGuard, Task) {
    let around = Context::below(Foreign(say.clone()));
    let around = around.with_value(Says("drop of a value", say.clone()));
    // These keep all that is around them, and nobody else does.
    let (ctx, guard) = around.with_timeout(within);
    let below = ctx.child_token();
    let says = Says("drop of a callback", say.clone());
    drop(below.on_cancel(move || says.say("on_cancel below")));
    let says = Says("drop of a callback", say.clone());
    drop(ctx.after_func(move || says.say("after_func")));
    let says = Says("drop of a callback", say.clone());
    let keeps = ctx.clone();
    drop(ctx.on_cancel(move || {
        says.say("on_cancel");
        drop(keeps);
    }));
    guard.detach();

    let (ctx, guard) = Context::background().with_timeout(within);
    let token = ctx.child_token();
    let mut task: Task = Box::pin(async move { token.cancelled().await });
    let waker = Waker::from(Arc::new(Says("drop of a waker", say.clone())));
    let mut cx = std::task::Context::from_waker(&waker);
    let is_ready = task.as_mut().poll(&mut cx).is_ready();
    assert!(!is_ready, "the machine was too slow: nothing is seen");
    drop(waker);
    (guard, task)
}

/// Fails if something of it runs on the timer's thread, or does not run.
fn hear(ear: &Receiver<Heard>) {
    let mut missing = vec![
        "waker",
        "on_cancel",
        "on_cancel below",
        "after_func",
        "drop of a callback",
        "drop of a callback",
        "drop of a callback",
        "drop of a value",
        "drop of a subscription",
        "drop of a waker",
    ];
    while !missing.is_empty() {
        let (what, thread) = ear.recv_timeout(PATIENCE).expect("it has run");
        assert_eq!(thread, "cancel-tree worker", "{what}");
        if let Some(index) = missing.iter().position(|missing| *missing == what) {
            missing.remove(index);
        }
    }
}

fn wait_for(what: impl Fn() -> bool) {
    let begin = Instant::now();
    while !what() {
        assert!(begin.elapsed() < PATIENCE, "{:?}", own_threads::names());
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn user_code_never_runs_on_the_timers_thread() {
    const SOON: Duration = Duration::from_millis(200);
    // The timer's thread is there, and nothing has passed: it has no worker.
    drop(Context::background().with_timeout(FAR));
    wait_for(|| own_threads::names() == [TIMER]);
    let (say, ear) = mpsc::channel();
    let kept = with_user_code(SOON, &say);
    // Room for what is small; none for a thread's stack.
    let limited = Limited::to(256 << 10);
    thread::sleep(2 * SOON);
    let heard: Vec<_> = ear.try_iter().collect();
    let threads = own_threads::names();
    drop(limited);
    assert_eq!(heard, [], "no worker was to be had");
    assert_eq!(threads, [TIMER]);
    // It is made up for, and nobody has to come by.
    hear(&ear);
    drop(kept);

    // With a worker that is there.
    let kept = with_user_code(SOON, &say);
    hear(&ear);
    drop(kept);
}
