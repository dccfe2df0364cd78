//! The second half of a cancel: waking tasks and threads, and then running callbacks. All is marked.

use super::below::Below;
use super::origins::Origins;
use super::wake_list::WakeList;
use super::walk::Walk;
use super::word::State;
use super::{room, telling, Handle, Node};
use crate::sync::Panics;
use core::ptr::{self, NonNull};
use core::task::Waker;

/// Wakes tasks and threads that wait below `top`, and there.
///
/// This is a walk of its own, so that all state is set before the first waker runs. The list of
/// those to wake cannot be strung through the nodes while marking: a waiter that gives up
/// meanwhile would have to get out of it.
///
/// Not inlined, for its list would be on the stack of callbacks that cancel another tree.
#[inline(never)]
pub(super) fn wake_tasks(top: &Node, below: Below, panics: &mut Panics) {
    if !below.has_any(Below::TASKS) {
        return;
    }
    let mut list = WakeList::new();
    look_at::<true>(top, |node, state, origin| {
        list.look(panics);
        // One comparison for what nearly all of them are.
        let waits = state.only(
            State::WAITER
                .with(State::SLOT)
                .with(State::EDGE)
                .with(State::SHARD),
        );
        if waits == State::WAITER.with(State::SLOT) {
            list.push(node, origin, panics);
            if ptr::eq(node, top) {
                // A walk below it is still to come.
                list.wake_all(panics);
            }
        } else if waits == State::WAITER.with(State::SLOT).with(State::SHARD) {
            room::close(node, panics, Waker::wake);
        }
    });
    list.wake_all(panics);
}

/// Runs callbacks that wait below `top`; and whatever else waits there by now.
pub(super) fn run_callbacks(top: &Node, below: Below, panics: &mut Panics) {
    if !below.has_any(Below::CALLS) {
        return;
    }
    look_at::<false>(top, |node, state, origin| {
        if state.has_any(State::WAITER) && !state.has_any(State::EDGE) {
            if state.is_room() {
                room::close(node, panics, Waker::wake);
            } else if let Some(waker) = node.slot.disarm(&node.word) {
                telling::tell(&waker, || origin);
                panics.catch(|| waker.wake());
            }
        }
        if state.has_any(State::KEPT) && node.word.take_kept_handle() {
            // It stays where it is: frozen, or `top`, which the edge that led here keeps.
            // The handle is ours now.
            panics.catch(|| drop(Handle(NonNull::from(node))));
        }
    });
}

/// Looks at `top`, and at what is below and may be this cancel's to wake. Nothing, if `top` inherits: that is left to the cancel
/// above. It may be in the middle of waking on this very thread; then a callback here would run before tasks and threads that it
/// may wait for are woken, and callbacks that each cancel the next token would be one within the other. And not below other
/// nodes with an own cancel that are marked through, for whoever has set that wakes there; where a node inherits, MARKED says
/// nothing of that. `look` is told the node whose own cancel it is.
///
/// `TASKS` or not: without, it stops at every own cancel of another. Callbacks there are told the cause
/// that stands there, which stays for as long as that canceller keeps the node, and no longer.
fn look_at<'a, const TASKS: bool>(
    top: &'a Node,
    mut look: impl FnMut(&'a Node, State, *const Node),
) {
    let waiting = State::WAITER.with(State::KEPT);
    let state = top.word.load();
    if !state.has_any(State::OWN) {
        return;
    }
    if state.has_any(waiting) {
        look(top, state, top);
    }
    Walk::new(top, state).step::<false>(usize::MAX, |node, _| {
        let state = node.word.load();
        if state.has_any(State::OWN) {
            if TASKS && (state.has_any(State::WAITER) || !state.has_any(State::MARKED)) {
                look_at_other(node, state, &mut look);
            } else if TASKS {
                // Nobody waits, but it was looked at.
                look(node, state, node);
            }
            return state.with(State::MARKED);
        }
        if TASKS || state.has_any(waiting) {
            look(node, state, top);
        }
        state.without(State::MARKED)
    });
}

/// The same for tasks, at another's own cancel and, if that is half way, below: a walk of its own, for most cancels meet none,
/// and need not note on the way from where each node inherits.
#[cold]
#[inline(never)]
fn look_at_other<'a>(
    top: &'a Node,
    state: State,
    look: &mut dyn FnMut(&'a Node, State, *const Node),
) {
    look(top, state, top);
    if state.has_any(State::MARKED) {
        return;
    }
    let mut origins = Origins::new();
    Walk::new(top, state).step::<true>(usize::MAX, |node, from| {
        let state = node.word.load();
        let own = state.has_any(State::OWN);
        let mut origin = if own { node } else { from.origin };
        if state.has_any(State::WAITER) {
            // SAFETY: below `top`, which is kept and has an own cancel, or that one.
            if let Some((found, _)) = origins.find(unsafe { &*origin }, usize::MAX) {
                origin = found;
            }
        }
        look(node, state, origin);
        if own {
            state
        } else {
            state.without(State::MARKED)
        }
    });
}
