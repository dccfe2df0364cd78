//! What the library asks of the heap, counted by an allocator of this test's own: nothing to
//! cancel, nothing in the steady state, and nothing is left behind.
//!
//! Of this thread: the test runner's own takes memory when it gets a processor.

use cancel_tree::CancellationToken;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread;

struct Counting;

thread_local! {
    /// Allocations so far.
    static CALLS: Cell<usize> = const { Cell::new(0) };
    /// Bytes that are allocated now.
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: hands on to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get() + layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get() - layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `f` allocates, in calls.
fn calls(f: impl FnOnce()) -> usize {
    let before = CALLS.get();
    f();
    CALLS.get() - before
}

/// What `f` leaves behind, in bytes.
fn left(f: impl FnOnce()) -> isize {
    let before = BYTES.get();
    f();
    BYTES.get() - before
}

/// A waker that counts without allocating.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn the_heap() {
    // Whatever the runtime sets up on first use.
    thread::spawn(|| CancellationToken::new().child_token().cancel())
        .join()
        .unwrap();

    cancelling_allocates_nothing();
    the_steady_state_allocates_nothing();
    nothing_is_left_behind();
    churn_leaves_nothing_in_a_living_token();
}

fn cancelling_allocates_nothing() {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut context = Context::from_waker(&waker);

    let root = CancellationToken::new();
    let sources = [root.child_token(), CancellationToken::new()];
    let mut tokens: Vec<_> = (0..1000).map(|_| root.child_token()).collect();
    for i in 0..1000 {
        tokens.push(tokens[i].child_token());
        tokens.push(tokens[tokens.len() - 1].child_token());
        tokens.push(CancellationToken::any_of([&sources[1], &sources[0]]));
    }
    let waiting: Vec<_> = tokens
        .iter()
        .chain(&tokens[..100])
        .map(|token| {
            let mut future = Box::pin(token.cancelled());
            assert!(future.as_mut().poll(&mut context).is_pending());
            let count = Arc::clone(&count);
            let wake = move || {
                count.0.fetch_add(1, Relaxed);
            };
            drop(token.on_cancel(wake));
            future
        })
        .collect();
    assert_eq!(calls(|| root.cancel()), 0);
    assert_eq!(count.0.load(Relaxed), 2 * waiting.len());

    let chain = CancellationToken::new();
    let mut leaf = chain.clone();
    for _ in 0..100_000 {
        leaf = leaf.child_token();
    }
    assert_eq!(calls(|| chain.cancel()), 0);
    assert!(leaf.is_cancelled());
    assert_eq!(calls(|| drop(leaf)), 0);
}

fn the_steady_state_allocates_nothing() {
    let root = CancellationToken::new();
    let mut context = Context::from_waker(Waker::noop());
    // Two children at a time, in both orders; a request with children of its own, cancelled or
    // not; the first waiter and one beside it; a parked thread; clones and guards.
    let mut round = || {
        let (a, b) = (root.child_token(), root.child_token());
        drop(a);
        let c = root.child_token();
        drop((b, c));
        for cancel in [false, true] {
            let request = root.child_token();
            let parts = [(); 3].map(|()| request.child_token());
            if cancel {
                request.cancel();
            }
            drop(parts);
        }
        let guard = root.child_token().drop_guard();
        drop(guard.token().clone());
        let mut first = pin!(root.cancelled());
        let mut second = pin!(root.cancelled());
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(first.poll(&mut context).is_pending());
        assert!(!root.blocking_wait_timeout(std::time::Duration::from_nanos(1)));
    };
    // The peak is reached, and every place is as large as it gets.
    for _ in 0..100 {
        round();
    }
    let calls = calls(|| (0..1000).for_each(|_| round()));
    assert_eq!(calls, 0, "in 1000 rounds");
}

fn nothing_is_left_behind() {
    for cancel in [false, true] {
        let bytes = left(|| {
            let root = CancellationToken::new();
            let other = CancellationToken::new();
            let mut context = Context::from_waker(Waker::noop());
            let mut tokens = vec![root.clone(), other.clone()];
            for i in 0..2000 {
                let token = match i % 5 {
                    0 => CancellationToken::any_of([&tokens[i], &other, &root]),
                    _ => tokens[i / 2].child_token(),
                };
                drop(token.child_token());
                // One that is left on an `any_of` token stays until a source is cancelled.
                let owned = format!("callback {i}");
                let registration = token.on_cancel(move || drop(black_box(owned)));
                if i % 3 == 0 || !cancel {
                    registration.stop();
                }
                let mut waiting = Box::pin(token.cancelled());
                let _ = waiting.as_mut().poll(&mut context);
                if i % 7 == 0 {
                    token.cancel_with(format!("cause {i}"));
                }
                drop(waiting);
                tokens.push(token);
            }
            if cancel {
                root.cancel_with(String::from("root"));
                other.cancel_with(String::from("other"));
            }
            // In an order that is neither that of birth nor its reverse.
            while !tokens.is_empty() {
                tokens.swap_remove(tokens.len() / 3);
            }
        });
        assert_eq!(bytes, 0, "cancelled: {cancel}");
    }
}

/// What comes and goes must not add up in a token that stays.
fn churn_leaves_nothing_in_a_living_token() {
    fn check(what: &str, mut once: impl FnMut(&[CancellationToken; 2])) {
        let tokens = [CancellationToken::new(), CancellationToken::new()];
        for _ in 0..1000 {
            once(&tokens);
        }
        let bytes = left(|| (0..20_000).for_each(|_| once(&tokens)));
        assert_eq!(bytes, 0, "{what}");
    }

    check("any_of, dropped", |tokens| {
        drop(CancellationToken::any_of(tokens))
    });
    check("any_of, cancelled", |tokens| {
        CancellationToken::any_of(tokens).cancel()
    });
    check("any_of with a child", |tokens| {
        drop(CancellationToken::any_of(tokens).child_token());
    });
    check("callbacks", |[token, _]| {
        let text = String::from("owned by the callback");
        assert!(token.on_cancel(move || drop(text)).stop());
    });
    check("causes", |[token, _]| {
        token
            .child_token()
            .cancel_with(String::from("a cause on the heap"));
    });
    check("tokio-util's futures", |[token, _]| {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            let owned = pin!(token.child_token().cancelled_owned());
            assert!(owned.poll(&mut context).is_pending());
        }
    });
    check("grandchildren that outlive their parent", |[token, _]| {
        let parent = token.child_token();
        let below = [(); 4].map(|()| parent.child_token());
        drop(parent);
        drop(below);
    });
}
