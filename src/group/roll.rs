//! The groups that are there, for the question what does not stop.
//!
//! What a record stands for is the group's body itself, of which this file knows no more than how to drop it. Whoever frees the
//! body ends the record, and if somebody reads it at that moment, the body stays until the reader is through, which then frees it.

use crate::context::name::{About, Note};
use crate::context::registry::{self, Key, Registry};
use crate::context::Context;
use crate::sync::Panics;
use crate::timer;
use crate::token::{CancellationToken, Registration};
use alloc::borrow::Cow;
use alloc::boxed::Box;
use core::panic::Location;
use core::ptr::NonNull;
use std::time::Instant;

crate::sync::global! {
    static GROUPS: Registry<Rolled> = Registry::new();
}

/// The body, which goes with this.
pub(super) struct Rolled(NonNull<Any>);

type Any = dyn core::any::Any + Send + Sync;

// SAFETY: a Box, of what is Send and Sync.
unsafe impl Send for Rolled {}
// SAFETY: as above.
unsafe impl Sync for Rolled {}

impl Drop for Rolled {
    fn drop(&mut self) {
        // SAFETY: of a Box, by `put`; and nobody has it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// What is known of a group, beside the group itself.
pub(super) struct Record {
    key: Key<Rolled>,
    number: registry::Number,
    pub(super) at: &'static Location<'static>,
    pub(super) since: Instant,
    /// The group around it.
    pub(super) outer: Option<registry::Number>,
    /// The name that it was made below.
    pub(super) name: Option<registry::Number>,
    /// What is above was done already when it was made.
    pub(super) is_born_done: bool,
    pub(super) note: Note,
}

impl Record {
    #[track_caller]
    pub(super) fn new(
        above: &Context,
        outer: Option<registry::Number>,
        name: Option<Cow<'static, str>>,
        ctx: &Context,
    ) -> Record {
        let about = About {
            is_group: true,
            name,
            at: Location::caller(),
            deadline: ctx.fixed_deadline(),
        };
        let key = GROUPS.claim();
        Record {
            key,
            number: GROUPS.number(&key),
            at: Location::caller(),
            since: Instant::now(),
            outer,
            name: above.name_number(),
            is_born_done: ctx.is_marked(),
            note: Note::of(ctx.token(), about),
        }
    }

    pub(super) fn key(&self) -> Key<Rolled> {
        self.key
    }

    pub(super) fn number(&self) -> registry::Number {
        self.number
    }
}

/// The group is there.
pub(super) fn put(key: &Key<Rolled>, body: NonNull<Any>) {
    GROUPS.put(key, Box::new(Rolled(body)));
}

/// Frees the body, or leaves that to the thread that is reading it.
///
/// # Safety
/// Nobody else has the body, and the caller does not use it again.
pub(super) unsafe fn end(key: Key<Rolled>) {
    drop(GROUPS.end(key));
}

/// Reads all groups that are there, each of which is a `B`. A group that ends meanwhile stays until `read` has returned.
pub(super) fn each<B: 'static>(panics: &mut Panics, mut read: impl FnMut(&B, &mut Panics)) {
    let mut of_read = panics.beside();
    GROUPS.each_with(panics, |_, rolled| {
        // SAFETY: it goes with its record.
        if let Some(body) = unsafe { rolled.0.as_ref() }.downcast_ref() {
            read(body, &mut of_read);
        }
    });
    panics.add(of_read);
}

/// Has a worker do what was left, which may block or panic. In the child of a fork that can have no worker it is done here.
pub(crate) fn end_elsewhere(mut panics: Panics) {
    if let Some(left) = panics.take_left() {
        if timer::is_in_parent() {
            left(&mut panics);
            return panics.swallow();
        }
        let token = CancellationToken::new();
        let end = move |_| {
            let mut panics = Panics::default();
            left(&mut panics);
            panics.swallow();
        };
        drop(Registration::off_thread_with_cause(token.handle(), end));
        token.cancel();
    }
    panics.swallow();
}
