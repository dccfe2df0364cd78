//! Adapters to contexts of other crates, each behind the feature that has its name.

#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(feature = "tokio-util")]
pub mod tokio_util;
#[cfg(feature = "tower")]
pub mod tower;
