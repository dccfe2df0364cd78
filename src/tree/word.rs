//! The state word of a node: flags below, the number of handles above. Everything that two
//! threads can disagree about is decided by an atomic read-modify-write on this one word;
//! nobody outside this file touches the atomic.
//!
//! The transition table and the argument for each ordering are in docs/INTERNALS.md; the
//! comments here name the partner.

use super::cause::ContextError;
use crate::sync::{
    abort_on_overflow, const_where_possible, AcqRel, Acquire, AtomicBits, Bits, Relaxed, Release,
};

const SHIFT: u32 = 17;
const ONE: Bits = 1 << SHIFT;
const FLAGS: Bits = ONE - 1;
/// Half of what fits, so that racing increments cannot pass the edge: far beyond what memory allows
/// with 64 bits, and 16,383 with 32.
const MAX_HANDLES: Bits = Bits::MAX >> (SHIFT + 1);
// The flags have room, and so have twice as many handles as there may be.
const _: () = assert!(State::TARGET.0 == ONE >> 1 && MAX_HANDLES < Bits::MAX >> SHIFT);
const _: () = assert!(Bits::BITS == 64 || MAX_HANDLES == 16_383);

/// A value of the word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(Bits);

impl State {
    /// The token is cancelled.
    pub(crate) const CANCELLED: State = State(1);
    /// By a cancel of its own, which gave no cause but its kind.
    pub(crate) const PLAIN: State = State(1 << 1);
    /// The kind of the cancel, own or inherited: deadline exceeded (else: cancelled).
    pub(crate) const DEADLINE: State = State(1 << 2);
    /// By a cancel of its own, for a guard was dropped.
    pub(crate) const GUARD: State = State(1 << 3);
    /// By a cancel of its own, whose cause is in `link`: both bits, and neither what one of them says.
    pub(crate) const CUSTOM: State = State::PLAIN.with(State::GUARD);
    /// Any of the two: by a cancel of its own, so kind and cause are here, not at an ancestor.
    pub(crate) const OWN: State = State::CUSTOM;
    /// A cancelled ancestor's walk has been here: frozen until that ancestor dies.
    pub(crate) const INHERITED: State = State(1 << 4);
    /// Its last owner is resetting what is below.
    pub(crate) const DEAD: State = State(1 << 5);
    /// Its occupant has had children.
    pub(crate) const PARENT: State = State(1 << 6);
    /// The waiter slot is armed; whoever clears this owns what is in the slot.
    pub(crate) const WAITER: State = State(1 << 7);
    /// The waiter slot is taken by somebody that arms it, or has armed it.
    pub(crate) const SLOT: State = State(1 << 8);
    /// The same bit in an edge's node, whose slot nobody takes: the last owner of the edge's target has left a
    /// handle of it to the cancellers that are at it.
    const LEFT: State = State::SLOT;
    /// Nobody has it; its parent's next child may claim it, unless `INHERITED`.
    pub(crate) const FREE: State = State(1 << 9);
    /// It owns one handle of its parent.
    pub(crate) const ORPHAN: State = State(1 << 10);
    /// Everything below it is marked, through edges too: marking ends here. Together with OWN: whoever wakes below is whoever
    /// set that, and nobody else.
    pub(crate) const MARKED: State = State(1 << 11);
    /// Nobody has it, but a callback that nobody can stop any more waits here or below.
    pub(crate) const PASSENGER: State = State(1 << 12);
    /// It stands between a contended parent and some of its children.
    pub(crate) const SHARD: State = State(1 << 13);
    /// What is in the armed slot is an edge of an `any_of` token.
    pub(crate) const EDGE: State = State(1 << 14);
    /// A token without handles that something else than its parent may cancel (edges, a deadline, a foreign parent), kept for a
    /// callback below that nobody can stop any more: it has one handle that belongs to the first canceller that comes by.
    pub(crate) const KEPT: State = State(1 << 15);
    /// An `any_of` token that has its edges: cancellers that pass count themselves among its handles.
    pub(crate) const TARGET: State = State(1 << 16);

    /// The header of a room: nobody lives below it, it is neither claimed nor kept, and a walk that wakes closes it.
    pub(crate) const ROOM: State = State::FREE
        .with(State::SHARD)
        .with(State::WAITER)
        .with(State::SLOT);

    /// No flag.
    pub(crate) const NONE: State = State(0);
    /// One handle, no flags.
    pub(crate) const NEW: State = State(ONE);
    /// Two handles, no flags.
    #[cfg(feature = "std")]
    pub(crate) const NEW_PAIR: State = State(2 * ONE);
    /// A node that only says "cancelled": nothing can be below it. With the flags of an own cancel.
    pub(crate) const BORN_CANCELLED: State = State::NEW.with(State::CANCELLED).with(State::MARKED);

    #[inline(always)]
    pub(crate) const fn with(self, other: State) -> State {
        State(self.0 | other.0)
    }

    #[inline(always)]
    pub(crate) const fn without(self, other: State) -> State {
        State(self.0 & !other.0)
    }

    #[inline(always)]
    pub(crate) const fn only(self, flags: State) -> State {
        State(self.0 & flags.0)
    }

    #[inline(always)]
    pub(crate) const fn has_any(self, flags: State) -> bool {
        self.0 & flags.0 != 0
    }

    #[inline(always)]
    pub(crate) const fn has_all(self, flags: State) -> bool {
        self.0 & flags.0 == flags.0
    }

    #[inline(always)]
    pub(crate) const fn is_cancelled(self) -> bool {
        self.has_any(State::CANCELLED)
    }

    /// Of an edge's node, which nobody but the edge holds: a canceller is at it.
    pub(crate) const fn is_fired(self) -> bool {
        self.handles() > 1
    }

    #[inline(always)]
    const fn handles(self) -> Bits {
        self.0 >> SHIFT
    }

    /// The same flags, no handle.
    #[inline(always)]
    pub(crate) const fn unowned(self) -> State {
        State(self.0 & FLAGS)
    }

    /// Somebody may hold it, or something below it.
    #[inline(always)]
    pub(crate) const fn is_living(self) -> bool {
        !self.has_any(State::FREE.with(State::PASSENGER))
    }

    /// Is it the header of a room? Shards have no waiter, and children are no shards.
    #[inline(always)]
    pub(crate) const fn is_room(self) -> bool {
        self.has_all(State::SHARD.with(State::WAITER))
    }

    /// May the parent's next child move in?
    #[inline(always)]
    const fn is_claimable(self) -> bool {
        self.0 == State::FREE.0
    }

    /// The kind of a cancel, as a flag.
    pub(crate) const fn of_kind(kind: ContextError) -> State {
        match kind {
            ContextError::Cancelled => State(0),
            ContextError::DeadlineExceeded => State::DEADLINE,
        }
    }

    /// The kind of what is cancelled.
    pub(crate) const fn kind(self) -> ContextError {
        if self.has_any(State::DEADLINE) {
            ContextError::DeadlineExceeded
        } else {
            ContextError::Cancelled
        }
    }
}

/// Why a waiter could not be armed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The token is cancelled: nothing to wait for.
    Cancelled,
    /// Another waiter sits in the slot.
    Taken,
}

/// The atomic itself, with its named transitions.
#[repr(transparent)]
pub(crate) struct Word(AtomicBits);

impl Word {
    const_where_possible! {
        pub(crate) fn new(state: State) -> Word {
            Word(AtomicBits::new(state.0))
        }
    }

    /// Acquire: a reader that sees CANCELLED sees the kind, the cause and everything that
    /// the canceller did before (`cancel`, `mark`); one that sees a node FREE sees
    /// that its last owner is through with it (`vacate`).
    #[inline(always)]
    pub(crate) fn load(&self) -> State {
        State(self.0.load(Acquire))
    }

    /// A guess, made good by the RMW that follows it.
    #[inline(always)]
    fn peek(&self) -> State {
        State(self.0.load(Relaxed))
    }

    /// For a node that no other thread can reach.
    pub(crate) fn reset(&self, state: State) {
        // Relaxed: published by whatever publishes the node, or its parent, again.
        self.0.store(state.0, Relaxed);
    }

    /// One more handle. The caller has one, so nothing needs to become visible.
    #[inline]
    pub(crate) fn add_handle(&self) {
        self.add_handles(1);
    }

    #[inline]
    pub(crate) fn add_handles(&self, n: usize) {
        // Relaxed: a new handle is handed on by the thread that made it, as with Arc.
        let before = State(self.0.fetch_add((n as Bits).wrapping_mul(ONE), Relaxed));
        if n as Bits > MAX_HANDLES || before.handles() + n as Bits > MAX_HANDLES {
            abort_on_overflow();
        }
    }

    /// Takes back `n` handles of which the caller knows that it keeps another one.
    pub(crate) fn return_handles(&self, n: usize) {
        // Relaxed: what the caller did is published when it gives up the other one.
        self.0.fetch_sub(n as Bits * ONE, Relaxed);
    }

    /// Gives up one handle, unless it is the only one: then nothing changes, and the state is
    /// the answer. Sole ownership found by a load stands, because only whoever has a handle can make
    /// another (I4).
    #[inline]
    pub(crate) fn release_unless_sole(&self) -> Option<State> {
        // Acquire, also on failure: a handle that finds itself alone must see all that the others
        // did before they let go (the Release below).
        let mut seen = self.0.load(Acquire);
        loop {
            if State(seen).handles() == 1 {
                return Some(State(seen));
            }
            match self
                .0
                .compare_exchange_weak(seen, seen - ONE, Release, Acquire)
            {
                Ok(_) => return None,
                Err(now) => seen = now,
            }
        }
    }

    /// The parent's next child moves in, with so many handles. `Err(true)`: somebody else was faster. What an earlier
    /// occupant has left below is nothing to this one, until it has a child itself (`announce_children`).
    #[inline]
    pub(crate) fn claim(&self, handles: Bits) -> Result<(), bool> {
        let seen = self.peek();
        if !seen.is_claimable() {
            return Err(false);
        }
        let new = handles * ONE;
        // Acquire: pairs with `vacate`; the last occupant's writes to the node (its `link`, its
        // children reset) are behind us. On failure nothing is read.
        match self.0.compare_exchange(seen.0, new, Acquire, Relaxed) {
            Ok(_) => Ok(()),
            Err(_) => Err(true),
        }
    }

    #[inline(always)]
    pub(crate) fn looks_claimable(&self) -> bool {
        self.peek().is_claimable()
    }

    /// "I have linked children, or found some by walking the list, or am about to claim the first of those that an
    /// earlier occupant has left": the handshake of a creator with a canceller. Either the answer has CANCELLED, or every later canceller
    /// finds in the list what the caller knows of it.
    pub(crate) fn announce_children(&self) -> State {
        // AcqRel: the release half publishes the push to `cancel` and `mark`; the acquire half
        // pairs with theirs, so that a refused creator reads the cause.
        State(self.0.fetch_or(State::PARENT.0, AcqRel))
    }

    /// The own cancel: state, kind and which cause there is (one of PLAIN, GUARD and CUSTOM) become visible in one
    /// step. `Ok`: this call was the first; the state is what it made of the word.
    ///
    /// With nothing below this step is all of the cancel, MARKED included; but for whoever waits at the node. If the caller
    /// `wakes_at_once`, true beside the state says that the content of the slot is the caller's.
    #[inline]
    pub(crate) fn cancel(&self, how: State, wakes_at_once: bool) -> Result<(State, bool), State> {
        let mut seen = self.load();
        loop {
            if seen.is_cancelled() {
                return Err(seen);
            }
            let mut new = seen.with(State::CANCELLED).with(how);
            let mut takes = false;
            if !seen.has_any(State::PARENT) {
                new = new.with(State::MARKED);
                takes = wakes_at_once && seen.has_any(State::WAITER);
                if takes {
                    new = new.without(State::WAITER);
                }
            }
            // Release: gives the cause in `link` to `load`. Acquire: pairs with `arm`, for the caller's look into
            // the slot; what was loaded may have been an earlier waiter's. What creators announced is acquired by
            // the load of this word with which the walk begins. The failure's Acquire serves the caller's look at
            // the other's cause.
            match self.0.compare_exchange_weak(seen.0, new.0, AcqRel, Acquire) {
                Ok(_) => return Ok((new, takes)),
                Err(now) => seen = State(now),
            }
        }
    }

    /// `cancel` by a guard that is dropped and `release_unless_sole` in one step. False: nothing was done, because
    /// somebody waits, something is below, or this is the only handle.
    #[cfg(feature = "std")]
    #[inline]
    pub(crate) fn cancel_and_release(&self) -> bool {
        let cancelled = State::CANCELLED.with(State::GUARD).with(State::MARKED);
        let mut seen = self.peek();
        while seen.handles() > 1
            && !seen.has_any(State::PARENT.with(State::WAITER).with(State::CANCELLED))
        {
            let new = State(seen.with(cancelled).0 - ONE);
            // Release: for both steps, as they have it alone. Nothing is below and nobody waits, so there
            // is nothing to acquire: on failure neither, as the caller loads again.
            match self
                .0
                .compare_exchange_weak(seen.0, new.0, Release, Relaxed)
            {
                Ok(_) => return true,
                Err(now) => seen = State(now),
            }
        }
        false
    }

    /// Nobody waits, nothing is below, and the caller's handle is the only one: that stands (I4).
    #[cfg(feature = "std")]
    #[inline]
    pub(crate) fn is_unobserved(&self) -> bool {
        // Relaxed: all of it is this one value, and nothing else is looked at.
        let seen = self.peek();
        seen.handles() == 1 && !seen.has_any(State::PARENT.with(State::WAITER))
    }

    /// An ancestor's cancel arrives, and its kind, which is the parent's. The answer is the state before.
    #[inline]
    pub(crate) fn mark(&self, kind: State) -> State {
        let flags = State::CANCELLED.with(State::INHERITED);
        // Acquire: a node that was marked before needs no second RMW: this load reads from the
        // marking RMW or a later one, so it has acquired what that one had.
        let mut seen = self.load();
        while !seen.has_all(flags) {
            // An own cancel keeps its kind.
            let kind = if seen.is_cancelled() {
                State::NONE
            } else {
                kind
            };
            let new = seen.with(flags).with(kind);
            // AcqRel: acquires what creators announced; releases as `cancel` does, and orders the
            // ancestor's state before this one's, so `cause` can climb.
            match self.0.compare_exchange_weak(seen.0, new.0, AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => seen = State(now),
            }
        }
        seen
    }

    /// Everything below is marked; whoever sees it need not walk there.
    pub(crate) fn set_marked(&self) {
        // Release: pairs with the loads that find MARKED: their callers go on as if they had walked.
        self.0.fetch_or(State::MARKED.0, Release);
    }

    /// The edges of an `any_of` token are about to be armed.
    pub(crate) fn set_target(&self) {
        // Relaxed: see `pin_target`.
        self.0.fetch_or(State::TARGET.0, Relaxed);
    }

    /// A canceller that passes an `any_of` token has a handle of it. It has seen that there is something below. False: the
    /// edges are gone, or going.
    pub(crate) fn pin_target(&self) -> bool {
        // Relaxed, here and below: who made what is below had the token from its maker, and has announced it after `set_target`.
        // What the caller has seen of that (PARENT) has acquired the extension in `link`, and this word with TARGET.
        let mut seen = self.peek();
        while seen.has_any(State::TARGET) {
            if seen.handles() >= MAX_HANDLES {
                abort_on_overflow();
            }
            // The last owner learns that somebody is there, and no more.
            match self
                .0
                .compare_exchange_weak(seen.0, seen.0 + ONE, Relaxed, Relaxed)
            {
                Ok(_) => return true,
                Err(now) => seen = State(now),
            }
        }
        false
    }

    /// The last owner of an `any_of` token ends the passing of cancellers. False: one has a handle.
    pub(crate) fn end_target(&self) -> bool {
        let mut seen = self.peek();
        while seen.handles() == 1 {
            // Acquire: pairs with the release of a canceller that has passed. Nothing is read on failure.
            match self.0.compare_exchange_weak(
                seen.0,
                seen.without(State::TARGET).0,
                Acquire,
                Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => seen = State(now),
            }
        }
        false
    }

    /// Reserves the waiter slot. True: another thread was at the word at the same time.
    pub(crate) fn take_slot(&self) -> Result<bool, Refused> {
        let mut raced = false;
        let mut seen = self.load();
        loop {
            if seen.is_cancelled() {
                return Err(Refused::Cancelled);
            }
            if seen.has_any(State::SLOT) {
                return Err(Refused::Taken);
            }
            // Acquire: pairs with `disarm_and_leave`; the slot's last content has been taken out.
            match self
                .0
                .compare_exchange_weak(seen.0, seen.with(State::SLOT).0, Acquire, Acquire)
            {
                Ok(_) => return Ok(raced),
                Err(now) => (seen, raced) = (State(now), true),
            }
        }
    }

    /// The slot has been written: from now on a canceller may take it. Refused if the token
    /// was cancelled meanwhile: the check and the registration are one step.
    pub(crate) fn arm(&self, what: State) -> Result<(), Refused> {
        let mut seen = self.load();
        loop {
            if seen.is_cancelled() {
                return Err(Refused::Cancelled);
            }
            // Release: pairs with the load by which a canceller finds WAITER before it reads the slot.
            // Acquire on failure: a refused waiter goes on as one that saw the cancel.
            match self.0.compare_exchange_weak(
                seen.0,
                seen.with(State::WAITER).with(what).0,
                Release,
                Acquire,
            ) {
                Ok(_) => return Ok(()),
                Err(now) => seen = State(now),
            }
        }
    }

    /// True: the content of the slot is the caller's. Exactly one of a canceller, a waiter that
    /// gives up and a last owner gets it.
    pub(crate) fn disarm(&self) -> bool {
        // Relaxed: whoever comes here has seen WAITER by an Acquire load, which pairs with `arm`, and nobody
        // has armed since: the token is cancelled, or has no other owner. What the winner does
        // with the slot is published by `vacate`, and until then nobody takes the slot again.
        let before = self.0.fetch_and(!State::WAITER.0, Relaxed);
        State(before).has_any(State::WAITER)
    }

    /// Disarms and leaves the slot in one step, for the waiter that armed it. If a canceller was faster, the
    /// slot is left all the same: nobody takes it again, for the token is cancelled.
    pub(crate) fn disarm_and_leave(&self) -> bool {
        // Release: pairs with `take_slot`; the waiter has read the slot before. Acquire: pairs with `cancel` and
        // `mark`; if a canceller was faster the waiter goes on as one that has seen the cancel.
        let before = self.0.fetch_and(!State::WAITER.with(State::SLOT).0, AcqRel);
        State(before).has_any(State::WAITER)
    }

    /// A canceller has what the waiter that asks has armed, so there is nothing left to take back. A token that is
    /// cancelled is never armed again.
    #[inline]
    pub(crate) fn is_disarmed(&self) -> bool {
        // Acquire, by `load`: a waiter that goes on here has seen the cancel.
        !self.load().has_any(State::WAITER)
    }

    /// A canceller comes by an edge's node that is armed, or that another one is at: until `end_firing` it has one
    /// of its handles, and the edge and its target stay.
    pub(crate) fn begin_firing(&self, seen: State) -> Result<(), State> {
        if seen.handles() >= MAX_HANDLES {
            abort_on_overflow();
        }
        // Relaxed: the edge was published by `arm`, to the load that the caller has seen this by; its owner
        // learns that somebody is there, and no more.
        let new = seen.without(State::WAITER).0 + ONE;
        match self.0.compare_exchange_weak(seen.0, new, Relaxed, Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(State(now)),
        }
    }

    /// True: the canceller was the last, and has a handle of the target to give up.
    pub(crate) fn end_firing(&self) -> bool {
        // AcqRel: whoever is last, here or in `settle_edge`, sees all that the others did.
        let before = State(self.0.fetch_sub(ONE, AcqRel));
        before.handles() == 2 && before.has_any(State::LEFT)
    }

    /// The last owner of an edge's target takes it back if it is armed, or else notes that there is a handle for those
    /// that are at it.
    pub(crate) fn settle_edge(&self, seen: State) -> Result<(), State> {
        let new = if seen.has_any(State::WAITER) {
            seen.without(State::WAITER)
        } else {
            seen.with(State::LEFT)
        };
        // Release: pairs with the last `end_firing`, which goes on as the target's owner. Acquire on failure:
        // pairs with it too, if that has been the last by now.
        match self
            .0
            .compare_exchange_weak(seen.0, new.0, Release, Acquire)
        {
            Ok(_) => Ok(()),
            Err(now) => Err(State(now)),
        }
    }

    /// True: the handle that the token was kept by is the caller's.
    pub(crate) fn take_kept_handle(&self) -> bool {
        // Relaxed: the caller has seen KEPT by an Acquire load, which pairs with the `vacate` that set it.
        let before = self.0.fetch_and(!State::KEPT.0, Relaxed);
        State(before).has_any(State::KEPT)
    }

    /// A dying parent hands its child one of its handles. False: the child is gone.
    pub(crate) fn adopt(&self) -> bool {
        let mut seen = self.load();
        while seen.is_living() {
            // Release: pairs with the Acquire of the child's `vacate`, which then knows of the
            // handle. On failure nothing is read: for a child that just went the next census acquires.
            match self
                .0
                .compare_exchange_weak(seen.0, seen.with(State::ORPHAN).0, Release, Relaxed)
            {
                Ok(_) => return true,
                Err(now) => seen = State(now),
            }
        }
        false
    }

    /// A last owner's step: the word becomes `new` if it still is `seen`, which the owner has acquired.
    #[inline]
    pub(crate) fn vacate(&self, seen: State, new: State) -> Result<(), State> {
        // Release: hands the node to `claim` and tells a dying parent (`adopt`, `load`) that we are
        // through. Acquire on failure: pairs with `adopt` and `mark`, which have changed the value
        // if they came since; the answer decides what to do instead.
        match self.0.compare_exchange(seen.0, new.0, Release, Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(State(now)),
        }
    }
}
