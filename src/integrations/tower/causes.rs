//! Why a request's context ended, as types: to be found by `Cause::downcast_ref`.

use crate::tree::Cause;
use core::error::Error;
use core::fmt;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name;

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($text)
            }
        }

        impl Error for $name {}

        impl From<$name> for Cause {
            fn from(cause: $name) -> Cause {
                Cause::new(cause)
            }
        }
    )*};
}

causes! {
    /// The response has been taken to its end; what was started for the request is no longer needed.
    Completed: "the response is complete",
    /// The response, or its body, was dropped before its end: the client has gone.
    ClientGone: "the client is gone",
    /// The handler panicked, or the service or the response's body failed.
    HandlerFailed: "the handler failed",
}
