//! What the handler writes and the others read: one word, and a place for what the dispatcher is to tell.
//!
//! | step | by | on the word |
//! | --- | --- | --- |
//! | open | who installs | not ACTIVE, to ACTIVE, another epoch, no signals |
//! | receive | the handler, on any thread | one signal more; refused if not ACTIVE |
//! | close | the guard's drop | not ACTIVE; the answer says what had come |
//!
//! All are RMWs, so of a signal and the drop of the guard the later sees the earlier: a signal is told by the dispatcher or by the drop,
//! or is left to what was there before us.

use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU64, Relaxed};
use alloc::boxed::Box;
use core::ptr;

/// | bits | |
/// | --- | --- |
/// | 0 to 7 | how many signals have come; stays at 255 |
/// | 8 to 15 | which of them ends the process; 0: none does |
/// | 16 to 23 | the first's number |
/// | 24 to 31 | the second's number |
/// | 32 | ACTIVE |
/// | 33 to 63 | the epoch |
#[derive(Debug)]
pub struct Word(AtomicU64);

const ENDS_AT: u32 = 8;
const FIRST: u32 = 16;
const SECOND: u32 = 24;
const ACTIVE: u64 = 1 << 32;
const EPOCH: u64 = 1 << 33;

/// What the word says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen(u64);

/// What becomes of a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Received {
    /// Nobody is here for it.
    Inactive,
    /// The dispatcher is to be woken.
    Counted,
    /// The process ends.
    Ends,
}

impl Seen {
    fn byte(self, at: u32) -> u8 {
        (self.0 >> at & 0xff) as u8
    }

    fn is_active(self) -> bool {
        self.0 & ACTIVE != 0
    }

    /// Of the guard that it belongs to.
    pub fn epoch(self) -> u32 {
        (self.0 >> EPOCH.trailing_zeros()) as u32
    }

    /// The first signal and the second, as far as they have come.
    pub fn signals(self) -> [Option<u8>; 2] {
        let count = self.byte(0);
        [
            (count >= 1).then(|| self.byte(FIRST)),
            (count >= 2).then(|| self.byte(SECOND)),
        ]
    }
}

impl Word {
    crate::sync::const_where_possible! {
        /// Not active.
        pub fn new() -> Word {
            Word(AtomicU64::new(0))
        }
    }

    /// Begins an epoch, and returns it; `None` if one has not ended.
    pub fn open(&self, ends_at: u8) -> Option<u32> {
        // Acquire: from the `close` before, so that whoever opens comes after what the other did.
        let mut seen = Seen(self.0.load(Acquire));
        while !seen.is_active() {
            let epoch = (seen.0 & !(EPOCH - 1)).wrapping_add(EPOCH);
            let new = epoch | ACTIVE | u64::from(ends_at) << ENDS_AT;
            // AcqRel: the acquire half as above; the release half is for `receive`, which comes after what was set up.
            match self.0.compare_exchange_weak(seen.0, new, AcqRel, Acquire) {
                Ok(_) => return Some(Seen(new).epoch()),
                Err(now) => seen = Seen(now),
            }
        }
        None
    }

    /// A signal has come. Async-signal-safe: atomics that are lock-free, and no more.
    pub fn receive(&self, signal: u8) -> Received {
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = Seen(self.0.load(Relaxed));
        loop {
            if !seen.is_active() {
                return Received::Inactive;
            }
            let count = seen.byte(0).saturating_add(1);
            if count == seen.byte(ENDS_AT) {
                return Received::Ends;
            }
            let number = match count {
                1 => u64::from(signal) << FIRST,
                2 if seen.byte(0) == 1 => u64::from(signal) << SECOND,
                _ => 0,
            };
            let new = (seen.0 - u64::from(seen.byte(0)) + u64::from(count)) | number;
            // AcqRel: the release half is for `look` and `close`; the acquire half reads from `open`, and hands it on to them.
            match self.0.compare_exchange_weak(seen.0, new, AcqRel, Relaxed) {
                Ok(_) => return Received::Counted,
                Err(now) => seen = Seen(now),
            }
        }
    }

    /// Ends the epoch.
    pub fn close(&self) -> Seen {
        // AcqRel: the acquire half is for what `receive` has counted, the release half for the next `open`.
        Seen(self.0.fetch_and(!ACTIVE, AcqRel))
    }

    /// For the dispatcher, when it has been woken.
    pub fn look(&self) -> Option<Seen> {
        // Acquire: from `receive`.
        let seen = Seen(self.0.load(Acquire));
        seen.is_active().then_some(seen)
    }
}

/// The latest letter, for one reader.
#[derive(Debug)]
pub struct Inbox<T>(AtomicPtr<T>);

impl<T> Inbox<T> {
    crate::sync::const_where_possible! {
        /// Empty.
        pub fn new() -> Inbox<T> {
            Inbox(AtomicPtr::new(ptr::null_mut()))
        }
    }

    fn swap(&self, letter: *mut T) -> Option<Box<T>> {
        // AcqRel: the release half hands over the letter, the acquire half is for who takes it.
        let old = self.0.swap(letter, AcqRel);
        // SAFETY: not null, so of `put`'s Box; the swap makes it ours.
        (!old.is_null()).then(|| unsafe { Box::from_raw(old) })
    }

    /// In the place of one that nobody has read. Wake the reader after it.
    pub fn put(&self, letter: T) {
        drop(self.swap(Box::into_raw(Box::new(letter))));
    }

    /// By the reader.
    pub fn take(&self) -> Option<Box<T>> {
        self.swap(ptr::null_mut())
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// What a guard's epoch tells, by signals as `T`.
#[derive(Debug)]
pub struct Letter<T> {
    /// As [`Word::open`] has said.
    pub epoch: u32,
    /// Who is told.
    pub to: T,
}

/// The dispatcher's step, when it has been woken: the letter that is to be told, and what.
pub fn dispatch<'a, T>(
    word: &Word,
    inbox: &Inbox<Letter<T>>,
    current: &'a mut Option<Box<Letter<T>>>,
) -> Option<(&'a T, [Option<u8>; 2])> {
    let seen = word.look()?;
    // After the look: the letter may be of a later epoch than what was seen, but then its own wake is yet to come.
    if let Some(letter) = inbox.take() {
        *current = Some(letter);
    }
    let letter = current.as_ref()?;
    (letter.epoch == seen.epoch()).then(|| (&letter.to, seen.signals()))
}
