//! Integrations with other crates and with the operating system, each behind the feature of its name. It promises users that what
//! they wait for elsewhere ends with a context; no floor is above. It needs contexts, groups, and callbacks that stay safe where
//! other crates' locks are held.

#[cfg(feature = "crossbeam-channel")]
pub mod crossbeam_channel;
#[cfg(all(unix, feature = "fd"))]
pub mod fd;
pub(crate) mod future_ext;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(all(unix, feature = "process"))]
pub mod process;
#[cfg(all(any(unix, windows), feature = "serve"))]
pub mod serve;
#[cfg(any(feature = "serve", feature = "tower"))]
mod shutdown;
#[cfg(all(any(unix, windows), feature = "signals"))]
pub mod signals;
#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(feature = "tokio-util")]
pub mod tokio_util;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "tracing")]
pub mod tracing;
