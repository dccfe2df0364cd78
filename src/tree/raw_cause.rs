//! A cause as a word, as it is in `link`, in an extension and at an edge: a counted pointer and tags.

use super::cause::{Cause, ContextError, Custom};
use super::edge::Edge;
use super::word::State;
use crate::sync::Relaxed;
use core::mem::ManuallyDrop;
use core::ptr;

const CAUSE: usize = 1;
/// What the word in `link` points to is an extension.
pub(super) const EXTENSION: usize = 2;
/// In an extension, where it stands for nothing else: the cause came by an edge, whose place follows.
const EDGE: usize = 2;
/// The cause's kind is "deadline exceeded": readable without following the pointer.
const DEADLINE: usize = 4;
pub(super) const TAGS: usize = 7;
/// Of an edge: its source was cancelled by the drop of a guard, and has no more of a cause than that.
pub(super) const BY_GUARD: usize = 8;
/// What follows is its place.
const EDGE_BITS: u32 = (TAGS | BY_GUARD).count_ones();

/// A counted pointer of a custom cause, with its tag: the CAS that places it decides whose
/// cause stands. For an `any_of` token it may be the place of an edge instead, which then has the cause.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RawCause(pub(super) *mut ());

impl RawCause {
    pub(super) fn new(custom: *const Custom, kind: ContextError) -> RawCause {
        let tags = match kind {
            ContextError::Cancelled => CAUSE,
            ContextError::DeadlineExceeded => CAUSE | DEADLINE,
        };
        RawCause(custom.cast_mut().cast::<()>().map_addr(|a| a | tags))
    }

    /// What the edge at that place says. `how` is what the word of its source says of the cause.
    pub(super) fn of_edge(place: usize, kind: ContextError, how: State) -> RawCause {
        let kind = match kind {
            ContextError::Cancelled => 0,
            ContextError::DeadlineExceeded => DEADLINE,
        };
        let guard = match how.only(State::OWN) {
            State::GUARD => BY_GUARD,
            _ => 0,
        };
        RawCause(ptr::without_provenance_mut(
            place << EDGE_BITS | guard | kind | EDGE | CAUSE,
        ))
    }

    /// The place of the edge that has the cause.
    pub(super) fn edge(self) -> Option<usize> {
        let value = self.0.addr();
        (value & EDGE != 0).then_some(value >> EDGE_BITS)
    }

    /// The last owner's: the word of the cause itself. Null, if an edge has said no more than the kind.
    pub(super) fn resolve(self, edges: &[Edge]) -> *mut () {
        let Some(edge) = self.edge() else {
            return self.0;
        };
        // Relaxed: the last owner has acquired what the others did.
        let cause = edges[edge].cause.load(Relaxed);
        edges[edge].cause.store(ptr::null_mut(), Relaxed);
        cause
    }

    pub(super) fn from_word(value: *mut ()) -> Option<RawCause> {
        (value.addr() & CAUSE != 0).then_some(RawCause(value))
    }

    /// Does not follow the pointer: the cause may be somebody else's, which takes it back.
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
        unsafe { Cause::from_raw(self.0.map_addr(|a| a & !TAGS).cast(), self.kind()) }
    }

    /// Puts it where an edge keeps its cause, if there is none yet. False: there is, and this one's count is still
    /// the caller's.
    pub(super) fn put_at_edge(self, edge: &Edge) -> bool {
        // Relaxed: whose step on the target's word wins has written this or read it before, and so has whoever sees that step
        // (read-read coherence); and the cause is that of the edge's source, which the caller has seen.
        let null = ptr::null_mut();
        let put = edge.cause.compare_exchange(null, self.0, Relaxed, Relaxed);
        put.is_ok()
    }

    /// Takes back what the caller has put there, if the edge has not won. The count is the caller's again.
    pub(super) fn take_from_edge(edge: &Edge) {
        // Relaxed: nobody reads it unless the target's word says that the edge has won.
        edge.cause.store(ptr::null_mut(), Relaxed);
    }

    /// # Safety
    /// Somebody owns the count for as long as this takes.
    pub(super) unsafe fn clone_cause(self) -> Cause {
        // SAFETY: the pointer is counted (the caller's promise); ManuallyDrop leaves the count
        // where it was.
        let shared = ManuallyDrop::new(unsafe { self.into_cause() });
        (*shared).clone()
    }
}
