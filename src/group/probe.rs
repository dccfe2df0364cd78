//! What is noted of a task that has a name: its polls, or its thread's looks.

use crate::context::{looks, Context, Looks, Told};
use crate::sync::{Acquire, AtomicBool, AtomicPtr, AtomicU64, AtomicU8, Relaxed, Release};
use crate::token::CancellationToken;
use alloc::sync::Arc;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr;
use std::time::Instant;

/// The kind of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Work {
    /// A place that is held by hand: a [`Member`](crate::Member).
    Held,
    /// A future.
    Future,
    /// A closure on a thread of its own, or a runtime's.
    Thread,
}

/// What a task with a name does (feature `inspect`).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// The kind of the task.
    pub work: Work,
    /// How many polls of a future have begun.
    pub polls: u64,
    /// Whether the future is being polled.
    pub is_polling: bool,
    /// What it has done since the group was cancelled, if it was.
    pub since_cancel: Option<SinceCancel>,
}

/// What a task has done since it was told to stop.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SinceCancel {
    /// How many polls of a future have begun. How often a thread has looked at its context, or at one made from it.
    pub times: u64,
    /// When the first of them was.
    pub first: Option<Instant>,
    /// When the last of them was.
    pub last: Option<Instant>,
}

/// Why something is still there that was told to stop. docs/INSPECT.md says how each is known, and what it usually is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Situation {
    /// A future that was not polled since the cancel: the executor has no thread for it, or a waker was lost; or it
    /// is in a poll from before, which does not return.
    NotPolled,
    /// A future that was polled since, or a thread that has looked since, but goes on.
    GoesOn,
    /// A thread that has not looked since the cancel; or a closure that waits for a thread of a runtime's.
    NotLooked,
    /// A context or group that is done and has nothing known below it any more, but is still held.
    StillHeld,
    /// A context with waiters that can no longer be cancelled, and has no deadline.
    NeverWoken,
}

impl fmt::Display for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Situation::NotPolled => "not polled since the cancel",
            Situation::GoesOn => "was told, and goes on",
            Situation::NotLooked => "has not looked since the cancel",
            Situation::StillHeld => "done, and still held",
            Situation::NeverWoken => "waited for, and can never be woken any more",
        })
    }
}

impl Progress {
    /// Returns which of them it is, or `None` if it was not told to stop.
    #[must_use]
    pub fn situation(&self) -> Option<Situation> {
        let since = self.since_cancel?;
        Some(match self.work {
            Work::Held => Situation::StillHeld,
            _ if since.times > 0 => Situation::GoesOn,
            Work::Future => Situation::NotPolled,
            Work::Thread => Situation::NotLooked,
        })
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(situation), Some(since)) = (self.situation(), self.since_cancel) else {
            return match self.work {
                Work::Future => write!(f, "{} polls", self.polls),
                _ => f.write_str("runs"),
            };
        };
        write!(f, "{situation}")?;
        if self.is_polling {
            f.write_str(", in a poll")?;
        }
        if since.times > 0 {
            let what = match self.work {
                Work::Future => "polls",
                _ => "looks",
            };
            write!(f, ": {} {what} since", since.times)?;
        }
        if let Some(last) = since.last {
            write!(f, ", the last {:.1?} ago", last.elapsed())?;
        }
        Ok(())
    }
}

/// Beside the name. Written by the thread that runs the task, one at a time but for what says that it is beside; read by any that asks.
pub(crate) struct Probe {
    /// Polls that have begun, and that have ended: odd while it is being polled.
    polls: AtomicU64,
    /// Polls beside one of these, on another thread: how many are under way, and, in steps of `BESIDE`, how many have begun.
    beside: AtomicU64,
    /// How many had begun before the first one after the cancel.
    before: AtomicU64,
    /// When that was, as the clock counts, and not 0; or 0.
    first: AtomicU64,
    last: AtomicU64,
    /// A count of what a thread's context notes, or null.
    looks: AtomicPtr<Looks>,
    /// A handle of what tells it to stop, if that is not the group; or null.
    own: AtomicPtr<()>,
    /// That one does not any more.
    is_on_its_own: AtomicBool,
    /// What tells it to stop, where it has places in several groups: the innermost of these.
    group: Option<CancellationToken>,
    work: AtomicU8,
}

/// Where it is.
pub(super) enum Kept {
    Here(Probe),
    /// The task has places in groups around its own too.
    Shared(Arc<Probe>),
}

impl Deref for Kept {
    type Target = Probe;

    #[inline]
    fn deref(&self) -> &Probe {
        match self {
            Kept::Here(probe) => probe,
            Kept::Shared(probe) => probe,
        }
    }
}

/// What all places of a task share.
pub(super) struct Shared(Option<Arc<Probe>>);

impl Shared {
    /// It has one place.
    #[inline]
    pub(super) fn nothing() -> Shared {
        Shared(None)
    }

    #[cold]
    pub(super) fn of_group(ctx: &Context, is_named: bool) -> Shared {
        let probe = || Arc::new(Probe::new(ctx.token().cloned()));
        Shared(is_named.then(probe))
    }

    #[inline]
    pub(super) fn keep(&self) -> Kept {
        match &self.0 {
            None => Kept::Here(Probe::new(None)),
            Some(probe) => Kept::Shared(probe.clone()),
        }
    }
}

const BESIDE: u64 = 1 << 16;

const FUTURE: u8 = Work::Future as u8;
const THREAD: u8 = Work::Thread as u8;

impl Probe {
    #[inline]
    pub(super) fn new(group: Option<CancellationToken>) -> Probe {
        Probe {
            polls: AtomicU64::new(0),
            beside: AtomicU64::new(0),
            before: AtomicU64::new(0),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            looks: AtomicPtr::new(ptr::null_mut()),
            own: AtomicPtr::new(ptr::null_mut()),
            is_on_its_own: AtomicBool::new(false),
            group,
            work: AtomicU8::new(Work::Held as u8),
        }
    }

    /// What it is from now on, as whoever has the place says.
    #[inline]
    pub(crate) fn is_a(&self, work: Work) {
        // Relaxed: pairs with nothing; until it is seen the task is what it was.
        self.work.store(work as u8, Relaxed);
    }

    /// That context tells it to stop. False: another one does, which the owner of the place has named before.
    #[allow(
        dead_code,
        reason = "for tasks that the floor above runs, if it has any"
    )]
    pub(crate) fn is_told_by(&self, ctx: &Context) -> bool {
        // Relaxed: whoever else shares the place has come by what the owner did after that.
        let is_first = self.own.load(Relaxed).is_null();
        if let Some(token) = ctx.token().filter(|_| is_first) {
            // Release: pairs with `is_told`.
            let raw = token.clone().into_raw().cast_mut();
            self.own.store(raw, Release);
        }
        is_first
    }

    /// The group alone tells it to stop from now on.
    #[allow(dead_code, reason = "as above")]
    pub(crate) fn is_told_by_group(&self) {
        // Relaxed: as in `is_a`.
        self.is_on_its_own.store(true, Relaxed);
    }

    /// Whether it was told to stop. `is_done`: whether the group was, which says so if nothing else does. Without a look at the clock, after
    /// which callbacks of others may be called here.
    #[inline]
    pub(super) fn is_told(&self, is_done: bool) -> bool {
        // Acquire: pairs with `is_told_by`.
        let own = self.own.load(Acquire);
        // Relaxed: as in `is_told_by_group`.
        if !own.is_null() && !self.is_on_its_own.load(Relaxed) {
            // SAFETY: a handle that goes with this, and stays where it is.
            let own = ManuallyDrop::new(unsafe { CancellationToken::from_raw(own) });
            return own.handle().is_cancelled();
        }
        let group = self.group.as_ref();
        group.map_or(is_done, |group| group.handle().is_cancelled())
    }

    /// By the thread that runs the task, once.
    pub(super) fn is_thread(&self, looks: Arc<Looks>) {
        // Release: pairs with `progress`, which reads what is here.
        self.looks.store(Arc::into_raw(looks).cast_mut(), Release);
        self.is_a(Work::Thread);
    }

    /// A poll begins; `is_done` as in `is_told`. True: it is the first one since.
    #[inline]
    pub(super) fn begin(&self, is_done: bool) -> bool {
        let is_first = self.is_told(is_done) && self.note();
        // Relaxed, here and below: whoever polls is alone, and hands on what it has written with the future.
        self.polls.store(self.polls.load(Relaxed) + 1, Relaxed);
        is_first
    }

    /// How many polls have begun.
    fn begun(&self) -> u64 {
        self.polls.load(Relaxed).div_ceil(2) + self.beside.load(Relaxed) / BESIDE
    }

    #[cold]
    fn note(&self) -> bool {
        let now = looks::now();
        let is_first = self.first.load(Relaxed) == 0;
        if is_first {
            self.before.store(self.begun(), Relaxed);
            // Release: pairs with `progress`, which then finds what was before.
            self.first.store(now, Release);
        }
        self.last.store(now, Relaxed);
        is_first
    }

    /// A poll begins beside another one, on another thread; the same. Where both find out at once that they are to stop, both may be
    /// the first.
    #[allow(
        dead_code,
        reason = "for tasks that the floor above runs, if it has any"
    )]
    pub(super) fn begin_beside(&self, is_done: bool) -> bool {
        let is_first = self.is_told(is_done) && self.note();
        // Relaxed, here and below: nothing is read on the strength of it.
        self.beside.fetch_add(BESIDE + 1, Relaxed);
        is_first
    }

    /// It has ended.
    #[allow(dead_code, reason = "as above")]
    pub(super) fn end_beside(&self) {
        self.beside.fetch_sub(1, Relaxed);
    }

    /// It has ended.
    #[inline]
    pub(super) fn end(&self) {
        // Relaxed: as in `begin`.
        self.polls.store(self.polls.load(Relaxed) + 1, Relaxed);
    }

    /// By a thread that is counted as a reader of the place; `is_done` as in `is_told`. Numbers that belong to moments close by.
    pub(super) fn progress(&self, is_done: bool) -> Progress {
        // Acquire: pairs with `is_thread`.
        // SAFETY: null, or a count that goes with this.
        let looks = unsafe { self.looks.load(Acquire).as_ref() };
        // Acquire: pairs with `note`.
        let first = self.first.load(Acquire);
        // Relaxed, all: as above, or numbers for people.
        let polls = self.polls.load(Relaxed);
        let beside = self.beside.load(Relaxed);
        let begun = polls.div_ceil(2) + beside / BESIDE;
        let told = match looks {
            Some(looks) => looks.told(),
            None if first == 0 => Told::default(),
            None => Told {
                // The poll that has said so may not have been counted yet.
                times: begun.saturating_sub(self.before.load(Relaxed)).max(1),
                first: looks::at(first),
                last: looks::at(self.last.load(Relaxed)),
            },
        };
        Progress {
            work: match self.work.load(Relaxed) {
                FUTURE => Work::Future,
                THREAD => Work::Thread,
                _ => Work::Held,
            },
            polls: begun,
            is_polling: polls % 2 == 1 || beside % BESIDE != 0,
            since_cancel: self.is_told(is_done).then_some(SinceCancel {
                times: told.times,
                first: told.first,
                last: told.last,
            }),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Relaxed: whoever drops it has acquired what the task did, with the place's word.
        let looks = self.looks.load(Relaxed);
        if !looks.is_null() {
            // SAFETY: of `into_raw`, in `is_thread`.
            drop(unsafe { Arc::from_raw(looks) });
        }
        let own = self.own.load(Relaxed);
        if !own.is_null() {
            // SAFETY: of `into_raw`, in `is_told_by`.
            drop(unsafe { CancellationToken::from_raw(own) });
        }
    }
}
