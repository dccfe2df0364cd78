// The README's picture, within the page, and its links to items, to those of this build: the first definition of a link
// is the one that counts, and the page has no folder beside it.
#![doc = include_str!("../docs/picture.md")]
#![cfg_attr(feature = "std", doc = include_str!("../docs/links.md"))]
#![doc = include_str!("../README.md")]
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
// Default features are no badge.
#![cfg_attr(docsrs, doc(auto_cfg(hide(feature = "std"))))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

// In this order, and apart from the rest: it is that of the groups of methods on the pages of the docs, where what a token
// is comes before what it is as a context.
mod token;
mod tree;

#[cfg(any(test, doctest))]
mod api_soundness;
#[cfg(feature = "std")]
mod context;
#[cfg(feature = "std")]
mod group;
#[cfg(not(feature = "std"))]
mod integrations;
#[cfg(feature = "std")]
pub mod integrations;
mod sync;
#[cfg(feature = "std")]
mod timer;

// What others call a type stands at its `pub use`, and not where it is defined: rustdoc (1.95) leaves the aliases of what is
// re-exported from a private module out of its search.
#[cfg(feature = "std")]
#[doc(alias("CancelFunc", "CancelCauseFunc", "CancelScope"))]
pub use context::CancelGuard;
#[cfg(feature = "std")]
#[doc(alias("CancelFunc", "AbortController", "AbortHandle", "StopSource"))]
pub use context::Canceller;
#[cfg(feature = "std")]
#[doc(alias("context.Context", "CancelScope", "Job"))]
pub use context::Context;
#[cfg(feature = "testing")]
#[doc(alias("pause", "advance", "FakeClock"))]
pub use context::TestClock;
#[cfg(feature = "std")]
pub use context::{
    CancelledOwned, CauseOnDrop, DeadlineGuard, Done, DoneOwned, DoneSignal, ForeignContext,
    GraceOver, GuardedContext, IdleGuard, IdleTimeout,
};
#[cfg(feature = "inspect")]
pub use group::snapshot as inspect;
#[cfg(feature = "std")]
#[doc(alias(
    "errgroup",
    "WaitGroup",
    "TaskTracker",
    "JoinSet",
    "nursery",
    "TaskGroup",
    "coroutineScope"
))]
pub use group::Group;
#[cfg(feature = "std")]
#[doc(alias("nursery", "WaitGroup"))]
pub use group::Scope;
#[cfg(feature = "std")]
#[doc(alias = "TaskTracker")]
pub use group::Spawner;
#[cfg(feature = "std")]
pub use group::{
    Closed, Full, Member, Named, Outcome, Outcomes, Panicked, Partial, Refused, Report, TaskInfo,
    Tracked, Unfinished,
};
pub use integrations::future_ext::FutureExt;
#[doc(alias(
    "CancellationTokenSource",
    "AbortSignal",
    "AbortController",
    "StopToken",
    "stop_token",
    "stop_source"
))]
pub use token::CancellationToken;
#[doc(alias("CancellationTokenRegistration", "stop_callback"))]
pub use token::Registration;
#[cfg(feature = "std")]
pub use token::StopAndWaitOnDrop;
pub use token::{
    DropGuard, DropGuardRef, StaticToken, StopOnDrop, WaitForCancellationFuture,
    WaitForCancellationFutureOwned, WeakToken, WithCancellationToken, WithCancellationTokenOwned,
};
pub use tree::{Cause, ContextError, GuardDropped, TokenId};

/// For models: gives the calling loom thread a number other than 0, so that it may shard a parent.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub fn set_thread_number(number: usize) {
    sync::thread::set_number(number);
}

/// For models: puts shards under a token, as two threads do that meet there.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub fn shard(token: &CancellationToken) {
    token.handle().grow();
}

/// For models: how many rooms the token's waiters have made. No other thread is at it.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub fn rooms(token: &CancellationToken) -> usize {
    token.handle().rooms()
}

/// For models: a callback that runs when tasks and threads are woken.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub fn on_wake(token: &CancellationToken, f: impl FnOnce() + Send + 'static) -> Registration {
    token.on_wake(f)
}

/// For models: what a thread does that has slept until the context's deadline.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub fn notice(ctx: &Context, now: std::time::Instant) {
    if let Some(token) = ctx.token() {
        token.handle().expire(timer::clock::at_or_before(now));
    }
}

/// For models: how threads sleep there, and wait.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub mod parking {
    pub use crate::sync::parking::{current, park, Thread};

    /// Blocks until it is done.
    pub fn until(done: impl FnMut(&core::task::Waker) -> bool) {
        crate::sync::park::until(None, done);
    }
}

/// For models: what `inspect` finds by, apart from what stands in it.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub use context::registry::{Key, Number, Registry};
/// For models: what `inspect` notes, apart from where that happens.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub use group::noted;

/// For randomised schedules: how much memory the trees have.
#[cfg(cancel_tree_shuttle)]
#[doc(hidden)]
pub fn live() -> usize {
    sync::live()
}

/// For `benches/scale`: what a thread does to shared memory.
#[cfg(cancel_tree_counting)]
#[doc(hidden)]
pub mod counting {
    pub use crate::sync::{accesses, note, Access, AtomicBool, Kind};
}

/// For models: how the service's thread is started.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub mod starting {
    pub use crate::timer::by_hand::{starts_by, stay, Bed};
    pub use crate::timer::one_thread::{OneThread, Sleeper};
}

/// For models: threads that stand still.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub use timer::by_hand::Stop;
/// For models and fuzzers: the service thread's work, turned by hand.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
#[doc(hidden)]
pub use timer::by_hand::{Due, Service};
#[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
#[doc(hidden)]
pub use timer::by_hand::{Hand, Shared};

// Its examples are run where there is loom: tests/loom_outside.
#[cfg(any(cancel_tree_loom, all(doc, not(doctest), feature = "std")))]
#[doc = include_str!("../docs/LOOM.md")]
pub mod models {
    #[cfg(cancel_tree_loom)]
    pub use crate::timer::by_hand::{Due, Service};

    /// Sets whether the models that this OS thread checks from now on try all orders of this crate's accesses, as they do
    /// unless told otherwise; see [the page](self).
    #[cfg(cancel_tree_loom)]
    pub fn set_all_orders(all: bool) {
        crate::sync::set_all_orders(all);
    }
}

#[cfg(all(any(doc, doctest), feature = "std"))]
/// Stories of what goes wrong and what to write instead; tables for readers who come from Go, tokio-util and others; pitfalls.
#[doc = include_str!("../docs/GUIDE.md")]
pub mod guide {}

// Compiled and run by the package examples/recipes, which has what they need.
#[cfg(all(doc, not(doctest), feature = "std"))]
/// Whole programs beside axum, hyper, crossbeam, rayon, a database, anyhow and a paused clock.
#[doc = include_str!("../docs/RECIPES.md")]
pub mod recipes {}

// Compiled and run by the package tests/servers, which has what they need.
#[cfg(all(doc, not(doctest), feature = "tower"))]
#[doc = include_str!("../docs/SERVERS.md")]
pub mod servers {}
