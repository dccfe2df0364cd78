//! A descriptor that is readable when a context is done (feature `fd`, unix): for `poll`, `select`, epoll, kqueue, mio, and for
//! libraries in C that have a loop of their own.
//!
//! ```
//! use cancel_tree::Context;
//! use std::os::fd::AsRawFd;
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(5));
//! let done = ctx.done_fd()?;
//! let mut fds = [libc::pollfd { fd: done.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
//! // … and the descriptors that there is something to be had from.
//! # // SAFETY: one entry, as is said.
//! assert_eq!(unsafe { libc::poll(fds.as_mut_ptr(), 1, -1) }, 1);
//! assert!(ctx.is_done());
//! # Ok(())
//! # }
//! ```

use crate::context::Context;
use crate::sync::Arc;
use crate::token::{CancellationToken, Registration, StopOnDrop};
use core::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

#[cfg(any(target_os = "linux", target_os = "android"))]
use event::Event;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use pair::Event;

/// Readable when a context is done; made by [`Context::done_fd`] and [`CancellationToken::done_fd`].
///
/// It stays readable: do not read from it. Dropping it unregisters it and closes the descriptor; if it is being made readable
/// at that moment, it is closed afterwards, so what is done to it never meets another descriptor of its number. Take it
/// out of an epoll set before, as with any descriptor.
///
/// A duplicate (`try_clone_to_owned`) that outlives it is readable on Linux if this was; elsewhere it is readable from then
/// on. A child process made by `fork` without `exec` has the same descriptor: it is readable in both, whichever of
/// the two cancels. It is closed by `exec`.
#[must_use = "dropped at once it is closed at once"]
pub struct DoneFd {
    // Closed by the last owner: the callback is one while it runs.
    event: Arc<Event>,
    _callback: StopOnDrop,
}

impl DoneFd {
    fn new(register: impl FnOnce(Arc<Event>) -> Registration) -> io::Result<DoneFd> {
        let event = Arc::new(Event::new()?);
        Ok(DoneFd {
            _callback: register(event.clone()).stop_on_drop(),
            event,
        })
    }
}

impl AsFd for DoneFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsRawFd for DoneFd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for DoneFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DoneFd").field(&self.as_raw_fd()).finish()
    }
}

/// # For `poll`, epoll, kqueue, mio
impl Context {
    /// Creates a descriptor that is readable once the context is done, before the first callback runs, which may wait for who reads it,
    /// and before the call that cancels it returns: see [`integrations::fd`](crate::integrations::fd).
    ///
    /// One descriptor on Linux (an eventfd), two elsewhere (a pair of sockets). At a deadline it is the timer that makes it
    /// readable: in a child made by `fork`, and where no thread can be had, the loop has to bound its sleep by
    /// [`remaining`](Self::remaining), and ask [`blocking_wait_timeout(Duration::ZERO)`](Self::blocking_wait_timeout) then, which
    /// notices a deadline that has passed. ([`err`](Self::err) does not in a forked child, where the descriptor does not become readable
    /// either.)
    ///
    /// # Errors
    ///
    /// The process or the system has no descriptor left (`EMFILE`, `ENFILE`), or no memory.
    pub fn done_fd(&self) -> io::Result<DoneFd> {
        DoneFd::new(|event| self.on_wake(move || event.fire()))
    }
}

/// # For `poll`, epoll, kqueue, mio
impl CancellationToken {
    /// Creates a descriptor that is readable once the token is cancelled, as [`Context::done_fd`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn done_fd(&self) -> io::Result<DoneFd> {
        DoneFd::new(|event| self.on_wake(move || event.fire()))
    }
}

/// One descriptor, which its duplicates outlive as it was.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod event {
    use std::io;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

    pub(super) struct Event(OwnedFd);

    impl Event {
        pub(super) fn new() -> io::Result<Event> {
            // As a semaphore: a read from it by mistake takes 1 of very many.
            let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK | libc::EFD_SEMAPHORE;
            // SAFETY: no memory is passed.
            let fd = unsafe { libc::eventfd(0, flags) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: new, and nobody else's.
            Ok(Event(unsafe { OwnedFd::from_raw_fd(fd) }))
        }

        pub(super) fn fire(&self) {
            // The greatest that it can hold. Never blocks: it is 0 before, and of two that find it full one has fired it.
            let count = u64::MAX - 1;
            loop {
                // SAFETY: the 8 bytes are there, and the descriptor is ours.
                let written =
                    unsafe { libc::write(self.0.as_raw_fd(), (&raw const count).cast(), 8) };
                let again = io::ErrorKind::Interrupted;
                if written >= 0 || io::Error::last_os_error().kind() != again {
                    return;
                }
            }
        }
    }

    impl AsFd for Event {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

/// Where there is no eventfd: two sockets. What is sent can be read up, so it is the end that is sent.
#[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
mod pair {
    use std::io;
    use std::net::Shutdown;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::os::unix::net::UnixStream;

    pub(super) struct Event {
        read: UnixStream,
        write: UnixStream,
    }

    impl Event {
        pub(super) fn new() -> io::Result<Event> {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            Ok(Event { read, write })
        }

        pub(super) fn fire(&self) {
            // Nothing can be in its way: both ends are open, and are ours.
            let _ = self.write.shutdown(Shutdown::Write);
        }
    }

    impl AsFd for Event {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.read.as_fd()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    fn is_readable(fd: impl AsFd) -> bool {
        let fd = fd.as_fd().as_raw_fd();
        let mut fds = [libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        }];
        // SAFETY: one entry, as is said.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 1, 0) };
        ready == 1 && fds[0].revents & libc::POLLIN != 0
    }

    /// What other systems have, wherever the tests run.
    #[test]
    fn a_pair_is_readable_once_fired_and_stays_so() {
        use std::io::Read;
        let event = super::pair::Event::new().unwrap();
        assert!(!is_readable(&event));
        event.fire();
        event.fire();
        for _ in 0..3 {
            assert!(is_readable(&event));
            let read = event.as_fd().try_clone_to_owned().unwrap();
            let mut bytes = [0; 8];
            assert_eq!(std::fs::File::from(read).read(&mut bytes).unwrap(), 0);
        }
    }
}
