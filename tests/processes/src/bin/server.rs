//! A server of handlers good and bad. It prints `listening PORT`, `started PATH` for each request, and its report.
//!
//!     server [lame_duck=MS] [graceful=MS] [cancelled=MS] [dropped=MS] [end_at=N] [current_thread] [start=MS] [descriptors=N]

use axum::body::Body;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use cancel_tree::integrations::serve::{Phase, Serve, ServerFuture, ServerHandle, ServerReport};
use cancel_tree::integrations::signals::Signals;
use cancel_tree::integrations::tower::{ContextLayer, UpgradeGuard};
use cancel_tree::Context;
use http_body_util::StreamBody;
use hyper::body::Frame;
use processes::{limit_descriptors, raise_descriptors, say};
use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

/// The value of `name=…`.
fn arg(name: &str) -> Option<u64> {
    let prefix = format!("{name}=");
    std::env::args().find_map(|arg| arg.strip_prefix(&prefix)?.parse().ok())
}

fn bound(name: &str, default: u64) -> Duration {
    Duration::from_millis(arg(name).unwrap_or(default))
}

fn main() {
    match arg("descriptors") {
        Some(most) => limit_descriptors(most),
        None => _ = raise_descriptors(),
    }
    let signals = Signals::new().end_at(arg("end_at").unwrap_or(3) as u8);
    let signals = signals.install(&Context::background()).unwrap();
    let serve = Serve::new(&Context::background())
        .signals(&signals)
        .lame_duck(bound("lame_duck", 0))
        .graceful(bound("graceful", 300))
        .cancelled(bound("cancelled", 300))
        .dropped(bound("dropped", 300))
        .when_stuck(|report| end(&report));
    let server = serve.start().unwrap();
    say("installed");
    thread::sleep(bound("start", 0));
    let is_one = std::env::args().any(|arg| arg == "current_thread");
    let runtime = match is_one {
        true => tokio::runtime::Builder::new_current_thread(),
        false => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            // Some handlers keep theirs.
            builder.worker_threads(16);
            builder
        }
    };
    let mut runtime = runtime;
    let runtime = runtime.enable_all().build().unwrap();
    if !is_one {
        wake_workers(runtime.handle().clone(), server.handle());
    }
    let report = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        say(&format!(
            "listening {}",
            listener.local_addr().unwrap().port()
        ));
        let app = app(server.handle());
        let graceful = server.graceful();
        let serve = axum::serve(listener, app).with_graceful_shutdown(graceful);
        server.run(serve).await
    });
    end(&report);
}

/// A worker that blocks may be the one that has asked the system last, and then nobody asks until another is woken: no connection is
/// accepted, no timer fires. Requests are to begin all the same; the end has to do without.
fn wake_workers(runtime: tokio::runtime::Handle, server: ServerHandle) {
    thread::spawn(move || {
        while server.phase() <= Phase::Serving {
            drop(runtime.spawn(async {}));
            thread::sleep(Duration::from_millis(10));
        }
    });
}

fn end(report: &ServerReport) -> ! {
    static ONCE: AtomicBool = AtomicBool::new(false);
    while ONCE.swap(true, Ordering::Relaxed) {
        // The executor came back after all, while the other one says it.
        thread::park();
    }
    for (phase, took) in &report.phases {
        say(&format!("phase {phase}: {}", took.as_millis()));
    }
    let server = match &report.server {
        ServerFuture::Ended => "ended",
        ServerFuture::Failed(_) => "failed",
        ServerFuture::Dropped => "dropped",
        _ => "stuck",
    };
    say(&format!("server {server}"));
    for task in &report.tasks.stuck {
        say(&format!("stuck {}", task.name.as_deref().unwrap_or("?")));
    }
    say(&format!("report {report}"));
    if !matches!(report.server, ServerFuture::Ended) {
        // A request has ended when its last frame is taken: hyper may still be writing that, on a busy machine for a while.
        thread::sleep(Duration::from_millis(500));
    }
    std::process::exit(report.exit_code());
}

fn app(handle: ServerHandle) -> Router {
    let requests = Router::new()
        .route("/quick/{n}", get(|| async { "done" }))
        .route("/slow/{n}", get(slow))
        .route("/polite/{n}", get(polite))
        .route("/deaf/{n}", get(|| async { pending::<()>().await }))
        .route(
            "/block/{n}",
            get(|| async { thread::sleep(Duration::from_secs(3600)) }),
        )
        .route("/events/{n}", get(events))
        .route("/flood/{n}", get(|| async { endless() }))
        .route("/socket/{n}", get(socket))
        .route("/mute/{n}", get(mute))
        .layer(middleware::from_fn(note))
        .layer(
            ContextLayer::new(&Context::background())
                .in_group(handle.requests())
                .named(),
        );
    Router::new()
        .route("/ready", get(ready))
        .merge(requests)
        .with_state(handle)
}

async fn note(request: Request, next: Next) -> Response {
    say(&format!("started {}", request.uri().path()));
    next.run(request).await
}

async fn ready(State(handle): State<ServerHandle>) -> StatusCode {
    match handle.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// `n` is for how many milliseconds: as long as it takes, whatever its context says.
async fn slow(Path(n): Path<u64>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(n % 1000)).await;
    "done"
}

async fn polite(Extension(ctx): Extension<Context>) -> String {
    ctx.done().await;
    ctx.cause().unwrap().to_string()
}

/// A stream of frames, one each 5 ms, until `done` says so.
fn stream(done: impl Fn() -> bool + Send + Unpin + 'static) -> Body {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    Body::new(StreamBody::new(Stream(
        move |cx: &mut std::task::Context<'_>| match tick.poll_tick(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) if done() => Poll::Ready(None),
            Poll::Ready(_) => {
                Poll::Ready(Some(Ok::<_, Infallible>(Frame::data("data: x\n\n".into()))))
            }
        },
    )))
}

struct Stream<F>(F);

impl<F: FnMut(&mut std::task::Context<'_>) -> Poll<Option<T>> + Unpin, T> futures_core::Stream
    for Stream<F>
{
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<T>> {
        (self.0)(cx)
    }
}

/// Events, as long as the server is not closing.
async fn events(State(handle): State<ServerHandle>) -> Body {
    stream(move || handle.closing().is_done())
}

fn endless() -> Body {
    stream(|| false)
}

/// A websocket that closes when the server does.
async fn socket(
    State(handle): State<ServerHandle>,
    Extension(guard): Extension<UpgradeGuard>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let closing = handle.closing().clone();
    upgrade
        .on_upgrade(|mut socket| async move {
            let _guard = guard;
            closing.done().await;
            let _ = socket.send(Message::Close(None)).await;
        })
        .into_response()
}

/// One that never closes.
async fn mute(Extension(guard): Extension<UpgradeGuard>, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .on_upgrade(|socket| async move {
            let _both = (guard, socket);
            pending::<()>().await;
        })
        .into_response()
}
