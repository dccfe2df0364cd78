//! What the targets share.

pub mod allocations;
pub mod clock;
pub mod oracle;
pub mod probes;
