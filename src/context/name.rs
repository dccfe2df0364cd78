//! Contexts that have a name: what is known of each, for the question what does not stop.

use super::looks;
use super::observe::{self, Event};
use super::origin::Origin;
use super::registry::{Key, Number, Registry};
use crate::sync::{
    thread, Acquire, Arc, AtomicBool, AtomicPtr, AtomicU64, Panics, Relaxed, Release,
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
    _registration: Option<StopOnDrop>,
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
    /// As the clock counts, and not 0; or 0.
    at: AtomicU64,
    /// A thread's name, or null.
    by: AtomicPtr<String>,
    /// Being registered: a thread that runs the callback now has not cancelled.
    is_new: AtomicBool,
    /// The thread that does that.
    maker: usize,
}

impl Note {
    pub(crate) fn of(token: Option<&CancellationToken>, about: About) -> Note {
        let noted = Arc::new(Noted {
            about,
            at: AtomicU64::new(0),
            by: AtomicPtr::new(ptr::null_mut()),
            is_new: AtomicBool::new(true),
            maker: thread::number(),
        });
        let token = token.filter(|token| !token.is_cancelled());
        let registration = token.map(|token| {
            let noted = noted.clone();
            let note = move |cause| noted.note(&cause);
            Registration::with_cause(token.handle(), note).stop_on_drop()
        });
        // Relaxed: read by this thread alone.
        noted.is_new.store(false, Relaxed);
        Note {
            noted,
            _registration: registration,
        }
    }

    pub(crate) fn at(&self) -> Option<Instant> {
        // Acquire: pairs with `note`.
        looks::at(self.noted.at.load(Acquire))
    }

    /// After `at` has said when.
    pub(crate) fn by(&self) -> Option<String> {
        // SAFETY: null, or of a Box that goes with this. Relaxed: acquired with `at`.
        unsafe { self.noted.by.load(Relaxed).as_ref() }.cloned()
    }
}

impl Noted {
    /// On the thread that cancels, once.
    fn note(&self, cause: &Cause) {
        // Relaxed: written by the thread that asks, if it is that one.
        if self.maker == thread::number() && self.is_new.load(Relaxed) {
            return;
        }
        if let Some(name) = std::thread::current().name() {
            // Relaxed: released by the store of `at`.
            self.by
                .store(Box::into_raw(Box::new(name.to_owned())), Relaxed);
        }
        // Release: pairs with `Note::at`.
        self.at.store(looks::now(), Release);
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
