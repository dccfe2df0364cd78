//! The library without std, in a program that unwinds: a callback or a waker that panics keeps nobody else from being woken, and
//! nothing is leaked.

use cancel_tree::{CancellationToken, Cause};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// Counts what this thread has of the heap.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn note(n: isize) {
    let _ = LIVE.try_with(|live| live.set(live.get() + n));
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(-1);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// Runs it twice, for what the first run leaves to the system (the panic's hook); the second leaves nothing.
fn leaks_nothing(f: impl Fn()) {
    f();
    let before = LIVE.get();
    f();
    assert_eq!(LIVE.get(), before, "allocations that nobody freed");
}

fn panics(f: impl FnOnce()) {
    let what = catch_unwind(AssertUnwindSafe(f)).expect_err("the panic comes through");
    assert_eq!(what.downcast_ref(), Some(&"user code"));
}

struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        std::panic::panic_any("user code");
    }
}

#[test]
fn callbacks_after_one_that_panics_run() {
    leaks_nothing(|| {
        let runs = Arc::new(AtomicUsize::new(0));
        let token = CancellationToken::new();
        for i in 0..7 {
            let runs = runs.clone();
            drop(token.child_token().on_cancel(move || {
                runs.fetch_add(1, Relaxed);
                if i == 3 {
                    std::panic::panic_any("user code");
                }
            }));
        }
        panics(|| token.cancel());
        assert_eq!(runs.load(Relaxed), 7);
    });
}

#[test]
fn tasks_are_woken_though_another_ones_waker_panics() {
    leaks_nothing(|| {
        let token = CancellationToken::new();
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let calls = woken.clone();
        let registration = token.on_cancel(move || {
            // Callbacks come after the tasks, all the same.
            assert_eq!(calls.0.load(Relaxed), 2);
        });
        let (good, bad) = (Waker::from(woken.clone()), Waker::from(Arc::new(Panicking)));
        let (first, second) = (token.child_token(), token.child_token());
        let mut waits = [
            pin!(first.cancelled()),
            pin!(token.cancelled()),
            pin!(second.cancelled()),
        ];
        for (wait, waker) in waits.iter_mut().zip([&good, &bad, &good]) {
            assert!(wait
                .as_mut()
                .poll(&mut Context::from_waker(waker))
                .is_pending());
        }
        panics(|| token.cancel());
        assert_eq!(woken.0.load(Relaxed), 2);
        assert!(!registration.stop());
    });
}

#[test]
fn what_any_of_has_is_freed_and_all_its_callbacks_run() {
    leaks_nothing(|| {
        let runs = Arc::new(AtomicUsize::new(0));
        let (a, b) = (CancellationToken::new(), CancellationToken::new());
        let either: Vec<_> = (0..3)
            .map(|_| CancellationToken::any_of([&a, &b]))
            .collect();
        let both = CancellationToken::any_of(&either);
        for (i, token) in either.iter().chain([&both]).enumerate() {
            let runs = runs.clone();
            drop(token.on_cancel(move || {
                runs.fetch_add(1, Relaxed);
                if i == 1 {
                    std::panic::panic_any("user code");
                }
            }));
        }
        drop(either);
        panics(|| b.cancel());
        assert_eq!(runs.load(Relaxed), 4);
        assert!(both.is_cancelled());
        assert!(!a.is_cancelled());
    });
}

/// Counts its drops, of which the second panics.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        if self.0.fetch_add(1, Relaxed) == 1 {
            std::panic::panic_any("user code");
        }
    }
}

/// Leaves a callback at the token, which owns one of these.
fn leave(token: &CancellationToken, drops: &Arc<AtomicUsize>) {
    let owned = Dropped(drops.clone());
    drop(token.on_cancel(move || drop(owned)));
}

#[test]
fn what_callbacks_own_that_never_ran_goes_though_one_drop_panics() {
    leaks_nothing(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let root = CancellationToken::new();
        let below: Vec<_> = (0..9).map(|_| root.child_token()).collect();
        for token in below.iter().chain([&root]) {
            for _ in 0..9 {
                leave(token, &drops);
            }
        }
        drop(below);
        panics(|| drop(root));
        assert_eq!(drops.load(Relaxed), 90);
    });
}

#[test]
fn the_sources_of_any_of_go_though_one_drop_panics() {
    leaks_nothing(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let sources: Vec<_> = (0..5).map(|_| CancellationToken::new()).collect();
        for source in &sources {
            leave(source, &drops);
        }
        let any = CancellationToken::any_of(&sources);
        drop(sources);
        assert_eq!(drops.load(Relaxed), 0);
        panics(|| drop(any));
        assert_eq!(drops.load(Relaxed), 5);
    });
}

#[derive(Debug)]
struct Reason(#[allow(dead_code)] Dropped);

impl std::fmt::Debug for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dropped")
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a reason")
    }
}

impl std::error::Error for Reason {}

#[test]
fn ancestors_go_though_the_drop_of_a_cause_panics() {
    leaks_nothing(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let mut chain = vec![CancellationToken::new()];
        for _ in 0..4 {
            chain.push(chain.last().unwrap().child_token());
        }
        // From below, so that each has a cause of its own.
        for token in chain.iter().rev() {
            assert!(token.cancel_with(Cause::new(Reason(Dropped(drops.clone())))));
        }
        let leaf = chain.pop();
        drop(chain);
        assert_eq!(drops.load(Relaxed), 0);
        panics(|| drop(leaf));
        assert_eq!(drops.load(Relaxed), 5);
    });
}

#[test]
fn of_many_that_wait_for_one_token_all_are_woken_though_one_panics() {
    leaks_nothing(|| {
        let token = CancellationToken::new();
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let (good, bad) = (Waker::from(woken.clone()), Waker::from(Arc::new(Panicking)));
        let mut waits: Vec<_> = (0..100).map(|_| Box::pin(token.cancelled())).collect();
        for (i, wait) in waits.iter_mut().enumerate() {
            let waker = if i == 50 { &bad } else { &good };
            assert!(wait
                .as_mut()
                .poll(&mut Context::from_waker(waker))
                .is_pending());
        }
        panics(|| token.cancel());
        assert_eq!(woken.0.load(Relaxed), 99);
    });
}

/// Polls once.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn stop_async_does_not_wait_inside_the_callback_but_elsewhere() {
    type Stopped = Box<dyn Future<Output = bool> + Send + Unpin>;
    let token = CancellationToken::new();
    let stopped = Arc::new(Mutex::new(None::<Stopped>));
    let (running, is_running) = mpsc::channel();
    let (looked, has_looked) = mpsc::channel();
    let registration = token.on_cancel({
        let stopped = stopped.clone();
        move || {
            running.send(()).unwrap();
            has_looked.recv().unwrap();
            let mut stopped = stopped.lock().unwrap();
            assert_eq!(poll_once(stopped.as_mut().unwrap()), Poll::Ready(false));
        }
    });
    std::thread::scope(|scope| {
        let canceller = scope.spawn(|| token.cancel());
        is_running.recv().unwrap();
        let mut future = registration.stop_async();
        assert_eq!(poll_once(&mut future), Poll::Pending);
        *stopped.lock().unwrap() = Some(Box::new(future));
        looked.send(()).unwrap();
        canceller.join().unwrap();
    });
    let mut stopped = stopped.lock().unwrap();
    assert_eq!(poll_once(stopped.as_mut().unwrap()), Poll::Ready(false));
}

/// Those of the tokens below are noted many at a time, those of a room are taken one after the other.
#[test]
fn among_many_tasks_all_are_woken_though_another_ones_waker_panics() {
    const MANY: usize = 200;
    for position in 0..2 * MANY {
        leaks_nothing(|| {
            let token = CancellationToken::new();
            let woken = Arc::new(Woken(AtomicUsize::new(0)));
            let (good, bad) = (Waker::from(woken.clone()), Waker::from(Arc::new(Panicking)));
            let tokens: Vec<_> = (0..2 * MANY)
                .map(|i| {
                    if i < MANY {
                        token.child_token()
                    } else {
                        token.clone()
                    }
                })
                .collect();
            let waits: Vec<_> = tokens
                .iter()
                .enumerate()
                .map(|(i, token)| {
                    let mut wait = Box::pin(token.cancelled());
                    let waker = if i == position { &bad } else { &good };
                    assert!(wait
                        .as_mut()
                        .poll(&mut Context::from_waker(waker))
                        .is_pending());
                    wait
                })
                .collect();
            panics(|| token.cancel());
            assert_eq!(woken.0.load(Relaxed), 2 * MANY - 1);
            drop(waits);
        });
    }
}
