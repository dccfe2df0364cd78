//! A channel of tokio's `watch` for each token, which knows its parent: see `chain.rs`.

use std::sync::Arc;

use futures::future::select_all;
use tokio::sync::watch;

use super::chain::Link;
use super::{CancelTree, Need};

/// The other way would be a task for each child that passes the parent's word on: a runtime, and a wake-up for each.
#[derive(Clone)]
pub struct Token(Arc<Link<watch::Sender<bool>>>);

impl CancelTree for Token {
    const NAME: &'static str = "watch";
    const ABOUT: &'static str =
        "tokio's `watch::Sender<bool>` behind an `Arc`; a child looks at those of all above";
    const PACKAGE: Option<&'static str> = Some("tokio");
    const LACKS: &'static [(Need, &'static str)] = &[
        (Need::Blocking, "it has no wait for threads"),
        (
            Need::ManyWaits,
            "a child's wait is a receiver for each token above, too",
        ),
    ];

    #[inline]
    fn root() -> Self {
        Self(Link::new(watch::Sender::new(false), None))
    }

    #[inline]
    fn child(&self) -> Self {
        let own = watch::Sender::new(false);
        Self(Link::new(own, Some(self.0.clone())))
    }

    #[inline]
    fn cancel(&self) {
        self.0.signal.send_replace(true);
    }

    #[inline]
    fn is_cancelled(&self) -> bool {
        self.0.up().any(|sender| *sender.borrow())
    }

    #[inline]
    async fn cancelled(&self) {
        if self.0.parent().is_none() {
            return raised(&self.0.signal).await;
        }
        select_all(self.0.up().map(|sender| Box::pin(raised(sender)))).await;
    }
}

async fn raised(sender: &watch::Sender<bool>) {
    let mut receiver = sender.subscribe();
    let value = receiver.wait_for(|&is_raised| is_raised).await;
    value.expect("the sender is alive, for it is borrowed");
}
