//! A receiver for crossbeam-channel's `select!` that disconnects when a context is done (feature `crossbeam-channel`).
//!
//! ```
//! use cancel_tree::Context;
//! use crossbeam_channel::{select, unbounded};
//! use std::thread;
//!
//! let (ctx, guard) = Context::background().with_cancel();
//! let (say, hear) = unbounded();
//! let done = ctx.done_receiver();
//! let worker = thread::spawn(move || {
//!     let mut sum = 0;
//!     loop {
//!         select! {
//!             recv(hear) -> n => sum += n.unwrap_or(0),
//!             recv(done.receiver()) -> _ => return sum,
//!         }
//!         if sum == 3 {
//!             guard.cancel();
//!         }
//!     }
//! });
//! say.send(1).unwrap();
//! say.send(2).unwrap();
//! assert_eq!(worker.join().unwrap(), 3);
//! ```
//!
//! If several arms are ready, `select!` takes one at random. To prefer a message that is already there, look into its channel once more
//! when the context is done.

use crate::context::Context;
use crate::sync::{Arc, UnsafeCell};
use crate::token::{CancellationToken, Registration, StopOnDrop};
use core::convert::Infallible;
use core::fmt;
use core::marker::PhantomData;
use crossbeam_channel::{Receiver, Sender};

/// The type of the messages, of which there are none. `'a` is the time for which the receiver is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Never<'a>(Infallible, PhantomData<&'a ()>);

/// The sender, until the context is done.
struct Slot(UnsafeCell<Option<Sender<Never<'static>>>>);

// SAFETY: after `new` only the callback touches what is in it, which runs once at most, and the drop of the last owner. A
// sender is Send and Sync.
unsafe impl Sync for Slot {}

impl Slot {
    /// By the callback.
    fn disconnect(&self) {
        // SAFETY: the callback runs once, and nobody else reads or writes it while the slot is there.
        drop(self.0.with_mut(|sender| unsafe { (*sender).take() }));
    }
}

struct Shared {
    receiver: Receiver<Never<'static>>,
    /// Owned here too: a context that goes without having been done takes its callback along, but not the sender, whose
    /// drop would be taken for a cancel.
    _slot: Arc<Slot>,
    _callback: StopOnDrop,
}

/// Disconnects when a context is done; made by [`Context::done_receiver`] and [`CancellationToken::done_receiver`].
///
/// Clones share one channel: make one where a loop begins, and clone it for each thread. With the last clone the
/// callback is unregistered and the channel goes. While there is one, it disconnects when the context is done and at no
/// other time: not when the last handle of the context goes, nor when clones of this go.
#[derive(Clone)]
pub struct DoneReceiver(Arc<Shared>);

impl DoneReceiver {
    fn new(register: impl FnOnce(Arc<Slot>) -> Registration) -> DoneReceiver {
        let (sender, receiver) = crossbeam_channel::bounded(0);
        let slot = Arc::new(Slot(UnsafeCell::new(Some(sender))));
        DoneReceiver(Arc::new(Shared {
            receiver,
            _callback: register(slot.clone()).stop_on_drop(),
            _slot: slot,
        }))
    }

    /// Returns the receiver: for `select!`, `Select`, `recv`. It never has a message. Its error says that the context is done.
    ///
    /// A clone of the receiver itself is lent for as long as this is. So none can outlive the channel's other end, and take
    /// its end for a cancel:
    ///
    /// ```
    /// # use cancel_tree::Context;
    /// let done = Context::background().done_receiver();
    /// let clone = done.receiver().clone();
    /// assert!(clone.try_recv().unwrap_err().is_empty());
    /// drop(clone);
    /// drop(done);
    /// ```
    ///
    /// ```compile_fail,E0505
    /// # use cancel_tree::Context;
    /// let done = Context::background().done_receiver();
    /// let clone = done.receiver().clone();
    /// assert!(clone.try_recv().unwrap_err().is_empty());
    /// drop(done);
    /// drop(clone);
    /// ```
    ///
    /// To move it to a thread, clone the [`DoneReceiver`].
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Never<'_>> {
        let receiver: *const Receiver<Never<'static>> = &self.0.receiver;
        // SAFETY: the two types differ in a lifetime alone, and so not in memory; of the type that has it there are no
        // values that could live too long. The receiver lives as long as `self`.
        unsafe { &*receiver.cast() }
    }
}

impl fmt::Debug for DoneReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoneReceiver").finish_non_exhaustive()
    }
}

// Shared by counting; user code does not run in it.
impl core::panic::UnwindSafe for DoneReceiver {}
impl core::panic::RefUnwindSafe for DoneReceiver {}

/// # For `select!` of crossbeam-channel
impl Context {
    /// Creates a receiver that disconnects when the context is done, before the first callback runs, which may wait for who receives, and
    /// before the call that cancels it returns: see [`integrations::crossbeam_channel`](crate::integrations::crossbeam_channel).
    ///
    /// At a deadline it is the timer that disconnects it: in a child made by `fork`, and where no thread can be had, whoever receives has to
    /// bound the wait by [`remaining`](Self::remaining), and ask [`blocking_wait_timeout(Duration::ZERO)`](Self::blocking_wait_timeout) then.
    ///
    /// Cost: two allocations for this crate's part, one for the channel, those of [`on_cancel`](Self::on_cancel). The
    /// canceller takes the channel's own lock for as long as it takes to mark it, and to wake what waits there.
    #[must_use]
    pub fn done_receiver(&self) -> DoneReceiver {
        DoneReceiver::new(|slot| self.on_wake(move || slot.disconnect()))
    }
}

/// # For `select!` of crossbeam-channel
impl CancellationToken {
    /// Creates a receiver that disconnects when the token is cancelled, as [`Context::done_receiver`].
    #[must_use]
    pub fn done_receiver(&self) -> DoneReceiver {
        DoneReceiver::new(|slot| self.on_wake(move || slot.disconnect()))
    }
}
