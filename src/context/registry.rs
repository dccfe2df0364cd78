//! Records of what has a name, for the question what is there. docs/INSPECT.md argues P1 to P4.
//!
//! A record is memory that is never freed. It is claimed by whoever makes something, and given up when that ends; what it
//! stood for is put away by then, or by the last of those that read it meanwhile. Nobody waits.

use crate::sync::{
    thread, AcqRel, Acquire, AtomicPtr, AtomicU64, Credit, Panics, Relaxed, Release, UnsafeCell,
    SMALL,
};
use alloc::boxed::Box;
use core::ptr::{self, NonNull};

/// It stands for something.
const TAKEN: u64 = 1;
/// One that is reading. Without TAKEN: whoever is the only one puts away what is there.
const READER: u64 = 1 << 8;
const READERS: u64 = 0xFFFF << 8;
/// How often it was taken.
const GENERATION: u64 = 1 << 24;

const SHARDS: usize = if SMALL { 1 } else { 16 };
const FIRST_CHUNK: usize = if SMALL { 1 } else { 8 };
const MAX_CHUNK: usize = if SMALL { 2 } else { 256 };
/// So many records are looked at before more are made, or as many as would be made, or as were paid for.
const LOOK: usize = if SMALL { 2 } else { 16 };

/// Records of one kind of things.
pub struct Registry<T> {
    shards: [Shard<T>; SHARDS],
}

/// The records of some threads: a line of their own.
#[repr(align(128))]
struct Shard<T> {
    /// A record that was free when somebody last looked, or null. Never trusted.
    hint: AtomicPtr<Record<T>>,
    /// Where the last look around ended.
    look: AtomicPtr<Record<T>>,
    credit: Credit,
    /// The newest chunk.
    chunks: AtomicPtr<Chunk<T>>,
}

struct Chunk<T> {
    /// The next older chunk. Fixed once this one is linked.
    older: AtomicPtr<Chunk<T>>,
    /// Fixed as well. In a cell, so that models see whether who reads it has acquired the link.
    made: UnsafeCell<Made<T>>,
}

struct Made<T> {
    /// How many records are in the older chunks.
    before: usize,
    records: Box<[Record<T>]>,
}

struct Record<T> {
    word: AtomicU64,
    /// What it stands for. Null at the beginning, when there is nothing to read.
    what: AtomicPtr<T>,
    /// While free: where the hint goes on.
    next: AtomicPtr<Record<T>>,
    /// Fixed. In a cell, as what is in the chunk.
    chunk: UnsafeCell<*const Chunk<T>>,
}

/// A record that was claimed: the duty to end it, once.
pub struct Key<T> {
    record: NonNull<Record<T>>,
    shard: usize,
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Key<T> {
        *self
    }
}

impl<T> Copy for Key<T> {}

// SAFETY: a pointer to what is shared by atomics; what is handed over by them is Send and Sync.
unsafe impl<T: Send + Sync> Send for Key<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Key<T> {}

// SAFETY: the records hand over what they stand for by their word, and it is Send and Sync.
unsafe impl<T: Send + Sync> Send for Registry<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Registry<T> {}

/// Which record, and which of those that have had it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Number {
    /// From 1.
    pub record: usize,
    /// From 1.
    pub generation: u64,
}

impl<T> Shard<T> {
    crate::sync::const_where_possible! {
        fn new() -> Shard<T> {
            Shard {
                hint: AtomicPtr::new(ptr::null_mut()),
                look: AtomicPtr::new(ptr::null_mut()),
                credit: Credit::new(),
                chunks: AtomicPtr::new(ptr::null_mut()),
            }
        }
    }

    fn each_chunk(&self) -> impl Iterator<Item = &Chunk<T>> {
        // Acquire: pairs with the push.
        let mut at = self.chunks.load(Acquire);
        core::iter::from_fn(move || {
            // SAFETY: chunks go with the registry.
            let chunk = unsafe { at.as_ref() }?;
            // Relaxed: fixed before the push that `chunks` was acquired from.
            at = chunk.older.load(Relaxed);
            Some(chunk)
        })
    }

    fn claim(&self) -> NonNull<Record<T>> {
        // Acquire: pairs with the stores of hints; the record was made before.
        let hint = self.hint.load(Acquire);
        // SAFETY: records go with the registry.
        if let Some(record) = unsafe { hint.as_ref() } {
            if record.claim() {
                self.lead_on(record);
                return NonNull::from(record);
            }
        }
        self.search().unwrap_or_else(|| self.push())
    }

    /// The hint goes to where that of a record led that was just claimed.
    fn lead_on(&self, record: &Record<T>) {
        // Relaxed: written before the word that the claim has read (its Acquire).
        let next = record.next.load(Relaxed);
        let next = if ptr::eq(next, record) {
            ptr::null_mut()
        } else {
            next
        };
        // Release: pairs with the loads of hints, so that a thread that comes by ours sees that record as it was made.
        self.hint.store(next, Release);
    }

    /// A record that no hint leads to.
    fn search(&self) -> Option<NonNull<Record<T>>> {
        // Acquire: pairs with the push.
        // SAFETY: chunks go with the registry.
        let newest = unsafe { self.chunks.load(Acquire).as_ref() }?;
        // Acquire: pairs with the stores below; the record was made before.
        let mut at = self.look.load(Acquire);
        let most = self.credit.looks(LOOK.max(newest.made().records.len()));
        for looks in 1..=most {
            // SAFETY: as above.
            let record = unsafe { at.as_ref() }.unwrap_or(&newest.made().records[0]);
            at = record.next_in_list();
            if record.claim() {
                // Release: pairs with the load above.
                self.look.store(at, Release);
                self.credit.found(looks);
                self.lead_on(record);
                return Some(NonNull::from(record));
            }
        }
        // Release: as above.
        self.look.store(at, Release);
        self.credit.found_nothing(most);
        None
    }

    /// New records, of which the first is the caller's.
    fn push(&self) -> NonNull<Record<T>> {
        // Acquire: pairs with the push, for the size of the newest chunk.
        let mut seen = self.chunks.load(Acquire);
        // SAFETY: chunks go with the registry.
        let size = unsafe { seen.as_ref() }.map_or(FIRST_CHUNK, |newest| {
            (2 * newest.made().records.len()).min(MAX_CHUNK)
        });
        let chunk = Chunk::allocate(size);
        loop {
            // SAFETY: as above.
            let older = unsafe { seen.as_ref() }.map(Chunk::made);
            let before = older.map_or(0, |older| older.before + older.records.len());
            // SAFETY: made above, and not shared yet. Relaxed: published by the push.
            unsafe {
                (*chunk).made.with_mut(|made| (*made).before = before);
                (*chunk).older.store(seen, Relaxed);
            }
            // Release: pairs with all loads of `chunks`. Acquire, on failure: the chunk there is read.
            match self.chunks.compare_exchange(seen, chunk, Release, Acquire) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        self.credit.grown(size);
        // SAFETY: goes with the registry.
        let records = &unsafe { &*chunk }.made().records;
        if let Some(second) = records.get(1) {
            // Release: pairs with the loads of hints.
            self.hint.store(ptr::from_ref(second).cast_mut(), Release);
        }
        NonNull::from(&records[0])
    }
}

impl<T> Chunk<T> {
    fn allocate(size: usize) -> *mut Chunk<T> {
        let chunk = Box::into_raw(Box::new(Chunk {
            older: AtomicPtr::new(ptr::null_mut()),
            made: UnsafeCell::new(Made {
                before: 0,
                records: Box::default(),
            }),
        }));
        let record = |i| Record {
            word: AtomicU64::new(if i == 0 { GENERATION | TAKEN } else { 0 }),
            what: AtomicPtr::new(ptr::null_mut()),
            next: AtomicPtr::new(ptr::null_mut()),
            chunk: UnsafeCell::new(chunk),
        };
        let records: Box<[Record<T>]> = (0..size).map(record).collect();
        // SAFETY: made above, and not shared yet.
        unsafe { (*chunk).made.with_mut(|made| (*made).records = records) };
        // Where they stay: to move the box would end what has been made of it.
        // SAFETY: the same.
        for pair in unsafe { &*chunk }.made().records[1..].windows(2) {
            // Relaxed: not shared yet; published by the push.
            pair[0]
                .next
                .store(ptr::from_ref(&pair[1]).cast_mut(), Relaxed);
        }
        chunk
    }

    fn made(&self) -> &Made<T> {
        // SAFETY: written before the chunk was linked.
        self.made.with(|made| unsafe { &*made })
    }
}

impl<T> Record<T> {
    /// The chunk that has it, and where it is there.
    fn place(&self) -> (&Chunk<T>, usize) {
        // SAFETY: written before it was linked; the chunk has the record.
        let chunk = self.chunk.with(|chunk| unsafe { &**chunk });
        let first = chunk.made().records.as_ptr().addr();
        let index = (ptr::from_ref(self).addr() - first) / size_of::<Record<T>>();
        (chunk, index)
    }

    /// The next one in the shard's list; null after the last.
    fn next_in_list(&self) -> *mut Record<T> {
        let (chunk, index) = self.place();
        let next = chunk.made().records.get(index + 1).or_else(|| {
            // SAFETY: chunks go with the registry.
            // Relaxed: fixed before the push, which the caller has acquired with the record.
            let older = unsafe { chunk.older.load(Relaxed).as_ref() };
            older.map(|older| &older.made().records[0])
        });
        next.map_or(ptr::null_mut(), |next| ptr::from_ref(next).cast_mut())
    }

    fn claim(&self) -> bool {
        // Relaxed: a guess, which the CAS below checks.
        let seen = self.word.load(Relaxed);
        // Acquire: pairs with the last step of the thread that has put away what was here.
        seen & (GENERATION - 1) == 0
            && self
                .word
                .compare_exchange(
                    seen,
                    seen.wrapping_add(GENERATION) | TAKEN,
                    Acquire,
                    Relaxed,
                )
                .is_ok()
    }

    /// What is here, with a reader counted; none if there is nothing, or it is about to come or to go.
    fn enter(&self, panics: &mut Panics) -> Option<(NonNull<T>, u64)>
    where
        T: Send + 'static,
    {
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = self.word.load(Relaxed);
        loop {
            if seen & TAKEN == 0 || seen & READERS == READERS {
                return None;
            }
            let new = seen + READER;
            // Acquire: pairs with what has freed the record, so that nothing older is read here.
            match self.word.compare_exchange(seen, new, Acquire, Relaxed) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        // Acquire: pairs with `Registry::put`.
        match NonNull::new(self.what.load(Acquire)) {
            Some(what) => Some((what, seen / GENERATION)),
            None => {
                panics.let_go(self.leave());
                None
            }
        }
    }

    /// By a reader. What it has to drop, if all others are through: the record is free by then.
    fn leave(&self) -> Option<Box<T>> {
        // Acquire: pairs with the steps of those that were here, for the thread that is alone.
        let mut seen = self.word.load(Acquire);
        loop {
            if seen & (TAKEN | READERS) == READER {
                return self.put_away();
            }
            // Release: pairs with the thread that puts away what was read. Acquire: as above.
            match self
                .word
                .compare_exchange(seen, seen - READER, Release, Acquire)
            {
                Ok(_) => return None,
                Err(now) => seen = now,
            }
        }
    }

    /// By the only one that is here: nobody comes meanwhile, for that takes TAKEN, and TAKEN takes no readers.
    fn put_away(&self) -> Option<Box<T>> {
        // Relaxed, both: acquired with the word; and released by the step below.
        let what = self.what.load(Relaxed);
        self.what.store(ptr::null_mut(), Relaxed);
        // Release: pairs with the next claim.
        self.word.fetch_sub(READER, Release);
        // SAFETY: of a Box, by `put`, and taken out once.
        (!what.is_null()).then(|| unsafe { Box::from_raw(what) })
    }

    fn end(&self) -> Option<Box<T>> {
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = self.word.load(Relaxed);
        loop {
            let is_alone = seen & READERS == 0;
            let new = (seen & !TAKEN) + if is_alone { READER } else { 0 };
            // AcqRel: the acquire half pairs with readers that have left, the release half with the one that puts away.
            match self.word.compare_exchange(seen, new, AcqRel, Relaxed) {
                Ok(_) if is_alone => return self.put_away(),
                Ok(_) => return None,
                Err(now) => seen = now,
            }
        }
    }
}

fn number_of(place: usize, shard: usize) -> usize {
    place * SHARDS + shard + 1
}

impl<T: Send + Sync + 'static> Registry<T> {
    /// None are there yet.
    #[cfg(not(any(cancel_tree_loom, cancel_tree_shuttle)))]
    pub(crate) const fn new() -> Registry<T> {
        Registry {
            shards: [const { Shard::new() }; SHARDS],
        }
    }

    /// None are there yet.
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Registry<T> {
        Registry {
            shards: core::array::from_fn(|_| Shard::new()),
        }
    }

    /// A record that stands for nothing yet.
    pub fn claim(&self) -> Key<T> {
        let shard = thread::number() % SHARDS;
        let record = self.shards[shard].claim();
        Key { record, shard }
    }

    /// Which record it is. By the thread that has claimed it.
    pub fn number(&self, key: &Key<T>) -> Number {
        // SAFETY: records go with the registry.
        let record = unsafe { key.record.as_ref() };
        let (chunk, index) = record.place();
        Number {
            record: number_of(chunk.made().before + index, key.shard),
            // Relaxed: it stays as long as the record is taken.
            generation: record.word.load(Relaxed) / GENERATION,
        }
    }

    /// What the record stands for from now on. Once.
    pub fn put(&self, key: &Key<T>, what: Box<T>) {
        // SAFETY: records go with the registry, which had this one claimed.
        let record = unsafe { key.record.as_ref() };
        // Release: pairs with the readers' load.
        record.what.store(Box::into_raw(what), Release);
    }

    /// Gives it up. What it stood for, to be dropped; none if a thread is reading it, which does that then.
    pub fn end(&self, key: Key<T>) -> Option<Box<T>> {
        // SAFETY: as above.
        let record = unsafe { key.record.as_ref() };
        let hint = &self.shards[key.shard].hint;
        // Before it is given up, for `next` is the next one's then. Acquire: pairs with the stores of hints, so that who
        // reads `next` after us sees that record as it was made.
        let next = hint.load(Acquire);
        if !ptr::eq(next, record) {
            // Relaxed: released by the step on the word.
            record.next.store(next, Relaxed);
        }
        let what = record.end();
        // If somebody reads, it is not free yet: a thread that follows the hint sees that. Release: pairs with the loads of hints.
        hint.store(key.record.as_ptr(), Release);
        what
    }

    /// For models.
    #[cfg(cancel_tree_loom)]
    pub fn each(&self, read: impl FnMut(Number, &T)) {
        let mut panics = Panics::default();
        self.each_with(&mut panics, read);
        panics.resume();
    }

    /// Reads all that is there. No user code in `read`: a reader is counted meanwhile. What ends while it is read is dropped
    /// here, after that.
    pub(crate) fn each_with(&self, panics: &mut Panics, mut read: impl FnMut(Number, &T)) {
        for (s, shard) in self.shards.iter().enumerate() {
            for chunk in shard.each_chunk() {
                let made = chunk.made();
                for (i, record) in made.records.iter().enumerate() {
                    let Some((what, generation)) = record.enter(panics) else {
                        continue;
                    };
                    let number = Number {
                        record: number_of(made.before + i, s),
                        generation,
                    };
                    // SAFETY: it stays while a reader is counted (P1).
                    read(number, unsafe { what.as_ref() });
                    panics.let_go(record.leave());
                }
            }
        }
    }
}

impl<T> Drop for Registry<T> {
    /// Nobody has a key any more, or ever uses it.
    fn drop(&mut self) {
        for shard in &self.shards {
            // Relaxed, here and below: nobody else is here.
            let mut at = shard.chunks.load(Relaxed);
            while !at.is_null() {
                // SAFETY: made by `allocate`, and nobody's but ours.
                let chunk = unsafe { Box::from_raw(at) };
                at = chunk.older.load(Relaxed);
                for record in &chunk.made().records {
                    let what = record.what.load(Relaxed);
                    if !what.is_null() {
                        // SAFETY: of a Box, by `put`, and not taken out.
                        drop(unsafe { Box::from_raw(what) });
                    }
                }
            }
        }
    }
}

#[cfg(all(test, not(cancel_tree_loom)))]
mod tests {
    use super::{Registry, Release};
    use crate::sync::thread;
    use core::ptr;

    /// As for places of groups.
    #[test]
    fn hints_that_are_lost_make_no_records() {
        for stay in [100, 1_000, 10_000] {
            let registry = Registry::<()>::new();
            let shard = &registry.shards[thread::number() % super::SHARDS];
            for _ in 0..stay {
                registry.claim();
            }
            for _ in 0..1_000_000 {
                registry.end(registry.claim());
                // Release: as all stores of hints.
                shard.hint.store(ptr::null_mut(), Release);
            }
            let kept: usize = shard.each_chunk().map(|c| c.made().records.len()).sum();
            assert!(kept <= 7 * stay / 3 + 256, "{stay} stay: {kept} records");
        }
    }
}
