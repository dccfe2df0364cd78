//! A server with plain hyper, from nothing to a graceful end: it accepts connections by itself, and drops them with the server's
//! future.

use cancel_tree::integrations::serve::{Serve, ServerHandle};
use cancel_tree::integrations::signals::Signals;
use cancel_tree::integrations::tower::ContextLayer;
use cancel_tree::{Context, Group};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::time::Duration;
use tokio::net::TcpListener;
use tower::{service_fn, Layer};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let root = Context::background();
    let signals = Signals::new().install(&root)?;
    let server = Serve::new(&root)
        .signals(&signals)
        .when_stuck(|report| {
            // Not by `eprintln!`, which panics where nobody reads, and then the process would not end.
            let _ = writeln!(std::io::stderr(), "{report}");
            std::process::exit(report.exit_code());
        })
        .start()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?.port());
    let accepting = accept(listener, server.handle(), server.graceful());
    let report = server.run(accepting).await;
    let _ = writeln!(std::io::stderr(), "{report}");
    std::process::exit(report.exit_code());
}

async fn accept(
    listener: TcpListener,
    server: ServerHandle,
    graceful: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let requests = ContextLayer::new(&Context::background())
        .in_group(server.requests())
        .named();
    let service = requests.layer(service_fn(hello));
    let ending = GracefulShutdown::new();
    // When this future is dropped, so is the group, and then no connection goes on. It is not below the requests: those that are
    // cancelled may still answer.
    let connections = Group::new(&Context::background());
    let mut graceful = std::pin::pin!(graceful);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut graceful => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, as a rule: some may come back.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let service = TowerToHyperService::new(service.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let connection = ending.watch(connection);
        let spawned = connections.spawn(|ctx| async move {
            // Its errors are the peer's.
            let _ = ctx.run(connection).await;
        });
        if spawned.is_err() {
            break;
        }
    }
    drop(listener);
    ending.shutdown().await;
    Ok(())
}

async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = match request.uri().path() {
        "/wait" => wait(&request).await,
        _ => "hello\n",
    };
    Ok(Response::new(Full::new(answer.into())))
}

/// Something that takes until it is told to stop, and then has to be tidied up.
async fn wait(request: &Request<Incoming>) -> &'static str {
    if let Some(ctx) = request.extensions().get::<Context>() {
        ctx.done().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    "tidied up\n"
}
