//! Cancelling: first mark everything below, then wake everyone. No allocation, no recursion,
//! no lock; a walk needs a node pointer and a counter.

use super::any_of::FiredEdges;
use super::cause::Cause;
use super::extension::RawCause;
use super::word::State;
use super::{reclaim, Handle, Node};
use crate::sync::{unless_unwinding, Acquire, Panics};
#[cfg(feature = "std")]
use alloc::boxed::Box;
use core::ptr::{self, NonNull};
use core::task::Waker;

/// The flags and the counted pointer of a cause.
pub(super) fn raw_cause(cause: Cause) -> (State, Option<RawCause>) {
    let kind = cause.kind();
    match cause.into_raw() {
        Ok(custom) => (
            State::of_kind(kind).with(State::CUSTOM),
            Some(RawCause::new(custom, kind)),
        ),
        Err(kind) => (State::of_kind(kind), None),
    }
}

/// Why `node` is cancelled: what its nearest ancestor with an own cancel says.
pub(super) fn cause(node: &Node) -> Option<Cause> {
    let (node, state) = origin(node)?;
    let custom = if state.has_any(State::CUSTOM) {
        // SAFETY: held, or above what is held, and the cause that won: it stays (I5). Without
        // CUSTOM, what is in `link` may belong to a call that lost and takes it back.
        unsafe { node.link.clone_cause() }
    } else {
        None
    };
    Some(custom.unwrap_or_else(|| state.kind().into()))
}

/// The node whose own cancel has cancelled this one.
fn origin(node: &Node) -> Option<(&Node, State)> {
    let mut state = node.word.load();
    if !state.is_cancelled() {
        return None;
    }
    let mut node = node;
    while !state.has_any(State::OWN) {
        // SAFETY: the caller holds the node he asks about (I5). A node without an own cancel
        // was marked from above, so a cancelled parent exists, and its state is visible.
        node = unsafe { node.parent() }?;
        state = node.word.load();
    }
    Some((node, state))
}

impl Handle {
    /// Why the token is cancelled, if it is.
    pub(crate) fn cause(&self) -> Option<Cause> {
        cause(self.node())
    }

    /// The kind of that.
    #[cfg(feature = "std")]
    pub(crate) fn kind(&self) -> Option<super::cause::ContextError> {
        origin(self.node()).map(|(_, state)| state.kind())
    }

    /// Cancels the token and everything below; true if this call was the first.
    #[inline]
    pub(crate) fn cancel(&self) -> bool {
        let node = self.node();
        match node.word.cancel(State::NONE, true) {
            // Nothing below, nobody waits: one RMW and done.
            Ok((state, false)) if state.has_any(State::DONE) => true,
            // SAFETY: the step that was made just now.
            step => finish(node, unsafe { Outcome::of(node, step) }),
        }
    }

    /// Cancels and gives up the handle: one step, if nobody waits and nothing is below. (Then the last owner need not
    /// cancel at all: nobody could learn of it.)
    #[cfg(feature = "std")]
    #[inline]
    pub(crate) fn cancel_and_drop(self) {
        let this = core::mem::ManuallyDrop::new(self);
        if !this.node().word.cancel_and_release() {
            let this = core::mem::ManuallyDrop::into_inner(this);
            if !this.node().word.is_unobserved() {
                this.cancel();
            }
        }
    }

    /// The same, and says why.
    pub(crate) fn cancel_with(&self, cause: Cause) -> bool {
        cancel_because(self.node(), cause)
    }
}

/// Cancels a node that the caller keeps, and everything below; true if this call was the first.
pub(super) fn cancel_because(node: &Node, cause: Cause) -> bool {
    finish(node, set_cancelled(node, cause, true))
}

/// What is left of a cancel once the node itself is cancelled.
#[inline(never)]
fn finish(node: &Node, outcome: Outcome) -> bool {
    let inherited = outcome.state.has_any(State::INHERITED);
    let done = outcome.state.has_any(State::DONE) || inherited && done_above(node);
    if !done {
        spread(node);
    }
    // Done, but for this.
    if let Some(waker) = outcome.waker {
        unless_unwinding(|| waker.wake());
    }
    // User code: the error that lost may run anything when it is dropped (I9).
    drop(outcome.rejected);
    outcome.first
}

/// What has become of the own cancel of one node.
pub(super) struct Outcome {
    first: bool,
    pub(super) state: State,
    /// Who waited there, to be woken: then nothing is below.
    waker: Option<Waker>,
    /// The cause that was not taken.
    pub(super) rejected: Option<Cause>,
}

impl Outcome {
    /// Somebody else was faster.
    fn of_other(state: State) -> Outcome {
        Outcome {
            first: false,
            state,
            waker: None,
            rejected: None,
        }
    }

    /// # Safety
    /// The step is the caller's own on the node's word, and is given to this once.
    unsafe fn of(node: &Node, step: Result<(State, bool), State>) -> Outcome {
        match step {
            Ok((state, disarmed)) => Outcome {
                first: true,
                // SAFETY: who clears WAITER owns the content (I8), which is a waker: edges' nodes have no cancel of
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
    match node.link.place_cause(raw) {
        Ok(()) => {
            let outcome = cancel(how);
            if outcome.state.has_all(State::OWN.with(State::CUSTOM)) {
                // By this call, or by one that found our cause and helped.
                return Outcome {
                    first: true,
                    ..outcome
                };
            }
            // A plain cancel or an ancestor's was faster.
            // SAFETY: placed above, and no cause of this node has been made visible.
            let mine = unsafe { node.link.take_back_cause(raw) };
            Outcome {
                rejected: Some(mine),
                ..outcome
            }
        }
        Err(other) => {
            // Another call has placed its cause but perhaps not yet cancelled. Ours must not
            // return before the token is cancelled, and must not wait: so make his step for him.
            let how = State::of_kind(other.kind()).with(State::CUSTOM);
            let outcome = cancel(how);
            Outcome {
                first: false,
                // SAFETY: never placed, so still ours.
                rejected: Some(unsafe { raw.into_cause() }),
                ..outcome
            }
        }
    }
}

/// Whether an ancestor's cancel has been through with everything below it, this node included.
/// Guards that are dropped one after the other below a cancelled token would otherwise each walk
/// what is below them. What has been found out is noted on the way, so that the next
/// one need not climb as far.
fn done_above(node: &Node) -> bool {
    let mut above = node;
    loop {
        // SAFETY: the caller holds `node` (I5).
        let Some(parent) = (unsafe { above.parent() }) else {
            return false;
        };
        let state = parent.word.load();
        if state.has_any(State::DONE) {
            break;
        }
        if !state.has_any(State::INHERITED) {
            return false;
        }
        above = parent;
    }
    let top = above;
    let mut node = node;
    loop {
        node.word.set_done();
        if ptr::eq(node, top) {
            return true;
        }
        // SAFETY: as above; `top` is on the way.
        match unsafe { node.parent() } {
            Some(parent) => node = parent,
            None => return true,
        }
    }
}

/// Marks and wakes everything below a node that has just been cancelled. The caller holds it.
///
/// Tokens that are cancelled through an `any_of` come along: they too are marked before
/// anybody is woken, in a loop here and not by recursion, however long the chain of them is.
fn spread(top: &Node) {
    let mut fired = FiredEdges::new();
    let below = mark(top);
    if below.has_any(State::EDGE) {
        fired.collect(top);
    }
    fired.follow(mark);

    let mut panics = Panics::default();
    let wake_below = |top: &Node, below: State, panics: &mut Panics| {
        if below.has_any(State::WAITER.with(State::KEPT)) {
            wake(top, panics);
        }
        top.word.set_done();
    };
    wake_below(top, below, &mut panics);
    fired.finish(&mut panics, wake_below);
    panics.resume();
}

// ----- STAND-IN: a cancel in steps, until the cancel itself is made of them ----------------------

/// A cancel that is made in steps: the first two run no user code, and the others are for another thread.
#[cfg(feature = "std")]
pub(super) struct Cancel {
    node: NonNull<Node>,
    done: bool,
    fired: Option<Box<FiredEdges>>,
}

#[cfg(feature = "std")]
impl Cancel {
    /// Cancels the node, which stays until `call` is through. Somebody keeps the cause, of which this is a clone: if it
    /// is not taken, dropping it runs no user code.
    pub(super) fn begin(node: &Node, cause: Cause) -> Cancel {
        let outcome = set_cancelled(node, cause, false);
        let inherited = outcome.state.has_any(State::INHERITED);
        Cancel {
            node: NonNull::from(node),
            done: outcome.state.has_any(State::DONE) || inherited && done_above(node),
            fired: None,
        }
    }

    /// One that is marked through, and plain.
    pub(super) fn marked(node: &Node) -> Cancel {
        Cancel {
            node: NonNull::from(node),
            done: node.word.load().has_any(State::DONE),
            fired: None,
        }
    }

    /// Marks what is below. True: it is through.
    pub(super) fn mark(&mut self, _budget: usize) -> bool {
        // SAFETY: it stays, as `begin` says.
        let top = unsafe { self.node.as_ref() };
        if !self.done && mark(top).has_any(State::EDGE) {
            let fired = self.fired.insert(Box::new(FiredEdges::new()));
            fired.collect(top);
            fired.follow(mark);
        }
        true
    }

    /// Whether the node is all that has to be kept for the next steps.
    pub(super) fn is_plain(&self) -> bool {
        self.fired.is_none()
    }

    pub(super) fn wake(&mut self, panics: &mut Panics) {
        // SAFETY: as above.
        let top = unsafe { self.node.as_ref() };
        if self.done {
            return;
        }
        wake(top, panics);
        top.word.set_done();
        if let Some(fired) = self.fired.take() {
            fired.finish(panics, |top, below, panics| {
                if below.has_any(State::WAITER.with(State::KEPT)) {
                    wake(top, panics);
                }
                top.word.set_done();
            });
        }
    }

    pub(super) fn call(&mut self, _panics: &mut Panics) {}
}

// ----- end of the STAND-IN -------------------------------------------------------------------------

/// Marks everything below `top`, which is cancelled already. The flags seen, all together.
fn mark(top: &Node) -> State {
    let mut all = top.word.load();
    walk(top, |node| {
        let seen = node.word.mark();
        all = all.with(seen.unowned());
        seen
    });
    all
}

/// Wakes everyone who waits below `top`, and there.
///
/// This is a walk of its own, so that all state is set before the first waker runs. The list of
/// those to wake cannot be strung through the nodes while marking: a waiter that gives up
/// meanwhile would have to get out of it.
fn wake(top: &Node, panics: &mut Panics) {
    let mut visit = |node: &Node| {
        let state = node.word.load();
        if state.has_any(State::WAITER) && !state.has_any(State::EDGE) {
            if let Some(waker) = node.slot.disarm(&node.word) {
                panics.catch(|| waker.wake());
            }
        }
        if state.has_any(State::KEPT) && node.word.take_kept_handle() {
            // It stays where it is: frozen, or `top`, which the edge that led here keeps.
            // SAFETY: the handle is ours now.
            panics.catch(|| unsafe { reclaim::release(NonNull::from(node)) });
        }
        state
    };
    visit(top);
    walk(top, visit);
}

/// Visits everything below `top` where somebody can live, parents before children. The visitor
/// answers with the node's state.
///
/// The caller has cancelled `top` and holds it, so what is below is frozen once it is marked (I3), and
/// the pointers followed here stay good whatever others drop.
pub(super) fn walk(top: &Node, mut visit: impl FnMut(&Node) -> State) {
    // How many nodes on the way down from `top` have a sibling that is still to be visited. So
    // the end of a chain is the end of the walk: there is nothing to climb back for.
    let mut forks = 0usize;
    let mut node = top;
    let mut state = top.word.load();
    loop {
        let mut next = ptr::null_mut();
        // Nobody lives below what is free or dead (I7), and below what is done all has been seen
        // to: each of n nested tokens may be cancelled in turn, from the innermost on.
        let skip = State::FREE.with(State::DEAD).with(State::DONE);
        if state.has_any(State::PARENT) && !state.has_any(skip) {
            // Acquire: pairs with `push_chunk`.
            next = node.children.load(Acquire);
        }
        if !next.is_null() {
            if !ptr::eq(node, top) && !node.sibling().is_null() {
                forks += 1;
            }
        } else {
            if ptr::eq(node, top) {
                return;
            }
            next = node.sibling();
            if next.is_null() {
                if forks == 0 {
                    return;
                }
                forks -= 1;
                while next.is_null() {
                    // SAFETY: below `top`, which is held; parents are fixed (I1).
                    match unsafe { node.parent() } {
                        Some(parent) => node = parent,
                        None => return,
                    }
                    next = node.sibling();
                }
            }
        }
        // SAFETY: linked under a node that is frozen, or is `top` (I2, I3).
        node = unsafe { &*next };
        state = visit(node);
    }
}
