//! Contexts that have a name: what is known of each, for the question what does not stop.

use super::looks;
use super::observe::{self, Event};
use super::origin::Origin;
use super::registry::{Key, Number, Registry};
use crate::sync::{
    thread, Acquire, Arc, AtomicPtr, AtomicU64, AtomicU8, Panics, Relaxed, Release, UnsafeCell,
};
use crate::token::{CancellationToken, Registration, StopOnDrop};
use crate::tree::{Cause, ContextError, TokenId};
use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::string::String;
use core::panic::Location;
use core::ptr;
use std::time::Instant;

crate::sync::global! {
    static NAMES: Registry<Named> = Registry::new();
}

/// What a record stands for.
pub(crate) struct Named {
    pub(crate) name: Cow<'static, str>,
    pub(crate) at: &'static Location<'static>,
    pub(crate) since: Instant,
    /// None: never done.
    pub(crate) token: Option<CancellationToken>,
    /// The name that it was made below.
    pub(crate) above: Option<Number>,
    pub(crate) note: Note,
}

impl Drop for Named {
    fn drop(&mut self) {
        self.note.end(self.token.as_ref());
    }
}

/// The record of a context, which ends when that, and all that is derived from it, is gone.
pub(crate) struct Record {
    key: Key<Named>,
    number: Number,
    /// The name's own token, and who knows how that came to be done.
    own: Option<(TokenId, Origin)>,
}

impl Record {
    pub(crate) fn new(
        name: Cow<'static, str>,
        at: &'static Location<'static>,
        token: Option<CancellationToken>,
        deadline: Option<Instant>,
        above: Option<Number>,
    ) -> Record {
        let key = NAMES.claim();
        let number = NAMES.number(&key);
        let about = About {
            is_group: false,
            name: Some(name.clone()),
            at,
            deadline,
        };
        let named = Named {
            name,
            at,
            since: Instant::now(),
            note: Note::of(token.as_ref(), about),
            token,
            above,
        };
        NAMES.put(&key, Box::new(named));
        Record {
            key,
            number,
            own: None,
        }
    }

    pub(super) fn with_own(mut self, token: TokenId, origin: Origin) -> Record {
        self.own = Some((token, origin));
        self
    }

    /// Who knows how the token came to be done, if that is the name's own.
    pub(super) fn origin(&self, token: TokenId) -> Option<Origin> {
        self.own
            .filter(|(own, _)| *own == token)
            .map(|(_, origin)| origin)
    }

    pub(crate) fn number(&self) -> Number {
        self.number
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // User code, perhaps: its token may have the last handle of a cause.
        drop(NAMES.end(self.key));
    }
}

/// Reads all names that are there: no user code in `read`.
pub(crate) fn each(panics: &mut Panics, read: impl FnMut(Number, &Named)) {
    NAMES.each_with(panics, read);
}

/// When something was cancelled, and on which thread.
pub(crate) struct Note {
    noted: Arc<Noted>,
    /// None: it is never done, or was when it was made.
    registration: Option<StopOnDrop>,
}

/// What is said of it beside that.
pub(crate) struct About {
    pub(crate) is_group: bool,
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) at: &'static Location<'static>,
    /// Its deadline, if that does not move and is no test's.
    pub(crate) deadline: Option<Instant>,
}

struct Noted {
    about: About,
    /// As the clock counts, and not 0; or 0. Set once, by whoever comes first: the callback, or a task that has found out.
    at: AtomicU64,
    /// A thread's name, or null. In a cell, so that models see whether who reads it has acquired it.
    by: AtomicPtr<UnsafeCell<String>>,
    birth: AtomicU8,
    /// The thread that registers it.
    maker: usize,
}

/// Being registered: a thread that runs the callback now has not cancelled.
const NEW: u8 = 0;
/// That was so: it was done before.
const BORN_DONE: u8 = 1;
const MADE: u8 = 2;

impl Note {
    pub(crate) fn of(token: Option<&CancellationToken>, about: About) -> Note {
        let noted = Arc::new(Noted {
            about,
            at: AtomicU64::new(0),
            by: AtomicPtr::new(ptr::null_mut()),
            birth: AtomicU8::new(NEW),
            maker: thread::number(),
        });
        let token = token.filter(|token| !token.is_cancelled());
        let registration = token.map(|token| {
            let noted = noted.clone();
            let note = move |cause| noted.note(&cause);
            Registration::with_cause(token.handle(), note).stop_on_drop()
        });
        // Relaxed, both: written and read by this thread alone, but for a look that finds another maker.
        let registration = registration.filter(|_| noted.birth.load(Relaxed) == NEW);
        noted.birth.store(MADE, Relaxed);
        Note {
            noted,
            registration,
        }
    }

    pub(crate) fn at(&self) -> Option<Instant> {
        // Acquire: pairs with `note`, which says by whom before.
        looks::at(self.noted.at.load(Acquire))
    }

    /// For a thread that has found that it is done: since when, and that is now if nobody has said so before. (The callback comes
    /// after all wake-ups, so what is woken may be faster.) None: it was done when it was made.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.registration.as_ref()?;
        // Relaxed: only the time is asked.
        let at = self.noted.at.load(Relaxed);
        looks::at(if at == 0 { self.noted.set() } else { at })
    }

    /// After `at` has said when.
    pub(crate) fn by(&self) -> Option<String> {
        // Acquire: pairs with `note`, which may come after who said when.
        // SAFETY: null, or of a Box that goes with this.
        let by = unsafe { self.noted.by.load(Acquire).as_ref() }?;
        // SAFETY: written before it was shared.
        Some(by.with(|name| unsafe { (*name).clone() }))
    }

    /// What it is of is let go. If that is done, and was let go by something that was woken, before the canceller has come to the
    /// callback, it is told here: user code.
    pub(crate) fn end(&mut self, token: Option<&CancellationToken>) {
        let registration = self.registration.take();
        let was_missed = registration.is_some_and(|callback| callback.disarm().stop());
        if was_missed && observe::is_observed() {
            if let Some(cause) = token.and_then(CancellationToken::cause) {
                self.noted.tell(&cause);
            }
        }
    }
}

impl Noted {
    /// On the thread that cancels, once.
    fn note(&self, cause: &Cause) {
        // Relaxed, both: the thread that asks, if it is that one, writes it and reads it alone.
        if self.maker == thread::number() && self.birth.load(Relaxed) != MADE {
            self.birth.store(BORN_DONE, Relaxed);
            return;
        }
        // It panics on a thread whose locals are gone, as in a destructor of the system's. Then there is no name. (The panic hook is told
        // of it, and a program that aborts at panics ends.)
        let name = || std::thread::current().name().map(ToOwned::to_owned);
        if let Ok(Some(name)) = std::panic::catch_unwind(name) {
            let name = Box::new(UnsafeCell::new(name));
            // Release: pairs with `Note::by`.
            self.by.store(Box::into_raw(name), Release);
        }
        self.set();
        self.tell(cause);
    }

    /// Now, unless somebody was here before: what is there.
    fn set(&self) -> u64 {
        let now = looks::now();
        // Release: pairs with `Note::at`. Relaxed: only the time is asked.
        match self.at.compare_exchange(0, now, Release, Relaxed) {
            Ok(_) => now,
            Err(before) => before,
        }
    }

    fn tell(&self, cause: &Cause) {
        if observe::is_observed() {
            let about = &self.about;
            let deadline = about.deadline;
            let deadline = deadline.filter(|_| cause.kind() == ContextError::DeadlineExceeded);
            observe::tell(&Event::Done {
                is_group: about.is_group,
                name: about.name.as_deref(),
                at: about.at,
                cause,
                // Not if another one above has passed, which was said to be later.
                late: deadline.and_then(|at| Instant::now().checked_duration_since(at)),
            });
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // Relaxed: nobody else has it.
        let by = self.by.load(Relaxed);
        if !by.is_null() {
            // SAFETY: made by `note`, once.
            drop(unsafe { Box::from_raw(by) });
        }
    }
}
