//! What the tests share: a server on loopback, a client that writes and reads bytes.

pub mod grpc;

/// The stories of docs/SERVERS.md.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/SERVERS.md")]
pub mod stories {}

use axum::body::Body;
use axum::Router;
use cancel_tree::integrations::tower::ContextLayer;
use cancel_tree::{Cause, Context};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::http::Request;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Serves on a port of its own.
pub async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Sends a request, and reads until the server closes.
pub async fn exchange(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is cut off is an end too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Where handlers leave the contexts that they were given.
#[derive(Clone)]
pub struct Seen(Arc<mpsc::UnboundedSender<Context>>);

impl Seen {
    pub fn new() -> (Seen, mpsc::UnboundedReceiver<Context>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Seen(Arc::new(sender)), receiver)
    }

    pub fn note(&self, ctx: &Context) {
        let _ = self.0.send(ctx.clone());
    }
}

/// So many milliseconds.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A layer below nothing that ends.
pub fn background() -> ContextLayer {
    ContextLayer::new(&Context::background())
}

/// The context that a request carries.
pub fn context<B>(request: &Request<B>) -> Context {
    request.extensions().get::<Context>().unwrap().clone()
}

/// Whether a context is done by a `T`.
pub fn is<T: std::error::Error + 'static>(ctx: &Context) -> bool {
    ctx.cause()
        .is_some_and(|cause| cause.downcast_ref::<T>().is_some())
}

/// How long a test waits for what has to come: the machine may be small, and busy.
pub const fn patience() -> Duration {
    Duration::from_secs(30)
}

/// For what has to be through before a deadline: an attempt that finds that the machine was too slow for that says `None`, and
/// begins anew with twice the time.
pub async fn in_time<F>(unit: Duration, attempt: impl Fn(Duration) -> F)
where
    F: Future<Output = Option<()>>,
{
    for n in 0..10 {
        if attempt(unit * (1 << n)).await.is_some() {
            return;
        }
    }
    panic!("no attempt was in time");
}

/// What has been done by now has been done before the deadline.
pub fn before(ctx: &Context) -> Option<()> {
    ctx.deadline()
        .is_none_or(|end| Instant::now() < end)
        .then_some(())
}

/// Waits for what has to come.
pub async fn soon<F: Future>(what: F) -> F::Output {
    let waited = tokio::time::timeout(patience(), what);
    waited.await.expect("it comes")
}

/// The cause of the next context that was seen, once it is done.
pub async fn cause(seen: &mut mpsc::UnboundedReceiver<Context>) -> Cause {
    let ctx = soon(seen.recv()).await.expect("the handler was called");
    soon(ctx.done()).await;
    ctx.cause().unwrap()
}

/// Fails if the next context that was seen ends for another cause than a `T`.
pub async fn ended_by<T: std::error::Error + 'static>(seen: &mut mpsc::UnboundedReceiver<Context>) {
    let cause = cause(seen).await;
    assert!(cause.downcast_ref::<T>().is_some(), "{cause}");
}

/// One each millisecond; where some could not be, they are not made up for: a client takes many small frames at once for an attack.
pub fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Frames that never end, one each millisecond.
pub fn endless() -> Body {
    let mut tick = ticks();
    Body::new(StreamBody::new(Stream(
        move |cx: &mut task::Context<'_>| {
            tick.poll_tick(cx)
                .map(|_| Some(Ok::<_, Infallible>(Frame::data("x".into()))))
        },
    )))
}

/// A stream by hand, for there is none in std.
pub struct Stream<F>(pub F);

impl<F: FnMut(&mut task::Context<'_>) -> Poll<Option<T>> + Unpin, T> futures_core::Stream
    for Stream<F>
{
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<T>> {
        (self.0)(cx)
    }
}

/// Messages that never end, one each millisecond.
pub fn endless_messages(
) -> impl futures_core::Stream<Item = Result<Vec<u8>, tonic::Status>> + Send + 'static {
    let mut tick = ticks();
    Stream(move |cx: &mut task::Context<'_>| tick.poll_tick(cx).map(|_| Some(Ok(b"x".to_vec()))))
}

/// Polls once, and it is not ready.
pub fn is_pending<F: Future>(future: Pin<&mut F>) -> bool {
    let mut cx = task::Context::from_waker(task::Waker::noop());
    future.poll(&mut cx).is_pending()
}
