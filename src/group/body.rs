//! What a group is: all that its handles and its tasks share.

use super::failures::Failures;
use super::info::{Panicked, TaskInfo};
use super::label::{Label, Shared};
use super::limit::{Answered, Limit, NoRoom};
use super::place::{Bits, End, Owner, Place};
use super::places::{Found, Places};
use super::refused::{Closed, Full};
use super::seats::Seats;
use super::tally::{Tally, Then};
#[cfg(feature = "inspect")]
use crate::context::observe::{self, Event};
use crate::context::{Canceller, Context};
use crate::sync::{AcqRel, AtomicBool, AtomicU64, AtomicUsize, Panics, Relaxed};
use crate::tree::Cause;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use core::any::Any;
use core::panic::Location;
use core::ptr::NonNull;
use std::panic::{catch_unwind, AssertUnwindSafe};
#[cfg(feature = "inspect")]
use std::time::Instant;

pub(crate) struct Body {
    /// Declared first: what it keeps goes before the context.
    pub(crate) failures: Failures,
    pub(super) ctx: Context,
    canceller: Canceller,
    /// Errors cancel nothing.
    pub(super) keeps_going: AtomicBool,
    places: Places,
    tally: Tally,
    /// How often the tally has come to 0: it tells a waiter to look again.
    pub(super) zeros: AtomicUsize,
    pub(super) seats: Seats,
    pub(super) limit: Limit,
    handles: AtomicU64,
    /// How those that were watched have ended.
    done: AtomicUsize,
    cancelled: AtomicUsize,
    dropped: AtomicUsize,
    /// The group around this one: one handle of it.
    outer: Option<NonNull<Body>>,
    name: Option<Cow<'static, str>>,
    #[cfg(feature = "inspect")]
    record: super::roll::Record,
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    _leak: crate::sync::Track<()>,
}

// SAFETY: all that is shared is by atomics; the context and `Failures` are Send and Sync.
unsafe impl Sync for Body {}
// SAFETY: as above.
unsafe impl Send for Body {}

/// What one look around says to a waiter for the end of all tasks.
pub(super) enum Look {
    Nobody,
    /// Things have changed meanwhile.
    Again,
    /// Whoever ends last wakes those in the seats.
    Wait,
}

/// How those that were watched have ended, since the group was made.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) done: usize,
    pub(super) cancelled: usize,
    pub(super) dropped: usize,
}

impl Body {
    /// With one handle.
    #[cfg_attr(feature = "inspect", track_caller)]
    pub(super) fn allocate(
        above: &Context,
        outer: Option<NonNull<Body>>,
        name: Option<Cow<'static, str>>,
    ) -> NonNull<Body> {
        let (ctx, guard) = above.with_hard_cancel();
        let canceller = guard.canceller();
        guard.detach();
        if let Some(outer) = outer {
            // SAFETY: the caller holds it.
            unsafe { outer.as_ref() }.add_handle();
        }
        #[cfg(feature = "inspect")]
        let record = super::roll::Record::new(
            above,
            // SAFETY: the caller holds it.
            outer.map(|outer| unsafe { outer.as_ref() }.record.number()),
            name.clone(),
            &ctx,
        );
        let body = Box::new(Body {
            #[cfg(feature = "inspect")]
            record,
            failures: Failures::new(),
            ctx,
            canceller,
            keeps_going: AtomicBool::new(false),
            places: Places::new(),
            tally: Tally::new(),
            zeros: AtomicUsize::new(0),
            seats: Seats::new(),
            limit: Limit::new(),
            handles: AtomicU64::new(1),
            done: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            outer,
            name,
            #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
            _leak: crate::sync::Track::new(()),
        });
        // SAFETY: of a Box.
        let body = unsafe { NonNull::new_unchecked(Box::into_raw(body)) };
        #[cfg(feature = "inspect")]
        {
            // SAFETY: made above.
            let key = unsafe { body.as_ref() }.record.key();
            super::roll::put(&key, body);
        }
        body
    }

    // ----- its life ---------------------------------------------------------------------------

    pub(super) fn add_handle(&self) {
        // Relaxed: a handle is made from another one.
        if self.handles.fetch_add(1, Relaxed) > u64::MAX / 2 {
            crate::sync::abort_on_overflow();
        }
    }

    /// # Safety
    /// The handle is counted, and not used again.
    pub(super) unsafe fn release(this: NonNull<Body>) {
        let mut next = Some(this);
        let mut panics = Panics::default();
        // Groups inside groups, one after the other.
        while let Some(this) = next.take() {
            // SAFETY: the handle is there.
            let body = unsafe { this.as_ref() };
            // AcqRel: the release half hands what was done by this handle to the last one, the acquire half is that one's.
            if body.handles.fetch_sub(1, AcqRel) != 1 {
                break;
            }
            let outer = body.outer;
            body.tally.count(1);
            body.tally.set_dropped();
            body.watch();
            // SAFETY: the one counted above.
            unsafe { Body::then(this, body.tally.count_off(1), &mut panics) };
            next = outer;
        }
        panics.resume();
    }

    /// # Safety
    /// The caller was counted in the tally, and does not use the body any more if it has no handle.
    pub(super) unsafe fn count_off(this: NonNull<Body>, panics: &mut Panics) {
        // SAFETY: the tally keeps the body (G5).
        let body = unsafe { this.as_ref() };
        // SAFETY: as above.
        unsafe { Body::then(this, body.tally.count_off(1), panics) };
    }

    /// For reports: a task that is watched ends.
    #[cold]
    fn count_end(&self, end: End) {
        let ends = match end {
            End::Dropped => &self.dropped,
            // By the mark alone: the place is the task's yet, and no place for what is called at an end.
            End::Done if self.ctx.is_marked() => &self.cancelled,
            End::Done => &self.done,
            End::Refused => return,
        };
        // Relaxed: the end of the place hands it on.
        ends.fetch_add(1, Relaxed);
    }

    /// # Safety
    /// As the tally has told the caller, which does not use the body any more if it has no handle.
    unsafe fn then(this: NonNull<Body>, then: Then, panics: &mut Panics) -> bool {
        let is_zero = then != Then::Nothing;
        let mut free = then == Then::Free;
        if then == Then::Wake {
            // SAFETY: a thread that wakes is in the tally.
            let body = unsafe { this.as_ref() };
            // Relaxed: a waiter that is woken sees it by way of the wake-up, and one that looks by itself has left its waker before.
            body.zeros.fetch_add(1, Relaxed);
            body.seats.wake_all(panics);
            free = body.tally.woken() == Then::Free;
        }
        if free {
            // SAFETY: nobody else has it (G5). User code: what the group's context and causes own.
            panics.catch(|| unsafe { Body::free(this) });
        }
        is_zero
    }

    /// # Safety
    /// No other thread has it, except those that have met its record; and the caller does not use it again.
    unsafe fn free(this: NonNull<Body>) {
        #[cfg(feature = "inspect")]
        {
            // SAFETY: the caller's promise.
            let key = unsafe { this.as_ref() }.record.key();
            // SAFETY: the same.
            unsafe { super::roll::end(key) };
        }
        #[cfg(not(feature = "inspect"))]
        // SAFETY: the caller's promise; it is of a Box.
        unsafe {
            drop(Box::from_raw(this.as_ptr()));
        }
    }

    // ----- places -----------------------------------------------------------------------------

    /// A place for a task without a name, where there is nothing to ask for but an empty place. `None` does not say that there is none.
    ///
    /// # Safety
    /// `this` is a body that the caller holds, as it was allocated.
    #[inline]
    pub(super) unsafe fn claim_at_once(
        this: NonNull<Body>,
        from: &'static Location<'static>,
    ) -> Option<NonNull<Place>> {
        // SAFETY: the caller's promise.
        let body = unsafe { this.as_ref() };
        if body.limit.is_set() || body.outer.is_some() || body.has_ended() {
            return None;
        }
        let place = body.places.claim_at_once()?;
        // SAFETY: taken.
        unsafe { place.as_ref() }.describe(from, None);
        Some(place)
    }

    /// A place for a task; or why there is none, and then the permit has been given back.
    ///
    /// # Safety
    /// `this` is a body that the caller holds, as it was allocated; the permit is the caller's.
    pub(super) unsafe fn claim(
        this: NonNull<Body>,
        limited: bool,
        from: &'static Location<'static>,
        name: Option<Cow<'static, str>>,
    ) -> Result<NonNull<Place>, Cause> {
        // SAFETY: the caller's promise.
        let body = unsafe { this.as_ref() };
        let place = match body.claim_here(this, Bits::of(limited)) {
            Ok(place) => place,
            Err(cause) => {
                if limited {
                    let mut panics = Panics::default();
                    body.limit.give_back().wake(&mut panics);
                    panics.resume();
                }
                return Err(cause);
            }
        };
        // SAFETY: taken.
        let at = unsafe { place.as_ref() };
        let mut shared = Shared::nothing();
        if body.outer.is_some() {
            shared = Shared::of_group(&body.ctx, name.is_some());
            // SAFETY: taken above.
            unsafe { Body::claim_around(place, from, name.as_ref(), &shared) }?;
        }
        at.describe(from, Label::new(name, &shared));
        Ok(place)
    }

    fn claim_here(&self, this: NonNull<Body>, bits: Bits) -> Result<NonNull<Place>, Cause> {
        if self.has_ended() {
            return Err(self.why_not(Closed.into()));
        }
        let place = self.places.claim(this.cast(), bits);
        place.map_err(|_| self.why_not(Closed.into()))
    }

    /// Places in all groups around, from the inside out; or why there is none, and then `place` has been given up.
    ///
    /// # Safety
    /// The place is the caller's.
    #[cold]
    unsafe fn claim_around(
        place: NonNull<Place>,
        from: &'static Location<'static>,
        name: Option<&Cow<'static, str>>,
        shared: &Shared,
    ) -> Result<(), Cause> {
        let mut name = name.cloned();
        let mut last = place;
        loop {
            // SAFETY: the place is ours, and keeps its body (G5), which has a handle of the one around.
            let inner = unsafe { last.as_ref().body().as_ref() };
            // SAFETY: as above. What was there was another task's.
            unsafe { last.as_ref() }.set_outer(None);
            let Some(around) = inner.outer else {
                return Ok(());
            };
            name = match (name, &inner.name) {
                (Some(name), Some(group)) => Some(Cow::Owned(alloc::format!("{group}/{name}"))),
                (name, _) => name,
            };
            // SAFETY: as above.
            match unsafe { around.as_ref() }.claim_here(around, Bits::of_inner()) {
                Ok(outer) => {
                    // SAFETY: taken.
                    unsafe { outer.as_ref() }.describe(from, Label::new(name.clone(), shared));
                    // SAFETY: as above.
                    unsafe { last.as_ref() }.set_outer(Some(outer));
                    last = outer;
                }
                Err(cause) => {
                    // SAFETY: the caller's promise.
                    unsafe { place.as_ref() }.describe_nothing();
                    let mut panics = Panics::default();
                    // SAFETY: the caller's promise.
                    unsafe { Body::leave(place, End::Refused, &mut panics) };
                    panics.resume();
                    return Err(cause);
                }
            }
        }
    }

    /// Whether its context is done, for a caller that holds something: what others have left to be called at that end may be
    /// called here, and its panic is noted.
    #[inline]
    fn has_ended(&self) -> bool {
        self.ctx.is_marked() || (self.ctx.is_unattended() && self.finds_its_end())
    }

    #[cold]
    fn finds_its_end(&self) -> bool {
        self.failures.saying_panics(|| _ = self.ctx.is_done());
        self.ctx.is_marked()
    }

    /// The cause of that, if there is one.
    pub(super) fn why_ended(&self) -> Option<Cause> {
        self.has_ended().then(|| self.ctx.marked_cause()).flatten()
    }

    /// The group's own cause, if it has one.
    fn why_not(&self, otherwise: Cause) -> Cause {
        self.why_ended().unwrap_or(otherwise)
    }

    /// A permit of the limit, if there is one. True: it was taken.
    pub(super) fn take_permit(&self) -> Result<bool, Cause> {
        if !self.limit.is_set() {
            return Ok(false);
        }
        self.limit
            .try_take()
            .map(|()| true)
            .map_err(|no| self.no_room(no))
    }

    pub(super) fn no_room(&self, no: NoRoom) -> Cause {
        self.why_not(match no {
            NoRoom::Full => Full.into(),
            NoRoom::Closed => Closed.into(),
        })
    }

    /// Gives a place up, and those around it. Whoever waits for its permit has it before, and is woken when all places are
    /// given up: before those who wait for the last task of the outermost group, whose wakers may block.
    ///
    /// # Safety
    /// The place is the caller's, and is not used again.
    pub(super) unsafe fn leave(place: NonNull<Place>, end: End, panics: &mut Panics) {
        let mut next = Some(place);
        let mut turn_has_come = None;
        while let Some(place) = next.take() {
            // SAFETY: the place is the caller's.
            let at = unsafe { place.as_ref() };
            let this = at.body();
            #[cfg(feature = "inspect")]
            if !at.is_inner() {
                // SAFETY: the place keeps the body (G5).
                unsafe { this.as_ref() }.tell_end(at, end);
            }
            if at.is_limited() {
                // Now, for the body may go with the place.
                // SAFETY: the place keeps the body (G5).
                turn_has_come = Some(unsafe { this.as_ref() }.limit.give_back());
            }
            next = at.outer();
            // SAFETY: the caller's promise. Watched: it is in the tally.
            unsafe {
                let mut end = Some(end);
                let count = || {
                    if let Some(end) = end.take() {
                        this.as_ref().count_end(end);
                    }
                };
                let is_watched = Place::end(place, panics, count);
                // User code, for which the task is gone. One at most: only a task's own place is limited.
                if let Some(turn_has_come) = turn_has_come.take_if(|_| next.is_none()) {
                    turn_has_come.wake(panics);
                }
                if is_watched {
                    Body::count_off(this, panics);
                }
            }
        }
    }

    /// Marks all tasks that are here (G2).
    fn watch(&self) -> Found {
        self.places.watch(
            |many| self.tally.count(many),
            // Not the last: the look itself is counted.
            |many| _ = self.tally.count_off(many),
        )
    }

    /// The caller holds a handle, and has left its waker.
    pub(super) fn look(this: NonNull<Body>, panics: &mut Panics) -> Look {
        // SAFETY: the caller has a handle.
        let body = unsafe { this.as_ref() };
        body.tally.count(1);
        let found = body.watch();
        // SAFETY: counted above; and the caller has a handle.
        let is_zero = unsafe { Body::then(this, body.tally.count_off(1), panics) };
        if found.living == 0 {
            if body.places.look() == found {
                Look::Nobody
            } else {
                Look::Again
            }
        } else if is_zero {
            Look::Again
        } else {
            Look::Wait
        }
    }

    /// Whether there was a moment without anybody; by loads.
    pub(super) fn is_idle(&self) -> bool {
        let found = self.places.look();
        found.living == 0 && self.places.look() == found
    }

    /// The answer is whoever waits for room in vain.
    pub(super) fn close(&self) -> Answered {
        self.places.close();
        self.limit.close()
    }

    /// Whether it, or a group around it, is.
    pub(super) fn is_closed(&self) -> bool {
        let mut at = self;
        loop {
            if at.places.is_closed() {
                return true;
            }
            match at.outer {
                // SAFETY: the body has a handle of it.
                Some(around) => at = unsafe { around.as_ref() },
                None => return false,
            }
        }
    }

    pub(super) fn how_many(&self) -> usize {
        self.places.look().living
    }

    /// The tasks that are there.
    pub(super) fn running(&self, panics: &mut Panics) -> alloc::vec::Vec<TaskInfo> {
        #[cfg(feature = "inspect")]
        let is_done = self.ctx.is_marked();
        #[cfg(not(feature = "inspect"))]
        let is_done = false;
        self.places.read(panics, count_off_at, |from, label| {
            TaskInfo::of(from, label, is_done)
        })
    }

    /// The same for an end, which others' destructors neither hold up nor give their panics to.
    pub(super) fn running_quietly(&self) -> alloc::vec::Vec<TaskInfo> {
        #[cfg(feature = "inspect")]
        let mut panics = Panics::leaving();
        #[cfg(not(feature = "inspect"))]
        let mut panics = Panics::default();
        let running = self.running(&mut panics);
        #[cfg(feature = "inspect")]
        super::roll::end_elsewhere(panics);
        #[cfg(not(feature = "inspect"))]
        panics.swallow();
        running
    }

    /// Tells the observers that a task is about to be gone that was told to stop.
    #[cfg(feature = "inspect")]
    fn tell_end(&self, place: &Place, end: End) {
        if end == End::Refused || !observe::is_observed() || place.name().is_none() {
            return;
        }
        if let Some(done) = self.done_since() {
            self.tell_of(place, |name, spawned_at| Event::Gone {
                name,
                spawned_at,
                after: done.elapsed(),
                is_forced: end == End::Dropped,
            });
        }
    }

    /// The same of one that is polled for the first time since.
    #[cfg(feature = "inspect")]
    #[cold]
    pub(super) fn tell_first_poll(&self, place: &Place) {
        // Also if nobody is told: what is noted of the task counts from there.
        if let Some(done) = self.done_since().filter(|_| observe::is_observed()) {
            self.tell_of(place, |name, spawned_at| Event::FirstPoll {
                name,
                spawned_at,
                after: done.elapsed(),
            });
        }
    }

    /// Since when the group is done, for a task; none if it is not, as where a context of the task's own was, or if it was when it was made.
    #[cfg(feature = "inspect")]
    fn done_since(&self) -> Option<Instant> {
        let is_done = self.ctx.is_marked();
        is_done.then(|| self.record.note.since()).flatten()
    }

    /// If it has a name. By the task, which has the place.
    #[cfg(feature = "inspect")]
    fn tell_of<'a>(
        &self,
        place: &'a Place,
        event: impl FnOnce(&'a str, &'static Location<'static>) -> Event<'a>,
    ) {
        if let (Some(name), Some(from)) = (place.name(), place.where_from()) {
            observe::tell(&event(name, from));
        }
    }

    #[cfg(feature = "inspect")]
    pub(super) fn record(&self) -> &super::roll::Record {
        &self.record
    }

    /// The tasks whose own place is here. For a thread that has met the record.
    #[cfg(feature = "inspect")]
    pub(super) fn each_task(
        &self,
        panics: &mut Panics,
        mut read: impl FnMut(super::places::Number, &'static Location<'static>, Option<&Label>, bool),
    ) {
        let is_done = self.ctx.is_marked();
        self.places
            .each(panics, count_off_at, |number, from, label| {
                read(number, from, label, is_done);
            });
    }

    /// What the group is called, by which context it is done, and by which token it is cancelled itself.
    #[cfg(feature = "inspect")]
    pub(super) fn what(&self) -> (Option<Cow<'static, str>>, &Context, &Canceller) {
        (self.name.clone(), &self.ctx, &self.canceller)
    }

    pub(super) fn ends(&self) -> Ends {
        Ends {
            // Relaxed, all three: whoever has found a place empty has acquired the count with that.
            done: self.done.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
        }
    }

    // ----- errors -----------------------------------------------------------------------------

    pub(super) fn cancel(&self) -> bool {
        self.canceller.cancel()
    }

    pub(super) fn cancel_with(&self, cause: Cause) -> bool {
        self.canceller.cancel_with(cause)
    }

    /// A task has failed.
    #[cold]
    pub(super) fn fail(&self, cause: Cause, place: &Place, panics: &mut Panics) {
        if let Some(own) = self.why_ended() {
            // The error's sources are user code. AssertUnwindSafe: it is only dropped then.
            match catch_unwind(AssertUnwindSafe(|| cause.echoes(&own))) {
                Ok(false) => {}
                Ok(true) => {
                    self.failures.set_echoed();
                    return panics.catch(|| drop(cause));
                }
                Err(payload) => {
                    panics.catch(|| drop(cause));
                    return self.panicked(payload, place, panics);
                }
            }
        }
        let ends = !self.keeps_going.load(Relaxed);
        self.end_with(cause, ends, panics);
    }

    /// A task has panicked.
    #[cold]
    pub(super) fn panicked(
        &self,
        payload: Box<dyn Any + Send>,
        place: &Place,
        panics: &mut Panics,
    ) {
        let cause = place.panicked(&*payload);
        self.failures.keep_payload(payload, panics);
        self.end_with(cause, true, panics);
    }

    fn end_with(&self, cause: Cause, ends: bool, panics: &mut Panics) {
        self.failures.keep(cause, panics);
        if ends {
            // Also where another was first, and then in its place: so the group's cause is the first error.
            if let Some(first) = self.failures.first() {
                panics.catch(|| _ = self.canceller.cancel_with(first));
            }
        }
    }

    /// What came of it all, when all are gone. Re-raises a panic, once.
    pub(super) fn verdict(&self) -> Result<(), Cause> {
        self.failures.resume_panic();
        match self.failures.failure() {
            Some(failure) => Err(failure),
            None if self.failures.was_echoed() => Err(self.why_not(Closed.into())),
            None => Ok(()),
        }
    }
}

impl Place {
    /// The body, which stays while the place is taken (G5).
    #[inline]
    pub(super) fn body(&self) -> NonNull<Body> {
        self.owner().cast()
    }

    /// What a panic of its task said, as a cause.
    pub(crate) fn panicked(&self, payload: &(dyn Any + Send)) -> Cause {
        Cause::new(Panicked::of(payload, self.name(), self.where_from()))
    }
}

/// # Safety
/// As for `Body::count_off`, of a place's owner.
unsafe fn count_off_at(owner: NonNull<Owner>, panics: &mut Panics) {
    // SAFETY: the caller's promise; a place's owner is the body that it was claimed of.
    unsafe { Body::count_off(owner.cast(), panics) };
}

#[cfg(feature = "inspect")]
impl Drop for Body {
    fn drop(&mut self) {
        self.record.note.end(self.ctx.token());
    }
}
