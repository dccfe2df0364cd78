//! All places of a group: where one is looked for, how they become more, and the walks over them.

use super::label::Label;
use super::place::{
    close, is_closed, untagged, Bits, CountOff, IsClosed, Owner, Place, Shard, State,
};
use crate::sync::{thread, Acquire, AtomicPtr, Panics, Relaxed, Release, SMALL};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::panic::Location;
use core::ptr::{self, NonNull};

/// All places of a group.
pub(super) struct Places {
    /// For all threads until several of them are in each other's way.
    first: Shard,
    /// Then one for each, in groups of threads; CLOSED in the low bit.
    shards: AtomicPtr<Shard>,
}

const SHARDS: usize = if SMALL { 2 } else { 64 };
const MAX_CHUNK: usize = if SMALL { 2 } else { 64 };
const FIRST_CHUNK: usize = if SMALL { 1 } else { 4 };

/// Which place of a group, and which of those that have had it.
#[cfg(feature = "inspect")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Number {
    pub(super) shard: u8,
    pub(super) place: u32,
    pub(super) taken: u64,
}

/// What a walk found.
#[derive(Default, PartialEq, Eq, Clone, Copy)]
pub(super) struct Found {
    pub(super) living: usize,
    /// Of all places together: grows with each task (G4).
    generations: u64,
    places: usize,
}

impl Places {
    pub(super) fn new() -> Places {
        Places {
            first: Shard::new(),
            shards: AtomicPtr::new(ptr::null_mut()),
        }
    }

    #[inline]
    fn others(&self) -> &[Shard] {
        // Acquire: pairs with `grow`.
        let shards = untagged(self.shards.load(Acquire));
        if shards.is_null() {
            return &[];
        }
        // SAFETY: made by `grow` of so many, and freed with the body.
        unsafe { core::slice::from_raw_parts(shards, SHARDS) }
    }

    fn all(&self) -> impl Iterator<Item = &Shard> {
        core::iter::once(&self.first).chain(self.others())
    }

    #[inline]
    fn home(&self) -> &Shard {
        match self.others() {
            [] => &self.first,
            shards => &shards[thread::number() % SHARDS],
        }
    }

    /// A place for a task, if a hint leads to an empty one. One CAS, on the place's own word.
    #[inline]
    pub(super) fn claim_at_once(&self) -> Option<NonNull<Place>> {
        self.home().claim_hinted(0)
    }

    /// A place for a task. One CAS, on the place's own word, once there are empty ones.
    pub(super) fn claim(
        &self,
        owner: NonNull<Owner>,
        bits: Bits,
    ) -> Result<NonNull<Place>, IsClosed> {
        let bits = bits.0;
        match self.home().claim_hinted(bits) {
            Some(place) => Ok(place),
            None => self.claim_slowly(owner, bits),
        }
    }

    #[cold]
    #[inline(never)]
    fn claim_slowly(&self, owner: NonNull<Owner>, bits: u64) -> Result<NonNull<Place>, IsClosed> {
        let home = self.home();
        // Acquire: pairs with the push.
        let chunks = home.chunks.load(Acquire);
        if is_closed(chunks) {
            return Err(IsClosed);
        }
        if let Some(newest) = NonNull::new(chunks) {
            if let Some(place) = home.claim_by_search(newest, bits) {
                // An empty place that no hint led to: another thread has overwritten the hint.
                if ptr::eq(home, &self.first) && thread::contended() {
                    self.grow();
                }
                return Ok(place);
            }
        }
        // Places come back to the shard that they are of: a thread that lives on others' places is in their way, task after
        // task. What others leave over is taken by a thread that has a full chunk of its own already.
        // SAFETY: chunks are freed with the body, which the caller holds.
        let own = unsafe { chunks.as_ref() }.map_or(0, |newest| newest.places.len());
        if !ptr::eq(home, &self.first) && own == MAX_CHUNK {
            let other = self.all().find_map(|other| other.claim_hinted(bits));
            if let Some(place) = other {
                return Ok(place);
            }
        }
        let size = match own {
            0 => FIRST_CHUNK,
            own => (2 * own).min(MAX_CHUNK),
        };
        home.push(chunks, size, owner, bits)
    }

    #[cold]
    fn grow(&self) {
        if !self.others().is_empty() {
            return;
        }
        let shards: Box<[Shard]> = (0..SHARDS).map(|_| Shard::new()).collect();
        let shards = Box::into_raw(shards).cast::<Shard>();
        // Release: pairs with `others`. Failure: closed, or somebody was faster.
        let published = self
            .shards
            .compare_exchange(ptr::null_mut(), shards, Release, Relaxed);
        if published.is_err() {
            // SAFETY: made above, and never shared.
            unsafe { free_shards(shards) };
        }
    }

    /// Nothing comes in after this, and what came before is seen by the next walk (G3).
    pub(super) fn close(&self) {
        close(&self.shards);
        for shard in self.all() {
            close(&shard.chunks);
            for place in shard.each_chunk().flat_map(|chunk| &chunk.places) {
                place.close();
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        // Relaxed: pairs with nothing; a task that is to start finds the tag by the loads of `claim_slowly`.
        is_closed(self.shards.load(Relaxed))
    }

    /// Marks all tasks that are here; `count` is told of so many before any of them is marked, and `uncount` of those that were
    /// not (G2).
    pub(super) fn watch(&self, count: impl Fn(usize), uncount: impl Fn(usize)) -> Found {
        let mut found = Found::default();
        for chunk in self.all().flat_map(Shard::each_chunk) {
            let mut counted = 0;
            for place in &chunk.places {
                let (seen, is_marked) = place.watch(|| {
                    if counted == 0 {
                        counted = chunk.places.len();
                        count(counted);
                    }
                });
                counted -= usize::from(is_marked);
                found.add(seen);
            }
            if counted != 0 {
                uncount(counted);
            }
        }
        found
    }

    /// What is here, by loads.
    pub(super) fn look(&self) -> Found {
        let mut found = Found::default();
        for place in self
            .all()
            .flat_map(Shard::each_chunk)
            .flat_map(|c| &c.places)
        {
            found.add(place.state());
        }
        found
    }

    pub(super) fn read<R>(
        &self,
        panics: &mut Panics,
        count_off: CountOff,
        mut read: impl FnMut(&'static Location<'static>, Option<&Label>) -> R,
    ) -> Vec<R> {
        let places = self
            .all()
            .flat_map(Shard::each_chunk)
            .flat_map(|c| &c.places);
        places
            .filter_map(|place| place.read(panics, count_off, |_, from, label| read(from, label)))
            .collect()
    }

    /// Reads of all tasks what is written, but for those that have a place in a group inside this one.
    #[cfg(feature = "inspect")]
    pub(super) fn each(
        &self,
        panics: &mut Panics,
        count_off: CountOff,
        mut read: impl FnMut(Number, &'static Location<'static>, Option<&Label>),
    ) {
        for (s, shard) in self.all().enumerate() {
            // From the newest on; the oldest has the number 0, whatever comes.
            // One look at what there is: what is pushed meanwhile would shift the numbers.
            let chunks: Vec<_> = shard.each_chunk().collect();
            let mut before: usize = chunks.iter().map(|chunk| chunk.places.len()).sum();
            for chunk in chunks {
                before -= chunk.places.len();
                for (i, place) in chunk.places.iter().enumerate() {
                    place.read(panics, count_off, |state, from, label| {
                        if !state.has(State::INNER) {
                            let number = Number {
                                shard: s as u8,
                                place: (before + i) as u32,
                                taken: state.generation(),
                            };
                            read(number, from, label);
                        }
                    });
                }
            }
        }
    }
}

impl Found {
    fn add(&mut self, state: State) {
        self.living += usize::from(state.is_living());
        self.generations = self.generations.wrapping_add(state.generation());
        self.places += 1;
    }
}

/// # Safety
/// Made by `grow`, and nobody's any more.
unsafe fn free_shards(shards: *mut Shard) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(shards, SHARDS)) });
}

impl Drop for Places {
    fn drop(&mut self) {
        for shard in self.all() {
            // Relaxed, here and below: nobody else has the body any more, and the tally has handed on what others did.
            let mut at = untagged(shard.chunks.load(Relaxed));
            while !at.is_null() {
                // SAFETY: with the body goes all that it has.
                let chunk = unsafe { Box::from_raw(at) };
                at = chunk.older.load(Relaxed);
            }
        }
        let shards = untagged(self.shards.load(Relaxed));
        if !shards.is_null() {
            // SAFETY: as above.
            unsafe { free_shards(shards) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bits, Label, Place, Places};
    use crate::group::label::Shared;
    use crate::sync::Panics;
    use alloc::vec::Vec;
    use core::panic::Location;
    use core::ptr::{self, NonNull};

    /// Some tasks stay, and one comes and goes whose place no hint leads to, as if two threads had met: that happens seldom,
    /// and in a long time often.
    #[test]
    fn hints_that_are_lost_make_no_places() {
        for stay in [100, 1_000, 10_000] {
            let places = Places::new();
            // It would, and leave those that stay where they are.
            places.grow();
            // For a place that nobody watches it is an address only.
            let body = NonNull::dangling();
            let claim = || places.claim(body, Bits::of(false)).ok().unwrap();
            for _ in 0..stay {
                claim();
            }
            for _ in 0..1_000_000 {
                // SAFETY: claimed here, and given up here.
                assert!(unsafe { Place::end_at_once(claim()) });
                // Release: as all stores of hints.
                places.home().hint.store(ptr::null_mut(), super::Release);
            }
            let kept = places.look().places;
            assert!(kept <= 7 * stay / 3 + 64, "{stay} stay: {kept} places");
        }
    }

    /// A named task ends while it is read, and then others do, before the reader clears up.
    #[test]
    fn a_reader_that_clears_up_keeps_the_hints() {
        let places = Places::new();
        // For places that nobody watches it is an address only.
        let body = NonNull::dangling();
        // All that are made at first, so that hints lead only to what is given up here.
        let taken: Vec<_> = (0..12)
            .map(|_| places.claim(body, Bits::of(false)).ok().unwrap())
            .collect();
        assert_eq!(places.look().places, taken.len());
        let (named, others) = taken.split_first().unwrap();
        // SAFETY: taken above.
        let at = unsafe { named.as_ref() };
        let label = Label::new(Some("named".into()), &Shared::nothing());
        at.describe(Location::caller(), label);
        let mut panics = Panics::default();
        let was_read = at.read(
            &mut panics,
            |_, _| unreachable!("nobody watches"),
            |_, _, _| {
                // SAFETY: claimed above, and given up here.
                assert!(!unsafe { Place::end(*named, &mut Panics::default(), || ()) });
                for other in others {
                    // SAFETY: as above.
                    assert!(unsafe { Place::end_at_once(*other) });
                }
            },
        );
        assert_eq!(was_read, Some(()));
        let hinted = taken.iter().filter_map(|_| places.claim_at_once()).count();
        assert_eq!(hinted, taken.len());
    }
}
