//! Walking over what is below a cancelled node, in steps: a node pointer and a counter are all that it needs.

use super::word::State;
use super::Node;
use crate::sync::Acquire;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

/// From where a node below inherits: its parent's kind, and the ancestor whose own cancel that was, or one that inherits it as well;
/// null: to be looked for above the walk's top.
#[derive(Clone, Copy)]
pub(super) struct From {
    pub(super) kind: State,
    pub(super) origin: *const Node,
}

impl From {
    fn of_top(top: &Node, state: State) -> From {
        let own = state.has_any(State::OWN);
        From {
            kind: state.only(State::DEADLINE),
            origin: if own { top } else { ptr::null() },
        }
    }
}

/// A walk over everything below `top` where somebody can live, parents before children.
///
/// The walker has cancelled `top`, or found it cancelled, and keeps it. What is below is frozen once it is marked (I3),
/// so the pointers followed here stay good whatever others drop, and however long the walk rests between two steps.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    top: NonNull<Node>,
    node: NonNull<Node>,
    state: State,
    from: From,
    /// How many nodes with an own cancel it is below, without `top`: others' cancels, half way.
    others: usize,
    /// How many nodes on the way down from `top` have a sibling that is still to be visited. So
    /// the end of a chain is the end of the walk: there is nothing to climb back for.
    forks: usize,
    _kept: PhantomData<&'a Node>,
}

/// Where a walk goes down: below parents, but for what is free or dead, where nobody lives (I7), and what the visitor's
/// answer says is marked.
const ENTERED: State = State::PARENT
    .with(State::FREE)
    .with(State::DEAD)
    .with(State::MARKED);

impl<'a> Walk<'a> {
    /// `state` is one of the top's, in which it is cancelled.
    #[inline]
    pub(super) fn new(top: &'a Node, state: State) -> Walk<'a> {
        Walk {
            top: NonNull::from(top),
            node: NonNull::from(top),
            state: state.without(State::MARKED),
            from: From::of_top(top, state),
            others: 0,
            forks: 0,
            _kept: PhantomData,
        }
    }

    pub(super) fn top(&self) -> &'a Node {
        // SAFETY: made from a reference.
        unsafe { self.top.as_ref() }
    }

    /// Visits at most so many nodes; those that it comes by on its way back count too. The visitor answers with the node's
    /// state: where MARKED is in it, what is below is passed over. The answer is what is left of the budget when the walk
    /// is through. `FROM`: the visitor is told from where the nodes inherit.
    #[inline(always)]
    pub(super) fn step<const FROM: bool>(
        &mut self,
        mut budget: usize,
        mut visit: impl FnMut(&'a Node, From) -> State,
    ) -> Option<usize> {
        let top = self.top();
        // SAFETY: visited, or `top`.
        let mut node: &'a Node = unsafe { self.node.as_ref() };
        let mut state = self.state;
        let mut from = self.from;
        let mut others = self.others;
        let mut forks = self.forks;
        while budget != 0 {
            budget -= 1;
            let mut next = ptr::null_mut();
            if state.only(ENTERED) == State::PARENT {
                // Acquire: pairs with `push_chunk`.
                next = node.children.load(Acquire);
            }
            if !next.is_null() {
                if !ptr::eq(node, top) {
                    if !node.sibling().is_null() {
                        forks += 1;
                    }
                    if FROM && state.has_any(State::OWN) {
                        // Somebody else's, half way.
                        from = From {
                            kind: state.only(State::DEADLINE),
                            origin: node,
                        };
                        others += 1;
                    }
                }
            } else {
                if ptr::eq(node, top) {
                    return Some(budget);
                }
                next = node.sibling();
                if next.is_null() {
                    if forks == 0 {
                        return Some(budget);
                    }
                    forks -= 1;
                    let left = node;
                    loop {
                        // SAFETY: below `top`, which is kept; parents are fixed (I1).
                        match unsafe { node.parent() } {
                            Some(parent) => node = parent,
                            None => return Some(budget),
                        }
                        next = node.sibling();
                        if !next.is_null() {
                            break;
                        }
                        if budget == 0 {
                            // To be climbed on from here: as from what has nothing below.
                            state = State::NONE;
                            forks += 1;
                            break;
                        }
                        budget -= 1;
                    }
                    if FROM && others != 0 {
                        (from, others) = leave_others(from, others, left, node, top);
                    }
                    if next.is_null() {
                        break;
                    }
                }
            }
            // SAFETY: linked under a node that is frozen, or is `top` (I2, I3).
            node = unsafe { &*next };
            state = visit(node, from);
        }
        self.node = NonNull::from(node);
        self.state = state;
        self.from = from;
        self.others = others;
        self.forks = forks;
        None
    }
}

/// From where the siblings of `node` inherit, after a climb to it from `left`, which was below so many others' own cancels. As many
/// steps as were climbed: where they are below another one of these, it is left open which that is, for it may be far above.
#[cold]
fn leave_others(from: From, others: usize, left: &Node, node: &Node, top: &Node) -> (From, usize) {
    let mut still = others;
    let mut at = left;
    while !ptr::eq(at, node) {
        // SAFETY: below `top`, which is kept; parents are fixed (I1).
        at = unsafe { at.parent() }.unwrap_or(node);
        // Entered, so it was counted, if it had one then; what is marked gets none.
        still -= usize::from(at.word.load().has_any(State::OWN));
    }
    if still == others {
        return (from, others);
    }
    if still == 0 {
        return (From::of_top(top, top.word.load()), 0);
    }
    // SAFETY: as above.
    let parent = unsafe { node.parent() }.unwrap_or(top);
    let from = From {
        kind: parent.word.load().only(State::DEADLINE),
        origin: parent,
    };
    (from, still)
}

/// A climb from a node in search of an ancestor that is marked through: then so is all below the node. What has been
/// found out is noted on the way, from below once more, so that the next one need not climb as far.
pub(super) struct Climb {
    from: NonNull<Node>,
    /// The last one looked at, or the next one to be noted; none: there is nothing to be found.
    at: Option<NonNull<Node>>,
    found: Option<NonNull<Node>>,
}

impl Climb {
    /// `state` is one of the node's, which the caller keeps.
    pub(super) fn new(node: &Node, state: State) -> Climb {
        let inherited = state.has_any(State::INHERITED);
        Climb {
            from: NonNull::from(node),
            at: inherited.then(|| NonNull::from(node)),
            found: None,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.at.is_none()
    }

    /// Takes so many steps. True: one is marked through, and that is noted.
    pub(super) fn step(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            // SAFETY: the caller keeps the node, and so what is above it (I5).
            let Some(at) = self.at.map(|at| unsafe { &*at.as_ptr() }) else {
                return false;
            };
            if self.found == self.at {
                return true;
            }
            // SAFETY: as above.
            let above = unsafe { at.parent() };
            self.at = above.map(NonNull::from);
            if self.found.is_some() {
                at.word.set_marked();
                continue;
            }
            let state = above.map_or(State::NONE, |above| above.word.load());
            if state.has_any(State::MARKED) {
                (self.found, self.at) = (self.at, Some(self.from));
            } else if !state.has_any(State::INHERITED) {
                self.at = None;
            }
        }
        false
    }
}

#[cfg(all(test, not(any(cancel_tree_loom, cancel_tree_by_hand))))]
#[path = "walk_tests.rs"]
mod tests;
