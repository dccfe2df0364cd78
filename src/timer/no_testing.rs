//! What the module `testing` has, without its feature: no clock is one of a test's, so an `Option` of one takes no room, and
//! what is done for it is no code.

use super::entry::{Entry, Seen};
use core::ptr::NonNull;
use std::time::Instant;

#[derive(Clone)]
pub(crate) enum Clock {}

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        match *self {}
    }

    pub(crate) fn now_marked(&self) -> Instant {
        match *self {}
    }

    pub(crate) fn nanos(&self) -> u64 {
        match *self {}
    }

    #[inline(always)]
    pub(crate) fn is_same(_: &Option<Clock>, _: &Option<Clock>) -> bool {
        true
    }
}

pub(crate) enum Alarm {}

// Unsafe as those of testing.rs, for whoever calls them: nothing here needs a promise.
impl Alarm {
    pub(crate) fn clock(&self) -> Clock {
        match *self {}
    }

    pub(crate) unsafe fn arm(&self, _: NonNull<Entry>, _: *mut (), _: u64) -> bool {
        match *self {}
    }

    pub(crate) unsafe fn move_to(
        &self,
        _: NonNull<Entry>,
        _: Seen,
        _: Option<u64>,
    ) -> Result<(), Seen> {
        match *self {}
    }

    pub(crate) fn catch_up(&self, _: Option<u64>) {
        match *self {}
    }
}

pub(crate) struct AlarmCell;

impl AlarmCell {
    pub(crate) fn new() -> AlarmCell {
        AlarmCell
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&Alarm> {
        None
    }

    pub(crate) unsafe fn put(&self, clock: Clock) {
        match clock {}
    }

    #[inline(always)]
    pub(crate) unsafe fn give_up(&self) {}
}
