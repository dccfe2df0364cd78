//! A gRPC service of tonic without generated code: messages are bytes as they are.

use crate::{endless_messages, soon, Seen};
use bytes::{Buf, BufMut};
use cancel_tree::integrations::tower::{ContextLayer, UploadLayer};
use cancel_tree::Context;
use hyper::http;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::{service_fn, Service};

pub type Message = Vec<u8>;

#[derive(Clone, Copy, Default)]
pub struct Bytes;

impl Codec for Bytes {
    type Encode = Message;
    type Decode = Message;
    type Encoder = Bytes;
    type Decoder = Bytes;

    fn encoder(&mut self) -> Bytes {
        Bytes
    }

    fn decoder(&mut self) -> Bytes {
        Bytes
    }
}

impl Encoder for Bytes {
    type Item = Message;
    type Error = Status;

    fn encode(&mut self, item: Message, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Message;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Message>, Status> {
        let mut message = vec![0; from.remaining()];
        from.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}

/// How an upload ended, as the server saw it: so many messages, and then.
pub type Upload = Result<usize, (usize, Code)>;

/// `/test/unary`, `/test/server`, `/test/client`, `/test/bidi`.
///
/// A unary message "wait" is never answered, "polite" when its context is done; what says how much time is left, as anything
/// else is. The server's stream never ends; both others read to the end.
#[derive(Clone)]
pub struct Test {
    pub seen: Seen,
    /// A message of an upload has come.
    pub begun: mpsc::UnboundedSender<()>,
    pub uploads: mpsc::UnboundedSender<Upload>,
}

fn context<T>(request: &Request<T>) -> Option<Context> {
    request.extensions().get::<Context>().cloned()
}

impl Test {
    fn note<T>(&self, request: &Request<T>) -> Option<Context> {
        let ctx = context(request);
        if let Some(ctx) = &ctx {
            self.seen.note(ctx);
        }
        ctx
    }

    async fn unary(self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let ctx = self.note(&request);
        let said = request.into_inner();
        if said == b"wait" {
            std::future::pending::<()>().await;
        }
        if let Some(ctx) = ctx.as_ref().filter(|_| said == b"polite") {
            ctx.done().await;
            return Err(Status::unavailable(ctx.cause().unwrap().to_string()));
        }
        if said == b"missing" {
            return Err(Status::not_found("no such thing"));
        }
        let left = ctx.and_then(|ctx| ctx.remaining());
        let left = left.map_or("no deadline".into(), |left| left.as_millis().to_string());
        Ok(Response::new(left.into_bytes()))
    }

    async fn upload(
        self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Message>, Status> {
        self.note(&request);
        let mut messages = request.into_inner();
        let mut count = 0;
        let result = loop {
            match messages.message().await {
                Ok(Some(_)) => {
                    count += 1;
                    if count == 1 {
                        let _ = self.begun.send(());
                    }
                }
                Ok(None) => break Ok(count),
                Err(status) => break Err((count, status.code())),
            }
        };
        let _ = self.uploads.send(result);
        Ok(Response::new(count.to_string().into_bytes()))
    }
}

impl<B> Service<http::Request<B>> for Test
where
    B: hyper::body::Body<Data = bytes::Bytes, Error: Into<tower::BoxError> + Send> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Bytes);
            let path = request.uri().path().to_owned();
            Ok(match path.as_str() {
                "/test/unary" => {
                    let unary = service_fn(|request| this.clone().unary(request));
                    grpc.unary(unary, request).await
                }
                "/test/client" => {
                    let upload = service_fn(|request| this.clone().upload(request));
                    grpc.client_streaming(upload, request).await
                }
                "/test/server" => {
                    let stream = service_fn(|request: Request<Message>| {
                        this.note(&request);
                        async { Ok::<_, Status>(Response::new(endless_messages())) }
                    });
                    grpc.server_streaming(stream, request).await
                }
                "/test/bidi" => {
                    let echo = service_fn(|request: Request<Streaming<Message>>| {
                        this.note(&request);
                        async { Ok::<_, Status>(Response::new(request.into_inner())) }
                    });
                    grpc.streaming(echo, request).await
                }
                _ => Status::unimplemented(path).into_http(),
            })
        })
    }
}

/// What is put around the service.
pub enum Around {
    Nothing,
    Context(ContextLayer),
    /// Ours inside of tonic-web's, as tonic has it: the first is the outermost.
    Web(tonic_web::GrpcWebLayer, ContextLayer),
    Uploads(UploadLayer),
}

/// tonic's server on a port of its own, with our layer inside of what tonic itself puts around.
pub async fn serve_tonic(test: Test, around: Around) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder().accept_http1(true);
        match around {
            Around::Nothing => { server }.serve_with_incoming(test, incoming).await,
            Around::Context(layer) => {
                let server = server.layer(layer);
                { server }.serve_with_incoming(test, incoming).await
            }
            Around::Web(web, layer) => {
                let server = server.layer(web).layer(layer);
                { server }.serve_with_incoming(test, incoming).await
            }
            Around::Uploads(layer) => {
                let server = server.layer(layer);
                { server }.serve_with_incoming(test, incoming).await
            }
        }
    });
    to
}

/// A server, the contexts that it has seen, and how uploads have ended.
pub struct Served {
    pub to: SocketAddr,
    pub contexts: mpsc::UnboundedReceiver<Context>,
    pub begun: mpsc::UnboundedReceiver<()>,
    pub uploads: mpsc::UnboundedReceiver<Upload>,
}

pub async fn serve(around: Around) -> Served {
    let (seen, contexts) = Seen::new();
    let (sender, uploads) = mpsc::unbounded_channel();
    let (begins, begun) = mpsc::unbounded_channel();
    let test = Test {
        seen,
        begun: begins,
        uploads: sender,
    };
    let to = serve_tonic(test, around).await;
    Served {
        to,
        contexts,
        begun,
        uploads,
    }
}

pub async fn channel(to: SocketAddr) -> tonic::transport::Channel {
    let endpoint = tonic::transport::Endpoint::new(format!("http://{to}")).unwrap();
    soon(endpoint.connect()).await.unwrap()
}

/// So many messages, and then none for ever.
pub fn upload(count: usize) -> impl tokio_stream::Stream<Item = Message> + Send + 'static {
    let messages = tokio_stream::iter((0..count).map(|n| n.to_string().into_bytes()));
    messages.chain(tokio_stream::pending())
}

/// A frame of gRPC, for clients by hand.
#[must_use]
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

/// How long a test's deadline is.
pub const SHORT: Duration = Duration::from_millis(60);
