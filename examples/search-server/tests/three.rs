//! The script that starts three backends and the front.

mod common;

use common::{eventually, Dir, Server, BUSY};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

#[test]
fn three_backends_and_the_front_begin_and_end_together() {
    let names: Vec<_> = (0..30).map(|number| format!("{number}.txt")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "tea")).collect();
    let (dir, said) = (Dir::new(&files), Dir::new(&[]));
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/three.sh"));
    script.args(["--listen", "127.0.0.1:0"]);
    script.env("SERVER", env!("CARGO_BIN_EXE_search-server"));
    script.env("ROOT", dir.path()).env("TMPDIR", said.path());
    let front = Server::of(script);
    let json = front.get("/search?q=tea&timeout=30s", "").json();
    assert_eq!(
        (&json["complete"], &json["count"]),
        (&true.into(), &30.into())
    );
    // Each has said where it listens; that is kept until the end.
    let kept = fs::read_dir(&said.0)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let backends: Vec<SocketAddr> = ["1", "2", "3"]
        .iter()
        .map(|number| {
            let text = fs::read_to_string(kept.join(number)).unwrap();
            let address = text.trim().strip_prefix("listening on http://");
            address.unwrap().parse().unwrap()
        })
        .collect();
    for backend in &backends {
        TcpStream::connect(backend).unwrap();
    }
    front.signal(libc::SIGTERM);
    let (code, said_last) = front.ended();
    assert_eq!(code, Some(130), "{said_last:#?}");
    for backend in &backends {
        eventually("the end of a backend", || {
            TcpStream::connect_timeout(backend, BUSY).err()
        });
    }
    assert_eq!(fs::read_dir(&said.0).unwrap().count(), 0);
}
