//! What a request, which is no task of the group's own, does at its place.

use crate::context::Context;
#[cfg(feature = "inspect")]
use crate::group::snapshot::Work;
use crate::group::{End, Member};
use crate::sync::Panics;
use core::any::Any;

impl Member {
    /// What has the place is a future that this context tells to stop.
    #[cfg_attr(not(feature = "inspect"), allow(clippy::unused_self))]
    pub(super) fn is_future_under(&self, _ctx: &Context) {
        #[cfg(feature = "inspect")]
        if let Some(probe) = self.probe() {
            probe.is_told_by(_ctx);
            probe.is_a(Work::Future);
        }
    }

    /// The future has ended, and something else keeps the place.
    #[cfg_attr(not(feature = "inspect"), allow(clippy::unused_self))]
    pub(super) fn is_held_on(&self) {
        #[cfg(feature = "inspect")]
        if let Some(probe) = self.probe() {
            probe.is_a(Work::Held);
        }
    }

    /// A step has panicked: the group says so, and goes on.
    pub(super) fn note_panic(&self, payload: &(dyn Any + Send)) {
        let mut panics = Panics::default();
        let cause = self.place().panicked(payload);
        self.body().failures.note(cause, &mut panics);
        panics.resume();
    }

    /// Drops something of the task's. If that panics, the group says so, and goes on.
    pub(super) fn drop_inside(&self, drop_it: impl FnOnce()) {
        let mut panics = Panics::default();
        panics.catch(|| self.step(drop_it));
        if let Some(payload) = panics.into_payload() {
            self.note_panic(&*payload);
            // User code too.
            let mut later = Panics::default();
            later.catch(|| drop(payload));
            later.swallow();
        }
    }

    /// What was called at the end of its context has panicked: the same.
    pub(super) fn note_panics(&self, of_others: Panics) {
        self.body().failures.note_panics(of_others);
    }

    /// Gives the place up. What panics then is others': the group may be gone with the place, and says nothing of it.
    #[inline]
    pub(super) fn end_quietly(self) {
        let mut panics = Panics::default();
        self.end_with(End::Done, &mut panics);
        panics.swallow();
    }
}
