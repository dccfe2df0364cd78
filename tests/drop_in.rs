//! Changing the `use` line is all that a program written for tokio-util's token needs.
//!
//! One source, `drop_in/suite.rs`, is compiled twice and must pass twice. It contains what
//! tokio-util's documentation and CHANGELOG promise: names, signatures, bounds, auto traits and
//! behaviour.

mod ours {
    use cancel_tree::{
        CancellationToken, DropGuard, DropGuardRef, FutureExt, WaitForCancellationFuture,
        WaitForCancellationFutureOwned,
    };

    include!("drop_in/suite.rs");
}

mod theirs {
    use tokio_util::future::FutureExt;
    use tokio_util::sync::{
        CancellationToken, DropGuard, DropGuardRef, WaitForCancellationFuture,
        WaitForCancellationFutureOwned,
    };

    include!("drop_in/suite.rs");
}
