//! The system's allocator, and how many bytes it has given out: of the whole process, so what counts is alone in it.

// Not each test asks both.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

struct Counting;

static IN_USE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = layout.size() as isize;
        PEAK.fetch_max(IN_USE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as isize, Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

pub fn in_use() -> isize {
    IN_USE.load(Relaxed)
}

/// What `f` answers, how much more is in use after it, and how much more was at the peak.
pub fn grows<R>(f: impl FnOnce() -> R) -> (R, isize, isize) {
    let before = in_use();
    PEAK.store(before, Relaxed);
    let answer = f();
    (answer, in_use() - before, PEAK.load(Relaxed) - before)
}

/// Fails if `f` leaves something in use, or if `at_the_peak` and it ever has something more.
///
/// The test runner has a thread that begins to wait, and takes memory for that, when it gets a processor: what `f` takes it takes
/// each time.
pub fn grows_by_nothing(what: &str, at_the_peak: bool, mut f: impl FnMut()) {
    let mut grown = Vec::new();
    while grown.len() < 3 {
        let ((), left, peak) = grows(&mut f);
        if left == 0 && !(at_the_peak && peak > 0) {
            return;
        }
        grown.push((left, peak));
    }
    panic!("{what}: {grown:?}");
}
