//! Each of the servers answers, and ends well after a signal.

use processes::{rest, Process, INT};
use std::io::Read;
use std::time::Duration;

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
