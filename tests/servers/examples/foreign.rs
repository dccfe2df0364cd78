//! Our end for other people's clients and servers: see foreign/ and run.sh.
//!
//!     foreign serve          a gRPC server and an HTTP server, until stdin ends; says on which ports, of each context that it
//!                            has begun, and why it ended
//!     foreign grpc PORT      calls a gRPC server there, which says on stdin what has begun and what is over
//!     foreign http PORT      calls an HTTP/2 server there, likewise

use axum::body::Body;
use axum::routing::get;
use axum::{Extension, Router};
use cancel_tree::integrations::tower::{ContextLayer, DeadlineHeader, PropagateLayer};
use cancel_tree::{Cause, Context};
use http_body_util::BodyExt;
use hyper::http::{uri::PathAndQuery, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use servers::grpc::{channel, serve, upload, Around, Bytes};
use servers::{endless, patience, soon, Seen};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver};
use tonic::client::Grpc;
use tonic::{Code, Status};
use tower::{service_fn, BoxError, Layer, ServiceExt};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let port = arguments.next().and_then(|port| port.parse::<u16>().ok());
    let to = SocketAddr::from(([127, 0, 0, 1], port.unwrap_or(0)));
    match what.as_str() {
        "serve" => serve_both().await,
        "grpc" => call_grpc(to).await,
        "http" => call_http(to).await,
        _ => panic!("serve, grpc or http"),
    }
}

/// Says of each context that it has begun, and why it ended. One with a deadline is not like the others: it may be over before it
/// is here, so nobody can count on it.
fn tell(mut contexts: UnboundedReceiver<Context>) {
    tokio::spawn(async move {
        while let Some(ctx) = contexts.recv().await {
            match ctx.deadline() {
                None => println!("begun"),
                Some(_) => println!("begun with a deadline"),
            }
            tokio::spawn(async move {
                ctx.done().await;
                println!("ended {}", ctx.cause().unwrap());
            });
        }
    });
}

async fn serve_both() {
    let layer = ContextLayer::new(&Context::background())
        .deadline_from([DeadlineHeader::GRPC, DeadlineHeader::CONNECT]);
    let mut grpc = serve(Around::Context(layer.clone())).await;
    tell(grpc.contexts);
    tokio::spawn(async move {
        while let Some(end) = grpc.uploads.recv().await {
            println!("upload {end:?}");
        }
    });
    tokio::spawn(async move {
        while let Some(()) = grpc.begun.recv().await {
            println!("upload begun");
        }
    });
    let (seen, contexts) = Seen::new();
    tell(contexts);
    let (head, body) = (seen.clone(), seen.clone());
    let router = Router::new()
        .route(
            "/hello",
            get(move |Extension(ctx): Extension<Context>| async move {
                seen.note(&ctx);
                "hello"
            }),
        )
        .route(
            "/head",
            get(move |Extension(ctx): Extension<Context>| async move {
                head.note(&ctx);
                std::future::pending::<()>().await;
            }),
        )
        .route(
            "/body",
            get(move |Extension(ctx): Extension<Context>| async move {
                body.note(&ctx);
                endless()
            }),
        );
    let http = servers::serve(router.layer(layer)).await;
    println!("ports {} {}", grpc.to.port(), http.port());
    let end = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let _ = tokio::task::spawn_blocking(end).await;
}

/// What the other's server says on stdin, line by line.
struct Said {
    comes: UnboundedReceiver<String>,
    so_far: Vec<String>,
}

impl Said {
    fn new() -> Said {
        let (sender, comes) = unbounded_channel();
        // One that waits for the next line does not keep the process.
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let so_far = Vec::new();
        Said { comes, so_far }
    }

    fn has_said(&mut self, line: &str) -> bool {
        while let Ok(more) = self.comes.try_recv() {
            self.so_far.push(more);
        }
        self.so_far.iter().any(|said| said == line)
    }

    async fn wait_for(&mut self, line: &str) {
        while !self.has_said(line) {
            let more = tokio::time::timeout(patience(), self.comes.recv()).await;
            let more = more.ok().flatten();
            let more = more.unwrap_or_else(|| panic!("not said: {line:?}: {:?}", self.so_far));
            self.so_far.push(more);
        }
    }
}

/// The other's server: `left` answers with the milliseconds that it thinks are left, anything else waits for its end.
async fn call_grpc(to: SocketAddr) {
    let mut said = Said::new();
    let layer = PropagateLayer::new(DeadlineHeader::GRPC).reserve(Duration::from_millis(500));
    let mut client = Grpc::new(layer.layer(channel(to).await));
    let mut ask = async |ctx: &Context, said: &str| -> Result<String, Status> {
        client.ready().await.unwrap();
        let mut request = tonic::Request::new(said.as_bytes().to_vec());
        request.extensions_mut().insert(ctx.clone());
        let path = PathAndQuery::from_static("/test/unary");
        let answer = soon(client.unary(request, path, Bytes)).await?;
        Ok(String::from_utf8(answer.into_inner()).unwrap())
    };
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(60));
    let left: u64 = ask(&ctx, "left").await.unwrap().parse().unwrap();
    assert!(left <= 59_500 && left > 20_000, "{left}");
    println!("its context has our deadline, less the reserve");

    // Long enough for it to begin, in one of the attempts.
    for n in 0.. {
        let timeout = Duration::from_millis(500 + (300 << (2 * n)));
        let (ctx, _guard) = Context::background().with_timeout(timeout);
        let status = ask(&ctx, &format!("deadline {n}")).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        if said.has_said(&format!("begun deadline {n}")) {
            said.wait_for(&format!("over deadline {n}")).await;
            break;
        }
        assert!(n < 3, "never begun in time");
    }
    println!("our deadline comes back as DEADLINE_EXCEEDED, and its context has ended");

    let (ctx, guard) = Context::background().with_cancel();
    let (status, ()) = tokio::join!(ask(&ctx, "cancel"), async {
        said.wait_for("begun cancel").await;
        guard.cancel();
    });
    assert_eq!(status.unwrap_err().code(), Code::Cancelled);
    said.wait_for("over cancel").await;
    println!("our cancel is CANCELLED, and its context has ended");

    client.ready().await.unwrap();
    let (ctx, guard) = Context::background().with_cancel();
    let mut request = tonic::Request::new(upload(3));
    request.extensions_mut().insert(ctx);
    let path = PathAndQuery::from_static("/test/client");
    let (answer, ()) = tokio::join!(soon(client.client_streaming(request, path, Bytes)), async {
        said.wait_for("begun upload").await;
        guard.cancel();
    });
    assert_eq!(answer.unwrap_err().code(), Code::Cancelled);
    said.wait_for("over upload").await;
    println!("our cut upload is CANCELLED, and taken for cut");
}

async fn call_http(to: SocketAddr) {
    let mut said = Said::new();
    let stream = TokioIo::new(soon(TcpStream::connect(to)).await.unwrap());
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (send, connection) = builder.handshake::<_, Body>(stream).await.unwrap();
    tokio::spawn(connection);
    let layer = PropagateLayer::new(DeadlineHeader::CONNECT).reserve(Duration::from_millis(500));
    let client = layer.layer(service_fn(move |request| {
        let mut send = send.clone();
        async move { send.send_request(request).await.map_err(BoxError::from) }
    }));
    let ask = async |ctx: &Context, path: &str| -> Result<String, BoxError> {
        let mut request = Request::get(format!("http://{to}{path}")).body(Body::empty())?;
        request.extensions_mut().insert(ctx.clone());
        let answer = tokio::time::timeout(patience(), client.clone().oneshot(request)).await??;
        let body = answer.into_body().collect().await?;
        Ok(String::from_utf8(body.to_bytes().to_vec())?)
    };
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(60));
    let left: u64 = ask(&ctx, "/left").await.unwrap().parse().unwrap();
    assert!(left <= 59_500 && left > 20_000, "{left}");
    println!("its handler was told our deadline, less the reserve");
    for path in ["/wait", "/stream"] {
        let (ctx, guard) = Context::background().with_cancel();
        let (answer, ()) = tokio::join!(ask(&ctx, path), async {
            said.wait_for(&format!("begun {path}")).await;
            guard.cancel_with("we gave up");
        });
        let error = answer.unwrap_err();
        let cause = error.downcast_ref::<Cause>().unwrap();
        assert_eq!(cause.to_string(), "we gave up");
        said.wait_for(&format!("over {path}")).await;
    }
    println!("our cancels end the calls, and its contexts");
}
