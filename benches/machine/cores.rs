//! Threads that stay on the core they are told to.
//!
//! Left alone, the scheduler sometimes puts both threads of a benchmark on one core, where they
//! take turns instead of contending, and a wake-up costs a tenth. What is measured would then
//! depend on its mood.

/// Whether there are two cores at all. What two threads do at once is measured only then.
pub fn has_two() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
}

/// Keeps the calling thread on the `n`th of the cores that it may use, until the guard is
/// dropped. Without so many cores, or on a system where it is not known how, does nothing.
pub fn pin(n: usize) -> Pinned {
    Pinned {
        _before: imp::pin(n),
    }
}

#[must_use]
pub struct Pinned {
    _before: Option<imp::Restore>,
}

#[cfg(target_os = "linux")]
mod imp {
    use std::ffi::{c_int, c_ulong};

    const BITS: usize = c_ulong::BITS as usize;

    /// The C library's `cpu_set_t`, a bit for each core.
    #[repr(C)]
    #[derive(Clone)]
    struct CpuSet([c_ulong; 1024 / BITS]);

    extern "C" {
        fn sched_getaffinity(thread: c_int, size: usize, set: *mut CpuSet) -> c_int;
        fn sched_setaffinity(thread: c_int, size: usize, set: *const CpuSet) -> c_int;
    }

    const THIS_THREAD: c_int = 0;

    impl CpuSet {
        const EMPTY: Self = Self([0; 1024 / BITS]);

        fn allowed() -> Option<Self> {
            let mut set = Self::EMPTY;
            // SAFETY: the set is as large as we say.
            let result = unsafe { sched_getaffinity(THIS_THREAD, size_of::<Self>(), &mut set) };
            (result == 0).then_some(set)
        }

        fn apply(&self) {
            // SAFETY: the set is as large as we say. A failure leaves the thread where it is,
            // which costs precision only.
            unsafe { sched_setaffinity(THIS_THREAD, size_of::<Self>(), self) };
        }

        fn only(core: usize) -> Self {
            let mut set = Self::EMPTY;
            set.0[core / BITS] = 1 << (core % BITS);
            set
        }

        fn cores(&self) -> impl Iterator<Item = usize> + '_ {
            (0..self.0.len() * BITS).filter(|core| self.0[core / BITS] >> (core % BITS) & 1 == 1)
        }
    }

    pub fn pin(n: usize) -> Option<Restore> {
        let allowed = CpuSet::allowed()?;
        let core = allowed.cores().nth(n)?;
        CpuSet::only(core).apply();
        Some(Restore(allowed))
    }

    pub struct Restore(CpuSet);

    impl Drop for Restore {
        fn drop(&mut self) {
            self.0.apply();
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    pub enum Restore {}

    pub fn pin(_: usize) -> Option<Restore> {
        None
    }
}
