//! A server with plain hyper, from nothing to a graceful end: who accepts connections by himself can name them, and drops them with
//! the server's future.

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
use tokio::net::TcpListener;
use tower::{service_fn, Layer};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let root = Context::background();
    let signals = Signals::new().install(&root)?;
    let server = Serve::new(&root)
        .signals(&signals)
        .when_stuck(|report| {
            eprintln!("{report}");
            std::process::exit(report.exit_code());
        })
        .start()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?.port());
    let accepting = accept(listener, server.handle(), server.graceful());
    let report = server.run(accepting).await;
    eprintln!("{report}");
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
    // When this future is dropped, so is the group, and then no connection goes on.
    let connections = Group::new(server.requests().context());
    let mut graceful = std::pin::pin!(graceful);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut graceful => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors, as a rule: some may come back.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let service = TowerToHyperService::new(service.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let connection = ending.watch(connection);
        let spawned = connections.named(peer.to_string()).spawn(|ctx| async move {
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

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new("hello\n".into())))
}
