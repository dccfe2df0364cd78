//! gRPC: tonic's server and client, both ways, and clients by hand where tonic's own timers would be in the way.

use bytes::Bytes as Data;
use cancel_tree::integrations::tower::{
    ClientGone, Completed, ContextLayer, DeadlineHeader, PropagateLayer, PropagateService,
    UploadLayer,
};
use cancel_tree::{Context, ContextError};
use h2::client::SendRequest;
use hyper::http;
use hyper::HeaderMap;
use servers::grpc::{channel, frame, serve, serve_tonic, upload, Around, Bytes, Test, SHORT};
use servers::{cause, ended_by, in_time, millis, patience, soon, Seen};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tower::Layer;

fn layer() -> ContextLayer {
    ContextLayer::new(&Context::background()).deadline_from([DeadlineHeader::GRPC])
}

/// tonic's channel with ours around it.
async fn client(to: SocketAddr) -> Grpc<PropagateService<Channel>> {
    let layer = PropagateLayer::new(DeadlineHeader::GRPC);
    let mut client = Grpc::new(layer.layer(channel(to).await));
    client.ready().await.unwrap();
    client
}

fn under<T>(ctx: &Context, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(ctx.clone());
    request
}

fn path(of: &'static str) -> http::uri::PathAndQuery {
    http::uri::PathAndQuery::from_static(of)
}

async fn unary(
    client: &mut Grpc<PropagateService<Channel>>,
    ctx: &Context,
    message: &str,
) -> Result<String, Status> {
    let request = under(ctx, message.as_bytes().to_vec());
    client.ready().await.unwrap();
    let answer = client.unary(request, path("/test/unary"), Bytes).await?;
    Ok(String::from_utf8(answer.into_inner()).unwrap())
}

#[tokio::test]
async fn the_deadline_arrives_and_real_answers_are_untouched() {
    let mut served = serve(Around::Context(layer())).await;
    let mut client = client(served.to).await;
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(60));
    let left: u64 = soon(unary(&mut client, &ctx, "left"))
        .await
        .unwrap()
        .parse()
        .unwrap();
    assert!(left > 20_000 && left <= 60_000, "{left}");
    ended_by::<Completed>(&mut served.contexts).await;
    let none = unary(&mut client, &Context::background(), "left")
        .await
        .unwrap();
    assert_eq!(none, "no deadline");
    let status = unary(&mut client, &ctx, "missing").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn our_deadline_comes_back_as_deadline_exceeded_and_ends_the_server_side() {
    let mut served = serve(Around::Context(layer())).await;
    let mut client = client(served.to).await;
    for _ in 0..20 {
        let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(20));
        let status = soon(unary(&mut client, &ctx, "wait")).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    }
    // Whatever has reached the server is over there. (Some may not have: their time was up before.)
    while let Ok(ctx) = served.contexts.try_recv() {
        soon(ctx.done()).await;
    }
    // A cancel of ours: CANCELLED here, and gone over there. (A server of its own: a call from above may still come to that one.)
    let mut served = serve(Around::Context(layer())).await;
    let mut client = self::client(served.to).await;
    let (ctx, guard) = Context::background().with_cancel();
    let (status, ()) = tokio::join!(unary(&mut client, &ctx, "wait"), async {
        let there = soon(served.contexts.recv()).await.unwrap();
        guard.cancel();
        soon(there.done()).await;
        assert!(there
            .cause()
            .unwrap()
            .downcast_ref::<ClientGone>()
            .is_some());
    });
    assert_eq!(status.unwrap_err().code(), Code::Cancelled);
}

#[tokio::test]
async fn streams_of_the_server_end_with_trailers_at_the_deadline() {
    let served = serve(Around::Context(layer())).await;
    let mut client = client(served.to).await;
    let (ctx, guard) = Context::background().with_timeout(SHORT);
    let request = under(&ctx, Vec::new());
    let stream = client.server_streaming(request, path("/test/server"), Bytes);
    match soon(stream).await {
        Ok(answer) => {
            let mut messages = answer.into_inner();
            let status = loop {
                match soon(messages.message()).await {
                    Ok(message) => assert!(message.is_some(), "no clean end"),
                    Err(status) => break status,
                }
            };
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        }
        // The head took its time.
        Err(status) => assert_eq!(status.code(), Code::DeadlineExceeded, "{status}"),
    }
    guard.cancel();
    // A stream that is dropped ends its context. (A server of its own: the call above may still come to its own.)
    let mut served = serve(Around::Context(layer())).await;
    let mut client = self::client(served.to).await;
    let request = under(&Context::background(), Vec::new());
    let stream = client.server_streaming(request, path("/test/server"), Bytes);
    let mut messages = soon(stream).await.unwrap().into_inner();
    soon(messages.message()).await.unwrap().unwrap();
    drop(messages);
    ended_by::<ClientGone>(&mut served.contexts).await;
}

#[tokio::test]
async fn streams_both_ways() {
    let mut served = serve(Around::Context(layer())).await;
    let mut client = client(served.to).await;
    let (ctx, _guard) = Context::background().with_timeout(patience());
    let messages = tokio_stream::iter(["a", "b"]).map(|text| text.as_bytes().to_vec());
    let answer = client.streaming(under(&ctx, messages), path("/test/bidi"), Bytes);
    let echo = soon(answer).await.unwrap().into_inner();
    let echo: Vec<_> = soon(echo.map(Result::unwrap).collect::<Vec<_>>()).await;
    assert_eq!(echo, [b"a", b"b"]);
    ended_by::<Completed>(&mut served.contexts).await;

    client.ready().await.unwrap();
    let (ctx, _guard) = Context::background().with_timeout(SHORT);
    let answer = client.streaming(under(&ctx, upload(3)), path("/test/bidi"), Bytes);
    let status = match soon(answer).await {
        Ok(answer) => {
            let mut echo = answer.into_inner();
            loop {
                match soon(echo.message()).await {
                    Ok(message) => assert!(message.is_some(), "no clean end"),
                    Err(status) => break status,
                }
            }
        }
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

/// An upload is cut by our end of the call: the server is told by a reset, and not by an end.
#[tokio::test]
async fn an_upload_that_we_cut_is_reset() {
    for by_deadline in [false, true] {
        in_time(millis(200), |limit| async move {
            let (to, mut ended) = ends_of_uploads().await;
            let mut client = client(to).await;
            let (ctx, guard) = match by_deadline {
                false => Context::background().with_cancel(),
                true => Context::background().with_timeout(limit),
            };
            let mut request = under(&ctx, upload(3));
            // What older versions of hyper need: they end the upload well when the call is dropped.
            let handle = request.cancellation_handle();
            let _reset = ctx.after_func(move || handle.cancel());
            let answer = client.client_streaming(request, path("/test/client"), Bytes);
            let (answer, began) = tokio::join!(soon(answer), async {
                let began = ctx.run(ended.recv()).await;
                if !by_deadline {
                    guard.cancel();
                }
                began
            });
            let code = answer.unwrap_err().code();
            match by_deadline {
                false => assert_eq!(code, Code::Cancelled),
                true => assert_eq!(code, Code::DeadlineExceeded),
            }
            // If the deadline passed before, there is no end to be seen.
            assert_eq!(began.ok()?.unwrap(), None);
            let end = soon(ended.recv()).await.unwrap();
            assert_eq!(end, Some(Some(h2::Reason::CANCEL)));
            Some(())
        })
        .await;
    }
}

/// A server by hand, which sees each frame. Of each upload it says that it begins, and how it ends.
async fn ends_of_uploads() -> (
    SocketAddr,
    mpsc::UnboundedReceiver<Option<Option<h2::Reason>>>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let (ends, ended) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(request) = connection.accept().await {
            let (request, answer) = request.unwrap();
            let ends = ends.clone();
            tokio::spawn(async move {
                let mut body = request.into_body();
                ends.send(None).unwrap();
                let end = loop {
                    match body.data().await {
                        Some(Ok(data)) => {
                            body.flow_control().release_capacity(data.len()).unwrap();
                        }
                        Some(Err(error)) => break error.reason(),
                        None => break None,
                    }
                };
                ends.send(Some(end)).unwrap();
                drop(answer);
            });
        }
    });
    (to, ended)
}

/// tonic's server takes the reset for the end of the upload; under our layer it does not.
#[tokio::test]
async fn a_server_under_our_layer_never_takes_a_reset_for_an_end() {
    let mut served = serve(Around::Uploads(UploadLayer)).await;
    let mut client = client(served.to).await;
    for _ in 0..10 {
        client.ready().await.unwrap();
        let (ctx, guard) = Context::background().with_cancel();
        let request = under(&ctx, upload(3));
        let answer = client.client_streaming(request, path("/test/client"), Bytes);
        let (answer, ()) = tokio::join!(soon(answer), async {
            soon(served.begun.recv()).await.unwrap();
            guard.cancel();
        });
        assert_eq!(answer.unwrap_err().code(), Code::Cancelled);
        // Or the handler was dropped before it saw anything.
        if let Ok(end) = served.uploads.try_recv() {
            assert!(end.is_err(), "taken for an end: {end:?}");
        }
    }
    // One that is complete is.
    client.ready().await.unwrap();
    let messages = tokio_stream::iter([vec![1], vec![2]]);
    let request = under(&Context::background(), messages);
    let answer = client.client_streaming(request, path("/test/client"), Bytes);
    assert_eq!(soon(answer).await.unwrap().into_inner(), b"2");
    let mut last = soon(served.uploads.recv()).await.unwrap();
    while let Ok(end) = served.uploads.try_recv() {
        last = end;
    }
    assert_eq!(last, Ok(2));
}

/// The same of a reset that is no error, which hyper itself takes for an end: tonic sees ours. What is complete is, by trailers too.
#[tokio::test]
async fn a_reset_that_is_no_error_is_no_end_either() {
    let mut served = serve(Around::Uploads(UploadLayer)).await;
    let mut send = by_hand(served.to).await;
    for ends in ["reset", "data", "frame", "trailers"] {
        let request = http::Request::post("http://x/test/client")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut upload) = send.send_request(request, false).unwrap();
        upload.send_data(frame(b"1").into(), false).unwrap();
        soon(served.begun.recv()).await.unwrap();
        match ends {
            "reset" => upload.send_reset(h2::Reason::NO_ERROR),
            "data" => upload.send_data(frame(b"2").into(), true).unwrap(),
            "frame" => upload.send_data(Data::new(), true).unwrap(),
            _ => upload.send_trailers(HeaderMap::new()).unwrap(),
        }
        let end = soon(served.uploads.recv()).await.unwrap();
        match ends {
            "reset" => assert!(matches!(end, Err((1, _))), "taken for an end: {end:?}"),
            "data" => assert_eq!(end, Ok(2)),
            _ => assert_eq!(end, Ok(1)),
        }
        drop(response);
    }
}

/// A client by hand: it has no timer of its own, and sees what the server says.
async fn by_hand(to: SocketAddr) -> SendRequest<Data> {
    let stream = TcpStream::connect(to).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

/// What the server says at the end: in the head, or in the trailers.
async fn status(send: &mut SendRequest<Data>, path: &str, timeout: &str, said: &[u8]) -> String {
    let request = http::Request::builder()
        .method("POST")
        .uri(format!("http://x{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(())
        .unwrap();
    let (response, mut stream) = send.send_request(request, false).unwrap();
    stream.send_data(frame(said).into(), true).unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), 200);
    let said = |headers: &HeaderMap| {
        let status = headers.get("grpc-status")?;
        Some(status.to_str().unwrap().to_owned())
    };
    if let Some(status) = said(response.headers()) {
        return status;
    }
    let mut body = response.into_body();
    while let Some(data) = soon(body.data()).await {
        body.flow_control()
            .release_capacity(data.unwrap().len())
            .unwrap();
    }
    said(&soon(body.trailers()).await.unwrap().unwrap()).unwrap()
}

/// tonic's own timer stands outside of ours, and answers CANCELLED at the same deadline: we are the first.
#[tokio::test]
async fn the_server_answers_deadline_exceeded_where_tonics_own_timer_says_cancelled() {
    let with = serve(Around::Context(layer())).await;
    let without = serve(Around::Nothing).await;
    let mut send = by_hand(with.to).await;
    for _ in 0..30 {
        assert_eq!(status(&mut send, "/test/unary", "10m", b"wait").await, "4");
    }
    for path in ["/test/server", "/test/unary"] {
        assert_eq!(status(&mut send, path, "0n", b"wait").await, "4");
        assert_eq!(status(&mut send, path, "30m", b"wait").await, "4");
    }
    let mut send = by_hand(without.to).await;
    assert_eq!(status(&mut send, "/test/unary", "10m", b"wait").await, "1");
}

/// Its trailers are in the body: inside of tonic-web's layer ours is a part of the translation, outside of it a body is cut.
#[tokio::test]
async fn grpc_web_at_the_deadline() {
    let (seen, mut contexts) = Seen::new();
    let (uploads, _) = mpsc::unbounded_channel();
    let (begun, _) = mpsc::unbounded_channel();
    let test = Test {
        seen,
        begun,
        uploads,
    };
    let web = tonic_web::GrpcWebLayer::new();
    let to = serve_tonic(test, Around::Web(web, layer())).await;
    for path in ["/test/unary", "/test/server"] {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let message = frame(b"wait");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/grpc-web+proto\r\n\
             grpc-timeout: 50m\r\nContent-Length: {}\r\n\r\n",
            message.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&message).await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.replace(": ", ":").contains("grpc-status:4"),
            "{answer}"
        );
        let ended = cause(&mut contexts).await;
        assert!(ended == ContextError::DeadlineExceeded);
    }
}
