//! Clients of HTTP/1 that only hold what they have got: half a request, no request, an answer that nobody reads. Each is given up after
//! `--patience`, and until then costs nobody else anything. (Those of HTTP/2: `streams.rs`.)

mod common;

use common::{eventually, Answer, Dir, Server, BUSY};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;
use tokio::net::TcpSocket;

/// One of them is enough for what a client has to do within it, from when it is connected on; a busy machine may take longer.
const PATIENCE: [&str; 3] = ["500ms", "4s", "16s"];

/// Its hits are more than fits into all buffers on the way.
fn much_tea() -> Dir {
    let path = format!("{}/", "t".repeat(200)).repeat(12) + "a.txt";
    let line = format!("tea {}\n", "\u{1f375}".repeat(150));
    Dir::new(&[(&path, &line.repeat(1000))])
}

/// A client that has room for next to nothing, and has asked for that.
fn narrow(server: &Server, search: &str, headers: &str) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let mut stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        let stream = socket.connect(server.address).await.unwrap();
        stream.into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(2 * BUSY)).unwrap();
    let head = format!("GET /search?q=e&{search} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Waits until the other side has closed it, and returns what came until then.
fn until_closed(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nobody closes"),
        _ => bytes,
    }
}

fn descriptors(server: &Server) -> usize {
    let all = fs::read_dir(format!("/proc/{}/fd", server.id()));
    all.map_or(0, Iterator::count)
}

/// The descriptors before are those before the first connection.
fn all_is_gone(server: &Server, before: usize) {
    server.wait_until("search_tasks", |tasks| tasks == 0);
    let works = eventually("an answer", || {
        let answer = server.get("/debug/searches", "");
        (answer.status == 200).then_some(answer.body)
    });
    assert_eq!(works, "searches: 0\n");
    eventually("no more descriptors than before", || {
        (descriptors(server) <= before).then_some(())
    });
}

#[test]
fn an_answer_that_nobody_reads() {
    let dir = much_tea();
    for accept in ["text/event-stream", "application/json"] {
        let answers = PATIENCE.into_iter().any(|patience| {
            let server = Server::alone(&dir, &["--patience", patience]);
            let before = descriptors(&server);
            let client = narrow(&server, "n=1000&timeout=1s", &format!("Accept: {accept}"));
            // While the client is there, and reads nothing.
            let answers = eventually("an answer", || client.peek(&mut [0]).ok()) > 0;
            all_is_gone(&server, before);
            let came = until_closed(&client);
            let all = came.len();
            assert!(all < 2_500_000, "it was read, for all {all}");
            answers
        });
        assert!(answers, "no answer: {accept}");
    }
}

#[test]
fn a_search_ends_whether_its_answer_is_read_or_not() {
    let dir = much_tea();
    // A busy machine may not find more than fits within the first.
    let waits = ["1s", "4s", "16s"].into_iter().any(|limit| {
        let server = Server::alone(&dir, &["--patience", "1h"]);
        let search = format!("n=1000&timeout={limit}");
        let client = narrow(&server, &search, "Accept: text/event-stream");
        server.wait_until("search_ended_total{by=\"limit\"}", |count| count == 1);
        assert_eq!(server.get("/debug/searches", "").body, "searches: 0\n");
        // What is left is the request, as long as the connection is there.
        let waits = server.metric("search_tasks") == 1;
        drop(client);
        server.wait_until("search_tasks", |tasks| tasks == 0);
        waits
    });
    assert!(waits, "the request is gone");
}

#[test]
fn an_answer_that_nobody_reads_does_not_hold_up_the_end() {
    let dir = much_tea();
    let args = ["--patience", "1s", "--lame-duck", "0s", "--graceful", "1h"];
    let server = Server::alone(&dir, &args);
    let client = narrow(&server, "n=1000&timeout=1s", "Accept: text/event-stream");
    eventually("an answer", || client.peek(&mut [0]).ok());
    server.signal(libc::SIGTERM);
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said:#?}");
    let says = "the server ended by itself";
    assert!(said.iter().any(|line| line.contains(says)), "{said:#?}");
}

#[test]
fn an_answer_that_is_read_slowly_is_read_to_its_end() {
    let dir = much_tea();
    let server = Server::alone(&dir, &["--patience", "30s"]);
    let mut client = narrow(
        &server,
        "n=300&timeout=60s",
        "Accept: text/event-stream\r\nConnection: close",
    );
    let mut came = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        match client.read(&mut bytes).unwrap() {
            0 => break,
            read => came.extend_from_slice(&bytes[..read]),
        }
        thread::sleep(Duration::from_millis(1));
    }
    let came = String::from_utf8_lossy(&came);
    assert_eq!(came.matches("event: hit\n").count(), 300);
    assert!(came.contains("event: stopped\n"));
}

#[test]
fn half_a_request() {
    let dir = Dir::new(&[("a.txt", "tea")]);
    let mut wrong = Vec::new();
    let is_right = PATIENCE.into_iter().any(|patience| {
        wrong = halves_taken_wrong(&dir, patience);
        wrong.is_empty()
    });
    assert!(is_right, "{wrong:?}");
}

/// Those that were answered though nothing was asked, or not though something was; and what came instead.
fn halves_taken_wrong(dir: &Dir, patience: &str) -> Vec<(&'static str, String)> {
    let server = Server::alone(dir, &["--patience", patience]);
    let before = descriptors(&server);
    let halves = [
        "",
        "G",
        "GET / HTTP/1.1\r\nHost:",
        "PRI * HT",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        // One that is answered, and half of another.
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET ",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\ntea",
    ];
    let clients = halves.map(|half| {
        let mut client = TcpStream::connect(server.address).unwrap();
        client.set_read_timeout(Some(2 * BUSY)).unwrap();
        client.write_all(half.as_bytes()).unwrap();
        client
    });
    let mut wrong = Vec::new();
    for (half, client) in halves.iter().zip(&clients) {
        let came = until_closed(client);
        let answered = came.starts_with(b"HTTP/1.1 200 ");
        if answered != half.contains("/healthz") {
            wrong.push((*half, String::from_utf8_lossy(&came).into_owned()));
        }
    }
    all_is_gone(&server, before);
    wrong
}

#[test]
fn half_a_request_does_not_hold_up_the_end() {
    let dir = Dir::new(&[("a.txt", "tea")]);
    let args = ["--patience", "1s", "--lame-duck", "0s", "--graceful", "1h"];
    let server = Server::alone(&dir, &args);
    let clients = ["", "GET / HT", "PRI * HT"].map(|half| {
        let mut client = TcpStream::connect(server.address).unwrap();
        client.write_all(half.as_bytes()).unwrap();
        client
    });
    server.get("/healthz", "");
    server.signal(libc::SIGTERM);
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said:#?}");
    drop(clients);
}

#[test]
fn more_connections_than_there_may_be() {
    let dir = Dir::new(&[("a.txt", "tea")]);
    let mut last = None;
    let has_its_turn = ["500ms", "4s", "12s"].into_iter().any(|patience| {
        let answer = last.insert(one_after_many(&dir, patience));
        answer.status == 200 && answer.json()["count"] == 1
    });
    assert!(has_its_turn, "{last:?}");
}

/// The answer for one that comes after four times as many as there may be.
fn one_after_many(dir: &Dir, patience: &str) -> Answer {
    let args = ["--patience", patience, "--connections", "5"];
    let server = Server::alone(dir, &args);
    let before = descriptors(&server);
    let silent = [(); 20].map(|()| TcpStream::connect(server.address).unwrap());
    // Who comes after them waits, and has its turn.
    let stream = server.send("/search?q=tea&timeout=30s", "");
    let asker = thread::spawn(|| Answer::read(stream));
    while !asker.is_finished() {
        let now = descriptors(&server);
        // The connections, and the file that is searched.
        assert!(now <= before + 5 + 1, "{now}, {before} before");
        thread::sleep(Duration::from_millis(1));
    }
    drop(silent);
    all_is_gone(&server, before);
    asker.join().unwrap()
}
