//! A flag and an event of event-listener's for each token, which knows its parent: see `chain.rs`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use event_listener::{listener, Event};
use futures::future::{select, select_all};

use super::chain::Link;
use super::{CancelTree, Need};

#[derive(Clone)]
pub struct Token(Arc<Link<Flag>>);

#[derive(Default)]
pub struct Flag {
    is_raised: AtomicBool,
    event: Event,
}

impl CancelTree for Token {
    const NAME: &'static str = "event_listener";
    const ABOUT: &'static str =
        "a flag and an `Event` behind an `Arc`; a child looks at those of all above";
    const PACKAGE: Option<&'static str> = Some("event-listener");
    const LACKS: &'static [(Need, &'static str)] = &[
        (
            Need::Blocking,
            "a thread can block on one event, but a child listens to one for each token above",
        ),
        (
            Need::ManyWaits,
            "a child's wait is a listener for each token above, too",
        ),
    ];

    #[inline]
    fn root() -> Self {
        Self(Link::new(Flag::default(), None))
    }

    #[inline]
    fn child(&self) -> Self {
        Self(Link::new(Flag::default(), Some(self.0.clone())))
    }

    #[inline]
    fn cancel(&self) {
        self.0.signal.is_raised.store(true, Ordering::Release);
        self.0.signal.event.notify(usize::MAX);
    }

    #[inline]
    fn is_cancelled(&self) -> bool {
        self.0
            .up()
            .any(|flag| flag.is_raised.load(Ordering::Acquire))
    }

    #[inline]
    async fn cancelled(&self) {
        if self.is_cancelled() {
            return;
        }
        // Its own is on the stack, and a root allocates nothing.
        listener!(self.0.signal.event => own);
        let above: Vec<_> = self
            .0
            .up()
            .skip(1)
            .map(|flag| flag.event.listen())
            .collect();
        // Whoever cancels from here on sees the listeners.
        if self.is_cancelled() {
            return;
        }
        if above.is_empty() {
            own.await;
        } else {
            select(own, select_all(above)).await;
        }
    }
}
