//! What a contender has to do right before it is measured: nobody is fast at the wrong thing.
//!
//! Each check runs in a thread of its own, so that one which hangs is caught too, and one that overflows its stack is
//! named by the message.

use std::future::Future;
use std::hint;
use std::iter;
use std::panic::{self, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures::executor::block_on;

use super::{CancelTree, Need, Visitor};
use crate::machine::memory;

/// Even where the machine has other things to do.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// Panics if a contender fails, with the first check of each that does.
pub fn all() {
    struct Check(Vec<String>);

    impl Visitor for Check {
        fn visit<T: CancelTree>(&mut self) {
            for (name, needs, check) in checks::<T>() {
                if T::LACKS.iter().any(|(lack, _)| needs.contains(lack)) {
                    continue;
                }
                let name = format!("{}: {name}", T::NAME);
                if let Err(how) = run(&name, check) {
                    self.0.push(format!("{name}: {how}"));
                    // One reason is enough, and the others may take a minute each.
                    break;
                }
            }
        }
    }

    let mut failed = Check(Vec::new());
    super::each(&mut failed);
    assert!(failed.0.is_empty(), "not to be measured: {:#?}", failed.0);
}

fn run(name: &str, check: fn()) -> Result<(), &'static str> {
    let (done, outcome) = mpsc::channel();
    let run = move || {
        let result = panic::catch_unwind(AssertUnwindSafe(check));
        // Nobody listens any more if it took too long.
        let _ = done.send(result.is_ok());
    };
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(run).expect("a thread");
    match outcome.recv_timeout(LONG_ENOUGH) {
        Ok(true) => Ok(()),
        Ok(false) | Err(RecvTimeoutError::Disconnected) => Err("failed, as said above"),
        Err(RecvTimeoutError::Timeout) => Err("hangs"),
    }
}

type Row = (&'static str, &'static [Need], fn());

fn checks<T: CancelTree>() -> Vec<Row> {
    use Need::*;
    vec![
        ("clones are one token", &[], clones::<T>),
        (
            "a cancel reaches all below and nobody else",
            &[Children],
            family::<T>,
        ),
        (
            "a child of a cancelled token is cancelled",
            &[Children],
            late_child::<T>,
        ),
        (
            "a token in the middle may be dropped",
            &[Children],
            dropped_middle::<T>,
        ),
        (
            "dropped children leave nothing behind",
            &[Children, Churn],
            churn::<T>,
        ),
        ("many children", &[Children, Crowd], crowd::<T>),
        ("a long chain", &[Children, Depth], depth::<T>),
        ("a task is woken", &[Async], woken::<T>),
        (
            "a task is woken by its parent's cancel",
            &[Async, Children],
            woken_from_above::<T>,
        ),
        (
            "a task that came too late does not wait",
            &[Async],
            too_late::<T>,
        ),
        (
            "a task that moved is woken where it is",
            &[Async],
            moved::<T>,
        ),
        (
            "a dropped wait leaves nothing behind",
            &[Async],
            dropped_wait::<T>,
        ),
        ("tasks wait while others cancel", &[Async], || {
            race(same::<T>, |token| block_on(token.cancelled()));
        }),
        (
            "tasks wait while others cancel above",
            &[Async, Children],
            || {
                race(above::<T>, |token| block_on(token.cancelled()));
            },
        ),
        ("threads wait while others cancel", &[Blocking], || {
            race(same, T::wait)
        }),
        (
            "threads wait while others cancel above",
            &[Blocking, Children],
            || {
                race(above, T::wait);
            },
        ),
    ]
}

fn clones<T: CancelTree>() {
    let token = T::root();
    let clone = token.clone();
    assert!(!token.is_cancelled() && !clone.is_cancelled());
    clone.cancel();
    assert!(token.is_cancelled() && clone.is_cancelled());
    token.cancel();
    assert!(token.is_cancelled() && token.clone().is_cancelled());
    assert!(!T::root().is_cancelled());
}

fn family<T: CancelTree>() {
    let root = T::root();
    let [child, sibling] = [root.child(), root.child()];
    let grandchild = child.child();
    let cancelled = || [&root, &child, &sibling, &grandchild].map(T::is_cancelled);

    assert_eq!(cancelled(), [false; 4]);
    child.cancel();
    assert_eq!(cancelled(), [false, true, false, true]);
    root.cancel();
    assert_eq!(cancelled(), [true; 4]);
}

fn late_child<T: CancelTree>() {
    let root = T::root();
    let child = root.child();
    root.cancel();
    assert!(root.child().is_cancelled() && child.child().is_cancelled());
    let own = T::root();
    let child = own.child();
    child.cancel();
    assert!(child.child().is_cancelled() && !own.child().is_cancelled());
}

fn dropped_middle<T: CancelTree>() {
    let root = T::root();
    let grandchild = root.child().child();
    assert!(!grandchild.is_cancelled());
    root.cancel();
    assert!(grandchild.is_cancelled());
}

fn churn<T: CancelTree>() {
    const ROUNDS: usize = 100_000;
    let root = T::root();
    let mut kept = Vec::new();
    let mut turn_over = || {
        for i in 0..ROUNDS {
            // Not in order: the last of these three goes first.
            let [first, second, third] = [root.child(), root.child(), root.child()];
            drop((third.child(), second));
            if i % 1000 == 0 {
                kept.push(first);
            }
        }
    };
    turn_over();
    let mut left_by_each = || {
        let before = memory::resident_bytes();
        turn_over();
        let after = memory::resident_bytes();
        before.zip(after).map_or(0.0, |(before, after)| {
            (after - before) / (4 * ROUNDS) as f64
        })
    };
    // An allocator may take more at any time, but not each time.
    let mut each = left_by_each();
    if each >= 4.0 {
        each = left_by_each();
    }
    assert!(each < 4.0, "{each:.1} bytes of each dropped child are left");
    assert!(!kept.iter().any(T::is_cancelled));
    root.cancel();
    assert!(kept.iter().all(T::is_cancelled));
}

fn crowd<T: CancelTree>() {
    let root = T::root();
    let mut children: Vec<T> = iter::repeat_with(|| root.child()).take(100_000).collect();
    // Holes, and some of them filled again.
    let mut i = 0;
    children.retain(|_| {
        i += 1;
        i % 3 != 0
    });
    children.extend(iter::repeat_with(|| root.child()).take(10_000));
    let alone = children.swap_remove(50);
    alone.cancel();
    assert!(!children.iter().any(T::is_cancelled));
    root.cancel();
    assert!(children.iter().all(T::is_cancelled));
}

fn depth<T: CancelTree>() {
    let mut chain = vec![T::root()];
    for i in 0..100_000 {
        let next = chain[i].child();
        chain.push(next);
    }
    let last = chain.pop().expect("as long as that");
    chain[50_000].cancel();
    assert!(last.is_cancelled() && !chain[49_999].is_cancelled());
    chain[0].cancel();
    assert!(chain[49_999].is_cancelled());
    // The one handle that is left keeps all above.
    drop(chain);
    drop(last);
}

/// Counts its calls; and how many still have it.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Task {
    count: Arc<Count>,
    waker: Waker,
}

impl Task {
    fn new() -> Self {
        let count = Arc::<Count>::default();
        let waker = count.clone().into();
        Self { count, waker }
    }

    fn poll(&self, future: Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
        future.poll(&mut Context::from_waker(&self.waker))
    }

    fn was_woken(&self) -> bool {
        self.count.0.load(Ordering::Relaxed) > 0
    }

    /// Whether nobody but this has its waker.
    fn is_forgotten(&self) -> bool {
        Arc::strong_count(&self.count) == 2
    }
}

fn woken<T: CancelTree>() {
    let token = T::root();
    let waits = || (Task::new(), Box::pin(token.cancelled()));
    let mut waits: Vec<_> = iter::repeat_with(waits).take(5).collect();
    for (task, wait) in &mut waits {
        assert!(task.poll(wait.as_mut()).is_pending());
        assert!(task.poll(wait.as_mut()).is_pending());
        assert!(!task.was_woken());
    }
    // The one in the middle goes, which must not take others with it.
    let (gone, wait) = waits.remove(2);
    drop(wait);
    token.cancel();
    assert!(!gone.was_woken());
    for (task, wait) in &mut waits {
        assert!(task.was_woken());
        assert!(task.poll(wait.as_mut()).is_ready());
    }
}

fn woken_from_above<T: CancelTree>() {
    let root = T::root();
    let [child, sibling] = [root.child(), root.child()];
    let far_below = child.child().child();
    let [below, beside] = [Task::new(), Task::new()];
    let mut below_wait = pin!(far_below.cancelled());
    let mut beside_wait = pin!(sibling.cancelled());
    assert!(below.poll(below_wait.as_mut()).is_pending());
    assert!(beside.poll(beside_wait.as_mut()).is_pending());

    child.cancel();
    assert!(below.was_woken() && !beside.was_woken());
    assert!(below.poll(below_wait).is_ready());
    assert!(beside.poll(beside_wait.as_mut()).is_pending());
    root.cancel();
    assert!(beside.was_woken() && beside.poll(beside_wait).is_ready());
}

fn too_late<T: CancelTree>() {
    let token = T::root();
    let task = Task::new();
    let mut before = pin!(token.cancelled());
    token.cancel();
    assert!(task.poll(before.as_mut()).is_ready());
    assert!(task.poll(pin!(token.cancelled())).is_ready());
}

fn moved<T: CancelTree>() {
    let token = T::root();
    let [former, now] = [Task::new(), Task::new()];
    let mut wait = pin!(token.cancelled());
    assert!(former.poll(wait.as_mut()).is_pending());
    assert!(now.poll(wait.as_mut()).is_pending());
    token.cancel();
    assert!(now.was_woken());
    assert!(now.poll(wait).is_ready());
}

fn dropped_wait<T: CancelTree>() {
    let token = T::root();
    let task = Task::new();
    for _ in 0..3 {
        assert!(task.poll(pin!(token.cancelled())).is_pending());
    }
    assert!(task.is_forgotten(), "the token keeps the waker");
    token.cancel();
    assert!(!task.was_woken());
}

/// A token to wait for, and the one to cancel.
fn same<T: CancelTree>() -> (T, T) {
    let token = T::root();
    (token.clone(), token)
}

fn above<T: CancelTree>() -> (T, T) {
    let root = T::root();
    (root.child().child(), root)
}

/// A thread waits for one token after another, each of which is cancelled at about the moment when it begins to.
fn race<T: CancelTree>(pair: impl Fn() -> (T, T), wait: impl Fn(&T) + Sync) {
    const ROUNDS: usize = 5000;
    let pairs: Vec<_> = iter::repeat_with(pair).take(ROUNDS).collect();
    let begun = AtomicUsize::new(0);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            for (waited_for, _) in &pairs {
                begun.fetch_add(1, Ordering::Release);
                wait(waited_for);
                assert!(waited_for.is_cancelled(), "woken for nothing");
            }
        });
        for (i, (_, cancelled)) in pairs.iter().enumerate() {
            let mut looks = 0;
            while begun.load(Ordering::Acquire) <= i {
                looks += 1;
                if looks % 1000 == 0 {
                    assert!(!waiter.is_finished(), "the waiter has panicked");
                    // It may be that this core is the only one.
                    thread::yield_now();
                }
                hint::spin_loop();
            }
            // Somewhat earlier, somewhat later, by nanoseconds.
            for delay in 0..i % 256 {
                hint::black_box(delay);
            }
            cancelled.cancel();
        }
    });
}
