//! Every search is an event that must not be lost.

use crate::log;
use cancel_tree::{Context, Group, Member, Report};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use std::thread;

/// How many events may wait to be written. More come only if they are written more slowly than searches end, for seconds.
pub const ROOM: usize = 4096;

/// Writes events in the background, on a thread of its own: one that hangs keeps no search from a thread that it needs. Nobody waits for that, until the
/// end: [`shutdown`](Tracker::shutdown) waits for all, within a bound, and names those that were not written.
pub struct Tracker {
    /// Each event is a member until it is written.
    events: Group,
    queue: Sender<Event>,
    missing: Arc<Missing>,
}

/// Events that could not be written, or that there was no room for.
#[derive(Default)]
struct Missing {
    /// In the log, whole.
    in_log: AtomicU64,
    /// There was no room in the log either.
    lost: AtomicU64,
}

impl Missing {
    fn add(&self, says: &str) {
        let count = match log::event(says) {
            true => &self.in_log,
            false => &self.lost,
        };
        count.fetch_add(1, Relaxed);
    }
}

/// What is to be written, and its place.
struct Event(String, Member);

enum Sink {
    Out,
    /// And whether there is half a line at its end.
    File(PathBuf, File, bool),
}

/// How the events have ended.
pub struct Written {
    pub report: Report,
    /// So many could not be written, or there was no room for them; they are in the log, whole.
    pub in_log: u64,
    /// And so many are nowhere.
    pub lost: u64,
}

impl Written {
    pub fn is_all(&self) -> bool {
        self.report.stuck.is_empty() && self.in_log + self.lost == 0
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (in_log, lost, report) = (self.in_log, self.lost, &self.report);
        write!(f, "{in_log} in this log instead, {lost} lost; {report}")
    }
}

impl Tracker {
    /// Events are appended to the file, a line each; without one they go to the output. Up to `room` wait for it.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or the thread not be started.
    pub fn new(file: Option<&Path>, room: usize) -> io::Result<Tracker> {
        let to = match file {
            None => Sink::Out,
            Some(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                let has_half = ends_with_half(path, &file);
                Sink::File(path.to_owned(), file, has_half)
            }
        };
        let (queue, events) = channel();
        let missing = Arc::<Missing>::default();
        let thread = thread::Builder::new().name("events".into());
        thread.spawn({
            let missing = missing.clone();
            move || to.write(&events, &missing)
        })?;
        Ok(Tracker {
            events: Group::new(&Context::background().with_name("events")).limit(room),
            queue,
            missing,
        })
    }

    /// Accepts an event, and returns at once.
    pub fn event(&self, id: &str, line: String) {
        let refused = match self.events.named(format!("event {id}")).enter() {
            // Only what has a place is in the queue, so the places are its bound.
            Ok(place) => match self.queue.send(Event(line, place)) {
                Ok(()) => return,
                Err(error) => (error.0 .0, "nobody writes it".to_owned()),
            },
            Err(refused) => (line, refused.to_string()),
        };
        let (line, why) = refused;
        let says = format!("not written ({why}): the event {line}");
        self.missing.add(&says);
    }

    /// How many are not written yet.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// How many are in the log only, and how many are nowhere.
    pub fn missing(&self) -> (u64, u64) {
        let Missing { in_log, lost } = &*self.missing;
        (in_log.load(Relaxed), lost.load(Relaxed))
    }

    /// Waits until all are written, or until `limit` is done; what this returns names the others.
    pub fn shutdown(&self, limit: &Context) -> Written {
        let report = self.events.shutdown_blocking(limit);
        // Relaxed: of those whose place is given back, the end of the group has told.
        let (in_log, lost) = self.missing();
        Written {
            report,
            in_log,
            lost,
        }
    }
}

/// Whether the file is one whose last line is not whole: there was no room for the rest.
fn ends_with_half(path: &Path, file: &File) -> bool {
    let is_file = file.metadata().is_ok_and(|data| data.is_file());
    let last = || {
        let mut read = File::open(path)?;
        read.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        read.read_exact(&mut last)?;
        Ok::<_, io::Error>(last)
    };
    // An empty one has no last byte.
    is_file && last().is_ok_and(|last| last != *b"\n")
}

impl Sink {
    /// The thread's work, as long as events may come.
    fn write(mut self, events: &Receiver<Event>, missing: &Missing) {
        for Event(line, place) in events {
            if let Err(error) = self.line(&line) {
                missing.add(&format!(
                    "not written to {self} ({error}): the event {line}"
                ));
            }
            drop(place);
        }
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        let (file, has_half) = match self {
            Sink::Out => {
                // What is left in its buffer comes before the next line.
                let mut out = io::stdout().lock();
                out.write_all(format!("{line}\n").as_bytes())?;
                return out.flush();
            }
            Sink::File(_, file, has_half) => (file, has_half),
        };
        // One write of a file that is appended to: lines do not mix. A half one is not the beginning of the next.
        let begin = if *has_half { "\n" } else { "" };
        let whole = format!("{begin}{line}\n");
        let mut rest = whole.as_bytes();
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    *has_half = rest[count - 1] != b'\n';
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sink::Out => f.write_str("the output"),
            Sink::File(path, ..) => path.display().fmt(f),
        }
    }
}
