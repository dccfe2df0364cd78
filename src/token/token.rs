//! The token.

use crate::tree::Cause;
use crate::tree::{Handle, TokenId};
use core::fmt;
use core::hash::{Hash, Hasher};
use core::mem::ManuallyDrop;
use core::ptr;

/// A token that says "stop" to everything below it: to tasks, to parked threads, to callbacks.
///
/// Clones are the same token. [`child_token`](Self::child_token) makes a token below this one:
/// it is cancelled when this one is, and cancelling it leaves this one as it is. Dropping a token
/// cancels nothing; [`drop_guard`](Self::drop_guard) does, at the end of a scope.
///
/// Names, signatures and behaviour are those of `tokio_util::sync::CancellationToken`, and
/// there is more: causes, blocking waits, callbacks, tokens with several parents.
///
/// ```
/// use cancel_tree::CancellationToken;
///
/// let server = CancellationToken::new();
/// let request = server.child_token();
/// let query = request.child_token();
///
/// request.cancel();
/// assert!(query.is_cancelled());
/// assert!(!server.is_cancelled());
/// ```
///
/// # Memory ordering
///
/// What a thread did before it cancelled is visible to every thread that has seen the cancel, by
/// whatever method: a cancel releases, seeing it acquires.
///
/// # Cost
///
/// In atomic read-modify-writes (RMWs), uncontended: reading the flag none; `clone` 1, dropping a
/// clone 1; a child 1 in the steady state, dropping it 1, or 2 if it was cancelled and has had children, or more than its place keeps; cancelling 1 with nothing below, otherwise 2 and 1 for each node
/// below. What is made of a token that is cancelled climbs to where the cause is, as [`cause`](Self::cause) does.
/// A parent keeps the memory of about its peak number of children until it is dropped itself.
#[repr(transparent)]
pub struct CancellationToken {
    handle: Handle,
}

// A token has no state that a panic could leave half-changed: user code runs when the tree is
// in order.
impl core::panic::UnwindSafe for CancellationToken {}
impl core::panic::RefUnwindSafe for CancellationToken {}

/// # Making
impl CancellationToken {
    /// Creates a token that is not cancelled, with nothing above it.
    ///
    /// Cost: one allocation.
    pub fn new() -> CancellationToken {
        Handle::root().into()
    }

    /// Creates a token below this one: cancelled when this one is, with the same cause. If this one is
    /// cancelled already, so is the child, from birth.
    ///
    /// A child that is dropped frees its place for the next child of the same parent.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let parent = CancellationToken::new();
    /// let child = parent.child_token();
    /// assert_ne!(parent, child);
    /// child.cancel();
    /// assert!(!parent.is_cancelled());
    /// ```
    ///
    /// Cost: 1 RMW on the child's own cache line if a dropped child's place is free; otherwise an
    /// allocation for up to 64 children at once, and 2 RMWs on the parent. The first child of a token that stands in a reused place takes 1 RMW more.
    #[inline]
    pub fn child_token(&self) -> CancellationToken {
        self.handle.child().into()
    }

    /// Creates a token that is cancelled as soon as one of the sources is, with that one's cause. With
    /// no sources, only the token itself can cancel it.
    ///
    /// No task and no thread stands behind it, and dropping it leaves nothing in the sources. It
    /// can be cancelled by itself, as a child can, and tokens of this kind can be sources again.
    /// When a source is cancelled, the tokens below are marked before anything is woken.
    ///
    /// [`any_of_source`](Self::any_of_source) says which source it was.
    ///
    /// One thing keeps it longer than its handles: a callback below whose [`Registration`](crate::Registration) was
    /// dropped. Then it stays, and the sources' trees with it, until one of them is cancelled; for good if
    /// no handle of a source is left.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let (request, shutdown) = (CancellationToken::new(), CancellationToken::new());
    /// let either = CancellationToken::any_of([&request, &shutdown]);
    /// shutdown.cancel_with("shutting down");
    /// assert_eq!(either.cause().unwrap().to_string(), "shutting down");
    /// ```
    ///
    /// Cost: of one source, a child, 1 RMW more and an allocation; of two, 5 RMWs and 3 allocations, and 4 RMWs to drop it.
    #[doc(alias(
        "CreateLinkedTokenSource",
        "linked token source",
        "AbortSignal.any",
        "select"
    ))]
    #[must_use]
    pub fn any_of<'a, I>(sources: I) -> CancellationToken
    where
        I: IntoIterator<Item = &'a CancellationToken>,
    {
        Handle::any_of(sources.into_iter().map(|token| &token.handle).enumerate()).into()
    }
}

/// # Cancelling
impl CancellationToken {
    /// Cancels this token and everything below it. The first cancel wins; another one changes
    /// nothing.
    ///
    /// When it returns, everything below is cancelled, everything that waited there has been
    /// woken, and the callbacks have run. All tokens are marked before the first waiter is woken, and tasks and
    /// threads are woken before the first callback runs.
    /// Wakers and [`on_cancel`](Self::on_cancel) callbacks run on this thread, with nothing
    /// held: they may cancel, create and drop. Callbacks may also wait, even for threads that wait for this token. A waker must not
    /// wait for one of those: it may be woken after it.
    ///
    /// If two cancels overlap, of the same token or of one below the other, on two threads or because a waker or a callback
    /// cancels again, neither returns before everything below its own token is cancelled. But tasks,
    /// threads and callbacks there may still be about to be woken by the other one. (So a callback must not cancel below and wait for
    /// callbacks there.) Without memory, a token of [`any_of`](Self::any_of) that the other cancel is about to cancel may be left to that
    /// one. And while a cancel is on its
    /// way, another thread may see a token cancelled and its child not yet.
    ///
    /// # Panics
    ///
    /// With the panic of the first waker or callback that panicked, after all others have run;
    /// if this thread is unwinding already, that panic is swallowed. Without the feature `std`
    /// panics cannot be caught: the others are woken and run while the first panic passes by, and a second one then ends
    /// the process.
    ///
    /// # Cost
    ///
    /// 1 RMW if nothing is below, even if there is a waiter for this token. Otherwise 2, and 1 for each node below, the places
    /// of dropped children included; a second pass of loads if there are waiters, with 1 RMW for each of them, and a third if
    /// there are callbacks. No recursion; no allocation, but where cancels overlap at or below tokens of [`any_of`](Self::any_of), and where the
    /// end of a grace is set.
    #[doc(alias("request_stop", "abort"))]
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// Like [`cancel`](Self::cancel), with a cause. Returns `true` if this call was the first to cancel: then its cause
    /// stands.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let token = CancellationToken::new();
    /// assert!(token.cancel_with("out of memory"));
    /// assert!(!token.cancel_with("out of patience"));
    /// assert_eq!(token.cause().unwrap().to_string(), "out of memory");
    /// ```
    ///
    /// # Panics
    ///
    /// As [`cancel`](Self::cancel).
    pub fn cancel_with(&self, cause: impl Into<Cause>) -> bool {
        self.handle.cancel_with(cause.into())
    }
}

/// # What it says
impl CancellationToken {
    /// Returns `true` if the token is cancelled. Wait-free.
    ///
    /// Cost: one acquire load, and while it is not cancelled one relaxed load more, of a static (with `std`). (While the timer's thread can't be started, it is tried again, and a deadline above that
    /// has passed is found here and cancelled here: what waits is woken and called by this thread, and a panic of that surfaces here.)
    #[doc(alias("IsCancellationRequested", "stop_requested", "aborted"))]
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.handle.is_cancelled() || self.has_expired_unseen()
    }

    /// Returns why the token is cancelled, if it is: the cause given to the first cancel, here or
    /// above. Without one it is the kind of the cancel (as Go's `context.Cause`), or [`GuardDropped`](crate::GuardDropped).
    ///
    /// Cost: a climb to the nearest token that was cancelled itself; one reference count if the
    /// cause is not a bare kind.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.handle.cause()
    }

    /// Returns which source a token made by [`any_of`](Self::any_of) was cancelled by: its index in the order given, from 0.
    ///
    /// It is the source whose cause this token has, also if others were cancelled at the same time; of those that were
    /// cancelled when the token was made, the first. `None` if the token is not cancelled, was cancelled itself and not
    /// by a source, or was not made by `any_of`, as the children of one that was.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let (request, shutdown) = (CancellationToken::new(), CancellationToken::new());
    /// let either = CancellationToken::any_of([&request, &shutdown]);
    /// assert_eq!(either.any_of_source(), None);
    /// shutdown.cancel();
    /// assert_eq!(either.any_of_source(), Some(1));
    /// request.cancel();
    /// assert_eq!(either.any_of_source(), Some(1));
    /// ```
    ///
    /// Cost: loads.
    #[must_use]
    pub fn any_of_source(&self) -> Option<usize> {
        self.handle.any_of_source(0)
    }

    /// Without the timer's thread nothing else looks at the deadlines of contexts above.
    #[inline]
    pub(super) fn has_expired_unseen(&self) -> bool {
        #[cfg(feature = "std")]
        return crate::timer::is_missing() && expire_if_past(&self.handle);
        #[cfg(not(feature = "std"))]
        false
    }
}

/// # Which token it is
impl CancellationToken {
    /// Returns which token this is, as a number: equal for clones, and different for all others that exist at the time.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let parent = CancellationToken::new();
    /// let child = parent.child_token();
    /// assert_eq!(parent.id(), parent.clone().id());
    /// assert_ne!(parent.id(), child.id());
    /// assert_eq!(child.parent_id(), Some(parent.id()));
    /// assert_eq!((parent.depth(), child.depth()), (0, 1));
    /// assert!(child.is_below(&parent));
    /// ```
    ///
    /// Cost: none, not even a load.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.handle.id()
    }

    /// Returns which token this one is a child of. `None` if it is a root, or if its parent was cancelled when it was
    /// made, for then it is no part of that tree.
    ///
    /// The parent need not have any handles left. Of a token of [`any_of`](Self::any_of) it is the first source; of one
    /// with a source that was cancelled already, `None`.
    ///
    /// Cost: a load or two.
    #[must_use]
    pub fn parent_id(&self) -> Option<TokenId> {
        self.handle.parent_id()
    }

    /// Returns how many tokens are above this one: its parent, that one's parent, and so on. As with
    /// [`parent_id`](Self::parent_id), on the way of the first source.
    ///
    /// Cost: a climb to the root.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.handle.depth()
    }

    /// Returns `true` if a cancel of `other` reaches this token, through whatever source of [`any_of`](Self::any_of). A token is not
    /// below itself, nor is what was made below a token that was cancelled already.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let (request, shutdown) = (CancellationToken::new(), CancellationToken::new());
    /// let query = CancellationToken::any_of([&request, &shutdown]).child_token();
    /// assert!(query.is_below(&request) && query.is_below(&shutdown));
    /// assert!(!request.is_below(&query) && !query.is_below(&query));
    /// ```
    ///
    /// Cost: a climb to the root; below tokens of [`any_of`](Self::any_of) over all that is above, each once.
    #[must_use]
    pub fn is_below(&self, other: &CancellationToken) -> bool {
        self.handle.is_below(&other.handle)
    }
}

/// # Raw handles
impl CancellationToken {
    /// Turns the handle into a pointer, for C, and for code that keeps a `void *`. Pass it back to
    /// [`from_raw`](Self::from_raw), once.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let token = CancellationToken::new();
    /// let raw = token.clone().into_raw();
    /// assert_eq!(raw, token.as_ptr());
    /// // SAFETY: from `into_raw`, and not used again.
    /// let same = unsafe { CancellationToken::from_raw(raw) };
    /// assert_eq!(same, token);
    /// ```
    ///
    /// Cost: none.
    #[must_use = "the handle is lost unless `from_raw` gets the pointer"]
    pub fn into_raw(self) -> *const () {
        ManuallyDrop::new(self).as_ptr()
    }

    /// Turns a pointer back into a handle; it must have come from [`into_raw`](Self::into_raw).
    ///
    /// To use the token without giving up the pointer, wrap the result in [`ManuallyDrop`], as a function for C
    /// that only cancels would.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// # use std::mem::ManuallyDrop;
    /// /// # Safety
    /// /// The pointer came from `into_raw`, and has not been given back.
    /// unsafe extern "C" fn cancel(token: *const ()) {
    ///     // SAFETY: the caller's promise; it is not dropped.
    ///     ManuallyDrop::new(unsafe { CancellationToken::from_raw(token) }).cancel();
    /// }
    /// # let token = CancellationToken::new();
    /// # let raw = token.clone().into_raw();
    /// # unsafe { cancel(raw) };
    /// # drop(unsafe { CancellationToken::from_raw(raw) });
    /// # assert!(token.is_cancelled());
    /// ```
    ///
    /// # Safety
    ///
    /// `raw` must have come from `into_raw`, and each such pointer may be given back once at most: the handle belongs to
    /// the result from now on. It may be on another thread.
    pub unsafe fn from_raw(raw: *const ()) -> CancellationToken {
        // SAFETY: the caller's promise.
        unsafe { Handle::from_address(raw) }.into()
    }

    /// Returns the pointer that [`into_raw`](Self::into_raw) would give, without giving up the handle: for comparing.
    #[must_use]
    pub fn as_ptr(&self) -> *const () {
        self.handle.address()
    }
}

impl CancellationToken {
    #[inline]
    pub(super) fn from_ref(handle: &Handle) -> &CancellationToken {
        // SAFETY: a token is a handle, and nothing else (`repr(transparent)`).
        unsafe { &*ptr::from_ref(handle).cast() }
    }

    #[cfg(feature = "std")]
    #[inline]
    pub(crate) fn into_handle(self) -> Handle {
        self.handle
    }

    #[inline]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

#[cfg(feature = "std")]
#[cold]
fn expire_if_past(token: &Handle) -> bool {
    use crate::timer::{self, clock};
    timer::look();
    token.expire(clock::at_or_before(std::time::Instant::now()));
    token.is_cancelled()
}

impl From<Handle> for CancellationToken {
    #[inline]
    fn from(handle: Handle) -> CancellationToken {
        CancellationToken { handle }
    }
}

impl Clone for CancellationToken {
    /// Returns another handle of the same token. Cost: 1 RMW.
    ///
    /// # Aborts
    ///
    /// As `Arc`'s clone, if there are too many handles for the count: 2⁴⁶, more than memory has room for, and on
    /// targets without 64-bit atomics 16,383. Living children count as handles of a parent that is dropped.
    #[inline]
    fn clone(&self) -> CancellationToken {
        self.handle.clone().into()
    }
}

impl Default for CancellationToken {
    fn default() -> CancellationToken {
        CancellationToken::new()
    }
}

/// What tokio-util's token shows, to the letter: logs and snapshots of it stay as they are. With `{:+?}` there is the
/// [`id`](CancellationToken::id) too.
impl fmt::Debug for CancellationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_id = f.sign_plus();
        let mut debug = f.debug_struct("CancellationToken");
        debug.field("is_cancelled", &self.is_cancelled());
        if with_id {
            debug.field("id", &self.id());
        }
        debug.finish()
    }
}

/// Clones are equal: cancelling one cancels the other, and the other way round.
impl PartialEq for CancellationToken {
    fn eq(&self, other: &CancellationToken) -> bool {
        self.handle.address() == other.handle.address()
    }
}

impl Eq for CancellationToken {}

impl Hash for CancellationToken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.handle.address().hash(state);
    }
}
