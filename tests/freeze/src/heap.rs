//! A heap without a lock: glibc's has some, and a thread that stands still in `malloc` would hold up others that are no
//! concern of ours. Blocks of powers of two, out of chunks that belong to one thread and one size each. Who frees
//! another thread's block pushes it to that thread's list, from which it takes all at once. Nothing goes back to the system.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicUsize};

pub struct Heap;

const CHUNK: usize = 256 << 10;
/// 64 GiB of addresses; pages come when they are touched.
const CHUNKS: usize = 256 << 10;
/// Sizes from 16 bytes up to a chunk.
const CLASSES: usize = 15;
/// Threads, over all time.
const THREADS: usize = 512;

struct Block {
    next: *mut Block,
}

/// What one thread has of one size.
struct Stock {
    free: UnsafeCell<*mut Block>,
    /// What has never been given out, up to the end of the chunk.
    fresh: UnsafeCell<(usize, usize)>,
    /// What others have freed.
    returned: AtomicPtr<Block>,
}

struct Shared([[Stock; CLASSES]; THREADS]);

// SAFETY: only the thread whose row it is touches the cells.
unsafe impl Sync for Shared {}

static STOCKS: Shared = Shared(
    [const {
        [const {
            Stock {
                free: UnsafeCell::new(ptr::null_mut()),
                fresh: UnsafeCell::new((0, 0)),
                returned: AtomicPtr::new(ptr::null_mut()),
            }
        }; CLASSES]
    }; THREADS],
);
/// Whose a chunk is.
static OWNERS: [AtomicUsize; CHUNKS] = [const { AtomicUsize::new(0) }; CHUNKS];
static THREADS_SO_FAR: AtomicUsize = AtomicUsize::new(0);
static CHUNKS_SO_FAR: AtomicUsize = AtomicUsize::new(0);
/// Where the chunks begin.
static REGION: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static ME: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn die(what: &str) -> ! {
    // SAFETY: a buffer of that length.
    unsafe { libc::write(2, what.as_ptr().cast(), what.len()) };
    std::process::abort()
}

fn me() -> usize {
    let mut me = ME.get();
    if me == usize::MAX {
        me = THREADS_SO_FAR.fetch_add(1, Relaxed);
        if me >= THREADS {
            die("freeze: too many threads\n");
        }
        ME.set(me);
    }
    me
}

fn region() -> usize {
    let region = REGION.load(Acquire);
    if region != 0 {
        return region;
    }
    // SAFETY: a new mapping.
    let map = unsafe {
        libc::mmap(
            ptr::null_mut(),
            CHUNK * (CHUNKS + 1),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if map == libc::MAP_FAILED {
        die("freeze: no addresses\n");
    }
    let start = (map as usize).next_multiple_of(CHUNK);
    // Who comes second leaves its mapping unused.
    match REGION.compare_exchange(0, start, AcqRel, Acquire) {
        Ok(_) => start,
        Err(other) => other,
    }
}

/// The class whose blocks have room for it.
fn class(layout: Layout) -> usize {
    let size = layout
        .size()
        .max(layout.align())
        .max(16)
        .next_power_of_two();
    size.trailing_zeros() as usize - 4
}

impl Stock {
    /// # Safety
    /// By the thread whose stock it is.
    unsafe fn take(&self, me: usize, class: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        let (free, fresh) = unsafe { (&mut *self.free.get(), &mut *self.fresh.get()) };
        if free.is_null() {
            *free = self.returned.swap(ptr::null_mut(), Acquire);
        }
        if !free.is_null() {
            let block = *free;
            // SAFETY: a free block begins with a link.
            *free = unsafe { (*block).next };
            return block.cast();
        }
        if fresh.0 == fresh.1 {
            let chunk = CHUNKS_SO_FAR.fetch_add(1, Relaxed);
            if chunk >= CHUNKS {
                die("freeze: no memory left\n");
            }
            OWNERS[chunk].store(me, Relaxed);
            let start = region() + chunk * CHUNK;
            *fresh = (start, start + CHUNK);
        }
        let block = fresh.0;
        fresh.0 += 16 << class;
        block as *mut u8
    }
}

// SAFETY: a block is given to one at a time, is large enough, and begins at a multiple of its size.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let class = class(layout);
        if class >= CLASSES {
            // SAFETY: a new mapping.
            let map = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    layout.size(),
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            return if map == libc::MAP_FAILED {
                ptr::null_mut()
            } else {
                map.cast()
            };
        }
        let me = me();
        // SAFETY: this thread's.
        unsafe { STOCKS.0[me][class].take(me, class) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let class = class(layout);
        if class >= CLASSES {
            // SAFETY: mapped above.
            unsafe { libc::munmap(block.cast(), layout.size()) };
            return;
        }
        let owner = OWNERS[(block as usize - region()) / CHUNK].load(Relaxed);
        let block = block.cast::<Block>();
        let stock = &STOCKS.0[owner][class];
        if owner == me() {
            // SAFETY: this thread's stock, and a block that nobody has any more.
            unsafe {
                *block = Block {
                    next: stock.free.get().replace(block),
                }
            };
            return;
        }
        let mut head = stock.returned.load(Relaxed);
        loop {
            // SAFETY: a block that nobody has any more.
            unsafe { (*block).next = head };
            match stock
                .returned
                .compare_exchange_weak(head, block, Release, Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}
