//! The process's one service thread. It turns the timer's wheel, and hands what may run user code (deadlines
//! that have passed, `after_func` callbacks) to workers, which come and go: so no user code, however slow,
//! delays a deadline.
//!
//! It is started by the first deadline or `after_func` callback that needs it and stays. Others talk to it by
//! pushing to one of two lists and, if it would sleep too long, by an unpark. Its answer to the question
//! "did I miss something?" is an RMW on the same list before it sleeps: of a push and that RMW, the
//! later one sees the earlier. So either the push is found, or the pusher reads until when
//! the thread sleeps. Nobody takes a lock, and nobody waits for it.

pub(crate) mod clock;
pub(crate) mod entry;
mod inbox;
pub(crate) mod job;
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
mod thread;
pub(crate) mod wheel;
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
mod workers;

pub(crate) use inbox::{note_abandoned, run_on_worker, schedule};

/// Whether deadlines are being watched. They are not if the thread could not be started: then
/// contexts look at the clock themselves.
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
pub(crate) use thread::{is_missing, is_running};

/// In models the clock stands still, until they turn the wheel themselves.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
pub(crate) fn is_running() -> bool {
    true
}

/// The same.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
pub(crate) fn is_missing() -> bool {
    false
}

/// The service as a model has it: turned by hand.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
#[doc(hidden)]
pub mod by_hand;
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
use by_hand::thread;
