//! The label of a task: its name, and what goes with one.

use crate::sync::UnsafeCell;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use std::time::Instant;

/// What is kept of a task that has a name.
pub(super) struct Label {
    /// Never written: a cell, so that models see whether all who read it are through when it goes.
    name: UnsafeCell<Cow<'static, str>>,
    pub(super) since: Instant,
    #[cfg(feature = "inspect")]
    pub(super) probe: super::probe::Kept,
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    _leak: crate::sync::Track<()>,
}

#[cfg(feature = "inspect")]
pub(super) use super::probe::Shared;

/// What all places of a task share: nothing.
#[cfg(not(feature = "inspect"))]
pub(super) struct Shared;

#[cfg(not(feature = "inspect"))]
impl Shared {
    #[inline]
    pub(super) fn nothing() -> Shared {
        Shared
    }

    #[inline]
    pub(super) fn of_group(_: &crate::context::Context, _: bool) -> Shared {
        Shared
    }
}

impl Label {
    #[cfg_attr(not(feature = "inspect"), allow(unused_variables))]
    #[inline]
    pub(super) fn new(name: Option<Cow<'static, str>>, shared: &Shared) -> Option<Box<Label>> {
        name.map(|name| {
            let since = Instant::now();
            Box::new(Label {
                name: UnsafeCell::new(name),
                since,
                #[cfg(feature = "inspect")]
                probe: shared.keep(),
                #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
                _leak: crate::sync::Track::new(()),
            })
        })
    }

    pub(super) fn name(&self) -> &Cow<'static, str> {
        // SAFETY: never written.
        self.name.with(|name| unsafe { &*name })
    }
}
