//! In a copy of tokio-util, in place of `src/sync/cancellation_token.rs`.

pub use cancel_tree::{
    CancellationToken, WaitForCancellationFuture, WaitForCancellationFutureOwned,
};

pub(crate) mod guard {
    pub use cancel_tree::DropGuard;
}

pub(crate) mod guard_ref {
    pub use cancel_tree::DropGuardRef;
}
