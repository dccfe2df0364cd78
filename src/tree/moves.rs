//! The steps that move a deadline, or start it. What they rely on is in `moving.rs`.

use super::cause::Cause;
use super::moving::NONE;
use super::timing::Signal;
use super::{Handle, Node};
use crate::sync::{Panics, Relaxed};
use crate::timer;
use crate::timer::clock;
use crate::timer::entry::NEVER;

impl Handle {
    /// Moves the deadline: `to` is given what it is, and says what it is to be, in nanoseconds. False: it is too late, for the
    /// token is cancelled or about to be.
    pub(crate) fn move_deadline(&self, to: impl FnMut(Option<u64>) -> Option<u64>) -> bool {
        // SAFETY: held.
        unsafe { move_deadline(self.node(), to) }
    }

    /// Has the timer cancel the token when the period after the last touch is over. The token is new, and movable.
    pub(crate) fn start_idle(&self) {
        let node = self.node();
        let due = node
            .link
            .timing()
            .and_then(|timing| timing.moving()?.nanos(&timing.entry, timing.entry.look()));
        if let Some(due) = due {
            self.move_deadline(|_| Some(due));
        }
    }
}

/// # Safety
/// The caller keeps the node.
unsafe fn move_deadline(node: &Node, mut to: impl FnMut(Option<u64>) -> Option<u64>) -> bool {
    let Some(extension) = node.link.extension_raw() else {
        return false;
    };
    // SAFETY: the token's, as long as it is kept.
    let timing = unsafe { &extension.as_ref().timing };
    let Some(moving) = timing.moving() else {
        return false;
    };
    let mut seen = timing.entry.look();
    loop {
        // The word first: if a deadline has passed and is through with, that shows here.
        if seen.is_firing() || node.word.load().is_cancelled() {
            return false;
        }
        let to = to(moving
            .nanos(&timing.entry, seen)
            .filter(|_| seen.is_armed()));
        let to = to.filter(|nanos| clock::moment_of(*nanos) < NEVER);
        // Relaxed: see the field.
        moving.exact.store(to.unwrap_or(NONE), Relaxed);
        let moment = to.map(clock::moment_of);
        // SAFETY: not FIRING, and the node is kept; the owner was set when the token was made. The pointer is to all of the
        // extension.
        let step = unsafe {
            match timing.alarm() {
                None => timer::move_to(extension.cast(), &moving.pushers, seen, moment),
                Some(alarm) => alarm.move_to(extension.cast(), seen, to).map(|()| true),
            }
        };
        match step {
            Ok(is_known) => {
                if let Some(at) = moment.filter(|_| !is_known) {
                    // SAFETY: kept, and the pointer is to all of the extension.
                    unsafe { moving.stand_ins.look_by(extension.cast(), at) };
                }
                // In time, also if the token is cancelled by now: by this deadline, or by a step beside this one. Where the
                // word was changed and changed back meanwhile, this one is the first of those steps.
                if let Some(alarm) = timing.alarm() {
                    alarm.catch_up(to);
                }
                return true;
            }
            Err(now) => seen = now,
        }
    }
}

/// Sets the deadline for the first and only time, so many nanoseconds from now, and its cause.
///
/// # Safety
/// The caller keeps the node, and nobody else does this.
unsafe fn start_deadline(node: &Node, after: u64, cause: impl FnOnce() -> Cause) {
    if node.word.load().is_cancelled() {
        return;
    }
    let timing = node.link.timing();
    let Some((timing, moving)) = timing.and_then(|timing| Some((timing, timing.moving()?))) else {
        return;
    };
    // SAFETY: the caller's promise: nobody has armed it, nor does anybody else.
    unsafe { timing.set_cause(cause()) };
    let at = moving.now().saturating_add(after);
    // SAFETY: the caller's promise.
    unsafe { move_deadline(node, |_| Some(at)) };
}

impl Signal {
    /// Sets the deadline of a token that was made for that, for the first and only time: so many nanoseconds from now. The cause
    /// is asked for if the token is still there, and not cancelled. Once for each signal.
    pub(super) fn start_deadline(&self, after: u64, cause: impl FnOnce() -> Cause) {
        if !self.begin() {
            return;
        }
        let mut panics = Panics::default();
        // SAFETY: FIRING by the step above, which keeps the node. Nobody else starts it.
        panics.catch(|| unsafe { start_deadline(self.node().as_ref(), after, cause) });
        // SAFETY: the same.
        unsafe { self.finish(&mut panics) };
        panics.resume();
    }
}
