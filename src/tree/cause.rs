//! Why a token was cancelled.

use crate::sync::{Arc, OfUser};
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
// The user's, which no model knows.
#[cfg(target_has_atomic = "ptr")]
use alloc::sync::Arc as UserArc;
use core::any::type_name;
use core::error::Error;
use core::{fmt, iter};

/// The two kinds of cancellation, as in Go: `context.Canceled` and `context.DeadlineExceeded`.
///
/// ```
/// use cancel_tree::ContextError;
/// assert_eq!(ContextError::Cancelled.to_string(), "context cancelled");
/// assert_eq!(ContextError::DeadlineExceeded.to_string(), "context deadline exceeded");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextError {
    /// It was asked for.
    Cancelled,
    /// The deadline passed.
    DeadlineExceeded,
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ContextError::Cancelled => "context cancelled",
            ContextError::DeadlineExceeded => "context deadline exceeded",
        })
    }
}

impl Error for ContextError {}

/// The cause that the drop of a guard gives: a [`CancelGuard`](crate::CancelGuard), a [`DropGuard`](crate::DropGuard) or a
/// [`DropGuardRef`](crate::DropGuardRef) went out of scope, and no cancel had come before.
///
/// It tells the end of a scope from an explicit cancel, and shows in the log where a guard was dropped too early, or
/// was never kept. Its kind is [`ContextError::Cancelled`].
/// [`CancelGuard::cause_on_drop`](crate::CancelGuard::cause_on_drop) gives another cause.
///
/// ```
/// use cancel_tree::{Context, ContextError, GuardDropped};
///
/// let (ctx, guard) = Context::background().with_cancel();
/// drop(guard);
/// let cause = ctx.cause().unwrap();
/// assert!(cause.downcast_ref::<GuardDropped>().is_some());
/// assert_eq!(cause.kind(), ContextError::Cancelled);
/// assert_eq!(cause.to_string(), "context cancelled: guard dropped");
///
/// let (ctx, guard) = Context::background().with_cancel();
/// guard.cancel();
/// assert!(ctx.cause().unwrap().downcast_ref::<GuardDropped>().is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuardDropped;

impl fmt::Display for GuardDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("context cancelled: guard dropped")
    }
}

impl Error for GuardDropped {}

/// What is behind the pointer of a custom cause.
///
/// The alignment keeps the low bits of the pointer free: the tree keeps tags there.
#[repr(align(8))]
pub(crate) struct Custom {
    error: OfUser<Box<dyn Error + Send + Sync>>,
}

/// The reason of a cancellation: one of the two kinds, or an error of the caller's choice
/// that still has a kind.
///
/// Cheap to clone: one reference count for a custom error, nothing for a bare kind. The
/// counterpart of the causes of Go's `context.WithCancelCause`.
///
/// ```
/// use cancel_tree::{CancellationToken, Cause, ContextError};
///
/// let token = CancellationToken::new();
/// assert!(token.cause().is_none());
/// assert!(token.cancel_with("the page was closed"));
/// let cause = token.cause().unwrap();
/// assert_eq!(cause.to_string(), "the page was closed");
/// assert_eq!(cause.kind(), ContextError::Cancelled);
///
/// let plain = CancellationToken::new();
/// plain.cancel();
/// assert_eq!(plain.cause().unwrap().to_string(), "context cancelled");
/// ```
///
/// # The kind stays
///
/// A [`ContextError`], a [`GuardDropped`] or a `Cause` that comes back from elsewhere, boxed, shared, inside an
/// `io::Error` or as the [source](Error::source) of another error, keeps its kind: the
/// first one that is found decides, as Go's `errors.Is(err, context.DeadlineExceeded)` finds it.
/// Timeouts of other crates, such as `io::ErrorKind::TimedOut`, do not set the kind.
/// [`with_kind`](Cause::with_kind) decides for itself.
///
/// ```
/// use cancel_tree::{Cause, ContextError};
/// use std::error::Error;
///
/// fn backend() -> Result<(), Box<dyn Error + Send + Sync>> {
///     Err(ContextError::DeadlineExceeded)?
/// }
/// fn handler() -> Result<(), Cause> {
///     Ok(backend()?)
/// }
/// let status = match handler().unwrap_err().kind() {
///     ContextError::DeadlineExceeded => 504,
///     ContextError::Cancelled => 499,
/// };
/// assert_eq!(status, 504);
/// ```
///
/// # As an error
///
/// A cause displays as the error inside does, and names that error as its
/// [`source`](Error::source), so that a walk of the sources finds it; a text and a bare kind have nothing
/// to find and no source. Whatever prints an error and then its sources, such as anyhow's `{:#}`, prints the text of
/// a custom error twice; where that matters, pass it [`error()`](Cause::error).
///
/// [`downcast_ref`](Cause::downcast_ref) looks at the error inside,
/// [`find`](Cause::find) at its sources too.
///
/// # With `?`
///
/// In a function that returns `Result<_, Cause>`, `?` takes a [`ContextError`], a
/// `Box<dyn Error + Send + Sync>`, `io::Error` and the other usual errors of the standard library. For other errors
/// write `.map_err(Cause::new)?`, or, once for an error type of your own, `impl From<NotFound> for Cause` by
/// `Cause::new(error)`.
///
/// ```
/// use cancel_tree::{Cause, Context};
///
/// #[derive(Debug)]
/// struct NotFound(String);
/// impl std::fmt::Display for NotFound {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         write!(f, "there is no {}", self.0)
///     }
/// }
/// impl std::error::Error for NotFound {}
///
/// fn look_up(name: &str) -> Result<&'static str, NotFound> {
///     if name == "limit" { Ok("50") } else { Err(NotFound(name.into())) }
/// }
/// fn setting(ctx: &Context, name: &str) -> Result<u32, Cause> {
///     ctx.check()?;                                        // ContextError
///     let text = look_up(name).map_err(Cause::new)?;       // an error of one's own
///     Ok(text.parse()?)                                    // ParseIntError
/// }
///
/// let ctx = Context::background();
/// assert_eq!(setting(&ctx, "limit").unwrap(), 50);
/// let cause = setting(&ctx, "colour").unwrap_err();
/// assert_eq!(cause.downcast_ref::<NotFound>().unwrap().0, "colour");
/// ```
///
/// # With anyhow
///
/// `anyhow::Error` hides the error it was made from behind `Box<dyn Error>`: a plain `Cause::new(error)` finds
/// what has been given a context (`.context("asking the backend")`), and not what has none, neither the error
/// nor its kind. This finds both:
///
/// ```
/// use cancel_tree::{Cause, ContextError};
/// let error = anyhow::Error::new(ContextError::DeadlineExceeded);
/// let cause = Cause::new(error.reallocate_into_boxed_dyn_error_without_backtrace());
/// assert_eq!(cause.kind(), ContextError::DeadlineExceeded);
/// ```
///
/// The other way, `anyhow::Error::new(cause)` is found by `downcast_ref::<Cause>()`, and what is in it by
/// [`find`](Cause::find) on that, or among `chain()`.
#[derive(Clone)]
pub struct Cause(Inner);

/// What a state word can say by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bare {
    Kind(ContextError),
    GuardDropped,
}

impl Bare {
    fn kind(self) -> ContextError {
        match self {
            Bare::Kind(kind) => kind,
            Bare::GuardDropped => ContextError::Cancelled,
        }
    }

    /// If this very error is one.
    fn of(error: &AnyError) -> Option<Bare> {
        if at::<GuardDropped>(error).is_some() {
            return Some(Bare::GuardDropped);
        }
        at::<ContextError>(error).copied().map(Bare::Kind)
    }
}

#[derive(Clone)]
enum Inner {
    Bare(Bare),
    Custom(ContextError, Arc<Custom>),
}

impl Cause {
    /// Creates a cause that carries `error`.
    ///
    /// It is of kind [`ContextError::Cancelled`], unless `error` or one of its sources is a [`ContextError`] or a
    /// `Cause`: then [of that one's kind](Cause#the-kind-stays). A `Cause` in a box is the same cause again, and a
    /// `ContextError` the bare kind.
    ///
    /// ```
    /// use cancel_tree::{Cause, ContextError};
    /// use std::error::Error;
    ///
    /// let cause = Cause::new(std::io::Error::other("disk on fire"));
    /// assert!(cause.downcast_ref::<std::io::Error>().is_some());
    /// assert_eq!(cause.kind(), ContextError::Cancelled);
    ///
    /// let late: Box<dyn Error + Send + Sync> = ContextError::DeadlineExceeded.into();
    /// assert_eq!(Cause::new(late).kind(), ContextError::DeadlineExceeded);
    /// ```
    #[must_use]
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Cause {
        Cause::of(None, error)
    }

    /// Creates a cause of the given kind that carries `error`, whatever that is.
    ///
    /// ```
    /// use cancel_tree::{Cause, ContextError};
    /// let cause = Cause::with_kind(ContextError::DeadlineExceeded, "backend too slow");
    /// assert_eq!(cause.kind(), ContextError::DeadlineExceeded);
    ///
    /// // A deadline of another passed; here that is a reason to stop, and no deadline.
    /// let theirs = Cause::with_kind(ContextError::Cancelled, ContextError::DeadlineExceeded);
    /// assert_eq!(theirs.kind(), ContextError::Cancelled);
    /// assert_eq!(theirs.to_string(), "context deadline exceeded");
    /// ```
    #[must_use]
    pub fn with_kind(kind: ContextError, error: impl Into<Box<dyn Error + Send + Sync>>) -> Cause {
        Cause::of(Some(kind), error)
    }

    fn of(kind: Option<ContextError>, error: impl Into<Box<dyn Error + Send + Sync>>) -> Cause {
        let is_text = is_text(&error);
        // From here on it is the user's, should one of its methods panic.
        let error = OfUser::new(error.into());
        if is_text {
            let text = Message(Cow::Owned(error.to_string()));
            return Cause::custom(kind.unwrap_or(ContextError::Cancelled), text);
        }
        // What is a cause already is not wrapped again.
        let known = match at::<Cause>(&**error) {
            Some(cause) => Some(cause.0.clone()),
            None => Bare::of(&**error).map(Inner::Bare),
        };
        match (known, kind) {
            (Some(same), None) => Cause(same),
            (Some(Inner::Custom(_, error)), Some(kind)) => Cause(Inner::Custom(kind, error)),
            (Some(Inner::Bare(bare)), Some(kind)) => Cause::of_bare(bare, kind),
            (None, kind) => {
                let kind = kind
                    .or_else(|| kind_in(&**error))
                    .unwrap_or(ContextError::Cancelled);
                Cause(Inner::Custom(kind, Arc::new(Custom { error })))
            }
        }
    }

    fn of_bare(bare: Bare, kind: ContextError) -> Cause {
        match bare {
            _ if bare.kind() == kind => Cause(Inner::Bare(bare)),
            Bare::Kind(other) => Cause::custom(kind, other),
            Bare::GuardDropped => Cause::custom(kind, GuardDropped),
        }
    }

    /// Of an error that is no cause.
    fn custom(kind: ContextError, error: impl Error + Send + Sync + 'static) -> Cause {
        let error = OfUser::new(error.into());
        Cause(Inner::Custom(kind, Arc::new(Custom { error })))
    }

    /// The same error as a cause of the other kind: what a deadline's cause becomes.
    #[cfg(feature = "std")]
    pub(crate) fn of_kind(self, kind: ContextError) -> Cause {
        match self.0 {
            Inner::Bare(Bare::Kind(_)) => kind.into(),
            Inner::Bare(bare) => Cause::of_bare(bare, kind),
            Inner::Custom(_, error) => Cause(Inner::Custom(kind, error)),
        }
    }

    /// Returns which of the two kinds of cancellation this is; every cause answers to one.
    ///
    /// To compare, there is `cause == ContextError::DeadlineExceeded` too: it asks for the kind, whatever
    /// the error inside.
    ///
    /// ```
    /// use cancel_tree::{Cause, ContextError};
    /// let cause = Cause::with_kind(ContextError::DeadlineExceeded, "backend too slow");
    /// assert_eq!(cause.kind(), ContextError::DeadlineExceeded);
    /// assert!(cause == ContextError::DeadlineExceeded && cause != ContextError::Cancelled);
    /// ```
    #[doc(alias = "errors.Is")]
    #[must_use]
    pub fn kind(&self) -> ContextError {
        match &self.0 {
            Inner::Bare(bare) => bare.kind(),
            Inner::Custom(kind, _) => *kind,
        }
    }

    /// Returns the error inside. That of a bare kind is the [`ContextError`].
    ///
    /// ```
    /// use cancel_tree::Cause;
    /// let cause = Cause::new(std::io::Error::other("disk on fire"));
    /// assert!(cause.error().is::<std::io::Error>());
    /// ```
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        match &self.0 {
            Inner::Bare(Bare::Kind(kind)) => kind,
            Inner::Bare(Bare::GuardDropped) => &GuardDropped,
            Inner::Custom(_, custom) => &**custom.error,
        }
    }

    /// Returns the error inside if it is an `E`. A bare kind is a [`ContextError`].
    ///
    /// An `E` in a `Box<E>`, an `Arc<E>`, an `Arc<dyn Error + Send + Sync>` or another `Cause` is one too.
    /// [`find`](Cause::find) looks into sources as well. [With anyhow](Cause#with-anyhow) it takes another step.
    ///
    /// ```
    /// use cancel_tree::{CancellationToken, ContextError};
    /// let token = CancellationToken::new();
    /// token.cancel();
    /// let cause = token.cause().unwrap();
    /// assert_eq!(cause.downcast_ref::<ContextError>(), Some(&ContextError::Cancelled));
    /// ```
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        follow(self.error(), inside).find_map(at)
    }

    /// Whether it is nothing but `own`, or a bare kind, handed back: itself, or as what it names as its source.
    #[cfg(feature = "std")]
    pub(crate) fn echoes(&self, own: &Cause) -> bool {
        let is_own = |cause: &Cause| match (&cause.0, &own.0) {
            (Inner::Bare(_), _) => true,
            (Inner::Custom(_, a), Inner::Custom(_, b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if is_own(self) {
            return true;
        }
        follow(self.error(), next)
            .any(|inner| Bare::of(inner).is_some() || inner.downcast_ref().is_some_and(is_own))
    }

    /// Returns the first `E` among the error inside and its [sources](Error::source): Go's `errors.As`.
    ///
    /// Each is looked at as [`downcast_ref`](Cause::downcast_ref) does; of an `io::Error` what it was made from,
    /// which its `source()` leaves out, is looked at as well. Sources that go in circles end after a thousand.
    ///
    /// ```
    /// use cancel_tree::Cause;
    /// use std::io;
    ///
    /// let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    /// let error = anyhow::Error::new(reset).context("asking backend 3");
    /// let cause = Cause::new(error);
    /// assert_eq!(cause.to_string(), "asking backend 3");
    /// let found = cause.find::<io::Error>().unwrap();
    /// assert_eq!(found.kind(), io::ErrorKind::ConnectionReset);
    /// ```
    #[doc(alias("As", "errors.As", "downcast"))]
    #[must_use]
    pub fn find<E: Error + 'static>(&self) -> Option<&E> {
        follow(self.error(), next).find_map(at)
    }

    /// For the tree: the counted pointer of a custom cause, or what a flag can say.
    pub(crate) fn into_raw(self) -> Result<*const Custom, Bare> {
        match self.0 {
            Inner::Bare(bare) => Err(bare),
            Inner::Custom(_, custom) => Ok(Arc::into_raw(custom)),
        }
    }

    /// # Safety
    /// `raw` came from `into_raw`, and the count that it stands for passes to the result.
    pub(crate) unsafe fn from_raw(raw: *const Custom, kind: ContextError) -> Cause {
        // SAFETY: the caller's promise.
        Cause(Inner::Custom(kind, unsafe { Arc::from_raw(raw) }))
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Bare(Bare::Kind(kind)) => f.debug_tuple("Cause").field(kind).finish(),
            Inner::Bare(Bare::GuardDropped) => f.debug_tuple("Cause").field(&GuardDropped).finish(),
            Inner::Custom(kind, custom) => f
                .debug_struct("Cause")
                .field("kind", kind)
                .field("error", &*custom.error)
                .finish(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.error(), f)
    }
}

impl Error for Cause {
    /// The error inside, unless that is a text or a bare kind, which [`Display`](fmt::Display) shows in full.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Inner::Bare(_) => None,
            // Through an `Arc<dyn Error>`: behind that it would be found by nobody.
            Inner::Custom(_, custom) => follow(&**custom.error, inside)
                .last()
                .filter(|error| !error.is::<Message>()),
        }
    }
}

/// By the kind: whether this is a cause of that kind, with an error of its own or without.
impl PartialEq<ContextError> for Cause {
    fn eq(&self, kind: &ContextError) -> bool {
        self.kind() == *kind
    }
}

/// By the kind, as the other way round.
impl PartialEq<Cause> for ContextError {
    fn eq(&self, cause: &Cause) -> bool {
        *self == cause.kind()
    }
}

impl From<ContextError> for Cause {
    fn from(kind: ContextError) -> Cause {
        Cause(Inner::Bare(Bare::Kind(kind)))
    }
}

impl From<GuardDropped> for Cause {
    fn from(_: GuardDropped) -> Cause {
        Cause(Inner::Bare(Bare::GuardDropped))
    }
}

impl From<&'static str> for Cause {
    fn from(text: &'static str) -> Cause {
        Cause::custom(ContextError::Cancelled, Message(Cow::Borrowed(text)))
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Cause {
        Cause::custom(ContextError::Cancelled, Message(Cow::Owned(text)))
    }
}

// A cause only hands out shared references to its error, and a panic that unwinds through
// code that holds one leaves it as it was.
impl core::panic::UnwindSafe for Cause {}
impl core::panic::RefUnwindSafe for Cause {}

/// A text as an error.
struct Message(Cow<'static, str>);

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Message {}

/// Whether std would make of this an error that nobody can name, for it is no more than its text: there is
/// nothing to find in it, so it need not be a source. (The name, for a borrowed text has no `TypeId`. A
/// type that had the name of a text and were none would lose its source, and no more.)
fn is_text<T>(_: &T) -> bool {
    let texts = [
        type_name::<&str>(),
        type_name::<String>(),
        type_name::<Cow<'_, str>>(),
    ];
    texts.contains(&type_name::<T>())
}

type AnyError = dyn Error + 'static;

/// This very error as an `E`, also behind a pointer. A pointer to an error is an error whose `source` is
/// that of what it points to: what it points to is in no chain.
fn at<E: Error + 'static>(error: &AnyError) -> Option<&E> {
    if let Some(boxed) = error.downcast_ref::<Box<E>>() {
        return Some(boxed);
    }
    #[cfg(target_has_atomic = "ptr")]
    if let Some(shared) = error.downcast_ref::<UserArc<E>>() {
        return Some(shared);
    }
    error.downcast_ref()
}

/// What an error is that is only another way to hold it.
fn inside(error: &AnyError) -> Option<&AnyError> {
    #[cfg(target_has_atomic = "ptr")]
    if let Some(shared) = error.downcast_ref::<UserArc<dyn Error + Send + Sync>>() {
        return Some(&**shared);
    }
    at::<Cause>(error).map(|cause| cause.error() as &AnyError)
}

/// The next error of a chain.
fn next(error: &AnyError) -> Option<&AnyError> {
    if let Some(same) = inside(error) {
        return Some(same);
    }
    // Its `source` is that of what it was made from.
    #[cfg(feature = "std")]
    if let Some(from) = at::<std::io::Error>(error).and_then(std::io::Error::get_ref) {
        return Some(from);
    }
    error.source()
}

/// An error and what comes after it. An end that no honest chain reaches, for one may be a circle.
fn follow<'a>(
    error: &'a AnyError,
    next: fn(&'a AnyError) -> Option<&'a AnyError>,
) -> impl Iterator<Item = &'a AnyError> {
    iter::successors(Some(error), move |error| next(*error)).take(1000)
}

/// The kind of the first in a chain that has one.
fn kind_in(error: &AnyError) -> Option<ContextError> {
    follow(error, next).find_map(|error| match Bare::of(error) {
        Some(bare) => Some(bare.kind()),
        None => at::<Cause>(error).map(Cause::kind),
    })
}
