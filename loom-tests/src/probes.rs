//! User values that notice what is done to them.

use cancel_tree::{CancellationToken, Cause};
use loom::alloc::Track;
use loom::cell::UnsafeCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

/// Polls once; true: ready.
pub fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> bool {
    Pin::new(future)
        .poll(&mut Context::from_waker(waker))
        .is_ready()
}

/// Hands out wakers, counts what becomes of them, and fails at the end of the model if one of them
/// is still somewhere.
///
/// The counters are std's: loom neither sees nor orders them, so they hide no missing ordering
/// of the tree's. Every waker has a cell of its own that it touches when used and dropped:
/// handing it on without an order is a race that loom reports.
pub struct Probe(Arc<Counts>);

#[derive(Default)]
struct Counts {
    woken: AtomicUsize,
    alive: AtomicUsize,
}

struct Alarm {
    counts: Arc<Counts>,
    touched: UnsafeCell<usize>,
    _leak: Track<()>,
}

impl Probe {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Probe {
        Probe(Arc::default())
    }

    pub fn waker(&self) -> Waker {
        // SAFETY: the table keeps the contract.
        unsafe { Waker::from_raw(Alarm::raw(self.0.clone())) }
    }

    pub fn woken(&self) -> usize {
        self.0.woken.load(Relaxed)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(
                self.0.alive.load(Relaxed),
                0,
                "wakers that nobody has dropped"
            );
        }
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |data| {
        // SAFETY: the waker that is cloned keeps its alarm.
        let alarm = unsafe { &*data.cast::<Alarm>() };
        alarm.touched.with(|_| ());
        Alarm::raw(alarm.counts.clone())
    },
    |data| {
        // SAFETY: made by Box::into_raw; consumed.
        let alarm = unsafe { Box::from_raw(data.cast_mut().cast::<Alarm>()) };
        alarm.counts.woken.fetch_add(1, Relaxed);
    },
    |data| {
        // SAFETY: as for clone.
        let alarm = unsafe { &*data.cast::<Alarm>() };
        alarm.touched.with(|_| ());
        alarm.counts.woken.fetch_add(1, Relaxed);
    },
    // SAFETY: made by Box::into_raw; consumed.
    |data| drop(unsafe { Box::from_raw(data.cast_mut().cast::<Alarm>()) }),
);

impl Alarm {
    fn raw(counts: Arc<Counts>) -> RawWaker {
        counts.alive.fetch_add(1, Relaxed);
        let alarm = Box::new(Alarm {
            counts,
            touched: UnsafeCell::new(0),
            _leak: Track::new(()),
        });
        RawWaker::new(Box::into_raw(alarm).cast_const().cast(), &VTABLE)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.touched.with_mut(|_| ());
            self.counts.alive.fetch_sub(1, Relaxed);
        }
    }
}

/// Counts the runs of a callback, and notices if what it owns is leaked.
#[derive(Clone, Default)]
pub struct Runs(Arc<AtomicUsize>);

impl Runs {
    pub fn callback(&self) -> impl FnOnce() + Send + 'static {
        let runs = self.0.clone();
        let owned = Track::new(());
        move || {
            let _owned = owned;
            runs.fetch_add(1, Relaxed);
        }
    }

    pub fn count(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// An error for a cause: fails the model if it is leaked, dropped twice, read before it can be
/// seen, or dropped while somebody may read it.
pub struct Reason {
    number: UnsafeCell<usize>,
    _leak: Track<()>,
}

// SAFETY: written by the drop alone; loom reports if that races with a read.
unsafe impl Send for Reason {}
// SAFETY: as above.
unsafe impl Sync for Reason {}

impl Reason {
    pub fn cause(number: usize) -> Cause {
        Cause::new(Reason::new(number))
    }

    pub fn new(number: usize) -> Reason {
        Reason {
            number: UnsafeCell::new(number),
            _leak: Track::new(()),
        }
    }

    pub fn number(&self) -> usize {
        // SAFETY: written at the beginning and at the end only.
        self.number.with(|n| unsafe { *n })
    }
}

impl Drop for Reason {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the last reference.
            let was = self
                .number
                .with_mut(|n| unsafe { std::mem::replace(&mut *n, usize::MAX) });
            assert_ne!(was, usize::MAX, "dropped twice");
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reason")
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reason")
    }
}

impl std::error::Error for Reason {}

/// The number of the [`Reason`] for which the token is cancelled; 0: cancelled without one.
#[track_caller]
pub fn reason_of(token: &CancellationToken) -> usize {
    let cause = token.cause().expect("a cancelled token");
    cause.downcast_ref::<Reason>().map_or(0, Reason::number)
}

/// The same of a context that is done; what it says of itself must agree.
#[track_caller]
pub fn reason_of_context(ctx: &cancel_tree::Context) -> usize {
    let error = ctx.err().expect("a context that is done");
    let cause = ctx.cause().expect("done without a cause");
    assert_eq!(cause.kind(), error);
    cause.downcast_ref::<Reason>().map_or(0, Reason::number)
}

/// Plain data: one thread writes it before it cancels, others read it when they have seen the cancel.
/// Shared by std's `Arc` on purpose: loom's would order the accesses by itself.
#[derive(Clone)]
pub struct Data(Arc<UnsafeCell<bool>>);

// SAFETY: loom reports every race on the cell.
unsafe impl Send for Data {}
// SAFETY: as above.
unsafe impl Sync for Data {}

impl Data {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Data {
        Data(Arc::new(UnsafeCell::new(false)))
    }

    #[track_caller]
    pub fn write(&self) {
        // SAFETY: loom checks it.
        self.0.with_mut(|data| unsafe { *data = true });
    }

    #[track_caller]
    pub fn read(&self) {
        // SAFETY: loom checks it.
        assert!(
            self.0.with(|data| unsafe { *data }),
            "read before it was written"
        );
    }

    /// Whether it was written.
    #[track_caller]
    pub fn get(&self) -> bool {
        // SAFETY: loom checks it.
        self.0.with(|data| unsafe { *data })
    }
}
