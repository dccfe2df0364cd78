//! What a contender is: the trait, and what it may lack.

use std::future::Future;

/// A tree of cancellation tokens, whose handle may be cloned; to drop the handles is the end of a token.
///
/// What not everybody has stands in [`Need`], and what this contender has not in `LACKS`; to call that is a mistake
/// of the bench, which did not say that it needs it.
pub trait CancelTree: Clone + Send + Sync + 'static {
    /// Names the contender in the ids of its benchmarks.
    const NAME: &'static str;

    /// What it is, for the report.
    const ABOUT: &'static str;

    /// The crate that it comes from, whose version the report tells; none if it is written here.
    const PACKAGE: Option<&'static str>;

    /// Whether there are aims against it: its samples are as many as ours. The others have fewer, so that a run
    /// takes minutes.
    const HAS_AIMS: bool = false;

    /// What it cannot do, each with the reason.
    const LACKS: &'static [(Need, &'static str)] = &[];

    fn root() -> Self;

    /// A token that is cancelled with this one.
    fn child(&self) -> Self {
        lacking::<Self>(Need::Children)
    }

    fn cancel(&self);
    fn is_cancelled(&self) -> bool;

    /// Waits as a task.
    fn cancelled(&self) -> impl Future<Output = ()> + Send {
        async { lacking::<Self>(Need::Async) }
    }

    /// Waits as a thread.
    fn wait(&self) {
        lacking::<Self>(Need::Blocking)
    }
}

/// What a bench asks for beyond a root, clones of it, `cancel` and `is_cancelled`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Need {
    /// `child`.
    Children,
    /// Children that are dropped without a cancel leave nothing behind.
    Churn,
    /// A hundred thousand living children of one parent, and more, at a price that does not grow with them.
    Crowd,
    /// Chains that are a hundred thousand tokens long, and more.
    Depth,
    /// A million tokens, made, cancelled and dropped in a second or so.
    Million,
    /// Every clone may cancel, and is one of the contender's own handles.
    CloneToCancel,
    /// `cancelled`.
    Async,
    /// A million of them, counting each as often as it has tokens above.
    ManyWaits,
    /// `wait`.
    Blocking,
}

fn lacking<T: CancelTree>(need: Need) -> ! {
    panic!(
        "{} does not do this, nor say that it lacks {need:?}",
        T::NAME
    )
}
