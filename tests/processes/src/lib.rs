//! What the processes and their tests share.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const TERM: i32 = libc::SIGTERM;
pub const INT: i32 = libc::SIGINT;

/// The header of the hops' deadlines, and what each keeps of the time.
pub const BUDGET: &str = "x-budget-ms";
pub const RESERVE: Duration = Duration::from_millis(200);

/// What a busy machine may add.
pub const BUSY: Duration = Duration::from_secs(30);

/// A line, whole, even if the process ends right after it.
pub fn say(line: &str) {
    let _ = std::io::stdout()
        .lock()
        .write_all(format!("{line}\n").as_bytes());
}

pub fn since_epoch() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_micros()
}

/// As many descriptors as there may be; returns how many.
pub fn raise_descriptors() -> u64 {
    // SAFETY: the struct is there, and is written before it is read.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        limit.rlim_cur
    }
}

/// No more than so many, from here on.
pub fn limit_descriptors(most: u64) {
    // SAFETY: the struct is there, and is written before it is read.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = most.min(limit.rlim_max);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

/// A process, and what it says. It is killed when this goes.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    pub said: Vec<String>,
    pub port: u16,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub said: Vec<String>,
    pub took: Duration,
}

impl Process {
    /// Starts it, without waiting for anything.
    pub fn start(program: &str, args: &[&str]) -> Process {
        let mut command = Command::new(program);
        command.args(args);
        Process::of(command)
    }

    /// One whose errors nobody reads any more.
    pub fn unread(program: &str) -> Process {
        let mut command = Command::new(program);
        command.stderr(Stdio::piped());
        let mut process = Process::of(command);
        drop(process.child.stderr.take());
        process.listen();
        process
    }

    fn of(mut command: Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (say, lines) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        Process {
            child,
            lines,
            said: Vec::new(),
            port: 0,
        }
    }

    /// Starts it, and waits until it listens.
    pub fn listening(program: &str, args: &[&str]) -> Process {
        let mut process = Process::start(program, args);
        process.listen();
        process
    }

    pub fn listen(&mut self) {
        let line = self.wait_for("listening ");
        self.port = line["listening ".len()..].parse().unwrap();
    }

    /// The next line that begins so. What comes before it is kept in `said`.
    pub fn wait_for(&mut self, prefix: &str) -> String {
        let until = Instant::now() + BUSY;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.starts_with(prefix) {
                        return line;
                    }
                }
                Err(error) => panic!("no {prefix:?} ({error}), but {:?}", self.said),
            }
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: no memory is passed; it was not waited for, so the number is its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it has ended: at most as long, and what a busy machine adds.
    pub fn ended_within(mut self, bound: Duration) -> Ended {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                begin.elapsed() < bound + BUSY,
                "it goes on; it has said {:?} {:?}",
                self.said,
                self.lines.try_iter().collect::<Vec<_>>()
            );
            thread::sleep(Duration::from_millis(2));
        };
        let took = begin.elapsed();
        // Its end of the pipe is closed: all that it has said comes.
        let mut said = std::mem::take(&mut self.said);
        loop {
            match self.lines.recv_timeout(BUSY) {
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("somebody else has its pipe"),
            }
        }
        Ended {
            code: status.code(),
            said,
            took,
        }
    }

    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// A connection on which the request has been sent.
    pub fn request(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = self.connect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// The whole answer, on a connection of its own.
    pub fn get(&self, path: &str, headers: &str) -> String {
        let stream = self.request(path, &format!("Connection: close\r\n{headers}"));
        rest(stream)
    }

    /// A request that its handler has begun with.
    pub fn begin(&mut self, path: &str) -> TcpStream {
        let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let is_socket = path.starts_with("/socket") || path.starts_with("/mute");
        let mut stream = self.request(path, if is_socket { upgrade } else { "" });
        self.wait_for(&format!("started {path}"));
        if is_socket {
            // The upgrade is through.
            let head = "HTTP/1.1 101";
            let mut read = vec![0; head.len()];
            stream.read_exact(&mut read).unwrap();
            assert_eq!(read, head.as_bytes());
        }
        stream
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes until the other side closes, or cuts.
pub fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    stream.set_read_timeout(Some(BUSY + BUSY)).unwrap();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nobody closes"),
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

impl Ended {
    /// What follows this in the lines that begin so.
    pub fn all(&self, prefix: &str) -> Vec<&str> {
        let lines = self.said.iter();
        lines.filter_map(|line| line.strip_prefix(prefix)).collect()
    }

    /// The names of those that are stuck, in order.
    pub fn stuck(&self) -> Vec<&str> {
        let mut stuck = self.all("stuck ");
        stuck.sort_unstable();
        stuck
    }

    pub fn phases(&self) -> Vec<&str> {
        self.lengths().into_iter().map(|(phase, _)| phase).collect()
    }

    /// The phases, and how many milliseconds each has taken.
    pub fn lengths(&self) -> Vec<(&str, u64)> {
        let phases = self.all("phase ").into_iter();
        let phases = phases.map(|line| line.split_once(": ").unwrap());
        phases
            .map(|(phase, took)| (phase, took.parse().unwrap()))
            .collect()
    }
}
