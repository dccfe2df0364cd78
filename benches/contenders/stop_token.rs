//! stop-token: a source that stops its tokens when it is dropped.

use std::future::Future;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use stop_token::{StopSource, StopToken};

use super::{CancelTree, Need};

#[derive(Clone)]
pub struct Token(Arc<Pair>);

pub struct Pair {
    /// To cancel is to drop it, which only its owner can.
    source: Mutex<Option<StopSource>>,
    token: StopToken,
}

impl CancelTree for Token {
    const NAME: &'static str = "stop_token";
    const ABOUT: &'static str = "a `StopSource` to drop, and its `StopToken`";
    const PACKAGE: Option<&'static str> = Some("stop-token");
    const LACKS: &'static [(Need, &'static str)] = &[
        (Need::Children, "a source has tokens, but no children"),
        (Need::CloneToCancel, "its source cannot be cloned"),
        (Need::Blocking, "it has no wait for threads"),
    ];

    #[inline]
    fn root() -> Self {
        let source = StopSource::new();
        Self(Arc::new(Pair {
            token: source.token(),
            source: Mutex::new(Some(source)),
        }))
    }

    #[inline]
    fn cancel(&self) {
        drop(self.0.source.lock().expect("nobody panics with it").take());
    }

    /// A token is a future and nothing else: the one way to ask it is to poll it once.
    #[inline]
    fn is_cancelled(&self) -> bool {
        self.cancelled().now_or_never().is_some()
    }

    #[inline]
    fn cancelled(&self) -> impl Future<Output = ()> + Send {
        self.0.token.clone()
    }
}
