//! How it ends: signals, bounds, and the events that must not be lost.

mod common;

use common::{events_in, eventually, Answer, Dir, Server, BUSY};
use libc::{SIGINT, SIGTERM};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

const NOW: [&str; 4] = ["--lame-duck", "0s", "--graceful", "100h"];

fn tea() -> Dir {
    Dir::new(&[("a.txt", "tea")])
}

#[test]
fn a_lame_duck_still_searches() {
    let dir = tea();
    let server = Server::alone(&dir, &["--lame-duck", "100h"]);
    assert_eq!(server.get("/healthz", "").status, 200);
    server.signal(SIGTERM);
    eventually("a no of /healthz", || {
        let answer = server.get("/healthz", "");
        (answer.status == 503).then(|| assert_eq!(answer.body, "the server ends\n"))
    });
    assert_eq!(server.get("/search?q=tea&timeout=30s", "").status, 200);
    // The second signal goes on to the end.
    server.signal(SIGTERM);
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said:#?}");
    assert!(
        said.iter().any(|line| line.contains("SIGTERM")),
        "{said:#?}"
    );
}

#[test]
fn what_is_under_way_may_finish() {
    // Long enough to be met in the middle, in one of the attempts.
    let is_met = ["2s", "8s", "32s"].into_iter().any(finishes_when_met);
    assert!(is_met, "nobody works");
}

/// Whether the one file was searched when the signal came.
fn finishes_when_met(slow: &str) -> bool {
    let dir = tea();
    let server = Server::alone(&dir, &[&["--slow", slow], &NOW[..]].concat());
    let search = server.send("/search?q=tea&timeout=60s", "");
    let is_met = eventually("work, or the end of it", || {
        let works = server.metric("search_working") > 0;
        let ended = server.metric("search_ended_total{by=\"complete\"}") > 0;
        (works || ended).then_some(works)
    });
    server.signal(SIGTERM);
    let answer = Answer::read(search);
    assert_eq!(
        (answer.status, &answer.json()["ended"]),
        (200, &"complete".into())
    );
    assert_eq!(server.ended().0, Some(0));
    is_met
}

#[test]
fn what_does_not_finish_is_told() {
    // All have a second to stop, which is enough in one of the attempts.
    assert!((0..4).any(|_| is_told_and_stops()), "they do not stop");
}

/// Whether those who work have stopped within that second.
fn is_told_and_stops() -> bool {
    let dir = tea();
    let args = ["--slow", "100h", "--lame-duck", "0s", "--graceful", "100ms"];
    let server = Server::alone(&dir, &args);
    let mut page = server.events("/search?q=tea&timeout=60s");
    let program = server.send("/search?q=tea&timeout=60s", "");
    server.wait_until("search_tasks", |count| count >= 4);
    server.signal(SIGINT);
    let end = page.wait_for("end");
    assert_eq!(end["ended"], "shutdown");
    assert_eq!(
        end["says"],
        "The server ends: this is what was found until then."
    );
    let stopped = page.wait_for("stopped");
    if !stopped["stop_us"].is_u64() {
        assert!(stopped["missing"].is_array(), "{stopped}");
        return false;
    }
    let answer = Answer::read(program);
    assert_eq!(
        (answer.status, &answer.json()["ended"]),
        (503, &"shutdown".into())
    );
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said:#?}");
    let events = said
        .iter()
        .filter(|line| line.contains("\"ended\":\"shutdown\""));
    assert_eq!(events.count(), 2, "{said:#?}");
    true
}

#[test]
fn no_event_is_lost_by_a_signal_in_the_middle() {
    let (dir, out) = (tea(), Dir::new(&[]));
    let file = out.file("events");
    let args = ["--lame-duck", "0s", "--events", file.to_str().unwrap()];
    let server = Server::alone(&dir, &args);
    let address = server.address;
    let askers = [0, 1, 2, 3].map(|asker| {
        std::thread::spawn(move || {
            let mut answered = Vec::new();
            // Until nobody listens any more.
            for number in 0.. {
                let id = format!("{asker}-{number}");
                let Ok(mut stream) = TcpStream::connect(address) else {
                    break;
                };
                let head = format!(
                    "GET /search?q=tea&timeout=30s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: {id}\r\n\r\n"
                );
                if stream.write_all(head.as_bytes()).is_err() {
                    break;
                }
                if Answer::read(stream).status == 200 {
                    answered.push(id);
                }
            }
            answered
        })
    });
    server.wait_until("search_ended_total{by=\"complete\"}", |count| count > 100);
    server.signal(SIGTERM);
    let answered: Vec<_> = askers
        .into_iter()
        .flat_map(|asker| asker.join().unwrap())
        .collect();
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said:#?}");
    let mut written: Vec<_> = events_in(&file)
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    written.sort_unstable();
    let all = written.len();
    written.dedup();
    assert_eq!(written.len(), all, "written twice");
    for id in &answered {
        assert!(
            written.binary_search(id).is_ok(),
            "{id} of {} is lost",
            answered.len()
        );
    }
    assert!(answered.len() > 50, "{}", answered.len());
}

#[test]
fn an_event_that_cannot_be_written_is_named() {
    let (dir, out) = (tea(), Dir::new(&[]));
    let (pipe, _full) = out.full_pipe("pipe");
    let args = ["--lame-duck", "0s", "--events", pipe.to_str().unwrap()];
    let server = Server::alone(&dir, &args);
    // More than tokio has threads for blocking work.
    let all = 601;
    for number in 1..=all {
        let id = format!("X-Request-Id: number-{number}\r\n");
        let answer = server.get("/search?q=tea&timeout=30s", &id);
        // The answer does not wait for it, nor does any search after it.
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["count"], 1, "{number}: {answer:?}");
    }
    server.wait_until("search_events", |count| count == all);
    server.signal(SIGTERM);
    let (code, said) = server.ended();
    assert_eq!(code, Some(1), "{said:#?}");
    for number in 1..=all {
        let says = format!("stuck: event number-{number} (");
        let named = said.iter().any(|line| line.contains(&says));
        assert!(named, "{number}: {said:#?}");
    }
}

#[test]
fn an_event_that_has_no_room_is_named() {
    let (dir, out) = (tea(), Dir::new(&[]));
    let (pipe, _full) = out.full_pipe("pipe");
    let args = ["--lame-duck", "0s", "--events", pipe.to_str().unwrap()];
    let mut server = Server::alone(&dir, &args);
    // As many as there are places, and some more.
    let (room, more) = (4096, 10);
    let address = server.address;
    let askers: Vec<_> = (0..4)
        .map(|asker| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(2 * BUSY)).unwrap();
                let mut answers = BufReader::new(stream.try_clone().unwrap());
                for number in (asker..room + more).step_by(4) {
                    let head = format!("GET /search?q=tea&timeout=30s HTTP/1.1\r\nHost: x\r\nX-Request-Id: number-{number}-\r\n\r\n");
                    stream.write_all(head.as_bytes()).unwrap();
                    let mut line = String::new();
                    while !line.starts_with("{\"complete\":true") {
                        line.clear();
                        assert_ne!(answers.read_line(&mut line).unwrap(), 0);
                    }
                }
            })
        })
        .collect();
    for asker in askers {
        asker.join().unwrap();
    }
    server.wait_until("search_events_in_log_total", |count| count == more);
    assert_eq!(server.metric("search_events"), room);
    let mut named = String::new();
    for _ in 0..more {
        named += &server.wait_for("not written (");
    }
    server.signal(SIGTERM);
    let (code, said) = server.ended();
    assert_eq!(code, Some(1), "{said:#?}");
    let lost = format!("events: {more} in this log instead, 0 lost; ");
    assert!(said.iter().any(|line| line.starts_with(&lost)), "{said:#?}");
    named += &said.concat();
    for number in 0..room + more {
        assert!(named.contains(&format!("number-{number}-")), "{number}");
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (dir, out) = (tea(), Dir::new(&[]));
    let (pipe, mut full) = out.full_pipe("pipe");
    let mut command = Command::new(env!("CARGO_BIN_EXE_search-server"));
    let errors = OpenOptions::new().write(true).open(&pipe).unwrap();
    command.stderr(errors);
    command.args([
        "--listen",
        "127.0.0.1:0",
        "--root",
        dir.path(),
        "--lame-duck",
        "0s",
    ]);
    let server = Server::with_errors(command);
    // More than there is room for, a line for each.
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(2 * BUSY)).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..4096 + 10 {
        stream
            .write_all(b"GET /search HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut line = String::new();
        while !line.starts_with("What is to be found?") {
            line.clear();
            assert_ne!(answers.read_line(&mut line).unwrap(), 0);
        }
    }
    let answer = server.get("/search?q=tea&timeout=30s", "");
    assert_eq!(answer.json()["count"], 1, "{answer:?}");
    assert!(server.metric("search_log_lost_total") > 0);
    // Somebody reads, and learns of it.
    let mut said = Vec::new();
    eventually("what is missing", || {
        let mut bytes = [0; 1 << 16];
        while let Ok(read @ 1..) = full.read(&mut bytes) {
            said.extend_from_slice(&bytes[..read]);
        }
        let text = String::from_utf8_lossy(&said);
        let told = text.lines().filter_map(|line| {
            let number = line.strip_suffix(" lines of the log are missing")?;
            number.parse::<u64>().ok()
        });
        // The search's own line came after its answer.
        let is_all = told.sum::<u64>() == server.metric("search_log_lost_total");
        (is_all && text.matches("What is to be found?").count() > 4000).then_some(())
    });
    // And does not any more.
    while full.write(b"x").is_ok() {}
    assert_eq!(server.get("/search?q=tea&timeout=30s", "").status, 200);
    server.signal(SIGTERM);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_backend_ends_well_too() {
    let dir = tea();
    let mut backend = Server::backend(
        &dir,
        &["--slow", "100h", "--lame-duck", "0s", "--graceful", "100ms"],
    );
    let front = Server::front(&[backend.address], &[]);
    let search = front.send("/search?q=tea&timeout=60s", "X-Request-Id: late\r\n");
    // It is asked when it holds the request; its log says no more than that it is over.
    eventually("a task", || {
        (front.metric("search_tasks") > 0).then_some(())
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    backend.signal(SIGTERM);
    let answer = Answer::read(search);
    assert_eq!(answer.status, 502, "{answer:?}");
    backend.wait_for("SIGTERM");
    assert_eq!(backend.ended().0, Some(0));
}
