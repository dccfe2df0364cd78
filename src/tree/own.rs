//! The own cancel of one node: its cause, if it has one of its own, and the step on its word.

use super::cause::Cause;
use super::edge::Edge;
use super::raw_cause::RawCause;
use super::why::raw_cause;
use super::word::State;
use super::Node;
use core::ptr;
use core::task::Waker;

/// What has become of the own cancel of one node.
pub(super) struct Outcome {
    /// The call's cause stands.
    pub(super) first: bool,
    /// The call has made the step, so whoever waits below is its to wake.
    pub(super) won: bool,
    pub(super) state: State,
    /// What waited there, to be woken: then nothing is below.
    pub(super) waker: Option<Waker>,
    /// The cause that was not taken.
    pub(super) rejected: Option<Cause>,
}

impl Outcome {
    /// Somebody else was faster.
    pub(super) fn of_other(state: State) -> Outcome {
        Outcome {
            first: false,
            won: false,
            state,
            waker: None,
            rejected: None,
        }
    }

    /// Nothing is left to be done but for the waker and the cause.
    pub(super) fn is_all(&self) -> bool {
        // Without PARENT nothing was below, and nothing will be (I7).
        self.state.has_any(State::MARKED) || !self.won && !self.state.has_any(State::PARENT)
    }

    /// # Safety
    /// The step is the caller's own on the node's word, and is given to this once.
    pub(super) unsafe fn of(node: &Node, step: Result<(State, bool), State>) -> Outcome {
        match step {
            Ok((state, disarmed)) => Outcome {
                first: true,
                won: true,
                // SAFETY: whoever clears WAITER owns the content (I8), which is a waker: edges' nodes have no cancel of
                // their own.
                waker: disarmed.then(|| unsafe { node.slot.take_waker() }),
                ..Outcome::of_other(state)
            },
            Err(state) => Outcome::of_other(state),
        }
    }
}

/// The own cancel of one node. The waker of one with nothing below is taken by the same step if the caller
/// `wakes_at_once`.
pub(super) fn set_cancelled(node: &Node, cause: Cause, wakes_at_once: bool) -> Outcome {
    // SAFETY: the step is made here.
    let cancel = |how| unsafe { Outcome::of(node, node.word.cancel(how, wakes_at_once)) };
    let seen = node.word.load();
    if seen.is_cancelled() {
        return Outcome {
            rejected: Some(cause),
            ..Outcome::of_other(seen)
        };
    }
    let (how, raw) = raw_cause(cause);
    let Some(raw) = raw else {
        return cancel(how);
    };
    let mut outcome = set_cancelled_with(node, raw, cancel);
    if !outcome.first {
        // SAFETY: it does not stand, and nobody else has it: so it is still ours.
        outcome.rejected = Some(unsafe { raw.into_cause() });
    }
    outcome
}

/// The same, once it is known that there is something to be placed. `first` says whether that stands; if not, it is not
/// there any more.
fn set_cancelled_with(
    node: &Node,
    raw: RawCause,
    cancel: impl FnOnce(State) -> Outcome,
) -> Outcome {
    match node.link.place_cause(raw) {
        Ok(()) => {
            let outcome = cancel(State::of_kind(raw.kind()).with(State::CUSTOM));
            // By this call, or by one that found our cause and helped.
            let first = outcome.state.has_all(State::CUSTOM);
            if !first {
                // A plain cancel or an ancestor's was faster, and no cause of this node has been made visible.
                node.link.take_back_cause(raw);
            }
            Outcome { first, ..outcome }
        }
        Err(other) => {
            // Another call has placed its cause but perhaps not yet cancelled. Ours must not
            // return before the token is cancelled, and must not wait: so it makes the other's step.
            let outcome = cancel(State::of_kind(other.kind()).with(State::CUSTOM));
            Outcome {
                first: false,
                ..outcome
            }
        }
    }
}

/// The own cancel of an edge's target, by the edge, which the caller has in its hands.
pub(super) fn cancel_target(edge: &Edge, target: &Node, cause: Cause) -> Outcome {
    let Some(extension) = target.link.extension() else {
        unreachable!("it has edges");
    };
    let from_first = ptr::from_ref(edge).addr() - extension.edges.as_ptr().addr();
    let place = from_first / size_of::<Edge>();
    set_cancelled_by(edge, target, place, cause)
}

/// The own cancel of an `any_of` token, by an edge that the caller has in its hands: whose it was becomes visible with
/// the cancel itself. `cause` is that of the edge's source.
fn set_cancelled_by(edge: &Edge, target: &Node, place: usize, cause: Cause) -> Outcome {
    // SAFETY: the step is made here.
    let cancel = |how| unsafe { Outcome::of(target, target.word.cancel(how, false)) };
    let kind = cause.kind();
    let (how, mut own) = raw_cause(cause);
    // SAFETY: counted, and given up here. A clone of a cause that its owner still has: dropping it runs no user code.
    let give_up = |raw: RawCause| drop(unsafe { raw.into_cause() });
    // Another cancel that comes by the same edge may be faster.
    if let Some(raw) = own.take_if(|raw| !raw.put_at_edge(edge)) {
        give_up(raw);
    }
    let outcome = set_cancelled_with(target, RawCause::of_edge(place, kind, how), cancel);
    let by_cause = outcome.state.has_all(State::CUSTOM);
    let winner = target.link.edge_of_cause().filter(|_| by_cause);
    if !winner.is_some_and(|by| ptr::eq(by, edge)) {
        if let Some(raw) = own {
            RawCause::take_from_edge(edge);
            give_up(raw);
        }
    }
    outcome
}
