//! What the token promises beyond tokio-util's: causes, order, callbacks, blocking waits, several
//! parents, panics, bad input, depth.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cancel_tree::{
    CancellationToken, Cause, ContextError, FutureExt, Registration, StopAndWaitOnDrop, StopOnDrop,
    WaitForCancellationFutureOwned,
};

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(60);
/// Miri is slow, and the numbers that follow prove nothing more to it.
const fn scaled(number: usize) -> usize {
    if cfg!(miri) {
        number / 1000 + 5
    } else {
        number
    }
}

/// A waker made of a closure, which may be woken more than once.
struct OnWake<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn on_wake(f: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(OnWake(f)))
}

/// A counter, and a closure that counts.
fn counter() -> (Arc<AtomicUsize>, impl Fn() + Clone + Send + Sync + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    (count, move || {
        counting.fetch_add(1, SeqCst);
    })
}

fn poll<F: Future>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

/// Waits for the token with a waker; dropping what it returns gives up.
fn wait_with(token: &CancellationToken, waker: &Waker) -> Pin<Box<WaitForCancellationFutureOwned>> {
    let mut future = Box::pin(token.clone().cancelled_owned());
    assert!(poll(future.as_mut(), waker).is_pending());
    future
}

/// What the token's cause says.
fn why(token: &CancellationToken) -> String {
    token.cause().expect("cancelled").to_string()
}

/// What a panic of `f` says.
fn panic_of<R>(f: impl FnOnce() -> R) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(|| drop(f()))).err()?;
    Some(match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload
            .downcast::<&str>()
            .map_or("?".into(), |text| text.to_string()),
    })
}

/// Panics without the noise of the panic hook.
fn quiet_panic(text: &str) {
    resume_unwind(Box::new(text.to_string()));
}

/// Forgets the value. It stays reachable, so that a leak checker finds other leaks only.
fn forget<T>(value: T) {
    struct Forgotten(#[allow(dead_code)] *mut ());
    // SAFETY: never touched again.
    unsafe impl Send for Forgotten {}
    static FORGOTTEN: Mutex<Vec<Forgotten>> = Mutex::new(Vec::new());

    let value = Box::into_raw(Box::new(value));
    FORGOTTEN.lock().unwrap().push(Forgotten(value.cast()));
}

/// `root` first; every token has `fan` children, `levels` below the root.
fn tree(fan: usize, levels: usize) -> Vec<CancellationToken> {
    let mut all = vec![CancellationToken::new()];
    let mut level = 0..1;
    for _ in 0..levels {
        let start = all.len();
        for parent in level {
            for _ in 0..fan {
                all.push(all[parent].child_token());
            }
        }
        level = start..all.len();
    }
    all
}

fn spawn_small(f: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new()
        .stack_size(128 * 1024)
        .spawn(f)
        .expect("a thread with a small stack")
}

// ---- names ----

#[test]
fn signatures() {
    type Token = CancellationToken;

    let _: fn(&Token) -> Option<Cause> = Token::cause;
    let _: fn(&Token, &'static str) -> bool = Token::cancel_with;
    let _: fn(&Token, String) -> bool = Token::cancel_with;
    let _: fn(&Token, ContextError) -> bool = Token::cancel_with;
    let _: fn(&Token, Cause) -> bool = Token::cancel_with;
    let _: fn(&Token) = Token::blocking_wait;
    let _: fn(&Token, Duration) -> bool = Token::blocking_wait_timeout;
    let _: fn(&Token, Instant) -> bool = Token::blocking_wait_deadline;
    let _: fn(&Token, fn()) -> Registration = Token::on_cancel;
    let _: fn(Registration) -> bool = Registration::stop;
    let _: fn(Registration) -> bool = Registration::stop_and_wait;
    let _: fn(Registration) -> StopOnDrop = Registration::stop_on_drop;
    let _: fn(Registration) -> StopAndWaitOnDrop = Registration::stop_and_wait_on_drop;
    let _: fn(&Cause) -> ContextError = Cause::kind;
    let _: for<'a> fn(&'a Cause) -> Option<&'a fmt::Error> = Cause::downcast_ref;

    // Sources by reference, in whatever holds them.
    let tokens = vec![Token::new(), Token::new()];
    let _ = Token::any_of([&tokens[0], &tokens[1]]);
    let _ = Token::any_of(&tokens);
    let _ = Token::any_of(tokens.iter().filter(|token| !token.is_cancelled()));
}

// ---- causes ----

#[test]
fn no_cause_while_live() {
    let token = CancellationToken::new();
    let child = token.child_token();
    assert!(token.cause().is_none() && child.cause().is_none());
    child.cancel();
    assert!(token.cause().is_none());
}

#[test]
fn a_plain_cancel_has_its_kind_as_the_cause() {
    let token = CancellationToken::new();
    let child = token.child_token();
    token.cancel();
    for token in [&token, &child, &token.child_token()] {
        let cause = token.cause().unwrap();
        assert_eq!(cause.kind(), ContextError::Cancelled);
        assert_eq!(cause.to_string(), "context cancelled");
        assert_eq!(cause.downcast_ref(), Some(&ContextError::Cancelled));
    }
    assert_eq!(
        ContextError::DeadlineExceeded.to_string(),
        "context deadline exceeded"
    );
}

#[test]
fn the_first_cancel_wins() {
    let token = CancellationToken::new();
    assert!(token.cancel_with("first"));
    assert!(!token.cancel_with(String::from("second")));
    token.cancel();
    assert!(!token.clone().cancel_with(ContextError::DeadlineExceeded));
    assert_eq!(why(&token), "first");

    let token = CancellationToken::new();
    token.cancel();
    assert!(!token.cancel_with("too late"));
    assert_eq!(why(&token), "context cancelled");
}

#[test]
fn the_cause_may_be_any_error() {
    #[derive(Debug, PartialEq)]
    struct TooMany(u32);
    impl fmt::Display for TooMany {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} are too many", self.0)
        }
    }
    impl Error for TooMany {}

    let token = CancellationToken::new();
    let child = token.child_token();
    assert!(token.cancel_with(Cause::new(TooMany(7))));
    let cause = child.cause().unwrap();
    assert_eq!(cause.downcast_ref::<TooMany>(), Some(&TooMany(7)));
    assert!(cause.downcast_ref::<fmt::Error>().is_none());
    assert_eq!(cause.to_string(), "7 are too many");
    assert_eq!(
        cause.kind(),
        ContextError::Cancelled,
        "every cause answers to its kind"
    );

    let token = CancellationToken::new();
    token.cancel_with(ContextError::DeadlineExceeded);
    assert_eq!(
        token.cause().unwrap().kind(),
        ContextError::DeadlineExceeded
    );
}

#[test]
fn a_cause_outlives_its_tree_and_is_freed() {
    struct Counted(Arc<()>);
    impl fmt::Debug for Counted {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Counted")
        }
    }
    impl fmt::Display for Counted {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "one of {}", Arc::strong_count(&self.0))
        }
    }
    impl Error for Counted {}

    let count = Arc::new(());
    let new = || Cause::new(Counted(Arc::clone(&count)));
    let root = CancellationToken::new();
    let child = root.child_token();
    assert!(child.cancel_with(new()));
    assert!(root.cancel_with(new()));
    assert!(
        !root.cancel_with(new()),
        "the cause of a late cancel is dropped"
    );
    assert_eq!(Arc::strong_count(&count), 3);
    let kept = child.child_token().cause().unwrap();
    drop((root, child));
    assert_eq!(Arc::strong_count(&count), 2);
    assert_eq!(kept.clone().to_string(), "one of 2");
    drop(kept);
    assert_eq!(Arc::strong_count(&count), 1);
}

#[test]
fn parent_first_the_child_takes_the_parents_cause() {
    let parent = CancellationToken::new();
    let child = parent.child_token();
    let grandchild = child.child_token();
    parent.cancel_with("parent");
    assert!(!child.cancel_with("child"));
    assert!(!grandchild.cancel_with("grandchild"));
    for token in [&parent, &child, &grandchild, &grandchild.child_token()] {
        assert_eq!(why(token), "parent");
    }
    drop(parent);
    drop(child);
    assert_eq!(why(&grandchild), "parent");
}

#[test]
fn child_first_the_child_keeps_its_own_cause() {
    let parent = CancellationToken::new();
    let child = parent.child_token();
    let grandchild = child.child_token();
    let sibling = parent.child_token();
    assert!(child.cancel_with("child"));
    assert!(parent.cancel_with("parent"));
    assert_eq!(
        [&parent, &child, &grandchild, &sibling].map(why),
        ["parent", "child", "child", "parent"]
    );
    let late = child.child_token();
    drop((parent, child));
    assert_eq!([&grandchild, &late].map(why), ["child", "child"]);
}

#[test]
fn of_many_cancels_at_once_one_wins() {
    for _ in 0..scaled(100) {
        let root = CancellationToken::new();
        let child = root.child_token();
        let start = Barrier::new(4);
        let won = thread::scope(|scope| {
            let cancel = |text: &'static str| {
                let (root, start) = (&root, &start);
                scope.spawn(move || {
                    start.wait();
                    root.cancel_with(text).then_some(text)
                })
            };
            let threads = ["a", "b", "c"].map(cancel);
            scope.spawn(|| {
                start.wait();
                // Whoever sees the cancel sees its cause, and it never changes.
                while !child.is_cancelled() {
                    thread::yield_now();
                }
                let first = why(&child);
                assert_eq!((why(&root), why(&child)), (first.clone(), first));
            });
            threads.map(|thread| thread.join().unwrap())
        });
        let won: Vec<_> = won.into_iter().flatten().collect();
        assert_eq!(won.len(), 1);
        assert_eq!(why(&child), won[0]);
    }
}

// ---- all state first, then the wake-ups ----

#[test]
fn all_state_is_set_before_anybody_wakes() {
    let all = Arc::new(tree(3, if cfg!(miri) { 2 } else { 4 }));
    let (count, counting) = counter();
    let check = {
        let (all, counting) = (Arc::clone(&all), counting.clone());
        move || {
            assert!(all.iter().all(|token| token.is_cancelled()));
            assert!(all.iter().all(|token| why(token) == "root"));
            counting();
        }
    };
    let waker = on_wake(check.clone());
    let _waiting: Vec<_> = all.iter().map(|token| wait_with(token, &waker)).collect();
    for token in all.iter() {
        drop(token.on_cancel(check.clone()));
    }
    let threads: Vec<_> = (0..4)
        .map(|i| {
            let (all, counting) = (Arc::clone(&all), counting.clone());
            thread::spawn(move || {
                let token = &all[all.len() - 1 - i];
                token.blocking_wait();
                // Of the others it knows nothing: it may have come when the marking had begun, and not slept.
                assert_eq!(why(token), "root");
                counting();
            })
        })
        .collect();
    all[0].cancel_with("root");
    let done = count.load(SeqCst);
    assert!(
        done >= 2 * all.len(),
        "all wakers and callbacks have run when cancel returns: {done}"
    );
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(count.load(SeqCst), 2 * all.len() + 4);
}

#[test]
fn also_across_any_of() {
    let source = CancellationToken::new();
    let other = CancellationToken::new();
    let leaf = source.child_token();
    let any = CancellationToken::any_of([&other, &leaf]);
    let nested = CancellationToken::any_of([&CancellationToken::new(), &any.child_token()]);
    let below = nested.child_token();
    let (count, counting) = counter();
    for token in [&source, &leaf, &any, &nested, &below] {
        let all = [&source, &leaf, &any, &nested, &below].map(CancellationToken::clone);
        let counting = counting.clone();
        drop(token.on_cancel(move || {
            assert_eq!(all.each_ref().map(why), ["all"; 5]);
            counting();
        }));
    }
    source.cancel_with("all");
    assert_eq!(count.load(SeqCst), 5);
    assert!(!other.is_cancelled());
}

// ---- panics of user code ----

#[test]
fn a_panicking_waker_costs_nobody_the_wake_up() {
    for position in 0..13 {
        let all = tree(3, 2);
        let (count, counting) = counter();
        let good = on_wake(counting);
        let bad = on_wake(|| quiet_panic("waker"));
        let mut waiting: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(i, token)| wait_with(token, if i == position { &bad } else { &good }))
            .collect();
        assert_eq!(panic_of(|| all[0].cancel()).as_deref(), Some("waker"));
        assert_eq!(count.load(SeqCst), 12);
        assert!(all.iter().all(CancellationToken::is_cancelled));
        assert!(waiting
            .iter_mut()
            .all(|future| poll(future.as_mut(), &good).is_ready()));
        assert_eq!(panic_of(|| all[0].cancel()), None, "once");
        assert!(all[position].child_token().is_cancelled());
    }
}

/// They are noted many at a time.
#[test]
fn among_many_a_panicking_waker_costs_nobody_the_wake_up() {
    const MANY: usize = if cfg!(miri) { 70 } else { 200 };
    for position in 0..MANY {
        let root = CancellationToken::new();
        let all: Vec<_> = (0..MANY).map(|_| root.child_token()).collect();
        let (count, counting) = counter();
        let good = on_wake(counting);
        let bad = on_wake(|| quiet_panic("waker"));
        let _waiting: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(i, token)| wait_with(token, if i == position { &bad } else { &good }))
            .collect();
        assert_eq!(panic_of(|| root.cancel()).as_deref(), Some("waker"));
        assert_eq!(count.load(SeqCst), MANY - 1);
    }
}

/// Its own task comes first, as long as the walk below may be.
#[test]
fn who_waits_at_the_cancelled_token_itself_is_woken_first() {
    let root = CancellationToken::new();
    let all: Vec<_> = (0..20).map(|_| root.child_token()).collect();
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let says = |who| {
        let order = order.clone();
        on_wake(move || order.lock().unwrap().push(who))
    };
    let _at_root = wait_with(&root, &says(0));
    let wakers: Vec<_> = (1..=20).map(says).collect();
    let _below: Vec<_> = all
        .iter()
        .zip(&wakers)
        .map(|(token, waker)| wait_with(token, waker))
        .collect();
    root.cancel();
    let order = order.lock().unwrap();
    assert_eq!(order.len(), 21);
    assert_eq!(order[0], 0);
}

/// Of two that are far apart the one that the walk meets first is woken first, whoever is in between.
#[test]
fn nobody_waits_for_the_whole_walk() {
    for are_cancelled in [false, true] {
        let root = CancellationToken::new();
        let order: Arc<Mutex<Vec<&str>>> = Arc::default();
        let says = |who| {
            let order = order.clone();
            on_wake(move || order.lock().unwrap().push(who))
        };
        let old = root.child_token();
        let between: Vec<_> = (0..3000).map(|_| root.child_token()).collect();
        let young = root.child_token();
        let _waiting =
            [(&old, "old"), (&young, "young")].map(|(token, who)| wait_with(token, &says(who)));
        if are_cancelled {
            between.iter().for_each(CancellationToken::cancel);
        }
        root.cancel();
        assert_eq!(*order.lock().unwrap(), ["young", "old"]);
    }
}

/// A waker cancels a token below: whoever waits there has been woken when callbacks there run, which may wait for that.
#[test]
fn a_cancel_within_a_waker_wakes_before_it_calls() {
    // Whichever of the two the walk meets first.
    for is_older in [true, false] {
        let root = CancellationToken::new();
        let mut pair = [root.child_token(), root.child_token()];
        if is_older {
            pair.reverse();
        }
        let [of_waker, child] = pair;
        let (count, counting) = counter();
        let _below = wait_with(&child, &on_wake(counting));
        let (see, seen) = mpsc::channel();
        drop(child.on_cancel(move || see.send(count.load(SeqCst)).unwrap()));
        let cancelling = on_wake(move || {
            child.cancel();
        });
        let _waiting = wait_with(&of_waker, &cancelling);
        root.cancel();
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [1]);
    }
}

/// And who waits elsewhere for the same cancel, though the waker comes first.
#[test]
fn a_callback_below_what_a_waker_cancels_may_wait_for_a_thread() {
    for is_older in [true, false] {
        let root = CancellationToken::new();
        // The slot is taken: the thread waits beside the children.
        let _first = wait_with(&root, Waker::noop());
        let child = root.child_token();
        let older = root.child_token();
        let (say, hear) = mpsc::channel();
        let _second = wait_with(&root, &on_wake(move || say.send(()).unwrap()));
        let of_waker = if is_older { older } else { root.child_token() };
        drop(child.on_cancel(move || hear.recv_timeout(LINEAR).expect("it has been woken")));
        let cancelling = on_wake(move || {
            child.cancel();
        });
        let _waiting = wait_with(&of_waker, &cancelling);
        root.cancel();
    }
}

/// The same where both wait at one token, among so many that most have no node of their own.
#[test]
fn a_cancel_within_a_waker_wakes_the_others_of_its_token_before_it_calls() {
    for at in [2, 40] {
        let root = CancellationToken::new();
        let child = root.child_token();
        let (count, counting) = counter();
        let good = on_wake(counting);
        let (see, seen) = mpsc::channel();
        drop(child.on_cancel(move || see.send(count.load(SeqCst)).unwrap()));
        let cancelling = on_wake({
            let child = child.clone();
            move || {
                child.cancel();
            }
        });
        let _waiting: Vec<_> = (0..50)
            .map(|i| wait_with(&child, if i == at { &cancelling } else { &good }))
            .collect();
        root.cancel();
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [49], "{at}");
    }
}

/// Whoever is dropped is not woken, and lets go of what it has, where a waker ends all waits and drops all tokens.
fn a_waker_drops_all(root: &CancellationToken, token: impl Fn() -> CancellationToken) {
    const MANY: usize = if cfg!(miri) { 70 } else { 200 };
    let (count, counting) = counter();
    let all: Arc<Mutex<Vec<_>>> = Arc::default();
    let dropping = on_wake({
        let all = all.clone();
        move || {
            counting();
            let all = std::mem::take(&mut *all.lock().unwrap());
            drop(all);
        }
    });
    for _ in 0..MANY {
        let waiting = wait_with(&token(), &dropping);
        all.lock().unwrap().push(waiting);
    }
    root.cancel();
    let woken = count.load(SeqCst);
    assert_eq!(woken, 1, "no other was taken before");
    assert!(all.lock().unwrap().is_empty());
    assert_eq!(Arc::strong_count(&all), 2);
    drop(dropping);
    assert_eq!(Arc::strong_count(&all), 1);
}

#[test]
fn a_waker_drops_all_that_are_still_to_be_woken() {
    let root = CancellationToken::new();
    a_waker_drops_all(&root, || root.child_token());
}

/// The same where all wait at one token, among so many that they have no nodes of their own.
#[test]
fn a_waker_drops_all_others_of_its_token() {
    let root = CancellationToken::new();
    // These have nodes.
    let idle = on_wake(|| ());
    let _first: Vec<_> = (0..8).map(|_| wait_with(&root, &idle)).collect();
    a_waker_drops_all(&root, || root.clone());
}

#[test]
fn of_many_panics_one_surfaces() {
    let root = CancellationToken::new();
    let (count, counting) = counter();
    for i in 0..30 {
        let counting = counting.clone();
        drop(root.child_token().on_cancel(move || {
            counting();
            if i % 2 == 0 {
                quiet_panic("callback");
            }
        }));
    }
    let bad = on_wake(|| quiet_panic("waker"));
    let _waiting = wait_with(&root, &bad);
    let parked = thread::spawn({
        let root = root.clone();
        move || root.blocking_wait()
    });
    assert!(panic_of(|| root.cancel()).is_some());
    assert_eq!(count.load(SeqCst), 30);
    parked.join().unwrap();
    assert_eq!(panic_of(|| root.cancel()), None);
}

#[test]
fn a_panic_behind_any_of_reaches_the_canceller() {
    let (a, b) = (CancellationToken::new(), CancellationToken::new());
    let (count, counting) = counter();
    let any: Vec<_> = (0..3)
        .map(|_| CancellationToken::any_of([&a, &b]))
        .collect();
    for token in &any {
        drop(token.on_cancel(|| quiet_panic("behind")));
        drop(token.on_cancel(counting.clone()));
    }
    assert_eq!(panic_of(|| b.cancel()).as_deref(), Some("behind"));
    assert_eq!(count.load(SeqCst), 3);
    assert!(any.iter().all(CancellationToken::is_cancelled));
}

#[test]
fn a_guard_dropped_while_unwinding_does_not_abort() {
    let token = CancellationToken::new();
    drop(token.on_cancel(|| quiet_panic("callback")));
    let message = panic_of(|| {
        let _guard = token.drop_guard_ref();
        quiet_panic("first");
    });
    assert_eq!(message.as_deref(), Some("first"));
    assert!(token.is_cancelled());
}

/// Nothing is below it: who waits there is woken by the step that cancels.
#[test]
fn the_panic_of_an_only_waiter_surfaces_once_and_never_while_unwinding() {
    let bad = on_wake(|| quiet_panic("waker"));
    let token = CancellationToken::new();
    let mut waiting = wait_with(&token, &bad);
    assert_eq!(panic_of(|| token.cancel()).as_deref(), Some("waker"));
    assert!(poll(waiting.as_mut(), &bad).is_ready());
    assert_eq!(panic_of(|| token.cancel()), None, "once");

    let token = CancellationToken::new();
    let _waiting = wait_with(&token, &bad);
    let message = panic_of(|| {
        let _guard = token.drop_guard_ref();
        quiet_panic("first");
    });
    assert_eq!(message.as_deref(), Some("first"));
    assert!(token.is_cancelled());
}

#[test]
fn panics_in_drop_leave_the_tree_in_order() {
    /// Also as a cause, a waker and what a callback owns.
    #[derive(Debug)]
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                quiet_panic("drop");
            }
        }
    }
    impl fmt::Display for Bomb {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bomb")
        }
    }
    impl Error for Bomb {}
    fn works(root: &CancellationToken) {
        let child = root.child_token();
        let (count, counting) = counter();
        drop(child.on_cancel(counting));
        root.cancel();
        assert!(child.is_cancelled() && count.load(SeqCst) == 1);
    }

    // The cause of a cancel that came late.
    let root = CancellationToken::new();
    let child = root.child_token();
    child.cancel();
    assert!(panic_of(|| child.cancel_with(Cause::new(Bomb))).is_some());
    works(&root);

    // The cause of a token that dies.
    let root = CancellationToken::new();
    let child = root.child_token();
    child.cancel_with(Cause::new(Bomb));
    assert!(panic_of(|| drop(child)).is_some());
    works(&root);

    // A waker that is given up; one that is replaced; one that is woken.
    let root = CancellationToken::new();
    let bomb = || {
        let bomb = Bomb;
        on_wake(move || {
            let _ = &bomb;
        })
    };
    let mut future = {
        let waker = bomb();
        wait_with(&root, &waker)
    };
    assert!(panic_of(|| drop(future)).is_some());
    future = {
        let waker = bomb();
        wait_with(&root, &waker)
    };
    let harmless = on_wake(|| ());
    assert!(panic_of(|| poll(future.as_mut(), &harmless)).is_some());
    let woken = {
        let waker = bomb();
        wait_with(&root, &waker)
    };
    let (count, counting) = counter();
    drop(root.child_token().on_cancel(counting));
    assert!(panic_of(|| root.cancel()).is_some());
    assert_eq!(count.load(SeqCst), 1);
    works(&root.child_token());
    drop((future, woken));

    // What a callback owns: stopped; run; dropped with the tree.
    let root = CancellationToken::new();
    let register = |token: &CancellationToken| {
        let bomb = Bomb;
        token.on_cancel(move || drop(catch_unwind(move || drop(bomb))))
    };
    assert!(panic_of(|| register(&root).stop()).is_some());
    drop(register(&root));
    works(&root);
    let root = CancellationToken::new();
    let other = root.child_token();
    drop(register(&root));
    drop(register(&other));
    assert!(panic_of(|| drop((root, other))).is_some());
}

#[test]
fn a_panic_while_cloning_a_waker() {
    use std::task::{RawWaker, RawWakerVTable};
    static VTABLE: RawWakerVTable = RawWakerVTable::new(
        |_| {
            quiet_panic("clone");
            unreachable!()
        },
        |_| (),
        |_| (),
        |_| (),
    );
    // SAFETY: no function of the table touches the data.
    let bad = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) };

    let token = CancellationToken::new();
    let mut future = Box::pin(token.cancelled());
    assert!(panic_of(|| poll(future.as_mut(), &bad)).is_some());
    let (count, counting) = counter();
    let good = on_wake(counting);
    assert!(poll(future.as_mut(), &good).is_pending());
    assert!(panic_of(|| poll(future.as_mut(), &bad)).is_some());
    assert!(poll(future.as_mut(), &good).is_pending());
    token.cancel();
    assert_eq!(count.load(SeqCst), 1);
    assert!(
        poll(future.as_mut(), &bad).is_ready(),
        "a ready future clones no waker"
    );
}

/// A waker may be a pointer to something on the stack, of which `clone` makes something that lives: then the next one looks as
/// the one before did, and wakes another.
#[test]
fn a_waker_is_known_by_its_clone() {
    use std::task::{RawWaker, RawWakerVTable};

    type Count = Arc<AtomicUsize>;
    fn clone(count: *const ()) -> RawWaker {
        // SAFETY: the data of both tables point to a `Count`.
        let count = unsafe { &*count.cast::<Count>() }.clone();
        RawWaker::new(Box::into_raw(Box::new(count)).cast(), &CLONE)
    }
    fn wake_by_ref(count: *const ()) {
        // SAFETY: as above.
        unsafe { &*count.cast::<Count>() }.fetch_add(1, SeqCst);
    }
    fn wake(count: *const ()) {
        wake_by_ref(count);
        free(count);
    }
    fn free(count: *const ()) {
        // SAFETY: a clone's data are from a Box, and this is its end.
        drop(unsafe { Box::from_raw(count.cast::<Count>().cast_mut()) });
    }
    static ORIGINAL: RawWakerVTable = RawWakerVTable::new(clone, wake_by_ref, wake_by_ref, |_| ());
    static CLONE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, free);

    fn poll_as(future: Pin<&mut impl Future>, count: &Count) {
        let raw = RawWaker::new(std::ptr::from_ref(count).cast(), &ORIGINAL);
        // SAFETY: the functions are Send and Sync, as an Arc is, and the original does not outlive `count`.
        let waker = unsafe { Waker::from_raw(raw) };
        assert!(poll(future, &waker).is_pending());
    }

    // In the token's own slot, in a child's, in a room.
    for before in [0, 1, 3, 40] {
        let token = CancellationToken::new();
        let mut others: Vec<_> = (0..before).map(|_| Box::pin(token.cancelled())).collect();
        for other in &mut others {
            assert!(poll(other.as_mut(), Waker::noop()).is_pending());
        }
        let mut future = Box::pin(token.cancelled());
        let first = Count::default();
        let mut at_one_address = first.clone();
        poll_as(future.as_mut(), &at_one_address);
        let second = Count::default();
        at_one_address = second.clone();
        poll_as(future.as_mut(), &at_one_address);
        token.cancel();
        assert_eq!(
            (first.load(SeqCst), second.load(SeqCst)),
            (0, 1),
            "{before}"
        );
        drop(at_one_address);
        assert_eq!(
            (Arc::strong_count(&first), Arc::strong_count(&second)),
            (1, 1)
        );
    }
}

/// Where a compiler makes two tables of a constant, the waker is the same, and is not registered anew.
#[test]
fn a_waker_is_known_by_what_is_in_its_table() {
    use std::task::{RawWaker, RawWakerVTable};
    static CLONES: AtomicUsize = AtomicUsize::new(0);
    fn clone(data: *const ()) -> RawWaker {
        CLONES.fetch_add(1, SeqCst);
        RawWaker::new(data, &SECOND)
    }
    fn nothing(_: *const ()) {}
    static FIRST: RawWakerVTable = RawWakerVTable::new(clone, nothing, nothing, nothing);
    static SECOND: RawWakerVTable = RawWakerVTable::new(clone, nothing, nothing, nothing);
    assert!(!std::ptr::eq(&FIRST, &SECOND));

    let token = CancellationToken::new();
    let mut future = Box::pin(token.cancelled());
    // SAFETY: no function of the tables touches the data.
    let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &FIRST)) };
    for _ in 0..3 {
        assert!(poll(future.as_mut(), &waker).is_pending());
    }
    assert_eq!(CLONES.load(SeqCst), 1);
}

// ---- callbacks ----

#[test]
fn a_callback_runs_once_on_the_cancelling_thread() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let (send, receive) = mpsc::channel();
    drop(child.on_cancel(move || send.send(thread::current().id()).unwrap()));
    let canceller = thread::spawn({
        let root = root.clone();
        move || root.cancel()
    });
    let id = canceller.thread().id();
    canceller.join().unwrap();
    root.cancel();
    child.cancel();
    assert_eq!(receive.iter().collect::<Vec<_>>(), [id]);
}

#[test]
fn a_callback_on_a_cancelled_token_runs_at_once() {
    let token = CancellationToken::new();
    token.cancel();
    let (count, counting) = counter();
    let here = thread::current().id();
    let registration = token.on_cancel(move || {
        assert_eq!(thread::current().id(), here);
        counting();
    });
    assert_eq!(count.load(SeqCst), 1);
    assert!(!registration.stop());
    assert!(!token.child_token().on_cancel(|| ()).stop_and_wait());
    drop(token.on_cancel(|| ()).stop_on_drop());
    assert!(!futures::executor::block_on(
        token.on_cancel(|| ()).stop_async()
    ));
}

#[test]
fn five_ways_to_stop_in_time() {
    let token = CancellationToken::new();
    let alive = Arc::new(());
    let register = || {
        let alive = Arc::clone(&alive);
        token.on_cancel(move || panic!("stopped before: {alive:?}"))
    };
    assert!(register().stop());
    assert!(register().stop_and_wait());
    assert!(futures::executor::block_on(register().stop_async()));
    drop(register().stop_on_drop());
    drop(register().stop_and_wait_on_drop());
    let registration = register().stop_and_wait_on_drop().disarm();
    assert_eq!(Arc::strong_count(&alive), 2);
    assert!(registration.stop());
    assert_eq!(Arc::strong_count(&alive), 1, "a stopped closure is dropped");
    token.cancel();
}

#[test]
fn stop_async_stops_at_the_call() {
    let token = CancellationToken::new();
    let stopping = token.on_cancel(|| panic!("stopped before")).stop_async();
    token.cancel();
    assert!(futures::executor::block_on(stopping));
}

#[test]
fn stop_after_the_cancel() {
    let token = CancellationToken::new();
    let (count, counting) = counter();
    let [a, b, c, d] = [(); 4].map(|()| token.on_cancel(counting.clone()));
    token.cancel();
    assert_eq!(count.load(SeqCst), 4);
    assert!(!a.stop());
    assert!(!b.stop_and_wait());
    assert!(!futures::executor::block_on(c.stop_async()));
    drop(d.stop_on_drop());
    assert_eq!(count.load(SeqCst), 4);
}

#[test]
fn stop_while_the_callback_runs() {
    let token = CancellationToken::new();
    let (started, has_started) = mpsc::channel();
    let finished = Arc::new(AtomicBool::new(false));
    let slow = |token: &CancellationToken| {
        let (started, finished) = (started.clone(), Arc::clone(&finished));
        let (go, wait) = mpsc::channel::<()>();
        let registration = token.on_cancel(move || {
            started.send(()).unwrap();
            wait.recv().unwrap();
            finished.store(true, SeqCst);
        });
        (registration, go)
    };
    let cancel = |token: &CancellationToken| {
        let token = token.clone();
        let canceller = thread::spawn(move || token.cancel());
        has_started.recv().unwrap();
        canceller
    };

    // `stop` does not wait, nor does the guard.
    let (registration, go) = slow(&token);
    let canceller = cancel(&token);
    assert!(!registration.stop());
    assert!(!finished.load(SeqCst));
    go.send(()).unwrap();
    canceller.join().unwrap();

    let token = CancellationToken::new();
    finished.store(false, SeqCst);
    let (registration, go) = slow(&token);
    let canceller = cancel(&token);
    drop(registration.stop_on_drop());
    assert!(!finished.load(SeqCst));
    go.send(()).unwrap();
    canceller.join().unwrap();

    // `stop_and_wait` waits.
    let token = CancellationToken::new();
    finished.store(false, SeqCst);
    let (registration, go) = slow(&token);
    let canceller = cancel(&token);
    let release = thread::spawn(move || {
        thread::sleep(SHORT);
        go.send(()).unwrap();
    });
    assert!(!registration.stop_and_wait());
    assert!(finished.load(SeqCst));
    release.join().unwrap();
    canceller.join().unwrap();

    // So does the guard that does it.
    let token = CancellationToken::new();
    finished.store(false, SeqCst);
    let (registration, go) = slow(&token);
    let canceller = cancel(&token);
    let release = thread::spawn(move || {
        thread::sleep(SHORT);
        go.send(()).unwrap();
    });
    drop(registration.stop_and_wait_on_drop());
    assert!(finished.load(SeqCst));
    release.join().unwrap();
    canceller.join().unwrap();

    // `stop_async` is pending meanwhile, and is woken.
    let token = CancellationToken::new();
    finished.store(false, SeqCst);
    let (registration, go) = slow(&token);
    let canceller = cancel(&token);
    let (count, counting) = counter();
    let waker = on_wake(counting);
    let mut stopping = pin!(registration.stop_async());
    assert!(poll(stopping.as_mut(), &waker).is_pending());
    assert_eq!(count.load(SeqCst), 0);
    go.send(()).unwrap();
    canceller.join().unwrap();
    assert!(finished.load(SeqCst) && count.load(SeqCst) == 1);
    assert_eq!(poll(stopping, &waker), Poll::Ready(false));
}

#[test]
fn stop_and_wait_for_a_callback_that_panics() {
    let token = CancellationToken::new();
    let (started, has_started) = mpsc::channel();
    let registration = token.on_cancel(move || {
        started.send(()).unwrap();
        thread::sleep(SHORT);
        quiet_panic("callback");
    });
    let canceller = thread::spawn({
        let token = token.clone();
        move || panic_of(|| token.cancel())
    });
    has_started.recv().unwrap();
    assert!(!registration.stop_and_wait());
    assert_eq!(canceller.join().unwrap().as_deref(), Some("callback"));
}

#[test]
fn a_callback_may_stop_itself() {
    fn stop_inside(how: impl FnOnce(Registration) -> bool + Send + 'static) -> bool {
        let token = CancellationToken::new();
        let own = Arc::new(Mutex::new(None::<Registration>));
        let (send, receive) = mpsc::channel();
        let registration = token.on_cancel({
            let own = Arc::clone(&own);
            move || {
                let registration = own.lock().unwrap().take().unwrap();
                send.send(how(registration)).unwrap();
            }
        });
        *own.lock().unwrap() = Some(registration);
        token.cancel();
        receive.recv().unwrap()
    }
    assert!(!stop_inside(Registration::stop));
    assert!(!stop_inside(Registration::stop_and_wait));
    assert!(!stop_inside(|registration| futures::executor::block_on(
        registration.stop_async()
    )));
    assert!(!stop_inside(|registration| {
        drop(registration.stop_on_drop());
        false
    }));
    assert!(!stop_inside(|registration| {
        drop(registration.stop_and_wait_on_drop());
        false
    }));
}

#[test]
fn a_callback_may_stop_another() {
    // Whichever of the two runs first stops the other.
    let token = CancellationToken::new();
    let registrations = Arc::new(Mutex::new(Vec::<Option<Registration>>::new()));
    let (count, counting) = counter();
    for i in 0..2 {
        let (others, counting) = (Arc::clone(&registrations), counting.clone());
        let registration = token.on_cancel(move || {
            counting();
            let other = others.lock().unwrap()[1 - i].take();
            assert!(other.is_some_and(Registration::stop));
        });
        registrations.lock().unwrap().push(Some(registration));
    }
    token.cancel();
    assert_eq!(count.load(SeqCst), 1);
}

#[test]
fn a_callback_may_do_anything() {
    let root = CancellationToken::new();
    let middle = root.child_token();
    let leaf = middle.child_token();
    let (count, counting) = counter();
    let callback = {
        let (root, middle, sibling) = (root.clone(), middle.clone(), root.child_token());
        let leaf_guard = leaf.clone().drop_guard();
        let counting = counting.clone();
        move || {
            root.cancel();
            assert!(!middle.cancel_with("again"));
            let child = middle.child_token();
            assert!(child.is_cancelled() && root.child_token().is_cancelled());
            sibling.blocking_wait();
            assert!(
                sibling.blocking_wait_timeout(LONG) && child.blocking_wait_deadline(Instant::now())
            );
            drop(middle.on_cancel(counting.clone()));
            let any = CancellationToken::any_of([&root, &CancellationToken::new()]);
            assert!(any.is_cancelled());
            futures::executor::block_on(child.cancelled());
            let fresh = CancellationToken::new();
            drop(fresh.child_token().on_cancel(counting.clone()));
            fresh.cancel();
            drop((root, middle, sibling, leaf_guard, child, any, fresh));
        }
    };
    drop(leaf.on_cancel(callback));
    drop((middle, leaf));
    root.cancel();
    assert_eq!(count.load(SeqCst), 2);
    drop(root);
}

#[test]
fn a_callback_may_drop_the_last_handle() {
    let token = CancellationToken::new();
    let last = Arc::new(Mutex::new(Some(token.child_token())));
    drop(last.lock().unwrap().as_ref().unwrap().on_cancel({
        let last = Arc::clone(&last);
        move || drop(last.lock().unwrap().take())
    }));
    token.cancel();
    assert!(last.lock().unwrap().is_none());
}

#[test]
fn a_callback_may_cancel_a_tree_of_its_own() {
    // A cascade of 100 unrelated trees: user code, so it may nest.
    let (count, counting) = counter();
    let mut next = CancellationToken::new();
    drop(next.on_cancel(counting));
    for _ in 0..100 {
        let token = CancellationToken::new();
        let target = next.clone();
        drop(token.child_token().on_cancel(move || target.cancel()));
        next = token;
    }
    next.cancel();
    assert_eq!(count.load(SeqCst), 1);
}

#[test]
fn a_dropped_registration_stays_registered() {
    let root = CancellationToken::new();
    let (count, counting) = counter();
    let child = root.child_token();
    drop(child.on_cancel(counting.clone()));
    let grandchild = child.child_token();
    drop(grandchild.on_cancel(counting.clone()));
    drop(grandchild.on_cancel(counting));
    // No handle of the tokens is left, only something above them.
    drop((child, grandchild));
    // The places of the dropped may not be given to others.
    let others: Vec<_> = (0..100).map(|_| root.child_token()).collect();
    drop(others);
    assert_eq!(count.load(SeqCst), 0);
    root.cancel();
    assert_eq!(count.load(SeqCst), 3);
}

#[test]
fn a_kept_registration_can_be_stopped_when_the_token_is_gone() {
    let root = CancellationToken::new();
    let registration = root.child_token().on_cancel(|| panic!("stopped before"));
    assert!(registration.stop());
    root.cancel();

    let registration = CancellationToken::new().on_cancel(|| unreachable!());
    // Whether this one counts as stopped is left open: the tree is gone, and it never runs.
    let _ = registration.stop();
}

#[test]
fn a_tree_that_dies_uncancelled_frees_its_callbacks() {
    let alive = Arc::new(());
    let root = CancellationToken::new();
    let child = root.child_token();
    let mut kept = Vec::new();
    for i in 0..20 {
        let token = if i % 2 == 0 { &root } else { &child };
        let alive = Arc::clone(&alive);
        let registration = token.on_cancel(move || panic!("not cancelled: {alive:?}"));
        if i % 5 == 0 {
            kept.push(registration);
        }
    }
    assert_eq!(Arc::strong_count(&alive), 21);
    drop(kept);
    drop(root);
    assert_eq!(Arc::strong_count(&alive), 21);
    drop(child);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn a_callback_that_ran_is_freed() {
    let alive = Arc::new(());
    let token = CancellationToken::new();
    let registration = token.on_cancel({
        let alive = Arc::clone(&alive);
        move || drop(alive)
    });
    token.cancel();
    assert_eq!(Arc::strong_count(&alive), 1);
    drop(registration);
}

#[test]
fn stop_against_cancel() {
    for i in 0..scaled(500) {
        let token = CancellationToken::new();
        let (count, counting) = counter();
        let registration = token.child_token().on_cancel(counting);
        let start = Barrier::new(2);
        let stopped = thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                token.cancel();
            });
            start.wait();
            match i % 3 {
                0 => registration.stop(),
                1 => registration.stop_and_wait(),
                _ => futures::executor::block_on(registration.stop_async()),
            }
        });
        assert_eq!(count.load(SeqCst), usize::from(!stopped));
    }
}

#[test]
fn registering_against_cancel() {
    for _ in 0..scaled(300) {
        let token = CancellationToken::new();
        let (count, counting) = counter();
        thread::scope(|scope| {
            scope.spawn(|| token.cancel());
            for _ in 0..10 {
                drop(token.on_cancel(counting.clone()));
            }
        });
        assert_eq!(count.load(SeqCst), 10);
    }
}

// ---- which token it is ----

#[test]
fn tokens_say_which_they_are() {
    let root = CancellationToken::new();
    let (a, b) = (root.child_token(), root.child_token());
    let below = a.child_token();
    let ids = HashSet::from([root.id(), a.id(), b.id(), below.id()]);
    assert_eq!(ids.len(), 4);
    assert_eq!(a.clone().id(), a.id());
    let text = format!("{:+?}", a);
    assert_eq!(
        text,
        format!(
            "CancellationToken {{ is_cancelled: false, id: {:?} }}",
            a.id()
        )
    );
    assert_eq!(format!("{}", a.id()), format!("{:x}", usize::from(a.id())));
    let parents = [&root, &a, &b, &below].map(CancellationToken::parent_id);
    assert_eq!(
        parents,
        [None, Some(root.id()), Some(root.id()), Some(a.id())]
    );
    assert_eq!([&root, &a, &below].map(CancellationToken::depth), [0, 1, 2]);
    assert!(below.is_below(&a) && below.is_below(&root) && a.is_below(&root));
    assert!(!below.is_below(&b) && !root.is_below(&a) && !a.is_below(&a.clone()));
    // A parent that nobody holds any more is one nevertheless.
    let id = a.id();
    drop(a);
    assert_eq!((below.parent_id(), below.depth()), (Some(id), 2));
    // A cancel changes nothing, and whoever comes later is no part of the tree.
    root.cancel();
    assert_eq!((below.parent_id(), below.depth()), (Some(id), 2));
    let late = root.child_token();
    assert_eq!((late.parent_id(), late.depth()), (None, 0));
    assert!(!late.is_below(&root));
}

#[test]
fn any_of_is_below_all_and_the_child_of_the_first() {
    let roots: Vec<_> = (0..3).map(|_| CancellationToken::new()).collect();
    let middle = roots[2].child_token();
    let inner = CancellationToken::any_of([&roots[1], &middle]);
    let any = CancellationToken::any_of([&roots[0], &inner]).child_token();
    assert_eq!(any.depth(), 2);
    assert_eq!(inner.parent_id(), Some(roots[1].id()));
    assert!(roots
        .iter()
        .chain([&middle, &inner])
        .all(|root| any.is_below(root)));
    assert!(!middle.is_below(&inner) && !inner.is_below(&any));
    // Many ways up to one token: each is looked at once.
    let mut fork = any.clone();
    for _ in 0..40 {
        fork = CancellationToken::any_of([&fork, &fork, &middle]);
    }
    assert!(fork.is_below(&roots[2]) && !fork.is_below(&CancellationToken::new()));
}

/// A contended parent has nodes in between that are no tokens.
#[test]
fn children_of_a_contended_parent_are_its_children() {
    let parent = CancellationToken::new();
    let children: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..3000).map(|_| parent.child_token()).collect::<Vec<_>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    for child in &children {
        assert_eq!((child.parent_id(), child.depth()), (Some(parent.id()), 1));
        assert!(child.is_below(&parent));
    }
}

#[test]
fn a_weak_handle_does_not_keep_its_token() {
    let parent = CancellationToken::new();
    let token = parent.child_token();
    let child = token.child_token();
    let weak = token.downgrade();
    let other = weak.clone();
    assert_eq!(weak.upgrade(), Some(token.clone()));
    assert_eq!(token.downgrade().upgrade(), Some(token.clone()));
    let upgraded = other.upgrade();
    drop(token);
    assert_eq!(weak.upgrade(), upgraded);
    drop(upgraded);
    // The child keeps the memory, and not the token.
    assert!(weak.upgrade().is_none() && other.upgrade().is_none());
    let next = parent.child_token();
    assert!(weak.upgrade().is_none());
    parent.cancel_with("above");
    assert_eq!((why(&child), why(&next)), ("above".into(), "above".into()));
    assert!(weak.upgrade().is_none());
}

/// With a cause, of its own or inherited; with children, waiters, callbacks; of `any_of`, and born cancelled.
#[test]
fn weak_handles_of_tokens_of_every_kind() {
    let source = CancellationToken::new();
    source.cancel_with("before");
    let (root, late) = (CancellationToken::new(), CancellationToken::new());
    let child = root.child_token();
    let tokens = [
        source.clone(),
        source.child_token(),
        CancellationToken::any_of([&root, &source]),
        CancellationToken::any_of([&root, &late]),
        CancellationToken::any_of([&root]),
        child,
        root.clone(),
    ];
    let children: Vec<_> = tokens.iter().map(CancellationToken::child_token).collect();
    let (count, counting) = counter();
    for token in &tokens {
        drop(token.on_cancel(counting.clone()));
    }
    let before = count.load(SeqCst);
    assert_eq!(before, 3);
    let weak: Vec<_> = tokens.iter().map(CancellationToken::downgrade).collect();
    for (token, weak) in tokens.iter().zip(&weak) {
        let same = weak.upgrade().unwrap();
        assert_eq!((&same, same.is_cancelled()), (token, token.is_cancelled()));
    }
    assert_eq!(why(&tokens[0]), "before");
    late.cancel_with("late");
    assert_eq!(why(&weak[3].upgrade().unwrap()), "late");
    root.cancel_with("root");
    assert_eq!(why(&weak[4].upgrade().unwrap()), "root");
    assert_eq!(count.load(SeqCst), 7);
    drop((root, late, source, tokens));
    assert!(weak.iter().all(|weak| weak.upgrade().is_none()));
    assert!(children.iter().all(CancellationToken::is_cancelled));
}

#[test]
fn a_pointer_stands_for_a_handle() {
    let token = CancellationToken::new();
    let child = token.child_token().into_raw();
    let raw = token.clone().into_raw();
    assert_eq!(raw, token.as_ptr());
    drop(token);
    let addresses = (raw.expose_provenance(), child.expose_provenance());
    let cancelled = thread::spawn(move || {
        let (raw, child) = addresses;
        // SAFETY: from `into_raw`, each once.
        let (token, child) = unsafe {
            (
                CancellationToken::from_raw(std::ptr::with_exposed_provenance(raw)),
                CancellationToken::from_raw(std::ptr::with_exposed_provenance(child)),
            )
        };
        token.cancel_with("by pointer");
        why(&child) == "by pointer"
    });
    assert!(cancelled.join().unwrap());
}

// ---- several parents ----

#[test]
fn any_of_nothing_is_a_token_of_its_own() {
    let any = CancellationToken::any_of([]);
    assert!(!any.is_cancelled() && !any.blocking_wait_timeout(Duration::ZERO));
    let child = any.child_token();
    assert!(any.cancel_with("itself"));
    assert_eq!(why(&child), "itself");
}

#[test]
fn any_of_one() {
    let source = CancellationToken::new();
    let any = CancellationToken::any_of([&source]);
    assert_ne!(any, source);
    any.child_token().cancel();
    assert!(!any.is_cancelled());
    source.cancel_with("source");
    assert_eq!(why(&any), "source");

    let source = CancellationToken::new();
    let any = CancellationToken::any_of([&source]);
    any.cancel();
    assert!(!source.is_cancelled());
}

#[test]
fn any_of_several_takes_the_first_ones_cause() {
    for first in 0..4 {
        let sources: Vec<_> = (0..4).map(|_| CancellationToken::new()).collect();
        let any = CancellationToken::any_of(&sources);
        let child = any.child_token();
        let (count, counting) = counter();
        let waker = on_wake(counting);
        let mut waiting = wait_with(&child, &waker);
        assert!(!any.is_cancelled());
        for i in 0..4 {
            sources[(first + i) % 4].cancel_with(format!("source {}", (first + i) % 4));
            assert_eq!(why(&any), format!("source {first}"));
            assert_eq!(why(&child), format!("source {first}"));
        }
        assert_eq!(count.load(SeqCst), 1);
        assert!(poll(waiting.as_mut(), &waker).is_ready());
        assert!(!any.cancel_with("late"));
    }
}

#[test]
fn any_of_can_be_cancelled_itself() {
    let sources = [CancellationToken::new(), CancellationToken::new()];
    let any = CancellationToken::any_of(&sources);
    assert!(any.cancel_with("itself"));
    assert!(!sources.iter().any(CancellationToken::is_cancelled));
    for source in &sources {
        source.cancel_with("source");
    }
    assert_eq!(why(&any), "itself");
}

#[test]
fn any_of_with_a_cancelled_source_is_born_cancelled() {
    for cancelled in 0..3 {
        let sources: Vec<_> = (0..3).map(|_| CancellationToken::new()).collect();
        sources[cancelled].cancel_with("before");
        let any = CancellationToken::any_of(&sources);
        assert_eq!(why(&any), "before");
        assert!(sources.iter().all(|source| *source != any));
        for source in &sources {
            source.cancel();
        }
        assert_eq!(why(&any), "before");
    }
}

/// With causes and without: a cause of its own is placed beside the edge, a bare kind is not.
#[test]
fn any_of_says_which_source_it_was() {
    for with_cause in [false, true] {
        let cancel = |token: &CancellationToken| match with_cause {
            true => token.cancel_with("source"),
            false => token.cancel_with(ContextError::DeadlineExceeded),
        };
        for count in 1..5 {
            for first in 0..count {
                let sources: Vec<_> = (0..count).map(|_| CancellationToken::new()).collect();
                let any = CancellationToken::any_of(&sources);
                let (clone, child) = (any.clone(), any.child_token());
                assert_eq!(any.any_of_source(), None);
                for i in 0..count {
                    assert!(cancel(&sources[(first + i) % count]));
                    assert_eq!(any.any_of_source(), Some(first));
                }
                assert!(!any.cancel_with("late"));
                assert_eq!(clone.any_of_source(), Some(first));
                assert_eq!(child.any_of_source(), None);
                assert_eq!(any.child_token().any_of_source(), None);
                let cause = sources[first].cause().unwrap();
                assert_eq!(why(&any), cause.to_string());
                assert!(any.cause().unwrap() == cause.kind());
                // The same, after the fact.
                let born = CancellationToken::any_of(&sources[first..]);
                assert_eq!(born.any_of_source(), Some(0));
                let live = (0..first).map(|_| CancellationToken::new());
                let late: Vec<_> = live.chain([sources[0].clone()]).collect();
                let born = CancellationToken::any_of(late.iter().chain(&sources));
                assert_eq!(born.any_of_source(), Some(first));
                assert!(born.is_cancelled());
            }
        }
    }
}

#[test]
fn any_of_says_no_source_where_it_was_none() {
    let sources = [CancellationToken::new(), CancellationToken::new()];
    assert_eq!(sources[0].any_of_source(), None);
    assert_eq!(CancellationToken::any_of([]).any_of_source(), None);
    for with_cause in [false, true] {
        let any = CancellationToken::any_of(&sources);
        let one = CancellationToken::any_of(&sources[..1]);
        for token in [&any, &one] {
            if with_cause {
                token.cancel_with("itself");
            } else {
                token.cancel();
            }
            assert_eq!(token.any_of_source(), None);
        }
        if with_cause {
            sources[1].cancel_with("source");
            sources[0].cancel_with("source");
        }
        assert_eq!((any.any_of_source(), one.any_of_source()), (None, None));
    }
    assert_eq!(sources[0].any_of_source(), None);
    assert_eq!(sources[0].child_token().any_of_source(), None);
}

#[test]
fn any_of_tokens_of_its_own_kind_each_say_which() {
    let tokens: Vec<_> = (0..4).map(|_| CancellationToken::new()).collect();
    let inner = CancellationToken::any_of([&tokens[0], &tokens[1]]);
    let below = inner.child_token();
    let outer = CancellationToken::any_of([&tokens[2], &tokens[3], &below]);
    tokens[1].cancel_with("innermost");
    assert_eq!(inner.any_of_source(), Some(1));
    assert_eq!(outer.any_of_source(), Some(2));
    assert_eq!(why(&outer), "innermost");
    // Of what is gone the answer stays, and the cause with it.
    drop((tokens, inner, below));
    assert_eq!(outer.any_of_source(), Some(2));
    assert_eq!(why(&outer), "innermost");
}

#[test]
fn any_of_the_same_and_of_relatives() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let clone = child.clone();
    let any = CancellationToken::any_of([&child, &clone, &child, &root, &root]);
    let (count, counting) = counter();
    drop(any.on_cancel(counting));
    root.cancel_with("root");
    assert_eq!(why(&any), "root");
    assert_eq!(count.load(SeqCst), 1);

    let root = CancellationToken::new();
    let child = root.child_token();
    let any = CancellationToken::any_of([&root, &child]);
    child.cancel_with("child");
    assert_eq!(why(&any), "child");
}

#[test]
fn any_of_outlives_the_handles_of_its_sources() {
    let roots = [CancellationToken::new(), CancellationToken::new()];
    for i in 0..2 {
        let sources = roots.each_ref().map(CancellationToken::child_token);
        let any = CancellationToken::any_of(&sources);
        drop(sources);
        if i == 1 {
            roots[1].cancel_with("above");
            assert_eq!(why(&any), "above");
        }
    }
}

#[test]
fn any_of_dropped_in_every_order() {
    // Sources, token, child of the token: all orders of dropping, with and without a cancel.
    for order in 0..24 {
        for cancel in [None, Some(0), Some(1), Some(2)] {
            let a = CancellationToken::new();
            let b = CancellationToken::new();
            let any = CancellationToken::any_of([&a, &b]);
            let child = any.child_token();
            let (count, counting) = counter();
            drop(child.on_cancel(counting));
            let mut tokens = vec![a, b, any, child];
            if let Some(i) = cancel {
                tokens[i].cancel();
                assert_eq!(count.load(SeqCst), 1);
            }
            let mut rest = order;
            while !tokens.is_empty() {
                drop(tokens.remove(rest % tokens.len()));
                rest /= tokens.len() + 1;
            }
            assert_eq!(count.load(SeqCst), usize::from(cancel.is_some()));
        }
    }
}

#[test]
fn any_of_nested_deeply() {
    let test = || {
        let depth = scaled(100_000);
        for (cancel, forwards) in [(true, true), (true, false), (false, true), (false, false)] {
            let source = CancellationToken::new();
            let never = CancellationToken::new();
            let mut all = vec![source.clone()];
            for i in 0..depth {
                // The one before as the first source, or as another one.
                let before = &all[i];
                let sources = if i % 2 == 0 {
                    [before, &never]
                } else {
                    [&never, before]
                };
                all.push(CancellationToken::any_of(sources));
            }
            if cancel {
                source.cancel_with("far");
                assert!(all.iter().all(CancellationToken::is_cancelled));
                assert_eq!(why(&all[depth]), "far");
                assert!(!never.is_cancelled());
            }
            if forwards {
                all.into_iter().for_each(drop);
            } else {
                all.into_iter().rev().for_each(drop);
            }
        }
    };
    spawn_small(test).join().unwrap();
}

#[test]
fn any_of_against_cancel_and_drop() {
    for i in 0..scaled(500) {
        let sources: Vec<_> = (0..3).map(|_| CancellationToken::new()).collect();
        let (count, counting) = counter();
        let early = CancellationToken::any_of(&sources);
        drop(early.on_cancel(counting.clone()));
        let doomed = CancellationToken::any_of(&sources);
        thread::scope(|scope| {
            scope.spawn(|| sources[1].cancel_with("one"));
            scope.spawn(|| sources[2 * (i % 2)].cancel_with("other"));
            scope.spawn(|| drop(doomed));
            let late = CancellationToken::any_of(&sources);
            drop(late.on_cancel(counting));
            late.blocking_wait();
            assert!(["one", "other"].contains(&why(&late).as_str()));
        });
        assert_eq!(count.load(SeqCst), 2);
        assert!(["one", "other"].contains(&why(&early).as_str()));
    }
}

// ---- waiting as a thread ----

#[test]
fn wait_returns_when_cancelled() {
    let root = CancellationToken::new();
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let token = if i % 2 == 0 {
                root.clone()
            } else {
                root.child_token()
            };
            thread::spawn(move || {
                match i % 4 {
                    0 | 1 => token.blocking_wait(),
                    2 => assert!(token.blocking_wait_timeout(LONG)),
                    _ => assert!(token.blocking_wait_deadline(Instant::now() + LONG)),
                }
                assert!(token.is_cancelled());
            })
        })
        .collect();
    thread::sleep(SHORT);
    root.cancel();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn waits_that_end_by_time() {
    let token = CancellationToken::new();
    let start = Instant::now();
    assert!(!token.blocking_wait_timeout(SHORT));
    assert!(start.elapsed() >= SHORT);
    let deadline = Instant::now() + SHORT;
    assert!(!token.blocking_wait_deadline(deadline));
    assert!(Instant::now() >= deadline);
}

#[test]
fn stray_unparks_do_not_end_a_wait_that_ends_by_time() {
    let token = CancellationToken::new();
    thread::scope(|scope| {
        let timed = scope.spawn(|| {
            let begun = Instant::now();
            assert!(!token.blocking_wait_timeout(2 * SHORT));
            assert!(begun.elapsed() >= 2 * SHORT);
        });
        while !timed.is_finished() {
            timed.thread().unpark();
            thread::sleep(SHORT / 20);
        }
    });
}

#[test]
fn a_permit_that_comes_during_a_wait_is_found_by_the_next_park() {
    let timed = |token: &CancellationToken| assert!(!token.blocking_wait_timeout(3 * SHORT));
    for (wait, is_timed) in [
        (CancellationToken::blocking_wait as fn(&_), false),
        (timed, true),
    ] {
        let token = CancellationToken::new();
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                wait(&token);
                let begun = Instant::now();
                thread::park_timeout(LONG);
                assert!(begun.elapsed() < LONG / 2, "the permit is lost");
            });
            thread::sleep(SHORT);
            sleeper.thread().unpark();
            if !is_timed {
                thread::sleep(3 * SHORT);
                token.cancel();
            }
        });
    }
}

#[test]
fn waits_do_not_fail_on_odd_times() {
    let token = CancellationToken::new();
    let past = Instant::now();
    assert!(!token.blocking_wait_timeout(Duration::ZERO));
    assert!(!token.blocking_wait_timeout(Duration::from_nanos(1)));
    assert!(!token.blocking_wait_deadline(past));
    thread::scope(|scope| {
        scope.spawn(|| assert!(token.blocking_wait_timeout(Duration::MAX)));
        scope.spawn(|| assert!(token.blocking_wait_timeout(Duration::from_secs(u64::MAX / 4))));
        thread::sleep(SHORT);
        token.cancel();
    });
    token.blocking_wait();
    assert!(
        token.blocking_wait_timeout(Duration::ZERO),
        "cancelled is cancelled, time or no time"
    );
    assert!(token.blocking_wait_timeout(Duration::MAX));
    assert!(token.blocking_wait_deadline(past));
}

#[test]
fn stray_unparks_do_not_end_a_wait() {
    let token = CancellationToken::new();
    let returned = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            // One permit is there from the start.
            thread::current().unpark();
            token.blocking_wait();
            assert!(token.is_cancelled());
            returned.store(true, SeqCst);
        });
        for _ in 0..20 {
            waiting.thread().unpark();
            thread::sleep(SHORT / 20);
        }
        assert!(!returned.load(SeqCst));
        token.cancel();
    });
}

#[test]
fn a_thread_waits_many_times() {
    let root = CancellationToken::new();
    for _ in 0..100 {
        let token = root.child_token();
        assert!(!token.blocking_wait_timeout(Duration::from_micros(10)));
        let other = token.clone();
        let canceller = thread::spawn(move || other.cancel());
        token.blocking_wait();
        canceller.join().unwrap();
    }
    assert!(!root.is_cancelled());
}

#[test]
fn wait_against_cancel() {
    for _ in 0..scaled(500) {
        let token = CancellationToken::new();
        thread::scope(|scope| {
            scope.spawn(|| token.blocking_wait());
            scope.spawn(|| token.child_token().blocking_wait_timeout(LONG));
            token.cancel();
        });
    }
}

// ---- many waiters, forgotten ones ----

#[test]
fn many_waiters_of_all_kinds_on_one_token() {
    let number = scaled(1000);
    let token = CancellationToken::new();
    let (woken, waking) = counter();
    let (called, calling) = counter();
    let waker = on_wake(waking);
    let mut waiting: Vec<_> = (0..number).map(|_| wait_with(&token, &waker)).collect();
    let mut registrations: Vec<_> = (0..number)
        .map(|_| token.on_cancel(calling.clone()))
        .collect();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let token = token.clone();
            thread::spawn(move || token.blocking_wait())
        })
        .collect();
    // Some give up, in no particular order.
    let mut given_up = 0;
    for i in (0..number).rev().filter(|i| i % 3 == 1) {
        drop(waiting.swap_remove(i));
        assert!(registrations.swap_remove(i).stop());
        given_up += 1;
    }
    token.cancel();
    assert_eq!(woken.load(SeqCst), number - given_up);
    assert_eq!(called.load(SeqCst), number - given_up);
    assert!(waiting
        .iter_mut()
        .all(|future| poll(future.as_mut(), &waker).is_ready()));
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn waiters_against_cancel_on_one_token() {
    for _ in 0..scaled(200) {
        let token = CancellationToken::new();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let nobody = on_wake(|| ());
                    // Comes and goes, then stays.
                    for _ in 0..5 {
                        let _ = poll(pin!(token.cancelled()), &nobody);
                    }
                    futures::executor::block_on(token.cancelled());
                });
            }
            token.cancel();
        });
    }
}

#[test]
fn one_future_polled_with_a_new_waker_each_time() {
    for round in 0..scaled(200) {
        let token = CancellationToken::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut future = pin!(token.cancelled());
                // The last that was taken is woken, whenever the cancel comes.
                let mut last = None;
                for _ in 0..round {
                    let woken = Arc::new(AtomicBool::new(false));
                    let waker = on_wake({
                        let woken = Arc::clone(&woken);
                        move || woken.store(true, SeqCst)
                    });
                    if poll(future.as_mut(), &waker).is_ready() {
                        return;
                    }
                    last = Some(woken);
                }
                let begin = Instant::now();
                while last.as_ref().is_some_and(|woken| !woken.load(SeqCst)) {
                    assert!(begin.elapsed() < Duration::from_secs(10), "not woken");
                    thread::yield_now();
                }
            });
            token.cancel();
        });
    }
}

#[test]
fn a_forgotten_future_harms_nobody() {
    for cancel in [false, true] {
        let alive = Arc::new(());
        let root = CancellationToken::new();
        let token = root.child_token();
        let (count, counting) = counter();
        for _ in 0..3 {
            let (alive, counting) = (Arc::clone(&alive), counting.clone());
            let waker = on_wake(move || {
                let _ = &alive;
                counting();
            });
            let mut future = Box::pin(token.cancelled());
            assert!(poll(future.as_mut(), &waker).is_pending());
            forget(future);
        }
        // Others wait beside the forgotten ones, one after the other.
        let (good, counting) = counter();
        let waker = on_wake(counting);
        for _ in 0..10 {
            drop(wait_with(&token, &waker));
        }
        let waiting = wait_with(&token, &waker);
        if cancel {
            root.cancel();
            assert_eq!(good.load(SeqCst), 1);
            assert!(count.load(SeqCst) <= 3);
        }
        drop((waiting, token));
        // The place can be used again, and the tree still works.
        let next = root.child_token();
        let more = (!cancel).then(|| wait_with(&next, &waker));
        root.cancel();
        assert_eq!(good.load(SeqCst), 1);
        assert!(next.is_cancelled());
        drop((more, next, root));
        assert!(Arc::strong_count(&alive) <= 4);
    }
}

#[test]
fn a_forgotten_owned_future_and_a_forgotten_guard() {
    let root = CancellationToken::new();
    let (count, counting) = counter();
    let waker = on_wake(counting);
    forget(wait_with(&root.child_token(), &waker));
    forget(root.child_token().drop_guard());
    forget(root.child_token());
    root.cancel();
    assert_eq!(
        count.load(SeqCst),
        1,
        "it still holds its token, so it is woken"
    );
}

#[test]
fn the_extension_wakes_from_a_childs_cancel() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let waiting = thread::spawn({
        let child = child.clone();
        move || {
            futures::executor::block_on(
                std::future::pending::<()>().with_cancellation_token(&child),
            )
        }
    });
    child.cancel();
    assert_eq!(waiting.join().unwrap(), None);
    assert!(!root.is_cancelled());
}

// ---- depth ----

const DEPTH: usize = scaled(1_000_000);

fn chain() -> Vec<CancellationToken> {
    let mut all = vec![CancellationToken::new()];
    for i in 0..DEPTH {
        all.push(all[i].child_token());
    }
    all
}

#[test]
fn a_deep_chain_cancelled_and_dropped_from_the_root() {
    let test = || {
        let all = chain();
        all[0].cancel_with("root");
        assert!(all.iter().all(CancellationToken::is_cancelled));
        assert_eq!(why(&all[DEPTH]), "root");
        all.into_iter().for_each(drop);
    };
    spawn_small(test).join().unwrap();
}

#[test]
fn a_deep_chain_cancelled_and_dropped_from_the_leaf() {
    let test = || {
        let all = chain();
        all[0].cancel();
        assert!(all[DEPTH].is_cancelled());
        all.into_iter().rev().for_each(drop);
    };
    spawn_small(test).join().unwrap();
}

#[test]
fn a_deep_chain_cancelled_token_by_token_from_the_leaf() {
    let test = || {
        let all = chain();
        for token in all.iter().rev() {
            token.cancel();
        }
        assert!(all.iter().all(CancellationToken::is_cancelled));
        all.into_iter().for_each(drop);
    };
    spawn_small(test).join().unwrap();
}

#[test]
fn a_deep_chain_dropped_uncancelled() {
    let test = || {
        chain().into_iter().for_each(drop);
        chain().into_iter().rev().for_each(drop);
    };
    spawn_small(test).join().unwrap();
}

#[test]
fn a_deep_chain_that_hangs_by_its_leaf() {
    let test = || {
        for cancel in [false, true] {
            let root = CancellationToken::new();
            let mut leaf = root.clone();
            for _ in 0..DEPTH {
                leaf = leaf.child_token();
            }
            let (count, counting) = counter();
            drop(leaf.on_cancel(counting));
            if cancel {
                root.cancel_with("far above");
                assert_eq!(why(&leaf), "far above");
            }
            assert_eq!(count.load(SeqCst), usize::from(cancel));
            drop(root);
            // One drop for a million tokens.
            drop(leaf);
        }
    };
    spawn_small(test).join().unwrap();
}

#[test]
fn a_wide_tree() {
    let root = CancellationToken::new();
    let mut children: Vec<_> = (0..scaled(100_000)).map(|_| root.child_token()).collect();
    for child in children.iter().step_by(7) {
        child.cancel();
    }
    // Every second place is free when the root is cancelled.
    let mut i = 0;
    children.retain(|_| {
        i += 1;
        i % 2 == 0
    });
    root.cancel_with("root");
    assert!(children.iter().all(CancellationToken::is_cancelled));
    drop(root);
    assert!(children.iter().all(CancellationToken::is_cancelled));
}

/// A callback may wait for threads that wait for the same token: they have been woken before.
#[test]
fn a_callback_may_join_threads_that_wait_for_the_token() {
    let token = CancellationToken::new();
    let spawn = |_| {
        let token = token.child_token();
        thread::spawn(move || token.blocking_wait())
    };
    let (before, after): (Vec<_>, Vec<_>) =
        ((0..2).map(spawn).collect(), (0..2).map(spawn).collect());
    drop(token.on_cancel(move || {
        for thread in before.into_iter().chain(after) {
            thread.join().unwrap();
        }
    }));
    token.cancel();
}

/// Tasks are woken before the first callback runs, in all that one cancel reaches, also through edges.
#[test]
fn tasks_before_callbacks() {
    struct Note(Arc<Mutex<Vec<char>>>);
    impl Wake for Note {
        fn wake(self: Arc<Note>) {
            self.0.lock().unwrap().push('t');
        }
    }

    let log = Arc::new(Mutex::new(Vec::new()));
    let (token, other) = (CancellationToken::new(), CancellationToken::new());
    let reached = [
        token.clone(),
        token.child_token(),
        CancellationToken::any_of([&other, &token]),
        CancellationToken::any_of([&other, &token]).child_token(),
    ];
    let mut waiting = Vec::new();
    for token in reached.iter().chain(&reached) {
        let called = Arc::clone(&log);
        drop(token.on_cancel(move || called.lock().unwrap().push('c')));
        let waker = Arc::new(Note(Arc::clone(&log))).into();
        let mut future = Box::pin(token.clone().cancelled_owned());
        assert!(future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending());
        waiting.push(future);
    }
    token.cancel();
    assert_eq!(
        log.lock().unwrap().iter().collect::<String>(),
        "ttttttttcccccccc"
    );
}

/// A callback that another one stops does not run: callbacks stay where they are until their turn.
#[test]
fn a_callback_stops_another_one() {
    let token = CancellationToken::new();
    let ran = Arc::new(AtomicUsize::new(0));
    let registrations = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..2 {
        let (ran, others) = (Arc::clone(&ran), Arc::clone(&registrations));
        let registration = token.on_cancel(move || {
            ran.fetch_add(1, SeqCst);
            let others: Vec<Registration> = std::mem::take(&mut others.lock().unwrap());
            // Its own, and the other's.
            let stopped = others
                .into_iter()
                .filter_map(|other| other.stop().then_some(()));
            assert_eq!(stopped.count(), 1);
        });
        registrations.lock().unwrap().push(registration);
    }
    token.cancel();
    assert_eq!(ran.load(SeqCst), 1);
}

/// So long for what takes milliseconds when it is linear (nested guards: n log n), and minutes when it is not.
const LINEAR: Duration = Duration::from_secs(20);

#[test]
fn many_callbacks_cancel_the_root_again() {
    let root = CancellationToken::new();
    let children: Vec<_> = (0..scaled(60_000)).map(|_| root.child_token()).collect();
    for child in &children {
        let guard = root.clone().drop_guard();
        drop(child.on_cancel(move || drop(guard)));
    }
    let start = Instant::now();
    root.cancel();
    assert!(start.elapsed() < LINEAR);
}

type Cancels = Box<dyn Fn() + Send + Sync>;

/// Each along a chain cancels again: its own token, where the walk meets the last one first, and where it meets it last; the
/// token above, the same; one in the middle. The stack does not grow with them.
fn cancel_again_in_a_chain<K>(at: impl Fn(&CancellationToken, Cancels) -> K) {
    const N: usize = scaled(20_000);
    let again: [fn(usize) -> usize; 3] = [
        |i| i,
        |i| i.saturating_sub(1),
        // Four tokens: the narrow word counts no 20,000 handles.
        |i| N / 2 + i % 4,
    ];
    for again in again {
        for last_first in [false, true] {
            let root = CancellationToken::new();
            let (count, counting) = counter();
            let cancels = |at_token: &CancellationToken, token: &CancellationToken| {
                let (token, counting) = (token.downgrade(), counting.clone());
                at(
                    at_token,
                    Box::new(move || {
                        counting();
                        token.upgrade().unwrap().cancel();
                    }),
                )
            };
            let mut chain = vec![root.child_token()];
            let mut kept = Vec::new();
            for i in 0..N {
                if last_first {
                    // They are older than what is below.
                    kept.push(cancels(&chain[i], &chain[again(i).min(i)]));
                }
                chain.push(chain[i].child_token());
            }
            if !last_first {
                kept.extend((0..N).map(|i| cancels(&chain[i], &chain[again(i)])));
            }
            let start = Instant::now();
            root.cancel();
            assert!(start.elapsed() < LINEAR);
            assert_eq!(count.load(SeqCst), N);
        }
    }
}

#[test]
fn callbacks_in_a_chain_cancel_again() {
    cancel_again_in_a_chain(|token, f| drop(token.on_cancel(f)));
}

#[test]
fn told_callbacks_in_a_chain_cancel_again() {
    cancel_again_in_a_chain(|token, f| drop(token.on_cancel_with(move |_| f())));
}

/// The first one has the slot; the second one, whose waker cancels, is met with what is below.
fn waits_second(token: &CancellationToken, f: Cancels) -> [impl Sized; 2] {
    let first = wait_with(token, Waker::noop());
    [first, wait_with(token, &on_wake(f))]
}

#[test]
fn wakers_in_a_chain_cancel_again() {
    cancel_again_in_a_chain(waits_second);
}

/// The same of one token's many children: each cancels the next one, or the one before.
fn cancel_again_in_a_row<K>(at: impl Fn(&CancellationToken, Cancels) -> K) {
    const N: usize = scaled(20_000);
    for steps in [1, N - 1] {
        let root = CancellationToken::new();
        let (count, counting) = counter();
        let row: Vec<_> = (0..N).map(|_| root.child_token()).collect();
        let cancels = |i: usize| {
            let (next, counting) = (row[(i + steps) % N].downgrade(), counting.clone());
            let cancels = move || {
                counting();
                next.upgrade().unwrap().cancel();
            };
            at(&row[i], Box::new(cancels))
        };
        let _kept: Vec<_> = (0..N).map(cancels).collect();
        let start = Instant::now();
        root.cancel();
        assert!(start.elapsed() < LINEAR);
        assert_eq!(count.load(SeqCst), N);
    }
}

#[test]
fn callbacks_in_a_row_cancel_again() {
    cancel_again_in_a_row(|token, f| drop(token.on_cancel(f)));
}

#[test]
fn wakers_in_a_row_cancel_again() {
    cancel_again_in_a_row(waits_second);
}

/// None of them climbs to what was cancelled.
#[test]
fn many_callbacks_in_a_chain_are_told_the_cause() {
    let root = CancellationToken::new();
    let told = Arc::new(AtomicUsize::new(0));
    let mut chain = vec![root.child_token()];
    for i in 0..scaled(60_000) {
        let told = told.clone();
        drop(chain[i].on_cancel_with(move |cause| {
            assert_eq!(cause.to_string(), "all of it");
            told.fetch_add(1, SeqCst);
        }));
        chain.push(chain[i].child_token());
    }
    // One in the middle has a cause of its own, for itself and those below.
    let middle = chain.len() / 2;
    let own = chain[middle].child_token();
    drop(chain[middle].on_cancel_with(|cause| assert_eq!(cause.to_string(), "all of it")));
    drop(own.on_cancel_with(|cause| assert_eq!(cause.to_string(), "a part")));
    own.cancel_with("a part");
    let start = Instant::now();
    root.cancel_with("all of it");
    assert!(start.elapsed() < LINEAR);
    assert_eq!(told.load(SeqCst), scaled(60_000));
}

/// A waker cancels each of many again, which are far below: none of these cancels climbs for the cause.
#[test]
fn many_at_the_end_of_a_long_chain_cancel_again() {
    const N: usize = scaled(40_000);
    let root = CancellationToken::new();
    let mut last = root.child_token();
    for _ in 0..N {
        last = last.child_token();
    }
    let many: Vec<_> = (0..N).map(|_| last.child_token()).collect();
    let (count, counting) = counter();
    for token in &many {
        let counting = counting.clone();
        drop(token.on_cancel_with(move |_| counting()));
    }
    let waiting = wait_with(
        &root,
        &on_wake(move || many.iter().for_each(CancellationToken::cancel)),
    );
    let start = Instant::now();
    root.cancel();
    assert!(start.elapsed() < LINEAR);
    assert_eq!(count.load(SeqCst), N);
    drop(waiting);
}

/// Nested guards go while a cancel above stands still in a callback: from the innermost on, the other way round, and
/// from the middle on.
#[test]
fn nested_guards_go_while_the_cancel_above_stands_still() {
    const N: usize = scaled(60_000);
    let orders: [fn(usize) -> usize; 3] = [
        |i| i,
        |i| N - 1 - i,
        |i| {
            if i % 2 == 0 {
                N / 2 + i / 2
            } else {
                N / 2 - 1 - i / 2
            }
        },
    ];
    for order in orders {
        let root = CancellationToken::new();
        let mut chain = vec![root.child_token()];
        for i in 1..N {
            chain.push(chain[i - 1].child_token());
        }
        for token in &chain {
            drop(token.on_cancel_with(|_| ()));
        }
        let mut chain: Vec<_> = chain
            .into_iter()
            .map(|token| Some(token.drop_guard()))
            .collect();
        let (started, has_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        drop(root.on_cancel(move || {
            started.send(()).unwrap();
            may_go.recv().unwrap();
        }));
        let canceller = thread::spawn(move || root.cancel());
        has_started.recv().unwrap();
        let start = Instant::now();
        for i in 0..N {
            drop(chain[order(i)].take());
        }
        assert!(start.elapsed() < LINEAR);
        go.send(()).unwrap();
        canceller.join().unwrap();
    }
}

#[test]
fn any_of_tokens_in_each_other() {
    // Every level is below the one before, and reached by an edge too.
    let shutdown = CancellationToken::new();
    let mut levels = vec![CancellationToken::new()];
    for i in 0..scaled(40_000) {
        levels.push(CancellationToken::any_of([&levels[i], &shutdown]));
    }
    let start = Instant::now();
    shutdown.cancel();
    assert!(levels[1..].iter().all(CancellationToken::is_cancelled));
    assert!(!levels[0].is_cancelled());
    while !levels.is_empty() {
        levels.swap_remove(0);
    }
    assert!(start.elapsed() < LINEAR);
}

/// Each level is below both of the one before.
fn ladder(levels: usize) -> Vec<[CancellationToken; 2]> {
    let mut rungs = vec![[CancellationToken::new(), CancellationToken::new()]];
    for i in 0..levels {
        let [a, b] = &rungs[i];
        rungs.push([[a, b], [b, a]].map(CancellationToken::any_of));
    }
    rungs
}

#[test]
fn a_ladder_of_any_of_tokens() {
    let rungs = ladder(scaled(20_000));
    let start = Instant::now();
    rungs[0][0].cancel();
    assert!(rungs[1..]
        .iter()
        .flatten()
        .all(CancellationToken::is_cancelled));
    assert!(start.elapsed() < LINEAR);
}

/// Each token of a ladder has one that cancels again: a source on the other side, or a target there.
fn cancel_again_in_a_ladder<K>(at: impl Fn(&CancellationToken, Cancels) -> K) {
    const N: usize = scaled(40_000);
    let again: [fn(usize) -> usize; 2] = [|i| i - 1, |i| i + 1];
    for again in again {
        let rungs = ladder(N);
        let (count, counting) = counter();
        let mut kept = Vec::new();
        for i in 1..N {
            for side in 0..2 {
                let (token, counting) = (rungs[again(i)][1 - side].clone(), counting.clone());
                let cancels = move || {
                    counting();
                    token.cancel();
                };
                kept.push(at(&rungs[i][side], Box::new(cancels)));
            }
        }
        let start = Instant::now();
        rungs[0][0].cancel();
        assert!(start.elapsed() < LINEAR);
        assert_eq!(count.load(SeqCst), kept.len());
    }
}

#[test]
fn wakers_in_a_ladder_cancel_again() {
    cancel_again_in_a_ladder(|token, f| wait_with(token, &on_wake(f)));
}

#[test]
fn callbacks_in_a_ladder_cancel_again() {
    cancel_again_in_a_ladder(CancellationToken::on_cancel);
}

/// One token that many edges lead to, and much below it.
#[test]
fn many_sources_in_one_tree() {
    let (root, first) = (CancellationToken::new(), CancellationToken::new());
    let sources: Vec<_> = (0..scaled(10_000)).map(|_| root.child_token()).collect();
    let any = CancellationToken::any_of(std::iter::once(&first).chain(&sources));
    let below: Vec<_> = (0..scaled(20_000)).map(|_| any.child_token()).collect();
    let start = Instant::now();
    root.cancel();
    assert!(below.iter().all(CancellationToken::is_cancelled));
    assert!(start.elapsed() < LINEAR);
}

/// Many edges far below the root: their targets' cause is not looked for from each of them.
#[test]
fn many_edges_at_the_end_of_a_long_chain() {
    let root = CancellationToken::new();
    let mut last = root.child_token();
    for _ in 0..scaled(20_000) {
        last = last.child_token();
    }
    let others: Vec<_> = (0..scaled(20_000))
        .map(|_| CancellationToken::new())
        .collect();
    let targets: Vec<_> = others
        .iter()
        .map(|other| CancellationToken::any_of([other, &last]))
        .collect();
    let start = Instant::now();
    root.cancel_with("the root's");
    assert!(start.elapsed() < LINEAR);
    assert_eq!(targets[0].cause().unwrap().to_string(), "the root's");
}

/// What an earlier occupant of a place has left below is nothing to the next one.
#[test]
fn places_are_taken_anew_with_children_and_without() {
    let root = CancellationToken::new();
    for round in 0..100 {
        let token = root.child_token();
        let children: Vec<_> = (0..round % 9).map(|_| token.child_token()).collect();
        if round % 3 == 0 {
            token.cancel();
        }
        assert!(children
            .iter()
            .all(|child| child.is_cancelled() == (round % 3 == 0)));
        drop(token);
        assert!(children
            .iter()
            .all(|child| child.is_cancelled() == (round % 3 == 0)));
    }
    let token = root.child_token();
    let child = token.child_token();
    root.cancel();
    assert!(token.is_cancelled() && child.is_cancelled());
}

#[test]
fn the_drop_of_a_guard_is_a_cause_of_its_own() {
    let by_guard = |token: &CancellationToken| {
        let cause = token.cause().expect("cancelled");
        assert_eq!(cause.kind(), ContextError::Cancelled);
        cause.downcast_ref::<cancel_tree::GuardDropped>().is_some()
    };
    for token in [
        CancellationToken::new(),
        CancellationToken::new().child_token(),
    ] {
        let child = token.child_token();
        drop(token.clone().drop_guard());
        assert!(by_guard(&token) && by_guard(&child) && by_guard(&token.child_token()));
    }
    let token = CancellationToken::new();
    drop(token.drop_guard_ref());
    assert!(by_guard(&token));
    assert!(!token.cancel_with("too late") && by_guard(&token));

    let token = CancellationToken::new();
    let guard = token.clone().drop_guard();
    token.cancel();
    drop(guard);
    assert!(!by_guard(&token));
}
