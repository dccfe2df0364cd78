//! The cause that the end of a server gives to its requests.

use crate::tree::Cause;
use core::error::Error;
use core::fmt;

/// The server ends. What ends a server hands it to the context that requests are below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown;

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server is shutting down")
    }
}

impl Error for Shutdown {}

impl From<Shutdown> for Cause {
    fn from(cause: Shutdown) -> Cause {
        Cause::new(cause)
    }
}
