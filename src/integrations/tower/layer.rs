//! What a server wants of its requests' contexts.

use super::counts::{Ceiling, Counts};
use super::headers::DeadlineHeader;
use super::service::ContextService;
use super::settings::{below_both, Malformed, Settings};
use crate::context::Context;
use crate::group::Spawner;
use alloc::sync::Arc;
use core::fmt;
use core::panic::Location;
use core::time::Duration;
use http::header::HeaderName;
use tower_layer::Layer;

/// Gives each request a [`Context`] of its own, in its extensions, and ends it with the response.
///
/// The context is a child of the server's. It is done when the body of the response has ended or is dropped, when the deadline passes, and when
/// the server's is done; see [the module](super) for the causes, and for what is answered at the deadline. If the request has one already, as from
/// another layer around this one, it is a child of that too, and has its values; its [shields](Context::shield) have the grace of both, and end with
/// that which is over first.
///
/// The handler is dropped at the deadline and when the client goes, as axum and hyper do; what it has started is told by the context.
///
/// A request that is turned away here does not come to the service within, and what that has reserved in `poll_ready` (a place of tower's
/// `ConcurrencyLimit`, a slot of its `Buffer`) stays reserved until the next call, or until the service is dropped. Put what reserves further out.
///
/// # Examples
///
/// ```
/// use cancel_tree::integrations::tower::{ContextLayer, DeadlineHeader};
/// use cancel_tree::Context;
/// use std::time::Duration;
///
/// let (server, shutdown) = Context::background().with_cancel();
/// let layer = ContextLayer::new(&server)
///     .max(Duration::from_secs(30))
///     .default_timeout(Duration::from_secs(5))
///     .deadline_from([DeadlineHeader::GRPC]);
/// # let _ = layer;
/// ```
///
/// # Cost
///
/// A child context and its guard, and a value in the request's extensions, which is the only allocation [but for a group](Self::in_group); with a deadline, an entry of the timer and a
/// reading of the clock at each poll.
#[derive(Clone)]
#[must_use = "a layer does nothing unless it is put around a service"]
pub struct ContextLayer {
    pub(super) settings: Settings,
}

impl ContextLayer {
    /// Creates a layer whose contexts are below `ctx`, without a deadline of their own.
    pub fn new(ctx: &Context) -> ContextLayer {
        ContextLayer {
            settings: Settings::new(ctx),
        }
    }

    /// Makes each request a task of this group, from the call until its response has ended or is dropped, and its context is below the
    /// group's, whose values it has; it is done too when that of [`new`](Self::new) is. So [`Group::shutdown`](crate::Group::shutdown) waits for
    /// it. A group that is closed takes none: 503, or gRPC's 14 (UNAVAILABLE); nor does one that is full: 503, or gRPC's 8
    /// (RESOURCE_EXHAUSTED).
    ///
    /// Layers of one group around each other take one place there for a request, with the name that the outermost of them gives it, until all of them are through. (They find it by the request's
    /// extensions.)
    ///
    /// A client that does not read keeps its place: a body that has more to come is not asked for it then, and nothing drops it but the end of its
    /// connection (or of its stream), though its context is done at the deadline. So a [`limit`](crate::Group::limit) (a server's group: `Serve::limit`) needs a server that closes such connections.
    ///
    /// Cost: two allocations for each request, of the outermost of these layers.
    #[track_caller]
    pub fn in_group(mut self, group: &Spawner) -> ContextLayer {
        self.settings.ctx = below_both(group.context(), &self.settings.ctx);
        self.settings.group = Some((group.clone(), Location::caller()));
        self
    }

    /// Names requests by their method and path in reports, as in `GET /search`. Clients choose paths: with the feature `metrics`
    /// each path that is there at the server's end is a value of a label.
    ///
    /// Cost: an allocation and a reading of the clock for each request.
    pub fn named(mut self) -> ContextLayer {
        self.settings.is_named = true;
        self
    }

    /// Sets how long a request may take at most, whatever its headers say.
    pub fn max(mut self, max: Duration) -> ContextLayer {
        self.settings.max = Some(max);
        self
    }

    /// Sets how long a request may take whose headers say nothing. One whose header says more has more, 11,000 years if it likes: what clients may
    /// not exceed is [`max`](Self::max).
    pub fn default_timeout(mut self, default: Duration) -> ContextLayer {
        self.settings.default = Some(default);
        self
    }

    /// Sets which headers are believed. By default none, for at the edge any client can write them.
    pub fn deadline_from(
        mut self,
        headers: impl IntoIterator<Item = DeadlineHeader>,
    ) -> ContextLayer {
        self.settings.from = headers.into_iter().collect();
        self
    }

    /// Sets what is done with a request whose header has no valid deadline.
    pub fn malformed(mut self, malformed: Malformed) -> ContextLayer {
        self.settings.malformed = malformed;
        self
    }

    /// Keeps these headers, as they came, as a value of the context: [`Carried`](super::Carried), in which those are too that a layer further out has kept
    /// under other names.
    pub fn carry(mut self, names: impl IntoIterator<Item = HeaderName>) -> ContextLayer {
        self.settings.carry = names.into_iter().collect();
        self
    }

    /// Sets the share of the requests, within each window of time, that may be turned away as expired on arrival. Those above it are handled as if
    /// their headers said nothing, so that clients with a wrong clock or header are served, if slowly.
    pub fn ceiling(mut self, share: f64, window: Duration) -> ContextLayer {
        self.settings.ceiling = Some(Arc::new(Ceiling::new(share, window)));
        self
    }

    /// Returns what has become of the requests so far, of all services made by this layer and its clones.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.settings.shared.counters.read()
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService::new(inner, Arc::new(self.settings.clone()))
    }
}

impl fmt::Debug for ContextLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings {
            ctx,
            max,
            default,
            from,
            ..
        } = &self.settings;
        f.debug_struct("ContextLayer")
            .field("ctx", ctx)
            .field("max", max)
            .field("default", default)
            .field("deadline_from", from)
            .finish_non_exhaustive()
    }
}
