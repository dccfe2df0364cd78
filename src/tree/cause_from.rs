//! The errors that `?` takes into a cause, and those it makes of one.
//!
//! A cause is an error itself, so there can be no conversion from every error: it would be a second one from
//! `Cause` to `Cause`.

use super::cause::Cause;
#[cfg(feature = "std")]
use super::cause::ContextError;
use alloc::boxed::Box;
use core::error::Error;

impl From<Box<dyn Error + Send + Sync>> for Cause {
    /// As [`Cause::new`]: a cause or a kind in the box is that again.
    fn from(error: Box<dyn Error + Send + Sync>) -> Cause {
        Cause::new(error)
    }
}

macro_rules! from_errors {
    ($($(#[$when:meta])? $error:ty),* $(,)?) => {$(
        $(#[$when])?
        impl From<$error> for Cause {
            /// As [`Cause::new`].
            fn from(error: $error) -> Cause {
                Cause::new(error)
            }
        }
    )*};
}

from_errors! {
    alloc::collections::TryReserveError,
    alloc::ffi::IntoStringError,
    alloc::ffi::NulError,
    alloc::string::FromUtf16Error,
    alloc::string::FromUtf8Error,
    core::array::TryFromSliceError,
    core::char::CharTryFromError,
    core::char::ParseCharError,
    core::ffi::FromBytesWithNulError,
    core::fmt::Error,
    core::net::AddrParseError,
    core::num::ParseFloatError,
    core::num::ParseIntError,
    core::num::TryFromIntError,
    core::str::ParseBoolError,
    core::str::Utf8Error,
    core::time::TryFromFloatSecsError,
    #[cfg(feature = "std")] std::env::VarError,
    #[cfg(feature = "std")] std::io::Error,
    #[cfg(feature = "std")] std::path::StripPrefixError,
    #[cfg(feature = "std")] std::sync::mpsc::RecvError,
    #[cfg(feature = "std")] std::sync::mpsc::RecvTimeoutError,
    #[cfg(feature = "std")] std::sync::mpsc::TryRecvError,
    #[cfg(feature = "std")] std::thread::AccessError,
    #[cfg(feature = "std")] std::time::SystemTimeError,
}

/// What cannot be sent can be of any type, and need be no error.
#[cfg(feature = "std")]
impl<T: Send + Sync + 'static> From<std::sync::mpsc::SendError<T>> for Cause {
    /// As [`Cause::new`].
    fn from(error: std::sync::mpsc::SendError<T>) -> Cause {
        Cause::new(error)
    }
}

#[cfg(feature = "std")]
fn io_kind(kind: ContextError) -> std::io::ErrorKind {
    match kind {
        ContextError::DeadlineExceeded => std::io::ErrorKind::TimedOut,
        // Not `Interrupted`: `read_exact`, `write_all`, `copy` try those again, for ever.
        ContextError::Cancelled => std::io::ErrorKind::Other,
    }
}

/// For a `Read` or `Write` that ends with its context.
#[cfg(feature = "std")]
impl From<Cause> for std::io::Error {
    /// Of kind `TimedOut` if the deadline passed, else `Other`: `Interrupted` would be tried again.
    /// The cause is inside; made into a cause again it [keeps its kind](Cause#the-kind-stays).
    ///
    /// ```
    /// use cancel_tree::{Cause, ContextError};
    /// use std::io;
    ///
    /// let cause = Cause::with_kind(ContextError::DeadlineExceeded, "the upload took too long");
    /// let error = io::Error::from(cause);
    /// assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    /// assert_eq!(error.to_string(), "the upload took too long");
    /// assert_eq!(Cause::from(error).kind(), ContextError::DeadlineExceeded);
    /// ```
    fn from(cause: Cause) -> std::io::Error {
        std::io::Error::new(io_kind(cause.kind()), cause)
    }
}

/// For a `Read` or `Write` that ends with its context.
#[cfg(feature = "std")]
impl From<ContextError> for std::io::Error {
    /// Of kind `TimedOut` if the deadline passed, else `Other`: `Interrupted` would be tried again.
    ///
    /// ```
    /// use cancel_tree::Context;
    /// use std::io::{self, Read};
    ///
    /// struct Reader<'a, R>(&'a Context, R);
    /// impl<R: Read> Read for Reader<'_, R> {
    ///     fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
    ///         self.0.check()?;
    ///         self.1.read(buf)
    ///     }
    /// }
    ///
    /// let (ctx, _guard) = Context::background().with_timeout(std::time::Duration::ZERO);
    /// let error = io::copy(&mut Reader(&ctx, &b"text"[..]), &mut io::sink()).unwrap_err();
    /// assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    /// ```
    fn from(error: ContextError) -> std::io::Error {
        std::io::Error::new(io_kind(error), error)
    }
}
