//! Clients of HTTP/2 that answer all that keeps a connection, and do nothing else: what has been sent is not taken, or nothing is asked. Each is
//! given up after `--patience`.

mod common;

use common::{eventually, Answer, Dir, Server, BUSY};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// One of them is enough for what a client has to do within it; a busy machine may take longer.
const PATIENCE: [&str; 3] = ["1s", "4s", "16s"];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()];
    [&head.concat(), payload].concat()
}

/// A pair of the table that has the name already, or none; the value as it is.
fn header(name: u8, value: &str) -> Vec<u8> {
    // Four bits, and then what is more than 15.
    let name = match name.checked_sub(15) {
        None => vec![name],
        Some(more) => vec![15, more],
    };
    [&name[..], &[value.len() as u8], value.as_bytes()].concat()
}

/// A client that takes `window` bytes of each body, until it is given more room.
struct Client {
    stream: TcpStream,
    /// The number of the next request.
    next: u32,
    /// How many heads have come, and what has come of bodies.
    heads: usize,
    data: Vec<u8>,
}

impl Client {
    fn new(to: SocketAddr, window: u32) -> Client {
        let stream = TcpStream::connect(to).unwrap();
        let mut client = Client {
            stream,
            next: 1,
            heads: 0,
            data: Vec::new(),
        };
        let window = [&[0, 4][..], &window.to_be_bytes()].concat();
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.send(&frame(SETTINGS, 0, 0, &window));
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        // It may be closed already.
        let _ = self.stream.write_all(bytes);
    }

    fn get(&mut self, path: &str, accept: &str) -> u32 {
        let headers = [
            &[0x82, 0x86][..], // GET, http
            &header(4, path),
            &header(1, "x"),
            &header(19, accept),
        ];
        let stream = self.next;
        self.next += 2;
        // The end of the headers and of the stream.
        self.send(&frame(HEADERS, 4 | 1, stream, &headers.concat()));
        stream
    }

    /// Room for more of a body.
    fn more(&mut self, stream: u32, bytes: u32) {
        self.send(&frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()));
    }

    /// Whether that much has come, before it is `until`; it answers meanwhile what is to be answered. `None`: it is closed.
    fn exact(&mut self, bytes: &mut [u8], until: Instant) -> Option<bool> {
        let mut at = 0;
        while at < bytes.len() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(false);
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut bytes[at..]) {
                Ok(0) => return None,
                Ok(read) => at += read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
        Some(true)
    }

    /// Goes on until `is_enough`, or until the other side closes. Which of both?
    fn until(&mut self, is_enough: impl Fn(&Client) -> bool) -> bool {
        // More than the longest patience, twice.
        let until = Instant::now() + 3 * BUSY;
        while !is_enough(self) {
            let mut head = [0; 9];
            match self.exact(&mut head, until) {
                Some(true) => {}
                Some(false) => panic!("it is still open"),
                None => return false,
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if self.exact(&mut payload, until) != Some(true) {
                return false;
            }
            match (head[3], head[4] & 1) {
                (DATA, _) => self.data.extend_from_slice(&payload),
                (HEADERS, _) => self.heads += 1,
                (SETTINGS, 0) => self.send(&frame(SETTINGS, 1, 0, &[])),
                (PING, 0) => self.send(&frame(PING, 1, 0, &payload)),
                _ => {}
            }
        }
        true
    }

    fn is_closed_by_the_other_side(&mut self) {
        let is_enough = self.until(|_| false);
        assert!(!is_enough);
    }
}

fn descriptors(server: &Server) -> usize {
    let all = fs::read_dir(format!("/proc/{}/fd", server.id()));
    all.map_or(0, Iterator::count)
}

/// How many threads a search may have; two of them take all.
fn cores() -> usize {
    thread::available_parallelism().map_or(2, |cores| cores.get())
}

/// Files that are many enough for all threads of a search, with more hits than fit in anything on the way; and one with another text.
fn much_tea() -> Dir {
    let cores = cores();
    let text = format!("tea {}\n", "e".repeat(150)).repeat((40_000 / cores).min(20_000));
    let names: Vec<_> = (0..2 * cores)
        .map(|number| format!("{number}.txt"))
        .collect();
    let files = names.iter().map(|name| (&**name, &*text));
    let files: Vec<_> = files.chain([("rare.txt", "water")]).collect();
    Dir::new(&files)
}

#[test]
fn whoever_takes_nothing_is_given_up() {
    let dir = much_tea();
    let have_asked = |patience| takers_of_nothing(&dir, patience);
    assert!(PATIENCE.into_iter().any(have_asked), "no answers");
}

/// Whether each has got the head of its answer.
fn takers_of_nothing(dir: &Dir, patience: &str) -> bool {
    let server = Server::alone(dir, &["--patience", patience]);
    let (before, to) = (descriptors(&server), server.address);
    let search = "/search?q=e&n=1000&timeout=1s";
    let mut asked = Vec::new();
    for (path, accept) in [
        (search, "text/event-stream"),
        (search, "application/json"),
        ("/search?q=", "*/*"),
        (search, "image/png"),
        ("/", "*/*"),
        ("/metrics", "*/*"),
        ("/debug/cancel", "*/*"),
        ("/nothing", "*/*"),
    ] {
        asked.push((0, 1, path, accept));
        asked.push((1, 1, path, accept));
    }
    // Many answers on one connection.
    asked.push((0, 100, search, "application/json"));
    // One that has taken its answer, and asks no more.
    asked.push((1 << 16, 1, "/healthz", "*/*"));
    let clients = asked.into_iter().map(|(window, times, path, accept)| {
        thread::spawn(move || {
            let mut client = Client::new(to, window);
            for _ in 0..times {
                client.get(path, accept);
            }
            client.is_closed_by_the_other_side();
            client.heads == times
        })
    });
    let clients: Vec<_> = clients.collect();
    let have_asked = clients.into_iter().map(|client| client.join().unwrap());
    let have_asked: Vec<_> = have_asked.collect();
    server.wait_until("search_tasks", |tasks| tasks == 0);
    eventually("no more descriptors than before", || {
        (descriptors(&server) <= before).then_some(())
    });
    have_asked.into_iter().all(|has_asked| has_asked)
}

#[test]
fn who_does_nothing_keeps_nobody_out() {
    let dir = Dir::new(&[("a.txt", "tea")]);
    let is_let_in = PATIENCE.into_iter().any(|patience| {
        let server = Server::alone(&dir, &["--patience", patience, "--connections", "4"]);
        let clients = [(); 4].map(|()| {
            let mut client = Client::new(server.address, 1 << 16);
            client.get("/healthz", "*/*");
            let has_come = client.until(|client| client.data == b"ok\n");
            (client, has_come)
        });
        let asker = server.send("/search?q=tea&timeout=30s", "");
        let asker = thread::spawn(|| Answer::read(asker).status == 200);
        let mut are_answered = true;
        for (mut client, has_come) in clients {
            are_answered &= has_come;
            client.is_closed_by_the_other_side();
        }
        asker.join().unwrap() && are_answered
    });
    assert!(is_let_in);
}

#[test]
fn who_asks_again_and_again_is_kept() {
    let dir = Dir::new(&[("a.txt", "tea")]);
    let is_kept = PATIENCE
        .into_iter()
        .zip([1, 4, 16])
        .any(|(patience, seconds)| {
            let server = Server::alone(&dir, &["--patience", patience]);
            let mut client = Client::new(server.address, 1 << 16);
            (1..=30).all(|number| {
                client.get("/healthz", "*/*");
                let has_come = client.until(|client| client.data.len() == 3 * number);
                thread::sleep(Duration::from_secs(seconds) / 10);
                has_come
            })
        });
    assert!(is_kept);
}

#[test]
fn answers_that_nobody_reads_take_no_threads_from_others() {
    let dir = much_tea();
    let server = Server::alone(&dir, &["--patience", "1h"]);
    let mut client = two_unread(&server);
    // Before that another may find a thread free, and nobody waits for one.
    let all = 2 * cores() as u64;
    server.wait_until("search_working", |working| working == all);
    another_is_answered(&server);
    // It is over before its line says so.
    eventually("what was found was not taken", || {
        let works = server.get("/debug/searches", "").body;
        works
            .contains(": what was found was not taken")
            .then_some(())
    });
    // It is read after all, and says so.
    for stream in [0, 1, 3] {
        client.more(stream, 1 << 24);
    }
    let end = "\"ended\":\"not_taken\"";
    let has_end = |client: &Client| String::from_utf8_lossy(&client.data).contains(end);
    assert!(client.until(has_end));
}

#[test]
fn nor_from_the_others_of_a_backend() {
    let dir = much_tea();
    let backend = Server::backend(&dir, &[]);
    let front = Server::front(&[backend.address], &["--patience", "1h"]);
    let _client = two_unread(&front);
    another_is_answered(&front);
    // That one may have found a thread free.
    thread::sleep(Duration::from_millis(500));
    another_is_answered(&front);
}

/// Two searches that are to take all threads, and whose answers are not read.
fn two_unread(server: &Server) -> Client {
    let mut client = Client::new(server.address, 0);
    for _ in 0..2 {
        client.get("/search?q=tea&n=1000&timeout=60s", "text/event-stream");
    }
    assert!(client.until(|client| client.heads == 2));
    client
}

/// Within more than the two may stand in the way, and less than they last.
fn another_is_answered(server: &Server) {
    let answer = server.get("/search?q=water&timeout=30s", "");
    assert_eq!(answer.json()["ended"], "complete", "{answer:?}");
}

#[test]
fn what_was_complete_is_said_to_be_when_it_is_taken_late() {
    let text = "tea\n".repeat(40);
    let dir = Dir::new(&[("a.txt", &text)]);
    let server = Server::alone(&dir, &["--patience", "1h"]);
    // A busy machine may take longer to search it.
    let is_said =
        [500, 4_000, 32_000].into_iter().any(|limit| {
            let mut client = Client::new(server.address, 0);
            let path = format!("/search?q=tea&timeout={limit}ms");
            let stream = client.get(&path, "text/event-stream");
            // It is over, and of its answer nothing is taken. The limit comes.
            assert!(client.until(|client| client.heads == 1));
            thread::sleep(Duration::from_millis(limit + 100));
            client.more(stream, 60_000);
            let end = "event: end\n";
            let text = |client: &Client| String::from_utf8_lossy(&client.data).into_owned();
            assert!(
                client.until(|client| text(client).contains(end) && text(client).ends_with("\n\n"))
            );
            let text = text(&client);
            let complete = text.contains("\"ended\":\"complete\"");
            let hits = text.matches("event: hit\n").count();
            assert!(!complete || hits == 40, "{text}");
            complete
        });
    assert!(is_said);
}
