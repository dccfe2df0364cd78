//! The end of a server of tonic's: in phases, and each of them ends.

use cancel_tree::integrations::serve::{
    Phase, Serve, Server, ServerFuture, ServerHandle, ServerReport,
};
use cancel_tree::integrations::signals::Signal;
use cancel_tree::integrations::tower::{ContextLayer, DeadlineHeader};
use cancel_tree::{Context, Group};
use servers::grpc::{channel, Around, Bytes, Message, Test};
use servers::{in_time, millis, patience, soon, Seen};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

struct Served {
    to: SocketAddr,
    handle: ServerHandle,
    contexts: mpsc::UnboundedReceiver<Context>,
    report: JoinHandle<ServerReport>,
}

/// No wait that a test has not asked for.
fn server() -> Serve {
    let serve = Serve::new(&Context::background()).lame_duck(Duration::ZERO);
    serve
        .graceful(patience())
        .cancelled(patience())
        .dropped(patience())
}

async fn serve(serve: Serve) -> Served {
    let (seen, contexts) = Seen::new();
    let test = Test {
        seen,
        begun: mpsc::unbounded_channel().0,
        uploads: mpsc::unbounded_channel().0,
    };
    let server: Server = serve.start().unwrap();
    let handle = server.handle();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let layer = ContextLayer::new(&Context::background())
        .in_group(handle.requests())
        .deadline_from([DeadlineHeader::GRPC])
        .named();
    let tonic = tonic::transport::Server::builder().layer(layer);
    let incoming = TcpListenerStream::new(listener);
    let graceful = server.graceful();
    let serving = { tonic }.serve_with_incoming_shutdown(test, incoming, graceful);
    let report = tokio::spawn(server.run(serving));
    Served {
        to,
        handle,
        contexts,
        report,
    }
}

impl Served {
    async fn client(&self) -> Grpc<Channel> {
        Grpc::new(channel(self.to).await)
    }

    /// A call whose handler has begun.
    async fn begin(&mut self, said: &str) -> JoinHandle<Result<Message, Status>> {
        let mut client = self.client().await;
        let said = said.as_bytes().to_vec();
        let call = tokio::spawn(async move {
            client.ready().await.unwrap();
            let path = hyper::http::uri::PathAndQuery::from_static("/test/unary");
            let answer = client.unary(Request::new(said), path, Bytes).await?;
            Ok(answer.into_inner())
        });
        drop(soon(self.contexts.recv()).await.unwrap());
        call
    }

    async fn until(&self, phase: Phase) {
        soon(async {
            while self.handle.phase() < phase {
                tokio::time::sleep(millis(1)).await;
            }
        })
        .await;
    }

    async fn report(self) -> ServerReport {
        soon(self.report).await.unwrap()
    }
}

fn phases(report: &ServerReport) -> Vec<Phase> {
    report.phases.iter().map(|(phase, _)| *phase).collect()
}

#[tokio::test]
async fn calls_finish_in_the_lame_duck_and_after_it() {
    let mut served = serve(server().lame_duck(Duration::from_secs(3600))).await;
    let held = served.begin("polite").await;
    served.handle.end(Signal::TERM);
    served.until(Phase::LameDuck).await;
    assert!(!served.handle.is_ready());
    // Not ready, but serving; also those who are new.
    let answer = soon(served.begin("left").await).await.unwrap().unwrap();
    assert_eq!(answer, b"no deadline");
    // Who is there has its time.
    served.handle.force(Signal::TERM);
    let status = soon(held).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "the server is shutting down");
    let report = served.report().await;
    assert!(matches!(report.server, ServerFuture::Ended), "{report}");
    assert!(report.tasks.stuck.is_empty(), "{report}");
    assert_eq!(report.exit_code(), 0);
    assert_eq!(
        phases(&report),
        [Phase::LameDuck, Phase::Graceful, Phase::Cancelled]
    );
}

#[tokio::test]
async fn calls_and_streams_that_do_not_stop_are_named() {
    // As long as the one that stops may take on a busy machine to be counted, in one of the attempts.
    in_time(millis(1500), those_who_stop_are_not_named).await;
}

async fn those_who_stop_are_not_named(cancelled: Duration) -> Option<()> {
    let serve_ = server()
        .graceful(millis(100))
        .cancelled(cancelled)
        .dropped(cancelled / 15);
    let mut served = serve(serve_).await;
    let polite = served.begin("polite").await;
    let _deaf = served.begin("wait").await;
    let mut client = served.client().await;
    client.ready().await.unwrap();
    let path = hyper::http::uri::PathAndQuery::from_static("/test/server");
    let endless = client.server_streaming(Request::new(Vec::new()), path, Bytes);
    let mut endless = soon(endless).await.unwrap().into_inner();
    soon(endless.message()).await.unwrap().unwrap();
    // The client takes what comes, so that the stream goes on.
    let reading = tokio::spawn(async move { while let Ok(Some(_)) = endless.message().await {} });
    served.handle.end(Signal::TERM);
    served.until(Phase::Graceful).await;
    let to = served.to;
    soon(async {
        while TcpStream::connect(to).await.is_ok() {
            tokio::time::sleep(millis(1)).await;
        }
    })
    .await;
    let report = served.report().await;
    // Or the executor was late to drop it.
    if report.tasks.stuck.len() == 3 || matches!(report.server, ServerFuture::Stuck) {
        return None;
    }
    let mut stuck: Vec<_> = report
        .tasks
        .stuck
        .iter()
        .map(|task| task.name.as_deref())
        .collect();
    stuck.sort_unstable();
    assert_eq!(
        stuck,
        [Some("POST /test/server"), Some("POST /test/unary")],
        "{report}"
    );
    assert!(matches!(report.server, ServerFuture::Dropped), "{report}");
    assert_eq!(report.exit_code(), 143);
    assert_eq!(
        soon(polite).await.unwrap().unwrap_err().code(),
        Code::Unavailable
    );
    reading.abort();
    Some(())
}

/// A call on a connection that was there before: the group takes nothing any more.
#[tokio::test]
async fn a_call_that_comes_too_late_is_unavailable() {
    let group = Group::new(&Context::background());
    let layer = ContextLayer::new(&Context::background()).in_group(&group);
    let served = servers::grpc::serve(Around::Context(layer.clone())).await;
    let mut client = Grpc::new(channel(served.to).await);
    for code in [Code::Ok, Code::Unavailable] {
        client.ready().await.unwrap();
        let path = hyper::http::uri::PathAndQuery::from_static("/test/unary");
        let call = client.unary(Request::new(b"left".to_vec()), path, Bytes);
        let answer: Result<_, Status> = soon(call).await;
        match answer {
            Ok(_) => assert_eq!(code, Code::Ok),
            Err(status) => {
                assert_eq!(status.code(), code);
                assert_eq!(status.message(), "the server is shutting down");
            }
        }
        group.close();
    }
    assert_eq!(layer.counts().refused, 1);
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Connections of HTTP/2 that say nothing, half of the preface, all of it and no settings, and no more than these (so that a GOAWAY's ping is never
/// answered); beside one that was used. None of them is anybody, and none holds the end up for longer than its bounds.
#[tokio::test]
async fn idle_connections_without_their_preface() {
    let bound = millis(300);
    let greeted = [PREFACE, SETTINGS].concat();
    for said in [b"", &PREFACE[..10], PREFACE, &greeted] {
        let serve_ = server().graceful(bound).cancelled(bound);
        let mut served = serve(serve_).await;
        let mut idle = TcpStream::connect(served.to).await.unwrap();
        idle.write_all(said).await.unwrap();
        if said.len() > PREFACE.len() {
            // The server's own settings: it is there.
            soon(idle.read_u8()).await.unwrap();
        }
        // One after it, so that the first one was accepted; it stays open.
        let mut used = served.client().await;
        used.ready().await.unwrap();
        let path = hyper::http::uri::PathAndQuery::from_static("/test/unary");
        let answer = used.unary(Request::new(Vec::new()), path, Bytes);
        soon(answer).await.unwrap();
        drop(soon(served.contexts.recv()).await.unwrap());
        served.handle.end(Signal::TERM);
        let report = served.report().await;
        println!("{} bytes of HTTP/2: {report}", said.len());
        assert!(report.tasks.stuck.is_empty(), "{report}");
        match report.server {
            ServerFuture::Ended => assert_eq!(report.exit_code(), 0),
            ServerFuture::Dropped => assert_eq!(report.exit_code(), 143),
            _ => panic!("{report}"),
        }
        drop((idle, used));
    }
}

/// Two servers below one context, and one end for both.
#[tokio::test]
async fn two_servers_with_one_context() {
    let (above, end) = Context::background().with_cancel();
    let both = || {
        Serve::new(&above)
            .lame_duck(Duration::ZERO)
            .cancelled(patience())
    };
    let mut first = serve(both()).await;
    let mut second = serve(both()).await;
    let calls = [first.begin("polite").await, second.begin("polite").await];
    end.cancel_with("over");
    for call in calls {
        let status = soon(call).await.unwrap().unwrap_err();
        assert_eq!(status.message(), "over");
    }
    for served in [first, second] {
        let report = served.report().await;
        assert_eq!(report.cause.to_string(), "over");
        assert!(report.tasks.stuck.is_empty(), "{report}");
        assert!(matches!(report.server, ServerFuture::Ended), "{report}");
    }
}
