//! The allocator, counted: how much of the heap is in use now, to the byte. The resident set only
//! says what the allocator has asked for.

use crossbeam_utils::CachePadded;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

#[cfg(all(feature = "jemalloc", feature = "mimalloc"))]
compile_error!("one allocator at a time");

#[cfg(feature = "jemalloc")]
mod chosen {
    pub const NAME: &str = "jemalloc";
    pub static INNER: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
}
#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
mod chosen {
    pub const NAME: &str = "mimalloc";
    pub static INNER: mimalloc::MiMalloc = mimalloc::MiMalloc;
}
#[cfg(not(any(feature = "jemalloc", feature = "mimalloc")))]
mod chosen {
    pub const NAME: &str = "system";
    pub static INNER: std::alloc::System = std::alloc::System;
}
pub use chosen::NAME;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes in use, in parts: what one thread allocates and another frees is in two of them. One
/// counter for all would order threads that nothing else orders, and hide races.
static PARTS: [CachePadded<AtomicIsize>; 32] =
    [const { CachePadded::new(AtomicIsize::new(0)) }; 32];
static NEXT: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: isize) {
    thread_local! {
        // Without a destructor, and so there at any time.
        static PART: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    let part = PART.with(|part| {
        if part.get() == usize::MAX {
            part.set(NEXT.fetch_add(1, Relaxed) % PARTS.len());
        }
        part.get()
    });
    PARTS[part].fetch_add(bytes, Relaxed);
}

// SAFETY: hands on to the chosen allocator, and counts without allocating.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { chosen::INNER.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { chosen::INNER.dealloc(memory, layout) };
    }
}

/// Bytes of the heap that are in use.
pub fn in_use() -> u64 {
    let sum: isize = PARTS.iter().map(|part| part.load(Relaxed)).sum();
    // Parts that are read one after the other may sum up to a little less than nothing.
    sum.max(0) as u64
}

/// Bytes of memory that the process has, where the system tells.
pub fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}
