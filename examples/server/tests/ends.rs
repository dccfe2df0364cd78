//! Each of the servers answers, and ends well after a signal.

use processes::{rest, Process, INT, TERM};
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn with_axum() {
    let server = Process::listening(env!("CARGO_BIN_EXE_with-axum"), &[]);
    assert!(server.get("/ready", "").starts_with("HTTP/1.1 200"));
    let mut ticks = server.request("/ticks", "");
    ticks.read_exact(&mut [0; 12]).unwrap();
    let report = server.request("/report", "");
    server.get("/ready", "");
    server.signal(INT);
    assert!(rest(ticks).ends_with("0\r\n\r\n"));
    // Nothing, if the machine is so busy that it was not read before the signal.
    let report = rest(report);
    assert!(
        report.ends_with("all is well\n") || report.is_empty(),
        "{report}"
    );
    assert_eq!(server.ended_within(Duration::from_secs(15)).code, Some(0));
}

#[test]
fn with_hyper() {
    let server = Process::listening(env!("CARGO_BIN_EXE_with-hyper"), &[]);
    assert!(server.get("/", "").ends_with("hello\n"));
    let silent = server.connect();
    server.signal(INT);
    assert_eq!(server.ended_within(Duration::from_secs(15)).code, Some(0));
    drop(silent);
}

/// A stream goes on beyond the time that requests have, which is ten seconds.
#[test]
fn ticks_have_no_timeout() {
    let server = Process::listening(env!("CARGO_BIN_EXE_with-axum"), &[]);
    let mut ticks = server.request("/ticks", "");
    let begin = Instant::now();
    let mut all = Vec::new();
    while begin.elapsed() < Duration::from_secs(11) {
        let mut some = [0; 256];
        let read = ticks.read(&mut some).unwrap();
        all.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&all);
        assert!(read > 0 && !text.ends_with("\r\n0\r\n\r\n"), "{text}");
    }
    server.signal(INT);
    assert!(rest(ticks).ends_with("0\r\n\r\n"));
    assert_eq!(server.ended_within(Duration::from_secs(15)).code, Some(0));
}

/// The second signal cancels the requests, and whoever tidies up after that may answer.
#[test]
fn a_cancelled_request_may_still_answer() {
    // Long enough to begin with it, and then quick enough, in one of the attempts.
    let is_answered = (0..5).any(|n| {
        let server = Process::listening(env!("CARGO_BIN_EXE_with-hyper"), &[]);
        let waits = server.request("/wait", "");
        thread::sleep(Duration::from_millis(100 << n));
        server.signal(INT);
        // Another one: two of a kind may be one.
        server.signal(TERM);
        let answer = rest(waits);
        let ended = server.ended_within(Duration::from_secs(25));
        answer.ends_with("tidied up\n") && ended.code == Some(0)
    });
    assert!(is_answered);
}

/// Nobody reads its errors any more, as when what has started it has gone: it ends as others do.
#[test]
fn the_report_cannot_be_written() {
    for program in [
        env!("CARGO_BIN_EXE_with-axum"),
        env!("CARGO_BIN_EXE_with-hyper"),
    ] {
        let server = Process::unread(program);
        server.signal(INT);
        assert_eq!(server.ended_within(Duration::from_secs(15)).code, Some(0));
    }
}
