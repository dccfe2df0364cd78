//! User code and its panics.

use core::mem::ManuallyDrop;

/// Runs user code so that its panic does not stop what has to be done for others; the first
/// panic is kept and surfaces once, at the end.
#[derive(Default)]
pub(crate) struct Panics {
    #[cfg(feature = "std")]
    first: Option<alloc::boxed::Box<dyn core::any::Any + Send>>,
    /// What was left to others, if this thread runs nothing that may be.
    #[cfg(feature = "inspect")]
    left: Option<alloc::vec::Vec<Left>>,
}

/// User code that somebody has to run.
#[cfg(feature = "inspect")]
type Left = alloc::boxed::Box<dyn FnOnce(&mut Panics) + Send>;

impl Panics {
    /// Takes over those of another, which came earlier.
    #[cfg(feature = "inspect")]
    pub(crate) fn add(&mut self, earlier: Panics) {
        if let Some(payload) = earlier.first {
            if let Some(later) = self.first.replace(payload) {
                drop_payload(later);
            }
        }
        for left in earlier.left.into_iter().flatten() {
            self.leave(left);
        }
    }

    /// For a thread that others' destructors must not hold up: what it is to [leave](Panics::leave) is kept.
    #[cfg(feature = "inspect")]
    pub(crate) fn leaving() -> Panics {
        Panics {
            left: Some(alloc::vec::Vec::new()),
            ..Panics::default()
        }
    }

    /// Another one of the same thread's.
    #[cfg(feature = "inspect")]
    pub(crate) fn beside(&self) -> Panics {
        match self.left {
            Some(_) => Panics::leaving(),
            None => Panics::default(),
        }
    }

    /// Runs user code now, or leaves it to whoever takes it over: what this thread is at does not wait for it.
    #[cfg(feature = "std")]
    pub(crate) fn leave(&mut self, user: impl FnOnce(&mut Panics) + Send + 'static) {
        #[cfg(feature = "inspect")]
        if let Some(left) = &mut self.left {
            return left.push(alloc::boxed::Box::new(user));
        }
        user(self);
    }

    /// The same of what is only dropped.
    #[cfg(feature = "std")]
    pub(crate) fn let_go<T: Send + 'static>(&mut self, value: Option<T>) {
        if let Some(value) = value {
            self.leave(move |panics| panics.catch(|| drop(value)));
        }
    }

    /// What was left: none if that is nothing.
    #[cfg(feature = "inspect")]
    pub(crate) fn take_left(&mut self) -> Option<impl FnOnce(&mut Panics) + Send + 'static> {
        let left = self.left.take().filter(|left| !left.is_empty())?;
        Some(move |panics: &mut Panics| left.into_iter().for_each(|user| user(panics)))
    }

    #[inline]
    pub(crate) fn catch(&mut self, user: impl FnOnce()) {
        #[cfg(feature = "std")]
        {
            use std::panic::{catch_unwind, AssertUnwindSafe};
            // AssertUnwindSafe: no invariant of ours is broken while user code runs, and
            // what the user's own values look like after the panic is seen by the user only.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(user)) {
                if self.first.is_none() {
                    self.first = Some(payload);
                } else {
                    drop_payload(payload);
                }
            }
        }
        #[cfg(not(feature = "std"))]
        user();
    }

    /// Lets nobody know: for a thread that has no caller, or is unwinding already.
    #[cfg(feature = "std")]
    pub(crate) fn swallow(self) {
        if let Some(payload) = self.first {
            drop_payload(payload);
        }
    }

    /// What the first one said, for whoever tells of it in another way.
    #[cfg(feature = "std")]
    pub(crate) fn into_payload(self) -> Option<alloc::boxed::Box<dyn core::any::Any + Send>> {
        self.first
    }

    /// Lets the first panic go on, unless this thread is unwinding already: a second panic
    /// would end the process.
    #[inline]
    pub(crate) fn resume(self) {
        #[cfg(feature = "std")]
        if self.first.is_some() {
            if std::thread::panicking() {
                self.swallow();
            } else if let Some(payload) = self.first {
                std::panic::resume_unwind(payload);
            }
        }
    }
}

/// The payload of a panic is user code too.
#[cfg(feature = "std")]
#[cold]
fn drop_payload(mut payload: alloc::boxed::Box<dyn core::any::Any + Send>) {
    use std::panic::{catch_unwind, AssertUnwindSafe};
    for _ in 0..8 {
        match catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Ok(()) => return,
            Err(worse) => payload = worse,
        }
    }
    // A payload whose drop panics with a payload, and so on: there is no end to it.
    core::mem::forget(payload);
}

/// Runs what has to come to its end, though user code in it may panic. `work` leaves what it has not done to be done by
/// another call. With std `Panics` catches what is thrown, and one call is enough. Without, the second is made while the
/// first one's panic passes by; a panic in that one ends the process.
#[inline(always)]
pub(crate) fn to_the_end(work: impl FnMut()) {
    #[cfg(feature = "std")]
    {
        let mut work = work;
        work();
    }
    #[cfg(not(feature = "std"))]
    {
        struct Again<F: FnMut()>(F);
        impl<F: FnMut()> Drop for Again<F> {
            fn drop(&mut self) {
                (self.0)();
            }
        }
        let mut again = Again(work);
        (again.0)();
        core::mem::forget(again);
    }
}

/// Runs user code that has a caller to tell of its panic: unless this thread is unwinding already, for a
/// second panic would end the process. Then it is swallowed.
#[inline]
pub(crate) fn unless_unwinding(user: impl FnOnce()) {
    #[cfg(feature = "std")]
    if std::thread::panicking() {
        let mut panics = Panics::default();
        panics.catch(user);
        return panics.swallow();
    }
    user();
}

/// Something of the user's, to whose drop applies the same: of several that go one after the other, the first
/// panic goes on and ends nothing.
pub(crate) struct OfUser<T>(ManuallyDrop<T>);

impl<T> OfUser<T> {
    pub(crate) fn new(value: T) -> OfUser<T> {
        OfUser(ManuallyDrop::new(value))
    }

    #[cfg(feature = "std")]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.0
    }

    pub(crate) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped after its only field was moved out.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl<T> Drop for OfUser<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: not used again.
        let value = unsafe { ManuallyDrop::take(&mut self.0) };
        unless_unwinding(|| drop(value));
    }
}

impl<T> core::ops::Deref for OfUser<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> Clone for OfUser<T> {
    fn clone(&self) -> OfUser<T> {
        OfUser(self.0.clone())
    }
}
