//! What the targets share.

pub mod allocations;
pub mod clock;
pub mod history;
pub mod oracle;
pub mod pool;
pub mod probes;
pub mod span;
pub mod tasks;
