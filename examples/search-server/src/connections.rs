//! The connections of the front: how many there are, and how long they may do nothing.
//!
//! What hyper knows of that is not enough: it answers the pings of a client that asks nothing, and of HTTP/2 it takes whole what
//! nobody has taken from it. So it is counted here what is asked, until the answer's body is gone.

use crate::options::Clients;
use crate::patient::Patient;
use crate::search::STOP;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::{Error, Router};
use cancel_tree::integrations::serve::ServerHandle;
use cancel_tree::{CancelGuard, Canceller, Context, ContextError, Group, Member};
use futures_util::future::{select, Either};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tower::{service_fn, Service};

/// When there are no descriptors, or no memory, some may come back.
const NEXT_TRY: Duration = Duration::from_millis(10);

/// In the extensions of an answer that is made while it is sent: for how long, if nobody is slow. Without it: it is there.
#[derive(Clone, Copy)]
pub struct Lasts(pub Duration);

/// What all connections have in common.
#[derive(Clone)]
struct Each {
    app: Router,
    http: Builder<TokioExecutor>,
    patience: Duration,
    server: ServerHandle,
}

/// Accepts connections until the end begins, and waits until they are closed.
///
/// Dropped, it drops them.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    server: ServerHandle,
    clients: Clients,
) -> io::Result<()> {
    let patience = clients.patience;
    let mut http = Builder::new(TokioExecutor::new());
    // Between two requests, and in the middle of the head of one.
    { http.http1() }
        .timer(TokioTimer::new())
        .header_read_timeout(patience);
    // Who is gone without a word does not answer this.
    { http.http2() }
        .timer(TokioTimer::new())
        .keep_alive_interval(patience)
        .keep_alive_timeout(patience);
    let each = Each {
        app,
        http,
        patience,
        server: server.clone(),
    };
    // Those that find no place wait in the system's queue, in order of arrival.
    let connections = Group::new(&Context::background().with_name("connections"));
    let connections = connections.limit(clients.most);
    let closing = server.closing();
    while let Ok(place) = connections.enter_when(closing).await {
        let stream = match closing.run(listener.accept()).await {
            Ok(Ok((stream, _))) => stream,
            Ok(Err(_)) => {
                let _ = closing.sleep(NEXT_TRY).await;
                continue;
            }
            Err(_) => break,
        };
        let (each, ctx) = (each.clone(), connections.context().clone());
        tokio::spawn(async move {
            let _place = place;
            each.connection(&ctx, stream).await;
        });
    }
    drop(listener);
    connections.wait_idle().await;
    Ok(())
}

impl Each {
    /// One connection, to its end, or to that of `ctx`.
    async fn connection(self, ctx: &Context, stream: TcpStream) {
        // Hits are small, and go at once.
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(Patient::new(stream, self.patience));
        let (ctx, guard) = ctx.with_cancel();
        let (asked, patience) = (Arc::new(Asked::new()), self.patience);
        let service = service_fn({
            let (app, asked, ctx, hang_up) =
                (self.app, asked.clone(), ctx.clone(), guard.canceller());
            move |request: Request<Incoming>| {
                let (mut app, place) = (app.clone(), asked.enter());
                let (ctx, hang_up) = (ctx.clone(), hang_up.clone());
                async move {
                    let answer = app.call(request.map(Body::new)).await?;
                    let lasts = answer.extensions().get::<Lasts>();
                    let lasts = lasts.map_or(Duration::ZERO, |lasts| lasts.0);
                    let limit = answer_limit(&ctx, lasts + patience, hang_up);
                    Ok::<_, Infallible>(answer.map(|body| {
                        Body::new(Answer {
                            body,
                            _place: place,
                            _limit: limit,
                        })
                    }))
                }
            }
        });
        let service = TowerToHyperService::new(service);
        let serve = async {
            let mut connection = pin!(self.http.serve_connection(io, service));
            let (closing, cancelled) = (self.server.closing(), self.server.requests().context());
            let idle = pin!(asked.none_for(patience));
            // What it returns is the client's error.
            if let Ok(Either::Left(_)) = closing.run(select(connection.as_mut(), idle)).await {
                return;
            }
            // What is there may come to its end; nothing more is asked, and what is not taken by now is not waited for long.
            connection.as_mut().graceful_shutdown();
            let idle = pin!(asked.none_for(patience));
            if { cancelled.run(select(connection.as_mut(), idle)).await }.is_ok() {
                return;
            }
            // All are told to stop, and may say so.
            let (last, _guard) = Context::background().with_timeout(2 * STOP);
            let _ = last.run(connection).await;
        };
        let _ = ctx.run(serve).await;
    }
}

/// What is asked on a connection and is there.
struct Asked {
    /// From the request to the end of the answer's body.
    there: Group,
    /// How often something was asked.
    count: AtomicUsize,
}

impl Asked {
    fn new() -> Asked {
        Asked {
            there: Group::new(&Context::background()),
            count: AtomicUsize::new(0),
        }
    }

    /// It is there as long as what this returns.
    fn enter(&self) -> Option<Member> {
        // Nobody closes the group.
        let place = self.there.enter().ok();
        // Relaxed: it only tells that somebody was there.
        self.count.fetch_add(1, Relaxed);
        place
    }

    /// Waits until there was nothing for so long.
    async fn none_for(&self, patience: Duration) {
        loop {
            self.there.wait_idle().await;
            let before = self.count.load(Relaxed);
            let _ = Context::background().sleep(patience).await;
            if self.there.is_empty() && self.count.load(Relaxed) == before {
                return;
            }
        }
    }
}

/// Until it is dropped: hangs up after `limit`. Nobody asks for more of an answer of which nothing is taken, so it is the connection that has to end,
/// whatever else is asked there.
fn answer_limit(ctx: &Context, limit: Duration, hang_up: Canceller) -> CancelGuard {
    let (taken, guard) = ctx.with_timeout(limit);
    drop(taken.on_cancel_with(move |cause| {
        if cause.kind() == ContextError::DeadlineExceeded {
            hang_up.cancel_with("an answer was not taken");
        }
    }));
    guard
}

/// An answer's body, which is there until it is dropped.
struct Answer {
    body: Body,
    _place: Option<Member>,
    _limit: CancelGuard,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
