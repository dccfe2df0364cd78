//! Events that are hard to write: each is written, or named, or counted.

mod common;

use common::{eventually, Dir, Server, BUSY};
use libc::{SIGINT, SIGTERM};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

fn command(dir: &Dir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_search-server"));
    let front = [
        "--listen",
        "127.0.0.1:0",
        "--lame-duck",
        "0s",
        "--root",
        dir.path(),
    ];
    command.args(front).args(args);
    command
}

/// Files of the process may have so many bytes.
fn longest_file(process: i32, bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the limit is there during the call, and nothing is written.
    let done = unsafe { libc::prlimit(process, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
    assert_eq!(done, 0);
}

#[test]
fn half_an_event_does_not_spoil_the_next() {
    let (dir, out) = (Dir::new(&[("a.txt", "tea")]), Dir::new(&[]));
    let file = out.file("events");
    // What another process could not write whole.
    fs::write(&file, "{\"whole\":1}\n{\"half").unwrap();
    let mut command = command(&dir, &["--events", file.to_str().unwrap()]);
    // SAFETY: one call between fork and exec, which needs nothing. Otherwise a file that is too long ends the process.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            Ok(())
        })
    };
    let mut server = Server::of(command);
    let ask = |server: &Server, number: u32| {
        let id = format!("X-Request-Id: number-{number}\r\n");
        assert_eq!(server.get("/search?q=tea&timeout=30s", &id).status, 200);
    };
    ask(&server, 0);
    // The answer does not wait for the event.
    let length = eventually("the event", || {
        let text = fs::read_to_string(&file).unwrap();
        let is_whole = text.contains("number-0") && text.ends_with('\n');
        is_whole.then_some(text.len() as u64)
    });
    longest_file(server.id() as i32, length + 20);
    for number in 1..=2 {
        ask(&server, number);
        let line = server.wait_for("not written to ");
        assert!(line.contains(&format!("number-{number}")), "{line}");
    }
    longest_file(server.id() as i32, libc::RLIM_INFINITY);
    ask(&server, 3);
    server.signal(SIGINT);
    let (code, said) = server.ended();
    assert_eq!(code, Some(1), "{said:#?}");
    let lost = "events: 2 in this log instead, 0 lost; ";
    assert!(said.iter().any(|line| line.starts_with(lost)), "{said:#?}");
    let text = fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(serde_json::from_str::<serde_json::Value>);
    let ids = lines.map(|line| {
        line.ok()
            .map(|event| event["id"].as_str().map(String::from))
    });
    let ids: Vec<_> = ids.collect();
    let number = |number: u32| Some(Some(format!("number-{number}")));
    // None: half a line.
    assert_eq!(
        ids,
        [Some(None), None, number(0), None, number(3)],
        "{text}"
    );
}

#[test]
fn a_signal_more_does_not_keep_the_events_from_being_named() {
    let (dir, out) = (Dir::new(&[("a.txt", "tea")]), Dir::new(&[]));
    let (pipe, _full) = out.full_pipe("pipe");
    let mut server = Server::of(command(&dir, &["--events", pipe.to_str().unwrap()]));
    let id = "X-Request-Id: number-1\r\n";
    assert_eq!(server.get("/search?q=tea&timeout=30s", id).status, 200);
    server.wait_until("search_events", |count| count == 1);
    server.signal(SIGTERM);
    // The events are waited for now, or will be in a moment.
    server.wait_for("the server ended by itself");
    thread::sleep(Duration::from_millis(200));
    server.signal(SIGTERM);
    let (code, said) = server.ended();
    assert_eq!(code, Some(1), "{said:#?}");
    let says = "stuck: event number-1 (";
    assert!(said.iter().any(|line| line.contains(says)), "{said:#?}");
}

/// Asks again and again, on one connection, and waits for the line of each answer.
fn ask(server: &Server, times: u64, question: impl Fn(u64) -> String, begins: &str) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(2 * BUSY)).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for number in 0..times {
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nX-Request-Id: number-{number}-\r\n\r\n",
            question(number)
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut line = String::new();
        while !line.starts_with(begins) {
            line.clear();
            assert_ne!(answers.read_line(&mut line).unwrap(), 0);
        }
    }
}

/// Neither the events nor the log are written, until the end has begun.
#[test]
fn events_and_the_end_are_said_in_a_full_log() {
    let (dir, out) = (Dir::new(&[("a.txt", "tea")]), Dir::new(&[]));
    let (pipe, _full) = out.full_pipe("pipe");
    let (errors, mut log) = out.full_pipe("errors");
    let mut command = command(&dir, &["--events", pipe.to_str().unwrap()]);
    command.stderr(OpenOptions::new().write(true).open(&errors).unwrap());
    let server = Server::with_errors(command);
    // The log is full then, and so is the room for events, but for what is there for those that have none.
    let (room, more) = (4096, 100);
    let question = |_| "/search?q=tea&timeout=30s".to_owned();
    ask(&server, room + more, question, "{\"complete\":true");
    server.wait_until("search_events_in_log_total", |count| count == more);
    assert_eq!(server.metric("search_events_lost_total"), 0);
    assert!(server.metric("search_log_lost_total") > 0);
    server.signal(SIGTERM);
    let end = thread::spawn(move || server.ended());
    let said = read_until(&mut log, || end.is_finished());
    assert_eq!(end.join().unwrap().0, Some(1));
    assert!(said.contains("SIGTERM: ended in "));
    assert!(said.contains(&format!("events: {more} in this log instead, 0 lost; ")));
    let events = said.lines().filter(|line| line.contains("event "));
    let events: Vec<_> = events.collect();
    let events = events.concat();
    for number in 0..room + more {
        assert!(
            events.contains(&format!("number-{number}-"))
                || events.contains(&format!("number-{number} ")),
            "{number}"
        );
    }
}

/// What comes, until there is nothing left and it is over.
fn read_until(pipe: &mut File, is_over: impl Fn() -> bool) -> String {
    let mut said = Vec::new();
    let mut bytes = [0; 1 << 16];
    loop {
        let over = is_over();
        match pipe.read(&mut bytes) {
            Ok(read @ 1..) => said.extend_from_slice(&bytes[..read]),
            _ if over => return String::from_utf8_lossy(&said).into_owned(),
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}
