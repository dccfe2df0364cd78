//! The observers of what has a name: a table that the floors above fill, and that is asked by a load.

use crate::sync::{Acquire, AtomicPtr, Panics, Relaxed, Release};
use crate::tree::Cause;
use alloc::boxed::Box;
use core::panic::Location;
use core::ptr;
use core::time::Duration;

/// Something that has happened to a context, group or task with a name.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A context that has a name is done, or a group, and was not when it was made. Told once: on the thread that cancels, after all that
    /// wait have been woken, or on the one that lets it go before that.
    #[non_exhaustive]
    Done {
        /// It is a group.
        is_group: bool,
        /// What it is called.
        name: Option<&'a str>,
        /// Where it was made.
        at: &'static Location<'static>,
        /// Why.
        cause: &'a Cause,
        /// If its deadline has passed: by how much, when this is told.
        late: Option<Duration>,
    },
    /// A task that has a name is polled for the first time since its group was cancelled. It may be faster than what tells
    /// [`Done`](Event::Done).
    #[non_exhaustive]
    FirstPoll {
        /// What it is called.
        name: &'a str,
        /// Where it was started.
        spawned_at: &'static Location<'static>,
        /// So long after the cancel: 0 if nobody has noted that before.
        after: Duration,
    },
    /// A task that has a name ends, and its group was cancelled before.
    #[non_exhaustive]
    Gone {
        /// What it is called.
        name: &'a str,
        /// Where it was started.
        spawned_at: &'static Location<'static>,
        /// So long after the cancel: 0 if nobody has noted that before.
        after: Duration,
        /// It was dropped before it was through.
        is_forced: bool,
    },
    /// A report names a task that does not stop.
    #[non_exhaustive]
    Stuck {
        /// What it is called.
        name: Option<&'a str>,
        /// Where it was started.
        spawned_at: &'static Location<'static>,
    },
    /// What became of a request (feature `tower`): `received`, `expired`, `malformed`, `refused`, `cut`, `client_gone` or `failed`.
    #[non_exhaustive]
    Request {
        /// One of these words.
        outcome: &'static str,
    },
}

/// An observer: it is told what happens; see [`observe`].
pub trait Observer: Send + Sync {
    /// Called on the thread where it happens, which waits for it. If it panics, the panic is caught.
    ///
    /// No lock is held, so it may cancel, make and drop anything. But a task that is reported is still there: at
    /// [`FirstPoll`](Event::FirstPoll) its poll is about to go on, at [`Gone`](Event::Gone) its place is about to be given up. So an
    /// observer that waits for the group here waits for itself. The cause of a [`Done`](Event::Done) is told after all waiters have been
    /// woken, but other callbacks may still have to run; or where what is done is dropped, and then that waits for the observer.
    fn tell(&self, event: &Event<'_>);
}

struct Entry {
    observer: Box<dyn Observer>,
    next: *const Entry,
}

crate::sync::global! {
    /// The newest, or null. None is ever taken out.
    static NEWEST: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());
}

/// Registers an observer, which is told from now on, to the end of the process, what happens to contexts, groups and tasks with a name. (The features `metrics` and `tracing` bring
/// observers of their own.)
pub fn observe(observer: impl Observer + 'static) {
    let new = Box::into_raw(Box::new(Entry {
        observer: Box::new(observer),
        next: ptr::null(),
    }));
    // Relaxed: a guess, which the CAS below checks.
    let mut seen = NEWEST.load(Relaxed);
    loop {
        // SAFETY: made above, and not shared yet.
        unsafe { (*new).next = seen };
        // Release: pairs with `tell`; what is linked to is in its release sequence.
        match NEWEST.compare_exchange(seen, new, Release, Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

/// Whether there is an observer at all.
#[inline]
pub(crate) fn is_observed() -> bool {
    // Relaxed: only null or not is asked.
    !NEWEST.load(Relaxed).is_null()
}

/// User code: no lock is held, and no invariant broken. Its panics stay here.
pub(crate) fn tell(event: &Event<'_>) {
    // Acquire: pairs with `observe`.
    let mut at = NEWEST.load(Acquire).cast_const();
    // SAFETY: entries stay for ever.
    while let Some(entry) = unsafe { at.as_ref() } {
        let mut panics = Panics::default();
        panics.catch(|| entry.observer.tell(event));
        panics.swallow();
        at = entry.next;
    }
}
