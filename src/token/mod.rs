//! The token: what a user of the tree holds, and all the ways to wait for it.

mod callback;
mod fixed;
mod future;
mod guard;
#[allow(clippy::module_inception)]
mod token;
#[cfg(feature = "std")]
pub(crate) mod wait;
mod weak;

#[cfg(feature = "std")]
pub use callback::StopAndWaitOnDrop;
pub use callback::{Registration, StopOnDrop};
pub use fixed::StaticToken;
pub use future::{
    FutureExt, WaitForCancellationFuture, WaitForCancellationFutureOwned, WithCancellationToken,
    WithCancellationTokenOwned,
};
pub use guard::{DropGuard, DropGuardRef};
pub use token::CancellationToken;
pub use weak::WeakToken;
