//! Over loopback, beside tower-http's timeout and Go's net/http: bench.sh.
//!
//!     load throughput [GO_PORT]    requests a second of a hello over 32 connections, the median of the rounds, and its share of bare
//!     load reset                   from a client's reset to the end of the handler's context, beside about 10,000 idle connections

use axum::body::Body;
use axum::http::{Response, StatusCode};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use cancel_tree::integrations::tower::{ContextLayer, DeadlineHeader};
use cancel_tree::Context;
use http_body_util::BodyExt;
use hyper::http::Request;
use servers::{serve, soon};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tower::util::MapResponseLayer;
use tower_http::timeout::TimeoutLayer;

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(700);
/// About 10,000: both ends of each are in this process, whose files may be limited to 20,000.
const IDLE: usize = 9_900;
const RESETS: usize = 2_000;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("throughput") => {
            let go = arguments.next().and_then(|port| port.parse().ok());
            throughput(go.map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port)))).await;
        }
        Some("reset") => reset().await,
        _ => panic!("throughput or reset"),
    }
}

/// Requests a second.
async fn round(to: SocketAddr, path: &str) -> f64 {
    let begin = Instant::now();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nconnect-timeout-ms: 30000\r\n\r\n");
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let request = request.clone();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(to).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut count, mut answer) = (0, [0; 1024]);
                while begin.elapsed() < ROUND {
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let mut read = 0;
                    while !answer[..read].ends_with(b"hello") {
                        read += stream.read(&mut answer[read..]).await.unwrap();
                    }
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut all = 0;
    for client in clients {
        all += client.await.unwrap();
    }
    f64::from(all) / begin.elapsed().as_secs_f64()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

async fn throughput(go: Option<SocketAddr>) {
    let hello = || Router::new().route("/hello", get(|| async { "hello" }));
    let (server, _guard) = Context::background().with_cancel();
    let plain = ContextLayer::new(&server);
    let believing = plain.clone().deadline_from([DeadlineHeader::CONNECT]);
    let limit = Duration::from_secs(30);
    let theirs = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limit);
    // What axum asks for any layer whose response has a body of its own.
    let nothing = MapResponseLayer::new(|response: Response<Body>| {
        response.map(|body| body.map_err(std::convert::identity))
    });
    let mut rows = vec![
        ("bare", serve(hello()).await, "/hello"),
        (
            "a layer that does nothing",
            serve(hello().layer(nothing)).await,
            "/hello",
        ),
        ("ContextLayer", serve(hello().layer(plain)).await, "/hello"),
        (
            "ContextLayer, a deadline by header",
            serve(hello().layer(believing)).await,
            "/hello",
        ),
        (
            "tower-http's timeout",
            serve(hello().layer(theirs)).await,
            "/hello",
        ),
    ];
    if let Some(go) = go {
        rows.push(("Go, bare", go, "/hello"));
        rows.push(("Go, context.WithTimeout", go, "/timeout"));
    }
    let mut rates = vec![Vec::new(); rows.len()];
    for number in 0..ROUNDS {
        // One after the other, so that what else the machine does is spread over all; and each is first once.
        for at in 0..rows.len() {
            let at = (at + number) % rows.len();
            let (_, to, path) = rows[at];
            rates[at].push(round(to, path).await);
        }
    }
    let share = |at: usize, of: usize| {
        let shares = rates[at].iter().zip(&rates[of]).map(|(a, b)| a / b);
        median(shares.collect())
    };
    for (at, (name, ..)) in rows.iter().enumerate() {
        let bare = if at < 5 { 0 } else { 5 };
        let rate = median(rates[at].clone());
        println!("{name:36} {rate:9.0}/s  {:.3} of bare", share(at, bare));
    }
    println!(
        "ContextLayer: {:.3} of a layer that does nothing; with a deadline: {:.3} of tower-http's timeout",
        share(2, 1),
        share(3, 4)
    );
}

async fn reset() {
    let (begun, mut has_begun) = mpsc::unbounded_channel::<Context>();
    let handler = move |Extension(ctx): Extension<Context>| async move {
        begun.send(ctx).unwrap();
        std::future::pending::<()>().await;
    };
    let router = Router::new()
        .route("/", get(handler))
        .route("/hello", get(|| async { "hello" }))
        .layer(ContextLayer::new(&Context::background()));
    let to = serve(router).await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        match TcpStream::connect(to).await {
            Ok(stream) => idle.push(stream),
            Err(error) => {
                println!("only {} idle connections: {error}", idle.len());
                break;
            }
        }
    }
    let stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut send: h2::client::SendRequest<Bytes> = send;
    let mut times = Vec::new();
    for _ in 0..RESETS {
        send = soon(send.ready()).await.unwrap();
        let request = Request::get("http://x/").body(()).unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        let ctx = soon(has_begun.recv()).await.unwrap();
        let begin = Instant::now();
        drop(response);
        soon(ctx.done()).await;
        times.push(begin.elapsed());
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "from a reset to the end of the context, beside {} connections: p50 {:?}, p99 {:?}, most {:?}",
        idle.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
