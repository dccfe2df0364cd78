//! What few nodes have: an extension, for a deadline, shards, rooms, edges, a foreign parent or weak handles; and what a node
//! leaves when it goes.

use super::cause::{Cause, Custom};
use super::edge::Edge;
use super::raw_cause::{RawCause, TAGS};
use super::room::Room;
#[cfg(feature = "std")]
use super::timing::{Beside, Released, Timing};
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

// An allocator need not give more than it is asked for.
const _: () = assert!(align_of::<Extension>() > TAGS && align_of::<Custom>() > TAGS);

/// What some nodes have. Aligned so that the tags have room also where nothing in it asks for that: 32 bits, no timer.
#[repr(C, align(8))]
pub(super) struct Extension {
    /// What cancels the node from outside the tree. The first field: see `timing.rs`.
    #[cfg(feature = "std")]
    pub(super) timing: Timing,
    /// The cause, as it would be in `link`.
    pub(super) cause: AtomicPtr<()>,
    /// The first of the nodes between a contended parent and its children, or null.
    pub(super) shards: AtomicPtr<Node>,
    /// One of the rooms where the node's waiters sit, or null: a hint.
    pub(super) rooms: AtomicPtr<Room>,
    /// What cancels an `any_of` token.
    pub(super) edges: Box<[Edge]>,
    /// A count of what the node's weak handles point to, or null.
    pub(super) weak: AtomicPtr<weak::Cell>,
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
    free: free_entry,
    #[cfg(feature = "testing")]
    due_apart: |_, _| unreachable!("it is not armed"),
};

/// Frees the extension that the entry is of.
///
/// # Safety
/// `Table::free`.
#[cfg(feature = "std")]
pub(super) unsafe fn free_entry(entry: NonNull<Entry>) {
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
pub(super) unsafe fn retire(extension: NonNull<Extension>) {
    // SAFETY: the caller's promise. The entry is the first field of its first field; the pointer is to all of it.
    unsafe { pool::put(extension.cast()) };
}

impl Extension {
    /// Takes out what is in it, and gives it up. The answer is the word of the cause.
    ///
    /// # Safety
    /// The caller is the only owner.
    pub(super) unsafe fn empty(this: NonNull<Extension>, remains: &mut Remains) -> *mut () {
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
        // SAFETY: leaked by one of the three above, which `padded` tells apart.
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
    pub(super) fn is_bare(&self) -> bool {
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
