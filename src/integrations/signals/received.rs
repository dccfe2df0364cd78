//! What the handler writes and the others read: one word, and a place for what the dispatcher is to tell.
//!
//! | step | by | on the word |
//! | --- | --- | --- |
//! | open | the installer | not ACTIVE, to ACTIVE, another epoch, what is asked for, no signals |
//! | receive | the handler, on any thread | one signal more; refused if not ACTIVE, or not asked for |
//! | close | the guard's drop | not ACTIVE; the answer says what had come |
//!
//! All are RMWs, so of a signal and the drop of the guard the later sees the earlier: a signal is told by the dispatcher or by the drop,
//! or is left to what was there before us. The word says all that there is to say of a signal, so counting one orders nothing.

use crate::sync::{Acquire, AtomicPtr, AtomicU64, Relaxed, Release};
use alloc::boxed::Box;
use core::ptr;

/// | bits | |
/// | --- | --- |
/// | 0 to 7 | how many signals have come; stays at 255 |
/// | 8 to 15 | which of them ends the process; 0: none does |
/// | 16 to 23 | the first's number |
/// | 24 to 31 | the second's number |
/// | 32 | ACTIVE |
/// | 33 to 36 | ASKED: which signals are counted, for a handler may have stayed that another guard had installed |
/// | 37 to 63 | the epoch |
#[derive(Debug)]
pub struct Word(AtomicU64);

const ENDS_AT: u32 = 8;
const FIRST: u32 = 16;
const SECOND: u32 = 24;
const ACTIVE: u64 = 1 << 32;
const ASKED: u32 = 33;
const EPOCH: u64 = 1 << 37;

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

    fn asks_for(self, signal: u8) -> bool {
        self.is_active() && self.0 & asked(signal) != 0
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

/// The bit of one of SIGHUP, SIGINT, SIGQUIT, SIGTERM.
fn asked(signal: u8) -> u64 {
    1 << (ASKED + u32::from(signal.clamp(1, 4) - 1))
}

impl Word {
    crate::sync::const_where_possible! {
        /// Not active.
        pub fn new() -> Word {
            Word(AtomicU64::new(0))
        }
    }

    /// Begins an epoch, and returns it; `None` if one has not ended.
    pub fn open(&self, ends_at: u8, which: impl IntoIterator<Item = u8>) -> Option<u32> {
        let which = which
            .into_iter()
            .fold(0, |bits, signal| bits | asked(signal));
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = Seen(self.0.load(Relaxed));
        while !seen.is_active() {
            let epoch = (seen.0 & !(EPOCH - 1)).wrapping_add(EPOCH);
            let new = epoch | ACTIVE | which | u64::from(ends_at) << ENDS_AT;
            // Acquire: from `close`, so that whoever opens comes after what the other did.
            match self.0.compare_exchange_weak(seen.0, new, Acquire, Relaxed) {
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
            if !seen.asks_for(signal) {
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
            // Relaxed: the word says it all; what is to look at it is woken after this.
            match self.0.compare_exchange_weak(seen.0, new, Relaxed, Relaxed) {
                Ok(_) => return Received::Counted,
                Err(now) => seen = Seen(now),
            }
        }
    }

    /// Ends the epoch.
    pub fn close(&self) -> Seen {
        // Release: to the next `open`.
        Seen(self.0.fetch_and(!ACTIVE, Release))
    }

    /// For the dispatcher, when it has been woken.
    pub fn look(&self) -> Option<Seen> {
        // Relaxed: ordered by the wake that comes after `receive`.
        let seen = Seen(self.0.load(Relaxed));
        seen.is_active().then_some(seen)
    }
}

/// The latest letter, for one reader.
#[derive(Debug)]
pub struct Inbox<T>(AtomicPtr<T>);

impl<T: Send> Inbox<T> {
    crate::sync::const_where_possible! {
        /// Empty.
        pub fn new() -> Inbox<T> {
            Inbox(AtomicPtr::new(ptr::null_mut()))
        }
    }

    /// In the place of one that was not read. The caller has the epoch, and wakes the reader after it.
    pub fn put(&self, letter: T) {
        // Release: to `take`. What is replaced is of an epoch before, and so comes before this.
        let old = self.0.swap(Box::into_raw(Box::new(letter)), Release);
        drop(Inbox::owned(old));
    }

    /// By the reader.
    pub fn take(&self) -> Option<Box<T>> {
        // Acquire: from `put`.
        Inbox::owned(self.0.swap(ptr::null_mut(), Acquire))
    }
}

impl<T> Inbox<T> {
    /// What a swap has returned, so that it is the caller's.
    fn owned(letter: *mut T) -> Option<Box<T>> {
        // SAFETY: not null, so of `put`'s Box.
        (!letter.is_null()).then(|| unsafe { Box::from_raw(letter) })
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        // Relaxed: nobody else has it.
        drop(Inbox::owned(self.0.load(Relaxed)));
    }
}

/// What a guard's epoch tells, by signals as `T`.
#[derive(Debug)]
pub struct Letter<T> {
    /// As [`Word::open`] has said.
    pub epoch: u32,
    /// What is told.
    pub to: T,
}

/// The dispatcher's step, when it has been woken: the letter that is to be told, and what.
pub fn dispatch<'a, T: Send>(
    word: &Word,
    inbox: &Inbox<Letter<T>>,
    current: &'a mut Option<Box<Letter<T>>>,
) -> Option<(&'a T, [Option<u8>; 2])> {
    let seen = word.look()?;
    // It may be of a later epoch than what was seen: then its own wake is yet to come.
    if let Some(letter) = inbox.take() {
        *current = Some(letter);
    }
    let letter = current.as_ref()?;
    (letter.epoch == seen.epoch()).then(|| (&letter.to, seen.signals()))
}
