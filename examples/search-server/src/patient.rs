//! A connection whose other side has to take what is written.

use cancel_tree::{CancelGuard, CancelledOwned, Context};
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{self, ready, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A write that waits longer than `patience` until anything is taken is an error, which ends the connection. (By itself a connection is there as long as
/// the other side says that it has no room, which may be for ever.) What is read has no bound here.
pub struct Patient<T> {
    io: T,
    patience: Duration,
    /// While a write waits.
    limit: Option<(Pin<Box<CancelledOwned>>, CancelGuard)>,
}

impl<T> Patient<T> {
    pub fn new(io: T, patience: Duration) -> Patient<T> {
        Patient {
            io,
            patience,
            limit: None,
        }
    }

    fn bound<R>(
        &mut self,
        cx: &mut task::Context<'_>,
        write: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if write.is_ready() {
            self.limit = None;
            return write;
        }
        let patience = self.patience;
        let (over, _) = self.limit.get_or_insert_with(|| {
            let (limit, guard) = Context::background().with_timeout(patience);
            (Box::pin(limit.cancelled_owned()), guard)
        });
        ready!(over.as_mut().poll(cx));
        let text = "nothing of what is written is taken";
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, text)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write(cx, buf);
        self.bound(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.bound(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.io).poll_flush(cx);
        self.bound(cx, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        let shutdown = Pin::new(&mut self.io).poll_shutdown(cx);
        self.bound(cx, shutdown)
    }
}
