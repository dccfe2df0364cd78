//! A token in a static: there from the start, the same for all, and never anybody's to free.

use cancel_tree::{CancellationToken, Cause, StaticToken};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;

/// Counts what this thread asks for.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// How often the heap is asked for something, or given something back.
fn heap_calls(f: impl FnOnce()) -> usize {
    let before = CALLS.get();
    f();
    CALLS.get() - before
}

#[test]
fn it_needs_no_heap_to_be_read_and_cancelled() {
    static TOKEN: StaticToken = StaticToken::new();
    let calls = heap_calls(|| {
        assert!(!TOKEN.is_cancelled());
        assert!(!TOKEN.token().is_cancelled());
        let clone = TOKEN.token().clone();
        clone.cancel();
        drop(clone);
        assert!(TOKEN.is_cancelled() && TOKEN.token().is_cancelled());
    });
    assert_eq!(calls, 0);
    assert_eq!(format!("{TOKEN:?}"), "StaticToken { is_cancelled: true }");
}

#[test]
fn all_threads_get_the_same_token_though_they_ask_first() {
    const THREADS: usize = 4;
    // Each is asked for the first time once, so many of them.
    static TOKENS: [StaticToken; 500] = [const { StaticToken::new() }; 500];
    let start = Barrier::new(THREADS);
    let ids: Vec<Vec<_>> = thread::scope(|scope| {
        let ask = || {
            start.wait();
            TOKENS.iter().map(|token| token.token().id()).collect()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for other in &ids[1..] {
        assert_eq!(other, &ids[0]);
    }
    assert_eq!(
        ids[0].iter().collect::<HashSet<_>>().len(),
        TOKENS.len(),
        "each is a token of its own"
    );
}

#[test]
fn it_outlives_all_its_handles_and_children() {
    static TOKEN: StaticToken = StaticToken::new();
    let id = TOKEN.token().id();
    for _ in 0..3 {
        let clones: Vec<_> = (0..10).map(|_| TOKEN.token().clone()).collect();
        let children: Vec<_> = clones.iter().map(CancellationToken::child_token).collect();
        let grandchild = children[0].child_token();
        drop((clones, children));
        assert_eq!(grandchild.depth(), 2);
        assert!(grandchild.is_below(TOKEN.token()));
        drop(grandchild);
    }
    let weak = TOKEN.token().downgrade();
    assert_eq!(weak.upgrade().as_ref(), Some(TOKEN.token()));
    drop(weak.upgrade());
    assert_eq!(weak.upgrade().map(|token| token.id()), Some(id));
    // SAFETY: from `into_raw`, given back once.
    drop(unsafe { CancellationToken::from_raw(TOKEN.token().clone().into_raw()) });
    assert!(!TOKEN.is_cancelled());
}

#[test]
fn all_that_waits_below_hears_of_its_cancel() {
    static TOKEN: StaticToken = StaticToken::new();
    let other = CancellationToken::new();
    let either = CancellationToken::any_of([&other, TOKEN.token()]);
    let runs = Arc::new(AtomicUsize::new(0));
    let ran = || {
        let runs = runs.clone();
        move || {
            runs.fetch_add(1, Relaxed);
        }
    };
    drop(TOKEN.token().on_cancel(ran())); // stays registered, though nobody has the child
    let registration = either.on_cancel(ran());
    let (ctx, _guard) = TOKEN.token().context().with_cancel();
    let waiter = thread::spawn(|| TOKEN.token().blocking_wait());
    let task = thread::spawn(|| futures::executor::block_on(TOKEN.token().cancelled()));
    assert!(!ctx.is_done());

    assert!(TOKEN.token().cancel_with("enough"));
    waiter.join().unwrap();
    task.join().unwrap();
    assert_eq!(runs.load(Relaxed), 2);
    assert!(!registration.stop());
    let says = |cause: Option<Cause>| cause.map(|cause| cause.to_string());
    assert_eq!(says(either.cause()).as_deref(), Some("enough"));
    assert_eq!(says(ctx.cause()).as_deref(), Some("enough"));
    // Whoever comes later finds it cancelled, for the same cause.
    let late = TOKEN.token().child_token();
    assert_eq!(says(late.cause()).as_deref(), Some("enough"));
    assert!(!TOKEN.token().cancel_with("again"));
}

#[test]
fn threads_may_let_go_of_it_at_the_same_time() {
    static TOKEN: StaticToken = StaticToken::new();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for i in 0..2_000 {
                    let token = TOKEN.token().clone();
                    let child = token.child_token();
                    drop(token);
                    if i % 3 == 0 {
                        child.cancel();
                    }
                    drop(child);
                }
            });
        }
    });
    assert!(!TOKEN.is_cancelled());
    let child = TOKEN.token().child_token();
    TOKEN.token().cancel();
    assert!(child.is_cancelled());
}

#[test]
fn it_may_stand_in_a_struct() {
    struct Service {
        stop: StaticToken,
    }
    static SERVICE: Service = Service {
        stop: StaticToken::new(),
    };
    // One that is not lent for ever can be read, and goes.
    let local = StaticToken::new();
    assert!(!local.is_cancelled());
    let child = SERVICE.stop.token().child_token();
    SERVICE.stop.token().cancel();
    assert!(child.is_cancelled());
}
