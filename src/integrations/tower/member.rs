//! What a request, which is no task of the group's own, does at its place.

use crate::context::Context;
#[cfg(feature = "inspect")]
use crate::group::snapshot::Work;
use crate::group::{End, Member, Spawner};
#[cfg(feature = "inspect")]
use crate::sync::thread;
use crate::sync::Panics;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
#[cfg(feature = "inspect")]
use core::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Release},
};
use http::Extensions;

/// A share in a request's place in a group: layers around each other have one place there, which is given up with the last share. (The handler of an inner one may
/// outlive what a layer further out waits for.)
pub(super) struct Share(Arc<Held>);

struct Held {
    /// None: given up.
    member: Option<Member>,
    /// Of the shares, one was given up by a handler that was dropped before it was through. Relaxed: the last share's end comes after that.
    was_dropped: AtomicBool,
    /// The number of the thread whose step is being noted, or 0: steps of layers are in each other, or beside.
    #[cfg(feature = "inspect")]
    noting: AtomicUsize,
}

/// In a request's extensions: where it has a place. Does not keep it, for a handler may keep the extensions, and whatever clones a request has a clone of this.
#[derive(Clone)]
struct Mark {
    /// Its address; while the place is held, no other group is there.
    group: usize,
    held: Weak<Held>,
    /// Of a layer further out.
    outer: Option<Box<Mark>>,
}

fn address(group: &Spawner) -> usize {
    ptr::from_ref(group.context()).addr()
}

/// # Taking a place
impl Share {
    /// The request has taken this place in this group.
    pub(super) fn new(member: Member, group: &Spawner, extensions: &mut Extensions) -> Share {
        let held = Arc::new(Held {
            member: Some(member),
            was_dropped: AtomicBool::new(false),
            #[cfg(feature = "inspect")]
            noting: AtomicUsize::new(0),
        });
        let mut outer = extensions.remove().map(Box::new);
        // Who sends one request through a service again and again leaves no chain of what is over.
        while let Some(over) = outer.take_if(|mark: &mut Box<Mark>| mark.held.strong_count() == 0) {
            outer = over.outer;
        }
        extensions.insert(Mark {
            group: address(group),
            held: Arc::downgrade(&held),
            outer,
        });
        Share(held)
    }

    /// A share in the place that the request has in this group by a layer further out.
    pub(super) fn of_outer(group: &Spawner, extensions: &Extensions) -> Option<Share> {
        let mut mark = extensions.get::<Mark>();
        while let Some(at) = mark {
            if at.group == address(group) {
                if let Some(held) = at.held.upgrade() {
                    return Some(Share(held));
                }
            }
            mark = at.outer.as_deref();
        }
        None
    }

    fn member(&self) -> &Member {
        match &self.0.member {
            Some(member) => member,
            None => unreachable!("it is given up with the last share"),
        }
    }
}

/// # At the place
impl Share {
    /// What has the place is a future that this context tells to stop; inside of another layer's future, that one is told.
    #[cfg_attr(not(feature = "inspect"), allow(clippy::unused_self))]
    pub(super) fn is_future_under(&self, _ctx: &Context) {
        #[cfg(feature = "inspect")]
        if let Some(probe) = self.member().probe() {
            probe.is_told_by(_ctx);
            probe.is_a(Work::Future);
        }
    }

    /// The same of one that goes on whatever layers further out are told.
    #[cfg_attr(not(feature = "inspect"), allow(clippy::unused_self))]
    pub(super) fn is_detached_under(&self, _ctx: &Context) {
        #[cfg(feature = "inspect")]
        if let Some(probe) = self.member().probe() {
            if !probe.is_told_by(_ctx) {
                probe.is_told_by_group();
            }
            probe.is_a(Work::Future);
        }
    }

    /// The future has ended, and something else keeps the place.
    #[cfg_attr(not(feature = "inspect"), allow(clippy::unused_self))]
    pub(super) fn is_held_on(&self) {
        #[cfg(feature = "inspect")]
        if let Some(probe) = self.member().probe() {
            probe.is_a(Work::Held);
        }
    }

    /// Does a step of what has the place.
    #[inline]
    pub(super) fn step<R>(&self, step: impl FnOnce() -> R) -> R {
        #[cfg(feature = "inspect")]
        let _noting = match Noting::begin(&self.0.noting) {
            Ok(noting) => noting,
            Err(this) if this == thread::number() => return self.member().step_unnoted(step),
            Err(_) => return self.member().step_beside(step),
        };
        self.member().step(step)
    }

    /// A step has panicked: the group says so, and goes on.
    pub(super) fn note_panic(&self, payload: &(dyn Any + Send)) {
        let mut panics = Panics::default();
        let cause = self.member().place().panicked(payload);
        self.member().body().failures.note(cause, &mut panics);
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
        self.member().body().failures.note_panics(of_others);
    }
}

/// # Giving it up
impl Share {
    /// What panics then is others': the group may be gone with the place, and says nothing of it.
    #[inline]
    pub(super) fn end_quietly(self) {
        let mut panics = Panics::default();
        if let Some(mut held) = Arc::into_inner(self.0) {
            held.end(&mut panics);
        }
        panics.swallow();
    }

    /// The handler was dropped before it was through.
    pub(super) fn end_dropped(self) {
        self.0.was_dropped.store(true, Relaxed);
    }
}

impl Held {
    #[inline]
    fn end(&mut self, panics: &mut Panics) {
        let end = match *self.was_dropped.get_mut() {
            true => End::Dropped,
            false => End::Done,
        };
        if let Some(member) = self.member.take() {
            member.end_with(end, panics);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut panics = Panics::default();
        self.end(&mut panics);
        panics.resume();
    }
}

/// A step that is noted.
#[cfg(feature = "inspect")]
struct Noting<'a>(&'a AtomicUsize);

#[cfg(feature = "inspect")]
impl Noting<'_> {
    /// An error: whose step is noted.
    fn begin(noting: &AtomicUsize) -> Result<Noting<'_>, usize> {
        // Acquire: pairs with the drop, for what is noted is written by one at a time. Failure: a number, which only this thread makes its own.
        let begun = noting.compare_exchange(0, thread::number(), Acquire, Relaxed);
        begun.map(|_| Noting(noting))
    }
}

#[cfg(feature = "inspect")]
impl Drop for Noting<'_> {
    fn drop(&mut self) {
        // Release: pairs with the step.
        self.0.store(0, Release);
    }
}
