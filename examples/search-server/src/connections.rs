//! The connections of the front: how many there are, and how long they may do nothing.

use crate::options::Clients;
use crate::patient::Patient;
use crate::search::STOP;
use axum::body::Body;
use axum::extract::Request;
use axum::Router;
use cancel_tree::integrations::serve::ServerHandle;
use cancel_tree::{Canceller, Context, Group};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tower::{service_fn, Service};

/// When there are no descriptors, or no memory, some may come back.
const NEXT_TRY: Duration = Duration::from_millis(10);

/// In the extensions of each request: ends the connection that it came on, whatever else is asked there.
#[derive(Clone)]
pub struct HangUp(pub Canceller);

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
        let hang_up = HangUp(guard.canceller());
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (app, asked) = (self.app.clone(), asked.clone());
            move |request: Request<Incoming>| {
                // Relaxed: it tells nothing else.
                asked.store(true, Relaxed);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(hang_up.clone());
                app.clone().call(request)
            }
        });
        let service = TowerToHyperService::new(service);
        let serve = async {
            let mut connection = pin!(self.http.serve_connection(io, service));
            // Until there is a request hyper has no bound: the version is not known yet.
            let is_silent = || !asked.load(Relaxed);
            let (closing, cancelled) = (self.server.closing(), self.server.requests().context());
            let (first, guard) = closing.with_timeout(self.patience);
            // What it returns is the client's error.
            let has_ended = first.run(connection.as_mut()).await.is_ok();
            if has_ended || (is_silent() && !closing.is_done()) {
                return;
            }
            drop(guard);
            if closing.run(connection.as_mut()).await.is_ok() {
                return;
            }
            connection.as_mut().graceful_shutdown();
            if is_silent() {
                let (first, _guard) = cancelled.with_timeout(self.patience);
                if first.run(connection.as_mut()).await.is_ok() || is_silent() {
                    return;
                }
            }
            if cancelled.run(connection.as_mut()).await.is_ok() {
                return;
            }
            // All are told to stop, and may say so.
            let (last, _guard) = Context::background().with_timeout(2 * STOP);
            let _ = last.run(connection).await;
        };
        let _ = ctx.run(serve).await;
    }
}
