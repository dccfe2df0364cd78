#![doc = include_str!("../README.md")]
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod callback;
mod cause;
mod future;
mod guard;
#[cfg(feature = "std")]
mod park;
mod sync;
mod token;
mod tree;

pub use callback::{Registration, StopOnDrop};
pub use cause::{Cause, ContextError};
pub use future::{
    FutureExt, WaitForCancellationFuture, WaitForCancellationFutureOwned, WithCancellationToken,
    WithCancellationTokenOwned,
};
pub use guard::{DropGuard, DropGuardRef};
pub use token::CancellationToken;

/// For models: gives the calling loom thread a number other than 0, so that it may shard a parent.
#[cfg(cancel_tree_loom)]
#[doc(hidden)]
pub fn set_thread_number(number: usize) {
    sync::thread::set_number(number);
}
