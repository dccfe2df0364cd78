//! Places: where a task is counted, a word of its own each (G1, G2 and G4; G3, which closes all of them, is in `places.rs`).
//!
//! Places are allocated in chunks and belong to the group until it is freed. A place that stands empty is found by
//! a *hint*, as the tree finds its free nodes: the top of a chain through `next`, written by plain stores, never trusted; what two
//! threads lose of it, the next look around finds.

use super::label::Label;
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU64, Credit, Panics, Relaxed, Release, SMALL};
use alloc::boxed::Box;
use core::panic::Location;
use core::ptr::{self, NonNull};

/// A place's word.
///
/// | bit | |
/// | --- | --- |
/// | 0 TAKEN | a task is here |
/// | 1 WATCHED | it is in the tally; only beside TAKEN or CLEARING |
/// | 2 CLOSED | nobody may take the place any more |
/// | 3 CLEARING | the task is through, and its name is being dropped; not TAKEN |
/// | 4 LIMITED | it has a permit of the limit; only beside TAKEN |
/// | 5 INNER | its task has a place in a group inside this one too; only beside TAKEN |
/// | 8 to 23 | how many are reading what is written here. Without TAKEN: the task is gone, and the last of them clears up |
/// | 24 to 63 | generation: how often it was taken |
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State(u64);

impl State {
    const TAKEN: u64 = 1;
    const WATCHED: u64 = 2;
    const CLOSED: u64 = 4;
    const CLEARING: u64 = 8;
    const LIMITED: u64 = 16;
    pub(super) const INNER: u64 = 32;
    const READER: u64 = 1 << 8;
    const READERS: u64 = 0xFFFF << 8;
    const GENERATION: u64 = 1 << 24;

    pub(super) const fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    const fn is_claimable(self) -> bool {
        self.0 & (State::GENERATION - 1) == 0
    }

    /// The tally has to wait for it: a task, or a name on its way out.
    pub(super) const fn is_living(self) -> bool {
        self.has(State::TAKEN | State::CLEARING)
    }

    pub(super) const fn generation(self) -> u64 {
        self.0 >> 24
    }

    /// What tells a task's `from` from that of the one before it.
    const fn mark(self) -> usize {
        self.generation() as usize & 1
    }
}

pub(crate) struct Place {
    word: AtomicU64,
    /// While empty: the rest of the chain of hints.
    next: AtomicPtr<Place>,
    chunk: *const Chunk,
    /// With the lowest bit of the generation of the task that it is of, so what one has left is nothing to read of the next. Null: of none.
    from: AtomicPtr<Location<'static>>,
    /// Null: no name. Owned by the task, or by the last reader after it.
    label: AtomicPtr<Label>,
    /// The task's place in the group around this one, or null. The task's.
    outer: AtomicPtr<Place>,
}

// A living unnamed task has this, a node of the tree and a pointer, beyond its future.
#[cfg(all(target_pointer_width = "64", not(cancel_tree_loom)))]
const _: () = assert!(size_of::<Place>() == 48);
const _: () = assert!(align_of::<Location<'static>>() > 1);

/// Whose places they are: an address, here.
pub(super) enum Owner {}

/// Counts a task off in its owner's tally. Safety: it was counted there, and the caller holds the owner.
pub(super) type CountOff = unsafe fn(NonNull<Owner>, &mut Panics);

pub(super) struct Chunk {
    /// The next older chunk of the shard. Fixed once the chunk is linked.
    pub(super) older: AtomicPtr<Chunk>,
    owner: NonNull<Owner>,
    shard: *const Shard,
    pub(super) places: Box<[Place]>,
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    _leak: crate::sync::Track<()>,
}

/// The places of some threads: a line of their own.
#[repr(align(128))]
pub(super) struct Shard {
    pub(super) hint: AtomicPtr<Place>,
    /// Where the last look around ended.
    look: AtomicPtr<Place>,
    credit: Credit,
    /// The newest chunk, or CLOSED in the low bit beside it.
    pub(super) chunks: AtomicPtr<Chunk>,
}

/// So many places are looked at before more are made, or as many as would be made, or as were paid for.
const LOOK: usize = if SMALL { 2 } else { 16 };

const CLOSED: usize = 1;

pub(super) fn is_closed<T>(tagged: *mut T) -> bool {
    tagged.addr() & CLOSED != 0
}

pub(super) fn untagged<T>(tagged: *mut T) -> *mut T {
    tagged.map_addr(|addr| addr & !CLOSED)
}

/// Sets the tag.
pub(super) fn close<T>(word: &AtomicPtr<T>) {
    // Relaxed, here and below: it is about the tag alone. A thread that loads the word after this acquires the push of what is there,
    // whose release sequence the CAS goes on with.
    let mut seen = word.load(Relaxed);
    while !is_closed(seen) {
        match word.compare_exchange(seen, seen.map_addr(|a| a | CLOSED), Relaxed, Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

/// What a place's word says of its task from the beginning.
#[derive(Clone, Copy)]
pub(super) struct Bits(pub(super) u64);

impl Bits {
    #[inline]
    pub(super) fn of(limited: bool) -> Bits {
        Bits(if limited { State::LIMITED } else { 0 })
    }

    /// The task's own place is in a group inside this one: a walk that meets it there passes it over here.
    pub(super) fn of_inner() -> Bits {
        Bits(State::INNER)
    }
}

/// Nobody may come in any more.
pub(super) struct IsClosed;

/// How a task went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// By itself.
    Done,
    /// Dropped before it was through.
    Dropped,
    /// It never began, and whoever wanted it was told.
    Refused,
}

impl Shard {
    pub(super) fn new() -> Shard {
        Shard {
            hint: AtomicPtr::new(ptr::null_mut()),
            look: AtomicPtr::new(ptr::null_mut()),
            credit: Credit::new(),
            chunks: AtomicPtr::new(ptr::null_mut()),
        }
    }

    #[inline]
    pub(super) fn claim_hinted(&self, bits: u64) -> Option<NonNull<Place>> {
        // Acquire: pairs with the stores of hints; the place was made before.
        let hint = self.hint.load(Acquire);
        // SAFETY: places are freed with the body, which the caller holds.
        let place = unsafe { hint.as_ref() }?;
        place.claim(bits)?;
        // Relaxed: written before the word that the claim has read (its Acquire).
        let next = place.next.load(Relaxed);
        let next = if next == hint { ptr::null_mut() } else { next };
        // Release: pairs with the load above and with that of `end`.
        self.hint.store(next, Release);
        Some(NonNull::from(place))
    }

    /// A place that no hint leads to.
    pub(super) fn claim_by_search(
        &self,
        newest: NonNull<Chunk>,
        bits: u64,
    ) -> Option<NonNull<Place>> {
        // SAFETY: chunks are freed with the body, which the caller holds.
        let newest = unsafe { newest.as_ref() };
        // Acquire: pairs with the store below; the place was made before.
        let mut at = self.look.load(Acquire);
        let most = self.credit.looks(LOOK.max(newest.places.len()));
        for looks in 1..=most {
            if at.is_null() {
                at = ptr::from_ref(&newest.places[0]).cast_mut();
            }
            // SAFETY: as above.
            let place = unsafe { &*at };
            let next = place.next_in_list();
            if place.claim(bits).is_some() {
                // Release: pairs with the load above.
                self.look.store(next, Release);
                self.credit.found(looks);
                // What was lost with it may lead on. Relaxed, Release: as in `claim_hinted`.
                self.hint.store(place.next.load(Relaxed), Release);
                return Some(NonNull::from(place));
            }
            at = next;
        }
        // Release: as above.
        self.look.store(at, Release);
        self.credit.found_nothing(most);
        None
    }

    /// So many new places, of which the first is the caller's. `seen` was the newest chunk.
    pub(super) fn push(
        &self,
        mut seen: *mut Chunk,
        size: usize,
        owner: NonNull<Owner>,
        bits: u64,
    ) -> Result<NonNull<Place>, IsClosed> {
        let chunk = Chunk::allocate(owner, self, size, bits);
        loop {
            // SAFETY: made above, and not shared yet.
            unsafe { (*chunk).older.store(seen, Relaxed) };
            // Release: pairs with all loads of `chunks`. Failure: pairs with nothing, the chunk there is only linked to,
            // and whoever follows the link has acquired this push and with it, by the release sequence, that one.
            match self.chunks.compare_exchange(seen, chunk, Release, Relaxed) {
                Ok(_) => break,
                Err(now) if is_closed(now) => {
                    // SAFETY: made above, and never shared.
                    drop(unsafe { Box::from_raw(chunk) });
                    return Err(IsClosed);
                }
                Err(now) => seen = now,
            }
        }
        self.credit.grown(size);
        // SAFETY: freed with the body.
        let places = unsafe { &(*chunk).places };
        if let Some(second) = places.get(1) {
            // Release: pairs with `claim_hinted`.
            self.hint.store(ptr::from_ref(second).cast_mut(), Release);
        }
        Ok(NonNull::from(&places[0]))
    }

    pub(super) fn each_chunk(&self) -> impl Iterator<Item = &Chunk> {
        // Acquire: pairs with the push.
        let mut at = untagged(self.chunks.load(Acquire));
        core::iter::from_fn(move || {
            // SAFETY: chunks are freed with the body, which the caller holds.
            let chunk = unsafe { at.as_ref() }?;
            // Relaxed: fixed before the push that `chunks` was acquired from.
            at = chunk.older.load(Relaxed);
            Some(chunk)
        })
    }
}

impl Chunk {
    fn allocate(owner: NonNull<Owner>, shard: &Shard, size: usize, bits: u64) -> *mut Chunk {
        let chunk = Box::into_raw(Box::new(Chunk {
            older: AtomicPtr::new(ptr::null_mut()),
            owner,
            shard,
            places: Box::default(),
            #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
            _leak: crate::sync::Track::new(()),
        }));
        let place = |i| Place {
            word: AtomicU64::new(match i {
                0 => State::GENERATION | State::TAKEN | bits,
                _ => 0,
            }),
            next: AtomicPtr::new(ptr::null_mut()),
            chunk,
            from: AtomicPtr::new(ptr::null_mut()),
            label: AtomicPtr::new(ptr::null_mut()),
            outer: AtomicPtr::new(ptr::null_mut()),
        };
        // SAFETY: made above, and not shared yet.
        unsafe { (*chunk).places = (0..size).map(place).collect() };
        // Where they stay: to move the box would end what has been made of it.
        // SAFETY: the same.
        for pair in unsafe { &(*chunk).places }[1..].windows(2) {
            let next = ptr::from_ref(&pair[1]).cast_mut();
            // Relaxed: not shared yet; published by the push.
            pair[0].next.store(next, Relaxed);
        }
        chunk
    }
}

impl Place {
    #[inline]
    fn chunk(&self) -> &Chunk {
        // SAFETY: the chunk has the place.
        unsafe { &*self.chunk }
    }

    /// The next one in the shard's list; null after the last.
    fn next_in_list(&self) -> *mut Place {
        let chunk = self.chunk();
        let first = chunk.places.as_ptr().addr();
        let index = (ptr::from_ref(self).addr() - first) / size_of::<Place>();
        let next = chunk.places.get(index + 1).or_else(|| {
            // SAFETY: chunks are freed with the body, which the caller holds.
            // Relaxed: fixed before the push, which the caller has acquired with the place.
            let older = unsafe { chunk.older.load(Relaxed).as_ref() };
            older.map(|older| &older.places[0])
        });
        next.map_or(ptr::null_mut(), |next| ptr::from_ref(next).cast_mut())
    }

    #[inline]
    fn claim(&self, bits: u64) -> Option<()> {
        // Relaxed: a guess, which the CAS below checks.
        let seen = State(self.word.load(Relaxed));
        if !seen.is_claimable() {
            return None;
        }
        let new = seen.0.wrapping_add(State::GENERATION) | State::TAKEN | bits;
        // Acquire: pairs with `end`; what is written here is through with the last task.
        self.word
            .compare_exchange(seen.0, new, Acquire, Relaxed)
            .ok()?;
        Some(())
    }

    /// Its owner, which stays while the place is taken (G5).
    #[inline]
    pub(super) fn owner(&self) -> NonNull<Owner> {
        self.chunk().owner
    }

    /// Writes down what can be read of the task. Called by its maker.
    #[inline]
    pub(super) fn describe(&self, from: &'static Location<'static>, label: Option<Box<Label>>) {
        if let Some(label) = label {
            // Relaxed: released by the store of `from`.
            self.label.store(Box::into_raw(label), Relaxed);
        }
        // Relaxed: the generation stays until the task has gone.
        let mark = State(self.word.load(Relaxed)).mark();
        let from = ptr::from_ref(from).cast_mut().map_addr(|addr| addr | mark);
        // Release: pairs with `read`, which looks here first.
        self.from.store(from, Release);
    }

    /// There was nothing to write down. Otherwise what was written two tasks before would be the next one's.
    #[cold]
    pub(super) fn describe_nothing(&self) {
        // Relaxed: released by the end.
        self.from.store(ptr::null_mut(), Relaxed);
    }

    /// The task's place in the group around this one. Called by the task.
    pub(super) fn outer(&self) -> Option<NonNull<Place>> {
        // Relaxed, here and below: the task's own, and handed on with it.
        NonNull::new(self.outer.load(Relaxed))
    }

    pub(super) fn set_outer(&self, outer: Option<NonNull<Place>>) {
        let outer = outer.map_or(ptr::null_mut(), NonNull::as_ptr);
        self.outer.store(outer, Relaxed);
    }

    pub(super) fn where_from(&self) -> Option<&'static Location<'static>> {
        // SAFETY: null, or of a reference that lives for ever.
        // Relaxed: the task's own, written by its maker.
        unsafe { untagged(self.from.load(Relaxed)).as_ref() }
    }

    /// The task's own name. Called by the task.
    pub(super) fn name(&self) -> Option<&str> {
        // SAFETY: the task has the label while the place is taken.
        // Relaxed: the task's own, written by its maker.
        unsafe { self.label.load(Relaxed).as_ref() }.map(|label| &**label.name())
    }

    /// What is noted of the task, if it has a name. By the task.
    #[cfg(feature = "inspect")]
    #[inline]
    pub(super) fn probe(&self) -> Option<&super::probe::Probe> {
        // SAFETY: as in `name`. Relaxed: the same.
        unsafe { self.label.load(Relaxed).as_ref() }.map(|label| &*label.probe)
    }

    /// Its task has a place in a group inside this one.
    #[cfg(feature = "inspect")]
    pub(super) fn is_inner(&self) -> bool {
        // Relaxed: set when the task got the place, and it stays.
        State(self.word.load(Relaxed)).has(State::INNER)
    }

    pub(super) fn is_limited(&self) -> bool {
        // Relaxed: set when the task got the place, and it stays.
        State(self.word.load(Relaxed)).has(State::LIMITED)
    }

    /// Gives the place up if nobody has left a mark on it and nothing has to be done but that: no name, no permit, no group
    /// around. True: that was it, and the body may be gone. False: the caller still has the place.
    ///
    /// # Safety
    /// The caller has the place, and does not use it again if the answer is true.
    #[inline]
    pub(super) unsafe fn end_at_once(this: NonNull<Place>) -> bool {
        // SAFETY: taken, so the body is there (G5).
        let place = unsafe { this.as_ref() };
        // Relaxed, all three: the task's own; and a guess, which the CAS below checks.
        let seen = place.word.load(Relaxed);
        let is_bare = seen & (State::GENERATION - 1) == State::TAKEN;
        let is_plain = place.label.load(Relaxed).is_null() && place.outer.load(Relaxed).is_null();
        if !(is_bare && is_plain) {
            return false;
        }
        let shard = place.leave_hint();
        // Release: pairs with `claim_hinted`.
        shard.hint.store(this.as_ptr(), Release);
        // Release: pairs with the next claim, and with the walks that find the place empty. Nothing is done with it after this.
        place
            .word
            .compare_exchange(seen, seen & !State::TAKEN, Release, Relaxed)
            .is_ok()
    }

    /// Writes down where the chain of hints goes on after this place. Called by a task that is about to go, or by whoever clears up
    /// after it.
    #[inline]
    fn leave_hint(&self) -> &Shard {
        // SAFETY: shards are freed with the body.
        let shard = unsafe { &*self.chunk().shard };
        // Before the place is given up: the body may go then. Acquire: pairs with the stores of hints, so that whoever reads
        // `next` after us sees that place as it was made.
        let hint = shard.hint.load(Acquire);
        // The second of two tries leaves what the first has found.
        if !ptr::eq(hint, self) {
            self.next.store(hint, Relaxed);
        }
        shard
    }

    /// Gives the place up. True: somebody watched, and the caller must count it off in the tally; otherwise the body may be
    /// gone. If somebody watches, `count` is called before: a walk that finds the place empty finds the task counted. (Perhaps
    /// more than once.)
    ///
    /// # Safety
    /// The caller has the place, and does not use it again.
    pub(super) unsafe fn end(
        this: NonNull<Place>,
        panics: &mut Panics,
        mut count: impl FnMut(),
    ) -> bool {
        // SAFETY: taken, so the body is there (G5).
        let place = unsafe { this.as_ref() };
        let shard = place.leave_hint();
        // Relaxed, both: the task's own; and a guess, which the CAS below checks.
        let is_named = !place.label.load(Relaxed).is_null();
        let mut seen = State(place.word.load(Relaxed));
        loop {
            if seen.has(State::WATCHED) {
                count();
            }
            let clears = is_named && !seen.has(State::READERS);
            let kept = State::CLOSED | State::READERS | !(State::GENERATION - 1);
            let new = match clears {
                true => seen.0 & (kept | State::WATCHED) | State::CLEARING,
                false => seen.0 & kept,
            };
            if !clears && !is_named {
                // Release: pairs with `claim_hinted`.
                shard.hint.store(this.as_ptr(), Release);
            }
            // AcqRel: the release half pairs with the next claim, the walks that find the place empty, and the last
            // reader; the acquire half with what has watched, closed or read.
            match place.word.compare_exchange(seen.0, new, AcqRel, Relaxed) {
                // SAFETY: CLEARING is ours.
                Ok(_) if clears => return unsafe { Place::clear(this, panics, count) },
                Ok(_) => return seen.has(State::WATCHED),
                Err(now) => seen = State(now),
            }
        }
    }

    /// Drops the label, and leaves the place. True: as for `end`.
    ///
    /// # Safety
    /// The caller has set CLEARING, and does not use the place again.
    #[cold]
    unsafe fn clear(this: NonNull<Place>, panics: &mut Panics, mut count: impl FnMut()) -> bool {
        // SAFETY: the body stays while CLEARING is set (G5).
        let place = unsafe { this.as_ref() };
        // Relaxed, here and below: the step to CLEARING has acquired what the task and the readers did.
        let label = place.label.load(Relaxed);
        place.label.store(ptr::null_mut(), Relaxed);
        // SAFETY: of a Box; nobody reads, and nobody begins to.
        let label = (!label.is_null()).then(|| unsafe { Box::from_raw(label) });
        // Anew: places have been left since the task went.
        let shard = place.leave_hint();
        // Release: pairs with `claim_hinted`.
        shard.hint.store(this.as_ptr(), Release);
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = place.word.load(Relaxed);
        loop {
            if State(seen).has(State::WATCHED) {
                count();
            }
            let new = seen & !(State::CLEARING | State::WATCHED);
            // AcqRel: as in `end`.
            match place.word.compare_exchange(seen, new, AcqRel, Relaxed) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        // What it was told by may have the last handle of a cause: user code.
        panics.let_go(label);
        State(seen).has(State::WATCHED)
    }

    /// Nobody takes it after this (G3).
    pub(super) fn close(&self) {
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = self.word.load(Relaxed);
        while !State(seen).has(State::CLOSED) {
            // Relaxed: it is about the bit alone. A thread that looks after this acquires the last end here, whose release
            // sequence the CAS goes on with.
            match self
                .word
                .compare_exchange(seen, seen | State::CLOSED, Relaxed, Relaxed)
            {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
    }

    /// Marks the task that is here, if it is not marked. `before` is called before each try: the task has to be counted by then (G2). What
    /// it was before, and whether it was marked here.
    pub(super) fn watch(&self, mut before: impl FnMut()) -> (State, bool) {
        // Acquire: pairs with `end`; whoever joins sees what the task did.
        let mut seen = State(self.word.load(Acquire));
        while seen.is_living() && !seen.has(State::WATCHED) {
            before();
            // Release: hands the count to the end of the task. Failure, Acquire: pairs with `end`, as the load.
            match self
                .word
                .compare_exchange(seen.0, seen.0 | State::WATCHED, Release, Acquire)
            {
                Ok(_) => return (seen, true),
                Err(now) => seen = State(now),
            }
        }
        (seen, false)
    }

    pub(super) fn state(&self) -> State {
        // Acquire: pairs with `end`; what it was before is seen by the loads after this (G4).
        State(self.word.load(Acquire))
    }

    /// What is written here of a living task; none if there is none, or it is about to come. One that was there and is watched is counted
    /// (`end`) by the time that it is not found.
    pub(super) fn read<R>(
        &self,
        panics: &mut Panics,
        count_off: CountOff,
        read: impl FnOnce(State, &'static Location<'static>, Option<&Label>) -> R,
    ) -> Option<R> {
        // Acquire, here and where the CAS fails: pairs with `end`, whose count comes along where the task is found gone.
        let mut seen = State(self.word.load(Acquire));
        loop {
            if !seen.has(State::TAKEN) || seen.0 & State::READERS == State::READERS {
                return None;
            }
            // Relaxed: what `seen` was found by has acquired the end of the task before, so nothing older is read here.
            match self
                .word
                .compare_exchange(seen.0, seen.0 + State::READER, Relaxed, Acquire)
            {
                Ok(_) => break,
                Err(now) => seen = State(now),
            }
        }
        // Acquire: pairs with `describe`.
        let from = self.from.load(Acquire);
        let is_its = from.addr() & 1 == seen.mark();
        // SAFETY: null, or of a reference that lives for ever.
        let from = unsafe { untagged(from).as_ref() }.filter(|_| is_its);
        let answer = from.map(|from| {
            // SAFETY: while we are among the readers, nobody drops it.
            read(seen, from, unsafe { self.label.load(Relaxed).as_ref() })
        });
        // Relaxed: a guess, which the CAS below checks.
        seen = State(self.word.load(Relaxed));
        loop {
            let is_last = seen.0 & State::READERS == State::READER;
            let clears = is_last && !seen.has(State::TAKEN);
            let new = (seen.0 - State::READER) | if clears { State::CLEARING } else { 0 };
            // AcqRel: the release half pairs with whatever drops the label, the acquire half with the task and with
            // other readers.
            match self.word.compare_exchange(seen.0, new, AcqRel, Relaxed) {
                Ok(_) if clears => {
                    // SAFETY: CLEARING is ours.
                    if unsafe { Place::clear(NonNull::from(self), panics, || ()) } {
                        // Watched since the task went, which was counted then.
                        // SAFETY: it is counted, and the caller holds the body.
                        unsafe { count_off(self.owner(), panics) };
                    }
                    return answer;
                }
                Ok(_) => return answer,
                Err(now) => seen = State(now),
            }
        }
    }
}
