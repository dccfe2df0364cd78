//! `UploadLayer` over HTTP/2: what was given up is no end, and what is complete is.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use axum::routing::post;
use axum::Router;
use cancel_tree::integrations::tower::{ContextLayer, UploadBody, UploadCut, UploadLayer};
use cancel_tree::Context;
use h2::client::SendRequest;
use h2::{Reason, SendStream};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use servers::{in_time, soon};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::{service_fn, BoxError, Layer, ServiceExt};

/// What a handler has seen of an upload.
#[derive(Debug, PartialEq)]
enum Seen {
    Begun,
    Frame,
    End {
        bytes: usize,
        trailers: bool,
    },
    Cut,
    /// The handler was dropped before it knew.
    Dropped,
}

struct Tells {
    to: mpsc::UnboundedSender<Seen>,
    knows: bool,
}

impl Tells {
    fn new(to: &mpsc::UnboundedSender<Seen>) -> Tells {
        let to = to.clone();
        let _ = to.send(Seen::Begun);
        Tells { to, knows: false }
    }

    fn tell(&mut self, seen: Seen) {
        self.knows = seen != Seen::Frame;
        let _ = self.to.send(seen);
    }
}

impl Drop for Tells {
    fn drop(&mut self) {
        if !self.knows {
            let _ = self.to.send(Seen::Dropped);
        }
    }
}

async fn expect(seen: &mut mpsc::UnboundedReceiver<Seen>, what: Seen) {
    assert_eq!(soon(seen.recv()).await, Some(what));
}

/// How it ends.
async fn end(seen: &mut mpsc::UnboundedReceiver<Seen>) -> Seen {
    loop {
        match soon(seen.recv()).await.unwrap() {
            Seen::Begun | Seen::Frame => {}
            end => return end,
        }
    }
}

/// Reads to the end.
async fn read<B>(body: B, mut tells: Tells)
where
    B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let mut body = std::pin::pin!(body);
    let (mut bytes, mut trailers) = (0, false);
    let end = loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                trailers |= frame.is_trailers();
                bytes += frame.data_ref().map_or(0, Bytes::len);
                tells.tell(Seen::Frame);
            }
            None => break Seen::End { bytes, trailers },
            Some(Err(error)) => {
                let error: BoxError = error.into();
                // axum has its own around it.
                let source = error.source().and_then(|error| error.downcast_ref());
                let cut: Option<&UploadCut> = error.downcast_ref().or(source);
                assert!(cut.is_some(), "{error}");
                break Seen::Cut;
            }
        }
    };
    assert!(body.frame().await.is_none(), "it ends once");
    tells.tell(end);
}

/// hyper itself, or axum.
async fn serve(with_axum: bool) -> (SocketAddr, mpsc::UnboundedReceiver<Seen>) {
    serve_with(with_axum, Duration::from_secs(3600)).await
}

async fn serve_with(
    with_axum: bool,
    keep_alive: Duration,
) -> (SocketAddr, mpsc::UnboundedReceiver<Seen>) {
    let (sender, seen) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let of_axum = sender.clone();
    let handler = move |body: Body| {
        let tells = Tells::new(&of_axum);
        async move { read(body, tells).await }
    };
    let router = Router::new().route("/", post(handler)).layer(UploadLayer);
    let plain = UploadLayer.layer(service_fn(move |request: Request<UploadBody<Incoming>>| {
        let tells = Tells::new(&sender);
        async move {
            read(request.into_body(), tells).await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    }));
    let layer = ContextLayer::new(&Context::background());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new());
            builder.keep_alive_interval(keep_alive / 4);
            builder.keep_alive_timeout(keep_alive);
            let stream = TokioIo::new(stream);
            if with_axum {
                let service = router.clone();
                let service =
                    service.map_request(|request: Request<Incoming>| request.map(Body::new));
                let service = TowerToHyperService::new(layer.layer(service));
                tokio::spawn(builder.serve_connection(stream, service));
            } else {
                let service = TowerToHyperService::new(layer.layer(plain.clone()));
                tokio::spawn(builder.serve_connection(stream, service));
            }
        }
    });
    (to, seen)
}

async fn connect(to: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(to).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

fn begin(send: &mut SendRequest<Bytes>, length: Option<usize>) -> (impl Future, SendStream<Bytes>) {
    let mut request = Request::builder().method(Method::POST).uri("http://x/");
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    send.send_request(request.body(()).unwrap(), false).unwrap()
}

#[tokio::test]
async fn a_reset_that_is_no_error_is_a_cut() {
    for with_axum in [false, true] {
        let (to, mut seen) = serve(with_axum).await;
        let mut send = connect(to).await;
        for (length, reason) in [
            (None, Reason::NO_ERROR),
            (Some(10), Reason::NO_ERROR),
            (None, Reason::CANCEL),
        ] {
            let (_response, mut upload) = begin(&mut send, length);
            upload.send_data("half".into(), false).unwrap();
            expect(&mut seen, Seen::Begun).await;
            expect(&mut seen, Seen::Frame).await;
            upload.send_reset(reason);
            expect(&mut seen, Seen::Cut).await;
        }
        // Also before the first frame: nothing is not all.
        let (_response, mut upload) = begin(&mut send, None);
        expect(&mut seen, Seen::Begun).await;
        upload.send_reset(Reason::NO_ERROR);
        expect(&mut seen, Seen::Cut).await;
    }
}

#[tokio::test]
async fn what_is_complete_is_an_end() {
    for with_axum in [false, true] {
        let (to, mut seen) = serve(with_axum).await;
        let mut send = connect(to).await;
        for length in [None, Some(10)] {
            for (ends_with_data, trailers) in [(true, false), (false, false), (false, true)] {
                let (response, mut upload) = begin(&mut send, length);
                upload.send_data("first".into(), false).unwrap();
                expect(&mut seen, Seen::Begun).await;
                expect(&mut seen, Seen::Frame).await;
                upload.send_data("other".into(), ends_with_data).unwrap();
                if trailers {
                    let name = HeaderName::from_static("x-sum");
                    let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static("1"))]);
                    upload.send_trailers(trailers).unwrap();
                } else if !ends_with_data {
                    upload.send_data(Bytes::new(), true).unwrap();
                }
                let bytes = 10;
                assert_eq!(end(&mut seen).await, Seen::End { bytes, trailers });
                soon(response).await;
            }
        }
        // An empty one, by its head or by a frame.
        for (length, at_once) in [(None, true), (Some(0), true), (None, false)] {
            let mut request = Request::builder().method(Method::POST).uri("http://x/");
            if let Some(length) = length {
                request = request.header("content-length", length);
            }
            let request = request.body(()).unwrap();
            let (response, mut upload) = send.send_request(request, at_once).unwrap();
            if !at_once {
                upload.send_data(Bytes::new(), true).unwrap();
            }
            let (bytes, trailers) = (0, false);
            assert_eq!(end(&mut seen).await, Seen::End { bytes, trailers });
            soon(response).await.unwrap();
        }
    }
}

/// A client that was cut off from the network: nothing comes any more, and hyper gives its connection up, which is no error to it.
#[tokio::test]
async fn a_keep_alive_that_is_not_answered_is_a_cut() {
    in_time(Duration::from_millis(200), |keep_alive| async move {
        let (to, mut seen) = serve_with(false, keep_alive).await;
        let stream = TcpStream::connect(to).await.unwrap();
        let (mut send, mut connection) = h2::client::handshake(stream).await.ok()?;
        let (_response, mut upload) = begin(&mut send, None);
        upload.send_data("half".into(), false).unwrap();
        let half = async {
            expect(&mut seen, Seen::Begun).await;
            soon(seen.recv()).await == Some(Seen::Frame)
        };
        let is_there = tokio::select! {
            is_there = half => is_there,
            // It was given up before that.
            _ = &mut connection => false,
        };
        is_there.then_some(())?;
        // From here on nobody looks at the connection, which is open.
        expect(&mut seen, Seen::Cut).await;
        drop((send, connection));
        Some(())
    })
    .await;
}

/// Bodies that are not hyper's: what they say is what counts, over HTTP/2 only.
#[tokio::test]
async fn what_bodies_of_others_say() {
    let frames = || {
        let frames =
            ["first", "other"].map(|data| Ok::<_, Infallible>(Frame::data(Bytes::from(data))));
        Body::new(StreamBody::new(tokio_stream::iter(frames)))
    };
    for (version, length, body, is_whole) in [
        // It does not answer the question.
        (Version::HTTP_2, None, frames(), false),
        (Version::HTTP_2, Some("10"), frames(), true),
        (Version::HTTP_2, Some("11"), frames(), false),
        (Version::HTTP_2, Some("ten"), frames(), false),
        (Version::HTTP_11, None, frames(), true),
        (Version::HTTP_3, None, frames(), true),
        (
            Version::HTTP_2,
            None,
            Body::new(Full::new(Bytes::from("0123456789"))),
            true,
        ),
        (Version::HTTP_2, None, Body::empty(), true),
    ] {
        let (sender, mut seen) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<UploadBody<Body>>| {
            let tells = Tells::new(&sender);
            async move {
                read(request.into_body(), tells).await;
                Ok::<_, Infallible>(())
            }
        });
        let mut request = Request::builder().version(version);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let request = request.body(body).unwrap();
        UploadLayer.layer(service).oneshot(request).await.unwrap();
        let end = end(&mut seen).await;
        assert_eq!(end != Seen::Cut, is_whole, "{version:?} {length:?}");
    }
}
