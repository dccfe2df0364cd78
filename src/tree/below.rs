//! What a cancel notes about a part of the tree that it marks, for when all is marked.

use super::word::State;

/// What one cancel has to do about a node that it was led to, and everything below, when all is marked.
#[derive(Clone, Copy)]
pub(super) struct Below(pub(super) u8);

impl Below {
    pub(super) const NOTHING: Below = Below(0);
    /// Tasks or threads may wait there.
    pub(super) const TASKS: Below = Below(1);
    /// Callbacks, or a token that is kept for one.
    pub(super) const CALLS: Below = Below(1 << 1);
    /// Walked, and to be MARKED when all is.
    pub(super) const WALKED: Below = Below(1 << 2);
    /// Another cancel is below an `any_of` token there, and there was no memory to note that: what is below it may not
    /// be marked yet.
    pub(super) const UNSURE: Below = Below(1 << 3);

    pub(super) fn add(&mut self, other: Below) {
        self.0 |= other.0;
    }

    pub(super) fn has_any(self, other: Below) -> bool {
        self.0 & other.0 != 0
    }

    /// Notes what waits at a node.
    #[inline]
    pub(super) fn add_waiters(&mut self, state: State) {
        if state.has_any(State::WAITER) && !state.has_any(State::EDGE) {
            self.add(if is_task(state) {
                Below::TASKS
            } else {
                Below::CALLS
            });
        }
        if state.has_any(State::KEPT) {
            self.add(Below::CALLS);
        }
    }

    /// Another cancel is there, and it is not known how far it is.
    pub(super) fn add_unsure(&mut self) {
        self.add(Below::UNSURE);
        self.add_unknown();
    }

    /// It is not known what waits there.
    pub(super) fn add_unknown(&mut self) {
        self.add(Below(Below::TASKS.0 | Below::CALLS.0));
    }
}

/// What waits at a node is a task or a thread, which has taken the slot; or else a callback, which nobody competes
/// with for it. A callback that wakes others, by means of their own, is armed as a task is (`Turn::Woken`).
fn is_task(state: State) -> bool {
    state.has_any(State::SLOT)
}
