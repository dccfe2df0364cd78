//! The one door through which every contender is measured.

use std::future::Future;

/// A tree of cancellation tokens.
pub trait Contender: Clone + Send + Sync {
    /// Names the contender in the ids of its benchmarks.
    const NAME: &'static str;

    fn root() -> Self;
    fn child(&self) -> Self;
    fn cancel(&self);
    fn is_cancelled(&self) -> bool;
    fn cancelled(&self) -> impl Future<Output = ()>;
}

// One source for both, since one is a drop-in for the other: neither can be given a better path.
macro_rules! contender {
    ($token:ty, $name:literal) => {
        impl Contender for $token {
            const NAME: &'static str = $name;

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
            fn cancelled(&self) -> impl Future<Output = ()> {
                self.cancelled()
            }
        }
    };
}

contender!(cancel_tree::CancellationToken, "cancel_tree");
contender!(tokio_util::sync::CancellationToken, "tokio_util");

/// Runs one generic benchmark for each contender, side by side in time, so that a slow drift of
/// the machine does not end up in their ratio.
macro_rules! each_contender {
    ($bench:ident, $group:expr) => {
        $bench::<cancel_tree::CancellationToken>($group);
        $bench::<tokio_util::sync::CancellationToken>($group);
    };
}
pub(crate) use each_contender;
