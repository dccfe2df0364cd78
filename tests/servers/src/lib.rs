//! What the tests share: a server on loopback, a client that writes and reads bytes.

use axum::Router;
use cancel_tree::{Cause, Context};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
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

/// The cause of the next context that was seen, once it is done; it has to be soon.
pub async fn cause(seen: &mut mpsc::UnboundedReceiver<Context>) -> Cause {
    let ctx = seen.recv().await.expect("the handler was called");
    let done = tokio::time::timeout(Duration::from_secs(5), ctx.done());
    done.await.expect("its context ends");
    ctx.cause().unwrap()
}
