//! Wakers whose clones and drops panic, or do something else, and waits that are forgotten: what a group is owed, and owes, is as it was.

use cancel_tree::{Cause, Context, Group};
use std::future::Future;
use std::mem;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context as Task, Poll, RawWaker, RawWakerVTable, Waker};

/// What a waker does, beside waking nobody.
#[derive(Default)]
struct Does {
    /// When it is cloned the next time.
    at_clone: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    at_wake: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    panics_in_drop: AtomicBool,
}

impl Does {
    fn waker(self: &Arc<Does>) -> Waker {
        // SAFETY: the table's functions are for counted pointers, and what those point to is Send and Sync.
        unsafe { Waker::from_raw(raw(self.clone())) }
    }
}

fn raw(does: Arc<Does>) -> RawWaker {
    RawWaker::new(Arc::into_raw(does).cast(), &TABLE)
}

static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, free);

fn clone(does: *const ()) -> RawWaker {
    // SAFETY: counted, and the waker keeps its count.
    let does = mem::ManuallyDrop::new(unsafe { Arc::<Does>::from_raw(does.cast()) });
    let now = does.at_clone.lock().unwrap().take();
    if let Some(now) = now {
        now();
    }
    raw(Arc::clone(&does))
}

fn wake_by_ref(does: *const ()) {
    // SAFETY: as above.
    let does = mem::ManuallyDrop::new(unsafe { Arc::<Does>::from_raw(does.cast()) });
    let now = does.at_wake.lock().unwrap().take();
    if let Some(now) = now {
        now();
    }
}

fn wake(does: *const ()) {
    wake_by_ref(does);
    free(does);
}

fn free(does: *const ()) {
    // SAFETY: the waker's count, and this is its end.
    let does = unsafe { Arc::<Does>::from_raw(does.cast()) };
    let panics = does.panics_in_drop.load(SeqCst);
    drop(does);
    assert!(!panics, "a waker's drop");
}

fn group() -> Group {
    Group::new(&Context::background())
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Task::from_waker(waker))
}

/// Polls as the waker that is given away, whose drop is not the poll's.
fn panics(future: Pin<&mut impl Future>, waker: &Waker) -> bool {
    catch_unwind(AssertUnwindSafe(|| _ = poll(future, waker).is_ready())).is_err()
}

#[test]
fn who_was_given_room_has_it_after_the_panic_of_a_waker() {
    let ctx = Context::background();
    for drops_the_wait in [false, true] {
        let group = group().limit(1);
        let member = group.enter().unwrap();
        let mut wait = Box::pin(group.enter_when(&ctx));
        assert!(poll(wait.as_mut(), Waker::noop()).is_pending());
        let does = Arc::<Does>::default();
        // The room comes before the waker is there, so that nobody takes that.
        *does.at_clone.lock().unwrap() = Some(Box::new(|| drop(member)));
        let waker = does.waker();
        does.panics_in_drop.store(true, SeqCst);
        assert!(panics(wait.as_mut(), &waker));
        does.panics_in_drop.store(false, SeqCst);
        if !drops_the_wait {
            let Poll::Ready(Ok(_member)) = poll(wait.as_mut(), Waker::noop()) else {
                panic!("it has lost its room");
            };
            assert!(group.enter().is_err());
        }
        drop(wait);
        drop(group.enter().expect("a permit is lost"));
        drop(waker);
        assert_eq!(Arc::strong_count(&does), 1);
    }
}

#[test]
fn a_waker_that_panics_when_it_is_cloned_ends_no_wait() {
    let ctx = Context::background();
    for polled_before in [false, true] {
        let group = group().limit(1);
        let member = group.enter().unwrap();
        let mut wait = Box::pin(group.enter_when(&ctx));
        if polled_before {
            assert!(poll(wait.as_mut(), Waker::noop()).is_pending());
        }
        let does = Arc::<Does>::default();
        *does.at_clone.lock().unwrap() = Some(Box::new(|| panic!("a waker's clone")));
        assert!(panics(wait.as_mut(), &does.waker()));
        assert!(poll(wait.as_mut(), Waker::noop()).is_pending());
        drop(member);
        let entered = poll(wait.as_mut(), Waker::noop());
        assert!(matches!(entered, Poll::Ready(Ok(_))), "{entered:?}");
    }
}

/// Who finds room at once is woken by itself.
#[test]
fn who_is_given_room_as_it_comes_has_it_after_the_panic_of_a_waker() {
    let ctx = Context::background();
    let group = group().limit(1);
    let member = group.enter().unwrap();
    let mut wait = Box::pin(group.enter_when(&ctx));
    let does = Arc::<Does>::default();
    *does.at_clone.lock().unwrap() = Some(Box::new(|| drop(member)));
    *does.at_wake.lock().unwrap() = Some(Box::new(|| panic!("a waker")));
    assert!(panics(wait.as_mut(), &does.waker()));
    let entered = poll(wait.as_mut(), Waker::noop());
    assert!(matches!(entered, Poll::Ready(Ok(_))), "{entered:?}");
}

#[test]
fn a_refusal_says_its_cause_after_the_panic_of_a_waker() {
    let (ctx, guard) = Context::background().with_cancel();
    let group = group().limit(0);
    let mut wait = Box::pin(group.enter_when(&ctx));
    let does = Arc::<Does>::default();
    let waker = does.waker();
    assert!(poll(wait.as_mut(), &waker).is_pending());
    guard.cancel_with("enough");
    does.panics_in_drop.store(true, SeqCst);
    assert!(panics(wait.as_mut(), Waker::noop()));
    does.panics_in_drop.store(false, SeqCst);
    let Poll::Ready(Err(refused)) = poll(wait.as_mut(), Waker::noop()) else {
        panic!("let in");
    };
    assert_eq!(refused.cause().to_string(), "enough");
    drop(wait);
    drop(waker);
    assert_eq!(Arc::strong_count(&does), 1);
}

// ----- what is forgotten ----------------------------------------------------------------------

/// Where it lies is known, so that no tool takes it for a leak.
fn forget<F>(wait: Pin<Box<F>>) {
    static FORGOTTEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    // SAFETY: it stays where it is.
    let at = Box::into_raw(unsafe { Pin::into_inner_unchecked(wait) });
    FORGOTTEN.lock().unwrap().push(at.expose_provenance());
}

#[test]
fn waits_for_room_may_be_forgotten() {
    let ctx = Context::background();
    let group = group().limit(0);
    let all: Vec<_> = (0..3).map(|_| Arc::<Does>::default()).collect();
    for does in &all {
        let mut wait = Box::pin(group.enter_when(&ctx));
        assert!(poll(wait.as_mut(), &does.waker()).is_pending());
        forget(wait);
    }
    // One whose drop panics keeps no other.
    all[0].panics_in_drop.store(true, SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(group))).is_err());
    for does in &all {
        assert_eq!(Arc::strong_count(does), 1, "a waker is lost");
    }
}

#[test]
fn waits_for_the_end_may_be_forgotten() {
    let group = group();
    let member = group.enter().unwrap();
    let all: Vec<_> = (0..3).map(|_| Arc::<Does>::default()).collect();
    for does in &all {
        let mut wait = Box::pin(group.wait_idle());
        assert!(poll(wait.as_mut(), &does.waker()).is_pending());
        forget(wait);
    }
    drop(group);
    all[2].panics_in_drop.store(true, SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(member))).is_err());
    for does in &all {
        assert_eq!(Arc::strong_count(does), 1, "a waker is lost");
    }
}

// ----- looks ----------------------------------------------------------------------------------

/// As long as tasks come and go, each look may be too early: a poll takes one, so that others have their turns.
#[test]
fn a_look_that_others_have_overtaken_is_the_last_of_its_poll() {
    let group = group();
    let member = group.enter().unwrap();
    let does = Arc::<Does>::default();
    let was_woken = Arc::<AtomicBool>::default();
    // The last task goes before the look, which so comes to nobody and wakes; then one comes and goes.
    *does.at_clone.lock().unwrap() = Some(Box::new(|| drop(member)));
    let (starts, again, woken) = (group.spawner(), does.clone(), was_woken.clone());
    *does.at_wake.lock().unwrap() = Some(Box::new(move || {
        drop(starts.enter().unwrap());
        let wakes = move || woken.store(true, SeqCst);
        *again.at_wake.lock().unwrap() = Some(Box::new(wakes));
    }));
    let mut wait = pin!(group.wait_idle());
    assert!(poll(wait.as_mut(), &does.waker()).is_pending());
    assert!(was_woken.load(SeqCst), "nobody polls it again");
    assert!(poll(wait, Waker::noop()).is_ready());
}

// ----- the word on a task ---------------------------------------------------------------------

/// Says that it is gone.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The outcome of a task that is dropped before its first step comes when what the task owns is gone.
#[test]
fn who_reads_outcomes_finds_nothing_of_the_task() {
    type Start = fn(&cancel_tree::Outcomes<u8>, Gone) -> Box<dyn FnOnce()>;
    let starts: [(&str, Start); 2] = [
        ("track", |outcomes, owned| {
            let future = async move {
                drop(owned);
                Ok::<_, Cause>(7)
            };
            let Ok(task) = outcomes.track(future) else {
                panic!("refused");
            };
            Box::new(|| drop(task))
        }),
        ("track_with", |outcomes, owned| {
            let future = |_ctx| async move {
                drop(owned);
                Ok::<_, Cause>(7)
            };
            let Ok(task) = outcomes.track_with(future) else {
                panic!("refused");
            };
            Box::new(|| drop(task))
        }),
    ];
    for (name, start) in starts {
        let group = group();
        let mut outcomes = group.outcomes();
        let is_gone = Arc::<AtomicBool>::default();
        let let_go = start(&outcomes, Gone(is_gone.clone()));
        let was_gone = Arc::<AtomicBool>::default();
        let does = Arc::<Does>::default();
        let (now, then) = (is_gone.clone(), was_gone.clone());
        let looks = move || then.store(now.load(SeqCst), SeqCst);
        *does.at_wake.lock().unwrap() = Some(Box::new(looks));
        {
            let next = pin!(outcomes.next());
            assert!(poll(next, &does.waker()).is_pending());
        }
        let_go();
        assert!(is_gone.load(SeqCst));
        assert!(was_gone.load(SeqCst), "{name}: the word came first");
        assert!(outcomes.next_blocking().unwrap().is_err());
    }
}
