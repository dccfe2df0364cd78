//! What cannot be read: the answer says so, and does not call itself complete.

mod common;

use common::{Dir, Server};
use std::fs;
use std::os::unix::fs::symlink;

fn tea() -> Dir {
    Dir::new(&[("a.txt", "tea"), ("b.txt", "tea"), ("c.txt", "tea")])
}

/// In the place of a file that was listed: one that nobody can open, whoever it is.
fn unreadable(dir: &Dir, name: &str) {
    let path = dir.file(name);
    fs::remove_file(&path).unwrap();
    symlink(name, path).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_said() {
    let dir = tea();
    let alone = Server::alone(&dir, &[]);
    let backend = Server::backend(&dir, &[]);
    let front = Server::front(&[backend.address], &[]);
    unreadable(&dir, "a.txt");
    unreadable(&dir, "b.txt");
    for mut server in [alone, front] {
        let answer = server.get("/search?q=tea&timeout=30s", "");
        let json = answer.json();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(json["complete"], false);
        assert_eq!(
            (&json["ended"], &json["count"]),
            (&"unreadable".into(), &1.into())
        );
        let says = "All has been searched, but for what could not be read: 2 of the files and directories.";
        assert_eq!(json["says"], says);
        server.wait_for("\"ended\":\"unreadable\"");
        server.wait_until("search_ended_total{by=\"unreadable\"}", |count| count == 1);
    }
}

#[test]
fn a_file_that_is_gone_has_no_lines() {
    let dir = tea();
    let server = Server::alone(&dir, &[]);
    fs::remove_file(dir.file("a.txt")).unwrap();
    let json = server.get("/search?q=tea&timeout=30s", "").json();
    assert_eq!(
        (&json["complete"], &json["count"]),
        (&true.into(), &2.into())
    );
}

#[test]
fn a_root_that_cannot_be_read_may_come_back() {
    let (dir, other) = (tea(), Dir::new(&[]));
    let server = Server::alone(&dir, &[]);
    let away = other.file("away");
    fs::rename(&dir.0, &away).unwrap();
    // It is there, and nobody can tell what it is.
    symlink(&dir.0, &dir.0).unwrap();
    let json = server.get("/search?q=tea&timeout=30s", "").json();
    assert_eq!(
        (&json["complete"], &json["ended"]),
        (&false.into(), &"unreadable".into())
    );
    assert_eq!(server.get("/healthz", "").status, 200);
    fs::remove_file(&dir.0).unwrap();
    fs::rename(&away, &dir.0).unwrap();
    let json = server.get("/search?q=tea&timeout=30s", "").json();
    assert_eq!(
        (&json["complete"], &json["count"]),
        (&true.into(), &3.into())
    );
}
