//! One vocabulary for the real world, for `no_std`, for loom, for shuttle, and for the world in which accesses are
//! counted: a file for each. It promises the floors above atomics, cells, a heap, thread-locals, statics, parking and the
//! catching of panics that mean the same in all of them, and needs nothing. What models look at names `core`, `std`,
//! `alloc` or loom for these only here. Elsewhere they are named by what no model runs (`thread.rs`, `pressure.rs` and
//! `clock.rs` of the timer, most of the integrations), by what only models and fuzzers have (`no_thread.rs`), and for what a model has nothing
//! to see in: cells that one owner has at a time (`tree/edge.rs`, `group/inside.rs`, `timer/pool.rs`), counts that nothing leans on,
//! instants (`timer/turning.rs`, `crew.rs`), values, threads and panics of users; and two flags that stay set once there was a deadline
//! that moves, or a parent of another kind (`tree/asked.rs`). These outlast an execution, but no model acts on them: they are asked by a
//! thread that waits while the timer's thread is not running, or in a forked child, and the models in which that thread is started
//! (`starting`) have no such wait.

pub(crate) use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

#[cfg(all(feature = "std", not(target_has_atomic = "64")))]
compile_error!(
    "the feature `std` of cancel-tree needs 64-bit atomics: turn off the default features"
);

#[cfg(all(feature = "std", target_family = "wasm", target_os = "unknown"))]
compile_error!(
    "the feature `std` of cancel-tree needs threads and a clock, and this target has neither (`Instant::now()` panics \
     there): turn off the default features. Tokens, causes, futures and callbacks are there without."
);

/// The integer of a state word: 64 bits wherever the target has such an atomic. (`--cfg cancel_tree_narrow` is
/// for tests: the narrow word on a machine that could have the wide one.)
#[cfg(all(target_has_atomic = "64", not(cancel_tree_narrow)))]
pub(crate) type Bits = u64;
/// The integer of a state word where there are no atomics of 64 bits.
#[cfg(not(all(target_has_atomic = "64", not(cancel_tree_narrow))))]
pub(crate) type Bits = u32;

#[cfg(feature = "std")]
mod credit;
mod panics;
#[cfg(feature = "std")]
pub(crate) mod park;
#[cfg(not(cancel_tree_shuttle))]
pub(crate) mod thread;
mod wake;

#[cfg(not(any(cancel_tree_loom, cancel_tree_shuttle, cancel_tree_counting)))]
#[path = "real.rs"]
mod imp;

#[cfg(cancel_tree_loom)]
#[path = "loom.rs"]
mod imp;

#[cfg(cancel_tree_shuttle)]
#[path = "shuttle.rs"]
mod imp;

#[cfg(cancel_tree_counting)]
#[path = "counting.rs"]
mod imp;
#[cfg(cancel_tree_counting)]
pub use imp::{accesses, note, Access, AtomicBool, Kind};

#[cfg(feature = "std")]
pub(crate) use credit::Credit;
pub(crate) use imp::*;
pub(crate) use panics::{to_the_end, unless_unwinding, OfUser, Panics};
pub(crate) use wake::OneWaiter;
#[cfg(feature = "std")]
pub(crate) use wake::{waker_of, Wake};

/// Functions that are `const` where the atomics can be made so: models' know which execution they belong to.
#[cfg(not(any(cancel_tree_loom, cancel_tree_shuttle)))]
macro_rules! const_where_possible {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $(#[$meta])* $vis const fn $($rest)*
    };
}
/// Functions that are `const` elsewhere.
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
macro_rules! const_where_possible {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $(#[$meta])* $vis fn $($rest)*
    };
}
pub(crate) use const_where_possible;

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

/// What makes statics and thread-locals anew.
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
