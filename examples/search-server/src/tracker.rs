//! Every search is an event that must not be lost.

use crate::log;
use cancel_tree::{Context, Group, Member, Report};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
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
    lost: Arc<AtomicU64>,
}

/// What is to be written, and its place.
struct Event(String, Member);

enum Sink {
    Out,
    File(PathBuf, File),
}

/// How the events have ended.
pub struct Written {
    pub report: Report,
    /// So many could not be written, or there was no room for them. Each of them is in the log, whole.
    pub lost: u64,
}

impl Written {
    pub fn is_all(&self) -> bool {
        self.report.stuck.is_empty() && self.lost == 0
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in this log instead; {}", self.lost, self.report)
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
                Sink::File(path.to_owned(), file)
            }
        };
        let (queue, events) = channel();
        let lost = Arc::new(AtomicU64::new(0));
        let thread = thread::Builder::new().name("events".into());
        thread.spawn({
            let lost = lost.clone();
            move || to.write(&events, &lost)
        })?;
        Ok(Tracker {
            events: Group::new(&Context::background().with_name("events")).limit(room),
            queue,
            lost,
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
        self.lost.fetch_add(1, Relaxed);
        log::plain(&format!("not written ({why}): the event {line}"));
    }

    /// How many are not written yet.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// How many are in the log only.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Waits until all are written, or until `limit` is done; what this returns names the others.
    pub fn shutdown(&self, limit: &Context) -> Written {
        let report = self.events.shutdown_blocking(limit);
        // Relaxed: of those whose place is given back, the end of the group has told.
        let lost = self.lost();
        Written { report, lost }
    }
}

impl Sink {
    /// The thread's work, as long as events may come.
    fn write(self, events: &Receiver<Event>, lost: &AtomicU64) {
        for Event(line, place) in events {
            let whole = line + "\n";
            let written = match &self {
                Sink::Out => io::stdout().lock().write_all(whole.as_bytes()),
                // One write of a file that is appended to: lines do not mix.
                Sink::File(_, file) => { file }.write_all(whole.as_bytes()),
            };
            if let Err(error) = written {
                lost.fetch_add(1, Relaxed);
                let line = whole.trim_end();
                log::plain(&format!(
                    "not written to {self} ({error}): the event {line}"
                ));
            }
            drop(place);
        }
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sink::Out => f.write_str("the output"),
            Sink::File(path, _) => path.display().fmt(f),
        }
    }
}
