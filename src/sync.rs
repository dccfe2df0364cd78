//! The only file that names `core`, `std`, `alloc` or loom: one vocabulary for the real
//! world, for `no_std` and for the model checker. The world of shuttle is `sync/shuttle.rs`, the one
//! in which atomics are counted `sync/counting.rs`.

use core::mem::ManuallyDrop;
pub(crate) use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

#[cfg(all(feature = "std", not(target_has_atomic = "64")))]
compile_error!(
    "the feature `std` of cancel-tree needs 64-bit atomics: turn off the default features"
);

/// The integer of a state word: 64 bits wherever the target has such an atomic. (`--cfg cancel_tree_narrow` is
/// for tests: the narrow word on a machine that could have the wide one.)
#[cfg(all(target_has_atomic = "64", not(cancel_tree_narrow)))]
pub(crate) type Bits = u64;
/// The integer of a state word where there are no atomics of 64 bits.
#[cfg(not(all(target_has_atomic = "64", not(cancel_tree_narrow))))]
pub(crate) type Bits = u32;

#[cfg(not(any(cancel_tree_loom, cancel_tree_shuttle, cancel_tree_counting)))]
mod imp {
    #[cfg(not(all(target_has_atomic = "64", not(cancel_tree_narrow))))]
    pub(crate) use core::sync::atomic::AtomicU32 as AtomicBits;
    #[cfg(all(target_has_atomic = "64", not(cancel_tree_narrow)))]
    pub(crate) use core::sync::atomic::AtomicU64 as AtomicBits;
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
    #[cfg(feature = "std")]
    pub(crate) use core::sync::atomic::{AtomicU64, AtomicU8};

    pub(crate) use alloc::sync::Arc;

    /// Whether families of tokens are small, so that a few operations reach their edges.
    pub(crate) const SMALL: bool = false;

    /// `core`'s cell with the closure interface of loom's.
    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    pub(crate) mod heap {
        pub(crate) use alloc::alloc::{alloc, dealloc, handle_alloc_error};
    }

    pub(super) use atomic_waker::AtomicWaker;
}

#[cfg(cancel_tree_loom)]
mod imp {
    #[cfg(not(feature = "loom"))]
    compile_error!("`--cfg cancel_tree_loom` also needs the feature `loom` of cancel-tree");

    use core::ops::Deref;
    use loom::{cell, sync::atomic};

    pub(crate) use loom::sync::{atomic::AtomicBool, Notify};

    pub(crate) use loom::sync::Arc;
    pub(crate) use AtomicU64 as AtomicBits;

    /// Whether families of tokens are small, so that a few operations reach their edges.
    pub(crate) const SMALL: bool = true;

    std::thread_local! {
        static ALL_ORDERS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    /// Whether the models that this OS thread checks from now on explore loads in all orders: see `Shadow`.
    pub(crate) fn set_all_orders(all: bool) {
        ALL_ORDERS.set(all);
    }

    /// loom tries another order of two accesses only if one of them is the last that it remembers, and
    /// of each object it remembers one. A thread that loads and then exchanges hides by its own load
    /// that another one has loaded before: that the other's load comes after the exchange is not tried then.
    /// So a model may ask for an access of each atomic's shadow before each of its own: these are RMWs,
    /// of which none hides another. They are relaxed and order nothing.
    #[derive(Debug)]
    struct Shadow(Option<atomic::AtomicUsize>);

    impl Shadow {
        fn new() -> Shadow {
            Shadow(ALL_ORDERS.get().then(|| atomic::AtomicUsize::new(0)))
        }

        fn touch(&self) {
            if let Some(shadow) = &self.0 {
                shadow.fetch_add(1, super::Relaxed);
            }
        }
    }

    /// loom's types, whose drop counts as a write here: so every access must have happened before
    /// it, and a release that is too weak to free by shows. loom itself lets a drop pass.
    macro_rules! checked_at_drop {
        ($($name:ident $(<$t:ident>)? = $inner:ty, $value:ty;)*) => {$(
            #[derive(Debug)]
            pub(crate) struct $name $(<$t>)? ($inner, Shadow);

            impl $(<$t>)? $name $(<$t>)? {
                #[track_caller]
                pub(crate) fn new(value: $value) -> Self {
                    Self(<$inner>::new(value), Shadow::new())
                }
            }

            impl $(<$t>)? Deref for $name $(<$t>)? {
                type Target = $inner;
                fn deref(&self) -> &$inner {
                    self.1.touch();
                    &self.0
                }
            }

            impl $(<$t>)? Drop for $name $(<$t>)? {
                fn drop(&mut self) {
                    if !std::thread::panicking() {
                        self.0.with_mut(|_| ());
                    }
                }
            }
        )*};
    }

    checked_at_drop! {
        AtomicU64 = atomic::AtomicU64, u64;
        AtomicPtr<T> = atomic::AtomicPtr<T>, *mut T;
        AtomicU8 = atomic::AtomicU8, u8;
        AtomicUsize = atomic::AtomicUsize, usize;
        UnsafeCell<T> = cell::UnsafeCell<T>, T;
    }

    /// loom's heap notices what is never freed. It knows layouts only by their pointer, so
    /// an array is one allocation there as well.
    pub(crate) mod heap {
        pub(crate) use alloc::alloc::handle_alloc_error;
        pub(crate) use loom::alloc::{alloc, dealloc};
    }

    /// A value that loom reports if it is leaked: for what a Box holds, which loom does not see.
    pub(crate) use loom::alloc::Track;

    /// loom's stand-in for `atomic_waker::AtomicWaker`, whose atomics loom cannot see.
    #[derive(Debug, Default)]
    pub(super) struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub(super) fn register(&self, waker: &core::task::Waker) {
            self.0.register_by_ref(waker);
        }

        pub(super) fn take(&self) -> Option<core::task::Waker> {
            self.0.take_waker()
        }

        pub(super) fn wake(&self) {
            self.0.wake();
        }
    }
}

#[cfg(cancel_tree_shuttle)]
#[path = "sync/shuttle.rs"]
mod imp;

#[cfg(cancel_tree_counting)]
#[path = "sync/counting.rs"]
mod imp;
#[cfg(cancel_tree_counting)]
pub use imp::{accesses, note, Access, AtomicBool, Kind};

pub(crate) use imp::*;

/// A static: a real one, or loom's or shuttle's, which is made anew for each execution.
#[cfg(all(feature = "std", not(any(cancel_tree_loom, cancel_tree_shuttle))))]
macro_rules! global {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        $(#[$meta])*
        static $name: $type = $init;
    };
}
/// A static that is made anew for each execution. Never dropped, as a real one.
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
macro_rules! global {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        $crate::sync::model::lazy_static! {
            $(#[$meta])*
            static ref $name: core::mem::ManuallyDrop<$type> = core::mem::ManuallyDrop::new($init);
        }
    };
}

/// A thread-local, std's or loom's or shuttle's.
#[cfg(all(feature = "std", not(any(cancel_tree_loom, cancel_tree_shuttle))))]
macro_rules! local {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        std::thread_local! {
            $(#[$meta])*
            static $name: $type = const { $init };
        }
    };
}
/// A thread-local, std's or loom's or shuttle's.
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
macro_rules! local {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
        $crate::sync::model::thread_local! {
            $(#[$meta])*
            static $name: $type = $init;
        }
    };
}
#[cfg(feature = "std")]
pub(crate) use {global, local};

/// Who makes statics and thread-locals anew.
#[cfg(cancel_tree_loom)]
pub(crate) use loom as model;
#[cfg(cancel_tree_shuttle)]
pub(crate) use shuttle as model;

/// A count is about to wrap: every later decision about memory would be wrong, so the
/// process ends here, as it does when an `Arc` overflows.
#[cold]
pub(crate) fn abort_on_overflow() -> ! {
    #[cfg(feature = "std")]
    std::process::abort();
    // Without std a panic while panicking is the portable abort.
    #[cfg(not(feature = "std"))]
    {
        struct Twice;
        impl Drop for Twice {
            fn drop(&mut self) {
                panic!("cancel-tree: too many handles");
            }
        }
        let _twice = Twice;
        panic!("cancel-tree: too many handles");
    }
}

/// Which threads are at work: sharding and the callbacks' "is it me?" ask.
#[cfg(not(cancel_tree_shuttle))]
pub(crate) mod thread {
    /// How often this thread must have lost a race before it pays for sharding a parent.
    #[cfg(all(feature = "std", not(cancel_tree_loom)))]
    const PATIENCE: u32 = 16;

    #[cfg(all(feature = "std", not(cancel_tree_loom)))]
    mod imp {
        use core::cell::Cell;
        use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

        static NEXT: AtomicUsize = AtomicUsize::new(1);

        std::thread_local! {
            static NUMBER: Cell<usize> = const { Cell::new(0) };
            static LOST: Cell<u32> = const { Cell::new(0) };
        }

        /// A small number of this thread's own, never 0; counted up from 1.
        #[inline]
        pub(crate) fn number() -> usize {
            // A thread-local without a destructor can be read at any time, also while the
            // thread is being torn down.
            NUMBER.with(|number| match number.get() {
                0 => {
                    // Relaxed: only uniqueness is asked for.
                    let new = NEXT.fetch_add(1, Relaxed);
                    number.set(new);
                    new
                }
                known => known,
            })
        }

        /// Notes that this thread lost a race; true once it has lost often enough.
        #[cold]
        pub(crate) fn contended() -> bool {
            LOST.with(|lost| {
                let count = lost.get() + 1;
                lost.set(if count >= super::PATIENCE { 0 } else { count });
                count >= super::PATIENCE
            })
        }
    }

    /// Models say themselves which thread is which: a counter of ours would differ from one
    /// execution to the next, and loom replays.
    #[cfg(cancel_tree_loom)]
    mod imp {
        use core::cell::Cell;

        loom::thread_local! {
            static NUMBER: Cell<usize> = Cell::new(UNNUMBERED);
        }

        /// A thread that never sharded anything, and none of the numbers of a runner.
        const UNNUMBERED: usize = usize::MAX;

        pub(crate) fn set_number(number: usize) {
            NUMBER.with(|n| n.set(number));
        }

        pub(crate) fn number() -> usize {
            NUMBER.with(Cell::get)
        }

        /// Threads without a number never shard: most models are about something else.
        pub(crate) fn contended() -> bool {
            number() != UNNUMBERED
        }
    }

    #[cfg(not(any(feature = "std", cancel_tree_loom)))]
    mod imp {
        pub(crate) fn number() -> usize {
            0
        }

        pub(crate) fn contended() -> bool {
            false
        }
    }

    pub(crate) use imp::*;
}

/// Something that is told by a waker. `std::task::Wake`, with the `Arc` that models know.
pub(crate) trait Wake: Send + Sync + 'static {
    fn wake(this: &Arc<Self>);
}

/// A waker that tells it, and keeps it.
pub(crate) fn waker_of<T: Wake>(this: Arc<T>) -> core::task::Waker {
    use core::mem::ManuallyDrop;
    use core::task::{RawWaker, RawWakerVTable, Waker};

    struct Table<T>(T);

    impl<T: Wake> Table<T> {
        const TABLE: &'static RawWakerVTable = &RawWakerVTable::new(
            |data| {
                // SAFETY: `data` is a counted pointer, whose count ManuallyDrop leaves to the waker.
                let this = ManuallyDrop::new(unsafe { Arc::<T>::from_raw(data.cast()) });
                raw(Arc::clone(&this))
            },
            // SAFETY: waking consumes the waker and its count.
            |data| T::wake(&unsafe { Arc::from_raw(data.cast()) }),
            |data| {
                // SAFETY: as for the clone.
                T::wake(&ManuallyDrop::new(unsafe { Arc::from_raw(data.cast()) }));
            },
            // SAFETY: dropping the waker gives its count back.
            |data| drop(unsafe { Arc::<T>::from_raw(data.cast()) }),
        );
    }

    fn raw<T: Wake>(this: Arc<T>) -> RawWaker {
        RawWaker::new(Arc::into_raw(this).cast(), Table::<T>::TABLE)
    }

    // SAFETY: the table keeps the contract of RawWakerVTable: `T` is Send and Sync, and the count follows
    // the waker's clones.
    unsafe { Waker::from_raw(raw(this)) }
}

/// The waker of one who waits, which another thread can take.
#[derive(Default)]
pub(crate) struct OneWaiter(AtomicWaker);

/// A waker that is cloned and dropped without running user code, but for its last copy's drop.
struct Relay(OfUser<core::task::Waker>);

impl Wake for Relay {
    fn wake(this: &Arc<Relay>) {
        this.0.wake_by_ref();
    }
}

impl OneWaiter {
    /// By the one who waits, and nobody else. He has to look once more afterwards.
    pub(crate) fn register(&self, waker: &core::task::Waker) {
        // All user code is here. `AtomicWaker` clones the new waker and drops the old one while it is
        // locked: if that panics, it stays locked, and nobody is woken any more.
        drop(self.0.take().map(OfUser::new));
        let relay = waker_of(Arc::new(Relay(OfUser::new(waker.clone()))));
        self.0.register(&relay);
    }

    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}

/// Runs user code so that its panic does not stop what has to be done for others; the first
/// panic is kept and surfaces once, at the end.
#[derive(Default)]
pub(crate) struct Panics {
    #[cfg(feature = "std")]
    first: Option<alloc::boxed::Box<dyn core::any::Any + Send>>,
}

impl Panics {
    #[inline]
    pub(crate) fn catch(&mut self, user: impl FnOnce()) {
        #[cfg(feature = "std")]
        {
            use std::panic::{catch_unwind, AssertUnwindSafe};
            // AssertUnwindSafe: no invariant of ours is broken while user code runs, and
            // what the user's own values look like after the panic is seen by him only.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(user)) {
                if self.first.is_none() {
                    self.first = Some(payload);
                } else {
                    drop_payload(payload);
                }
            }
        }
        #[cfg(not(feature = "std"))]
        user();
    }

    /// Lets nobody know: for a thread that has no caller, or is unwinding already.
    #[cfg(feature = "std")]
    pub(crate) fn swallow(self) {
        if let Some(payload) = self.first {
            drop_payload(payload);
        }
    }

    /// Lets the first panic go on, unless this thread is unwinding already: a second panic
    /// would end the process.
    #[inline]
    pub(crate) fn resume(self) {
        #[cfg(feature = "std")]
        if self.first.is_some() {
            if std::thread::panicking() {
                self.swallow();
            } else if let Some(payload) = self.first {
                std::panic::resume_unwind(payload);
            }
        }
    }
}

/// The payload of a panic is user code too.
#[cfg(feature = "std")]
#[cold]
fn drop_payload(mut payload: alloc::boxed::Box<dyn core::any::Any + Send>) {
    use std::panic::{catch_unwind, AssertUnwindSafe};
    for _ in 0..8 {
        match catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Ok(()) => return,
            Err(worse) => payload = worse,
        }
    }
    // A payload whose drop panics with a payload, and so on: there is no end to it.
    core::mem::forget(payload);
}

/// Runs user code that has a caller to tell of its panic: unless this thread is unwinding already, for a
/// second panic would end the process. Then it is swallowed.
#[inline]
pub(crate) fn unless_unwinding(user: impl FnOnce()) {
    #[cfg(feature = "std")]
    if std::thread::panicking() {
        let mut panics = Panics::default();
        panics.catch(user);
        return panics.swallow();
    }
    user();
}

/// Something of the user's, to whose drop applies the same: of several that go one after the other, the first
/// panic goes on and ends nothing.
pub(crate) struct OfUser<T>(ManuallyDrop<T>);

impl<T> OfUser<T> {
    pub(crate) fn new(value: T) -> OfUser<T> {
        OfUser(ManuallyDrop::new(value))
    }

    pub(crate) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped after its only field was moved out.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl<T> Drop for OfUser<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: not used again.
        let value = unsafe { ManuallyDrop::take(&mut self.0) };
        unless_unwinding(|| drop(value));
    }
}

impl<T> core::ops::Deref for OfUser<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> Clone for OfUser<T> {
    fn clone(&self) -> OfUser<T> {
        OfUser(self.0.clone())
    }
}

/// Blocking: the calling thread as a waker, and its sleep.
#[cfg(all(feature = "std", not(cancel_tree_shuttle)))]
pub(crate) mod park {
    use core::mem::ManuallyDrop;
    use core::task::{RawWaker, RawWakerVTable, Waker};
    use crossbeam_utils::sync::{Parker, Unparker};
    use std::time::Instant;

    /// Wakes by unparking. The data is a counted pointer of an `Unparker`.
    static VTABLE: RawWakerVTable = RawWakerVTable::new(
        |data| {
            // SAFETY: `data` came from `Unparker::into_raw` and its count is still held by
            // the waker that is being cloned; ManuallyDrop leaves it that count.
            let unparker = ManuallyDrop::new(unsafe { Unparker::from_raw(data) });
            RawWaker::new(Unparker::into_raw((*unparker).clone()), &VTABLE)
        },
        // SAFETY: `wake` consumes the waker, so its count is ours to give back.
        |data| unsafe { Unparker::from_raw(data) }.unpark(),
        |data| {
            // SAFETY: as for the clone.
            ManuallyDrop::new(unsafe { Unparker::from_raw(data) }).unpark();
        },
        // SAFETY: dropping the waker gives its count back.
        |data| drop(unsafe { Unparker::from_raw(data) }),
    );

    /// The calling thread's parker and the waker that ends its sleep.
    pub(crate) struct Seat {
        parker: Parker,
        waker: Waker,
    }

    impl Seat {
        fn new() -> Self {
            let parker = Parker::new();
            let raw = RawWaker::new(Unparker::into_raw(parker.unparker().clone()), &VTABLE);
            // SAFETY: the table above keeps the contract of RawWakerVTable: an unparker may
            // be used and dropped on any thread, and its count follows the waker's clones.
            let waker = unsafe { Waker::from_raw(raw) };
            Self { parker, waker }
        }

        /// Parks until `done` (given the thread's waker) or the deadline; what `done` said last.
        fn until(&self, deadline: Option<Instant>, done: &mut dyn FnMut(&Waker) -> bool) -> bool {
            loop {
                if done(&self.waker) {
                    return true;
                }
                match deadline {
                    None => self.parker.park(),
                    Some(deadline) => {
                        if Instant::now() >= deadline {
                            return false;
                        }
                        self.parker.park_deadline(deadline);
                    }
                }
            }
        }
    }

    /// Blocks the calling thread until `done`, which is given the waker to leave behind, is
    /// true, or until the deadline. `done` may be called any number of times.
    #[cfg(not(cancel_tree_loom))]
    pub(crate) fn until(deadline: Option<Instant>, mut done: impl FnMut(&Waker) -> bool) -> bool {
        std::thread_local! {
            static SEAT: Seat = Seat::new();
        }
        // A stale unpark of an earlier wait only makes one turn of the loop more. A thread
        // whose locals are gone already still can wait, on a seat of its own.
        match SEAT.try_with(|seat| seat.until(deadline, &mut done)) {
            Ok(answer) => answer,
            Err(_) => Seat::new().until(deadline, &mut done),
        }
    }

    /// The same on a seat for this wait alone: a model has no thread to keep it in.
    #[cfg(cancel_tree_loom)]
    pub(crate) fn until(deadline: Option<Instant>, mut done: impl FnMut(&Waker) -> bool) -> bool {
        Seat::new().until(deadline, &mut done)
    }
}
