// Included by ../drop_in.rs, once for each crate; the token's names are in scope there.

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::collections::HashSet;
use std::fmt::Debug;
use std::future::{pending, poll_fn, ready, Future, Ready};
use std::hash::{Hash, Hasher};
use std::panic::{catch_unwind, AssertUnwindSafe, RefUnwindSafe, UnwindSafe};
use std::pin::{pin, Pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

/// Counts how often it was woken. `Arc::strong_count` tells who still holds the waker.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Self::default());
        let waker = Waker::from(Arc::clone(&wakes));
        (wakes, waker)
    }

    fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Runs a closure when it is woken.
struct OnWake<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send + 'static> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        let f = self.0.lock().unwrap().take();
        if let Some(f) = f {
            f();
        }
    }
}

fn on_wake(f: impl FnOnce() + Send + 'static) -> Waker {
    Waker::from(Arc::new(OnWake(Mutex::new(Some(f)))))
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

fn hash(token: &CancellationToken) -> u64 {
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    hasher.finish()
}

/// Sets the flag when dropped.
struct Dropped<'a>(&'a Cell<bool>);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

// ---- names, signatures, traits ----

#[test]
fn signatures() {
    type Token = CancellationToken;
    type Waiting<'a> = WaitForCancellationFuture<'a>;

    let _: fn() -> Token = Token::new;
    let _: fn() -> Token = Token::default;
    let _: fn(&Token) -> Token = Token::clone;
    let _: fn(&Token) -> Token = Token::child_token;
    let _: fn(&Token) = Token::cancel;
    let _: fn(&Token) -> bool = Token::is_cancelled;
    let _: for<'a> fn(&'a Token) -> Waiting<'a> = Token::cancelled;
    let _: fn(Token) -> WaitForCancellationFutureOwned = Token::cancelled_owned;
    let _: fn(Token) -> DropGuard = Token::drop_guard;
    let _: for<'a> fn(&'a Token) -> DropGuardRef<'a> = Token::drop_guard_ref;
    let _: for<'g> fn(&'g DropGuard) -> &'g Token = DropGuard::token;
    let _: fn(DropGuard) -> Token = DropGuard::disarm;
    // What is disarmed lives as long as the borrowed token, not only as long as the guard.
    fn of_a_borrow<'a>(_: &'a Token) {
        let _: for<'g> fn(&'g DropGuardRef<'a>) -> &'g Token = DropGuardRef::token;
        let _: fn(DropGuardRef<'a>) -> &'a Token = DropGuardRef::disarm;
    }
    of_a_borrow(&Token::new());
}

#[test]
fn the_async_methods_take_one_type_parameter() {
    let token = CancellationToken::new();
    let (_, waker) = Wakes::new();
    let run = pin!(token.run_until_cancelled::<Ready<u8>>(ready(1)));
    assert_eq!(poll(run, &waker), Poll::Ready(Some(1)));
    let run = pin!(token
        .clone()
        .run_until_cancelled_owned::<Ready<u8>>(ready(2)));
    assert_eq!(poll(run, &waker), Poll::Ready(Some(2)));
    let with = pin!(FutureExt::with_cancellation_token(ready(3), &token));
    assert_eq!(poll(with, &waker), Poll::Ready(Some(3)));
    let with = pin!(FutureExt::with_cancellation_token_owned(
        ready(4),
        token.clone()
    ));
    assert_eq!(poll(with, &waker), Poll::Ready(Some(4)));
}

#[test]
fn auto_traits_of_the_token() {
    fn check<T>()
    where
        T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + 'static,
        T: Clone + Debug + Default + Eq + Hash,
    {
    }
    check::<CancellationToken>();
}

#[test]
fn auto_traits_of_the_guards() {
    fn check<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + Debug>(_: &T) {}
    fn is_static<T: 'static>(_: &T) {}

    let token = CancellationToken::new();
    let guard = token.clone().drop_guard();
    check(&guard);
    is_static(&guard);
    check(&token.drop_guard_ref());
}

#[test]
fn auto_traits_of_the_futures() {
    fn check<T: Future<Output = ()> + Send + Sync + Debug>(_: &T) {}
    fn is_static<T: 'static>(_: &T) {}
    fn is_send_and_sync<T: Send + Sync>(_: &T) {}

    let token = CancellationToken::new();
    check(&token.cancelled());
    let owned = token.clone().cancelled_owned();
    check(&owned);
    is_static(&owned);

    is_send_and_sync(&token.run_until_cancelled(ready(1)));
    is_send_and_sync(&ready(1).with_cancellation_token(&token));
    let owned = token.clone().run_until_cancelled_owned(ready(1));
    is_send_and_sync(&owned);
    is_static(&owned);
    let owned = ready(1).with_cancellation_token_owned(token.clone());
    is_send_and_sync(&owned);
    is_static(&owned);
}

/// Only compiled: a future or guard of a long borrow may stand in for one of a short borrow.
#[allow(dead_code)]
fn covariance<'a>(
    future: WaitForCancellationFuture<'static>,
    guard: DropGuardRef<'static>,
) -> (WaitForCancellationFuture<'a>, DropGuardRef<'a>) {
    (future, guard)
}

/// Only compiled: the extension trait covers every future and can be a bound.
#[allow(dead_code)]
async fn extension_as_a_bound<F: FutureExt>(
    future: F,
    token: &CancellationToken,
) -> Option<F::Output> {
    future.with_cancellation_token(token).await
}

/// Only compiled: what a method borrows ends with its future.
#[allow(dead_code)]
async fn borrows(token: &mut CancellationToken) {
    token.cancelled().await;
    *token = token.child_token();
    let mut text = String::new();
    token.run_until_cancelled(async { text.push('x') }).await;
    drop(text);
}

#[test]
fn debug_shows_the_state() {
    let token = CancellationToken::new();
    assert_eq!(
        format!("{token:?}"),
        "CancellationToken { is_cancelled: false }"
    );
    token.cancel();
    assert_eq!(
        format!("{token:?}"),
        "CancellationToken { is_cancelled: true }"
    );

    assert_eq!(
        format!("{:?}", token.cancelled()),
        "WaitForCancellationFuture"
    );
    let owned = token.clone().cancelled_owned();
    assert_eq!(format!("{owned:?}"), "WaitForCancellationFutureOwned");
}

#[test]
fn debug_of_a_guard_shows_its_token() {
    let token = CancellationToken::new();
    assert_eq!(
        format!("{:?}", token.clone().drop_guard()),
        "DropGuard { inner: Some(CancellationToken { is_cancelled: false }) }"
    );
    assert_eq!(
        format!("{:?}", token.drop_guard_ref()),
        "DropGuardRef { inner: Some(CancellationToken { is_cancelled: true }) }"
    );
    assert_eq!(
        format!("{:#?}", token.drop_guard()),
        "DropGuard {\n    inner: Some(\n        CancellationToken {\n            is_cancelled: true,\n        },\n    ),\n}"
    );
}

/// Compiled is enough: a program that denies warnings builds with either crate.
#[test]
#[deny(unused_must_use)]
fn what_is_not_used_is_no_warning() {
    CancellationToken::new();
    CancellationToken::default();
    let token = CancellationToken::new();
    token.child_token();
    token.is_cancelled();
    token.drop_guard_ref().disarm();
    token.clone().drop_guard().disarm();
    token.clone().drop_guard().token();
    token.drop_guard_ref();
    token.drop_guard();
}

#[test]
fn clones_are_equal_and_nothing_else_is() {
    let token = CancellationToken::new();
    let clone = token.clone();
    assert_eq!(token, clone);
    assert_eq!(hash(&token), hash(&clone));

    let (one, other) = (token.child_token(), token.child_token());
    assert_ne!(token, one);
    assert_ne!(one, other);
    assert_ne!(token, CancellationToken::new());
    assert_ne!(token, CancellationToken::default());

    token.cancel();
    assert_eq!(token, clone);
    assert_eq!(
        hash(&token),
        hash(&clone),
        "a cancel does not change the hash"
    );
    assert_ne!(token, one);
    assert_ne!(
        token,
        token.child_token(),
        "nor is a child of a cancelled token its parent"
    );
    assert_ne!(token.child_token(), token.child_token());
}

#[test]
#[allow(clippy::mutable_key_type)] // the hash does not change, as the test above shows
fn a_key_of_a_set() {
    let tokens: Vec<_> = (0..100).map(|_| CancellationToken::new()).collect();
    let mut set: HashSet<_> = tokens.iter().cloned().collect();
    assert_eq!(set.len(), 100);
    for token in &tokens {
        token.cancel();
        assert!(set.remove(token));
    }
}

#[test]
fn a_static_token() {
    static SHUTDOWN: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);
    let child = SHUTDOWN.child_token();
    thread::spawn(|| SHUTDOWN.cancel()).join().unwrap();
    assert!(child.is_cancelled());
}

// ---- the tree ----

#[test]
fn a_new_token_is_not_cancelled() {
    assert!(!CancellationToken::new().is_cancelled());
    assert!(!CancellationToken::default().is_cancelled());
    assert!(!CancellationToken::new().child_token().is_cancelled());
}

#[test]
fn cancel_is_for_all_clones_and_for_ever() {
    let token = CancellationToken::new();
    let clone = token.clone();
    let before = token.child_token();
    clone.cancel();
    clone.cancel();
    assert!(token.is_cancelled() && clone.is_cancelled() && before.is_cancelled());
    drop(clone);
    assert!(token.is_cancelled());
    assert!(token.child_token().child_token().is_cancelled());
}

#[test]
fn cancel_reaches_all_descendants_and_nothing_else() {
    // Three levels of three below `middle`, which is one of three children of the root.
    let root = CancellationToken::new();
    let middle = root.child_token();
    let siblings = [root.child_token(), root.child_token()];
    let mut below = vec![middle.clone()];
    for _ in 0..3 {
        let next = below
            .iter()
            .flat_map(|t| [t.child_token(), t.child_token(), t.child_token()]);
        let next: Vec<_> = next.collect();
        below.extend(next);
    }
    let outside: Vec<_> = siblings
        .iter()
        .map(CancellationToken::child_token)
        .chain(siblings.clone())
        .collect();

    let (wakes, waker) = Wakes::new();
    let mut futures: Vec<_> = below
        .iter()
        .chain(&outside)
        .chain([&root])
        .map(|t| Box::pin(t.cancelled()))
        .collect();
    for future in &mut futures {
        assert!(poll(future.as_mut(), &waker).is_pending());
    }
    middle.cancel();

    assert_eq!(wakes.count(), below.len());
    assert!(below.iter().all(CancellationToken::is_cancelled));
    assert!(!outside.iter().any(CancellationToken::is_cancelled));
    assert!(!root.is_cancelled());
    for (i, future) in futures.iter_mut().enumerate() {
        assert_eq!(poll(future.as_mut(), &waker).is_ready(), i < below.len());
    }

    root.cancel();
    assert!(outside.iter().all(CancellationToken::is_cancelled));
    assert_eq!(wakes.count(), futures.len(), "everybody once, nobody twice");
}

#[test]
fn a_childs_cancel_leaves_the_parent_working() {
    let parent = CancellationToken::new();
    let first = parent.child_token();
    first.cancel();
    assert!(!parent.is_cancelled());

    let second = parent.child_token();
    assert!(!second.is_cancelled());
    parent.cancel();
    assert!(second.is_cancelled());
}

#[test]
fn a_dropped_middle_does_not_part_the_tree() {
    let root = CancellationToken::new();
    let leaf = root.child_token().child_token().child_token();
    let (wakes, waker) = Wakes::new();
    let mut waiting = pin!(leaf.cancelled());
    assert!(poll(waiting.as_mut(), &waker).is_pending());
    assert!(!leaf.is_cancelled());
    root.cancel();
    assert!(leaf.is_cancelled());
    assert_eq!(wakes.count(), 1);
    assert!(poll(waiting, &waker).is_ready());
}

#[test]
fn children_outlive_a_dropped_parent() {
    for cancel in [false, true] {
        let parent = CancellationToken::new();
        let children = [
            parent.child_token(),
            parent.child_token(),
            parent.child_token(),
        ];
        let grandchild = children[1].child_token();
        if cancel {
            parent.cancel();
        }
        drop(parent);
        assert!(children.iter().all(|child| child.is_cancelled() == cancel));
        let [first, second, third] = children;
        drop(second);
        drop(first);
        assert_eq!(grandchild.is_cancelled(), cancel, "a drop does not cancel");
        third.cancel();
        assert_eq!(grandchild.is_cancelled(), cancel);
        grandchild.cancel();
        assert!(grandchild.is_cancelled());
    }
}

#[test]
fn children_dropped_in_any_order() {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let parent = CancellationToken::new();
        let mut children = [(); 3].map(|()| Some(parent.child_token()));
        for i in order {
            children[i] = None;
            assert!(!parent.is_cancelled());
            let late = parent.child_token();
            assert!(!late.is_cancelled());
        }
        parent.cancel();
        assert!(parent.child_token().is_cancelled());
    }
}

#[test]
fn cancel_from_many_threads() {
    let root = CancellationToken::new();
    let children: Vec<_> = (0..8).map(|_| root.child_token()).collect();
    thread::scope(|scope| {
        for child in &children {
            scope.spawn(|| root.clone().cancel());
            scope.spawn(|| child.cancel());
            scope.spawn(|| {
                root.child_token().cancel();
                drop(child.child_token());
            });
        }
    });
    assert!(root.is_cancelled() && children.iter().all(CancellationToken::is_cancelled));
}

#[test]
fn a_cancel_that_returned_is_seen_everywhere() {
    for _ in 0..200 {
        let root = CancellationToken::new();
        let child = root.child_token();
        thread::scope(|scope| {
            let canceller = scope.spawn(|| {
                root.cancel();
                assert!(child.is_cancelled());
            });
            // Made while the other thread cancels: every child must end up cancelled.
            let made: Vec<_> = (0..20).map(|_| child.child_token()).collect();
            canceller.join().unwrap();
            assert!(made.iter().all(CancellationToken::is_cancelled));
        });
    }
}

// ---- waiting ----

#[test]
fn both_futures_wake_once_and_stay_ready() {
    let token = CancellationToken::new();
    let (wakes, waker) = Wakes::new();
    let mut borrowed = pin!(token.cancelled());
    let mut owned = pin!(token.clone().cancelled_owned());
    for _ in 0..3 {
        assert!(poll(borrowed.as_mut(), &waker).is_pending());
        assert!(poll(owned.as_mut(), &waker).is_pending());
    }
    assert_eq!(wakes.count(), 0);
    token.cancel();
    assert_eq!(wakes.count(), 2);
    for _ in 0..3 {
        assert!(poll(borrowed.as_mut(), &waker).is_ready());
        assert!(poll(owned.as_mut(), &waker).is_ready());
    }
    token.cancel();
    assert_eq!(wakes.count(), 2);
}

#[test]
fn ready_at_the_first_poll_if_cancelled_before() {
    let (wakes, waker) = Wakes::new();
    let token = CancellationToken::new();
    let mut before = pin!(token.cancelled());
    token.cancel();
    assert!(
        poll(before.as_mut(), &waker).is_ready(),
        "made before the cancel, polled after it"
    );
    assert!(poll(pin!(token.cancelled()), &waker).is_ready());
    assert!(poll(pin!(token.child_token().cancelled()), &waker).is_ready());
    assert!(poll(pin!(token.clone().cancelled_owned()), &waker).is_ready());
    assert_eq!(
        wakes.count(),
        0,
        "a future that was never pending has nobody to wake"
    );
}

#[test]
fn a_future_that_was_not_polled_wakes_nobody() {
    let token = CancellationToken::new();
    let _waiting = token.cancelled();
    let _owned = token.clone().cancelled_owned();
    token.cancel();
}

#[test]
fn only_the_newest_waker_is_woken() {
    let token = CancellationToken::new();
    let (old_wakes, old) = Wakes::new();
    let (new_wakes, new) = Wakes::new();
    let mut borrowed = pin!(token.cancelled());
    let mut owned = pin!(token.clone().cancelled_owned());
    assert!(poll(borrowed.as_mut(), &old).is_pending());
    assert!(poll(owned.as_mut(), &old).is_pending());
    assert!(poll(borrowed.as_mut(), &new).is_pending());
    assert!(poll(owned.as_mut(), &new).is_pending());
    drop(old);
    assert_eq!(
        Arc::strong_count(&old_wakes),
        1,
        "a replaced waker is let go"
    );
    token.cancel();
    assert_eq!((old_wakes.count(), new_wakes.count()), (0, 2));
}

#[test]
fn a_dropped_future_lets_go_of_its_waker() {
    let token = CancellationToken::new();
    let (wakes, waker) = Wakes::new();
    {
        let borrowed = pin!(token.cancelled());
        let owned = pin!(token.clone().cancelled_owned());
        assert!(poll(borrowed, &waker).is_pending());
        assert!(poll(owned, &waker).is_pending());
        assert!(Arc::strong_count(&wakes) > 2);
    }
    assert_eq!(Arc::strong_count(&wakes), 2, "here and in `waker`");
    token.cancel();
    assert_eq!(wakes.count(), 0);
}

#[test]
fn a_woken_waker_is_let_go() {
    let token = CancellationToken::new();
    let (wakes, waker) = Wakes::new();
    let mut waiting = pin!(token.cancelled());
    assert!(poll(waiting.as_mut(), &waker).is_pending());
    token.cancel();
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (1, 2));
    assert!(poll(waiting, &waker).is_ready());
}

#[test]
fn the_last_handle_may_be_in_the_future() {
    let (wakes, waker) = Wakes::new();
    {
        let owned = pin!(CancellationToken::new().cancelled_owned());
        assert!(poll(owned, &waker).is_pending());
    }
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (0, 2));

    let root = CancellationToken::new();
    let mut owned = pin!(root.child_token().cancelled_owned());
    assert!(poll(owned.as_mut(), &waker).is_pending());
    root.cancel();
    assert_eq!(wakes.count(), 1);
    assert!(poll(owned, &waker).is_ready());
}

#[test]
fn waiters_come_and_go_on_one_token() {
    let token = CancellationToken::new();
    let (wakes, waker) = Wakes::new();
    let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(token.cancelled())).collect();
    for future in &mut waiting {
        assert!(poll(future.as_mut(), &waker).is_pending());
    }
    let mut kept = Vec::new();
    for (i, future) in waiting.into_iter().enumerate() {
        if i % 3 == 0 {
            kept.push(future);
        }
    }
    let mut late: Vec<_> = (0..10).map(|_| Box::pin(token.cancelled())).collect();
    for future in &mut late {
        assert!(poll(future.as_mut(), &waker).is_pending());
    }
    token.cancel();
    assert_eq!(wakes.count(), kept.len() + late.len());
    assert!(kept
        .iter_mut()
        .chain(&mut late)
        .all(|future| poll(future.as_mut(), &waker).is_ready()));
}

#[test]
fn a_waker_may_use_the_whole_tree() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let leaf = child.child_token();
    let woken = Arc::new(AtomicUsize::new(0));
    let waker = on_wake({
        let (root, child, woken) = (root.clone(), child.clone(), Arc::clone(&woken));
        move || {
            assert!(root.is_cancelled() && root.child_token().is_cancelled());
            root.cancel();
            drop(child.clone().drop_guard());
            let (_, waker) = Wakes::new();
            assert!(poll(pin!(root.cancelled()), &waker).is_ready());
            drop((root, child));
            woken.fetch_add(1, SeqCst);
        }
    });
    let waiting = pin!(leaf.cancelled());
    assert!(poll(waiting, &waker).is_pending());
    drop((child, waker));
    root.cancel();
    assert_eq!(woken.load(SeqCst), 1);
}

#[test]
fn the_drop_of_a_waker_may_use_the_tree() {
    struct CancelOnDrop(CancellationToken);
    impl Wake for CancelOnDrop {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for CancelOnDrop {
        fn drop(&mut self) {
            self.0.cancel();
        }
    }

    let root = CancellationToken::new();
    let leaf = root.child_token();
    {
        let waiting = pin!(leaf.cancelled());
        let waker = Waker::from(Arc::new(CancelOnDrop(root.clone())));
        assert!(poll(waiting, &waker).is_pending());
    }
    assert!(leaf.is_cancelled());
}

#[test]
fn a_pending_future_moves_to_another_thread() {
    let token = CancellationToken::new();
    let (_, first) = Wakes::new();
    let mut owned = Box::pin(token.clone().cancelled_owned());
    assert!(poll(owned.as_mut(), &first).is_pending());
    let waiting = thread::spawn(move || futures::executor::block_on(owned));
    thread::sleep(Duration::from_millis(10));
    token.cancel();
    waiting.join().unwrap();
}

#[test]
fn every_executor_will_do() {
    let token = CancellationToken::new();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let token = token.child_token();
            thread::spawn(move || futures::executor::block_on(token.cancelled()))
        })
        .collect();
    token.cancel();
    for thread in waiting {
        thread.join().unwrap();
    }
}

// ---- running a future until the cancel ----

#[test]
fn a_cancelled_token_does_not_poll_the_future() {
    let token = CancellationToken::new();
    let (_, waker) = Wakes::new();
    let never = || poll_fn(|_| -> Poll<()> { panic!("polled") });
    // Made before the cancel: an `async fn` looks at the token when it is polled.
    let early = pin!(token.run_until_cancelled(never()));
    let early_owned = pin!(token.clone().run_until_cancelled_owned(never()));
    token.cancel();
    assert_eq!(poll(early, &waker), Poll::Ready(None));
    assert_eq!(poll(early_owned, &waker), Poll::Ready(None));
    assert_eq!(
        poll(pin!(token.run_until_cancelled(never())), &waker),
        Poll::Ready(None)
    );
    let with = pin!(never().with_cancellation_token(&token));
    assert_eq!(poll(with, &waker), Poll::Ready(None));
    let with = pin!(never().with_cancellation_token_owned(token.clone()));
    assert_eq!(poll(with, &waker), Poll::Ready(None));
}

/// A future that is ready at its second poll, and all four ways to run it below a token.
fn all_runs<'a>(
    token: &'a CancellationToken,
) -> [Pin<Box<dyn Future<Output = Option<u8>> + 'a>>; 4] {
    fn second_time() -> impl Future<Output = u8> {
        let mut polls = 0;
        poll_fn(move |_| {
            polls += 1;
            if polls == 2 {
                Poll::Ready(7)
            } else {
                Poll::Pending
            }
        })
    }
    [
        Box::pin(token.run_until_cancelled(second_time())),
        Box::pin(token.clone().run_until_cancelled_owned(second_time())),
        Box::pin(second_time().with_cancellation_token(token)),
        Box::pin(second_time().with_cancellation_token_owned(token.clone())),
    ]
}

#[test]
fn after_the_first_poll_the_future_comes_first() {
    let token = CancellationToken::new();
    let (_, waker) = Wakes::new();
    let mut runs = all_runs(&token);
    for run in &mut runs {
        assert!(poll(run.as_mut(), &waker).is_pending());
    }
    token.cancel();
    for run in &mut runs {
        assert_eq!(
            poll(run.as_mut(), &waker),
            Poll::Ready(Some(7)),
            "both are ready"
        );
    }
}

#[test]
fn the_extension_looks_at_the_token_when_it_is_called() {
    let token = CancellationToken::new();
    let (_, waker) = Wakes::new();
    let with = pin!(ready(1).with_cancellation_token(&token));
    let with_owned = pin!(ready(2).with_cancellation_token_owned(token.clone()));
    token.cancel();
    assert_eq!(poll(with, &waker), Poll::Ready(Some(1)));
    assert_eq!(poll(with_owned, &waker), Poll::Ready(Some(2)));
}

#[test]
fn a_run_is_woken_by_the_cancel() {
    let token = CancellationToken::new();
    let (wakes, waker) = Wakes::new();
    let mut runs: [Pin<Box<dyn Future<Output = Option<()>> + '_>>; 4] = [
        Box::pin(token.run_until_cancelled(pending())),
        Box::pin(token.clone().run_until_cancelled_owned(pending())),
        Box::pin(pending().with_cancellation_token(&token)),
        Box::pin(pending().with_cancellation_token_owned(token.clone())),
    ];
    for run in &mut runs {
        assert!(poll(run.as_mut(), &waker).is_pending());
    }
    token.cancel();
    assert_eq!(wakes.count(), 4);
    for run in &mut runs {
        assert_eq!(poll(run.as_mut(), &waker), Poll::Ready(None));
    }
}

#[test]
fn a_run_that_is_done_leaves_no_waker() {
    let token = CancellationToken::new();
    let (wakes, waker) = Wakes::new();
    for mut run in all_runs(&token) {
        assert!(poll(run.as_mut(), &waker).is_pending());
        assert_eq!(poll(run.as_mut(), &waker), Poll::Ready(Some(7)));
    }
    assert_eq!(Arc::strong_count(&wakes), 2);
    token.cancel();
    assert_eq!(wakes.count(), 0);
}

#[test]
fn a_run_drops_its_future_when_cancelled() {
    let token = CancellationToken::new();
    let dropped = Cell::new(false);
    futures::executor::block_on(async {
        let flag = Dropped(&dropped);
        let work = async {
            let _flag = flag;
            token.cancel();
            pending::<()>().await
        };
        assert_eq!(token.run_until_cancelled(work).await, None);
        assert!(dropped.get(), "before the result is out");
    });
}

#[test]
fn a_run_takes_futures_that_are_neither_send_nor_static() {
    let token = CancellationToken::new();
    let local = Rc::new(Cell::new(1));
    let result = futures::executor::block_on(async {
        let borrowed = &local;
        let first = token.run_until_cancelled(async { borrowed.get() }).await;
        let boxed: Pin<Box<dyn Future<Output = i32> + '_>> = Box::pin(async { borrowed.get() + 1 });
        let second = boxed.with_cancellation_token(&token).await;
        (first, second)
    });
    assert_eq!(result, (Some(1), Some(2)));
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn the_extension_has_timeouts() {
    use tokio::time::{error::Elapsed, Instant, Timeout};

    let long = Duration::from_secs(3600);
    let short = Duration::from_millis(2);
    let run: Timeout<Ready<u8>> = ready(1).timeout(long);
    assert_eq!(run.await, Ok(1));
    let run: Timeout<Ready<u8>> = ready(2).timeout_at(Instant::now() + long);
    assert_eq!(run.await, Ok(2));
    let late: Result<(), Elapsed> = pending().timeout(short).await;
    late.unwrap_err();
    let late: Result<(), Elapsed> = pending().timeout_at(Instant::now() + short).await;
    late.unwrap_err();

    // In a chain with the token, whichever comes first.
    let token = CancellationToken::new();
    let chain = pending::<()>()
        .with_cancellation_token(&token)
        .timeout(short);
    chain.await.unwrap_err();
    token.cancel();
    let chain = pending::<()>().with_cancellation_token(&token).timeout(long);
    assert_eq!(chain.await, Ok(None));
}

/// A timeout says where it was called from when there is no runtime.
#[cfg(feature = "tokio")]
#[test]
fn a_timeout_needs_a_runtime() {
    assert!(catch_unwind(|| drop(ready(1).timeout(Duration::ZERO))).is_err());
}

// ---- guards ----

#[test]
fn a_guard_cancels_when_dropped() {
    let token = CancellationToken::new();
    let child = token.child_token();
    let guard = token.clone().drop_guard();
    assert!(!guard.token().is_cancelled());
    assert_eq!(*guard.token(), token);
    drop(guard);
    assert!(token.is_cancelled() && child.is_cancelled());

    let token = CancellationToken::new();
    {
        let guard = token.drop_guard_ref();
        assert_eq!(*guard.token(), token);
        assert!(!token.is_cancelled());
    }
    assert!(token.is_cancelled());
}

#[test]
fn a_disarmed_guard_does_not() {
    let token = CancellationToken::new();
    let back = token.clone().drop_guard().disarm();
    assert_eq!(back, token);
    drop(back);
    let lent: &CancellationToken = {
        let guard = token.drop_guard_ref();
        guard.disarm()
    };
    assert_eq!(*lent, token);
    assert!(!token.is_cancelled());
}

#[test]
fn guards_do_not_know_of_each_other() {
    let token = CancellationToken::new();
    let (one, other) = (token.clone().drop_guard(), token.drop_guard_ref());
    one.disarm();
    assert!(!token.is_cancelled());
    drop(other);
    assert!(token.is_cancelled());
}

#[test]
fn a_guard_cancels_while_unwinding() {
    let token = CancellationToken::new();
    let child = token.child_token();
    // Without AssertUnwindSafe: the token is unwind safe, by value and by reference.
    let by_reference = &child;
    let result = catch_unwind(move || {
        let _guard = by_reference.drop_guard_ref();
        panic!("expected");
    });
    assert!(result.is_err() && child.is_cancelled() && !token.is_cancelled());

    let result = catch_unwind({
        let token = token.clone();
        move || {
            let _guard = token.drop_guard();
            panic!("expected");
        }
    });
    assert!(result.is_err() && token.is_cancelled());
}

#[test]
fn a_panic_in_a_run_leaves_the_token_usable() {
    let token = CancellationToken::new();
    let (wakes, waker) = Wakes::new();
    let mut polls = 0;
    let mut run = Box::pin(token.run_until_cancelled(poll_fn(|_| -> Poll<()> {
        polls += 1;
        if polls == 2 {
            panic!("expected")
        } else {
            Poll::Pending
        }
    })));
    assert!(poll(run.as_mut(), &waker).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| poll(run.as_mut(), &waker))).is_err());
    drop(run);
    assert_eq!(Arc::strong_count(&wakes), 2);
    token.cancel();
    assert!(token.is_cancelled());
}

// ---- inside tokio ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spawned_tasks_end() {
    let root = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..100 {
        let token = if i % 2 == 0 {
            root.clone()
        } else {
            root.child_token()
        };
        match i % 4 {
            0 | 1 => tasks.spawn(token.cancelled_owned()),
            2 => tasks.spawn(async move { token.cancelled().await }),
            _ => tasks.spawn(async move {
                token.run_until_cancelled_owned(pending::<()>()).await;
            }),
        };
    }
    tokio::task::yield_now().await;
    root.cancel();
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_tasks_leave_nothing() {
    let root = CancellationToken::new();
    let alive = Arc::new(());
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (token, alive) = (root.clone(), Arc::clone(&alive));
            tokio::spawn(async move {
                let _alive = alive;
                token.cancelled().await;
            })
        })
        .collect();
    tokio::task::yield_now().await;
    for task in &tasks {
        task.abort();
    }
    for task in tasks {
        let _ = task.await;
    }
    assert_eq!(Arc::strong_count(&alive), 1);
    root.cancel();
}

#[tokio::test]
async fn a_branch_of_select() {
    let token = CancellationToken::new();
    let (say, mut hear) = tokio::sync::mpsc::unbounded_channel();
    let worker = tokio::spawn({
        let token = token.child_token();
        async move {
            let mut rounds = 0;
            loop {
                tokio::select! {
                    _ = token.cancelled() => break rounds,
                    _ = tokio::time::sleep(Duration::from_millis(1)) => rounds += 1,
                }
                say.send(rounds).unwrap();
            }
        }
    });
    while hear.recv().await.unwrap() < 5 {}
    token.cancel();
    assert!(worker.await.unwrap() >= 5);
}

#[tokio::test]
async fn one_pinned_future_for_a_whole_loop() {
    let token = CancellationToken::new();
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let producer = tokio::spawn({
        let token = token.clone();
        async move {
            for i in 0..3 {
                send.send(i).await.unwrap();
            }
            token.cancel();
            // Still open: only the token ends the loop below.
            send
        }
    });
    let cancelled = token.cancelled();
    tokio::pin!(cancelled);
    let mut received = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(i) = receive.recv() => received.push(i),
            () = &mut cancelled => break,
        }
    }
    assert_eq!(received, [0, 1, 2]);
    drop(producer.await.unwrap());
}

#[tokio::test]
async fn a_guard_in_a_task_ends_its_helpers() {
    let token = CancellationToken::new();
    let helper = tokio::spawn(token.child_token().cancelled_owned());
    let task = tokio::spawn({
        let guard = token.drop_guard();
        async move {
            let _guard = guard;
            pending::<()>().await
        }
    });
    tokio::task::yield_now().await;
    task.abort();
    helper.await.unwrap();
}

#[tokio::test]
async fn the_extension_with_a_channel() {
    let token = CancellationToken::new();
    let (send, receive) = tokio::sync::oneshot::channel();
    send.send(5).unwrap();
    assert_eq!(receive.with_cancellation_token(&token).await, Some(Ok(5)));

    let (_send, receive) = tokio::sync::oneshot::channel::<()>();
    let cancel = tokio::spawn({
        let token = token.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            token.cancel();
        }
    });
    assert!(receive.with_cancellation_token_owned(token).await.is_none());
    cancel.await.unwrap();
}
