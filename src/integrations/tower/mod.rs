//! Contexts for requests, in and out (feature `tower`).
//!
//! [`ContextLayer`] around any HTTP or gRPC service gives each request a [`Context`](crate::Context) in its extensions: axum's
//! `Extension<Context>` reads it, and tonic's `request.extensions().get::<Context>()`. It ends when the response's body has ended, and so does all that the
//! handler has started below it. [The page on servers](crate::servers) has the tables: headers, defaults, what is trusted at the edge, what is answered; and
//! whole programs with axum, tonic and hyper.
//!
//! [`PropagateLayer`] around a client sends what is left of the time along, and runs the call under the context.
//!
//! Causes, for [`Cause::downcast_ref`](crate::Cause::downcast_ref):
//!
//! | cause | kind | when |
//! | --- | --- | --- |
//! | [`Completed`] | cancelled | the last frame of the body has been taken |
//! | [`ClientGone`] | cancelled | the response or its body was dropped before its end |
//! | [`HandlerFailed`] | cancelled | the handler panicked, or the service or the body failed |
//! | the server's, as [`Shutdown`] | that one's | the context above ended |
//! | the kind itself | deadline exceeded | the deadline passed |

mod answer;
mod body;
mod causes;
mod counts;
#[cfg(feature = "inspect")]
mod debug;
mod future;
pub mod grpc_timeout;
mod headers;
mod layer;
mod lifetime;
mod member;
mod propagate;
mod service;
mod settings;
mod shared;
mod slot;
mod spawned;
mod task;
mod upgrade;
mod upload;

type BoxError = alloc::boxed::Box<dyn core::error::Error + Send + Sync>;

pub use super::shutdown::Shutdown;
pub use body::ContextBody;
pub use causes::{ClientGone, Completed, HandlerFailed};
pub use counts::Counts;
#[cfg(feature = "inspect")]
pub use debug::{DebugBody, DebugService};
pub use future::ResponseFuture;
pub use headers::{Carried, DeadlineHeader, DeadlineReached};
pub use layer::ContextLayer;
pub use propagate::{CallBody, CallFuture, PropagateLayer, PropagateService};
pub use service::ContextService;
pub use settings::Malformed;
pub use spawned::{Mode, SpawnedFuture, SpawnedLayer, SpawnedService};
pub use task::HandlerTask;
pub use upgrade::UpgradeGuard;
pub use upload::{UploadBody, UploadCut, UploadLayer, UploadService};
