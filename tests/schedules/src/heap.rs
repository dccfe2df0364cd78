//! A heap on which a use after free shows: what is freed is overwritten and given out again late. The atomics
//! of shuttle's world in cancel-tree know the pattern.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};

struct Poisoning;

#[global_allocator]
static HEAP: Poisoning = Poisoning;

/// A chunk of the tree is no larger.
const LARGEST: usize = 4096;
/// So many freed blocks are kept back.
const KEPT: usize = 512;

type Block = Option<(*mut u8, Layout)>;

thread_local! {
    // Const and without destructors: an allocator may use them at any time.
    static RING: UnsafeCell<[Block; KEPT]> = const { UnsafeCell::new([None; KEPT]) };
    static NEXT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: System's, but that freed blocks come back later.
unsafe impl GlobalAlloc for Poisoning {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let mut out = Some((block, layout));
        if layout.size() <= LARGEST {
            // SAFETY: the block is the caller's to give up.
            unsafe { block.write_bytes(0xDD, layout.size()) };
            let i = NEXT.get();
            NEXT.set((i + 1) % KEPT);
            // SAFETY: this thread's, and nothing in here allocates.
            out = RING.with(|ring| unsafe { (*ring.get())[i].replace((block, layout)) });
        }
        if let Some((block, layout)) = out {
            // SAFETY: the caller's promise, now or when it came in.
            unsafe { System.dealloc(block, layout) };
        }
    }
}
