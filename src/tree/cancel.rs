//! Cancelling: first mark everything below, then wake tasks and threads, then run callbacks. No recursion, no
//! lock; no allocation, but where cancels overlap at tokens of `any_of`, and where the end of
//! a grace is set.

use super::below::Below;
use super::cause::Cause;
use super::fired::{FiredEdges, Noted, Part};
use super::own::{cancel_target, set_cancelled, Outcome};
use super::wake::{run_callbacks, wake_tasks};
use super::walk::{Climb, From, Walk};
use super::why::own_cause;
use super::word::State;
use super::{Handle, Node};
use crate::sync::{to_the_end, unless_unwinding, Panics, SMALL};
use core::ptr::NonNull;
use core::task::Waker;

impl Handle {
    /// Cancels the token and everything below; true if this call was the first.
    #[inline]
    pub(crate) fn cancel(&self) -> bool {
        self.cancel_how(State::PLAIN)
    }

    /// The same, by a guard that is dropped.
    #[inline]
    pub(crate) fn cancel_by_guard(&self) -> bool {
        self.cancel_how(State::GUARD)
    }

    #[inline(always)]
    fn cancel_how(&self, how: State) -> bool {
        let node = self.node();
        match node.word.cancel(how, true) {
            // Nothing below, nobody waits: one RMW and done.
            Ok((state, false)) if state.has_any(State::MARKED) => true,
            // SAFETY: the step that was made just now.
            step => finish(node, unsafe { Outcome::of(node, step) }),
        }
    }

    /// Cancels, for a guard is dropped, and gives up the handle: one step, if nobody waits and nothing is below. (Then
    /// the last owner need not cancel at all: nobody could learn of it.)
    #[cfg(feature = "std")]
    #[inline]
    pub(crate) fn cancel_and_drop(self) {
        let this = core::mem::ManuallyDrop::new(self);
        if !this.node().word.cancel_and_release() {
            let this = core::mem::ManuallyDrop::into_inner(this);
            if !this.node().word.is_unobserved() {
                this.cancel_by_guard();
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
    let first = outcome.first;
    if !outcome.is_all() {
        if outcome.won {
            spread(node, outcome);
            return first;
        }
        // SAFETY: the caller keeps the node.
        let mut rest = unsafe { Cancel::after(NonNull::from(node), outcome) };
        let mut panics = Panics::default();
        rest.finish(&mut panics);
        panics.resume();
        return first;
    }
    if let Some(waker) = outcome.waker {
        unless_unwinding(|| waker.wake());
    }
    // User code: the error that lost may run anything when it is dropped (I9).
    drop(outcome.rejected);
    first
}

/// What is left of a cancel that has made the step itself, where something is below. Most trees have no edges, and then
/// a walk is all that it takes to mark them.
fn spread(node: &Node, outcome: Outcome) {
    let mut below = Below::WALKED;
    below.add_waiters(outcome.state);
    let mut fired = None;
    Walk::new(node, outcome.state).step::<true>(usize::MAX, |below_it, from| {
        let seen = below_it.word.mark(from.kind);
        if seen.has_any(NOTABLE) {
            below.add_waiters(seen);
            if seen.has_any(State::EDGE.with(State::TARGET).with(State::MARKED)) {
                let fired = fired.get_or_insert_with(FiredEdges::new);
                return meet(below_it, seen, from, node, &mut below, fired);
            }
        }
        seen
    });
    let mut panics = Panics::default();
    if let Some(fired) = fired {
        // SAFETY: the caller keeps the node.
        let mut rest = unsafe { Cancel::after(NonNull::from(node), outcome) };
        rest.fired = fired;
        rest.leave_part(below);
        rest.finish(&mut panics);
    } else {
        node.word.set_marked();
        let mut rejected = outcome.rejected;
        to_the_end(|| {
            wake_tasks(node, below, &mut panics);
            run_callbacks(node, below, &mut panics);
            if let Some(rejected) = rejected.take() {
                panics.catch(|| drop(rejected));
            }
        });
    }
    panics.resume();
}

/// What a marking walk has to look at closer.
const NOTABLE: State = State::WAITER
    .with(State::EDGE)
    .with(State::TARGET)
    .with(State::KEPT)
    .with(State::MARKED);

/// Steps of a walk between which a climb makes as many.
const STRIDE: usize = if SMALL { 1 } else { 32 };

/// A cancel in phases: `mark`, in as many calls as the caller likes, then `wake`, then `call`. It may be moved, to
/// another thread too, between any two of them, and has to be brought to its end.
///
/// Tokens that are cancelled through an `any_of` come along: they too are marked before
/// anybody is woken, in a loop here and not by recursion, however long the chain of them is.
#[must_use = "what waits below is woken by the phases"]
pub(super) struct Cancel {
    phase: Phase,
    /// It has made the step on the top's word.
    #[cfg_attr(not(feature = "std"), allow(dead_code))]
    is_first: bool,
    top: NonNull<Node>,
    top_below: Below,
    /// Which part is being walked, and what is known of it.
    part: Part,
    below: Below,
    walk: Walk<'static>,
    climb: Climb,
    fired: FiredEdges,
    waker: Option<Waker>,
    rejected: Option<Cause>,
}

// SAFETY: what it points to is kept by whoever began it and by the edges in its hands; all access to that is by atomics or
// decided by them. Wakers and causes are Send.
unsafe impl Send for Cancel {}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Marking below the node that `walk` began with.
    Walking,
    /// On to the target of the next edge.
    Following,
    /// All is cancelled; MARKED is being set.
    Sealing,
    Marked,
    Over,
}

impl Cancel {
    /// Cancels the node itself. Another thread may be the one that calls `wake`, later: so what waits at the node stays in
    /// its slot until then, and of most cancels a number is all that has to be kept (`plain_rest`). Somebody keeps the cause, of
    /// which this is a clone, or it is a plain one.
    ///
    /// # Safety
    /// The caller keeps the node until all is over.
    #[cfg(feature = "std")]
    pub(super) unsafe fn begin(node: NonNull<Node>, cause: Cause) -> Cancel {
        // SAFETY: the caller's promise.
        unsafe {
            let mut outcome = set_cancelled(node.as_ref(), cause, false);
            // Dropping it runs no user code.
            drop(outcome.rejected.take());
            let (state, won) = (outcome.state, outcome.won);
            let mut this = Cancel::after(node, outcome);
            if won && this.phase == Phase::Marked {
                // Nothing is below, but somebody may wait at the node itself.
                this.top_below.add_waiters(state);
            }
            this
        }
    }

    /// No other has cancelled the node before: so what is below is its to wake.
    #[cfg(feature = "std")]
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// What is left of one that is marked through, as a small number for `of_rest`; none if it has more in its hands.
    #[cfg(feature = "std")]
    pub(super) fn plain_rest(&self) -> Option<usize> {
        let plain = self.phase == Phase::Marked
            && self.waker.is_none()
            && self.rejected.is_none()
            && self.fired.is_empty();
        plain.then_some(self.top_below.0.into())
    }

    /// Marked through, and there is nothing to be woken, called or let go of.
    #[cfg(feature = "std")]
    pub(super) fn is_idle(&self) -> bool {
        let waits = Below(Below::TASKS.0 | Below::CALLS.0);
        self.plain_rest().is_some() && !self.top_below.has_any(waits)
    }

    /// The rest of a cancel, by what `plain_rest` has said of it.
    ///
    /// # Safety
    /// As for `begin`, of the same node.
    #[cfg(feature = "std")]
    pub(super) unsafe fn of_rest(node: NonNull<Node>, rest: usize) -> Cancel {
        // SAFETY: the caller's promise.
        let mut this = unsafe { Cancel::after(node, Outcome::of_other(State::MARKED)) };
        this.top_below = Below(rest as u8);
        this
    }

    /// # Safety
    /// The same; `outcome` is that node's.
    #[inline]
    unsafe fn after(node: NonNull<Node>, outcome: Outcome) -> Cancel {
        // SAFETY: the caller's promise.
        let top: &'static Node = unsafe { node.as_ref() };
        let mut this = Cancel {
            phase: Phase::Walking,
            is_first: outcome.won,
            top: node,
            top_below: Below::NOTHING,
            part: Part::Top,
            below: Below::NOTHING,
            walk: Walk::new(top, outcome.state),
            climb: Climb::new(top, State::NONE),
            fired: FiredEdges::new(),
            waker: None,
            rejected: None,
        };
        if outcome.is_all() {
            this.phase = Phase::Marked;
        } else {
            this.enter(outcome.state, outcome.won);
        }
        (this.waker, this.rejected) = (outcome.waker, outcome.rejected);
        this
    }

    /// Begins with a part that is to be walked.
    fn enter(&mut self, state: State, won: bool) {
        self.phase = Phase::Walking;
        self.below = Below::WALKED;
        self.below.add_waiters(state);
        // Nobody above can have been through with what is only now cancelled.
        let state = if won { State::NONE } else { state };
        self.climb = Climb::new(self.walk.top(), state);
    }

    /// Marks at most about so many nodes. True: everything below is marked, and is known to be. No user code runs.
    pub(super) fn mark(&mut self, budget: usize) -> bool {
        let mut left = budget;
        loop {
            match self.phase {
                Phase::Marked | Phase::Over => return true,
                _ if left == 0 => return false,
                Phase::Walking => left = self.walk_on(left),
                Phase::Following => left = self.follow_one(left).saturating_sub(1),
                Phase::Sealing => {
                    left -= 1;
                    self.seal_one();
                }
            }
        }
    }

    /// One stretch of the walk. The answer is what is left of the budget.
    fn walk_on(&mut self, left: usize) -> usize {
        let climbing = !self.climb.has_ended();
        let steps = if climbing { left.min(STRIDE) } else { left };
        let mut walk = self.walk;
        let mut below = self.below;
        let fired = &mut self.fired;
        let top = walk.top();
        let rest = walk.step::<true>(steps, |node, from| {
            let seen = node.word.mark(from.kind);
            if seen.has_any(NOTABLE) {
                below.add_waiters(seen);
                if seen.has_any(State::EDGE.with(State::TARGET).with(State::MARKED)) {
                    return meet(node, seen, from, top, &mut below, fired);
                }
            }
            seen
        });
        self.walk = walk;
        self.below = below;
        if rest.is_some() {
            self.leave_part(below);
        } else if climbing && self.climb.step(STRIDE) {
            // It is marked through, by a cancel that also wakes here.
            self.leave_part(Below::NOTHING);
        }
        left - steps + rest.unwrap_or(0)
    }

    /// Notes what is to be done about a part that is marked.
    fn leave_part(&mut self, below: Below) {
        match self.part {
            Part::Top => self.top_below = below,
            Part::Taken(edge) => FiredEdges::set_below(edge, below),
            Part::Joined(i) => self.fired.set_joined_below(i, below),
        }
        self.phase = Phase::Following;
    }

    /// Cancels the target of the next edge. The answer is what is left of the budget.
    fn follow_one(&mut self, mut left: usize) -> usize {
        let Some((part, target, origin)) = self.fired.next() else {
            self.end_marking();
            return left;
        };
        // SAFETY: the edge is in our hands, and keeps it.
        let target: &'static Node = unsafe { &*target };
        let mut state = target.word.load();
        let mut won = false;
        if !state.is_cancelled() {
            // Only now: a cancel that helps mostly has no use for it, and it may be far above.
            // SAFETY: above the edge's source, which is held.
            let Some((origin, rest)) = self.fired.origin_of(unsafe { &*origin }, left) else {
                return 0;
            };
            left = rest;
            // SAFETY: as above.
            let origin = unsafe { &*origin };
            let cause = own_cause(origin, origin.word.load());
            let edge = match part {
                Part::Taken(edge) => edge,
                Part::Joined(i) => self.fired.joined(i),
                Part::Top => unreachable!("an edge has led here"),
            };
            // SAFETY: in our hands.
            let outcome = cancel_target(unsafe { &*edge }, target, cause);
            (state, won) = (outcome.state, outcome.won);
        }
        self.fired.advance();
        self.part = part;
        let mut below = Below::NOTHING;
        if won {
            below.add_waiters(state);
        }
        if state.has_any(State::PARENT) && !state.has_any(State::MARKED) {
            match self.fired.note(target) {
                Noted::First | Noted::Gone => {
                    self.walk = Walk::new(target, state);
                    self.enter(state, won);
                    return left;
                }
                Noted::Before => {}
                Noted::Unknown => below.add_unsure(),
            }
        }
        self.leave_part(below);
        left
    }

    /// All is cancelled: from now on that may be said.
    fn end_marking(&mut self) {
        if self.fired.is_incomplete() {
            // Without memory it is not known how far others are. Nobody is woken before all is cancelled, and nothing
            // entered that is not.
            // SAFETY: kept by the caller.
            mark_if_unsure(unsafe { self.top.as_ref() }, self.top_below);
            // SAFETY: the edge is in our hands, and keeps it.
            self.fired
                .each_part(|target, below| mark_if_unsure(unsafe { &*target }, below));
            self.phase = Phase::Marked;
            return;
        }
        if self.top_below.has_any(Below::WALKED) {
            // SAFETY: kept by the caller.
            unsafe { self.top.as_ref() }.word.set_marked();
        }
        self.fired.rewind();
        self.phase = if self.fired.is_empty() {
            Phase::Marked
        } else {
            Phase::Sealing
        };
    }

    fn seal_one(&mut self) {
        match self.fired.next_part() {
            Some((target, below)) if below.has_any(Below::WALKED) => {
                // SAFETY: the edge is in our hands, and keeps it.
                unsafe { &*target }.word.set_marked();
            }
            Some(_) => {}
            None => self.phase = Phase::Marked,
        }
    }

    /// All that is left, at once.
    fn finish(&mut self, panics: &mut Panics) {
        self.mark(usize::MAX);
        to_the_end(|| {
            self.wake(panics);
            self.call(panics);
        });
    }

    /// Wakes tasks and threads. All is marked.
    pub(super) fn wake(&mut self, panics: &mut Panics) {
        debug_assert!(self.phase == Phase::Marked);
        // SAFETY: kept by the caller.
        wake_tasks(unsafe { self.top.as_ref() }, self.top_below, panics);
        // SAFETY: kept by the edges, which are in our hands.
        self.fired
            .each_part(|target, below| wake_tasks(unsafe { &*target }, below, panics));
        if let Some(waker) = self.waker.take() {
            panics.catch(|| waker.wake());
        }
    }

    /// Runs callbacks, and lets go of what others have left to it. All is woken.
    pub(super) fn call(&mut self, panics: &mut Panics) {
        debug_assert!(self.phase == Phase::Marked);
        // SAFETY: as in `wake`.
        run_callbacks(unsafe { self.top.as_ref() }, self.top_below, panics);
        // SAFETY: the same.
        self.fired
            .each_part(|target, below| run_callbacks(unsafe { &*target }, below, panics));
        self.fired.finish(panics);
        // The error that lost may run anything when it is dropped (I9).
        if let Some(rejected) = self.rejected.take() {
            panics.catch(|| drop(rejected));
        }
        self.phase = Phase::Over;
    }
}

/// What a marking walk does about an edge, an `any_of` token, or what is marked through already. The answer is the state
/// by which the walk goes on.
#[cold]
fn meet(
    node: &Node,
    seen: State,
    from: From,
    top: &Node,
    below: &mut Below,
    fired: &mut FiredEdges,
) -> State {
    if seen.has_any(State::EDGE) {
        fired.meet(node, from.origin, top);
        return seen;
    }
    let mut enters = !seen.has_any(State::MARKED);
    if enters && seen.only(State::PARENT.with(State::FREE).with(State::DEAD)) == State::PARENT {
        match fired.note(node) {
            Noted::First | Noted::Gone => {}
            Noted::Before => enters = false,
            Noted::Unknown => {
                below.add_unsure();
                enters = false;
            }
        }
    }
    if enters {
        return seen;
    }
    if !seen.has_any(State::OWN.with(State::FREE)) {
        // What is below was not looked at, and yet may be ours to wake.
        below.add_unknown();
    }
    seen.with(State::MARKED)
}

/// Marks everything below `top` that another cancel is still to mark.
#[cold]
fn mark_if_unsure(top: &Node, below: Below) {
    if below.has_any(Below::UNSURE) {
        mark_below(top, top.word.load());
    }
}

/// Marks everything below `top`, which is cancelled, and nothing else: edges are left to others.
pub(super) fn mark_below(top: &Node, state: State) {
    Walk::new(top, state).step::<true>(usize::MAX, |node, from| node.word.mark(from.kind));
}

#[cfg(all(test, feature = "std", not(any(cancel_tree_loom, cancel_tree_by_hand))))]
#[path = "cancel_tests.rs"]
mod tests;
