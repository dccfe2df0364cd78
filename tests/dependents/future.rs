//! In a copy of tokio-util, in place of `src/future.rs`.

pub use cancel_tree::FutureExt;
