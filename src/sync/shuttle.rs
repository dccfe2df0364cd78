//! The world of shuttle: threads that take turns on one OS thread, in an order that is drawn. For what
//! is too large for loom.
//!
//! Atomics are sequentially consistent here whatever they are asked for: orderings are loom's to check. An access
//! is a plain one, after a point at which shuttle may go on with another thread; so a node is as large as a
//! real one, and nothing of it is shuttle's own. `compare_exchange_weak` fails for nothing now and then.
//! What has been freed and filled with `0xDD` bytes is noticed by the next access to an atomic in it.

#[cfg(not(all(feature = "shuttle", cancel_tree_by_hand, not(cancel_tree_loom))))]
compile_error!(
    "`--cfg cancel_tree_shuttle` needs the feature `shuttle` of cancel-tree and `--cfg cancel_tree_by_hand`, not loom's"
);

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::sync::atomic::Ordering;
use core::task::Waker;
use shuttle::rand::RngCore;

pub(crate) use alloc::sync::Arc;
#[cfg(feature = "testing")]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

/// How a thread sleeps, and is woken. A timeout never passes.
pub(super) use shuttle::thread as parking;

pub(crate) type AtomicBits = Atomic<super::Bits>;
pub(crate) type AtomicBool = Atomic<bool>;
pub(crate) type AtomicU8 = Atomic<u8>;
pub(crate) type AtomicU64 = Atomic<u64>;
pub(crate) type AtomicUsize = Atomic<usize>;
pub(crate) type AtomicPtr<T> = Atomic<*mut T>;

/// Small families, as loom has: so that a few operations reach their edges.
pub(crate) const SMALL: bool = cfg!(cancel_tree_small);

/// Here shuttle may go on with another thread.
fn switch() {
    static POINT: shuttle::sync::atomic::AtomicBool = shuttle::sync::atomic::AtomicBool::new(false);
    POINT.load(Ordering::SeqCst);
}

/// What an atomic holds, as bits that any memory may have.
pub(crate) trait Value: Copy + PartialEq {
    type Raw: Copy + PartialEq;
    const FREED: Self::Raw;
    fn to_raw(self) -> Self::Raw;
    fn of_raw(raw: Self::Raw) -> Self;
}

macro_rules! values {
    ($($t:ty, $freed:expr;)*) => {$(
        impl Value for $t {
            type Raw = $t;
            const FREED: $t = $freed;
            fn to_raw(self) -> $t {
                self
            }
            fn of_raw(raw: $t) -> $t {
                raw
            }
        }
    )*};
}

values! {
    u8, 0xDD;
    u32, 0xDDDD_DDDD;
    u64, 0xDDDD_DDDD_DDDD_DDDD;
    usize, 0xDDDD_DDDD_DDDD_DDDD;
}

impl Value for bool {
    type Raw = u8;
    const FREED: u8 = 0xDD;
    fn to_raw(self) -> u8 {
        self.into()
    }
    fn of_raw(raw: u8) -> bool {
        raw != 0
    }
}

impl<T> Value for *mut T {
    type Raw = *mut T;
    const FREED: *mut T = core::ptr::without_provenance_mut(usize::FREED);
    fn to_raw(self) -> *mut T {
        self
    }
    fn of_raw(raw: *mut T) -> *mut T {
        raw
    }
}

#[repr(transparent)]
pub(crate) struct Atomic<T: Value>(Cell<T::Raw>);

// SAFETY: shuttle's threads take turns, and none is interrupted but in `switch`.
unsafe impl<T: Value> Sync for Atomic<T> {}
// SAFETY: as above.
unsafe impl<T: Value> Send for Atomic<T> {}

impl<T: Value> Atomic<T> {
    #[track_caller]
    fn now(&self) -> T {
        let raw = self.0.get();
        assert!(raw != T::FREED, "an atomic in memory that was freed");
        T::of_raw(raw)
    }

    #[track_caller]
    pub(crate) fn new(value: T) -> Atomic<T> {
        Atomic(Cell::new(value.to_raw()))
    }

    #[track_caller]
    pub(crate) fn load(&self, _: Ordering) -> T {
        switch();
        self.now()
    }

    #[track_caller]
    pub(crate) fn store(&self, value: T, order: Ordering) {
        self.swap(value, order);
    }

    #[track_caller]
    pub(crate) fn swap(&self, value: T, _: Ordering) -> T {
        switch();
        let before = self.now();
        self.0.set(value.to_raw());
        before
    }

    #[track_caller]
    pub(crate) fn compare_exchange(
        &self,
        seen: T,
        new: T,
        _: Ordering,
        _: Ordering,
    ) -> Result<T, T> {
        switch();
        let before = self.now();
        if before != seen {
            return Err(before);
        }
        self.0.set(new.to_raw());
        Ok(before)
    }

    #[track_caller]
    pub(crate) fn compare_exchange_weak(
        &self,
        seen: T,
        new: T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<T, T> {
        if shuttle::rand::thread_rng().next_u32() % 32 == 0 {
            return Err(self.load(failure));
        }
        self.compare_exchange(seen, new, success, failure)
    }
}

macro_rules! arithmetic {
    ($($t:ty: $($name:ident $with:ident,)*;)*) => {$(
        impl Atomic<$t> {$(
            #[track_caller]
            pub(crate) fn $name(&self, value: $t, order: Ordering) -> $t {
                let _ = order;
                switch();
                let before = self.now();
                self.0.set(before.$with(value));
                before
            }
        )*}
    )*};
}

use core::ops::{BitAnd, BitOr};

arithmetic! {
    super::Bits: fetch_add wrapping_add, fetch_sub wrapping_sub, fetch_or bitor, fetch_and bitand,;
    usize: fetch_add wrapping_add, fetch_sub wrapping_sub,;
}

impl<T: Value + fmt::Debug> fmt::Debug for Atomic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}

std::thread_local! {
    /// The cells that somebody is writing to.
    static WRITTEN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    /// How many blocks of memory there are that `heap` gave out, and values that are tracked.
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

/// A cell whose writers take their time: who comes meanwhile is reported.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    #[track_caller]
    fn check(&self) {
        let written = WRITTEN.with_borrow(|written| written.contains(&self.0.get().addr()));
        assert!(!written, "two threads at one cell");
    }

    #[track_caller]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        self.check();
        f(self.0.get())
    }

    #[track_caller]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        struct Writing(usize);
        impl Drop for Writing {
            fn drop(&mut self) {
                WRITTEN.with_borrow_mut(|written| written.retain(|address| *address != self.0));
            }
        }
        self.check();
        let address = self.0.get().addr();
        WRITTEN.with_borrow_mut(|written| written.push(address));
        let _writing = Writing(address);
        switch();
        f(self.0.get())
    }
}

/// The allocator, with a count of what is out.
pub(crate) mod heap {
    use super::LIVE;
    pub(crate) use alloc::alloc::handle_alloc_error;
    use alloc::alloc::Layout;

    /// # Safety
    /// The allocator's.
    pub(crate) unsafe fn alloc(layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { alloc::alloc::alloc(layout) }
    }

    /// # Safety
    /// The allocator's.
    pub(crate) unsafe fn dealloc(block: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - 1);
        // SAFETY: the caller's promise.
        unsafe { alloc::alloc::dealloc(block, layout) }
    }
}

/// A value that counts as live memory: for what a Box holds.
pub(crate) struct Track<T>(#[allow(dead_code)] T);

impl<T> Track<T> {
    pub(crate) fn new(value: T) -> Track<T> {
        LIVE.set(LIVE.get() + 1);
        Track(value)
    }
}

impl<T> Drop for Track<T> {
    fn drop(&mut self) {
        LIVE.set(LIVE.get() - 1);
    }
}

/// How much memory the trees have at this moment: blocks, extensions.
pub(crate) fn live() -> usize {
    LIVE.get()
}

/// A stand-in for `atomic_waker::AtomicWaker`, whose own steps shuttle cannot see: each call is one step here.
#[derive(Default)]
pub(crate) struct AtomicWaker(Cell<Option<Waker>>);

// SAFETY: as for `Atomic`.
unsafe impl Sync for AtomicWaker {}
// SAFETY: as for `Atomic`.
unsafe impl Send for AtomicWaker {}

impl AtomicWaker {
    pub(crate) fn register(&self, waker: &Waker) {
        let waker = waker.clone();
        switch();
        drop(self.0.replace(Some(waker)));
    }

    pub(crate) fn take(&self) -> Option<Waker> {
        switch();
        self.0.take()
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }
}

/// Where one thread sleeps until it is told; being told before counts.
pub(crate) struct Notify {
    told: Cell<bool>,
    sleeper: RefCell<Option<shuttle::thread::Thread>>,
}

// SAFETY: as for `Atomic`.
unsafe impl Sync for Notify {}
// SAFETY: as for `Atomic`.
unsafe impl Send for Notify {}

impl Notify {
    pub(crate) fn new() -> Notify {
        Notify {
            told: Cell::new(false),
            sleeper: RefCell::new(None),
        }
    }

    pub(crate) fn notify(&self) {
        switch();
        self.told.set(true);
        let sleeper = self.sleeper.take();
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
    }

    pub(crate) fn wait(&self) {
        switch();
        while !self.told.take() {
            self.sleeper.replace(Some(shuttle::thread::current()));
            shuttle::thread::park();
        }
    }
}

impl super::Wake for Notify {
    fn wake(this: &Arc<Self>) {
        this.notify();
    }
}

/// Which threads are at work.
pub(crate) mod thread {
    use core::cell::Cell;

    /// Little, so that a schedule has parents that grow, and some that lose a race without.
    const PATIENCE: u32 = 2;

    shuttle::thread_local! {
        static LOST: Cell<u32> = Cell::new(0);
    }

    pub(crate) fn number() -> usize {
        usize::from(shuttle::current::me()) + 1
    }

    pub(crate) const NOBODY: usize = 0;

    pub(crate) fn me() -> usize {
        number()
    }

    pub(crate) fn contended() -> bool {
        // Err: the thread is being torn down.
        let count = LOST.try_with(|lost| lost.replace(lost.get() + 1) + 1);
        let enough = count.is_ok_and(|count| count >= PATIENCE);
        if enough {
            LOST.with(|lost| lost.set(0));
        }
        enough
    }
}
