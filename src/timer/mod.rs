//! The timer: what it knows of a deadline, and the wheel that tells which one is next. The thread
//! that turns the wheel is `service`'s.

pub(crate) mod clock;
pub(crate) mod entry;
pub(crate) mod wheel;
