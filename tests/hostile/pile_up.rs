//! Several pieces of hostile code at once: of many panics one surfaces, and the process lives on.

use crate::kit::*;
use cancel_tree::{CancellationToken, Cause, Context};
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::task::Waker;
use std::thread::{self, JoinHandle};

/// A callback that runs, on a thread of its own, until it is told to end.
struct Running {
    stopping: Pin<Box<dyn std::future::Future<Output = bool> + Send>>,
    go: mpsc::Sender<()>,
    canceller: JoinHandle<bool>,
}

fn running(at_end: impl FnOnce() + Send + 'static) -> Running {
    let token = CancellationToken::new();
    let (started, has_started) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let registration = token.on_cancel(move || {
        started.send(()).expect("somebody waits");
        let _ = may_go.recv();
        at_end();
    });
    let canceller = thread::spawn(move || panics(|| token.cancel()));
    has_started.recv().expect("it runs");
    let stopping = Box::pin(registration.stop_async());
    Running {
        stopping,
        go,
        canceller,
    }
}

impl Running {
    fn end(self) -> bool {
        self.go.send(()).expect("it waits");
        self.canceller.join().expect("caught")
    }
}

fn counting() -> (Arc<AtomicUsize>, Waker) {
    struct Count(Arc<AtomicUsize>);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let count = Arc::new(AtomicUsize::new(0));
    let waker = Waker::from(Arc::new(Count(count.clone())));
    (count, waker)
}

#[test]
fn a_callback_panics_and_so_does_the_waker_that_waits_for_its_end() {
    guarded("callback and waker", |_| {
        let world = World::new();
        let mut running = running(|| panic_any(Meant));
        let hostile = on_wake(world.act_of(Deed::Panic));
        assert!(poll(running.stopping.as_mut(), &hostile).is_pending());
        assert!(running.end(), "the callback's panic has surfaced");
    });
}

#[test]
fn a_waker_that_cannot_be_cloned_does_not_keep_the_next_one_from_being_woken() {
    guarded("stop_async, clone", |_| {
        let world = World::new();
        let mut running = running(|| ());
        let hostile = on_clone(world.act_of(Deed::Panic));
        let (woken, good) = counting();
        for _ in 0..3 {
            assert!(panics(|| _ = poll(running.stopping.as_mut(), &hostile)));
            assert!(poll(running.stopping.as_mut(), &good).is_pending());
        }
        assert!(!running.end());
        assert_eq!(woken.load(SeqCst), 1);
    });
}

#[test]
fn a_waker_whose_drop_panics_does_not_keep_the_next_one_from_being_woken() {
    guarded("stop_async, drop", |_| {
        let world = World::new();
        let mut running = running(|| ());
        let (woken, good) = counting();
        for _ in 0..3 {
            let hostile = on_last_drop(world.act_of(Deed::Panic));
            assert!(poll(running.stopping.as_mut(), &hostile).is_pending());
            drop(hostile);
            assert!(panics(|| _ = poll(running.stopping.as_mut(), &good)));
            assert!(poll(running.stopping.as_mut(), &good).is_pending());
        }
        assert!(!running.end());
        assert_eq!(woken.load(SeqCst), 1);
    });
}

/// In the end, the act has been run so often.
struct RunOf(#[allow(dead_code)] Arc<World>, Act, usize);

impl Drop for RunOf {
    fn drop(&mut self) {
        assert_eq!(self.1.begun(), self.2);
    }
}

/// Pulls it twice, also in a destructor of a thread that unwinds. What it does must panic once.
fn surfaces_once(trigger: impl Fn() -> Trigger) {
    assert!(pull(trigger(), Setting::Plain));
    // Here that it gets to the end, and the process with it.
    assert!(!pull(trigger(), Setting::Unwinding));
}

#[test]
fn everything_that_a_cancel_runs_panics() {
    guarded("cancel", |_| {
        surfaces_once(|| {
            let world = World::new();
            let act = world.act_of(Deed::Panic);
            let root = CancellationToken::new();
            let other = CancellationToken::new();
            let any = CancellationToken::any_of([&other, &root]);
            let mut waiting = Vec::new();
            let mut hostile = 0;
            for token in [&root, &root.child_token().child_token(), &any] {
                for _ in 0..3 {
                    waiting.push(wait_with(token, on_wake(act.clone())));
                    waiting.push(wait_with(token, on_last_drop(act.clone())));
                    let on_run = act.clone();
                    drop(token.on_cancel(move || on_run.run()));
                    let on_drop = OnDrop(Some(act.clone()));
                    drop(token.on_cancel(move || drop(on_drop)));
                    let (again, late) = (token.clone(), Cause::new(OnDrop(Some(act.clone()))));
                    drop(token.on_cancel(move || _ = again.cancel_with(late)));
                    hostile += 5;
                }
            }
            Box::new(move || {
                let _check = RunOf(world, act, hostile);
                let _waiting = waiting;
                root.cancel();
            })
        });
    });
}

#[test]
fn everything_that_goes_with_a_tree_panics() {
    guarded("drop", |_| {
        surfaces_once(|| {
            let world = World::new();
            let act = world.act_of(Deed::Panic);
            let hostile = || OnDrop(Some(act.clone()));
            let (ctx, guard) = Context::background()
                .with_value(hostile())
                .with_timeout_cause(FAR, Cause::new(hostile()));
            guard.detach();
            // Both are below the others, which live on by them.
            let (ctx, guard) = ctx
                .with_value(hostile())
                .with_timeout_cause(FAR / 2, Cause::new(hostile()));
            guard.detach();
            // Not below a deadline, for which detached callbacks would wait.
            let mut tokens = vec![CancellationToken::new()];
            for i in 0..3 {
                let token = &tokens[i];
                let captured = hostile();
                drop(token.on_cancel(move || drop(captured)));
                let mut future = Box::pin(token.cancelled());
                assert!(poll(future.as_mut(), &on_last_drop(act.clone())).is_pending());
                forget(future);
                tokens.push(tokens[i].child_token());
            }
            let captured = hostile();
            let registration = tokens[3].on_cancel(move || drop(captured));
            Box::new(move || {
                let _check = RunOf(world, act, 11);
                drop((tokens, ctx, registration));
            })
        });
    });
}

/// Drops the last handle of a token that the canceller is at: the canceller has to let it go, cause and all.
#[test]
fn a_cause_explodes_when_the_canceller_lets_go_of_an_any_of() {
    const TOKENS: usize = 4;
    for bomb in 0..TOKENS {
        guarded("an any_of's cause", move |_| {
            let source = CancellationToken::new();
            let others: Vec<_> = (0..TOKENS).map(|_| CancellationToken::new()).collect();
            let either = |other| CancellationToken::any_of([other, &source]);
            let mut tokens: Vec<_> = others.iter().map(|other| Some(either(other))).collect();
            let victim = tokens[bomb].take().expect("it is there");
            victim.cancel_with(Cause::new(ExplodingCause));
            let victim = Arc::new(std::sync::Mutex::new(Some(victim)));
            let counts: Vec<_> = tokens
                .iter()
                .flatten()
                .map(|token| {
                    let (count, waker) = counting();
                    let victim = victim.clone();
                    drop(token.on_cancel(move || {
                        let last = lock(&victim).take();
                        drop(last);
                    }));
                    (count, wait_with(token, waker))
                })
                .collect();
            assert!(panics(|| source.cancel()), "{bomb}: the panic surfaces");
            assert_eq!(counts.len(), TOKENS - 1);
            for (at, (count, _waiting)) in counts.iter().enumerate() {
                assert_eq!(count.load(SeqCst), 1, "{bomb}: {at} was told");
            }
        });
    }
}

#[derive(Debug)]
struct ExplodingCause;

impl std::fmt::Display for ExplodingCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a bomb")
    }
}

impl std::error::Error for ExplodingCause {}

impl Drop for ExplodingCause {
    fn drop(&mut self) {
        panic_any(Meant);
    }
}
