//! What lasts: SSE and websockets, and a server's end.

use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::sse::{Event, Sse};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use cancel_tree::integrations::tower::{
    ClientGone, Completed, ContextLayer, Shutdown, UpgradeGuard,
};
use cancel_tree::{Context, Group};
use servers::{ended_by, patience, soon, ticks, Seen, Stream};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Events until the context is done.
async fn events(Extension(ctx): Extension<Context>, Extension(seen): Extension<Seen>) -> Response {
    use axum::response::IntoResponse;
    seen.note(&ctx);
    let mut tick = ticks();
    let mut done = ctx.done_owned();
    let events = Stream(move |cx: &mut std::task::Context<'_>| {
        if Pin::new(&mut done).poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let event = || Some(Ok::<_, Infallible>(Event::default().data("x")));
        tick.poll_tick(cx).map(|_| event())
    });
    Sse::new(events).into_response()
}

/// An echo until the context is done, or the client says goodbye.
async fn socket(
    Extension(ctx): Extension<Context>,
    Extension(seen): Extension<Seen>,
    Extension(guard): Extension<UpgradeGuard>,
    upgrade: WebSocketUpgrade,
) -> Response {
    seen.note(&ctx);
    upgrade.on_upgrade(|mut socket| async move {
        let _guard = guard;
        loop {
            match ctx.run(socket.recv()).await {
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => break,
                Ok(Some(Ok(message))) => drop(socket.send(message).await),
                Err(_) => {
                    let _ = socket.send(Message::Close(None)).await;
                    break;
                }
            }
        }
    })
}

struct Server {
    group: Group,
    layer: ContextLayer,
    to: SocketAddr,
    contexts: tokio::sync::mpsc::UnboundedReceiver<Context>,
    served: tokio::task::JoinHandle<()>,
    graceful: cancel_tree::CancelGuard,
}

/// axum's server, whose graceful shutdown waits for each connection.
async fn server() -> Server {
    let (seen, contexts) = Seen::new();
    let group = Group::new(&Context::background());
    let layer = ContextLayer::new(&Context::background())
        .in_group(&group)
        .named();
    let router = Router::new()
        .route("/events", get(events))
        .route("/socket", get(socket))
        .layer(Extension(seen))
        .layer(layer.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let (serving, graceful) = Context::background().with_cancel();
    let served = tokio::spawn(async move {
        let server = axum::serve(listener, router);
        let signal = async move { _ = serving.done().await };
        server.with_graceful_shutdown(signal).await.unwrap();
    });
    Server {
        group,
        layer,
        to,
        contexts,
        served,
        graceful,
    }
}

const EVENTS: &str = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";
const SOCKET: &str =
    "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn open(to: SocketAddr, request: &str, status: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    stream
}

#[tokio::test]
async fn at_shutdown_streams_and_sockets_end_because_their_contexts_do() {
    let mut server = server().await;
    let mut sse = open(server.to, EVENTS, "200").await;
    let mut socket = open(server.to, SOCKET, "101").await;
    // A text "hi", masked with zeros, and its echo.
    socket.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
    let mut echo = [0; 4];
    soon(socket.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"\x81\x02hi");
    let contexts = [
        soon(server.contexts.recv()).await.unwrap(),
        soon(server.contexts.recv()).await.unwrap(),
    ];
    let names = server
        .group
        .running()
        .into_iter()
        .map(|task| task.name.unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["GET /events", "GET /socket"]);

    // Graceful alone ends neither of them.
    server.graceful.cancel();
    let (limit, _guard) = Context::background().with_timeout(Duration::from_millis(50));
    assert_eq!(
        server
            .group
            .join_until(&limit)
            .await
            .unwrap_err()
            .missing
            .len(),
        2
    );
    assert!(!server.served.is_finished());

    server.group.cancel_with(Shutdown);
    let (limit, _guard) = Context::background().with_timeout(patience());
    let report = server.group.shutdown(&limit).await;
    assert!(report.stuck.is_empty(), "{report}");
    for ctx in contexts {
        assert!(ctx.cause().unwrap().downcast_ref::<Shutdown>().is_some());
    }
    let mut rest = Vec::new();
    soon(sse.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.ends_with(b"\r\n0\r\n\r\n"), "a clean end");
    let mut rest = Vec::new();
    soon(socket.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest[0], 0x88, "a close frame");
    soon(server.served).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_stream_and_its_socket() {
    let mut server = server().await;
    drop(open(server.to, EVENTS, "200").await);
    ended_by::<ClientGone>(&mut server.contexts).await;
    drop(open(server.to, SOCKET, "101").await);
    ended_by::<Completed>(&mut server.contexts).await;
    soon(server.group.join()).await.unwrap();
    assert_eq!(server.layer.counts().client_gone, 1);
}
