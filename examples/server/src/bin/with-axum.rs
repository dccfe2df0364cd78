//! A server with axum, from nothing to a graceful end.
//!
//!     cargo run --bin with-axum
//!     curl localhost:PORT/report        # takes 3 s
//!     kill PID                          # meanwhile: it is finished, and then the process ends

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use axum::{Extension, Router};
use cancel_tree::integrations::serve::{Serve, ServerHandle};
use cancel_tree::integrations::signals::Signals;
use cancel_tree::integrations::tower::{ContextLayer, DeadlineHeader};
use cancel_tree::{Context, ContextError};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let root = Context::background();
    // The first signal begins the end, the second cancels what is still there, the third ends the process.
    let signals = Signals::new().install(&root)?;
    let server = Serve::new(&root)
        .signals(&signals)
        // Until nobody sends requests here any more: as long as the load balancer takes to ask `/ready` a few times.
        .lame_duck(Duration::from_secs(5))
        .graceful(Duration::from_secs(15))
        .when_stuck(|report| {
            eprintln!("{report}");
            std::process::exit(report.exit_code());
        })
        .start()?;

    let requests = ContextLayer::new(&root)
        .in_group(server.handle().requests())
        .named()
        .default_timeout(Duration::from_secs(10))
        // Whatever a header says.
        .max(Duration::from_secs(60))
        // Only behind a proxy that sets it, or takes it away.
        .deadline_from([DeadlineHeader::GRPC]);
    let app = Router::new()
        .route("/report", get(report))
        .route("/ticks", get(ticks))
        .layer(requests)
        .route("/ready", get(ready))
        .with_state(server.handle());

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?.port());
    let serve = axum::serve(listener, app).with_graceful_shutdown(server.graceful());
    let report = server.run(serve).await;
    eprintln!("{report}");
    // Not by a return: the runtime would wait for threads that do not come back.
    std::process::exit(report.exit_code());
}

/// For the load balancer.
async fn ready(State(server): State<ServerHandle>) -> StatusCode {
    match server.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A handler that takes its time, and stops when its context is done: the client is gone, the deadline has passed, the server ends.
async fn report(Extension(ctx): Extension<Context>) -> Result<&'static str, StatusCode> {
    for _ in 0..30 {
        ctx.sleep(Duration::from_millis(100))
            .await
            .map_err(|error| match error {
                ContextError::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
                ContextError::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            })?;
    }
    Ok("all is well\n")
}

/// A stream without an end of its own: it ends when the server begins to.
async fn ticks(
    State(server): State<ServerHandle>,
) -> Sse<impl futures_core::Stream<Item = Result<Event, Infallible>>> {
    struct Ticks(ServerHandle, tokio::time::Interval);
    impl futures_core::Stream for Ticks {
        type Item = Result<Event, Infallible>;
        fn poll_next(
            mut self: Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> Poll<Option<Self::Item>> {
            match self.1.poll_tick(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(_) if self.0.closing().is_done() => Poll::Ready(None),
                Poll::Ready(_) => Poll::Ready(Some(Ok(Event::default().data("tick")))),
            }
        }
    }
    Sse::new(Ticks(
        server,
        tokio::time::interval(Duration::from_millis(200)),
    ))
}
