//! A node's own deadline, and its foreign parent: what may cancel it from outside the tree.
//!
//! The deadline's entry in the timer is part of the node's extension and outlives the node: when the
//! node goes, the extension goes to a cache of the thread, entry and all, for the next deadline that is
//! set on this thread. `timer/entry.rs` says why.

use super::cancel;
use super::cause::{Cause, ContextError};
use super::extension::{Extension, Remains};
use super::trigger::Trigger;
use super::{Handle, Node};
use crate::sync::{local, Arc, Panics, UnsafeCell, SMALL};
use crate::timer;
use crate::timer::clock::Tick;
use crate::timer::entry::Entry;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::RefCell;
use core::ptr::NonNull;
use std::collections::HashSet;
use std::time::Instant;

/// So many extensions a thread keeps at most. It comes to that many, with time, also where few live at once: those whose
/// entries the timer looks at late suit few deadlines, and a thread may drop contexts that others made.
const CACHED: usize = if SMALL { 1 } else { 512 };

/// So many of them are looked at to find one that need not be scheduled anew.
const LOOK: usize = 4;

/// The part of the extension that this file owns. `repr(C)`: the timer knows the extension by the
/// entry, its first field's first field.
#[repr(C)]
pub(super) struct Timing {
    entry: Entry,
    /// The deadline's cause. Written before the deadline is armed, read by who notices that it has passed.
    cause: UnsafeCell<Option<Cause>>,
    /// When that is, as its user has said it. Written by the creator of the node.
    exact: UnsafeCell<Option<Instant>>,
    /// Written by the creator of the node, emptied by its last owner.
    foreign: UnsafeCell<Option<Box<Foreign>>>,
}

/// A parent that is not one of ours.
pub(super) struct Foreign {
    signal: Arc<Trigger>,
    /// Keeps the parent informed of the signal; dropped when the node goes.
    _subscription: Box<dyn Any + Send>,
}

impl Timing {
    pub(super) fn new() -> Timing {
        Timing {
            entry: Entry::new(),
            cause: UnsafeCell::new(None),
            exact: UnsafeCell::new(None),
            foreign: UnsafeCell::new(None),
        }
    }

    #[inline]
    fn foreign(&self) -> Option<&Foreign> {
        // SAFETY: written before the node was shared.
        self.foreign.with(|f| unsafe { (*f).as_deref() })
    }

    /// A deadline without a cause, or nothing.
    #[inline]
    pub(super) fn is_bare(&self) -> bool {
        // SAFETY: written before the node was shared.
        self.foreign().is_none() && self.cause.with(|c| unsafe { (*c).is_none() })
    }

    /// A trigger that may still fire.
    pub(super) fn can_cancel(&self) -> bool {
        let is_live = |trigger: &Trigger| Trigger::is_live(trigger.load());
        is_live(self.entry.trigger()) || self.foreign().is_some_and(|f| is_live(&f.signal))
    }

    /// The last owner's short way: false if the timer is at it.
    #[inline]
    pub(super) fn disarm(&self) -> bool {
        self.entry.trigger().disarm()
    }

    /// The last owner's way: false if a firer is at it, who has got a handle of the node.
    pub(super) fn settle(&self, node: &Node) -> bool {
        self.entry.trigger().settle(node) && self.foreign().is_none_or(|f| f.signal.settle(node))
    }

    /// # Safety
    /// The caller is the only owner.
    pub(super) unsafe fn empty(&self, remains: &mut Remains) {
        // SAFETY: the caller's promise; the timer looks at the entry only.
        unsafe {
            remains.deadline_cause = self.cause.with_mut(|c| (*c).take());
            remains.foreign = self.foreign.with_mut(|f| (*f).take());
        }
    }
}

local! {
    /// Extensions without a node; the entries of most are scheduled.
    static CACHE: RefCell<Cache> = RefCell::new(Cache(Vec::new()));
}

struct Cache(Vec<NonNull<Extension>>);

impl Drop for Cache {
    fn drop(&mut self) {
        for extension in self.0.drain(..) {
            // SAFETY: in the cache, so nobody else has it.
            unsafe { abandon(extension) };
        }
    }
}

/// For models: loom's threads are joined before their locals are dropped.
#[cfg(any(cancel_tree_loom, cancel_tree_by_hand))]
pub(crate) fn drop_cache() {
    drop(CACHE.with(|cache| cache.replace(Cache(Vec::new()))));
}

fn entry_of<'a>(extension: NonNull<Extension>) -> &'a Entry {
    // SAFETY: the caller owns the extension. A raw place: no more than the entry is borrowed.
    unsafe { &(*extension.as_ptr()).timing.entry }
}

/// An extension whose entry suits the deadline, if possible without being scheduled anew.
#[inline]
fn take_cached(deadline: Tick) -> Option<NonNull<Extension>> {
    let found = CACHE.try_with(|cache| {
        let cache = &mut cache.borrow_mut().0;
        let last = cache.pop()?;
        if entry_of(last).suits(deadline) {
            return Some(last);
        }
        cache.push(last);
        take_other(cache, deadline)
    });
    // Err: the thread is being torn down. Without a cache, then.
    found.ok().flatten()
}

#[cold]
fn take_other(cache: &mut Vec<NonNull<Extension>>, deadline: Tick) -> Option<NonNull<Extension>> {
    let last = cache.len();
    let mut candidates = (last.saturating_sub(LOOK)..last).rev();
    let suits = candidates.find(|&i| entry_of(cache[i]).suits(deadline))?;
    Some(cache.swap_remove(suits))
}

/// Gives up an extension that has been emptied: to the cache, if there is room.
///
/// # Safety
/// The caller is the only owner.
pub(super) unsafe fn retire(extension: NonNull<Extension>) {
    let kept = CACHE.try_with(|cache| {
        let cache = &mut cache.borrow_mut().0;
        // One that never had a deadline is for shards or edges, and rare.
        let room = cache.len() < CACHED && entry_of(extension).has_been_armed();
        if room {
            cache.push(extension);
        }
        room
    });
    if !matches!(kept, Ok(true)) {
        // SAFETY: the caller's promise.
        unsafe { abandon(extension) };
    }
}

/// # Safety
/// The caller is the only owner.
unsafe fn abandon(extension: NonNull<Extension>) {
    let entry = entry_of(extension);
    if entry.abandon() {
        // SAFETY: not scheduled, so nobody else has it.
        unsafe { Extension::free(extension) };
    } else {
        timer::note_abandoned();
    }
}

impl Entry {
    /// Frees the entry's extension.
    ///
    /// # Safety
    /// It is neither owned nor scheduled.
    pub(crate) unsafe fn free(this: NonNull<Entry>) {
        // SAFETY: the entry is the first field of an extension, and nobody else has it.
        unsafe { Extension::free(this.cast()) };
    }

    /// The deadline has passed: cancels the node.
    ///
    /// # Safety
    /// The caller has made it FIRING.
    pub(crate) unsafe fn fire(this: NonNull<Entry>, panics: &mut Panics) {
        // SAFETY: FIRING keeps the node, and with it the entry.
        let trigger = NonNull::from(unsafe { this.as_ref() }.trigger());
        // SAFETY: the caller's promise.
        unsafe { Trigger::fire(trigger, expire, Trigger::finish, panics) };
    }
}

/// Cancels the node because its own deadline has passed.
fn expire(node: &Node) {
    let cause = node.link.extension().and_then(|extension| {
        // SAFETY: written before the deadline was armed.
        extension.timing.cause.with(|c| unsafe { (*c).clone() })
    });
    let cause = cause.unwrap_or(ContextError::DeadlineExceeded.into());
    cancel::cancel_because(node, cause);
}

impl Handle {
    /// Has the timer cancel the token at `deadline`. The token is new: the handle is the only one, and nothing is
    /// below.
    #[inline]
    pub(crate) fn set_deadline(&self, deadline: Tick) {
        let extension = self.put_extension(deadline);
        self.arm(extension, deadline);
    }

    /// The same, with that cause.
    #[cold]
    pub(crate) fn set_deadline_because(&self, deadline: Tick, cause: Cause) {
        let extension = self.put_extension(deadline);
        // SAFETY: the token's extension, which it has as long as it is held.
        let timing = &unsafe { extension.as_ref() }.timing;
        // SAFETY: neither is shared yet, nor is the deadline armed.
        timing.cause.with_mut(|c| unsafe { *c = Some(cause) });
        self.arm(extension, deadline);
    }

    /// An extension for a new token.
    #[inline]
    fn put_extension(&self, deadline: Tick) -> NonNull<Extension> {
        let extension = take_cached(deadline).unwrap_or_else(new_extension);
        self.node().link.put_extension_unshared(extension);
        extension
    }

    #[inline]
    fn arm(&self, extension: NonNull<Extension>, deadline: Tick) {
        if entry_of(extension).arm(self.node(), deadline) {
            // The pointer is to all of the extension, for who frees it: `Entry::free`.
            timer::schedule(extension.cast(), deadline);
        }
    }

    /// A deadline that the token has, or something above it, has passed: cancels what has one that is not later.
    #[cold]
    pub(crate) fn expire(&self, passed: Tick) {
        self.each_above(|node| {
            let extension = node.link.extension();
            if extension.is_some_and(|extension| extension.timing.entry.is_due(passed)) {
                expire(node);
                return false;
            }
            // After the look at the entry: if the timer was faster it is through, and the node is cancelled.
            !node.word.load().is_cancelled()
        });
    }

    /// Visits the token and all above it, until the visitor says no.
    fn each_above(&self, mut visit: impl FnMut(&Node) -> bool) {
        // An `any_of` token has more than one way up. Each of these tokens is looked at once, however many ways lead to it.
        let mut others: Vec<&Node> = Vec::new();
        let mut forks: HashSet<*const Node> = HashSet::new();
        let mut next = Some(self.node());
        while let Some(node) = next {
            if !visit(node) {
                return;
            }
            let edges = node
                .link
                .extension()
                .map_or(&[][..], |extension| &extension.edges);
            if edges.is_empty() || forks.insert(node) {
                // SAFETY: held, or above what is held.
                others.extend(edges.iter().filter_map(|edge| unsafe { edge.source() }));
                // SAFETY: the same (I5).
                next = unsafe { node.parent() };
            } else {
                next = None;
            }
            next = next.or_else(|| others.pop());
        }
    }

    /// When the deadline is that was set, to be asked for by those below. The token is new, as for `set_deadline`.
    #[inline]
    pub(crate) fn note_deadline(&self, deadline: Instant) {
        if let Some(extension) = self.node().link.extension() {
            // SAFETY: the node is not shared, and the timer does not look at this.
            extension
                .timing
                .exact
                .with_mut(|e| unsafe { *e = Some(deadline) });
        }
    }

    /// The earliest of the deadlines that the token has, and those above it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let mut earliest = None;
        self.each_above(|node| {
            // SAFETY: written before the node was shared, and not changed while it is held.
            let exact = |extension: &Extension| extension.timing.exact.with(|e| unsafe { *e });
            let own = node.link.extension().and_then(exact);
            earliest = earliest.into_iter().chain(own).min();
            true
        });
        earliest
    }

    /// A root below a parent of another kind: `subscribe` is given the signal by which that cancels the
    /// token, and what it returns is dropped when the token goes.
    pub(crate) fn below_foreign(
        deadline: Option<(Tick, Instant)>,
        subscribe: impl FnOnce(Signal) -> Box<dyn Any + Send>,
    ) -> Handle {
        let handle = Handle::root();
        match deadline {
            Some((deadline, exact)) => {
                handle.set_deadline(deadline);
                handle.note_deadline(exact);
            }
            None => {
                handle.node().link.put_extension_unshared(new_extension());
            }
        }
        let node = handle.node();
        let Some(timing) = node.link.extension().map(|extension| &extension.timing) else {
            unreachable!("put there just now");
        };
        let signal = Arc::new(Trigger::armed(node));
        // SAFETY: the node is not shared.
        let set = |foreign| timing.foreign.with_mut(|f| unsafe { *f = foreign });
        set(Some(Box::new(Foreign {
            signal: signal.clone(),
            _subscription: Box::new(()),
        })));
        // User code. It may signal at once; if it panics, the handle's drop settles everything.
        let subscription = subscribe(Signal(signal.clone()));
        set(Some(Box::new(Foreign {
            signal,
            _subscription: subscription,
        })));
        handle
    }
}

#[cold]
fn new_extension() -> NonNull<Extension> {
    Extension::new(Box::default())
}

/// The right of a foreign parent to cancel a token, without holding it.
#[derive(Clone)]
pub(crate) struct Signal(Arc<Trigger>);

impl Signal {
    /// True: this call cancelled the token. When it returns the token is cancelled, or gone.
    pub(crate) fn cancel(&self, cause: Cause) -> bool {
        if !self.begin() {
            return false;
        }
        let mut panics = Panics::default();
        let mut first = false;
        let fire = |node: &Node| first = cancel::cancel_because(node, cause);
        // SAFETY: FIRING by the step above.
        unsafe { self.fire_last(fire, &mut panics) };
        panics.resume();
        first
    }

    /// The trigger becomes FIRING, or the caller joins who has made it so. False: the token is gone, or cancelled by
    /// this and through.
    pub(super) fn begin(&self) -> bool {
        let mut seen = self.0.load();
        loop {
            let step = if Trigger::is_armed(seen) {
                self.0.begin(seen, 0)
            } else if Trigger::is_firing(seen) {
                self.0.join(seen)
            } else {
                return false;
            };
            match step {
                Ok(()) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// The node, which stays until the caller's `fire_last`.
    ///
    /// # Safety
    /// FIRING by the caller's `begin`.
    pub(super) unsafe fn node(&self) -> NonNull<Node> {
        // SAFETY: the caller's promise.
        NonNull::from(unsafe { self.0.node() })
    }

    /// What the caller does with the node last.
    ///
    /// # Safety
    /// FIRING by the caller's `begin`, and this is its end.
    pub(super) unsafe fn fire_last(&self, fire: impl FnOnce(&Node), panics: &mut Panics) {
        let trigger = NonNull::from(&*self.0);
        // SAFETY: the caller's promise.
        unsafe { Trigger::fire(trigger, fire, Trigger::finish_one, panics) };
    }
}
