//! Contexts: deadlines, causes and values, passed down from caller to callee. It promises the floors above one value that
//! says until when and for what, and a guard with the right to end it. It needs tokens to be told by, the tree for deadlines of
//! their nodes and foreign parents, and the timer's clock and workers.

// First, and apart from the rest: so are its methods on its page of the docs.
#[allow(clippy::module_inception)]
mod context;

mod block_on;
mod callback;
mod chain;
mod done;
mod foreign;
mod grace;
mod guard;
mod guarded;
mod limit;
// The models of this one and of others below do without the feature.
#[cfg(any(feature = "inspect", cancel_tree_loom))]
#[cfg_attr(not(feature = "inspect"), allow(dead_code))]
pub(crate) mod looks;
mod moving;
#[cfg(any(feature = "inspect", cancel_tree_loom))]
#[cfg_attr(not(feature = "inspect"), allow(dead_code))]
pub(crate) mod name;
#[cfg(any(feature = "inspect", cancel_tree_loom))]
#[cfg_attr(not(feature = "inspect"), allow(dead_code))]
pub(crate) mod observe;
mod origin;
#[cfg(any(feature = "inspect", cancel_tree_loom))]
pub(crate) mod registry;
mod shown;
#[cfg(feature = "testing")]
mod testing;
mod values;
mod wait;

pub use context::Context;
pub use done::{CancelledOwned, Done, DoneOwned};
pub use foreign::{DoneSignal, ForeignContext};
pub use grace::GraceOver;
pub use guard::{CancelGuard, Canceller, CauseOnDrop};
pub use guarded::GuardedContext;
#[cfg(any(feature = "inspect", cancel_tree_loom))]
pub(crate) use looks::{Looks, Told};
pub use moving::{DeadlineGuard, IdleGuard, IdleTimeout};
#[cfg(feature = "testing")]
pub use testing::TestClock;
