//! Contexts: deadlines, causes and values, passed down from caller to callee.

// First, and apart from the rest: so are its methods on its page of the docs.
#[allow(clippy::module_inception)]
mod context;

mod block_on;
mod chain;
mod done;
mod foreign;
mod grace;
mod guard;
mod limit;
#[cfg(feature = "inspect")]
pub(crate) mod looks;
mod moving;
#[cfg(feature = "inspect")]
pub(crate) mod name;
#[cfg(feature = "inspect")]
pub(crate) mod observe;
// Its models do without the feature.
#[cfg(any(feature = "inspect", cancel_tree_loom))]
pub(crate) mod registry;
#[cfg(feature = "testing")]
mod testing;
mod values;

pub use context::Context;
pub use done::{CancelledOwned, Done, DoneOwned};
pub use foreign::{DoneSignal, ForeignContext};
pub use grace::GraceOver;
pub use guard::{CancelGuard, Canceller, CauseOnDrop, GuardedContext};
#[cfg(feature = "inspect")]
pub(crate) use looks::{Looks, Told};
pub use moving::{DeadlineGuard, IdleGuard, IdleTimeout};
#[cfg(feature = "testing")]
pub use testing::TestClock;
