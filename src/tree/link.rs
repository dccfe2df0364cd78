//! The node's `link` word.
//!
//! | the node is | `link` |
//! | --- | --- |
//! | free | the hint that was the parent's when it became free, or null |
//! | occupied | null, a cause (tag 1), or an extension (tag 2), which then keeps the cause |
//!
//! While the node is occupied, `link` changes from null by CAS only, so cause and extension
//! cannot overwrite each other.

use super::cause::{Cause, GuardDropped};
use super::edge::Edge;
#[cfg(feature = "std")]
use super::extension::retire;
use super::extension::{AnyOf, Extension, Remains};
use super::node::Link;
use super::raw_cause::{RawCause, BY_GUARD, EXTENSION, TAGS};
#[cfg(feature = "std")]
use super::timing::Timing;
use super::{weak, Handle};
use crate::sync::{Acquire, Arc, AtomicPtr, Relaxed, Release};
use alloc::boxed::Box;
use core::ptr::{self, NonNull};

impl Link {
    // ----- while it is occupied ---------------------------------------------------------------

    #[inline]
    pub(super) fn extension(&self) -> Option<&Extension> {
        // SAFETY: an extension stays until the last owner takes it (`take`), and
        // whoever is here holds the node or climbs from below it (I5).
        self.extension_raw().map(|raw| unsafe { raw.as_ref() })
    }

    /// What the extension has for a deadline and a foreign parent.
    #[cfg(feature = "std")]
    #[inline]
    pub(super) fn timing(&self) -> Option<&Timing> {
        self.extension().map(|extension| &extension.timing)
    }

    /// The extension, as a pointer that may be used for all of it, by whoever frees it too.
    #[inline]
    pub(super) fn extension_raw(&self) -> Option<NonNull<Extension>> {
        // Acquire: pairs with the CAS of `extend`.
        let value = self.0.load(Acquire);
        let raw = value.map_addr(|a| a & !TAGS).cast();
        // SAFETY: what has the tag points to an extension.
        (value.addr() & TAGS == EXTENSION).then(|| unsafe { NonNull::new_unchecked(raw) })
    }

    /// Gives the node an extension, if `link` is still null. True: it is the node's now. False: it is gone.
    pub(super) fn extend(&self, extension: NonNull<Extension>) -> bool {
        let tagged = extension.as_ptr().cast::<()>();
        let tagged = tagged.map_addr(|a| a | EXTENSION);
        // Release: pairs with the Acquire of `extension`. Nothing is read on failure.
        let published = self
            .0
            .compare_exchange(ptr::null_mut(), tagged, Release, Relaxed)
            .is_ok();
        if !published {
            // SAFETY: the caller's, and not published.
            unsafe { Extension::free(extension) };
        }
        published
    }

    /// The same, also if there is a cause, which then moves into the extension. False: there is one already, or somebody
    /// has come in between.
    pub(super) fn extend_around(&self, extension: NonNull<Extension>) -> bool {
        // Relaxed: nothing is read there, and what `place_cause` has published the step below hands on: its RMW goes on with
        // that one's release sequence.
        let found = self.0.load(Relaxed);
        if found.addr() & TAGS == EXTENSION {
            // SAFETY: the caller's, and not published.
            unsafe { Extension::free(extension) };
            return false;
        }
        let raw = extension.as_ptr();
        // SAFETY: the same. Relaxed: published by the step below.
        unsafe { (*raw).cause.store(found, Relaxed) };
        let tagged = raw.cast::<()>().map_addr(|a| a | EXTENSION);
        // Release: as in `extend`.
        let published = self.0.compare_exchange(found, tagged, Release, Relaxed);
        if published.is_err() {
            // SAFETY: not published; the cause is the node's.
            unsafe {
                (*raw).cause.store(ptr::null_mut(), Relaxed);
                Extension::free(extension);
            }
        }
        published.is_ok()
    }

    /// Where the cause is.
    fn cause_word(&self) -> &AtomicPtr<()> {
        match self.extension() {
            Some(extension) => &extension.cause,
            None => &self.0,
        }
    }

    /// Offers a cause; `Err` is the one that is there already and stands.
    pub(super) fn place_cause(&self, cause: RawCause) -> Result<(), RawCause> {
        loop {
            let word = self.cause_word();
            // Release, and Acquire on failure: whoever helps makes the other's cause visible by
            // `cancel`, and so must have seen it. The winner's own `cancel` releases by itself.
            match word.compare_exchange(ptr::null_mut(), cause.0, Release, Acquire) {
                Ok(_) => return Ok(()),
                Err(now) => {
                    if let Some(other) = RawCause::from_word(now) {
                        return Err(other);
                    }
                    // An extension came in between: the cause goes there. It comes once.
                }
            }
        }
    }

    /// Takes back a cause that the caller placed here and that did not win. Its count is the caller's again.
    pub(super) fn take_back_cause(&self, cause: RawCause) {
        let word = self.cause_word();
        // Relaxed: nobody reads a cause before the word says that it won.
        let taken = word.compare_exchange(cause.0, ptr::null_mut(), Relaxed, Relaxed);
        if taken.is_err() {
            // It has moved into an extension meanwhile, and does not move again.
            self.cause_word().store(ptr::null_mut(), Relaxed);
        }
    }

    /// Which edge an own cancel with a cause came by.
    pub(super) fn edge_of_cause(&self) -> Option<&Edge> {
        // Relaxed: as in `clone_cause`.
        let cause = RawCause::from_word(self.cause_word().load(Relaxed))?;
        let extension = self.extension()?;
        cause.edge().map(|edge| &extension.edges[edge])
    }

    /// The cause of an own cancel.
    ///
    /// # Safety
    /// The caller holds the node, or climbs from below it: the cause stays until the node dies.
    pub(super) unsafe fn clone_cause(&self) -> Option<Cause> {
        // Once: it may move into an extension. Acquire: pairs with the step that gives the node an extension.
        let mut word = self.0.load(Acquire);
        if word.addr() & TAGS == EXTENSION {
            // SAFETY: as in `extension`. Relaxed, here and below: acquired with the state that says CUSTOM, by `place_cause`
            // and `cancel`, or with the extension that it has moved into.
            word = unsafe { &*word.map_addr(|a| a & !TAGS).cast::<Extension>() }
                .cause
                .load(Relaxed);
        }
        let mut cause = RawCause::from_word(word)?;
        if let Some(edge) = cause.edge() {
            if cause.0.addr() & BY_GUARD != 0 {
                return Some(GuardDropped.into());
            }
            // Without one it is the bare kind, which the word says.
            cause = RawCause::from_word(self.extension()?.edges[edge].cause.load(Relaxed))?;
        }
        // SAFETY: the node owns the count while the caller is here.
        Some(unsafe { cause.clone_cause() })
    }

    /// For a node that nobody else has seen.
    pub(super) fn put_cause_unshared(&self, cause: RawCause) {
        // Relaxed: published with the handle.
        self.0.store(cause.0, Relaxed);
    }

    // ----- when its last owner lets it go -----------------------------------------------------

    /// Empties the word. What the node kept goes to the caller, to be dropped.
    ///
    /// # Safety
    /// The caller is the last owner, and shards, edges and triggers are settled.
    pub(super) unsafe fn take(&self, remains: &mut Remains) {
        // Relaxed, here and below: the last owner has acquired what the others did.
        let value = self.0.load(Relaxed);
        if value.is_null() {
            return;
        }
        self.0.store(ptr::null_mut(), Relaxed);
        let cause = if value.addr() & TAGS == EXTENSION {
            let raw: *mut Extension = value.map_addr(|a| a & !TAGS).cast();
            // SAFETY: the last owner has it; nobody else but the timer, which looks at the entry only.
            unsafe { Extension::empty(NonNull::new_unchecked(raw), remains) }
        } else {
            value
        };
        // SAFETY: the node's count goes to the caller.
        remains.cause = RawCause::from_word(cause).map(|cause| unsafe { cause.into_cause() });
    }

    /// For a node that nobody else has seen: the extension that it begins with.
    pub(super) fn put_extension_unshared(&self, extension: NonNull<Extension>) -> &Extension {
        let raw = extension.as_ptr();
        // Relaxed: published with the handle, and by what arms a trigger.
        self.0
            .store(raw.cast::<()>().map_addr(|a| a | EXTENSION), Relaxed);
        // SAFETY: the caller's, from a Box; it stays until the last owner takes it.
        unsafe { &*raw }
    }

    /// The short way of the last owner: true if there is nothing, or nothing any more, that has to be settled
    /// or dropped.
    #[inline]
    pub(super) fn is_settled(&self) -> bool {
        // Relaxed: asked by the last owner, which has acquired what the others did.
        let value = self.0.load(Relaxed);
        if value.is_null() {
            return true;
        }
        #[cfg(feature = "std")]
        if value.addr() & TAGS == EXTENSION {
            let raw: *mut Extension = value.map_addr(|a| a & !TAGS).cast();
            // SAFETY: it stays until the last owner, which is the caller, takes it.
            let extension = unsafe { &*raw };
            // Then the trigger: if the firer is through, what it did is acquired by this. With weak handles the token may
            // live on, and its deadline with it.
            if extension.weak.load(Relaxed).is_null()
                && extension.timing.disarm()
                && extension.is_bare()
            {
                self.0.store(ptr::null_mut(), Relaxed);
                // SAFETY: the last owner; there was nothing in it but a deadline, which is settled.
                unsafe { retire(NonNull::new_unchecked(raw)) };
                return true;
            }
        }
        false
    }
}

impl Handle {
    /// A handle that does not keep the token.
    pub(crate) fn downgrade(&self) -> weak::Weak {
        let link = &self.node().link;
        let mut extension = link.extension();
        while extension.is_none() {
            link.extend_around(Extension::new(AnyOf::No, Box::default()));
            extension = link.extension();
        }
        let Some(extension) = extension else {
            unreachable!("an extension stays while the node is held");
        };
        weak::Weak(extension.weak_or(|| Arc::new(weak::Cell::new(self.0))))
    }
}
