//! When: deadlines, and the threads that see to them. It promises the floors above that what they arm is marked as soon
//! as its moment has passed, never before, whatever others do; then it is woken, then its callbacks run. It knows nothing of
//! what that is: an entry has a table of functions. From below it needs atomics, thread-locals and the catching of panics.
//!
//! There is one service thread in the process. It turns the wheel, marks what is due, and hands what may run user code
//! to workers: so no user code, however slow, delays a deadline. In a forked child, which has no such threads, those that wait do
//! the workers' part (`alone.rs`).
//!
//! It is started by the first deadline or `after_func` callback that needs it, or by a thread that is to sleep where a deadline may come
//! (`token/wait.rs`), and stays. Others talk to it by
//! pushing to one of two lists and, if it would sleep too long, by an unpark. Its answer to the question
//! "did I miss something?" is an RMW on the same list before it sleeps: of a push and that RMW, the
//! later one sees the earlier. So either the push is found, or the pusher reads until when
//! the thread sleeps. Nobody waits for it, nor does it or who hands it something wait for a lock. (There is one, of the list of those that are rung where a
//! thread cannot be had: `bell.rs`.)

mod alone;
mod bell;
pub(crate) mod clock;
#[cfg(not(all(cancel_tree_by_hand, not(cancel_tree_shuttle))))]
mod crew;
mod driver;
pub(crate) mod entry;
mod home;
mod inbox;
pub(crate) mod job;
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
#[doc(hidden)]
mod no_thread;
#[cfg(not(all(cancel_tree_by_hand, not(cancel_tree_shuttle))))]
pub(crate) mod one_thread;
pub(crate) mod pool;
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
mod pressure;
#[cfg_attr(
    all(cancel_tree_by_hand, not(cancel_tree_shuttle)),
    allow(
        dead_code,
        reason = "what only the crew asks, which fuzzers do not run"
    )
)]
mod round;
mod service;
#[cfg(feature = "testing")]
pub(crate) mod testing;
#[cfg(not(feature = "testing"))]
#[path = "no_testing.rs"]
pub(crate) mod testing;
#[cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]
mod thread;
pub(crate) mod trigger;
mod turning;
mod wheel;
#[cfg(not(all(cancel_tree_by_hand, not(cancel_tree_shuttle))))]
mod workers;

pub(crate) use alone::see_to_jobs;
#[allow(unused_imports)] // It depends on the features who needs it.
pub(crate) use bell::Rung;
pub(crate) use pressure::is_in_parent;
pub(crate) use service::{arm, move_to, run_on_worker, Pushers};

/// Whether deadlines are being watched. They are not if the thread could not be started: then
/// contexts look at the clock themselves. `is_missing`: somebody needs it. `look`: then it is tried again. `start`: somebody may come to
/// need it.
pub(crate) use thread::{is_missing, is_running, look, start};

/// The service as a model has it: turned by hand. In models the clock stands still, until they turn the wheel
/// themselves.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
#[doc(hidden)]
pub mod by_hand;
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
use no_thread::{pressure, thread};
