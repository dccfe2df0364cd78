//! What an extension has for a deadline and a foreign parent, and the signal of the latter.

use super::cause::Cause;
use super::moving::Moving;
use super::{Handle, Node};
use crate::sync::{Arc, Panics, UnsafeCell};
use crate::timer::clock::Moment;
use crate::timer::entry::Entry;
use crate::timer::testing::{Alarm, AlarmCell};
use crate::timer::trigger::Trigger;
use alloc::boxed::Box;
use core::any::Any;
use core::mem;
use core::ptr::NonNull;
use std::time::Instant;

/// The part of the extension that is a deadline's and a foreign parent's. `repr(C)`: the timer knows the extension by the
/// entry, its first field's first field.
#[repr(C)]
pub(super) struct Timing {
    pub(super) entry: Entry,
    /// The deadline's cause. Written before the deadline is armed, read by whatever notices that it has passed.
    pub(super) cause: UnsafeCell<Option<Cause>>,
    /// When that is, as its user has said it. Written by the creator of the node.
    pub(super) exact: UnsafeCell<Option<Instant>>,
    /// Written by the creator of the node, emptied by its last owner.
    beside: UnsafeCell<Option<Box<Beside>>>,
    /// The same: the clock of tests that what is here and below is under, and what it knows of the entry. The timer
    /// never sees that then.
    pub(super) alarm: AlarmCell,
}

/// What few nodes have beside the timer's entry.
pub(super) enum Beside {
    Foreign(Foreign),
    /// And what starts the deadline, if that is another token.
    Moving(Arc<Moving>, Option<Starter>),
    /// The node is gone: in a list.
    Left(Handle, Option<Box<Beside>>),
}

/// A parent that is not one of ours.
pub(super) struct Foreign {
    pub(super) signal: Arc<Target>,
    /// Keeps the parent informed of the signal; dropped when the node goes.
    pub(super) _subscription: Box<dyn Any + Send>,
}

impl Foreign {
    /// The signal may still be used: it has not been, and somebody has it. Who fires has it too, and only who has it makes
    /// another one of it; so once there is none there never is.
    fn can_cancel(&self) -> bool {
        self.signal.trigger.is_live() && Arc::strong_count(&self.signal) > 1
    }
}

/// A token that is not above the node, and starts its deadline.
pub(super) struct Starter {
    pub(super) signal: Arc<Target>,
    /// Released when the node has gone.
    pub(super) soft: Handle,
}

/// Handles that nodes have left, to be released in their turn, in the boxes where they were: so nothing is allocated.
#[derive(Default)]
pub(super) struct Released(Option<Box<Beside>>);

impl Released {
    /// Drops what a node had: user code. But for a handle, which is left here, before that is run.
    pub(super) fn leave(&mut self, mut beside: Box<Beside>) {
        let Beside::Moving(_, starter) = &mut *beside else {
            return;
        };
        if let Some(Starter { soft, .. }) = starter.take() {
            let others = self.0.take();
            let of_user = mem::replace(&mut *beside, Beside::Left(soft, others));
            self.0 = Some(beside);
            drop(of_user);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Handle> {
        match *self.0.take()? {
            Beside::Left(handle, others) => {
                self.0 = others;
                Some(handle)
            }
            _ => None,
        }
    }
}

/// What a signal from outside is about.
pub(super) struct Target {
    pub(super) trigger: Trigger,
    /// Good until the trigger is settled or finished.
    pub(super) node: NonNull<Node>,
}

// SAFETY: the trigger decides which thread may use the node.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Timing {
    pub(super) fn with(entry: Entry) -> Timing {
        Timing {
            entry,
            cause: UnsafeCell::new(None),
            exact: UnsafeCell::new(None),
            beside: UnsafeCell::new(None),
            alarm: AlarmCell::new(),
        }
    }

    #[inline]
    pub(super) fn alarm(&self) -> Option<&Alarm> {
        self.alarm.get()
    }

    #[inline]
    fn beside(&self) -> Option<&Beside> {
        // SAFETY: written before the node was shared.
        self.beside.with(|beside| unsafe { (*beside).as_deref() })
    }

    #[inline]
    pub(super) fn foreign(&self) -> Option<&Foreign> {
        match self.beside()? {
            Beside::Foreign(foreign) => Some(foreign),
            _ => None,
        }
    }

    /// The trigger of what acts on the node from outside, beside the timer.
    fn signal(&self) -> Option<&Trigger> {
        match self.beside()? {
            Beside::Foreign(foreign) => Some(&foreign.signal.trigger),
            Beside::Moving(_, Some(starter)) => Some(&starter.signal.trigger),
            _ => None,
        }
    }

    /// What moves the deadline.
    #[inline]
    pub(super) fn moving(&self) -> Option<&Moving> {
        match self.beside()? {
            Beside::Moving(moving, _) => Some(moving),
            _ => None,
        }
    }

    /// The node is new, and the deadline not armed.
    pub(super) fn set_beside(&self, beside: Beside) {
        let beside = Some(Box::new(beside));
        // SAFETY: the node is not shared.
        self.beside.with_mut(|b| unsafe { *b = beside });
    }

    /// The same.
    pub(super) fn set_moving(&self, moving: Arc<Moving>) {
        self.set_beside(Beside::Moving(moving, None));
    }

    /// Why the node is cancelled when its deadline passes.
    ///
    /// # Safety
    /// The deadline is not armed, and nobody else arms it.
    pub(super) unsafe fn set_cause(&self, cause: Cause) {
        // SAFETY: it is read only when the deadline has passed.
        self.cause.with_mut(|c| unsafe { *c = Some(cause) });
    }

    /// The deadline passes, and was not later than that moment. Called by what has made the entry FIRING.
    #[inline]
    pub(super) fn note_due(&self, latest: Moment) {
        // A clock of tests has noted it when it looked.
        if let Some(moving) = self.moving().filter(|_| self.alarm().is_none()) {
            moving.note_due(latest);
        }
    }

    /// Armed for that moment or an earlier one, or about to fire: the moment.
    pub(super) fn due(&self, passed: Moment) -> Option<Moment> {
        let due = self.entry.due(passed).filter(|_| self.alarm().is_none())?;
        if self.entry.has_passed() {
            // A touch has come too late.
            return Some(due);
        }
        let later = self.moving().and_then(|moving| moving.put_off(due));
        later.map_or(Some(due), |later| Some(later).filter(|l| *l <= passed))
    }

    /// A deadline without a cause, or nothing.
    #[inline]
    pub(super) fn is_bare(&self) -> bool {
        // SAFETY: written before the node was shared.
        self.beside().is_none()
            && self.cause.with(|c| unsafe { (*c).is_none() })
            && self.alarm().is_none()
    }

    /// A trigger that may still fire.
    pub(super) fn can_cancel(&self) -> bool {
        self.entry.trigger().is_live() || self.foreign().is_some_and(Foreign::can_cancel)
    }

    /// A trigger that may still fire, or start the deadline: to be settled.
    pub(super) fn is_live(&self) -> bool {
        // In this order: what comes from outside may arm the entry, and then is through.
        self.signal().is_some_and(Trigger::is_live) || self.can_cancel() || self.is_stood_for()
    }

    /// By a stand-in that the timer has, or is at.
    fn is_stood_for(&self) -> bool {
        let is_any = |moving: &Moving| moving.stand_ins().any(|trigger| trigger.is_live());
        self.moving().is_some_and(is_any)
    }

    /// The last owner's short way: false if the timer is at it.
    #[inline]
    pub(super) fn disarm(&self) -> bool {
        self.entry.trigger().disarm()
    }

    /// The last owner's way: false if a firer is at it, which has been left a handle of the node.
    pub(super) fn settle(&self, node: &Node) -> bool {
        let settle = |trigger: &Trigger| {
            trigger.settle(|| node.word.add_handle(), || node.word.return_handles(1))
        };
        // In this order: what comes from outside may arm the entry.
        self.signal().is_none_or(settle)
            && settle(self.entry.trigger())
            && self
                .moving()
                .is_none_or(|moving| moving.stand_ins().all(settle))
    }

    /// Takes out what is the user's: the deadline's cause, and what is beside it.
    ///
    /// # Safety
    /// The caller is the only owner.
    pub(super) unsafe fn empty(
        &self,
        deadline_cause: &mut Option<Cause>,
        beside: &mut Option<Box<Beside>>,
    ) {
        // SAFETY: the caller's promise; the timer looks at the entry only, and a clock of tests at nothing any more.
        unsafe {
            self.alarm.give_up();
            *deadline_cause = self.cause.with_mut(|c| (*c).take());
            *beside = self.beside.with_mut(|b| (*b).take());
        }
    }
}

/// The right of a foreign parent to cancel a token, without holding it.
#[derive(Clone)]
pub(crate) struct Signal(pub(super) Arc<Target>);

impl Signal {
    /// The trigger becomes FIRING, or the caller joins the one that has made it so. False: the token is gone, or cancelled by
    /// this and through.
    pub(super) fn begin(&self) -> bool {
        self.0.trigger.begin_or_join()
    }

    /// The node, which stays from the caller's `begin` until its `finish`.
    pub(super) fn node(&self) -> NonNull<Node> {
        self.0.node
    }

    /// The caller is through with the node.
    ///
    /// # Safety
    /// FIRING by the caller's `begin`, and this is its end.
    pub(super) unsafe fn finish(&self, panics: &mut Panics) {
        let node = self.0.node;
        if self.0.trigger.finish_one() {
            // The last owner left us its handle.
            panics.catch(|| drop(Handle(node)));
        }
    }
}
