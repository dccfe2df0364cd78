//! tokio-util's token, which this crate takes the place of.

use std::future::Future;

use super::{CancelTree, Need};

pub type Token = tokio_util::sync::CancellationToken;

// `cancel_tree.rs` has the same lines: neither is given a better path.
impl CancelTree for Token {
    const NAME: &'static str = "tokio_util";
    const ABOUT: &'static str = "`CancellationToken`: a mutex in each node";
    const PACKAGE: Option<&'static str> = Some("tokio-util");
    const HAS_AIMS: bool = true;
    const LACKS: &'static [(Need, &'static str)] =
        &[(Need::Blocking, "it has no wait for threads")];

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
}
