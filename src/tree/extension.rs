//! The node's `link` word, and the extension that few nodes need: shards and edges.
//!
//! | the node is | `link` |
//! | --- | --- |
//! | free | the hint that was the parent's when it became free, or null |
//! | occupied | null, a cause (tag 1), or an extension (tag 2), which then keeps the cause |
//!
//! While the node is occupied, `link` changes from null by CAS only, so cause and extension
//! cannot overwrite each other.

use super::any_of::Edge;
use super::Node;
use crate::cause::{Cause, ContextError, Custom};
use crate::sync::{Acquire, AtomicPtr, Relaxed, Release};
use alloc::boxed::Box;
use core::mem::ManuallyDrop;
use core::ptr;

const CAUSE: usize = 1;
const EXTENSION: usize = 2;
/// The cause's kind is "deadline exceeded": readable without following the pointer.
const DEADLINE: usize = 4;
const TAGS: usize = 7;

/// What few nodes have. On cache lines of its own: every thread that makes children of a sharded
/// parent reads it, and what the allocator would put beside it may be written all the time.
#[repr(align(128))]
pub(super) struct Extension {
    /// The cause, as it would be in `link`.
    cause: AtomicPtr<()>,
    /// The first of the nodes between a contended parent and its children, or null.
    pub(super) shards: AtomicPtr<Node>,
    /// What cancels an `any_of` token.
    pub(super) edges: Box<[Edge]>,
}

impl Extension {
    pub(super) fn new(shards: *mut Node, edges: Box<[Edge]>) -> Box<Extension> {
        Box::new(Extension {
            cause: AtomicPtr::new(ptr::null_mut()),
            shards: AtomicPtr::new(shards),
            edges,
        })
    }
}

/// A counted pointer of a custom cause, with its tag: the CAS that places it decides whose
/// cause stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RawCause(*mut ());

impl RawCause {
    pub(super) fn new(custom: *const Custom, kind: ContextError) -> RawCause {
        let tags = match kind {
            ContextError::Cancelled => CAUSE,
            ContextError::DeadlineExceeded => CAUSE | DEADLINE,
        };
        RawCause(custom.cast_mut().cast::<()>().map_addr(|a| a | tags))
    }

    fn from_word(value: *mut ()) -> Option<RawCause> {
        (value.addr() & CAUSE != 0).then_some(RawCause(value))
    }

    /// Does not follow the pointer: the cause may be somebody else's, who takes it back.
    pub(super) fn kind(self) -> ContextError {
        if self.0.addr() & DEADLINE != 0 {
            ContextError::DeadlineExceeded
        } else {
            ContextError::Cancelled
        }
    }

    /// # Safety
    /// The count that the pointer stands for is the caller's to give away.
    pub(super) unsafe fn into_cause(self) -> Cause {
        // SAFETY: made by `new` from `Cause::into_raw`; the count is the caller's promise.
        unsafe { Cause::from_raw(self.0.map_addr(|a| a & !TAGS).cast()) }
    }

    /// # Safety
    /// Somebody owns the count for as long as this takes.
    unsafe fn clone_cause(self) -> Cause {
        // SAFETY: the pointer is counted (the caller's promise); ManuallyDrop leaves the count
        // where it was.
        let shared = ManuallyDrop::new(unsafe { self.into_cause() });
        (*shared).clone()
    }
}

/// The `link` word of a node.
pub(super) struct Link(AtomicPtr<()>);

impl Link {
    pub(super) fn new() -> Link {
        Link(AtomicPtr::new(ptr::null_mut()))
    }

    // ----- while the node is free ----------------------------------------------------------

    /// Remembers the parent's hint in a node that is about to become free.
    #[inline]
    pub(super) fn set_next(&self, next: *mut Node) {
        // Relaxed: published by the store of the hint, and by `vacate`.
        self.0.store(next.cast(), Relaxed);
    }

    /// The new occupant reads the hint it finds and leaves the word null.
    #[inline]
    pub(super) fn take_next(&self) -> *mut Node {
        // Relaxed, both: only who has claimed the node is here; the claim's Acquire precedes.
        let next = self.0.load(Relaxed);
        self.0.store(ptr::null_mut(), Relaxed);
        next.cast()
    }

    // ----- while it is occupied ---------------------------------------------------------------

    #[inline]
    pub(super) fn is_null(&self) -> bool {
        // Relaxed: asked by the last owner, who has acquired what the others did.
        self.0.load(Relaxed).is_null()
    }

    #[inline]
    pub(super) fn extension(&self) -> Option<&Extension> {
        // Acquire: pairs with the CAS of `extend`.
        let value = self.0.load(Acquire);
        if value.addr() & TAGS == EXTENSION {
            // SAFETY: an extension stays until the last owner takes it (`take_extension`), and
            // who is here holds the node or climbs from below it (I5).
            Some(unsafe { &*value.map_addr(|a| a & !TAGS).cast() })
        } else {
            None
        }
    }

    /// Gives the node an extension, if `link` is still null.
    pub(super) fn extend(&self, extension: Box<Extension>) -> Result<(), Box<Extension>> {
        let raw = Box::into_raw(extension);
        let tagged = raw.cast::<()>().map_addr(|a| a | EXTENSION);
        // Release: pairs with the Acquire of `extension`. Nothing is read on failure.
        match self
            .0
            .compare_exchange(ptr::null_mut(), tagged, Release, Relaxed)
        {
            Ok(_) => Ok(()),
            // SAFETY: made by Box::into_raw above and not published.
            Err(_) => Err(unsafe { Box::from_raw(raw) }),
        }
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
            // Release, and Acquire on failure: who helps makes the other's cause visible by
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

    /// Takes back a cause that was placed but did not win.
    ///
    /// # Safety
    /// The caller placed it here, and its count goes to him.
    pub(super) unsafe fn take_back_cause(&self, cause: RawCause) -> Cause {
        // Relaxed: nobody reads a cause before the word says that it won. It is still where it
        // was placed, for `extend` and `place_cause` replace null only.
        self.cause_word().store(ptr::null_mut(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { cause.into_cause() }
    }

    /// The cause of an own cancel.
    ///
    /// # Safety
    /// The caller holds the node, or climbs from below it: the cause stays until the node dies.
    pub(super) unsafe fn clone_cause(&self) -> Option<Cause> {
        // Relaxed: acquired with the state that says CUSTOM, by `place_cause` and `cancel`.
        let cause = RawCause::from_word(self.cause_word().load(Relaxed))?;
        // SAFETY: the node owns the count while the caller is here.
        Some(unsafe { cause.clone_cause() })
    }

    /// For a node that nobody else has seen.
    pub(super) fn put_cause_unshared(&self, cause: RawCause) {
        // Relaxed: published with the handle.
        self.0.store(cause.0, Relaxed);
    }

    // ----- when its last owner lets it go -----------------------------------------------------

    /// Empties the word.
    ///
    /// # Safety
    /// The caller is the last owner, and the shards and edges are settled.
    pub(super) unsafe fn take(&self) -> Option<Cause> {
        // Relaxed, all: the last owner has acquired what the others did, and what came
        // through an edge by settling it.
        let value = self.0.load(Relaxed);
        if value.is_null() {
            return None;
        }
        self.0.store(ptr::null_mut(), Relaxed);
        let cause = if value.addr() & TAGS == EXTENSION {
            // SAFETY: made by Box::into_raw in `extend`; nobody is left to read it.
            let extension: Box<Extension> =
                unsafe { Box::from_raw(value.map_addr(|a| a & !TAGS).cast()) };
            extension.cause.load(Relaxed)
        } else {
            value
        };
        // SAFETY: the node's count goes to the caller.
        RawCause::from_word(cause).map(|cause| unsafe { cause.into_cause() })
    }
}
