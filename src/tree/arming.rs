//! How a new token gets what may cancel it from outside the tree: a deadline, fixed, or one that is moved, or started by
//! another token; or a parent of another kind.
//!
//! The deadline's entry in the timer is part of the node's extension and outlives the node: when the
//! node goes, the extension goes to a pool, entry and all, for the next deadline that is
//! set on the thread that made it. `timer/entry.rs` and `timer/pool.rs` say why.

use super::cause::{Cause, ContextError};
use super::deadline::TABLE;
use super::extension::{AnyOf, Extension};
use super::moving::Moving;
use super::timing::{Beside, Foreign, Signal, Starter, Target, Timing};
use super::{asked, start, Handle};
use crate::sync::Arc;
use crate::timer::clock::{self, Moment};
use crate::timer::entry::{Entry, NEVER};
use crate::timer::testing::Clock;
use crate::timer::trigger::Trigger;
use crate::timer::{self, pool};
use alloc::boxed::Box;
use core::any::Any;
use core::ptr::{self, NonNull};
use std::time::Instant;

impl Handle {
    /// Has the timer cancel the token at `deadline`. The token is new: the handle is the only one, and nothing is
    /// below.
    #[inline]
    pub(crate) fn set_deadline(&self, deadline: Moment) {
        if deadline < NEVER {
            self.arm(self.put_extension(), deadline);
        }
    }

    /// The same, with that cause.
    #[cold]
    pub(crate) fn set_deadline_because(&self, deadline: Moment, cause: Cause) {
        if deadline >= NEVER {
            return;
        }
        let extension = self.put_extension();
        // SAFETY: the token's extension, which it has as long as it is held.
        let timing = &unsafe { extension.as_ref() }.timing;
        // SAFETY: neither is shared yet, nor is the deadline armed.
        unsafe { timing.set_cause(cause) };
        self.arm(extension, deadline);
    }

    /// Has a clock of tests cancel the token at that time. One that has passed by now, for the time may have moved on since the
    /// caller looked at it, is as one that has passed at birth. The token is new, or cancelled.
    #[cold]
    pub(crate) fn set_deadline_by(&self, clock: Clock, at: Instant, cause: Option<Cause>) {
        if self.is_cancelled() {
            return;
        }
        let extension = self.put_extension_apart(clock);
        // SAFETY: the token's extension, which it has as long as it is held.
        let timing = unsafe { &extension.as_ref().timing };
        let nanos = clock::nanos(at);
        if let Some(cause) = &cause {
            // SAFETY: neither is shared yet, nor is the deadline armed.
            unsafe { timing.set_cause(cause.clone()) };
        }
        self.note_deadline(at);
        let alarm = timing.alarm();
        let is_armed = alarm
            .filter(|_| clock::moment_of(nanos) < NEVER)
            // SAFETY: new, and the pointer is to all of the extension. The last owner settles the trigger before the node
            // goes, and then takes the entry out of the clock.
            .is_none_or(|alarm| unsafe {
                alarm.arm(extension.cast(), self.0.as_ptr().cast(), nanos)
            });
        if !is_armed {
            self.expire_at_birth(cause.unwrap_or(ContextError::DeadlineExceeded.into()));
        }
    }

    /// The token is new, and is done from the beginning: the deadline that it was to have has passed.
    #[cold]
    pub(crate) fn expire_at_birth(&self, cause: Cause) {
        let extension = match cfg!(feature = "testing") {
            // A clock may have been noted.
            true => self.node().link.extension_raw(),
            false => None,
        };
        let extension = extension.unwrap_or_else(|| self.put_extension_unarmed());
        // SAFETY: the token's extension, which it has as long as it is held.
        let entry = unsafe { &extension.as_ref().timing.entry };
        entry.note_passed();
        self.cancel_with(cause);
    }

    /// When the deadline is that was set, to be asked for by those below. The token is new, as for `set_deadline`.
    #[inline]
    pub(crate) fn note_deadline(&self, deadline: Instant) {
        let extension = self.node().link.extension_raw();
        let extension = extension.unwrap_or_else(|| self.put_extension_unarmed());
        // SAFETY: the token's extension, which it has as long as it is held.
        let exact = unsafe { &extension.as_ref().timing.exact };
        // SAFETY: the node is not shared, and the timer does not look at this.
        exact.with_mut(|exact| unsafe { *exact = Some(deadline) });
    }

    /// The token is new, and under that clock, as is what will be below it.
    pub(crate) fn note_clock(&self, clock: Clock) {
        // What is done has no time.
        if !self.is_cancelled() {
            self.put_extension_apart(clock);
        }
    }

    #[inline]
    fn arm(&self, extension: NonNull<Extension>, deadline: Moment) {
        let node = self.0.as_ptr().cast();
        // SAFETY: out of the pool, or new. The pointer is to all of the extension, so that it can be freed through it. The last owner
        // settles the trigger before the node goes.
        unsafe { timer::arm(extension.cast(), node, deadline) };
    }

    /// An extension for a new token.
    #[inline]
    fn put_extension(&self) -> NonNull<Extension> {
        let new = |entry| Extension::of_timing(Timing::with(entry)).cast();
        let extension = pool::take(&TABLE, new).cast();
        self.node().link.put_extension_unshared(extension);
        extension
    }

    /// An extension for a new token whose deadline is none for the timer: it is too far away, or has passed.
    #[cold]
    fn put_extension_unarmed(&self) -> NonNull<Extension> {
        let extension = self.put_extension();
        // SAFETY: the token's extension, which it has as long as it is held.
        let entry = unsafe { &extension.as_ref().timing.entry };
        entry.set_owner(ptr::null_mut());
        extension
    }

    /// An extension for a new token, which is under that clock.
    #[inline]
    fn put_extension_by(&self, clock: Option<Clock>) -> NonNull<Extension> {
        match clock {
            None => self.put_extension(),
            Some(clock) => self.put_extension_apart(clock),
        }
    }

    /// The same. Its entry is in no pool, and the timer has never seen it.
    #[cold]
    fn put_extension_apart(&self, clock: Clock) -> NonNull<Extension> {
        let link = &self.node().link;
        if let Some(noted) = link.extension_raw() {
            return noted;
        }
        let extension = Extension::of_timing(Timing::with(Entry::homeless(&TABLE)));
        let timing = &link.put_extension_unshared(extension).timing;
        // SAFETY: the token is new.
        unsafe { timing.alarm.put(clock) };
        extension
    }

    /// A root below a parent of another kind: `subscribe` is given the signal by which that cancels the
    /// token, and what it returns is dropped when the token goes.
    pub(crate) fn below_foreign(
        deadline: Option<(Moment, Instant)>,
        subscribe: impl FnOnce(Signal) -> Box<dyn Any + Send>,
    ) -> Handle {
        asked::note_foreign();
        let handle = Handle::root();
        match deadline {
            Some((_, exact)) => handle.note_deadline(exact),
            None => {
                let extension = Extension::new(AnyOf::No, Box::default());
                handle.node().link.put_extension_unshared(extension);
            }
        }
        let node = handle.node();
        let Some(timing) = node.link.timing() else {
            unreachable!("put there just now");
        };
        let signal = Arc::new(Target {
            trigger: Trigger::armed(),
            node: NonNull::from(node),
        });
        let set = |foreign| timing.set_beside(Beside::Foreign(foreign));
        set(Foreign {
            signal: signal.clone(),
            _subscription: Box::new(()),
        });
        // User code. It may signal at once; if it panics, the handle's drop settles everything.
        let subscription = subscribe(Signal(signal.clone()));
        set(Foreign {
            signal,
            _subscription: subscription,
        });
        // Last: from here on the timer looks at what is beside the deadline.
        if let Some((deadline, _)) = deadline.filter(|(deadline, _)| *deadline < NEVER) {
            if let Some(extension) = node.link.extension_raw() {
                handle.arm(extension, deadline);
            }
        }
        handle
    }
}

impl Handle {
    /// The token's deadline can be moved; there is none yet. The token is new.
    pub(crate) fn make_movable(&self, moving: Arc<Moving>, cause: Option<Cause>) {
        let timing = self.put_movable(&moving);
        timing.set_moving(moving);
        if let Some(cause) = cause {
            // SAFETY: neither is shared yet, nor is the deadline armed.
            unsafe { timing.set_cause(cause) };
        }
    }

    /// What the timing of a token is whose deadline can be moved, by what is not there yet. The token is new.
    fn put_movable(&self, moving: &Moving) -> &Timing {
        if !moving.is_idle() {
            asked::note_movable();
        }
        let extension = self.put_extension_by(moving.clock.clone());
        // SAFETY: the token's extension, which it has as long as it is held.
        let timing = unsafe { &extension.as_ref().timing };
        timing.entry.set_owner(self.0.as_ptr().cast());
        timing
    }

    /// Gives the token a deadline so many nanoseconds after `soft` is cancelled; after now, if it is already. `because` makes
    /// its cause of that of `soft`, which the token keeps, and by which it is not kept. Both are new.
    pub(crate) fn start_with(
        &self,
        soft: &Handle,
        moving: Arc<Moving>,
        after: u64,
        because: fn(Cause) -> Cause,
    ) {
        let hard = self.make_startable(moving, soft);
        if let Err(refused) = soft.put_waker(start::waker(hard, soft, after, because)) {
            refused.wake();
        }
    }

    /// The token's deadline can be moved; there is none yet. The answer is the right to [start](Signal::start_deadline) it, without
    /// holding the token, which keeps `soft`. The token is new.
    fn make_startable(&self, moving: Arc<Moving>, soft: &Handle) -> Signal {
        let signal = Arc::new(Target {
            trigger: Trigger::armed(),
            node: self.0,
        });
        let starter = Starter {
            signal: signal.clone(),
            soft: soft.clone(),
        };
        let timing = self.put_movable(&moving);
        timing.set_beside(Beside::Moving(moving, Some(starter)));
        Signal(signal)
    }
}
