//! What is no question, and what is no command line.

mod common;

use common::{Answer, Dir, Server};
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

#[test]
fn a_bad_question_gets_a_sentence() {
    let dir = Dir::new(&[("a.txt", "tea")]);
    let server = Server::alone(&dir, &[]);
    for (query, says) in [
        ("", "What is to be found?"),
        ("?q=", "An empty q is found everywhere."),
        ("?q=tea&timeout=50", "for it has no unit"),
        ("?q=tea&timeout=soon", "is no length of time"),
        ("?q=tea&timeout=0", "In a timeout of 0"),
        ("?q=tea&timeout=-1s", "for it is negative"),
        ("?q=tea&timeout=100h", "A timeout may be 60s at most."),
        ("?q=tea&n=many", "is no number from 1 to 1000."),
        ("?q=%f", "two digits"),
        ("?q=tea&page=2", "There is no parameter \"page\""),
    ] {
        let answer = server.get(&format!("/search{query}"), "");
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert!(answer.body.contains(says), "{query}: {answer:?}");
        assert!(
            answer.body.ends_with(".\n") && answer.body.lines().count() == 1,
            "{answer:?}"
        );
        assert!(answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain"));
    }
    assert_eq!(
        server.get("/search?q=tea", "Accept: image/png\r\n").status,
        406
    );
    assert_eq!(server.get("/nowhere", "").status, 404);
    // None of these was a search.
    assert_eq!(server.metric("search_begun_total"), 0);
}

#[test]
fn what_is_not_http_does_no_harm() {
    let dir = Dir::new(&[("a.txt", "tea")]);
    let server = Server::alone(&dir, &[]);
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    for bytes in [
        "\0\r\n\r\n",
        "GET\r\n\r\n",
        "POST /search?q=tea HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        &long,
    ] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        // The other side may have closed before all of it came.
        let _ = stream.write_all(bytes.as_bytes());
        assert_ne!(Answer::read(stream).status, 200);
    }
    assert_eq!(server.get("/search?q=tea&timeout=30s", "").status, 200);
}

#[test]
fn a_bad_command_line_gets_a_sentence() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_search-server"))
            .args(args)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let here = env!("CARGO_MANIFEST_DIR");
    for (args, says) in [
        (
            &["--root", "/no/such/directory"][..],
            "cannot read /no/such/directory",
        ),
        (&["--root", here, "--slow", "1"], "has no unit"),
        (&["--listen", "here", "--root", here], "here"),
        (
            &["--root", here, "--events", "/no/such/directory/events"],
            "No such file",
        ),
        (&["--backends", "a b"], "is no HOST:PORT"),
        (
            &["--root", here, "--listen", "192.0.2.1:1"],
            "cannot listen on 192.0.2.1:1",
        ),
    ] {
        let (code, said) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
    }
    let (code, said) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(said.starts_with("A search server"), "{said}");
}
