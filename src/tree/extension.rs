//! The node's `link` word, and the extension that some nodes need: for a deadline, shards, rooms, edges or a
//! foreign parent.
//!
//! | the node is | `link` |
//! | --- | --- |
//! | free | the hint that was the parent's when it became free, or null |
//! | occupied | null, a cause (tag 1), or an extension (tag 2), which then keeps the cause |
//!
//! While the node is occupied, `link` changes from null by CAS only, so cause and extension
//! cannot overwrite each other.

use super::cause::{Cause, ContextError, Custom, GuardDropped};
use super::edge::Edge;
use super::node::Link;
use super::room::Room;
#[cfg(feature = "std")]
use super::timing::{Beside, Released, Timing};
use super::word::State;
use super::{weak, Handle, Node};
use crate::sync::{Acquire, Arc, AtomicPtr, Panics, Relaxed, Release};
#[cfg(feature = "std")]
use crate::timer::entry::{Entry, Table};
#[cfg(feature = "std")]
use crate::timer::pool;
use alloc::boxed::Box;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use core::task::Waker;
use crossbeam_utils::CachePadded;

const CAUSE: usize = 1;
const EXTENSION: usize = 2;
/// In an extension, where it stands for nothing else: the cause came by an edge, whose place follows.
const EDGE: usize = 2;
/// The cause's kind is "deadline exceeded": readable without following the pointer.
const DEADLINE: usize = 4;
const TAGS: usize = 7;
/// Of an edge: its source was cancelled by the drop of a guard, and has no more of a cause than that.
const BY_GUARD: usize = 8;
/// What follows is its place.
const EDGE_BITS: u32 = (TAGS | BY_GUARD).count_ones();
// An allocator need not give more than it is asked for.
const _: () = assert!(align_of::<Extension>() > TAGS && align_of::<Custom>() > TAGS);

/// What some nodes have. Aligned so that the tags have room also where nothing in it asks for that: 32 bits, no timer.
#[repr(C, align(8))]
pub(super) struct Extension {
    /// What cancels the node from outside the tree. The first field: see `timing.rs`.
    #[cfg(feature = "std")]
    pub(super) timing: Timing,
    /// The cause, as it would be in `link`.
    cause: AtomicPtr<()>,
    /// The first of the nodes between a contended parent and its children, or null.
    pub(super) shards: AtomicPtr<Node>,
    /// One of the rooms where the node's waiters sit, or null: a hint.
    pub(super) rooms: AtomicPtr<Room>,
    /// What cancels an `any_of` token.
    pub(super) edges: Box<[Edge]>,
    /// A count of what the node's weak handles point to, or null.
    weak: AtomicPtr<weak::Cell>,
    /// Which of its sources an `any_of` token is below.
    pub(super) any_of: AnyOf,
    /// Made as a [`Padded`].
    padded: bool,
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    _leak: crate::sync::Track<()>,
}

// Of these 104 are the deadline's and the foreign parent's.
#[cfg(all(
    feature = "std",
    target_pointer_width = "64",
    not(any(cancel_tree_loom, cancel_tree_shuttle, feature = "testing"))
))]
const _: () = assert!(size_of::<Extension>() == 160);

/// Whether the token is one of `any_of`. The numbers are those of sources, in the order given.
#[derive(Clone, Copy)]
pub(super) enum AnyOf {
    No,
    /// It is the child of that source.
    Below(Number),
    /// It was made when that one was cancelled, and is no part of its tree.
    Born(Number),
}

/// Bytes, which ask for no alignment: so they fit in beside `padded`, and contexts with deadlines are no larger for it.
#[derive(Clone, Copy)]
pub(super) struct Number([u8; 4]);

impl Number {
    /// So many sources that it does not fit have never found room in memory.
    pub(super) fn new(number: usize) -> Number {
        Number(u32::try_from(number).unwrap_or(u32::MAX).to_ne_bytes())
    }

    pub(super) fn get(self) -> usize {
        u32::from_ne_bytes(self.0) as usize
    }
}

/// An extension on cache lines of its own: every thread that makes children of a sharded parent reads it,
/// and what the allocator would put beside it may be written all the time. It begins with the extension: `CachePadded`
/// has the layout of C.
type Padded = CachePadded<Extension>;

/// Of an entry that is never armed: the timer does not get it, and it is only freed.
#[cfg(feature = "std")]
static UNARMED: Table = Table {
    mark: |_, _| unreachable!("it is not armed"),
    wake: |_| unreachable!("it is not armed"),
    call: |_| unreachable!("it is not armed"),
    put_off: |_| unreachable!("it is not armed"),
    stands_for: None,
    free: free_unarmed,
    #[cfg(feature = "testing")]
    due_apart: |_, _| unreachable!("it is not armed"),
};

/// # Safety
/// `Table::free`.
#[cfg(feature = "std")]
unsafe fn free_unarmed(entry: NonNull<Entry>) {
    // SAFETY: the first field of an extension, which nobody else has; the pointer is to all of it.
    unsafe { Extension::free(entry.cast()) };
}

/// Without a deadline for the timer.
#[cfg(feature = "std")]
fn no_timing() -> Timing {
    Timing::with(Entry::homeless(&UNARMED))
}

/// Gives up an extension that has been emptied: to the pool that it came from, if there is room.
///
/// # Safety
/// The caller is the only owner.
#[inline]
#[cfg(feature = "std")]
unsafe fn retire(extension: NonNull<Extension>) {
    // SAFETY: the caller's promise. The entry is the first field of its first field; the pointer is to all of it.
    unsafe { pool::put(extension.cast()) };
}

impl Extension {
    /// Takes out what is in it, and gives it up. The answer is the word of the cause.
    ///
    /// # Safety
    /// The caller is the only owner.
    unsafe fn empty(this: NonNull<Extension>, remains: &mut Remains) -> *mut () {
        let raw = this.as_ptr();
        // SAFETY: the caller's promise. Raw places: the timer may look at the entry meanwhile.
        let (cause, edges) = unsafe {
            // Relaxed, here and below: the only owner has acquired what the others did, and gives it to the next with the node.
            let cause = (*raw).cause.load(Relaxed);
            (*raw).cause.store(ptr::null_mut(), Relaxed);
            (*raw).rooms.store(ptr::null_mut(), Relaxed);
            if let Some(weak) = NonNull::new((*raw).weak.load(Relaxed)) {
                (*raw).weak.store(ptr::null_mut(), Relaxed);
                // It is settled; what is left of it is the weak handles'.
                drop(Arc::from_raw(weak.as_ptr().cast_const()));
            }
            (cause, ptr::replace(&raw mut (*raw).edges, Box::default()))
        };
        let cause = RawCause::from_word(cause).map_or(cause, |raw| raw.resolve(&edges));
        drop(edges);
        #[cfg(feature = "std")]
        // SAFETY: as above.
        unsafe {
            let timing = &(*raw).timing;
            timing.empty(&mut remains.deadline_cause, &mut remains.beside);
            retire(this);
        }
        #[cfg(not(feature = "std"))]
        // SAFETY: as above; there is no timer.
        unsafe {
            let _ = remains;
            Extension::free(this);
        }
        cause
    }

    /// An extension that is the caller's.
    pub(super) fn new(any_of: AnyOf, edges: Box<[Edge]>) -> NonNull<Extension> {
        #[cfg(feature = "std")]
        let extension = Extension::with(no_timing(), ptr::null_mut(), any_of, edges, false);
        #[cfg(not(feature = "std"))]
        let extension = Extension::with(ptr::null_mut(), any_of, edges, false);
        NonNull::from(Box::leak(Box::new(extension)))
    }

    /// The same, for a deadline.
    #[cfg(feature = "std")]
    pub(super) fn of_timing(timing: Timing) -> NonNull<Extension> {
        let extension = Extension::with(timing, ptr::null_mut(), AnyOf::No, Box::default(), false);
        NonNull::from(Box::leak(Box::new(extension)))
    }

    /// The same, for a contended parent.
    pub(super) fn of_shards(shards: *mut Node) -> NonNull<Extension> {
        #[cfg(feature = "std")]
        let extension = Extension::with(no_timing(), shards, AnyOf::No, Box::default(), true);
        #[cfg(not(feature = "std"))]
        let extension = Extension::with(shards, AnyOf::No, Box::default(), true);
        NonNull::from(Box::leak(Box::new(Padded::new(extension)))).cast()
    }

    fn with(
        #[cfg(feature = "std")] timing: Timing,
        shards: *mut Node,
        any_of: AnyOf,
        edges: Box<[Edge]>,
        padded: bool,
    ) -> Extension {
        Extension {
            #[cfg(feature = "std")]
            timing,
            cause: AtomicPtr::new(ptr::null_mut()),
            shards: AtomicPtr::new(shards),
            rooms: AtomicPtr::new(ptr::null_mut()),
            edges,
            any_of,
            weak: AtomicPtr::new(ptr::null_mut()),
            padded,
            #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
            _leak: crate::sync::Track::new(()),
        }
    }

    /// # Safety
    /// Nobody else has it.
    pub(super) unsafe fn free(this: NonNull<Extension>) {
        // SAFETY: leaked by one of the two above, which `padded` tells apart.
        unsafe {
            if this.as_ref().padded {
                drop(Box::from_raw(this.cast::<Padded>().as_ptr()));
            } else {
                drop(Box::from_raw(this.as_ptr()));
            }
        }
    }
}

#[cfg(feature = "std")]
impl Extension {
    /// Nothing in it but a deadline without a cause.
    #[inline]
    fn is_bare(&self) -> bool {
        // Relaxed: asked by the last owner.
        self.cause.load(Relaxed).is_null()
            && self.shards.load(Relaxed).is_null()
            && self.rooms.load(Relaxed).is_null()
            && self.edges.is_empty()
            && self.timing.is_bare()
    }
}

impl Extension {
    /// What the weak handles point to; made if there is none yet.
    pub(super) fn weak_or(&self, make: impl FnOnce() -> Arc<weak::Cell>) -> Arc<weak::Cell> {
        // Acquire: pairs with the step below.
        let mut cell = self.weak.load(Acquire).cast_const();
        if cell.is_null() {
            let new = Arc::into_raw(make());
            // Release: gives the cell to whoever finds it. Acquire on failure: it is another's.
            let null = ptr::null_mut();
            match self
                .weak
                .compare_exchange(null, new.cast_mut(), Release, Acquire)
            {
                Ok(_) => cell = new,
                Err(other) => {
                    // SAFETY: made here, and not published.
                    drop(unsafe { Arc::from_raw(new) });
                    cell = other.cast_const();
                }
            }
        }
        // SAFETY: the extension keeps its count while the caller holds the node.
        let kept = ManuallyDrop::new(unsafe { Arc::from_raw(cell) });
        Arc::clone(&kept)
    }

    /// The last owner ends what its weak handles can do. False: it may not be the last one.
    #[inline]
    pub(super) fn settle_weak(&self, node: &Node) -> bool {
        // Relaxed: asked by the last owner, which has acquired what the others did.
        // SAFETY: a count that the extension keeps.
        let cell = unsafe { self.weak.load(Relaxed).as_ref() };
        cell.is_none_or(|cell| cell.settle(node))
    }

    /// For a node that nobody else has seen.
    pub(super) fn put_cause_unshared(&self, cause: RawCause) {
        // Relaxed: published with the handle.
        self.cause.store(cause.0, Relaxed);
    }

    /// Whether something in here cancels the node when the time has come, other than its parent.
    pub(super) fn can_cancel(&self) -> bool {
        #[cfg(feature = "std")]
        if self.timing.can_cancel() {
            return true;
        }
        !self.edges.is_empty()
    }

    /// Whether there is something in here that the last owner has to settle.
    pub(super) fn is_live(&self) -> bool {
        #[cfg(feature = "std")]
        if self.timing.is_live() {
            return true;
        }
        !self.edges.is_empty()
    }

    /// The last owner takes the triggers out of the game. False: a firer has one, and a handle of `node`.
    pub(super) fn settle_triggers(&self, node: &Node) -> bool {
        #[cfg(feature = "std")]
        return self.timing.settle(node);
        #[cfg(not(feature = "std"))]
        {
            let _ = node;
            true
        }
    }
}

impl Handle {
    /// A handle that does not keep the token.
    pub(crate) fn downgrade(&self) -> weak::Weak {
        let link = &self.node().link;
        let mut extension = link.extension();
        while extension.is_none() {
            link.extend_around(Extension::new(AnyOf::No, Box::default()));
            extension = link.extension();
        }
        let Some(extension) = extension else {
            unreachable!("an extension stays while the node is held");
        };
        weak::Weak(extension.weak_or(|| Arc::new(weak::Cell::new(self.0))))
    }
}

impl Remains {
    /// Drops them one by one: user code, of which one panic must not keep the other from going. What is left after a panic
    /// that came out of it goes at the next call.
    pub(super) fn drop_each(&mut self, panics: &mut Panics) {
        if self.cause.is_some() {
            panics.catch(|| self.cause = None);
        }
        if self.waker.is_some() {
            panics.catch(|| self.waker = None);
        }
        #[cfg(feature = "std")]
        {
            if self.deadline_cause.is_some() {
                panics.catch(|| self.deadline_cause = None);
            }
            if let Some(beside) = self.beside.take() {
                panics.catch(|| self.released.leave(beside));
            }
        }
    }

    /// A handle that a node kept which has been dropped, to be released.
    pub(super) fn pop(&mut self) -> Option<Handle> {
        #[cfg(feature = "std")]
        return self.released.pop();
        #[cfg(not(feature = "std"))]
        None
    }
}

/// What a dying node leaves. User values: dropped when the tree is in order again (I9). And handles that such nodes kept.
#[derive(Default)]
pub(super) struct Remains {
    pub(super) cause: Option<Cause>,
    pub(super) waker: Option<Waker>,
    #[cfg(feature = "std")]
    pub(super) deadline_cause: Option<Cause>,
    #[cfg(feature = "std")]
    pub(super) beside: Option<Box<Beside>>,
    #[cfg(feature = "std")]
    released: Released,
}

/// A counted pointer of a custom cause, with its tag: the CAS that places it decides whose
/// cause stands. For an `any_of` token it may be the place of an edge instead, which then has the cause.
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
    fn edge(self) -> Option<usize> {
        let value = self.0.addr();
        (value & EDGE != 0).then_some(value >> EDGE_BITS)
    }

    /// The last owner's: the word of the cause itself. Null, if an edge has said no more than the kind.
    fn resolve(self, edges: &[Edge]) -> *mut () {
        let Some(edge) = self.edge() else {
            return self.0;
        };
        // Relaxed: the last owner has acquired what the others did.
        let cause = edges[edge].cause.load(Relaxed);
        edges[edge].cause.store(ptr::null_mut(), Relaxed);
        cause
    }

    fn from_word(value: *mut ()) -> Option<RawCause> {
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
    unsafe fn clone_cause(self) -> Cause {
        // SAFETY: the pointer is counted (the caller's promise); ManuallyDrop leaves the count
        // where it was.
        let shared = ManuallyDrop::new(unsafe { self.into_cause() });
        (*shared).clone()
    }
}

impl Link {
    // ----- while it is occupied ---------------------------------------------------------------

    #[inline]
    pub(super) fn extension(&self) -> Option<&Extension> {
        // SAFETY: an extension stays until the last owner takes it (`take`), and
        // whoever is here holds the node or climbs from below it (I5).
        self.extension_raw().map(|raw| unsafe { raw.as_ref() })
    }

    #[cfg(feature = "std")]
    #[inline]
    pub(super) fn timing(&self) -> Option<&Timing> {
        self.extension().map(|extension| &extension.timing)
    }

    /// The extension, as a pointer that may be used for all of it, by whoever frees it too.
    #[inline]
    pub(super) fn extension_raw(&self) -> Option<NonNull<Extension>> {
        // Acquire: pairs with the CAS of `extend`.
        let value = self.0.load(Acquire);
        let raw = value.map_addr(|a| a & !TAGS).cast();
        // SAFETY: what has the tag points to an extension.
        (value.addr() & TAGS == EXTENSION).then(|| unsafe { NonNull::new_unchecked(raw) })
    }

    /// Gives the node an extension, if `link` is still null. True: it is the node's now. False: it is gone.
    pub(super) fn extend(&self, extension: NonNull<Extension>) -> bool {
        let tagged = extension.as_ptr().cast::<()>();
        let tagged = tagged.map_addr(|a| a | EXTENSION);
        // Release: pairs with the Acquire of `extension`. Nothing is read on failure.
        let published = self
            .0
            .compare_exchange(ptr::null_mut(), tagged, Release, Relaxed)
            .is_ok();
        if !published {
            // SAFETY: the caller's, and not published.
            unsafe { Extension::free(extension) };
        }
        published
    }

    /// The same, also if there is a cause, which then moves into the extension. False: there is one already, or somebody
    /// has come in between.
    pub(super) fn extend_around(&self, extension: NonNull<Extension>) -> bool {
        // Relaxed: nothing is read there, and what `place_cause` has published the step below hands on: its RMW goes on with
        // that one's release sequence.
        let found = self.0.load(Relaxed);
        if found.addr() & TAGS == EXTENSION {
            // SAFETY: the caller's, and not published.
            unsafe { Extension::free(extension) };
            return false;
        }
        let raw = extension.as_ptr();
        // SAFETY: the same. Relaxed: published by the step below.
        unsafe { (*raw).cause.store(found, Relaxed) };
        let tagged = raw.cast::<()>().map_addr(|a| a | EXTENSION);
        // Release: as in `extend`.
        let published = self.0.compare_exchange(found, tagged, Release, Relaxed);
        if published.is_err() {
            // SAFETY: not published; the cause is the node's.
            unsafe {
                (*raw).cause.store(ptr::null_mut(), Relaxed);
                Extension::free(extension);
            }
        }
        published.is_ok()
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
            // Release, and Acquire on failure: whoever helps makes the other's cause visible by
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

    /// Takes back a cause that the caller placed here and that did not win. Its count is the caller's again.
    pub(super) fn take_back_cause(&self, cause: RawCause) {
        let word = self.cause_word();
        // Relaxed: nobody reads a cause before the word says that it won.
        let taken = word.compare_exchange(cause.0, ptr::null_mut(), Relaxed, Relaxed);
        if taken.is_err() {
            // It has moved into an extension meanwhile, and does not move again.
            self.cause_word().store(ptr::null_mut(), Relaxed);
        }
    }

    /// Which edge an own cancel with a cause came by.
    pub(super) fn edge_of_cause(&self) -> Option<&Edge> {
        // Relaxed: as in `clone_cause`.
        let cause = RawCause::from_word(self.cause_word().load(Relaxed))?;
        let extension = self.extension()?;
        cause.edge().map(|edge| &extension.edges[edge])
    }

    /// The cause of an own cancel.
    ///
    /// # Safety
    /// The caller holds the node, or climbs from below it: the cause stays until the node dies.
    pub(super) unsafe fn clone_cause(&self) -> Option<Cause> {
        // Once: it may move into an extension. Acquire: pairs with the step that gives the node an extension.
        let mut word = self.0.load(Acquire);
        if word.addr() & TAGS == EXTENSION {
            // SAFETY: as in `extension`. Relaxed, here and below: acquired with the state that says CUSTOM, by `place_cause`
            // and `cancel`, or with the extension that it has moved into.
            word = unsafe { &*word.map_addr(|a| a & !TAGS).cast::<Extension>() }
                .cause
                .load(Relaxed);
        }
        let mut cause = RawCause::from_word(word)?;
        if let Some(edge) = cause.edge() {
            if cause.0.addr() & BY_GUARD != 0 {
                return Some(GuardDropped.into());
            }
            // Without one it is the bare kind, which the word says.
            cause = RawCause::from_word(self.extension()?.edges[edge].cause.load(Relaxed))?;
        }
        // SAFETY: the node owns the count while the caller is here.
        Some(unsafe { cause.clone_cause() })
    }

    /// For a node that nobody else has seen.
    pub(super) fn put_cause_unshared(&self, cause: RawCause) {
        // Relaxed: published with the handle.
        self.0.store(cause.0, Relaxed);
    }

    // ----- when its last owner lets it go -----------------------------------------------------

    /// Empties the word. What the node kept goes to the caller, to be dropped.
    ///
    /// # Safety
    /// The caller is the last owner, and shards, edges and triggers are settled.
    pub(super) unsafe fn take(&self, remains: &mut Remains) {
        // Relaxed, here and below: the last owner has acquired what the others did.
        let value = self.0.load(Relaxed);
        if value.is_null() {
            return;
        }
        self.0.store(ptr::null_mut(), Relaxed);
        let cause = if value.addr() & TAGS == EXTENSION {
            let raw: *mut Extension = value.map_addr(|a| a & !TAGS).cast();
            // SAFETY: the last owner has it; nobody else but the timer, which looks at the entry only.
            unsafe { Extension::empty(NonNull::new_unchecked(raw), remains) }
        } else {
            value
        };
        // SAFETY: the node's count goes to the caller.
        remains.cause = RawCause::from_word(cause).map(|cause| unsafe { cause.into_cause() });
    }

    /// For a node that nobody else has seen: the extension that it begins with.
    pub(super) fn put_extension_unshared(&self, extension: NonNull<Extension>) -> &Extension {
        let raw = extension.as_ptr();
        // Relaxed: published with the handle, and by what arms a trigger.
        self.0
            .store(raw.cast::<()>().map_addr(|a| a | EXTENSION), Relaxed);
        // SAFETY: the caller's, from a Box; it stays until the last owner takes it.
        unsafe { &*raw }
    }

    /// The short way of the last owner: true if there is nothing, or nothing any more, that has to be settled
    /// or dropped.
    #[inline]
    pub(super) fn is_settled(&self) -> bool {
        // Relaxed: asked by the last owner, which has acquired what the others did.
        let value = self.0.load(Relaxed);
        if value.is_null() {
            return true;
        }
        #[cfg(feature = "std")]
        if value.addr() & TAGS == EXTENSION {
            let raw: *mut Extension = value.map_addr(|a| a & !TAGS).cast();
            // SAFETY: it stays until the last owner, which is the caller, takes it.
            let extension = unsafe { &*raw };
            // Then the trigger: if the firer is through, what it did is acquired by this. With weak handles the token may
            // live on, and its deadline with it.
            if extension.weak.load(Relaxed).is_null()
                && extension.timing.disarm()
                && extension.is_bare()
            {
                self.0.store(ptr::null_mut(), Relaxed);
                // SAFETY: the last owner; there was nothing in it but a deadline, which is settled.
                unsafe { retire(NonNull::new_unchecked(raw)) };
                return true;
            }
        }
        false
    }
}
