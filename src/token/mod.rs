//! The token: what a user of the tree holds, and all the ways to wait for it. It promises the floors above tokens whose waiters
//! (tasks, threads, callbacks) are told of a cancel once, in safe code. From the tree it needs counted handles, waiters'
//! places in it and causes; from the timer, threads that run callbacks, clocks, to know whether deadlines are watched, and in a forked
//! child the workers' part for those who wait.

// First, for it begins the token's page in the documentation.
#[allow(clippy::module_inception)]
mod token;

mod callback;
mod fixed;
mod future;
mod guard;
#[cfg(feature = "std")]
pub(crate) mod wait;
mod weak;

#[cfg(feature = "std")]
pub use callback::StopAndWaitOnDrop;
pub use callback::{Registration, StopOnDrop};
pub use fixed::StaticToken;
pub use future::{
    WaitForCancellationFuture, WaitForCancellationFutureOwned, WithCancellationToken,
    WithCancellationTokenOwned,
};
pub use guard::{DropGuard, DropGuardRef};
pub use token::CancellationToken;
pub use weak::WeakToken;
