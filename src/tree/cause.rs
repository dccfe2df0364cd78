//! Why a token was cancelled.

use crate::sync::{Arc, OfUser};
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::error::Error;
use core::fmt;

/// The two kinds of cancellation, as in Go: `context.Canceled` and `context.DeadlineExceeded`.
///
/// ```
/// use cancel_tree::ContextError;
/// assert_eq!(ContextError::Cancelled.to_string(), "context cancelled");
/// assert_eq!(ContextError::DeadlineExceeded.to_string(), "context deadline exceeded");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextError {
    /// Somebody asked for it.
    Cancelled,
    /// Time ran out.
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

/// What is behind the pointer of a custom cause.
///
/// The alignment keeps the low bits of the pointer free: the tree keeps tags there.
#[repr(align(8))]
pub(crate) struct Custom {
    error: OfUser<Box<dyn Error + Send + Sync>>,
}

/// The reason of a cancellation: one of the two kinds, or an error of the caller's choice
/// which still answers to its kind.
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
#[derive(Clone)]
pub struct Cause(Inner);

#[derive(Clone)]
enum Inner {
    Kind(ContextError),
    Custom(ContextError, Arc<Custom>),
}

impl Cause {
    /// A cause of kind [`ContextError::Cancelled`] that carries `error`.
    ///
    /// ```
    /// use cancel_tree::Cause;
    /// let cause = Cause::new(std::io::Error::other("disk on fire"));
    /// assert!(cause.downcast_ref::<std::io::Error>().is_some());
    /// ```
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Cause {
        Cause::with_kind(ContextError::Cancelled, error)
    }

    /// A cause of the given kind that carries `error`.
    ///
    /// ```
    /// use cancel_tree::{Cause, ContextError};
    /// let cause = Cause::with_kind(ContextError::DeadlineExceeded, "backend too slow");
    /// assert_eq!(cause.kind(), ContextError::DeadlineExceeded);
    /// ```
    pub fn with_kind(kind: ContextError, error: impl Into<Box<dyn Error + Send + Sync>>) -> Cause {
        let error = OfUser::new(error.into());
        Cause(Inner::Custom(kind, Arc::new(Custom { error })))
    }

    /// The same error as a cause of the other kind: what a deadline's cause becomes.
    #[cfg(feature = "std")]
    pub(crate) fn of_kind(mut self, kind: ContextError) -> Cause {
        let (Inner::Kind(own) | Inner::Custom(own, _)) = &mut self.0;
        *own = kind;
        self
    }

    /// Which of the two kinds of cancellation this is; every cause answers to one.
    pub fn kind(&self) -> ContextError {
        match &self.0 {
            Inner::Kind(kind) | Inner::Custom(kind, _) => *kind,
        }
    }

    /// The error inside, if it is an `E`. A bare kind is a [`ContextError`].
    ///
    /// ```
    /// use cancel_tree::{CancellationToken, ContextError};
    /// let token = CancellationToken::new();
    /// token.cancel();
    /// let cause = token.cause().unwrap();
    /// assert_eq!(cause.downcast_ref::<ContextError>(), Some(&ContextError::Cancelled));
    /// ```
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error().downcast_ref()
    }

    /// Whether it is nothing but `own`, or a bare kind, handed back: itself, or as what it names as its source.
    #[cfg(feature = "std")]
    pub(crate) fn echoes(&self, own: &Cause) -> bool {
        let is_own = |cause: &Cause| match (&cause.0, &own.0) {
            (Inner::Kind(_), _) => true,
            (Inner::Custom(_, a), Inner::Custom(_, b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if is_own(self) {
            return true;
        }
        let mut error = Some(self.error());
        while let Some(inner) = error {
            if inner.is::<ContextError>() || inner.downcast_ref().is_some_and(is_own) {
                return true;
            }
            error = inner.source();
        }
        false
    }

    fn error(&self) -> &(dyn Error + 'static) {
        match &self.0 {
            Inner::Kind(kind) => kind,
            Inner::Custom(_, custom) => &**custom.error,
        }
    }

    /// For the tree: the counted pointer of a custom cause, or the bare kind.
    pub(crate) fn into_raw(self) -> Result<*const Custom, ContextError> {
        match self.0 {
            Inner::Kind(kind) => Err(kind),
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
            Inner::Kind(kind) => f.debug_tuple("Cause").field(kind).finish(),
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
    /// What the error inside names as its source.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error().source()
    }
}

impl From<ContextError> for Cause {
    fn from(kind: ContextError) -> Cause {
        Cause(Inner::Kind(kind))
    }
}

impl From<&'static str> for Cause {
    fn from(text: &'static str) -> Cause {
        Cause::new(Message(Cow::Borrowed(text)))
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Cause {
        Cause::new(Message(Cow::Owned(text)))
    }
}

impl From<Box<dyn Error + Send + Sync>> for Cause {
    fn from(error: Box<dyn Error + Send + Sync>) -> Cause {
        Cause::new(error)
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
