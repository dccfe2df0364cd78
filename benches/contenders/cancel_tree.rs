//! This crate.

use std::future::Future;

use super::CancelTree;

pub type Token = cancel_tree::CancellationToken;

// `tokio_util.rs` has the same lines: neither is given a better path.
impl CancelTree for Token {
    const NAME: &'static str = "cancel_tree";
    const ABOUT: &'static str = "this crate's `CancellationToken`";
    const PACKAGE: Option<&'static str> = Some("cancel-tree");
    const HAS_AIMS: bool = true;

    #[inline]
    fn root() -> Self {
        Self::new()
    }

    #[inline]
    fn child(&self) -> Self {
        self.child_token()
    }

    #[inline]
    fn cancel(&self) {
        self.cancel();
    }

    #[inline]
    fn is_cancelled(&self) -> bool {
        self.is_cancelled()
    }

    #[inline]
    fn cancelled(&self) -> impl Future<Output = ()> + Send {
        self.cancelled()
    }

    #[inline]
    fn wait(&self) {
        self.blocking_wait();
    }
}
