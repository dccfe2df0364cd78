//! Which threads are at work: sharding and the callbacks' "is it me?" ask.

/// How often this thread must have lost a race before it pays for sharding a parent.
#[cfg(all(feature = "std", not(cancel_tree_loom)))]
const PATIENCE: u32 = 16;

#[cfg(all(feature = "std", not(cancel_tree_loom)))]
mod imp {
    use core::cell::Cell;
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    static NEXT: AtomicUsize = AtomicUsize::new(1);

    std::thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(0) };
        static LOST: Cell<u32> = const { Cell::new(0) };
    }

    /// A small number of this thread's own, never 0; counted up from 1.
    #[inline]
    pub(crate) fn number() -> usize {
        // A thread-local without a destructor can be read at any time, also while the
        // thread is being torn down.
        NUMBER.with(|number| match number.get() {
            0 => {
                // Relaxed: only uniqueness is asked for.
                let new = NEXT.fetch_add(1, Relaxed);
                number.set(new);
                new
            }
            known => known,
        })
    }

    /// Notes that this thread lost a race; true once it has lost often enough.
    #[cold]
    pub(crate) fn contended() -> bool {
        LOST.with(|lost| {
            let count = lost.get() + 1;
            lost.set(if count >= super::PATIENCE { 0 } else { count });
            count >= super::PATIENCE
        })
    }
}

/// Models say themselves which thread is which: a counter of ours would differ from one
/// execution to the next, and loom replays.
#[cfg(cancel_tree_loom)]
mod imp {
    use core::cell::Cell;

    loom::thread_local! {
        static NUMBER: Cell<usize> = Cell::new(UNNUMBERED);
    }

    /// A thread that never sharded anything, and none of the numbers of a runner.
    const UNNUMBERED: usize = usize::MAX;

    pub(crate) fn set_number(number: usize) {
        NUMBER.with(|n| n.set(number));
    }

    pub(crate) fn number() -> usize {
        NUMBER.with(Cell::get)
    }

    /// Threads without a number never shard: most models are about something else.
    pub(crate) fn contended() -> bool {
        number() != UNNUMBERED
    }
}

#[cfg(not(any(feature = "std", cancel_tree_loom)))]
mod imp {
    pub(crate) fn number() -> usize {
        0
    }

    pub(crate) fn contended() -> bool {
        false
    }
}

/// No thread's number.
pub(crate) const NOBODY: usize = 0;

/// A number of this thread's own, to be compared, by callbacks; `NOBODY` where threads can't be told apart.
#[cfg(all(feature = "std", not(cancel_tree_loom)))]
#[inline]
pub(crate) fn me() -> usize {
    number()
}

/// Where a program unwinds, stable Rust has linked std into it, and with that the system's library, which can tell threads apart.
#[cfg(all(not(feature = "std"), panic = "unwind"))]
#[inline]
pub(crate) fn me() -> usize {
    // Systems on which `pthread_t` is as wide as a pointer.
    #[cfg(any(
        target_vendor = "apple",
        target_os = "android",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "linux",
        target_os = "netbsd",
        target_os = "openbsd",
    ))]
    {
        extern "C" {
            fn pthread_self() -> usize;
        }
        // SAFETY: every thread may call it at any time. The answer is no other living thread's, and not null.
        return unsafe { pthread_self() };
    }
    #[cfg(windows)]
    {
        extern "system" {
            fn GetCurrentThreadId() -> u32;
        }
        // SAFETY: every thread may call it at any time. The answer is no other living thread's, and not 0.
        return unsafe { GetCurrentThreadId() } as usize;
    }
    #[allow(unreachable_code)]
    NOBODY
}

#[cfg(all(not(feature = "std"), not(panic = "unwind")))]
pub(crate) fn me() -> usize {
    NOBODY
}

/// Of loom's thread, whether or not a model has given it a number: no other of the execution has it, and reading it is no
/// step of the model.
#[cfg(cancel_tree_loom)]
pub(crate) fn me() -> usize {
    use core::hash::{Hash, Hasher};

    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    loom::thread::current().id().hash(&mut hasher);
    hasher.finish() as usize | 1
}

pub(crate) use imp::*;
