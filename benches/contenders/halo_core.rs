//! halo-core, the one other crate with all of what Go's `context` has.

use std::future::{poll_fn, Future};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use halo_core::context::{Background, CancelFunc, Context, WithCancel};

use super::{CancelTree, Need};

#[derive(Clone)]
pub struct Token(Arc<Pair>);

pub struct Pair {
    context: Context,
    cancel: Mutex<Option<CancelFunc>>,
}

impl Token {
    fn below(parent: Context) -> Self {
        let (context, cancel) = WithCancel(parent);
        let cancel = Mutex::new(Some(cancel));
        Self(Arc::new(Pair { context, cancel }))
    }
}

impl CancelTree for Token {
    const NAME: &'static str = "halo_core";
    const ABOUT: &'static str = "`WithCancel`, a context and the function that cancels it";
    const PACKAGE: Option<&'static str> = Some("halo-core");
    const LACKS: &'static [(Need, &'static str)] = &[
        (
            Need::Churn,
            "a parent keeps its dropped children until it is cancelled",
        ),
        (
            Need::Crowd,
            "each handle that is dropped looks at all children of its token",
        ),
        (
            Need::Depth,
            "it cancels by recursion, which a long chain has no stack for",
        ),
        (
            Need::Million,
            "a tree of a million takes it seconds, to make, to cancel and to drop",
        ),
        (Need::CloneToCancel, "its cancel function cannot be cloned"),
    ];

    #[inline]
    fn root() -> Self {
        Self::below(Background())
    }

    #[inline]
    fn child(&self) -> Self {
        Self::below(self.0.context.clone())
    }

    #[inline]
    fn cancel(&self) {
        let cancel = self.0.cancel.lock().expect("nobody panics with it").take();
        if let Some(cancel) = cancel {
            cancel();
        }
    }

    #[inline]
    fn is_cancelled(&self) -> bool {
        self.0.context.err().is_some()
    }

    #[inline]
    async fn cancelled(&self) {
        let mut done = pin!(self.0.context.done_async());
        // Its future looks first and registers then: it would sleep through a cancel between the two.
        poll_fn(|cx| match done.as_mut().poll(cx) {
            Poll::Pending if self.is_cancelled() => Poll::Ready(()),
            polled => polled,
        })
        .await;
    }

    #[inline]
    fn wait(&self) {
        self.0.context.done().wait();
    }
}
