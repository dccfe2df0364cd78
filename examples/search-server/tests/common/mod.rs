//! The server as a process, and a client by hand.
#![allow(dead_code)] // each test file takes what it needs

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::thread;
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;

/// What a busy machine may take for anything.
pub const BUSY: Duration = Duration::from_secs(30);

/// A directory that goes with this.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new(files: &[(&str, &str)]) -> Dir {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        // One that was left behind, by a process that had this one's number, keeps its name.
        let dir = loop {
            let number = LAST.fetch_add(1, Ordering::Relaxed);
            let name = format!("search-server-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => break made.map(|()| Dir(path)).unwrap(),
            }
        };
        for (name, text) in files {
            let path = dir.file(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// In the place of what has that name, if there is something.
    pub fn pipe(&self, name: &str) -> PathBuf {
        let path = self.file(name);
        let _ = fs::remove_file(&path);
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name ends with a zero, and is there during the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        path
    }

    /// A pipe that somebody could read, but does not, as long as what this returns is there; it is full to the last byte.
    pub fn full_pipe(&self, name: &str) -> (PathBuf, File) {
        let path = self.pipe(name);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true);
        let mut full = options.custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        while full.write(b"x").is_ok() {}
        (path, full)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port at which nobody listens, and which nobody else is given. Who asks for it by its number may listen there.
pub struct Port {
    _bound: TcpSocket,
    pub address: SocketAddr,
}

impl Port {
    pub fn new() -> Port {
        let bound = TcpSocket::new_v4().unwrap();
        // As every listener here has it: then both may be bound.
        bound.set_reuseaddr(true).unwrap();
        bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = bound.local_addr().unwrap();
        Port {
            _bound: bound,
            address,
        }
    }
}

/// A server that listens. It is killed when this goes.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    /// What it has said to both outputs, but for what was waited for.
    pub said: Vec<String>,
    pub address: SocketAddr,
}

impl Server {
    pub fn start(args: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_search-server"));
        command.args(args);
        Server::of(command)
    }

    /// What listens in the end, as a server does.
    pub fn of(mut command: Command) -> Server {
        command.stderr(Stdio::piped());
        Server::with_errors(command)
    }

    /// The same, with an error output that is set already.
    pub fn with_errors(mut command: Command) -> Server {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (say, lines) = channel();
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
        let err = child.stderr.take();
        let err = err.map(|err| Box::new(err) as Box<dyn Read + Send>);
        for output in [Some(out), err].into_iter().flatten() {
            let say = say.clone();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = say.send(line);
                }
            });
        }
        let mut server = Server {
            child,
            lines,
            said: Vec::new(),
            address: ([127, 0, 0, 1], 0).into(),
        };
        let line = server.wait_for("listening on http://");
        server.address = line["listening on http://".len()..].parse().unwrap();
        server
    }

    /// The front, which searches by itself.
    pub fn alone(dir: &Dir, args: &[&str]) -> Server {
        let front = ["--listen", "127.0.0.1:0", "--root", dir.path()];
        Server::start(&[&front, args].concat())
    }

    pub fn backend(dir: &Dir, args: &[&str]) -> Server {
        Server::start(&[&["serve-backend", "--root", dir.path()], args].concat())
    }

    /// The front of backends.
    pub fn front(backends: &[SocketAddr], args: &[&str]) -> Server {
        let backends: Vec<_> = backends.iter().map(ToString::to_string).collect();
        let backends = backends.join(",");
        let front = ["--listen", "127.0.0.1:0", "--backends", &backends];
        Server::start(&[&front, args].concat())
    }

    /// The first line that has it, of those that have not been waited for yet. The outputs come mixed, so it may have come before.
    pub fn wait_for(&mut self, text: &str) -> String {
        let until = Instant::now() + BUSY;
        loop {
            if let Some(at) = self.said.iter().position(|line| line.contains(text)) {
                return self.said.remove(at);
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.said.push(line),
                Err(error) => panic!("no {text:?} ({error}), but {:#?}", self.said),
            }
        }
    }

    /// Whether there has been such a line by now.
    pub fn has_said(&mut self, text: &str) -> bool {
        self.said.extend(self.lines.try_iter());
        self.said.iter().any(|line| line.contains(text))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: no memory is passed; it was not waited for, so the number is its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Waits for its end: the code, and all that it has said.
    pub fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let status = eventually("the end of the process", || self.child.try_wait().unwrap());
        let mut said = std::mem::take(&mut self.said);
        while let Ok(line) = self.lines.recv_timeout(BUSY) {
            said.push(line);
        }
        (status.code(), said)
    }

    /// A connection on which the request is sent.
    pub fn send(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(2 * BUSY)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    pub fn get(&self, path: &str, headers: &str) -> Answer {
        Answer::read(self.send(path, headers))
    }

    /// Hits as they come.
    pub fn events(&self, path: &str) -> Events {
        Events {
            stream: self.send(path, "Accept: text/event-stream\r\n"),
            seen: String::new(),
        }
    }

    /// The value of a metric, by its name and labels.
    pub fn metric(&self, name: &str) -> u64 {
        let answer = self.get("/metrics", "");
        value(&answer, name).unwrap_or_else(|| panic!("no {name} in {}", answer.body))
    }

    /// Asks again if there is no answer: a server that is not patient may hang up on a busy machine.
    pub fn wait_until(&self, name: &str, holds: impl Fn(u64) -> bool) {
        let is_so = |answer| holds(value(&answer, name)?).then_some(());
        eventually(name, || is_so(self.get("/metrics", "")));
    }
}

fn value(metrics: &Answer, name: &str) -> Option<u64> {
    let mut lines = metrics.body.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value?.parse().ok()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + BUSY;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not in half a minute: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn read(mut stream: TcpStream) -> Answer {
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nobody closes"),
            _ => {}
        }
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Answer {
            status: status.unwrap_or(0),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub struct Events {
    stream: TcpStream,
    seen: String,
}

impl Events {
    /// The data of the next event of that name.
    pub fn wait_for(&mut self, name: &str) -> serde_json::Value {
        let begin = format!("event: {name}\ndata: ");
        loop {
            if let Some(at) = self.seen.find(&begin) {
                let data = &self.seen[at + begin.len()..];
                if let Some(end) = data.find("\n\n") {
                    let json = serde_json::from_str(&data[..end]).unwrap();
                    self.seen = data[end..].to_owned();
                    return json;
                }
            }
            let mut bytes = [0; 4096];
            let read = self.stream.read(&mut bytes).unwrap();
            assert_ne!(read, 0, "no {name} in {}", self.seen);
            self.seen += &String::from_utf8_lossy(&bytes[..read]);
        }
    }
}

/// The lines of a file of events.
pub fn events_in(file: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}
