//! The library without std, in a program that unwinds: a callback or a waker that panics keeps nobody else from being woken, and
//! nothing is leaked.

use cancel_tree::CancellationToken;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

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
