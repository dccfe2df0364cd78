//! The system's allocator, whose instructions are not counted: they are the C library's, and differ from one machine to
//! the next. How often it is asked is.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The functions that callgrind leaves out. It toggles in them, so they may be called only where it counts.
pub const UNCOUNTED: &str = "*::heap::uncounted_*";

#[global_allocator]
static HEAP: Heap = Heap;

struct Heap;

thread_local! {
    /// How often this thread has asked for memory while callgrind counts; none while it does not.
    static ASKED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// How often `counted`, in which callgrind counts, asks for memory.
pub fn asked_in(counted: impl FnOnce()) -> u64 {
    ASKED.set(Some(0));
    counted();
    ASKED.take().unwrap_or(0)
}

#[inline(never)]
fn uncounted_alloc(layout: Layout, before: u64) -> *mut u8 {
    ASKED.set(Some(before + 1));
    // SAFETY: called by `alloc` only, with its caller's promise.
    unsafe { System.alloc(layout) }
}

#[inline(never)]
fn uncounted_dealloc(block: *mut u8, layout: Layout) {
    // SAFETY: called by `dealloc` only, with its caller's promise.
    unsafe { System.dealloc(block, layout) }
}

#[inline(never)]
fn uncounted_realloc(block: *mut u8, layout: Layout, size: usize, before: u64) -> *mut u8 {
    ASKED.set(Some(before + 1));
    // SAFETY: called by `realloc` only, with its caller's promise.
    unsafe { System.realloc(block, layout, size) }
}

// SAFETY: the system's allocator.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match ASKED.get() {
            Some(before) => uncounted_alloc(layout, before),
            // SAFETY: the caller's promise.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match ASKED.get() {
            Some(_) => uncounted_dealloc(block, layout),
            // SAFETY: the caller's promise.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match ASKED.get() {
            Some(before) => uncounted_realloc(block, layout, size, before),
            // SAFETY: the caller's promise.
            None => unsafe { System.realloc(block, layout, size) },
        }
    }
}
