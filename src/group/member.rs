//! A place that is held.

use super::body::Body;
use super::place::{End, Place};
use crate::context::Context;
use crate::sync::Panics;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

/// A place in a group, counted until it is dropped, or until the work that it was used for is over. Made by
/// [`Spawner::enter`](super::Spawner::enter).
#[must_use = "dropped at once it has counted nothing"]
pub struct Member(NonNull<Place>);

// SAFETY: a place is used by atomics, and given up once, by whoever has the member.
unsafe impl Send for Member {}
// SAFETY: as above.
unsafe impl Sync for Member {}

impl core::panic::UnwindSafe for Member {}
impl core::panic::RefUnwindSafe for Member {}

impl Member {
    /// The place is taken, and nobody else's.
    #[inline]
    pub(super) fn new(place: NonNull<Place>) -> Member {
        Member(place)
    }

    #[inline]
    pub(super) fn at(&self) -> NonNull<Place> {
        self.0
    }

    #[inline]
    pub(crate) fn place(&self) -> &Place {
        // SAFETY: the place is ours.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn body(&self) -> &Body {
        // SAFETY: the place keeps it (G5).
        unsafe { self.place().body().as_ref() }
    }

    /// What is noted of the task, if it has a name.
    #[cfg(feature = "inspect")]
    #[inline]
    pub(crate) fn probe(&self) -> Option<&super::probe::Probe> {
        self.place().probe()
    }

    /// Creates a context below the group's, for the work at this place. It may outlive the place, and does not keep
    /// it.
    ///
    /// Cost: 1 RMW, and 1 to drop it.
    #[inline]
    pub fn context(&self) -> Context {
        self.body().ctx.child()
    }
}

impl Drop for Member {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the place is ours, and not used again.
        unsafe { Member::leave(self.0, End::Done) };
    }
}

impl Member {
    #[inline]
    pub(crate) fn end(self, end: End) {
        let this = ManuallyDrop::new(self);
        // SAFETY: the member is not used again.
        unsafe { Member::leave(this.at(), end) };
    }

    /// The same; what panics then is others' (the waker of one who waits, what a name is told by), and the caller's to say.
    #[inline]
    pub(crate) fn end_with(self, end: End, panics: &mut Panics) {
        let this = ManuallyDrop::new(self);
        // SAFETY: the member is not used again.
        if !unsafe { Place::end_at_once(this.at()) } {
            // SAFETY: the same; it was not given up.
            unsafe { Body::leave(this.at(), end, panics) };
        }
    }

    /// # Safety
    /// The place is the caller's, and is not used again.
    #[inline]
    pub(super) unsafe fn leave(place: NonNull<Place>, end: End) {
        // SAFETY: the caller's promise.
        if !unsafe { Place::end_at_once(place) } {
            // SAFETY: the same; it was not given up.
            unsafe { Member::leave_slowly(place, end) };
        }
    }

    /// # Safety
    /// As for `leave`.
    #[inline(never)]
    unsafe fn leave_slowly(place: NonNull<Place>, end: End) {
        let mut panics = Panics::default();
        // SAFETY: the caller's promise.
        unsafe { Body::leave(place, end, &mut panics) };
        panics.resume();
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("name", &self.place().name())
            .finish_non_exhaustive()
    }
}
